//! What `sslmode` and its companions ask of TLS.
//!
//! In: connection options. Out: a configured TLS client, or why what is asked for protects nobody.

use lifeboat_net::{TlsOptions, Trust};
use rustls::ClientConnection;

use super::error::TlsFault;
use super::options::{ConnectOptions, Roots, SslMode};

/// The name PostgreSQL 17 and later answer to, so that no other protocol's server can be talked into this one.
const ALPN: &[u8] = b"postgresql";

/// A client for one handshake with `host`.
pub(super) fn client(options: &ConnectOptions, host: &str) -> Result<ClientConnection, TlsFault> {
    let certificate = options.client_certificate.clone();
    let options = TlsOptions { trust: trust(options)?, certificate, alpn: Some(ALPN) };
    Ok(lifeboat_net::client(&options, host)?)
}

fn trust(options: &ConnectOptions) -> Result<Trust, TlsFault> {
    match (options.ssl_mode, &options.roots) {
        (SslMode::Disable | SslMode::Allow | SslMode::Prefer, _) | (SslMode::Require, None) => {
            Ok(Trust::Anyone)
        }
        (SslMode::Require | SslMode::VerifyCa, Some(Roots::File(path))) => Ok(Trust::Authority(path.clone())),
        (SslMode::VerifyFull, Some(Roots::File(path))) => Ok(Trust::Named(path.clone())),
        (SslMode::VerifyFull, Some(Roots::System) | None) => Ok(Trust::Machine),
        (SslMode::Require | SslMode::VerifyCa, Some(Roots::System)) | (SslMode::VerifyCa, None) => {
            Err(TlsFault::NoRoots)
        }
    }
}
