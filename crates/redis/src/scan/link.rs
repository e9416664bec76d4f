//! A way to a server that takes plain commands, and asks again where that does no harm.

use std::time::Duration;

use super::pace::{Pace, Patience};
use crate::wire::{ConnectOptions, Connection, RedisError, Reply};

/// A command with its arguments.
pub type Command = Vec<Vec<u8>>;

/// How many commands go at once.
const AT_ONCE: usize = 200;
/// How many bytes of commands go at once.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// A server that answers plain commands.
pub trait Link: Send {
    /// Asks questions that may be asked again, all at once; gives an answer to each, errors of the server among them. Goes on
    /// asking while nothing answers, within limits.
    fn ask(&mut self, db: u64, questions: &[Command]) -> Result<Vec<Reply>, RedisError>;

    /// Sends commands that change something, once.
    fn tell(&mut self, db: u64, commands: &[Command]) -> Result<Vec<Reply>, RedisError>;

    /// The server, for people.
    fn target(&self) -> String;

    /// Another number than before: what answers now may be another server, and a cursor means nothing to it.
    fn epoch(&self) -> u64;

    /// Whether there can be more than one database.
    fn has_databases(&self) -> bool;

    /// The most commands that should go at once.
    fn at_once(&self) -> usize;

    /// The most bytes of commands that should go at once.
    fn most_bytes(&self) -> usize;

    /// The patience with something that is tried again from its beginning.
    fn patience(&self) -> Patience;

    /// The clock that the link goes by.
    fn clock(&self) -> &dyn lifeboat_base::time::Clock;
}

/// A connection that is made again when it is cut.
pub struct RespLink {
    options: ConnectOptions,
    connection: Option<Connection>,
    selected: u64,
    pace: Pace,
    run_id: Option<String>,
    epoch: u64,
    reply_limit_bytes: Option<usize>,
}

impl std::fmt::Debug for RespLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RespLink").field("target", &self.options.target()).finish_non_exhaustive()
    }
}

impl RespLink {
    /// Connects.
    pub fn open(options: &ConnectOptions, pace: Pace) -> Result<Self, RedisError> {
        let mut link = Self {
            options: options.clone(),
            connection: None,
            selected: 0,
            pace,
            run_id: None,
            epoch: 0,
            reply_limit_bytes: None,
        };
        link.connect()?;
        Ok(link)
    }

    /// Answers may take this much memory from here on.
    pub fn set_reply_limit(&mut self, bytes: usize) {
        self.reply_limit_bytes = Some(bytes);
        if let Some(connection) = &mut self.connection {
            connection.set_reply_limit(bytes);
        }
    }

    fn connect(&mut self) -> Result<(), RedisError> {
        let mut connection = Connection::open(&self.options)?;
        if let Some(bytes) = self.reply_limit_bytes {
            connection.set_reply_limit(bytes);
        }
        let run_id = match connection.info("server") {
            Ok(info) => info.get("run_id").map(str::to_owned),
            Err(RedisError::Server { source, .. }) if source.is_passing() => {
                return Err(RedisError::Server { command: "INFO".to_owned(), source });
            }
            Err(RedisError::Server { .. }) => None,
            Err(error) => return Err(error),
        };
        if run_id.is_none() || run_id != self.run_id {
            self.epoch += 1;
        }
        (self.run_id, self.selected, self.connection) = (run_id, 0, Some(connection));
        Ok(())
    }

    fn once(&mut self, db: u64, commands: &[Command]) -> Result<Vec<Reply>, RedisError> {
        if self.connection.is_none() {
            self.connect()?;
        }
        let Some(connection) = &mut self.connection else {
            return Err(RedisError::Protocol { what: "a connection that was lost" });
        };
        if self.selected != db {
            connection.ask(&format!("SELECT {db}"))?;
            self.selected = db;
        }
        let parts: Vec<Vec<&[u8]>> =
            commands.iter().map(|command| command.iter().map(Vec::as_slice).collect()).collect();
        let replies = connection.commands(parts.iter().map(Vec::as_slice))?;
        let passing = replies.iter().find_map(|reply| match reply {
            Reply::Error(source) if source.is_passing() => Some(source.clone()),
            _ => None,
        });
        match passing {
            Some(source) => Err(RedisError::Server { command: name(commands), source }),
            None => Ok(replies),
        }
    }
}

/// The name of the first command, for errors.
pub(super) fn name(commands: &[Command]) -> String {
    let name = commands.first().and_then(|command| command.first());
    String::from_utf8_lossy(name.map(Vec::as_slice).unwrap_or_default()).into_owned()
}

impl Link for RespLink {
    fn ask(&mut self, db: u64, questions: &[Command]) -> Result<Vec<Reply>, RedisError> {
        let mut patience = self.pace.patience();
        loop {
            self.pace.before(questions.len());
            let error = match self.once(db, questions) {
                Ok(replies) => return Ok(replies),
                Err(error) => error,
            };
            // Whatever of the answer is still to come must not be taken for the next one.
            self.connection = None;
            if !error.is_passing() {
                return Err(error);
            }
            let tries = patience.tries();
            if !patience.again(None::<Duration>) {
                return Err(RedisError::GaveUp { tries, source: Box::new(error) });
            }
        }
    }

    fn tell(&mut self, db: u64, commands: &[Command]) -> Result<Vec<Reply>, RedisError> {
        self.pace.before(commands.len());
        let outcome = self.once(db, commands);
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    fn target(&self) -> String {
        self.options.target()
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn has_databases(&self) -> bool {
        true
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
