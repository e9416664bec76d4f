//! The end of a vault: the keys that open it are destroyed, and with them everything it holds.
//!
//! A signed notice stands first, so that a copy whose keys are gone says why, and nobody takes it for damaged or begins a new
//! vault over what is left. Then the envelope goes, whose wrapped keys open the vault for its recipients, and the key files.
//! What was stored stays as it is, and nobody can read it. A kill on the way is completed from the notice alone.

use lifeboat_base::ids::{StoreName, VaultId};
use lifeboat_base::time::Timestamp;
use lifeboat_keys::DsseEnvelope;
use serde::{Deserialize, Serialize};

use crate::error::{StorageContext, VaultError};
use crate::layout;
use crate::retire::remove;
use crate::storage::{ObjectName, Storage, StorageError};
use crate::vault::{Vault, put_same};

/// The format of a notice.
pub const SHREDDING_FORMAT: &str = "lifeboat.shredding/v1";
/// The payload type of its signature.
pub const SHREDDING_PAYLOAD_TYPE: &str = "application/vnd.lifeboat.shredding+json";

/// `lifeboat/shredded.json`: that the keys of this vault were destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shredding {
    /// `lifeboat.shredding/v1`.
    pub format: String,
    /// The vault.
    pub vault: VaultId,
    /// The store it held.
    pub store: StoreName,
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// By whom.
    pub by: String,
    /// The key it is signed with: the envelope that named it is gone.
    pub public_key: String,
}

impl Vault {
    /// Destroys the keys of this copy. The caller has its write lock, which also swept what writers that died left of keys. The
    /// same again completes it.
    pub fn shred(&self, notice: &Shredding) -> Result<(), VaultError> {
        let payload = serde_json::to_vec(notice)
            .map_err(|error| VaultError::Internal(format!("a notice cannot be written: {error}")))?;
        let bytes = self.secrets.signing.sign(SHREDDING_PAYLOAD_TYPE, &payload).to_bytes();
        self.shows_itself()?;
        if let Some(why) = Self::keys_locked(self.storage.as_ref())? {
            return Err(VaultError::Refused(format!("{why} at {}", self.storage.location())));
        }
        put_same(self.storage.as_ref(), &layout::shredded(), &bytes)?;
        Self::finish_shredding(self.storage.as_ref())
    }

    /// The notice of a vault whose keys were destroyed, or were to be when a run was killed. It vouches for itself alone: whoever
    /// can write here can destroy keys, too.
    pub fn shredded(storage: &dyn Storage) -> Result<Option<Shredding>, VaultError> {
        let name = layout::shredded();
        let bytes = match storage.get(&name) {
            Ok(bytes) => bytes,
            Err(StorageError::NotFound { .. } | StorageError::Missing { .. }) => return Ok(None),
            Err(source) => return Err(VaultError::Storage { doing: format!("read `{name}`"), source }),
        };
        let damaged = |why: String| VaultError::damaged(&name, why);
        let envelope = DsseEnvelope::from_exact_bytes(&bytes).map_err(|error| damaged(error.to_string()))?;
        let notice: Shredding = serde_json::from_slice(envelope.unverified_payload())
            .map_err(|error| damaged(error.to_string()))?;
        let key = notice.public_key.parse().map_err(|_error| damaged("it names no key".to_owned()))?;
        envelope.verify(&[key], SHREDDING_PAYLOAD_TYPE).map_err(|error| damaged(error.to_string()))?;
        if notice.format != SHREDDING_FORMAT {
            return Err(damaged(format!("format `{}` is not known", notice.format)));
        }
        Ok(Some(notice))
    }

    /// Removes what is left of the keys of a vault that has a notice; `Refused` without one. The caller has the write lock.
    pub fn finish_shredding(storage: &dyn Storage) -> Result<(), VaultError> {
        if Self::shredded(storage)?.is_none() {
            return Err(VaultError::Refused(format!("nobody destroyed the keys at {}", storage.location())));
        }
        for name in Self::keys_left(storage)? {
            remove(storage, &name)?;
        }
        Ok(())
    }

    /// Which key a place refuses to delete and why, if there is one: what is half destroyed serves nobody.
    pub fn keys_locked(storage: &dyn Storage) -> Result<Option<String>, VaultError> {
        let Some(locks) = storage.object_locks() else { return Ok(None) };
        for name in Self::keys_left(storage)? {
            if let Some(why) = locks.refusal(&name).doing(|| format!("look at the lock of `{name}`"))? {
                return Ok(Some(format!("`{name}` is {why}")));
            }
        }
        Ok(None)
    }

    /// The envelope and the key files at a place, from a fresh look.
    pub fn keys_left(storage: &dyn Storage) -> Result<Vec<ObjectName>, VaultError> {
        let envelope = layout::envelope();
        let there = storage.stat(&envelope).doing(|| format!("look for `{envelope}`"))?;
        let mut objects: Vec<ObjectName> = there.map(|_size| envelope).into_iter().collect();
        let keys = storage.list(layout::KEYS).doing(|| "list keys".to_owned())?;
        objects.extend(keys.into_iter().map(|listed| listed.name));
        Ok(objects)
    }
}
