//! The account of a check: every object that must be proved, until it is proved or found damaged.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use lifeboat_base::digest::Digest;
use lifeboat_base::ids::PointId;

use super::{CheckLevel, CheckReport, DamagedObject, PointCheck};
use crate::error::VaultError;
use crate::storage::ObjectName;

#[derive(Default)]
struct Account {
    proved: bool,
    problems: Vec<String>,
    points: BTreeSet<PointId>,
    /// Where damage of a pack is known to be confined to these blobs.
    confined: Option<HashSet<Digest>>,
}

/// The account of a check.
#[derive(Default)]
pub(super) struct Ledger {
    objects: BTreeMap<ObjectName, Account>,
    files_checked: u64,
    bytes: u64,
}

impl Ledger {
    /// The object must be proved.
    pub(super) fn expect(&mut self, name: &ObjectName) {
        self.objects.entry(name.clone()).or_default();
    }

    /// The object is as it should be, as far as one check can tell; damage found elsewhere stays.
    pub(super) fn prove(&mut self, name: &ObjectName) {
        self.objects.entry(name.clone()).or_default().proved = true;
    }

    /// The object is damaged or missing.
    pub(super) fn damage(&mut self, name: &ObjectName, why: &str) {
        let account = self.objects.entry(name.clone()).or_default();
        account.confined = None;
        if !account.problems.iter().any(|known| known == why) {
            account.problems.push(why.to_owned());
        }
    }

    /// The pack is damaged, but only these blobs in it.
    pub(super) fn damage_blobs(&mut self, name: &ObjectName, why: &str, blobs: HashSet<Digest>) {
        self.damage(name, why);
        self.objects.entry(name.clone()).or_default().confined = Some(blobs);
    }

    /// The blobs that damage of a pack is confined to, if it is.
    pub(super) fn confined(&self, name: &ObjectName) -> Option<&HashSet<Digest>> {
        self.objects.get(name)?.confined.as_ref()
    }

    /// A point relies on a damaged object.
    pub(super) fn blame(&mut self, name: &ObjectName, point: Option<&PointId>) {
        self.objects.entry(name.clone()).or_default().points.extend(point.cloned());
    }

    /// Takes the outcome of one verification. Errors that are not about the object itself end the check.
    pub(super) fn settle(
        &mut self,
        name: &ObjectName,
        outcome: Result<(), VaultError>,
    ) -> Result<(), VaultError> {
        match outcome {
            Ok(()) => self.prove(name),
            Err(VaultError::Damaged { object, why }) => {
                self.damage(&object, &why);
                if object != *name {
                    self.damage(name, &format!("it relies on `{object}`, which is damaged"));
                }
            }
            Err(VaultError::Storage { source, .. }) => {
                self.damage(name, &format!("it cannot be read: {source}"));
            }
            Err(VaultError::Inconsistent(why)) => self.damage(name, &why),
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// One file was read.
    pub(super) fn read(&mut self, bytes: u64) {
        self.read_many(1, bytes);
    }

    /// Several files were read.
    pub(super) fn read_many(&mut self, files: u64, bytes: u64) {
        self.files_checked += files;
        self.bytes += bytes;
    }

    /// Whether the object is known to be damaged.
    pub(super) fn is_damaged(&self, name: &ObjectName) -> bool {
        self.objects.get(name).is_some_and(|account| !account.problems.is_empty())
    }

    /// Closes the account: what was not proved counts as damaged.
    pub(super) fn report(self, level: CheckLevel, ids: Vec<PointId>, extra: Vec<String>) -> CheckReport {
        let mut damaged = Vec::new();
        let mut hit = BTreeSet::new();
        for (object, account) in self.objects {
            if account.proved && account.problems.is_empty() {
                continue;
            }
            let why = if account.problems.is_empty() {
                "it was not proved".to_owned()
            } else {
                account.problems.join("; ")
            };
            hit.extend(account.points.iter().cloned());
            damaged.push(DamagedObject { object, why, points: account.points.into_iter().collect() });
        }
        let points = ids.into_iter().map(|id| PointCheck { ok: !hit.contains(&id), id }).collect();
        CheckReport { level, files_checked: self.files_checked, bytes: self.bytes, damaged, points, extra }
    }
}
