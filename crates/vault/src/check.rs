//! Checking a vault: every file of the copy is read and proved, and what is not proved is named with the recovery
//! points it takes with it.
//!
//! The report is complete by construction: everything that is listed, and everything the vault's own records
//! promise, starts as unproven and leaves only by proof. Problems never stop the check.

mod ledger;
mod objects;
mod reach;

use std::collections::BTreeSet;

use lifeboat_base::ids::PointId;
use lifeboat_base::monitor::{Finding, Monitor};
use serde::{Deserialize, Serialize};

use self::ledger::Ledger;
use self::reach::Reach;
use crate::blobs::BlobReader;
use crate::error::{StorageContext, VaultError};
use crate::index::{Index, RawIndex, read_raw};
use crate::layout;
use crate::logs::LogsLevel;
use crate::points::PointEntry;
use crate::retire::Retired;
use crate::storage::{Listed, ObjectName, Storage, StorageError};
use crate::vault::Vault;

pub(crate) use self::objects::verify_pack;
pub(crate) use self::reach::Resolver;

/// How deep a check looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckLevel {
    /// Every file is read and its checksum or signature compared; every listing of every point is walked.
    Checksummed,
    /// And every chunk is decrypted, decompressed and compared with its id, every pack header with the index.
    Readable,
}

/// One object that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedObject {
    /// The object.
    pub object: ObjectName,
    /// What is wrong with it.
    pub why: String,
    /// The recovery points that rely on it.
    pub points: Vec<PointId>,
}

/// The verdict on one recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointCheck {
    /// The point.
    pub id: PointId,
    /// Whether everything it relies on was proved, to the level of the check.
    pub ok: bool,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// How deep it looked.
    pub level: CheckLevel,
    /// Files read.
    pub files_checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Everything that is damaged or missing, by name.
    pub damaged: Vec<DamagedObject>,
    /// Every recovery point that is listed.
    pub points: Vec<PointCheck>,
    /// What does not belong here but harms nothing: leftovers, foreign files, packs no index names yet.
    pub extra: Vec<String>,
}

impl CheckReport {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty()
    }
}

/// Checks what can be checked without any key: files named by the SHA-256 of their content. For a vault that cannot
/// be opened; which points rely on what stays unknown. Where there is nothing, nothing can be checked.
pub fn check_without_key(storage: &dyn Storage, monitor: &dyn Monitor) -> Result<CheckReport, VaultError> {
    let listing = match storage.list("") {
        Err(StorageError::Missing { .. }) => Vec::new(),
        listing => listing.doing(|| "list the vault".to_owned())?,
    };
    let named: Vec<Listed> =
        listing.into_iter().filter(|listed| layout::content_digest(&listed.name).is_some()).collect();
    let mut ledger = Ledger::default();
    for listed in &named {
        ledger.expect(&listed.name);
    }
    objects::check(storage, None, &RawIndex::default(), &named, &mut ledger, monitor)?;
    Ok(ledger.report(CheckLevel::Checksummed, Vec::new(), Vec::new()))
}

impl Vault {
    /// Checks every file of this copy and every recovery point. Reads all of it; memory as for a restore.
    pub fn check(&self, level: CheckLevel, monitor: &dyn Monitor) -> Result<CheckReport, VaultError> {
        let storage = self.storage.as_ref();
        let listing = storage.list("").doing(|| "list the vault".to_owned())?;
        monitor.phase("checking", Some(listing.iter().map(|listed| listed.size_bytes).sum()));
        let mut ledger = Ledger::default();
        let mut extra = self.sort_out(&listing, &mut ledger)?;
        let raw = read_raw(storage, &self.key)?;
        let named: Vec<Listed> =
            listing.iter().filter(|listed| layout::content_digest(&listed.name).is_some()).cloned().collect();
        let key = (level == CheckLevel::Readable).then_some(&self.key);
        objects::check(storage, key, &raw, &named, &mut ledger, monitor)?;
        let index = Index::from_raw(storage, &self.key, raw, &self.check_retirements(&mut ledger)?)?;
        for problem in &index.problems {
            ledger.damage(&problem.object, &problem.why);
        }
        for (id, _) in &index.unindexed {
            extra.push(layout::pack(id).to_string());
        }
        self.check_small(&mut ledger, monitor)?;
        self.check_holds(&listing, &mut ledger)?;
        self.check_logs(level, &listing, &mut ledger, monitor)?;
        let entries = self.check_points(&mut ledger)?;
        let reader = BlobReader {
            storage: std::sync::Arc::clone(&self.storage),
            key: self.key.clone(),
            index: std::sync::Arc::new(index),
        };
        let ids = entries.iter().filter_map(|entry| entry.id().cloned()).collect();
        Reach::new(self, &reader, &mut ledger).follow(&entries, monitor)?;
        for name in &extra {
            let why = "it is not part of the vault, or nothing relies on it";
            monitor.finding(Finding::new("unexpected-object", name.clone(), why));
        }
        Ok(ledger.report(level, ids, extra))
    }

    /// Puts every object that belongs here on the ledger; gives the names of the others.
    fn sort_out(&self, listing: &[Listed], ledger: &mut Ledger) -> Result<Vec<String>, VaultError> {
        let mut extra = self.storage.strays().doing(|| "list the vault".to_owned())?;
        let single = [layout::config(), layout::envelope(), layout::vault()];
        for name in &single {
            ledger.expect(name);
        }
        let mut keys = false;
        for Listed { name, .. } in listing {
            keys |= name.below(layout::KEYS).is_some();
            let belongs = single.contains(name)
                || layout::content_digest(name).is_some()
                || layout::point_of(name).is_some()
                || name.below(layout::LOGS).is_some()
                || name.below(layout::RETIRED).is_some()
                || name.below(layout::HOLDS).is_some();
            if belongs { ledger.expect(name) } else { extra.push(name.to_string()) }
        }
        if !keys {
            return Err(VaultError::NoVault { location: self.storage.location() });
        }
        Ok(extra)
    }

    fn check_small(&self, ledger: &mut Ledger, monitor: &dyn Monitor) -> Result<(), VaultError> {
        for name in [layout::config(), layout::envelope(), layout::vault()] {
            match self.storage.get(&name).promised(&name) {
                Ok(bytes) => {
                    ledger.read(bytes.len() as u64);
                    monitor.advance(bytes.len() as u64, 1);
                    ledger.settle(&name, self.verify_small(&name, &bytes))?;
                }
                Err(error) => ledger.settle(&name, Err(error))?,
            }
        }
        Ok(())
    }

    fn check_retirements(&self, ledger: &mut Ledger) -> Result<Retired, VaultError> {
        let records = self.retirements()?;
        for name in records.good.keys() {
            ledger.prove(name);
            ledger.read(0);
        }
        for problem in &records.damaged {
            ledger.damage(&problem.object, &problem.why);
            ledger.read(0);
        }
        Ok(Retired::of(&records.good))
    }

    fn check_holds(&self, listing: &[Listed], ledger: &mut Ledger) -> Result<(), VaultError> {
        let (_holds, problems) = self.read_holds()?;
        for listed in listing.iter().filter(|listed| listed.name.below(layout::HOLDS).is_some()) {
            match problems.iter().find(|problem| problem.object == listed.name) {
                Some(problem) => ledger.damage(&problem.object, &problem.why),
                None => ledger.prove(&listed.name),
            }
            ledger.read(0);
        }
        Ok(())
    }

    fn check_logs(
        &self,
        level: CheckLevel,
        listing: &[Listed],
        ledger: &mut Ledger,
        monitor: &dyn Monitor,
    ) -> Result<(), VaultError> {
        let level = match level {
            CheckLevel::Checksummed => LogsLevel::Checksummed,
            CheckLevel::Readable => LogsLevel::Readable,
        };
        let report = self
            .logs()
            .verify(level, monitor)
            .map_err(|error| VaultError::Inconsistent(format!("the logs cannot be checked: {error}")))?;
        let damaged: BTreeSet<_> = report.damaged.iter().map(|damage| damage.object.clone()).collect();
        for listed in listing.iter().filter(|listed| listed.name.below(layout::LOGS).is_some()) {
            if !damaged.contains(&listed.name) {
                ledger.prove(&listed.name);
            }
        }
        for damage in report.damaged {
            ledger.damage(&damage.object, &damage.why);
        }
        ledger.read_many(report.read_count, report.read_bytes);
        Ok(())
    }

    fn check_points(&self, ledger: &mut Ledger) -> Result<Vec<PointEntry>, VaultError> {
        let entries = self.points()?;
        for entry in &entries {
            match entry {
                PointEntry::Good(manifest) => ledger.prove(&layout::point(&manifest.id)),
                PointEntry::Damaged { object, why, id } => {
                    ledger.damage(object, why);
                    ledger.blame(object, id.as_ref());
                }
            }
            ledger.read(0);
        }
        self.without_locked_leftovers(entries)
    }

    /// Points without those that retention dropped and whose manifests are there only because a lock keeps them: what they
    /// needed may be gone.
    fn without_locked_leftovers(&self, mut entries: Vec<PointEntry>) -> Result<Vec<PointEntry>, VaultError> {
        let Some(locks) = self.storage.object_locks() else { return Ok(entries) };
        let retired = self.retired()?;
        let mut left = BTreeSet::new();
        for id in entries.iter().filter_map(PointEntry::id).filter(|id| retired.takes(id)) {
            let name = layout::point(id);
            if locks.refusal(&name).doing(|| format!("look at the lock of `{name}`"))?.is_some() {
                left.insert(id.clone());
            }
        }
        entries.retain(|entry| entry.id().is_none_or(|id| !left.contains(id)));
        Ok(entries)
    }
}
