//! What is known of a row's log without a key: how far every copy holds it, and what is missing on the way there.
//!
//! In: the head, the names each copy lists, what was remembered of them. Out: the first hole behind a point. Offsets of
//! different timelines never stand for each other: the way leads from the point's timeline to the head's over the places
//! where one left the other.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId, StreamName};
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::PointRow;
use lifeboat_policy::Store;
use lifeboat_stores::Continuous;
use lifeboat_vault::Vault;
use lifeboat_vault::logs::{LogName, Logs, Position};

use crate::context::Engine;
use crate::logs::{Head, Marks, Way, holes, position, stream_name};

/// What is known of a row's log without a key.
pub(super) struct LogState {
    /// Everything committed before this moment is held in every copy.
    pub(super) as_of: Timestamp,
    /// Where the log ends.
    head: Position,
    /// Where it began to be kept and where each timeline left the one before it.
    way: Way,
    /// What each copy lists.
    copies: Vec<ListedLog>,
    /// Where each point's own content ends, by point.
    base_ends: Vec<(PointId, Position)>,
}

/// The log of a row as one copy lists it.
struct ListedLog {
    copy: CopyName,
    /// The objects that can be relied on as far as is known.
    sound: Vec<LogName>,
    /// Objects that cannot, and why.
    damaged: Vec<(LogName, String)>,
}

/// A stretch of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leg {
    timeline: u32,
    from: u64,
    to: u64,
}

impl LogState {
    /// What is missing between a point and the head, in words.
    pub(super) fn hole(&self, point: &PointId) -> Option<String> {
        let Some(from) = self.base_end(point) else {
            return Some("where its log begins is not known".to_owned());
        };
        match self.way(from) {
            Ok(way) => self.hole_on(&way),
            Err(why) => Some(why),
        }
    }

    /// As [`LogState::hole`], but for what lies before any log was kept.
    pub(super) fn hole_since_begun(&self, point: &PointId) -> Option<String> {
        let mut way = match self.way(self.base_end(point)?) {
            Ok(way) => way,
            Err(why) => return Some(why),
        };
        let holds = |leg: &Leg, at: Position| leg.timeline == at.timeline && at.offset <= leg.to;
        if let Some(began) = self.way.began
            && let Some(first) = way.iter().position(|leg| holds(leg, began))
        {
            way.drain(..first);
            if let Some(leg) = way.first_mut() {
                leg.from = leg.from.max(began.offset);
            }
        }
        self.hole_on(&way)
    }

    fn base_end(&self, point: &PointId) -> Option<Position> {
        self.base_ends.iter().find(|(id, _)| id == point).map(|(_, end)| *end)
    }

    /// The way from a position to the head, oldest timeline first.
    fn way(&self, from: Position) -> Result<Vec<Leg>, String> {
        let mut way = Vec::new();
        let mut at = self.head;
        while at.timeline != from.timeline {
            let left = &self.way.left;
            let Some(left) = left.get(&at.timeline).filter(|_| way.len() <= left.len()) else {
                let timeline = at.timeline;
                return Err(format!("where timeline {timeline} of its log began is not known here"));
            };
            way.push(Leg { timeline: at.timeline, from: left.offset.min(at.offset), to: at.offset });
            at = *left;
        }
        if !way.is_empty() && at.offset < from.offset {
            return Err(
                "its log goes on from before this point: a promotion left the point behind".to_owned()
            );
        }
        way.push(Leg { timeline: at.timeline, from: from.offset, to: at.offset });
        way.reverse();
        Ok(way)
    }

    fn hole_on(&self, way: &[Leg]) -> Option<String> {
        for ListedLog { copy, sound, damaged } in &self.copies {
            for leg in way {
                let holes = holes(sound.iter().copied(), leg.timeline, leg.from, leg.to);
                let Some((at, _)) = holes.first().copied() else { continue };
                let shown = format!("{:X}/{:X}", at >> 32, at & 0xFFFF_FFFF);
                let there = |name: &LogName| {
                    name.first().timeline == leg.timeline
                        && (name.first().offset..name.last().offset).contains(&at)
                };
                let why = damaged.iter().find(|(name, _)| there(name));
                let why = why.map(|(name, why)| format!(": {name}: {why}")).unwrap_or_default();
                return Some(format!("the log in `{copy}` has a gap after {shown}{why}"));
            }
        }
        None
    }
}

/// Objects of a log that can be relied on, as far as is known, and those that cannot, with the reason.
type Listing = (Vec<LogName>, Vec<(LogName, String)>);

impl Engine {
    /// How far the log of a row goes, from its head and what the copies list, or why nobody knows; nothing for a row
    /// without one.
    pub(super) fn log_state(&self, row: &Store, points: &[PointRow]) -> Option<Result<LogState, String>> {
        row.logs.value.as_ref()?;
        let adapter = self.adapter(row).ok()?;
        let state = self.look_at_log(row, adapter.continuous()?, points);
        Some(state.map_err(|failure| failure.chain()))
    }

    fn look_at_log(
        &self,
        row: &Store,
        store: &dyn Continuous,
        points: &[PointRow],
    ) -> Result<LogState, Failure> {
        let folder = self.log_folder(&row.name);
        let followed = || Failure::new(FailureKind::Findings, "its log is not followed");
        let head = Head::read(&folder)?.ok_or_else(followed)?;
        let stream = stream_name(store)?;
        let marks = Marks::new(&folder);
        let mut copies = Vec::new();
        for copy in &row.copies.value {
            let (sound, damaged) = self.listed_log(row, copy, (&stream, &marks)).map_err(|failure| {
                let what = format!("the log in `{copy}` cannot be listed");
                Failure::with_source(failure.kind(), what, failure)
            })?;
            copies.push(ListedLog { copy: copy.clone(), sound, damaged });
        }
        // Where histories have names, only what is of the head's own history leads to it as far as is known here.
        let named = store.names_histories();
        let base_ends = points.iter().filter_map(|point| {
            let facts = &point.manifest.facts;
            let end = position(store.base_end(facts).ok()?);
            if !named {
                return Some((point.manifest.id.clone(), end));
            }
            let same = store.history(facts).as_ref() == Some(&head.identity);
            same.then(|| (point.manifest.id.clone(), Position::new(head.position.timeline, end.offset)))
        });
        let base_ends = base_ends.collect();
        Ok(LogState { as_of: head.as_of, head: head.position, way: marks.way(), copies, base_ends })
    }

    /// The log objects that a copy lists, and those among them that cannot be relied on: known to be damaged, or of
    /// another size than they had when they were stored. Nothing is opened, so a flipped byte is seen only once something
    /// has read it.
    fn listed_log(
        &self,
        row: &Store,
        copy: &CopyName,
        (stream, marks): (&StreamName, &Marks),
    ) -> Result<Listing, Failure> {
        let storage = self.storage(row, copy)?;
        let gone = || Failure::new(FailureKind::Unreachable, "the copy has no vault now");
        let envelope = Vault::read_envelope(storage.as_ref())?.ok_or_else(gone)?;
        let vault = (envelope.vault_id(), envelope.public_key());
        let sizes = Logs::list_sizes(storage.as_ref(), vault, stream)?;
        let (known, stored) = (marks.of(copy)?, marks.sizes());
        let (mut sound, mut damaged) = (Vec::new(), Vec::new());
        for (name, (size_bytes, listed_bytes)) in sizes {
            let expected = listed_bytes.or_else(|| stored.get(&name).copied());
            if let Some(why) = known.get(&name) {
                damaged.push((name, why.clone()));
            } else if let Some(expected) = expected.filter(|expected| *expected != size_bytes) {
                damaged.push((name, format!("it has {size_bytes} bytes and was stored with {expected}")));
            } else {
                sound.push(name);
            }
        }
        Ok((sound, damaged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(timeline: u32, from: u64, to: u64) -> LogName {
        LogName::of(Position::new(timeline, from), Position::new(timeline, to)).unwrap()
    }

    fn point() -> PointId {
        PointId::new("20260101t000000z").unwrap()
    }

    fn state(base: (u32, u64), head: (u32, u64), sound: &[LogName]) -> LogState {
        let listed =
            ListedLog { copy: CopyName::new("local").unwrap(), sound: sound.to_vec(), damaged: Vec::new() };
        LogState {
            as_of: Timestamp::UNIX_EPOCH,
            head: Position::new(head.0, head.1),
            way: Way::new(
                Some(Position::new(1, 40)),
                [(2, Position::new(1, 80)), (3, Position::new(2, 120))].into(),
            ),
            copies: vec![listed],
            base_ends: vec![(point(), Position::new(base.0, base.1))],
        }
    }

    #[test]
    fn what_another_timeline_holds_fills_no_hole() {
        let whole = [name(1, 0, 100), name(2, 80, 90), name(2, 90, 120)];
        assert_eq!(state((1, 10), (2, 120), &whole).hole(&point()), None);
        // The first timeline went on to 100, on a way that the second one left at 80.
        let hole = state((1, 10), (2, 120), &[whole[0], whole[2]]).hole(&point()).unwrap();
        assert!(hole.contains("a gap after 0/50"), "{hole}");
        let hole = state((1, 10), (3, 130), &[whole[0], whole[1], whole[2]]).hole(&point()).unwrap();
        assert!(hole.contains("a gap after 0/78"), "{hole}");
    }

    #[test]
    fn a_point_that_a_promotion_left_behind_is_not_on_the_way() {
        let hole = state((1, 90), (2, 120), &[name(1, 0, 100), name(2, 80, 120)]).hole(&point()).unwrap();
        assert!(hole.contains("left the point behind"), "{hole}");
        let hole = state((7, 0), (2, 120), &[name(2, 80, 120)]).hole(&point()).unwrap();
        assert!(hole.contains("where timeline 1 of its log began is not known"), "{hole}");
    }

    #[test]
    fn what_lies_before_any_log_was_kept_is_no_hole_since_it_began() {
        let late = [name(1, 40, 80), name(2, 80, 120)];
        assert!(state((1, 10), (2, 120), &late).hole(&point()).is_some());
        assert_eq!(state((1, 10), (2, 120), &late).hole_since_begun(&point()), None);
        // What was kept once and is gone is one, and so is everything.
        let rest = state((1, 10), (2, 120), &[name(2, 90, 120)]).hole_since_begun(&point()).unwrap();
        assert!(rest.contains("a gap after 0/28"), "{rest}");
        assert!(state((1, 10), (2, 120), &[]).hole_since_begun(&point()).is_some());
        let hole = state((1, 10), (2, 120), &[name(1, 40, 60), name(2, 80, 120)]).hole_since_begun(&point());
        assert!(hole.unwrap().contains("a gap after 0/3C"));
    }

    #[test]
    fn without_any_piece_that_is_needed_there_is_a_hole() {
        let mut pieces: Vec<LogName> = (0..8).map(|n| name(1, n * 10, n * 10 + 10)).collect();
        pieces.extend((8..12).map(|n| name(2, n * 10, n * 10 + 10)));
        assert_eq!(state((1, 0), (2, 120), &pieces).hole(&point()), None);
        for missing in 0..pieces.len() {
            let mut rest = pieces.clone();
            rest.remove(missing);
            rest.extend([name(1, 80, 120), name(2, 0, 80), name(3, 0, 120)]);
            assert!(state((1, 0), (2, 120), &rest).hole(&point()).is_some(), "{missing}");
        }
    }
}
