//! Where a service is, and its token.

use std::path::PathBuf;

use lifeboat_base::secret::Secret;
use lifeboat_net::{Address, TlsOptions, Trust};

use crate::wire::{OptionsError, RedisError};

/// Everything a request needs to know. The token is masked in `Debug`.
#[derive(Clone, Debug)]
pub struct RestOptions {
    pub(super) address: Address,
    /// As the request names it.
    pub(super) host: String,
    pub(super) tls: Option<TlsOptions>,
    /// What comes before the path of each request.
    pub(super) base: String,
    pub(super) token: Secret<String>,
}

impl RestOptions {
    /// Reads `https://HOST[:PORT][/PATH]`, with `?ca_file=…` for an authority of one's own, or `http://` for a service on
    /// this machine. The token may stand in the address, as `https://:TOKEN@HOST`, or come by itself.
    pub fn parse(text: &Secret<String>, token: Option<Secret<String>>) -> Result<Self, RedisError> {
        Ok(parse(text.expose(), token)?)
    }

    /// The service, for people.
    pub fn target(&self) -> String {
        lifeboat_base::human::printable(&format!("{}{}", self.host, self.base))
    }
}

fn parse(text: &str, token: Option<Secret<String>>) -> Result<RestOptions, OptionsError> {
    let (scheme, rest) = text.split_once("://").ok_or(OptionsError::Form)?;
    let is_tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(OptionsError::Form),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, host) = place.rsplit_once('@').unwrap_or(("", place));
    let own =
        login.rsplit(':').next().filter(|token| !token.is_empty()).map(|own| Secret::new(own.to_owned()));
    let token = own.or(token).ok_or(OptionsError::Conflict(
        "a REST address needs a token: write `token = \"env:NAME\"` into the row, or https://:TOKEN@HOST at the place the address is kept",
    ))?;
    if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(OptionsError::Value { name: "token", expected: "a word without blanks" });
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok().filter(|port| *port > 0)),
        None => (host, Some(if is_tls { 443 } else { 80 })),
    };
    let port = port.ok_or(OptionsError::Value { name: "port", expected: "a number from 1 to 65535" })?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(OptionsError::Form);
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(OptionsError::Form);
    }
    let mut trust = Trust::Machine;
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        match pair.split_once('=') {
            Some(("ca_file", file)) if is_tls => trust = Trust::Named(PathBuf::from(file)),
            _ => return Err(OptionsError::UnknownParameter(index + 1)),
        }
    }
    let base = match path.trim_end_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    };
    let tls = is_tls.then_some(TlsOptions { trust, certificate: None, alpn: None });
    Ok(RestOptions { address: Address::Tcp(name.to_owned(), port), host: host.to_owned(), tls, base, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, token: Option<&str>) -> Result<RestOptions, OptionsError> {
        parse(text, token.map(|token| Secret::new(token.to_owned())))
    }

    #[test]
    fn addresses_are_read_and_a_token_is_never_shown() {
        let options = read("https://eu1-cat.example.io", Some("canary")).unwrap();
        assert_eq!(
            (options.target().as_str(), options.token.expose().as_str()),
            ("eu1-cat.example.io", "canary")
        );
        let options = read("http://:canary@localhost:8079/redis/", None).unwrap();
        assert_eq!(
            (options.target().as_str(), options.token.expose().as_str()),
            ("localhost:8079/redis", "canary")
        );
        assert!(!format!("{options:?}").contains("canary"));
        for (text, token) in [
            ("https://host", None),
            ("ftp://host", Some("t")),
            ("https://", Some("t")),
            ("https://host:0", Some("t")),
            ("https://ho st", Some("t")),
            ("https://host/a b", Some("t")),
            ("https://host\r\nX: y", Some("t")),
            ("https://host", Some("a\r\nb")),
            ("https://host?token=x", Some("t")),
            ("http://host?ca_file=/x", Some("t")),
        ] {
            assert!(read(text, token).is_err(), "{text}");
        }
    }
}
