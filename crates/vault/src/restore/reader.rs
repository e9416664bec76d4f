//! A recovery point opened for reading.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use lifeboat_base::capture::{MaterializeStats, RestoreSource, StoredEntry, StoredKind};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use rustic_core::repofile::SnapshotFile;

use super::materialize::{self, MaterializeOptions};
use crate::blobs::BlobReader;
use crate::error::{StorageContext, VaultError};
use crate::format::document;
use crate::format::index::BlobKind;
use crate::format::node::{ReadNode, TreeCursor, from_id};
use crate::layout;
use crate::points::PointManifest;
use crate::storage::ObjectName;
use crate::vault::Vault;

/// The deepest tree followed; none is written that is deeper, and captures end before.
pub(crate) const MAX_DEPTH: usize = 2048;
/// Blobs a [`RandomFile`] keeps.
const CACHED_BLOBS: usize = 4;

/// A recovery point opened for reading. Cheap to use from several threads; memory is the index, about 100 bytes per
/// blob of the vault.
#[derive(Debug, Clone)]
pub struct PointReader {
    pub(crate) blobs: BlobReader,
    pub(crate) root: Digest,
}

impl Vault {
    /// Opens a recovery point. `Damaged` if its snapshot is missing, altered, or another point's.
    pub fn open_point(&self, manifest: &PointManifest) -> Result<PointReader, VaultError> {
        let name = layout::snapshot(&manifest.snapshot);
        let bytes = self.storage.get(&name).promised(&name)?;
        let root = self.snapshot_root(&name, &bytes, manifest)?;
        Ok(PointReader { blobs: self.blob_reader()?, root })
    }

    /// The root listing of the snapshot in `bytes`, which must be the one `manifest` names.
    pub(crate) fn snapshot_root(
        &self,
        name: &ObjectName,
        bytes: &[u8],
        manifest: &PointManifest,
    ) -> Result<Digest, VaultError> {
        if Digest::of(bytes) != manifest.snapshot {
            return Err(VaultError::damaged(name, "its content differs from its name"));
        }
        let snapshot: SnapshotFile = document::open(&self.key, name, bytes)?;
        let tag = format!("{}{}", crate::write::POINT_TAG_PREFIX, manifest.id);
        if !snapshot.tags.contains(&tag) {
            return Err(VaultError::damaged(name, format!("it is not the snapshot of {}", manifest.id)));
        }
        from_id(*snapshot.tree).ok_or_else(|| VaultError::damaged(name, "it names no tree"))
    }
}

/// What a search in the tree ended at.
pub(crate) enum Found {
    Root,
    Node(Box<ReadNode>),
}

impl PointReader {
    /// The entry at `path`.
    pub(crate) fn find(&self, path: &RelPath) -> Result<Found, VaultError> {
        let absent = || VaultError::Refused(format!("the recovery point has no `{path}`"));
        let depth = path.depth();
        let mut tree = self.root;
        for (level, name) in path.names().enumerate() {
            let mut cursor = self.blobs.tree(&tree)?;
            let node = loop {
                match self.next_node(&mut cursor, &tree)? {
                    Some(node) if node.name == name => break node,
                    Some(_) => {}
                    None => return Err(absent()),
                }
            };
            if level + 1 == depth {
                return Ok(Found::Node(Box::new(node)));
            }
            tree = node.subtree.ok_or_else(absent)?;
        }
        Ok(Found::Root)
    }

    pub(crate) fn next_node(
        &self,
        cursor: &mut TreeCursor,
        tree: &Digest,
    ) -> Result<Option<ReadNode>, VaultError> {
        cursor.next_node().map_err(|why| self.blobs.bad_tree(tree, &why))
    }

    /// Visits every node below `under` in capture order: parents first. Only the listings on the current path are in memory.
    pub(crate) fn visit(
        &self,
        under: &RelPath,
        visit: &mut dyn FnMut(RelPath, ReadNode) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let start = match self.find(under)? {
            Found::Root => self.root,
            Found::Node(node) => {
                let subtree = node.subtree;
                visit(under.clone(), *node)?;
                match subtree {
                    Some(tree) => tree,
                    None => return Ok(()),
                }
            }
        };
        let mut stack = vec![(under.clone(), start, self.blobs.tree(&start)?)];
        while let Some((dir, tree, cursor)) = stack.last_mut() {
            let Some(node) = self.next_node(cursor, tree)? else {
                stack.pop();
                continue;
            };
            let path = dir.join(&node.name).map_err(|error| self.blobs.bad_tree(tree, &error.to_string()))?;
            let subtree = node.subtree;
            visit(path.clone(), node)?;
            if let Some(subtree) = subtree {
                if stack.len() >= MAX_DEPTH {
                    return Err(
                        VaultError::Inconsistent("a tree is deeper than any can be".to_owned()).into()
                    );
                }
                let cursor = self.blobs.tree(&subtree)?;
                stack.push((path, subtree, cursor));
            }
        }
        Ok(())
    }

    /// As [`RestoreSource::materialize`], with choices. Where the target may hold something it is changed in place, and on
    /// any failure holds a mixture that the next call completes.
    pub fn materialize_with(
        &self,
        under: &RelPath,
        into: &std::path::Path,
        options: &MaterializeOptions,
        monitor: &dyn Monitor,
    ) -> Result<MaterializeStats, Failure> {
        materialize::run(self, under, into, options, monitor)
    }

    /// Opens one file for reading at any position. `Refused` if there is no such file.
    pub fn open_file(&self, path: &RelPath) -> Result<RandomFile<'_>, VaultError> {
        let node = match self.find(path)? {
            Found::Node(node) if matches!(node.kind, StoredKind::File(_)) => node,
            _ => return Err(VaultError::Refused(format!("`{path}` is not a file of the recovery point"))),
        };
        let mut chunks = Vec::with_capacity(node.content.len());
        let mut end_bytes = 0u64;
        for id in node.content {
            let location = self.blobs.locate(BlobKind::Data, &id)?;
            chunks.push((end_bytes, id));
            end_bytes += location.blob.plain_bytes();
        }
        if node.kind != StoredKind::File(end_bytes) {
            return Err(VaultError::Inconsistent(format!(
                "the chunks of `{path}` do not add up to its size"
            )));
        }
        Ok(RandomFile { blobs: &self.blobs, chunks, len_bytes: end_bytes, cache: Mutex::default() })
    }
}

impl RestoreSource for PointReader {
    fn walk(
        &self,
        under: &RelPath,
        visit: &mut dyn FnMut(StoredEntry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.visit(under, &mut |path, node| visit(StoredEntry { path, meta: node.meta, kind: node.kind }))
    }

    fn open(&self, path: &RelPath) -> Result<Box<dyn Read + Send + '_>, Failure> {
        Ok(Box::new(FileReader { file: self.open_file(path)?, next: 0, current: Vec::new(), at: 0 }))
    }

    fn materialize(
        &self,
        under: &RelPath,
        into: &std::path::Path,
        monitor: &dyn Monitor,
    ) -> Result<MaterializeStats, Failure> {
        self.materialize_with(under, into, &MaterializeOptions::default(), monitor)
    }
}

type CachedBlob = (usize, std::sync::Arc<Vec<u8>>);

/// A file of a recovery point, readable at any position. Keeps the last few chunks it decoded.
pub struct RandomFile<'a> {
    blobs: &'a BlobReader,
    /// Start and id of each chunk.
    chunks: Vec<(u64, Digest)>,
    len_bytes: u64,
    cache: Mutex<Vec<CachedBlob>>,
}

impl std::fmt::Debug for RandomFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RandomFile({} bytes)", self.len_bytes)
    }
}

impl RandomFile<'_> {
    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.len_bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len_bytes == 0
    }

    /// Fills `buffer` from `offset`; gives fewer bytes only at the end of the file.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, VaultError> {
        let mut done = 0;
        while done < buffer.len() && offset + (done as u64) < self.len_bytes {
            let position = offset + done as u64;
            let number = self.chunks.partition_point(|(start, _)| *start <= position).saturating_sub(1);
            let Some((start, _)) = self.chunks.get(number) else { break };
            let chunk = self.chunk(number)?;
            let inside = usize::try_from(position - start).unwrap_or(usize::MAX);
            let piece = chunk.get(inside..).unwrap_or_default();
            let count = piece.len().min(buffer.len() - done);
            if count == 0 {
                break;
            }
            buffer[done..done + count].copy_from_slice(&piece[..count]);
            done += count;
        }
        Ok(done)
    }

    fn chunk(&self, number: usize) -> Result<std::sync::Arc<Vec<u8>>, VaultError> {
        let cached =
            self.cache().iter().find(|(cached, _)| *cached == number).map(|(_, bytes)| bytes.clone());
        if let Some(bytes) = cached {
            return Ok(bytes);
        }
        let Some((_, id)) = self.chunks.get(number) else {
            return Err(VaultError::Internal("a position beyond the file".to_owned()));
        };
        let bytes = std::sync::Arc::new(self.blobs.read(BlobKind::Data, id)?);
        let mut cache = self.cache();
        if cache.len() >= CACHED_BLOBS {
            cache.remove(0);
        }
        cache.push((number, std::sync::Arc::clone(&bytes)));
        Ok(bytes)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Vec<CachedBlob>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of a recovery point, read from start to end; one chunk in memory.
#[derive(Debug)]
pub struct FileReader<'a> {
    file: RandomFile<'a>,
    next: usize,
    current: Vec<u8>,
    at: usize,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.at >= self.current.len() {
            let Some((_, id)) = self.file.chunks.get(self.next) else { return Ok(0) };
            self.current = self
                .file
                .blobs
                .read(BlobKind::Data, id)
                .map_err(|error| io::Error::other(Failure::from(error)))?;
            self.at = 0;
            self.next += 1;
        }
        let piece = self.current.get(self.at..).unwrap_or_default();
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        self.at += count;
        Ok(count)
    }
}
