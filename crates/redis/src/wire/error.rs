//! What can go wrong between us and a server, by what the caller can do about it.
//!
//! Text that came from outside is made printable and cut before it is kept; a password is never part of an error.

use std::fmt;
use std::io;
use std::time::Duration;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::human;
use lifeboat_net::TlsError;

use super::options::OptionsError;

/// The longest text kept of a server's error.
pub const MESSAGE_TEXT_LIMIT_BYTES: usize = 1024;

/// What is said of an answer above the limit.
const TOO_LARGE: &str = "an answer that is too large";

/// A failed connection, command or stream.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The connection options cannot be used; nothing was sent.
    #[error("invalid connection options")]
    Options(#[from] OptionsError),
    /// No connection came about: name not resolved, refused, no route.
    #[error("failed to connect to {target}")]
    Unreachable {
        /// `user@host:port`.
        target: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The connection cannot be protected as asked; no password was sent.
    #[error("failed to protect the connection to {target} with TLS")]
    Tls {
        /// `user@host:port`.
        target: String,
        /// What stood in the way.
        source: TlsError,
    },
    /// The server does not let us in.
    #[error("failed to log in as {target}")]
    Authentication {
        /// `user@host:port`.
        target: String,
        /// What it said.
        source: ServerError,
    },
    /// The server answered a command with an error.
    #[error("failed to run {command}")]
    Server {
        /// The command's name.
        command: String,
        /// What it said.
        source: ServerError,
    },
    /// The peer broke the protocol, or sent more than a limit allows; the connection is unusable.
    #[error("the server broke the protocol: {what}")]
    Protocol {
        /// What was wrong; no bytes of the peer are in it.
        what: &'static str,
    },
    /// Nothing came, or nothing could be sent, for the whole limit; the connection is unusable.
    #[error("no answer from {target} for {}", human::duration(*.limit))]
    Silent {
        /// `user@host:port`.
        target: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection ended without the server saying why: it crashed, the network did, or it gave up a replica that
    /// was too slow.
    #[error("the connection to {target} was cut")]
    Closed {
        /// `user@host:port`.
        target: String,
        /// What the operating system said; nothing for a plain end of the stream.
        source: Option<io::Error>,
    },
    /// A service over HTTP says that it cannot answer now.
    #[error("{target} answers with status {status}")]
    Busy {
        /// The service.
        target: String,
        /// The status of its answer, such as 429 for too many requests.
        status: u16,
        /// How long it asks us to wait.
        again_after: Option<Duration>,
    },
    /// A question was asked again as often, or for as long, as the limits say.
    #[error("gave up after {tries} tries")]
    GaveUp {
        /// How often it was asked.
        tries: u32,
        /// What the last one came to.
        source: Box<RedisError>,
    },
}

impl RedisError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Options(_) => FailureKind::Usage,
            Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::Authentication { .. }
            | Self::Protocol { .. }
            | Self::Silent { .. }
            | Self::Busy { .. }
            | Self::Closed { .. } => FailureKind::Unreachable,
            Self::Server { source, .. } => source.kind(),
            Self::GaveUp { source, .. } => source.kind(),
        }
    }

    /// Whether asking again may help: nothing answered, or not yet.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Closed { .. } | Self::Busy { .. } => true,
            Self::Server { source, .. } => source.is_passing(),
            _ => false,
        }
    }

    /// How long a service asks us to wait.
    pub fn again_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { again_after, .. } => *again_after,
            _ => None,
        }
    }

    /// An answer above the limit.
    pub(crate) fn too_large() -> Self {
        Self::Protocol { what: TOO_LARGE }
    }

    /// Whether the answer was above the limit, so that less must be asked for.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Self::Protocol { what } if *what == TOO_LARGE)
    }

    /// The server's own error.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server { source, .. } | Self::Authentication { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// An error as servers answer with: a word and a text, printable and bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// The first word, such as `NOPERM`.
    pub code: String,
    /// The rest.
    pub message: String,
}

impl ServerError {
    pub(crate) fn read(line: &[u8]) -> Self {
        let text = bounded(line);
        let (code, message) = text.split_once(' ').unwrap_or((&text, ""));
        Self { code: code.to_owned(), message: message.to_owned() }
    }

    /// Without the text, which may repeat what was sent.
    pub(super) fn without_text(mut self) -> Self {
        if !matches!(self.code.as_str(), "WRONGPASS" | "NOPERM" | "NOAUTH") {
            "(the text is not shown: it may hold the password)".clone_into(&mut self.message);
        }
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self.code.as_str() {
            "NOPERM" | "NOAUTH" | "WRONGPASS" | "LOADING" | "MASTERDOWN" | "NOMASTERLINK" | "BUSY"
            | "TRYAGAIN" | "CLUSTERDOWN" | "MOVED" | "DENIED" | "MISCONF" => FailureKind::Unreachable,
            _ => FailureKind::Internal,
        }
    }
}

impl ServerError {
    /// Whether the server only says that it cannot answer now.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(
            self.code.as_str(),
            "LOADING" | "MASTERDOWN" | "NOMASTERLINK" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN"
        )
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server says {} {}", self.code, self.message)
    }
}

impl std::error::Error for ServerError {}

/// Foreign text, fit for a terminal and a log.
pub(super) fn bounded(bytes: &[u8]) -> String {
    let cut = bytes.get(..MESSAGE_TEXT_LIMIT_BYTES).unwrap_or(bytes);
    let mut text = human::printable(&String::from_utf8_lossy(cut));
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text
}
