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

/// A pack that stays as it is, because no copy has whole what is in use of it: where that lies, and the first that is wrong.
pub(crate) type Left = (Digest, BTreeSet<u32>, VaultError);

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
        let (mut lacking, mut first_error) = (offsets.clone(), None);
        let mut proven = Vec::new();
        for vault in copies {
            let error = in_use(vault, &id, size_bytes, (&mut lacking, &mut proven))?;
            first_error = first_error.or(error);
            if lacking.is_empty() {
                break;
            }
        }
        match first_error.filter(|_error| !lacking.is_empty()) {
            Some(error) => left.push((id, lacking, error)),
            None => {
                for (blob, sealed) in proven {
                    monitor.advance(u64::from(blob.length), 1);
                    sender.add(blob.kind, blob.id, sealed)?;
                }
            }
        }
    }
    Ok(left)
}

/// What is in use of one pack and still lacking, as it was sealed and as far as this copy has it whole; gives the first that is
/// wrong here.
fn in_use(
    vault: &Vault,
    id: &Digest,
    size_bytes: u64,
    (lacking, proven): (&mut BTreeSet<u32>, &mut Vec<(IndexBlob, Sealed)>),
) -> Result<Option<VaultError>, VaultError> {
    let (storage, name) = (vault.storage.as_ref(), layout::pack(id));
    let damaged = |error: VaultError| match error.kind() {
        FailureKind::Damaged => Ok(Some(error)),
        _ => Err(error),
    };
    let header = match read_header(storage, &vault.key, id, size_bytes) {
        Ok(header) => header,
        Err(error) => return damaged(error),
    };
    let mut wrong = None;
    for blob in header {
        if !lacking.contains(&blob.offset) {
            continue;
        }
        let bytes = storage.get_range(&name, u64::from(blob.offset), blob.length as usize).promised(&name);
        let opened = bytes.and_then(|bytes| match open_blob(&vault.key, &blob, &bytes) {
            Ok(_content) => Ok(bytes),
            Err(why) => Err(VaultError::damaged(&name, format!("blob {}: {why}", blob.id))),
        });
        match opened {
            Ok(bytes) => {
                lacking.remove(&blob.offset);
                proven.push((blob, Sealed { bytes, uncompressed_length: blob.uncompressed_length }));
            }
            Err(error) => wrong = wrong.or(damaged(error)?),
        }
    }
    if !lacking.is_empty() && wrong.is_none() {
        wrong = Some(VaultError::damaged(&name, "its header does not name what is in use"));
    }
    Ok(wrong)
}
