//! What HTTP travels on, as `ureq` takes it: the sockets, limits and TLS that every other connection here has.
//!
//! There is one place it leads to, whatever a request or an answer names. What goes wrong below HTTP is a [`LineError`] in an
//! [`Error::Other`], so that no end of a connection that was none is taken for one.

use std::io;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{self, Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout};
use ureq::{Error, Timeout};
use zeroize::Zeroize;

use crate::socket::{Address, Deadline, Socket};
use crate::tls::{TlsError, TlsOptions, client};
use crate::transport::{Fault, Transport};

/// What went wrong below HTTP.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// No connection came about.
    #[error("no connection came about")]
    Unreachable(#[source] io::Error),
    /// It cannot be protected as asked.
    #[error("the connection cannot be protected as asked")]
    Tls(#[source] TlsError),
    /// It was closed or cut, with what the system said.
    #[error("the connection was cut")]
    Closed(#[source] Option<io::Error>),
    /// A line of HTTP that does not end.
    #[error("a line of HTTP that does not end")]
    Endless,
}

/// Makes the connections to one place.
#[derive(Debug)]
pub struct Door {
    address: Address,
    tls: Option<TlsOptions>,
}

impl Door {
    /// To `address`, with TLS where it says how.
    pub fn new(address: Address, tls: Option<TlsOptions>) -> Self {
        Self { address, tls }
    }
}

impl Connector for Door {
    type Out = Line;

    fn connect(&self, details: &ConnectionDetails<'_>, _chained: Option<()>) -> Result<Option<Line>, Error> {
        let deadline = Deadline::after(*details.timeout.after);
        let socket =
            Socket::connect(&self.address, deadline).map_err(|source| own(LineError::Unreachable(source)))?;
        let mut inner = Transport::new(socket);
        if let (Some(tls), Address::Tcp(name, _)) = (&self.tls, &self.address) {
            let client = client(tls, name).map_err(|source| own(LineError::Tls(source)))?;
            inner.protect(client, deadline).map_err(|fault| failed(fault, Timeout::Connect))?;
        }
        let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Line { inner, buffers: LazyBuffers::new(input, output) }))
    }
}

/// One connection.
pub struct Line {
    inner: Transport,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl transport::Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let output = self.buffers.output().get_mut(..amount).unwrap_or_default();
        let sent = self.inner.write(output, *timeout.after);
        // A token may have been in it.
        output.zeroize();
        sent.map_err(|fault| failed(fault, timeout.reason))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            return Err(own(LineError::Endless));
        }
        match self.inner.read_into(room, *timeout.after) {
            Ok(count) => {
                self.buffers.input_appended(count);
                Ok(true)
            }
            Err(Fault::End) => Ok(false),
            Err(fault) => Err(failed(fault, timeout.reason)),
        }
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_quiet()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Resolves nothing: a [`Door`] knows its one address.
#[derive(Debug)]
pub struct NoNames;

impl Resolver for NoNames {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

fn own(error: LineError) -> Error {
    Error::Other(Box::new(error))
}

fn failed(fault: Fault, reason: Timeout) -> Error {
    own(match fault {
        Fault::TimedOut => return Error::Timeout(reason),
        Fault::End => LineError::Closed(None),
        Fault::Io(error) => LineError::Closed(Some(error)),
        Fault::Tls(error) => LineError::Tls(TlsError::Handshake(error)),
    })
}
