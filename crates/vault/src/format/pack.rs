//! Packs: sealed blobs one after another, then the sealed header that lists them, then the header's length.

use std::num::NonZeroU32;

use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::Entropy;

use super::index::{BlobKind, IndexBlob};
use crate::crypto::{MasterKey, OVERHEAD_BYTES};

/// Bytes of the length behind the header.
pub(crate) const LENGTH_BYTES: usize = 4;
/// The largest sealed header read; the format's own limit.
pub(crate) const MAX_HEADER_BYTES: u64 = 16 * 1024 * 1024;
/// The largest data blob read, decompressed.
pub(crate) const MAX_DATA_BLOB_BYTES: u64 = 64 * 1024 * 1024;
/// The largest tree blob read, decompressed: a directory of about a million entries.
pub(crate) const MAX_TREE_BLOB_BYTES: u64 = 512 * 1024 * 1024;

const PLAIN_ENTRY_BYTES: usize = 1 + 4 + 32;
const COMPRESSED_ENTRY_BYTES: usize = PLAIN_ENTRY_BYTES + 4;

fn entry_bytes(blob: &IndexBlob) -> usize {
    if blob.uncompressed_length.is_some() { COMPRESSED_ENTRY_BYTES } else { PLAIN_ENTRY_BYTES }
}

/// The size of a pack file that holds `blobs`.
pub(crate) fn file_bytes(blobs: &[IndexBlob]) -> u64 {
    let content: u64 = blobs.iter().map(|blob| u64::from(blob.length) + entry_bytes(blob) as u64).sum();
    content + (OVERHEAD_BYTES + LENGTH_BYTES) as u64
}

/// The end of a pack: sealed header and its length.
pub(crate) fn seal_header(key: &MasterKey, blobs: &[IndexBlob], entropy: &dyn Entropy) -> Vec<u8> {
    let mut plain = Vec::with_capacity(blobs.len() * COMPRESSED_ENTRY_BYTES);
    for blob in blobs {
        let kind = match blob.kind {
            BlobKind::Data => 0u8,
            BlobKind::Tree => 1,
        };
        plain.push(if blob.uncompressed_length.is_some() { kind + 2 } else { kind });
        plain.extend_from_slice(&blob.length.to_le_bytes());
        if let Some(length) = blob.uncompressed_length {
            plain.extend_from_slice(&length.get().to_le_bytes());
        }
        plain.extend_from_slice(blob.id.as_bytes());
    }
    let mut sealed = key.seal(&plain, entropy);
    // Never reached by packs of ours: `MAX_PACK_BLOBS` keeps headers far below 4 GiB.
    let length = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
    sealed.extend_from_slice(&length.to_le_bytes());
    sealed
}

/// The length of the sealed header, from a pack's last four bytes; bounded by the pack's size and the format's limit.
pub(crate) fn header_length(tail: [u8; LENGTH_BYTES], pack_bytes: u64) -> Option<usize> {
    let length = u64::from(u32::from_le_bytes(tail));
    let room = pack_bytes.checked_sub(LENGTH_BYTES as u64)?;
    (length >= OVERHEAD_BYTES as u64 && length <= room && length <= MAX_HEADER_BYTES)
        .then(|| usize::try_from(length).ok())
        .flatten()
}

/// The blobs a sealed header lists; nothing if it is not authentic or not well-formed.
pub(crate) fn open_header(key: &MasterKey, sealed: &[u8]) -> Option<Vec<IndexBlob>> {
    let plain = key.open(sealed).ok()?;
    let mut rest = plain.as_slice();
    let mut blobs = Vec::with_capacity(plain.len() / COMPRESSED_ENTRY_BYTES);
    let mut offset = 0u32;
    while let Some((&word, after)) = rest.split_first() {
        rest = after;
        let kind = match word {
            0 | 2 => BlobKind::Data,
            1 | 3 => BlobKind::Tree,
            _ => return None,
        };
        let length = u32::from_le_bytes(take(&mut rest)?);
        let uncompressed_length =
            if word >= 2 { Some(NonZeroU32::new(u32::from_le_bytes(take(&mut rest)?))?) } else { None };
        let id = Digest::from_bytes(take(&mut rest)?);
        blobs.push(IndexBlob { id, kind, offset, length, uncompressed_length });
        offset = offset.checked_add(length)?;
    }
    Some(blobs)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

/// The header of a whole pack in memory, if it and the pack's size agree.
pub(crate) fn header_of(key: &MasterKey, pack: &[u8]) -> Option<Vec<IndexBlob>> {
    let (body, tail) = pack.split_last_chunk::<LENGTH_BYTES>()?;
    let length = header_length(*tail, pack.len() as u64)?;
    let blobs = open_header(key, body.get(body.len() - length..)?)?;
    (file_bytes(&blobs) == pack.len() as u64).then_some(blobs)
}

/// Opens, decompresses and verifies one sealed blob against its id; the error says what is wrong.
pub(crate) fn open_blob(key: &MasterKey, blob: &IndexBlob, sealed: &[u8]) -> Result<Vec<u8>, String> {
    let plain = key.open(sealed).map_err(|error| error.to_string())?;
    let content = match blob.uncompressed_length {
        None => plain,
        Some(length) => {
            let limit = match blob.kind {
                BlobKind::Data => MAX_DATA_BLOB_BYTES,
                BlobKind::Tree => MAX_TREE_BLOB_BYTES,
            };
            if u64::from(length.get()) > limit {
                return Err(format!("a blob of {length} bytes is larger than any of a vault"));
            }
            zstd::bulk::decompress(&plain, length.get() as usize)
                .map_err(|error| format!("cannot be decompressed: {error}"))?
        }
    };
    if content.len() as u64 != blob.plain_bytes() {
        return Err("its length differs from the index".to_owned());
    }
    if Digest::of(&content) != blob.id {
        return Err("its content differs from its id".to_owned());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use lifeboat_base::entropy::OsEntropy;
    use proptest::prelude::*;

    use super::*;

    fn blob(kind: BlobKind, seed: u8, length: u32, plain: u32) -> IndexBlob {
        IndexBlob {
            id: Digest::of(&[seed]),
            kind,
            offset: 0,
            length,
            uncompressed_length: NonZeroU32::new(plain),
        }
    }

    proptest! {
        #[test]
        fn a_header_lists_exactly_what_was_packed(
            sizes in prop::collection::vec((any::<bool>(), 32u32..100_000, 0u32..100_000), 0..50)
        ) {
            let key = MasterKey::generate(&OsEntropy);
            let mut offset = 0;
            let blobs: Vec<_> = sizes.iter().enumerate().map(|(index, &(tree, length, plain))| {
                let kind = if tree { BlobKind::Tree } else { BlobKind::Data };
                let entry = IndexBlob { offset, ..blob(kind, u8::try_from(index).unwrap(), length, plain) };
                offset += length;
                entry
            }).collect();
            let mut pack = vec![0u8; offset as usize];
            pack.extend(seal_header(&key, &blobs, &OsEntropy));
            prop_assert_eq!(pack.len() as u64, file_bytes(&blobs));
            prop_assert_eq!(header_of(&key, &pack), Some(blobs));
        }
    }

    #[test]
    fn a_header_that_lies_about_its_length_is_refused() {
        assert_eq!(header_length(u32::MAX.to_le_bytes(), 1 << 40), None);
        assert_eq!(header_length(100u32.to_le_bytes(), 50), None);
        assert_eq!(header_length(31u32.to_le_bytes(), 500), None);
        assert_eq!(header_length(32u32.to_le_bytes(), 500), Some(32));
    }

    #[test]
    fn a_blob_stored_under_a_wrong_id_is_refused() {
        let key = MasterKey::generate(&OsEntropy);
        let sealed = key.seal(b"content", &OsEntropy);
        let mut entry = blob(BlobKind::Data, 0, u32::try_from(sealed.len()).unwrap(), 0);
        assert!(open_blob(&key, &entry, &sealed).is_err());
        entry.id = Digest::of(b"content");
        assert_eq!(open_blob(&key, &entry, &sealed).unwrap(), b"content");
    }
}
