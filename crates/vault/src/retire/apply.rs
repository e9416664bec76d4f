//! Applying a plan: what is in use is moved together, the record is written in every copy, then each copy follows it.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::plan::{BadBlobs, RetirePlan, holds_in, retired_in};
use super::record::{Fate, MarkedPack, ReplacedIndex, Retired};
use crate::check::verify_pack;
use crate::error::{StorageContext, VaultError};
use crate::format::document;
use crate::format::index::IndexFile;
use crate::holds::Holds;
use crate::index::{read_file, read_raw};
use crate::layout;
use crate::storage::{ObjectName, Storage, StorageError, WriteLock};
use crate::vault::{Vault, put_same};
use crate::write::{put_confirmed, rewrite};

/// What became of one copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOutcome {
    /// Points removed.
    pub points: u64,
    /// Snapshots removed.
    pub snapshots: u64,
    /// Pieces of log removed.
    pub log_objects: u64,
    /// Packs removed.
    pub packs: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Objects that would have gone and that a lock or a hold of the place keeps; they go with an application after it ended.
    #[serde(default, skip_serializing_if = "none")]
    pub locked_count: u64,
    /// When the last of them may go, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Timestamp>,
    /// Why something is left for the next application, if so.
    pub postponed: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn none(count: &u64) -> bool {
    *count == 0
}

impl CopyOutcome {
    /// Notes an object that a lock keeps.
    pub(crate) fn kept(&mut self, until: Option<Timestamp>) {
        self.locked_count += 1;
        self.locked_until = self.locked_until.max(until);
    }

    /// Removes an object that may be gone already, unless a lock keeps it; gives whether it went.
    pub(crate) fn remove(&mut self, storage: &dyn Storage, name: &ObjectName) -> Result<bool, VaultError> {
        match storage.remove(name) {
            Ok(()) | Err(StorageError::NotFound { .. }) => Ok(true),
            Err(StorageError::Locked { until, .. }) => {
                self.kept(until);
                Ok(false)
            }
            Err(source) => Err(VaultError::Storage { doing: format!("remove `{name}`"), source }),
        }
    }
}

/// What an application did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetireReport {
    /// The record, if there was something to record.
    pub record: Option<String>,
    /// Packs written by moving what is in use, each verified blob by blob.
    pub new_packs: u64,
    /// Bytes that go with a later application.
    pub marked_bytes: u64,
    /// Each copy, in the order they were given.
    pub copies: Vec<CopyOutcome>,
    /// What no copy has whole and something that stays needs. If there is any nothing was recorded: what was decided took it for
    /// whole.
    #[serde(skip)]
    pub bad: BadBlobs,
    /// What the records of all copies that took part say now, under the holds of all: what a proof of absence looks for.
    #[serde(skip)]
    pub retired: Retired,
}

/// A copy at work.
struct At<'a> {
    vault: &'a Vault,
    number: usize,
    _lock: Box<dyn WriteLock>,
}

/// Index files that take the place of others: what each is, by the name of the one that goes.
type NewIndexes = BTreeMap<Digest, Option<(Digest, Vec<u8>)>>;

impl RetirePlan {
    /// Does what the plan says in every copy that nobody else works on; the others follow when they are free or back.
    ///
    /// Stops before the record if something that stays turns out to be whole in no copy ([`RetireReport::bad`]).
    /// `Refused` if a copy changed since, or if no copy is free. Whatever fails in one copy is left for the next
    /// application there. Nothing is removed anywhere before the record stands in every copy that takes it.
    pub fn apply(mut self, copies: &[&Vault], monitor: &dyn Monitor) -> Result<RetireReport, VaultError> {
        let mut report =
            RetireReport { copies: vec![CopyOutcome::default(); copies.len()], ..RetireReport::default() };
        let mut work = self.lock(copies, &mut report)?;
        exchange(&mut work, &mut report, monitor);
        let holds = self.still_held(copies)?;
        let open: Vec<&Vault> = work.iter().map(|at| at.vault).collect();
        report.new_packs = self.move_together(&open, monitor, &mut report.bad)?;
        let mut retired = retired_in(&open)?.under(holds);
        if !report.bad.is_empty() {
            report.retired = retired;
            return Ok(report);
        }
        let indexes = self.replace_indexes(&open, &retired)?;
        report.marked_bytes = self.record.mark.iter().map(|pack| pack.bytes).sum();
        if !self.record.is_empty() {
            // Moving may have taken long.
            let holds = self.still_held(copies)?;
            let (name, bytes) = match work.first() {
                Some(at) => at.vault.sign_retirement(&self.record)?,
                None => return Err(VaultError::Refused("no copy is free".to_owned())),
            };
            let kept = |at: &At<'_>| {
                // A mount that is gone meanwhile left an empty folder.
                at.vault.shows_itself()?;
                put_same(at.vault.storage.as_ref(), &name, &bytes)
            };
            keep_working(&mut work, &mut report, kept)?;
            report.record = Some(name.base_name().to_owned());
            retired = retired_in(&work.iter().map(|at| at.vault).collect::<Vec<_>>())?.under(holds);
        }
        for at in &work {
            monitor.phase(&format!("removing from {}", at.vault.storage.location()), None);
            if let Err(error) = self.follow(at, &retired, &indexes, &mut report) {
                postpone(&mut report, at.number, &lifeboat_base::failure::chain(&error));
            }
        }
        report.retired = retired;
        Ok(report)
    }

    /// The holds of all copies, those that nobody works on too. `Refused` if they keep something else than those the plan was
    /// made under.
    fn still_held(&self, copies: &[&Vault]) -> Result<Holds, VaultError> {
        let (known, filed) = &self.holds;
        let now = holds_in(copies, filed)?;
        if now.keep_as(known) {
            Ok(now)
        } else {
            Err(VaultError::Refused("legal holds changed since the plan was made".to_owned()))
        }
    }

    /// Brings one copy to what the records say.
    fn follow(
        &self,
        at: &At<'_>,
        retired: &Retired,
        indexes: &NewIndexes,
        report: &mut RetireReport,
    ) -> Result<(), VaultError> {
        // Asked once more, of the copy itself: what it holds stays, whatever was known when the plan was made.
        let own = retired.clone().under(at.vault.holds()?);
        let changed = !own.holds().keep_as(retired.holds());
        let changed = changed.then(|| "a legal hold was placed meanwhile".to_owned());
        let why = self
            .blocked
            .as_ref()
            .or(self.unknown.get(at.number).and_then(Option::as_ref))
            .or(changed.as_ref());
        let needs = match why {
            None => self.needs.get(at.number),
            Some(why) => {
                postpone(report, at.number, why);
                None
            }
        };
        let Some(outcome) = report.copies.get_mut(at.number) else { return Ok(()) };
        at.vault.settle(&own, needs, indexes, outcome)?;
        for name in &self.replaced {
            remove(at.vault.storage.as_ref(), name)?;
        }
        Ok(())
    }

    /// Takes the write lock of every copy that is free; compares each with what the plan was made for.
    fn lock<'a>(&self, copies: &[&'a Vault], report: &mut RetireReport) -> Result<Vec<At<'a>>, VaultError> {
        let mut work = Vec::new();
        for (number, vault) in copies.iter().copied().enumerate() {
            let lock = match vault.storage.lock() {
                Ok(lock) => lock,
                Err(error) => {
                    postpone(report, number, &lifeboat_base::failure::chain(&error));
                    continue;
                }
            };
            match self.unchanged(vault, number) {
                Ok(None) => {}
                Ok(Some(why)) => {
                    postpone(report, number, &why);
                    continue;
                }
                Err(error @ VaultError::Refused(_)) => return Err(error),
                Err(error) => {
                    postpone(report, number, &lifeboat_base::failure::chain(&error));
                    continue;
                }
            }
            work.push(At { vault, number, _lock: lock });
        }
        if work.is_empty() {
            let why = report.copies.iter().find_map(|copy| copy.postponed.clone()).unwrap_or_default();
            return Err(VaultError::Refused(format!("no copy is free: {why}")));
        }
        Ok(work)
    }

    /// That a copy is as it was when the plan was made, and nobody else's tool works on it; else why it has to wait.
    fn unchanged(&self, vault: &Vault, number: usize) -> Result<Option<String>, VaultError> {
        let locks = vault.storage.list(layout::LOCKS).doing(|| "list locks".to_owned())?;
        if let Some(foreign) = locks.first() {
            return Ok(Some(format!("another tool holds the lock `{}`", foreign.name)));
        }
        if self.states.get(number) == Some(&vault.state()?) {
            return Ok(None);
        }
        Err(VaultError::Refused(format!("{} changed since the plan was made", vault.storage.location())))
    }

    /// Writes what is in use of little-used packs into new ones, verified, in every copy; then the old ones are marked.
    /// If that fails in one copy nothing is marked: the blobs then merely lie in two places. A pack of which no copy has
    /// whole what is in use stays as it is, and is given.
    fn move_together(
        &mut self,
        open: &[&Vault],
        monitor: &dyn Monitor,
        bad: &mut BadBlobs,
    ) -> Result<u64, VaultError> {
        if self.rewrite.is_empty() {
            return Ok(0);
        }
        let Some(source) = open.first().copied() else { return Ok(0) };
        let packs = source.sizes(layout::DATA)?;
        let before = (packs, source.sizes(layout::INDEX)?);
        monitor.phase(
            "moving together what is in use",
            Some(self.rewrite.iter().map(|one| one.used_bytes).sum()),
        );
        let packs = self.rewrite.iter().map(|one| (one.pack, one.bytes, &one.offsets));
        let left = rewrite(open, packs, monitor)?;
        bad.extend(left.into_iter().map(|(id, at, error)| (id, (at, error.to_string()))));
        if !bad.is_empty() {
            return Ok(0);
        }
        let raw = read_raw(source.storage.as_ref(), &source.key)?;
        let mut new_packs = 0;
        for (id, size_bytes) in
            source.sizes(layout::DATA)?.into_iter().filter(|(id, _)| !before.0.contains_key(id))
        {
            // What was moved still lies in the old packs: a bad move is found while it can be undone.
            let blobs = raw.packs.get(&id).map(|(pack, _)| pack.blobs.as_slice());
            verify_pack(source.storage.as_ref(), &source.key, &id, size_bytes, blobs)?;
            carry(source, open, &layout::pack(&id))?;
            new_packs += 1;
        }
        for id in source.sizes(layout::INDEX)?.into_keys().filter(|id| !before.1.contains_key(id)) {
            carry(source, open, &layout::index(&id))?;
        }
        let moved = self.rewrite.iter().map(|one| MarkedPack { id: one.pack, bytes: one.bytes });
        self.record.mark.extend(moved);
        Ok(new_packs)
    }

    /// Writes the index files that name what is left of those with packs that go, into every copy that has those.
    fn replace_indexes(&mut self, open: &[&Vault], retired: &Retired) -> Result<NewIndexes, VaultError> {
        let spared: BTreeSet<Digest> = self.record.spare.iter().copied().collect();
        let mut going: BTreeSet<Digest> = self.record.remove.iter().copied().collect();
        going.extend(retired.packs().filter(|(_, fate)| *fate == Fate::Removed).map(|(id, _)| *id));
        going.retain(|id| !spared.contains(id));
        let mut new = NewIndexes::new();
        let nothing = going.is_empty() && retired.indexes().is_empty();
        if nothing || self.blocked.is_some() {
            return Ok(new);
        }
        for vault in open {
            for listed in vault.storage.list(layout::INDEX).doing(|| "list index files".to_owned())? {
                let Some(old) = layout::content_digest(&listed.name).filter(|old| !new.contains_key(old))
                else {
                    continue;
                };
                // A damaged one leaves its copy alone, as the survey said.
                let mut file = match read_file(vault.storage.as_ref(), &vault.key, &listed.name) {
                    Ok((_id, file)) => file,
                    Err(VaultError::Damaged { .. }) => continue,
                    Err(other) => return Err(other),
                };
                let count = file.packs.len() + file.packs_to_delete.len();
                file.packs.retain(|pack| !going.contains(&pack.id));
                file.packs_to_delete.retain(|pack| !going.contains(&pack.id));
                let earlier = retired.indexes().get(&old);
                if file.packs.len() + file.packs_to_delete.len() == count && earlier.is_none() {
                    continue;
                }
                let earlier = match earlier.copied().flatten() {
                    Some(id) => same_index(open, &id, &file)?,
                    None => None,
                };
                let replacement = match earlier {
                    Some(known) => Some(known),
                    None => sealed(vault, &file)?,
                };
                new.insert(old, replacement);
            }
        }
        for (old, replacement) in &new {
            let one = ReplacedIndex { old: *old, new: replacement.as_ref().map(|(id, _)| *id) };
            // One that a lock keeps was recorded before.
            if retired.indexes().get(old) != Some(&one.new) {
                self.record.indexes.push(one);
            }
        }
        Ok(new)
    }
}

/// The index file that took the place of one before, if a copy has it and it names what is left now.
fn same_index(
    open: &[&Vault],
    id: &Digest,
    wanted: &IndexFile,
) -> Result<Option<(Digest, Vec<u8>)>, VaultError> {
    let name = layout::index(id);
    for vault in open {
        match read_file(vault.storage.as_ref(), &vault.key, &name) {
            Ok((_id, file)) if file == *wanted => {
                return Ok(Some((*id, vault.storage.get(&name).promised(&name)?)));
            }
            Ok(_) | Err(VaultError::Damaged { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(None)
}

/// Every copy gets the records of the others.
fn exchange(work: &mut Vec<At<'_>>, report: &mut RetireReport, monitor: &dyn Monitor) {
    let all: Vec<&Vault> = work.iter().map(|at| at.vault).collect();
    work.retain(|at| {
        let mut others = all.iter().filter(|other| !std::ptr::eq(**other, at.vault));
        let carried = at.vault.shows_itself().and_then(|()| {
            others.try_for_each(|other| {
                other.carry_holds(at.vault, monitor)?;
                other.carry_retirements(at.vault, monitor)
            })
        });
        match carried {
            Ok(()) => true,
            Err(error) => {
                postpone(report, at.number, &lifeboat_base::failure::chain(&error));
                false
            }
        }
    });
}

fn sealed(vault: &Vault, file: &IndexFile) -> Result<Option<(Digest, Vec<u8>)>, VaultError> {
    let empty = file.packs.is_empty() && file.packs_to_delete.is_empty();
    if empty { Ok(None) } else { document::seal(&vault.key, file, &OsEntropy).map(Some) }
}

/// Brings one object to every other copy that shows what it is.
fn carry(source: &Vault, open: &[&Vault], name: &ObjectName) -> Result<(), VaultError> {
    let bytes = source.storage.get(name).promised(name)?;
    for other in open.iter().filter(|other| !std::ptr::eq(**other, source)) {
        other.shows_itself()?;
        put_confirmed(other.storage.as_ref(), name, &[&bytes])?;
    }
    Ok(())
}

/// Does one step in every copy; one in which it fails drops out. Fails if none is left.
fn keep_working(
    work: &mut Vec<At<'_>>,
    report: &mut RetireReport,
    step: impl Fn(&At<'_>) -> Result<(), VaultError>,
) -> Result<(), VaultError> {
    let mut last = None;
    work.retain(|at| match step(at) {
        Ok(()) => true,
        Err(error) => {
            postpone(report, at.number, &lifeboat_base::failure::chain(&error));
            last = Some(error);
            false
        }
    });
    match last {
        Some(error) if work.is_empty() => Err(error),
        _ => Ok(()),
    }
}

fn postpone(report: &mut RetireReport, number: usize, why: &str) {
    if let Some(copy) = report.copies.get_mut(number) {
        copy.postponed.get_or_insert_with(|| why.to_owned());
    }
}

impl Vault {
    /// The objects of a folder that are named by their content, with their sizes.
    pub(super) fn sizes(&self, folder: &str) -> Result<BTreeMap<Digest, u64>, VaultError> {
        let listed = self.storage.list(folder).doing(|| format!("list `{folder}`"))?;
        let named = listed
            .iter()
            .filter_map(|object| Some((layout::content_digest(&object.name)?, object.size_bytes)));
        Ok(named.collect())
    }
}

/// Removes an object that may be gone already.
pub(crate) fn remove(storage: &dyn Storage, name: &ObjectName) -> Result<(), VaultError> {
    match storage.remove(name) {
        Ok(()) | Err(StorageError::NotFound { .. }) => Ok(()),
        Err(source) => Err(VaultError::Storage { doing: format!("remove `{name}`"), source }),
    }
}
