//! Takes a database or some of its tables out of a restored cluster: recovered on a throwaway server, written by the
//! server's own `pg_dump`, read back by its `pg_restore`.
//!
//! In: a restored cluster in a scratch directory. Out: an archive or plain SQL in one file. Nothing counts as written
//! before `pg_dump` ended well, the file is durable, `pg_restore` has read it to its end, and it names every table.
//! Memory: the names of the tables asked for, or 4 bytes for each table of a whole database.

mod archive;
mod find;

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::Clock;
use lifeboat_postgres::server::{ServerError, Wait, installation, run_tool_on};
use serde_json::Value;

use self::find::{Rowless, Selection};
use super::checks::{Cluster, Recovery, check_recovery, major, superuser};
use super::error;
use super::replay::recovery_target;
use super::session::Session;
use crate::adapter::CheckState;
use crate::parts::{Part, PartReport};

const DUMP: &str = "pg_dump";
const RESTORE: &str = "pg_restore";
/// How long one of the two may take.
const PROGRAM_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Only a transaction that was prepared and never ended holds a lock in a sandbox.
const LOCK_WAIT: &str = "--lock-wait-timeout=30000";
/// Nobody but us may read what was taken out.
const PRIVATE: u32 = 0o600;

/// What an extraction needs besides the cluster.
pub(crate) struct Workshop<'a> {
    /// Folders with programs of a server, besides those where packages put them.
    pub(crate) programs: &'a [PathBuf],
    pub(crate) clock: &'a dyn Clock,
    pub(crate) facts: &'a CaptureFacts,
}

impl Workshop<'_> {
    /// The programs that will be needed are here, of the version the point was captured from.
    pub(crate) fn ready(&self) -> Result<(), Failure> {
        let captured = self.facts.environment.get("server_major").and_then(Value::as_u64);
        let major = captured.and_then(|major| u32::try_from(major).ok()).ok_or_else(|| {
            Failure::new(FailureKind::Refused, "the recovery point does not say its version of PostgreSQL")
        })?;
        let lacking = error::server("a database cannot be extracted on this machine");
        let found = installation(major, self.programs)
            .and_then(|installed| [DUMP, RESTORE].iter().try_for_each(|name| installed.check_program(name)));
        found.map_err(lacking)
    }

    /// Recovers the cluster in `restored` and writes `part` of it into `into`.
    pub(crate) fn extract(
        &self,
        restored: &Path,
        part: &Part,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<PartReport, Failure> {
        let restored = &fs::canonicalize(restored)
            .map_err(|error| Failure::io("failed to find the restored cluster", error))?;
        let told = recovery_target(restored)?;
        let recovery = (!told.is_empty()).then(|| Recovery::new(told));
        let installed = installation(major(restored), self.programs)
            .map_err(error::server("a database cannot be extracted on this machine"))?;
        monitor.phase("recovering the restored cluster", None);
        let (user, cancelled) = (superuser(self.facts), || monitor.cancelled());
        // Its tablespaces come to lie inside it.
        let place = (restored.as_path(), &[][..]);
        let cluster = Cluster::start(&installed, place, &user, recovery.as_ref(), self.clock, &cancelled)
            .map_err(not_started)?;
        // The directory is scratch: when the cluster is dropped here, its server is ended without a last checkpoint.
        Extraction { cluster: &cluster, clock: self.clock, monitor, database: &part.database }
            .run(self.facts, part, into)
    }
}

/// What comes of a cluster that does not recover is the same as where the checks find it so.
pub(crate) fn not_started(error: ServerError) -> Failure {
    const WHAT: &str = "the cluster did not recover";
    match error {
        ServerError::Ended { .. } | ServerError::Late { .. } | ServerError::LeadsOutside { .. } => {
            Failure::with_source(FailureKind::Damaged, WHAT, error)
        }
        other => error::server(WHAT)(other),
    }
}

/// One part of a running cluster.
struct Extraction<'a> {
    cluster: &'a Cluster,
    clock: &'a dyn Clock,
    monitor: &'a dyn Monitor,
    database: &'a str,
}

impl Extraction<'_> {
    fn run(&self, facts: &CaptureFacts, part: &Part, into: &Path) -> Result<PartReport, Failure> {
        let mut session = self.enter(facts)?;
        let asked = failed_to("look for the tables", find::select(&mut session, part))?;
        let selection = asked?;
        for finding in selection.findings(&part.database) {
            self.monitor.finding(finding);
        }
        self.monitor.phase("counting rows", None);
        let tables = failed_to("count the rows", selection.count(&mut session))?;
        let encoding = failed_to("ask for the encoding", session.value("SHOW server_encoding"))?;
        drop(session);
        let plain_archive = into.with_extension("archive");
        let archive: &Path = if part.plain { &plain_archive } else { into };
        self.monitor.phase(&format!("dumping {}", self.database), None);
        self.run_into(self.dump(&selection, encoding.as_deref()), None, archive)?;
        self.check_contents(&selection, archive)?;
        // A list is at the start of an archive: only who reads on finds that the rest is cut off or damaged.
        self.monitor.phase("reading the archive back", None);
        let mut read = self.cluster.program(RESTORE, self.database);
        read.arg("--file=-");
        if part.plain {
            self.run_into(read, Some(archive), into)?;
            archive::check_end(into)?;
            crashsafe::remove(archive)
                .map_err(|error| Failure::io("failed to remove the scratch archive", error))?;
        } else {
            self.to_end(read, Some(archive), Stdio::null(), &|| self.monitor.cancelled())?;
        }
        let meta = fs::metadata(into).map_err(|error| Failure::io("failed to look at the archive", error))?;
        Ok(PartReport { tables, bytes: meta.len() })
    }

    /// A session of the database, if it is there, in a cluster that got where it should.
    fn enter(&self, facts: &CaptureFacts) -> Result<Session, Failure> {
        let mut session = failed_to("reach any database", find::any_session(self.cluster, self.database))?;
        let recovered = check_recovery(&mut session, facts, self.cluster);
        if recovered.state != CheckState::Passed {
            let why = format!("{}: {}", recovered.measured, recovered.detail.join("; "));
            let what = format!("the cluster was not recovered as far as its recovery point says: {why}");
            return Err(Failure::new(FailureKind::Damaged, what));
        }
        failed_to("look for the database", find::check_database(&mut session, self.database))??;
        failed_to("enter the database", self.cluster.session(self.database))
    }

    fn dump(&self, selection: &Selection, encoding: Option<&str>) -> Command {
        let mut command = self.cluster.program(DUMP, self.database);
        command.args(["--format=custom", "--no-password", LOCK_WAIT]);
        command.args(selection.patterns().iter().map(|pattern| format!("--table={pattern}")));
        // Patterns are read in the encoding of the session. A database without one takes bytes as they come.
        if !selection.is_ascii() && encoding != Some("SQL_ASCII") {
            command.arg("--encoding=UTF8");
        }
        command
    }

    /// The archive's own list names every table and its rows.
    fn check_contents(&self, selection: &Selection, archive: &Path) -> Result<(), Failure> {
        let list = archive.with_extension("list");
        let mut command = self.cluster.program(RESTORE, self.database);
        command.arg("--list");
        self.run_into(command, Some(archive), &list)?;
        let missing = archive::missing(&list, selection)?;
        crashsafe::remove(&list).map_err(|error| Failure::io("failed to remove a scratch file", error))?;
        match missing {
            None => Ok(()),
            Some(name) => Err(Failure::new(
                FailureKind::Internal,
                format!("pg_dump ended well and left out {name}: nothing was published"),
            )),
        }
    }

    /// Runs a program to its end with its output in a new file, which is durable when this returns.
    fn run_into(&self, command: Command, input: Option<&Path>, output: &Path) -> Result<(), Failure> {
        let fail = |error| Failure::io(format!("failed to write {}", output.display()), error);
        let file =
            OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(output).map_err(fail)?;
        let theirs = file.try_clone().map_err(fail)?;
        let seen = Cell::new(0);
        let look = || {
            let length = file.metadata().map_or(0, |meta| meta.len());
            self.monitor.advance(length.saturating_sub(seen.replace(length)), 0);
            self.monitor.cancelled()
        };
        self.to_end(command, input, Stdio::from(theirs), &look)?;
        file.sync_all().map_err(fail)
    }

    fn to_end(
        &self,
        command: Command,
        input: Option<&Path>,
        output: Stdio,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        let input = match input {
            Some(path) => Stdio::from(
                File::open(path)
                    .map_err(|error| Failure::io(format!("failed to read {}", path.display()), error))?,
            ),
            None => Stdio::null(),
        };
        let wait = Wait { limit: PROGRAM_LIMIT, clock: self.clock, cancelled };
        run_tool_on(command, (input, output), wait).map(drop).map_err(|error| match error {
            // A program that failed wrote a part at best; exit code 5 would say that there is something to use.
            ServerError::Program { .. } => {
                Failure::with_source(FailureKind::Internal, "the database could not be extracted", error)
            }
            other => error::server("the database could not be extracted")(other),
        })
    }
}

/// A question to the sandbox that was not answered.
fn failed_to<T>(verb: &str, result: Result<T, lifeboat_postgres::wire::PgError>) -> Result<T, Failure> {
    result.map_err(|error| {
        Failure::with_source(FailureKind::Internal, format!("failed to {verb} in the sandbox"), error)
    })
}

impl Selection {
    fn findings(&self, database: &str) -> Vec<Finding> {
        let foreign = self.named("f").map(|name| {
            let what = format!("{name} is a foreign table: its rows are not in the recovery point");
            Finding::new("foreign-table", name, what)
        });
        let unlogged = self.unlogged().map(|name| {
            let what = format!("{name} is unlogged: a recovery leaves it empty, whatever it held");
            Finding::new("unlogged-table", name, what)
        });
        let rowless = self.rowless().iter().map(|tables| tables.finding(database));
        foreign.chain(unlogged).chain(rowless).collect()
    }
}

impl Rowless {
    /// Whoever takes a whole database out must not learn from an empty table that its rows were never there.
    fn finding(&self, database: &str) -> Finding {
        let Self { foreign, count, names } = self;
        let (code, one, many) = if *foreign {
            let many = "foreign tables come without rows: theirs are on other servers";
            ("foreign-tables", "foreign table comes without rows: its are on another server", many)
        } else {
            let many = "unlogged tables come out empty, whatever they held: a recovery empties them";
            (
                "unlogged-tables",
                "unlogged table comes out empty, whatever it held: a recovery empties it",
                many,
            )
        };
        let more = if *count > names.len() as u64 { " and more" } else { "" };
        let what = if *count == 1 { one } else { many };
        Finding::new(code, database, format!("{count} {what} ({}{more})", names.join(", ")))
    }
}
