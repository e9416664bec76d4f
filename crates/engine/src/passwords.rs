//! The way out: the repository password of a vault, for stock restic.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, StoreName};
use lifeboat_base::secret::Secret;
use lifeboat_vault::Vault;

use crate::context::Engine;
use crate::error::EngineError;

impl Engine {
    /// The password of the restic repository of a store in a copy, for `restic --password-command`.
    pub fn repository_password(
        &self,
        store: &StoreName,
        copy: &CopyName,
    ) -> Result<Secret<String>, EngineError> {
        let row = self.store(store)?;
        if !row.copies.value.contains(copy) {
            return Err(EngineError::new(FailureKind::Usage, format!("`{store}` has no copy `{copy}`")));
        }
        let storage = self.storage(row, copy)?;
        let envelope = Vault::read_envelope(storage.as_ref()).map_err(Failure::from)?.ok_or_else(|| {
            EngineError::new(FailureKind::Refused, format!("copy `{copy}` has no vault of `{store}`"))
                .next(format!("lifeboat backup {store}"))
        })?;
        let recipients = self.recipients()?;
        let (secrets, _label) = envelope.open(&recipients.refs()).map_err(|error| {
            Failure::with_source(
                error.kind(),
                format!("failed to open the vault at {}", storage.location()),
                error,
            )
        })?;
        Ok(secrets.repository_password)
    }
}
