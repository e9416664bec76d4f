//! Base64 text inside JSON (standard alphabet, padded, strict) and the one authenticated cipher of this crate.
//!
//! In: bytes and keys. Out: text, ciphertexts, plaintexts that are wiped when dropped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use serde::{Deserialize as _, Deserializer, Serializer, de};
use zeroize::Zeroizing;

use lifeboat_base::entropy::Entropy;
use lifeboat_base::secret::Secret;

/// The nonce size of ChaCha20-Poly1305 (RFC 8439) in bytes.
pub(crate) const NONCE_BYTES: usize = 12;

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// One text per byte string: wrong padding, other alphabets and stray trailing bits are refused.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Decodes exactly 32 secret bytes; the intermediate copy is wiped.
pub(crate) fn decode_secret(text: &str) -> Option<Secret<[u8; 32]>> {
    let bytes = Zeroizing::new(decode(text)?);
    let array: [u8; 32] = bytes.as_slice().try_into().ok()?;
    Some(Secret::new(array))
}

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&encode(bytes))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    decode(&text).ok_or_else(|| de::Error::custom("not padded standard base64"))
}

/// Random bytes that are not secret, such as nonces and salts.
pub(crate) fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0u8; N];
    entropy.fill(&mut bytes);
    bytes
}

/// Random bytes that are a key.
pub(crate) fn random_secret(entropy: &dyn Entropy) -> Secret<[u8; 32]> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    entropy.fill(bytes.as_mut_slice());
    Secret::new(*bytes)
}

/// ChaCha20-Poly1305; the 16-byte tag follows the ciphertext. Nothing only for messages beyond 256 GiB.
pub(crate) fn encrypt(
    key: &Secret<[u8; 32]>,
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    msg: &[u8],
) -> Option<Vec<u8>> {
    let cipher = ChaCha20Poly1305::new(key.expose().into());
    cipher.encrypt(&Nonce::from(nonce), Payload { msg, aad }).ok()
}

/// The plaintext, if key, nonce, associated data and ciphertext belong together.
pub(crate) fn decrypt(
    key: &Secret<[u8; 32]>,
    nonce: &[u8],
    aad: &[u8],
    msg: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
    let cipher = ChaCha20Poly1305::new(key.expose().into());
    cipher.decrypt(&Nonce::from(nonce), Payload { msg, aad }).ok().map(Zeroizing::new)
}
