//! Failures of the catalog; those of its content are repaired by a rebuild, those of its place are not.

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

impl CatalogError {
    /// The next step: a rebuild mends what the file says, never the place it lies in.
    pub fn next_step(&self) -> &'static str {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseCorrupt, DiskFull, NotADatabase, ReadOnly, SystemIoFailure,
        };
        const REBUILD: &str = "lifeboat catalog rebuild";
        const PLACE: &str =
            "free space or fix the permissions of the state folder, then run the command again";
        match self {
            Self::Row { .. } => REBUILD,
            Self::Folder(_) => PLACE,
            Self::Newer { .. } => {
                "run the newer version, or `lifeboat catalog rebuild` to make an index for this one"
            }
            Self::Database { source, .. } => match source.sqlite_error_code() {
                Some(DatabaseCorrupt | NotADatabase) => REBUILD,
                Some(DiskFull | SystemIoFailure | ReadOnly | CannotOpen) => PLACE,
                _ => "run the command again; `lifeboat catalog rebuild` if that does not help",
            },
        }
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        Self::with_source(error.kind(), "failed to use the catalog", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(code: i32) -> &'static str {
        let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        CatalogError::Database { action: "open", source }.next_step()
    }

    #[test]
    fn only_a_damaged_file_is_sent_to_a_rebuild() {
        use rusqlite::ffi;
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            assert_eq!(sqlite(code), "lifeboat catalog rebuild");
        }
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR, ffi::SQLITE_READONLY, ffi::SQLITE_CANTOPEN] {
            assert!(sqlite(code).starts_with("free space or fix the permissions"), "{code}");
        }
    }
}
