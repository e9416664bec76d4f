//! From recovery points to the objects they rely on: every listing is walked, every chunk must be in the index.
//!
//! Memory: about 50 bytes per distinct directory of all points.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use lifeboat_base::digest::Digest;
use lifeboat_base::ids::PointId;
use lifeboat_base::monitor::Monitor;

use super::ledger::Ledger;
use crate::blobs::BlobReader;
use crate::error::{StorageContext, VaultError};
use crate::format::index::BlobKind;
use crate::format::node::TreeCursor;
use crate::index::Problem;
use crate::layout;
use crate::points::{PointEntry, PointManifest};
use crate::restore::MAX_DEPTH;
use crate::retire::Retired;
use crate::storage::ObjectName;
use crate::vault::Vault;

const SIZE_LIE: &str = "the chunks of a file do not add up to its size";

/// Damaged objects a tree relies on, itself and all below it.
type Hits = Rc<BTreeSet<ObjectName>>;

struct Frame {
    tree: Digest,
    cursor: Option<TreeCursor>,
    hits: BTreeSet<ObjectName>,
}

/// Follows points to damaged objects.
pub(super) struct Reach<'a> {
    vault: &'a Vault,
    reader: &'a BlobReader,
    ledger: &'a mut Ledger,
    /// Packs only a damaged index file can have named.
    orphaned: HashSet<Digest>,
    damaged_indexes: Vec<ObjectName>,
    known: HashMap<Digest, Hits>,
}

impl<'a> Reach<'a> {
    pub(super) fn new(vault: &'a Vault, reader: &'a BlobReader, ledger: &'a mut Ledger) -> Self {
        let index = &reader.index;
        let damaged_indexes: Vec<_> = index
            .problems
            .iter()
            .map(|problem| problem.object.clone())
            .filter(|name| name.below(layout::INDEX).is_some())
            .collect();
        let orphaned = if damaged_indexes.is_empty() {
            HashSet::new()
        } else {
            index.unindexed.iter().map(|(id, _)| *id).collect()
        };
        Self { vault, reader, ledger, orphaned, damaged_indexes, known: HashMap::new() }
    }

    /// Walks every point and blames what is damaged.
    pub(super) fn follow(&mut self, entries: &[PointEntry], monitor: &dyn Monitor) -> Result<(), VaultError> {
        let common: Vec<ObjectName> = self
            .vault
            .storage
            .list(layout::KEYS)
            .doing(|| "list keys".to_owned())?
            .into_iter()
            .map(|listed| listed.name)
            .chain([layout::config(), layout::envelope(), layout::vault()])
            .filter(|name| self.ledger.is_damaged(name))
            .collect();
        for entry in entries {
            if monitor.cancelled() {
                return Err(VaultError::Cancelled);
            }
            // Without its keys, its parameters or its identity no point of a vault can be relied on.
            for name in &common {
                self.ledger.blame(name, entry.id());
            }
            if let Some(manifest) = entry.manifest() {
                self.point(manifest)?;
            }
        }
        Ok(())
    }

    fn point(&mut self, manifest: &PointManifest) -> Result<(), VaultError> {
        let name = layout::snapshot(&manifest.snapshot);
        let opened = self
            .vault
            .storage
            .get(&name)
            .promised(&name)
            .and_then(|bytes| self.vault.snapshot_root(&name, &bytes, manifest));
        match opened {
            Ok(root) => {
                let hits = self.tree(root, &name)?;
                for object in hits.iter() {
                    self.blame(object, &manifest.id);
                }
            }
            Err(error) => {
                self.ledger.settle(&name, Err(error))?;
                self.blame(&name, &manifest.id);
            }
        }
        Ok(())
    }

    fn blame(&mut self, object: &ObjectName, point: &PointId) {
        self.ledger.blame(object, Some(point));
    }

    /// The damaged objects a tree relies on.
    fn tree(&mut self, root: Digest, snapshot: &ObjectName) -> Result<Hits, VaultError> {
        let mut stack = vec![self.frame(root, snapshot)?];
        loop {
            let Some(frame) = stack.last_mut() else {
                return Ok(self.known.get(&root).cloned().unwrap_or_default());
            };
            let node = match &mut frame.cursor {
                Some(cursor) => cursor.next_node(),
                None => Ok(None),
            };
            match node {
                Ok(Some(node)) => {
                    if self.reader.adds_up(&node) == Some(false) {
                        let tree = frame.tree;
                        frame.hits.extend(bad_listing(self.reader, self.ledger, &tree, SIZE_LIE));
                    }
                    let (blobs, subtree) = (node.content, node.subtree);
                    for id in &blobs {
                        let hits = self.blob(BlobKind::Data, id, snapshot);
                        if let Some(frame) = stack.last_mut() {
                            frame.hits.extend(hits);
                        }
                    }
                    let Some(subtree) = subtree else { continue };
                    if let Some(hits) = self.known.get(&subtree).cloned() {
                        if let Some(frame) = stack.last_mut() {
                            frame.hits.extend(hits.iter().cloned());
                        }
                    } else if stack.len() < MAX_DEPTH {
                        stack.push(self.frame(subtree, snapshot)?);
                    } else {
                        return Err(VaultError::Inconsistent("a tree is deeper than any can be".to_owned()));
                    }
                }
                Ok(None) => self.close(&mut stack),
                Err(why) => {
                    let tree = frame.tree;
                    frame.cursor = None;
                    frame.hits.extend(bad_listing(self.reader, self.ledger, &tree, &why));
                }
            }
        }
    }

    fn close(&mut self, stack: &mut Vec<Frame>) {
        let Some(done) = stack.pop() else { return };
        let hits = Rc::new(done.hits);
        if let Some(parent) = stack.last_mut() {
            parent.hits.extend(hits.iter().cloned());
        }
        self.known.insert(done.tree, hits);
    }

    fn frame(&mut self, tree: Digest, snapshot: &ObjectName) -> Result<Frame, VaultError> {
        let mut hits: BTreeSet<ObjectName> = self.blob(BlobKind::Tree, &tree, snapshot).into_iter().collect();
        let cursor = match self.reader.tree(&tree) {
            Ok(cursor) => Some(cursor),
            Err(VaultError::Damaged { object, why }) => {
                if !self.ledger.is_damaged(&object) {
                    self.ledger.damage(&object, &why);
                }
                hits.insert(object);
                None
            }
            Err(VaultError::Inconsistent(_)) => None,
            Err(other) => return Err(other),
        };
        Ok(Frame { tree, cursor, hits })
    }

    /// The damaged objects one blob relies on.
    fn blob(&mut self, kind: BlobKind, id: &Digest, snapshot: &ObjectName) -> Vec<ObjectName> {
        let Some(location) = self.reader.index.find(kind, id).copied() else {
            if self.damaged_indexes.is_empty() {
                self.ledger.damage(snapshot, &format!("it needs the blob {id}, which no pack holds"));
                return vec![snapshot.clone()];
            }
            return self.damaged_indexes.clone();
        };
        let Some(pack) = self.reader.index.pack(location.pack).copied() else { return Vec::new() };
        let name = layout::pack(&pack.id);
        let mut hits = Vec::new();
        if self.ledger.is_damaged(&name) && self.ledger.confined(&name).is_none_or(|blobs| blobs.contains(id))
        {
            hits.push(name);
        }
        if self.orphaned.contains(&pack.id) {
            hits.extend(self.damaged_indexes.iter().cloned());
        }
        hits
    }
}

/// A listing that is authentic but cannot be restored; gives the object to blame.
fn bad_listing(reader: &BlobReader, ledger: &mut Ledger, tree: &Digest, why: &str) -> Option<ObjectName> {
    let VaultError::Damaged { object, why } = reader.bad_tree(tree, why) else { return None };
    ledger.damage(&object, &why);
    Some(object)
}

/// Proves that points can be read as far as listings and the index tell: every blob is in a pack that exists whole.
pub(crate) struct Resolver<'a> {
    vault: &'a Vault,
    reader: BlobReader,
    proved: HashSet<Digest>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(vault: &'a Vault, retired: &Retired) -> Result<Self, VaultError> {
        Ok(Self { vault, reader: vault.blob_reader_without(retired)?, proved: HashSet::new() })
    }

    /// What is wrong with the index and the packs it names.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.reader.index.problems
    }

    /// Whether a point resolves; the error says what it lacks.
    pub(crate) fn prove(&mut self, manifest: &PointManifest) -> Result<(), VaultError> {
        let name = layout::snapshot(&manifest.snapshot);
        let bytes = self.vault.storage.get(&name).promised(&name)?;
        let root = self.vault.snapshot_root(&name, &bytes, manifest)?;
        self.prove_tree(root)
    }

    /// As [`Resolver::prove`], for what lies below a tree.
    pub(crate) fn prove_tree(&mut self, root: Digest) -> Result<(), VaultError> {
        let mut waiting = vec![root];
        let mut seen = HashSet::new();
        while let Some(tree) = waiting.pop() {
            if self.proved.contains(&tree) || !seen.insert(tree) {
                continue;
            }
            self.held(BlobKind::Tree, &tree)?;
            let mut cursor = self.reader.tree(&tree)?;
            while let Some(node) = cursor.next_node().map_err(|why| self.reader.bad_tree(&tree, &why))? {
                for id in &node.content {
                    self.held(BlobKind::Data, id)?;
                }
                if self.reader.adds_up(&node) != Some(true) {
                    return Err(self.reader.bad_tree(&tree, SIZE_LIE));
                }
                waiting.extend(node.subtree);
            }
        }
        self.proved.extend(seen);
        Ok(())
    }

    fn held(&self, kind: BlobKind, id: &Digest) -> Result<(), VaultError> {
        if self.reader.index.holds(kind, id) {
            return Ok(());
        }
        let location = self.reader.locate(kind, id)?;
        Err(VaultError::damaged(
            &self.reader.pack_name(&location),
            "it is missing, cut short or marked for removal",
        ))
    }
}
