//! The plan: what a record would say, and what would be written again to free what lies between blobs in use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::ids::{PointId, StreamName};
use lifeboat_base::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{DroppedPoint, Fate, LogFloor, MarkedPack, RETIREMENT_FORMAT, Retired, Retirement};
use super::survey::{CopySurvey, Stays, Survey};
use crate::error::{StorageContext, VaultError};
use crate::holds::Holds;
use crate::layout;
use crate::storage::{ObjectName, StorageError};
use crate::vault::Vault;

/// The age at which a snapshot without a point counts as left behind by a capture that died.
pub const SNAPSHOT_AGE: Duration = Duration::from_secs(86_400);
/// A pack of which less than this share is in use is written again: so unused space never exceeds what is in use.
const LEAST_USED: (u64, u64) = (1, 2);
/// The most that is read to be written again in one application; the rest waits for the next.
const MAX_REWRITE_BYTES: u64 = 16 << 30;
/// The most packs one record names; the rest waits for the next.
const MAX_PACKS: usize = 100_000;

/// How packs go.
#[derive(Clone, Copy, Debug)]
pub struct RetireOptions {
    /// What the clock says; only written down.
    pub now: Timestamp,
    /// The present that ages anything: not later than captures bear out.
    pub reckoned: Timestamp,
    /// How long a pack stays marked before it may go, at least one application in any case.
    pub grace: Duration,
    /// Whether every copy of the store is open: only then a snapshot without a point is known to have none.
    pub all_open: bool,
}

/// What may go.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Points.
    pub points: &'a [DroppedPoint],
    /// Log.
    pub logs: &'a [LogFloor],
    /// What is known from elsewhere.
    pub filed: &'a Filed,
    /// What was found damaged in every copy.
    pub bad: &'a BadBlobs,
}

/// Blobs that no copy at hand has whole: their packs, where they lie there, and what is wrong.
pub type BadBlobs = BTreeMap<Digest, (BTreeSet<u32>, String)>;

/// What was filed outside the vault, for what the copies at hand may have lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filed {
    /// Holds; what they cover stays, whether a copy knows of them or not.
    pub holds: Holds,
    /// The highest number of a record: numbers never go back.
    pub seq: u64,
    /// Points that were dropped and that are recorded again if no record names them any more.
    pub points: Vec<DroppedPoint>,
    /// Log that was dropped, likewise.
    pub logs: Vec<LogFloor>,
    /// Records that were damaged everywhere and of which everything is known: they go once what they said is recorded again.
    pub replaced: Vec<ObjectName>,
}

/// A pack that is written again without what nothing needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The pack.
    pub pack: Digest,
    /// Its size.
    pub bytes: u64,
    /// How much of it is in use.
    pub used_bytes: u64,
    /// Where what is in use lies.
    pub offsets: BTreeSet<u32>,
}

/// What would be done. Nothing else is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetirePlan {
    /// The state of each copy it was made for; any change makes it void.
    pub states: Vec<Digest>,
    /// What the record will say, but for packs written again and index files.
    pub record: Retirement,
    /// Packs written again and marked.
    pub rewrite: Vec<Rewrite>,
    /// Packs that wait: size and when they were marked.
    pub waiting: Vec<(Timestamp, u64)>,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes nothing needs in packs that stay, because more than half of them is in use.
    pub unused_bytes: u64,
    /// Why packs are left alone in all copies, if so.
    pub blocked: Option<String>,
    /// Why packs are left alone in a copy, in the order of the copies.
    pub unknown: Vec<Option<String>>,
    /// What was looked at in each copy, in their order.
    pub(crate) needs: Vec<Needs>,
    /// Points that stay and that no copy can give, as far as listings and packs tell, and why.
    pub unresolved: BTreeMap<PointId, String>,
    /// The holds it was made under, and those that were filed.
    pub(crate) holds: (Holds, Holds),
    pub(crate) replaced: Vec<ObjectName>,
    /// Bytes of packs that go now.
    pub remove_bytes: u64,
}

/// What something needs in a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) packs: BTreeSet<Digest>,
    /// The snapshots that were walked or left out on purpose; others are not accounted for.
    pub(crate) snapshots: BTreeSet<Digest>,
}

impl RetirePlan {
    /// Bytes that are marked, to go with a later application.
    pub fn mark_bytes(&self) -> u64 {
        let marked = self.record.mark.iter().map(|pack| pack.bytes);
        marked.chain(self.rewrite.iter().map(|rewrite| rewrite.bytes)).sum()
    }

    /// Plans for the open copies of one vault.
    pub fn new(copies: &[&Vault], wanted: &Wanted<'_>, options: &RetireOptions) -> Result<Self, VaultError> {
        let Some(first) = copies.first() else {
            return Err(VaultError::Refused("no copy is open".to_owned()));
        };
        let states = copies.iter().map(|vault| vault.state()).collect::<Result<Vec<_>, _>>()?;
        let holds = holds_in(copies, &wanted.filed.holds)?;
        let retired = retired_in(copies)?.under(holds.clone());
        let mut drop: BTreeSet<PointId> = BTreeSet::new();
        let fresh = |point: &&DroppedPoint| {
            retired.point(&point.id).is_none()
                && !holds.cover(&point.id, point.moment)
                && drop.insert(point.id.clone())
        };
        let points: Vec<DroppedPoint> =
            wanted.points.iter().chain(&wanted.filed.points).filter(fresh).cloned().collect();
        let again = wanted
            .filed
            .points
            .iter()
            .all(|point| drop.contains(&point.id) || retired.point(&point.id).is_some());
        let stays = Stays::of(copies, &drop, &retired)?;
        let before = options.reckoned.checked_sub(options.grace.max(SNAPSHOT_AGE)).ok();
        let before = before.filter(|_before| options.all_open);
        let survey = Survey::of(copies, &stays, (&retired, wanted.bad), before)?;
        let record = Retirement {
            format: RETIREMENT_FORMAT.to_owned(),
            vault: first.vault_id().clone(),
            seq: retired.seq().max(wanted.filed.seq) + 1,
            at: options.now,
            points,
            snapshots: survey.leftovers.iter().copied().collect(),
            logs: new_floors(&retired, wanted),
            mark: Vec::new(),
            spare: Vec::new(),
            remove: Vec::new(),
            indexes: Vec::new(),
        };
        let mut plan = Self {
            states,
            record,
            rewrite: Vec::new(),
            waiting: Vec::new(),
            used_bytes: 0,
            unused_bytes: 0,
            blocked: survey.blocked.clone(),
            unknown: survey.copies.iter().map(|copy| copy.unknown.clone()).collect(),
            needs: survey.copies.iter().map(CopySurvey::needs).collect(),
            unresolved: survey.unresolved.clone(),
            holds: (holds, wanted.filed.holds.clone()),
            replaced: if again { wanted.filed.replaced.clone() } else { Vec::new() },
            remove_bytes: 0,
        };
        if plan.blocked.is_none() {
            plan.space(copies, &survey, (&retired, wanted.bad), options)?;
        }
        Ok(plan)
    }

    fn space(
        &mut self,
        copies: &[&Vault],
        survey: &Survey,
        (retired, bad): (&Retired, &BadBlobs),
        options: &RetireOptions,
    ) -> Result<(), VaultError> {
        self.record.spare = survey.wanted_back.iter().copied().collect();
        for (id, fate) in retired.packs().filter(|(id, _)| !survey.wanted_back.contains(*id)) {
            let Fate::Marked { at, bytes } = fate else { continue };
            let age = Duration::try_from(options.reckoned.duration_since(at)).unwrap_or_default();
            match Duration::try_from(options.now.duration_since(at)) {
                Ok(_past) if age >= options.grace && self.record.remove.len() < MAX_PACKS => {
                    self.record.remove.push(*id);
                    self.remove_bytes += bytes;
                }
                // Marked under a clock that was ahead: it would wait for ever.
                Err(_ahead) => self.record.mark.push(MarkedPack { id: *id, bytes }),
                Ok(_young) => self.waiting.push((at, bytes)),
            }
        }
        let mut rewritten_bytes = 0;
        for (id, known) in survey.packs.iter().filter(|(id, _)| !retired.is_going(id)) {
            let used = survey.used.get(id);
            let used_bytes: u64 =
                used.into_iter().flat_map(|used| used.values()).map(|bytes| u64::from(*bytes)).sum();
            self.used_bytes += used_bytes;
            // What was stored since the newest point was begun belongs to a capture that died and will be gone on with.
            let settled =
                survey.newest.is_some_and(|newest| known.written.is_none_or(|written| written < newest));
            let (share, of) = LEAST_USED;
            let full = self.record.mark.len() + self.rewrite.len() >= MAX_PACKS;
            if !settled || full {
                self.unused_bytes += known.bytes.saturating_sub(used_bytes);
            } else if used_bytes == 0 {
                self.record.mark.push(MarkedPack { id: *id, bytes: known.bytes });
            } else if !bad.contains_key(id)
                && used_bytes * of < known.bytes * share
                && rewritten_bytes + known.bytes <= MAX_REWRITE_BYTES
                && !locked(copies, id)?
            {
                rewritten_bytes += known.bytes;
                let offsets = used.into_iter().flat_map(|used| used.keys()).copied().collect();
                self.rewrite.push(Rewrite { pack: *id, bytes: known.bytes, used_bytes, offsets });
            } else {
                self.unused_bytes += known.bytes.saturating_sub(used_bytes);
            }
        }
        Ok(())
    }
}

/// Whether a copy refuses to delete a pack now: written again, it would lie there twice until the end of its lock.
fn locked(copies: &[&Vault], pack: &Digest) -> Result<bool, VaultError> {
    let name = layout::pack(pack);
    for vault in copies {
        let Some(locks) = vault.storage.object_locks() else { continue };
        match locks.refusal(&name) {
            Ok(None) | Err(StorageError::NotFound { .. }) => {}
            Ok(Some(_why)) => return Ok(true),
            Err(source) => {
                return Err(VaultError::Storage { doing: format!("look at the lock of `{name}`"), source });
            }
        }
    }
    Ok(false)
}

/// Log that goes and that no record names; none while the log is held.
fn new_floors(retired: &Retired, wanted: &Wanted<'_>) -> Vec<LogFloor> {
    let mut floors: BTreeMap<(&StreamName, u32), u64> = BTreeMap::new();
    if retired.holds().cover_log() {
        return Vec::new();
    }
    for floor in wanted.logs.iter().chain(&wanted.filed.logs) {
        let below = floors.entry((&floor.stream, floor.timeline)).or_default();
        *below = floor.below.max(*below);
    }
    let known: BTreeMap<(StreamName, u32), u64> =
        retired.floors().map(|floor| ((floor.stream, floor.timeline), floor.below)).collect();
    let floors = floors.into_iter().map(|((stream, timeline), below)| LogFloor {
        stream: stream.clone(),
        timeline,
        below,
    });
    floors
        .filter(|floor| {
            known.get(&(floor.stream.clone(), floor.timeline)).is_none_or(|known| *known < floor.below)
        })
        .collect()
}

/// The holds of all these copies, and those that were filed: whichever knows of a hold, it is in force.
pub(super) fn holds_in(copies: &[&Vault], filed: &Holds) -> Result<Holds, VaultError> {
    let mut holds = filed.clone();
    for vault in copies {
        holds.merge(vault.holds()?);
    }
    Ok(holds)
}

/// What the records of all these copies say together.
pub(super) fn retired_in(copies: &[&Vault]) -> Result<Retired, VaultError> {
    let records = copies.iter().map(|vault| vault.retirements()).collect::<Result<Vec<_>, _>>()?;
    Ok(Retired::of(records.iter().flat_map(|records| &records.good)))
}

impl Vault {
    /// A digest of everything a plan depends on, of a copy that shows what it is.
    pub(super) fn state(&self) -> Result<Digest, VaultError> {
        self.shows_itself()?;
        let mut hasher = Hasher::new();
        let folders = [
            layout::KEYS,
            layout::DATA,
            layout::INDEX,
            layout::SNAPSHOTS,
            layout::POINTS,
            layout::RETIRED,
            layout::HOLDS,
        ];
        for folder in folders {
            for listed in self.storage.list(folder).doing(|| format!("list `{folder}`"))? {
                hasher.update(listed.name.as_str().as_bytes());
                hasher.update(&listed.size_bytes.to_be_bytes());
            }
        }
        Ok(hasher.finish())
    }
}
