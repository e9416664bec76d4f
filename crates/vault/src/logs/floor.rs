//! Dropping the oldest log: how much of it, by whole roll-ups, and its removal.
//!
//! A roll-up says of its objects that they existed: it goes before them, and none of them before all may go.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::ids::StreamName;

use super::error::LogsError;
use super::inventory::sort_out;
use super::position::LogName;
use super::rollup::{self, RollupEntry};
use super::store::{Logs, rollup_object, rollup_of};
use crate::layout::LOGS;
use crate::retire::{CopyOutcome, Retired};
use crate::storage::{ObjectName, StorageError};

/// The highest offset on each timeline up to which everything that roll-ups list may go, so that no roll-up is left with
/// an object that went. `may_go` is asked in the order of positions; what comes after a no stays.
pub fn floors_of(rollups: &[Vec<RollupEntry>], may_go: impl Fn(&RollupEntry) -> bool) -> BTreeMap<u32, u64> {
    let mut by_timeline: BTreeMap<u32, Vec<&RollupEntry>> = BTreeMap::new();
    for entry in rollups.iter().flatten() {
        by_timeline.entry(entry.last.timeline).or_default().push(entry);
    }
    let mut floors: BTreeMap<u32, u64> = BTreeMap::new();
    for (timeline, mut entries) in by_timeline {
        entries.sort_by_key(|entry| entry.last);
        if let Some(last) = entries.into_iter().take_while(|entry| may_go(entry)).last() {
            floors.insert(timeline, last.last.offset);
        }
    }
    let below = |floors: &BTreeMap<u32, u64>, entry: &RollupEntry| {
        floors.get(&entry.last.timeline).is_some_and(|floor| entry.last.offset <= *floor)
    };
    // Each round lowers a floor below an object of a roll-up that stays, so there are no more rounds than objects.
    while let Some(split) = rollups.iter().find(|entries| {
        entries.iter().any(|entry| below(&floors, entry))
            && !entries.iter().all(|entry| below(&floors, entry))
    }) {
        for entry in split {
            if below(&floors, entry) {
                let lower = rollups.iter().flatten().map(|other| other.last);
                let lower = lower.filter(|last| *last < entry.last && last.timeline == entry.last.timeline);
                match lower.max() {
                    Some(last) => floors.insert(last.timeline, last.offset),
                    None => floors.remove(&entry.last.timeline),
                };
            }
        }
    }
    floors
}

impl Logs {
    /// What each roll-up of a stream lists. A damaged one says nothing.
    pub fn rolled_up(&self, stream: &StreamName) -> Result<Vec<Vec<RollupEntry>>, LogsError> {
        Ok(self.read_rollups(stream)?.into_values().collect())
    }

    pub(super) fn read_rollups(
        &self,
        stream: &StreamName,
    ) -> Result<BTreeMap<ObjectName, Vec<RollupEntry>>, LogsError> {
        let mut rollups = BTreeMap::new();
        for name in sort_out(self.storage().list(&format!("{LOGS}{stream}/"))?).rollups {
            let object = rollup_object(stream, &name);
            let bytes = match self.get(&object) {
                Err(LogsError::Damaged { .. }) => continue,
                other => other?,
            };
            if let Ok(entries) = rollup::open(&bytes, self.vault(), stream, &name, &self.signing().public()) {
                rollups.insert(object, entries);
            }
        }
        Ok(rollups)
    }

    /// Whether the roll-up with these bytes lists nothing but what was dropped.
    pub(crate) fn is_dropped_rollup(&self, object: &ObjectName, bytes: &[u8], retired: &Retired) -> bool {
        let Some((stream, name)) = rollup_of(object) else { return false };
        let entries = rollup::open(bytes, self.vault(), &stream, &name, &self.signing().public());
        entries.is_ok_and(|entries| all_dropped(&stream, &entries, retired))
    }

    /// Roll-ups that list nothing but what was dropped.
    pub(crate) fn dropped_rollups(&self, retired: &Retired) -> Result<Vec<ObjectName>, LogsError> {
        let mut dropped = Vec::new();
        let streams: BTreeSet<StreamName> = retired.floors().map(|floor| floor.stream).collect();
        for stream in streams {
            let rollups = self.read_rollups(&stream)?;
            let gone = rollups.into_iter().filter(|(_, entries)| all_dropped(&stream, entries, retired));
            dropped.extend(gone.map(|(object, _)| object));
        }
        Ok(dropped)
    }

    /// Removes what was dropped: roll-ups first. An object that a roll-up which stays lists stays with it, as does what a lock
    /// keeps.
    pub(crate) fn remove_below(&self, retired: &Retired, outcome: &mut CopyOutcome) -> Result<(), LogsError> {
        let mut take = |object: &ObjectName, size_bytes: u64| {
            match self.storage().remove(object) {
                Ok(()) => {
                    outcome.log_objects += 1;
                    outcome.freed_bytes += size_bytes;
                }
                Err(StorageError::NotFound { .. }) => {}
                Err(StorageError::Locked { until, .. }) => outcome.kept(until),
                Err(error) => return Err(error),
            }
            Ok(())
        };
        for object in self.dropped_rollups(retired)? {
            let size_bytes = self.storage().stat(&object)?.unwrap_or_default();
            take(&object, size_bytes)?;
        }
        let streams: BTreeSet<StreamName> = retired.floors().map(|floor| floor.stream).collect();
        for stream in streams {
            let listed: BTreeSet<LogName> =
                self.read_rollups(&stream)?.into_values().flatten().map(|entry| entry.name).collect();
            for (name, size_bytes) in sort_out(self.storage().list(&format!("{LOGS}{stream}/"))?).objects {
                if retired.is_below_floor(&stream, &name) && !listed.contains(&name) {
                    take(&self.object_name(&stream, name), size_bytes)?;
                }
            }
        }
        Ok(())
    }
}

fn all_dropped(stream: &StreamName, entries: &[RollupEntry], retired: &Retired) -> bool {
    !entries.is_empty() && entries.iter().all(|entry| retired.is_below_floor(stream, &entry.name))
}

#[cfg(test)]
mod tests {
    use lifeboat_base::digest::Digest;
    use lifeboat_base::time::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::logs::Position;

    fn entry(timeline: u32, last: u64) -> RollupEntry {
        let (first, last) = (Position::new(timeline, last - 1), Position::new(timeline, last));
        RollupEntry {
            name: LogName::of(first, last).unwrap(),
            first,
            last,
            follows: None,
            history: None,
            started: Timestamp::UNIX_EPOCH,
            ended: Timestamp::UNIX_EPOCH,
            stored_bytes: 1,
            sha256: Digest::of(b""),
        }
    }

    proptest! {
        #[test]
        fn no_roll_up_is_split_and_nothing_goes_that_may_not(
            listed in prop::collection::vec(prop::collection::vec((1u32..4, 1u64..60), 1..6), 0..12),
            limits in prop::array::uniform3(0u64..60),
        ) {
            let rollups: Vec<Vec<RollupEntry>> = listed
                .into_iter()
                .map(|hour| hour.into_iter().map(|(timeline, last)| entry(timeline, last)).collect())
                .collect();
            let may_go = |piece: &RollupEntry| piece.last.offset <= limits[piece.last.timeline as usize - 1];
            let floors = floors_of(&rollups, may_go);
            let below = |piece: &RollupEntry| {
                floors.get(&piece.last.timeline).is_some_and(|floor| piece.last.offset <= *floor)
            };
            for hour in &rollups {
                prop_assert!(hour.iter().all(below) || !hour.iter().any(below), "{floors:?}");
                prop_assert!(hour.iter().filter(|piece| below(piece)).all(may_go));
            }
        }
    }
}
