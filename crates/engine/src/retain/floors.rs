//! How much of a row's log nothing needs any more: what lies before the base that the promised window starts from.

use std::collections::BTreeMap;

use lifeboat_base::failure::Failure;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::PointRow;
use lifeboat_policy::{Decided, Reason, Rules, Store, Verdict};
use lifeboat_vault::logs::{Position, RollupEntry, floors_of};
use lifeboat_vault::retire::LogFloor;

use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::EngineError;
use crate::logs::{Histories, stream_name};

/// Where the window starts and what it needs.
struct Window {
    /// The moment of its oldest base.
    since: Timestamp,
    /// Where the content of its bases ends, the lowest on each timeline.
    bases: BTreeMap<u32, u64>,
}

impl Window {
    /// Whether nothing in the window needs this piece: it ends before every base of its timeline, or lies on a timeline
    /// older than all of them and was over when the window began.
    fn spares(&self, piece: &RollupEntry) -> bool {
        let Position { timeline, offset } = piece.last;
        if let Some(base) = self.bases.get(&timeline) {
            return offset <= *base;
        }
        let older = self.bases.keys().next().is_some_and(|oldest| timeline < *oldest);
        older && piece.ended <= self.since
    }
}

impl Engine {
    /// What may go. Nothing while no complete point lies before the window, while what a base needs is not known, or for
    /// a row that keeps no log.
    pub(super) fn log_floors(
        &self,
        row: &Store,
        set: &VaultSet,
        (rules, points): (&Rules<'_>, &[PointRow]),
        decided: &Decided,
    ) -> Result<Vec<LogFloor>, EngineError> {
        let Some(span) = rules.window else { return Ok(Vec::new()) };
        let Ok(adapter) = self.adapter(row) else { return Ok(Vec::new()) };
        let Some(store) = adapter.continuous() else { return Ok(Vec::new()) };
        let start = span.before(decided.as_of, rules.zone);
        let stream = stream_name(store)?;
        let histories = Histories::in_copies(store, set, &stream)?;
        let mut window: Option<Window> = None;
        for (point, decision) in points.iter().zip(&decided.points) {
            let Verdict::Kept(reasons) = &decision.verdict else { continue };
            if !reasons.contains(&Reason::LogWindow) {
                continue;
            }
            // A base of a history without a number, because nothing of it is kept, says nothing of what others need.
            let end = histories.base_end(store, &point.manifest.facts).ok().filter(|end| end.timeline > 0);
            let Some(end) = end else { return Ok(Vec::new()) };
            let first = point.usable() && point.complete() && decision.moment <= start;
            match &mut window {
                None if !first => return Ok(Vec::new()),
                None => {
                    let bases = BTreeMap::from([(end.timeline, end.offset)]);
                    window = Some(Window { since: decision.moment, bases });
                }
                Some(window) => {
                    let lowest = window.bases.entry(end.timeline).or_insert(end.offset);
                    *lowest = end.offset.min(*lowest);
                }
            }
        }
        let Some(window) = window else { return Ok(Vec::new()) };
        let mut rollups = Vec::new();
        for entry in &set.open {
            rollups.extend(entry.vault.logs().rolled_up(&stream).map_err(Failure::from)?);
        }
        let free = |piece: &RollupEntry| {
            rules.minimum.is_none_or(|minimum| minimum.after(piece.ended, rules.zone) <= decided.as_of)
        };
        let floors = floors_of(&rollups, |piece| window.spares(piece) && free(piece));
        let floor = |(timeline, below)| LogFloor { stream: stream.clone(), timeline, below };
        Ok(floors.into_iter().map(floor).collect())
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::digest::Digest;
    use lifeboat_vault::logs::LogName;

    use super::*;

    #[test]
    fn what_any_base_of_the_window_needs_stays_and_so_does_what_was_written_in_it() {
        let hour = |hour: i64| Timestamp::from_second(hour * 3600).unwrap();
        let piece = |timeline, last, at| {
            let (first, last) = (Position::new(timeline, last - 10), Position::new(timeline, last));
            RollupEntry {
                name: LogName::of(first, last).unwrap(),
                first,
                last,
                follows: None,
                history: None,
                started: at,
                ended: at,
                stored_bytes: 1,
                sha256: Digest::of(b""),
            }
        };
        let window = Window { since: hour(10), bases: BTreeMap::from([(3, 100), (4, 500)]) };
        assert!(window.spares(&piece(3, 100, hour(9))));
        assert!(!window.spares(&piece(3, 101, hour(9))), "the base begins within it");
        assert!(window.spares(&piece(4, 500, hour(11))));
        // A timeline that was left before the window, and one that went on in it.
        assert!(window.spares(&piece(2, 900, hour(10))));
        assert!(!window.spares(&piece(2, 900, hour(11))));
        // A timeline without a base that is newer than one with a base may lead from that.
        let newer = Window { since: hour(10), bases: BTreeMap::from([(3, 100)]) };
        assert!(!newer.spares(&piece(4, 50, hour(1))));
    }
}
