//! The contract with stores that have a continuous log: it is followed while it is written, and replayed after a restore.
//!
//! In: the position to go on from. Out: the log's bytes in order, with what is known about time. The caller keeps them and
//! says how far they are durable; what an adapter is told is durable the store may throw away.

use std::path::Path;
use std::time::Duration;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::Timestamp;

use crate::adapter::CheckResult;
use crate::archive::LogFiles;

/// A place in a log: offsets of different timelines do not compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The history the offset belongs to.
    pub timeline: u32,
    /// The place in it, in the engine's own unit.
    pub offset: u64,
}

/// Where to go on, and what was kept right before it.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The position.
    pub position: LogPosition,
    /// The kept bytes that end there, as many as are at hand: what the store sends again must be the same.
    pub tail: Vec<u8>,
    /// The name of its history, for stores that [name them](Continuous::names_histories).
    pub history: Option<String>,
}

/// What happened next.
#[derive(Debug)]
pub enum Step {
    /// The log goes on with these bytes.
    Bytes {
        /// Where they start; right after the bytes before.
        at: LogPosition,
        /// The bytes; they never cross a boundary at which the caller is to close a piece.
        bytes: bytes::Bytes,
        /// The newest change in them, if one is known.
        newest: Option<Timestamp>,
        /// A piece ends after these bytes.
        boundary: bool,
    },
    /// Nothing came, or a moment was reached: everything committed before `as_of` has arrived, if that is known. Also a store
    /// that never stops writing has such a step once in a while.
    Quiet {
        /// The store's clock.
        as_of: Option<Timestamp>,
    },
    /// The history goes on elsewhere.
    Switch {
        /// Where it was left.
        left: LogPosition,
        /// Where it goes on.
        entered: LogPosition,
    },
}

/// A log being followed.
pub trait LogFeed: Send {
    /// Where the first bytes will start.
    fn start(&self) -> LogPosition;

    /// What tells this store from every other, such as a system identifier; the name of its present history where it has
    /// nothing that lasts.
    fn identity(&self) -> String;

    /// The name of the history that the next bytes belong to, for stores that name them.
    fn history(&self) -> Option<String> {
        None
    }

    /// Waits for the next step, at most `limit`.
    fn next(&mut self, limit: Duration) -> Result<Step, Failure>;

    /// Everything before `position` is durable here: the store need not keep it for us.
    fn durable(&mut self, position: LogPosition, now: Timestamp) -> Result<(), Failure>;
}

/// What a restore is to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Everything there is.
    Latest,
    /// Every change up to this moment, and none after it.
    Moment(Timestamp),
    /// Every change before this position.
    Position(u64),
    /// A point that was named in the store.
    Named(String),
    /// This transaction and everything before it.
    Transaction(u64),
}

/// Where a replay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At the goal: more log is kept than is replayed.
    Goal,
    /// At the end of the log, because that was asked for or nothing lies behind the goal.
    End,
}

/// A log as it was kept.
pub trait LogSource {
    /// The bytes from `from` up to `to`, as far as they are kept on the way to `to`'s timeline; the caller asks in pieces.
    fn read(&self, timeline: u32, from: u64, to: u64) -> Result<Vec<u8>, Failure>;

    /// The position before which everything had arrived here by `moment`, for logs whose times are those of arrival;
    /// nothing if none had.
    fn arrived_by(&self, moment: Timestamp) -> Result<Option<LogPosition>, Failure>;

    /// The way from the point to the end, oldest first: each timeline with its first and last offset.
    fn path(&self) -> &[(u32, u64, u64)];
}

/// A store with a log.
pub trait Continuous: Send + Sync {
    /// The name of its log in a vault.
    fn stream(&self) -> &'static str;

    /// Whether the store gives its histories random names instead of numbers that grow. The caller then numbers them in the
    /// order it meets them, pays no regard to the timelines of this store's positions, and keeps the times of arrival.
    fn names_histories(&self) -> bool {
        false
    }

    /// The name of the history a point belongs to, for stores that name them.
    fn history(&self, _facts: &CaptureFacts) -> Option<String> {
        None
    }

    /// The first moment a restore of the point can show: it may hold changes up to then.
    fn earliest(&self, facts: &CaptureFacts) -> Timestamp {
        facts.consistency.moment
    }

    /// What tells the store a point was taken of from every other; the same as [`LogFeed::identity`].
    fn identity(&self, facts: &CaptureFacts) -> Option<String>;

    /// Follows the log from `resume`, or from the present if nothing was kept yet. `known` are the identities the store
    /// had before: another one is refused before anything is touched. A `Findings` failure means that the
    /// store no longer has it: what lies between is lost, and only a new base helps.
    fn follow(&self, resume: Option<Resume>, known: &[String]) -> Result<Box<dyn LogFeed>, Failure>;

    /// What a person has to do, if the store does not let us in: waiting does not help then.
    fn refusal(&self, _failure: &Failure) -> Option<String> {
        None
    }

    /// Its log as files, if its server can hand it over and ask for it that way.
    fn files(&self) -> Option<&dyn LogFiles> {
        None
    }

    /// The position up to which a point needs no log: where its own content ends.
    fn base_end(&self, facts: &CaptureFacts) -> Result<LogPosition, Failure>;

    /// Whether [`Continuous::arrived`] can tell that a log leads from one point to the next.
    fn is_provable(&self) -> bool {
        false
    }

    /// Compares what is in `restored`, where the log was replayed up to the place of a later point, with what that point
    /// captured there. The later point is a proof of every byte of log between the two.
    fn arrived(
        &self,
        restored: &Path,
        facts: &CaptureFacts,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        // Most kinds have no point that is exactly at a place of the log.
        let (_restored, _facts, _monitor) = (restored, facts, monitor);
        Ok(Vec::new())
    }

    /// Prepares the restored store so that it replays `log` up to `goal` when it is first started.
    fn replay(
        &self,
        facts: &CaptureFacts,
        restored: &Path,
        log: &dyn LogSource,
        goal: &Goal,
    ) -> Result<Stop, Failure>;
}
