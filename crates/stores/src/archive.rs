//! The contract with stores whose server hands its log over as files, and asks for the same files when it recovers.
//!
//! In: a file the server wants to be kept, or the name of one it wants back. Out: what each stretch of the file is, and
//! whether bytes that were put together are that file. Pure but for reading the file.

use std::ops::Range;
use std::path::Path;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::Failure;
use lifeboat_base::time::Timestamp;

use crate::continuous::LogPosition;

/// A stretch of a file that belongs to one timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// Where it starts in the log.
    pub first: LogPosition,
    /// Where it lies in the file.
    pub span: Range<usize>,
    /// The older timeline's position that it continues, where its timeline is entered.
    pub follows: Option<LogPosition>,
    /// The oldest and the newest change in it whose time is known.
    pub changes: Option<(Timestamp, Timestamp)>,
}

/// What a server handed over.
#[derive(Debug)]
pub enum LogFile {
    /// A stretch of the log.
    Log {
        /// What tells the store from every other; the same as [`LogFeed::identity`](crate::LogFeed::identity).
        identity: String,
        /// The file.
        content: Vec<u8>,
        /// What it is made of, in order; what lies outside of them is filler.
        parts: Vec<LogPart>,
    },
    /// How a timeline came to be.
    History {
        /// The timeline.
        timeline: u32,
        /// The file.
        content: Vec<u8>,
        /// Where its ancestors were left, oldest first; the last is what it continues. Empty for a timeline without any.
        left: Vec<LogPosition>,
        /// Whose it is, if the file lies where its server keeps it; the file itself does not say.
        identity: Option<String>,
    },
    /// A file that no recovery needs, and why.
    Needless(&'static str),
}

/// What a recovering server asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedLog {
    /// A whole number of log, on the newest timeline that has a share in it.
    Segment,
    /// How a timeline came to be.
    History(u32),
    /// A file that is never kept as such.
    Needless,
}

/// A store that archives its log file by file.
pub trait LogFiles: Send + Sync {
    /// Reads and checks a file that is to be kept. `histories` is where histories handed over before are kept.
    /// `Refused` for a file that is not what its name says, `Damaged` if a recovery could not read it, `Usage` for a name
    /// no server gives. Memory: the file, at most 1 GiB.
    fn examine(&self, path: &Path, histories: &Path) -> Result<LogFile, Failure>;

    /// What a name asks for; `Usage` for one that no recovering server asks for.
    fn wanted(&self, name: &str) -> Result<WantedLog, Failure>;

    /// Where the segment `name` starts, if segments have this size.
    fn segment_start(&self, name: &str, segment_bytes: u32) -> Option<LogPosition>;

    /// The name of the segment that starts there.
    fn segment_name(&self, start: LogPosition, segment_bytes: u32) -> String;

    /// The size of a segment, as a recovery point says.
    fn segment_bytes(&self, facts: &CaptureFacts) -> Result<u32, Failure>;

    /// The size of a segment, as the first bytes of one say.
    fn segment_bytes_in(&self, content: &[u8]) -> Option<u32>;

    /// Checks that `content` is the beginning of the segment `name`, or all of it: every page and every record. Gives the
    /// identity of the store it is of; another one than `identity` is refused.
    fn check(&self, name: &str, identity: Option<&str>, content: &[u8]) -> Result<String, Failure>;

    /// The name of the file that tells how a timeline came to be.
    fn history_name(&self, timeline: u32) -> String;

    /// That file, made of the positions at which its ancestors were left, oldest first; nothing if they cannot be a history.
    fn history(&self, timeline: u32, left: &[LogPosition]) -> Option<Vec<u8>>;

    /// Where a history says the ancestors of its timeline were left, oldest first.
    fn history_left(&self, timeline: u32, content: &[u8]) -> Result<Vec<LogPosition>, Failure>;
}
