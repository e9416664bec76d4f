//! Removing recovery points and the space only they need: a plan first, applied later only if nothing changed.
//!
//! Packs are removed in two phases: applying a plan marks them in the index, and a later plan deletes what has been
//! marked for the minimum age. In between, every kept point has been proved to resolve without them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::ids::{PointId, VaultId};
use lifeboat_base::time::Timestamp;
use rustic_core::repofile::{SnapshotFile, SnapshotId as RusticSnapshotId};
use rustic_core::{LimitOption, PruneOptions as RusticOptions};
use serde::{Deserialize, Serialize};

use crate::check::{Resolver, verify_pack};
use crate::error::{StorageContext, VaultError};
use crate::format::document;
use crate::format::node::to_id;
use crate::index::read_raw;
use crate::layout;
use crate::points::PointManifest;
use crate::rustic;
use crate::vault::Vault;

/// The format of a plan.
pub const PRUNE_PLAN_FORMAT: &str = "lifeboat.prune-plan/v1";

/// How to prune.
#[derive(Clone, Copy, Debug)]
pub struct PruneOptions {
    /// The present.
    pub now: Timestamp,
    /// How long a pack stays marked before it is deleted, and how old a snapshot without a point must be to be dropped.
    pub min_age: Duration,
    /// How much of what is kept may be unused space, in percent; 0 repacks every pack that holds any.
    pub max_unused_percent: u64,
}

/// What applying it would do. Nothing else is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePlan {
    /// `lifeboat.prune-plan/v1`.
    pub format: String,
    /// The vault.
    pub vault: VaultId,
    /// When it was made.
    pub made: Timestamp,
    /// The state of the vault it was made for; any change since makes the plan void.
    pub state: Digest,
    /// Points that stay.
    pub keep: Vec<PointId>,
    /// Points whose manifests and snapshots go.
    pub drop: Vec<PointId>,
    /// Snapshots that go: those of dropped points, and old ones that never became a point.
    pub drop_snapshots: Vec<Digest>,
    /// The minimum age in seconds.
    pub min_age_s: u64,
    /// The share of unused space that is left alone, in percent.
    pub max_unused_percent: u64,
    /// Bytes of all packs before.
    pub total_bytes: u64,
    /// Bytes that nothing kept needs.
    pub unused_bytes: u64,
    /// Bytes that will be written again to free what lies between them.
    pub repack_bytes: u64,
    /// Bytes that will be marked, to be deleted after the minimum age.
    pub mark_bytes: u64,
    /// Bytes that were marked long enough and will be deleted.
    pub delete_bytes: u64,
}

/// What applying a plan did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneReport {
    /// Points removed.
    pub points: u64,
    /// Snapshots removed.
    pub snapshots: u64,
    /// Bytes of all packs before.
    pub bytes_before: u64,
    /// Bytes of all packs after.
    pub bytes_after: u64,
    /// Packs written by moving what is kept, each verified blob by blob.
    pub new_packs: u64,
}

impl Vault {
    /// Plans to keep exactly the points `keep`. `Refused` if one of them does not exist or a manifest is damaged;
    /// `Damaged` if one of them does not resolve: then nothing may be removed before it is healed.
    pub fn plan_prune(
        &self,
        keep: &BTreeSet<PointId>,
        options: &PruneOptions,
    ) -> Result<PrunePlan, VaultError> {
        let state = self.state()?;
        let (kept, dropped) = self.split_points(keep)?;
        self.prove_all(&kept)?;
        let drop_snapshots = self.snapshots_to_drop(&kept, &dropped, options)?;
        let repository = rustic::open(Arc::clone(&self.storage), &self.key)?;
        let settings = settings(&drop_snapshots, options.min_age, options.max_unused_percent)?;
        let planned = repository.prune_plan(&settings).map_err(rustic::library)?;
        let size = planned.stats.size_sum();
        Ok(PrunePlan {
            format: PRUNE_PLAN_FORMAT.to_owned(),
            vault: self.vault_id().clone(),
            made: options.now,
            state,
            keep: keep.iter().cloned().collect(),
            drop: dropped.into_iter().map(|manifest| manifest.id).collect(),
            drop_snapshots,
            min_age_s: options.min_age.as_secs(),
            max_unused_percent: options.max_unused_percent,
            total_bytes: self.pack_bytes()?,
            unused_bytes: size.unused + planned.stats.size_unref,
            repack_bytes: size.repack,
            mark_bytes: size.remove + size.repackrm + planned.stats.size_unref,
            delete_bytes: planned.stats.size_to_delete.remove,
        })
    }

    /// Applies a plan. `Refused` if the vault changed since the plan was made, another writer is at work, or another
    /// tool holds a lock. Manifests go first, so that nothing listed is ever unrestorable.
    pub fn apply_prune(&self, plan: &PrunePlan) -> Result<PruneReport, VaultError> {
        if plan.format != PRUNE_PLAN_FORMAT || plan.vault != *self.vault_id() {
            return Err(VaultError::Refused("the plan is for another vault".to_owned()));
        }
        let _lock = self.storage.lock().doing(|| "prune".to_owned())?;
        if let Some(lock) = self.storage.list(layout::LOCKS).doing(|| "list locks".to_owned())?.first() {
            return Err(VaultError::Refused(format!("another tool holds the lock `{}`", lock.name)));
        }
        if self.state()? != plan.state {
            return Err(VaultError::Refused("the vault changed since the plan was made".to_owned()));
        }
        let keep: BTreeSet<PointId> = plan.keep.iter().cloned().collect();
        let (kept, dropped) = self.split_points(&keep)?;
        if dropped.iter().map(|manifest| &manifest.id).ne(&plan.drop) {
            return Err(VaultError::Refused("the plan drops other points than it says".to_owned()));
        }
        self.prove_all(&kept)?;
        let kept_snapshots: BTreeSet<Digest> = kept.iter().map(|manifest| manifest.snapshot).collect();
        if plan.drop_snapshots.iter().any(|id| kept_snapshots.contains(id)) {
            return Err(VaultError::Refused("the plan drops the snapshot of a point it keeps".to_owned()));
        }
        let bytes_before = self.pack_bytes()?;
        for id in &plan.drop {
            let name = layout::point(id);
            self.storage.remove(&name).doing(|| format!("remove `{name}`"))?;
        }
        for id in &plan.drop_snapshots {
            let name = layout::snapshot(id);
            self.storage.remove(&name).doing(|| format!("remove `{name}`"))?;
        }
        let new_packs = self.reclaim(plan)?;
        self.prove_all(&kept)?;
        Ok(PruneReport {
            points: plan.drop.len() as u64,
            snapshots: plan.drop_snapshots.len() as u64,
            bytes_before,
            bytes_after: self.pack_bytes()?,
            new_packs,
        })
    }

    /// Marks, moves and deletes packs, then proves every pack that was written.
    fn reclaim(&self, plan: &PrunePlan) -> Result<u64, VaultError> {
        let before = self.pack_ids()?;
        let repository = rustic::open(Arc::clone(&self.storage), &self.key)?;
        let settings = settings(&[], Duration::from_secs(plan.min_age_s), plan.max_unused_percent)?;
        let planned = repository.prune_plan(&settings).map_err(rustic::library)?;
        repository.prune(&settings, planned).map_err(rustic::library)?;
        let raw = read_raw(self.storage.as_ref(), &self.key)?;
        let mut new_packs = 0;
        for (id, (pack, _)) in raw.packs.iter().filter(|(id, _)| !before.contains(*id)) {
            // What was moved is still in the marked packs: a bad move is found while it can be undone.
            verify_pack(self.storage.as_ref(), &self.key, id, pack.size_bytes(), Some(&pack.blobs))?;
            new_packs += 1;
        }
        Ok(new_packs)
    }

    fn split_points(
        &self,
        keep: &BTreeSet<PointId>,
    ) -> Result<(Vec<PointManifest>, Vec<PointManifest>), VaultError> {
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for entry in self.points()? {
            let Some(manifest) = entry.manifest() else {
                return Err(VaultError::Refused(
                    "a recovery-point manifest is damaged: what it needs is not known, so nothing is removed"
                        .to_owned(),
                ));
            };
            if keep.contains(&manifest.id) {
                kept.push(manifest.clone());
            } else {
                dropped.push(manifest.clone());
            }
        }
        match keep.iter().find(|id| !kept.iter().any(|manifest| manifest.id == **id)) {
            Some(missing) => Err(VaultError::Refused(format!("the point {missing} to keep does not exist"))),
            None => Ok((kept, dropped)),
        }
    }

    fn prove_all(&self, points: &[PointManifest]) -> Result<(), VaultError> {
        let mut resolver = Resolver::new(self)?;
        points.iter().try_for_each(|manifest| resolver.prove(manifest))
    }

    fn snapshots_to_drop(
        &self,
        kept: &[PointManifest],
        dropped: &[PointManifest],
        options: &PruneOptions,
    ) -> Result<Vec<Digest>, VaultError> {
        let kept: BTreeSet<Digest> = kept.iter().map(|manifest| manifest.snapshot).collect();
        let dropped: BTreeSet<Digest> = dropped.iter().map(|manifest| manifest.snapshot).collect();
        let mut all = Vec::new();
        for listed in self.storage.list(layout::SNAPSHOTS).doing(|| "list snapshots".to_owned())? {
            let Some(id) = layout::content_digest(&listed.name) else { continue };
            if kept.contains(&id) {
                continue;
            }
            let bytes = self.storage.get(&listed.name).promised(&listed.name)?;
            let snapshot: SnapshotFile = document::open(&self.key, &listed.name, &bytes)?;
            // A snapshot without a point may be one whose manifest is about to be sealed.
            let age = options.now.duration_since(snapshot.time.timestamp());
            if dropped.contains(&id) || Duration::try_from(age).is_ok_and(|age| age >= options.min_age) {
                all.push(id);
            }
        }
        Ok(all)
    }

    /// A digest of everything a plan depends on.
    fn state(&self) -> Result<Digest, VaultError> {
        let mut hasher = Hasher::new();
        for folder in [layout::DATA, layout::INDEX, layout::SNAPSHOTS, layout::POINTS] {
            for listed in self.storage.list(folder).doing(|| format!("list `{folder}`"))? {
                hasher.update(listed.name.as_str().as_bytes());
                hasher.update(&listed.size_bytes.to_be_bytes());
            }
        }
        Ok(hasher.finish())
    }

    fn pack_ids(&self) -> Result<BTreeSet<Digest>, VaultError> {
        let listed = self.storage.list(layout::DATA).doing(|| "list packs".to_owned())?;
        Ok(listed.iter().filter_map(|listed| layout::content_digest(&listed.name)).collect())
    }

    fn pack_bytes(&self) -> Result<u64, VaultError> {
        let listed = self.storage.list(layout::DATA).doing(|| "list packs".to_owned())?;
        Ok(listed.iter().map(|listed| listed.size_bytes).sum())
    }
}

fn settings(
    ignored: &[Digest],
    min_age: Duration,
    max_unused_percent: u64,
) -> Result<RusticOptions, VaultError> {
    let seconds = i64::try_from(min_age.as_secs()).unwrap_or(i64::MAX);
    let span = jiff::Span::new()
        .try_seconds(seconds)
        .map_err(|error| VaultError::Refused(format!("the minimum age is out of range: {error}")))?;
    let mut options = RusticOptions::default();
    options.max_repack = LimitOption::Unlimited;
    options.max_unused = LimitOption::Percentage(max_unused_percent.min(99));
    options.keep_delete = span;
    options.instant_delete = false;
    options.ignore_snaps = ignored.iter().map(|id| RusticSnapshotId::from(to_id(id))).collect();
    Ok(options)
}
