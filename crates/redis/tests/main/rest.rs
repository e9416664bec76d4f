//! Services over HTTP that say anything: what is an answer, what is a cut, and to whom the token goes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use lifeboat_base::secret::Secret;
use lifeboat_base::time::SystemClock;
use lifeboat_redis::rest::{RestLink, RestOptions};
use lifeboat_redis::scan::{Link, Pace};
use lifeboat_redis::wire::{RedisError, Reply};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::wire::Pki;

const PONG: &str = r#"[{"result":"UE9ORw=="}]"#;

/// What a service says to one request, and how it ends the connection then, if it does.
#[derive(Clone)]
struct Act {
    words: Vec<u8>,
    ends: Ends,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Never,
    InOrder,
    /// As a cable that is pulled out ends it: without TLS' goodbye.
    Cut,
}

fn say(words: &str, ends: Ends) -> Act {
    Act { words: words.as_bytes().to_vec(), ends }
}

fn pong() -> Act {
    say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{PONG}", PONG.len()), Ends::Never)
}

/// A service of 127.0.0.1, in the clear or through TLS.
struct Service {
    port: u16,
    /// The heads of the requests of each connection.
    seen: Arc<Mutex<Vec<Vec<String>>>>,
    /// One for each connection that it has ended.
    ended: Receiver<()>,
}

impl Service {
    /// Acts one after the other, over as many connections as come.
    fn start(acts: Vec<Act>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
        let (end, ended) = sync_channel(64);
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut acts = acts.into_iter();
            for stream in listener.incoming().flatten() {
                noted.lock().unwrap().push(Vec::new());
                match &tls {
                    None => serve(stream, |_| {}, &mut acts, &noted, &end),
                    Some(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                        let stream = StreamOwned::new(connection, stream);
                        serve(stream, |stream| stream.conn.send_close_notify(), &mut acts, &noted, &end);
                    }
                }
            }
        });
        Self { port, seen, ended }
    }

    fn link(&self, scheme: &str, host: &str, query: &str) -> RestLink {
        let url = Secret::new(format!("{scheme}://{host}:{}/base{query}", self.port));
        let options = RestOptions::parse(&url, Some(Secret::new("canary".to_owned()))).unwrap();
        RestLink::new(options, Pace::new(Arc::new(SystemClock::new()), None))
    }

    fn plain(&self) -> RestLink {
        self.link("http", "127.0.0.1", "")
    }

    /// How many requests each connection has brought.
    fn requests(&self) -> Vec<usize> {
        self.seen.lock().unwrap().iter().map(Vec::len).collect()
    }
}

fn serve<S: Read + Write>(
    stream: S,
    goodbye: impl Fn(&mut S),
    acts: &mut impl Iterator<Item = Act>,
    seen: &Mutex<Vec<Vec<String>>>,
    end: &SyncSender<()>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(head) = request(&mut stream) {
        seen.lock().unwrap().last_mut().unwrap().push(head);
        let Some(act) = acts.next() else { break };
        drop(stream.get_mut().write_all(&act.words));
        if act.ends == Ends::InOrder {
            goodbye(stream.get_mut());
        }
        drop(stream.get_mut().flush());
        if act.ends != Ends::Never {
            break;
        }
    }
    drop(stream);
    // A test that is over does not listen any more.
    end.send(()).unwrap_or_default();
}

/// The head of a request that came whole, with its body.
fn request(stream: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap_or(0)]).ok()?;
    Some(head)
}

/// Asks once, without asking again.
fn ping(link: &mut RestLink) -> Result<Vec<Reply>, RedisError> {
    link.tell(0, &[vec![b"PING".to_vec()]])
}

fn is_pong(answer: &Result<Vec<Reply>, RedisError>) -> bool {
    matches!(answer.as_deref(), Ok([Reply::Bulk(text)]) if text == b"PONG")
}

fn once(words: &str, ends: Ends) -> Result<Vec<Reply>, RedisError> {
    ping(&mut Service::start(vec![say(words, ends)], None).plain())
}

#[test]
fn whole_answers_are_taken_in_every_form_that_http_has_for_them() {
    let (front, back) = PONG.split_at(5);
    for words in [
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{PONG}", PONG.len()),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\n{front}\r\n{:x}\r\n{back}\r\n0\r\nT: x\r\n\r\n",
            back.len()
        ),
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\n\r\n{PONG}"),
        format!("HTTP/1.0 200 OK\r\n\r\n{PONG}"),
        format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{PONG}"
        ),
    ] {
        let answer = once(&words, Ends::InOrder);
        assert!(is_pong(&answer), "{words}: {answer:?}");
    }
}

#[test]
fn a_cut_answer_is_a_cut_wherever_it_was_cut_and_can_be_asked_for_again() {
    let (front, back) = PONG.split_at(5);
    let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{PONG}", PONG.len());
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{front}\r\n{:x}\r\n{back}\r\n0\r\n",
        back.len()
    );
    let until_the_end = format!("HTTP/1.1 200 OK\r\n\r\n{PONG}");
    for words in [length, chunked, until_the_end] {
        for cut in 0..words.len() {
            let error = once(&words[..cut], Ends::InOrder).unwrap_err();
            assert!(matches!(error, RedisError::Closed { .. }), "{}: {error:?}", &words[..cut]);
        }
    }
}

#[test]
fn answers_that_are_no_http_too_large_or_compressed_are_refused() {
    let long = "x".repeat(70_000);
    for (words, is_large) in [
        ("hello\r\n\r\n".to_owned(), false),
        ("HTTP/2.0 200 OK\r\n\r\n".to_owned(), false),
        ("HTTP/1.1 099 OK\r\n\r\n".to_owned(), false),
        (format!("HTTP/1.1 200 OK\r\nX: {long}\r\n\r\n"), false),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{PONG}"), false),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{PONG}"), false),
        (format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n{PONG}"), false),
        (format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\n{PONG}"), false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n".to_owned(), false),
        (format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", long.repeat(3)), false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n".to_owned(), true),
    ] {
        let error = once(&words, Ends::InOrder).unwrap_err();
        let said = format!("{error:?} {error}");
        assert!(matches!(error, RedisError::Protocol { .. }), "{words:.80}: {said}");
        assert_eq!(said.contains("too large"), is_large, "{words:.80}: {said}");
        assert!(!said.contains("canary") && !said.contains("xxx"), "{said}");
    }
}

#[test]
fn an_answer_without_an_announced_length_ends_at_the_limit() {
    let piece = "x".repeat(1024 * 1024);
    let acts = vec![say(&format!("HTTP/1.1 200 OK\r\n\r\n{}", piece.repeat(97)), Ends::InOrder)];
    let error = ping(&mut Service::start(acts, None).plain()).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error:?}");
}

#[test]
fn one_connection_is_kept_and_one_that_has_ended_is_not_used_again() {
    let end = Act { ends: Ends::InOrder, ..pong() };
    let refusal = say("HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}", Ends::Never);
    let last = say(
        &format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{PONG}", PONG.len()),
        Ends::Never,
    );
    let service = Service::start(vec![pong(), refusal, pong(), end, last, pong()], None);
    let mut link = service.plain();
    assert!(is_pong(&ping(&mut link)));
    let busy = ping(&mut link).unwrap_err();
    assert_eq!(busy.again_after().map(|wait| wait.as_secs()), Some(7), "{busy:?}");
    assert!(is_pong(&ping(&mut link)) && is_pong(&ping(&mut link)));
    service.ended.recv().unwrap();
    // Nothing is sent on the one that has ended: commands that write go once only.
    assert!(is_pong(&ping(&mut link)) && is_pong(&ping(&mut link)));
    assert_eq!(service.requests(), [4, 1, 1]);
    let head = service.seen.lock().unwrap()[0][0].clone();
    for part in [
        "post /base/pipeline http/1.1\r\n",
        "\r\nauthorization: bearer canary\r\n",
        "\r\nuser-agent: lifeboat\r\n",
    ] {
        assert!(head.contains(part), "{head}");
    }
    assert!(!head.contains("accept-encoding"), "{head}");
}

#[test]
fn an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one() {
    let wrong = r#"[{"result":"V1JPTkc="}]"#;
    let two = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{PONG}HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{wrong}",
        PONG.len(),
        wrong.len()
    );
    let service = Service::start(vec![say(&two, Ends::Never), pong()], None);
    let mut link = service.plain();
    for _twice in 0..2 {
        let answer = ping(&mut link);
        assert!(is_pong(&answer), "{answer:?}");
    }
}

#[test]
fn no_redirect_is_followed() {
    let other = Service::start(vec![pong()], None);
    for status in [301, 302, 303, 307, 308] {
        let away = format!(
            "HTTP/1.1 {status} Away\r\nLocation: http://127.0.0.1:{}/base/pipeline\r\nContent-Length: 0\r\n\r\n",
            other.port
        );
        let service = Service::start(vec![say(&away, Ends::Never), pong()], None);
        let error = ping(&mut service.plain()).unwrap_err();
        assert!(error.to_string().contains("sends us to another address"), "{error}");
        assert_eq!(service.requests(), [1]);
    }
    assert!(other.requests().is_empty());
    assert!(is_pong(&ping(&mut other.plain())));
}

fn shown(pki: &Pki) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(pki.path("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(pki.path("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    Arc::new(config.unwrap())
}

#[test]
fn tls_is_kept_and_who_cannot_show_who_it_is_gets_no_token() {
    let (pki, other) = (Pki::new(), Pki::new());
    let service = Service::start(vec![pong(), pong(), pong()], Some(shown(&pki)));
    let query = |pki: &Pki| format!("?ca_file={}", pki.path("cert.pem"));
    for (host, query) in
        [("127.0.0.1", query(&pki)), ("localhost", query(&other)), ("localhost", String::new())]
    {
        let error = ping(&mut service.link("https", host, &query)).unwrap_err();
        assert!(matches!(error, RedisError::Tls { .. }), "{error:?}");
    }
    let error = ping(&mut service.link("http", "localhost", "")).unwrap_err();
    assert!(error.is_passing() || matches!(error, RedisError::Protocol { .. }), "{error:?}");
    assert!(service.requests().iter().all(|count| *count == 0));
    let mut link = service.link("https", "localhost", &query(&pki));
    for _kept in 0..3 {
        let answer = ping(&mut link);
        assert!(is_pong(&answer), "{answer:?}");
    }
    assert_eq!(service.requests().iter().rev().copied().find(|count| *count > 0), Some(3));
}

#[test]
fn an_answer_up_to_the_end_of_tls_needs_its_goodbye() {
    let pki = Pki::new();
    let words = format!("HTTP/1.1 200 OK\r\n\r\n{PONG}");
    let acts = vec![say(&words, Ends::InOrder), say(&words, Ends::Cut)];
    let service = Service::start(acts, Some(shown(&pki)));
    let mut link = service.link("https", "localhost", &format!("?ca_file={}", pki.path("cert.pem")));
    let answer = ping(&mut link);
    assert!(is_pong(&answer), "{answer:?}");
    let error = ping(&mut link).unwrap_err();
    assert!(matches!(error, RedisError::Closed { .. }), "{error:?}");
}
