//! Asks a server to end what a connection is doing.
//!
//! In: what a connection was told about itself. Out: a request on a connection of its own, protected as the first was.
//! The server confirms nothing: whether the request met anything is seen on the connection itself.

use std::fmt;

use postgres_protocol::message::frontend;

use super::error::PgError;
use super::link::Wait;
use super::options::{ConnectOptions, Host};
use super::startup::connect_like;
use lifeboat_net::Deadline;

/// A handle that outlives borrows of its connection and may go to another thread. It holds no password.
#[derive(Clone)]
pub struct Canceller {
    pub(super) options: ConnectOptions,
    pub(super) host: Host,
    pub(super) tls: bool,
    pub(super) pid: i32,
    pub(super) key: i32,
}

impl Canceller {
    /// Sends the request and waits, no longer than `connect_timeout`, until the server has taken it.
    pub fn cancel(&self) -> Result<(), PgError> {
        let deadline = Deadline::after(self.options.connect_timeout);
        let mut link = connect_like(&self.options, &self.host, self.tls, deadline)?;
        link.send(self.options.connect_timeout, |out| {
            frontend::cancel_request(self.pid, self.key, out);
            Ok(())
        })?;
        match link.receive(Wait::Until(deadline)) {
            // The server hangs up once it has passed the request on.
            Err(PgError::Closed { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(Some(_)) => Err(PgError::Protocol { what: "an answer to a request to cancel" }),
            Ok(None) => {
                Err(PgError::Silent { target: link.target.clone(), limit: self.options.connect_timeout })
            }
        }
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever has the key can cancel.
        f.debug_struct("Canceller").field("pid", &self.pid).finish_non_exhaustive()
    }
}
