//! TLS in every `sslmode`, and what an impostor in the middle gets.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use lifeboat_base::failure::{FailureKind, chain};
use lifeboat_postgres::wire::{AuthFault, Connection, Event, Mode, PgError, TlsError, TlsFault};
use lifeboat_testkit::{PgOptions, PgServer};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use super::support::{code, login, options, private_file, set_mode, value};

/// The system's own server; those of 16 and 18 at hand are built without TLS.
const WITH_TLS: u32 = 15;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str, key: KeyPair) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, key).unwrap()
}

/// A certificate and its key in PEM.
fn certificate(authority: &Authority, common_name: &str, names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// A server with TLS, the authority it comes from, and another one.
struct Fixture {
    server: PgServer,
    dir: TempDir,
    ours: Authority,
}

impl Fixture {
    fn new() -> Self {
        // The hash of the binding follows the authority's signature: SHA-384 here.
        let ours = authority("ours", KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
        let other = authority("other", KeyPair::generate().unwrap());
        let dir = tempfile::tempdir().unwrap();
        private_file(&dir.path().join("ours.pem"), ours.pem().as_bytes());
        private_file(&dir.path().join("other.pem"), other.pem().as_bytes());
        let mut wanted = PgOptions::new(WITH_TLS);
        for line in [
            "hostssl all scram 127.0.0.1/32 scram-sha-256",
            "host all scram 127.0.0.1/32 reject",
            "hostssl all clear 127.0.0.1/32 password",
            "hostnossl all bare 127.0.0.1/32 trust",
            "host all bare 127.0.0.1/32 reject",
            "hostssl all holder 127.0.0.1/32 cert",
        ] {
            wanted = wanted.hba(line);
        }
        let mut server = PgServer::start(wanted);
        server.psql(
            "SET password_encryption = 'scram-sha-256';
             CREATE ROLE scram LOGIN PASSWORD 'pw'; CREATE ROLE clear LOGIN PASSWORD 'pw';
             CREATE ROLE bare LOGIN; CREATE ROLE holder LOGIN; CREATE ROLE anyway LOGIN;",
        );
        let (certificate, key) = certificate(&ours, "server", &["localhost"]);
        protect(&mut server, &certificate, &key, &ours.pem());
        Self { server, dir, ours }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Options for `localhost`, which the certificate names, or `127.0.0.1`, which it does not.
    fn at(&self, host: &str, user: &str, more: &str) -> String {
        let port = self.server.port();
        let more = more.replace("DIR", &self.dir.path().display().to_string());
        format!("host={host} port={port} user={user} dbname=postgres password=pw connect_timeout=30 {more}")
    }

    fn is_tls(&self, host: &str, user: &str, more: &str) -> Result<bool, PgError> {
        let mut connection = Connection::connect(&options(&self.at(host, user, more)), Mode::Sql)?;
        let seen = value(&mut connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
        assert_eq!(seen == "t", connection.is_tls());
        Ok(connection.is_tls())
    }
}

/// Gives the server a certificate and starts it again.
fn protect(server: &mut PgServer, certificate: &str, key: &str, authority: &str) {
    let data = server.data();
    for (name, content) in [("server.crt", certificate), ("server.key", key), ("root.crt", authority)] {
        let path = data.join(name);
        server.write(&path, content.as_bytes());
        set_mode(&path, 0o600);
    }
    let line = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    server.configure(&[line("ssl", "on"), line("ssl_ca_file", "root.crt")]);
    server.restart();
}

fn is_handshake(error: &PgError) -> bool {
    matches!(error, PgError::Tls { source: TlsFault::Tls(TlsError::Handshake(_)), .. })
}

#[test]
fn every_sslmode_gives_what_it_promises_and_refuses_what_it_must() {
    let fixture = Fixture::new();
    let is_tls = |host, user, more: &str| fixture.is_tls(host, user, more);
    for (mode, expected) in [("disable", false), ("allow", false), ("prefer", true), ("require", true)] {
        let more = format!("sslmode={mode}");
        assert_eq!(is_tls("127.0.0.1", "anyway", &more).unwrap(), expected, "{mode}");
    }
    // What `pg_hba.conf` refuses one way is tried the other way, where the mode allows it.
    assert!(is_tls("127.0.0.1", "scram", "sslmode=allow").unwrap());
    assert!(!is_tls("127.0.0.1", "bare", "sslmode=prefer").unwrap());
    for (user, mode) in [("scram", "disable"), ("bare", "require")] {
        let error = is_tls("127.0.0.1", user, &format!("sslmode={mode}")).unwrap_err();
        assert_eq!(code(&error), "28000");
    }
    // A wrong password is not tried again in the clear.
    let wrong = fixture.at("127.0.0.1", "clear", "sslmode=prefer").replace("=pw", "=no");
    assert_eq!(code(&login(&wrong).unwrap_err()), "28P01");
    assert!(is_tls("127.0.0.1", "clear", "sslmode=prefer").unwrap());

    for more in ["sslmode=require sslrootcert=DIR/ours.pem", "sslmode=verify-ca sslrootcert=DIR/ours.pem"] {
        assert!(is_tls("127.0.0.1", "anyway", more).unwrap());
        let error = is_tls("127.0.0.1", "anyway", &more.replace("ours", "other")).unwrap_err();
        assert!(is_handshake(&error) && chain(&error).contains("UnknownIssuer"), "{}", chain(&error));
        assert_eq!(error.kind(), FailureKind::Unreachable);
    }
    let full = "sslmode=verify-full sslrootcert=DIR/ours.pem";
    assert!(is_tls("localhost", "anyway", full).unwrap());
    let error = is_tls("127.0.0.1", "anyway", full).unwrap_err();
    assert!(is_handshake(&error) && chain(&error).contains("not valid for"), "{}", chain(&error));
    assert!(is_handshake(&is_tls("localhost", "anyway", &full.replace("ours", "other")).unwrap_err()));
    // The machine's own authorities know nothing of ours.
    let error = is_tls("localhost", "anyway", "sslmode=verify-full").unwrap_err();
    assert!(matches!(error, PgError::Tls { .. }), "{error:?}");
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let server = PgServer::start(PgOptions::new(16));
    let text = |mode: &str| format!("host=127.0.0.1 port={} user=postgres sslmode={mode}", server.port());
    for mode in ["disable", "allow", "prefer"] {
        assert_eq!(login(&text(mode)).unwrap(), "postgres");
    }
    let error = login(&text("require")).unwrap_err();
    assert!(matches!(error, PgError::Tls { source: TlsFault::NotOffered, .. }), "{error:?}");
    let error = login(&text("verify-ca")).unwrap_err();
    assert!(matches!(error, PgError::Tls { source: TlsFault::NoRoots, .. }), "{error:?}");
    let socket = format!(
        "host={} port={} user=postgres sslmode=require",
        server.socket_dir().display(),
        server.port()
    );
    assert_eq!(login(&socket).unwrap(), "postgres");
}

#[test]
fn a_self_signed_certificate_is_its_own_authority() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("crt"), dir.path().join("key"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-sha512", "-nodes", "-subj", "/CN=db", "-days", "2"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl is missing; install the package openssl");
    assert!(output.status.success());
    let mut server =
        PgServer::start(PgOptions::new(WITH_TLS).hba("hostssl all scram 127.0.0.1/32 scram-sha-256"));
    server.psql("SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN PASSWORD 'pw'");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    protect(&mut server, &read(&certificate), &read(&key), &read(&certificate));
    let text = |host: &str| {
        format!(
            "host={host} port={} user=scram password=pw dbname=postgres sslmode=verify-full sslrootcert={} \
             channel_binding=require",
            server.port(),
            certificate.display()
        )
    };
    assert_eq!(login(&text("localhost")).unwrap(), "scram");
    let error = login(&text("127.0.0.1")).unwrap_err();
    assert!(is_handshake(&error) && chain(&error).contains("not valid for"), "{}", chain(&error));
}

#[test]
fn a_client_certificate_lets_its_holder_in() {
    let fixture = Fixture::new();
    let (certificate, key) = certificate(&fixture.ours, "holder", &[]);
    private_file(&fixture.path("crt"), certificate.as_bytes());
    private_file(&fixture.path("key"), key.as_bytes());
    let more = "sslmode=require sslcert=DIR/crt sslkey=DIR/key";
    assert!(fixture.is_tls("127.0.0.1", "holder", more).unwrap());
    // Canaries: no certificate, another's name, a key that others can read, no key at all.
    assert_eq!(code(&fixture.is_tls("127.0.0.1", "holder", "sslmode=require").unwrap_err()), "28000");
    let stranger = self::certificate(&fixture.ours, "stranger", &[]);
    private_file(&fixture.path("crt"), stranger.0.as_bytes());
    private_file(&fixture.path("key"), stranger.1.as_bytes());
    assert_eq!(code(&fixture.is_tls("127.0.0.1", "holder", more).unwrap_err()), "28000");
    set_mode(&fixture.path("key"), 0o644);
    let error = fixture.is_tls("127.0.0.1", "holder", more).unwrap_err();
    assert!(
        matches!(error, PgError::Tls { source: TlsFault::Tls(TlsError::Unusable { .. }), .. }),
        "{error:?}"
    );
    let error = fixture.is_tls("127.0.0.1", "holder", &more.replace("DIR/key", "DIR/gone")).unwrap_err();
    assert!(matches!(error, PgError::Tls { source: TlsFault::Tls(TlsError::File { .. }), .. }), "{error:?}");
    private_file(&fixture.path("key"), b"no key");
    let error = fixture.is_tls("127.0.0.1", "holder", more).unwrap_err();
    assert!(
        matches!(error, PgError::Tls { source: TlsFault::Tls(TlsError::Unusable { .. }), .. }),
        "{error:?}"
    );
}

#[test]
fn streams_waits_and_cancels_work_through_tls() {
    let fixture = Fixture::new();
    let more = "sslmode=verify-full sslrootcert=DIR/ours.pem";
    let mut connection =
        Connection::connect(&options(&fixture.at("localhost", "scram", more)), Mode::Sql).unwrap();
    connection
        .start("COPY (SELECT i, pg_sleep(CASE WHEN i % 5000 = 0 THEN 0.05 ELSE 0 END) FROM generate_series(1, 20000) i) TO STDOUT")
        .unwrap();
    let (mut lines, mut nothing) = (0, 0);
    loop {
        match connection.next_within(Duration::from_millis(1)).unwrap() {
            Some(Event::Data(data)) => {
                lines += 1;
                assert!(data.starts_with(format!("{lines}\t").as_bytes()));
            }
            Some(Event::Ready) => break,
            Some(_) => {}
            None => nothing += 1,
        }
    }
    assert_eq!(lines, 20_000);
    assert!(nothing > 0);
    connection.start("SELECT pg_sleep(600)").unwrap();
    assert!(connection.next_within(Duration::from_millis(20)).unwrap().is_none());
    connection.cancel().unwrap();
    let error = loop {
        if let Err(error) = connection.next() {
            break error;
        }
    };
    assert_eq!(code(&error), "57014");
}

/// Accepts one connection, shows a certificate of its own, and passes everything on to the server.
fn impostor(authority: &Authority, server_port: u16) -> (u16, JoinHandle<()>) {
    let (certificate, key) = certificate(authority, "impostor", &["localhost"]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let mut victim = listener.accept().unwrap().0;
        let mut request = [0; 8];
        victim.read_exact(&mut request).unwrap();
        victim.write_all(b"S").unwrap();
        let tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut victim = rustls::StreamOwned::new(tls, victim);
        let mut server = Tunnel::to(server_port);
        let limit = Some(Duration::from_millis(5));
        victim.sock.set_read_timeout(limit).unwrap();
        server.stream.sock.set_read_timeout(limit).unwrap();
        while pass(&mut victim, &mut server.stream) && pass(&mut server.stream, &mut victim) {}
    });
    (port, thread)
}

/// The impostor's own TLS connection to the real server, which believes any certificate.
struct Tunnel {
    stream: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
}

impl Tunnel {
    fn to(port: u16) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
        let mut yes = [0];
        socket.read_exact(&mut yes).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        Self { stream: rustls::StreamOwned::new(tls, socket) }
    }
}

/// Passes on what is there; false when either side is gone.
fn pass(from: &mut impl Read, to: &mut impl Write) -> bool {
    let mut buffer = [0; 16_384];
    match from.read(&mut buffer) {
        Ok(0) => false,
        Ok(count) => to.write_all(&buffer[..count]).is_ok(),
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[derive(Debug)]
struct Gullible(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &rustls::pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn an_impostor_in_the_middle_cannot_pass_on_a_login_that_is_bound_to_the_session() {
    let fixture = Fixture::new();
    let stranger = authority("stranger", KeyPair::generate().unwrap());
    let through = |binding: &str| {
        let (port, thread) = impostor(&stranger, fixture.server.port());
        let text = format!(
            "host=127.0.0.1 port={port} user=scram password=pw dbname=postgres sslmode=require \
             connect_timeout=30 channel_binding={binding}"
        );
        let result = login(&text);
        thread.join().unwrap();
        result
    };
    // Canary: without the binding the impostor sits in the middle and nobody notices.
    assert_eq!(through("disable").unwrap(), "scram");
    for binding in ["prefer", "require"] {
        let error = through(binding).unwrap_err();
        assert!(matches!(error, PgError::Authentication { .. }), "{error:?}");
    }
    // And without an impostor the binding holds.
    let direct = fixture.at("127.0.0.1", "scram", "sslmode=require channel_binding=require");
    assert_eq!(login(&direct).unwrap(), "scram");
    let unbound = fixture.at("127.0.0.1", "clear", "sslmode=require channel_binding=require");
    let error = login(&unbound).unwrap_err();
    let refused = matches!(error, PgError::Authentication { source: AuthFault::ChannelBinding(_), .. });
    assert!(refused, "{error:?}");
}
