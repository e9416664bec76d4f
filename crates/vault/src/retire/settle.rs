//! Bringing one copy to what the records say: manifests first, so that nothing listed is ever unrestorable; packs last.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;

use super::apply::{CopyOutcome, remove};
use super::record::{Fate, Retired};
use crate::error::{StorageContext, VaultError};
use crate::index::read_raw;
use crate::layout;
use crate::points::PointEntry;
use crate::vault::Vault;
use crate::write::put_confirmed;

impl Vault {
    /// Removes what `retired` says, as far as it is there. Packs go only if `used` is known, and none that is in it.
    pub(super) fn settle(
        &self,
        retired: &Retired,
        used: Option<&BTreeSet<Digest>>,
        indexes: &BTreeMap<Digest, Option<(Digest, Vec<u8>)>>,
        outcome: &mut CopyOutcome,
    ) -> Result<(), VaultError> {
        for listed in self.storage.list(layout::POINTS).doing(|| "list recovery points".to_owned())? {
            if layout::point_of(&listed.name).is_some_and(|id| retired.point(&id).is_some()) {
                remove(self.storage.as_ref(), &listed.name)?;
                outcome.points += 1;
                outcome.freed_bytes += listed.size_bytes;
            }
        }
        let points = self.points()?;
        let named: BTreeSet<Digest> =
            points.iter().filter_map(PointEntry::manifest).map(|manifest| manifest.snapshot).collect();
        let all_known = points.iter().all(|entry| entry.manifest().is_some());
        let dropped: BTreeSet<Digest> = retired.points().values().map(|gone| gone.point.snapshot).collect();
        for (id, size_bytes) in self.sizes(layout::SNAPSHOTS)? {
            // A record that was made while the copy with the point was away knows nothing of the point.
            let nobodys = all_known && retired.snapshots().contains(&id) && !named.contains(&id);
            if dropped.contains(&id) || nobodys {
                remove(self.storage.as_ref(), &layout::snapshot(&id))?;
                outcome.snapshots += 1;
                outcome.freed_bytes += size_bytes;
            }
        }
        let (log_objects, log_bytes) = self
            .logs()
            .remove_below(retired)
            .map_err(|error| VaultError::Inconsistent(format!("log cannot be removed: {error}")))?;
        outcome.log_objects += log_objects;
        outcome.freed_bytes += log_bytes;
        match used {
            Some(used) => self.settle_packs(retired, used, indexes, outcome),
            None => Ok(()),
        }
    }

    fn settle_packs(
        &self,
        retired: &Retired,
        used: &BTreeSet<Digest>,
        indexes: &BTreeMap<Digest, Option<(Digest, Vec<u8>)>>,
        outcome: &mut CopyOutcome,
    ) -> Result<(), VaultError> {
        let there = self.sizes(layout::INDEX)?;
        let replaced = indexes.iter().filter(|(old, _)| there.contains_key(*old));
        for (id, bytes) in replaced.clone().filter_map(|(_, new)| new.as_ref()) {
            put_confirmed(self.storage.as_ref(), &layout::index(id), &[bytes])?;
        }
        for (old, _new) in replaced {
            remove(self.storage.as_ref(), &layout::index(old))?;
        }
        let raw = read_raw(self.storage.as_ref(), &self.key)?;
        for (id, size_bytes) in self.sizes(layout::DATA)? {
            let named = raw.packs.contains_key(&id) || raw.marked.contains_key(&id);
            if retired.fate(&id) == Some(Fate::Removed) && !named && !used.contains(&id) {
                remove(self.storage.as_ref(), &layout::pack(&id))?;
                outcome.packs += 1;
                outcome.freed_bytes += size_bytes;
            }
        }
        Ok(())
    }
}
