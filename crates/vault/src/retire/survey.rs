//! Which packs are in use: everything that stays is walked in every copy, each copy by its own index.
//!
//! Memory: about 50 bytes per distinct directory, and 20 per blob in use; where something is damaged, the directories are
//! walked again and cost as much once more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::PointId;
use lifeboat_base::time::Timestamp;
use rustic_core::repofile::SnapshotFile;

use super::plan::{BadBlobs, Needs};
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
    /// Snapshots that were there; one that came later was not looked at.
    pub(super) snapshots: BTreeSet<Digest>,
    /// Why not everything that is needed here is known.
    pub(super) unknown: Option<String>,
}

impl CopySurvey {
    pub(super) fn needs(&self) -> Needs {
        Needs { packs: self.used.iter().copied().collect(), snapshots: self.snapshots.clone() }
    }
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
    /// Points that stay and that no copy can give, as far as listings and packs tell, and why.
    pub(super) unresolved: BTreeMap<PointId, String>,
    /// When the newest point that stays was begun.
    pub(super) newest: Option<Timestamp>,
}

/// What all copies showed of the points that stay.
#[derive(Default)]
struct Shown<'a> {
    /// Points of which some copy tells all that they need.
    known: BTreeSet<&'a PointId>,
    /// Points that some copy has whole.
    whole: BTreeSet<&'a PointId>,
    /// What is wrong with points, the first that was met.
    why: BTreeMap<&'a PointId, String>,
}

/// Walks listings and notes what they need, past what is damaged.
pub(crate) struct Walk<'a> {
    reader: &'a BlobReader,
    /// What no copy has whole, whatever the listings say.
    bad: &'a BadBlobs,
    seen: HashSet<Digest>,
    used: BTreeMap<u32, HashMap<u32, u32>>,
    /// Listings that cannot be read: what they need is not known.
    unreadable: HashMap<Digest, String>,
    /// Listings that cannot be read or that name what no pack holds.
    broken: HashMap<Digest, String>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(reader: &'a BlobReader, bad: &'a BadBlobs) -> Self {
        let (unreadable, broken) = (HashMap::new(), HashMap::new());
        Self { reader, bad, seen: HashSet::new(), used: BTreeMap::new(), unreadable, broken }
    }

    /// Everything below `root`.
    pub(crate) fn tree(&mut self, root: Digest) -> Result<(), VaultError> {
        let mut waiting = vec![root];
        while let Some(tree) = waiting.pop() {
            if !self.seen.insert(tree) {
                continue;
            }
            match self.listing(tree, &mut waiting) {
                Err(error) if error.kind() == FailureKind::Damaged => {
                    self.unreadable.insert(tree, error.to_string());
                    self.broken.insert(tree, error.to_string());
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// The packs, by their numbers in the index, that were met since this was asked last.
    pub(crate) fn take_packs(&mut self) -> impl Iterator<Item = u32> + use<> {
        std::mem::take(&mut self.used).into_keys()
    }

    /// What could not be read of listings since this was asked last, the first that comes.
    pub(crate) fn take_unreadable(&mut self) -> Option<String> {
        std::mem::take(&mut self.unreadable).into_values().next()
    }

    fn listing(&mut self, tree: Digest, waiting: &mut Vec<Digest>) -> Result<(), VaultError> {
        self.note(&tree, BlobKind::Tree, &tree);
        let mut cursor = self.reader.tree(&tree)?;
        while let Some(node) = cursor.next_node().map_err(|why| self.reader.bad_tree(&tree, &why))? {
            for id in &node.content {
                self.note(&tree, BlobKind::Data, id);
            }
            waiting.extend(node.subtree);
        }
        Ok(())
    }

    fn note(&mut self, tree: &Digest, kind: BlobKind, id: &Digest) {
        if let Some(location) = self.reader.index.find(kind, id) {
            self.used.entry(location.pack).or_default().insert(location.blob.offset, location.blob.length);
            let pack = self.reader.index.pack(location.pack);
            let bad = pack.and_then(|pack| self.bad.get(&pack.id));
            if let Some((_at, why)) = bad.filter(|(at, _why)| at.contains(&location.blob.offset)) {
                self.broken.entry(*tree).or_insert_with(|| why.clone());
            }
        }
        if !self.reader.index.has(kind, id) {
            let why = match self.reader.locate(kind, id) {
                Ok(location) => format!("`{}` is missing", self.reader.pack_name(&location)),
                Err(error) => error.to_string(),
            };
            self.broken.entry(*tree).or_insert(why);
        }
    }

    /// The first of `among` at or below `root`. Listings that lead to none are remembered in `clean`.
    fn reaches<'b>(
        &self,
        root: Digest,
        among: &'b HashMap<Digest, String>,
        clean: &mut HashSet<Digest>,
    ) -> Result<Option<&'b str>, VaultError> {
        if among.is_empty() {
            return Ok(None);
        }
        let (mut waiting, mut passed) = (vec![root], HashSet::new());
        while let Some(tree) = waiting.pop() {
            if let Some(why) = among.get(&tree) {
                return Ok(Some(why));
            }
            if self.unreadable.contains_key(&tree) || clean.contains(&tree) || !passed.insert(tree) {
                continue;
            }
            let mut cursor = self.reader.tree(&tree)?;
            while let Some(node) = cursor.next_node().map_err(|why| self.reader.bad_tree(&tree, &why))? {
                waiting.extend(node.subtree);
            }
        }
        clean.extend(passed);
        Ok(None)
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
    /// Every point that a copy lists and that is neither in `drop` nor retired; what is held stays, also if it is recorded.
    pub(super) fn of(
        copies: &[&Vault],
        drop: &BTreeSet<PointId>,
        retired: &Retired,
    ) -> Result<Self, VaultError> {
        let mut stays = Self {
            manifests: BTreeMap::new(),
            named: retired.snapshots().iter().filter(|id| retired.takes_snapshot(id)).copied().collect(),
            blocked: None,
            listed: Vec::new(),
        };
        let gone = |id: &PointId| drop.contains(id) || retired.takes(id);
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

impl<'a> Shown<'a> {
    /// Takes over what a walk says of the points with these roots.
    fn take(&mut self, walk: &Walk<'_>, roots: &[(&'a PointId, Digest)]) -> Result<(), VaultError> {
        let (mut readable, mut clean) = (HashSet::new(), HashSet::new());
        for (id, root) in roots {
            if walk.reaches(*root, &walk.unreadable, &mut readable)?.is_none() {
                self.known.insert(id);
            }
            match walk.reaches(*root, &walk.broken, &mut clean)? {
                None => drop(self.whole.insert(id)),
                Some(why) => drop(self.why.entry(id).or_insert_with(|| why.to_owned())),
            }
        }
        Ok(())
    }
}

impl Survey {
    /// Looks through every copy. `leftovers_before` is the moment before which a snapshot without a point is one that never
    /// will have one; nothing while a copy is away that may hold the point.
    pub(super) fn of(
        copies: &[&Vault],
        stays: &Stays,
        (retired, bad): (&Retired, &BadBlobs),
        leftovers_before: Option<Timestamp>,
    ) -> Result<Self, VaultError> {
        let mut survey = Self { blocked: stays.blocked.clone(), ..Self::default() };
        survey.newest = stays.manifests.values().map(|manifest| manifest.started).max();
        let mut shown = Shown::default();
        for (vault, listed) in copies.iter().zip(&stays.listed) {
            let own = survey.copy((vault, bad), stays, listed, (retired, leftovers_before), &mut shown)?;
            survey.copies.push(own);
        }
        if survey.blocked.is_none()
            && let Some(id) = stays.manifests.keys().find(|id| !shown.known.contains(id))
        {
            let why = survey.copies.iter().find_map(|copy| copy.unknown.clone()).unwrap_or_default();
            survey.blocked = Some(format!("what {id} needs is not known in any copy: {why}"));
        }
        let lacking = stays.manifests.keys().filter(|id| !shown.whole.contains(id));
        survey.unresolved = lacking
            .map(|id| {
                (id.clone(), shown.why.get(id).cloned().unwrap_or_else(|| "no copy lists it".to_owned()))
            })
            .collect();
        Ok(survey)
    }

    fn copy<'a>(
        &mut self,
        (vault, bad): (&Vault, &BadBlobs),
        stays: &'a Stays,
        listed: &BTreeSet<PointId>,
        (retired, leftovers_before): (&Retired, Option<Timestamp>),
        shown: &mut Shown<'a>,
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
        let mut walk = Walk::new(&reader, bad);
        let mut roots: Vec<(&PointId, Digest)> = Vec::new();
        for (id, manifest) in stays.manifests.iter().filter(|(id, _)| listed.contains(*id)) {
            let name = layout::snapshot(&manifest.snapshot);
            let root = storage.get(&name).promised(&name);
            match root.and_then(|bytes| vault.snapshot_root(&name, &bytes, manifest)) {
                Ok(root) => {
                    walk.tree(root)?;
                    roots.push((id, root));
                }
                Err(error) if error.kind() == FailureKind::Damaged => {
                    shown.why.entry(id).or_insert_with(|| error.to_string());
                    own.unknown.get_or_insert(format!("{id}: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        shown.take(&walk, &roots)?;
        for root in self.without_point(vault, stays, retired, leftovers_before, &mut own)? {
            walk.tree(root)?;
        }
        if let Some(why) = walk.unreadable.values().next() {
            own.unknown.get_or_insert_with(|| format!("a listing cannot be read: {why}"));
        }
        if walk.used.is_empty() && !walk.seen.is_empty() {
            own.unknown.get_or_insert_with(|| "nothing of what is needed was found".to_owned());
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
        retired: &Retired,
        leftovers_before: Option<Timestamp>,
        own: &mut CopySurvey,
    ) -> Result<Vec<Digest>, VaultError> {
        let mut roots = Vec::new();
        for listed in vault.storage.list(layout::SNAPSHOTS).doing(|| "list snapshots".to_owned())? {
            let Some(id) = layout::content_digest(&listed.name) else { continue };
            own.snapshots.insert(id);
            if stays.named.contains(&id) {
                continue;
            }
            let bytes = vault.storage.get(&listed.name).promised(&listed.name)?;
            // One that cannot be opened is nobody's: no point names it.
            let Ok(snapshot) = document::open::<SnapshotFile>(&vault.key, &listed.name, &bytes) else {
                continue;
            };
            // While a manifest cannot be read its snapshot looks as if it had none.
            let old = stays.blocked.is_none()
                && leftovers_before.is_some_and(|before| snapshot.time.timestamp() < before);
            // One that is recorded and held lost its point to a removal that died.
            let held = retired.snapshots().contains(&id);
            if old && !held && snapshot.tags.contains(TAG) {
                self.leftovers.insert(id);
            } else {
                roots.extend(from_id(*snapshot.tree));
            }
        }
        Ok(roots)
    }
}
