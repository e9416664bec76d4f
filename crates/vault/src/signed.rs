//! Documents that the vault's key signed: each content is checked once in a process, and known by its digest after that.
//!
//! Whoever plans, applies and proves a retention reads every manifest and record several times; a signature costs far more than
//! the digest. Memory: about 100 bytes for each document, up to [`MAX_KNOWN`]; further ones are checked every time. Records of
//! retention are kept as they were read as well, a few hundred bytes for each point they dropped.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_base::digest::Digest;
use lifeboat_keys::{DsseEnvelope, KeysError};

use crate::retire::Retirement;
use crate::storage::ObjectName;
use crate::vault::Vault;

/// The most documents that are known.
const MAX_KNOWN: usize = 200_000;

/// The most records of retention that are kept as they were read: each backup reads all of them several times, and they stay
/// as long as the vault.
const MAX_RECORDS: usize = 20_000;

/// What one key was found to have signed: digests of whole files, and the types they were signed as.
#[derive(Default)]
pub(crate) struct Known {
    signed: Mutex<HashSet<(Digest, &'static str)>>,
    /// Records of retention by the digest of the whole file, with the name they were found to belong under.
    retirements: Mutex<HashMap<Digest, (ObjectName, Arc<Retirement>)>>,
}

impl Known {
    fn has(&self, content: Digest, kind: &'static str) -> bool {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).contains(&(content, kind))
    }

    fn add(&self, content: Digest, kind: &'static str) {
        let mut known = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_KNOWN {
            known.insert((content, kind));
        }
    }

    pub(crate) fn retirement(&self, content: Digest, name: &ObjectName) -> Option<Arc<Retirement>> {
        let known = self.retirements.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&content).filter(|(own, _)| own == name).map(|(_, record)| Arc::clone(record))
    }

    pub(crate) fn add_retirement(&self, content: Digest, name: &ObjectName, record: &Arc<Retirement>) {
        let mut known = self.retirements.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_RECORDS {
            known.insert(content, (name.clone(), Arc::clone(record)));
        }
    }
}

impl Vault {
    /// The payload of a stored document that the key of this vault alone signed as `kind`.
    pub(crate) fn open_signed(&self, bytes: &[u8], kind: &'static str) -> Result<Vec<u8>, KeysError> {
        let content = Digest::of(bytes);
        if self.known.has(content, kind) {
            return Ok(DsseEnvelope::from_bytes(bytes)?.unverified_payload().to_vec());
        }
        let payload = DsseEnvelope::open_exact(bytes, &self.secrets.signing.public(), kind)?;
        self.known.add(content, kind);
        Ok(payload)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::vault;

    #[test]
    fn what_was_checked_once_is_known_by_its_content_and_its_type_only() {
        let vault = vault();
        let signed = vault.secrets.signing.sign("one", b"{}").to_bytes();
        for _again in 0..2 {
            assert_eq!(vault.open_signed(&signed, "one").unwrap(), b"{}");
            assert!(vault.open_signed(&signed, "two").is_err());
            for at in 0..signed.len() {
                let mut altered = signed.clone();
                altered[at] ^= 1;
                assert!(vault.open_signed(&altered, "one").is_err(), "byte {at}");
            }
        }
    }
}
