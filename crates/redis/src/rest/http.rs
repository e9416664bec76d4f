//! One request after the other over a connection that stays: HTTP/1.1, and no more of it than this takes.
//!
//! An answer that does not come to its announced end is a cut, never an answer. Memory: one request and one answer, of at
//! most [`MAX_BODY_BYTES`].

use std::time::Duration;

use bytes::BytesMut;
use lifeboat_net::{Deadline, Fault, Socket, TlsError, Transport};
use zeroize::Zeroize;

use super::options::RestOptions;
use crate::wire::{CONNECT_TIMEOUT, RedisError, SILENCE_LIMIT};

/// The largest answer: 64 MiB of content as base64.
const MAX_BODY_BYTES: usize = 96 * 1024 * 1024;
/// The largest head of an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How long one request may take in all, however steadily its answer drips.
const REQUEST_LIMIT: Duration = Duration::from_secs(180);
/// How many answers that are no final one may come before it.
const MAX_INTERIM: usize = 4;

/// An answer that came whole.
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long the service asks us to wait.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// A connection that is made when it is needed.
pub(super) struct Http {
    options: RestOptions,
    transport: Option<Transport>,
    buffer: BytesMut,
}

/// What the head of an answer says.
#[derive(Default)]
struct Head {
    status: u16,
    length_bytes: Option<usize>,
    is_chunked: bool,
    is_last: bool,
    retry_after: Option<Duration>,
}

fn malformed() -> RedisError {
    RedisError::Protocol { what: "an answer that is no HTTP" }
}

impl Http {
    pub(super) fn new(options: RestOptions) -> Self {
        Self { options, transport: None, buffer: BytesMut::new() }
    }

    pub(super) fn options(&self) -> &RestOptions {
        &self.options
    }

    /// Sends a request; gives the answer, whatever its status. `path` begins with a slash and is encoded already.
    pub(super) fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer, RedisError> {
        let deadline = Deadline::after(REQUEST_LIMIT);
        let outcome = self.once(method, path, body, deadline);
        if !matches!(&outcome, Ok((_, false))) {
            self.close();
        }
        outcome.map(|(answer, _)| answer)
    }

    fn close(&mut self) {
        if let Some(mut transport) = self.transport.take() {
            transport.close();
        }
        self.buffer.clear();
    }

    fn once(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        deadline: Deadline,
    ) -> Result<(Answer, bool), RedisError> {
        self.connect()?;
        let RestOptions { host, base, token, .. } = &self.options;
        let mut out = format!(
            "{method} {base}{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nUpstash-Encoding: base64\r\n\
             Accept: application/json\r\nUser-Agent: lifeboat\r\nContent-Length: {}\r\n{}\r\n",
            token.expose(),
            body.len(),
            if body.is_empty() { "" } else { "Content-Type: application/json\r\n" },
        )
        .into_bytes();
        out.extend_from_slice(body);
        let sent = match &mut self.transport {
            Some(transport) => transport.write(&out, SILENCE_LIMIT),
            None => Err(Fault::End),
        };
        out.zeroize();
        sent.map_err(|fault| self.fault(fault))?;
        for _interim in 0..MAX_INTERIM {
            let head = self.head(deadline)?;
            if (100..200).contains(&head.status) {
                continue;
            }
            let body = self.body(&head, deadline)?;
            let answer = Answer { status: head.status, retry_after: head.retry_after, body };
            return Ok((answer, head.is_last));
        }
        Err(malformed())
    }

    fn connect(&mut self) -> Result<(), RedisError> {
        if self.transport.is_some() {
            return Ok(());
        }
        self.buffer.clear();
        let deadline = Deadline::after(CONNECT_TIMEOUT);
        let target = self.options.target();
        let socket = Socket::connect(&self.options.address, deadline)
            .map_err(|source| RedisError::Unreachable { target: target.clone(), source })?;
        let mut transport = Transport::new(socket);
        if let (Some(tls), lifeboat_net::Address::Tcp(name, _)) = (&self.options.tls, &self.options.address) {
            let client = lifeboat_net::client(tls, name)
                .map_err(|source| RedisError::Tls { target: target.clone(), source })?;
            transport.protect(client, deadline).map_err(|fault| self.fault(fault))?;
        }
        self.transport = Some(transport);
        Ok(())
    }

    fn fault(&self, fault: Fault) -> RedisError {
        let target = self.options.target();
        match fault {
            Fault::TimedOut => RedisError::Silent { target, limit: SILENCE_LIMIT },
            Fault::End => RedisError::Closed { target, source: None },
            Fault::Io(error) => RedisError::Closed { target, source: Some(error) },
            Fault::Tls(error) => RedisError::Tls { target, source: TlsError::Handshake(error) },
        }
    }

    /// Reads more; false at the end of the connection.
    fn more(&mut self, deadline: Deadline) -> Result<bool, RedisError> {
        let left = deadline.remaining().map(|left| left.min(SILENCE_LIMIT));
        let read = match (&mut self.transport, left) {
            (Some(transport), Some(left)) => transport.read(left),
            (_, None) => Err(Fault::TimedOut),
            (None, _) => Err(Fault::End),
        };
        match read {
            Ok(bytes) => {
                self.buffer.extend_from_slice(bytes);
                Ok(true)
            }
            Err(Fault::End) => Ok(false),
            Err(fault) => Err(self.fault(fault)),
        }
    }

    /// The next line without its end.
    fn line(&mut self, deadline: Deadline) -> Result<Vec<u8>, RedisError> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer) {
                let mut line = self.buffer.split_to(at + 1).to_vec();
                line.truncate(at);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return Ok(line);
            }
            if self.buffer.len() > MAX_HEAD_BYTES {
                return Err(malformed());
            }
            if !self.more(deadline)? {
                return Err(self.fault(Fault::End));
            }
        }
    }

    fn head(&mut self, deadline: Deadline) -> Result<Head, RedisError> {
        let first = self.line(deadline)?;
        let first = std::str::from_utf8(&first).map_err(|_invalid| malformed())?.to_owned();
        let mut words = first.split(' ');
        let version = words.next().filter(|word| word.starts_with("HTTP/1."));
        let status =
            words.next().and_then(|word| word.parse().ok()).filter(|status| (100..600).contains(status));
        let (Some(version), Some(status)) = (version, status) else { return Err(malformed()) };
        let mut head = Head { status, is_last: version == "HTTP/1.0", ..Head::default() };
        let mut bytes = 0;
        loop {
            let line = self.line(deadline)?;
            if line.is_empty() {
                return Ok(head);
            }
            bytes += line.len();
            if bytes > MAX_HEAD_BYTES {
                return Err(malformed());
            }
            let line = String::from_utf8_lossy(&line);
            let (name, value) = line.split_once(':').ok_or_else(malformed)?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length_bytes = Some(value.parse().map_err(|_invalid| malformed())?),
                "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => head.is_chunked = true,
                "transfer-encoding" | "content-encoding" if !value.eq_ignore_ascii_case("identity") => {
                    return Err(malformed());
                }
                "connection" if value.eq_ignore_ascii_case("close") => head.is_last = true,
                // A date is not looked at: our own pauses do as well.
                "retry-after" => head.retry_after = value.parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
    }

    fn body(&mut self, head: &Head, deadline: Deadline) -> Result<Vec<u8>, RedisError> {
        let mut body = Vec::new();
        match (head.is_chunked, head.length_bytes) {
            (true, _) => loop {
                let line = self.line(deadline)?;
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let digits = std::str::from_utf8(digits).map_err(|_invalid| malformed())?;
                let length = usize::from_str_radix(digits.trim(), 16).map_err(|_invalid| malformed())?;
                if length == 0 {
                    while !self.line(deadline)?.is_empty() {}
                    return Ok(body);
                }
                self.exact(length, &mut body, deadline)?;
                if !self.line(deadline)?.is_empty() {
                    return Err(malformed());
                }
            },
            (false, Some(length)) => self.exact(length, &mut body, deadline)?,
            // Until the connection ends: a cut looks the same, so that what is in it has to be whole by itself.
            (false, None) => {
                while self.more(deadline)? {
                    if self.buffer.len() > MAX_BODY_BYTES {
                        return Err(RedisError::too_large());
                    }
                }
                body = self.buffer.split().to_vec();
            }
        }
        Ok(body)
    }

    fn exact(&mut self, length: usize, body: &mut Vec<u8>, deadline: Deadline) -> Result<(), RedisError> {
        if length.saturating_add(body.len()) > MAX_BODY_BYTES {
            return Err(RedisError::too_large());
        }
        while self.buffer.len() < length {
            if !self.more(deadline)? {
                return Err(self.fault(Fault::End));
            }
        }
        body.extend_from_slice(&self.buffer.split_to(length));
        Ok(())
    }
}
