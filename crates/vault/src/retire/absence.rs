//! Proof that what was retired is nowhere in a copy, from one fresh listing and by code that removes nothing.

use std::collections::BTreeMap;

use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{Fate, Retired};
use crate::error::{StorageContext, VaultError};
use crate::index::read_raw;
use crate::layout;
use crate::logs::piece_of;
use crate::storage::{Listed, ObjectName};
use crate::vault::Vault;

/// The most objects named; the count tells of the rest.
const MAX_NAMED: usize = 100;

/// Something that was retired and is still there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The object.
    pub object: ObjectName,
    /// What it is to the records.
    pub why: String,
    /// Why it may not be deleted yet, of what a lock or a hold of the place keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<String>,
    /// When that ends, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What one look at a copy showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// Points that were looked for.
    pub points: u64,
    /// Packs, snapshots and index files that were looked for.
    pub objects: u64,
    /// Objects the copy lists.
    pub listed: u64,
    /// A digest of that listing: names and sizes.
    pub listing: Digest,
    /// How many retired objects are still there.
    pub left_count: u64,
    /// The first of them.
    pub left: Vec<Left>,
    /// Bytes of packs that are marked and wait, by when they were marked.
    pub waiting: BTreeMap<Timestamp, u64>,
    /// How many retired objects are still there because a lock or a hold of the place keeps them.
    #[serde(default)]
    pub locked_count: u64,
    /// The first of them, each with its date.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locked: Vec<Left>,
    /// When the last of them may go; nothing if there are none, or if that is not known of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Timestamp>,
}

impl Absence {
    /// Whether nothing is left but what waits and what a lock keeps.
    pub fn holds(&self) -> bool {
        self.left_count == 0
    }
}

impl Vault {
    /// Looks whether anything that `retired` names and no hold keeps is still there: manifest, snapshot, index file or entry,
    /// pack, piece of log, or what a write that died left of one. What a lock keeps is told apart, with its date.
    ///
    /// An error if the copy does not show what it is and every record of `retired`, before and after: what cannot be looked
    /// at is not absent.
    pub fn absence(&self, retired: &Retired) -> Result<Absence, VaultError> {
        self.shows_records(retired)?;
        let absence = self.look(retired)?;
        self.shows_records(retired)?;
        Ok(absence)
    }

    /// That this is the vault and that it holds every record, whole.
    pub(super) fn shows_records(&self, retired: &Retired) -> Result<(), VaultError> {
        self.shows_itself()?;
        let good = self.retirements()?.good;
        match retired.names().iter().find(|name| !good.contains_key(*name)) {
            None => Ok(()),
            Some(name) => {
                Err(VaultError::damaged(name, "it is not there or says nothing, and tells what is gone"))
            }
        }
    }

    fn look(&self, retired: &Retired) -> Result<Absence, VaultError> {
        let listing = self.storage.list("").doing(|| "list the vault".to_owned())?;
        let raw = read_raw(self.storage.as_ref(), &self.key)?;
        let mut hasher = Hasher::new();
        let mut left = Vec::new();
        let mut waiting: BTreeMap<Timestamp, u64> = BTreeMap::new();
        for Listed { name, size_bytes } in &listing {
            hasher.update(name.as_str().as_bytes());
            hasher.update(&size_bytes.to_be_bytes());
            if let Some(why) = still_there(retired, name) {
                left.push(Left::new(name.clone(), why));
            }
            let pack = layout::content_digest(name).filter(|_digest| name.below(layout::DATA).is_some());
            if let Some(Fate::Marked { at, .. }) = pack.and_then(|pack| retired.fate(&pack)) {
                *waiting.entry(at).or_default() += size_bytes;
            }
        }
        for (id, (_pack, index)) in &raw.packs {
            if retired.fate(id) == Some(Fate::Removed) {
                let why = format!("it names the removed pack {id}");
                left.push(Left::new(layout::index(index), why));
            }
        }
        let rollups = self
            .logs()
            .dropped_rollups(retired)
            .map_err(|error| VaultError::Inconsistent(format!("the logs cannot be listed: {error}")))?;
        let why = "a roll-up of log that was dropped";
        left.extend(rollups.into_iter().map(|object| Left::new(object, why)));
        let removed = retired.packs().filter(|(_, fate)| *fate == Fate::Removed).count();
        let (mut locked, mut left) = self.sort_out_locked(left)?;
        let ends: Option<Vec<Timestamp>> = locked.iter().map(|one| one.until).collect();
        let (locked_count, count) = (locked.len() as u64, left.len() as u64);
        locked.truncate(MAX_NAMED);
        left.truncate(MAX_NAMED);
        Ok(Absence {
            points: retired.points().len() as u64,
            objects: (removed + retired.snapshots().len() + retired.indexes().len()) as u64,
            listed: listing.len() as u64,
            listing: hasher.finish(),
            left_count: count,
            left,
            waiting,
            locked_count,
            locked,
            locked_until: ends.and_then(|ends| ends.into_iter().max()),
        })
    }

    /// What is still there: first what the place refuses to delete, then the rest.
    fn sort_out_locked(&self, found: Vec<Left>) -> Result<(Vec<Left>, Vec<Left>), VaultError> {
        let Some(locks) = self.storage.object_locks() else { return Ok((Vec::new(), found)) };
        let (mut locked, mut left) = (Vec::new(), Vec::new());
        for one in found {
            let doing = || format!("look at the lock of `{}`", one.object);
            match locks.refusal(&one.object).doing(doing)? {
                None => left.push(one),
                Some(why) => {
                    let lock = locks.lock_of(&one.object).doing(doing)?;
                    let until = lock.until().filter(|_until| !lock.held);
                    locked.push(Left { locked: Some(why), until, ..one });
                }
            }
        }
        Ok((locked, left))
    }
}

impl Left {
    fn new(object: ObjectName, why: impl Into<String>) -> Self {
        Self { object, why: why.into(), locked: None, until: None }
    }
}

fn still_there(retired: &Retired, name: &ObjectName) -> Option<&'static str> {
    if layout::point_of(name).is_some_and(|id| retired.takes(&id)) {
        return Some("the manifest of a dropped point");
    }
    if let Some(digest) = layout::content_digest(name) {
        let pack = name.below(layout::DATA).is_some();
        return match () {
            () if pack && retired.fate(&digest) == Some(Fate::Removed) => Some("a removed pack"),
            () if name.below(layout::SNAPSHOTS).is_some() && retired.takes_snapshot(&digest) => {
                Some("the snapshot of a dropped point")
            }
            () if name.below(layout::INDEX).is_some() && retired.indexes().contains_key(&digest) => {
                Some("an index file that was replaced")
            }
            () => None,
        };
    }
    let (stream, piece) = piece_of(name)?;
    retired.is_below_floor(&stream, &piece).then_some("log that was dropped")
}
