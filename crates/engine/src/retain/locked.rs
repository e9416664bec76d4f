//! What may go by the rules and waits for the end of a lock, as the places say that keep it.

use lifeboat_base::failure::Failure;
use lifeboat_base::ids::CopyName;
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::PointRow;
use lifeboat_policy::{Decided, Verdict};
use lifeboat_vault::VaultError;
use lifeboat_vault::layout;
use lifeboat_vault::retire::RetirePlan;
use lifeboat_vault::storage::{ObjectName, StorageError};
use serde::Serialize;

use crate::copies::{CopyVault, VaultSet};

/// Until when a lock keeps something that may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockWait {
    /// Why it may not be deleted yet.
    pub why: String,
    /// When it may; nothing if nobody knows.
    pub until: Option<Timestamp>,
}

/// What one copy keeps for a lock although it may go, besides points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockedCopy {
    /// The copy.
    pub copy: CopyName,
    /// How many objects.
    pub objects: u64,
    /// When the last of them may go; nothing if nobody knows.
    pub until: Option<Timestamp>,
}

/// What keeps an object in a copy, if it is there and something does.
fn wait(entry: &CopyVault, name: &ObjectName) -> Result<Option<LockWait>, Failure> {
    let storage = entry.vault.storage();
    let Some(locks) = storage.object_locks() else { return Ok(None) };
    let looked = locks.refusal(name).and_then(|why| Ok((why, locks.lock_of(name)?)));
    match looked {
        Ok((Some(why), lock)) => Ok(Some(LockWait { why, until: lock.until().filter(|_until| !lock.held) })),
        Ok((None, _)) | Err(StorageError::NotFound { .. }) => Ok(None),
        Err(source) => {
            Err(VaultError::Storage { doing: format!("look at the lock of `{name}`"), source }.into())
        }
    }
}

/// The later of two; one that nobody knows the end of ends last.
fn later(one: Option<LockWait>, other: LockWait) -> LockWait {
    let ends_later =
        |one: &LockWait| one.until.is_none_or(|end| other.until.is_some_and(|until| end >= until));
    one.filter(ends_later).unwrap_or(other)
}

/// For every decision, in its order: what keeps a point that may go, the longest of all copies.
pub(super) fn point_waits(
    set: &VaultSet,
    points: &[PointRow],
    decided: &Decided,
) -> Result<Vec<Option<LockWait>>, Failure> {
    let mut waits = Vec::with_capacity(points.len());
    for (point, decision) in points.iter().zip(&decided.points) {
        let mut longest = None;
        if matches!(decision.verdict, Verdict::Deletable { .. }) {
            for name in [layout::point(&point.manifest.id), layout::snapshot(&point.manifest.snapshot)] {
                for entry in &set.open {
                    if let Some(found) = wait(entry, &name)? {
                        longest = Some(later(longest, found));
                    }
                }
            }
        }
        waits.push(longest);
    }
    Ok(waits)
}

/// What was dropped earlier, or is about to be removed, and is locked in a copy; and the copies that cannot be asked.
pub(super) fn locked_copies(set: &VaultSet, plan: Option<&RetirePlan>) -> (Vec<LockedCopy>, Vec<Finding>) {
    let (mut copies, mut findings) = (Vec::new(), Vec::new());
    for entry in &set.open {
        match locked_copy(entry, plan) {
            Ok(locked) => copies.extend(locked),
            Err(failure) => {
                let copy = &entry.copy;
                let message =
                    format!("copy `{copy}`: what waits there for a lock is not known: {}", failure.chain());
                let finding = Finding::new("locks-unknown", copy.as_str(), message);
                findings.push(finding.with_kind(failure.kind()));
            }
        }
    }
    (copies, findings)
}

fn locked_copy(entry: &CopyVault, plan: Option<&RetirePlan>) -> Result<Option<LockedCopy>, Failure> {
    let absence = entry.vault.absence(&entry.vault.retired()?)?;
    let mut ends: Vec<Option<Timestamp>> = Vec::new();
    for id in plan.iter().flat_map(|plan| &plan.record.remove) {
        ends.extend(wait(entry, &layout::pack(id))?.map(|wait| wait.until));
    }
    let objects = absence.locked_count + ends.len() as u64;
    if absence.locked_count > 0 {
        ends.push(absence.locked_until);
    }
    let known: Option<Vec<Timestamp>> = ends.into_iter().collect();
    let until = known.and_then(|ends| ends.into_iter().max());
    Ok((objects > 0).then(|| LockedCopy { copy: entry.copy.clone(), objects, until }))
}
