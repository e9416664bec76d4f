//! What several rows keep together, such as the shards of a cluster, and what of it none of them has.
//!
//! In: the share of each row, as its store says now or as its newest point says. Out: what is missing, as findings.

use std::collections::BTreeSet;

use lifeboat_base::ids::StoreName;
use lifeboat_base::monitor::Finding;
use lifeboat_policy::{Retention, Store};
use lifeboat_stores::Share;

use crate::context::Engine;
use crate::error::EngineError;
use crate::view::in_future;

/// A row's share.
pub(crate) struct Held {
    pub(crate) store: StoreName,
    pub(crate) share: Share,
}

/// Shares of one whole each, with what none of them has: `5461-10922`.
fn missing(shares: &[Held]) -> Vec<(Vec<&Held>, String)> {
    let mut wholes: Vec<(BTreeSet<&str>, Vec<&Held>)> = Vec::new();
    for held in shares {
        let mut members: BTreeSet<&str> = held.share.members.iter().map(String::as_str).collect();
        let mut together = vec![held];
        let (same, others): (Vec<_>, Vec<_>) =
            wholes.into_iter().partition(|(known, _)| !known.is_disjoint(&members));
        wholes = others;
        for (known, holders) in same {
            members.extend(known);
            together.extend(holders);
        }
        wholes.push((members, together));
    }
    let gaps = |(_, holders): (_, Vec<_>)| gaps(&holders).map(|gaps| (holders, gaps));
    wholes.into_iter().filter_map(gaps).collect()
}

/// Numbers that no share has.
fn gaps(holders: &[&Held]) -> Option<String> {
    let all = holders.iter().map(|held| held.share.all).max()?;
    let mut ranges: Vec<(u32, u32)> =
        holders.iter().flat_map(|held| held.share.ranges.iter().copied()).collect();
    ranges.sort_unstable();
    let (mut next, mut missing) = (0, Vec::new());
    for (first, last) in ranges.into_iter().chain([(all, all)]) {
        if first > next {
            missing.push(if next == first - 1 { next.to_string() } else { format!("{next}-{}", first - 1) });
        }
        next = next.max(last.saturating_add(1));
    }
    (!missing.is_empty()).then(|| missing.join(", "))
}

fn finding(what: &str, slots: &str) -> Finding {
    let message = format!(
        "{what} the slots {slots} of a cluster whose other slots are kept: what is in them is lost with it"
    );
    Finding::new("slots-uncovered", "policy", message)
}

/// What the stores of no row have, by what they say now.
pub(crate) fn unkept(shares: &[Held]) -> Vec<Finding> {
    missing(shares).iter().map(|(_, slots)| finding("no row keeps", slots)).collect()
}

impl Engine {
    /// What the newest points of no row have, of wholes that one of these rows has a share of.
    pub(crate) fn uncaptured(&self, asked: &[&Store]) -> Result<Vec<Finding>, EngineError> {
        let now = self.env.clock.now();
        let mut shares = Vec::new();
        for row in self.policy.stores.values() {
            let kept = !matches!(row.retention.value, Retention::None);
            let Some(adapter) = kept.then(|| self.adapter(row).ok()).flatten() else { continue };
            let view = self.view(row)?;
            let counts = |point: &&lifeboat_catalog::PointRow| {
                point.usable() && !in_future(point.manifest.facts.consistency.moment, now)
            };
            let newest = view.points.iter().rev().find(counts);
            let share = newest.and_then(|point| adapter.share(&point.manifest.facts));
            shares.extend(share.map(|share| Held { store: row.name.clone(), share }));
        }
        let is_asked = |held: &&Held| asked.iter().any(|row| row.name == held.store);
        let missing = missing(&shares);
        let missing = missing.iter().filter(|(holders, _)| holders.iter().any(&is_asked));
        Ok(missing.map(|(_, slots)| finding("no recovery point holds", slots)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(members: &[&str], ranges: &[(u32, u32)]) -> Held {
        let members = members.iter().map(|id| (*id).to_owned()).collect();
        let store = StoreName::new("row").unwrap();
        Held { store, share: Share { members, ranges: ranges.to_vec(), all: 100 } }
    }

    fn said(shares: &[Held]) -> Vec<String> {
        missing(shares).into_iter().map(|(_, slots)| slots).collect()
    }

    #[test]
    fn what_no_share_has_is_found_for_each_whole_by_who_is_in_it() {
        assert_eq!(said(&[]), Vec::<String>::new());
        assert_eq!(said(&[held(&["a"], &[(0, 99)])]), Vec::<String>::new());
        assert_eq!(
            said(&[held(&["a", "b"], &[(0, 9), (11, 49)]), held(&["b"], &[(60, 98)])]),
            ["10, 50-59, 99"]
        );
        // Two that have nobody in common are of one whole if a third one knows both.
        let three = [held(&["a"], &[(0, 49)]), held(&["b"], &[(50, 98)]), held(&["b", "a"], &[(99, 99)])];
        assert_eq!(said(&three), Vec::<String>::new());
        assert_eq!(said(&[held(&["a"], &[(0, 49)]), held(&["b"], &[(50, 99)])]), ["50-99", "0-49"]);
        // Shares may have the same at different times.
        assert_eq!(said(&[held(&["a"], &[(0, 60)]), held(&["a"], &[(40, 99)])]), Vec::<String>::new());
    }
}
