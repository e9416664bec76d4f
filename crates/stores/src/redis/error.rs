//! Failures of connections, dumps and servers, as adapters report them.

use lifeboat_base::failure::Failure;
use lifeboat_redis::place::PlaceError;
use lifeboat_redis::rdb::RdbError;
use lifeboat_redis::server::SandboxError;
use lifeboat_redis::wire::RedisError;

/// A failed connection or command.
pub(crate) fn connection(what: impl Into<String>) -> impl FnOnce(RedisError) -> Failure {
    let what = what.into();
    move |error| Failure::with_source(error.kind(), what, error)
}

/// No server found.
pub(crate) fn place(error: PlaceError) -> Failure {
    Failure::with_source(error.kind(), "failed to find the server", error)
}

/// A dump that cannot be read or believed. What a vault says about its bytes stands: one damaged copy is not the last.
pub(crate) fn dump(what: impl Into<String>) -> impl FnOnce(RdbError) -> Failure {
    let what = what.into();
    move |error| {
        let said = match &error {
            RdbError::Read { source, .. } => {
                source.get_ref().and_then(|inner| inner.downcast_ref::<Failure>())
            }
            _ => None,
        };
        Failure::with_source(said.map_or(error.kind(), Failure::kind), what, error)
    }
}

/// A failed throwaway server.
pub(crate) fn server(what: impl Into<String>) -> impl FnOnce(SandboxError) -> Failure {
    let what = what.into();
    move |error| Failure::with_source(error.kind(), what, error)
}
