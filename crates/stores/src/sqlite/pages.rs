//! Streams the pages of a database in order, inside a read transaction that is already open.
//!
//! In: a connection shared with the capture. Out: the bytes of the database file as a checkpoint would leave it.
//! Memory: one buffer, whatever the size of the database.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifeboat_base::digest::{Digest, Hasher};
use rusqlite::Connection;

/// How much is read from the database at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// A connection that the capture and its reader use in turn, until the capture takes it back.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Option<Connection>>>);

impl Shared {
    pub(crate) fn new(connection: Connection) -> Self {
        Self(Arc::new(Mutex::new(Some(connection))))
    }

    /// Takes the connection away from a reader that may still exist.
    pub(crate) fn take(&self) -> Option<Connection> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Set once the reader has come to its end: the digest of everything it gave.
pub(crate) type SharedDigest = Arc<Mutex<Option<Digest>>>;

/// Reads the database file as of the open transaction.
pub(crate) struct PageReader {
    connection: Shared,
    page_bytes: usize,
    page_count: u32,
    next_page: u32,
    buffer: Vec<u8>,
    at: usize,
    hasher: Option<Hasher>,
    digest: SharedDigest,
}

impl PageReader {
    pub(crate) fn new(connection: Shared, page_bytes: u32, page_count: u32) -> (Self, SharedDigest) {
        let digest = SharedDigest::default();
        let reader = Self {
            connection,
            page_bytes: page_bytes as usize,
            page_count,
            next_page: 1,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            at: 0,
            hasher: Some(Hasher::new()),
            digest: Arc::clone(&digest),
        };
        (reader, digest)
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.at = 0;
        let guard = self.connection.lock();
        let Some(connection) = guard.as_ref() else {
            return Err(io::Error::other("the transaction has ended"));
        };
        let mut statement = connection
            .prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")
            .map_err(io::Error::other)?;
        while self.next_page <= self.page_count && self.buffer.len() + self.page_bytes <= BUFFER_BYTES {
            let mut rows = statement.query([self.next_page]).map_err(io::Error::other)?;
            let row = rows.next().map_err(io::Error::other)?;
            let row = row.ok_or_else(|| page_error(self.next_page, "is missing"))?;
            let page = row.get_ref(0).and_then(|value| Ok(value.as_blob()?)).map_err(io::Error::other)?;
            if page.len() != self.page_bytes {
                return Err(page_error(self.next_page, "has another size than its database"));
            }
            self.buffer.extend_from_slice(page);
            self.next_page += 1;
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.buffer);
        }
        Ok(())
    }
}

fn page_error(number: u32, what: &str) -> io::Error {
    io::Error::other(format!("page {number} {what}"))
}

impl Read for PageReader {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.buffer.len() {
            self.fill()?;
        }
        let ready = self.buffer.get(self.at..).unwrap_or_default();
        if ready.is_empty() {
            if let Some(hasher) = self.hasher.take() {
                *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(hasher.finish());
            }
            return Ok(0);
        }
        let count = ready.len().min(target.len());
        if let (Some(to), Some(from)) = (target.get_mut(..count), ready.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}
