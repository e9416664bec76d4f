//! Numbers for histories that a store gives random names: in the order they are met, so that a higher one is later.
//!
//! In: what is kept of them in copies, in the spool and in the head. Out: the number of a name and the other way round.

use std::collections::BTreeMap;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::Failure;
use lifeboat_base::ids::StreamName;
use lifeboat_base::monitor::Findings;
use lifeboat_stores::Continuous;
use lifeboat_vault::logs::{Inventory, LogsLevel, Position};

use super::head::Head;
use super::ranges::position;
use super::spool::Spool;
use crate::copies::VaultSet;

/// Names and numbers of a store's histories; empty for a store that numbers them itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Histories(BTreeMap<String, u32>);

impl Histories {
    /// What a copy and the head know.
    pub(super) fn of(store: &dyn Continuous, inventory: Option<&Inventory>, head: Option<&Head>) -> Self {
        let mut known = Self::default();
        if !store.names_histories() {
            return known;
        }
        for piece in inventory.into_iter().flat_map(|inventory| &inventory.pieces) {
            if let Some(name) = &piece.history {
                known.note(name, piece.name.first().timeline);
            }
        }
        if let Some(head) = head {
            known.note(&head.identity, head.position.timeline);
        }
        known
    }

    /// What the open copies know; all of them have to tell.
    pub(crate) fn in_copies(
        store: &dyn Continuous,
        set: &VaultSet,
        stream: &StreamName,
    ) -> Result<Self, Failure> {
        let mut known = Self::default();
        if store.names_histories() {
            for entry in &set.open {
                let inventory = entry.vault.logs().inventory(stream, LogsLevel::Listed, &Findings::new())?;
                known.extend(&Self::of(store, Some(&inventory), None));
            }
        }
        Ok(known)
    }

    /// The histories of which something is kept, in any open copy or in the spool. A copy that cannot be listed now is passed
    /// over only if the head knows the newest number: a number must never stand for two histories.
    pub(super) fn kept(
        store: &dyn Continuous,
        (set, stream): (&VaultSet, &StreamName),
        spool: &Spool,
        head: Option<&Head>,
    ) -> Result<Self, Failure> {
        let mut known = Self::of(store, None, head);
        if !store.names_histories() {
            return Ok(known);
        }
        for entry in &set.open {
            match entry.vault.logs().inventory(stream, LogsLevel::Listed, &Findings::new()) {
                Ok(inventory) => known.extend(&Self::of(store, Some(&inventory), None)),
                Err(error) if head.is_none() => return Err(error.into()),
                Err(_later) => {}
            }
        }
        for piece in spool.pieces()? {
            if let Some(name) = piece.notes()?.history {
                known.note(&name, piece.head.first.timeline);
            }
        }
        Ok(known)
    }

    /// The history `name` has this number. Of two the lower counts: it was given first.
    pub(super) fn note(&mut self, name: &str, number: u32) {
        let known = self.0.entry(name.to_owned()).or_insert(number);
        *known = number.min(*known);
    }

    /// What another place knows.
    pub(super) fn extend(&mut self, other: &Self) {
        for (name, number) in &other.0 {
            self.note(name, *number);
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.0.get(name).copied()
    }

    pub(super) fn name(&self, number: u32) -> Option<&str> {
        self.0.iter().find(|(_, known)| **known == number).map(|(name, _)| name.as_str())
    }

    /// The number of a history that may be met for the first time: then one that is higher than all others.
    pub(super) fn number_or_next(&mut self, name: &str) -> u32 {
        let next = self.0.values().max().map_or(1, |highest| highest.saturating_add(1));
        *self.0.entry(name.to_owned()).or_insert(next)
    }

    /// Where a point's own content ends. A history of which no log is kept has the number 0, which no log has.
    pub(crate) fn base_end(&self, store: &dyn Continuous, facts: &CaptureFacts) -> Result<Position, Failure> {
        let end = position(store.base_end(facts)?);
        if !store.names_histories() {
            return Ok(end);
        }
        let number = store.history(facts).and_then(|name| self.number(&name)).unwrap_or(0);
        Ok(Position::new(number, end.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_that_is_met_later_has_a_higher_number() {
        let mut known = Histories::default();
        assert_eq!(known.number_or_next("ff"), 1);
        assert_eq!(known.number_or_next("00"), 2);
        assert_eq!(known.number_or_next("ff"), 1);
        known.note("aa", 7);
        assert_eq!(known.number_or_next("bb"), 8);
        assert_eq!((known.number("00"), known.name(7), known.name(5)), (Some(2), Some("aa"), None));
    }
}
