//! Reading every object named by its content, in parallel: checksum against name, and packs blob by blob.
//!
//! Memory: one pack per worker, or one piece of [`PIECE_BYTES`].

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::monitor::Monitor;

use super::ledger::Ledger;
use crate::crypto::MasterKey;
use crate::error::{StorageContext, VaultError};
use crate::format::index::IndexBlob;
use crate::format::pack;
use crate::index::RawIndex;
use crate::layout;
use crate::storage::{Listed, ObjectName, Storage};

const MAX_WORKERS: usize = 3;
const PIECE_BYTES: u64 = 4 * 1024 * 1024;
/// Packs up to this size are read in one piece; larger ones, which other tools may write, blob by blob.
const WHOLE_PACK_BYTES: u64 = 48 * 1024 * 1024;
/// Problems named per pack; one is enough to act, all would fill the report.
const MAX_NAMED_BLOBS: usize = 3;
const ALTERED: &str = "its content differs from its name";

/// Checks every object of `named`. With a key, packs are opened too.
pub(super) fn check(
    storage: &dyn Storage,
    key: Option<&MasterKey>,
    raw: &RawIndex,
    named: &[Listed],
    ledger: &mut Ledger,
    monitor: &dyn Monitor,
) -> Result<(), VaultError> {
    let next = AtomicUsize::new(0);
    let shared = Mutex::new((ledger, Ok(())));
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(MAX_WORKERS);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(listed) = named.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = if monitor.cancelled() {
                        Err(VaultError::Cancelled)
                    } else {
                        check_one(storage, key, raw, listed)
                    };
                    let mut shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    shared.0.read(listed.size_bytes);
                    monitor.advance(listed.size_bytes, 1);
                    let settled = match outcome {
                        Ok(Proof { problems, confined: Some(blobs) }) => {
                            shared.0.damage_blobs(&listed.name, &problems.join("; "), blobs);
                            Ok(())
                        }
                        Ok(proof) => shared.0.settle(&listed.name, proof.outcome(&listed.name)),
                        Err(error) => shared.0.settle(&listed.name, Err(error)),
                    };
                    if let Err(error) = settled {
                        shared.1 = Err(error);
                        next.store(named.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).1
}

/// What is wrong with an object, and for packs whether only some blobs are hit.
#[derive(Default)]
struct Proof {
    problems: Vec<String>,
    confined: Option<HashSet<Digest>>,
}

impl Proof {
    fn outcome(self, name: &ObjectName) -> Result<(), VaultError> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(VaultError::damaged(name, self.problems.join("; ")))
        }
    }
}

fn check_one(
    storage: &dyn Storage,
    key: Option<&MasterKey>,
    raw: &RawIndex,
    listed: &Listed,
) -> Result<Proof, VaultError> {
    let name = &listed.name;
    let Some(digest) = layout::content_digest(name) else {
        return Err(VaultError::damaged(name, "its name is not a checksum"));
    };
    match key {
        Some(key) if name.below(layout::DATA).is_some() => {
            let indexed = raw.packs.get(&digest).map(|(pack, _)| pack).or_else(|| raw.marked.get(&digest));
            prove_pack(storage, key, &digest, listed.size_bytes, indexed.map(|pack| pack.blobs.as_slice()))
        }
        _ => {
            if checksum(storage, name, listed.size_bytes)? == digest {
                Ok(Proof::default())
            } else {
                Err(VaultError::damaged(name, ALTERED))
            }
        }
    }
}

fn checksum(storage: &dyn Storage, name: &ObjectName, size_bytes: u64) -> Result<Digest, VaultError> {
    let mut hasher = Hasher::new();
    let mut at = 0;
    while at < size_bytes {
        let length = usize::try_from(PIECE_BYTES.min(size_bytes - at)).unwrap_or_default();
        hasher.update(&storage.get_range(name, at, length).promised(name)?);
        at += length as u64;
    }
    Ok(hasher.finish())
}

/// Proves a pack: checksum, header against the index, every blob decrypted, decompressed and compared with its id.
pub(crate) fn verify_pack(
    storage: &dyn Storage,
    key: &MasterKey,
    id: &Digest,
    size_bytes: u64,
    indexed: Option<&[IndexBlob]>,
) -> Result<(), VaultError> {
    prove_pack(storage, key, id, size_bytes, indexed)?.outcome(&layout::pack(id))
}

fn prove_pack(
    storage: &dyn Storage,
    key: &MasterKey,
    id: &Digest,
    size_bytes: u64,
    indexed: Option<&[IndexBlob]>,
) -> Result<Proof, VaultError> {
    let name = layout::pack(id);
    let mut problems = Vec::new();
    let whole = if size_bytes <= WHOLE_PACK_BYTES { Some(storage.get(&name).promised(&name)?) } else { None };
    let digest = match &whole {
        Some(bytes) => Digest::of(bytes),
        None => checksum(storage, &name, size_bytes)?,
    };
    if digest != *id {
        problems.push(ALTERED.to_owned());
    }
    let header = match &whole {
        Some(bytes) => pack::header_of(key, bytes),
        None => crate::index::read_header(storage, key, id, size_bytes).ok(),
    };
    match (&header, indexed) {
        (None, _) => problems.push("its header is not authentic or does not fit its size".to_owned()),
        (Some(blobs), Some(indexed)) if !same_blobs(blobs, indexed) => {
            problems.push("its header differs from the index".to_owned());
        }
        _ => {}
    }
    let header_sound = header.is_some() && problems.iter().all(|problem| problem == ALTERED);
    let mut bad = HashSet::new();
    for blob in indexed.or(header.as_deref()).unwrap_or_default() {
        let fetched;
        let (start, length) = (blob.offset as usize, blob.length as usize);
        let sealed = if let Some(bytes) = &whole {
            bytes.get(start..start.saturating_add(length)).unwrap_or_default()
        } else {
            fetched = storage.get_range(&name, u64::from(blob.offset), length).promised(&name)?;
            &fetched
        };
        if let Err(why) = pack::open_blob(key, blob, sealed) {
            bad.insert(blob.id);
            if bad.len() <= MAX_NAMED_BLOBS {
                problems.push(format!("blob {}: {why}", blob.id));
            }
        }
    }
    if bad.len() > MAX_NAMED_BLOBS {
        problems.push(format!("{} blobs are damaged in all", bad.len()));
    }
    let confined = (header_sound && !bad.is_empty()).then_some(bad);
    Ok(Proof { problems, confined })
}

/// The index need not keep the order of the header.
fn same_blobs(header: &[IndexBlob], indexed: &[IndexBlob]) -> bool {
    let sorted = |blobs: &[IndexBlob]| {
        let mut blobs = blobs.to_vec();
        blobs.sort_by_key(|blob| blob.offset);
        blobs
    };
    sorted(header) == sorted(indexed)
}
