//! The checks that ask a throwaway member, which runs on a copy of the restored data directory.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_etcd::{Client, EtcdError, Installation, Lease, Member, Wait, switch_off_auth};
use tempfile::TempDir;

use super::capture::HASH_KV;
use super::checks::{
    CHANGED, COUNT, EXTRA, HASH, LEASES, MISSING, REVISION_CHECK, RUNNING, START, Subject, rows,
};
use super::error::etcd;
use super::manifest::{Expected, Found, Row, Summary};
use super::restore::programs_for;
use crate::adapter::CheckResult;
use crate::tally::{Tally, failed, not_applicable};

/// How long a member may take to start: it reads its whole database first.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(900);
/// How deep a data directory is.
const MAX_DEPTH: usize = 8;

/// Starts a member on a copy and compares everything it serves.
pub(crate) fn check_running(
    subject: &Subject<'_>,
    directory: &Path,
    expected: Expected,
    leases: &[Lease],
) -> Result<Vec<CheckResult>, Failure> {
    let installed = match programs_for(subject.facts, subject.programs) {
        Ok(installed) => installed,
        Err(error @ EtcdError::NotInstalled { .. }) => {
            let why = error.to_string();
            return Ok(RUNNING.map(|id| not_applicable(id, "a member that runs", &*why)).to_vec());
        }
        Err(error) => return Err(etcd("failed to look for etcd")(error)),
    };
    subject.monitor.phase("starting a throwaway etcd", None);
    let cancelled = || subject.cancelled();
    let wait = Wait { limit: START_LIMIT, clock: subject.clock, cancelled: &cancelled };
    let (_scratch, started) = on_a_copy(directory, subject.restored, &installed, wait)?;
    let member = match started {
        Ok(member) => member,
        Err(error @ (EtcdError::Cancelled | EtcdError::NotInstalled { .. })) => {
            return Err(etcd("no throwaway etcd was started")(error));
        }
        Err(error) => return Ok(broken(&chain(&error))),
    };
    subject.monitor.phase("comparing every key", None);
    let asked = ask(subject, &member, expected, leases);
    let results = asked.unwrap_or_else(|error| broken(&chain(&error)));
    if subject.cancelled() {
        return Err(Failure::new(FailureKind::Refused, "checking the restored etcd was cancelled"));
    }
    Ok(results)
}

/// Starts a member that asks nobody for a password on a copy of `directory`, which is made in `beside` and lives as long as
/// the first of the two.
pub(crate) fn on_a_copy(
    directory: &Path,
    beside: &Path,
    installed: &Installation,
    wait: Wait<'_>,
) -> Result<(TempDir, Result<Member, EtcdError>), Failure> {
    let scratch = tempfile::Builder::new()
        .prefix(".lifeboat-check-")
        .tempdir_in(beside)
        .map_err(|error| Failure::io("failed to make a folder for a throwaway etcd", error))?;
    let copy = scratch.path().join("etcd");
    let copied = copy_tree(directory, &copy, 0);
    copied.map_err(|error| Failure::io("failed to copy the data directory for a throwaway etcd", error))?;
    let started = switch_off_auth(&copy.join("member/snap/db"))
        .and_then(|_was_on| Member::start(installed, &copy, &OsEntropy, wait));
    Ok((scratch, started))
}

/// One result per family of a member that does not run: none of it is there.
fn broken(why: &str) -> Vec<CheckResult> {
    RUNNING.map(|id| failed(id, "a member that starts and answers", why)).to_vec()
}

fn ask(
    subject: &Subject<'_>,
    member: &Member,
    expected: Expected,
    leases: &[Lease],
) -> Result<Vec<CheckResult>, EtcdError> {
    let mut client = member.connect()?;
    let revision = subject.revision();
    // Leases first: from now on they may run out.
    let leases = check_leases(subject, member, &mut client, leases)?;
    let status = client.status()?;
    let start =
        Tally::default().result(START, format!("etcd {} leads", status.version), "a member that leads");
    let at = check_revision(status.revision, revision, subject);
    let hash = check_hash(subject, &mut client);
    let mut results = vec![start, at, hash, leases];
    results.extend(check_keys(subject, &mut client, revision, expected));
    Ok(results)
}

/// The revision may have gone on by what leases took that ran out.
fn check_revision(found: i64, expected: i64, subject: &Subject<'_>) -> CheckResult {
    let leases = subject.facts.counts.get("leases").copied().unwrap_or_default();
    let mut tally = Tally::default();
    let behind = expected.saturating_sub(found);
    if behind > 0 || behind.unsigned_abs() > leases {
        tally.add(|| format!("it is at {found}, the snapshot was at {expected}"));
    }
    tally.result(REVISION_CHECK, found.to_string(), expected.to_string())
}

fn check_hash(subject: &Subject<'_>, client: &mut Client) -> CheckResult {
    let expected = subject.checksum(HASH_KV);
    if subject.bump_revision.is_some() {
        return not_applicable(HASH, expected, "the revision was raised, and with it the history is another");
    }
    match client.hash_kv(subject.revision()) {
        Ok(found) => crate::tally::equal(HASH, format!("crc32c:{:08x}", found.hash), expected),
        Err(error) => failed(HASH, expected, chain(&error)),
    }
}

/// A lease that is not there any more must have had the time to run out since the member was started.
fn check_leases(
    subject: &Subject<'_>,
    member: &Member,
    client: &mut Client,
    expected: &[Lease],
) -> Result<CheckResult, EtcdError> {
    let found = client.leases()?;
    let age_s = i64::try_from(member.age(subject.clock).as_secs()).unwrap_or(i64::MAX);
    let mut tally = Tally::default();
    for lease in expected {
        if found.binary_search(&lease.id).is_err() && lease.ttl_s > age_s {
            tally.add(|| format!("missing: {:x}, which lives {} s", lease.id, lease.ttl_s));
        }
    }
    for id in &found {
        if !expected.iter().any(|lease| lease.id == *id) {
            tally.add(|| format!("extra: {id:x}"));
        }
    }
    Ok(tally.result(LEASES, format!("{} leases", found.len()), format!("{} leases", expected.len())))
}

/// Every key in both directions, as it was at the revision of the snapshot.
fn check_keys(
    subject: &Subject<'_>,
    client: &mut Client,
    revision: i64,
    mut expected: Expected,
) -> Vec<CheckResult> {
    let mut summary = Summary::like(&subject.facts.counts);
    let (mut missing, mut extra, mut changed) = (Tally::default(), Tally::default(), Tally::default());
    let served = client.keys(revision, &mut |pair| {
        if subject.cancelled() {
            return Err(EtcdError::Cancelled);
        }
        let row = Row::of(&pair);
        summary.add(&row);
        match expected.find(&row) {
            Found::Same => {}
            Found::Changed => changed.add(|| format!("changed: {}", row.shown())),
            Found::Extra => extra.add(|| format!("extra: {}", row.shown())),
        }
        Ok(())
    });
    let total = summary.counts.get(super::manifest::ALL).copied().unwrap_or_default();
    let shown = format!("{total} keys");
    if let Err(error) = served {
        let why = chain(&error);
        return [MISSING, EXTRA, CHANGED, COUNT].map(|id| failed(id, "every key", &*why)).to_vec();
    }
    if expected.missing_count() > 0 {
        let named = rows(subject, &mut |row| {
            if expected.is_missing(&row) {
                missing.add(|| format!("missing: {}", row.shown()));
            }
        });
        // The list was read before; if it cannot be read again, the number still counts.
        if named.is_err() || missing.count() == 0 {
            missing.add(|| format!("{} keys", expected.missing_count()));
        }
    }
    let mut count = Tally::default();
    for (name, found) in &summary.counts {
        let wanted = subject.facts.counts.get(name).copied().unwrap_or_default();
        if *found != wanted {
            count.add(|| format!("{name}: found {found}, expected {wanted}"));
        }
    }
    let wanted = subject.facts.counts.get(super::manifest::ALL).copied().unwrap_or_default();
    vec![
        missing.result(MISSING, shown.clone(), "no key missing"),
        extra.result(EXTRA, shown.clone(), "no key too much"),
        changed.result(CHANGED, shown.clone(), "every key as it was"),
        count.result(COUNT, shown, format!("{wanted} keys")),
    ]
}

/// Copies folders and files; a data directory has nothing else. Not synced: the copy lives as long as the check.
fn copy_tree(from: &Path, to: &Path, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("the data directory is too deep"));
    }
    crashsafe::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target, depth + 1)?;
        } else if kind.is_file() {
            io::copy(&mut File::open(entry.path())?, &mut File::create_new(&target)?)?;
        }
    }
    Ok(())
}
