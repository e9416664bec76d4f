//! Sockets to a server, with time limits on everything they do.
//!
//! In: one address. Out: a connected TCP or unix socket that notices a dead peer: TCP keepalives, and on Linux a limit
//! for unacknowledged data. Resolving a name takes as long as the machine's resolver lets it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::time::{Clock, SystemClock};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

/// A quiet connection is probed after this long,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// this often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// and given up after so many probes without an answer: after a minute in all.
const KEEPALIVE_COUNT: u32 = 3;
/// Sent data that is not acknowledged for this long is the end, too. Linux only.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_LIMIT_MS: u32 = 60_000;
/// How many addresses of one name are tried.
const ADDRESS_LIMIT: usize = 16;
/// The operating system takes no shorter limit, and reads zero as "forever".
const SHORTEST_LIMIT: Duration = Duration::from_millis(1);

/// One place where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A DNS name or an IP address without brackets, and its port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

/// A moment by which something must have happened, on the machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    clock: SystemClock,
    limit: Duration,
}

impl Deadline {
    /// So long from now.
    pub fn after(limit: Duration) -> Self {
        Self { clock: SystemClock::new(), limit }
    }

    /// Nothing once it has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.limit.checked_sub(self.clock.monotonic()).filter(|left| !left.is_zero())
    }
}

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// Over a network.
    Tcp(TcpStream),
    /// On this machine.
    Unix(UnixStream),
}

impl Socket {
    /// Tries every address of a name; what the last one said is the error.
    pub fn connect(address: &Address, deadline: Deadline) -> io::Result<Self> {
        match address {
            Address::Unix(path) => connect_unix(path, deadline).map(Self::Unix),
            Address::Tcp(name, port) => {
                let addresses: Vec<_> =
                    (name.as_str(), *port).to_socket_addrs()?.take(ADDRESS_LIMIT).collect();
                let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
                for (index, address) in addresses.iter().enumerate() {
                    let Some(left) = deadline.remaining() else {
                        return Err(ErrorKind::TimedOut.into());
                    };
                    // An address that swallows everything leaves time for the next one.
                    let others = u32::try_from(addresses.len() - index).unwrap_or(1);
                    match TcpStream::connect_timeout(address, (left / others).max(SHORTEST_LIMIT)) {
                        Ok(stream) => return tune(stream).map(Self::Tcp),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// How long the next reads may take, each.
    pub(crate) fn limit_reads(&self, limit: Duration) -> io::Result<()> {
        let limit = Some(limit.max(SHORTEST_LIMIT));
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(limit),
            Self::Unix(stream) => stream.set_read_timeout(limit),
        }
    }

    /// How long the next writes may take, each.
    pub(crate) fn limit_writes(&self, limit: Duration) -> io::Result<()> {
        let limit = Some(limit.max(SHORTEST_LIMIT));
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(limit),
            Self::Unix(stream) => stream.set_write_timeout(limit),
        }
    }
}

/// A listener that takes nobody while its queue is full would make the standard library wait for ever.
fn connect_unix(path: &Path, deadline: Deadline) -> io::Result<UnixStream> {
    let left = deadline.remaining().ok_or(ErrorKind::TimedOut)?;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(left.max(SHORTEST_LIMIT)))?;
    let address = SocketAddrUnix::new(path)?;
    match rustix::io::retry_on_intr(|| net::connect(&socket, &address)) {
        Ok(()) => Ok(UnixStream::from(socket)),
        Err(Errno::AGAIN) => Err(ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
    }
}

fn tune(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_COUNT)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_LIMIT_MS)?;
    Ok(stream)
}

/// Whether an error only says that the limit of a read or write has passed.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && !is_dead_peer(error)
}

/// `ETIMEDOUT` comes from the keepalives of TCP; the limit of a read comes as `EAGAIN`.
fn is_dead_peer(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::TIMEDOUT.raw_os_error())
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_listener_that_takes_nobody_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let listener = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let path = dir.path().join("socket");
        net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        net::listen(&listener, 0).unwrap();
        let address = Address::Unix(path);
        let connect = || Socket::connect(&address, Deadline::after(Duration::from_millis(200)));
        // The queue takes a first one, and perhaps a second.
        let mut waiting = Vec::new();
        let error = loop {
            match connect() {
                Ok(socket) => waiting.push(socket),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10);
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(!waiting.is_empty());
    }
}
