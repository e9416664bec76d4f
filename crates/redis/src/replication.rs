//! A replica's side of the replication protocol, without a copy of the data.
//!
//! In: a connection. Out: a dump as it comes in ([`FullSync`]), then the stream of commands with its offsets
//! ([`Stream`]); or, after a cut, the stream alone. What is acknowledged is what the caller says is durable.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_base::time::{Clock, SystemClock};

use crate::wire::{ConnectOptions, Connection, RedisError, Reply, ServerError};

/// The length of the mark at the end of a dump whose length the server does not know yet.
const MARK_BYTES: usize = 40;
/// How often the server is told how far we are.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(1);
/// By this a server asks how far a replica is.
const QUESTION: &[u8] = b"REPLCONF\r\n$6\r\nGETACK";
/// How much of the stream is handed out at a time.
const STREAM_BYTES: usize = 64 * 1024;

/// The name of a history: 40 hexadecimal digits that a server picks at random when it begins one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicationId(String);

/// A text that is no name of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a replication id: expected 40 hexadecimal digits")]
pub struct InvalidId;

impl ReplicationId {
    /// Its first 32 bits: what tells histories apart where there is room for no more.
    pub fn short(&self) -> u32 {
        self.0.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }

    /// The 40 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ReplicationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let good = text.len() == MARK_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if good { Ok(Self(text.to_ascii_lowercase())) } else { Err(InvalidId) }
    }
}

/// A place in a history: everything before `offset` has happened. Written `ID:OFFSET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The history.
    pub id: ReplicationId,
    /// Bytes of its stream before this place.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.offset)
    }
}

impl FromStr for Place {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (id, offset) = text.split_once(':').ok_or(InvalidId)?;
        Ok(Self { id: id.parse()?, offset: offset.parse().map_err(|_invalid| InvalidId)? })
    }
}

/// How a server answered the wish to go on somewhere.
#[derive(Debug)]
pub enum Resumed {
    /// It goes on there; the stream says under which name.
    Continued(Stream),
    /// It no longer has what comes next, or never had, and sends everything.
    Full(FullSync),
}

/// Asks for everything. With `dump_only` a server that knows the word sends no stream after the dump and buffers none.
pub fn full_sync(options: &ConnectOptions, dump_only: bool) -> Result<FullSync, RedisError> {
    let mut connection = greet(options)?;
    if dump_only {
        match connection.ask("REPLCONF rdb-only 1") {
            // Servers before 6.2 do not know it, and send a stream that nobody reads.
            Ok(_) | Err(RedisError::Server { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    match psync(connection, "?", "-1", None)? {
        Resumed::Full(sync) => Ok(sync),
        Resumed::Continued(_) => Err(RedisError::Protocol { what: "it goes on where nothing was" }),
    }
}

/// Asks to go on at `place`.
pub fn resume(options: &ConnectOptions, place: &Place) -> Result<Resumed, RedisError> {
    let connection = greet(options)?;
    // The protocol counts from 1 and names the first byte that is wanted.
    let next = place.offset.saturating_add(1).to_string();
    psync(connection, place.id.as_str(), &next, Some(place))
}

fn greet(options: &ConnectOptions) -> Result<Connection, RedisError> {
    let mut connection = Connection::open(options)?;
    connection.ask("PING")?;
    connection.ask("REPLCONF capa eof capa psync2")?;
    Ok(connection)
}

fn psync(
    mut connection: Connection,
    id: &str,
    next: &str,
    place: Option<&Place>,
) -> Result<Resumed, RedisError> {
    const MALFORMED: RedisError = RedisError::Protocol { what: "a malformed answer to PSYNC" };
    connection.send(&[b"PSYNC", id.as_bytes(), next.as_bytes()])?;
    let line = patient_line(&mut connection)?;
    let text = String::from_utf8_lossy(&line).into_owned();
    let mut words = text.split(' ');
    match (words.next(), words.next(), words.next(), place) {
        (Some("+FULLRESYNC"), Some(id), Some(offset), _) => {
            let place = Place {
                id: id.parse().map_err(|_invalid| MALFORMED)?,
                offset: offset.parse().map_err(|_invalid| MALFORMED)?,
            };
            Ok(Resumed::Full(FullSync::begin(connection, place)?))
        }
        (Some("+CONTINUE"), id, _, Some(asked)) => {
            let id = match id {
                Some(id) => id.parse().map_err(|_invalid| MALFORMED)?,
                None => asked.id.clone(),
            };
            let place = Place { id, offset: asked.offset };
            Ok(Resumed::Continued(Stream::begin(connection, place)))
        }
        _ => match line.strip_prefix(b"-") {
            Some(error) => {
                let source = ServerError::read(error);
                Err(RedisError::Server { command: "PSYNC".to_owned(), source })
            }
            None => Err(MALFORMED),
        },
    }
}

/// The next line that is not empty: while a server is busy it sends empty ones as signs of life.
fn patient_line(connection: &mut Connection) -> Result<bytes::BytesMut, RedisError> {
    loop {
        let line = connection.line()?;
        if !line.is_empty() {
            return Ok(line);
        }
    }
}

/// How a dump ends.
#[derive(Debug)]
enum End {
    /// After so many bytes more.
    Length(u64),
    /// At this mark.
    Mark(Box<[u8]>),
    /// It has.
    Reached,
}

/// A dump that is coming in: read it to its end.
#[derive(Debug)]
pub struct FullSync {
    connection: Connection,
    place: Place,
    bytes: Option<u64>,
    end: End,
    /// Of what waits in the buffer so much was searched and holds no part of the mark.
    clean: usize,
}

impl FullSync {
    fn begin(mut connection: Connection, place: Place) -> Result<Self, RedisError> {
        const MALFORMED: RedisError = RedisError::Protocol { what: "no dump where one should begin" };
        let line = patient_line(&mut connection)?;
        if let Some(error) = line.strip_prefix(b"-") {
            let source = ServerError::read(error);
            return Err(RedisError::Server { command: "PSYNC".to_owned(), source });
        }
        let what = line.strip_prefix(b"$").ok_or(MALFORMED)?;
        let (bytes, end) = match what.strip_prefix(b"EOF:") {
            Some(mark) if mark.len() == MARK_BYTES => (None, End::Mark(mark.into())),
            Some(_) => return Err(MALFORMED),
            None => {
                let text = std::str::from_utf8(what).map_err(|_invalid| MALFORMED)?;
                let bytes = text.parse().map_err(|_invalid| MALFORMED)?;
                (Some(bytes), End::Length(bytes))
            }
        };
        Ok(Self { connection, place, bytes, end, clean: 0 })
    }

    /// The place the dump shows.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The dump's length, where the server knew it.
    pub fn length_bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// The stream after the dump, which must have been read to its end.
    pub fn into_stream(self) -> Result<Stream, RedisError> {
        match self.end {
            End::Reached => Ok(Stream::begin(self.connection, self.place)),
            _ => Err(RedisError::Protocol { what: "the dump was not read to its end" }),
        }
    }

    /// How many bytes of the buffer belong to the dump; 0 at its end.
    fn ready(&mut self) -> Result<usize, RedisError> {
        loop {
            let there = self.connection.buffer.len();
            match &self.end {
                End::Reached => return Ok(0),
                End::Length(0) => self.end = End::Reached,
                End::Length(left) if there > 0 => {
                    return Ok(usize::try_from(*left).unwrap_or(usize::MAX).min(there));
                }
                End::Mark(_) if self.clean > 0 => return Ok(self.clean),
                End::Mark(mark) => match memchr::memmem::find(&self.connection.buffer, mark) {
                    Some(0) => {
                        self.connection.consume(MARK_BYTES);
                        self.end = End::Reached;
                    }
                    Some(at) => self.clean = at,
                    // The mark may have begun.
                    None if there >= MARK_BYTES => self.clean = there - MARK_BYTES + 1,
                    None => self.more()?,
                },
                End::Length(_) => self.more()?,
            }
        }
    }

    fn more(&mut self) -> Result<(), RedisError> {
        let limit = self.connection.silence_limit();
        if self.connection.fill(limit)? { Ok(()) } else { Err(self.connection.silent()) }
    }
}

impl Read for FullSync {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.ready().map_err(io::Error::other)?.min(into.len());
        if let (Some(place), Some(from)) = (into.get_mut(..count), self.connection.buffer.get(..count)) {
            place.copy_from_slice(from);
        }
        self.connection.consume(count);
        self.clean = self.clean.saturating_sub(count);
        if let End::Length(left) = &mut self.end {
            *left -= count as u64;
        }
        Ok(count)
    }
}

/// The stream of commands as bytes.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
    id: ReplicationId,
    offset: u64,
    /// The end of what came before, in which a question may have begun.
    tail: Vec<u8>,
    durable: u64,
    clock: SystemClock,
    acknowledged: Duration,
    heard: Duration,
}

impl Stream {
    fn begin(connection: Connection, place: Place) -> Self {
        let clock = SystemClock::new();
        let (acknowledged, heard) = (Duration::ZERO, clock.monotonic());
        let (id, offset, tail) = (place.id, place.offset, Vec::new());
        Self { connection, id, offset, tail, durable: offset, clock, acknowledged, heard }
    }

    /// The history it belongs to.
    pub fn id(&self) -> &ReplicationId {
        &self.id
    }

    /// The offset after everything received.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Everything before `offset` is durable; the server is told at most once a second, as it also wants to hear from a
    /// replica that takes nothing for a while.
    pub fn durable(&mut self, offset: u64) -> Result<(), RedisError> {
        self.durable = self.durable.max(offset.min(self.offset()));
        if self.acknowledged.is_zero() || self.is_due() { self.acknowledge() } else { Ok(()) }
    }

    fn is_due(&self) -> bool {
        self.clock.monotonic().saturating_sub(self.acknowledged) >= ACKNOWLEDGE_EVERY
    }

    /// Tells the server how far we are. The first time makes it send the stream after a dump.
    pub fn acknowledge(&mut self) -> Result<(), RedisError> {
        let offset = self.durable.to_string();
        self.connection.send(&[b"REPLCONF", b"ACK", offset.as_bytes()])?;
        self.acknowledged = self.clock.monotonic();
        Ok(())
    }

    /// What comes next, up to 64 KiB; nothing after `limit`.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Bytes>, RedisError> {
        if self.acknowledged.is_zero() || self.is_due() {
            self.acknowledge()?;
        }
        if self.connection.buffer.is_empty() && !self.connection.fill(limit)? {
            let silent = self.clock.monotonic().saturating_sub(self.heard);
            // A living server pings its replicas.
            let given_up = silent > self.connection.silence_limit();
            return if given_up { Err(self.connection.silent()) } else { Ok(None) };
        }
        self.heard = self.clock.monotonic();
        let count = self.connection.buffer.len().min(STREAM_BYTES);
        let bytes = self.connection.buffer.split_to(count).freeze();
        self.offset += bytes.len() as u64;
        if self.asks(&bytes) {
            self.acknowledge()?;
        }
        Ok(Some(bytes))
    }
}

impl Stream {
    /// Whether the server asks how far we are. Looked for as bytes, as what was kept may end inside a command; a value that
    /// holds the same bytes costs an answer that nobody asked for.
    fn asks(&mut self, bytes: &[u8]) -> bool {
        let start = self.tail.len();
        self.tail.extend_from_slice(bytes);
        let asked = memchr::memmem::find(&self.tail, QUESTION).is_some();
        let keep = if asked { 0 } else { QUESTION.len() - 1 };
        self.tail.drain(..(start + bytes.len()).saturating_sub(keep));
        asked
    }
}

/// Where a server is: its history and how far that goes.
pub fn place(connection: &mut Connection) -> Result<Place, RedisError> {
    const MALFORMED: RedisError = RedisError::Protocol { what: "it does not say where its history is" };
    let info = connection.info("replication")?;
    let id = info.get("master_replid").and_then(|id| id.parse().ok()).ok_or(MALFORMED)?;
    let offset = info.number("master_repl_offset").ok_or(MALFORMED)?;
    Ok(Place { id, offset })
}

/// One value of the configuration; nothing where we may not ask or there is no such setting.
pub fn setting(connection: &mut Connection, name: &str) -> Result<Option<String>, RedisError> {
    match connection.command(&[b"CONFIG", b"GET", name.as_bytes()]) {
        Ok(reply) => Ok(reply.members().get(1).and_then(Reply::text)),
        Err(RedisError::Server { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
