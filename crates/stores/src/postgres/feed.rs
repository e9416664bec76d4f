//! The write-ahead log as it is written, from a replication slot, checked record by record before it is passed on.

use std::time::Duration;

use bytes::{Buf, Bytes};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::{SignedDuration, Timestamp};
use lifeboat_postgres::receive::{
    Identity, Message, ReceiveError, Receiver, ensure_slot, identify, timeline_history,
};
use lifeboat_postgres::wal::{Event, Scanner, TimelineHistory, WalError, WalShape, history_name};
use lifeboat_postgres::wire::{ConnectOptions, Connection, Mode};
use lifeboat_postgres::{Lsn, Timeline};

use super::error;
use super::probe::Probe;
use crate::continuous::{LogFeed, LogPosition, Resume, Step};

/// The server's `XLOG_BLCKSZ`; builds with another are refused by the scanner.
const PAGE_BYTES: u32 = 8192;
/// While log keeps coming, a moment that was reached is told this often: each time the log is made durable.
const TELL_EVERY: SignedDuration = SignedDuration::from_secs(1);
/// How often the server is told how far we are, so that it neither waits nor gives us up.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// A log being followed.
pub(crate) struct PostgresFeed {
    options: ConnectOptions,
    slot: String,
    identity: Identity,
    shape: WalShape,
    receiver: Receiver,
    scanner: Scanner,
    timeline: Timeline,
    start: LogPosition,
    /// The next byte to pass on; the stream may begin before it.
    next: Lsn,
    /// Received and not passed on, as it lies beyond a boundary.
    pending: Bytes,
    /// Kept bytes that end where the first new byte starts.
    tail: Vec<u8>,
    /// The server was asked for the segment before, only to compare it; it may not have it any more.
    rewound: bool,
    newest: Option<Timestamp>,
    /// How far the server was at a moment of its clock: once that is passed on, everything before that moment is.
    horizon: Option<(Lsn, Timestamp)>,
    /// When the server's last message was sent: how far the next one says that it is, it found out after that.
    stamp: Option<Timestamp>,
    /// What the stream says about moments is true only of a server that takes commits itself.
    primary: bool,
    probe: Probe,
    /// How far it has sent. Less than what is passed on while it sends again what was kept before, to be compared.
    received: Lsn,
    /// The last such moment that was told.
    told: Timestamp,
    flushed: Lsn,
    reported: Option<Timestamp>,
}

impl PostgresFeed {
    /// Connects, sees to the slot and begins.
    pub(crate) fn start(
        options: &ConnectOptions,
        slot: &str,
        resume: Option<Resume>,
        known: &[String],
    ) -> Result<Self, Failure> {
        let mut connection = connect(options)?;
        let identity = identify(&mut connection).map_err(error::receive)?;
        if known.iter().any(|known| *known != identity.system_identifier.to_string()) {
            return Err(error::other_system());
        }
        let shape = WalShape { segment_bytes: segment_bytes(&mut connection)?, page_bytes: PAGE_BYTES };
        if resume.is_none() {
            // Nothing of ours depends on what an older slot of this name keeps.
            drop(connection.query(&format!("DROP_REPLICATION_SLOT {slot}")));
        }
        ensure_slot(&mut connection, slot).map_err(error::receive)?;
        let (resume, tail) = resume.map(|resume| (resume.position, resume.tail)).unzip();
        let start = resume.unwrap_or_else(|| LogPosition {
            timeline: identity.timeline,
            offset: identity.flushed.segment_start(shape.segment_bytes).0,
        });
        if start.timeline > identity.timeline {
            return Err(Failure::new(
                FailureKind::Refused,
                format!(
                    "the server writes timeline {}, but timeline {} was kept already: is it a copy from before a promotion?",
                    identity.timeline, start.timeline
                ),
            ));
        }
        if start.timeline == identity.timeline && start.offset > identity.flushed.0 {
            return Err(set_back());
        }
        let tail = tail.unwrap_or_default();
        let from = Lsn(start.offset);
        // At the start of a segment nothing of it is kept: then what is compared is the segment before.
        let rewound = from == from.segment_start(shape.segment_bytes) && !tail.is_empty();
        let again = if rewound { Lsn(from.0 - 1) } else { from };
        let system = identity.system_identifier;
        let mut probe = Probe::new(options);
        let primary = probe.look(identity.timeline).is_some();
        let (receiver, scanner) = begin(connection, slot, shape, system, start.timeline, again, None)?;
        Ok(Self {
            options: options.clone(),
            slot: slot.to_owned(),
            identity,
            shape,
            receiver,
            scanner,
            timeline: start.timeline,
            start,
            next: Lsn(start.offset),
            pending: Bytes::new(),
            tail,
            rewound,
            newest: None,
            horizon: None,
            stamp: None,
            primary,
            probe,
            received: again.segment_start(shape.segment_bytes),
            told: Timestamp::UNIX_EPOCH,
            flushed: Lsn(start.offset),
            reported: None,
        })
    }

    /// Takes a message in: checks it, and drops what was passed on before.
    fn take(&mut self, start: Lsn, mut bytes: Bytes) -> Result<(), Failure> {
        self.compare(start, &bytes)?;
        let mut events = Vec::new();
        let scanned = self.scanner.feed(&bytes, &mut events);
        let newest = events.iter().filter_map(|event| match event {
            Event::Commit { at, .. }
            | Event::Abort { at, .. }
            | Event::Prepare { at, .. }
            | Event::RestorePoint { at, .. } => Some(*at),
            _ => None,
        });
        self.newest = newest.chain(self.newest).max();
        scanned.map_err(|error| {
            // Its first records refer to the ones that were kept before them.
            let unlike = !self.tail.is_empty();
            let (kind, what) = if unlike {
                (FailureKind::Refused, SET_BACK)
            } else {
                (FailureKind::Damaged, "the log the server sends cannot be replayed")
            };
            Failure::with_source(kind, what, error)
        })?;
        let known = self.next.0.saturating_sub(start.0);
        if known < bytes.len() as u64 {
            // From here on everything is new.
            self.tail = Vec::new();
            self.rewound = false;
        }
        bytes.advance(usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len()));
        self.pending = bytes;
        Ok(())
    }

    /// What is sent again must be what was kept: a server that was set back writes another history at the same places.
    fn compare(&self, start: Lsn, bytes: &[u8]) -> Result<(), Failure> {
        let kept_from = self.next.0.saturating_sub(self.tail.len() as u64);
        let (from, to) = (start.0.max(kept_from), (start.0 + bytes.len() as u64).min(self.next.0));
        if self.tail.is_empty() || from >= to {
            return Ok(());
        }
        let span = |base: u64| usize::try_from(from - base).ok().zip(usize::try_from(to - base).ok());
        let sent = span(start.0).and_then(|(from, to)| bytes.get(from..to));
        let kept = span(kept_from).and_then(|(from, to)| self.tail.get(from..to));
        if sent == kept { Ok(()) } else { Err(set_back()) }
    }

    /// The server does not have the segment any more that was to be compared: it goes on from the first new byte, and what
    /// it sends must continue the records that were kept.
    fn without_rewinding(&mut self) -> Result<Step, Failure> {
        self.rewound = false;
        (self.horizon, self.stamp, self.received) = (None, None, self.next);
        self.receiver.start_again(&self.slot, self.timeline, self.next).map_err(error::receive)?;
        let segment = usize::try_from(self.shape.segment_bytes).unwrap_or(usize::MAX);
        let unreadable = |error: WalError| {
            Failure::with_source(error.kind(), "the server's log cannot be read by this version", error)
        };
        let system = Some(self.identity.system_identifier);
        let fresh = || Scanner::new(self.shape, self.timeline, system, self.next).map_err(unreadable);
        let kept = self.tail.len().checked_sub(segment).and_then(|from| self.tail.get(from..));
        let start = Lsn(self.next.0.saturating_sub(u64::from(self.shape.segment_bytes)));
        let primed = kept.and_then(|kept| {
            let mut scanner = Scanner::new(self.shape, self.timeline, system, start).ok()?;
            scanner.feed(kept, &mut Vec::new()).ok()?;
            Some(scanner)
        });
        self.scanner = if let Some(scanner) = primed {
            scanner
        } else {
            self.tail.clear();
            fresh()?
        };
        Ok(Step::Quiet { as_of: None })
    }

    /// The moment that was reached, if one was.
    fn reached(&mut self) -> Option<Timestamp> {
        // The end of a timeline that the server has left is not the end of what it has.
        if self.timeline != self.identity.timeline {
            return None;
        }
        let (_, moment) = self.horizon.take_if(|(end, _)| *end <= self.received)?;
        self.told = moment;
        Some(moment)
    }

    /// Passes on what is pending, up to the end of the segment.
    fn pass_on(&mut self) -> Step {
        let segment = u64::from(self.shape.segment_bytes);
        let left = usize::try_from(segment - self.next.0 % segment).unwrap_or(usize::MAX);
        let bytes = self.pending.split_to(left.min(self.pending.len()));
        let at = LogPosition { timeline: self.timeline, offset: self.next.0 };
        self.next.0 += bytes.len() as u64;
        let boundary = self.next.0.is_multiple_of(segment);
        Step::Bytes { at, bytes, newest: self.newest.take(), boundary }
    }

    /// Goes on with the timeline that follows.
    fn switch(&mut self, next: Timeline, switch: Lsn) -> Result<Step, Failure> {
        let left = LogPosition { timeline: self.timeline, offset: switch.0 };
        let mut connection = connect(&self.options)?;
        let identity = identify(&mut connection).map_err(error::receive)?;
        if identity.system_identifier != self.identity.system_identifier {
            return Err(error::other_system());
        }
        let text = timeline_history(&mut connection, next).map_err(error::receive)?;
        let history = TimelineHistory::parse(&history_name(next), &text).map_err(|error| {
            Failure::with_source(error.kind(), "the server's history of its timelines cannot be read", error)
        })?;
        let system = identity.system_identifier;
        let begun = begin(connection, &self.slot, self.shape, system, next, switch, Some(history))?;
        (self.receiver, self.scanner) = begun;
        self.identity = identity;
        self.tail.clear();
        self.rewound = false;
        self.timeline = next;
        self.next = switch;
        (self.horizon, self.stamp) = (None, None);
        self.received = switch.segment_start(self.shape.segment_bytes);
        self.primary = self.probe.look(next).is_some();
        Ok(Step::Switch { left, entered: LogPosition { timeline: next, offset: switch.0 } })
    }
}

impl LogFeed for PostgresFeed {
    fn start(&self) -> LogPosition {
        self.start
    }

    fn identity(&self) -> String {
        self.identity.system_identifier.to_string()
    }

    fn next(&mut self, limit: Duration) -> Result<Step, Failure> {
        if !self.pending.is_empty() {
            return Ok(self.pass_on());
        }
        if let Some(moment) = self.reached() {
            return Ok(Step::Quiet { as_of: Some(moment) });
        }
        let message = match self.receiver.next_within(limit) {
            Err(ReceiveError::Gone { .. }) if self.rewound => return self.without_rewinding(),
            other => other.map_err(error::receive)?,
        };
        match message {
            None => {
                let flushed = self.flushed;
                self.receiver.report(flushed, Timestamp::UNIX_EPOCH, true).map_err(error::receive)?;
                self.horizon = self.probe.look(self.timeline).or(self.horizon);
                Ok(Step::Quiet { as_of: self.reached() })
            }
            Some(Message::Alive { sent, urgent, .. }) => {
                if urgent {
                    self.receiver.report(self.flushed, sent, false).map_err(error::receive)?;
                }
                self.stamp = Some(sent);
                Ok(Step::Quiet { as_of: None })
            }
            Some(Message::Log { start, bytes, server_end, sent }) => {
                self.primary = self.primary || self.probe.look(self.timeline).is_some();
                if let Some(before) = self.stamp.replace(sent).filter(|_| self.primary)
                    && self.horizon.is_none()
                    && before.duration_since(self.told) >= TELL_EVERY
                {
                    self.horizon = Some((server_end, before));
                }
                self.received = Lsn(start.0 + bytes.len() as u64);
                self.take(start, bytes)?;
                if self.pending.is_empty() {
                    return Ok(Step::Quiet { as_of: None });
                }
                Ok(self.pass_on())
            }
            Some(Message::TimelineEnd { next, switch }) => self.switch(next, switch),
        }
    }

    fn durable(&mut self, position: LogPosition, now: Timestamp) -> Result<(), Failure> {
        let advanced = position.timeline == self.timeline && position.offset > self.flushed.0;
        let due = self.reported.is_none_or(|last| now.duration_since(last).unsigned_abs() >= REPORT_EVERY);
        if advanced {
            self.flushed = Lsn(position.offset);
        }
        if advanced || due {
            self.receiver.report(self.flushed, now, false).map_err(error::receive)?;
            self.reported = Some(now);
        }
        Ok(())
    }
}

/// Begins to receive at the start of the segment, so that every record from `from` on is seen whole.
fn begin(
    connection: Connection,
    slot: &str,
    shape: WalShape,
    system: u64,
    timeline: Timeline,
    from: Lsn,
    history: Option<TimelineHistory>,
) -> Result<(Receiver, Scanner), Failure> {
    let segment = from.segment_start(shape.segment_bytes);
    let receiver = Receiver::start(connection, slot, timeline, segment).map_err(error::receive)?;
    let scanner = Scanner::new(shape, timeline, Some(system), segment).map_err(|error| {
        Failure::with_source(error.kind(), "the server's log cannot be read by this version", error)
    })?;
    let scanner = match history {
        Some(history) => scanner.with_history(history),
        None => scanner,
    };
    Ok((receiver, scanner))
}

fn connect(options: &ConnectOptions) -> Result<Connection, Failure> {
    Connection::connect(options, Mode::Replication)
        .map_err(error::connection("failed to open a replication connection"))
}

/// The size of a log segment in bytes, such as `16MB`.
fn segment_bytes(connection: &mut Connection) -> Result<u32, Failure> {
    let rows = connection
        .query("SHOW wal_segment_size")
        .map_err(error::connection("failed to read the size of a log segment"))?;
    let text = rows.first().and_then(|row| row.get(0)).unwrap_or_default();
    let megabytes = text.strip_suffix("MB").and_then(|number| number.parse::<u32>().ok());
    let gigabytes = text.strip_suffix("GB").and_then(|number| number.parse::<u32>().ok());
    let size = megabytes.or(gigabytes.and_then(|number| number.checked_mul(1024)));
    size.and_then(|size| size.checked_mul(1024 * 1024)).ok_or_else(|| {
        Failure::new(FailureKind::Unreachable, "the server does not say how large a log segment is")
    })
}

const SET_BACK: &str =
    "the server was set back: what it writes now is another history than the one that was kept";

fn set_back() -> Failure {
    Failure::new(FailureKind::Refused, SET_BACK)
}
