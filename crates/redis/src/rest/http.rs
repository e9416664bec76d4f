//! Requests to one service and their whole answers, through `ureq`.
//!
//! What is switched off: proxies, redirects, repetitions, compression. An answer that does not come to its announced end is
//! a cut, never an answer. Memory: one request, one answer of at most [`MAX_BODY_BYTES`], and 256 KiB of buffers.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_net::{Door, LineError, NoNames};
use ureq::http::{HeaderMap, HeaderValue, Method, Request, header};
use ureq::{Agent, AsSendBody, Error, Timeout};
use zeroize::Zeroizing;

use super::options::RestOptions;
use crate::wire::{CONNECT_TIMEOUT, RedisError, SILENCE_LIMIT};

/// The largest answer: 64 MiB of content as base64.
const MAX_BODY_BYTES: u64 = 96 * 1024 * 1024;
/// The largest head of an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How long a connection without a request is kept: shorter than services keep theirs.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// How long things may take.
#[derive(Clone, Copy)]
struct Limits {
    /// A connection with its TLS.
    connect: Duration,
    /// Nothing comes, or nothing can be sent.
    silence: Duration,
    /// One request in all, however steadily its answer drips.
    whole: Duration,
}

const LIMITS: Limits =
    Limits { connect: CONNECT_TIMEOUT, silence: SILENCE_LIMIT, whole: Duration::from_secs(180) };

/// An answer that came whole.
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long the service asks us to wait.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// A connection that is made when it is needed, and kept.
pub(super) struct Http {
    options: RestOptions,
    limits: Limits,
    agent: Agent,
}

fn malformed() -> RedisError {
    RedisError::Protocol { what: "an answer that is no HTTP" }
}

impl Http {
    /// Nothing is contacted yet.
    pub(super) fn new(options: RestOptions) -> Self {
        Self::with_limits(options, LIMITS)
    }

    fn with_limits(options: RestOptions, limits: Limits) -> Self {
        let config = Agent::config_builder()
            // The builder begins with what the environment says.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(limits.connect))
            .timeout_per_read(Some(limits.silence))
            .timeout_per_write(Some(limits.silence))
            .timeout_global(Some(limits.whole))
            .max_response_header_size(MAX_HEAD_BYTES)
            .max_idle_connections(1)
            .max_idle_age(MAX_IDLE)
            .user_agent("lifeboat")
            .accept("application/json")
            .build();
        let agent =
            Agent::with_parts(config, Door::new(options.address.clone(), options.tls.clone()), NoNames);
        Self { options, limits, agent }
    }

    pub(super) fn options(&self) -> &RestOptions {
        &self.options
    }

    /// Asks for a path; gives the answer, whatever its status. `path` begins with a slash and is encoded already.
    pub(super) fn get(&self, path: &str) -> Result<Answer, RedisError> {
        self.request(Method::GET, path, ())
    }

    /// The same, with a body.
    pub(super) fn post(&self, path: &str, body: &[u8]) -> Result<Answer, RedisError> {
        self.request(Method::POST, path, body)
    }

    fn request(&self, method: Method, path: &str, body: impl AsSendBody) -> Result<Answer, RedisError> {
        let mut request = Request::builder()
            .uri(self.options.url(path))
            .header(header::AUTHORIZATION, self.authorization()?)
            .header("upstash-encoding", "base64");
        if method == Method::POST {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .method(method)
            .body(body)
            .map_err(|_invalid| RedisError::Protocol { what: "a request that cannot be written as HTTP" })?;
        let (head, mut body) = self.agent.run(request).map_err(|error| self.error(error))?.into_parts();
        if is_encoded(&head.headers) {
            return Err(malformed());
        }
        if body.content_length().is_some_and(|length| length > MAX_BODY_BYTES) {
            return Err(RedisError::too_large());
        }
        // The limit is an error as soon as it is reached.
        let body = body.with_config().limit(MAX_BODY_BYTES + 1).read_to_vec();
        // A date is not looked at: our own pauses do as well.
        let seconds =
            head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Answer {
            status: head.status.as_u16(),
            retry_after: seconds.map(Duration::from_secs),
            body: body.map_err(|error| self.error(error))?,
        })
    }

    /// The token as it is sent; masked in `Debug`, and wiped when nobody needs it any more.
    fn authorization(&self) -> Result<HeaderValue, RedisError> {
        let text = Zeroizing::new(format!("Bearer {}", self.options.token.expose()).into_bytes());
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text))
            .map_err(|_invalid| RedisError::Protocol { what: "a token that cannot be written as HTTP" })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn error(&self, error: Error) -> RedisError {
        let target = self.options.target();
        let silent = |limit| RedisError::Silent { target: target.clone(), limit };
        match error {
            // What our own connection had to say.
            Error::Other(own) => match own.downcast().map(|own| *own) {
                Ok(LineError::Unreachable(source)) => RedisError::Unreachable { target, source },
                Ok(LineError::Tls(source)) => RedisError::Tls { target, source },
                Ok(LineError::Closed(source)) => RedisError::Closed { target, source },
                Ok(LineError::Endless) => RedisError::Protocol { what: "a line of HTTP that does not end" },
                Err(_other) => malformed(),
            },
            Error::Timeout(Timeout::Connect) => silent(self.limits.connect),
            Error::Timeout(Timeout::PerRead | Timeout::PerWrite) => silent(self.limits.silence),
            Error::Timeout(_) => silent(self.limits.whole),
            Error::Io(error) if error.kind() != ErrorKind::UnexpectedEof => {
                RedisError::Closed { target, source: Some(error) }
            }
            Error::Io(_) | Error::BodyStalled => RedisError::Closed { target, source: None },
            Error::BodyExceedsLimit(_) => RedisError::too_large(),
            _ => malformed(),
        }
    }
}

/// Whether an answer is compressed, or in another form that nobody asked for.
fn is_encoded(headers: &HeaderMap) -> bool {
    let is = |value: &HeaderValue, plain: &str| value.as_bytes().eq_ignore_ascii_case(plain.as_bytes());
    let mut contents = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut transfers = headers.get_all(header::TRANSFER_ENCODING).iter();
    !contents.all(|value| is(value, "identity"))
        || !transfers.all(|value| is(value, "identity") || is(value, "chunked"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use lifeboat_base::secret::Secret;

    use super::*;

    /// A service that takes one request and says `head`, and then a byte every few milliseconds as long as somebody listens.
    fn dripping(head: &'static str, drips: bool) -> RestOptions {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(peer.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            peer.write_all(head.as_bytes()).unwrap();
            while drips && peer.write_all(b"1").is_ok() {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            drop(reader.read_line(&mut line));
        });
        let url = Secret::new(format!("http://:canary@127.0.0.1:{port}"));
        RestOptions::parse(&url, None).unwrap()
    }

    #[test]
    fn a_service_that_says_nothing_or_never_comes_to_an_end_is_not_waited_for() {
        let (silence, whole) = (Duration::from_millis(200), Duration::from_millis(400));
        let limits = Limits { connect: whole, silence, whole };
        for (head, drips, expected) in [
            ("", false, silence),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9", false, silence),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", false, silence),
            ("HTTP/1.1 200 OK\r\nX: ", true, whole),
            ("HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", true, whole),
            ("HTTP/1.1 200 OK\r\n\r\n", true, whole),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, whole),
        ] {
            let http = Http::with_limits(dripping(head, drips), limits);
            match http.get("/PING").map(|answer| answer.body) {
                Err(RedisError::Silent { limit, .. }) => assert_eq!(limit, expected, "{head}"),
                other => panic!("{head}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_token_is_masked_where_a_request_is_shown_and_where_it_is_traced() {
        let http = Http::new(dripping("", false));
        let value = http.authorization().unwrap();
        assert_eq!(value.as_bytes(), b"Bearer canary");
        assert!(!format!("{value:?} {:?} {:?}", http.options, http.agent).contains("canary"));
        assert!(log::STATIC_MAX_LEVEL < log::LevelFilter::Trace);
    }
}
