//! Sealing and opening: AES-256 in counter mode with Poly1305-AES, `nonce || ciphertext || tag`, as the restic format
//! defines it, with the repository's master key.

use aes256ctr_poly1305aes::Aes256CtrPoly1305Aes;
use aes256ctr_poly1305aes::aead::{AeadInPlace, generic_array::GenericArray};
use lifeboat_base::entropy::Entropy;
use lifeboat_base::secret::Secret;

/// Bytes of the nonce in front of every sealed object.
pub const NONCE_BYTES: usize = 16;
/// Bytes of the tag behind it.
pub const TAG_BYTES: usize = 16;
/// Bytes sealing adds.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;
/// Bytes of a master key: 32 for AES-256, 16 for the AES key of the authenticator, 16 for its `r`.
pub const KEY_BYTES: usize = 64;

/// The bytes were altered, cut, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not authentic: altered, cut short, or sealed under another key")]
pub struct NotAuthentic;

/// The key every object of a vault is sealed under. Never printed.
#[derive(Clone)]
pub struct MasterKey(Secret<[u8; KEY_BYTES]>);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey([secret])")
    }
}

impl MasterKey {
    /// A fresh random key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0u8; KEY_BYTES];
        entropy.fill(&mut bytes);
        Self::from_bytes(Secret::new(bytes))
    }

    /// The key made of `encrypt || mac.k || mac.r`.
    pub fn from_bytes(bytes: Secret<[u8; KEY_BYTES]>) -> Self {
        Self(bytes)
    }

    pub(crate) fn expose(&self) -> &[u8; KEY_BYTES] {
        self.0.expose()
    }

    fn cipher(&self) -> Aes256CtrPoly1305Aes {
        Aes256CtrPoly1305Aes::new(GenericArray::from_slice(self.0.expose()))
    }

    /// Seals `plain` under a fresh nonce: [`OVERHEAD_BYTES`] longer than `plain`.
    pub fn seal(&self, plain: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
        sealed.resize(NONCE_BYTES, 0);
        entropy.fill(&mut sealed);
        sealed.extend_from_slice(plain);
        self.seal_in_place(&mut sealed);
        sealed
    }

    /// Seals what follows the first [`NONCE_BYTES`] of `buffer`, which already hold a fresh nonce.
    #[expect(
        clippy::expect_used,
        reason = "the cipher refuses only inputs above 2^36 bytes, more than memory holds; going on would store plaintext"
    )]
    pub(crate) fn seal_in_place(&self, buffer: &mut Vec<u8>) {
        let (nonce, plain) = buffer.split_at_mut(NONCE_BYTES);
        let tag = self
            .cipher()
            .encrypt_in_place_detached(GenericArray::from_slice(nonce), &[], plain)
            .expect("the cipher takes any input that fits into memory");
        buffer.extend_from_slice(&tag);
    }

    /// Opens what [`MasterKey::seal`] made.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let body_bytes = sealed.len().checked_sub(OVERHEAD_BYTES).ok_or(NotAuthentic)?;
        let (nonce, rest) = sealed.split_at(NONCE_BYTES);
        let (body, tag) = rest.split_at(body_bytes);
        let mut plain = body.to_vec();
        self.cipher()
            .decrypt_in_place_detached(
                GenericArray::from_slice(nonce),
                &[],
                &mut plain,
                GenericArray::from_slice(tag),
            )
            .map_err(|_refused| NotAuthentic)?;
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::entropy::OsEntropy;

    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let key = MasterKey::generate(&OsEntropy);
        let sealed = key.seal(b"the only copy", &OsEntropy);
        assert_eq!(key.open(&sealed).unwrap(), b"the only copy");
        for index in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[index] ^= 1;
            assert_eq!(key.open(&altered), Err(NotAuthentic), "byte {index}");
            assert_eq!(key.open(&sealed[..index]), Err(NotAuthentic), "cut at {index}");
        }
        assert_eq!(MasterKey::generate(&OsEntropy).open(&sealed), Err(NotAuthentic));
    }

    #[test]
    fn two_seals_of_the_same_bytes_differ() {
        let key = MasterKey::generate(&OsEntropy);
        assert_ne!(key.seal(b"x", &OsEntropy), key.seal(b"x", &OsEntropy));
        assert_eq!(key.open(&key.seal(b"", &OsEntropy)).unwrap(), b"");
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = MasterKey::from_bytes(Secret::new([0xab; KEY_BYTES]));
        assert_eq!(format!("{key:?}"), "MasterKey([secret])");
    }
}
