//! Moving blobs that are in use out of packs that are mostly not: opened and verified, stored as they were sealed.
//!
//! Memory: the packs in assembly, and what is in use of one pack.

use std::collections::BTreeSet;

use crossbeam_channel::bounded;
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::monitor::Monitor;

use super::packer::{PackSender, PackWriter};
use super::pipeline::Sealed;
use crate::error::{StorageContext, VaultError};
use crate::format::index::IndexBlob;
use crate::format::pack::open_blob;
use crate::index::read_header;
use crate::layout;
use crate::vault::Vault;

/// A pack that stays as it is, because no copy has what is in use of it whole.
pub(crate) type Left = (Digest, VaultError);

/// Stores the blobs at these offsets of these packs (id and size) again in the first of the copies, in new packs that an index
/// file names. Every one is compared with its id before, and taken from whichever copy has it whole; gives the packs of which
/// none has. The caller proves the new packs after.
pub(crate) fn rewrite<'a>(
    copies: &[&Vault],
    packs: impl Iterator<Item = (Digest, u64, &'a BTreeSet<u32>)>,
    monitor: &dyn Monitor,
) -> Result<Vec<Left>, VaultError> {
    let Some(target) = copies.first() else { return Ok(Vec::new()) };
    let (sender, receiver) = bounded(0);
    std::thread::scope(|scope| {
        let writer = PackWriter::new(target.storage.as_ref(), &target.key, None);
        let writer = scope.spawn(move || writer.run(&receiver));
        let mut sender = PackSender::new(sender);
        let moved = move_all(copies, packs, &mut sender, monitor);
        let finished = sender.finish();
        let written = writer
            .join()
            .unwrap_or_else(|_panic| Err(VaultError::Internal("the pack writer panicked".to_owned())));
        written?;
        let left = moved?;
        finished.map(|()| left)
    })
}

fn move_all<'a>(
    copies: &[&Vault],
    packs: impl Iterator<Item = (Digest, u64, &'a BTreeSet<u32>)>,
    sender: &mut PackSender,
    monitor: &dyn Monitor,
) -> Result<Vec<Left>, VaultError> {
    let mut left = Vec::new();
    for (id, size_bytes, offsets) in packs {
        let mut last = None;
        for vault in copies {
            match in_use(vault, &id, size_bytes, offsets) {
                Ok(blobs) => {
                    for (blob, sealed) in blobs {
                        monitor.advance(u64::from(blob.length), 1);
                        sender.add(blob.kind, blob.id, sealed)?;
                    }
                    last = None;
                    break;
                }
                Err(error) if error.kind() == FailureKind::Damaged => last = last.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        left.extend(last.map(|error| (id, error)));
    }
    Ok(left)
}

/// What is in use of one pack, as it was sealed.
fn in_use(
    vault: &Vault,
    id: &Digest,
    size_bytes: u64,
    offsets: &BTreeSet<u32>,
) -> Result<Vec<(IndexBlob, Sealed)>, VaultError> {
    let (storage, name) = (vault.storage.as_ref(), layout::pack(id));
    let mut proven = Vec::new();
    for blob in read_header(storage, &vault.key, id, size_bytes)? {
        if !offsets.contains(&blob.offset) {
            continue;
        }
        let bytes = storage.get_range(&name, u64::from(blob.offset), blob.length as usize).promised(&name)?;
        open_blob(&vault.key, &blob, &bytes)
            .map_err(|why| VaultError::damaged(&name, format!("blob {}: {why}", blob.id)))?;
        proven.push((blob, Sealed { bytes, uncompressed_length: blob.uncompressed_length }));
    }
    if proven.len() == offsets.len() {
        Ok(proven)
    } else {
        Err(VaultError::damaged(&name, "its header does not name what is in use"))
    }
}
