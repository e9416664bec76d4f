//! Why a base backup could not be taken.

use std::io;

use lifeboat_base::failure::FailureKind;

use crate::wire::PgError;

/// A base backup that failed; nothing of it may be kept.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The connection or the server failed.
    #[error("failed to {doing}")]
    Connection {
        /// What was attempted, as a verb phrase.
        doing: &'static str,
        /// The connection's error.
        #[source]
        source: PgError,
    },
    /// The server cannot be backed up by this version.
    #[error("PostgreSQL {found} is not supported; 13 to 18 are")]
    Version {
        /// What the server says it is.
        found: String,
    },
    /// The stream is not what the protocol says.
    #[error("the base backup stream is not as it should be: {what}")]
    Stream {
        /// What is wrong.
        what: String,
    },
    /// What was received is not what the server's manifest lists.
    #[error("the backup does not agree with the server's manifest: {what}")]
    Manifest {
        /// The first differences.
        what: String,
    },
    /// The manifest could not be written down or read back.
    #[error("failed to keep the manifest")]
    Scratch(#[source] io::Error),
}

impl BackupError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Connection { source, .. } => source.kind(),
            Self::Version { .. } => FailureKind::Refused,
            Self::Stream { .. } => FailureKind::Unreachable,
            Self::Manifest { .. } => FailureKind::Damaged,
            Self::Scratch(_) => FailureKind::Internal,
        }
    }

    pub(super) fn stream(what: impl Into<String>) -> Self {
        Self::Stream { what: what.into() }
    }
}
