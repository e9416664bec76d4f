//! Bytes to and from a server, in the clear or through TLS, with time limits.
//!
//! In: a connected socket. Out: reads that return what is there, writes that send everything. A read that times out
//! loses nothing: half a TLS record waits inside for its other half.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustls::ClientConnection;

use crate::socket::{Deadline, Socket, is_timeout};

/// How much one read takes at most.
const READ_BYTES: usize = 64 * 1024;

/// Why no bytes came or went.
#[derive(Debug)]
pub enum Fault {
    /// The limit passed.
    TimedOut,
    /// The peer closed the connection in order.
    End,
    /// The connection broke.
    Io(io::Error),
    /// The peer broke TLS, or somebody on the way did.
    Tls(rustls::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if is_timeout(&error) { Self::TimedOut } else { Self::Io(error) }
    }
}

/// One connection's bytes.
pub struct Transport {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    scratch: Box<[u8]>,
    read_limit: Duration,
    write_limit: Duration,
}

impl Transport {
    /// A connection in the clear.
    pub fn new(socket: Socket) -> Self {
        let scratch = vec![0; READ_BYTES].into_boxed_slice();
        Self { socket, tls: None, scratch, read_limit: Duration::MAX, write_limit: Duration::MAX }
    }

    /// Exactly one byte in the clear, and not one more: what follows belongs to TLS, and nobody may slip bytes in
    /// before it.
    pub fn read_byte(&mut self, deadline: Deadline) -> Result<u8, Fault> {
        let mut byte = [0];
        loop {
            self.limit_reads(deadline.remaining().ok_or(Fault::TimedOut)?)?;
            match self.socket.read(&mut byte) {
                Ok(0) => return Err(Fault::End),
                Ok(_) => return Ok(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Does the handshake; from here on everything goes through `tls`.
    pub fn protect(&mut self, tls: ClientConnection, deadline: Deadline) -> Result<(), Fault> {
        let mut tls = Box::new(tls);
        while tls.is_handshaking() || tls.wants_write() {
            let left = deadline.remaining().ok_or(Fault::TimedOut)?;
            if tls.wants_write() {
                self.limit_writes(left)?;
                write_records(&mut tls, &mut self.socket)?;
                continue;
            }
            self.limit_reads(left)?;
            if read_record(&mut tls, &mut self.socket)? == 0 {
                return Err(Fault::End);
            }
            if let Err(error) = tls.process_new_packets() {
                // The alert tells the server why; whether it arrives changes nothing for us.
                drop(write_records(&mut tls, &mut self.socket));
                return Err(Fault::Tls(error));
            }
        }
        self.tls = Some(tls);
        Ok(())
    }

    /// The certificate the server showed, in DER; nothing without TLS.
    pub fn server_certificate(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.peer_certificates()?.first().map(AsRef::as_ref)
    }

    /// Whether bytes cross a network in the clear.
    pub fn is_exposed(&self) -> bool {
        self.tls.is_none() && matches!(self.socket, Socket::Tcp(_))
    }

    /// Whether bytes go through TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What is there, at least one byte, waiting for it no longer than `limit`.
    pub fn read(&mut self, limit: Duration) -> Result<&[u8], Fault> {
        let count = self.fill(READ_BYTES, limit)?;
        Ok(self.scratch.get(..count).unwrap_or_default())
    }

    /// The same, into a buffer that has room; gives the number of bytes.
    pub fn read_into(&mut self, buffer: &mut [u8], limit: Duration) -> Result<usize, Fault> {
        let count = self.fill(buffer.len(), limit)?;
        for (to, from) in buffer.iter_mut().zip(self.scratch.iter().take(count)) {
            *to = *from;
        }
        Ok(count)
    }

    /// Whether the peer has neither sent anything that was not read nor gone away, without waiting for either.
    pub fn is_quiet(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let mut byte = [0];
        let came = match &self.socket {
            Socket::Tcp(stream) => rustix::net::recv(stream, &mut byte, peek),
            Socket::Unix(stream) => rustix::net::recv(stream, &mut byte, peek),
        };
        matches!(came, Err(Errno::AGAIN)) && self.tls.as_ref().is_none_or(|tls| tls.wants_read())
    }

    fn fill(&mut self, most: usize, limit: Duration) -> Result<usize, Fault> {
        let most = most.min(READ_BYTES);
        let deadline = Deadline::after(limit);
        let mut left = limit;
        loop {
            if let Some(tls) = &mut self.tls {
                match tls.reader().read(self.scratch.get_mut(..most).unwrap_or_default()) {
                    Ok(0) => return Err(Fault::End),
                    Ok(count) => return Ok(count),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.limit_reads(left)?;
            match &mut self.tls {
                Some(tls) => {
                    // At the end of the stream the reader above tells an orderly end from a cut.
                    read_record(tls, &mut self.socket)?;
                    tls.process_new_packets().map_err(Fault::Tls)?;
                    if tls.wants_write() {
                        write_records(tls, &mut self.socket)?;
                    }
                }
                None => match self.socket.read(self.scratch.get_mut(..most).unwrap_or_default()) {
                    Ok(0) => return Err(Fault::End),
                    Ok(count) => return Ok(count),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                },
            }
            left = deadline.remaining().ok_or(Fault::TimedOut)?;
        }
    }

    /// Sends all of `bytes`; each step may take `limit`.
    pub fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<(), Fault> {
        self.limit_writes(limit)?;
        let Some(tls) = &mut self.tls else {
            return Ok(self.socket.write_all(bytes)?);
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = tls.writer().write(rest)?;
            rest = rest.get(count..).unwrap_or_default();
            write_records(tls, &mut self.socket)?;
        }
        Ok(())
    }

    /// Says goodbye to the peer's TLS; nothing can be sent after.
    pub fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            drop(write_records(tls, &mut self.socket));
        }
    }

    fn limit_reads(&mut self, limit: Duration) -> io::Result<()> {
        if self.read_limit != limit {
            self.socket.limit_reads(limit)?;
            self.read_limit = limit;
        }
        Ok(())
    }

    fn limit_writes(&mut self, limit: Duration) -> io::Result<()> {
        if self.write_limit != limit {
            self.socket.limit_writes(limit)?;
            self.write_limit = limit;
        }
        Ok(())
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("socket", &self.socket).finish_non_exhaustive()
    }
}

fn read_record(tls: &mut ClientConnection, socket: &mut Socket) -> io::Result<usize> {
    loop {
        match tls.read_tls(socket) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn write_records(tls: &mut ClientConnection, socket: &mut Socket) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
