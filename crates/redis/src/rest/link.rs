//! A service as a [`Link`]: pauses where it asks for them, asks again where that does no harm.

use super::http::{Answer, Http};
use super::json;
use super::options::RestOptions;
use crate::scan::{Command, Link, Pace, Patience};
use crate::wire::{RedisError, Reply, ServerError};

/// How many commands go in one request.
const AT_ONCE: usize = 100;
/// How many bytes of commands go in one request; services refuse large ones, some from 1 MB on.
const MOST_BYTES: usize = 512 * 1024;
/// How much of a command may stand in an address.
const MAX_PATH_BYTES: usize = 6 * 1024;

/// A service that is reached over REST. It has one database.
pub struct RestLink {
    http: Http,
    pace: Pace,
    /// Whether it takes what is no text; nothing where it was not asked yet.
    takes_bytes: Option<bool>,
}

impl std::fmt::Debug for RestLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestLink").field("target", &self.http.options().target()).finish_non_exhaustive()
    }
}

impl RestLink {
    /// Nothing is contacted yet.
    pub fn new(options: RestOptions, pace: Pace) -> Self {
        Self { http: Http::new(options), pace, takes_bytes: None }
    }

    /// Sends everything once, as few requests as it takes.
    fn once(&mut self, commands: &[Command]) -> Result<Vec<Reply>, RedisError> {
        let mut replies = Vec::with_capacity(commands.len());
        for run in commands.chunk_by(|one, next| json::is_text(one) && json::is_text(next)) {
            match json::pipeline(run) {
                Some(body) => replies.extend(self.pipeline(&body, run)?),
                None => {
                    for command in run {
                        replies.push(self.bytes(command)?);
                    }
                }
            }
        }
        let passing = replies.iter().find_map(|reply| match reply {
            Reply::Error(source) if source.is_passing() => Some(source.clone()),
            _ => None,
        });
        match passing {
            Some(source) => Err(RedisError::Server { command: name(commands), source }),
            None => Ok(replies),
        }
    }

    fn pipeline(&mut self, body: &[u8], commands: &[Command]) -> Result<Vec<Reply>, RedisError> {
        let answer = self.http.request("POST", "/pipeline", body)?;
        let answer = self.accepted(answer, commands)?;
        match json::answers(&answer.body) {
            Some(Ok(replies)) if replies.len() == commands.len() => Ok(replies),
            Some(Err(error)) => Err(error),
            // Cut short somewhere on the way.
            _ => Err(self.cut()),
        }
    }

    fn cut(&self) -> RedisError {
        RedisError::Closed { target: self.target(), source: None }
    }

    /// The answer, if the service did what was asked.
    fn accepted(&self, answer: Answer, commands: &[Command]) -> Result<Answer, RedisError> {
        let target = self.target();
        match answer.status {
            200 => Ok(answer),
            401 | 403 => {
                let message = "the service does not accept the token".to_owned();
                let source = ServerError { code: format!("HTTP {}", answer.status), message };
                Err(RedisError::Authentication { target, source })
            }
            413 => Err(RedisError::too_large()),
            status @ (408 | 425 | 429 | 500..=599) => {
                Err(RedisError::Busy { target, status, again_after: answer.retry_after })
            }
            _ => Err(RedisError::Server { command: name(commands), source: json::complaint(&answer.body) }),
        }
    }

    /// A command with what is no text: what comes last is the body, the rest stands in the address. Lists of elements go
    /// one by one, which is the same.
    fn bytes(&mut self, command: &Command) -> Result<Reply, RedisError> {
        if !self.does_take_bytes()? {
            return Err(RedisError::Protocol {
                what: "the service does not take over REST what is no text; use its redis:// address",
            });
        }
        let step = match command.first().map(Vec::as_slice) {
            Some(b"RPUSH" | b"SADD") => 1,
            Some(b"HSET" | b"ZADD") => 2,
            _ => return self.single(command),
        };
        let (head, elements) = command.split_at(command.len().min(2));
        let mut last = Reply::Null;
        for element in elements.chunks(step) {
            last = self.single(&[head, element].concat())?;
            if matches!(last, Reply::Error(_)) {
                break;
            }
        }
        Ok(last)
    }

    fn single(&mut self, command: &Command) -> Result<Reply, RedisError> {
        let (path, body) = form(command)?;
        let answer = self.http.request("POST", &path, body)?;
        let complained = answer.status == 400;
        if complained {
            return Ok(Reply::Error(json::complaint(&answer.body)));
        }
        let answer = self.accepted(answer, std::slice::from_ref(command))?;
        json::one(&answer.body).unwrap_or_else(|| Err(self.cut()))
    }

    /// Has it say back what is no text, from the address and from the body.
    fn does_take_bytes(&mut self) -> Result<bool, RedisError> {
        if let Some(known) = self.takes_bytes {
            return Ok(known);
        }
        let all: Vec<u8> = (0..=255).collect();
        let asked = [vec![b"ECHO".to_vec(), all.clone()]];
        let by_body = self.http.request("POST", "/ECHO", &all)?;
        let by_path = self.http.request("GET", &format!("/ECHO/{}", encoded(&all)), &[])?;
        let mut knows = true;
        for answer in [by_body, by_path] {
            let answer = match self.accepted(answer, &asked) {
                Ok(answer) => answer,
                Err(error) if error.is_passing() => return Err(error),
                Err(_refused) => {
                    knows = false;
                    continue;
                }
            };
            let said = json::one(&answer.body).unwrap_or_else(|| Err(self.cut()))?;
            knows &= said.bytes() == Some(&all);
        }
        self.takes_bytes = Some(knows);
        Ok(knows)
    }
}

/// Address and body of a single command.
fn form(command: &Command) -> Result<(String, &[u8]), RedisError> {
    const NO_FORM: RedisError = RedisError::Protocol {
        what: "a command that has no form over REST; use the service's redis:// address",
    };
    // What follows the value of SET belongs into the query.
    let (words, query) = match command.as_slice() {
        [set, key, value, option, end] if set == b"SET" => {
            ([set, key, value].to_vec(), format!("?{}={}", encoded(option), encoded(end)))
        }
        words => (words.iter().collect(), String::new()),
    };
    let Some((last, front)) = words.split_last() else { return Err(NO_FORM) };
    let mut path = String::new();
    for part in front {
        path.push('/');
        path.push_str(&encoded(part));
    }
    // An empty part vanishes from an address, and an empty body is none.
    if last.is_empty()
        || front.is_empty()
        || front.iter().any(|part| part.is_empty())
        || path.len() > MAX_PATH_BYTES
    {
        return Err(NO_FORM);
    }
    Ok((path + &query, last))
}

/// As `%XX`, but for letters, digits and a few marks.
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push('%');
            text.push_str(&hex::encode_upper([*byte]));
        }
    }
    text
}

fn name(commands: &[Command]) -> String {
    let name = commands.first().and_then(|command| command.first());
    String::from_utf8_lossy(name.map(Vec::as_slice).unwrap_or_default()).into_owned()
}

impl Link for RestLink {
    fn ask(&mut self, _db: u64, questions: &[Command]) -> Result<Vec<Reply>, RedisError> {
        let mut patience = self.pace.patience();
        loop {
            self.pace.before(questions.len());
            let error = match self.once(questions) {
                Ok(replies) => return Ok(replies),
                Err(error) => error,
            };
            if !error.is_passing() {
                return Err(error);
            }
            let tries = patience.tries();
            if !patience.again(error.again_after()) {
                return Err(RedisError::GaveUp { tries, source: Box::new(error) });
            }
        }
    }

    fn tell(&mut self, _db: u64, commands: &[Command]) -> Result<Vec<Reply>, RedisError> {
        self.pace.before(commands.len());
        self.once(commands)
    }

    fn target(&self) -> String {
        self.http.options().target()
    }

    /// Over REST nobody says which server answers: always the same number.
    fn epoch(&self) -> u64 {
        0
    }

    fn has_databases(&self) -> bool {
        false
    }

    fn at_once(&self) -> usize {
        self.pace.most_at_once(AT_ONCE)
    }

    fn most_bytes(&self) -> usize {
        MOST_BYTES
    }

    fn patience(&self) -> Patience {
        self.pace.patience()
    }

    fn clock(&self) -> &dyn lifeboat_base::time::Clock {
        self.pace.clock()
    }
}
