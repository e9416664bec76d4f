//! Packs: assembled by the receiver, written, confirmed and indexed by a thread of their own.
//!
//! Memory: one pack of each kind in assembly and one being written, [`PACK_BYTES`] each plus one blob.

use crossbeam_channel::{Receiver, Sender};
use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::time::Timestamp;

use super::pipeline::Sealed;
use crate::crypto::MasterKey;
use crate::error::{StorageContext, VaultError};
use crate::format::document;
use crate::format::index::{BlobKind, IndexBlob, IndexFile, IndexPack};
use crate::format::pack;
use crate::layout;
use crate::storage::{ObjectName, Storage, StorageError};

/// The size a data pack aims at.
pub const PACK_BYTES: u32 = 16 * 1024 * 1024;
/// The size a pack of trees aims at.
const TREE_PACK_BYTES: u32 = 4 * 1024 * 1024;
/// The most blobs in a pack, so that headers stay small.
const MAX_PACK_BLOBS: usize = 65_536;
/// An index file is written at the latest after this many packs: what a kill can make the next run look for.
const PACKS_PER_INDEX: usize = 8;
/// An index file is written at the latest after this many blobs.
const BLOBS_PER_INDEX: usize = 100_000;

/// A pack on its way to the storage.
pub(super) struct FullPack {
    blobs: Vec<IndexBlob>,
    pieces: Vec<Vec<u8>>,
}

/// A pack in assembly.
pub(super) struct Assembly {
    kind: BlobKind,
    target_bytes: u32,
    size_bytes: u32,
    pack: FullPack,
}

impl Assembly {
    pub(super) fn new(kind: BlobKind) -> Self {
        let target_bytes = match kind {
            BlobKind::Data => PACK_BYTES,
            BlobKind::Tree => TREE_PACK_BYTES,
        };
        Self { kind, target_bytes, size_bytes: 0, pack: FullPack { blobs: Vec::new(), pieces: Vec::new() } }
    }

    /// Adds a blob; gives the pack once it is full.
    pub(super) fn add(&mut self, id: Digest, sealed: Sealed) -> Result<Option<FullPack>, VaultError> {
        let too_large = || VaultError::Internal("a blob does not fit into a pack".to_owned());
        let length = u32::try_from(sealed.bytes.len()).map_err(|_error| too_large())?;
        self.pack.blobs.push(IndexBlob {
            id,
            kind: self.kind,
            offset: self.size_bytes,
            length,
            uncompressed_length: sealed.uncompressed_length,
        });
        self.size_bytes = self.size_bytes.checked_add(length).ok_or_else(too_large)?;
        self.pack.pieces.push(sealed.bytes);
        let full = self.size_bytes >= self.target_bytes || self.pack.blobs.len() >= MAX_PACK_BLOBS;
        Ok(if full { self.take() } else { None })
    }

    /// What has been added since the last full pack.
    pub(super) fn take(&mut self) -> Option<FullPack> {
        self.size_bytes = 0;
        let pack = std::mem::replace(&mut self.pack, FullPack { blobs: Vec::new(), pieces: Vec::new() });
        (!pack.blobs.is_empty()).then_some(pack)
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PackStats {
    pub packs: u64,
    pub stored_bytes: u64,
}

/// Stores a content-named object and confirms its size. Its presence already is as good.
pub(crate) fn put_confirmed(
    storage: &dyn Storage,
    name: &ObjectName,
    pieces: &[&[u8]],
) -> Result<u64, VaultError> {
    let size_bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    match storage.put_new(name, pieces) {
        Ok(()) | Err(StorageError::AlreadyExists { .. }) => {}
        Err(source) => return Err(VaultError::Storage { doing: format!("store `{name}`"), source }),
    }
    match storage.stat(name).doing(|| format!("confirm `{name}`"))? {
        Some(found) if found == size_bytes => Ok(size_bytes),
        Some(_) => Err(VaultError::damaged(name, "it does not have the size it was written with")),
        None => Err(VaultError::damaged(name, "it is missing after it was written")),
    }
}

/// Writes packs and the index files that name them.
pub(super) struct PackWriter<'a> {
    storage: &'a dyn Storage,
    key: &'a MasterKey,
    /// When the capture was begun that the packs belong to.
    started: Option<Timestamp>,
    confirmed: Vec<IndexPack>,
    confirmed_blobs: usize,
    stats: PackStats,
}

impl<'a> PackWriter<'a> {
    pub(super) fn new(storage: &'a dyn Storage, key: &'a MasterKey, started: Option<Timestamp>) -> Self {
        Self { storage, key, started, confirmed: Vec::new(), confirmed_blobs: 0, stats: PackStats::default() }
    }

    /// Writes every pack that comes, then the last index file.
    pub(super) fn run(mut self, packs: &Receiver<FullPack>) -> Result<PackStats, VaultError> {
        for pack in packs {
            self.write(pack)?;
        }
        self.flush_index()?;
        Ok(self.stats)
    }

    fn write(&mut self, full: FullPack) -> Result<(), VaultError> {
        let header = pack::seal_header(self.key, &full.blobs, &OsEntropy);
        let mut pieces: Vec<&[u8]> = full.pieces.iter().map(Vec::as_slice).collect();
        pieces.push(&header);
        let mut hasher = Hasher::new();
        for piece in &pieces {
            hasher.update(piece);
        }
        let id = hasher.finish();
        let name = layout::pack(&id);
        let size_bytes = put_confirmed(self.storage, &name, &pieces)?;
        // The size alone would not notice a storage that keeps length and loses content.
        let tail_at = size_bytes - header.len() as u64;
        let stored = self.storage.get_range(&name, tail_at, header.len()).promised(&name)?;
        if stored != header {
            return Err(VaultError::damaged(&name, "it does not read back as it was written"));
        }
        self.stats.packs += 1;
        self.stats.stored_bytes += size_bytes;
        self.confirmed_blobs += full.blobs.len();
        let time = self.started.map(|started| started.to_string());
        self.confirmed.push(IndexPack { id, blobs: full.blobs, time, stored_size_bytes: None });
        if self.confirmed.len() >= PACKS_PER_INDEX || self.confirmed_blobs >= BLOBS_PER_INDEX {
            self.flush_index()?;
        }
        Ok(())
    }

    fn flush_index(&mut self) -> Result<(), VaultError> {
        if self.confirmed.is_empty() {
            return Ok(());
        }
        let packs = std::mem::take(&mut self.confirmed);
        self.confirmed_blobs = 0;
        self.stats.stored_bytes += write_index(self.storage, self.key, packs)?;
        Ok(())
    }
}

/// Writes one index file that names `packs`; they must be confirmed. Gives its size.
pub(super) fn write_index(
    storage: &dyn Storage,
    key: &MasterKey,
    packs: Vec<IndexPack>,
) -> Result<u64, VaultError> {
    let file = IndexFile { packs, packs_to_delete: Vec::new() };
    let (id, sealed) = document::seal(key, &file, &OsEntropy)?;
    put_confirmed(storage, &layout::index(&id), &[&sealed])
}

/// The receiver's end of the pack writer.
pub(super) struct PackSender {
    data: Assembly,
    trees: Assembly,
    sender: Sender<FullPack>,
}

impl PackSender {
    pub(super) fn new(sender: Sender<FullPack>) -> Self {
        Self { data: Assembly::new(BlobKind::Data), trees: Assembly::new(BlobKind::Tree), sender }
    }

    /// Adds a blob and hands over the pack it fills.
    pub(super) fn add(&mut self, kind: BlobKind, id: Digest, sealed: Sealed) -> Result<(), VaultError> {
        let assembly = match kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        };
        match assembly.add(id, sealed)? {
            Some(pack) => self.send(pack),
            None => Ok(()),
        }
    }

    /// Hands over what is left.
    pub(super) fn finish(mut self) -> Result<(), VaultError> {
        for pack in [self.data.take(), self.trees.take()].into_iter().flatten() {
            self.send(pack)?;
        }
        Ok(())
    }

    fn send(&self, pack: FullPack) -> Result<(), VaultError> {
        // The writer is gone only after an error of its own, which its caller prefers to this one.
        self.sender.send(pack).map_err(|_gone| VaultError::Cancelled)
    }
}
