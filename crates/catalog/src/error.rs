//! Failures of the catalog; all of them are repaired by a rebuild.

use lifeboat_base::failure::{Failure, FailureKind};

/// Why the catalog could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The database file cannot be opened, read or written.
    #[error("failed to {action} the catalog")]
    Database {
        /// What was being done, as a verb.
        action: &'static str,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The folder of the catalog cannot be made.
    #[error("failed to make the folder of the catalog")]
    Folder(#[source] std::io::Error),
    /// The file was written by a newer version of Lifeboat.
    #[error("the catalog has schema {found}, this version knows {known}")]
    Newer {
        /// The version found in the file.
        found: i64,
        /// The newest version this code reads.
        known: i64,
    },
    /// A stored row does not parse.
    #[error("the catalog row of recovery point {point} is damaged")]
    Row {
        /// The recovery point.
        point: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
}

impl CatalogError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Folder(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                FailureKind::Unreachable
            }
            Self::Database { .. } | Self::Folder(_) => FailureKind::Internal,
            Self::Newer { .. } => FailureKind::Refused,
            Self::Row { .. } => FailureKind::Damaged,
        }
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        Self::with_source(error.kind(), "failed to use the catalog", error)
    }
}
