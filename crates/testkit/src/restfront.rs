//! A REST front before a real Redis server, as services have one, that misbehaves as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_redis::wire::{ConnectOptions, Connection, Reply};
use serde_json::{Value, json};

use crate::fail::need;
use crate::redisserver::RedisServer;

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It is answered.
    Answer,
    /// It is not looked at: this status, and how many seconds to wait.
    Refuse(u16, Option<u64>),
    /// It is carried out, and its answer is lost: this status comes instead.
    Lose(u16),
    /// It is carried out, and half of its answer comes.
    Cut,
    /// It is carried out, and its answer comes in pieces with pauses.
    Drip,
}

type Moods = Arc<dyn Fn(u64) -> Mood + Send + Sync>;

/// What a front has in mind.
#[derive(Clone)]
struct Front {
    redis: ConnectOptions,
    token: String,
    mood: Moods,
    requests: Arc<AtomicU64>,
    /// Each command's name, in order.
    commands: Arc<Mutex<Vec<String>>>,
    takes_bytes: bool,
}

/// A front on a port of 127.0.0.1 that listens as long as the test runs.
pub struct RestFront {
    front: Front,
    port: u16,
}

impl std::fmt::Debug for RestFront {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestFront").field("port", &self.port).finish_non_exhaustive()
    }
}

impl RestFront {
    /// Before this server, for those who have the token. `mood` is asked with the number of each request, from 0.
    #[track_caller]
    pub fn start(
        server: &RedisServer,
        token: &str,
        takes_bytes: bool,
        mood: impl Fn(u64) -> Mood + Send + Sync + 'static,
    ) -> Self {
        let listener = need(TcpListener::bind("127.0.0.1:0"), "no port for a front");
        let port = need(listener.local_addr(), "no port for a front").port();
        let front = Front {
            redis: server.options(),
            token: token.to_owned(),
            mood: Arc::new(mood),
            requests: Arc::default(),
            commands: Arc::default(),
            takes_bytes,
        };
        let served = front.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let front = served.clone();
                std::thread::spawn(move || drop(front.serve(stream)));
            }
        });
        Self { front, port }
    }

    /// Its address, without the token.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests that have come.
    pub fn requests(&self) -> u64 {
        self.front.requests.load(Ordering::SeqCst)
    }

    /// The names of the commands that were carried out.
    pub fn commands(&self) -> Vec<String> {
        self.front.commands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A request, as far as it matters.
struct Request {
    path: String,
    query: String,
    authorized: bool,
    base64: bool,
    body: Vec<u8>,
}

fn request(reader: &mut BufReader<TcpStream>, token: &str) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let address = line.split(' ').nth(1).unwrap_or_default();
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let mut request = Request { path, query, authorized: false, base64: false, body: Vec::new() };
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or_default(),
            "authorization" => request.authorized = value == format!("Bearer {token}"),
            "upstash-encoding" => request.base64 = value == "base64",
            _ => {}
        }
    }
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}

impl Front {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        let mut redis = Connection::open(&self.redis).map_err(std::io::Error::other)?;
        while let Some(request) = request(&mut reader, &self.token)? {
            let mood = (self.mood)(self.requests.fetch_add(1, Ordering::SeqCst));
            if let Mood::Refuse(status, wait_s) = mood {
                let wait = wait_s.map(|wait_s| format!("Retry-After: {wait_s}\r\n")).unwrap_or_default();
                write!(stream, "HTTP/1.1 {status} No\r\n{wait}Content-Length: 0\r\n\r\n")?;
                continue;
            }
            let (status, answer) = self.answer(&request, &mut redis);
            let text = answer.to_string();
            match mood {
                Mood::Lose(status) => write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n")?,
                Mood::Cut => {
                    write!(stream, "HTTP/1.1 {status} Yes\r\nContent-Length: {}\r\n\r\n", text.len())?;
                    stream.write_all(&text.as_bytes()[..text.len() / 2])?;
                    return Ok(());
                }
                Mood::Drip => {
                    write!(stream, "HTTP/1.1 {status} Yes\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                    for piece in text.as_bytes().chunks(text.len().div_ceil(3).max(1)) {
                        write!(stream, "{:x}\r\n", piece.len())?;
                        stream.write_all(piece)?;
                        stream.write_all(b"\r\n")?;
                        stream.flush()?;
                        std::thread::park_timeout(Duration::from_millis(5));
                    }
                    stream.write_all(b"0\r\n\r\n")?;
                }
                _ => write!(stream, "HTTP/1.1 {status} Yes\r\nContent-Length: {}\r\n\r\n{text}", text.len())?,
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Request, redis: &mut Connection) -> (u16, Value) {
        if !request.authorized {
            return (401, json!({ "error": "Unauthorized" }));
        }
        if request.path == "/pipeline" {
            let Ok(commands) = serde_json::from_slice::<Vec<Vec<String>>>(&request.body) else {
                return (400, json!({ "error": "ERR failed to parse pipeline request" }));
            };
            let run = |command: &Vec<String>| {
                let parts: Vec<Vec<u8>> = command.iter().map(|part| part.clone().into_bytes()).collect();
                self.run(&parts, request.base64, redis)
            };
            return (200, Value::Array(commands.iter().map(run).collect()));
        }
        let mut parts: Vec<Vec<u8>> =
            request.path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        if !self.takes_bytes {
            parts =
                parts.iter().map(|part| String::from_utf8_lossy(part).into_owned().into_bytes()).collect();
        }
        if !request.body.is_empty() {
            parts.push(request.body.clone());
        }
        for pair in request.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parts.extend([decoded(name), decoded(value)]);
        }
        let answer = self.run(&parts, request.base64, redis);
        (if answer.get("error").is_some() { 400 } else { 200 }, answer)
    }

    fn run(&self, parts: &[Vec<u8>], base64: bool, redis: &mut Connection) -> Value {
        let name = String::from_utf8_lossy(parts.first().map(Vec::as_slice).unwrap_or_default()).into_owned();
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        match redis.command(&parts) {
            Ok(reply) => json!({ "result": value(&reply, base64) }),
            Err(error) => match error.server() {
                Some(source) => json!({ "error": format!("{} {}", source.code, source.message) }),
                None => json!({ "error": "ERR the server is gone" }),
            },
        }
    }
}

fn value(reply: &Reply, base64: bool) -> Value {
    match reply {
        Reply::Null => Value::Null,
        Reply::Integer(number) => json!(number),
        Reply::Simple(text) if text == b"OK" => json!("OK"),
        Reply::Simple(bytes) | Reply::Bulk(bytes) if base64 => json!(STANDARD.encode(bytes)),
        Reply::Simple(bytes) | Reply::Bulk(bytes) => json!(String::from_utf8_lossy(bytes)),
        Reply::Array(members) => members.iter().map(|member| value(member, base64)).collect(),
        Reply::Error(source) => json!({ "error": source.message }),
    }
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit =
                || rest.next().and_then(|digit| char::from(digit).to_digit(16)).unwrap_or_default();
            let (high, low) = (digit(), digit());
            bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
        } else {
            bytes.push(byte);
        }
    }
    bytes
}
