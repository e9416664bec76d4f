//! Fixtures for tests against real servers; never shipped.
//!
//! In: what a test asks for. Out: a server in a temporary folder that ends with its handle, also when a test panics.
//! A fixture that cannot be made fails the test on the spot; a missing peer says how to bring it in.

mod peers;
mod pgbench;
mod pgport;
mod pgserver;
mod pgstandby;

pub use peers::{pg_installation, pg_majors, pg_system_major};
pub use pgserver::{PgOptions, PgServer};

/// Ends the test.
#[expect(clippy::panic, reason = "a test whose fixture cannot be made has failed")]
#[track_caller]
fn fail(what: impl std::fmt::Display) -> ! {
    panic!("{what}")
}

/// The value, or the end of the test with the whole chain of causes.
#[track_caller]
fn need<T, E: std::error::Error>(result: Result<T, E>, what: impl std::fmt::Display) -> T {
    match result {
        Ok(value) => value,
        Err(error) => fail(format_args!("{what}: {}", lifeboat_base::failure::chain(&error))),
    }
}
