//! The plan: what a record would say, and what would be written again to free what lies between blobs in use.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::ids::PointId;
use lifeboat_base::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{DroppedPoint, Fate, LogFloor, MarkedPack, RETIREMENT_FORMAT, Retired, Retirement};
use super::survey::{Stays, Survey};
use crate::error::{StorageContext, VaultError};
use crate::layout;
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
    /// The present.
    pub now: Timestamp,
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
    /// Packs that something needs in a copy, in the order of the copies.
    pub(crate) used: Vec<BTreeSet<Digest>>,
    /// Bytes of packs that go now.
    pub remove_bytes: u64,
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
        let retired = retired_in(copies)?;
        let points: Vec<DroppedPoint> =
            wanted.points.iter().filter(|point| retired.point(&point.id).is_none()).cloned().collect();
        let drop: BTreeSet<PointId> = points.iter().map(|point| point.id.clone()).collect();
        let stays = Stays::of(copies, &drop, &retired)?;
        let before = options.now.checked_sub(options.grace.max(SNAPSHOT_AGE)).ok();
        let survey = Survey::of(copies, &stays, &retired, before.filter(|_before| options.all_open))?;
        let known: BTreeSet<LogFloor> = retired.floors().collect();
        let higher = |floor: &&LogFloor| {
            let lower =
                known.iter().find(|known| (&known.stream, known.timeline) == (&floor.stream, floor.timeline));
            lower.is_none_or(|known| known.below < floor.below)
        };
        let record = Retirement {
            format: RETIREMENT_FORMAT.to_owned(),
            vault: first.vault_id().clone(),
            seq: retired.seq() + 1,
            at: options.now,
            points,
            snapshots: survey.leftovers.iter().copied().collect(),
            logs: wanted.logs.iter().filter(higher).cloned().collect(),
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
            used: survey.copies.iter().map(|copy| copy.used.iter().copied().collect()).collect(),
            remove_bytes: 0,
        };
        if plan.blocked.is_none() {
            plan.space(&survey, &retired, options);
        }
        Ok(plan)
    }

    fn space(&mut self, survey: &Survey, retired: &Retired, options: &RetireOptions) {
        self.record.spare = survey.wanted_back.iter().copied().collect();
        for (id, fate) in retired.packs().filter(|(id, _)| !survey.wanted_back.contains(*id)) {
            let Fate::Marked { at, bytes } = fate else { continue };
            let age = Duration::try_from(options.now.duration_since(at));
            match age {
                Ok(age) if age >= options.grace && self.record.remove.len() < MAX_PACKS => {
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
            } else if used_bytes * of < known.bytes * share
                && rewritten_bytes + known.bytes <= MAX_REWRITE_BYTES
            {
                rewritten_bytes += known.bytes;
                let offsets = used.into_iter().flat_map(|used| used.keys()).copied().collect();
                self.rewrite.push(Rewrite { pack: *id, bytes: known.bytes, used_bytes, offsets });
            } else {
                self.unused_bytes += known.bytes.saturating_sub(used_bytes);
            }
        }
    }
}

/// What the records of all these copies say together.
pub(super) fn retired_in(copies: &[&Vault]) -> Result<Retired, VaultError> {
    let records = copies.iter().map(|vault| vault.retirements()).collect::<Result<Vec<_>, _>>()?;
    Ok(Retired::of(records.iter().flat_map(|records| &records.good)))
}

impl Vault {
    /// A digest of everything a plan depends on.
    pub(super) fn state(&self) -> Result<Digest, VaultError> {
        let mut hasher = Hasher::new();
        let folders =
            [layout::DATA, layout::INDEX, layout::SNAPSHOTS, layout::POINTS, layout::RETIRED, layout::HOLDS];
        for folder in folders {
            for listed in self.storage.list(folder).doing(|| format!("list `{folder}`"))? {
                hasher.update(listed.name.as_str().as_bytes());
                hasher.update(&listed.size_bytes.to_be_bytes());
            }
        }
        Ok(hasher.finish())
    }
}
