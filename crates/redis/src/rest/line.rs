//! What requests travel on, as `ureq` takes it: the sockets, limits and TLS that every other connection here has.
//!
//! There is one place it leads to, the service of the options, whatever a request or an answer names. What goes wrong below
//! HTTP is a [`RedisError`] in an [`Error::Other`], so that no end of a connection that was none is taken for one.

use std::fmt;

use lifeboat_net::{Address, Deadline, Fault, Socket, TlsError, Transport};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{self, Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout};
use ureq::{Error, Timeout};
use zeroize::Zeroize;

use super::options::RestOptions;
use crate::wire::RedisError;

/// Makes the connections.
#[derive(Debug)]
pub(super) struct Door {
    options: RestOptions,
}

impl Door {
    pub(super) fn new(options: RestOptions) -> Self {
        Self { options }
    }
}

impl Connector for Door {
    type Out = Line;

    fn connect(&self, details: &ConnectionDetails<'_>, _chained: Option<()>) -> Result<Option<Line>, Error> {
        let RestOptions { address, tls, .. } = &self.options;
        let deadline = Deadline::after(*details.timeout.after);
        let target = self.options.target();
        let socket = Socket::connect(address, deadline)
            .map_err(|source| own(RedisError::Unreachable { target: target.clone(), source }))?;
        let mut inner = Transport::new(socket);
        if let (Some(tls), Address::Tcp(name, _)) = (tls, address) {
            let client = lifeboat_net::client(tls, name)
                .map_err(|source| own(RedisError::Tls { target: target.clone(), source }))?;
            inner.protect(client, deadline).map_err(|fault| failed(&target, fault, Timeout::Connect))?;
        }
        let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Line { target, inner, buffers: LazyBuffers::new(input, output) }))
    }
}

/// One connection.
pub(super) struct Line {
    target: String,
    inner: Transport,
    buffers: LazyBuffers,
}

impl transport::Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let output = self.buffers.output().get_mut(..amount).unwrap_or_default();
        let sent = self.inner.write(output, *timeout.after);
        // The token was in it.
        output.zeroize();
        sent.map_err(|fault| failed(&self.target, fault, timeout.reason))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            return Err(own(RedisError::Protocol { what: "a line of HTTP that does not end" }));
        }
        match self.inner.read_into(room, *timeout.after) {
            Ok(count) => {
                self.buffers.input_appended(count);
                Ok(true)
            }
            Err(Fault::End) => Ok(false),
            Err(fault) => Err(failed(&self.target, fault, timeout.reason)),
        }
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_quiet()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Resolves nothing: a [`Door`] knows its one address.
#[derive(Debug)]
pub(super) struct NoNames;

impl Resolver for NoNames {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

fn own(error: RedisError) -> Error {
    Error::Other(Box::new(error))
}

fn failed(target: &str, fault: Fault, reason: Timeout) -> Error {
    let target = target.to_owned();
    own(match fault {
        Fault::TimedOut => return Error::Timeout(reason),
        Fault::End => RedisError::Closed { target, source: None },
        Fault::Io(error) => RedisError::Closed { target, source: Some(error) },
        Fault::Tls(error) => RedisError::Tls { target, source: TlsError::Handshake(error) },
    })
}
