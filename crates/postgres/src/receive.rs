//! Receives the write-ahead log from a server as it is written.
//!
//! In: a replication connection, a slot and a position. Out: pieces of log in order, and what the server says about its
//! own position. What is reported back as flushed may be recycled by the server: report only what is durable.

use std::time::Duration;

use bytes::{Buf, Bytes};
use lifeboat_base::failure::FailureKind;
use lifeboat_base::time::Timestamp;

use crate::lsn::{Lsn, Timeline};
use crate::wire::{Connection, Event, PgError, Row};

/// Microseconds from the start of 1970 to the start of 2000, which the server counts from.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A stream of log that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The connection or the server failed.
    #[error("failed to {doing}")]
    Connection {
        /// What was attempted, as a verb phrase.
        doing: &'static str,
        /// The connection's error.
        #[source]
        source: PgError,
    },
    /// The server no longer has the log that is asked for: what lies between is lost for good.
    #[error("the server no longer has the log from {from} on timeline {timeline}")]
    Gone {
        /// The timeline asked for.
        timeline: Timeline,
        /// The position asked for.
        from: Lsn,
        /// The server's answer.
        #[source]
        source: PgError,
    },
    /// The server ended the stream in good order, as it does when it is shut down.
    #[error("the server was shut down")]
    ShutDown,
    /// The stream is not what the protocol says.
    #[error("the stream of log is not as it should be: {0}")]
    Stream(&'static str),
}

impl ReceiveError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Connection { source, .. } => source.kind(),
            Self::Gone { .. } => FailureKind::Findings,
            Self::ShutDown | Self::Stream(_) => FailureKind::Unreachable,
        }
    }
}

fn failed(doing: &'static str) -> impl FnOnce(PgError) -> ReceiveError {
    move |source| ReceiveError::Connection { doing, source }
}

/// Who a server is and how far it has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub system_identifier: u64,
    /// The timeline it writes.
    pub timeline: Timeline,
    /// How far it has flushed.
    pub flushed: Lsn,
}

/// A message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A piece of log.
    Log {
        /// Where it starts; right after the piece before.
        start: Lsn,
        /// Its bytes.
        bytes: Bytes,
        /// How far the server had written.
        server_end: Lsn,
        /// The server's clock.
        sent: Timestamp,
    },
    /// A sign of life.
    Alive {
        /// How far the server had sent.
        server_end: Lsn,
        /// The server's clock.
        sent: Timestamp,
        /// The server ends the connection unless it gets a report at once.
        urgent: bool,
    },
    /// The timeline was left; the stream is over.
    TimelineEnd {
        /// The timeline that follows.
        next: Timeline,
        /// Where it begins.
        switch: Lsn,
    },
}

/// Asks a server who it is.
pub fn identify(connection: &mut Connection) -> Result<Identity, ReceiveError> {
    let rows = connection.query("IDENTIFY_SYSTEM").map_err(failed("identify the server"))?;
    let row = rows.first().ok_or(ReceiveError::Stream("the server does not say who it is"))?;
    let field = |index| row.get(index).unwrap_or_default();
    match (field(0).parse(), field(1).parse(), field(2).parse()) {
        (Ok(system_identifier), Ok(timeline), Ok(flushed)) => {
            Ok(Identity { system_identifier, timeline, flushed })
        }
        _ => Err(ReceiveError::Stream("a malformed identity")),
    }
}

/// The history file of a timeline above 1, as the server keeps it.
pub fn timeline_history(connection: &mut Connection, timeline: Timeline) -> Result<String, ReceiveError> {
    let rows = connection
        .query(&format!("TIMELINE_HISTORY {timeline}"))
        .map_err(failed("read the history of a timeline"))?;
    let text = rows.first().and_then(|row| row.get(1));
    text.map(str::to_owned).ok_or(ReceiveError::Stream("a timeline without a history"))
}

/// Makes a slot that keeps the server's log until it is reported as flushed; true if it was not there before.
pub fn ensure_slot(connection: &mut Connection, name: &str) -> Result<bool, ReceiveError> {
    match connection.query(&format!("CREATE_REPLICATION_SLOT {name} PHYSICAL RESERVE_WAL")) {
        Ok(_) => Ok(true),
        // It is there already.
        Err(error) if error.server().is_some_and(|server| server.code == "42710") => Ok(false),
        Err(source) => Err(ReceiveError::Connection { doing: "make the replication slot", source }),
    }
}

/// A stream of log in progress.
#[derive(Debug)]
pub struct Receiver {
    connection: Connection,
    next: Lsn,
    ended: bool,
}

impl Receiver {
    /// Begins to stream `timeline` from `from`, which must be the start of a segment where a timeline begins inside it.
    pub fn start(
        connection: Connection,
        slot: &str,
        timeline: Timeline,
        from: Lsn,
    ) -> Result<Self, ReceiveError> {
        let mut receiver = Self { connection, next: from, ended: false };
        receiver.begin(slot, timeline, from)?;
        Ok(receiver)
    }

    /// Begins anew elsewhere, after [`ReceiveError::Gone`], on the same connection: the server has let go of the slot when
    /// it takes the next command.
    pub fn start_again(&mut self, slot: &str, timeline: Timeline, from: Lsn) -> Result<(), ReceiveError> {
        while !self.connection.is_idle() {
            self.connection.next().map_err(failed("end the stream of log"))?;
        }
        self.begin(slot, timeline, from)
    }

    fn begin(&mut self, slot: &str, timeline: Timeline, from: Lsn) -> Result<(), ReceiveError> {
        let command = format!("START_REPLICATION SLOT {slot} PHYSICAL {from} TIMELINE {timeline}");
        self.connection.start(&command).map_err(failed("start the stream of log"))?;
        self.next = from;
        self.ended = false;
        loop {
            match self.connection.next() {
                Ok(Event::CopyBoth) => return Ok(()),
                Ok(Event::Notice(_)) => {}
                // A server that has nothing more on this timeline answers with the next one at once.
                Ok(Event::Columns(_)) => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(_) => return Err(ReceiveError::Stream("an unexpected answer")),
                // A segment that was removed already; a slot whose log was given up.
                Err(source) if is_gone(&source) => return Err(ReceiveError::Gone { timeline, from, source }),
                Err(source) => {
                    return Err(ReceiveError::Connection { doing: "start the stream of log", source });
                }
            }
        }
    }

    /// The position after everything received.
    pub fn position(&self) -> Lsn {
        self.next
    }

    /// The next message; nothing after `limit`.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Message>, ReceiveError> {
        if self.ended {
            return self.timeline_end().map(Some);
        }
        let event = match self.connection.next_within(limit) {
            Ok(event) => event,
            Err(source) if is_gone(&source) => {
                return Err(ReceiveError::Gone { timeline: 0, from: self.next, source });
            }
            Err(source) if is_shutdown(&source) => return Err(ReceiveError::ShutDown),
            Err(source) => return Err(ReceiveError::Connection { doing: "read the stream of log", source }),
        };
        match event {
            None | Some(Event::Notice(_)) => Ok(None),
            Some(Event::Data(data)) => self.message(data).map(Some),
            Some(Event::CopyDone) => {
                self.connection.finish_copy().map_err(failed("end the stream of log"))?;
                self.ended = true;
                self.timeline_end().map(Some)
            }
            // All log up to the shutdown checkpoint was sent: the command is over, and so is the server.
            Some(Event::Command(_)) => Err(ReceiveError::ShutDown),
            Some(_) => Err(ReceiveError::Stream("an unexpected message")),
        }
    }

    fn message(&mut self, mut data: Bytes) -> Result<Message, ReceiveError> {
        const SHORT: ReceiveError = ReceiveError::Stream("a message that is cut short");
        match data.try_get_u8().map_err(|_short| SHORT)? {
            b'w' if data.len() >= 24 => {
                let (start, server_end) = (Lsn(data.get_u64()), Lsn(data.get_u64()));
                let sent = server_time(data.get_i64())?;
                if start != self.next {
                    return Err(ReceiveError::Stream("a piece of log that does not follow the one before"));
                }
                self.next = Lsn(start.0 + data.len() as u64);
                Ok(Message::Log { start, bytes: data, server_end, sent })
            }
            b'k' if data.len() >= 17 => {
                let (server_end, sent) = (Lsn(data.get_u64()), server_time(data.get_i64())?);
                Ok(Message::Alive { server_end, sent, urgent: data.get_u8() == 1 })
            }
            b'w' | b'k' => Err(SHORT),
            _ => Err(ReceiveError::Stream("a message of an unknown kind")),
        }
    }

    /// After the copy stream: the server says what follows, or just ends.
    fn timeline_end(&mut self) -> Result<Message, ReceiveError> {
        let mut found: Option<Row> = None;
        loop {
            match self.connection.next().map_err(failed("read the end of the timeline"))? {
                Event::Row(row) => found = Some(row),
                Event::Ready => break,
                _ => {}
            }
        }
        let field = |index| found.as_ref().and_then(|row| row.get(index)).unwrap_or_default();
        match (field(0).parse(), field(1).parse()) {
            (Ok(next), Ok(switch)) => Ok(Message::TimelineEnd { next, switch }),
            // No timeline follows: the server ends the stream for good.
            _ => Err(ReceiveError::ShutDown),
        }
    }

    /// Tells the server how far the log was received and how far it is durable. With `ask` it answers at once with
    /// [`Message::Alive`]: an idle server says nothing by itself for half a minute.
    pub fn report(&mut self, flushed: Lsn, now: Timestamp, ask: bool) -> Result<(), ReceiveError> {
        let mut report = Vec::with_capacity(34);
        report.push(b'r');
        for position in [self.next, flushed, Lsn(0)] {
            report.extend_from_slice(&position.0.to_be_bytes());
        }
        report.extend_from_slice(&(now.as_microsecond() - EPOCH_MICROS).to_be_bytes());
        report.push(u8::from(ask));
        self.connection.send_copy(&report).map_err(failed("report to the server"))
    }
}

fn is_gone(error: &PgError) -> bool {
    // Undefined file: a segment that was removed; a slot that was invalidated.
    error.server().is_some_and(|server| {
        server.code == "58P01"
            || server.message.contains("already been removed")
            || (server.code == "55000" && server.message.contains("invalidated"))
    })
}

/// Ended by an administrator, or because another of its processes crashed.
fn is_shutdown(error: &PgError) -> bool {
    error.server().is_some_and(|server| matches!(server.code.as_str(), "57P01" | "57P02"))
}

fn server_time(micros: i64) -> Result<Timestamp, ReceiveError> {
    let since_1970 = micros.checked_add(EPOCH_MICROS);
    since_1970
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .ok_or(ReceiveError::Stream("a time out of range"))
}
