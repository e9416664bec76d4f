//! The file format of bbolt, in which etcd keeps everything: a B+tree of pages, read without trust and written anew.
//!
//! In: a file. Out: its buckets and their pairs in order, or a typed error; never a panic, whatever the bytes are.

mod build;
mod read;

use crate::error::EtcdError;

pub use build::Builder;
pub use read::{Bolt, Bucket};

/// Takes pairs, one after the other; an error ends it.
pub type Pairs<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), EtcdError> + 'a;

/// Marks a page of pointers to other pages.
const BRANCH: u16 = 0x01;
/// Marks a page of pairs.
const LEAF: u16 = 0x02;
/// Marks one of the two pages that say where everything is.
const META: u16 = 0x04;
/// Marks the list of free pages.
const FREELIST: u16 = 0x10;
/// Marks a pair of the root whose value is a bucket.
const BUCKET: u32 = 0x01;

/// What a page starts with: number (8 bytes), flags (2), count (2), further pages (4).
const HEADER_BYTES: usize = 16;
/// What stands in front of the pairs of a page, for each of them.
const ELEMENT_BYTES: usize = 16;
/// What a bucket that has pages of its own is: root page and sequence.
const BUCKET_BYTES: usize = 16;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// What comes after the header of a meta page, its checksum left out.
const META_BYTES: usize = 56;

/// The checksum of a meta page.
fn fnv64a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
