//! What TLS has to show before anything is asked. Authorities come from the options or from the machine; the server's
//! certificate must name the host. Revocation lists are not consulted.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::options::TlsPem;
use crate::error::EtcdError;

/// The protocol of HTTP/2.
const ALPN: &[u8] = b"h2";

pub(super) fn config(pem: &TlsPem) -> Result<Arc<ClientConfig>, EtcdError> {
    let wrong = |what: &str| EtcdError::Options(what.to_owned());
    let mut roots = RootCertStore::empty();
    if let Some(text) = &pem.ca {
        for certificate in certificates(text, "ca")? {
            roots
                .add(certificate)
                .map_err(|_invalid| wrong("`ca` holds a certificate that cannot be read"))?;
        }
    } else {
        // A machine's store may hold certificates of forms nobody uses; the others still count.
        let (added, _ignored) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            return Err(wrong("this machine has no authorities of its own: name one with `ca`"));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| EtcdError::Options(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match (&pem.cert, &pem.key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
                .map_err(|_none| wrong("`key` holds no private key, or an encrypted one"))?;
            builder
                .with_client_auth_cert(certificates(cert, "cert")?, key)
                .map_err(|_invalid| wrong("`cert` and `key` do not belong together"))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(wrong("a client certificate needs both `cert` and `key`")),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(pem: &str, key: &str) -> Result<Vec<CertificateDer<'static>>, EtcdError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| EtcdError::Options(format!("`{key}` holds no certificate")))
}
