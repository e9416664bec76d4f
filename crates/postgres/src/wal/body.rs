//! Reads what a record says about recovery while its bytes stream by.
//!
//! In: the bytes after a record's header, in pieces of any length. Out: an [`Event`]. At most [`FIELDS_BYTES`] of a
//! record are held, whatever its length: lists of subtransactions or invalidations are stepped over, not read.

use lifeboat_base::time::Timestamp;

use super::event::{Event, WalLevel};
use super::record::{Kind, RecordHeader};
use crate::lsn::Lsn;

/// The longest run of fields that is looked at in one go: a restore point's time and name.
const FIELDS_BYTES: usize = 72;

const BLOCK_ID_MAX: u8 = 32;
const ID_MAIN_SHORT: u8 = 255;
const ID_MAIN_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOP_TRANSACTION: u8 = 252;
const BLOCK_HAS_IMAGE: u8 = 0x10;
const BLOCK_SAME_RELATION: u8 = 0x80;
const IMAGE_HAS_HOLE: u8 = 0x01;

/// The optional parts of a commit or rollback, in the order in which they stand, up to the one that is wanted.
const PARTS: [(u32, Part); 6] = [
    (1 << 0, Part::Database),
    (1 << 1, Part::Subtransactions),
    (1 << 2, Part::Relations),
    (1 << 8, Part::Statistics),
    (1 << 3, Part::Invalidations),
    (1 << 4, Part::Prepared),
];

#[derive(Clone, Copy, Debug)]
enum Part {
    Database,
    Subtransactions,
    Relations,
    Statistics,
    Invalidations,
    Prepared,
}

/// What the bytes in hand will be, once there are enough of them.
#[derive(Clone, Copy, Debug)]
enum Step {
    Id,
    Block,
    Image { locator_bytes: u64 },
    MainShort,
    MainLong,
    Fields,
    TransactionInfo,
    ListLength { item_bytes: u64, next: usize },
    PreparedXid,
    Done,
    Broken,
}

/// The reader of one record.
#[derive(Clone, Debug)]
pub(super) struct Body {
    kind: Kind,
    major: u32,
    step: Step,
    fields: [u8; FIELDS_BYTES],
    have_bytes: usize,
    want_bytes: usize,
    skip_bytes: u64,
    /// Bytes of the record after its header, and those of them that the steps so far account for.
    total_bytes: u64,
    taken_bytes: u64,
    block_bytes: u64,
    parts: u32,
    at_us: i64,
    prepared_xid: u32,
}

impl Body {
    pub(super) fn new(kind: Kind, major: u32, body_bytes: u32) -> Self {
        let (step, want_bytes) = if kind == Kind::Switch { (Step::Done, 0) } else { (Step::Id, 1) };
        Self {
            kind,
            major,
            step,
            fields: [0; FIELDS_BYTES],
            have_bytes: 0,
            want_bytes,
            skip_bytes: 0,
            total_bytes: u64::from(body_bytes),
            taken_bytes: 0,
            block_bytes: 0,
            parts: 0,
            at_us: 0,
            prepared_xid: 0,
        }
    }

    /// Takes the next bytes of the record; nothing is decided before [`Body::event`].
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.want_bytes > 0 {
            if self.skip_bytes > 0 {
                let count = usize::try_from(self.skip_bytes).unwrap_or(usize::MAX).min(bytes.len());
                self.skip_bytes -= count as u64;
                bytes = bytes.get(count..).unwrap_or_default();
                continue;
            }
            let room = self.fields.get_mut(self.have_bytes..self.want_bytes).unwrap_or_default();
            let count = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(count);
            room.get_mut(..count).unwrap_or_default().copy_from_slice(now);
            bytes = later;
            self.have_bytes += count;
            if self.have_bytes == self.want_bytes {
                self.advance();
            }
        }
    }

    /// Goes on to `step`, which needs `want_bytes`, over `skip_bytes` that do not matter.
    fn go(&mut self, step: Step, want_bytes: usize, skip_bytes: u64) {
        (self.step, self.want_bytes, self.have_bytes) = (step, want_bytes, 0);
        self.skip_bytes = skip_bytes;
        self.taken_bytes += skip_bytes + want_bytes as u64;
    }

    fn end(&mut self, step: Step) {
        (self.step, self.want_bytes, self.have_bytes) = (step, 0, 0);
    }

    fn advance(&mut self) {
        let f = self.fields;
        match self.step {
            Step::Id => match f[0] {
                ID_MAIN_SHORT => self.go(Step::MainShort, 1, 0),
                ID_MAIN_LONG => self.go(Step::MainLong, 4, 0),
                ID_ORIGIN => self.go(Step::Id, 1, 2),
                ID_TOP_TRANSACTION => self.go(Step::Id, 1, 4),
                id if id <= BLOCK_ID_MAX => self.go(Step::Block, 3, 0),
                _ => self.end(Step::Broken),
            },
            Step::Block => {
                self.block_bytes += u64::from(u16::from_le_bytes([f[1], f[2]]));
                let locator_bytes = if f[0] & BLOCK_SAME_RELATION == 0 { 16 } else { 4 };
                if f[0] & BLOCK_HAS_IMAGE == 0 {
                    self.go(Step::Id, 1, locator_bytes);
                } else {
                    self.go(Step::Image { locator_bytes }, 5, 0);
                }
            }
            Step::Image { locator_bytes } => {
                self.block_bytes += u64::from(u16::from_le_bytes([f[0], f[1]]));
                let hole_bytes = if self.is_compressed_with_hole(f[4]) { 2 } else { 0 };
                self.go(Step::Id, 1, hole_bytes + locator_bytes);
            }
            Step::MainShort => self.main(u64::from(f[0])),
            Step::MainLong => self.main(u64::from(u32::from_le_bytes([f[0], f[1], f[2], f[3]]))),
            Step::Fields => self.end(Step::Done),
            Step::TransactionInfo => {
                self.at_us = i64::from_le_bytes([f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]]);
                self.parts = u32::from_le_bytes([f[8], f[9], f[10], f[11]]);
                self.part(0, 0);
            }
            Step::ListLength { item_bytes, next } => {
                let count = u64::from(u32::from_le_bytes([f[0], f[1], f[2], f[3]]));
                self.part(next, count * item_bytes);
            }
            Step::PreparedXid => {
                self.prepared_xid = u32::from_le_bytes([f[0], f[1], f[2], f[3]]);
                self.end(Step::Done);
            }
            Step::Done | Step::Broken => self.want_bytes = 0,
        }
    }

    /// A compressed image stores the length of its hole only if it has one. Version 15 renumbered the flags when it
    /// brought more methods.
    fn is_compressed_with_hole(&self, flags: u8) -> bool {
        let compressed = if self.major >= 15 { 0x04 | 0x08 | 0x10 } else { 0x02 };
        flags & IMAGE_HAS_HOLE != 0 && flags & compressed != 0
    }

    /// The headers are over: pages follow, and then `main_bytes` that must be the rest of the record.
    fn main(&mut self, main_bytes: u64) {
        // The first id is taken by `new`, not by `go`.
        let accounted = 1 + self.taken_bytes + self.block_bytes + main_bytes;
        let (step, want_bytes) = match self.kind {
            Kind::Commit { has_info: true, prepared: true }
            | Kind::Abort { has_info: true, prepared: true } => (Step::TransactionInfo, 12),
            // Their transaction stands in the optional parts.
            Kind::Commit { prepared: true, .. } | Kind::Abort { prepared: true, .. } => (Step::Broken, 0),
            Kind::Commit { .. } | Kind::Abort { .. } | Kind::BackupEnd | Kind::Overwritten => {
                (Step::Fields, 8)
            }
            Kind::Checkpoint { .. } | Kind::EndOfRecovery => (Step::Fields, 16),
            Kind::Prepare | Kind::Settings => (Step::Fields, 24),
            Kind::RestorePoint => (Step::Fields, FIELDS_BYTES),
            Kind::Switch => (Step::Done, 0),
        };
        if accounted == self.total_bytes && main_bytes >= want_bytes as u64 && want_bytes > 0 {
            self.go(step, want_bytes, self.block_bytes);
        } else {
            self.end(Step::Broken);
        }
    }

    /// Goes to the optional part `next` or the first one after it that is there, over `skip_bytes` of the one before.
    fn part(&mut self, next: usize, mut skip_bytes: u64) {
        let statistic_bytes = if self.major >= 18 { 16 } else { 12 };
        for (index, (flag, part)) in PARTS.into_iter().enumerate().skip(next) {
            if self.parts & flag == 0 {
                continue;
            }
            let item_bytes = match part {
                Part::Database => {
                    skip_bytes += 8;
                    continue;
                }
                Part::Prepared => return self.go(Step::PreparedXid, 4, skip_bytes),
                Part::Subtransactions => 4,
                Part::Relations => 12,
                Part::Statistics => statistic_bytes,
                Part::Invalidations => 16,
            };
            return self.go(Step::ListLength { item_bytes, next: index + 1 }, 4, skip_bytes);
        }
        self.end(Step::Broken);
    }

    /// What the record said; none if it was not built as its kind is. Asked once all its bytes were fed and checked.
    pub(super) fn event(&self, header: &RecordHeader, lsn: Lsn, end: Lsn) -> Option<Event> {
        if !matches!(self.step, Step::Done) {
            return None;
        }
        Some(match self.kind {
            Kind::Commit { prepared, .. } => {
                let (xid, at) = self.transaction(header, prepared)?;
                Event::Commit { lsn, end, xid, at }
            }
            Kind::Abort { prepared, .. } => {
                let (xid, at) = self.transaction(header, prepared)?;
                Event::Abort { lsn, end, xid, at }
            }
            Kind::Prepare => {
                Event::Prepare { lsn, end, xid: self.u32_at(8)?, at: timestamp(self.i64_at(16)?)? }
            }
            Kind::RestorePoint => {
                Event::RestorePoint { lsn, end, name: self.name()?, at: timestamp(self.i64_at(0)?)? }
            }
            Kind::Checkpoint { shutdown } => Event::Checkpoint {
                lsn,
                end,
                redo: self.lsn_at(0)?,
                timeline: self.u32_at(8)?,
                previous_timeline: self.u32_at(12)?,
                shutdown,
            },
            Kind::EndOfRecovery => Event::EndOfRecovery {
                lsn,
                end,
                timeline: self.u32_at(8)?,
                previous_timeline: self.u32_at(12)?,
                at: timestamp(self.i64_at(0)?)?,
            },
            Kind::BackupEnd => Event::BackupEnd { lsn, end, start: self.lsn_at(0)? },
            Kind::Settings => Event::Settings { lsn, end, level: wal_level(self.u32_at(20)?)? },
            Kind::Overwritten => Event::Overwritten { lsn, end, overwritten: self.lsn_at(0)? },
            Kind::Switch => Event::Switch { lsn, end },
        })
    }

    fn transaction(&self, header: &RecordHeader, prepared: bool) -> Option<(u32, Timestamp)> {
        let (xid, at_us) =
            if prepared { (self.prepared_xid, self.at_us) } else { (header.xid, self.i64_at(0)?) };
        Some((xid, timestamp(at_us)?))
    }

    /// A name fills 64 bytes, with at least one zero at its end.
    fn name(&self) -> Option<String> {
        let bytes = self.fields.get(8..FIELDS_BYTES)?;
        let length = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(bytes.get(..length)?).into_owned())
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        self.fields.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn i64_at(&self, at: usize) -> Option<i64> {
        self.fields.get(at..)?.first_chunk().map(|bytes| i64::from_le_bytes(*bytes))
    }

    fn lsn_at(&self, at: usize) -> Option<Lsn> {
        self.fields.get(at..)?.first_chunk().map(|bytes| Lsn(u64::from_le_bytes(*bytes)))
    }
}

fn wal_level(number: u32) -> Option<WalLevel> {
    [WalLevel::Minimal, WalLevel::Replica, WalLevel::Logical].get(usize::try_from(number).ok()?).copied()
}

/// The server counts microseconds from the year 2000.
fn timestamp(since_2000_us: i64) -> Option<Timestamp> {
    const YEAR_2000_US: i64 = 946_684_800_000_000;
    Timestamp::from_microsecond(since_2000_us.checked_add(YEAR_2000_US)?).ok()
}
