//! A recipient: someone or something that can open a vault, by wrapping the key its secrets are sealed under.
//!
//! In: a data key, the envelope's context. Out: what the envelope stores about the recipient.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use lifeboat_base::entropy::Entropy;
use lifeboat_base::secret::Secret;

use crate::error::KeysError;

/// The longest label accepted, in bytes.
pub const MAX_LABEL_BYTES: usize = 256;
/// The longest kind accepted, in bytes.
pub const MAX_KIND_BYTES: usize = 32;

/// What an envelope stores for one recipient. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// How it is wrapped: `passphrase`, `keyfile`, or a kind of a newer version.
    pub kind: String,
    /// A name for people, such as `env:LIFEBOAT_PASSPHRASE`.
    pub label: String,
    /// What the kind needs to unwrap: salt and cost, a key's ARN.
    pub params: Map<String, Value>,
    /// The nonce, empty for kinds that have none.
    #[serde(with = "crate::encoding")]
    pub nonce: Vec<u8>,
    /// The wrapped data key.
    #[serde(with = "crate::encoding")]
    pub wrapped: Vec<u8>,
}

/// Wraps and unwraps data keys. Implemented here for passphrases and key files; services implement it elsewhere.
pub trait RecipientKey: Send + Sync {
    /// The kind written into the envelope, such as `passphrase`: lowercase letters, digits and `-`.
    fn kind(&self) -> &str;

    /// A name for people, never the secret.
    fn label(&self) -> String;

    /// Wraps `dek` so that only this recipient opens it, bound to `context` and to the recipient's own kind and label.
    fn wrap(
        &self,
        dek: &Secret<[u8; 32]>,
        context: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<WrappedKey, KeysError>;

    /// Unwraps; [`KeysError::NotOpened`] if the key, the context or any byte of `wrapped` is not the right one.
    fn unwrap(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<Secret<[u8; 32]>, KeysError>;

    /// Memory touched by one [`RecipientKey::unwrap`], in bytes: the measure of its time. An opening
    /// stops before its total would go beyond [`crate::envelope::MAX_WORK_BYTES`].
    fn work_bytes(&self, wrapped: &WrappedKey) -> Result<u64, KeysError> {
        let _ = wrapped;
        Ok(0)
    }
}

/// The associated data of one wrapped key: the envelope's context, then kind and label, one line each.
pub(crate) fn associated_data(context: &[u8], kind: &str, label: &str) -> Vec<u8> {
    let mut aad = context.to_vec();
    aad.extend_from_slice(format!("recipient\n{kind}\n{label}\n").as_bytes());
    aad
}

/// Labels and kinds are lines of the associated data and are shown to people.
pub(crate) fn check_label(label: &str) -> Result<(), KeysError> {
    if label.is_empty() || label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control) {
        return Err(KeysError::InvalidLabel { limit_bytes: MAX_LABEL_BYTES });
    }
    Ok(())
}

pub(crate) fn valid_kind(kind: &str) -> bool {
    !kind.is_empty()
        && kind.len() <= MAX_KIND_BYTES
        && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
