//! From a kept stream of commands to a file of commands that a server replays when it starts.
//!
//! In: the stream from a known offset on. Out: the same commands without those that only serve a connection, ending where
//! the stream may be cut. Memory: below 1 MiB.

use std::io::{self, Seek, SeekFrom, Write};

use crate::commands::{CommandError, Scanner};
use crate::wire::encode;

/// A command up to this length is looked at as a whole before it is written.
const HELD_BYTES: usize = 4 * 1024;
/// How much is looked at in one go; bounds how many commands are remembered meanwhile.
const PIECE_BYTES: usize = 64 * 1024;

/// Why a file of commands could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AofError {
    /// The stream is not one of commands.
    #[error(transparent)]
    Stream(#[from] CommandError),
    /// The stream does not say which database its first command is for.
    #[error("the stream's first command, at offset {at}, does not say which database it is for")]
    NoDatabase {
        /// Where it stands.
        at: u64,
    },
    /// It could not be written.
    #[error("failed to write the file of commands")]
    Write(#[from] io::Error),
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AofReport {
    /// The offset up to which the file goes: the last one at which the stream may be cut.
    pub end: u64,
    /// Commands that were written.
    pub commands: u64,
    /// The file's length.
    pub bytes: u64,
    /// How many databases a server must have for it: one more than the highest that is selected.
    pub databases: u64,
}

/// What is behind the last place at which the stream may be cut.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    bytes: u64,
    commands: u64,
}

/// Writes a file of commands.
#[derive(Debug)]
pub struct AofWriter<W> {
    out: W,
    scanner: Scanner,
    /// The database to select before the first command, unless that says so itself.
    database: Option<u64>,
    selected: bool,
    highest: u64,
    /// The start of the command that is being read.
    held: Vec<u8>,
    /// The command is longer than what is held: its start was written.
    flowing: bool,
    written: Mark,
    safe: Mark,
}

impl<W: Write + Seek> AofWriter<W> {
    /// Begins a file with the stream from `offset` on. `database` is where a stream that does not begin with a `SELECT`
    /// goes on.
    pub fn new(out: W, offset: u64, database: Option<u64>) -> Self {
        Self {
            out,
            scanner: Scanner::new(offset),
            database,
            selected: false,
            highest: database.unwrap_or_default(),
            held: Vec::new(),
            flowing: false,
            written: Mark::default(),
            safe: Mark::default(),
        }
    }

    /// Takes the stream's next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), AofError> {
        bytes.chunks(PIECE_BYTES).try_for_each(|piece| self.piece(piece))
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<(), AofError> {
        let base = self.scanner.offset();
        let mut ended = Vec::new();
        self.scanner.push(bytes, &mut |command| ended.push(*command))?;
        let mut from = 0;
        for command in ended {
            let until = usize::try_from(command.end - base).unwrap_or(usize::MAX);
            self.take(bytes.get(from..until).unwrap_or_default(), command.start)?;
            from = until;
            if command.is_housekeeping() && !self.flowing {
                self.held.clear();
            } else {
                self.selected |= command.name.is("SELECT");
                self.highest = self.highest.max(command.selects().unwrap_or_default());
                // A unit's first word is written before it is known which database what is in it is for.
                let neutral = command.name.is("MULTI") || command.name.is("EXEC");
                self.flush(if neutral { None } else { Some(command.start) })?;
                self.written.commands += 1;
            }
            self.flowing = false;
            if command.closes {
                self.safe = self.written;
            }
        }
        let rest = bytes.get(from..).unwrap_or_default();
        self.take(rest, base + from as u64)
    }

    fn take(&mut self, bytes: &[u8], start: u64) -> Result<(), AofError> {
        if !self.flowing && self.held.len() + bytes.len() > HELD_BYTES {
            // Too long for anything that only serves the connection, or for a SELECT.
            self.flush(Some(start))?;
            self.flowing = true;
        }
        if self.flowing {
            self.out.write_all(bytes)?;
            self.written.bytes += bytes.len() as u64;
        } else {
            self.held.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Writes what is held; before the first command that needs one, a database is selected.
    fn flush(&mut self, first: Option<u64>) -> Result<(), AofError> {
        if let Some(at) = first
            && !self.selected
        {
            let database = self.database.ok_or(AofError::NoDatabase { at })?;
            let select = encode(&[b"SELECT", database.to_string().as_bytes()]);
            self.out.write_all(&select)?;
            self.written.bytes += select.len() as u64;
            self.selected = true;
        }
        self.out.write_all(&self.held)?;
        self.written.bytes += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }

    /// Ends the file where the stream may be cut; what was written beyond is taken back by `cut`, which is given the
    /// length the file must have.
    pub fn finish(mut self, cut: impl FnOnce(&mut W, u64) -> io::Result<()>) -> Result<AofReport, AofError> {
        self.out.flush()?;
        cut(&mut self.out, self.safe.bytes)?;
        self.out.seek(SeekFrom::End(0))?;
        let Mark { bytes, commands } = self.safe;
        let databases = self.highest.saturating_add(1);
        Ok(AofReport { end: self.scanner.boundary(), commands, bytes, databases })
    }
}
