//! Failures of connections and servers, as adapters report them.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_postgres::backup::BackupError;
use lifeboat_postgres::receive::ReceiveError;
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

/// A failed stream of the log.
pub(crate) fn receive(error: ReceiveError) -> Failure {
    Failure::with_source(error.kind(), "failed to follow the log", error)
}

/// Whether somewhere below is a login that the server, or our care for the password, refused (SQLSTATE class 28).
pub(crate) fn is_refused_login(failure: &Failure) -> bool {
    let mut next = std::error::Error::source(failure);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<PgError>() {
            return match error.server() {
                Some(server) => server.code.starts_with("28"),
                None => matches!(error, PgError::Authentication { .. }),
            };
        }
        next = cause.source();
    }
    false
}

/// One row is one cluster: an upgrade or a new server gets a row of its own, so that no two histories are ever mixed.
pub(crate) fn other_system() -> Failure {
    Failure::new(
        FailureKind::Refused,
        "the address leads to another cluster than before; give a new or upgraded cluster a row of its own",
    )
}

/// A failed throwaway server.
pub(crate) fn server(what: impl Into<String>) -> impl FnOnce(ServerError) -> Failure {
    let what = what.into();
    move |error| Failure::with_source(error.kind(), what, error)
}
