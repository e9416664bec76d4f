//! Failures of connections and servers, as adapters report them.

use lifeboat_base::failure::Failure;
use lifeboat_postgres::backup::BackupError;
use lifeboat_postgres::server::ServerError;
use lifeboat_postgres::wire::PgError;

/// A failed connection or statement.
pub(crate) fn connection(what: impl Into<String>) -> impl FnOnce(PgError) -> Failure {
    let what = what.into();
    move |error| Failure::with_source(error.kind(), what, error)
}

/// A failed base backup.
pub(crate) fn backup(error: BackupError) -> Failure {
    Failure::with_source(error.kind(), "failed to take the base backup", error)
}

/// A failed throwaway server.
pub(crate) fn server(what: impl Into<String>) -> impl FnOnce(ServerError) -> Failure {
    let what = what.into();
    move |error| Failure::with_source(error.kind(), what, error)
}
