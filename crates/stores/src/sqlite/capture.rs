//! A capture of a live database: its pages and what its tables hold, all inside one read transaction.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::PoisonError;

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, Consistency, ConsistencyLevel, DATA, Entry, Layout, META, Meta,
};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Timestamp;
use rusqlite::Connection;
use serde_json::{Map, Value, json};

use super::error::{is_damage, source_failure};
use super::open::{first_page, open_source};
use super::pages::{PageReader, Shared, SharedDigest};
use super::schema::{migrations, schema_text};
use super::tables::{Summary, SummaryError, summarise, table_names, virtual_tables};

/// The file below `meta` that holds the schema.
pub(crate) const SCHEMA: &str = "schema.sql";
/// Where the facts keep the tables that have no checksum, with the reason.
pub(crate) const UNCHECKED: &str = "unchecked_tables";
const DIR_MODE: u32 = 0o700;
const META_FILE_MODE: u32 = 0o600;
const PERMISSION_BITS: u32 = 0o7777;
/// Offsets of big-endian numbers in the header of a database.
const CHANGE_COUNTER_AT: usize = 24;
const SCHEMA_COOKIE_AT: usize = 40;

/// What comes next.
enum Stage {
    Dir,
    Database,
    /// The pages are with the vault; then everything else is read and the transaction ends.
    Pages(SharedDigest),
    Schema(String),
    Done,
    Broken(String),
}

pub(crate) struct SqliteCapture {
    name: OsString,
    shown: String,
    stage: Stage,
    /// Holds the transaction; let go as soon as the last row was read.
    connection: Shared,
    file_meta: Meta,
    moment: Timestamp,
    page_bytes: u32,
    page_count: u32,
    facts: CaptureFacts,
}

impl SqliteCapture {
    /// Pins the moment. `before` was read off the clock before this call.
    pub(crate) fn start(path: &Path, before: Timestamp) -> Result<Self, Failure> {
        let shown = path.display().to_string();
        let Some(name) = path.file_name().map(OsString::from) else {
            return Err(Failure::new(FailureKind::Usage, format!("{shown} does not name a file")));
        };
        let connection = open_source(path)?;
        let status =
            std::fs::metadata(path).map_err(|error| Failure::io(format!("failed to find {shown}"), error))?;
        let read = |error| source_failure(&format!("failed to read the database {shown}"), error);
        let environment = pin(&connection).map_err(read)?;
        let (page_bytes, page_count) = geometry(&connection).map_err(read)?;
        let page = first_page(&connection).map_err(read)?;
        let position = format!(
            "change-counter:{} schema:{} pages:{page_count}",
            number_at(&page, CHANGE_COUNTER_AT),
            number_at(&page, SCHEMA_COOKIE_AT)
        );
        let consistency = Consistency {
            level: ConsistencyLevel::PointInTime,
            moment: before,
            position: Some(position),
            changes: 0,
        };
        let facts = CaptureFacts {
            consistency,
            logical_bytes: u64::from(page_bytes) * u64::from(page_count),
            counts: BTreeMap::new(),
            checksums: BTreeMap::new(),
            environment,
            unreadable: Vec::new(),
        };
        let file_meta = Meta {
            mode: status.mode() & PERMISSION_BITS,
            uid: status.uid(),
            gid: status.gid(),
            mtime: i32::try_from(status.mtime_nsec())
                .ok()
                .and_then(|nanos| Timestamp::new(status.mtime(), nanos).ok()),
            links: 1,
            ..Meta::default()
        };
        Ok(Self {
            name,
            shown,
            stage: Stage::Dir,
            connection: Shared::new(connection),
            file_meta,
            moment: before,
            page_bytes,
            page_count,
            facts,
        })
    }

    fn entry(&self, names: &[&Path], mode: u32, body: Body) -> Result<Entry, Failure> {
        let path = RelPath::new(names.iter().collect::<std::path::PathBuf>())
            .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name an entry", error))?;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let meta = Meta { mode, uid, gid, mtime: Some(self.moment), links: 1, ..Meta::default() };
        Ok(Entry { path, meta, body })
    }

    fn pages(&mut self) -> Result<Entry, Failure> {
        let (reader, digest) = PageReader::new(self.connection.clone(), self.page_bytes, self.page_count);
        let layout = Layout::Pages { page_bytes: self.page_bytes };
        let body = Body::File { reader: Box::new(reader), size_hint: self.facts.logical_bytes, layout };
        let mut entry = self.entry(&[Path::new(DATA), Path::new(&self.name)], 0, body)?;
        entry.meta = self.file_meta.clone();
        self.stage = Stage::Pages(digest);
        Ok(entry)
    }

    fn broken(&self, why: &str) -> Failure {
        Failure::new(FailureKind::Internal, format!("failed to capture {}: {why}", self.shown))
    }

    /// Reads schema and tables, then ends the transaction.
    fn summarise(&mut self, digest: Option<Digest>, monitor: &dyn Monitor) -> Result<String, Failure> {
        let Some(digest) = digest else { return Err(self.broken("its pages were not read to their end")) };
        // Dropped at the end of this function, and with it the transaction.
        let Some(connection) = self.connection.take() else {
            return Err(self.broken("the transaction has ended"));
        };
        let what = format!("failed to read the schema of {}", self.shown);
        let read = |error| source_failure(&what, error);
        let schema = schema_text(&connection).map_err(read)?;
        let (tables, unusable) = table_names(&connection).map_err(read)?;
        let checksums = &mut self.facts.checksums;
        checksums.insert("file".to_owned(), format!("sha256:{digest}"));
        checksums.insert("schema".to_owned(), format!("sha256:{}", Digest::of(schema.as_bytes())));
        let mut unchecked = Map::new();
        for name in unusable {
            note_unchecked(&mut unchecked, name, "its name is not UTF-8", monitor);
        }
        monitor.phase("reading the tables", None);
        for table in &tables {
            match summarise(&connection, table, monitor) {
                Ok(Summary { rows, sum }) => {
                    self.facts.counts.insert(format!("rows/{table}"), rows);
                    self.facts.checksums.insert(format!("table/{table}"), sum.shown());
                }
                Err(SummaryError::Cancelled(failure)) => return Err(failure),
                Err(SummaryError::Sqlite(error)) if is_damage(&error) => {
                    self.facts.unreadable.push(format!("table {table}"));
                    self.facts.consistency.changes += 1;
                    let message = format!("its pages are captured but its rows cannot be read: {error}");
                    monitor.finding(Finding::new("sqlite-table-unreadable", table.clone(), message));
                    unchecked.insert(table.clone(), error.to_string().into());
                }
                Err(SummaryError::Sqlite(error)) => {
                    note_unchecked(&mut unchecked, table.clone(), &error.to_string(), monitor);
                }
            }
        }
        match migrations(&connection, &tables) {
            Ok(history) => {
                drop(self.facts.environment.insert("migrations".to_owned(), Value::Object(history)));
            }
            Err(error) => {
                let message = format!("the migration history could not be read: {error}");
                monitor.finding(Finding::new("sqlite-migrations-unreadable", self.shown.clone(), message));
            }
        }
        self.facts.environment.insert(UNCHECKED.to_owned(), Value::Object(unchecked));
        Ok(schema)
    }
}

fn note_unchecked(unchecked: &mut Map<String, Value>, table: String, why: &str, monitor: &dyn Monitor) {
    let message = format!("its rows are captured but have no checksum: {why}");
    monitor.finding(Finding::new("sqlite-table-unchecked", table.clone(), message));
    unchecked.insert(table, why.into());
}

/// Starts the transaction; the first read in it fixes what it sees.
fn pin(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Value>> {
    connection.execute_batch("BEGIN DEFERRED")?;
    connection.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_row| Ok(()))?;
    let mut environment = BTreeMap::new();
    environment.insert("sqlite_version".to_owned(), json!(rusqlite::version()));
    for name in ["page_size", "page_count", "user_version", "application_id", "auto_vacuum", "schema_version"]
    {
        let value: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
        environment.insert(name.to_owned(), json!(value));
    }
    for name in ["encoding", "journal_mode"] {
        let value: String = connection.pragma_query_value(None, name, |row| row.get(0))?;
        environment.insert(name.to_owned(), json!(value));
    }
    environment.insert("virtual_tables".to_owned(), json!(virtual_tables(connection)?));
    Ok(environment)
}

/// Page size in bytes and number of pages.
pub(crate) fn geometry(connection: &Connection) -> rusqlite::Result<(u32, u32)> {
    let bytes = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let count = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    Ok((bytes, count))
}

fn number_at(page: &[u8], at: usize) -> u32 {
    page.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

impl Drop for SqliteCapture {
    /// A reader that outlives the capture must not hold the database.
    fn drop(&mut self) {
        drop(self.connection.take());
    }
}

impl Capture for SqliteCapture {
    fn total_bytes(&self) -> Option<u64> {
        Some(self.facts.logical_bytes)
    }

    fn next_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        let stage = std::mem::replace(&mut self.stage, Stage::Broken("an earlier step failed".to_owned()));
        match stage {
            Stage::Dir => {
                self.stage = Stage::Database;
                self.entry(&[Path::new(DATA)], DIR_MODE, Body::Dir).map(Some)
            }
            Stage::Database => self.pages().map(Some),
            Stage::Pages(digest) => {
                let digest = *digest.lock().unwrap_or_else(PoisonError::into_inner);
                let schema = self.summarise(digest, monitor)?;
                self.stage = Stage::Schema(schema);
                self.entry(&[Path::new(META)], DIR_MODE, Body::Dir).map(Some)
            }
            Stage::Schema(text) => {
                let size_hint = text.len() as u64;
                let reader = Box::new(std::io::Cursor::new(text.into_bytes()));
                let body = Body::File { reader, size_hint, layout: Layout::Stream };
                self.stage = Stage::Done;
                self.entry(&[Path::new(META), Path::new(SCHEMA)], META_FILE_MODE, body).map(Some)
            }
            Stage::Done => {
                self.stage = Stage::Done;
                Ok(None)
            }
            Stage::Broken(why) => {
                let failure = Failure::new(
                    FailureKind::Unreachable,
                    format!("failed to capture {}: {why}", self.shown),
                );
                self.stage = Stage::Broken(why);
                Err(failure)
            }
        }
    }

    fn lost(&mut self, path: &RelPath, why: &str) {
        // A database without its only file is no recovery point.
        drop(self.connection.take());
        self.stage = Stage::Broken(format!("{path} could not be read: {why}"));
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        match &self.stage {
            Stage::Done => Ok(self.facts.clone()),
            Stage::Broken(why) => Err(Failure::new(
                FailureKind::Unreachable,
                format!("failed to capture {}: {why}", self.shown),
            )),
            _ => Err(Failure::new(FailureKind::Internal, "the capture was not read to its end")),
        }
    }
}
