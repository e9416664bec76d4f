//! The files that count, read twice: once to see that they are sound and where they must be cut, once to be handed out.
//!
//! The second reading must give the bytes of the first.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::digest::{Digest, Hasher, digest_of_reader};
use lifeboat_base::time::Timestamp;

use super::choice::{Chosen, Origin, Piece, made};
use super::error::FilesError;
use super::scan::{Scan, ScanError, scan};
use crate::rdb::{self, Survey};
use crate::wire::encode;

/// A file that was changed holds what was acknowledged so long before: a full disk may have taken only a part of the last write.
const HELD_BACK: Duration = Duration::from_secs(2);

/// Bytes to be handed out, known by their digest.
#[derive(Debug)]
pub struct Part {
    segments: Vec<Segment>,
    /// Their SHA-256.
    pub sha256: Digest,
    /// How many they are.
    pub bytes: u64,
}

#[derive(Clone, Debug)]
enum Segment {
    Bytes(Arc<[u8]>),
    Range { file: Arc<File>, at: u64, end: u64 },
}

/// One consistent state.
#[derive(Debug)]
pub struct Reading {
    /// Where it comes from.
    pub origin: Origin,
    /// Its dump; one of our own without a key, where the log has none.
    pub dump: Part,
    /// What the dump amounts to.
    pub survey: Survey,
    /// The whole commands after it; nothing for a dump alone.
    pub commands: Option<Part>,
    /// How many commands that are.
    pub count: u64,
    /// Bytes at the end of the last file that are no whole command.
    pub cut_bytes: u64,
    /// How many databases the server must have.
    pub databases: u64,
    /// What was acknowledged before this moment is in it.
    pub moment: Timestamp,
}

impl Chosen {
    /// Reads everything through. `asked` is the clock before the files were chosen.
    pub fn read(self, asked: Timestamp) -> Result<Reading, FilesError> {
        let now_ms = asked.as_millisecond();
        let changed = self.changed();
        let mut log = Log {
            parts: Vec::new(),
            hasher: Hasher::new(),
            commands: 0,
            databases: 1,
            bytes: 0,
            cut: 0,
            noted_s: None,
            last_commands: 0,
        };
        let last = self.increments.len();
        let (mut dump, mut survey) = (None, Survey::default());
        if let Some(base) = &self.base {
            let mut at = 0;
            if self.about.is_some() {
                survey = surveyed(base, self.origin == Origin::Dump, now_ms)?;
                at = survey.about.bytes;
                dump = Some(part(base, at)?);
            }
            if self.origin != Origin::Dump {
                log.add(base, at, last == 0)?;
            }
        }
        for (index, piece) in self.increments.iter().enumerate() {
            log.add(piece, 0, index + 1 == last)?;
        }
        let dump = match dump {
            Some(dump) => dump,
            None => nothing(&mut survey, now_ms)?,
        };
        let made = self.about.as_ref().and_then(made);
        let moment = if log.last_commands == 0 && (self.origin == Origin::Dump || self.base.is_some()) {
            // The last file says nothing of its own: what is known ends with the dump. One of commands has no such moment.
            made.or(log.noted())
        } else {
            // Nobody can be believed to be writing: what is known ends with the last change.
            let changed = changed.and_then(|changed| changed.checked_sub(HELD_BACK).ok());
            changed.into_iter().chain(log.noted()).min()
        };
        let moment = moment.map(|moment| moment.min(asked));
        let undated =
            || FilesError::Undated { name: self.last().map(|piece| piece.name.clone()).unwrap_or_default() };
        let highest = survey.databases.keys().max().map_or(0, |db| db.saturating_add(1));
        let is_log = self.origin != Origin::Dump;
        let (count, cut_bytes) = (log.commands, log.cut);
        Ok(Reading {
            origin: self.origin,
            databases: self.databases.unwrap_or_default().max(highest).max(log.databases),
            moment: moment.ok_or_else(undated)?,
            commands: is_log.then(|| log.finish()),
            dump,
            survey,
            count,
            cut_bytes,
        })
    }
}

/// Reads a dump; `alone` if nothing may follow it.
fn surveyed(piece: &Piece, alone: bool, now_ms: i64) -> Result<Survey, FilesError> {
    let source = Range::of(piece, 0)?;
    let survey = if alone { Survey::read(source, now_ms) } else { Survey::read_first(source, now_ms) };
    survey.map_err(|source| FilesError::Dump { name: piece.name.clone(), source })
}

fn shared(piece: &Piece) -> Result<Arc<File>, FilesError> {
    piece.file.try_clone().map(Arc::new).map_err(FilesError::io("open", &piece.name))
}

/// The first `bytes` of a file.
fn part(piece: &Piece, bytes: u64) -> Result<Part, FilesError> {
    let range = Range { file: shared(piece)?, at: 0, end: bytes };
    let (sha256, read) = digest_of_reader(range.clone()).map_err(FilesError::io("read", &piece.name))?;
    if read != bytes {
        return Err(FilesError::io("read", &piece.name)(shorter()));
    }
    Ok(Part { segments: vec![Segment::Range { file: range.file, at: 0, end: bytes }], sha256, bytes })
}

fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter")
}

/// A dump of our own, where the log begins with commands.
fn nothing(survey: &mut Survey, now_ms: i64) -> Result<Part, FilesError> {
    let bytes = rdb::empty();
    *survey = Survey::read(bytes.as_slice(), now_ms)
        .map_err(|source| FilesError::Dump { name: "an empty dump".to_owned(), source })?;
    let (sha256, length) = (Digest::of(&bytes), bytes.len() as u64);
    Ok(Part { segments: vec![Segment::Bytes(bytes.into())], sha256, bytes: length })
}

/// The commands of all files, one after the other.
struct Log {
    parts: Vec<Segment>,
    hasher: Hasher,
    commands: u64,
    databases: u64,
    bytes: u64,
    cut: u64,
    noted_s: Option<i64>,
    /// How many commands the last file has.
    last_commands: u64,
}

impl Log {
    /// The last time that is noted between the commands.
    fn noted(&self) -> Option<Timestamp> {
        self.noted_s.and_then(|seconds| Timestamp::from_second(seconds).ok())
    }

    fn add(&mut self, piece: &Piece, at: u64, is_last: bool) -> Result<(), FilesError> {
        // Every file is loaded beginning with database 0.
        let again = encode(&[b"SELECT", b"0"]);
        let mut hasher = self.hasher.clone();
        let separate = self.bytes > 0;
        if separate {
            hasher.update(&again);
        }
        let range = Range { file: shared(piece)?, at, end: u64::MAX };
        let found = scan(range.clone(), hasher).map_err(|error| match error {
            ScanError::Read(error) => FilesError::io("read", &piece.name)(error),
            ScanError::Malformed(mut source) => {
                source.at += at;
                FilesError::Commands { name: piece.name.clone(), source }
            }
        })?;
        let Scan { end, length, .. } = found;
        if !is_last && end < length {
            return Err(FilesError::Torn { name: piece.name.clone(), end: at + end });
        }
        self.noted_s = found.noted_s.or(self.noted_s);
        self.cut = length - end;
        self.last_commands = found.commands;
        if end == 0 {
            return Ok(());
        }
        if separate {
            self.bytes += again.len() as u64;
            self.parts.push(Segment::Bytes(again.into()));
        }
        self.parts.push(Segment::Range { file: range.file, at, end: at + end });
        self.bytes += end;
        self.commands += found.commands;
        self.databases = self.databases.max(found.databases);
        self.hasher = found.hasher;
        Ok(())
    }

    fn finish(self) -> Part {
        Part { segments: self.parts, sha256: self.hasher.finish(), bytes: self.bytes }
    }
}

/// Bytes of a file from one place to another, or to its end.
#[derive(Clone)]
pub(super) struct Range {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Range {
    pub(super) fn of(piece: &Piece, at: u64) -> Result<Self, FilesError> {
        Ok(Self { file: shared(piece)?, at, end: u64::MAX })
    }
}

impl Read for Range {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(into.len());
        let count = self.file.read_at(into.get_mut(..limit).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Part {
    /// Its bytes. They end in an error if they are not those that were read before.
    pub fn open(&self) -> impl Read + Send + 'static {
        let segments: VecDeque<Segment> = self.segments.iter().cloned().collect();
        Again { segments, hasher: Some(Hasher::new()), expected: self.sha256 }
    }
}

struct Again {
    segments: VecDeque<Segment>,
    hasher: Option<Hasher>,
    expected: Digest,
}

impl Read for Again {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while let Some(segment) = self.segments.front_mut() {
            let count = match segment {
                Segment::Bytes(bytes) => {
                    let count = bytes.len().min(into.len());
                    let (now, later) = bytes.split_at(count);
                    if let Some(place) = into.get_mut(..count) {
                        place.copy_from_slice(now);
                    }
                    *bytes = later.into();
                    count
                }
                Segment::Range { at, end, .. } if at == end => 0,
                Segment::Range { file, at, end } => {
                    let mut range = Range { file: Arc::clone(file), at: *at, end: *end };
                    let count = range.read(into)?;
                    *at = range.at;
                    if count == 0 {
                        return Err(shorter());
                    }
                    count
                }
            };
            if count == 0 {
                self.segments.pop_front();
                continue;
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(into.get(..count).unwrap_or_default());
            }
            return Ok(count);
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.expected => {
                Err(io::Error::other("it was changed while it was read"))
            }
            _ => Ok(0),
        }
    }
}
