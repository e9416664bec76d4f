//! Why a dump cannot be read, or not be believed.

use std::io;

use lifeboat_base::failure::FailureKind;

/// A dump that could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum RdbError {
    /// Whatever the bytes come from failed.
    #[error("failed to read the dump after {at} bytes")]
    Read {
        /// How many bytes had been read.
        at: u64,
        /// Why it ended.
        #[source]
        source: io::Error,
    },
    /// The bytes end before the dump does.
    #[error("the dump ends after {at} bytes, in the middle")]
    Short {
        /// How many bytes there were.
        at: u64,
    },
    /// The bytes cannot be a dump, or not one that was written whole.
    #[error("the dump is damaged at byte {at}: {what}")]
    Damaged {
        /// Where it was noticed.
        at: u64,
        /// What was wrong.
        what: &'static str,
    },
    /// The checksum at the end is not that of the bytes before it.
    #[error("the dump's checksum is {stored:016x} and its content's {computed:016x}")]
    Checksum {
        /// What the dump says.
        stored: u64,
        /// What its bytes give.
        computed: u64,
    },
    /// Well-formed, as far as can be told, and of a form that is not known here.
    #[error("the dump holds {what} {number} at byte {at}, which is not known here")]
    Unknown {
        /// What is not known, such as `a value of type`.
        what: &'static str,
        /// Its number.
        number: u64,
        /// Where it stands.
        at: u64,
    },
}

impl RdbError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Read { .. } => FailureKind::Unreachable,
            Self::Short { .. } | Self::Damaged { .. } | Self::Checksum { .. } => FailureKind::Damaged,
            Self::Unknown { .. } => FailureKind::Refused,
        }
    }
}
