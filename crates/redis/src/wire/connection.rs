//! One connection: commands out, answers in, and whatever else a server sends to a replica.
//!
//! Every wait is limited; an answer takes at most [`REPLY_LIMIT_BYTES`] of memory.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use lifeboat_net::{Address, Deadline, Fault, Socket, TlsError, Transport};
use zeroize::Zeroize;

use super::error::{RedisError, ServerError};
use super::options::ConnectOptions;
use super::reply::Reply;

/// The most that one answer may take, all its parts together.
pub const REPLY_LIMIT_BYTES: usize = 64 * 1024 * 1024;
/// The most parts of one answer.
const REPLY_LIMIT_PARTS: usize = 1024 * 1024;
/// How deep an answer may be nested; none of the commands we send gives more than three levels.
const MAX_DEPTH: usize = 8;
/// The longest line: a word, a number, an error.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// What is held back from one read.
const BUFFER_BYTES: usize = 64 * 1024;

/// A connection that is logged in.
pub struct Connection {
    transport: Transport,
    /// What came and was not taken yet.
    pub(crate) buffer: BytesMut,
    target: String,
    silence_limit: Duration,
    reply_limit_bytes: usize,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, protects the connection if asked to, and logs in if there is a password.
    pub fn open(options: &ConnectOptions) -> Result<Self, RedisError> {
        let deadline = Deadline::after(options.connect_timeout);
        let target = options.target();
        let tls = match (&options.tls, &options.address) {
            (Some(tls), Address::Tcp(name, _)) => {
                let client = lifeboat_net::client(tls, name);
                Some(client.map_err(|source| RedisError::Tls { target: target.clone(), source })?)
            }
            _ => None,
        };
        let socket = Socket::connect(&options.address, deadline)
            .map_err(|source| RedisError::Unreachable { target: target.clone(), source })?;
        let mut transport = Transport::new(socket);
        if let Some(tls) = tls {
            transport.protect(tls, deadline).map_err(|fault| unprotected(fault, &target, options))?;
        }
        let buffer = BytesMut::with_capacity(BUFFER_BYTES);
        let (silence_limit, reply_limit_bytes) = (options.connect_timeout, REPLY_LIMIT_BYTES);
        let mut connection = Self { transport, buffer, target, silence_limit, reply_limit_bytes };
        if let Some(password) = &options.password {
            let user = options.user.as_deref().map(str::as_bytes);
            let mut parts = vec![b"AUTH".as_slice()];
            parts.extend(user);
            parts.push(password.expose().as_bytes());
            connection.command(&parts).map_err(|error| match error {
                RedisError::Server { source, .. } => {
                    RedisError::Authentication { target: options.target(), source: source.without_text() }
                }
                other => other,
            })?;
        }
        connection.silence_limit = options.silence_limit;
        Ok(connection)
    }

    /// Sends a command and waits for its answer. An error of the server leaves the connection usable.
    pub fn command(&mut self, parts: &[&[u8]]) -> Result<Reply, RedisError> {
        self.send(parts)?;
        let mut budget = Budget { bytes: self.reply_limit_bytes, parts: REPLY_LIMIT_PARTS };
        match self.reply(&mut budget, 0)? {
            Reply::Error(source) => {
                let name = parts.first().copied().unwrap_or_default();
                Err(RedisError::Server { command: String::from_utf8_lossy(name).into_owned(), source })
            }
            reply => Ok(reply),
        }
    }

    /// Sends all commands at once and then waits for all answers, in order; errors of the server are among them. For few
    /// and small ones: none is read before all are sent.
    pub fn commands<'c>(
        &mut self,
        commands: impl IntoIterator<Item = &'c [&'c [u8]]>,
    ) -> Result<Vec<Reply>, RedisError> {
        let (mut out, mut count) = (Vec::new(), 0usize);
        for parts in commands {
            out.extend_from_slice(&encode(parts));
            count += 1;
        }
        let limit = self.silence_limit;
        self.transport.write(&out, limit).map_err(|fault| self.fault(fault, limit))?;
        let mut budget = Budget { bytes: self.reply_limit_bytes, parts: REPLY_LIMIT_PARTS };
        (0..count).map(|_answer| self.reply(&mut budget, 0)).collect()
    }

    /// Answers may take this much memory from here on, where a value is asked for as a whole.
    pub fn set_reply_limit(&mut self, bytes: usize) {
        self.reply_limit_bytes = bytes;
    }

    /// As [`Connection::command`], for a command that is a plain text of words.
    pub fn ask(&mut self, words: &str) -> Result<Reply, RedisError> {
        let parts: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        self.command(&parts)
    }

    /// The fields of `INFO SECTION`.
    pub fn info(&mut self, section: &str) -> Result<super::info::Info, RedisError> {
        let reply = self.command(&[b"INFO", section.as_bytes()])?;
        Ok(super::info::Info::read(&reply.text().unwrap_or_default()))
    }

    /// Sends a command and waits for nothing.
    pub(crate) fn send(&mut self, parts: &[&[u8]]) -> Result<(), RedisError> {
        let mut out = encode(parts);
        let limit = self.silence_limit;
        let sent = self.transport.write(&out, limit);
        // A password may have been in it.
        out.zeroize();
        sent.map_err(|fault| self.fault(fault, limit))
    }

    /// How long the server may be silent while it owes an answer.
    pub(crate) fn silence_limit(&self) -> Duration {
        self.silence_limit
    }

    /// Reads more into the buffer; false if nothing came within `limit`.
    pub(crate) fn fill(&mut self, limit: Duration) -> Result<bool, RedisError> {
        match self.transport.read(limit) {
            Ok(bytes) => {
                self.buffer.extend_from_slice(bytes);
                Ok(true)
            }
            Err(Fault::TimedOut) => Ok(false),
            Err(fault) => Err(self.fault(fault, limit)),
        }
    }

    /// Reads more; silence is an error.
    fn more(&mut self) -> Result<(), RedisError> {
        let limit = self.silence_limit;
        if self.fill(limit)? { Ok(()) } else { Err(self.fault(Fault::TimedOut, limit)) }
    }

    pub(crate) fn silent(&self) -> RedisError {
        self.fault(Fault::TimedOut, self.silence_limit)
    }

    /// The next line without its end.
    pub(crate) fn line(&mut self) -> Result<BytesMut, RedisError> {
        let mut looked = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', self.buffer.get(looked..).unwrap_or_default()) {
                let mut line = self.buffer.split_to(looked + at + 1);
                line.truncate(looked + at);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return Ok(line);
            }
            looked = self.buffer.len();
            if looked > MAX_LINE_BYTES {
                return Err(RedisError::Protocol { what: "a line without end" });
            }
            self.more()?;
        }
    }

    fn reply(&mut self, budget: &mut Budget, depth: usize) -> Result<Reply, RedisError> {
        const MALFORMED: RedisError = RedisError::Protocol { what: "a malformed answer" };
        let line = self.line()?;
        budget.take(line.len())?;
        let (Some(mark), rest) = (line.first(), line.get(1..).unwrap_or_default()) else {
            return Err(MALFORMED);
        };
        let number = || std::str::from_utf8(rest).ok().and_then(|text| text.parse::<i64>().ok());
        Ok(match mark {
            b'+' => Reply::Simple(rest.to_vec()),
            b'-' => Reply::Error(ServerError::read(rest)),
            b':' => Reply::Integer(number().ok_or(MALFORMED)?),
            b'$' | b'*' if number() == Some(-1) => Reply::Null,
            b'$' => {
                let length = number().and_then(|number| usize::try_from(number).ok()).ok_or(MALFORMED)?;
                budget.take(length)?;
                while self.buffer.len() < length + 2 {
                    self.more()?;
                }
                let text = self.buffer.split_to(length).to_vec();
                let end = self.buffer.split_to(2);
                if end.as_ref() == b"\r\n" { Reply::Bulk(text) } else { return Err(MALFORMED) }
            }
            b'*' if depth < MAX_DEPTH => {
                let count = number().and_then(|number| usize::try_from(number).ok()).ok_or(MALFORMED)?;
                let mut members = Vec::new();
                for _member in 0..count {
                    members.push(self.reply(budget, depth + 1)?);
                }
                Reply::Array(members)
            }
            _ => return Err(MALFORMED),
        })
    }

    fn fault(&self, fault: Fault, limit: Duration) -> RedisError {
        let target = self.target.clone();
        match fault {
            Fault::TimedOut => RedisError::Silent { target, limit },
            Fault::End => RedisError::Closed { target, source: None },
            Fault::Io(error) => RedisError::Closed { target, source: Some(error) },
            Fault::Tls(error) => RedisError::Tls { target, source: TlsError::Handshake(error) },
        }
    }

    /// Drops `count` bytes that were looked at in the buffer.
    pub(crate) fn consume(&mut self, count: usize) {
        self.buffer.advance(count.min(self.buffer.len()));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.transport.close();
    }
}

/// What is left of an answer's limits.
struct Budget {
    bytes: usize,
    parts: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<(), RedisError> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(RedisError::too_large)?;
        self.parts = self.parts.checked_sub(1).ok_or_else(RedisError::too_large)?;
        Ok(())
    }
}

/// A command as servers read it, also from a file of commands.
pub fn encode(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn unprotected(fault: Fault, target: &str, options: &ConnectOptions) -> RedisError {
    let target = target.to_owned();
    let general = |text: String| TlsError::Handshake(rustls_error(text));
    match fault {
        Fault::TimedOut => RedisError::Silent { target, limit: options.connect_timeout },
        Fault::Tls(error) => RedisError::Tls { target, source: TlsError::Handshake(error) },
        // A server without TLS hangs up or says something that is none.
        Fault::End => RedisError::Tls { target, source: general("the server hung up".to_owned()) },
        Fault::Io(error) => RedisError::Tls { target, source: general(error.to_string()) },
    }
}

fn rustls_error(text: String) -> lifeboat_net::HandshakeError {
    lifeboat_net::HandshakeError::General(text)
}
