//! Why bytes are not the write-ahead log they claim to be, each with its position.

use lifeboat_base::failure::FailureKind;

use crate::lsn::{Lsn, Timeline};

/// Bytes that recovery would stop at, or that belong elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// Sizes no server can have.
    #[error(
        "segments of {segment_bytes} bytes in pages of {page_bytes} bytes are not a shape PostgreSQL can have"
    )]
    Shape {
        /// Bytes of a segment.
        segment_bytes: u32,
        /// Bytes of a page.
        page_bytes: u32,
    },
    /// The scan was asked to start elsewhere than at a page.
    #[error("a scan starts at the start of a page, which {at} is not")]
    Start {
        /// The position asked for.
        at: Lsn,
    },
    /// A log of a server version that is not known here.
    #[error("the page at {at} has the mark {magic:#06X}, which no PostgreSQL from 13 to 18 writes")]
    Version {
        /// Where the page starts.
        at: Lsn,
        /// What stands where the version's mark should.
        magic: u16,
    },
    /// The log of another cluster.
    #[error("the page at {at} was written by the system {found}, not by {expected}")]
    System {
        /// Where the page starts.
        at: Lsn,
        /// The system identifier in the page.
        found: u64,
        /// The one asked for, or that of the pages before.
        expected: u64,
    },
    /// A page of a timeline that does not lead to the one scanned.
    #[error("the page at {at} is of timeline {found}, where {expected} was expected")]
    Timeline {
        /// Where the page starts.
        at: Lsn,
        /// The timeline in the page.
        found: Timeline,
        /// The timeline expected there.
        expected: Timeline,
    },
    /// A page header that cannot stand where it does.
    #[error("the header of the page at {at} is damaged: {fault}")]
    Page {
        /// Where the page starts.
        at: Lsn,
        /// What is wrong with it.
        fault: PageFault,
    },
    /// A record that is shorter than its own header or longer than a server can write.
    #[error("the record at {at} claims {total_bytes} bytes, which is impossible")]
    Length {
        /// Where the record starts.
        at: Lsn,
        /// The length it claims.
        total_bytes: u32,
    },
    /// A record that does not follow the one before it: something is missing, repeated or stale.
    #[error("the record at {at} says it follows the one at {found}, which is not the record before it")]
    Sequence {
        /// Where the record starts.
        at: Lsn,
        /// Where it says that its predecessor starts.
        found: Lsn,
    },
    /// A record whose bytes are not those that were written.
    #[error("the record at {at} does not have its checksum")]
    Checksum {
        /// Where the record starts.
        at: Lsn,
    },
    /// A record with the right checksum that is not built as its kind is.
    #[error("the record at {at} is not built as a {kind} record is")]
    Content {
        /// Where the record starts.
        at: Lsn,
        /// The kind of record.
        kind: &'static str,
    },
    /// Zeros where a record should start, though something was written after them.
    #[error("the log ends at {end}, but there is more of it at {at}")]
    Hole {
        /// Where zeros begin.
        end: Lsn,
        /// Where something stands behind them.
        at: Lsn,
    },
    /// A file name that is not a segment's.
    #[error("`{name}` is not the name of a segment of {segment_bytes} bytes")]
    Name {
        /// The name.
        name: String,
        /// Bytes of a segment, as the content says.
        segment_bytes: u32,
    },
    /// A segment file that is longer or shorter than a segment.
    #[error("the segment `{name}` has {found_bytes} bytes, not {segment_bytes}")]
    FileLength {
        /// The name.
        name: String,
        /// Bytes read.
        found_bytes: u64,
        /// Bytes of a segment, as the content says; 0 if there was not even a page header.
        segment_bytes: u32,
    },
}

/// What is wrong with a page header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// The version's mark is no mark at all, or differs from the pages before.
    #[error("the mark {0:#06X} is wrong")]
    Magic(u16),
    /// Unknown flags, or flags that cannot stand here.
    #[error("the flags {0:#06X} are wrong")]
    Flags(u16),
    /// The page belongs to another position.
    #[error("it belongs to {0}")]
    Address(Lsn),
    /// The rest of the record that crosses into this page is not as long as it should be.
    #[error("{found_bytes} bytes of a record should follow, not {expected_bytes}")]
    Remainder {
        /// Bytes that the header announces.
        found_bytes: u32,
        /// Bytes that the record still lacks.
        expected_bytes: u32,
    },
    /// The cluster's segment or page size differs from the one expected.
    #[error("it is for segments of {segment_bytes} bytes in pages of {page_bytes} bytes")]
    Sizes {
        /// Bytes of a segment, as the header says.
        segment_bytes: u32,
        /// Bytes of a page, as the header says.
        page_bytes: u32,
    },
}

impl WalError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Start { .. } => FailureKind::Internal,
            Self::Shape { .. } | Self::Version { .. } | Self::System { .. } | Self::Name { .. } => {
                FailureKind::Refused
            }
            Self::Timeline { .. }
            | Self::Page { .. }
            | Self::Length { .. }
            | Self::Sequence { .. }
            | Self::Checksum { .. }
            | Self::Content { .. }
            | Self::Hole { .. }
            | Self::FileLength { .. } => FailureKind::Damaged,
        }
    }
}
