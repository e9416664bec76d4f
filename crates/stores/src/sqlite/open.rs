//! Opens databases so that nothing is ever written to them.
//!
//! In: a path. Out: a connection that may only read. A source is opened with locks, a restored file without.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::source_failure;

/// How long a reader waits for a writer that is just committing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Offset of the read version in the header; 2 means write-ahead log.
const READ_VERSION_AT: usize = 19;
const READ_VERSION_WAL: u8 = 2;

/// `path` with `suffix` appended to its last name, as SQLite names its companions.
pub(crate) fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens a live database for reading.
///
/// A database that uses a write-ahead log but has none now (nobody has it open) is opened with write permission
/// and told to write nothing: only then does SQLite take away the empty `-wal` and `-shm` files it has to make, as
/// the last to leave. Everything else is opened read-only: such a connection can neither checkpoint a log nor roll
/// back the journal of a crashed application.
pub(crate) fn open_source(path: &Path) -> Result<Connection, Failure> {
    let shown = path.display();
    let real =
        fs::canonicalize(path).map_err(|error| Failure::io(format!("failed to find {shown}"), error))?;
    let status =
        fs::metadata(&real).map_err(|error| Failure::io(format!("failed to find {shown}"), error))?;
    if !status.is_file() {
        return Err(Failure::new(FailureKind::Unreachable, format!("{shown} is not a file")));
    }
    let what = format!("failed to open the database {shown}");
    let quiet = !companion(&real, "-wal").exists() && !companion(&real, "-journal").exists();
    let writable = quiet && uses_wal(&real);
    let mode = if writable { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(&real, flags).map_err(|error| source_failure(&what, error))?;
    harden(&connection).map_err(|error| source_failure(&what, error))?;
    Ok(connection)
}

/// Opens a file nobody else has open, without locks and without ever making a companion.
pub(crate) fn open_restored(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(immutable_uri(path), flags)?;
    harden(&connection)?;
    Ok(connection)
}

fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A schema is input: its views, triggers and expressions get no more rights than they need.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // A misspelt column in a check must not silently become a string.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.pragma_update(None, "query_only", true)
}

/// Looks into the header through SQLite: closing a descriptor of our own would drop every lock this process holds
/// on the file. Whatever goes wrong here goes wrong again, and is reported, when the database is opened properly.
fn uses_wal(path: &Path) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(immutable_uri(path), flags)
        .and_then(|connection| first_page(&connection))
        .is_ok_and(|page| page.get(READ_VERSION_AT) == Some(&READ_VERSION_WAL))
}

/// The content of page 1; empty for an empty database.
pub(crate) fn first_page(connection: &Connection) -> rusqlite::Result<Vec<u8>> {
    let mut statement = connection.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = 1")?;
    let mut rows = statement.query([])?;
    match rows.next()? {
        Some(row) => row.get(0),
        None => Ok(Vec::new()),
    }
}

fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~') {
            uri.push(char::from(byte));
        } else {
            uri.push('%');
            uri.push_str(&hex::encode_upper([byte]));
        }
    }
    uri.push_str("?immutable=1");
    uri
}
