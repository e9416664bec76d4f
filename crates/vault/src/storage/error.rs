//! Why a storage call failed, by what the caller can do about it.

use std::io;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::time::Timestamp;

use super::name::ObjectName;

/// A storage call that failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The name is taken; what is stored there was left alone.
    #[error("`{name}` exists already")]
    AlreadyExists {
        /// The name.
        name: ObjectName,
    },
    /// There is no such object.
    #[error("`{name}` does not exist")]
    NotFound {
        /// The name.
        name: ObjectName,
    },
    /// A lock or a hold forbids to delete it; it was left alone.
    #[error("`{name}` is {why}")]
    Locked {
        /// The name.
        name: ObjectName,
        /// When the lock ends, as far as is known.
        until: Option<Timestamp>,
        /// What forbids it.
        why: String,
    },
    /// The place cannot keep such a lock; nothing was changed.
    #[error("{location} cannot keep such a lock: {why}")]
    Unenforceable {
        /// Where the vault is.
        location: String,
        /// What is in its way.
        why: String,
    },
    /// The place itself is not there, such as a disk that is not mounted: what it holds is not known.
    #[error("there is nothing at {location}")]
    Missing {
        /// Where the vault should be.
        location: String,
    },
    /// The object ends before the range that was asked for.
    #[error("`{name}` is shorter than expected")]
    TooShort {
        /// The name.
        name: ObjectName,
    },
    /// The object is larger than anything a vault writes.
    #[error("`{name}` has {size_bytes} bytes, more than any object of a vault")]
    TooLarge {
        /// The name.
        name: ObjectName,
        /// Its size.
        size_bytes: u64,
    },
    /// Another process writes to the vault at this moment.
    #[error("another writer holds the vault at {location}")]
    Busy {
        /// Where the vault is.
        location: String,
    },
    /// Writing is not permitted: permissions or a read-only file system.
    #[error("no permission for `{what}` at {location}")]
    Denied {
        /// What was attempted on.
        what: String,
        /// Where the vault is.
        location: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// No space is left.
    #[error("no space left for `{what}` at {location}")]
    Full {
        /// What was being written.
        what: String,
        /// Where the vault is.
        location: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The place is not what it should be, such as a file where a directory is expected, or cannot be reached.
    #[error("cannot use {location} for `{what}`")]
    Unreachable {
        /// What was attempted on.
        what: String,
        /// Where the vault is.
        location: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The device or network failed; whether the call took effect is unknown.
    #[error("input or output failed for `{what}` at {location}")]
    Device {
        /// What was attempted on.
        what: String,
        /// Where the vault is.
        location: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl StorageError {
    /// Classifies an I/O error that is neither "exists" nor "not found" of the object itself.
    pub fn from_io(what: impl Into<String>, location: impl Into<String>, source: io::Error) -> Self {
        use io::ErrorKind as K;
        let (what, location) = (what.into(), location.into());
        match source.kind() {
            K::PermissionDenied | K::ReadOnlyFilesystem => Self::Denied { what, location, source },
            K::StorageFull | K::QuotaExceeded | K::FileTooLarge => Self::Full { what, location, source },
            K::NotFound
            | K::NotADirectory
            | K::IsADirectory
            | K::AlreadyExists
            | K::StaleNetworkFileHandle => Self::Unreachable { what, location, source },
            _ => Self::Device { what, location, source },
        }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::AlreadyExists { .. }
            | Self::Locked { .. }
            | Self::Unenforceable { .. }
            | Self::Busy { .. } => FailureKind::Refused,
            Self::NotFound { .. } | Self::TooShort { .. } | Self::TooLarge { .. } => FailureKind::Damaged,
            Self::Missing { .. } | Self::Denied { .. } | Self::Unreachable { .. } => FailureKind::Unreachable,
            Self::Full { .. } | Self::Device { .. } => FailureKind::Internal,
        }
    }
}
