//! Reads connection options from a URL or from `key=value` text.
//!
//! In: text that may hold a password. Out: [`ConnectOptions`] or an [`OptionsError`], which never holds a piece of the
//! text. Copies of values are wiped when dropped.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_base::secret::Secret;
use zeroize::Zeroizing;

use super::options::{ChannelBindingMode, ConnectOptions, DEFAULT_PORT, Host, OptionsError, Roots, SslMode};

/// No sensible options are longer.
const TEXT_LIMIT_BYTES: usize = 16 * 1024;
/// How many hosts may be named.
const HOST_LIMIT: usize = 32;

/// Read and obeyed.
const SUPPORTED: [&str; 15] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "passfile",
    "application_name",
    "connect_timeout",
    "options",
    "client_encoding",
];

/// Parameters of libpq that we would have to disobey.
const UNSUPPORTED: [&str; 33] = [
    "fallback_application_name",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "replication",
    "gssencmode",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslpassword",
    "target_session_attrs",
];

type Pairs = Vec<(&'static str, Zeroizing<String>)>;

pub(super) fn options(text: &str) -> Result<ConnectOptions, OptionsError> {
    if text.len() > TEXT_LIMIT_BYTES || text.contains('\0') {
        return Err(OptionsError::Form);
    }
    let text = text.trim();
    let pairs = match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(rest) => url(rest)?,
        None if text.contains("://") && !text.contains('=') => return Err(OptionsError::Form),
        None => key_values(text)?,
    };
    build(&pairs)
}

/// The known name that `written` is, or an error that shows at most the nearest known one.
fn known(written: &str, position: usize) -> Result<&'static str, OptionsError> {
    if let Some(name) = SUPPORTED.iter().find(|name| **name == written) {
        return Ok(name);
    }
    if let Some(name) = UNSUPPORTED.iter().find(|name| **name == written) {
        return Err(OptionsError::Unsupported(name));
    }
    let nearest = SUPPORTED
        .iter()
        .map(|name| (strsim::damerau_levenshtein(name, written), *name))
        .filter(|(distance, name)| distance * 3 <= name.len())
        .min_by_key(|(distance, _)| *distance);
    Err(OptionsError::UnknownParameter { position, nearest: nearest.map(|(_, name)| name) })
}

fn add(pairs: &mut Pairs, name: &'static str, value: Zeroizing<String>) -> Result<(), OptionsError> {
    if pairs.iter().any(|(other, _)| *other == name) {
        return Err(OptionsError::Twice(name));
    }
    pairs.push((name, value));
    Ok(())
}

/// `user:password@host:port,host:port/database?name=value&…`, after the scheme.
fn url(rest: &str) -> Result<Pairs, OptionsError> {
    let mut pairs = Pairs::new();
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = address.split_once('/').unwrap_or((address, ""));
    // A password with a bare `/` or `?` moves its own tail, and the `@`, to where a database or a parameter stands.
    if database.contains(['@', '/', ':']) {
        return Err(OptionsError::Encoding("password or database"));
    }
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    if login.contains('@') {
        return Err(OptionsError::Encoding("password"));
    }
    let (user, password) =
        login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
    if !user.is_empty() {
        add(&mut pairs, "user", decode(user, "user")?)?;
    }
    if let Some(password) = password.filter(|password| !password.is_empty()) {
        add(&mut pairs, "password", decode(password, "password")?)?;
    }
    url_hosts(hosts, &mut pairs)?;
    if !database.is_empty() {
        add(&mut pairs, "dbname", decode(database, "database")?)?;
    }
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let position = index + 1;
        let (name, value) = pair.split_once('=').ok_or(OptionsError::Pair { position })?;
        let name = known(&decode(name, "name of a parameter")?, position)?;
        add(&mut pairs, name, decode(value, "value of a parameter")?)?;
    }
    Ok(pairs)
}

/// `host:port,[v6]:port`, as the lists that `host` and `port` hold.
fn url_hosts(text: &str, pairs: &mut Pairs) -> Result<(), OptionsError> {
    if text.is_empty() {
        return Ok(());
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for part in text.split(',') {
        let (host, port) = if let Some(rest) = part.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or(OptionsError::Encoding("host"))?;
            let port = if after.is_empty() { Some("") } else { after.strip_prefix(':') };
            (host, port.ok_or(OptionsError::Encoding("host"))?)
        } else {
            part.split_once(':').unwrap_or((part, ""))
        };
        let host = decode(host, "host")?;
        if host.contains(',') {
            return Err(OptionsError::Value { name: "host", expected: "one name" });
        }
        hosts.push(host.to_string());
        ports.push(port);
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        add(pairs, "host", Zeroizing::new(hosts.join(",")))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        add(pairs, "port", Zeroizing::new(ports.join(",")))?;
    }
    Ok(())
}

/// Percent-decoding; a `+` is a plus sign, as in libpq.
fn decode(text: &str, part: &'static str) -> Result<Zeroizing<String>, OptionsError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let value = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(value.filter(|value| *value != 0).ok_or(OptionsError::Encoding(part))?);
    }
    match str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_not_utf8) => Err(OptionsError::Encoding(part)),
    }
}

/// `name = 'va\'lue' name=value`.
fn key_values(text: &str) -> Result<Pairs, OptionsError> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    let mut position = 0;
    while !rest.is_empty() {
        position += 1;
        let (name, after) = rest.split_once('=').ok_or(OptionsError::Pair { position })?;
        let name = known(name.trim_end(), position)?;
        let (value, after) = value(after.trim_start()).ok_or(OptionsError::Pair { position })?;
        add(&mut pairs, name, value)?;
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A value up to a space, or within single quotes; a backslash makes the next character ordinary.
fn value(text: &str) -> Option<(Zeroizing<String>, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted => {
                let rest = text.get(at + 1..)?;
                return (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some((value, rest));
            }
            // An unquoted password that begins with anything else but holds a quote is a mistake of quoting.
            '\'' => return None,
            character if !quoted && character.is_whitespace() => return Some((value, text.get(at..)?)),
            character => value.push(character),
        }
    }
    (!quoted).then_some((value, ""))
}

fn build(pairs: &Pairs) -> Result<ConnectOptions, OptionsError> {
    // An empty value is the same as none, as in libpq.
    let get = |name: &str| {
        pairs
            .iter()
            .find(|(other, value)| *other == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    };
    let text = |name: &str| get(name).map(str::to_owned);
    let path = |name: &str| get(name).map(PathBuf::from);
    let user = get("user").ok_or(OptionsError::Missing("user"))?;
    let mut hosts = hosts(get("host").ok_or(OptionsError::Missing("host"))?, get("port").unwrap_or(""))?;
    let first = hosts.remove(0);
    let mut options = ConnectOptions::new(first, user);
    options.hosts.append(&mut hosts);
    options.password = text("password").map(Secret::new);
    options.database = text("dbname");
    options.server_options = text("options");
    options.pass_file = path("passfile");
    if let Some(name) = text("application_name") {
        options.application_name = name;
    }
    if get("client_encoding").is_some_and(|value| !value.eq_ignore_ascii_case("utf8")) {
        return Err(OptionsError::Value { name: "client_encoding", expected: "`UTF8`" });
    }
    if let Some(value) = get("connect_timeout") {
        const EXPECTED: OptionsError =
            OptionsError::Value { name: "connect_timeout", expected: "1 to 3600 seconds" };
        let seconds = value.parse().ok().filter(|seconds| (1..=3600).contains(seconds)).ok_or(EXPECTED)?;
        options.connect_timeout = Duration::from_secs(seconds);
    }
    options.ssl_mode = ssl_mode(get("sslmode"), get("sslrootcert"))?;
    options.roots = get("sslrootcert")
        .map(|value| if value == "system" { Roots::System } else { Roots::File(PathBuf::from(value)) });
    options.client_certificate = match (path("sslcert"), path("sslkey")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(OptionsError::Conflict("`sslcert` and `sslkey` need each other")),
    };
    options.channel_binding = match get("channel_binding") {
        None | Some("prefer") => ChannelBindingMode::Prefer,
        Some("disable") => ChannelBindingMode::Disable,
        Some("require") => ChannelBindingMode::Require,
        Some(_) => {
            let expected = "`disable`, `prefer` or `require`";
            return Err(OptionsError::Value { name: "channel_binding", expected });
        }
    };
    Ok(options)
}

fn ssl_mode(mode: Option<&str>, roots: Option<&str>) -> Result<SslMode, OptionsError> {
    let system = roots == Some("system");
    let mode = match mode {
        None if system => SslMode::VerifyFull,
        None | Some("prefer") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("allow") => SslMode::Allow,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(_) => {
            let expected = "`disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`";
            return Err(OptionsError::Value { name: "sslmode", expected });
        }
    };
    if system && mode != SslMode::VerifyFull {
        return Err(OptionsError::Conflict("`sslrootcert=system` needs `sslmode=verify-full`"));
    }
    Ok(mode)
}

/// Hosts with their ports; one port may stand for all hosts.
fn hosts(hosts: &str, ports: &str) -> Result<Vec<Host>, OptionsError> {
    let hosts: Vec<&str> = hosts.split(',').collect();
    let ports: Vec<&str> = ports.split(',').collect();
    if hosts.len() > HOST_LIMIT || (ports.len() != 1 && ports.len() != hosts.len()) {
        return Err(OptionsError::Value {
            name: "port",
            expected: "one, or one for each of at most 32 hosts",
        });
    }
    let mut found = Vec::with_capacity(hosts.len());
    for (index, host) in hosts.iter().enumerate() {
        let port = match ports.get(index).or(ports.first()).copied().unwrap_or_default() {
            "" => DEFAULT_PORT,
            text => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or(OptionsError::Value { name: "port", expected: "a number from 1 to 65535" })?,
        };
        let name = (*host).to_owned();
        found.push(match host.chars().next() {
            None => return Err(OptionsError::Missing("host")),
            Some('/') => Host::Unix { directory: PathBuf::from(name), port },
            Some('@') => return Err(OptionsError::Unsupported("host=@abstract")),
            Some(_) if host.chars().any(|c| c.is_whitespace() || c.is_control() || "@/?#\\".contains(c)) => {
                return Err(OptionsError::Value {
                    name: "host",
                    expected: "a name, an address or a directory",
                });
            }
            Some(_) => Host::Tcp { name, port },
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
