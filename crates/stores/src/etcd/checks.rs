//! Checks a restored etcd: the snapshot, the list of its keys, the database of the data directory, and everything once
//! more through a throwaway member.
//!
//! In: the facts, the recovery point, the restored folder. Out: check results. The member runs on a copy, since it writes
//! and lets leases expire; copy and member are gone when this returns.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::{CaptureFacts, META, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Clock;
use lifeboat_etcd::bolt::Bolt;
use lifeboat_etcd::{Content, EtcdError, read_content};
use serde_json::Value;

use super::capture::{AUTH, DIGEST, HASH_KV, MANIFEST, REVISION, SNAPSHOT, SUM};
use super::error::etcd;
use super::manifest::{Expected, KEYS, Row, Summary, read_rows};
use super::restore::{DIRECTORY, open_snapshot};
use super::running::check_running;
use crate::adapter::CheckResult;
use crate::tally::{Tally, failed, not_applicable};

/// The snapshot is the one that was captured, with its digest.
pub(crate) const SNAPSHOT_CHECK: &str = "etcd.snapshot";
/// The keys in the snapshot are those that were captured.
pub(crate) const CONTENT: &str = "etcd.content";
/// The list of keys is the one that was made.
pub(crate) const MANIFEST_CHECK: &str = "etcd.manifest";
/// The database of the data directory holds the same.
pub(crate) const DATA: &str = "etcd.data";
/// Users, roles, and whether they must log in.
pub(crate) const AUTH_CHECK: &str = "etcd.auth";
/// A member starts on the data directory.
pub(crate) const START: &str = "etcd.start";
/// The revision it serves.
pub(crate) const REVISION_CHECK: &str = "etcd.revision";
/// Its own hash of the history.
pub(crate) const HASH: &str = "etcd.hashkv";
/// Keys that it does not serve.
pub(crate) const MISSING: &str = "etcd.missing";
/// Keys that it serves and should not.
pub(crate) const EXTRA: &str = "etcd.extra";
/// Keys with another value, revision, version or lease.
pub(crate) const CHANGED: &str = "etcd.changed";
/// How many keys there are, in all and by prefix.
pub(crate) const COUNT: &str = "etcd.count";
/// The leases.
pub(crate) const LEASES: &str = "etcd.leases";

/// Families that need a running member, the first of them that it runs.
pub(crate) const RUNNING: [&str; 8] = [START, REVISION_CHECK, HASH, MISSING, EXTRA, CHANGED, COUNT, LEASES];

/// What all checks look at.
pub(crate) struct Subject<'a> {
    pub(crate) facts: &'a CaptureFacts,
    pub(crate) from: &'a dyn RestoreSource,
    pub(crate) restored: &'a Path,
    pub(crate) programs: &'a [PathBuf],
    pub(crate) bump_revision: Option<u64>,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) monitor: &'a dyn Monitor,
}

impl Subject<'_> {
    /// A checksum of the facts; nothing equals one that is not there.
    pub(crate) fn checksum(&self, name: &str) -> String {
        self.facts.checksums.get(name).cloned().unwrap_or_else(|| "not recorded".to_owned())
    }

    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.facts.environment.get(name).and_then(Value::as_i64)
    }

    /// The revision that the restored store must be at.
    pub(crate) fn revision(&self) -> i64 {
        let by = i64::try_from(self.bump_revision.unwrap_or_default()).unwrap_or_default();
        self.number(REVISION).unwrap_or_default().saturating_add(by)
    }

    pub(crate) fn cancelled(&self) -> bool {
        self.monitor.cancelled()
    }
}

/// Runs all checks.
pub(crate) fn check_all(subject: &Subject<'_>) -> Result<Vec<CheckResult>, Failure> {
    let snapshot = subject.restored.join(SNAPSHOT);
    subject.monitor.phase("reading the restored snapshot", Some(subject.facts.logical_bytes));
    let (result, content) = check_snapshot(subject, &snapshot)?;
    let mut results = vec![result];
    results.extend(content.results);
    let (result, expected) = check_manifest(subject)?;
    results.push(result);
    let directory = subject.restored.join(DIRECTORY);
    if !directory.exists() {
        let why = "no data directory was made: there was no etcd of the right version";
        results.push(not_applicable(DATA, "the keys that were captured", why));
        results.extend(RUNNING.map(|id| not_applicable(id, "a member that runs", why)));
        return Ok(results);
    }
    results.push(check_data(subject, &directory)?);
    results.extend(check_running(subject, &directory, expected, &content.leases)?);
    Ok(results)
}

/// What was read from a snapshot.
#[derive(Default)]
pub(crate) struct Told {
    results: Vec<CheckResult>,
    leases: Vec<lifeboat_etcd::Lease>,
}

/// The file, its digest, and what is in it.
pub(crate) fn check_snapshot(subject: &Subject<'_>, path: &Path) -> Result<(CheckResult, Told), Failure> {
    let expected = subject.facts.environment.get(DIGEST).and_then(Value::as_str).unwrap_or("not recorded");
    let cancelled = || subject.cancelled();
    let opened = open_snapshot(path, &cancelled);
    let snapshot = match opened {
        Ok(snapshot) => snapshot,
        Err(EtcdError::Cancelled) => {
            return Err(etcd("reading the snapshot was stopped")(EtcdError::Cancelled));
        }
        Err(error) => {
            let why = chain(&error);
            let results = [CONTENT, AUTH_CHECK].map(|id| failed(id, "a whole snapshot", &*why)).to_vec();
            return Ok((failed(SNAPSHOT_CHECK, expected, why), Told { results, ..Told::default() }));
        }
    };
    subject.monitor.advance(snapshot.length_bytes(), 0);
    let digest = snapshot.digest().to_string();
    let mut tally = Tally::default();
    if digest != expected {
        tally.add(|| "its own digest is right, and it is another snapshot than the one captured".to_owned());
    }
    let file = tally.result(SNAPSHOT_CHECK, digest, expected);
    let (content, summary) = match read(subject, snapshot.database())? {
        Ok(read) => read,
        Err(why) => {
            let results = [CONTENT, AUTH_CHECK].map(|id| failed(id, "a database of etcd", &*why)).to_vec();
            return Ok((file, Told { results, ..Told::default() }));
        }
    };
    let results = vec![check_content(subject, &content, &summary), check_auth(subject, &content)];
    Ok((file, Told { results, leases: content.leases }))
}

/// The keys of a database; damage is an answer, anything else a failure.
fn read(subject: &Subject<'_>, bolt: &Bolt) -> Result<Result<(Content, Summary), String>, Failure> {
    let mut summary = Summary::like(&subject.facts.counts);
    let content = read_content(bolt, &|| subject.cancelled(), &mut |pair| {
        summary.add(&Row::of(&pair));
        Ok(())
    });
    match content {
        Ok(content) => Ok(Ok((content, summary))),
        Err(error @ EtcdError::Corrupt(_)) => Ok(Err(chain(&error))),
        Err(error) => Err(etcd("failed to read the restored database")(error)),
    }
}

fn check_content(subject: &Subject<'_>, content: &Content, summary: &Summary) -> CheckResult {
    let mut tally = Tally::default();
    let hash = format!("crc32c:{:08x}", content.hash_kv);
    let pairs = [
        ("keys", summary.sum(), subject.checksum(SUM)),
        ("history", hash, subject.checksum(HASH_KV)),
        ("revision", content.revision.to_string(), subject.number(REVISION).unwrap_or_default().to_string()),
    ];
    for (what, found, expected) in pairs {
        if found != expected {
            tally.add(|| format!("{what}: found {found}, expected {expected}"));
        }
    }
    tally.result(CONTENT, summary.sum(), subject.checksum(SUM))
}

fn check_auth(subject: &Subject<'_>, content: &Content) -> CheckResult {
    let count = |name: &str| subject.facts.counts.get(name).copied().unwrap_or_default();
    let shown = |enabled: bool, users: u64, roles: u64| {
        format!("logins {}, {users} users, {roles} roles", if enabled { "on" } else { "off" })
    };
    let enabled = subject.facts.environment.get(AUTH).and_then(Value::as_bool).unwrap_or_default();
    let auth = content.auth;
    crate::tally::equal(
        AUTH_CHECK,
        shown(auth.enabled, auth.user_count, auth.role_count),
        shown(enabled, count("users"), count("roles")),
    )
}

/// The list in the recovery point, read to be compared with what a member serves.
pub(crate) fn check_manifest(subject: &Subject<'_>) -> Result<(CheckResult, Expected), Failure> {
    let mut expected = Expected::default();
    let mut summary = Summary::like(&subject.facts.counts);
    let read = rows(subject, &mut |row| {
        summary.add(&row);
        expected.add(&row);
    })?;
    let wanted = subject.checksum(MANIFEST);
    let mut tally = Tally::default();
    let found = match read {
        Ok(found) => found,
        Err(why) => {
            tally.add(|| why);
            "a list that cannot be read".to_owned()
        }
    };
    if found != wanted || summary.sum() != subject.checksum(SUM) {
        tally.add(|| format!("found {found} with {}", summary.sum()));
    }
    Ok((tally.result(MANIFEST_CHECK, found, wanted), expected))
}

/// Reads the list; what is wrong with it is an answer, a vault that cannot be read a failure.
pub(crate) fn rows(
    subject: &Subject<'_>,
    visit: &mut dyn FnMut(Row),
) -> Result<Result<String, String>, Failure> {
    let path = RelPath::new(Path::new(META).join(KEYS)).map_err(|error| {
        Failure::with_source(FailureKind::Internal, "failed to name the list of keys", error)
    })?;
    match subject.from.open(&path) {
        Err(failure) if failure.kind() == FailureKind::Refused => {
            Ok(Err("there is no list of keys".to_owned()))
        }
        Err(failure) => Err(failure),
        Ok(reader) => Ok(read_rows(reader, visit).map(|digest| format!("sha256:{digest}"))),
    }
}

/// The database of the data directory, byte by byte and without a server.
fn check_data(subject: &Subject<'_>, directory: &Path) -> Result<CheckResult, Failure> {
    let path = directory.join("member/snap/db");
    let wanted = subject.checksum(SUM);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) => return Ok(failed(DATA, wanted, format!("{}: {error}", path.display()))),
    };
    let bolt = match Bolt::open_grown(Arc::new(file)) {
        Ok(bolt) => bolt,
        Err(error) => return Ok(failed(DATA, wanted, chain(&error))),
    };
    let summary = match read(subject, &bolt)? {
        Ok((_, summary)) => summary,
        Err(why) => return Ok(failed(DATA, wanted, why)),
    };
    let mut tally = Tally::default();
    if summary.sum() != wanted {
        tally.add(|| format!("found {}, expected {wanted}", summary.sum()));
    }
    // A member without one starts as a new cluster, and says nothing about it.
    let log = fs::read_dir(directory.join("member/wal")).into_iter().flatten().filter_map(Result::ok);
    if !log.into_iter().any(|entry| entry.path().extension().is_some_and(|kind| kind == "wal")) {
        tally.add(|| "the log is missing".to_owned());
    }
    Ok(tally.result(DATA, summary.sum(), wanted))
}
