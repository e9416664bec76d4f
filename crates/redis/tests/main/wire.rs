//! Logging in, TLS, and options that keep their secrets.

use std::path::Path;

use lifeboat_base::secret::Secret;
use lifeboat_redis::wire::{ConnectOptions, Connection, RedisError};
use lifeboat_testkit::{RedisOptions, RedisServer};

fn parse(text: &str) -> Result<ConnectOptions, RedisError> {
    ConnectOptions::parse(&Secret::new(text.to_owned()))
}

#[test]
fn addresses_are_read_and_no_error_or_debug_shows_a_piece_of_the_text() {
    for (text, target) in [
        ("redis://host", "host:6379"),
        ("redis://host:7000/3", "host:7000"),
        ("redis://:canary@host", "host:6379"),
        ("redis://user:can%40ary@[::1]:7", "user@[::1]:7"),
        ("rediss://user:canary@host?ca_file=/ca", "user@host:6379"),
        ("unix:///run/redis.sock?user=u&password=canary", "u@/run/redis.sock"),
    ] {
        let options = parse(text).unwrap();
        assert_eq!(options.target(), target);
        assert!(!format!("{options:?}").contains("ary"), "{options:?}");
    }
    for text in [
        "canary",
        "http://canary",
        "redis://",
        "redis://user@host",
        "redis://:can%zzary@host",
        "redis://host:canary",
        "redis://host?canary=1",
        "redis://host?ca_file=canary",
        "redis://host:1?connect_timeout=canary",
        "rediss://host?cert_file=canary",
        "unix://canary",
        "redis://:a@host?password=canary",
    ] {
        let error = parse(text).unwrap_err();
        let shown = format!("{} {error:?}", lifeboat_base::failure::chain(&error));
        assert!(!shown.contains("canary"), "{text}: {shown}");
    }
}

#[test]
fn a_wrong_password_is_refused_and_never_shown() {
    let server = RedisServer::start(RedisOptions::default().set("user", "backup on >right-canary +ping"));
    let open = |password: &str| {
        Connection::open(&server.options().with_login("backup", Secret::new(password.to_owned())))
    };
    let mut connection = open("right-canary").unwrap();
    connection.ask("PING").unwrap();
    let error = connection.ask("GET x").unwrap_err();
    assert_eq!(error.server().unwrap().code, "NOPERM");
    // The connection is still good.
    connection.ask("PING").unwrap();
    let error = open("wrong-canary").unwrap_err();
    assert!(matches!(error, RedisError::Authentication { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("canary"));
    // A server that does not know the command repeats what was sent.
    let strange = RedisServer::start(RedisOptions::default().set("rename-command", "AUTH \"\""));
    let options = strange.options().with_login("u", Secret::new("canary".to_owned()));
    let error = Connection::open(&options).unwrap_err();
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
}

/// A certificate that names `localhost` and nobody signed, with its key.
pub(super) struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        for (name, text) in [("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())] {
            lifeboat_base::crashsafe::write_new(&dir.path().join(name), text.as_bytes()).unwrap();
        }
        Self { dir }
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }
}

#[test]
fn tls_is_spoken_and_a_server_that_cannot_show_who_it_is_gets_no_password() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = RedisServer::start(
        RedisOptions::default()
            .set("tls-port", 0)
            .set("tls-cert-file", pki.path("cert.pem"))
            .set("tls-key-file", pki.path("key.pem"))
            .set("tls-ca-cert-file", pki.path("cert.pem"))
            .set("tls-auth-clients", "no"),
    );
    // The port is made TLS' own, so that no second one is needed.
    server.run("CONFIG SET port 0");
    server.run(&format!("CONFIG SET tls-port {}", server.port()));
    let url = |host: &str, ca: &str| format!("rediss://{host}:{}?ca_file={ca}", server.port());
    let open = |host: &str, ca: &str| Connection::open(&parse(&url(host, ca)).unwrap());
    open("localhost", &pki.path("cert.pem")).unwrap().ask("PING").unwrap();
    for (host, ca) in [("127.0.0.1", pki.path("cert.pem")), ("localhost", other.path("cert.pem"))] {
        let error = open(host, &ca).unwrap_err();
        assert!(matches!(error, RedisError::Tls { .. }), "{error:?}");
    }
    // In the clear there is nobody.
    let plain = parse(&format!("redis://localhost:{}", server.port())).unwrap();
    assert!(Connection::open(&plain).and_then(|mut connection| connection.ask("PING")).is_err());
    assert!(Path::new(&pki.path("cert.pem")).exists());
}
