//! Reading blobs: find, fetch, open, decompress, verify against the id. Bytes that fail any of these are never given out.

use std::sync::Arc;

use lifeboat_base::capture::StoredKind;
use lifeboat_base::digest::Digest;

use crate::crypto::MasterKey;
use crate::error::{StorageContext, VaultError};
use crate::format::index::BlobKind;
use crate::format::node::{ReadNode, TreeCursor};
use crate::format::pack;
use crate::index::{Index, Location};
use crate::layout;
use crate::storage::{ObjectName, Storage};

/// Reads blobs of one repository.
#[derive(Clone)]
pub(crate) struct BlobReader {
    pub storage: Arc<dyn Storage>,
    pub key: MasterKey,
    pub index: Arc<Index>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({})", self.storage.location())
    }
}

impl BlobReader {
    /// Where a blob lies; a blob that no pack has is damage.
    pub(crate) fn locate(&self, kind: BlobKind, id: &Digest) -> Result<Location, VaultError> {
        if let Some(location) = self.index.find(kind, id) {
            return Ok(*location);
        }
        Err(match self.index.problems.first() {
            Some(problem) => VaultError::damaged(
                &problem.object,
                format!("{}, and a blob that is needed is in no other object", problem.why),
            ),
            None => VaultError::Inconsistent(format!("no pack holds the blob {id}")),
        })
    }

    /// The name of the pack a blob lies in.
    pub(crate) fn pack_name(&self, location: &Location) -> ObjectName {
        self.index.pack(location.pack).map_or_else(layout::config, |pack| layout::pack(&pack.id))
    }

    /// Fetches one blob.
    pub(crate) fn read(&self, kind: BlobKind, id: &Digest) -> Result<Vec<u8>, VaultError> {
        let location = self.locate(kind, id)?;
        let name = self.pack_name(&location);
        let sealed = self
            .storage
            .get_range(&name, u64::from(location.blob.offset), location.blob.length as usize)
            .promised(&name)?;
        self.open(&location, &sealed)
    }

    /// Opens the sealed bytes of the blob at `location`.
    pub(crate) fn open(&self, location: &Location, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        pack::open_blob(&self.key, &location.blob, sealed).map_err(|why| {
            VaultError::damaged(&self.pack_name(location), format!("blob {}: {why}", location.blob.id))
        })
    }

    /// Whether the chunks of a file add up to its size; nothing if one of them is in no pack, which is found elsewhere.
    pub(crate) fn adds_up(&self, node: &ReadNode) -> Option<bool> {
        let StoredKind::File(size_bytes) = node.kind else { return Some(true) };
        let sizes = node.content.iter().map(|id| self.index.find(BlobKind::Data, id));
        let total: Option<u64> = sizes.map(|found| found.map(|location| location.blob.plain_bytes())).sum();
        total.map(|total| total == size_bytes)
    }

    /// A tree, entry by entry.
    pub(crate) fn tree(&self, id: &Digest) -> Result<TreeCursor, VaultError> {
        TreeCursor::new(self.read(BlobKind::Tree, id)?).map_err(|why| self.bad_tree(id, &why))
    }

    /// The error for a tree blob that is authentic but not acceptable.
    pub(crate) fn bad_tree(&self, id: &Digest, why: &str) -> VaultError {
        match self.index.find(BlobKind::Tree, id) {
            Some(location) => {
                VaultError::damaged(&self.pack_name(location), format!("the directory listing {id}: {why}"))
            }
            None => VaultError::Inconsistent(format!("the directory listing {id}: {why}")),
        }
    }
}
