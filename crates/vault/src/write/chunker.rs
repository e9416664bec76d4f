//! Where files are cut: at content-defined, keyed points, or at multiples of a page.
//!
//! Memory: one buffer (`BUFFER_BYTES`), reused from file to file.

use std::io::{self, Read};

use fastcdc::v2020::{Normalization, cut_gear, select_masks};
use lifeboat_base::capture::Layout;
use lifeboat_base::digest::Digest;

/// The smallest content-defined chunk, unless a file ends.
pub const MIN_CHUNK_BYTES: usize = 512 * 1024;
/// The size content-defined chunks have on average.
pub const AVERAGE_CHUNK_BYTES: usize = 1024 * 1024;
/// The largest chunk.
pub const MAX_CHUNK_BYTES: usize = 8 * 1024 * 1024;
/// The smallest chunk of a paged file.
pub const MIN_PAGED_CHUNK_BYTES: usize = 64 * 1024;
/// The smallest chunk an adapter may ask for.
pub const MIN_FIXED_CHUNK_BYTES: usize = 4 * 1024;
/// A paged file has about as many chunks at most, unless it is larger than 128 GiB.
pub const TARGET_PAGED_CHUNKS: u64 = 16_384;

const BUFFER_BYTES: usize = 2 * MAX_CHUNK_BYTES;

/// The chunk size of a paged file: a power of two, a multiple of the page, growing with the file.
pub fn paged_chunk_bytes(size_hint: u64, page_bytes: u32) -> Option<usize> {
    let page = page_bytes as usize;
    if !page.is_power_of_two() || page > MAX_CHUNK_BYTES {
        return None;
    }
    let mut chunk = MIN_PAGED_CHUNK_BYTES;
    while chunk < MAX_CHUNK_BYTES && size_hint / chunk as u64 > TARGET_PAGED_CHUNKS {
        chunk *= 2;
    }
    Some(chunk.max(page))
}

/// A chunk size the adapter chose; nothing if a vault does not cut so.
fn fixed_chunk_bytes(chunk_bytes: u32) -> Option<usize> {
    let chunk = chunk_bytes as usize;
    (chunk.is_power_of_two() && (MIN_FIXED_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&chunk)).then_some(chunk)
}

/// Cuts files into chunks. The cut points depend on the vault's seed, so that chunk sizes give nothing away.
pub struct Chunker {
    buffer: Vec<u8>,
    gear: Vec<u64>,
    gear_shifted: Vec<u64>,
    masks: (u64, u64),
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chunker")
    }
}

/// Why cutting a file ended early.
#[derive(Debug)]
pub enum CutError<E> {
    /// The file cannot be read.
    Read(io::Error),
    /// The receiver of the chunks wants no more.
    Receiver(E),
}

impl Chunker {
    /// A chunker whose table is derived from `seed` by SHA-256, one independent value per byte.
    pub fn new(seed: u64) -> Self {
        let gear: Vec<u64> = (0..=u8::MAX)
            .map(|byte| {
                let text = [b"lifeboat.chunker/v1".as_slice(), &seed.to_be_bytes(), &[byte]].concat();
                let digest = Digest::of(&text);
                digest.as_bytes().first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
            })
            .collect();
        let gear_shifted = gear.iter().map(|value| value << 1).collect();
        let masks = select_masks(AVERAGE_CHUNK_BYTES, Normalization::Level1);
        Self { buffer: vec![0; BUFFER_BYTES], gear, gear_shifted, masks }
    }

    /// Reads `reader` to its end and hands every chunk to `receive`. Gives the number of bytes.
    pub fn cut<E>(
        &mut self,
        reader: &mut dyn Read,
        size_hint: u64,
        layout: Layout,
        mut receive: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, CutError<E>> {
        let fixed = match layout {
            Layout::Stream => None,
            Layout::Pages { page_bytes } => paged_chunk_bytes(size_hint, page_bytes),
            Layout::Fixed { chunk_bytes } => fixed_chunk_bytes(chunk_bytes),
        };
        let (mut total, mut start, mut end, mut ended) = (0u64, 0usize, 0usize, false);
        loop {
            while !ended && end - start < MAX_CHUNK_BYTES {
                if start > 0 && end == self.buffer.len() {
                    self.buffer.copy_within(start..end, 0);
                    end -= start;
                    start = 0;
                }
                match reader.read(self.buffer.get_mut(end..).unwrap_or_default()) {
                    Ok(0) => ended = true,
                    Ok(count) => end += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(CutError::Read(error)),
                }
            }
            let waiting = self.buffer.get(start..end).unwrap_or_default();
            if waiting.is_empty() {
                return Ok(total);
            }
            let length = match fixed {
                Some(chunk) => chunk.min(waiting.len()),
                None => self.content_cut(waiting),
            };
            receive(waiting.get(..length).unwrap_or(waiting)).map_err(CutError::Receiver)?;
            start += length;
            total += length as u64;
        }
    }

    fn content_cut(&self, waiting: &[u8]) -> usize {
        let (small, large) = self.masks;
        let (_, length) = cut_gear(
            waiting,
            MIN_CHUNK_BYTES,
            AVERAGE_CHUNK_BYTES,
            MAX_CHUNK_BYTES,
            small,
            large,
            small << 1,
            large << 1,
            &self.gear,
            &self.gear_shifted,
        );
        // A cut of nothing would never end; the library does not make one.
        if length == 0 { waiting.len().min(MAX_CHUNK_BYTES) } else { length }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks(seed: u64, data: &[u8], layout: Layout, step: usize) -> Vec<Vec<u8>> {
        struct Slow<'a>(&'a [u8], usize);
        impl Read for Slow<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let limit = self.1.min(into.len());
                self.0.read(&mut into[..limit])
            }
        }
        let mut all = Vec::new();
        let total = Chunker::new(seed)
            .cut(&mut Slow(data, step), data.len() as u64, layout, |chunk| {
                all.push(chunk.to_vec());
                Ok::<(), ()>(())
            })
            .unwrap();
        assert_eq!(total, data.len() as u64);
        all
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[4]
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn chunks_join_to_the_file_however_it_is_read(
            length in 0usize..20_000_000, step in 1_000usize..9_000_000, paged in any::<bool>()
        ) {
            let data = noise(length);
            let layout = if paged { Layout::Pages { page_bytes: 4096 } } else { Layout::Stream };
            let cut = chunks(1, &data, layout, step);
            prop_assert!(cut.concat() == data);
            prop_assert_eq!(cut, chunks(1, &data, layout, usize::MAX));
        }
    }

    #[test]
    fn cuts_depend_on_the_seed_and_stay_in_bounds() {
        let data = noise(24 * 1024 * 1024);
        let one = chunks(1, &data, Layout::Stream, usize::MAX);
        let two = chunks(2, &data, Layout::Stream, usize::MAX);
        assert_ne!(one, two);
        for chunk in one.iter().take(one.len() - 1) {
            assert!((MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&chunk.len()));
        }
        assert!((12..48).contains(&one.len()), "{} chunks", one.len());
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let data = noise(24 * 1024 * 1024);
        let mut edited = data.clone();
        edited.insert(5_000_000, 7);
        let before = chunks(1, &data, Layout::Stream, usize::MAX);
        let after = chunks(1, &edited, Layout::Stream, usize::MAX);
        assert!(after.iter().filter(|chunk| !before.contains(chunk)).count() <= 3);
    }

    #[test]
    fn paged_chunks_grow_with_the_file_and_hold_whole_pages() {
        assert_eq!(paged_chunk_bytes(0, 4096), Some(64 * 1024));
        assert_eq!(paged_chunk_bytes(1 << 30, 4096), Some(64 * 1024));
        assert_eq!(paged_chunk_bytes((1 << 30) + (64 << 10), 4096), Some(128 * 1024));
        assert_eq!(paged_chunk_bytes(1 << 50, 4096), Some(MAX_CHUNK_BYTES));
        assert_eq!(paged_chunk_bytes(0, 1 << 20), Some(1 << 20));
        assert_eq!(paged_chunk_bytes(0, 3000), None);
    }
}
