//! The header that every record starts with, its checksum, and the kinds of record that are looked into.
//!
//! In: 24 bytes, and the checksum of what follows them. Out: fields, the verdict on the checksum, the record's kind.

use crate::lsn::Lsn;

/// Bytes of a record's header; the last 4 are the checksum of everything else.
pub(super) const HEADER_BYTES: usize = 24;
const MIN_RECORD_BYTES: u32 = 24;
/// Records start at multiples of this.
pub(super) const ALIGNMENT_BYTES: u64 = 8;
/// The longest record a server can write or read (its largest allocation).
const MAX_RECORD_BYTES: u32 = (1 << 30) - 1;

const MANAGER_XLOG: u8 = 0;
const MANAGER_TRANSACTION: u8 = 1;
const TRANSACTION_KIND: u8 = 0x70;
const TRANSACTION_HAS_INFO: u8 = 0x80;

/// A record that recovery is steered by, as its header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a transaction; `has_info` says that optional parts follow, `prepared` that it was prepared before.
    Commit {
        has_info: bool,
        prepared: bool,
    },
    Abort {
        has_info: bool,
        prepared: bool,
    },
    Prepare,
    RestorePoint,
    Checkpoint {
        shutdown: bool,
    },
    EndOfRecovery,
    BackupEnd,
    Settings,
    Overwritten,
    Switch,
}

/// The fields of a record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) total_bytes: u32,
    pub(super) xid: u32,
    pub(super) previous: Lsn,
    info: u8,
    manager: u8,
    checksum: u32,
    checked: [u8; 20],
}

impl RecordHeader {
    pub(super) fn read(b: &[u8; HEADER_BYTES]) -> Self {
        let [checked @ .., c0, c1, c2, c3] = *b;
        Self {
            total_bytes: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            xid: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            previous: Lsn(u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]])),
            info: b[16],
            manager: b[17],
            checksum: u32::from_le_bytes([c0, c1, c2, c3]),
            checked,
        }
    }

    /// Whether a record can have this length at all.
    pub(super) fn possible_length(total_bytes: u32) -> bool {
        (MIN_RECORD_BYTES..=MAX_RECORD_BYTES).contains(&total_bytes)
    }

    /// Bytes after the header.
    pub(super) fn body_bytes(&self) -> u32 {
        self.total_bytes.saturating_sub(MIN_RECORD_BYTES)
    }

    /// `body` is the CRC-32C of everything after the header; the server adds the header last.
    pub(super) fn checksum_is_right(&self, body: u32) -> bool {
        crc32c::crc32c_append(body, &self.checked) == self.checksum
    }

    /// What the record is, if recovery is steered by it.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self.manager {
            MANAGER_XLOG => match self.info & 0xF0 {
                0x00 => Some(Kind::Checkpoint { shutdown: true }),
                0x10 => Some(Kind::Checkpoint { shutdown: false }),
                0x40 => Some(Kind::Switch),
                0x50 => Some(Kind::BackupEnd),
                0x60 => Some(Kind::Settings),
                0x70 => Some(Kind::RestorePoint),
                0x90 => Some(Kind::EndOfRecovery),
                0xD0 => Some(Kind::Overwritten),
                _ => None,
            },
            MANAGER_TRANSACTION => {
                let has_info = self.info & TRANSACTION_HAS_INFO != 0;
                match self.info & TRANSACTION_KIND {
                    0x00 => Some(Kind::Commit { has_info, prepared: false }),
                    0x10 => Some(Kind::Prepare),
                    0x20 => Some(Kind::Abort { has_info, prepared: false }),
                    0x30 => Some(Kind::Commit { has_info, prepared: true }),
                    0x40 => Some(Kind::Abort { has_info, prepared: true }),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl Kind {
    /// What a person calls it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Commit { .. } => "commit",
            Self::Abort { .. } => "abort",
            Self::Prepare => "prepare",
            Self::RestorePoint => "restore point",
            Self::Checkpoint { .. } => "checkpoint",
            Self::EndOfRecovery => "end of recovery",
            Self::BackupEnd => "end of backup",
            Self::Settings => "settings",
            Self::Overwritten => "overwritten record",
            Self::Switch => "switch",
        }
    }
}
