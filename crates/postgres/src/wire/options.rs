//! Where to connect, as whom, and how the connection is protected.
//!
//! In: a URL or `key=value` text, which may hold a password. Out: [`ConnectOptions`]. Neither an option's `Debug` nor
//! any error shows the password or a piece of the text. Nothing is taken from the environment or the home directory.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_base::secret::Secret;
use lifeboat_net::Address;

use super::error::PgError;
use super::parse;

/// How long one host may take for connecting and logging in, unless the options say otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent while an answer is owed, unless the options say otherwise. Long, because a base
/// backup begins with a checkpoint; a dead network is noticed sooner, by the keepalives of TCP.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// The server's usual port.
pub const DEFAULT_PORT: u16 = 5432;

/// One place where the server may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A DNS name or an IP address.
    Tcp {
        /// Without brackets.
        name: String,
        /// TCP port.
        port: u16,
    },
    /// The directory of a unix socket; TLS is never used there, whatever `sslmode` says.
    Unix {
        /// Absolute; the socket in it is `.s.PGSQL.PORT`.
        directory: PathBuf,
        /// Part of the socket's name.
        port: u16,
    },
}

impl Host {
    pub(super) fn address(&self) -> Address {
        match self {
            Self::Tcp { name, port } => Address::Tcp(name.clone(), *port),
            Self::Unix { directory, port } => Address::Unix(directory.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port } => write!(f, "{name}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

/// `sslmode`: what TLS has to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only where the server refuses to go without.
    Allow,
    /// TLS where the server offers it; protects against nobody who can change packets.
    #[default]
    Prefer,
    /// TLS, with any certificate; with `sslrootcert` the same as `verify-ca`.
    Require,
    /// TLS, and the certificate comes from `sslrootcert`.
    VerifyCa,
    /// TLS, and the certificate comes from `sslrootcert` or the machine's authorities and names the host.
    VerifyFull,
}

/// Where trust in a server's certificate begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The machine's own authorities (`sslrootcert=system`).
    System,
    /// A PEM file.
    File(PathBuf),
}

/// `channel_binding`: whether SCRAM is tied to the TLS session, which an impostor cannot relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBindingMode {
    /// Never.
    Disable,
    /// Where TLS and the server allow it.
    #[default]
    Prefer,
    /// No login without.
    Require,
}

/// Everything a connection needs to know. The password is masked in `Debug`.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub(super) hosts: Vec<Host>,
    pub(super) user: String,
    pub(super) password: Option<Secret<String>>,
    pub(super) database: Option<String>,
    pub(super) ssl_mode: SslMode,
    pub(super) roots: Option<Roots>,
    pub(super) client_certificate: Option<(PathBuf, PathBuf)>,
    pub(super) channel_binding: ChannelBindingMode,
    pub(super) pass_file: Option<PathBuf>,
    pub(super) application_name: String,
    pub(super) server_options: Option<String>,
    pub(super) connect_timeout: Duration,
    pub(super) silence_limit: Duration,
}

impl ConnectOptions {
    /// Options for one host; everything else as `parse` would have it when not named.
    pub fn new(host: Host, user: &str) -> Self {
        Self {
            hosts: vec![host],
            user: user.to_owned(),
            password: None,
            database: None,
            ssl_mode: SslMode::default(),
            roots: None,
            client_certificate: None,
            channel_binding: ChannelBindingMode::default(),
            pass_file: None,
            application_name: "lifeboat".to_owned(),
            server_options: None,
            connect_timeout: CONNECT_TIMEOUT,
            silence_limit: SILENCE_LIMIT,
        }
    }

    /// Reads `postgres://user:password@host:port/database?sslmode=…`, `postgresql://%2Frun%2Fpg/…`, or
    /// `host=/run/pg user=…`. Several hosts are tried in the order given. User and host must be named: nothing is
    /// guessed from the environment. `connect_timeout` is 1 to 3600 seconds.
    pub fn parse(text: &Secret<String>) -> Result<Self, PgError> {
        Ok(parse::options(text.expose())?)
    }

    /// The same server, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        Self { database: Some(name.to_owned()), ..self.clone() }
    }

    /// The same, with this password instead of any other.
    #[must_use]
    pub fn with_password(&self, password: Secret<String>) -> Self {
        Self { password: Some(password), ..self.clone() }
    }

    /// The same, with another `application_name`, which the server shows in its views and standby names.
    #[must_use]
    pub fn with_application_name(&self, name: &str) -> Self {
        Self { application_name: name.to_owned(), ..self.clone() }
    }

    /// The same, with another limit for connecting and logging in, for each host.
    #[must_use]
    pub fn with_connect_timeout(&self, limit: Duration) -> Self {
        Self { connect_timeout: limit, ..self.clone() }
    }

    /// The same, with another limit for a server that owes an answer and sends nothing.
    #[must_use]
    pub fn with_silence_limit(&self, limit: Duration) -> Self {
        Self { silence_limit: limit, ..self.clone() }
    }

    /// The places to try, in order; at least one.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database; the server takes the name of the role when none is named.
    pub fn database(&self) -> &str {
        self.database.as_deref().unwrap_or(&self.user)
    }

    /// `user@host:port/database`, for people; the password is not in it.
    pub fn target(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        self.target_at(&hosts.join(","))
    }

    pub(super) fn target_at(&self, host: &str) -> String {
        lifeboat_base::human::printable(&format!("{}@{host}/{}", self.user, self.database()))
    }
}

/// Options that cannot be used. Holds names of known parameters and numbers only: the text may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Neither a URL nor `key=value` text.
    #[error("write `postgres://user@host:port/database` or `host=… user=… dbname=…`")]
    Form,
    /// A part of the URL holds a character that must be percent-encoded there, such as `@` or `/` in a password.
    #[error("the {0} holds a character that must be written as %XX")]
    Encoding(&'static str),
    /// A quote is not closed, or a name has no value.
    #[error("parameter {position} is not `name=value`")]
    Pair {
        /// Counted from 1.
        position: usize,
    },
    /// No such parameter. What was written is not shown: a badly quoted password ends up here.
    #[error("parameter {position} is not known{}", .nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    UnknownParameter {
        /// Counted from 1.
        position: usize,
        /// A known parameter that is written much the same.
        nearest: Option<&'static str>,
    },
    /// A parameter of libpq that is not supported here.
    #[error("`{0}` is not supported")]
    Unsupported(&'static str),
    /// A known parameter with a value it cannot have.
    #[error("the value of `{name}` is not {expected}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What it can be.
        expected: &'static str,
    },
    /// Given twice, in the address and as a parameter or as two parameters.
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    /// Not given, and not guessed.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// Two parameters that contradict each other.
    #[error("{0}")]
    Conflict(&'static str),
}
