//! What can go wrong with evidence, described by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use lifeboat_base::failure::{Failure, FailureKind};

/// A failure of this crate. A chain that was tampered with is not one: that is a report with problems.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file could not be read or written.
    #[error("failed to {what} `{}`", path.display())]
    Io {
        /// A verb, such as `read`.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to verify: no head and no record.
    #[error("there is no evidence chain in `{}`", dir.display())]
    NoChain {
        /// The directory.
        dir: PathBuf,
    },
    /// A file of the chain cannot be relied on.
    #[error("evidence file `{}` {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; a verb phrase.
        why: String,
    },
    /// The chain belongs to another signing key.
    #[error("the evidence chain in `{}` belongs to key {found}, not to key {given}", dir.display())]
    OtherKey {
        /// The chain's directory.
        dir: PathBuf,
        /// Id of the chain's key.
        found: String,
        /// Id of the key given.
        given: String,
    },
    /// A record that may not be written.
    #[error("a record was refused: {why}")]
    InvalidRecord {
        /// Which rule it breaks.
        why: String,
    },
    /// A bundle is only made of a chain that verifies.
    #[error("the evidence chain in `{}` does not verify ({problem_count} problems, the first: {first})", dir.display())]
    NotSound {
        /// The chain's directory.
        dir: PathBuf,
        /// How many problems there are.
        problem_count: u64,
        /// The first of them.
        first: String,
    },
    /// The place for a bundle is taken.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// The place.
        path: PathBuf,
    },
}

impl EvidenceError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.into() }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::ReadOnlyFilesystem => FailureKind::Unreachable,
                _ => FailureKind::Internal,
            },
            Self::NoChain { .. } => FailureKind::Unreachable,
            Self::Damaged { .. } | Self::NotSound { .. } => FailureKind::Damaged,
            Self::OtherKey { .. } | Self::Exists { .. } => FailureKind::Refused,
            Self::InvalidRecord { .. } => FailureKind::Internal,
        }
    }
}

impl From<EvidenceError> for Failure {
    fn from(error: EvidenceError) -> Self {
        let (kind, what) = (error.kind(), error.to_string());
        match error {
            EvidenceError::Io { source, .. } => Self::with_source(kind, what, source),
            _ => Self::new(kind, what),
        }
    }
}
