//! What a set of log objects covers: contiguous ranges, and the exact gaps between two positions.
//!
//! In: the objects known to exist or to have existed. Out: ranges and gaps. Pure.

use std::collections::BTreeMap;

use lifeboat_base::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::position::{LogName, Position};

/// Whether an object can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PieceState {
    /// It is there, and was checked as far as was asked.
    Present,
    /// It existed and is gone or damaged, for this reason.
    Lost(String),
}

/// One log object as far as coverage is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its span.
    pub name: LogName,
    /// The older timeline's position this object continues, if it is where a timeline was entered.
    pub follows: Option<Position>,
    /// The engine's own name of its timeline, if it has one.
    pub history: Option<String>,
    /// When its first entry was made; nothing if the object is damaged and no roll-up knows it.
    pub started: Option<Timestamp>,
    /// When its last entry was made.
    pub ended: Option<Timestamp>,
    /// Whether it can be relied on.
    pub state: PieceState,
}

/// A stretch of history that is missing: from the end of what is there to the start of what comes after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first missing position.
    pub from: Position,
    /// The first position after the hole.
    pub to: Position,
    /// Objects known to have held part of it; empty if it was never captured.
    pub lost: Vec<LogName>,
}

/// Whether history is whole between two positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapVerdict {
    /// Every position is covered.
    Contiguous,
    /// These stretches are missing, in order.
    Gaps(Vec<Gap>),
}

/// A stretch of history without a gap, possibly across timelines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Its first position.
    pub from: Position,
    /// The position after its last.
    pub to: Position,
    /// When its first entry was made.
    pub started: Option<Timestamp>,
    /// When its last entry was made.
    pub ended: Option<Timestamp>,
}

/// A covered stretch of one timeline.
#[derive(Clone, Copy)]
struct Interval {
    from: u64,
    to: u64,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
}

/// Where a timeline was entered: its first offset, and the position on the older timeline that it continues.
type Switches = BTreeMap<u32, (u64, Position)>;

fn switches(pieces: &[Piece]) -> Switches {
    let mut found = Switches::new();
    for piece in pieces {
        // Only an older timeline can be continued, which also makes every walk along the switches end.
        if let Some(follows) = piece.follows.filter(|follows| follows.timeline < piece.name.first().timeline)
        {
            let first = piece.name.first();
            let entry = found.entry(first.timeline).or_insert((first.offset, follows));
            if first.offset < entry.0 {
                *entry = (first.offset, follows);
            }
        }
    }
    found
}

/// The covered intervals of each timeline, merged and in order.
fn covered(pieces: &[Piece]) -> BTreeMap<u32, Vec<Interval>> {
    let mut present: Vec<&Piece> = pieces.iter().filter(|piece| piece.state == PieceState::Present).collect();
    present.sort_by_key(|piece| piece.name);
    let mut timelines: BTreeMap<u32, Vec<Interval>> = BTreeMap::new();
    for piece in present {
        let (from, to) = (piece.name.first().offset, piece.name.last().offset);
        let intervals = timelines.entry(piece.name.first().timeline).or_default();
        match intervals.last_mut() {
            Some(open) if from <= open.to => {
                if to > open.to {
                    open.to = to;
                    open.ended = piece.ended;
                }
            }
            _ => intervals.push(Interval { from, to, started: piece.started, ended: piece.ended }),
        }
    }
    timelines
}

/// The gaps between `from` and `to`, as far as `pieces` show. `to` is reached through the timelines that lead to it;
/// a `from` that is not part of the history of `to` is a gap itself.
pub fn verdict_of(pieces: &[Piece], from: Position, to: Position) -> GapVerdict {
    let covered = covered(pieces);
    let mut gaps = Vec::new();
    for stretch in path(pieces, &covered, from, to) {
        match stretch {
            Stretch::Along { timeline, from, to } => {
                let intervals = covered.get(&timeline).map(Vec::as_slice).unwrap_or_default();
                for (hole_from, hole_to) in holes(intervals, from, to) {
                    gaps.push((Position::new(timeline, hole_from), Position::new(timeline, hole_to)));
                }
            }
            Stretch::Unknown { from, to } => gaps.push((from, to)),
        }
    }
    if gaps.is_empty() {
        return GapVerdict::Contiguous;
    }
    let gaps = gaps.into_iter().map(|(from, to)| Gap { from, to, lost: lost_between(pieces, from, to) });
    GapVerdict::Gaps(gaps.collect())
}

enum Stretch {
    Along { timeline: u32, from: u64, to: u64 },
    Unknown { from: Position, to: Position },
}

/// The way from `from` to `to`, walked backwards because a timeline has one origin but may have several successors.
fn path(
    pieces: &[Piece],
    covered: &BTreeMap<u32, Vec<Interval>>,
    from: Position,
    to: Position,
) -> Vec<Stretch> {
    let switches = switches(pieces);
    let mut stretches = Vec::new();
    let mut end = to;
    while end.timeline > from.timeline {
        match switches.get(&end.timeline) {
            Some(&(entered, follows)) if entered <= end.offset => {
                stretches.push(Stretch::Along { timeline: end.timeline, from: entered, to: end.offset });
                end = follows;
            }
            _ => {
                // How this timeline began is not known: the hole ends where its coverage starts.
                let intervals = covered.get(&end.timeline).map(Vec::as_slice).unwrap_or_default();
                let start = intervals.first().map_or(end.offset, |first| first.from.min(end.offset));
                stretches.push(Stretch::Along { timeline: end.timeline, from: start, to: end.offset });
                let reached = reached_from(covered, from);
                stretches.push(Stretch::Unknown { from: reached, to: Position::new(end.timeline, start) });
                stretches.reverse();
                return stretches;
            }
        }
    }
    if end.timeline == from.timeline && from.offset <= end.offset {
        stretches.push(Stretch::Along { timeline: end.timeline, from: from.offset, to: end.offset });
    } else {
        // `from` lies on a branch that was left before it, so nothing connects it with `to`.
        stretches.push(Stretch::Unknown { from, to: end });
    }
    stretches.reverse();
    stretches
}

/// How far one can go from `from` without leaving its timeline.
fn reached_from(covered: &BTreeMap<u32, Vec<Interval>>, from: Position) -> Position {
    let intervals = covered.get(&from.timeline).map(Vec::as_slice).unwrap_or_default();
    let here = intervals.iter().find(|interval| interval.from <= from.offset && from.offset <= interval.to);
    Position::new(from.timeline, here.map_or(from.offset, |interval| interval.to))
}

/// The parts of `from..to` that no interval covers.
fn holes(intervals: &[Interval], from: u64, to: u64) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut reached = from;
    for interval in intervals {
        if interval.to <= reached {
            continue;
        }
        if interval.from >= to {
            break;
        }
        if interval.from > reached {
            holes.push((reached, interval.from));
        }
        reached = interval.to;
    }
    if reached < to {
        holes.push((reached, to));
    }
    holes
}

/// The parts between two positions of one timeline that none of the pieces holds.
pub(super) fn holes_in<'a>(
    pieces: impl Iterator<Item = &'a Piece>,
    from: Position,
    to: Position,
) -> Vec<(u64, u64)> {
    let on = pieces.filter(|piece| piece.name.first().timeline == from.timeline);
    let mut intervals: Vec<Interval> = on
        .map(|piece| (piece.name.first().offset, piece.name.last().offset))
        .map(|(from, to)| Interval { from, to, started: None, ended: None })
        .collect();
    intervals.sort_by_key(|interval| interval.from);
    holes(&intervals, from.offset, to.offset)
}

fn lost_between(pieces: &[Piece], from: Position, to: Position) -> Vec<LogName> {
    let mut lost: Vec<LogName> = pieces
        .iter()
        .filter(|piece| piece.state != PieceState::Present)
        .map(|piece| piece.name)
        .filter(|name| name.last() > from && name.first() < to)
        .collect();
    lost.sort_unstable();
    lost.dedup();
    lost
}

/// Every contiguous range, in order of its end. A range that continues an older timeline starts there; what the older
/// timeline holds beyond the point it was left at is a range of its own.
pub fn ranges_of(pieces: &[Piece]) -> Vec<Range> {
    let switches = switches(pieces);
    // Each with the offset at which it entered the timeline it ends on.
    let mut done: Vec<(Range, u64)> = Vec::new();
    let mut continued: Vec<Position> = Vec::new();
    for (timeline, intervals) in covered(pieces) {
        for interval in intervals {
            let mut range = Range {
                from: Position::new(timeline, interval.from),
                to: Position::new(timeline, interval.to),
                started: interval.started,
                ended: interval.ended,
            };
            if let Some(&(entered, follows)) = switches.get(&timeline)
                && entered == interval.from
                && let Some((older, _)) = done.iter().find(|(older, since)| {
                    older.to.timeline == follows.timeline
                        && (*since..=older.to.offset).contains(&follows.offset)
                })
            {
                range.from = older.from;
                range.started = older.started;
                continued.push(follows);
            }
            done.push((range, interval.from));
        }
    }
    // A range that was left exactly at its end is part of the longer one that goes on from there.
    let mut ranges: Vec<Range> =
        done.into_iter().map(|(range, _)| range).filter(|range| !continued.contains(&range.to)).collect();
    ranges.sort_by_key(|range| (range.to, range.from));
    ranges
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const END: u64 = 60;

    fn piece(timeline: u32, from: u64, to: u64, follows: Option<Position>, present: bool) -> Piece {
        let name = LogName::of(Position::new(timeline, from), Position::new(timeline, to)).unwrap();
        let state = if present { PieceState::Present } else { PieceState::Lost("dropped".to_owned()) };
        Piece { name, follows, history: None, started: None, ended: None, state }
    }

    proptest! {
        /// The model is a set of covered positions; objects overlap and come in any order.
        #[test]
        fn gaps_and_ranges_agree_with_counting_positions(
            spans in prop::collection::vec((0..END, 1u64..20, any::<bool>()), 0..12),
            switch in prop::option::of(0..END),
            from in 0..END,
            to in 0..END,
        ) {
            // A switch at `at` splits the same history into two timelines.
            let place = |offset| Position::new(if switch.is_some_and(|at| offset >= at) { 2 } else { 1 }, offset);
            let mut pieces = Vec::new();
            let mut model = BTreeSet::new();
            for (start, length, present) in spans {
                let cut = switch.filter(|at| start < *at && *at < start + length).unwrap_or(start + length);
                for (a, b) in [(start, cut), (cut, start + length)].into_iter().filter(|(a, b)| a < b) {
                    let timeline = place(a).timeline;
                    let follows = switch.filter(|at| *at == a && timeline == 2).map(|at| Position::new(1, at));
                    pieces.push(piece(timeline, a, b, follows, present));
                    if present {
                        model.extend(a..b);
                    }
                }
            }
            if let Some(at) = switch {
                // What is known about the switch does not depend on the object that declared it being whole.
                pieces.push(piece(2, at, at + 1, Some(Position::new(1, at)), false));
            }
            let (from, to) = (from.min(to), from.max(to));
            let missing: BTreeSet<u64> = (from..to).filter(|offset| !model.contains(offset)).collect();
            let mut named = BTreeSet::new();
            if let GapVerdict::Gaps(gaps) = verdict_of(&pieces, place(from), place(to)) {
                prop_assert!(!gaps.is_empty());
                for gap in gaps {
                    prop_assert!(gap.from < gap.to);
                    named.extend(gap.from.offset..gap.to.offset);
                }
            }
            prop_assert_eq!(named, missing);
            let ranged: BTreeSet<u64> =
                ranges_of(&pieces).iter().flat_map(|range| range.from.offset..range.to.offset).collect();
            prop_assert_eq!(ranged, model);
        }
    }

    #[test]
    fn a_switch_that_names_a_position_before_its_timeline_began_joins_nothing() {
        let pieces = [
            piece(1, 0, 100, None, true),
            piece(2, 100, 200, Some(Position::new(1, 100)), true),
            piece(3, 200, 300, Some(Position::new(2, 50)), true),
        ];
        let to = Position::new(3, 300);
        assert_ne!(verdict_of(&pieces, Position::new(1, 0), to), GapVerdict::Contiguous);
        let ranges = ranges_of(&pieces);
        assert!(ranges.iter().any(|range| range.from == Position::new(3, 200)), "{ranges:?}");
    }

    #[test]
    fn a_timeline_cannot_continue_itself_or_a_later_one() {
        let pieces = [
            piece(1, 0, 10, Some(Position::new(2, 5)), true),
            piece(2, 5, 20, Some(Position::new(2, 5)), true),
        ];
        assert_ne!(verdict_of(&pieces, Position::new(1, 0), Position::new(2, 20)), GapVerdict::Contiguous);
    }
}
