//! Which packs are in use: everything that stays is walked in every copy, each copy by its own index.
//!
//! Memory: about 50 bytes per distinct directory, and 20 per blob in use.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::PointId;
use lifeboat_base::time::Timestamp;
use rustic_core::repofile::SnapshotFile;

use super::record::Retired;
use crate::blobs::BlobReader;
use crate::error::{StorageContext, VaultError};
use crate::format::document;
use crate::format::index::BlobKind;
use crate::format::node::from_id;
use crate::index::{Index, read_raw};
use crate::layout;
use crate::points::{PointEntry, PointManifest};
use crate::vault::Vault;
use crate::write::TAG;

/// A pack that an index names and that exists.
pub(super) struct Known {
    pub(super) bytes: u64,
    /// When it was written, if its index says so.
    pub(super) written: Option<Timestamp>,
}

/// What one copy showed.
#[derive(Default)]
pub(super) struct CopySurvey {
    /// Packs that something needs here, among them such as records want gone.
    pub(super) used: HashSet<Digest>,
    /// Why not everything that is needed here is known.
    pub(super) unknown: Option<String>,
}

/// What all open copies showed.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) copies: Vec<CopySurvey>,
    /// Bytes in use of each pack, by the offset of the blob.
    pub(super) used: HashMap<Digest, HashMap<u32, u32>>,
    pub(super) packs: BTreeMap<Digest, Known>,
    /// Packs that records want gone and something needs.
    pub(super) wanted_back: BTreeSet<Digest>,
    /// Snapshots of ours that never became a point, and are old.
    pub(super) leftovers: BTreeSet<Digest>,
    /// Why nobody can say what is needed, if so.
    pub(super) blocked: Option<String>,
    /// When the newest point that stays was begun.
    pub(super) newest: Option<Timestamp>,
}

/// Walks listings and notes what they need.
struct Walk<'a> {
    reader: &'a BlobReader,
    seen: HashSet<Digest>,
    used: BTreeMap<u32, HashMap<u32, u32>>,
}

impl Walk<'_> {
    /// Everything below `root`. Content that no pack holds is damage of its point, found by others; a listing that cannot
    /// be read hides what is needed.
    fn tree(&mut self, root: Digest) -> Result<(), VaultError> {
        let mut waiting = vec![root];
        while let Some(tree) = waiting.pop() {
            if !self.seen.insert(tree) {
                continue;
            }
            self.note(BlobKind::Tree, &tree);
            let mut cursor = self.reader.tree(&tree)?;
            while let Some(node) = cursor.next_node().map_err(|why| self.reader.bad_tree(&tree, &why))? {
                for id in &node.content {
                    self.note(BlobKind::Data, id);
                }
                waiting.extend(node.subtree);
            }
        }
        Ok(())
    }

    fn note(&mut self, kind: BlobKind, id: &Digest) {
        if let Some(location) = self.reader.index.find(kind, id) {
            self.used.entry(location.pack).or_default().insert(location.blob.offset, location.blob.length);
        }
    }
}

/// What stays: manifests by point, from whichever copy has a good one.
pub(super) struct Stays {
    manifests: BTreeMap<PointId, PointManifest>,
    /// Snapshots of points, whatever becomes of them.
    named: BTreeSet<Digest>,
    blocked: Option<String>,
    listed: Vec<BTreeSet<PointId>>,
}

impl Stays {
    /// Every point that a copy lists and that is neither in `drop` nor retired.
    pub(super) fn of(
        copies: &[&Vault],
        drop: &BTreeSet<PointId>,
        retired: &Retired,
    ) -> Result<Self, VaultError> {
        let mut stays = Self {
            manifests: BTreeMap::new(),
            named: retired.snapshots().clone(),
            blocked: None,
            listed: Vec::new(),
        };
        let gone = |id: &PointId| drop.contains(id) || retired.point(id).is_some();
        let mut damaged = Vec::new();
        for vault in copies {
            let mut listed = BTreeSet::new();
            for entry in vault.points()? {
                match entry {
                    PointEntry::Good(manifest) => {
                        stays.named.insert(manifest.snapshot);
                        if !gone(&manifest.id) {
                            listed.insert(manifest.id.clone());
                            stays.manifests.insert(manifest.id.clone(), *manifest);
                        }
                    }
                    PointEntry::Damaged { id: Some(id), .. } if gone(&id) => {}
                    PointEntry::Damaged { id, object, why } => {
                        listed.extend(id.clone());
                        damaged.push((
                            id,
                            format!("`{object}` at {} is damaged: {why}", vault.storage.location()),
                        ));
                    }
                }
            }
            stays.listed.push(listed);
        }
        let unknown = |id: &Option<PointId>| id.as_ref().is_none_or(|id| !stays.manifests.contains_key(id));
        let first = damaged.into_iter().find(|(id, _why)| unknown(id));
        stays.blocked = first.map(|(_id, why)| format!("{why}, and what it needs is not known"));
        Ok(stays)
    }
}

impl Survey {
    /// Looks through every copy. `leftovers_before` is the moment before which a snapshot without a point is one that never
    /// will have one; nothing while a copy is away that may hold the point.
    pub(super) fn of(
        copies: &[&Vault],
        stays: &Stays,
        retired: &Retired,
        leftovers_before: Option<Timestamp>,
    ) -> Result<Self, VaultError> {
        let mut survey = Self { blocked: stays.blocked.clone(), ..Self::default() };
        survey.newest = stays.manifests.values().map(|manifest| manifest.started).max();
        let mut known: BTreeSet<&PointId> = BTreeSet::new();
        for (vault, listed) in copies.iter().zip(&stays.listed) {
            let own = survey.copy(vault, stays, listed, (retired, leftovers_before), &mut known)?;
            survey.copies.push(own);
        }
        if survey.blocked.is_none()
            && let Some(id) = stays.manifests.keys().find(|id| !known.contains(id))
        {
            let why = survey.copies.iter().find_map(|copy| copy.unknown.clone()).unwrap_or_default();
            survey.blocked = Some(format!("what {id} needs is not known in any copy: {why}"));
        }
        Ok(survey)
    }

    fn copy<'a>(
        &mut self,
        vault: &Vault,
        stays: &'a Stays,
        listed: &BTreeSet<PointId>,
        (retired, leftovers_before): (&Retired, Option<Timestamp>),
        known: &mut BTreeSet<&'a PointId>,
    ) -> Result<CopySurvey, VaultError> {
        let storage = vault.storage.as_ref();
        let raw = read_raw(storage, &vault.key)?;
        let mut own = CopySurvey::default();
        if let Some(problem) = raw.problems.first() {
            own.unknown = Some(format!("`{}` is damaged: {}", problem.object, problem.why));
        }
        for (id, (pack, _index)) in &raw.packs {
            let written = pack.time.as_ref().and_then(|text| text.parse().ok());
            self.packs.entry(*id).or_insert(Known { bytes: pack.size_bytes(), written });
        }
        let index = Index::from_raw(storage, &vault.key, raw, retired)?;
        let reader = BlobReader {
            storage: std::sync::Arc::clone(&vault.storage),
            key: vault.key.clone(),
            index: std::sync::Arc::new(index),
        };
        let mut walk = Walk { reader: &reader, seen: HashSet::new(), used: BTreeMap::new() };
        for (id, manifest) in stays.manifests.iter().filter(|(id, _)| listed.contains(*id)) {
            let name = layout::snapshot(&manifest.snapshot);
            let root = storage.get(&name).promised(&name);
            let root = root.and_then(|bytes| vault.snapshot_root(&name, &bytes, manifest));
            match root.and_then(|root| walk.tree(root)) {
                Ok(()) => drop(known.insert(id)),
                Err(error) if error.kind() == FailureKind::Damaged => {
                    own.unknown.get_or_insert(format!("{id}: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        for root in self.without_point(vault, stays, leftovers_before)? {
            match walk.tree(root) {
                Err(error) if error.kind() == FailureKind::Damaged => {
                    own.unknown.get_or_insert(format!("a snapshot without a point: {error}"));
                }
                other => other?,
            }
        }
        for (number, blobs) in walk.used {
            let Some(pack) = reader.index.pack(number) else { continue };
            own.used.insert(pack.id);
            if pack.going {
                self.wanted_back.insert(pack.id);
            }
            self.used.entry(pack.id).or_default().extend(blobs);
        }
        Ok(own)
    }

    /// The roots of snapshots that belong to no point and may still be needed: fresh ones, whose point is about to be
    /// sealed, and those that other tools made.
    fn without_point(
        &mut self,
        vault: &Vault,
        stays: &Stays,
        leftovers_before: Option<Timestamp>,
    ) -> Result<Vec<Digest>, VaultError> {
        let mut roots = Vec::new();
        for listed in vault.storage.list(layout::SNAPSHOTS).doing(|| "list snapshots".to_owned())? {
            let Some(id) = layout::content_digest(&listed.name).filter(|id| !stays.named.contains(id)) else {
                continue;
            };
            let bytes = vault.storage.get(&listed.name).promised(&listed.name)?;
            // One that cannot be opened is nobody's: no point names it.
            let Ok(snapshot) = document::open::<SnapshotFile>(&vault.key, &listed.name, &bytes) else {
                continue;
            };
            // While a manifest cannot be read its snapshot looks as if it had none.
            let old = stays.blocked.is_none()
                && leftovers_before.is_some_and(|before| snapshot.time.timestamp() < before);
            if old && snapshot.tags.contains(TAG) {
                self.leftovers.insert(id);
            } else {
                roots.extend(from_id(*snapshot.tree));
            }
        }
        Ok(roots)
    }
}
