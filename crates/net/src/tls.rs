//! What TLS has to show before a password is sent.
//!
//! In: whom to trust, and a client certificate. Out: a configured TLS client. Authorities come from
//! a file or from the machine, never from a list built in: a company's own authority is in the former two, and a list
//! in a program ages with it. Revocation lists are not consulted.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};
use zeroize::Zeroizing;

/// No sensible file of certificates or keys is larger.
const PEM_LIMIT_BYTES: u64 = 4 * 1024 * 1024;
/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Anybody's: protects against nobody who can change packets.
    Anyone,
    /// The certificate comes from an authority in this PEM file.
    Authority(PathBuf),
    /// The same, and it names the host.
    Named(PathBuf),
    /// The certificate comes from one of the machine's own authorities and names the host.
    Machine,
}

/// What a client's TLS is to be like.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Files of the client's own certificate and its key, for servers that ask for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The protocol named in the handshake, so that no other protocol's server can be talked into this one.
    pub alpn: Option<&'static [u8]>,
}

/// Why a connection could not be protected.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The handshake failed; for a wrong certificate the cause says what is wrong with it.
    #[error("the handshake failed")]
    Handshake(#[source] rustls::Error),
    /// The host is neither a DNS name nor an address, so no certificate can be made for it.
    #[error("no certificate can name this host")]
    HostName,
    /// A PEM file named by the options is missing, unreadable, or holds something else.
    #[error("failed to read {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A PEM file is readable but of no use.
    #[error("{path} {what}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The machine's own store of authorities is empty or unreadable.
    #[error("the machine has no certificate authorities; name a file with the server's")]
    NoSystemRoots,
    /// The client's certificate and key do not fit together, or are of an unknown sort.
    #[error("the client certificate cannot be used")]
    ClientCertificate(#[source] rustls::Error),
}

/// A client for one handshake with `host`. Files are read here, before the server is bothered.
pub fn client(options: &TlsOptions, host: &str) -> Result<ClientConnection, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let belief = match &options.trust {
        Trust::Anyone => Belief::Anyone,
        Trust::Authority(path) => Belief::Authority(Authorities::from_file(path)?),
        Trust::Named(path) => Belief::Named(Authorities::from_file(path)?),
        Trust::Machine => Belief::Named(Authorities::of_machine()?),
    };
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        Err(_invalid) if matches!(belief, Belief::Named(_)) => return Err(TlsError::HostName),
        // No check of the name was asked for; an address sends none.
        Err(_invalid) => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
    };
    let verifier = Arc::new(Verifier { belief, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Handshake)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &options.certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(TlsError::ClientCertificate)?,
    };
    config.alpn_protocols = options.alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    ClientConnection::new(Arc::new(config), name).map_err(TlsError::Handshake)
}

/// Whom to believe, with the authorities read.
#[derive(Debug)]
enum Belief {
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
    fn from_file(path: &Path) -> Result<Self, TlsError> {
        let exact = certificates(path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &exact {
            roots.add(certificate.clone()).map_err(|_invalid| TlsError::Unusable {
                path: path.display().to_string(),
                what: "holds a certificate that cannot be read",
            })?;
        }
        Ok(Self { roots, exact })
    }

    fn of_machine() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A machine's store may hold certificates of forms nobody uses; the others still count.
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 { Err(TlsError::NoSystemRoots) } else { Ok(Self { roots, exact: Vec::new() }) }
    }
}

#[derive(Debug)]
struct Verifier {
    belief: Belief,
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
        let (authorities, named) = match &self.belief {
            Belief::Anyone => return Ok(ServerCertVerified::assertion()),
            Belief::Authority(authorities) => (authorities, false),
            Belief::Named(authorities) => (authorities, true),
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

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (pem, _) = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found =
        found.map_err(|error| TlsError::File { path: path.display().to_string(), source: error.into() })?;
    if found.is_empty() {
        return Err(TlsError::Unusable { path: path.display().to_string(), what: "holds no certificate" });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (pem, meta) = read(path)?;
    let unusable = |what| TlsError::Unusable { path: path.display().to_string(), what };
    if is_exposed(&meta) {
        return Err(unusable("can be read by others; take that right away (chmod 600)"));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_none| unusable("holds no private key, or an encrypted one"))
}

/// Whether others than the owner may read a secret file; root's files may be readable for a group, as libpq has it.
pub fn is_exposed(meta: &Metadata) -> bool {
    let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
    meta.mode() & forbidden != 0
}

fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Metadata), TlsError> {
    let read = || {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(PEM_LIMIT_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>((bytes, meta))
    };
    read().map_err(|error| TlsError::File { path: path.display().to_string(), source: error.into() })
}
