//! Legal holds: signed objects in every copy, written once, that keep recovery points and log until a signed release.
//!
//! They lie in the vault so that they outlive the catalog. Neither a hold nor its release is ever removed.

use std::collections::BTreeMap;

use lifeboat_base::ids::{HoldId, PointId, StoreName, VaultId};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{StorageContext, VaultError};
use crate::index::Problem;
use crate::layout;
use crate::retire::{remove, tell_mended};
use crate::storage::ObjectName;
use crate::vault::{Vault, put_same};

/// The format of a hold.
pub const HOLD_FORMAT: &str = "lifeboat.hold/v1";
/// The format of a release.
pub const RELEASE_FORMAT: &str = "lifeboat.hold-release/v1";
/// The payload type of a hold's signature.
pub const HOLD_PAYLOAD_TYPE: &str = "application/vnd.lifeboat.hold+json";
/// The payload type of a release's signature.
pub const RELEASE_PAYLOAD_TYPE: &str = "application/vnd.lifeboat.hold-release+json";

const RELEASED: &str = ".released.json";
const PLACED: &str = ".json";

/// What a hold keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "kebab-case")]
pub enum HoldScope {
    /// Everything of the store, what comes later too, and its log.
    Store,
    /// One recovery point.
    Point {
        /// The point.
        point: PointId,
    },
    /// Every point that shows a moment up to this one, and the log.
    Before {
        /// The moment.
        before: Timestamp,
    },
}

impl HoldScope {
    /// Whether it keeps a point.
    pub fn covers(&self, id: &PointId, moment: Timestamp) -> bool {
        match self {
            Self::Store => true,
            Self::Point { point } => point == id,
            Self::Before { before } => moment <= *before,
        }
    }

    /// Whether it keeps the log.
    pub fn covers_log(&self) -> bool {
        !matches!(self, Self::Point { .. })
    }
}

/// One hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// `lifeboat.hold/v1`.
    pub format: String,
    /// Its id, also the name of its file.
    pub id: HoldId,
    /// The vault.
    pub vault: VaultId,
    /// The store.
    pub store: StoreName,
    /// What it keeps.
    #[serde(flatten)]
    pub scope: HoldScope,
    /// Why.
    pub reason: String,
    /// For whom.
    pub holder: String,
    /// Since when.
    pub placed: Timestamp,
}

/// The end of a hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// `lifeboat.hold-release/v1`.
    pub format: String,
    /// The hold.
    pub id: HoldId,
    /// The vault.
    pub vault: VaultId,
    /// Why.
    pub reason: String,
    /// By whom.
    pub by: String,
    /// Since when.
    pub released: Timestamp,
}

/// The holds of a vault, as far as copies tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Holds by id, with their releases.
    pub known: BTreeMap<HoldId, (Hold, Option<Release>)>,
    /// Holds that cannot be read: what they keep is not known.
    pub unreadable: BTreeMap<HoldId, String>,
}

impl Holds {
    /// Takes over what another copy tells: it may read what this one cannot.
    pub fn merge(&mut self, other: Self) {
        for (id, (hold, release)) in other.known {
            self.unreadable.remove(&id);
            let known = self.known.entry(id).or_insert((hold, None));
            known.1 = known.1.take().or(release);
        }
        for (id, why) in other.unreadable {
            if !self.known.contains_key(&id) {
                self.unreadable.insert(id, why);
            }
        }
    }

    /// Holds that were not released.
    pub fn active(&self) -> impl Iterator<Item = &Hold> {
        self.known.values().filter(|(_, release)| release.is_none()).map(|(hold, _)| hold)
    }

    /// The holds that keep a point; one that cannot be read may keep anything.
    pub fn covering<'a>(
        &'a self,
        id: &'a PointId,
        moment: Timestamp,
    ) -> impl Iterator<Item = &'a HoldId> + use<'a> {
        let active = self.active().filter(move |hold| hold.scope.covers(id, moment)).map(|hold| &hold.id);
        active.chain(self.unreadable.keys())
    }

    /// Whether a point is kept.
    pub fn cover(&self, id: &PointId, moment: Timestamp) -> bool {
        self.covering(id, moment).next().is_some()
    }

    /// Whether the log is kept.
    pub fn cover_log(&self) -> bool {
        !self.unreadable.is_empty() || self.active().any(|hold| hold.scope.covers_log())
    }

    /// Whether nothing is kept.
    pub fn keep_nothing(&self) -> bool {
        self.unreadable.is_empty() && self.active().next().is_none()
    }

    /// Whether both keep the same.
    pub(crate) fn keep_as(&self, other: &Self) -> bool {
        self.active().eq(other.active()) && self.unreadable.keys().eq(other.unreadable.keys())
    }
}

/// What the name of an object below `lifeboat/holds/` says: the hold, and whether it is its release.
fn place_of(name: &ObjectName) -> Option<(HoldId, bool)> {
    let file = name.below(layout::HOLDS)?;
    match file.strip_suffix(RELEASED) {
        Some(id) => Some((HoldId::new(id).ok()?, true)),
        None => Some((HoldId::new(file.strip_suffix(PLACED)?).ok()?, false)),
    }
}

fn hold_name(id: &HoldId) -> ObjectName {
    ObjectName::trusted(format!("{}{id}{PLACED}", layout::HOLDS))
}

fn release_name(id: &HoldId) -> ObjectName {
    ObjectName::trusted(format!("{}{id}{RELEASED}", layout::HOLDS))
}

impl Vault {
    /// Places a hold in this copy; the same again changes nothing. The caller has its write lock: no removal is under way that
    /// does not know of it.
    pub fn put_hold(&self, hold: &Hold) -> Result<(), VaultError> {
        self.put_document(&hold_name(&hold.id), HOLD_PAYLOAD_TYPE, hold)
    }

    /// Releases a hold in this copy; the same again changes nothing. The caller has its write lock.
    pub fn put_release(&self, release: &Release) -> Result<(), VaultError> {
        self.put_document(&release_name(&release.id), RELEASE_PAYLOAD_TYPE, release)
    }

    fn put_document(
        &self,
        name: &ObjectName,
        kind: &str,
        document: &impl Serialize,
    ) -> Result<(), VaultError> {
        let payload = serde_json::to_vec(document)
            .map_err(|error| VaultError::Internal(format!("a hold cannot be written: {error}")))?;
        put_same(self.storage.as_ref(), name, &self.secrets.signing.sign(kind, &payload).to_bytes())
    }

    /// The holds of this copy. A release that cannot be read releases nothing.
    pub fn holds(&self) -> Result<Holds, VaultError> {
        Ok(self.read_holds()?.0)
    }

    /// The holds, and what is wrong with their objects.
    pub(crate) fn read_holds(&self) -> Result<(Holds, Vec<Problem>), VaultError> {
        let (mut holds, mut problems) = (Holds::default(), Vec::new());
        let mut releases = Vec::new();
        for listed in self.storage.list(layout::HOLDS).doing(|| "list holds".to_owned())? {
            let name = listed.name;
            let Some((id, released)) = place_of(&name) else {
                problems.push(Problem::new(name, "its name is not that of a hold"));
                continue;
            };
            let bytes = self.storage.get(&name).promised(&name);
            let read = bytes.and_then(|bytes| {
                if released {
                    self.read_release(&name, &id, &bytes).map(|release| releases.push(release))
                } else {
                    let hold = self.read_hold(&name, &id, &bytes)?;
                    holds.known.insert(id.clone(), (hold, None));
                    Ok(())
                }
            });
            match read {
                Ok(()) => {}
                Err(VaultError::Damaged { object, why }) => {
                    if !released {
                        holds.unreadable.insert(id, why.clone());
                    }
                    problems.push(Problem { object, why });
                }
                Err(other) => return Err(other),
            }
        }
        for release in releases {
            if let Some(known) = holds.known.get_mut(&release.id) {
                known.1 = Some(release);
            }
        }
        Ok((holds, problems))
    }

    fn read_hold(&self, name: &ObjectName, id: &HoldId, bytes: &[u8]) -> Result<Hold, VaultError> {
        let hold: Hold = self.read_document(name, HOLD_PAYLOAD_TYPE, bytes)?;
        let right = hold.format == HOLD_FORMAT && hold.id == *id && hold.vault == *self.vault_id();
        if right { Ok(hold) } else { Err(VaultError::damaged(name, "it is another hold than its name says")) }
    }

    fn read_release(&self, name: &ObjectName, id: &HoldId, bytes: &[u8]) -> Result<Release, VaultError> {
        let release: Release = self.read_document(name, RELEASE_PAYLOAD_TYPE, bytes)?;
        let right =
            release.format == RELEASE_FORMAT && release.id == *id && release.vault == *self.vault_id();
        if right {
            Ok(release)
        } else {
            Err(VaultError::damaged(name, "it is another release than its name says"))
        }
    }

    fn read_document<T: DeserializeOwned>(
        &self,
        name: &ObjectName,
        kind: &'static str,
        bytes: &[u8],
    ) -> Result<T, VaultError> {
        let payload =
            self.open_signed(bytes, kind).map_err(|error| VaultError::damaged(name, error.to_string()))?;
        serde_json::from_slice(&payload).map_err(|error| VaultError::damaged(name, error.to_string()))
    }

    /// Brings the holds and releases of this copy to `other` where it lacks them or holds damaged ones; tells of the latter. The
    /// caller has the write lock of `other`.
    pub(crate) fn carry_holds(&self, other: &Self, monitor: &dyn Monitor) -> Result<(), VaultError> {
        let list = |vault: &Self| vault.storage.list(layout::HOLDS).doing(|| "list holds".to_owned());
        let (bad_here, bad_there, there) = (self.read_holds()?.1, other.read_holds()?.1, list(other)?);
        for listed in list(self)? {
            let name = &listed.name;
            let bad = |problems: &[Problem]| problems.iter().position(|problem| problem.object == *name);
            let replaces = bad(&bad_there).and_then(|at| bad_there.get(at));
            let known = replaces.is_none() && there.iter().any(|known| known.name == *name);
            if bad(&bad_here).is_some() || known {
                continue;
            }
            let bytes = self.storage.get(name).promised(name)?;
            if replaces.is_some() {
                remove(other.storage.as_ref(), name)?;
            }
            put_same(other.storage.as_ref(), name, &bytes)?;
            tell_mended(replaces, other, monitor);
        }
        Ok(())
    }

    /// Writes holds and releases that are known from elsewhere where this copy lacks them or holds damaged ones; gives
    /// which. Takes the write lock if there is something to write.
    pub fn mend_holds(&self, known: &Holds) -> Result<Vec<HoldId>, VaultError> {
        let (own, problems) = self.read_holds()?;
        let mut mended = Vec::new();
        let mut lock = None;
        for (id, (hold, release)) in
            known.known.iter().filter(|(_, (hold, _))| hold.vault == *self.vault_id())
        {
            let found = own.known.get(id);
            let lacks_release = release.is_some() && found.is_none_or(|(_, release)| release.is_none());
            if found.is_some() && !lacks_release {
                continue;
            }
            if lock.is_none() {
                lock = Some(self.lock("write a hold back")?);
            }
            for name in [hold_name(id), release_name(id)] {
                if problems.iter().any(|problem| problem.object == name) {
                    remove(self.storage.as_ref(), &name)?;
                }
            }
            self.put_hold(hold)?;
            if let Some(release) = release {
                self.put_release(release)?;
            }
            mended.push(id.clone());
        }
        Ok(mended)
    }
}
