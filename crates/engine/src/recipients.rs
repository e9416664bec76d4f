//! From the policy's recipients to keys that wrap and unwrap.

use std::fs;
use std::io::Read;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::secret::Secret;
use lifeboat_keys::{KeyFileRecipient, PassphraseRecipient, RecipientKey};
use lifeboat_policy::Recipient;

use crate::context::Engine;
use crate::error::EngineError;

/// The kind of recipient whose key has to be derived.
const PASSPHRASE: &str = "passphrase";
/// A key file holds one short line.
const MAX_KEY_FILE_BYTES: u64 = 4096;

/// The recipients that could be resolved, and why the others could not.
pub(crate) struct Recipients {
    pub(crate) keys: Vec<Box<dyn RecipientKey>>,
    pub(crate) missing: Vec<(String, Failure)>,
}

impl Recipients {
    pub(crate) fn refs(&self) -> Vec<&dyn RecipientKey> {
        self.keys.iter().map(AsRef::as_ref).collect()
    }

    /// To open with: a passphrase costs a tenth of a second on purpose, so it is tried only after what costs nothing.
    pub(crate) fn quick_first(&self) -> Vec<&dyn RecipientKey> {
        let mut refs = self.refs();
        refs.sort_by_key(|recipient| recipient.kind() == PASSPHRASE);
        refs
    }
}

impl Engine {
    /// Resolves every recipient of the policy; none at all is an error that says why.
    pub(crate) fn recipients(&self) -> Result<Recipients, EngineError> {
        let mut found = Recipients { keys: Vec::new(), missing: Vec::new() };
        for recipient in &self.policy.keys.recipients {
            match self.recipient(recipient) {
                Ok(key) => found.keys.push(key),
                Err(failure) => found.missing.push((recipient.to_string(), failure)),
            }
        }
        if found.keys.is_empty() {
            let error = match found.missing.into_iter().next() {
                Some((_label, failure)) => EngineError::from(failure),
                None => EngineError::new(
                    FailureKind::Usage,
                    "the policy names no recipients, so no vault can be opened",
                ),
            };
            return Err(
                error.next("provide one of the recipients named under [keys] and run the command again")
            );
        }
        Ok(found)
    }

    /// As [`Engine::recipients`], but every recipient must be there: a new vault must open for each of them.
    pub(crate) fn all_recipients(&self) -> Result<Recipients, EngineError> {
        let mut found = self.recipients()?;
        if found.missing.is_empty() {
            return Ok(found);
        }
        let (_label, failure) = found.missing.swap_remove(0);
        Err(EngineError::from(failure).next(
            "a new vault is sealed for every recipient of the policy: provide this one, or remove it from [keys]",
        ))
    }

    pub(crate) fn recipient(&self, recipient: &Recipient) -> Result<Box<dyn RecipientKey>, Failure> {
        let label = recipient.to_string();
        match recipient {
            Recipient::Passphrase(reference) => {
                let passphrase = self.env.secrets.resolve(reference)?;
                Ok(Box::new(PassphraseRecipient::new(passphrase, label).map_err(wrong(recipient))?))
            }
            Recipient::KeyFile(path) => {
                let path = self.resolve(path);
                let shown = path.display();
                let mut text = String::new();
                fs::File::open(&path)
                    .and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text))
                    .map_err(|error| {
                        Failure::with_source(
                            FailureKind::Unreachable,
                            format!("failed to read the key file {shown}"),
                            error,
                        )
                    })?;
                let secret = Secret::new(text);
                Ok(Box::new(KeyFileRecipient::parse(&secret, label).map_err(wrong(recipient))?))
            }
            Recipient::Age(_) | Recipient::AwsKms(_) | Recipient::VaultTransit(_) => Err(Failure::new(
                FailureKind::Refused,
                format!("recipient `{label}` is not supported by this version (passphrase and keyfile are)"),
            )),
        }
    }
}

fn wrong(recipient: &Recipient) -> impl FnOnce(lifeboat_keys::KeysError) -> Failure {
    let what = format!("recipient `{recipient}` is not usable");
    move |error| Failure::with_source(error.kind(), what, error)
}
