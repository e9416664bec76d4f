//! The stream of commands as it is written, followed as a replica that keeps no data.
//!
//! The stream holds no times. Once a second the server is asked on a second connection how far it is: what had been
//! written when we asked has arrived once the stream is that far.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::{Clock, SignedDuration, Timestamp};
use lifeboat_redis::place::{Found, Role};
use lifeboat_redis::replication::{self, Place, Resumed, Stream};
use lifeboat_redis::wire::{ConnectOptions, Connection, Info, RedisError};

use super::error;
use crate::continuous::{LogFeed, LogPosition, Resume, Step};

/// How often the server is asked how far it is.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A stream being followed.
pub(super) struct RedisFeed {
    stream: Stream,
    start: LogPosition,
    /// The history that the next bytes belong to.
    history: String,
    /// The name under which the history goes on, until that was said.
    renamed: Option<String>,
    probe: Probe,
}

/// Timelines are the caller's to number.
fn at(offset: u64) -> LogPosition {
    LogPosition { timeline: 0, offset }
}

impl RedisFeed {
    /// Goes on at `resume`, or begins with the present.
    pub(super) fn start(
        found: &Found,
        resume: Option<Resume>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let options = &found.options;
        let (connection, asked, pending) = (None, None, None);
        let (options_too, role) = (options.clone(), found.role);
        let probe = Probe { options: options_too, role, is_other: false, connection, clock, asked, pending };
        let fail = || error::connection("failed to follow the stream of commands");
        let Some(resume) = resume else {
            let stream = begin(options)?;
            let (start, history) = (at(stream.offset()), stream.id().to_string());
            return Ok(Self { stream, start, history, renamed: None, probe });
        };
        let offset = resume.position.offset;
        let id = resume.history.as_deref().and_then(|name| name.parse().ok());
        let Some(id) = id else {
            return Err(gone("the name of the history that was kept is not known"));
        };
        let place = Place { id, offset };
        match replication::resume(options, &place).map_err(fail())? {
            Resumed::Continued(stream) => {
                let history = place.id.to_string();
                let renamed = (stream.id() != &place.id).then(|| stream.id().to_string());
                Ok(Self { stream, start: at(offset), history, renamed, probe })
            }
            Resumed::Full(_) => Err(gone(
                "the server no longer has the commands after what was kept: it was restarted, its backlog is too \
                 small (repl-backlog-size), or it is another server",
            )),
        }
    }
}

fn gone(what: &str) -> Failure {
    Failure::new(FailureKind::Findings, what)
}

/// The stream from the present on. A server without a backlog sends everything first: that is read and not kept.
fn begin(options: &ConnectOptions) -> Result<Stream, Failure> {
    let fail = || error::connection("failed to follow the stream of commands");
    let place = {
        let mut connection = Connection::open(options).map_err(fail())?;
        replication::place(&mut connection).map_err(fail())?
    };
    match replication::resume(options, &place).map_err(fail())? {
        Resumed::Continued(stream) => Ok(stream),
        Resumed::Full(mut sync) => {
            io::copy(&mut sync, &mut io::sink()).map_err(|error| {
                let what = "the dump that comes before the stream broke off";
                Failure::with_source(FailureKind::Unreachable, what, error)
            })?;
            sync.into_stream().map_err(fail())
        }
    }
}

impl LogFeed for RedisFeed {
    fn start(&self) -> LogPosition {
        self.start
    }

    fn identity(&self) -> String {
        self.history.clone()
    }

    fn history(&self) -> Option<String> {
        Some(self.history.clone())
    }

    fn next(&mut self, limit: Duration) -> Result<Step, Failure> {
        if let Some(name) = self.renamed.take() {
            self.history = name;
            let here = at(self.stream.offset());
            return Ok(Step::Switch { left: here, entered: here });
        }
        self.probe.ask(&self.history);
        if self.probe.is_other {
            // Whoever follows asks again where the server is.
            let what = "the server has changed its role: it is not the one that is to be followed any more";
            return Err(Failure::new(FailureKind::Unreachable, what));
        }
        let before = self.stream.offset();
        let bytes = self.stream.next_within(limit).map_err(|error| {
            Failure::with_source(error.kind(), "failed to follow the stream of commands", error)
        })?;
        let as_of = self.probe.answered(self.stream.offset());
        Ok(match bytes {
            Some(bytes) => Step::Bytes { at: at(before), bytes, newest: as_of, boundary: false },
            None => Step::Quiet { as_of },
        })
    }

    fn durable(&mut self, position: LogPosition, _now: Timestamp) -> Result<(), Failure> {
        self.stream.durable(position.offset).map_err(|error| {
            Failure::with_source(
                error.kind(),
                "failed to tell the server how far its commands are kept",
                error,
            )
        })
    }
}

/// How far the server is, and when we asked.
struct Probe {
    options: ConnectOptions,
    /// What the server must be, and whether it has become something else.
    role: Option<Role>,
    is_other: bool,
    connection: Option<Connection>,
    clock: Arc<dyn Clock>,
    asked: Option<Duration>,
    /// What was written before this moment ends at this offset.
    pending: Option<(Timestamp, u64)>,
}

impl Probe {
    /// A server that does not answer makes our knowledge older, and nothing else.
    fn ask(&mut self, history: &str) {
        let now = self.clock.monotonic();
        let due = self.asked.is_none_or(|asked| now.saturating_sub(asked) >= PROBE_EVERY);
        if !due || self.pending.is_some() {
            return;
        }
        self.asked = Some(now);
        let moment = self.clock.now();
        match self.look(history) {
            Ok(Some((offset, lag))) => {
                self.pending = moment.checked_sub(lag).ok().map(|moment| (moment, offset));
            }
            Ok(None) => {}
            Err(_unreachable) => self.connection = None,
        }
    }

    fn look(&mut self, history: &str) -> Result<Option<(u64, SignedDuration)>, RedisError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.options)?),
        };
        let info = connection.info("replication")?;
        // A replica that has lost its primary for a while is still one.
        let is_primary = info.get("role") == Some("master");
        self.is_other = self.role.is_some_and(|role| (role == Role::Primary) != is_primary);
        let offset = info.number("master_repl_offset");
        let fits = info.get("master_replid") == Some(history);
        Ok(offset.filter(|_| fits).zip(lag(&info)))
    }

    /// The moment before which everything has arrived, if that was found out.
    fn answered(&mut self, reached: u64) -> Option<Timestamp> {
        let (moment, _) = self.pending.filter(|(_, offset)| reached >= *offset)?;
        self.pending = None;
        Some(moment)
    }
}

/// How far behind its primary a replica may be, as it says itself; nothing if it has lost its primary.
pub(super) fn lag(info: &Info) -> Option<SignedDuration> {
    if info.get("role") == Some("master") {
        return Some(SignedDuration::ZERO);
    }
    let silent =
        info.number("master_last_io_seconds_ago").filter(|_| info.get("master_link_status") == Some("up"));
    silent.and_then(|seconds| i64::try_from(seconds.saturating_add(1)).ok()).map(SignedDuration::from_secs)
}
