//! What TLS has to show before a password is sent.
//!
//! In: the options' `sslmode`, authorities and client certificate. Out: a configured TLS client. Authorities come from
//! a file or from the machine, never from a list built in: a company's own authority is in the former two, and a list
//! in a program ages with it. Revocation lists are not consulted.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};
use zeroize::Zeroizing;

use super::error::TlsFault;
use super::options::{ConnectOptions, Roots, SslMode};

/// No sensible file of certificates or keys is larger.
const PEM_LIMIT_BYTES: u64 = 4 * 1024 * 1024;
/// The name PostgreSQL 17 and later answer to, so that no other protocol's server can be talked into this one.
const ALPN: &[u8] = b"postgresql";

/// A client for one handshake with `host`.
pub(super) fn client(options: &ConnectOptions, host: &str) -> Result<ClientConnection, TlsFault> {
    let provider = Arc::new(ring::default_provider());
    let trust = trust(options)?;
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(_invalid) if matches!(trust, Trust::Named(_)) => return Err(TlsFault::HostName),
        // No check of the name was asked for; an address sends none.
        Err(_invalid) => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
    };
    let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsFault::Handshake)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &options.client_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(TlsFault::ClientCertificate)?,
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    ClientConnection::new(Arc::new(config), name).map_err(TlsFault::Handshake)
}

fn trust(options: &ConnectOptions) -> Result<Trust, TlsFault> {
    match (options.ssl_mode, &options.roots) {
        (SslMode::Disable | SslMode::Allow | SslMode::Prefer, _) | (SslMode::Require, None) => {
            Ok(Trust::Anyone)
        }
        (SslMode::Require | SslMode::VerifyCa, Some(Roots::File(path))) => {
            Ok(Trust::Authority(Authorities::from_file(path)?))
        }
        (SslMode::VerifyFull, Some(Roots::File(path))) => Ok(Trust::Named(Authorities::from_file(path)?)),
        (SslMode::VerifyFull, Some(Roots::System) | None) => Ok(Trust::Named(Authorities::of_machine()?)),
        (SslMode::Require | SslMode::VerifyCa, Some(Roots::System)) | (SslMode::VerifyCa, None) => {
            Err(TlsFault::NoRoots)
        }
    }
}

/// Whom to believe.
#[derive(Debug)]
enum Trust {
    /// Any certificate will do; only its key must be the peer's.
    Anyone,
    /// The certificate must come from these.
    Authority(Authorities),
    /// The same, and it must name the host.
    Named(Authorities),
}

#[derive(Debug)]
struct Authorities {
    roots: RootCertStore,
    /// The same certificates as they are: a self-signed server certificate may be its own authority, as OpenSSL has it.
    /// Its dates are not checked then; it was put into the file for this very server.
    exact: Vec<CertificateDer<'static>>,
}

impl Authorities {
    fn from_file(path: &Path) -> Result<Self, TlsFault> {
        let exact = certificates(path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &exact {
            roots.add(certificate.clone()).map_err(|_invalid| TlsFault::Unusable {
                path: path.display().to_string(),
                what: "holds a certificate that cannot be read",
            })?;
        }
        Ok(Self { roots, exact })
    }

    fn of_machine() -> Result<Self, TlsFault> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A machine's store may hold certificates of forms nobody uses; the others still count.
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 { Err(TlsFault::NoSystemRoots) } else { Ok(Self { roots, exact: Vec::new() }) }
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (authorities, named) = match &self.trust {
            Trust::Anyone => return Ok(ServerCertVerified::assertion()),
            Trust::Authority(authorities) => (authorities, false),
            Trust::Named(authorities) => (authorities, true),
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if !authorities.exact.contains(end_entity) {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let roots = &authorities.roots;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        }
        if named {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let (pem, _) = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found =
        found.map_err(|error| TlsFault::File { path: path.display().to_string(), source: error.into() })?;
    if found.is_empty() {
        return Err(TlsFault::Unusable { path: path.display().to_string(), what: "holds no certificate" });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let (pem, meta) = read(path)?;
    let unusable = |what| TlsFault::Unusable { path: path.display().to_string(), what };
    if is_exposed(&meta) {
        return Err(unusable("can be read by others; take that right away (chmod 600)"));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_none| unusable("holds no private key, or an encrypted one"))
}

/// Whether others than the owner may read a secret file; root's files may be readable for a group, as libpq has it.
pub(super) fn is_exposed(meta: &Metadata) -> bool {
    let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
    meta.mode() & forbidden != 0
}

fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Metadata), TlsFault> {
    let read = || {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(PEM_LIMIT_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>((bytes, meta))
    };
    read().map_err(|error| TlsFault::File { path: path.display().to_string(), source: error.into() })
}
