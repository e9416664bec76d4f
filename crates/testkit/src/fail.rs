//! How a fixture ends a test: on the spot, at the caller's line, with the whole chain of causes.

use std::error::Error;
use std::fmt::Display;

use lifeboat_base::failure::chain;

/// Ends the test.
#[expect(clippy::panic, reason = "a test whose fixture cannot be made has failed")]
#[track_caller]
pub(crate) fn fail(what: impl Display) -> ! {
    panic!("{what}")
}

/// The value, or the end of the test.
#[track_caller]
pub(crate) fn need<T, E: Error>(result: Result<T, E>, what: impl Display) -> T {
    match result {
        Ok(value) => value,
        Err(error) => fail(format_args!("{what}: {}", chain(&error))),
    }
}
