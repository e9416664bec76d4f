//! Reads a base backup from a replication connection, entry by entry.
//!
//! Servers from 15 on send one copy stream with marks between the archives; 13 and 14 send one copy stream per archive
//! and one for the manifest. Both become the same sequence here.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use lifeboat_base::digest::{Digest, Hasher};

use super::error::BackupError;
use super::tar::{self, BLOCK_BYTES, TarKind};
use crate::lsn::{Lsn, Timeline};
use crate::wire::{Connection, Event, PgError, Row, quote_replication_literal};

/// The first version with the single copy stream.
const ONE_STREAM_VERSION: u32 = 150_000;
const SUPPORTED: std::ops::Range<u32> = 130_000..190_000;
/// Where tablespaces stand in a cluster.
const TABLESPACES: &str = "pg_tblspc";

/// How to take a base backup.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// What the server calls it in its own logs.
    pub label: String,
    /// Starts at once with an immediate checkpoint, instead of waiting for a spread one.
    pub fast_checkpoint: bool,
}

/// A tablespace outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its object id.
    pub oid: u32,
    /// Where it lies on the server.
    pub location: String,
    /// Its size in KiB as the server estimated it.
    pub size_kib: Option<u64>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupKind {
    /// A directory.
    Dir,
    /// A file of this many bytes; its content is read with [`BaseBackup::read`].
    File(u64),
}

/// One entry of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupEntry {
    /// Its path below the data directory; the content of tablespaces stands below `pg_tblspc/OID`, which is no entry itself.
    pub path: String,
    /// What it is.
    pub kind: BackupKind,
    /// Permission bits.
    pub mode: u32,
    /// The account the server runs as, on its machine.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Last change, in seconds since 1970.
    pub mtime_s: i64,
}

/// A file that passed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenFile {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of what was received.
    pub sha256: Digest,
}

/// Where the backup ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupStop {
    /// The log position that a restore must reach.
    pub lsn: Lsn,
    /// The timeline it lies on.
    pub timeline: Timeline,
}

enum Piece {
    /// An archive begins: the data directory, or a tablespace.
    Archive(Option<u32>),
    Bytes(Bytes),
    Manifest,
    /// The copy stream of the manifest is over.
    End,
}

/// A base backup in progress. Dropping it before its end makes the server give it up.
pub struct BaseBackup {
    connection: Connection,
    one_stream: bool,
    /// The archives that older servers still have to send, in order.
    expected: VecDeque<Option<u32>>,
    start: BackupStop,
    total_kib: u64,
    tablespaces: Vec<Tablespace>,
    at: At,
    buffer: Bytes,
    seen: BTreeMap<String, SeenFile>,
}

enum At {
    /// Before the first or between two archives.
    Between,
    /// In the archive of this tablespace.
    Archive { tablespace: Option<u32>, file: Option<OpenFile> },
    /// The manifest's bytes follow.
    Manifest,
}

struct OpenFile {
    path: String,
    size_bytes: u64,
    left_bytes: u64,
    hasher: Hasher,
}

impl std::fmt::Debug for BaseBackup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseBackup").field("start", &self.start).finish_non_exhaustive()
    }
}

fn failed(doing: &'static str) -> impl FnOnce(PgError) -> BackupError {
    move |source| BackupError::Connection { doing, source }
}

impl BaseBackup {
    /// Asks the server to begin. Returns once the start position is known, which is after a checkpoint.
    pub fn start(mut connection: Connection, options: &BackupOptions) -> Result<Self, BackupError> {
        let version = connection.server_version().unwrap_or_default();
        if !SUPPORTED.contains(&version) {
            let found = connection.parameter("server_version").unwrap_or("of an unknown version").to_owned();
            return Err(BackupError::Version { found });
        }
        let one_stream = version >= ONE_STREAM_VERSION;
        connection.start(&command(options, one_stream)).map_err(failed("start a base backup"))?;
        let begun = rows(&mut connection)?;
        let listed = rows(&mut connection)?;
        let start = position(begun.first())?;
        let mut backup = Self {
            connection,
            one_stream,
            expected: VecDeque::new(),
            start,
            total_kib: 0,
            tablespaces: Vec::new(),
            at: At::Between,
            buffer: Bytes::new(),
            seen: BTreeMap::new(),
        };
        for row in listed {
            let size_kib = row.get(2).and_then(|text| text.parse().ok());
            backup.total_kib += size_kib.unwrap_or(0);
            let oid = row.get(0).and_then(|text| text.parse().ok());
            backup.expected.push_back(oid);
            if let (Some(oid), Some(location)) = (oid, row.get(1)) {
                backup.tablespaces.push(Tablespace { oid, location: location.to_owned(), size_kib });
            }
        }
        if one_stream {
            match backup.event()? {
                Event::CopyOut => {}
                _ => return Err(BackupError::stream("no data follows its announcement")),
            }
        }
        Ok(backup)
    }

    /// Where a restore starts to replay the log.
    pub fn start_position(&self) -> BackupStop {
        self.start
    }

    /// The tablespaces outside the data directory.
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// What the server expects to send, without the log, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total_kib * 1024
    }

    /// The next entry; what was not read of the one before is read and hashed now.
    pub fn next_entry(&mut self) -> Result<Option<BackupEntry>, BackupError> {
        self.close_file()?;
        loop {
            match self.at {
                At::Manifest => return Ok(None),
                At::Between => match self.piece()? {
                    Piece::Archive(tablespace) => {
                        self.at = At::Archive { tablespace, file: None };
                    }
                    Piece::Manifest => self.at = At::Manifest,
                    Piece::Bytes(_) | Piece::End => {
                        return Err(BackupError::stream("data outside an archive"));
                    }
                },
                At::Archive { tablespace, .. } => {
                    if let Some(header) = self.header()?
                        && let Some(entry) = self.enter(tablespace, header)?
                    {
                        return Ok(Some(entry));
                    }
                }
            }
        }
    }

    /// Reads content of the current file; 0 at its end.
    pub fn read(&mut self, target: &mut [u8]) -> Result<usize, BackupError> {
        self.fill()?;
        let At::Archive { file: Some(file), .. } = &mut self.at else { return Ok(0) };
        let left = usize::try_from(file.left_bytes).unwrap_or(usize::MAX);
        let count = target.len().min(left).min(self.buffer.len());
        let (Some(into), Some(from)) = (target.get_mut(..count), self.buffer.get(..count)) else {
            return Ok(0);
        };
        into.copy_from_slice(from);
        file.hasher.update(from);
        file.left_bytes -= count as u64;
        self.buffer.advance(count);
        Ok(count)
    }

    /// After the last entry: writes the manifest to `sink` and learns where the backup ends. Every file that passed by is
    /// given back for comparison.
    pub fn finish(
        mut self,
        sink: &mut dyn Write,
    ) -> Result<(BackupStop, BTreeMap<String, SeenFile>), BackupError> {
        if !matches!(self.at, At::Manifest) {
            return Err(BackupError::stream("it was left before its end"));
        }
        loop {
            match self.piece()? {
                Piece::Bytes(bytes) => sink.write_all(&bytes).map_err(BackupError::Scratch)?,
                Piece::End => break,
                Piece::Archive(_) | Piece::Manifest => {
                    return Err(BackupError::stream("data after the manifest"));
                }
            }
        }
        let stop = position(rows(&mut self.connection)?.first())?;
        loop {
            match self.event()? {
                Event::Ready => return Ok((stop, self.seen)),
                Event::Command(_) | Event::Notice(_) => {}
                _ => return Err(BackupError::stream("data after its end")),
            }
        }
    }

    fn event(&mut self) -> Result<Event, BackupError> {
        loop {
            match self.connection.next().map_err(failed("read the base backup"))? {
                Event::Notice(_) => {}
                event => return Ok(event),
            }
        }
    }

    fn piece(&mut self) -> Result<Piece, BackupError> {
        if self.one_stream { self.marked_piece() } else { self.separate_piece() }
    }

    /// Servers from 15 on: each message says what it is.
    fn marked_piece(&mut self) -> Result<Piece, BackupError> {
        loop {
            let mut data = match self.event()? {
                Event::Data(data) => data,
                Event::CopyDone => return Ok(Piece::End),
                _ => return Err(BackupError::stream("an unexpected message in the copy stream")),
            };
            if data.is_empty() {
                return Err(BackupError::stream("an empty message in the copy stream"));
            }
            match data.get_u8() {
                b'd' => return Ok(Piece::Bytes(data)),
                b'n' => return self.announced(&data).map(Piece::Archive),
                b'm' => return Ok(Piece::Manifest),
                b'p' => {}
                other => return Err(BackupError::stream(format!("a message of the unknown kind {other}"))),
            }
        }
    }

    /// The tablespace of an announced archive: its file is named after it, or is `base.tar`.
    fn announced(&self, data: &[u8]) -> Result<Option<u32>, BackupError> {
        let name = data.split(|byte| *byte == 0).next().and_then(|name| str::from_utf8(name).ok());
        match name.and_then(|name| name.strip_suffix(".tar")) {
            Some("base") => Ok(None),
            Some(oid) => match oid.parse() {
                Ok(oid) if self.tablespaces.iter().any(|known| known.oid == oid) => Ok(Some(oid)),
                _ => Err(BackupError::stream("an archive of an unknown tablespace")),
            },
            None => Err(BackupError::stream("an archive without a name")),
        }
    }

    /// Servers before 15: the archives come one after the other, then the manifest.
    fn separate_piece(&mut self) -> Result<Piece, BackupError> {
        loop {
            match self.event()? {
                Event::CopyOut => {
                    return Ok(self.expected.pop_front().map_or(Piece::Manifest, Piece::Archive));
                }
                Event::Data(data) => return Ok(Piece::Bytes(data)),
                Event::CopyDone if matches!(self.at, At::Manifest) => return Ok(Piece::End),
                Event::CopyDone => {}
                _ => return Err(BackupError::stream("an unexpected message in the copy stream")),
            }
        }
    }

    /// Makes the buffer hold something if the current file has more to give.
    fn fill(&mut self) -> Result<(), BackupError> {
        let wanted = matches!(&self.at, At::Archive { file: Some(file), .. } if file.left_bytes > 0);
        while wanted && self.buffer.is_empty() {
            match self.piece()? {
                Piece::Bytes(bytes) => self.buffer = bytes,
                _ => return Err(BackupError::stream("a file ends before its size")),
            }
        }
        Ok(())
    }

    /// Reads the rest of the current file and its padding.
    fn close_file(&mut self) -> Result<(), BackupError> {
        let mut rest = vec![0; 64 * 1024];
        while self.read(&mut rest)? > 0 {}
        let At::Archive { file, .. } = &mut self.at else { return Ok(()) };
        let Some(file) = file.take() else { return Ok(()) };
        let padding = (BLOCK_BYTES as u64 - file.size_bytes % BLOCK_BYTES as u64) % BLOCK_BYTES as u64;
        let seen = SeenFile { size_bytes: file.size_bytes, sha256: file.hasher.finish() };
        self.seen.insert(file.path, seen);
        let padding = usize::try_from(padding).unwrap_or_default();
        let mut block = [0; BLOCK_BYTES];
        if !self.exactly(block.get_mut(..padding).unwrap_or_default())? {
            return Err(BackupError::stream("an archive ends inside an entry"));
        }
        Ok(())
    }

    /// The next header; nothing if the archive or the whole sequence of archives is over, with the state moved on.
    fn header(&mut self) -> Result<Option<tar::TarHeader>, BackupError> {
        loop {
            let mut block = [0; BLOCK_BYTES];
            if !self.exactly(&mut block)? {
                return Ok(None);
            }
            if let Some(header) = tar::parse(&block)? {
                return Ok(Some(header));
            }
        }
    }

    /// Fills `block`; false if an archive ends exactly here, with the state moved on to what comes next.
    fn exactly(&mut self, block: &mut [u8]) -> Result<bool, BackupError> {
        let mut filled = 0;
        while filled < block.len() {
            if self.buffer.is_empty() {
                match self.piece()? {
                    Piece::Bytes(bytes) => self.buffer = bytes,
                    _ if filled > 0 => return Err(BackupError::stream("an archive ends inside a block")),
                    Piece::Archive(tablespace) => {
                        self.at = At::Archive { tablespace, file: None };
                        return Ok(false);
                    }
                    Piece::Manifest => {
                        self.at = At::Manifest;
                        return Ok(false);
                    }
                    Piece::End => return Err(BackupError::stream("it ends without a manifest")),
                }
                continue;
            }
            let count = self.buffer.len().min(block.len() - filled);
            if let (Some(into), Some(from)) =
                (block.get_mut(filled..filled + count), self.buffer.get(..count))
            {
                into.copy_from_slice(from);
            }
            self.buffer.advance(count);
            filled += count;
        }
        Ok(true)
    }

    /// What a header means for the cluster; nothing for what is implied already.
    fn enter(
        &mut self,
        tablespace: Option<u32>,
        header: tar::TarHeader,
    ) -> Result<Option<BackupEntry>, BackupError> {
        let path = match (tablespace, header.name.as_str()) {
            (_, "" | ".") => return Ok(None),
            (Some(oid), name) => format!("{TABLESPACES}/{oid}/{name}"),
            (None, name) => name.to_owned(),
        };
        let sound = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !sound {
            return Err(BackupError::stream("an entry has a path that leaves the cluster"));
        }
        let kind = match header.kind {
            TarKind::Dir => BackupKind::Dir,
            TarKind::File => {
                if self.seen.contains_key(&path) {
                    return Err(BackupError::stream(format!("{path} comes twice")));
                }
                if let At::Archive { file, .. } = &mut self.at {
                    *file = Some(OpenFile {
                        path: path.clone(),
                        size_bytes: header.size_bytes,
                        left_bytes: header.size_bytes,
                        hasher: Hasher::new(),
                    });
                }
                BackupKind::File(header.size_bytes)
            }
            // The links to the tablespaces; each is a directory of its own here.
            TarKind::Link(_) if self.is_tablespace(&path) => return Ok(None),
            // A log directory elsewhere: its files come as if it were here.
            TarKind::Link(_) => return Err(BackupError::stream(format!("{path} is a link"))),
        };
        let tar::TarHeader { mode, uid, gid, mtime_s, .. } = header;
        Ok(Some(BackupEntry { path, kind, mode, uid, gid, mtime_s }))
    }

    fn is_tablespace(&self, path: &str) -> bool {
        let oid = path.strip_prefix(TABLESPACES).and_then(|rest| rest.strip_prefix('/'));
        oid.and_then(|oid| oid.parse().ok())
            .is_some_and(|oid: u32| self.tablespaces.iter().any(|known| known.oid == oid))
    }
}

impl Read for BaseBackup {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::read(self, buffer).map_err(io::Error::other)
    }
}

/// The log comes along, so the server's own archive need not have it: a broken archive must not hold the backup up.
fn command(options: &BackupOptions, one_stream: bool) -> String {
    let label = quote_replication_literal(&options.label);
    if one_stream {
        let checkpoint = if options.fast_checkpoint { "fast" } else { "spread" };
        format!(
            "BASE_BACKUP (LABEL {label}, PROGRESS true, CHECKPOINT '{checkpoint}', WAL true, WAIT false, \
             MANIFEST 'yes', MANIFEST_CHECKSUMS 'SHA256')"
        )
    } else {
        let fast = if options.fast_checkpoint { " FAST" } else { "" };
        format!(
            "BASE_BACKUP LABEL {label} PROGRESS{fast} WAL NOWAIT MANIFEST 'yes' MANIFEST_CHECKSUMS 'SHA256'"
        )
    }
}

/// The rows of the next result, to its end.
fn rows(connection: &mut Connection) -> Result<Vec<Row>, BackupError> {
    let mut rows = Vec::new();
    loop {
        match connection.next().map_err(failed("read the base backup"))? {
            Event::Row(row) => rows.push(row),
            Event::Columns(_) | Event::Notice(_) => {}
            Event::Command(_) => return Ok(rows),
            _ => return Err(BackupError::stream("a result was expected")),
        }
    }
}

/// A log position and its timeline.
fn position(row: Option<&Row>) -> Result<BackupStop, BackupError> {
    let lsn = row.and_then(|row| row.get(0)).and_then(|text| text.parse().ok());
    let timeline = row.and_then(|row| row.get(1)).and_then(|text| text.parse().ok());
    match (lsn, timeline) {
        (Some(lsn), Some(timeline)) => Ok(BackupStop { lsn, timeline }),
        _ => Err(BackupError::stream("a malformed log position")),
    }
}
