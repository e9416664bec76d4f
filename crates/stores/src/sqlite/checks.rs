//! Checks a restored database: the file, its structure, its references, and every table against the facts.
//!
//! In: the facts, the schema from the recovery point, the restored directory. Out: check results. The file is
//! opened without locks and never written.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::{CaptureFacts, META, RestoreSource};
use lifeboat_base::digest::{Digest, digest_of_reader};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Clock;
use rusqlite::Connection;
use serde_json::Value;

use super::adapter::SqliteOptions;
use super::capture::{SCHEMA, UNCHECKED};
use super::error::{is_damage, restored_failure};
use super::open::{companion, open_restored};
use super::promises::{check_statement, check_unique};
use super::restore::database_name;
use super::schema::schema_text;
use super::tables::{Summary, SummaryError, summarise, table_names};
use crate::adapter::CheckResult;
use crate::tally::{Tally, equal, failed, not_applicable};

/// The files SQLite keeps beside a database; none may be there after a restore.
pub(crate) const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
pub(crate) const INTEGRITY: &str = "sqlite.integrity";
const FOREIGN_KEYS: &str = "sqlite.foreign_keys";
const TABLES: &str = "sqlite.tables";
const SCHEMA_CHECK: &str = "sqlite.schema";
const FILE: &str = "sqlite.file";
/// The schema of the recovery point is shown in differences only up to this size.
const MAX_SCHEMA_BYTES: u64 = 16 * 1024 * 1024;

/// What all checks look at.
pub(crate) struct Subject<'a> {
    pub(crate) options: &'a SqliteOptions,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) facts: &'a CaptureFacts,
    pub(crate) monitor: &'a dyn Monitor,
}

/// Runs all checks of a restored database.
pub(crate) fn check_database(
    subject: &Subject<'_>,
    from: &dyn RestoreSource,
    restored: &Path,
) -> Result<Vec<CheckResult>, Failure> {
    subject.monitor.phase("checking the restored database", Some(subject.facts.logical_bytes));
    let path = restored.join(database_name(from)?);
    let mut results = vec![check_file(&path, subject.facts)?];
    match open_restored(&path) {
        Ok(mut connection) => {
            results.push(check_integrity(&connection));
            results.push(check_foreign_keys(&connection));
            results.push(check_schema(&connection, from, subject.facts)?);
            check_tables(&connection, subject, &mut results)?;
            for spec in &subject.options.unique {
                results.push(check_unique(&connection, spec));
            }
            for (index, statement) in subject.options.sql.iter().enumerate() {
                results.push(check_statement(&mut connection, index + 1, statement, subject.clock)?);
            }
        }
        Err(error) => {
            for id in [INTEGRITY, FOREIGN_KEYS, SCHEMA_CHECK, TABLES] {
                results.push(failed(id, "a database that opens", format!("it cannot be opened: {error}")));
            }
        }
    }
    Ok(results)
}

/// The file is, byte for byte, what was captured, and nothing lies beside it that would change what it means.
fn check_file(path: &Path, facts: &CaptureFacts) -> Result<CheckResult, Failure> {
    let expected = facts.checksums.get("file").map(String::as_str).unwrap_or_default();
    let strays: Vec<PathBuf> =
        COMPANIONS.iter().map(|suffix| companion(path, suffix)).filter(|stray| stray.exists()).collect();
    if let Some(stray) = strays.first() {
        return Ok(failed(FILE, expected, format!("{} lies beside the database", stray.display())));
    }
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(failed(FILE, expected, "there is no database file"));
        }
        other => other.map_err(|error| Failure::io(format!("failed to open {}", path.display()), error))?,
    };
    let (digest, _) = digest_of_reader(file)
        .map_err(|error| Failure::io(format!("failed to read {} back", path.display()), error))?;
    Ok(equal(FILE, format!("sha256:{digest}"), expected))
}

fn check_integrity(connection: &Connection) -> CheckResult {
    const EXPECTED: &str = "ok";
    let mut tally = Tally::default();
    let outcome = (|| {
        let mut statement = connection.prepare("PRAGMA main.integrity_check(1000)")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let message: String = row.get(0)?;
            if message != EXPECTED {
                tally.add(|| message);
            }
        }
        Ok(())
    })();
    match outcome {
        Ok(()) => {
            let measured =
                if tally.count() == 0 { EXPECTED.to_owned() } else { format!("{} messages", tally.count()) };
            tally.result(INTEGRITY, measured, EXPECTED)
        }
        Err(error) => unfinished(INTEGRITY, EXPECTED, tally, &error),
    }
}

/// A check that SQLite ended with an error: damage fails it. A missing function, collation or module of the
/// application leaves it unproven, unless it had already found something.
fn unfinished(id: &str, expected: &str, mut tally: Tally, error: &rusqlite::Error) -> CheckResult {
    if is_damage(error) || tally.count() > 0 || error.sqlite_error_code().is_none() {
        tally.add(|| error.to_string());
        return tally.result(id, "it ended with an error", expected);
    }
    not_applicable(id, expected, format!("it cannot run without the application: {error}"))
}

fn check_foreign_keys(connection: &Connection) -> CheckResult {
    const EXPECTED: &str = "0 rows without the row they refer to";
    let mut tally = Tally::default();
    let outcome = (|| {
        let mut statement = connection.prepare("PRAGMA main.foreign_key_check")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (table, id, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            tally.add(|| match id {
                Some(id) => format!("row {id} of {table} refers to a row of {parent} that is not there"),
                None => format!("a row of {table} refers to a row of {parent} that is not there"),
            });
        }
        Ok(())
    })();
    match outcome {
        Ok(()) => {
            let measured = format!("{} rows", tally.count());
            tally.result(FOREIGN_KEYS, measured, EXPECTED)
        }
        Err(error) => unfinished(FOREIGN_KEYS, EXPECTED, tally, &error),
    }
}

fn check_schema(
    connection: &Connection,
    from: &dyn RestoreSource,
    facts: &CaptureFacts,
) -> Result<CheckResult, Failure> {
    let expected = facts.checksums.get("schema").map(String::as_str).unwrap_or_default();
    let text = match schema_text(connection) {
        Ok(text) => text,
        Err(error) if is_damage(&error) => return Ok(failed(SCHEMA_CHECK, expected, error.to_string())),
        Err(error) => return Err(restored_failure("failed to read the restored schema", error)),
    };
    let measured = format!("sha256:{}", Digest::of(text.as_bytes()));
    let recorded = recorded_schema(from)?;
    let mut tally = Tally::default();
    let (before, after): (BTreeSet<&str>, BTreeSet<&str>) =
        (recorded.lines().collect(), text.lines().collect());
    before.difference(&after).for_each(|line| tally.add(|| format!("missing: {line}")));
    after.difference(&before).for_each(|line| tally.add(|| format!("extra: {line}")));
    if format!("sha256:{}", Digest::of(recorded.as_bytes())) != expected {
        tally.add(|| format!("{META}/{SCHEMA} is not the schema that was captured"));
    }
    if measured != expected && tally.count() == 0 {
        tally.add(|| "its lines stand in another order".to_owned());
    }
    Ok(tally.result(SCHEMA_CHECK, measured, expected))
}

/// The schema in the recovery point; empty if there is none.
fn recorded_schema(from: &dyn RestoreSource) -> Result<String, Failure> {
    let path = RelPath::new(Path::new(META).join(SCHEMA))
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name the schema", error))?;
    let mut bytes = Vec::new();
    match from.open(&path) {
        Ok(reader) => {
            reader.take(MAX_SCHEMA_BYTES).read_to_end(&mut bytes).map_err(|error| {
                Failure::with_source(
                    FailureKind::Damaged,
                    "failed to read the schema of the recovery point",
                    error,
                )
            })?;
        }
        Err(error) if error.kind() == FailureKind::Refused => {}
        Err(error) => return Err(error),
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Tables in both directions, then rows and content of each that was captured.
fn check_tables(
    connection: &Connection,
    subject: &Subject<'_>,
    results: &mut Vec<CheckResult>,
) -> Result<(), Failure> {
    let facts = subject.facts;
    let unchecked = facts.environment.get(UNCHECKED).and_then(Value::as_object);
    let mut captured: BTreeSet<&str> =
        facts.counts.keys().filter_map(|key| key.strip_prefix("rows/")).collect();
    captured.extend(unchecked.into_iter().flat_map(|tables| tables.keys().map(String::as_str)));
    let expected = format!("{} tables", captured.len());
    let (usable, unusable) = match table_names(connection) {
        Ok(names) => names,
        Err(error) => {
            results.push(failed(TABLES, expected, error.to_string()));
            return Ok(());
        }
    };
    let restored: BTreeSet<&str> = usable.iter().chain(&unusable).map(String::as_str).collect();
    let mut tally = Tally::default();
    captured.difference(&restored).for_each(|table| tally.add(|| format!("missing: {table}")));
    restored.difference(&captured).for_each(|table| tally.add(|| format!("extra: {table}")));
    results.push(tally.result(TABLES, format!("{} tables", restored.len()), expected));
    for table in captured {
        let reason = unchecked.and_then(|tables| tables.get(table)).and_then(Value::as_str);
        check_table(connection, table, reason, subject, results)?;
    }
    Ok(())
}

fn check_table(
    connection: &Connection,
    table: &str,
    unchecked: Option<&str>,
    subject: &Subject<'_>,
    results: &mut Vec<CheckResult>,
) -> Result<(), Failure> {
    let (rows_id, content_id) = (format!("sqlite.rows/{table}"), format!("sqlite.content/{table}"));
    let facts = subject.facts;
    let rows = facts.counts.get(&format!("rows/{table}"));
    let Some(rows) = rows.filter(|_| unchecked.is_none()) else {
        let why = format!("it had no checksum when it was captured: {}", unchecked.unwrap_or("unknown"));
        results.push(not_applicable(&rows_id, "unknown", why.clone()));
        results.push(not_applicable(&content_id, "unknown", why));
        return Ok(());
    };
    let sum = facts.checksums.get(&format!("table/{table}")).map(String::as_str).unwrap_or_default();
    match summarise(connection, table, subject.monitor) {
        Ok(Summary { rows: found, sum: found_sum }) => {
            results.push(equal(&rows_id, found.to_string(), rows.to_string()));
            results.push(equal(&content_id, found_sum.shown(), sum));
        }
        Err(SummaryError::Cancelled(failure)) => return Err(failure),
        Err(SummaryError::Sqlite(error)) => {
            results.push(failed(&rows_id, rows.to_string(), error.to_string()));
            results.push(failed(&content_id, sum, error.to_string()));
        }
    }
    Ok(())
}
