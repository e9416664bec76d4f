//! Asks the server beside the stream how far its log goes at a moment, for a stream that is quiet.
//!
//! A sign of life in the stream says how far the server has sent and not how far it has written, so that a stream that was
//! held up would pass for one that has everything. Here the clock is read first and the end of the log after it: whatever
//! was acknowledged before the moment lies before that end.

use std::time::Duration;

use lifeboat_base::time::Timestamp;
use lifeboat_postgres::wire::{ConnectOptions, Connection, Mode, PgError};
use lifeboat_postgres::{Lsn, Timeline};

/// An answer takes no longer, or there is none.
const LIMIT: Duration = Duration::from_secs(3);
/// Without an answer so many turns are left out: the stream matters more.
const REST_TURNS: u32 = 20;

const CLOCK: &str =
    "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
/// The name of the segment begins with the timeline. A server that follows another one knows nothing of what was
/// acknowledged there.
const END: &str = "SELECT lsn, pg_catalog.pg_walfile_name(lsn) \
     FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_flush_lsn() END AS lsn) AS l";

/// A connection beside the stream, made when it is needed.
pub(crate) struct Probe {
    options: ConnectOptions,
    connection: Option<Connection>,
    resting_turns: u32,
}

impl Probe {
    pub(crate) fn new(options: &ConnectOptions) -> Self {
        let options = options.with_connect_timeout(LIMIT).with_silence_limit(LIMIT);
        Self { options, connection: None, resting_turns: 0 }
    }

    /// The end of the log on `timeline`, and a moment before which nothing was acknowledged beyond it. Nothing if the
    /// server is on another timeline, follows another one or does not answer: then our knowledge gets older.
    pub(crate) fn look(&mut self, timeline: Timeline) -> Option<(Lsn, Timestamp)> {
        if self.resting_turns > 0 {
            self.resting_turns -= 1;
            return None;
        }
        let answer = self.ask().unwrap_or_else(|_unreachable| {
            self.connection = None;
            None
        });
        let answer = answer.filter(|(at, ..)| *at == timeline).map(|(_, end, moment)| (end, moment));
        if answer.is_none() {
            self.resting_turns = REST_TURNS;
        }
        answer
    }

    fn ask(&mut self) -> Result<Option<(Timeline, Lsn, Timestamp)>, PgError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            // As an ordinary session it would keep a server from ending that waits for its sessions (SIGTERM).
            none => none.insert(Connection::connect(&self.options, Mode::ReplicationDatabase)?),
        };
        let clock = connection.query(CLOCK)?;
        let end = connection.query(END)?;
        let moment = clock.first().and_then(|row| row.get(0)?.parse().ok());
        let row = end.first();
        let lsn = row.and_then(|row| row.get(0)?.parse().ok());
        let timeline = row.and_then(|row| Timeline::from_str_radix(row.get(1)?.get(..8)?, 16).ok());
        Ok(timeline.zip(lsn).zip(moment).map(|((timeline, lsn), moment)| (timeline, lsn, moment)))
    }
}
