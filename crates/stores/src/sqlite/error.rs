//! What an error of SQLite means for the person who has to act on it.

use lifeboat_base::failure::{Failure, FailureKind};
use rusqlite::{Error, ErrorCode};

/// Whether the error says something about the file, rather than about this build of SQLite or the statement.
pub(crate) fn is_damage(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure)
    )
}

/// A failure while reading the source: `Unreachable` for everything that is the source's condition.
pub(crate) fn source_failure(what: &str, error: Error) -> Failure {
    use ErrorCode as C;
    let (kind, why) = match error.sqlite_error_code() {
        Some(C::NotADatabase) => {
            (FailureKind::Unreachable, ": it is not an SQLite database, or it is encrypted")
        }
        Some(C::DatabaseCorrupt) => (FailureKind::Unreachable, ": it is corrupt"),
        Some(C::DatabaseBusy | C::DatabaseLocked) => {
            (FailureKind::Unreachable, ": a writer kept it locked for too long")
        }
        Some(C::ReadOnly) => (
            FailureKind::Unreachable,
            ": it was left in the middle of a transaction and only its application may roll that back",
        ),
        Some(C::CannotOpen | C::PermissionDenied) => {
            (FailureKind::Unreachable, ": it, its `-wal` or its `-shm` file cannot be opened")
        }
        Some(C::SystemIoFailure) => (FailureKind::Unreachable, ": the file system gives errors"),
        _ => (FailureKind::Internal, ""),
    };
    Failure::with_source(kind, format!("{what}{why}"), error)
}

/// A failure while reading what was restored.
pub(crate) fn restored_failure(what: &str, error: Error) -> Failure {
    let kind = if is_damage(&error) { FailureKind::Damaged } else { FailureKind::Internal };
    Failure::with_source(kind, what, error)
}
