//! Copying a vault to another copy: sealed objects as they are, verified on the way, manifests last.
//!
//! Memory: one object at a time.

use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::PointId;
use lifeboat_base::monitor::{Finding, Monitor};
use serde::{Deserialize, Serialize};

use crate::check::Resolver;
use crate::error::{StorageContext, VaultError};
use crate::format::document;
use crate::format::index::IndexFile;
use crate::index::{Problem, read_file, read_raw};
use crate::layout;
use crate::logs::piece_of;
use crate::points::PointEntry;
use crate::retire::{Fate, Retired, remove, tell_mended};
use crate::storage::{Listed, ObjectName, StorageError};
use crate::vault::Vault;
use crate::write::put_confirmed;

/// What a copy did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStats {
    /// Objects copied.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Recovery points that became visible in the other copy.
    pub points: u64,
    /// Objects that were not copied because they are damaged here, with what is wrong.
    pub damaged: Vec<(ObjectName, String)>,
    /// Recovery points that were not made visible there, because they would not be restorable.
    pub withheld: Vec<PointId>,
}

impl Vault {
    /// Brings everything this vault has to `other`, a copy of the same vault made by [`Vault::adopt`], but for what was
    /// retired: a copy that was away brings nothing back. Opens no chunk it moves. A damaged object is left out and the points that need it stay invisible there.
    pub fn copy_to(&self, other: &Self, monitor: &dyn Monitor) -> Result<CopyStats, VaultError> {
        if self.vault_id() != other.vault_id() || self.key.expose() != other.key.expose() {
            return Err(VaultError::Refused(format!(
                "{} is not a copy of the vault at {}",
                other.storage.location(),
                self.storage.location()
            )));
        }
        let _lock = other.storage.lock().doing(|| "copy to the vault".to_owned())?;
        // A mount that is gone left an empty folder.
        other.shows_itself()?;
        self.carry_holds(other, monitor)?;
        self.carry_retirements(other, monitor)?;
        let (here, there) = (self.retirements()?, other.retirements()?);
        let retired =
            Retired::of(here.good.iter().chain(&there.good)).under(self.holds()?).under(other.holds()?);
        // Points are listed first: what a writer adds meanwhile is copied as objects, and as points next time.
        let entries = self.points()?;
        let mut todo = Vec::new();
        for folder in [layout::DATA, layout::INDEX, layout::SNAPSHOTS, layout::LOGS] {
            todo.extend(self.storage.list(folder).doing(|| format!("list `{folder}`"))?);
        }
        todo.retain(|listed| !is_retired(&retired, &listed.name));
        monitor.phase("copying", Some(todo.iter().map(|listed| listed.size_bytes).sum()));
        let mut stats = CopyStats::default();
        for listed in &todo {
            if monitor.cancelled() {
                return Err(VaultError::Cancelled);
            }
            match self.copy_object(other, listed, &retired) {
                Ok(true) => {
                    stats.objects += 1;
                    stats.bytes += listed.size_bytes;
                }
                Ok(false) => {}
                Err(VaultError::Damaged { object, why }) => {
                    let finding = Finding::new("object-damaged", object.to_string(), why.clone());
                    monitor.finding(finding.with_kind(FailureKind::Damaged));
                    stats.damaged.push((object, why));
                }
                Err(error) => return Err(error),
            }
            monitor.advance(listed.size_bytes, 1);
        }
        self.copy_points(other, &entries, &retired, &mut stats, monitor)?;
        Ok(stats)
    }

    /// Copies one object unless the other copy has it in the same size.
    fn copy_object(&self, other: &Self, listed: &Listed, retired: &Retired) -> Result<bool, VaultError> {
        let name = &listed.name;
        match other.storage.stat(name).doing(|| format!("look for `{name}`"))? {
            Some(size_bytes) if size_bytes == listed.size_bytes => return Ok(false),
            Some(_) => return Err(VaultError::damaged(name, "the two copies have it in different sizes")),
            None => {}
        }
        let bytes = self.storage.get(name).promised(name)?;
        if self.logs().is_dropped_rollup(name, &bytes, retired) {
            return Ok(false);
        }
        match layout::content_digest(name) {
            Some(digest) if Digest::of(&bytes) != digest => {
                return Err(VaultError::damaged(name, "its content differs from its name"));
            }
            Some(_) => {}
            // A log object's name says nothing of its bytes: a damaged one would stand in the way of a sound one there.
            None if name.below(layout::LOGS).is_some() => self
                .logs()
                .check_object(name, &bytes)
                .map_err(|error| VaultError::damaged(name, error.to_string()))?,
            None => return Ok(false),
        }
        put_confirmed(other.storage.as_ref(), name, &[&bytes])?;
        Ok(true)
    }

    /// Index files that are damaged in the other copy and whole here take the place of those: without them nothing that copy
    /// holds can be relied on, and nothing freed. Gives whether there were any.
    fn mend_indexes(
        &self,
        other: &Self,
        problems: &[Problem],
        monitor: &dyn Monitor,
    ) -> Result<bool, VaultError> {
        let mut mended = false;
        for problem in problems.iter().filter(|one| one.object.below(layout::INDEX).is_some()) {
            let object = &problem.object;
            let file = match read_file(self.storage.as_ref(), &self.key, object) {
                Ok((_id, file)) => file,
                Err(error) if error.kind() == FailureKind::Damaged => continue,
                Err(error) => return Err(error),
            };
            let bytes = self.storage.get(object).promised(object)?;
            match remove(other.storage.as_ref(), object) {
                // A lock keeps also what a disk damaged: it stays known as damaged, and what it said is said beside it.
                Err(VaultError::Storage { source: StorageError::Locked { .. }, .. }) => {
                    mended |= say_beside(other, &file)?;
                    continue;
                }
                removed => removed?,
            }
            put_confirmed(other.storage.as_ref(), object, &[&bytes])?;
            tell_mended(Some(problem), other, monitor);
            mended = true;
        }
        Ok(mended)
    }

    fn copy_points(
        &self,
        other: &Self,
        entries: &[PointEntry],
        retired: &Retired,
        stats: &mut CopyStats,
        monitor: &dyn Monitor,
    ) -> Result<(), VaultError> {
        let mut resolver = Resolver::new(other, retired)?;
        if self.mend_indexes(other, resolver.problems(), monitor)? {
            resolver = Resolver::new(other, retired)?;
        }
        for entry in entries {
            if entry.id().is_some_and(|id| retired.takes(id)) {
                continue;
            }
            let manifest = match entry {
                PointEntry::Good(manifest) => manifest,
                PointEntry::Damaged { id, object, why } => {
                    stats.damaged.push((object.clone(), why.clone()));
                    stats.withheld.extend(id.clone());
                    continue;
                }
            };
            let name = layout::point(&manifest.id);
            if other.storage.stat(&name).doing(|| format!("look for `{name}`"))?.is_some() {
                continue;
            }
            // Listed there means restorable there.
            if let Err(error) = resolver.prove(manifest) {
                if error.kind() != FailureKind::Damaged {
                    return Err(error);
                }
                stats.withheld.push(manifest.id.clone());
                if retired.point(&manifest.id).is_some() {
                    // No damage: what it needs was removed there, and is brought back once it is recorded as needed again.
                    let message = format!(
                        "{} is on legal hold and lies only in {}: retention brings it back",
                        manifest.id,
                        self.storage.location()
                    );
                    monitor.finding(Finding::new("held-point-behind", manifest.id.to_string(), message));
                    continue;
                }
                let finding = Finding::new("point-withheld", manifest.id.to_string(), error.to_string());
                monitor.finding(finding.with_kind(FailureKind::Damaged));
                continue;
            }
            let bytes = self.storage.get(&name).promised(&name)?;
            if self.read_point(&name, &bytes).manifest() != Some(manifest) {
                return Err(VaultError::damaged(&name, "it changed while it was copied"));
            }
            put_confirmed(other.storage.as_ref(), &name, &[&bytes])?;
            stats.points += 1;
        }
        Ok(())
    }
}

/// Whether records say that an object is to be nowhere.
fn is_retired(retired: &Retired, name: &ObjectName) -> bool {
    if let Some(digest) = layout::content_digest(name) {
        return match name.below(layout::DATA) {
            Some(_) => retired.fate(&digest) == Some(Fate::Removed),
            None => retired.takes_snapshot(&digest) || retired.indexes().contains_key(&digest),
        };
    }
    piece_of(name).is_some_and(|(stream, piece)| retired.is_below_floor(&stream, &piece))
}

/// Writes what an index file says under a new name, unless others there say it already. Gives whether it was written.
fn say_beside(vault: &Vault, file: &IndexFile) -> Result<bool, VaultError> {
    let raw = read_raw(vault.storage.as_ref(), &vault.key)?;
    let known = |id| raw.packs.contains_key(id) || raw.marked.contains_key(id);
    if file.packs.iter().all(|pack| known(&pack.id)) {
        return Ok(false);
    }
    let (id, bytes) = document::seal(&vault.key, file, &OsEntropy)?;
    put_confirmed(vault.storage.as_ref(), &layout::index(&id), &[&bytes])?;
    Ok(true)
}
