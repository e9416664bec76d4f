//! The adapter of kind `sqlite`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::{Capture, CaptureFacts, RestoreSource};
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::{Clock, SystemClock};
use rusqlite::Connection;

use super::canaries;
use super::capture::{SqliteCapture, geometry};
use super::checks::{INTEGRITY, Subject, check_database};
use super::error::source_failure;
use super::open::open_source;
use super::restore::restore_database;
use super::select;
use crate::adapter::{Adapter, CanaryResult, CaptureContext, CheckResult, Inspection, RestoreReport};
use crate::select::{Select, Selection, Take};
use crate::serve::{self, Serve};

/// What to capture of a database and what to check after a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The database file; its `-wal` and `-shm` files are found beside it.
    pub path: PathBuf,
    /// Column sets that must be unique, such as `orders(order_no)`.
    pub unique: Vec<String>,
    /// Statements that must each give one true number.
    pub sql: Vec<String>,
}

/// Captures and restores one SQLite database.
#[derive(Clone)]
pub struct SqliteAdapter {
    options: SqliteOptions,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for SqliteAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteAdapter").field("options", &self.options).finish_non_exhaustive()
    }
}

impl SqliteAdapter {
    /// An adapter for one database. A promise that cannot be understood is a check that fails.
    pub fn new(options: SqliteOptions) -> Self {
        Self { options, clock: Arc::new(SystemClock::new()) }
    }

    /// The same adapter with another clock for the deadline of a policy's statements.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }
}

fn items(connection: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    let sql = "SELECT count(*) FROM main.sqlite_schema WHERE type = ?1";
    let mut items = Vec::new();
    for (kind, name) in
        [("table", "tables"), ("index", "indexes"), ("trigger", "triggers"), ("view", "views")]
    {
        let count: i64 = connection.query_row(sql, [kind], |row| row.get(0))?;
        items.push((name.to_owned(), count.unsigned_abs()));
    }
    Ok(items)
}

impl Adapter for SqliteAdapter {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn inspect(&self) -> Result<Inspection, Failure> {
        let path = &self.options.path;
        let connection = open_source(path)?;
        let read = |error| source_failure(&format!("failed to read the database {}", path.display()), error);
        let mut items = items(&connection).map_err(read)?;
        let (page_bytes, page_count) = geometry(&connection).map_err(read)?;
        items.push(("pages".to_owned(), u64::from(page_count)));
        Ok(Inspection {
            version: format!("SQLite {}", rusqlite::version()),
            logical_bytes: Some(u64::from(page_bytes) * u64::from(page_count)),
            items,
            findings: Vec::new(),
            share: None,
        })
    }

    fn capture(&self, at: &CaptureContext<'_>) -> Result<Box<dyn Capture>, Failure> {
        let before = at.clock.now();
        Ok(Box::new(SqliteCapture::start(&self.options.path, before)?))
    }

    fn selects(&self) -> Option<&dyn Select> {
        Some(self)
    }

    fn serves(&self) -> Option<&dyn Serve> {
        Some(self)
    }

    fn restore(
        &self,
        from: &dyn RestoreSource,
        _facts: &CaptureFacts,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<RestoreReport, Failure> {
        restore_database(from, into, monitor)
    }

    fn checks(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        let subject = Subject { options: &self.options, clock: &self.clock, facts, monitor };
        check_database(&subject, from, restored)
    }

    fn essential(&self) -> &'static [&'static str] {
        &[INTEGRITY]
    }

    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        canaries::run(scratch)
    }
}

impl Select for SqliteAdapter {
    fn select(
        &self,
        _facts: &CaptureFacts,
        artefact: &Path,
        wanted: &[Selection],
        monitor: &dyn Monitor,
        take: &mut Take<'_>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        select::select(artefact, wanted, (&self.clock, monitor), take)
    }
}

impl Serve for SqliteAdapter {
    fn address(&self, _facts: &CaptureFacts, at: &Path) -> String {
        serve::path(at)
    }

    fn serve(
        &self,
        _facts: &CaptureFacts,
        artefact: &Path,
        _monitor: &dyn Monitor,
        work: &mut dyn FnMut(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        work(artefact)
    }
}
