//! Index files: which pack holds which blob, where.

use std::num::NonZeroU32;

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};

use super::pack;
use crate::crypto::OVERHEAD_BYTES;

/// What a blob holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BlobKind {
    /// A piece of a file.
    Data,
    /// The list of a directory's entries.
    Tree,
}

/// One index file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexFile {
    #[serde(default, deserialize_with = "null_as_empty")]
    pub packs: Vec<IndexPack>,
    /// Packs waiting for their minimum age before they are removed; other tools of the format write these too.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub packs_to_delete: Vec<IndexPack>,
}

fn null_as_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// One pack as an index file shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexPack {
    pub id: Digest,
    #[serde(default, deserialize_with = "null_as_empty")]
    pub blobs: Vec<IndexBlob>,
    /// When it was written or marked, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Its size, where the blobs do not tell it.
    #[serde(default, rename = "size", skip_serializing_if = "Option::is_none")]
    pub stored_size_bytes: Option<u32>,
}

impl IndexPack {
    /// The size of the pack's file.
    pub(crate) fn size_bytes(&self) -> u64 {
        match self.stored_size_bytes {
            Some(size) => u64::from(size),
            None => pack::file_bytes(&self.blobs),
        }
    }
}

/// One blob inside a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexBlob {
    pub id: Digest,
    #[serde(rename = "type")]
    pub kind: BlobKind,
    pub offset: u32,
    pub length: u32,
    /// Present when the blob is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompressed_length: Option<NonZeroU32>,
}

impl IndexBlob {
    /// The size of the blob's content.
    pub(crate) fn plain_bytes(&self) -> u64 {
        match self.uncompressed_length {
            Some(length) => u64::from(length.get()),
            None => u64::from(self.length).saturating_sub(OVERHEAD_BYTES as u64),
        }
    }
}
