//! Servers that are silent, broken or malicious: every one ends in a typed error, soon, and learns no password.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lifeboat_base::failure::{FailureKind, chain};
use lifeboat_postgres::wire::{
    AuthFault, ConnectOptions, Connection, Event, Mode, PgError, TlsError, TlsFault,
};

use proptest::prelude::*;

use super::support::{code, options};

const PASSWORD: &str = "cAnArY-of-the-password";

/// A message of the protocol.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend((u32::try_from(body.len()).unwrap() + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn authentication(kind: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes(), body].concat())
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn welcome() -> Vec<u8> {
    [authentication(0, b""), ready()].concat()
}

/// A fake server for one connection: `script` is run on it, and everything that came is given back.
struct Fake {
    port: u16,
    thread: JoinHandle<Vec<u8>>,
}

/// The fake's side of the connection.
struct Peer {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Peer {
    /// Reads whatever comes next; nothing at the end.
    fn hear(&mut self) -> Vec<u8> {
        let mut buffer = [0; 16_384];
        let count = self.stream.read(&mut buffer).unwrap_or(0);
        self.heard.extend_from_slice(&buffer[..count]);
        buffer[..count].to_vec()
    }

    /// The peer may be gone already, as it should be after an outrage.
    fn say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }
}

impl Fake {
    fn new(script: impl FnOnce(&mut Peer) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let mut peer = Peer { stream: listener.accept().unwrap().0, heard: Vec::new() };
            script(&mut peer);
            peer.heard
        });
        Self { port, thread }
    }

    /// Says these things, each after something was heard, and waits for the end.
    fn saying(lines: Vec<Vec<u8>>) -> Self {
        Self::new(move |peer| {
            for line in lines {
                peer.hear();
                peer.say(&line);
            }
            while !peer.hear().is_empty() {}
        })
    }

    fn options(&self, more: &str) -> ConnectOptions {
        options(&format!(
            "host=127.0.0.1 port={} user=app password={PASSWORD} sslmode=disable {more}",
            self.port
        ))
        .with_connect_timeout(Duration::from_secs(20))
    }

    /// The error of connecting, after which the fake must have heard no password.
    fn error(self, options: &ConnectOptions) -> PgError {
        let error = Connection::connect(options, Mode::Sql).unwrap_err();
        let heard = self.thread.join().unwrap();
        assert!(!heard.windows(6).any(|piece| piece == b"cAnArY"));
        let shown = format!("{} {error:?}", chain(&error));
        assert!(!shown.contains("cAnArY"), "{shown}");
        error
    }
}

#[expect(clippy::disallowed_methods, reason = "the test measures")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_server_that_never_answers_is_silent_within_the_limit() {
    for tls in ["sslmode=require", ""] {
        let fake = Fake::saying(Vec::new());
        let text = format!("host=127.0.0.1 port={} user=app {tls}", fake.port);
        let limit = Duration::from_millis(300);
        let options = options(&text).with_connect_timeout(limit);
        let began = now();
        let error = fake.error(&options);
        assert!(matches!(error, PgError::Silent { limit: shown, .. } if shown == limit), "{error:?}");
        assert_eq!(error.kind(), FailureKind::Unreachable);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_server_that_stops_answering_is_silent_within_the_limit() {
    let fake = Fake::saying(vec![welcome(), [message(b'T', &[0, 0]), vec![b'D', 0]].concat()]);
    let limit = Duration::from_millis(300);
    let mut connection = Connection::connect(&fake.options("").with_silence_limit(limit), Mode::Sql).unwrap();
    connection.start("SELECT").unwrap();
    assert!(matches!(connection.next().unwrap(), Event::Columns(_)));
    // Half a message is not an event, and a short wait for one is not an error.
    assert!(connection.next_within(Duration::from_millis(20)).unwrap().is_none());
    let began = now();
    let error = connection.next().unwrap_err();
    assert!(matches!(error, PgError::Silent { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(matches!(connection.next().unwrap_err(), PgError::Misuse { .. }));
}

#[test]
fn a_server_that_reads_nothing_is_silent_within_the_limit() {
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
    let fake = Fake::new(move |peer| {
        peer.hear();
        peer.say(&[welcome(), message(b'G', &[0, 0, 0])].concat());
        assert!(stopped.recv().is_err());
    });
    let options = fake.options("").with_silence_limit(Duration::from_millis(300));
    let mut connection = Connection::connect(&options, Mode::Sql).unwrap();
    connection.start("COPY t FROM STDIN").unwrap();
    assert!(matches!(connection.next().unwrap(), Event::CopyIn));
    let piece = vec![b'x'; 1 << 20];
    let error = (0..1_000).find_map(|_| connection.send_copy(&piece).err()).unwrap();
    assert!(matches!(error, PgError::Silent { .. }), "{error:?}");
    drop((stop, connection));
    fake.thread.join().unwrap();
}

#[test]
fn an_error_in_the_middle_of_a_login_is_shown_printable_and_bounded() {
    let body = [b"SFATAL\0C53300\0Mtoo many\x1b[2J clients ", "x".repeat(9_000).as_bytes(), b"\0\0"].concat();
    for before in [Vec::new(), authentication(0, b"")] {
        let script = [before, message(b'E', &body)].concat();
        let fake = Fake::new(move |peer| {
            peer.hear();
            peer.say(&script);
        });
        let options = fake.options("");
        let error = fake.error(&options);
        assert_eq!((code(&error), error.kind()), ("53300", FailureKind::Unreachable));
        let shown = chain(&error);
        assert!(shown.contains("too many\u{fffd}[2J clients") && shown.len() < 2_300, "{shown}");
    }
}

#[test]
fn lengths_and_floods_that_would_fill_memory_end_the_connection() {
    let flood = |tag: u8, body: &[u8]| {
        let line = message(tag, body).repeat(1_000);
        Fake::new(move |peer| {
            peer.hear();
            peer.say(&authentication(0, b""));
            while peer.say(&line) {}
        })
    };
    let long = || Fake::saying(vec![[b"R".as_slice(), &[0x7F, 0xFF, 0xFF, 0xFF]].concat()]);
    let fakes: [(Fake, &str); 4] = [
        (long(), "longer than 64 KiB"),
        (Fake::saying(vec![vec![b'R', 0, 0, 0, 0]]), "shorter than its own length"),
        (flood(b'S', b"name\0value\0"), "without end"),
        (flood(b'N', b"SNOTICE\0Mx\0\0"), "without end"),
    ];
    for (fake, expected) in fakes {
        let options = fake.options("");
        let error = fake.error(&options);
        assert!(matches!(error, PgError::Protocol { .. }) && error.to_string().contains(expected), "{error}");
    }
    // After the login: more is believed, but not everything.
    let row = message(b'D', &[0, 1, 0, 0, 0, 9, b'x']);
    for (answer, expected) in [
        (vec![b'd', 4, 0, 0, 1], "longer than 64 MiB"),
        (message(b'S', b"a\0b\0").repeat(20_000), "without content"),
        ([message(b'T', &[0, 0]), row].concat(), "malformed row"),
        (message(b'D', &[0, 1, 0, 0, 0, 0]), "other columns"),
        (message(b'~', b""), "unknown message"),
        (message(b'R', &[0, 0, 0, 0]), "unexpected message"),
    ] {
        let fake = Fake::saying(vec![welcome(), answer]);
        let mut connection = Connection::connect(&fake.options(""), Mode::Sql).unwrap();
        let error = connection.query("SELECT").unwrap_err();
        assert!(matches!(error, PgError::Protocol { .. }) && error.to_string().contains(expected), "{error}");
        drop(connection);
        fake.thread.join().unwrap();
    }
}

#[test]
fn the_password_never_leaves_in_the_clear() {
    let fake = Fake::saying(vec![authentication(3, b"")]);
    let options = fake.options("");
    let error = fake.error(&options);
    assert!(matches!(error, PgError::Authentication { source: AuthFault::Cleartext, .. }), "{error:?}");
    for (kind, name) in [(7, "GSSAPI"), (9, "SSPI"), (2, "Kerberos 5"), (6, "SCM credentials")] {
        let fake = Fake::saying(vec![authentication(kind, b"")]);
        let options = fake.options("");
        let error = fake.error(&options);
        assert!(
            matches!(error, PgError::Authentication { source: AuthFault::Method(shown), .. } if shown == name)
        );
    }
}

const OFFER: &[u8] = b"SCRAM-SHA-256\0\0";

/// The nonce in the client's first message.
fn nonce(first: &[u8]) -> String {
    let text = String::from_utf8_lossy(first).into_owned();
    text.rsplit_once("r=").unwrap().1.to_owned()
}

#[test]
fn a_server_that_cannot_prove_that_it_knows_the_password_is_not_believed() {
    // It lets us in as soon as, or instead of, owing a proof.
    let early = Fake::saying(vec![authentication(10, OFFER), welcome()]);
    let options = early.options("");
    let error = early.error(&options);
    assert!(matches!(error, PgError::Authentication { source: AuthFault::ServerNotProven, .. }), "{error:?}");
    let challenge = |first: &[u8], count: u64| {
        authentication(11, format!("r={}x,s=c2FsdHNhbHQ=,i={count}", nonce(first)).as_bytes())
    };
    let late = Fake::new(move |peer| {
        peer.hear();
        peer.say(&authentication(10, OFFER));
        let first = peer.hear();
        peer.say(&challenge(&first, 4096));
        peer.hear();
        peer.say(&welcome());
        peer.hear();
    });
    let options = late.options("");
    let error = late.error(&options);
    assert!(matches!(error, PgError::Authentication { source: AuthFault::ServerNotProven, .. }), "{error:?}");
    // Or it gives a wrong proof.
    let wrong = Fake::new(move |peer| {
        peer.hear();
        peer.say(&authentication(10, OFFER));
        let first = peer.hear();
        peer.say(&challenge(&first, 4096));
        peer.hear();
        let proof = authentication(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        peer.say(&[proof, welcome()].concat());
        peer.hear();
    });
    let options = wrong.options("");
    let error = wrong.error(&options);
    assert!(matches!(error, PgError::Authentication { source: AuthFault::Scram(_), .. }), "{error:?}");
    // Or it keeps us computing.
    let costly = Fake::new(move |peer| {
        peer.hear();
        peer.say(&authentication(10, OFFER));
        let first = peer.hear();
        peer.say(&challenge(&first, 4_000_000_000));
        peer.hear();
    });
    let options = costly.options("");
    let began = now();
    let error = costly.error(&options);
    assert!(matches!(error, PgError::Authentication { source: AuthFault::Scram(_), .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    // Or it is not asked for, although we want it.
    let trusting = Fake::saying(vec![welcome()]);
    let options = trusting.options("channel_binding=require");
    let error = trusting.error(&options);
    let bound = matches!(error, PgError::Authentication { source: AuthFault::ChannelBinding(_), .. });
    assert!(bound, "{error:?}");
}

#[test]
fn an_answer_to_the_request_for_tls_that_is_none_ends_there() {
    for (answer, mode) in
        [(b"N".to_vec(), "require"), (b"X".to_vec(), "require"), (b"HTTP".to_vec(), "prefer")]
    {
        let fake = Fake::new(move |peer| {
            peer.hear();
            peer.say(&answer);
        });
        let text = format!("host=127.0.0.1 port={} user=app password={PASSWORD} sslmode={mode}", fake.port);
        let error = fake.error(&options(&text));
        let fault =
            matches!(error, PgError::Tls { source: TlsFault::NotOffered | TlsFault::NotPostgres, .. });
        assert!(fault, "{error:?}");
    }
    // Bytes slipped in behind the yes belong to the handshake, which they break.
    let fake = Fake::new(|peer| {
        peer.hear();
        peer.say(&[b"S".to_vec(), welcome()].concat());
        peer.hear();
    });
    let text = format!("host=127.0.0.1 port={} user=app password={PASSWORD} sslmode=require", fake.port);
    let error = fake.error(&options(&text));
    assert!(matches!(error, PgError::Tls { source: TlsFault::Tls(TlsError::Handshake(_)), .. }), "{error:?}");
    // An error in place of an answer is shown.
    let fake = Fake::saying(vec![message(b'E', b"SFATAL\0C57P03\0Mstarting up\0\0")]);
    let text = format!("host=127.0.0.1 port={} user=app password={PASSWORD} sslmode=require", fake.port);
    assert_eq!(code(&fake.error(&options(&text))), "57P03");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn whatever_a_server_says_is_an_answer_or_a_typed_error(
        login in proptest::collection::vec((0u32..14, proptest::collection::vec(any::<u8>(), 0..24)), 0..3),
        welcomed: bool,
        tag: u8,
        body in proptest::collection::vec(any::<u8>(), 0..40),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut lines: Vec<_> = login.iter().map(|(kind, body)| authentication(*kind, body)).collect();
        if welcomed {
            lines = vec![welcome()];
        }
        let fake = Fake::new(move |peer| {
            for line in lines {
                peer.hear();
                peer.say(&line);
            }
            peer.hear();
            peer.say(&[message(tag, &body), message(b'D', &body), tail].concat());
        });
        if let Ok(mut connection) = Connection::connect(&fake.options(""), Mode::Sql) {
            // A fake ends the connection; only a real end of an answer comes before.
            drop(connection.query("SELECT"));
        }
        fake.thread.join().unwrap();
    }
}
