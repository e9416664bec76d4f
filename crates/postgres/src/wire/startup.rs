//! From options to a server that awaits the first statement.
//!
//! In: options and the kind of session. Out: a [`Session`]. Hosts are tried in order; for each, TLS and no TLS in the
//! order that `sslmode` has. Every host may take `connect_timeout`, name resolution aside.

use std::collections::BTreeMap;

use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::auth::{Login, rejected};
use super::error::{AuthFault, PgError, ServerError, TlsFault};
use super::frames::Frame;
use super::link::{Link, Wait};
use super::options::{ConnectOptions, Host, SslMode};
use super::tls;
use lifeboat_net::{Deadline, Socket, TlsError};
use lifeboat_net::{Fault, Transport};

/// How many settings a server may report; PostgreSQL 18 reports 16.
pub(super) const PARAMETER_LIMIT: usize = 256;
/// More messages no server sends between the login and its first readiness.
const GREETING_LIMIT: usize = 1024;
/// `invalid_authorization_specification`: no line of `pg_hba.conf` lets us in this way.
const NO_HBA_LINE: &str = "28000";
/// `cannot_connect_now`: starting up, shutting down, or a standby that takes nobody.
const CANNOT_CONNECT_NOW: &str = "57P03";

/// What the session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statements.
    Sql,
    /// Replication commands and `SHOW`, with no database; what a role with `REPLICATION` and nothing else may use.
    Replication,
    /// Replication commands and statements in one database.
    ReplicationDatabase,
}

/// A connection that is logged in.
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) host: Host,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) pid: i32,
    pub(super) key: i32,
}

/// Whether and how hard to try for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    Plain,
    IfOffered,
    Tls,
}

pub(super) fn open(options: &ConnectOptions, mode: Mode) -> Result<Session, PgError> {
    let mut tried = Vec::new();
    let mut only = None;
    for host in &options.hosts {
        match open_host(options, host, mode) {
            Err(error) if may_try_next_host(&error) => {
                tried.push(lifeboat_base::failure::chain(&error));
                only = Some(error);
            }
            other => return other,
        }
    }
    match only {
        Some(error) if tried.len() == 1 => Err(error),
        _ => Err(PgError::NoHost { tried }),
    }
}

/// A server that answered and said no would say no elsewhere, too; one that is not there says nothing about others.
fn may_try_next_host(error: &PgError) -> bool {
    match error {
        PgError::Unreachable { .. } | PgError::Silent { .. } | PgError::Closed { .. } => true,
        PgError::Server(error) => error.code == CANNOT_CONNECT_NOW,
        _ => false,
    }
}

fn open_host(options: &ConnectOptions, host: &Host, mode: Mode) -> Result<Session, PgError> {
    let deadline = Deadline::after(options.connect_timeout);
    let (first, second) = match (host, options.ssl_mode) {
        (Host::Unix { .. }, _) | (_, SslMode::Disable) => (Protection::Plain, None),
        (_, SslMode::Allow) => (Protection::Plain, Some(Protection::Tls)),
        (_, SslMode::Prefer) => (Protection::IfOffered, Some(Protection::Plain)),
        (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => (Protection::Tls, None),
    };
    let error = match open_once(options, host, mode, first, deadline) {
        Err(error) if may_change_protection(&error) => error,
        other => return other,
    };
    let Some(second) = second else {
        return Err(error);
    };
    // What stopped the way that `sslmode` prefers is worth more than that the other way is closed, too.
    open_once(options, host, mode, second, deadline).map_err(|other| match other {
        PgError::Tls { source: TlsFault::NotOffered, .. } => error,
        other if second == Protection::Plain && may_change_protection(&other) => error,
        other => other,
    })
}

/// Not for a peer that is no PostgreSQL, nor for a file of ours that cannot be read.
fn may_change_protection(error: &PgError) -> bool {
    match error {
        PgError::Tls { source: TlsFault::Tls(TlsError::Handshake(_)), .. }
        | PgError::Authentication { source: AuthFault::Cleartext, .. } => true,
        error => error.server().is_some_and(|error| error.code == NO_HBA_LINE),
    }
}

fn open_once(
    options: &ConnectOptions,
    host: &Host,
    mode: Mode,
    protection: Protection,
    deadline: Deadline,
) -> Result<Session, PgError> {
    let target = options.target_at(&host.to_string());
    let mut link = connect(options, host, protection, deadline, target)?;
    // The server calls the database of physical replication so in pg_hba.conf, and so do password files.
    let database = if mode == Mode::Replication { "replication" } else { options.database() };
    link.send(options.connect_timeout, |out| {
        let mut parameters = vec![
            ("user", options.user.as_str()),
            ("application_name", options.application_name.as_str()),
            ("client_encoding", "UTF8"),
        ];
        match mode {
            Mode::Sql => parameters.push(("database", database)),
            Mode::Replication => parameters.push(("replication", "true")),
            Mode::ReplicationDatabase => {
                parameters.extend([("database", database), ("replication", "database")]);
            }
        }
        parameters.extend(options.server_options.as_deref().map(|value| ("options", value)));
        frontend::startup_message(parameters, out)
    })?;
    Login::new(&mut link, options, host, database, deadline).run()?;
    greet(link, host.clone(), options, deadline)
}

/// A connected and, where asked for, protected link.
pub(super) fn connect_like(
    options: &ConnectOptions,
    host: &Host,
    tls: bool,
    deadline: Deadline,
) -> Result<Link, PgError> {
    let protection = if tls { Protection::Tls } else { Protection::Plain };
    connect(options, host, protection, deadline, options.target_at(&host.to_string()))
}

fn connect(
    options: &ConnectOptions,
    host: &Host,
    protection: Protection,
    deadline: Deadline,
    target: String,
) -> Result<Link, PgError> {
    let socket = Socket::connect(&host.address(), deadline)
        .map_err(|source| PgError::Unreachable { target: target.clone(), source })?;
    let mut link = Link::new(Transport::new(socket), target);
    let Host::Tcp { name, .. } = host else {
        return Ok(link);
    };
    if protection == Protection::Plain {
        return Ok(link);
    }
    let target = link.target.clone();
    let fault = |source| PgError::Tls { target: target.clone(), source };
    // Files are read before the server is bothered.
    let client = tls::client(options, name).map_err(fault)?;
    let limit = options.connect_timeout;
    link.send(limit, |out| {
        frontend::ssl_request(out);
        Ok(())
    })?;
    match link.transport.read_byte(deadline).map_err(|error| link.fault(error, limit))? {
        b'S' => {}
        b'N' if protection == Protection::IfOffered => return Ok(link),
        b'N' => return Err(fault(TlsFault::NotOffered)),
        b'E' => return Err(refused_early(&mut link, deadline)),
        _ => return Err(fault(TlsFault::NotPostgres)),
    }
    match link.transport.protect(client, deadline) {
        Ok(()) => Ok(link),
        Err(Fault::TimedOut) => Err(PgError::Silent { target, limit }),
        Err(Fault::Tls(error)) => Err(fault(handshake(error))),
        // A server that dislikes the client's certificate or versions may just hang up.
        Err(Fault::End) => Err(fault(handshake(rustls::Error::General("the server hung up".to_owned())))),
        Err(Fault::Io(error)) => Err(fault(handshake(rustls::Error::General(error.to_string())))),
    }
}

fn handshake(error: rustls::Error) -> TlsFault {
    TlsError::Handshake(error).into()
}

/// An error in place of the answer to the request for TLS. It came in the clear from whoever is there, so it is shown
/// but decides nothing.
fn refused_early(link: &mut Link, deadline: Deadline) -> PgError {
    link.frames.push(b"E");
    match link.receive(Wait::Until(deadline)) {
        Ok(Some(Frame::Message(Message::ErrorResponse(body)))) => ServerError::read(body.fields()).into(),
        Ok(_) => PgError::Protocol { what: "a malformed answer to the request for TLS" },
        Err(error) => error,
    }
}

/// What the server tells about itself, up to its readiness.
fn greet(link: Link, host: Host, options: &ConnectOptions, deadline: Deadline) -> Result<Session, PgError> {
    let mut session = Session { link, host, parameters: BTreeMap::new(), pid: 0, key: 0 };
    for _ in 0..GREETING_LIMIT {
        let frame = session.link.receive(Wait::Until(deadline))?;
        match frame {
            None => {
                let (target, limit) = (session.link.target, options.connect_timeout);
                return Err(PgError::Silent { target, limit });
            }
            Some(Frame::Message(Message::ParameterStatus(body))) => {
                if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                    session.remember(name, value);
                }
            }
            Some(Frame::Message(Message::BackendKeyData(body))) => {
                (session.pid, session.key) = (body.process_id(), body.secret_key());
            }
            Some(Frame::Message(Message::NoticeResponse(_))) => {}
            Some(Frame::Message(Message::ErrorResponse(body))) => {
                return Err(rejected(ServerError::read(body.fields()), &session.link.target));
            }
            Some(Frame::Message(Message::ReadyForQuery(_))) => {
                session.link.frames.trust();
                return Ok(session);
            }
            Some(_) => return Err(PgError::Protocol { what: "an unexpected message after the login" }),
        }
    }
    Err(PgError::Protocol { what: "a greeting without end" })
}

impl Session {
    /// Keeps a setting the server reports.
    pub(super) fn remember(&mut self, name: &str, value: &str) {
        if self.parameters.len() < PARAMETER_LIMIT || self.parameters.contains_key(name) {
            self.parameters.insert(name.to_owned(), value.to_owned());
        }
    }
}
