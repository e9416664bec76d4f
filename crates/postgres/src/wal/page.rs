//! Page headers of the write-ahead log, and the sizes of a cluster's log.
//!
//! In: 24 bytes (40 at the start of a segment). Out: their fields; what they must say is the scanner's business.
//! Numbers are little-endian, as on every machine PostgreSQL is packaged for.

use super::error::WalError;
use crate::lsn::{Lsn, Timeline};

/// Bytes of the header of every page but the first of a segment; the last 4 are padding that nothing reads.
pub(super) const SHORT_HEADER_BYTES: usize = 24;
/// Bytes of the header of the first page of a segment.
pub(super) const LONG_HEADER_BYTES: usize = 40;

/// The page starts with the rest of a record.
pub(super) const FLAG_CONTINUED: u16 = 0x0001;
/// The header is the long one.
pub(super) const FLAG_LONG: u16 = 0x0002;
/// The page starts a record in place of one that will never be finished.
pub(super) const FLAG_OVERWRITES: u16 = 0x0008;
/// Everything a header may have set; 0x0004 only tells archivers that full-page images are not needed.
pub(super) const FLAGS_ALL: u16 = 0x000F;

const MIN_SEGMENT_BYTES: u32 = 1 << 20;
const MAX_SEGMENT_BYTES: u32 = 1 << 30;
const MIN_PAGE_BYTES: u32 = 1 << 10;
const MAX_PAGE_BYTES: u32 = 1 << 16;

/// The sizes of a cluster's log, fixed when it is created (`wal_segment_size`) or compiled (`wal_block_size`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalShape {
    /// Bytes of a segment file.
    pub segment_bytes: u32,
    /// Bytes of a page.
    pub page_bytes: u32,
}

impl Default for WalShape {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, page_bytes: 8 << 10 }
    }
}

impl WalShape {
    pub(super) fn check(self) -> Result<Self, WalError> {
        let Self { segment_bytes, page_bytes } = self;
        let possible = segment_bytes.is_power_of_two()
            && page_bytes.is_power_of_two()
            && (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&segment_bytes)
            && (MIN_PAGE_BYTES..=MAX_PAGE_BYTES).contains(&page_bytes);
        possible.then_some(self).ok_or(WalError::Shape { segment_bytes, page_bytes })
    }
}

/// The major version whose log pages carry this mark; none if it is not one of 13 to 18.
pub(super) fn major_of(magic: u16) -> Option<u32> {
    match magic {
        0xD106 => Some(13),
        0xD10D => Some(14),
        0xD110 => Some(15),
        0xD113 => Some(16),
        0xD116 => Some(17),
        0xD118 => Some(18),
        _ => None,
    }
}

/// Whether this is the mark of some server version, if not of one known here.
pub(super) fn is_some_version(magic: u16) -> bool {
    magic >> 9 == 0xD000 >> 9
}

/// The fields of a page header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) magic: u16,
    pub(super) flags: u16,
    pub(super) timeline: Timeline,
    pub(super) address: Lsn,
    pub(super) remainder_bytes: u32,
}

/// The fields that only the first page of a segment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) system_identifier: u64,
    pub(super) segment_bytes: u32,
    pub(super) page_bytes: u32,
}

impl PageHeader {
    pub(super) fn read(b: &[u8; LONG_HEADER_BYTES]) -> Self {
        Self {
            magic: u16::from_le_bytes([b[0], b[1]]),
            flags: u16::from_le_bytes([b[2], b[3]]),
            timeline: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            address: Lsn(u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]])),
            remainder_bytes: u32::from_le_bytes([b[16], b[17], b[18], b[19]]),
        }
    }
}

impl SegmentHeader {
    pub(super) fn read(b: &[u8; LONG_HEADER_BYTES]) -> Self {
        Self {
            system_identifier: u64::from_le_bytes([b[24], b[25], b[26], b[27], b[28], b[29], b[30], b[31]]),
            segment_bytes: u32::from_le_bytes([b[32], b[33], b[34], b[35]]),
            page_bytes: u32::from_le_bytes([b[36], b[37], b[38], b[39]]),
        }
    }
}
