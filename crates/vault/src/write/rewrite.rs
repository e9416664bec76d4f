//! Moving blobs that are in use out of packs that are mostly not: opened and verified, stored as they were sealed.
//!
//! Memory: as for a write, one blob and the packs in assembly.

use std::collections::BTreeSet;

use crossbeam_channel::bounded;
use lifeboat_base::digest::Digest;
use lifeboat_base::monitor::Monitor;

use super::packer::{PackSender, PackWriter};
use super::pipeline::Sealed;
use crate::error::{StorageContext, VaultError};
use crate::format::pack::open_blob;
use crate::index::read_header;
use crate::layout;
use crate::vault::Vault;

/// Stores the blobs at these offsets of these packs (id and size) again, in new packs that an index file names. Every one is
/// compared with its id before; the caller proves the new packs after.
pub(crate) fn rewrite<'a>(
    vault: &Vault,
    packs: impl Iterator<Item = (Digest, u64, &'a BTreeSet<u32>)>,
    monitor: &dyn Monitor,
) -> Result<(), VaultError> {
    let storage = vault.storage.as_ref();
    let (sender, receiver) = bounded(0);
    std::thread::scope(|scope| {
        let writer = PackWriter::new(storage, &vault.key, None);
        let writer = scope.spawn(move || writer.run(&receiver));
        let mut sender = PackSender::new(sender);
        let mut moved = Ok(());
        'packs: for (id, size_bytes, offsets) in packs {
            let name = layout::pack(&id);
            let blobs = match read_header(storage, &vault.key, &id, size_bytes) {
                Ok(blobs) => blobs,
                Err(error) => {
                    moved = Err(error);
                    break;
                }
            };
            for blob in blobs.iter().filter(|blob| offsets.contains(&blob.offset)) {
                let sealed =
                    storage.get_range(&name, u64::from(blob.offset), blob.length as usize).promised(&name);
                let proven = sealed.and_then(|bytes| {
                    open_blob(&vault.key, blob, &bytes)
                        .map_err(|why| VaultError::damaged(&name, format!("blob {}: {why}", blob.id)))?;
                    Ok(Sealed { bytes, uncompressed_length: blob.uncompressed_length })
                });
                monitor.advance(u64::from(blob.length), 1);
                moved = proven.and_then(|sealed| sender.add(blob.kind, blob.id, sealed));
                if moved.is_err() {
                    break 'packs;
                }
            }
        }
        let finished = sender.finish();
        let written = writer
            .join()
            .unwrap_or_else(|_panic| Err(VaultError::Internal("the pack writer panicked".to_owned())));
        written?;
        moved.and(finished)
    })
}
