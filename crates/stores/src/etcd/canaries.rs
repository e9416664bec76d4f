//! The canaries of kind `etcd`: a sample made here, restored well and badly.
//!
//! In: an empty directory and the programs of etcd. Out: which damage was caught. Damage to what a member serves is done to
//! one sample, each to a key of its own, so that one member shows all of it: a canary counts only if its own check fails
//! and names its own object. Without programs of etcd only the checks that need none are tried.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{Clock, Timestamp};
use lifeboat_etcd::bolt::Builder;
use lifeboat_etcd::{
    EtcdError, Installation, KeyValue, Lease, OutsideCommand, installation, make_data_directory,
    revision_key, seal,
};

use super::capture::{EtcdCapture, SNAPSHOT};
use super::checks::{
    AUTH_CHECK, CHANGED, CONTENT, COUNT, DATA, EXTRA, HASH, LEASES, MANIFEST_CHECK, MISSING, REVISION_CHECK,
    SNAPSHOT_CHECK, START, Subject, check_all,
};
use super::error::etcd;
use super::manifest::KEYS;
use super::restore::{DIRECTORY, Way, restore_snapshot};
use super::source::Ready;
use crate::adapter::{CanaryResult, CheckResult, CheckState};
use crate::recording::Recording;

const PAGE_BYTES: u32 = 4096;

/// One kind of damage: the family that must notice, what was done, and what the result must name.
type Expectation = (&'static str, &'static str, &'static str);

/// What the bad sample must lead to.
const EXPECTED: [Expectation; 8] = [
    (DATA, "the data directory is that of another snapshot", "found sum-sha256-v1:"),
    (REVISION_CHECK, "the store goes further than the snapshot", "it is at 14"),
    (HASH, "the history is another", "found crc32c:"),
    (MISSING, "a key is missing", "missing: /canary/gone"),
    (EXTRA, "a key too many", "extra: /canary/slipped-in"),
    (CHANGED, "a value is changed", "changed: /canary/value"),
    (COUNT, "a prefix has fewer keys", "keys//canary/counted: found 1, expected 2"),
    (LEASES, "a lease is missing", "missing: 77"),
];

/// Does something to a snapshot of so many bytes.
type Damage = fn(&File, u64) -> io::Result<()>;

/// A pair of the history at this revision.
fn put(revision: i64, key: &str, value: &str, lease: i64) -> (Vec<u8>, Vec<u8>) {
    let pair = KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease,
    };
    (revision_key(revision, 0), pair.encode())
}

/// The history of the sample, good or bad.
fn history(good: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut history = vec![
        put(2, "/canary/value", if good { "one" } else { "two" }, 0),
        put(3, "/canary/leased", "1", 0x77),
        put(4, "/canary/counted/a", "1", 0),
        put(5, if good { "/canary/counted/b" } else { "/canary/slipped-in" }, "1", 0),
        put(6, if good { "/canary/gone" } else { "/canary/also-slipped-in" }, "1", 0),
    ];
    history.extend((7..13).map(|revision| put(revision, &format!("plain-{revision}"), "", 0)));
    if !good {
        // Beyond the snapshot's last revision, which is 12.
        history.extend([put(13, "late", "1", 0), put(14, "later", "1", 0)]);
    }
    history
}

/// Writes a snapshot.
fn write(path: &Path, good: bool, user: bool) -> Result<(), EtcdError> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    let file = file.map_err(|source| EtcdError::Io { what: format!("make {}", path.display()), source })?;
    let mut builder = Builder::new(file, PAGE_BYTES)?;
    let lease = Lease { id: 0x77, ttl_s: 1_000_000 }.encode();
    let user = user.then(|| (b"slipped-in".to_vec(), b"\x0a\x0aslipped-in".to_vec()));
    builder.bucket(b"authUsers", 0, &mut |add| user.iter().try_for_each(|(key, value)| add(key, value)))?;
    builder
        .bucket(b"key", 0, &mut |add| history(good).iter().try_for_each(|(key, value)| add(key, value)))?;
    builder.bucket(b"lease", 0, &mut |add| if good { add(&lease.0, &lease.1) } else { Ok(()) })?;
    builder.bucket(b"meta", 0, &mut |_add| Ok(()))?;
    let (file, length_bytes) = builder.finish()?;
    seal(&file, length_bytes)
}

/// Where everything happens.
struct Bench<'a> {
    scratch: &'a Path,
    programs: &'a [PathBuf],
    clock: &'a Arc<dyn Clock>,
    point: Recording,
    monitor: Findings,
}

/// Runs them all inside `scratch`.
pub(crate) fn run(
    scratch: &Path,
    programs: &[PathBuf],
    clock: &Arc<dyn Clock>,
) -> Result<Vec<CanaryResult>, Failure> {
    let scratch = tempfile::tempdir_in(scratch)
        .map_err(|error| Failure::io("failed to make a directory for the canaries", error))?;
    let bench = Bench::new(scratch.path(), programs, clock)?;
    let into = bench.restored("good")?;
    let good = bench.checks(bench.point.facts(), &bench.point, &into)?;
    let mut results = Vec::new();
    bench.snapshots(&into, &good, &mut results)?;
    bench.list(&into, &good, &mut results)?;
    match installation(None, programs) {
        Err(EtcdError::NotInstalled { .. }) => {}
        Err(error) => return Err(etcd("failed to look for etcd")(error)),
        Ok(installed) => bench.served(&installed, &into, &good, &mut results)?,
    }
    Ok(results)
}

impl<'a> Bench<'a> {
    fn new(scratch: &'a Path, programs: &'a [PathBuf], clock: &'a Arc<dyn Clock>) -> Result<Self, Failure> {
        let monitor = Findings::new();
        let source = scratch.join("sample.db");
        write(&source, true, false).map_err(etcd("failed to make the sample of the canaries"))?;
        // By the same way that a command's snapshot takes: the sample is copied to the file that is asked for.
        let words = ["cp", &source.to_string_lossy(), "{file}"].map(str::to_owned).to_vec();
        let ready = Ready::Command(OutsideCommand { words, environment: Vec::new() });
        let capture = EtcdCapture::start(ready, (scratch, &[]), Timestamp::UNIX_EPOCH, Arc::clone(clock));
        let point = Recording::record(Box::new(capture), &monitor)?;
        Ok(Self { scratch, programs, clock, point, monitor })
    }

    fn restored(&self, name: &str) -> Result<PathBuf, Failure> {
        let into = self.scratch.join(name);
        std::fs::create_dir(&into).map_err(|error| failed("make a folder for", error))?;
        let way = Way { programs: self.programs, bump_revision: None, clock: self.clock.as_ref() };
        restore_snapshot(&way, &self.point, self.point.facts(), &into, &self.monitor)?;
        Ok(into)
    }

    fn checks(
        &self,
        facts: &CaptureFacts,
        from: &Recording,
        restored: &Path,
    ) -> Result<Vec<CheckResult>, Failure> {
        check_all(&Subject {
            facts,
            from,
            restored,
            programs: self.programs,
            bump_revision: None,
            clock: self.clock.as_ref(),
            monitor: &self.monitor,
        })
    }

    /// A folder with a snapshot and nothing else, for checks that need no member.
    fn alone(&self, name: &str, from: &Path) -> Result<PathBuf, Failure> {
        let into = self.scratch.join(name);
        let copied = std::fs::create_dir(&into).and_then(|()| {
            let mut file = File::create_new(into.join(SNAPSHOT))?;
            io::copy(&mut File::open(from)?, &mut file)
        });
        copied.map_err(|error| failed("copy", error))?;
        Ok(into)
    }

    /// Damage to the snapshot.
    fn snapshots(
        &self,
        into: &Path,
        good: &[CheckResult],
        results: &mut Vec<CanaryResult>,
    ) -> Result<(), Failure> {
        let sample = into.join(SNAPSHOT);
        let bytes = self.point.facts().logical_bytes;
        let damages: [(&str, Damage); 3] = [
            ("one bit is flipped", |file, bytes| flip(file, bytes / 2)),
            ("it is cut short", |file, bytes| file.set_len(bytes / 2)),
            ("its digest is missing", |file, bytes| file.set_len(bytes - 32)),
        ];
        for (index, (damage, apply)) in damages.iter().enumerate() {
            let folder = self.alone(&format!("snapshot-{index}"), &sample)?;
            let file = OpenOptions::new().read(true).write(true).open(folder.join(SNAPSHOT));
            file.and_then(|file| apply(&file, bytes)).map_err(|error| failed("damage", error))?;
            let bad = self.checks(self.point.facts(), &self.point, &folder)?;
            results.push(result(SNAPSHOT_CHECK, damage, good, &bad, ""));
        }
        for (good_keys, user, check, damage, needle) in [
            (
                false,
                false,
                CONTENT,
                "it is another snapshot with a right digest",
                "keys: found sum-sha256-v1:",
            ),
            (true, true, AUTH_CHECK, "a user too many", "1 users"),
        ] {
            let other = self.scratch.join(format!("other-{user}.db"));
            write(&other, good_keys, user).map_err(etcd("failed to make a bad sample"))?;
            let folder = self.alone(&format!("other-{user}"), &other)?;
            let bad = self.checks(self.point.facts(), &self.point, &folder)?;
            results.push(result(check, damage, good, &bad, needle));
            if user {
                let name = "it is another one";
                results.push(result(SNAPSHOT_CHECK, name, good, &bad, "another snapshot"));
            }
        }
        Ok(())
    }

    /// Damage to the list of keys.
    fn list(
        &self,
        into: &Path,
        good: &[CheckResult],
        results: &mut Vec<CanaryResult>,
    ) -> Result<(), Failure> {
        let folder = self.alone("list", &into.join(SNAPSHOT))?;
        let path = self.point.paths().find(|path| path.split_last().is_some_and(|(_, name)| name == KEYS));
        let Some(path) = path.cloned() else { return Ok(()) };
        let list = self.point.content(&path).unwrap_or_default().to_vec();
        let first = list.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let shorter = list.get(first..).unwrap_or_default().to_vec();
        let edited =
            String::from_utf8_lossy(&list).replacen("\"version\":1", "\"version\":2", 1).into_bytes();
        for (damage, content) in [
            ("a line is missing", Some(shorter)),
            ("a line is edited", Some(edited)),
            ("it is missing", None),
        ] {
            let mut point = self.point.clone();
            match (content, self.point.entry(&path)) {
                (Some(content), Some(entry)) => point.put(entry.clone(), content),
                _ => drop(point.remove(&path)),
            }
            let bad = self.checks(self.point.facts(), &point, &folder)?;
            results.push(result(MANIFEST_CHECK, damage, good, &bad, ""));
        }
        Ok(())
    }

    /// Damage to what a member serves.
    fn served(
        &self,
        installed: &Installation,
        into: &Path,
        good: &[CheckResult],
        results: &mut Vec<CanaryResult>,
    ) -> Result<(), Failure> {
        let folder = self.alone("served", &into.join(SNAPSHOT))?;
        let source = self.scratch.join("other-false.db");
        make_data_directory(installed, &source, &folder.join(DIRECTORY), self.clock.as_ref(), &|| false)
            .map_err(etcd("failed to make the data directory of a bad sample"))?;
        let bad = self.checks(self.point.facts(), &self.point, &folder)?;
        results
            .extend(EXPECTED.iter().map(|(check, damage, needle)| result(check, damage, good, &bad, needle)));
        let log = folder.join(DIRECTORY).join("member/wal");
        lifeboat_base::crashsafe::remove_tree(&log).map_err(|error| failed("take the log from", error))?;
        let database = OpenOptions::new().write(true).open(folder.join(DIRECTORY).join("member/snap/db"));
        let bad = self.checks(self.point.facts(), &self.point, &folder)?;
        results.push(result(DATA, "its log is gone", good, &bad, "the log is missing"));
        database
            .and_then(|file| file.set_len(u64::from(PAGE_BYTES)))
            .map_err(|error| failed("cut the database of", error))?;
        let bad = self.checks(self.point.facts(), &self.point, &folder)?;
        results.push(result(START, "its database is cut short", good, &bad, ""));
        Ok(())
    }
}

/// Caught: the check passes on the good sample, and on the bad one fails and names what was done.
fn result(
    check: &str,
    damage: &str,
    good: &[CheckResult],
    bad: &[CheckResult],
    needle: &str,
) -> CanaryResult {
    let state = |results: &[CheckResult]| results.iter().find(|result| result.id == check).cloned();
    let sound = state(good).is_some_and(|result| result.state == CheckState::Passed);
    let noticed = state(bad).is_some_and(|result| {
        result.state == CheckState::Failed
            && (result.measured.contains(needle) || result.detail.iter().any(|line| line.contains(needle)))
    });
    CanaryResult { check: check.to_owned(), damage: damage.to_owned(), caught: sound && noticed }
}

fn flip(file: &File, at: u64) -> io::Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)
}

fn failed(doing: &str, error: io::Error) -> Failure {
    Failure::with_source(
        FailureKind::Internal,
        format!("failed to {doing} the sample of the canaries"),
        error,
    )
}
