//! Ed25519 keys: strict verification, no weak keys, seeds that are wiped when dropped.
//!
//! In: a seed or randomness. Out: signatures as DSSE documents, public keys as `ed25519:<base64>`.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, VerifyingKey};
use serde::{Deserialize, Serialize};

use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::Entropy;
use lifeboat_base::secret::Secret;

use crate::dsse::{self, DsseEnvelope};
use crate::encoding;
use crate::error::KeysError;

const PREFIX: &str = "ed25519:";
const KEY_ID_BYTES: usize = 8;

/// The private half; `Debug` shows the public key only.
#[derive(Clone)]
pub struct SigningKey {
    seed: Secret<[u8; 32]>,
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// A fresh key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::from_seed(encoding::random_secret(entropy))
    }

    /// The key of a seed kept elsewhere (RFC 8032 calls it the private key).
    pub fn from_seed(seed: Secret<[u8; 32]>) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(seed.expose());
        Self { seed, key }
    }

    /// The 32 bytes everything else follows from.
    pub fn seed(&self) -> &Secret<[u8; 32]> {
        &self.seed
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key())
    }

    /// Signs `payload` as a document of `payload_type`; deterministic.
    pub fn sign(&self, payload_type: &str, payload: &[u8]) -> DsseEnvelope {
        DsseEnvelope::signed(
            payload_type,
            payload,
            self.public().key_id(),
            self.sign_pae(payload_type, payload).to_vec(),
        )
    }

    /// The bare signature over the pre-authentication encoding of type and payload.
    pub(crate) fn sign_pae(&self, payload_type: &str, payload: &[u8]) -> [u8; 64] {
        self.key.sign(&dsse::pae(payload_type, payload)).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(for {})", self.public())
    }
}

/// An ed25519 public key; shown and stored as `ed25519:` and 44 characters of base64.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Accepts 32 bytes that are the one encoding of a point of full order; weak keys verify anything.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeysError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_error| KeysError::InvalidPublicKey)?;
        if key.is_weak() || key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeysError::InvalidPublicKey);
        }
        Ok(Self(key))
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// A short name for people and hints: 16 hexadecimal digits, the start of the key's SHA-256. Proves nothing.
    pub fn key_id(&self) -> String {
        let digest = Digest::of(self.as_bytes());
        hex::encode(digest.as_bytes().get(..KEY_ID_BYTES).unwrap_or_default())
    }

    /// Whether `signature` is this key's signature of type and payload.
    pub(crate) fn verifies_pae(&self, payload_type: &str, payload: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature).is_ok_and(|signature| {
            self.0.verify_strict(&dsse::pae(payload_type, payload), &signature).is_ok()
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", encoding::encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeysError;

    /// Accepts white space around the text, as a file has it.
    fn from_str(text: &str) -> Result<Self, KeysError> {
        let bytes = text
            .trim()
            .strip_prefix(PREFIX)
            .and_then(encoding::decode)
            .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
            .ok_or(KeysError::InvalidPublicKey)?;
        Self::from_bytes(&bytes)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeysError;

    fn try_from(text: String) -> Result<Self, KeysError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}
