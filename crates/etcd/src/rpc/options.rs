//! Where a cluster is and what it must be shown.

use std::fmt;
use std::path::PathBuf;

use lifeboat_base::secret::Secret;

use crate::error::EtcdError;

/// The most endpoints that are looked at.
const MAX_ENDPOINTS: usize = 64;
/// The port of endpoints that name none.
const DEFAULT_PORT: u16 = 2379;

/// Where one member listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A host and a port.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// A socket on this machine.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "https" } else { "http" };
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Certificates and a key, as PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsPem {
    /// The authorities to believe; those of the machine if nothing is given.
    pub ca: Option<String>,
    /// The client's certificate.
    pub cert: Option<String>,
    /// Its private key.
    pub key: Option<Secret<String>>,
}

/// A user of a cluster with authentication.
#[derive(Clone, Debug)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret<String>,
}

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Its members, in the order they are tried; at least one.
    pub endpoints: Vec<Endpoint>,
    /// For endpoints with TLS.
    pub tls: TlsPem,
    /// Where users must log in.
    pub login: Option<Login>,
}

impl ClientOptions {
    /// Reads `https://one:2379,https://two:2379`. Errors do not repeat the text: it may hold a password.
    pub fn parse(address: &str) -> Result<Self, EtcdError> {
        let wrong = |what: &str| {
            Err(EtcdError::Options(format!(
                "the address of etcd {what}; write https://HOST:2379, with commas between several"
            )))
        };
        let mut endpoints = Vec::new();
        for part in address.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if part.contains('@') {
                return wrong("holds a user: give `user` and `password` as keys of the row");
            }
            if let Some(path) = part.strip_prefix("unix://") {
                endpoints.push(Endpoint::Unix(path.into()));
                continue;
            }
            let (tls, rest) = match (part.strip_prefix("https://"), part.strip_prefix("http://")) {
                (Some(rest), _) => (true, rest),
                (_, Some(rest)) => (false, rest),
                (None, None) => return wrong("starts with neither https:// nor http://"),
            };
            let Some((host, port)) = host_and_port(rest.trim_end_matches('/')) else {
                return wrong("names no host and port");
            };
            endpoints.push(Endpoint::Tcp { host, port, tls });
        }
        if endpoints.is_empty() || endpoints.len() > MAX_ENDPOINTS {
            return wrong("names no endpoint, or too many");
        }
        Ok(Self { endpoints, tls: TlsPem::default(), login: None })
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
        }
        None => text.split_once(':').map_or((text, Some("")), |(host, port)| (host, Some(port))),
    };
    let port = match port? {
        "" => DEFAULT_PORT,
        port => port.parse().ok()?,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    (!host.is_empty() && host.chars().all(plain)).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        for (text, shown) in [
            ("http://a:1", "http://a:1"),
            ("https://10.0.0.1:2379/", "https://10.0.0.1:2379"),
            ("https://[::1]:7", "https://[::1]:7"),
            ("https://[fe80::1]", "https://[fe80::1]:2379"),
            ("https://etcd.internal", "https://etcd.internal:2379"),
            ("unix:///run/etcd/c:1", "unix:/run/etcd/c:1"),
        ] {
            assert_eq!(ClientOptions::parse(text).unwrap().endpoints[0].to_string(), shown);
        }
        assert_eq!(ClientOptions::parse(" http://a:1 , http://b:2,").unwrap().endpoints.len(), 2);
    }

    #[test]
    fn a_wrong_address_is_not_repeated() {
        for text in [
            "",
            ",",
            "a:1",
            "https://user:hunter2@a:1",
            "https://",
            "https://a:b",
            "https://a b:1",
            "ftp://hunter2",
        ] {
            let error = ClientOptions::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
