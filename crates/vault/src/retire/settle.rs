//! Bringing one copy to what the records say: manifests first, so that nothing listed is ever unrestorable; packs last.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;

use super::apply::CopyOutcome;
use super::plan::Needs;
use super::record::{Fate, Retired};
use crate::error::{StorageContext, VaultError};
use crate::index::read_raw;
use crate::layout;
use crate::points::PointEntry;
use crate::vault::Vault;
use crate::write::put_confirmed;

impl Vault {
    /// Removes what `retired` says and no hold keeps, as far as it is there. Packs go only if what is needed here is known, and
    /// none that is. What a lock keeps stays until an application after its end. The caller has the write lock; the copy has to show every record first.
    pub(super) fn settle(
        &self,
        retired: &Retired,
        needs: Option<&Needs>,
        indexes: &BTreeMap<Digest, Option<(Digest, Vec<u8>)>>,
        outcome: &mut CopyOutcome,
    ) -> Result<(), VaultError> {
        self.shows_records(retired)?;
        for listed in self.storage.list(layout::POINTS).doing(|| "list recovery points".to_owned())? {
            if layout::point_of(&listed.name).is_some_and(|id| retired.takes(&id))
                && outcome.remove(self.storage.as_ref(), &listed.name)?
            {
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
            let nobodys = all_known && retired.takes_snapshot(&id) && !named.contains(&id);
            if ((dropped.contains(&id) && retired.takes_snapshot(&id)) || nobodys)
                && outcome.remove(self.storage.as_ref(), &layout::snapshot(&id))?
            {
                outcome.snapshots += 1;
                outcome.freed_bytes += size_bytes;
            }
        }
        self.logs()
            .remove_below(retired, outcome)
            .map_err(|error| VaultError::Inconsistent(format!("log cannot be removed: {error}")))?;
        match needs {
            Some(needs) => self.settle_packs(retired, needs, indexes, outcome),
            None => Ok(()),
        }
    }

    fn settle_packs(
        &self,
        retired: &Retired,
        needs: &Needs,
        indexes: &BTreeMap<Digest, Option<(Digest, Vec<u8>)>>,
        outcome: &mut CopyOutcome,
    ) -> Result<(), VaultError> {
        if let Some(other) = self.sizes(layout::SNAPSHOTS)?.keys().find(|id| !needs.snapshots.contains(id)) {
            return Err(VaultError::Refused(format!("what snapshot {other} needs was not looked at")));
        }
        let there = self.sizes(layout::INDEX)?;
        let replaced = indexes.iter().filter(|(old, _)| there.contains_key(*old));
        for (id, bytes) in replaced.clone().filter_map(|(_, new)| new.as_ref()) {
            put_confirmed(self.storage.as_ref(), &layout::index(id), &[bytes])?;
        }
        for (old, _new) in replaced {
            // While a lock keeps it the packs it names stay: no index file may name what is not there.
            outcome.remove(self.storage.as_ref(), &layout::index(old))?;
        }
        let raw = read_raw(self.storage.as_ref(), &self.key)?;
        for (id, size_bytes) in self.sizes(layout::DATA)? {
            let named = raw.packs.contains_key(&id) || raw.marked.contains_key(&id);
            if retired.fate(&id) == Some(Fate::Removed)
                && !named
                && !needs.packs.contains(&id)
                && outcome.remove(self.storage.as_ref(), &layout::pack(&id))?
            {
                outcome.packs += 1;
                outcome.freed_bytes += size_bytes;
            }
        }
        Ok(())
    }
}
