//! How long the objects of one copy are to be locked: from the points that need them to every object; and the locks as they are.
//!
//! In: until when each point is to be locked. Out: the same for objects; the extension of their locks; what falls short of it,
//! as the place itself says. Invariant: an object is locked for the longest of what needs it, an index file no longer than any
//! pack it names, so that no lock keeps a removal of packs from being written down.

use std::collections::BTreeMap;

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::{PointId, StreamName};
use lifeboat_base::time::Timestamp;

use crate::error::{StorageContext, VaultError};
use crate::index::read_raw;
use crate::layout;
use crate::logs::LogsError;
use crate::points::{PointEntry, PointManifest};
use crate::retire::{BadBlobs, Walk};
use crate::storage::{Keeper, LockMode, LockTerm, Locked, ObjectLocks, ObjectName, Storage, StorageError};
use crate::vault::Vault;

/// The most objects named; the count tells of the rest.
const MAX_NAMED: usize = 100;

/// Until when each object of a copy is to be locked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockPlan {
    /// The objects.
    pub objects: BTreeMap<ObjectName, Timestamp>,
    /// Points of which not everything they need is known here, and why: that is not locked.
    pub unknown: BTreeMap<PointId, String>,
}

/// What an extension did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockReport {
    /// Objects that are locked longer now, or better.
    pub extended_count: u64,
    /// Objects whose lock was as it should be.
    pub kept_count: u64,
    /// Of all these, those that the place does not protect: only this program refuses to delete them.
    pub soft_count: u64,
    /// Objects of the plan that are not there.
    pub missing_count: u64,
    /// The first of them.
    pub missing: Option<ObjectName>,
}

/// An object whose lock is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortLock {
    /// The object.
    pub object: ObjectName,
    /// Until when it should be locked.
    pub wanted: Timestamp,
    /// Until when it is; nothing if it is not, or if that is not known.
    pub until: Option<Timestamp>,
}

/// What one look at the locks of a copy showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockDrift {
    /// Objects that were looked at.
    pub checked_count: u64,
    /// Objects that are locked too short or not at all.
    pub short_count: u64,
    /// The first of them.
    pub short: Vec<ShortLock>,
    /// Objects that are locked long enough, and only by this program.
    pub soft_count: u64,
    /// When the first lock ends, of those that are long enough.
    pub first_end: Option<Timestamp>,
}

impl LockPlan {
    /// Locks an object until then, or longer.
    fn want(&mut self, name: ObjectName, until: Timestamp) {
        let known = self.objects.entry(name).or_insert(until);
        *known = until.max(*known);
    }
}

impl Vault {
    /// Until when every object of this copy is to be locked, if these points are to be locked until then, besides what is `known` to
    /// be locked already. Costs reading the listings of the points, and the index.
    pub fn lock_plan(
        &self,
        points: &BTreeMap<PointId, Timestamp>,
        known: &BTreeMap<ObjectName, Timestamp>,
    ) -> Result<LockPlan, VaultError> {
        let mut plan = LockPlan::default();
        let mut wanted: Vec<(Timestamp, PointManifest)> = Vec::new();
        for entry in self.points()? {
            let Some(until) = entry.id().and_then(|id| points.get(id)).copied() else { continue };
            match entry {
                PointEntry::Good(manifest) => wanted.push((until, *manifest)),
                PointEntry::Damaged { id, object, why } => {
                    let id = id.into_iter();
                    plan.unknown.extend(id.map(|id| (id, format!("`{object}` is damaged: {why}"))));
                }
            }
        }
        // The longest first: whatever it needs is then locked for as long as anything needs it.
        wanted.sort_by(|a, b| (b.0, &b.1.id).cmp(&(a.0, &a.1.id)));
        if let Some((longest, _manifest)) = wanted.first() {
            // Without these nobody reads anything.
            for name in [layout::config(), layout::envelope(), layout::vault()] {
                plan.want(name, *longest);
            }
            for listed in self.storage().list(layout::KEYS).doing(|| "list keys".to_owned())? {
                plan.want(listed.name, *longest);
            }
        }
        let mut packs = self.packs_of(&wanted, &mut plan)?;
        for (until, manifest) in &wanted {
            plan.want(layout::point(&manifest.id), *until);
            plan.want(layout::snapshot(&manifest.snapshot), *until);
        }
        for (id, until) in &packs {
            plan.want(layout::pack(id), *until);
        }
        for (name, until) in known.iter().filter(|(name, _until)| name.below(layout::DATA).is_some()) {
            let Some(id) = layout::content_digest(name) else { continue };
            packs.entry(id).and_modify(|end| *end = (*end).max(*until)).or_insert(*until);
        }
        self.want_indexes(&packs, &mut plan)?;
        Ok(plan)
    }

    /// Adds to a plan what is stored of a log: `until` tells how long what was written up to a moment is to be locked. Costs reading
    /// every roll-up of the stream, and what none lists yet.
    pub fn plan_log_locks(
        &self,
        stream: &StreamName,
        until: &dyn Fn(Timestamp) -> Option<Timestamp>,
        plan: &mut LockPlan,
    ) -> Result<(), LogsError> {
        for (name, until) in self.logs().lock_ends(stream, until)? {
            plan.want(name, until);
        }
        Ok(())
    }

    /// The packs that points need, each with the end of the longest; the points come longest first.
    fn packs_of(
        &self,
        wanted: &[(Timestamp, PointManifest)],
        plan: &mut LockPlan,
    ) -> Result<BTreeMap<Digest, Timestamp>, VaultError> {
        let mut packs = BTreeMap::new();
        let (reader, bad) = (self.blob_reader()?, BadBlobs::new());
        let mut walk = Walk::new(&reader, &bad);
        for (until, manifest) in wanted {
            let name = layout::snapshot(&manifest.snapshot);
            let root = self.storage().get(&name).promised(&name);
            match root.and_then(|bytes| self.snapshot_root(&name, &bytes, manifest)) {
                Ok(root) => walk.tree(root)?,
                Err(error) if error.kind() == FailureKind::Damaged => {
                    plan.unknown.insert(manifest.id.clone(), error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            }
            for number in walk.take_packs() {
                if let Some(pack) = reader.index.pack(number) {
                    packs.entry(pack.id).or_insert(*until);
                }
            }
            if let Some(why) = walk.take_unreadable() {
                plan.unknown.insert(manifest.id.clone(), why);
            }
        }
        Ok(packs)
    }

    /// An index file is locked while every pack it names is: it has to give way before one of them goes.
    fn want_indexes(
        &self,
        packs: &BTreeMap<Digest, Timestamp>,
        plan: &mut LockPlan,
    ) -> Result<(), VaultError> {
        let raw = read_raw(self.storage().as_ref(), self.master_key())?;
        let mut ends: BTreeMap<Digest, Option<Timestamp>> = BTreeMap::new();
        for (id, (_pack, index)) in &raw.packs {
            let until = packs.get(id).copied();
            ends.entry(*index).and_modify(|end| *end = (*end).min(until)).or_insert(until);
        }
        for (index, until) in ends {
            if let Some(until) = until {
                plan.want(layout::index(&index), until);
            }
        }
        Ok(())
    }

    /// Locks every object of the plan for as long as it says; none is ever shortened. The caller has the write lock of the
    /// copy. A run that was killed is completed by the next.
    pub fn extend_locks(&self, plan: &LockPlan, mode: LockMode) -> Result<LockReport, VaultError> {
        self.shows_itself()?;
        let locks = object_locks(self.storage().as_ref())?;
        let mut report = LockReport::default();
        for (name, until) in &plan.objects {
            let doing = || format!("lock `{name}`");
            let lock = match locks.lock_of(name) {
                Err(StorageError::NotFound { .. }) => {
                    report.missing_count += 1;
                    report.missing.get_or_insert_with(|| name.clone());
                    continue;
                }
                other => other.doing(doing)?,
            };
            let strict = matches!(lock.locked, Locked::Term(term) if term.mode >= mode);
            let lock = if lock.reaches(*until) && strict && lock.keeper == Keeper::Place {
                report.kept_count += 1;
                lock
            } else {
                let longer = locks.lock_until(name, LockTerm { until: *until, mode }).doing(doing)?;
                if !longer.reaches(*until) {
                    let why = format!("`{name}` was to be locked until {until:.0}, and is not");
                    return Err(VaultError::Refused(why));
                }
                if longer == lock {
                    report.kept_count += 1;
                } else {
                    report.extended_count += 1;
                }
                longer
            };
            report.soft_count += u64::from(lock.keeper == Keeper::Program);
        }
        Ok(report)
    }
}

/// Compares locks with what they should be, by what the place itself says. An object that is not there counts as not locked. Reads
/// no object and needs no key; costs a look at every lock.
pub fn lock_drift<'a>(
    storage: &dyn Storage,
    objects: impl IntoIterator<Item = (&'a ObjectName, &'a Timestamp)>,
) -> Result<LockDrift, VaultError> {
    let locks = object_locks(storage)?;
    let mut drift = LockDrift::default();
    for (name, wanted) in objects {
        let lock = match locks.lock_of(name) {
            Err(StorageError::NotFound { .. }) => None,
            other => Some(other.doing(|| format!("look at the lock of `{name}`"))?),
        };
        drift.checked_count += 1;
        if let Some(lock) = lock.as_ref().filter(|lock| lock.reaches(*wanted)) {
            drift.soft_count += u64::from(lock.keeper == Keeper::Program);
            drift.first_end = drift.first_end.into_iter().chain(lock.until()).min();
            continue;
        }
        drift.short_count += 1;
        if drift.short.len() < MAX_NAMED {
            let until = lock.and_then(|lock| lock.until());
            drift.short.push(ShortLock { object: name.clone(), wanted: *wanted, until });
        }
    }
    Ok(drift)
}

fn object_locks(storage: &dyn Storage) -> Result<&dyn ObjectLocks, VaultError> {
    let cannot = || VaultError::Refused(format!("{} cannot lock anything", storage.location()));
    storage.object_locks().ok_or_else(cannot)
}
