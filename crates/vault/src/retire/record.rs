//! Retirement records: what was taken out of a vault for good, signed, written once, in every copy, before it goes.
//!
//! A record is what keeps a copy that was away from bringing back what retention dropped. Cost: one file for each run
//! that took something out, about 250 bytes for every point and 130 for every pack; all of them are read whenever a
//! vault is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifeboat_base::digest::Digest;
use lifeboat_base::ids::{PointId, StreamName, VaultId};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::apply::remove;
use crate::error::{StorageContext, VaultError};
use crate::holds::Holds;
use crate::index::Problem;
use crate::layout;
use crate::logs::LogName;
use crate::storage::ObjectName;
use crate::vault::{Vault, put_same};

/// The format of a record.
pub const RETIREMENT_FORMAT: &str = "lifeboat.retirement/v1";
/// The payload type of a record's signature.
pub const RETIREMENT_PAYLOAD_TYPE: &str = "application/vnd.lifeboat.retirement+json";

/// Hexadecimal digits of the payload's SHA-256 that a record's name ends with.
const NAME_DIGITS: usize = 16;

/// One recovery point that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedPoint {
    /// The point.
    pub id: PointId,
    /// The moment it showed.
    pub moment: Timestamp,
    /// Its snapshot.
    pub snapshot: Digest,
    /// Since when nothing kept it.
    pub since: Timestamp,
    /// What kept it last.
    pub because: String,
}

/// A pack that nothing kept needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedPack {
    /// The pack.
    pub id: Digest,
    /// Its size.
    pub bytes: u64,
}

/// An index file and the one that names what is left of its packs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedIndex {
    /// The index file that goes.
    pub old: Digest,
    /// What takes its place; nothing if none of its packs is left.
    pub new: Option<Digest>,
}

/// How much of a log was dropped: everything on the timeline that ends at or before the offset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogFloor {
    /// The stream.
    pub stream: StreamName,
    /// The timeline.
    pub timeline: u32,
    /// The offset.
    pub below: u64,
}

/// One record. Later ones speak for what they name again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retirement {
    /// `lifeboat.retirement/v1`.
    pub format: String,
    /// The vault.
    pub vault: VaultId,
    /// One more than the highest that was known when it was made; the order does not rest on clocks.
    pub seq: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Points dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<DroppedPoint>,
    /// Snapshots that never became a point and go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Digest>,
    /// Log dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogFloor>,
    /// Packs that go with a later record, unless one finds that something needs them: no writer relies on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mark: Vec<MarkedPack>,
    /// Packs that were marked or removed and are needed after all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spare: Vec<Digest>,
    /// Packs that go now; an earlier record marked them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Digest>,
    /// Index files that named them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<ReplacedIndex>,
}

impl Retirement {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
            && self.snapshots.is_empty()
            && self.logs.is_empty()
            && self.mark.is_empty()
            && self.spare.is_empty()
            && self.remove.is_empty()
            && self.indexes.is_empty()
    }
}

/// What becomes of a pack that records name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes with a later record; marked then, so large.
    Marked {
        /// When it was marked.
        at: Timestamp,
        /// Its size.
        bytes: u64,
    },
    /// It is needed after all.
    Spared,
    /// It is to be gone.
    Removed,
}

/// A point that was dropped, and the record that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The record.
    pub record: ObjectName,
    /// When it was made.
    pub at: Timestamp,
    /// The point.
    pub point: DroppedPoint,
}

/// What all records of a vault say together, and what legal holds keep of it all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    holds: Holds,
    /// Snapshots of points that are recorded and held.
    held: BTreeSet<Digest>,
    seq: u64,
    names: BTreeSet<ObjectName>,
    points: BTreeMap<PointId, Gone>,
    snapshots: BTreeSet<Digest>,
    packs: BTreeMap<Digest, (u64, Fate)>,
    indexes: BTreeMap<Digest, Option<Digest>>,
    floors: BTreeMap<(StreamName, u32), u64>,
}

impl Retired {
    /// From records of any number of copies, in any order.
    pub fn of<'a>(records: impl IntoIterator<Item = (&'a ObjectName, &'a Arc<Retirement>)>) -> Self {
        let mut sorted: Vec<_> = records.into_iter().collect();
        sorted.sort_by_key(|(name, record)| (record.seq, *name));
        let mut all = Self::default();
        for (name, record) in sorted {
            if all.names.insert(name.clone()) {
                all.add(name, record);
            }
        }
        all
    }

    /// Takes a record over; of two with one number, made by machines that did not see each other, removal prevails.
    fn add(&mut self, name: &ObjectName, record: &Retirement) {
        self.seq = self.seq.max(record.seq);
        for point in &record.points {
            self.snapshots.insert(point.snapshot);
            let gone = || Gone { record: name.clone(), at: record.at, point: point.clone() };
            self.points.entry(point.id.clone()).or_insert_with(gone);
        }
        self.snapshots.extend(&record.snapshots);
        for LogFloor { stream, timeline, below } in &record.logs {
            let floor = self.floors.entry((stream.clone(), *timeline)).or_default();
            *floor = (*below).max(*floor);
        }
        for MarkedPack { id, bytes } in &record.mark {
            self.packs.insert(*id, (record.seq, Fate::Marked { at: record.at, bytes: *bytes }));
        }
        self.packs.extend(record.remove.iter().map(|id| (*id, (record.seq, Fate::Removed))));
        for id in &record.spare {
            if self.packs.get(id).is_none_or(|(seq, _fate)| *seq < record.seq) {
                self.packs.insert(*id, (record.seq, Fate::Spared));
            }
        }
        self.indexes.extend(record.indexes.iter().map(|replaced| (replaced.old, replaced.new)));
    }

    /// Under these holds: what they cover goes nowhere, whatever a record says. Adds to holds that were given before.
    #[must_use]
    pub fn under(mut self, holds: Holds) -> Self {
        self.holds.merge(holds);
        let held = self.points.iter().filter(|(id, gone)| self.holds.cover(id, gone.point.moment));
        self.held = held.map(|(_, gone)| gone.point.snapshot).collect();
        self
    }

    /// What is held.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Whether a point is to be nowhere: recorded, and not held.
    pub fn takes(&self, id: &PointId) -> bool {
        self.points.get(id).is_some_and(|gone| !self.holds.cover(id, gone.point.moment))
    }

    /// Whether a snapshot is to be nowhere.
    pub fn takes_snapshot(&self, snapshot: &Digest) -> bool {
        self.snapshots.contains(snapshot) && !self.held.contains(snapshot)
    }

    /// The number of the newest record; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The records themselves.
    pub fn names(&self) -> &BTreeSet<ObjectName> {
        &self.names
    }

    /// When a point was dropped, and why.
    pub fn point(&self, id: &PointId) -> Option<&Gone> {
        self.points.get(id)
    }

    /// Every point that was dropped.
    pub fn points(&self) -> &BTreeMap<PointId, Gone> {
        &self.points
    }

    /// Every snapshot that a record names.
    pub fn snapshots(&self) -> &BTreeSet<Digest> {
        &self.snapshots
    }

    /// What becomes of a pack, if records name it.
    pub fn fate(&self, pack: &Digest) -> Option<Fate> {
        self.packs.get(pack).map(|(_seq, fate)| *fate)
    }

    /// Every pack that records name.
    pub fn packs(&self) -> impl Iterator<Item = (&Digest, Fate)> {
        self.packs.iter().map(|(id, (_seq, fate))| (id, *fate))
    }

    /// Whether no writer may rely on a pack.
    pub(crate) fn is_going(&self, pack: &Digest) -> bool {
        matches!(self.fate(pack), Some(Fate::Marked { .. } | Fate::Removed))
    }

    /// Index files that were replaced, and by what.
    pub fn indexes(&self) -> &BTreeMap<Digest, Option<Digest>> {
        &self.indexes
    }

    /// Whether a piece of log is to be nowhere: dropped, and the log is not held.
    pub fn is_below_floor(&self, stream: &StreamName, name: &LogName) -> bool {
        let last = name.last();
        !self.holds.cover_log()
            && self.floors.get(&(stream.clone(), last.timeline)).is_some_and(|floor| last.offset <= *floor)
    }

    /// How much of each stream was dropped.
    pub fn floors(&self) -> impl Iterator<Item = LogFloor> {
        self.floors.iter().map(|((stream, timeline), below)| LogFloor {
            stream: stream.clone(),
            timeline: *timeline,
            below: *below,
        })
    }
}

/// The records of one copy.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) good: BTreeMap<ObjectName, Arc<Retirement>>,
    pub(crate) damaged: Vec<Problem>,
}

impl Vault {
    /// What the records of this copy say, under the holds of this copy; a damaged record says nothing, and a check names it.
    pub fn retired(&self) -> Result<Retired, VaultError> {
        Ok(Retired::of(&self.retirements()?.good).under(self.holds()?))
    }

    /// Records that cannot be read here.
    pub fn damaged_records(&self) -> Result<Vec<ObjectName>, VaultError> {
        Ok(self.retirements()?.damaged.into_iter().map(|problem| problem.object).collect())
    }

    pub(crate) fn retirements(&self) -> Result<Records, VaultError> {
        let mut records = Records::default();
        for listed in self.storage.list(layout::RETIRED).doing(|| "list what was retired".to_owned())? {
            let name = listed.name;
            let read = self.storage.get(&name).promised(&name);
            match read.and_then(|bytes| self.read_retirement(&name, &bytes)) {
                Ok(record) => drop(records.good.insert(name, record)),
                Err(VaultError::Damaged { object, why }) => records.damaged.push(Problem { object, why }),
                Err(other) => return Err(other),
            }
        }
        Ok(records)
    }

    /// Verifies the bytes of one record, once in a process.
    pub(crate) fn read_retirement(
        &self,
        name: &ObjectName,
        bytes: &[u8],
    ) -> Result<Arc<Retirement>, VaultError> {
        let content = Digest::of(bytes);
        if let Some(record) = self.known.retirement(content, name) {
            return Ok(record);
        }
        let record = Arc::new(self.parse_retirement(name, bytes)?);
        self.known.add_retirement(content, name, &record);
        Ok(record)
    }

    fn parse_retirement(&self, name: &ObjectName, bytes: &[u8]) -> Result<Retirement, VaultError> {
        let damaged = |why: String| VaultError::damaged(name, why);
        let payload =
            self.open_signed(bytes, RETIREMENT_PAYLOAD_TYPE).map_err(|error| damaged(error.to_string()))?;
        let record: Retirement =
            serde_json::from_slice(&payload).map_err(|error| damaged(error.to_string()))?;
        if record.format != RETIREMENT_FORMAT {
            return Err(damaged(format!("format `{}` is not known", record.format)));
        }
        if record.vault != *self.vault_id() || record_name(record.seq, &payload) != *name {
            return Err(damaged("it is another record than its name says".to_owned()));
        }
        Ok(record)
    }

    /// The signed bytes of a record and the name they belong under.
    pub(crate) fn sign_retirement(&self, record: &Retirement) -> Result<(ObjectName, Vec<u8>), VaultError> {
        let payload = serde_json::to_vec(record)
            .map_err(|error| VaultError::Internal(format!("a record cannot be written: {error}")))?;
        let name = record_name(record.seq, &payload);
        Ok((name, self.secrets.signing.sign(RETIREMENT_PAYLOAD_TYPE, &payload).to_bytes()))
    }

    /// Brings the records of this copy to `other` where it lacks them or holds damaged ones; tells of the latter. The caller has
    /// the write lock of `other`.
    pub(crate) fn carry_retirements(&self, other: &Self, monitor: &dyn Monitor) -> Result<(), VaultError> {
        let (here, there) = (self.retirements()?, other.retirements()?);
        for name in here.good.keys().filter(|name| !there.good.contains_key(*name)) {
            let bytes = self.storage.get(name).promised(name)?;
            self.read_retirement(name, &bytes)?;
            let damaged = there.damaged.iter().find(|problem| problem.object == *name);
            if damaged.is_some() {
                remove(other.storage.as_ref(), name)?;
            }
            put_same(other.storage.as_ref(), name, &bytes)?;
            tell_mended(damaged, other, monitor);
        }
        Ok(())
    }
}

/// Tells that an object which was damaged in a copy was put back there from another one.
pub(crate) fn tell_mended(damaged: Option<&Problem>, copy: &Vault, monitor: &dyn Monitor) {
    let Some(Problem { object, why }) = damaged else { return };
    let message = format!("{object} at {} was damaged ({why}) and is whole again", copy.storage.location());
    monitor.finding(Finding::new("object-mended", object.to_string(), message));
}

fn record_name(seq: u64, payload: &[u8]) -> ObjectName {
    let digest = Digest::of(payload).to_string();
    let tail = digest.get(..NAME_DIGITS).unwrap_or(&digest);
    ObjectName::trusted(format!("{}{seq:010}-{tail}.json", layout::RETIRED))
}
