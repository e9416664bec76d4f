//! Data to measure with: the same bytes on every machine, part text, part noise, part copies, in large and small files.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

const BLOCK_BYTES: usize = 4096;
const LARGE_FILE_BYTES: u64 = 32 << 20;
const SMALL_FILE_MAX_BYTES: u64 = 256 << 10;
const FILES_PER_FOLDER_COUNT: u64 = 100;

/// A stream of numbers that is the same everywhere (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Eight bytes at a time; `block` holds a multiple of eight.
    fn noise(&mut self, block: &mut [u8]) {
        for piece in block.chunks_exact_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes());
        }
    }

    /// Lines as a log has them: few words, changing numbers.
    fn lines(&mut self, block: &mut [u8]) {
        const WORDS: [&str; 8] =
            ["GET", "POST", "ok", "error", "/orders/", "/sessions/", "user=", "latency_ms="];
        let mut text = String::with_capacity(block.len() + 32);
        while text.len() < block.len() {
            let number = self.next();
            let word = WORDS.iter().cycle().nth(usize::try_from(number % 8).unwrap_or(0)).copied();
            text.push_str(word.unwrap_or_default());
            text.push_str(&(number >> 40).to_string());
            text.push(if number.is_multiple_of(11) { '\n' } else { ' ' });
        }
        for (byte, letter) in block.iter_mut().zip(text.bytes()) {
            *byte = letter;
        }
    }
}

fn write_file(path: &Path, size_bytes: u64, seed: u64, is_text: bool) -> io::Result<()> {
    let mut numbers = Numbers(seed | 1);
    let mut file = BufWriter::new(File::create(path)?);
    let mut block = [0u8; BLOCK_BYTES];
    let mut left = size_bytes;
    while left > 0 {
        if is_text {
            numbers.lines(&mut block);
        } else {
            numbers.noise(&mut block);
        }
        let count = usize::try_from(left).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        file.write_all(block.get(..count).unwrap_or(&block))?;
        left -= count as u64;
    }
    file.flush()
}

/// Fills the new folder `dir` with about `total_bytes` and says how many files that made: half of the bytes in large
/// files; half of all files text, half noise; one small file in ten a copy of an earlier one.
pub(super) fn generate(dir: &Path, total_bytes: u64) -> io::Result<u64> {
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let (mut written_bytes, mut count) = (0u64, 0u64);
    fs::create_dir_all(dir.join("large"))?;
    while written_bytes < total_bytes / 2 {
        let size_bytes = LARGE_FILE_BYTES.min(total_bytes / 2 - written_bytes);
        write_file(&dir.join(format!("large/{count}")), size_bytes, numbers.next(), count.is_multiple_of(2))?;
        written_bytes += size_bytes;
        count += 1;
    }
    let mut earlier = (1u64, 1u64);
    while written_bytes < total_bytes {
        let folder = dir.join(format!("small/{}", count / FILES_PER_FOLDER_COUNT));
        fs::create_dir_all(&folder)?;
        let is_copy = count.is_multiple_of(10);
        let fresh = (numbers.next() % SMALL_FILE_MAX_BYTES + 1, numbers.next());
        let (size_bytes, seed) = if is_copy { earlier } else { fresh };
        write_file(&folder.join(count.to_string()), size_bytes, seed, seed.is_multiple_of(2))?;
        earlier = (size_bytes, seed);
        written_bytes += size_bytes;
        count += 1;
    }
    Ok(count)
}

/// The content of every file below `path`.
pub(super) fn size_bytes(path: &Path) -> io::Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    fs::read_dir(path)?.map(|entry| size_bytes(&entry?.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_the_same_every_time_and_about_as_large_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let asked_bytes = 3 << 20;
        let count = generate(&one, asked_bytes).unwrap();
        assert!(count > 5);
        assert_eq!(generate(&two, asked_bytes).unwrap(), count);
        let size_bytes = size_bytes(&one).unwrap();
        assert!((asked_bytes..asked_bytes + SMALL_FILE_MAX_BYTES).contains(&size_bytes), "{size_bytes}");
        crate::command::Task::new("diff --recursive").word(&one).word(&two).run(dir.path()).unwrap();
    }
}
