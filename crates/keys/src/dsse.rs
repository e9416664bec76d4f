//! Signed documents in the DSSE v1 shape: `{"payloadType", "payload", "signatures": [{"keyid", "sig"}]}`.
//!
//! What is signed is the pre-authentication encoding `DSSEv1 SP LEN(type) SP type SP LEN(payload) SP payload`, so
//! the payload bytes are kept exactly and no JSON canonicalisation is needed. `payload` and `sig` are padded
//! standard base64. `keyid` is a hint and is never trusted.

use serde::{Deserialize, Serialize};

use crate::error::KeysError;
use crate::signing::PublicKey;

const WHAT: &str = "signed document";
/// More signatures than this are not looked at: each costs one verification.
const MAX_SIGNATURES: usize = 16;

/// A signed document. Reading one proves nothing; [`DsseEnvelope::verify`] does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DsseEnvelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    #[serde(with = "crate::encoding")]
    payload: Vec<u8>,
    signatures: Vec<DsseSignature>,
}

/// One signature of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DsseSignature {
    /// A hint which key to try; see [`PublicKey::key_id`].
    pub keyid: String,
    /// The raw ed25519 signature, 64 bytes.
    #[serde(with = "crate::encoding")]
    pub sig: Vec<u8>,
}

/// The pre-authentication encoding of DSSE v1.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

impl DsseEnvelope {
    pub(crate) fn signed(payload_type: &str, payload: &[u8], keyid: String, sig: Vec<u8>) -> Self {
        Self {
            payload_type: payload_type.to_owned(),
            payload: payload.to_vec(),
            signatures: vec![DsseSignature { keyid, sig }],
        }
    }

    /// The payload, if a key of `trusted` signed it as a document of `expected_type`.
    pub fn verify(&self, trusted: &[PublicKey], expected_type: &str) -> Result<Vec<u8>, KeysError> {
        self.verified_by(trusted, expected_type).map(|_key| self.payload.clone())
    }

    /// The first key of `trusted` whose signature fits, as [`DsseEnvelope::verify`] without copying the payload.
    pub fn verified_by(&self, trusted: &[PublicKey], expected_type: &str) -> Result<PublicKey, KeysError> {
        if self.payload_type != expected_type {
            return Err(KeysError::WrongPayloadType {
                found: lifeboat_base::human::printable(&self.payload_type),
                expected: expected_type.to_owned(),
            });
        }
        let fits = |key: &&PublicKey| {
            self.signatures
                .iter()
                .take(MAX_SIGNATURES)
                .any(|signature| key.verifies_pae(&self.payload_type, &self.payload, &signature.sig))
        };
        trusted.iter().find(fits).copied().ok_or(KeysError::Untrusted)
    }

    /// The payload before any check, for showing what a damaged document claims.
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// The type it claims.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The signatures it claims.
    pub fn signatures(&self) -> &[DsseSignature] {
        &self.signatures
    }

    /// The one text this crate writes: compact JSON with fields in the order above and a final newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings and vectors of strings always have a JSON form.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads any JSON of this shape; unknown and repeated fields are refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeysError> {
        serde_json::from_slice(bytes)
            .map_err(|error| KeysError::Malformed { what: WHAT, why: error.to_string() })
    }

    /// As [`DsseEnvelope::from_bytes`], and refuses every text but the one [`DsseEnvelope::to_bytes`] would write:
    /// then no byte of the file can change unnoticed once the signature and the key id are checked.
    pub fn from_exact_bytes(bytes: &[u8]) -> Result<Self, KeysError> {
        let envelope = Self::from_bytes(bytes)?;
        if envelope.to_bytes() == bytes {
            Ok(envelope)
        } else {
            Err(KeysError::Malformed { what: WHAT, why: "not written by this tool".to_owned() })
        }
    }

    /// The payload of a stored document that `key` alone signed. No byte can change unnoticed: only the text that
    /// [`DsseEnvelope::to_bytes`] writes is taken, and the key id, though only a hint, must be that of the key.
    pub fn open_exact(bytes: &[u8], key: &PublicKey, expected_type: &str) -> Result<Vec<u8>, KeysError> {
        let envelope = Self::from_exact_bytes(bytes)?;
        envelope.verified_by(&[*key], expected_type)?;
        if matches!(envelope.signatures.as_slice(), [only] if only.keyid == key.key_id()) {
            Ok(envelope.payload)
        } else {
            Err(KeysError::Malformed { what: WHAT, why: "its key id was altered".to_owned() })
        }
    }
}
