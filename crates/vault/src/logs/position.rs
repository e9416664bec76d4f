//! Positions in a log: a timeline and an offset, and the object names made of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A point in a store's history: an LSN, a replication offset, a change number. Offsets of different timelines do
/// not compare; a timeline is entered from an older one at a declared position.
///
/// Written as 8 hexadecimal digits, `-`, 16 hexadecimal digits, so that text sorts as positions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position {
    /// The history the offset belongs to; grows with every fail-over or reset.
    pub timeline: u32,
    /// The place in that history, in the engine's own unit.
    pub offset: u64,
}

/// A text that is neither a position nor the name of a log object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a log position")]
pub struct InvalidPosition;

const TIMELINE_DIGITS: usize = 8;
const OFFSET_DIGITS: usize = 16;

impl Position {
    /// The position `offset` on `timeline`.
    pub const fn new(timeline: u32, offset: u64) -> Self {
        Self { timeline, offset }
    }
}

/// Exactly `digits` lowercase hexadecimal digits, so that every position has one spelling.
fn from_hex(text: &str, digits: usize) -> Result<u64, InvalidPosition> {
    let plain = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !plain {
        return Err(InvalidPosition);
    }
    u64::from_str_radix(text, 16).map_err(|_error| InvalidPosition)
}

fn timeline_from_hex(text: &str) -> Result<u32, InvalidPosition> {
    u32::try_from(from_hex(text, TIMELINE_DIGITS)?).map_err(|_error| InvalidPosition)
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:016x}", self.timeline, self.offset)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (timeline, offset) = text.split_once('-').ok_or(InvalidPosition)?;
        Ok(Self { timeline: timeline_from_hex(timeline)?, offset: from_hex(offset, OFFSET_DIGITS)? })
    }
}

impl TryFrom<String> for Position {
    type Error = InvalidPosition;

    fn try_from(text: String) -> Result<Self, InvalidPosition> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.to_string()
    }
}

/// The name of a log object: `TIMELINE-FIRST-LAST`, the half-open span it holds. Names sort by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogName {
    timeline: u32,
    first: u64,
    last: u64,
}

impl LogName {
    /// The name of the span from `first` up to but not including `last`; nothing if they are on different timelines
    /// or the span is empty.
    pub fn of(first: Position, last: Position) -> Option<Self> {
        let valid = first.timeline == last.timeline && first.offset < last.offset;
        valid.then_some(Self { timeline: first.timeline, first: first.offset, last: last.offset })
    }

    /// Where the span starts.
    pub const fn first(&self) -> Position {
        Position::new(self.timeline, self.first)
    }

    /// Where the next object has to start.
    pub const fn last(&self) -> Position {
        Position::new(self.timeline, self.last)
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:016x}-{:016x}", self.timeline, self.first, self.last)
    }
}

impl FromStr for LogName {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (first, last) = text.rsplit_once('-').ok_or(InvalidPosition)?;
        let first: Position = first.parse()?;
        let last = Position::new(first.timeline, from_hex(last, OFFSET_DIGITS)?);
        Self::of(first, last).ok_or(InvalidPosition)
    }
}

impl TryFrom<String> for LogName {
    type Error = InvalidPosition;

    fn try_from(text: String) -> Result<Self, InvalidPosition> {
        text.parse()
    }
}

impl From<LogName> for String {
    fn from(name: LogName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_round_trip_and_sort_as_their_positions(
            a in (any::<u32>(), any::<u64>(), 1u64..1000),
            b in (any::<u32>(), any::<u64>(), 1u64..1000),
        ) {
            let name = |(timeline, first, span): (u32, u64, u64)| LogName::of(
                Position::new(timeline, first.min(u64::MAX - 1000)),
                Position::new(timeline, first.min(u64::MAX - 1000) + span),
            ).unwrap();
            let (a, b) = (name(a), name(b));
            prop_assert_eq!(a.to_string().parse::<LogName>(), Ok(a));
            prop_assert_eq!(a.first().to_string().parse::<Position>(), Ok(a.first()));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }

    #[test]
    fn every_position_has_one_spelling() {
        for text in
            ["", "1-2", "00000001-000000000000000A", "+0000001-0000000000000001", "00000001_0000000000000001"]
        {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
        let position = |offset| Position::new(1, offset);
        assert_eq!(LogName::of(position(2), position(2)), None);
        assert_eq!(LogName::of(position(2), Position::new(2, 3)), None);
        assert!("00000001-0000000000000002-0000000000000001".parse::<LogName>().is_err());
    }
}
