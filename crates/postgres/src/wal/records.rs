//! The records between page headers: their lengths, order and checksums, and what the few that matter say.
//!
//! In: the bytes of pages without their headers, and what each header says about the record that crosses into its page.
//! Out: [`Event`]s. At most one record is looked at; of its body only a checksum is kept.

use super::body::Body;
use super::error::{PageFault, WalError};
use super::event::Event;
use super::page::{FLAG_CONTINUED, FLAG_OVERWRITES, PageHeader};
use super::record::{ALIGNMENT_BYTES, HEADER_BYTES, Kind, RecordHeader};
use crate::lsn::Lsn;

/// Bytes of a record's header that hold its length; they never stand on two pages.
const LENGTH_BYTES: usize = 4;

/// Where in the sequence of records the log is.
#[derive(Clone, Debug)]
pub(super) struct Records {
    start: Lsn,
    state: State,
    body: Option<Body>,
    pub(super) first: Option<Lsn>,
    /// The start of the last whole record, and its end.
    pub(super) last: Option<(Lsn, Lsn)>,
    /// The next record must say that it replaces this one.
    replaces: Option<GivenUp>,
}

/// A record that a page says will never be finished.
#[derive(Clone, Copy, Debug)]
enum GivenUp {
    /// It started here.
    At(Lsn),
    /// It started before the scan did.
    BeforeTheScan,
}

/// What the next byte is, page headers aside.
#[derive(Clone, Debug)]
enum State {
    /// Unknown before the first page header.
    Begin,
    /// The rest of a record that started before the scan did, and cannot be checked.
    Rest { left_bytes: u32 },
    /// The start of a record, or up to 7 bytes of padding before it.
    Between,
    /// The header of a record.
    Header { lsn: Lsn, bytes: [u8; HEADER_BYTES], have_bytes: usize },
    /// What follows the header.
    Body { lsn: Lsn, header: RecordHeader, left_bytes: u32, checksum: u32 },
    /// What follows a switch, up to the end of the segment.
    Filler,
    /// Nothing was written from `end` on; the first page of it must be blank up to `blank_until`.
    Tail { end: Lsn, blank_until: Lsn, unfinished: Option<Lsn> },
}

impl Records {
    pub(super) fn new(start: Lsn) -> Self {
        let state = State::Begin;
        Self { start, state, body: None, first: None, last: None, replaces: None }
    }

    pub(super) fn unfinished(&self) -> Option<Lsn> {
        match self.state {
            State::Header { lsn, have_bytes, .. } => (have_bytes > 0).then_some(lsn),
            State::Body { lsn, .. } => Some(lsn),
            State::Tail { unfinished, .. } => unfinished,
            State::Begin | State::Rest { .. } | State::Between | State::Filler => None,
        }
    }

    pub(super) fn log_end(&self) -> Option<Lsn> {
        if let State::Tail { end, .. } = self.state { Some(end) } else { None }
    }

    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.state, State::Begin)
    }

    pub(super) fn is_filler(&self) -> bool {
        matches!(self.state, State::Filler)
    }

    /// The filler after a switch ends with its segment.
    pub(super) fn end_filler(&mut self) {
        self.state = State::Between;
    }

    /// The page whose header ends at `position` was never written.
    pub(super) fn end_log(&mut self, end: Lsn, blank_until: Lsn) {
        self.state = State::Tail { end, blank_until, unfinished: self.unfinished() };
    }

    /// Bytes that the record at hand still lacks.
    fn lacking_bytes(&self) -> u32 {
        match &self.state {
            State::Rest { left_bytes } | State::Body { left_bytes, .. } => *left_bytes,
            State::Header { bytes, have_bytes, .. } if *have_bytes > 0 => {
                length_of(bytes).saturating_sub(u32::try_from(*have_bytes).unwrap_or(u32::MAX))
            }
            _ => 0,
        }
    }

    /// A page must continue exactly the record that crosses into it, or say that the record was given up.
    pub(super) fn cross(&mut self, at: Lsn, header: &PageHeader) -> Result<(), WalError> {
        let continued = header.flags & FLAG_CONTINUED != 0;
        let overwrites = header.flags & FLAG_OVERWRITES != 0;
        let found_bytes = header.remainder_bytes;
        let flags_are_wrong = Err(WalError::Page { at, fault: PageFault::Flags(header.flags) });
        if continued != (found_bytes > 0) || (continued && overwrites) {
            return flags_are_wrong;
        }
        let begins = !self.has_begun();
        let expected_bytes = if begins { found_bytes } else { self.lacking_bytes() };
        if overwrites {
            if !begins && expected_bytes == 0 {
                return flags_are_wrong;
            }
            self.replaces = Some(self.unfinished().map_or(GivenUp::BeforeTheScan, GivenUp::At));
            self.state = State::Between;
        } else if found_bytes != expected_bytes {
            return Err(WalError::Page { at, fault: PageFault::Remainder { found_bytes, expected_bytes } });
        } else if begins {
            self.state = if continued { State::Rest { left_bytes: found_bytes } } else { State::Between };
        }
        Ok(())
    }

    /// Takes the next bytes of one page, which start at `position` and reach no further than `page_end`.
    pub(super) fn take(
        &mut self,
        mut position: Lsn,
        page_end: Lsn,
        mut bytes: &[u8],
        major: u32,
        events: &mut Vec<Event>,
    ) -> Result<(), WalError> {
        while !bytes.is_empty() {
            let count = match self.state {
                State::Begin | State::Filler => bytes.len(),
                State::Tail { end, blank_until, .. } => {
                    check_blank(position, bytes, end, blank_until)?;
                    bytes.len()
                }
                State::Rest { left_bytes } => {
                    let count = as_bytes_count(left_bytes).min(bytes.len());
                    let left_bytes = left_bytes.saturating_sub(as_u32(count));
                    self.state = if left_bytes == 0 { State::Between } else { State::Rest { left_bytes } };
                    count
                }
                State::Between => self.take_padding(position, bytes.len()),
                State::Header { .. } => self.take_header(page_end, bytes, major)?,
                State::Body { .. } => self.take_body(bytes),
            };
            position.0 += count as u64;
            bytes = bytes.get(count..).unwrap_or_default();
            if let State::Body { lsn, header, left_bytes: 0, checksum } = self.state {
                self.finish(lsn, &header, checksum, position, events)?;
            }
        }
        Ok(())
    }

    /// Records start at multiples of 8; what stands before them is never looked at, not by the server either.
    fn take_padding(&mut self, position: Lsn, available: usize) -> usize {
        let aligned = align(position);
        let padding = usize::try_from(aligned.0 - position.0).unwrap_or(0);
        if padding < available {
            self.state = State::Header { lsn: aligned, bytes: [0; HEADER_BYTES], have_bytes: 0 };
        }
        padding.min(available)
    }

    fn take_header(&mut self, page_end: Lsn, input: &[u8], major: u32) -> Result<usize, WalError> {
        let State::Header { lsn, bytes, have_bytes } = &mut self.state else { return Ok(0) };
        let lsn = *lsn;
        let wanted = if *have_bytes < LENGTH_BYTES { LENGTH_BYTES } else { HEADER_BYTES };
        let room = bytes.get_mut(*have_bytes..wanted).unwrap_or_default();
        let count = room.len().min(input.len());
        for (to, from) in room.iter_mut().zip(input) {
            *to = *from;
        }
        *have_bytes += count;
        if *have_bytes == LENGTH_BYTES {
            let total_bytes = length_of(bytes);
            if total_bytes == 0 {
                self.state = State::Tail { end: lsn, blank_until: page_end, unfinished: None };
            } else if !RecordHeader::possible_length(total_bytes) {
                return Err(WalError::Length { at: lsn, total_bytes });
            }
        } else if *have_bytes == HEADER_BYTES {
            let header = RecordHeader::read(bytes);
            self.begin_body(lsn, header, major)?;
        }
        Ok(count)
    }

    fn begin_body(&mut self, lsn: Lsn, header: RecordHeader, major: u32) -> Result<(), WalError> {
        // Without a predecessor at hand it is known only that it started before the scan did.
        let follows = match self.last {
            Some((last, _)) => header.previous == last,
            None => header.previous < self.start || self.start == Lsn(0),
        };
        if !follows {
            return Err(WalError::Sequence { at: lsn, found: header.previous });
        }
        self.body = header.kind().map(|kind| Body::new(kind, major, header.body_bytes()));
        self.state = State::Body { lsn, header, left_bytes: header.body_bytes(), checksum: 0 };
        Ok(())
    }

    fn take_body(&mut self, bytes: &[u8]) -> usize {
        let State::Body { left_bytes, checksum, .. } = &mut self.state else { return 0 };
        let now = bytes.get(..as_bytes_count(*left_bytes)).unwrap_or(bytes);
        *checksum = crc32c::crc32c_append(*checksum, now);
        *left_bytes = left_bytes.saturating_sub(as_u32(now.len()));
        if let Some(body) = &mut self.body {
            body.feed(now);
        }
        now.len()
    }

    fn finish(
        &mut self,
        lsn: Lsn,
        header: &RecordHeader,
        checksum: u32,
        position: Lsn,
        events: &mut Vec<Event>,
    ) -> Result<(), WalError> {
        if !header.checksum_is_right(checksum) {
            return Err(WalError::Checksum { at: lsn });
        }
        let end = align(position);
        let event = match (self.body.take(), header.kind()) {
            (Some(body), Some(kind)) => {
                let event = body.event(header, lsn, end);
                Some(event.ok_or(WalError::Content { at: lsn, kind: kind.word() })?)
            }
            _ => None,
        };
        self.check_replacement(lsn, event.as_ref())?;
        self.first.get_or_insert(lsn);
        self.last = Some((lsn, end));
        self.state = if matches!(event, Some(Event::Switch { .. })) { State::Filler } else { State::Between };
        events.extend(event);
        Ok(())
    }

    /// Only the first record of a page that says so may give up an unfinished record, and it must give up that one.
    fn check_replacement(&mut self, at: Lsn, event: Option<&Event>) -> Result<(), WalError> {
        let right = match (self.replaces.take(), event) {
            (Some(GivenUp::At(lsn)), Some(Event::Overwritten { overwritten, .. })) => lsn == *overwritten,
            (Some(GivenUp::BeforeTheScan), Some(Event::Overwritten { overwritten, .. })) => {
                *overwritten < self.start
            }
            (Some(_), _) | (None, Some(Event::Overwritten { .. })) => false,
            (None, _) => true,
        };
        if right { Ok(()) } else { Err(WalError::Content { at, kind: Kind::Overwritten.word() }) }
    }
}

/// Something behind the end of the log is a hole if it stands on the page in which the log ends: a page is blank when
/// the server starts it.
fn check_blank(position: Lsn, bytes: &[u8], end: Lsn, blank_until: Lsn) -> Result<(), WalError> {
    if position >= blank_until {
        return Ok(());
    }
    match bytes.iter().position(|byte| *byte != 0) {
        Some(offset) => Err(WalError::Hole { end, at: Lsn(position.0 + offset as u64) }),
        None => Ok(()),
    }
}

fn length_of(header: &[u8; HEADER_BYTES]) -> u32 {
    u32::from_le_bytes([header[0], header[1], header[2], header[3]])
}

fn align(position: Lsn) -> Lsn {
    Lsn(position.0.next_multiple_of(ALIGNMENT_BYTES))
}

fn as_bytes_count(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// For counts that are at most the length of a record.
fn as_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
