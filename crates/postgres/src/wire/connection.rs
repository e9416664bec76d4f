//! A logged-in connection: one statement or stream at a time, read event by event.
//!
//! In: statements and copy data. Out: rows and [`Event`]s. Memory: one message, one read buffer of 64 KiB, and for
//! [`Connection::query`] a result of at most [`RESULT_LIMIT_BYTES`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::cancel::Canceller;
use super::error::{PgError, ServerError};
use super::frames::{Frame, MESSAGE_LIMIT_BYTES};
use super::link::Wait;
use super::options::ConnectOptions;
use super::row::{Row, read_columns};
use super::startup::{self, Mode, Session};
use lifeboat_net::Deadline;

/// The largest result that `query` keeps; read larger ones with `start` and `next`.
pub const RESULT_LIMIT_BYTES: usize = 64 * 1024 * 1024;
/// How many messages that are no event (settings, notifications) may come before the next event.
const SKIP_LIMIT: usize = 10_000;
/// How long a goodbye may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// What the server sends in answer to a statement.
#[derive(Clone, Debug)]
pub enum Event {
    /// Rows with these columns follow.
    Columns(Arc<[String]>),
    /// A row.
    Row(Row),
    /// Data from the server follows.
    CopyOut,
    /// Data from us is awaited.
    CopyIn,
    /// Data from the server follows, and it reads ours: a replication stream.
    CopyBoth,
    /// A piece of copy data. It shares memory with its neighbours in the read buffer: keep few, or copy.
    Data(Bytes),
    /// The server sends no more data. In a replication stream it awaits the same from us.
    CopyDone,
    /// A statement is done; `SELECT 3`, `COPY 7`, or nothing for an empty statement.
    Command(String),
    /// A warning or remark.
    Notice(ServerError),
    /// All is done; the connection takes the next statement.
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is asked.
    Idle,
    /// An answer is owed.
    Asked,
    /// An answer is owed, and copy data may be sent.
    Sending,
    /// Nothing can be sent or read any more.
    Ended,
}

/// One session with a server. Dropping it ends the session, whatever it is doing.
pub struct Connection {
    session: Session,
    options: ConnectOptions,
    columns: Arc<[String]>,
    state: State,
}

impl Connection {
    /// Tries the hosts in order until one lets us in.
    pub fn connect(options: &ConnectOptions, mode: Mode) -> Result<Self, PgError> {
        let session = startup::open(options, mode)?;
        // The password has done its work.
        let options = ConnectOptions { password: None, ..options.clone() };
        Ok(Self { session, options, columns: Arc::new([]), state: State::Idle })
    }

    /// The server's version as a number, 150018 for `15.18 (Debian …)`; 160000 for `16beta1`.
    pub fn server_version(&self) -> Option<u32> {
        version_number(self.parameter("server_version")?)
    }

    /// A setting the server reports by itself, such as `server_version` or `TimeZone`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.session.parameters.get(name).map(String::as_str)
    }

    /// The server process that serves us.
    pub fn backend_pid(&self) -> i32 {
        self.session.pid
    }

    /// Whether the bytes go through TLS.
    pub fn is_tls(&self) -> bool {
        self.session.link.transport.is_tls()
    }

    /// `user@host:port/database` of the host that let us in.
    pub fn target(&self) -> &str {
        &self.session.link.target
    }

    /// How long ago the last byte came; for streams, where only the caller knows how much silence is too much.
    pub fn quiet_for(&self) -> Duration {
        self.session.link.quiet_for()
    }

    /// Whether the next statement can be sent.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Asks the server to end what this connection is doing; the answer comes as an error with SQLSTATE `57014`.
    pub fn cancel(&self) -> Result<(), PgError> {
        self.canceller().cancel()
    }

    /// A handle to do so from another thread.
    pub fn canceller(&self) -> Canceller {
        let Session { host, pid, key, .. } = &self.session;
        Canceller {
            options: self.options.clone(),
            host: host.clone(),
            tls: self.is_tls(),
            pid: *pid,
            key: *key,
        }
    }

    /// Runs statements and returns the last set of rows; none if no statement returns rows. After an error of the
    /// server that is not fatal the connection takes the next statement.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        self.start(sql)?;
        let (mut rows, mut kept_bytes, mut failed) = (Vec::new(), 0, None);
        loop {
            match self.next() {
                Ok(Event::Columns(_)) => {
                    rows.clear();
                    kept_bytes = 0;
                }
                Ok(Event::Row(row)) => {
                    kept_bytes += row.footprint_bytes();
                    if kept_bytes > RESULT_LIMIT_BYTES {
                        return Err(self.end(PgError::Protocol { what: "a result larger than 64 MiB" }));
                    }
                    rows.push(row);
                }
                Ok(Event::Command(_) | Event::Notice(_)) => {}
                Ok(Event::CopyIn) => self.refuse_copy()?,
                Ok(Event::CopyOut | Event::CopyBoth | Event::Data(_) | Event::CopyDone) => {
                    return Err(self.end(PgError::Misuse { what: "the statement streams; use `start`" }));
                }
                Ok(Event::Ready) => return failed.map_or(Ok(rows), Err),
                Err(error) if self.state == State::Ended => return Err(failed.unwrap_or(error)),
                // The first error is the cause.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
    }

    /// Sends a statement or replication command and reads nothing.
    pub fn start(&mut self, sql: &str) -> Result<(), PgError> {
        match self.state {
            State::Idle => {}
            State::Asked | State::Sending => {
                return Err(PgError::Misuse { what: "the answer to the last statement is not read" });
            }
            State::Ended => return Err(ENDED),
        }
        if sql.contains('\0') || sql.len() > MESSAGE_LIMIT_BYTES {
            return Err(PgError::Misuse { what: "a statement with a NUL byte, or longer than 64 MiB" });
        }
        let limit = self.options.silence_limit;
        let sent = self.session.link.send(limit, |out| frontend::query(sql, out));
        self.state = State::Asked;
        sent.map_err(|error| self.end(error))
    }

    /// The next event. An error of the server comes as `Err`, and the connection goes on: read until
    /// [`Event::Ready`]. Silence for longer than the options allow is an error.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would hide that the connection goes on after Err"
    )]
    pub fn next(&mut self) -> Result<Event, PgError> {
        let limit = self.options.silence_limit;
        if let Some(event) = self.advance(Wait::Quiet(limit))? {
            return Ok(event);
        }
        let target = self.session.link.target.clone();
        Err(self.end(PgError::Silent { target, limit }))
    }

    /// The same, or nothing when none is whole after `limit` (at least a millisecond). What has come of a message stays
    /// for the next call. Never fails for silence.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Event>, PgError> {
        self.advance(Wait::Until(Deadline::after(limit.max(Duration::from_millis(1)))))
    }

    /// Sends one piece of copy data.
    pub fn send_copy(&mut self, data: &[u8]) -> Result<(), PgError> {
        self.while_sending()?;
        if data.len() > MESSAGE_LIMIT_BYTES {
            return Err(PgError::Misuse { what: "a piece of copy data longer than 64 MiB" });
        }
        let limit = self.options.silence_limit;
        let sent = self.session.link.send(limit, |out| {
            frontend::CopyData::new(data)?.write(out);
            Ok(())
        });
        sent.map_err(|error| self.end(error))
    }

    /// Says that no more data comes from us. In a replication stream, data of the server may still come before its own
    /// [`Event::CopyDone`].
    pub fn finish_copy(&mut self) -> Result<(), PgError> {
        self.while_sending()?;
        self.state = State::Asked;
        let limit = self.options.silence_limit;
        let sent = self.session.link.send(limit, |out| {
            frontend::copy_done(out);
            Ok(())
        });
        sent.map_err(|error| self.end(error))
    }

    fn while_sending(&self) -> Result<(), PgError> {
        match self.state {
            State::Sending => Ok(()),
            State::Ended => Err(ENDED),
            State::Idle | State::Asked => Err(PgError::Misuse { what: "the server awaits no copy data" }),
        }
    }

    /// The server answers with an error, and the statement is over.
    fn refuse_copy(&mut self) -> Result<(), PgError> {
        self.state = State::Asked;
        let limit = self.options.silence_limit;
        let sent = self.session.link.send(limit, |out| frontend::copy_fail("no data is at hand", out));
        sent.map_err(|error| self.end(error))
    }

    fn advance(&mut self, wait: Wait) -> Result<Option<Event>, PgError> {
        match self.state {
            State::Asked | State::Sending => {}
            State::Idle => return Err(PgError::Misuse { what: "nothing was asked" }),
            State::Ended => return Err(ENDED),
        }
        for _ in 0..SKIP_LIMIT {
            let frame = match self.session.link.receive(wait) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.end(error)),
            };
            let event = match frame {
                Frame::CopyBoth => {
                    self.state = State::Sending;
                    Some(Event::CopyBoth)
                }
                Frame::Message(message) => self.event(message)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Err(self.end(PgError::Protocol { what: "messages without end and without content" }))
    }

    /// The event that a message is, if it is one.
    fn event(&mut self, message: Message) -> Result<Option<Event>, PgError> {
        Ok(Some(match message {
            Message::RowDescription(body) => {
                self.columns = read_columns(&body).map_err(|error| self.end(error))?;
                Event::Columns(Arc::clone(&self.columns))
            }
            Message::DataRow(body) => {
                Event::Row(Row::read(&self.columns, &body).map_err(|error| self.end(error))?)
            }
            Message::CopyOutResponse(_) => Event::CopyOut,
            Message::CopyInResponse(_) => {
                self.state = State::Sending;
                Event::CopyIn
            }
            Message::CopyData(body) => Event::Data(body.into_bytes()),
            Message::CopyDone => Event::CopyDone,
            Message::CommandComplete(body) => Event::Command(body.tag().unwrap_or_default().to_owned()),
            Message::EmptyQueryResponse => Event::Command(String::new()),
            Message::NoticeResponse(body) => Event::Notice(ServerError::read(body.fields())),
            Message::ErrorResponse(body) => {
                let error = ServerError::read(body.fields());
                // The server reads no more copy data of this statement.
                self.state = if error.is_fatal() { State::Ended } else { State::Asked };
                return Err(error.into());
            }
            Message::ReadyForQuery(_) => {
                self.state = State::Idle;
                Event::Ready
            }
            Message::ParameterStatus(body) => {
                if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                    self.session.remember(name, value);
                }
                return Ok(None);
            }
            Message::NotificationResponse(_) => return Ok(None),
            _ => return Err(self.end(PgError::Protocol { what: "an unexpected message" })),
        }))
    }

    fn end(&mut self, error: PgError) -> PgError {
        self.state = State::Ended;
        error
    }
}

const ENDED: PgError = PgError::Misuse { what: "it has ended" };

impl Drop for Connection {
    fn drop(&mut self) {
        if self.state == State::Idle {
            // A goodbye spares the server's log a complaint; without one the closed socket says the same.
            drop(self.session.link.send(GOODBYE_LIMIT, |out| {
                frontend::terminate(out);
                Ok(())
            }));
            self.session.link.transport.close();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("target", &self.session.link.target)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// `15.18 (Debian …)` → 150018, `16beta1` → 160000, `9.6.24` → 90624.
fn version_number(text: &str) -> Option<u32> {
    let number = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = number.split('.').map(|part| part.parse::<u32>().ok().filter(|part| *part < 100));
    let major = parts.next()??;
    let minor = parts.next().flatten().unwrap_or(0);
    if major >= 10 {
        return Some(major * 10_000 + minor);
    }
    Some(major * 10_000 + minor * 100 + parts.next().flatten().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_server_counts_them() {
        for (text, expected) in [
            ("15.18 (Debian 15.18-0+deb12u1)", Some(150_018)),
            ("18.4", Some(180_004)),
            ("16beta1", Some(160_000)),
            ("19devel", Some(190_000)),
            ("9.6.24", Some(90_624)),
            ("", None),
            ("EnterpriseDB", None),
        ] {
            assert_eq!(version_number(text), expected, "{text}");
        }
    }
}
