//! A vault: created once, opened with its secrets, written, read, checked.
//!
//! A half-created vault is recognised by having an envelope and no `config`, which is written last; creating it
//! again with the same secrets completes it.

use std::sync::Arc;

use lifeboat_base::entropy::{Entropy, OsEntropy};
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::{StoreName, VaultId};
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Timestamp;
use lifeboat_keys::{Envelope, VaultSecrets};
use rustic_core::repofile::ConfigFile;
use serde::{Deserialize, Serialize};

use crate::blobs::BlobReader;
use crate::crypto::MasterKey;
use crate::error::{StorageContext, VaultError};
use crate::format::keyfile::{self, KeyFileProblem};
use crate::index::Index;
use crate::layout;
use crate::retire::Retired;
use crate::rustic;
use crate::signed::Known;
use crate::storage::{ObjectName, Storage, StorageError, WriteLock};

/// The payload type of `lifeboat/vault.json`.
pub const VAULT_PAYLOAD_TYPE: &str = "application/vnd.lifeboat.vault+json";
const VAULT_FORMAT: &str = "lifeboat.vault/v1";
/// The repository format we write and read.
const REPOSITORY_VERSION: u32 = 2;

/// What a new vault is made of.
#[derive(Clone, Copy)]
pub struct NewVault<'a> {
    /// The store it will hold.
    pub store: &'a StoreName,
    /// Its identity, the same in every copy.
    pub vault_id: &'a VaultId,
    /// Its secrets, the ones sealed in the envelope.
    pub secrets: &'a VaultSecrets,
    /// The envelope others open it with.
    pub envelope: &'a Envelope,
    /// When it is created.
    pub created: Timestamp,
}

impl std::fmt::Debug for NewVault<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewVault({}, {})", self.store, self.vault_id)
    }
}

/// `lifeboat/vault.json`: which vault this is, signed, readable without any key but the public one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultIdentity {
    /// `lifeboat.vault/v1`.
    pub format: String,
    /// The vault.
    pub vault: VaultId,
    /// The store it holds.
    pub store: StoreName,
    /// When it was created.
    pub created: Timestamp,
}

/// An opened vault. Reading needs no lock; there is at most one writer at a time.
#[derive(Clone)]
pub struct Vault {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) key: MasterKey,
    /// The key file it was found in.
    key_file: ObjectName,
    pub(crate) secrets: VaultSecrets,
    /// What was found to be signed with its key, here and in copies that were opened beside it.
    pub(crate) known: Arc<Known>,
    id: VaultId,
    store: StoreName,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({} at {})", self.store, self.storage.location())
    }
}

impl Vault {
    /// Creates a vault, or completes one whose creation was interrupted. `Refused` if there is a complete one, or a
    /// half-created one with another envelope.
    pub fn create(
        storage: Arc<dyn Storage>,
        new: NewVault<'_>,
        entropy: &dyn Entropy,
    ) -> Result<Self, VaultError> {
        if Self::exists(storage.as_ref())? {
            return Err(VaultError::Refused(format!("there is a vault at {} already", storage.location())));
        }
        storage.make_folders(&[]).doing(|| "make the place of the vault".to_owned())?;
        let _lock = storage.lock().doing(|| "create the vault".to_owned())?;
        put_same(storage.as_ref(), &layout::envelope(), &new.envelope.to_bytes())?;
        storage.make_folders(&layout::FOLDERS).doing(|| "create the vault's folders".to_owned())?;
        let identity = identity_document(&new)?;
        put_same(storage.as_ref(), &layout::vault(), &identity)?;
        let key = match find_key(storage.as_ref(), &new.secrets.repository_password) {
            Ok((key, _)) => key,
            Err(VaultError::NoVault { .. }) => {
                let key = MasterKey::generate(entropy);
                let password = &new.secrets.repository_password;
                let (id, bytes) = keyfile::seal(&key, password, new.created, entropy)
                    .ok_or_else(|| VaultError::Internal("the key file cannot be made".to_owned()))?;
                put_same(storage.as_ref(), &layout::key(&id), &bytes)?;
                key
            }
            Err(other) => return Err(other),
        };
        let config = rustic::new_config(&key)?;
        put_same(storage.as_ref(), &layout::config(), &config)?;
        Self::open(storage, new.secrets.clone(), new.envelope)
    }

    /// The envelope of the vault at `storage`, if there is one.
    pub fn read_envelope(storage: &dyn Storage) -> Result<Option<Envelope>, VaultError> {
        let name = layout::envelope();
        let bytes = match storage.get(&name) {
            Ok(bytes) => bytes,
            Err(StorageError::NotFound { .. } | StorageError::Missing { .. }) => return Ok(None),
            Err(source) => return Err(VaultError::Storage { doing: format!("read `{name}`"), source }),
        };
        Envelope::from_bytes(&bytes).map(Some).map_err(|error| VaultError::damaged(&name, error.to_string()))
    }

    /// Whether a completely created vault is at `storage`.
    pub fn exists(storage: &dyn Storage) -> Result<bool, VaultError> {
        match storage.stat(&layout::config()) {
            Err(StorageError::Missing { .. }) => Ok(false),
            size => Ok(size.doing(|| "look for a vault".to_owned())?.is_some()),
        }
    }

    /// Opens the vault at `storage` with the secrets out of its envelope.
    ///
    /// A damaged `config` does not stop reading; [`Vault::check`] names it and writing refuses.
    pub fn open(
        storage: Arc<dyn Storage>,
        secrets: VaultSecrets,
        envelope: &Envelope,
    ) -> Result<Self, VaultError> {
        let (key, key_file) = find_key(storage.as_ref(), &secrets.repository_password)?;
        Self::with_key(storage, (key, key_file, Arc::default()), secrets, envelope)
    }

    /// As [`Vault::open`] for another copy of the vault `known`, whose envelope has the same bytes: where the copy has the
    /// key file that opened `known`, the key is taken over and its derivation, tens of milliseconds, is spared.
    pub fn open_beside(
        storage: Arc<dyn Storage>,
        known: &Self,
        envelope: &Envelope,
    ) -> Result<Self, VaultError> {
        // The name of a key file is the hash of its content, so the same name and an intact content are the same key.
        let same = storage.get(&known.key_file).is_ok_and(|bytes| {
            layout::content_digest(&known.key_file) == Some(lifeboat_base::digest::Digest::of(&bytes))
        });
        if !same {
            return Self::open(storage, known.secrets.clone(), envelope);
        }
        let key = (known.key.clone(), known.key_file.clone(), Arc::clone(&known.known));
        Self::with_key(storage, key, known.secrets.clone(), envelope)
    }

    fn with_key(
        storage: Arc<dyn Storage>,
        (key, key_file, known): (MasterKey, ObjectName, Arc<Known>),
        secrets: VaultSecrets,
        envelope: &Envelope,
    ) -> Result<Self, VaultError> {
        let (id, store) = (envelope.vault_id().clone(), envelope.store().clone());
        let vault = Self { storage, key, key_file, secrets, known, id, store };
        match vault.config() {
            Ok(config) if config.version != REPOSITORY_VERSION => Err(VaultError::Refused(format!(
                "the vault has format version {}, this program reads version {REPOSITORY_VERSION}",
                config.version
            ))),
            Ok(_) => Ok(vault),
            Err(error) if error.kind() == FailureKind::Damaged => Ok(vault),
            Err(error) => Err(error),
        }
    }

    /// Makes another copy of the vault `from` at an empty `storage`: same identity, keys and envelope, no points yet.
    /// Completes an interrupted adoption; a complete copy of the same vault is opened.
    pub fn adopt(storage: Arc<dyn Storage>, from: &Self) -> Result<Self, VaultError> {
        let envelope_name = layout::envelope();
        let envelope_bytes = from.storage.get(&envelope_name).promised(&envelope_name)?;
        let envelope = Envelope::from_bytes(&envelope_bytes)
            .map_err(|error| VaultError::damaged(&envelope_name, error.to_string()))?;
        storage.make_folders(&[]).doing(|| "make the place of the copy".to_owned())?;
        let lock = storage.lock().doing(|| "create the copy".to_owned())?;
        put_same(storage.as_ref(), &envelope_name, &envelope_bytes)?;
        storage.make_folders(&layout::FOLDERS).doing(|| "create the copy's folders".to_owned())?;
        let keys = from.storage.list(layout::KEYS).doing(|| "list keys".to_owned())?;
        let names = keys.into_iter().map(|listed| listed.name);
        for name in std::iter::once(layout::vault()).chain(names).chain([layout::config()]) {
            let bytes = from.storage.get(&name).promised(&name)?;
            from.verify_small(&name, &bytes)?;
            put_same(storage.as_ref(), &name, &bytes)?;
        }
        drop(lock);
        Self::open(storage, from.secrets.clone(), &envelope)
    }

    /// The vault's identity.
    pub fn vault_id(&self) -> &VaultId {
        &self.id
    }

    /// The store it holds.
    pub fn store(&self) -> &StoreName {
        &self.store
    }

    /// Becomes the only writer of this copy; `Refused` while another one is at work.
    pub fn lock(&self, doing: &str) -> Result<Box<dyn WriteLock>, VaultError> {
        self.storage.lock().doing(|| doing.to_owned())
    }

    /// That this is the vault, now: a copy that does not show its signed identity may be a place where a disk was.
    pub fn shows_itself(&self) -> Result<(), VaultError> {
        let name = layout::vault();
        let bytes = self.storage.get(&name).promised(&name)?;
        self.verify_small(&name, &bytes)?;
        let envelope = layout::envelope();
        let bytes = self.storage.get(&envelope).promised(&envelope)?;
        self.verify_small(&envelope, &bytes)
    }

    /// Where its objects are.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Its secrets.
    pub fn secrets(&self) -> &VaultSecrets {
        &self.secrets
    }

    /// The key its objects are sealed under.
    pub fn master_key(&self) -> &MasterKey {
        &self.key
    }

    /// Whether the password of this vault opens what is at a place now.
    pub fn password_opens(&self, storage: &dyn Storage) -> bool {
        find_key(storage, &self.secrets.repository_password).is_ok()
    }

    pub(crate) fn config(&self) -> Result<ConfigFile, VaultError> {
        let name = layout::config();
        let bytes = self.storage.get(&name).promised(&name)?;
        open_config(&self.key, &bytes)
    }

    /// Verifies an object that is small and has its own authentication.
    pub(crate) fn verify_small(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), VaultError> {
        if *name == layout::config() {
            open_config(&self.key, bytes).map(drop)
        } else if *name == layout::vault() {
            self.verify_identity(bytes).map_err(|why| VaultError::damaged(name, why))
        } else if *name == layout::envelope() {
            let envelope = Envelope::check_bytes(bytes, &self.secrets.signing.public())
                .map_err(|error| VaultError::damaged(name, error.to_string()))?;
            envelope
                .expect(&self.store, Some(&self.id))
                .map_err(|error| VaultError::damaged(name, error.to_string()))
        } else {
            match layout::content_digest(name) {
                Some(digest) if digest == lifeboat_base::digest::Digest::of(bytes) => Ok(()),
                Some(_) => Err(VaultError::damaged(name, "its content differs from its name")),
                None => Err(VaultError::damaged(name, "its name is not one of a vault")),
            }
        }
    }

    fn verify_identity(&self, bytes: &[u8]) -> Result<(), String> {
        let key = self.secrets.signing.public();
        let payload = lifeboat_keys::DsseEnvelope::open_exact(bytes, &key, VAULT_PAYLOAD_TYPE)
            .map_err(|error| error.to_string())?;
        let identity: VaultIdentity = serde_json::from_slice(&payload).map_err(|error| error.to_string())?;
        if identity.format == VAULT_FORMAT && identity.vault == self.id && identity.store == self.store {
            Ok(())
        } else {
            Err("it belongs to another vault".to_owned())
        }
    }

    /// A reader of blobs with a freshly loaded index.
    pub(crate) fn blob_reader(&self) -> Result<BlobReader, VaultError> {
        self.blob_reader_without(&self.retired()?)
    }

    /// As [`Vault::blob_reader`], with what is `retired` known from elsewhere.
    pub(crate) fn blob_reader_without(&self, retired: &Retired) -> Result<BlobReader, VaultError> {
        let index = Index::load(self.storage.as_ref(), &self.key, retired)?;
        Ok(BlobReader { storage: Arc::clone(&self.storage), key: self.key.clone(), index: Arc::new(index) })
    }

    /// Seals and opens a sample, so that a broken key or cipher is noticed before data is entrusted to it.
    pub(crate) fn self_test(&self) -> Result<(), VaultError> {
        let sealed = self.key.seal(VAULT_FORMAT.as_bytes(), &OsEntropy);
        match self.key.open(&sealed) {
            Ok(plain) if plain == VAULT_FORMAT.as_bytes() && sealed != plain => Ok(()),
            _ => Err(VaultError::Internal("the vault's key does not open what it seals".to_owned())),
        }
    }
}

fn open_config(key: &MasterKey, bytes: &[u8]) -> Result<ConfigFile, VaultError> {
    let name = layout::config();
    let json = key.open(bytes).map_err(|error| VaultError::damaged(&name, error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| VaultError::damaged(&name, error.to_string()))
}

fn identity_document(new: &NewVault<'_>) -> Result<Vec<u8>, VaultError> {
    let identity = VaultIdentity {
        format: VAULT_FORMAT.to_owned(),
        vault: new.vault_id.clone(),
        store: new.store.clone(),
        created: new.created,
    };
    let payload = serde_json::to_vec(&identity)
        .map_err(|error| VaultError::Internal(format!("the identity cannot be written as JSON: {error}")))?;
    Ok(new.secrets.signing.sign(VAULT_PAYLOAD_TYPE, &payload).to_bytes())
}

/// Stores an object that may be there already from an interrupted attempt; other content is refused.
pub(crate) fn put_same(storage: &dyn Storage, name: &ObjectName, bytes: &[u8]) -> Result<(), VaultError> {
    match storage.put_new(name, &[bytes]) {
        Ok(()) => Ok(()),
        Err(StorageError::AlreadyExists { .. }) => {
            let stored = storage.get(name).promised(name)?;
            if stored == bytes {
                Ok(())
            } else {
                Err(VaultError::Refused(format!(
                    "`{name}` at {} exists with other content",
                    storage.location()
                )))
            }
        }
        Err(source) => Err(VaultError::Storage { doing: format!("store `{name}`"), source }),
    }
}

/// The master key from the first key file the password opens. `NoVault` if there are no key files at all.
fn find_key(storage: &dyn Storage, password: &Secret<String>) -> Result<(MasterKey, ObjectName), VaultError> {
    let keys = storage.list(layout::KEYS).doing(|| "list keys".to_owned())?;
    if keys.is_empty() {
        return Err(VaultError::NoVault { location: storage.location() });
    }
    let key_count = keys.len();
    let mut damaged = None;
    for listed in keys {
        let bytes = storage.get(&listed.name).promised(&listed.name)?;
        match keyfile::open(&bytes, password) {
            Ok(key) => return Ok((key, listed.name)),
            Err(problem) => {
                let named = layout::content_digest(&listed.name);
                let intact = named == Some(lifeboat_base::digest::Digest::of(&bytes));
                if !intact || problem == KeyFileProblem::Malformed {
                    damaged = Some(VaultError::damaged(&listed.name, "its content differs from its name"));
                }
            }
        }
    }
    Err(damaged.unwrap_or_else(|| VaultError::WrongKey { location: storage.location(), key_count }))
}
