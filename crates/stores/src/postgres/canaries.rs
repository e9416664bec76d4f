//! The canaries of kind `postgres`: a small cluster of its own, good, then damaged in one way per check and kind of
//! damage.
//!
//! In: an empty directory and the programs of a server. Out: which damage was caught. All damage that a server can be
//! asked for is done to one cluster, each to objects of its own, and looked at together: a canary counts only if its own
//! check fails and names its own object.

pub(crate) mod sample;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::Clock;
use lifeboat_postgres::server::{Installation, control_data, installation, installations};

use self::sample::{DAMAGE, Sample, needs};
use super::checks::{
    AMCHECK, CHECKSUMS, COLLATION, CONTENT, Cluster, DATABASES, FILES, FOREIGN_KEYS, INVALID_INDEXES,
    RECOVERY, ROWS, SCHEMA, SQL, SYSTEM, Subject, TABLES, UNIQUE, check_checksums, check_files,
    check_running, check_with,
};
use super::error;
use crate::adapter::{CanaryResult, CheckResult, CheckState};

/// The major version asked for in the name of the package where no server is installed at all.
const NEWEST: u32 = 18;

/// Promises of the sample's policy.
pub(super) const PROMISED_UNIQUE: &str = "sample:public.codes(code)";
pub(super) const PROMISED_SQL: [&str; 2] =
    ["SELECT count(*) = 0 FROM orders WHERE total < 0", "SELECT count(*) >= 0 FROM dropped"];

/// One kind of damage: the family that must notice, what was done, the result that must fail, and what it must name.
type Expectation = (&'static str, &'static str, &'static str, &'static str);

/// What [`DAMAGE`] and the altered facts must lead to.
const EXPECTED: [Expectation; 19] = [
    (RECOVERY, "the log ends before the position of the point", "postgres.recovery", "before FFFFFFFF/0"),
    (SYSTEM, "it is another cluster", "postgres.system", "system 1,"),
    (DATABASES, "a database is missing", "postgres.databases", "missing: gone"),
    (DATABASES, "a database too many", "postgres.databases", "extra: surplus"),
    (TABLES, "a table is missing", "postgres.tables", "missing: sample.public.dropped"),
    (TABLES, "a table too many", "postgres.tables", "extra: sample.public.added"),
    (ROWS, "a row is missing", "postgres.rows/sample.public.fewer", "found 2, expected 3"),
    (ROWS, "a row too many", "postgres.rows/sample.public.more", "found 4, expected 3"),
    (CONTENT, "a value is changed", "postgres.content/sample.public.orders", "found pg-hashtext64x2:"),
    (
        CONTENT,
        "a value is nothing instead of empty",
        "postgres.content/sample.public.notes",
        "found pg-hashtext64x2:",
    ),
    (SCHEMA, "a column has another type", "postgres.schema/other", "column public | shape | a | 1 | bigint"),
    (
        UNIQUE,
        "a code is given twice",
        "postgres.unique/sample:public.codes(code)",
        "1 values occur more than once",
    ),
    (SQL, "a total is negative", "postgres.sql/1", "a false value"),
    (SQL, "the table asked about is gone", "postgres.sql/2", "dropped"),
    (FOREIGN_KEYS, "a customer with orders is gone", "postgres.foreign_keys/sample", "orders_customer_fkey"),
    (INVALID_INDEXES, "an index is marked invalid", "postgres.invalid_indexes", "sample.public.unusable"),
    (COLLATION, "a collation has another version", "postgres.collation", "\"other\""),
    (AMCHECK, "an index no longer agrees with its table", "postgres.amcheck/sample", "index public.twisted"),
    (CHECKSUMS, "one bit of a page is flipped", "postgres.checksums", "checksum"),
];

/// Runs them all inside `scratch` with the newest installed server. `Refused` where there is none.
pub(crate) fn run(
    scratch: &Path,
    programs: &[PathBuf],
    clock: &dyn Clock,
) -> Result<Vec<CanaryResult>, Failure> {
    let installed = match installations(programs).into_iter().next() {
        Some(installed) => installed,
        None => installation(NEWEST, programs)
            .map_err(error::server("the checks could not be tried on damaged clusters"))?,
    };
    run_with(&installed, scratch, clock)
}

/// Runs them all with the server given. Where it has no `amcheck`, that family has no canary.
pub(crate) fn run_with(
    installed: &Installation,
    scratch: &Path,
    clock: &dyn Clock,
) -> Result<Vec<CanaryResult>, Failure> {
    let sample = Sample::make(installed, scratch, clock)?;
    let data = sample.data();
    let mut results = sample.files()?;
    let monitor = Findings::new();
    let unique = [PROMISED_UNIQUE.to_owned()];
    let sql = PROMISED_SQL.map(str::to_owned);
    let subject = |facts| Subject {
        spaces: &[],
        programs: &[],
        unique: &unique,
        sql: &sql,
        database: Some(sample::DATABASE.to_owned()),
        clock,
        facts,
        monitor: &monitor,
    };
    let good = check_with(&subject(&sample.facts), &sample.texts, data, Ok(installed.clone()), None)?;
    let cluster = sample.start()?;
    let table = Sample::damage(&cluster)?;
    let control = control_data(installed, data, clock).map_err(error::server("failed to read the sample"))?;
    let altered = sample.altered_facts();
    let mut bad = check_running(&subject(&altered), &sample.texts, &cluster, &control, false);
    cluster.stop(clock).map_err(error::server("failed to stop the damaged sample"))?;
    flip(&data.join(table), 4096).map_err(|error| failed("damage a page of", error))?;
    bad.push(check_checksums(installed, data, &control, clock)?);
    let without_amcheck = state(&good, "postgres.amcheck/sample") == Some(CheckState::NotApplicable);
    for (check, damage, id, needle) in EXPECTED {
        if check == AMCHECK && without_amcheck {
            continue;
        }
        let family = || good.iter().filter(|result| result.family() == check);
        let sound = family().next().is_some() && family().all(|result| result.state == CheckState::Passed);
        results.push(result(check, damage, sound && fails(&bad, id, needle)));
    }
    lose_log(data).map_err(|error| failed("remove the log of", error))?;
    let lost = check_with(&subject(&sample.facts), &sample.texts, data, Ok(installed.clone()), None)?;
    let sound = state(&good, RECOVERY) == Some(CheckState::Passed);
    results.push(result(RECOVERY, "a segment of the log is missing", sound && fails(&lost, RECOVERY, "")));
    Ok(results)
}

fn result(check: &str, damage: &str, caught: bool) -> CanaryResult {
    CanaryResult { check: check.to_owned(), damage: damage.to_owned(), caught }
}

fn state(results: &[CheckResult], id: &str) -> Option<CheckState> {
    results.iter().find(|result| result.id == id).map(|result| result.state)
}

/// Whether the result called `id` failed and names `needle`.
fn fails(results: &[CheckResult], id: &str, needle: &str) -> bool {
    results.iter().any(|result| {
        let names = result.detail.iter().any(|line| line.contains(needle));
        result.id == id && result.state == CheckState::Failed && names
    })
}

fn failed(doing: &str, error: io::Error) -> Failure {
    Failure::with_source(
        FailureKind::Internal,
        format!("failed to {doing} the sample of the canaries"),
        error,
    )
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Flips one bit of the byte at `at`.
fn flip(path: &Path, at: u64) -> io::Result<()> {
    let file = open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)
}

/// Removes every segment of the log.
fn lose_log(data: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data.join("pg_wal"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            crashsafe::remove(&entry.path())?;
        }
    }
    Ok(())
}

impl Sample<'_> {
    /// The canaries of the files: each damage is undone before the next.
    fn files(&self) -> Result<Vec<CanaryResult>, Failure> {
        let data = self.data();
        let page = data.join("global/pg_control");
        let (moved, extra) = (data.join("base/1/PG_VERSION"), data.join("base/1/99999"));
        let aside = PathBuf::from(format!("{}.aside", data.display()));
        let check = |needle: &str| -> Result<bool, Failure> {
            let result = check_files(data, &[], &Findings::new())?;
            Ok(fails(std::slice::from_ref(&result), FILES, needle))
        };
        let good = check_files(data, &[], &Findings::new())?.state == CheckState::Passed;
        let mut results = Vec::new();
        let mut add = |damage: &str, caught: bool| results.push(result(FILES, damage, good && caught));
        flip(&page, 1).map_err(|error| failed("flip a bit of", error))?;
        add("one bit of a file is flipped", check("changed: global/pg_control")?);
        flip(&page, 1).map_err(|error| failed("flip a bit of", error))?;
        crashsafe::publish(&moved, &aside).map_err(|error| failed("take a file from", error))?;
        add("a file is missing", check("missing: base/1/PG_VERSION")?);
        crashsafe::publish(&aside, &moved).map_err(|error| failed("give a file back to", error))?;
        crashsafe::write_new(&extra, b"stray").map_err(|error| failed("add a file to", error))?;
        add("a file too many", check("extra: base/1/99999")?);
        crashsafe::remove(&extra).map_err(|error| failed("remove a file from", error))?;
        Ok(results)
    }

    /// Does the damage that a server can be asked for; gives the file of a table whose pages nobody needs any more.
    fn damage(cluster: &Cluster) -> Result<String, Failure> {
        for (database, sql) in DAMAGE {
            let what = || format!("failed to damage the sample of the canaries: {sql}");
            let session = cluster.session_as_set(database);
            let done = session.and_then(|mut session| session.ask(sql).map(drop));
            done.map_err(error::connection(what()))?;
        }
        let mut session = cluster
            .session_as_set(sample::DATABASE)
            .map_err(error::connection("failed to enter the sample"))?;
        if session.version() >= 150_000 {
            let sql = "UPDATE pg_catalog.pg_database SET datcollversion = '0' WHERE datname = 'other'";
            session.ask(sql).map_err(error::connection("failed to damage the sample"))?;
        }
        let path = session.value("SELECT pg_catalog.pg_relation_filepath('public.fewer')");
        path.map_err(error::connection("failed to find a table of the sample"))?
            .ok_or_else(|| needs("a table"))
    }

    /// What a point of another cluster, with more log, on a machine with other collations would say.
    fn altered_facts(&self) -> lifeboat_base::capture::CaptureFacts {
        let mut facts = self.facts.clone();
        facts.consistency.position = Some("FFFFFFFF/0".to_owned());
        facts.environment.insert("system_identifier".to_owned(), serde_json::json!("1"));
        if let Some(other) = facts.environment.get_mut("databases").and_then(|all| all.get_mut("other"))
            && let Some(other) = other.as_object_mut()
        {
            other.insert("actual_version".to_owned(), serde_json::json!("0"));
        }
        facts
    }
}

/// The listings of schemas, by database.
pub(super) type Texts = BTreeMap<String, String>;
