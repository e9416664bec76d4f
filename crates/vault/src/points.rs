//! Recovery points: signed manifests, written once and last, read back without trusting anything unsigned.

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::digest::Digest;
use lifeboat_base::ids::{CopyName, PointId, StoreName, VaultId};
use lifeboat_base::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{StorageContext, VaultError};
use crate::layout;
use crate::storage::ObjectName;
use crate::vault::{Vault, put_same};

/// The format of a manifest.
pub const POINT_FORMAT: &str = "lifeboat.recovery-point/v1";
/// The payload type of a manifest's signature.
pub const POINT_PAYLOAD_TYPE: &str = "application/vnd.lifeboat.recovery-point+json";

/// The name of a snapshot: the SHA-256 of its sealed bytes, which is what stock tools call it too.
pub type SnapshotId = Digest;

/// Where the evidence chain stood, so that a replayed older chain is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceHead {
    /// The number of the last record.
    pub seq: u64,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// What a recovery point is: the snapshot that holds it and what a restore must reproduce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointManifest {
    /// `lifeboat.recovery-point/v1`.
    pub format: String,
    /// The point, also the name of its file.
    pub id: PointId,
    /// The store.
    pub store: StoreName,
    /// The kind of the store, a word of the policy.
    pub kind: String,
    /// The vault.
    pub vault: VaultId,
    /// The policy it was taken under.
    pub policy_hash: Digest,
    /// The snapshot that holds it.
    pub snapshot: SnapshotId,
    /// The point before it, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<PointId>,
    /// When the capture started.
    pub started: Timestamp,
    /// When the snapshot was complete.
    pub ended: Timestamp,
    /// What the adapter knew at the end.
    pub facts: CaptureFacts,
    /// Bytes of content that no earlier point had.
    pub new_bytes: u64,
    /// Bytes added to the vault.
    pub stored_bytes: u64,
    /// The copies it is meant to be in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<CopyName>,
    /// The key that signed it.
    pub key_id: String,
    /// The program and its version.
    pub tool: String,
    /// Where the evidence chain stood when the point was sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_head: Option<EvidenceHead>,
    /// The key of that chain: another installation has another chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_key: Option<String>,
}

/// One manifest of a vault, good or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointEntry {
    /// Authentic and of this vault.
    Good(Box<PointManifest>),
    /// Present but not to be trusted.
    Damaged {
        /// The point its file name tells.
        id: Option<PointId>,
        /// Its file.
        object: ObjectName,
        /// What is wrong.
        why: String,
    },
}

impl PointEntry {
    /// The point's id, as far as it is known.
    pub fn id(&self) -> Option<&PointId> {
        match self {
            Self::Good(manifest) => Some(&manifest.id),
            Self::Damaged { id, .. } => id.as_ref(),
        }
    }

    /// The manifest, if it is good.
    pub fn manifest(&self) -> Option<&PointManifest> {
        match self {
            Self::Good(manifest) => Some(manifest),
            Self::Damaged { .. } => None,
        }
    }
}

impl Vault {
    /// Signs and stores a manifest: the point exists from here on. The last write of a capture; repeating it with
    /// the same manifest changes nothing, another manifest under the same id is refused, and so is one whose snapshot
    /// retention took for a leftover meanwhile. Takes the write lock.
    pub fn seal_point(&self, manifest: &PointManifest) -> Result<(), VaultError> {
        let public = self.secrets.signing.public();
        if manifest.format != POINT_FORMAT
            || manifest.vault != *self.vault_id()
            || manifest.store != *self.store()
            || manifest.key_id != public.key_id()
        {
            return Err(VaultError::Refused(format!(
                "the manifest of {} is not one of this vault",
                manifest.id
            )));
        }
        let _lock = self.storage.lock().doing(|| "seal a recovery point".to_owned())?;
        let retired = self.retired()?;
        if retired.point(&manifest.id).is_some() || retired.snapshots().contains(&manifest.snapshot) {
            return Err(VaultError::Refused(format!("{} was dropped before it was sealed", manifest.id)));
        }
        let snapshot = layout::snapshot(&manifest.snapshot);
        let found = self.storage.stat(&snapshot).doing(|| format!("look for `{snapshot}`"))?;
        if found.is_none() {
            return Err(VaultError::Refused(format!("{} names a snapshot that is not stored", manifest.id)));
        }
        let payload = serde_json::to_vec(manifest)
            .map_err(|error| VaultError::Internal(format!("a manifest cannot be written: {error}")))?;
        let document = self.secrets.signing.sign(POINT_PAYLOAD_TYPE, &payload);
        put_same(self.storage.as_ref(), &layout::point(&manifest.id), &document.to_bytes())
    }

    /// Every recovery point, oldest first; damaged ones are shown as such, never skipped.
    pub fn points(&self) -> Result<Vec<PointEntry>, VaultError> {
        let listed = self.storage.list(layout::POINTS).doing(|| "list recovery points".to_owned())?;
        listed
            .into_iter()
            .map(|object| {
                let bytes = match self.storage.get(&object.name).promised(&object.name) {
                    Ok(bytes) => bytes,
                    Err(VaultError::Damaged { object, why }) => {
                        return Ok(PointEntry::Damaged { id: layout::point_of(&object), object, why });
                    }
                    Err(other) => return Err(other),
                };
                Ok(self.read_point(&object.name, &bytes))
            })
            .collect()
    }

    /// The newest recovery point whose manifest is good. Reads one manifest as long as none is damaged.
    pub fn newest_point(&self) -> Result<Option<PointManifest>, VaultError> {
        let listed = self.storage.list(layout::POINTS).doing(|| "list recovery points".to_owned())?;
        for object in listed.iter().rev() {
            let bytes = match self.storage.get(&object.name).promised(&object.name) {
                Err(VaultError::Damaged { .. }) => continue,
                other => other?,
            };
            if let Ok(manifest) = self.verified_manifest(&object.name, &bytes) {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// Verifies the bytes of one manifest.
    pub(crate) fn read_point(&self, object: &ObjectName, bytes: &[u8]) -> PointEntry {
        match self.verified_manifest(object, bytes) {
            Ok(manifest) => PointEntry::Good(Box::new(manifest)),
            Err(why) => PointEntry::Damaged { id: layout::point_of(object), object: object.clone(), why },
        }
    }

    fn verified_manifest(&self, object: &ObjectName, bytes: &[u8]) -> Result<PointManifest, String> {
        let id = layout::point_of(object).ok_or("its name is not the name of a recovery point")?;
        let payload = self.open_signed(bytes, POINT_PAYLOAD_TYPE).map_err(|error| error.to_string())?;
        let manifest: PointManifest = serde_json::from_slice(&payload).map_err(|error| error.to_string())?;
        if manifest.format != POINT_FORMAT {
            return Err(format!("format `{}` is not known", manifest.format));
        }
        if manifest.id != id {
            return Err(format!("it is the manifest of {}", manifest.id));
        }
        if manifest.vault != *self.vault_id() || manifest.store != *self.store() {
            return Err("it belongs to another vault".to_owned());
        }
        Ok(manifest)
    }
}
