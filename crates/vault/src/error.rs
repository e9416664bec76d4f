//! Why a vault could not do something, by what the caller can do about it.

use std::io;

use lifeboat_base::failure::{Failure, FailureKind};

use crate::storage::{ObjectName, StorageError};

/// A vault operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A stored object is missing, altered, cut short, or cannot be decrypted.
    #[error("`{object}` is damaged: {why}")]
    Damaged {
        /// The object.
        object: ObjectName,
        /// What is wrong with it.
        why: String,
    },
    /// The vault's content contradicts itself, and no single object is to blame.
    #[error("the vault is damaged: {0}")]
    Inconsistent(String),
    /// The secrets handed over do not open this vault.
    #[error("the password in the envelope opens none of the {key_count} keys of the vault at {location}")]
    WrongKey {
        /// Where the vault is.
        location: String,
        /// How many key files were tried.
        key_count: usize,
    },
    /// There is no vault where one was expected.
    #[error("there is no vault at {location}")]
    NoVault {
        /// The place.
        location: String,
    },
    /// A precondition does not hold; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The monitor asked to stop; nothing that was under way is visible.
    #[error("stopped on request")]
    Cancelled,
    /// The place where the vault lives failed.
    #[error("failed to {doing}")]
    Storage {
        /// What was attempted, as a verb phrase.
        doing: String,
        /// The storage's answer.
        #[source]
        source: StorageError,
    },
    /// The place that is being restored into failed.
    #[error("failed to {doing}")]
    Target {
        /// What was attempted, as a verb phrase.
        doing: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Scratch space on this machine failed.
    #[error("{doing}")]
    Scratch {
        /// What failed.
        doing: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The store being captured failed.
    #[error("failed to read the store")]
    Capture(#[source] Failure),
    /// A capture broke the contract between adapters and vaults.
    #[error("the capture is not acceptable: {0}")]
    BadCapture(String),
    /// A defect inside Lifeboat.
    #[error("internal error: {0}")]
    Internal(String),
}

impl VaultError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Damaged { .. } | Self::Inconsistent(_) | Self::WrongKey { .. } => FailureKind::Damaged,
            Self::NoVault { .. } => FailureKind::Unreachable,
            Self::Refused(_) | Self::Cancelled => FailureKind::Refused,
            Self::Storage { source, .. } => source.kind(),
            Self::Target { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::ReadOnlyFilesystem => FailureKind::Unreachable,
                io::ErrorKind::AlreadyExists => FailureKind::Refused,
                _ => FailureKind::Internal,
            },
            Self::Capture(failure) => failure.kind(),
            Self::BadCapture(_) | Self::Internal(_) | Self::Scratch { .. } => FailureKind::Internal,
        }
    }

    pub(crate) fn damaged(object: &ObjectName, why: impl Into<String>) -> Self {
        Self::Damaged { object: object.clone(), why: why.into() }
    }

    pub(crate) fn scratch(doing: String, source: io::Error) -> Self {
        Self::Scratch { doing, source }
    }

    /// The object this error blames, if it blames one.
    pub fn object(&self) -> Option<&ObjectName> {
        match self {
            Self::Damaged { object, .. } => Some(object),
            _ => None,
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        Self::with_source(error.kind(), error.to_string(), error)
    }
}

/// Turns a storage error into a vault error with the verb phrase of what was attempted. Absence of an object that
/// the vault's own records promise is damage of that object.
pub(crate) trait StorageContext<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, VaultError>;
    fn promised(self, object: &ObjectName) -> Result<T, VaultError>;
}

impl<T> StorageContext<T> for Result<T, StorageError> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, VaultError> {
        self.map_err(|source| VaultError::Storage { doing: doing(), source })
    }

    fn promised(self, object: &ObjectName) -> Result<T, VaultError> {
        self.map_err(|source| match source {
            StorageError::NotFound { .. } => VaultError::damaged(object, "it is missing"),
            StorageError::TooShort { .. } => VaultError::damaged(object, "it is cut short"),
            StorageError::TooLarge { .. } => VaultError::damaged(object, "it is too large"),
            source => VaultError::Storage { doing: format!("read `{object}`"), source },
        })
    }
}
