//! Checks a restored cluster: its files, its recovery, and everything in it, on a throwaway server.
//!
//! In: the facts, the recovery point, the restored directory. Out: check results. The server is gone when this returns,
//! and the directory is as a server that was stopped in order leaves it: nothing of ours stays in it.

mod cluster;
mod collation;
mod files;
mod indexes;
mod promises;
mod references;
mod running;
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_base::capture::{CaptureFacts, META, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Clock;
use lifeboat_postgres::server::{Account, Installation, ServerError, control_data, installation, run_tool};
use serde_json::Value;

use super::capture::file_name;
use super::error;
use super::replay::recovery_target;
use crate::adapter::CheckResult;
use crate::tally::{Tally, failed, not_applicable};

pub(crate) use cluster::{Cluster, Recovery};
pub(crate) use files::{check_files, files_below};
pub(crate) use running::{check_recovery, check_running};

/// The files against the server's manifest.
pub(crate) const FILES: &str = "postgres.files";
/// The cluster starts, and its log reaches where the point says.
pub(crate) const RECOVERY: &str = "postgres.recovery";
/// System identifier and major version.
pub(crate) const SYSTEM: &str = "postgres.system";
/// Databases, both ways.
pub(crate) const DATABASES: &str = "postgres.databases";
/// Tables, both ways.
pub(crate) const TABLES: &str = "postgres.tables";
/// The number of rows of one table.
pub(crate) const ROWS: &str = "postgres.rows";
/// The content of one table.
pub(crate) const CONTENT: &str = "postgres.content";
/// The schema of one database.
pub(crate) const SCHEMA: &str = "postgres.schema";
/// One unique promise of the policy.
pub(crate) const UNIQUE: &str = "postgres.unique";
/// One statement of the policy.
pub(crate) const SQL: &str = "postgres.sql";
/// The foreign keys of one database.
pub(crate) const FOREIGN_KEYS: &str = "postgres.foreign_keys";
/// Indexes that cannot be used.
pub(crate) const INVALID_INDEXES: &str = "postgres.invalid_indexes";
/// Versions of collations.
pub(crate) const COLLATION: &str = "postgres.collation";
/// Indexes and tables of one database from inside.
pub(crate) const AMCHECK: &str = "postgres.amcheck";
/// The checksum of every page.
pub(crate) const CHECKSUMS: &str = "postgres.checksums";

/// Families that need a running server, without those that exist per table or promise.
const RUNNING: [&str; 9] =
    [RECOVERY, SYSTEM, DATABASES, TABLES, SCHEMA, FOREIGN_KEYS, INVALID_INDEXES, COLLATION, AMCHECK];
/// How long reading all pages may take.
const CHECKSUM_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// The schema of a recovery point is shown in differences only up to this size.
const MAX_SCHEMA_BYTES: u64 = 16 * 1024 * 1024;
/// The files by which a directory asks for more than to be started.
const SIGNALS: [&str; 2] = ["recovery.signal", "standby.signal"];

/// What all checks look at.
pub(crate) struct Subject<'a> {
    /// Tablespaces that were placed outside the restored directory.
    pub(crate) spaces: &'a [PathBuf],
    pub(crate) unique: &'a [String],
    pub(crate) sql: &'a [String],
    /// Folders with programs of a server, besides those where packages put them.
    pub(crate) programs: &'a [PathBuf],
    /// The database that promises mean when they name none.
    pub(crate) database: Option<String>,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) facts: &'a CaptureFacts,
    pub(crate) monitor: &'a dyn Monitor,
}

/// Runs all checks of a restored cluster with the newest installed server of its major version.
pub(crate) fn check_cluster(
    subject: &Subject<'_>,
    from: &dyn RestoreSource,
    restored: &Path,
) -> Result<Vec<CheckResult>, Failure> {
    let texts = recorded_schemas(from, subject.facts)?;
    let told = recovery_target(restored)?;
    let recovery = (!told.is_empty()).then(|| Recovery::new(told));
    check_with(subject, &texts, restored, installation(major(restored), subject.programs), recovery.as_ref())
}

/// Runs all checks with the programs given. `texts` are the recorded listings of schemas, by database. A cluster with a
/// `recovery` goes beyond the point: what was counted then says nothing about what must be in it now.
pub(crate) fn check_with(
    subject: &Subject<'_>,
    texts: &BTreeMap<String, String>,
    restored: &Path,
    installed: Result<Installation, ServerError>,
    recovery: Option<&Recovery>,
) -> Result<Vec<CheckResult>, Failure> {
    // The server's programs run elsewhere, and know nothing of what we hold.
    let real = &fs::canonicalize(restored)
        .map_err(|error| Failure::io("failed to find the restored cluster", error))?;
    subject.monitor.phase("reading the restored files", Some(subject.facts.logical_bytes));
    let mut results = vec![check_files(restored, subject.spaces, subject.monitor)?];
    let installed = match installed {
        Ok(installed) => installed,
        Err(error @ ServerError::NotInstalled { .. }) => {
            results.extend(unproven(subject, &error.to_string()));
            return Ok(results);
        }
        Err(error) => return Err(error::server("failed to look for a server")(error)),
    };
    let signal = SIGNALS.iter().find(|name| restored.join(name).exists());
    if let (Some(signal), None) = (signal, recovery) {
        let why = format!("{signal} asks for a recovery to a target, and none was named");
        results.extend(broken(subject, &why));
        return Ok(results);
    }
    let control = match control_data(&installed, real, subject.clock) {
        Ok(control) => control,
        Err(error @ ServerError::Program { .. }) => {
            results.extend(broken(subject, &chain(&error)));
            return Ok(results);
        }
        Err(error) => return Err(error::server("failed to read the control file")(error)),
    };
    subject.monitor.phase("recovering the restored cluster", None);
    let (user, cancelled) = (superuser(subject.facts), || subject.monitor.cancelled());
    match Cluster::start(&installed, (restored, subject.spaces), &user, recovery, subject.clock, &cancelled) {
        Ok(cluster) => {
            subject.monitor.phase("checking the recovered cluster", None);
            results.extend(check_running(subject, texts, &cluster, &control, recovery.is_some()));
            let stopped = cluster.stop(subject.clock);
            if subject.monitor.cancelled() {
                return Err(Failure::new(
                    FailureKind::Refused,
                    "checking the recovered cluster was cancelled",
                ));
            }
            results.push(match stopped {
                Ok(()) => check_checksums(&installed, real, &control, subject.clock)?,
                Err(error) => failed(CHECKSUMS, "a server that stops in order", chain(&error)),
            });
            Ok(results)
        }
        Err(
            error @ (ServerError::Ended { .. } | ServerError::Late { .. } | ServerError::LeadsOutside { .. }),
        ) => {
            results.extend(broken(subject, &chain(&error)));
            Ok(results)
        }
        Err(error) => Err(error::server("failed to run a throwaway server")(error)),
    }
}

/// The major version that a data directory is of; 0 if it does not say.
pub(crate) fn major(restored: &Path) -> u32 {
    let text = fs::read_to_string(restored.join("PG_VERSION")).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

/// A role that may see everything: the one that the cluster was made with, unless it may not log in.
pub(crate) fn superuser(facts: &CaptureFacts) -> String {
    let roles = facts.environment.get("roles").and_then(Value::as_object);
    let has = |role: &Value, name: &str| {
        let attributes = role.get("attributes").and_then(Value::as_array);
        attributes.is_some_and(|attributes| attributes.iter().any(|attribute| attribute == name))
    };
    let able = roles.into_iter().flatten().filter(|(_, role)| has(role, "superuser") && has(role, "login"));
    let first = able.max_by_key(|(_, role)| role.get("bootstrap").and_then(Value::as_bool));
    first.map_or_else(|| "postgres".to_owned(), |(name, _)| name.clone())
}

/// One result per family that could not be measured: it proves nothing.
fn unproven(subject: &Subject<'_>, why: &str) -> Vec<CheckResult> {
    let mut ids: Vec<String> =
        RUNNING.iter().chain(&[ROWS, CONTENT, CHECKSUMS]).map(|id| (*id).to_owned()).collect();
    ids.extend(promises(subject));
    ids.iter().map(|id| not_applicable(id, "a running server", why)).collect()
}

/// One result per family of a cluster that does not run: none of it is there.
fn broken(subject: &Subject<'_>, why: &str) -> Vec<CheckResult> {
    let mut results = vec![failed(RECOVERY, "a cluster that recovers and takes connections", why)];
    let others = RUNNING.iter().filter(|id| **id != RECOVERY).map(|id| (*id).to_owned());
    let ids = others.chain(promises(subject));
    results.extend(ids.map(|id| failed(&id, "a running server", "the cluster did not recover")));
    results.push(not_applicable(CHECKSUMS, "a cluster that was stopped in order", "it did not recover"));
    results
}

fn promises(subject: &Subject<'_>) -> Vec<String> {
    let unique = subject.unique.iter().map(|promise| format!("{UNIQUE}/{promise}"));
    unique.chain((1..=subject.sql.len()).map(|position| format!("{SQL}/{position}"))).collect()
}

/// Reads every page of a stopped cluster.
pub(crate) fn check_checksums(
    installed: &Installation,
    restored: &Path,
    control: &BTreeMap<String, String>,
    clock: &dyn Clock,
) -> Result<CheckResult, Failure> {
    const EXPECTED: &str = "every page has its checksum";
    if control.get("Data page checksum version").is_none_or(|version| version == "0") {
        let why = "the cluster keeps no page checksums: pg_checksums --enable makes a stopped one keep them";
        return Ok(not_applicable(CHECKSUMS, EXPECTED, why));
    }
    let account =
        Account::for_data(restored).map_err(error::server("failed to find the cluster's account"))?;
    let mut command = Command::new(installed.program("pg_checksums"));
    command.arg("--check").arg("-D").arg(restored).env_clear().env("LC_ALL", "C").current_dir("/");
    account.apply(&mut command);
    match run_tool(command, CHECKSUM_LIMIT, clock) {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let blocks = text.lines().find_map(|line| line.strip_prefix("Blocks scanned:")).unwrap_or("?");
            Ok(Tally::default().result(
                CHECKSUMS,
                format!("{} pages as they should be", blocks.trim()),
                EXPECTED,
            ))
        }
        Err(error @ ServerError::Program { .. }) => Ok(failed(CHECKSUMS, EXPECTED, chain(&error))),
        Err(error) => Err(error::server("failed to run pg_checksums")(error)),
    }
}

/// The listings of schemas in the recovery point; those that are missing only make differences harder to tell.
fn recorded_schemas(
    from: &dyn RestoreSource,
    facts: &CaptureFacts,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut texts = BTreeMap::new();
    for database in facts.checksums.keys().filter_map(|key| key.strip_prefix("schema/")) {
        let path = format!("{META}/schema/{}.txt", file_name(database));
        let path = RelPath::new(path)
            .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name a schema", error))?;
        let mut bytes = Vec::new();
        match from.open(&path) {
            Ok(reader) => reader.take(MAX_SCHEMA_BYTES).read_to_end(&mut bytes).map_err(|error| {
                Failure::with_source(
                    FailureKind::Damaged,
                    "failed to read a schema of the recovery point",
                    error,
                )
            })?,
            Err(error) if error.kind() == FailureKind::Refused => continue,
            Err(error) => return Err(error),
        };
        texts.insert(database.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(texts)
}

#[cfg(test)]
mod tests;
