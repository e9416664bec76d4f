//! Which chunk goes where: collected for a window of files, sorted by pack and offset, joined into ranges to fetch.

use std::sync::atomic::AtomicU64;

use lifeboat_base::capture::Meta;
use lifeboat_base::path::RelPath;

use crate::index::Location;

/// Chunks planned before they are fetched: about 16 MiB of memory.
pub(super) const WINDOW_CHUNKS: usize = 131_072;
/// Files planned before their chunks are fetched: about 16 MiB of memory.
pub(super) const WINDOW_FILES: usize = 16_384;
/// The most one fetch asks for, unless a single blob is larger.
const RANGE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes between two blobs that are fetched rather than asked around.
pub(super) const GAP_BYTES: u64 = 256 * 1024;
/// The same where most of what lies between is there already.
pub(super) const OVER_GAP_BYTES: u64 = 4 * 1024;

/// A file under way.
pub(super) struct PlannedFile {
    pub path: RelPath,
    pub meta: Meta,
    /// Chunks that are still missing.
    pub missing: AtomicU64,
    /// It was there before and may hold anything, so that zeros have to be written.
    pub over: bool,
}

/// One chunk's place in one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub location: Location,
    /// Position in the window's list of files.
    pub file: u32,
    pub offset: u64,
}

/// Targets that one fetch serves, in the order of the pack.
#[derive(Debug)]
pub(super) struct Fetch {
    pub pack: u32,
    pub start: u64,
    pub end: u64,
    /// Range in the sorted list of targets.
    pub targets: std::ops::Range<usize>,
}

/// Sorts the targets and joins neighbours with at most `gap_bytes` between them into fetches.
pub(super) fn fetches(targets: &mut [Target], gap_bytes: u64) -> Vec<Fetch> {
    targets.sort_unstable_by_key(|target| (target.location.pack, target.location.blob.offset));
    let mut all: Vec<Fetch> = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        let start = u64::from(target.location.blob.offset);
        let end = start + u64::from(target.location.blob.length);
        if let Some(last) = all.last_mut()
            && last.pack == target.location.pack
            && start <= last.end + gap_bytes
            && end.max(last.end) - last.start <= RANGE_BYTES
        {
            last.end = last.end.max(end);
            last.targets.end = number + 1;
        } else {
            all.push(Fetch { pack: target.location.pack, start, end, targets: number..number + 1 });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use lifeboat_base::digest::Digest;
    use proptest::prelude::*;

    use super::*;
    use crate::format::index::{BlobKind, IndexBlob};

    fn target(pack: u32, offset: u32, length: u32) -> Target {
        let blob = IndexBlob {
            id: Digest::of(b""),
            kind: BlobKind::Data,
            offset,
            length,
            uncompressed_length: None,
        };
        Target { location: Location { pack, blob }, file: 0, offset: 0 }
    }

    proptest! {
        #[test]
        fn every_target_is_inside_exactly_one_fetch(
            places in prop::collection::vec((0u32..4, 0u32..40_000_000, 1u32..3_000_000), 0..100)
        ) {
            let mut targets: Vec<_> = places.iter().map(|&(p, o, l)| target(p, o, l)).collect();
            let fetches = fetches(&mut targets, GAP_BYTES);
            let mut next = 0;
            for fetch in &fetches {
                prop_assert_eq!(fetch.targets.start, next);
                next = fetch.targets.end;
                prop_assert!(fetch.end - fetch.start <= RANGE_BYTES);
                for target in &targets[fetch.targets.clone()] {
                    prop_assert_eq!(target.location.pack, fetch.pack);
                    prop_assert!(fetch.start <= u64::from(target.location.blob.offset));
                    let end = u64::from(target.location.blob.offset) + u64::from(target.location.blob.length);
                    prop_assert!(end <= fetch.end);
                }
            }
            prop_assert_eq!(next, targets.len());
        }
    }
}
