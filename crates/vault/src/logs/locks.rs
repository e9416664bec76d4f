//! Until when the objects of a stream are to be locked.
//!
//! In: the end of the lock for what was written up to a moment. Out: the same for pieces and roll-ups. A roll-up is locked no
//! longer than any piece it lists: it has to go before one of them does.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::ids::StreamName;
use lifeboat_base::time::Timestamp;

use super::error::LogsError;
use super::inventory::sort_out;
use super::position::LogName;
use super::store::Logs;
use crate::layout::LOGS;
use crate::storage::ObjectName;

impl Logs {
    /// Pieces that are there, and roll-ups. Costs a listing and reading every roll-up, and every piece that none lists; of a
    /// damaged one that no roll-up lists nothing is known, and it is not among them.
    pub(crate) fn lock_ends(
        &self,
        stream: &StreamName,
        until: &dyn Fn(Timestamp) -> Option<Timestamp>,
    ) -> Result<BTreeMap<ObjectName, Timestamp>, LogsError> {
        let there: BTreeSet<LogName> =
            sort_out(self.storage().list(&format!("{LOGS}{stream}/"))?).objects.into_keys().collect();
        let mut ends: BTreeMap<ObjectName, Timestamp> = BTreeMap::new();
        for (rollup, entries) in self.read_rollups(stream)? {
            let pieces: Vec<Option<Timestamp>> = entries.iter().map(|entry| until(entry.ended)).collect();
            for (entry, end) in entries.iter().zip(&pieces) {
                if let (Some(end), true) = (*end, there.contains(&entry.name)) {
                    ends.insert(self.object_name(stream, entry.name), end);
                }
            }
            if let Some(first) = pieces.into_iter().min().flatten() {
                ends.insert(rollup, first);
            }
        }
        for entry in self.unlisted(stream)?.entries {
            if let Some(end) = until(entry.ended) {
                ends.insert(self.object_name(stream, entry.name), end);
            }
        }
        Ok(ends)
    }
}
