//! Why a log call failed, by what the caller can do about it.

use std::io;

use lifeboat_base::failure::{Failure, FailureKind};

use super::position::Position;
use crate::storage::{ObjectName, StorageError};

/// A call on [`super::Logs`] that failed.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The span is empty or runs backwards, or its ends are on different timelines.
    #[error("a log object cannot hold the span from {first} to {last}")]
    InvalidSpan {
        /// The first position given.
        first: Position,
        /// The last position given.
        last: Position,
    },
    /// A timeline can only continue an older one.
    #[error("a log object that starts at {first} cannot follow {follows}")]
    InvalidSwitch {
        /// Where the object starts.
        first: Position,
        /// What it was said to follow.
        follows: Position,
    },
    /// A verdict was asked for between two positions in the wrong order.
    #[error("{to} does not come after {from}")]
    Backwards {
        /// The earlier position.
        from: Position,
        /// The later one.
        to: Position,
    },
    /// The content is larger than one object may be; cut it into several.
    #[error("the content is larger than {limit_bytes} bytes, the most one log object holds")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The same span is stored already, with other content; it was left as it is.
    #[error("`{object}` exists with different content")]
    Conflict {
        /// The object.
        object: ObjectName,
    },
    /// The object is missing, altered, or not what its name says.
    #[error("`{object}` is damaged: {why}")]
    Damaged {
        /// The object.
        object: ObjectName,
        /// What is wrong with it.
        why: String,
    },
    /// The content to be stored could not be read to its end; nothing was stored.
    #[error("failed to read the content of `{object}`")]
    Content {
        /// The object it was for.
        object: ObjectName,
        /// The reader's answer.
        #[source]
        source: io::Error,
    },
    /// Compression or encoding failed; nothing was stored.
    #[error("failed to encode `{object}`")]
    Encode {
        /// The object.
        object: ObjectName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The monitor asked to stop.
    #[error("stopped on request")]
    Cancelled,
    /// The storage failed.
    #[error("failed to use the log storage")]
    Storage(#[source] StorageError),
}

impl LogsError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::InvalidSpan { .. }
            | Self::InvalidSwitch { .. }
            | Self::Backwards { .. }
            | Self::TooLarge { .. }
            | Self::Conflict { .. }
            | Self::Cancelled => FailureKind::Refused,
            Self::Damaged { .. } => FailureKind::Damaged,
            Self::Content { .. } => FailureKind::Unreachable,
            Self::Encode { .. } => FailureKind::Internal,
            Self::Storage(error) => error.kind(),
        }
    }
}

impl From<StorageError> for LogsError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<LogsError> for Failure {
    fn from(error: LogsError) -> Self {
        let (kind, what) = (error.kind(), error.to_string());
        match error {
            LogsError::Storage(source) => Self::with_source(kind, what, source),
            LogsError::Content { source, .. } | LogsError::Encode { source, .. } => {
                Self::with_source(kind, what, source)
            }
            _ => Self::new(kind, what),
        }
    }
}
