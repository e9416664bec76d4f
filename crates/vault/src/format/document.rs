//! Sealed JSON documents: index files and snapshots, compressed, named by the SHA-256 of their sealed bytes.

use std::io::Read;

use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::Entropy;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crypto::MasterKey;
use crate::error::VaultError;
use crate::storage::ObjectName;

/// The largest document read, decompressed.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 512 * 1024 * 1024;
/// Marks compressed documents; uncompressed ones start with `{` or `[`.
const COMPRESSED: u8 = 2;
const ZSTD_LEVEL: i32 = 3;

/// The sealed bytes of `document` and their name.
pub(crate) fn seal(
    key: &MasterKey,
    document: &impl Serialize,
    entropy: &dyn Entropy,
) -> Result<(Digest, Vec<u8>), VaultError> {
    let json = serde_json::to_vec(document)
        .map_err(|error| VaultError::Internal(format!("a document cannot be written as JSON: {error}")))?;
    let compressed = zstd::bulk::compress(&json, ZSTD_LEVEL)
        .map_err(|error| VaultError::Internal(format!("compression failed: {error}")))?;
    let mut plain = Vec::with_capacity(compressed.len() + 1);
    plain.push(COMPRESSED);
    plain.extend_from_slice(&compressed);
    let sealed = key.seal(&plain, entropy);
    Ok((Digest::of(&sealed), sealed))
}

/// Opens, decompresses and parses the sealed `bytes` of `object`.
pub(crate) fn open<T: DeserializeOwned>(
    key: &MasterKey,
    object: &ObjectName,
    bytes: &[u8],
) -> Result<T, VaultError> {
    let plain = key.open(bytes).map_err(|error| VaultError::damaged(object, error.to_string()))?;
    let json = match plain.split_first() {
        Some((&COMPRESSED, compressed)) => {
            decompress(compressed).map_err(|error| VaultError::damaged(object, error.to_string()))?
        }
        _ => plain,
    };
    serde_json::from_slice(&json)
        .map_err(|error| VaultError::damaged(object, format!("not the document it should be: {error}")))
}

fn decompress(compressed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut json = Vec::new();
    let mut decoder = zstd::stream::read::Decoder::new(compressed)?.take(MAX_DOCUMENT_BYTES + 1);
    decoder.read_to_end(&mut json)?;
    if json.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(std::io::Error::other("larger than any document of a vault"));
    }
    Ok(json)
}
