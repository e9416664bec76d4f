//! Timeline history files (`0000000N.history`): which timeline every byte before timeline N belongs to.
//!
//! In: the file's text. Out: the path of timelines that recovery follows to N, and the file again, byte for byte as
//! the server writes it.

use std::fmt;

use lifeboat_base::failure::FailureKind;

use crate::lsn::{Lsn, Timeline};

/// Forks a history may hold; a server adds one with each promotion, and reads them all into memory too.
const MAX_FORKS_COUNT: usize = 100_000;

/// How a timeline came to be: its ancestors, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: Timeline,
    forks: Vec<Fork>,
}

/// One step from a timeline to its child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The timeline that was left.
    pub parent: Timeline,
    /// The first byte that belongs to the child.
    pub switch: Lsn,
    /// What the server wrote down, such as `no recovery target specified`.
    pub reason: String,
}

/// The part of the log that one timeline of a history owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose part it is.
    pub timeline: Timeline,
    /// Its first byte.
    pub begin: Lsn,
    /// The byte after its last; none for the timeline the history leads to.
    pub end: Option<Lsn>,
}

/// A history file that the server would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The name is not that of a history file.
    #[error("`{0}` is not the name of a timeline history file")]
    Name(String),
    /// A line that is not `TIMELINE<tab>POSITION<tab>REASON`.
    #[error("line {line} is not a timeline, a position and a reason")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// Timelines that go backwards, or reach the timeline itself.
    #[error("line {line} does not continue the lines before it")]
    Order {
        /// Counted from 1.
        line: usize,
    },
    /// Longer than any real history.
    #[error("a timeline history has at most {MAX_FORKS_COUNT} lines")]
    TooLong,
}

impl HistoryError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Name(_) => FailureKind::Refused,
            Self::Line { .. } | Self::Order { .. } | Self::TooLong => FailureKind::Damaged,
        }
    }
}

/// The name of the history file of `timeline`, such as `00000002.history`.
pub fn history_name(timeline: Timeline) -> String {
    format!("{timeline:08X}.history")
}

/// The timeline whose history file has this name.
pub fn parse_history_name(name: &str) -> Option<Timeline> {
    let digits = name.strip_suffix(".history").filter(|text| text.len() == 8)?;
    let hexadecimal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    hexadecimal.then(|| u32::from_str_radix(digits, 16).ok()).flatten().filter(|timeline| *timeline > 0)
}

/// The timeline that `recovery_target_timeline = latest` leads to from `start`: the last of those that follow it without
/// a gap and have a history file. `exists` is asked once per timeline.
pub fn newest_timeline(start: Timeline, exists: impl FnMut(&Timeline) -> bool) -> Timeline {
    (start..Timeline::MAX).map(|timeline| timeline + 1).take_while(exists).last().unwrap_or(start)
}

impl TimelineHistory {
    /// The history of a timeline without ancestors; the first timeline has no file.
    pub fn root(timeline: Timeline) -> Self {
        Self { timeline, forks: Vec::new() }
    }

    /// Reads a history file.
    pub fn parse(name: &str, text: &str) -> Result<Self, HistoryError> {
        let timeline = parse_history_name(name).ok_or_else(|| HistoryError::Name(name.to_owned()))?;
        let mut history = Self::root(timeline);
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            if text.trim_start().is_empty() || text.trim_start().starts_with('#') {
                continue;
            }
            let fork = parse_fork(text).ok_or(HistoryError::Line { line })?;
            if !history.accepts(&fork) {
                return Err(HistoryError::Order { line });
            }
            if history.forks.len() >= MAX_FORKS_COUNT {
                return Err(HistoryError::TooLong);
            }
            history.forks.push(fork);
        }
        Ok(history)
    }

    /// The history of `timeline` that forks from the end of this one; none if the server could not have made it.
    pub fn fork(&self, timeline: Timeline, switch: Lsn, reason: &str) -> Option<Self> {
        let mut child = Self { timeline, forks: self.forks.clone() };
        let fork = Fork { parent: self.timeline, switch, reason: reason.to_owned() };
        let fits = child.accepts(&fork) && !reason.contains(['\n', '\r']);
        child.forks.push(fork);
        fits.then_some(child)
    }

    fn accepts(&self, fork: &Fork) -> bool {
        let youngest = self.forks.last().map_or(0, |last| last.parent);
        (youngest + 1..self.timeline).contains(&fork.parent)
    }

    /// The timeline this history leads to.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The steps that led to it, oldest first.
    pub fn forks(&self) -> &[Fork] {
        &self.forks
    }

    /// What each timeline owns, oldest first; together they cover the log without a gap. A timeline that owns nothing
    /// is left out: one that was left where it began, or before. The latter is no damage: a server that was told to
    /// follow timeline 2 and stopped before 2 began names 2 as the parent of its new timeline all the same.
    pub fn spans(&self) -> Vec<Span> {
        let mut end = None;
        let mut spans = Vec::new();
        for (timeline, begin) in self.begins().rev() {
            if end.is_none_or(|end| begin < end) {
                spans.push(Span { timeline, begin, end });
                end = Some(begin);
            }
        }
        spans.reverse();
        spans
    }

    /// Every timeline with the position its parent was left at, oldest first.
    fn begins(&self) -> impl DoubleEndedIterator<Item = (Timeline, Lsn)> + '_ {
        (0..=self.forks.len()).map(|index| {
            let timeline = self.forks.get(index).map_or(self.timeline, |fork| fork.parent);
            let before = index.checked_sub(1).and_then(|index| self.forks.get(index));
            (timeline, before.map_or(Lsn(0), |fork| fork.switch))
        })
    }

    /// The timeline that owns the byte at `at`. A switch position belongs to the child.
    pub fn timeline_at(&self, at: Lsn) -> Timeline {
        self.begins().rev().find(|(_, begin)| *begin <= at).map_or(self.timeline, |(timeline, _)| timeline)
    }

    /// Whether the byte at `at`, written on `timeline`, is part of this history. A server recovers a base backup along
    /// this history only if its checkpoint is (and the last byte before its consistent position).
    pub fn contains(&self, timeline: Timeline, at: Lsn) -> bool {
        self.timeline_at(at) == timeline
    }

    /// Where this history leaves `timeline`; none if it leads to it, or if the timeline owns nothing of it.
    pub fn switch_from(&self, timeline: Timeline) -> Option<Lsn> {
        self.spans().into_iter().find(|span| span.timeline == timeline).and_then(|span| span.end)
    }

    /// The timelines whose segment file may serve the segment around `at`, in the order in which recovery tries them:
    /// newest first, without those that begin in a later segment. The first is the right one: a timeline begins with a
    /// copy of its parent's part of the segment.
    pub fn segment_timelines(&self, at: Lsn, segment_bytes: u32) -> Vec<Timeline> {
        let segment = at.segment_start(segment_bytes);
        self.begins()
            .rev()
            .filter(|(_, begin)| begin.segment_start(segment_bytes) <= segment)
            .map(|(timeline, _)| timeline)
            .collect()
    }
}

/// As the server reads it: the reason may be missing, and what separates the fields is any white space.
fn parse_fork(line: &str) -> Option<Fork> {
    let line = line.trim_start();
    let (parent, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (switch, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let digits = parent.bytes().all(|byte| byte.is_ascii_digit());
    let parent = digits.then(|| parent.parse().ok()).flatten()?;
    Some(Fork { parent, switch: switch.parse().ok()?, reason: reason.to_owned() })
}

impl fmt::Display for TimelineHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fork) in self.forks.iter().enumerate() {
            // The server copies the parent's file and puts an empty line before its own.
            let separator = if index == 0 { "" } else { "\n" };
            writeln!(f, "{separator}{}\t{}\t{}", fork.parent, fork.switch, fork.reason)?;
        }
        Ok(())
    }
}
