//! Packs that a killed run stored but did not come to index: verified and indexed, so that nothing is sent twice.

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::Timestamp;

use super::packer::write_index;
use crate::crypto::MasterKey;
use crate::error::VaultError;
use crate::format::index::IndexPack;
use crate::format::pack;
use crate::index::Index;
use crate::layout;
use crate::storage::Storage;

/// Packs named by one index file of adopted packs.
const PACKS_PER_INDEX: usize = 64;

/// Adopts every unindexed pack that is whole; reports the others, which stay where they are.
pub(super) fn adopt(
    storage: &dyn Storage,
    key: &MasterKey,
    index: &mut Index,
    started: Timestamp,
    monitor: &dyn Monitor,
) -> Result<u64, VaultError> {
    let mut adopted = Vec::new();
    for (id, _size_bytes) in std::mem::take(&mut index.unindexed) {
        let name = layout::pack(&id);
        let bytes = storage
            .get(&name)
            .map_err(|source| VaultError::Storage { doing: format!("read `{name}`"), source })?;
        let header = if Digest::of(&bytes) == id { pack::header_of(key, &bytes) } else { None };
        match header {
            Some(blobs) => adopted.push(IndexPack {
                id,
                blobs,
                time: Some(started.to_string()),
                stored_size_bytes: None,
            }),
            None => monitor.finding(
                Finding::new(
                    "pack-damaged",
                    name.to_string(),
                    "a pack that no index names is not whole; nothing relies on it",
                )
                .with_kind(FailureKind::Damaged),
            ),
        }
    }
    let count = adopted.len() as u64;
    for packs in adopted.chunks(PACKS_PER_INDEX) {
        write_index(storage, key, packs.to_vec())?;
        for pack in packs {
            index.add_sound(pack);
        }
    }
    Ok(count)
}
