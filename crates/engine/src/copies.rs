//! The vaults of one store in all of its copies: found, opened, compared, made where they are missing.

use std::sync::Arc;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, VaultId};
use lifeboat_base::monitor::Finding;
use lifeboat_keys::{Envelope, VaultSecrets};
use lifeboat_policy::{CopyUrl, Store};
use lifeboat_vault::storage::{FileStorage, Storage, StorageError};
use lifeboat_vault::{NewVault, PointEntry, Vault, VaultError};

use crate::context::Engine;
use crate::error::EngineError;
use crate::recipients::Recipients;

/// An opened vault and the copy it lies in.
pub(crate) struct CopyVault {
    pub(crate) copy: CopyName,
    pub(crate) vault: Vault,
}

/// What became of each copy of a store, in the order of the row.
#[derive(Default)]
pub(crate) struct VaultSet {
    pub(crate) open: Vec<CopyVault>,
    /// Copies that held points before, lost their vault, and got it again in this run.
    pub(crate) healed: Vec<CopyName>,
    /// Copies without a vault of this store.
    pub(crate) absent: Vec<CopyName>,
    /// The first copy whose keys were destroyed on purpose; it is among those that failed.
    pub(crate) shredded: Option<CopyName>,
    /// Copies whose vault is there but cannot be reached or opened, and why.
    pub(crate) failed: Vec<(CopyName, Failure)>,
}

impl VaultSet {
    pub(crate) fn get(&self, copy: &CopyName) -> Option<&CopyVault> {
        self.open.iter().find(|entry| entry.copy == *copy)
    }

    /// What is wrong with the copies, as findings.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.failed
            .iter()
            .map(|(copy, failure)| {
                let message = format!("copy `{copy}` cannot be used: {}", failure.chain());
                Finding::new("copy-unusable", copy.as_str(), message).with_kind(failure.kind())
            })
            .collect()
    }
}

/// The envelope opened last: copies of one store usually share it byte for byte, and opening costs a key derivation.
struct Opened {
    bytes: Vec<u8>,
    secrets: VaultSecrets,
    /// The vault it opened last; finding a vault's own key costs another derivation.
    vault: Option<Vault>,
}

impl Engine {
    /// Where a store's vault lies in a copy: `COPY_URL/STORE/`.
    pub(crate) fn storage(&self, row: &Store, copy: &CopyName) -> Result<Arc<dyn Storage>, Failure> {
        let place =
            self.policy.copies.get(copy).ok_or_else(|| {
                Failure::new(FailureKind::Usage, format!("the policy has no copy `{copy}`"))
            })?;
        match &place.url {
            CopyUrl::File(path) => {
                let folder = self.resolve(path).join(row.name.as_str());
                Ok(Arc::new(FileStorage::by_clock(folder, self.believed.clock(&row.name, &self.env.clock))))
            }
            CopyUrl::S3 { .. } => Err(Failure::new(
                FailureKind::Refused,
                format!(
                    "copy `{copy}` is not a directory: this version keeps copies in directories (`file:`) only"
                ),
            )),
        }
    }

    /// Opens the store's vault in every copy of the row. Never makes one.
    pub(crate) fn open_vaults(&self, row: &Store) -> Result<VaultSet, EngineError> {
        self.open_copies(row, &row.copies.value)
    }

    /// As [`Engine::open_vaults`], in these copies only.
    pub(crate) fn open_copies(&self, row: &Store, copies: &[CopyName]) -> Result<VaultSet, EngineError> {
        let mut set = VaultSet::default();
        let mut recipients: Option<Recipients> = None;
        let mut opened: Option<Opened> = None;
        for copy in copies {
            let storage = match self.storage(row, copy) {
                Ok(storage) => storage,
                Err(failure) => {
                    set.failed.push((copy.clone(), failure));
                    continue;
                }
            };
            match Vault::exists(storage.as_ref()) {
                Ok(true) => {}
                Ok(false) => {
                    set.absent.push(copy.clone());
                    continue;
                }
                Err(error) => {
                    set.failed.push((copy.clone(), error.into()));
                    continue;
                }
            }
            if let Ok(Some(notice)) = Vault::shredded(storage.as_ref())
                && Vault::read_envelope(storage.as_ref()).is_ok_and(|envelope| envelope.is_none())
            {
                let what = format!("its keys were destroyed at {:.0} by {}", notice.at, notice.by);
                set.failed.push((copy.clone(), Failure::new(FailureKind::Refused, what)));
                set.shredded.get_or_insert_with(|| copy.clone());
                continue;
            }
            let recipients = match &recipients {
                Some(recipients) => recipients,
                None => recipients.insert(self.recipients()?),
            };
            match open_one(row, storage, recipients, &mut opened) {
                Ok(vault) => set.open.push(CopyVault { copy: copy.clone(), vault }),
                Err(failure) => set.failed.push((copy.clone(), failure)),
            }
        }
        same_vault(&set.open)?;
        Ok(set)
    }

    /// As [`Engine::open_vaults`], then makes the vault where it is missing: in every copy on the first run, and in
    /// copies that joined later. A copy that held points before and is empty now is not filled again unless
    /// `heal` says so: an unmounted disk looks the same as a lost one.
    pub(crate) fn ensure_vaults(&self, row: &Store, heal: bool) -> Result<VaultSet, EngineError> {
        let set = self.make_missing_vaults(row, heal)?;
        if set.open.is_empty() { Err(no_copy(row, set)) } else { Ok(set) }
    }

    /// As [`Engine::ensure_vaults`], with what became of each copy even if none can be used.
    pub(crate) fn make_missing_vaults(&self, row: &Store, heal: bool) -> Result<VaultSet, EngineError> {
        let mut set = self.open_vaults(row)?;
        if set.shredded.is_some() {
            return Err(no_copy(row, set));
        }
        let known = self.catalog()?.points(&row.name).map_err(Failure::from)?;
        // Also one whose points were all dropped meanwhile: a disk that is away for long is not forgotten.
        let filed = if set.absent.is_empty() {
            Vec::new()
        } else {
            self.catalog()?.said(&row.name, "backup", "$.copies").map_err(Failure::from)?
        };
        let held = |copy: &CopyName| {
            known.iter().any(|point| point.holdings.iter().any(|holding| holding.copy == *copy))
                || filed.iter().any(|filed| filed.as_str() == Some(copy.as_str()))
        };
        for copy in std::mem::take(&mut set.absent) {
            if (held(&copy) || self.held_elsewhere(&set, &copy)?) && !heal {
                let failure = self.absence(row, &copy);
                set.failed.push((copy, failure));
                continue;
            }
            match self.make_vault(row, &copy, &set) {
                Ok(vault) => {
                    if held(&copy) {
                        set.healed.push(copy.clone());
                    }
                    set.open.push(CopyVault { copy, vault });
                }
                Err(failure) => set.failed.push((copy, failure)),
            }
        }
        let order = |entry: &CopyVault| row.copies.value.iter().position(|name| *name == entry.copy);
        set.open.sort_by_key(order);
        Ok(set)
    }

    /// Whether points that are here, and of whose making the evidence chain here does not tell, were meant for a copy, too: it is
    /// not known here what that held, and an unmounted disk is not begun anew.
    fn held_elsewhere(&self, set: &VaultSet, copy: &CopyName) -> Result<bool, EngineError> {
        for entry in &set.open {
            let points = entry.vault.points().map_err(Failure::from)?;
            let manifests = points.iter().filter_map(PointEntry::manifest);
            if self.chain_lacks(manifests.filter(|manifest| manifest.copies.contains(copy)))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Why there is no vault in a copy that held points: a folder that is not there can come back, a vault without
    /// its `config` is damaged.
    pub(crate) fn absence(&self, row: &Store, copy: &CopyName) -> Failure {
        let listed = self.storage(row, copy).and_then(|storage| match storage.list("lifeboat/points/") {
            Err(StorageError::Missing { .. }) => Ok(Vec::new()),
            listed => listed.map_err(|error| {
                Failure::with_source(error.kind(), format!("failed to look into copy `{copy}`"), error)
            }),
        });
        match listed {
            Ok(points) if points.is_empty() => Failure::new(
                FailureKind::Unreachable,
                format!("copy `{copy}` held recovery points of `{}` and holds no vault now", row.name),
            ),
            Ok(_points) => Failure::new(
                FailureKind::Damaged,
                format!("copy `{copy}` holds recovery points of `{}`, but `config` is missing", row.name),
            ),
            Err(failure) => failure,
        }
    }

    fn make_vault(&self, row: &Store, copy: &CopyName, set: &VaultSet) -> Result<Vault, Failure> {
        let storage = self.storage(row, copy)?;
        if let Some(source) = set.open.first() {
            return Vault::adopt(storage, &source.vault).map_err(Failure::from);
        }
        // A vault that exists elsewhere but cannot be opened now must not get a second identity.
        if let Some((other, failure)) = set.failed.first() {
            return Err(Failure::new(
                FailureKind::Unreachable,
                format!(
                    "copy `{other}` is not usable ({}), so no new vault is begun in `{copy}`",
                    failure.chain()
                ),
            ));
        }
        let entropy = self.env.entropy.as_ref();
        if let Some(envelope) = Vault::read_envelope(storage.as_ref())? {
            return self.complete_vault(row, storage, &envelope);
        }
        let recipients = self.all_recipients().map_err(|error| error.failure)?;
        let secrets = VaultSecrets::generate(entropy);
        let vault_id = VaultId::generate(entropy);
        let created = self.env.clock.now();
        let envelope =
            Envelope::seal(vault_id.clone(), &row.name, created, &secrets, &recipients.refs(), entropy)
                .map_err(|error| {
                    Failure::with_source(error.kind(), "failed to seal the vault's envelope", error)
                })?;
        let new = NewVault {
            store: &row.name,
            vault_id: &vault_id,
            secrets: &secrets,
            envelope: &envelope,
            created,
        };
        Vault::create(storage, new, entropy).map_err(Failure::from)
    }

    /// Finishes a vault whose making was interrupted: the envelope is there, so its secrets are the ones to use.
    fn complete_vault(
        &self,
        row: &Store,
        storage: Arc<dyn Storage>,
        envelope: &Envelope,
    ) -> Result<Vault, Failure> {
        let recipients = self.recipients().map_err(|error| error.failure)?;
        let secrets = open_envelope(row, storage.as_ref(), envelope, &recipients)?;
        let new = NewVault {
            store: &row.name,
            vault_id: envelope.vault_id(),
            secrets: &secrets,
            envelope,
            created: envelope.created(),
        };
        Vault::create(storage, new, self.env.entropy.as_ref()).map_err(Failure::from)
    }
}

/// The secrets in the envelope of a store's own vault.
fn open_envelope(
    row: &Store,
    storage: &dyn Storage,
    envelope: &Envelope,
    recipients: &Recipients,
) -> Result<VaultSecrets, Failure> {
    envelope.expect(&row.name, None).map_err(|error| {
        let what = format!("{} does not hold the vault of `{}`", storage.location(), row.name);
        Failure::with_source(error.kind(), what, error)
    })?;
    let opened = envelope.open(&recipients.quick_first());
    let (secrets, _label) = opened.map_err(|error| {
        let what = format!("failed to open the vault at {}", storage.location());
        Failure::with_source(error.kind(), what, error)
    })?;
    Ok(secrets)
}

fn open_one(
    row: &Store,
    storage: Arc<dyn Storage>,
    recipients: &Recipients,
    opened: &mut Option<Opened>,
) -> Result<Vault, Failure> {
    let envelope = Vault::read_envelope(storage.as_ref())?.ok_or_else(|| {
        Failure::new(
            FailureKind::Damaged,
            format!("{}: lifeboat/envelope.json is missing", storage.location()),
        )
    })?;
    let bytes = envelope.to_bytes();
    let known = opened.take().filter(|known| known.bytes == bytes);
    let vault = match &known {
        Some(Opened { vault: Some(vault), .. }) => Vault::open_beside(storage, vault, &envelope),
        Some(Opened { secrets, .. }) => Vault::open(storage, secrets.clone(), &envelope),
        None => {
            let secrets = open_envelope(row, storage.as_ref(), &envelope, recipients)?;
            *opened = Some(Opened { bytes, secrets: secrets.clone(), vault: None });
            Vault::open(storage, secrets, &envelope)
        }
    };
    *opened = known.or_else(|| opened.take());
    if let (Some(opened), Ok(vault)) = (opened.as_mut(), &vault) {
        opened.vault = Some(vault.clone());
    }
    vault.map_err(|error| match error {
        // There is a `config` and an envelope: a vault was here, and its key files are gone.
        VaultError::NoVault { .. } => {
            Failure::with_source(FailureKind::Damaged, "no key file is left in `keys/`", error)
        }
        other => Failure::from(other),
    })
}

/// Two copies with different vaults cannot replicate into each other.
fn same_vault(open: &[CopyVault]) -> Result<(), EngineError> {
    let Some((first, rest)) = open.split_first() else { return Ok(()) };
    match rest.iter().find(|other| other.vault.vault_id() != first.vault.vault_id()) {
        None => Ok(()),
        Some(other) => Err(EngineError::new(
            FailureKind::Refused,
            format!(
                "copies `{}` and `{}` hold two different vaults of the same store",
                first.copy, other.copy
            ),
        )
        .next("keep the one that holds your recovery points and move the other aside")),
    }
}

pub(crate) fn no_copy(row: &Store, set: VaultSet) -> EngineError {
    let step = match set.failed.first().map(|(_copy, failure)| failure.kind()) {
        _ if set.shredded.is_some() => {
            "take the row out of the policy; to begin it anew, move what is left in every copy aside"
        }
        Some(FailureKind::Damaged) => {
            "bring the key the vault was made for, or put back what was altered; `lifeboat check` tries every recipient"
        }
        Some(FailureKind::Refused) => "when no other run uses the copy, run the command again",
        _ => "repair the copy, or add --heal if it is lost for good, then run `lifeboat backup` again",
    };
    let error = match set.failed.into_iter().next() {
        Some((copy, failure)) => {
            let kind = failure.kind();
            EngineError::from(Failure::with_source(
                kind,
                format!("no copy of `{}` can be used; copy `{copy}`", row.name),
                failure,
            ))
        }
        None => EngineError::new(FailureKind::Usage, format!("`{}` has no copies", row.name)),
    };
    error.risking(&row.name, "rpo").risking(&row.name, "copies").next(step)
}
