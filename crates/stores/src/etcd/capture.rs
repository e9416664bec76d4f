//! The capture: the snapshot as it is, then the list of its keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, Consistency, ConsistencyLevel, DATA, Entry, Layout, META, Meta,
};
use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::time::{Clock, Timestamp};
use lifeboat_etcd::{Client, Content, Snapshot, read_content};
use serde_json::{Value, json};

use super::error::{etcd, inside};
use super::manifest::{KEYS, Row, Summary};
use super::source::{Ready, Taken};
use crate::spool::{Sealed, Spool};

/// The snapshot's name below `data`, and in a restored folder.
pub(crate) const SNAPSHOT: &str = "snapshot.db";
/// Names of facts.
pub(crate) const SUM: &str = "keys";
pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const HASH_KV: &str = "hashkv";
pub(crate) const DIGEST: &str = "snapshot_sha256";
pub(crate) const REVISION: &str = "revision";
pub(crate) const COMPACTED: &str = "compact_revision";
pub(crate) const CLUSTER: &str = "cluster_id";
pub(crate) const AUTH: &str = "auth_enabled";
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The page size of nearly all databases of etcd; where another is used, chunks are only less well aligned.
const PAGE_BYTES: u32 = 4096;

enum Stage {
    Take(Ready),
    Data(Snapshot, Sealed),
    Snapshot(Snapshot, Sealed),
    Meta(Sealed),
    Done,
    Broken(String),
}

pub(crate) struct EtcdCapture {
    stage: Stage,
    spool: PathBuf,
    /// The cluster of the point before.
    known: Vec<String>,
    clock: Arc<dyn Clock>,
    facts: Option<CaptureFacts>,
    moment: Timestamp,
}

impl EtcdCapture {
    /// `now` was read off the caller's clock before this call: the snapshot is taken later, and has every change committed
    /// before. `clock` measures how long things take.
    pub(crate) fn start(
        ready: Ready,
        (spool, known): (&Path, &[String]),
        now: Timestamp,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (spool, known) = (spool.to_owned(), known.to_vec());
        Self { stage: Stage::Take(ready), spool, known, clock, facts: None, moment: now }
    }

    /// Takes the snapshot and reads all of it.
    fn take(&mut self, ready: Ready, monitor: &dyn Monitor) -> Result<(Snapshot, Sealed), Failure> {
        let Taken { snapshot, notes, client } = ready.take(&self.spool, self.clock.as_ref(), monitor)?;
        monitor.phase("reading the keys", None);
        let mut list = Spool::create(&self.spool)?;
        let mut summary = Summary::default();
        let content = read_content(snapshot.database(), &|| monitor.cancelled(), &mut |pair| {
            let row = Row::of(&pair);
            summary.add(&row);
            let line = row.line().map_err(|error| {
                inside(Failure::with_source(FailureKind::Internal, "failed to write a key", error))
            })?;
            list.push(&line).map_err(inside)
        })
        .map_err(etcd("the snapshot cannot be read"))?;
        let list = list.seal()?;
        let mut environment: BTreeMap<String, Value> =
            notes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        environment.insert("hashkv_of_the_server".to_owned(), confirm(client, &content, monitor));
        if let Some(cluster) = environment.get(CLUSTER).and_then(Value::as_str) {
            self.compare(cluster, monitor);
        }
        describe(&snapshot, &content, &mut environment);
        let mut counts = summary.counts.clone();
        counts.entry(SUM.to_owned()).or_default();
        counts.insert("leases".to_owned(), content.leases.len() as u64);
        counts.insert("users".to_owned(), content.auth.user_count);
        counts.insert("roles".to_owned(), content.auth.role_count);
        let checksums = BTreeMap::from([
            (SUM.to_owned(), summary.sum()),
            (MANIFEST.to_owned(), format!("sha256:{}", list.digest())),
            (HASH_KV.to_owned(), format!("crc32c:{:08x}", content.hash_kv)),
        ]);
        self.facts = Some(CaptureFacts {
            consistency: Consistency {
                level: ConsistencyLevel::PointInTime,
                moment: self.moment,
                position: Some(format!("revision:{}", content.revision)),
                changes: 0,
            },
            logical_bytes: snapshot.length_bytes(),
            counts,
            checksums,
            environment,
            unreadable: Vec::new(),
        });
        Ok((snapshot, list))
    }

    /// Another cluster is no reason to have no backup: one that was restored after a disaster has a new id too.
    fn compare(&self, cluster: &str, monitor: &dyn Monitor) {
        if let Some(before) = self.known.iter().find(|known| *known != cluster) {
            let what = format!(
                "the cluster at this address is {cluster}, the point before is of {before}: if it is not the same one, restored, \
                 correct the address of the row or give the new cluster a row of its own"
            );
            monitor.finding(Finding::new("etcd-other-cluster", "etcd", what));
        }
    }

    fn entry(&self, names: &[&str], mode: u32, body: Body) -> Result<Entry, Failure> {
        let path = RelPath::new(names.iter().collect::<PathBuf>())
            .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name an entry", error))?;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let meta = Meta { mode, uid, gid, mtime: Some(self.moment), links: 1, ..Meta::default() };
        Ok(Entry { path, meta, body })
    }
}

/// Asks the member for its own hash of the same history; what it cannot say is told with its reason.
fn confirm(client: Option<Client>, content: &Content, monitor: &dyn Monitor) -> Value {
    let Some(mut client) = client else { return json!("not asked: the snapshot came from a command") };
    match client.hash_kv(content.revision) {
        Err(error) => json!(format!("not known: {}", chain(&error))),
        Ok(found) if found.compact_revision != content.compact_revision => {
            json!("not known: the server has compacted its history since")
        }
        Ok(found) if found.hash == content.hash_kv => json!("the same"),
        Ok(found) => {
            let message = format!(
                "the server says crc32c:{:08x} of its history up to revision {}, the snapshot crc32c:{:08x}: one of them is \
                 damaged, or this version counts in another way",
                found.hash, content.revision, content.hash_kv
            );
            monitor.finding(Finding::new("etcd-hash-differs", client.endpoint(), message.clone()));
            json!(message)
        }
    }
}

fn describe(snapshot: &Snapshot, content: &Content, environment: &mut BTreeMap<String, Value>) {
    for (name, value) in [
        (DIGEST, json!(snapshot.digest().to_string())),
        (REVISION, json!(content.revision)),
        (COMPACTED, json!(content.compact_revision)),
        ("compacting", json!(content.is_compacting)),
        (AUTH, json!(content.auth.enabled)),
        ("stored_versions", json!(content.stored_count)),
        ("member_ids_in_the_snapshot", json!(content.member_ids)),
        ("cluster_version", json!(content.cluster_version)),
    ] {
        environment.insert(name.to_owned(), value);
    }
}

impl Capture for EtcdCapture {
    fn total_bytes(&self) -> Option<u64> {
        match &self.stage {
            Stage::Take(Ready::Member(_, status, _)) => Some(status.database_bytes),
            _ => self.facts.as_ref().map(|facts| facts.logical_bytes),
        }
    }

    fn next_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        match std::mem::replace(&mut self.stage, Stage::Broken("an earlier step failed".to_owned())) {
            Stage::Take(ready) => {
                let (snapshot, list) = self.take(ready, monitor)?;
                self.stage = Stage::Data(snapshot, list);
                self.entry(&[DATA], DIR_MODE, Body::Dir).map(Some)
            }
            Stage::Data(snapshot, list) => {
                let body = Body::File {
                    reader: Box::new(snapshot.reader()),
                    size_hint: snapshot.length_bytes(),
                    layout: Layout::Pages { page_bytes: PAGE_BYTES },
                };
                self.stage = Stage::Snapshot(snapshot, list);
                self.entry(&[DATA, SNAPSHOT], FILE_MODE, body).map(Some)
            }
            Stage::Snapshot(_snapshot, list) => {
                self.stage = Stage::Meta(list);
                self.entry(&[META], DIR_MODE, Body::Dir).map(Some)
            }
            Stage::Meta(list) => {
                let body = Body::File {
                    reader: Box::new(list.reader()),
                    size_hint: list.length_bytes(),
                    layout: Layout::Stream,
                };
                self.stage = Stage::Done;
                self.entry(&[META, KEYS], FILE_MODE, body).map(Some)
            }
            Stage::Done => {
                self.stage = Stage::Done;
                Ok(None)
            }
            Stage::Broken(why) => {
                let failure = broken(&why);
                self.stage = Stage::Broken(why);
                Err(failure)
            }
        }
    }

    fn lost(&mut self, path: &RelPath, why: &str) {
        // Neither a snapshot without its list nor a list without its snapshot is a recovery point.
        self.stage = Stage::Broken(format!("{path} could not be read: {why}"));
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        match (self.stage, self.facts) {
            (Stage::Done, Some(facts)) => Ok(facts),
            (Stage::Broken(why), _) => Err(broken(&why)),
            _ => Err(Failure::new(FailureKind::Internal, "the capture was not read to its end")),
        }
    }
}

fn broken(why: &str) -> Failure {
    Failure::new(FailureKind::Unreachable, format!("failed to capture the cluster: {why}"))
}
