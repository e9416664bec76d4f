//! The passphrase recipient: scrypt (RFC 7914), then ChaCha20-Poly1305.
//!
//! `params` is `{"n": N, "p": P, "r": R, "salt": base64 of 16 to 64 bytes}`. The wrapping key is
//! `scrypt(passphrase as UTF-8, salt, N, R, P, 32 bytes)`; the passphrase is used as it is, without Unicode
//! normalisation. Costs read from a file are bounded before any memory is taken.

use std::fmt;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use lifeboat_base::entropy::Entropy;
use lifeboat_base::human::printable;
use lifeboat_base::secret::Secret;

use crate::encoding;
use crate::error::KeysError;
use crate::recipient::{RecipientKey, WrappedKey, associated_data, check_label};

/// The kind in the envelope.
pub const KIND: &str = "passphrase";

const SALT_BYTES: usize = 32;
const SALT_LENGTHS: std::ops::RangeInclusive<usize> = 16..=64;
const MAX_LOG_N: u8 = 20;
const MAX_R: u32 = 32;
const MAX_P: u32 = 4;
/// The most memory one derivation may take, in bytes.
pub const MAX_MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// scrypt's cost: memory is `128 * N * r` bytes, time that times `p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    log_n: u8,
    r: u32,
    p: u32,
}

impl Cost {
    /// 64 MiB, about 0.2 s.
    const DEFAULT: Self = Self { log_n: 16, r: 8, p: 1 };

    fn memory_bytes(self) -> u64 {
        128 * (1u64 << self.log_n) * u64::from(self.r)
    }

    fn work_bytes(self) -> u64 {
        self.memory_bytes() * u64::from(self.p)
    }

    /// Nothing unless every number is inside its bound.
    fn checked(n: u64, r: u64, p: u64) -> Option<Self> {
        if !n.is_power_of_two() || n < 2 {
            return None;
        }
        let log_n = u8::try_from(n.ilog2()).ok().filter(|log_n| *log_n <= MAX_LOG_N)?;
        let r = u32::try_from(r).ok().filter(|r| (1..=MAX_R).contains(r))?;
        let p = u32::try_from(p).ok().filter(|p| (1..=MAX_P).contains(p))?;
        let cost = Self { log_n, r, p };
        (cost.memory_bytes() <= MAX_MEMORY_BYTES).then_some(cost)
    }
}

/// Someone who knows a passphrase.
pub struct PassphraseRecipient {
    passphrase: Secret<String>,
    label: String,
    cost: Cost,
}

impl PassphraseRecipient {
    /// Takes the passphrase into custody; an empty one is refused. The label must not be the passphrase.
    pub fn new(passphrase: Secret<String>, label: impl Into<String>) -> Result<Self, KeysError> {
        let label = label.into();
        check_label(&label)?;
        if passphrase.expose().is_empty() {
            return Err(KeysError::EmptyPassphrase { label });
        }
        Ok(Self { passphrase, label, cost: Cost::DEFAULT })
    }

    /// As [`PassphraseRecipient::new`], cheap enough for property tests.
    #[cfg(test)]
    pub(crate) fn cheap(passphrase: &str, label: &str) -> Self {
        let mut recipient = Self::new(Secret::new(passphrase.to_owned()), label).unwrap();
        recipient.cost = Cost { log_n: 4, r: 1, p: 1 };
        recipient
    }

    fn derive(&self, salt: &[u8], cost: Cost) -> Option<Secret<[u8; 32]>> {
        let params = scrypt::Params::new(cost.log_n, cost.r, cost.p).ok()?;
        let mut key = Zeroizing::new([0u8; 32]);
        scrypt::scrypt(self.passphrase.expose().as_bytes(), salt, &params, key.as_mut_slice()).ok()?;
        Some(Secret::new(*key))
    }
}

impl fmt::Debug for PassphraseRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PassphraseRecipient({})", self.label)
    }
}

/// Reads exactly the four parameters.
fn read_params(params: &Map<String, Value>) -> Option<(Vec<u8>, Cost)> {
    if params.len() != 4 {
        return None;
    }
    let number = |name: &str| params.get(name).and_then(Value::as_u64);
    let cost = Cost::checked(number("n")?, number("r")?, number("p")?)?;
    let salt = encoding::decode(params.get("salt")?.as_str()?)?;
    SALT_LENGTHS.contains(&salt.len()).then_some((salt, cost))
}

fn bounded(wrapped: &WrappedKey) -> Result<(Vec<u8>, Cost), KeysError> {
    read_params(&wrapped.params).ok_or_else(|| KeysError::KdfOutOfBounds { label: printable(&wrapped.label) })
}

impl RecipientKey for PassphraseRecipient {
    fn kind(&self) -> &str {
        KIND
    }

    fn label(&self) -> String {
        self.label.clone()
    }

    fn wrap(
        &self,
        dek: &Secret<[u8; 32]>,
        context: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<WrappedKey, KeysError> {
        let failed = || KeysError::SelfTest { label: self.label.clone() };
        let salt: [u8; SALT_BYTES] = encoding::random(entropy);
        let nonce = encoding::random(entropy);
        let key = self.derive(&salt, self.cost).ok_or_else(failed)?;
        let aad = associated_data(context, KIND, &self.label);
        let wrapped = encoding::encrypt(&key, nonce, &aad, dek.expose()).ok_or_else(failed)?;
        let Cost { log_n, r, p } = self.cost;
        let params = json!({ "n": 1u64 << log_n, "p": p, "r": r, "salt": encoding::encode(&salt) });
        Ok(WrappedKey {
            kind: KIND.to_owned(),
            label: self.label.clone(),
            params: params.as_object().cloned().unwrap_or_default(),
            nonce: nonce.to_vec(),
            wrapped,
        })
    }

    fn unwrap(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<Secret<[u8; 32]>, KeysError> {
        let (salt, cost) = bounded(wrapped)?;
        let aad = associated_data(context, KIND, &wrapped.label);
        self.derive(&salt, cost)
            .and_then(|key| encoding::decrypt(&key, &wrapped.nonce, &aad, &wrapped.wrapped))
            .and_then(|dek| <[u8; 32]>::try_from(dek.as_slice()).ok())
            .map(Secret::new)
            .ok_or_else(|| KeysError::NotOpened { label: printable(&wrapped.label) })
    }

    fn work_bytes(&self, wrapped: &WrappedKey) -> Result<u64, KeysError> {
        bounded(wrapped).map(|(_salt, cost)| cost.work_bytes())
    }
}
