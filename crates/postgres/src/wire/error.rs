//! What can go wrong between us and a server, by what the caller can do about it.
//!
//! In: faults of sockets, TLS, authentication and the protocol, and the server's own messages. Out: [`PgError`].
//! Text that came from outside is made printable and cut before it is kept; a password is never part of an error.

use std::fmt;
use std::io;

use fallible_iterator::FallibleIterator;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::human;
use lifeboat_net::TlsError;
use postgres_protocol::message::backend::ErrorFields;

use super::options::OptionsError;

/// The longest text kept of one field of a server's message.
pub const MESSAGE_TEXT_LIMIT_BYTES: usize = 2048;

/// A failed connection, statement or stream.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The connection options cannot be used; nothing was sent.
    #[error("invalid connection options")]
    Options(#[from] OptionsError),
    /// No connection came about: name not resolved, refused, no route.
    #[error("failed to connect to {target}")]
    Unreachable {
        /// `user@host:port/database`.
        target: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Several hosts are named and none took us; one line each, in the order tried.
    #[error("none of the {} hosts accepted a connection ({})", .tried.len(), .tried.join("; "))]
    NoHost {
        /// What each host failed with.
        tried: Vec<String>,
    },
    /// The connection cannot be protected as asked; no password was sent.
    #[error("failed to protect the connection to {target} with TLS")]
    Tls {
        /// `user@host:port/database`.
        target: String,
        /// What stood in the way.
        source: TlsFault,
    },
    /// The server does not let us in, or could not be trusted with the password.
    #[error("failed to log in as {target}")]
    Authentication {
        /// `user@host:port/database`.
        target: String,
        /// Who refused, and why.
        source: AuthFault,
    },
    /// The server answered with an error. After [`Connection::query`](super::Connection::query) the connection stays
    /// usable unless [`ServerError::is_fatal`].
    #[error(transparent)]
    Server(Box<ServerError>),
    /// The peer broke the protocol, or sent more than a limit allows; the connection is unusable.
    #[error("the server broke the protocol: {what}")]
    Protocol {
        /// What was wrong; no bytes of the peer are in it.
        what: &'static str,
    },
    /// Nothing came, or nothing could be sent, for the whole limit; the connection is unusable.
    #[error("no answer from {target} for {}", human::duration(*.limit))]
    Silent {
        /// `user@host:port/database`.
        target: String,
        /// How long was waited.
        limit: std::time::Duration,
    },
    /// The connection ended without the server saying why: it crashed, or the network did.
    #[error("the connection to {target} was cut")]
    Closed {
        /// `user@host:port/database`.
        target: String,
        /// What the operating system said; nothing for a plain end of the stream.
        source: Option<io::Error>,
    },
    /// A call that does not fit the state of the connection, such as a second statement during a stream.
    #[error("the connection cannot do this now: {what}")]
    Misuse {
        /// The state it is in.
        what: &'static str,
    },
}

impl PgError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Options(_) => FailureKind::Usage,
            Self::Unreachable { .. }
            | Self::NoHost { .. }
            | Self::Tls { .. }
            | Self::Authentication { .. }
            | Self::Protocol { .. }
            | Self::Silent { .. }
            | Self::Closed { .. } => FailureKind::Unreachable,
            Self::Server(error) => error.kind(),
            Self::Misuse { .. } => FailureKind::Internal,
        }
    }

    /// The server's own error, also when it came as a refused login.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server(error) | Self::Authentication { source: AuthFault::Rejected(error), .. } => {
                Some(error)
            }
            _ => None,
        }
    }
}

impl From<ServerError> for PgError {
    fn from(error: ServerError) -> Self {
        Self::Server(Box::new(error))
    }
}

/// Why a connection could not be protected.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// The options ask for TLS.
    #[error("the server does not offer TLS (`ssl = off`)")]
    NotOffered,
    /// The peer answered the request for TLS with something else.
    #[error("the server's answer to the request for TLS is not PostgreSQL's")]
    NotPostgres,
    /// Every authority would be able to vouch for the server.
    #[error("`sslmode=verify-ca` needs `sslrootcert`: any public authority could vouch for another server")]
    NoRoots,
    /// Files, authorities or the handshake.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum AuthFault {
    /// The server said no: wrong password, no such role, no line in `pg_hba.conf`.
    #[error(transparent)]
    Rejected(Box<ServerError>),
    /// The server asks for a password and there is none.
    #[error("the server asks for a password and none was given")]
    NoPassword,
    /// A password must not cross a network in the clear.
    #[error("the server asks for the password in the clear; use TLS, or `scram-sha-256` in pg_hba.conf")]
    Cleartext,
    /// A method we do not speak.
    #[error("the server asks for {0}, which is not supported; use `scram-sha-256` in pg_hba.conf")]
    Method(&'static str),
    /// `channel_binding=require`, and the login would not be bound to the TLS session.
    #[error("`channel_binding=require` cannot be met: {0}")]
    ChannelBinding(&'static str),
    /// The exchange failed on our side: wrong nonce, too many iterations (limit 100,000), malformed message.
    #[error("the SCRAM exchange failed")]
    Scram(#[source] io::Error),
    /// The server let us in without showing that it knows the password: it may be an impostor.
    #[error("the server did not prove that it knows the password")]
    ServerNotProven,
    /// The file of passwords cannot be read, or others can read it.
    #[error("the password file {path} {what}")]
    PassFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
        /// What the operating system said.
        source: Option<io::Error>,
    },
}

/// An `ErrorResponse` or `NoticeResponse`; texts are printable and at most [`MESSAGE_TEXT_LIMIT_BYTES`] each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, … never translated.
    pub severity: String,
    /// The five letters of SQLSTATE, such as `28P01`.
    pub code: String,
    /// The message in the server's language.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
}

impl ServerError {
    /// Reads the fields of a message; what is malformed ends the reading, what came before counts.
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut error = Self::default();
        while let Ok(Some(field)) = fields.next() {
            let text = bounded(field.value_bytes());
            match field.type_() {
                // `V` is the untranslated severity and comes after `S`.
                b'S' | b'V' => error.severity = text,
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                b'P' => error.position = text.parse().ok(),
                _ => {}
            }
        }
        error
    }

    /// The server closes the connection after this.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// What the caller can do about it, from the class of the SQLSTATE.
    pub fn kind(&self) -> FailureKind {
        match self.code.as_str() {
            // Corrupted data or index.
            "XX001" | "XX002" => FailureKind::Damaged,
            // Too many connections; no such database; in use, such as a slot whose last connection was cut.
            "53300" | "3D000" | "55006" => FailureKind::Unreachable,
            // Missing privilege.
            "42501" => FailureKind::Refused,
            code => match code.get(..2) {
                // Connection, authorization, shutdown.
                Some("08" | "28" | "57") => FailureKind::Unreachable,
                // Not supported; object not in the required state.
                Some("0A" | "55") => FailureKind::Refused,
                _ => FailureKind::Internal,
            },
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity.is_empty() { "error" } else { self.severity.as_str() };
        write!(f, "the server says {severity}: {}", self.message)?;
        if !self.code.is_empty() {
            write!(f, " [{}]", self.code)?;
        }
        for (label, text) in [("detail", &self.detail), ("hint", &self.hint)] {
            if let Some(text) = text {
                write!(f, "; {label}: {text}")?;
            }
        }
        Ok(())
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
