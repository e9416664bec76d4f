//! Which moments can be restored: from each usable point as far as its log goes without a gap.

use lifeboat_base::failure::Failure;
use lifeboat_base::ids::PointId;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::PointRow;
use lifeboat_stores::{Continuous, LogPosition};
use lifeboat_vault::logs::{GapVerdict, Inventory, Piece, PieceState, Position};

use super::head::Head;
use super::numbers::Histories;

/// How far a restore can go from one point, along one timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The point it starts from.
    pub(crate) point: PointId,
    /// The first moment that can be reached: the point's own.
    pub(crate) from: Timestamp,
    /// Where the point's own content ends and the log takes over.
    pub(crate) base_end: Position,
    /// How far the log goes without a gap.
    pub(crate) end: Position,
    /// The last moment that can be reached.
    pub(crate) to: Timestamp,
    /// What follows cannot be reached, although something of it is known.
    pub(crate) gap_after: bool,
}

/// A position of an adapter as the vault names it.
pub(crate) fn position(at: LogPosition) -> Position {
    Position::new(at.timeline, at.offset)
}

/// What can be reached from each of the points, in their order; a point without log after it reaches itself.
pub(crate) fn reaches(
    points: &[&PointRow],
    inventory: &Inventory,
    store: &dyn Continuous,
    head: Option<&Head>,
) -> Result<Vec<Reach>, Failure> {
    let ranges = inventory.ranges();
    let histories = Histories::of(store, Some(inventory), head);
    let named = store.names_histories();
    // A history that was left for another has something after it, also before the other's first piece is kept.
    let left = |end: Position| {
        named && end.timeline > 0 && head.is_some_and(|head| head.position.timeline > end.timeline)
    };
    let mut found = Vec::new();
    for point in points {
        let manifest = &point.manifest;
        let base_end = histories.base_end(store, &manifest.facts)?;
        let from = store.earliest(&manifest.facts);
        let own = Reach {
            point: manifest.id.clone(),
            from,
            base_end,
            end: base_end,
            to: from,
            gap_after: left(base_end) || is_known_beyond(&inventory.pieces, base_end, named),
        };
        let before = found.len();
        for range in &ranges {
            let whole = base_end.timeline > 0
                && range.to > base_end
                && inventory
                    .gap_verdict(base_end, range.to)
                    .is_ok_and(|verdict| verdict == GapVerdict::Contiguous);
            if !whole {
                continue;
            }
            let known = head.filter(|head| head.position == range.to).map(|head| head.as_of);
            let to = range.ended.into_iter().chain(known).fold(from, Timestamp::max);
            let gap_after = left(range.to) || is_known_beyond(&inventory.pieces, range.to, named);
            found.push(Reach { end: range.to, to, gap_after, ..own.clone() });
        }
        if found.len() == before {
            // The log may end inside the point's own last segment: everything up to there is in the point.
            let known = head.filter(|head| {
                head.position.timeline == base_end.timeline && head.position.offset >= base_end.offset
            });
            let to = known.map_or(own.to, |head| head.as_of.max(own.to));
            found.push(if known.is_some_and(|head| head.position == base_end) {
                Reach { to, ..own }
            } else {
                own
            });
        }
    }
    Ok(found)
}

/// Whether log of the same timeline is known that lies beyond `end`, kept or lost; of histories with names of their own,
/// which the store never has two of at a time, also log of a later one.
fn is_known_beyond(pieces: &[Piece], end: Position, named: bool) -> bool {
    pieces.iter().any(|piece| {
        let later = named && end.timeline > 0 && piece.name.first().timeline > end.timeline;
        later
            || piece.name.first().timeline == end.timeline
                && (piece.name.first().offset > end.offset
                    || (piece.name.first().offset == end.offset && piece.state != PieceState::Present))
    })
}
