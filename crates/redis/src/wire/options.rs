//! Where to connect, as whom, and how the connection is protected.
//!
//! In: a URL, which may hold a password. Out: [`ConnectOptions`]. Neither an option's `Debug` nor any error shows the
//! password or a piece of the text. Nothing is taken from the environment.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_base::secret::Secret;
use lifeboat_net::{Address, TlsOptions, Trust};
use zeroize::Zeroizing;

use super::error::RedisError;

/// How long connecting and logging in may take, unless the options say otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent while an answer is owed. A server that makes a dump sends a sign of life each second,
/// and a connected one each ten seconds.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// The server's usual port.
pub const DEFAULT_PORT: u16 = 6379;
const MAX_CONNECT_TIMEOUT_S: u64 = 3600;

/// Everything a connection needs to know. The password is masked in `Debug`.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub(super) address: Address,
    pub(super) tls: Option<TlsOptions>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret<String>>,
    pub(super) connect_timeout: Duration,
    pub(super) silence_limit: Duration,
}

/// Options that cannot be used. Holds names of known parameters only: the text may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Not an address of a kind that is known.
    #[error("write `redis://user:password@host:port`, `rediss://…` for TLS, or `unix:///path/of/the/socket`")]
    Form,
    /// A part holds a `%` that is not followed by two hexadecimal digits, or bytes that are no text.
    #[error("the {0} holds a character that must be written as %XX")]
    Encoding(&'static str),
    /// No such parameter; what was written is not shown.
    #[error(
        "parameter {0} is not known; known are `user`, `password`, `ca_file`, `cert_file`, `key_file` and `connect_timeout`"
    )]
    UnknownParameter(usize),
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
    /// Two parameters that only make sense together, or with another scheme.
    #[error("{0}")]
    Conflict(&'static str),
}

impl ConnectOptions {
    /// Options for one address, without a user and without TLS.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            tls: None,
            user: None,
            password: None,
            connect_timeout: CONNECT_TIMEOUT,
            silence_limit: SILENCE_LIMIT,
        }
    }

    /// Reads `redis://user:password@host:port`, `rediss://…?ca_file=…&cert_file=…&key_file=…` or
    /// `unix:///path?user=…&password=…`. With TLS the server's certificate must come from `ca_file`, or from one of the
    /// machine's authorities, and name the host. A database number is taken and means nothing: all are captured.
    pub fn parse(text: &Secret<String>) -> Result<Self, RedisError> {
        Ok(parse(text.expose())?)
    }

    /// The same, as this user.
    #[must_use]
    pub fn with_login(&self, user: &str, password: Secret<String>) -> Self {
        Self { user: Some(user.to_owned()), password: Some(password), ..self.clone() }
    }

    /// The same, as another user or as none.
    pub(crate) fn with_other_login(self, (user, password): (Option<String>, Option<Secret<String>>)) -> Self {
        Self { user, password, ..self }
    }

    /// User and password.
    pub(crate) fn login(self) -> (Option<String>, Option<Secret<String>>) {
        (self.user, self.password)
    }

    /// The same, at another address.
    pub(crate) fn at(&self, host: &str, port: u16) -> Self {
        Self { address: Address::Tcp(host.to_owned(), port), ..self.clone() }
    }

    /// The same, with another limit for a server that owes an answer and sends nothing.
    #[must_use]
    pub fn with_silence_limit(&self, limit: Duration) -> Self {
        Self { silence_limit: limit, ..self.clone() }
    }

    /// `user@host:port`, for people; the password is not in it.
    pub fn target(&self) -> String {
        let place = match &self.address {
            Address::Tcp(name, port) if name.contains(':') => format!("[{name}]:{port}"),
            Address::Tcp(name, port) => format!("{name}:{port}"),
            Address::Unix(path) => path.display().to_string(),
        };
        let user = self.user.as_deref().map(|user| format!("{user}@")).unwrap_or_default();
        lifeboat_base::human::printable(&format!("{user}{place}"))
    }
}

#[derive(Default)]
struct Parts {
    user: Option<String>,
    password: Option<Secret<String>>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    connect_timeout: Option<Duration>,
}

fn parse(text: &str) -> Result<ConnectOptions, OptionsError> {
    let (scheme, rest) = text.split_once("://").ok_or(OptionsError::Form)?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut parts = Parts::default();
    let (address, tls) = match scheme {
        "redis" => (network(place, &mut parts)?, false),
        "rediss" => (network(place, &mut parts)?, true),
        "unix" => {
            let path = PathBuf::from(decoded(place, "path")?.as_str());
            (if path.is_absolute() { Address::Unix(path) } else { return Err(OptionsError::Form) }, false)
        }
        _ => return Err(OptionsError::Form),
    };
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let (name, value) = pair.split_once('=').ok_or(OptionsError::UnknownParameter(index + 1))?;
        parameter(name, &decoded(value, "parameter")?, index + 1, &mut parts)?;
    }
    let tls = tls_options(tls, &mut parts)?;
    if parts.user.is_some() && parts.password.is_none() {
        return Err(OptionsError::Conflict("a `user` without a `password`"));
    }
    let (user, password) = (parts.user, parts.password);
    let connect_timeout = parts.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
    Ok(ConnectOptions { tls, user, password, connect_timeout, ..ConnectOptions::new(address) })
}

/// `user:password@host:port/database`.
fn network(place: &str, parts: &mut Parts) -> Result<Address, OptionsError> {
    let (place, database) = match place.rsplit_once('@') {
        Some((login, host)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let (user, password) = (decoded(user, "user")?, decoded(password, "password")?);
            parts.user = Some(user.to_string()).filter(|user| !user.is_empty());
            parts.password =
                Some(password.to_string()).filter(|password| !password.is_empty()).map(Secret::new);
            host.split_once('/').unwrap_or((host, ""))
        }
        None => place.split_once('/').unwrap_or((place, "")),
    };
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return Err(OptionsError::Value { name: "database", expected: "a number" });
    }
    let (name, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or(OptionsError::Form)?;
            (
                name,
                if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(OptionsError::Form)?) },
            )
        }
        None => match place.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0),
        None => Some(DEFAULT_PORT),
    };
    let port = port.ok_or(OptionsError::Value { name: "port", expected: "a number from 1 to 65535" })?;
    let name = decoded(name, "host")?;
    if name.is_empty() {
        return Err(OptionsError::Form);
    }
    Ok(Address::Tcp(name.to_string(), port))
}

fn parameter(name: &str, value: &str, position: usize, parts: &mut Parts) -> Result<(), OptionsError> {
    fn once<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), OptionsError> {
        if place.replace(value).is_some() { Err(OptionsError::Twice(name)) } else { Ok(()) }
    }
    match name {
        "user" => once(&mut parts.user, "user", value.to_owned()),
        "password" => once(&mut parts.password, "password", Secret::new(value.to_owned())),
        "ca_file" => once(&mut parts.ca_file, "ca_file", value.into()),
        "cert_file" => once(&mut parts.cert_file, "cert_file", value.into()),
        "key_file" => once(&mut parts.key_file, "key_file", value.into()),
        "connect_timeout" => {
            let seconds = value.parse().ok().filter(|seconds| (1..=MAX_CONNECT_TIMEOUT_S).contains(seconds));
            let expected = "a number of seconds from 1 to 3600";
            let seconds = seconds.ok_or(OptionsError::Value { name: "connect_timeout", expected })?;
            once(&mut parts.connect_timeout, "connect_timeout", Duration::from_secs(seconds))
        }
        _ => Err(OptionsError::UnknownParameter(position)),
    }
}

fn tls_options(tls: bool, parts: &mut Parts) -> Result<Option<TlsOptions>, OptionsError> {
    let certificate = match (parts.cert_file.take(), parts.key_file.take()) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(OptionsError::Conflict("`cert_file` and `key_file` belong together")),
    };
    let ca_file = parts.ca_file.take();
    if !tls {
        return match (certificate, ca_file) {
            (None, None) => Ok(None),
            _ => Err(OptionsError::Conflict("certificates are for `rediss://` addresses")),
        };
    }
    let trust = ca_file.map_or(Trust::Machine, Trust::Named);
    Ok(Some(TlsOptions { trust, certificate, alpn: None }))
}

/// Undoes `%XX`; the copy is wiped.
fn decoded(text: &str, part: &'static str) -> Result<Zeroizing<String>, OptionsError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(OptionsError::Encoding(part)) };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_invalid| OptionsError::Encoding(part))?;
    Ok(Zeroizing::new(text.to_owned()))
}
