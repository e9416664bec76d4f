//! Reads one file as it was when it was opened, hashing what it gives.
//!
//! In: an open file and its status. Out: at most as many bytes as it had then, zeros for holes without touching the
//! disk, and, shared with the capture, the digest and whether the file changed meanwhile.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_base::digest::{Digest, Hasher};
use rustix::fs::{SeekFrom, fstat, seek};
use rustix::io::Errno;

use super::node::Node;

/// What a reader tells the capture that made it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadOutcome {
    /// Set when the reader came to its end: digest, bytes, and the status of the file at that moment.
    pub(crate) done: Option<(Digest, u64, Node)>,
}

/// Shared between a reader, which the vault owns, and the capture.
pub(crate) type SharedOutcome = Arc<Mutex<ReadOutcome>>;

/// Takes what is known so far.
pub(crate) fn outcome_of(shared: &SharedOutcome) -> ReadOutcome {
    shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A file being read.
pub(crate) struct FileReader {
    file: File,
    at: u64,
    /// The size when it was opened; what is appended later is not read.
    end: u64,
    /// Bytes before this offset are known to be data, once `at` is below it.
    data_end: u64,
    /// Bytes before this offset are known to be a hole, once `at` is below it.
    hole_end: u64,
    sparse: bool,
    hasher: Option<Hasher>,
    outcome: SharedOutcome,
}

impl FileReader {
    /// Reads `file`, whose status `node` was taken after it was opened.
    pub(crate) fn new(file: File, node: &Node) -> (Self, SharedOutcome) {
        let outcome = SharedOutcome::default();
        let reader = Self {
            file,
            at: 0,
            end: node.size_bytes,
            data_end: 0,
            hole_end: 0,
            sparse: node.allocated_bytes < node.size_bytes,
            hasher: Some(Hasher::new()),
            outcome: Arc::clone(&outcome),
        };
        (reader, outcome)
    }

    /// Finds out whether the bytes at `at` are data or a hole, and up to where.
    fn look_ahead(&mut self) -> io::Result<()> {
        if !self.sparse {
            self.data_end = self.end;
            return Ok(());
        }
        let data = match seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(data) => data,
            // No data after this offset: a hole to the end, as far as the file still reaches.
            Err(Errno::NXIO) => {
                let size_bytes = Node::from_stat(&fstat(&self.file)?).size_bytes;
                self.end = self.end.min(size_bytes.max(self.at));
                self.hole_end = self.end;
                return Ok(());
            }
            // The file system does not know holes.
            Err(Errno::INVAL | Errno::NOTSUP) => {
                self.sparse = false;
                self.data_end = self.end;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if data > self.at {
            self.hole_end = data.min(self.end);
        } else {
            let hole = seek(&self.file, SeekFrom::Hole(self.at))?;
            self.data_end = hole.max(self.at + 1).min(self.end);
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(hasher) = self.hasher.take() {
            let node = Node::from_stat(&fstat(&self.file)?);
            let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
            outcome.done = Some((hasher.finish(), self.at, node));
        }
        Ok(())
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.at < self.end && self.at >= self.data_end && self.at >= self.hole_end {
            self.look_ahead()?;
        }
        if self.at >= self.end {
            self.finish()?;
            return Ok(0);
        }
        let in_hole = self.at < self.hole_end;
        let stop = if in_hole { self.hole_end } else { self.data_end };
        let room = usize::try_from(stop - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..room) else { return Ok(0) };
        let count = if in_hole {
            part.fill(0);
            room
        } else {
            self.file.read_at(part, self.at)?
        };
        if count == 0 {
            // It shrank: what is there was given.
            self.end = self.at;
            self.finish()?;
            return Ok(0);
        }
        if let (Some(hasher), Some(given)) = (&mut self.hasher, part.get(..count)) {
            hasher.update(given);
        }
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn reader_of(file: &File) -> (FileReader, SharedOutcome) {
        let file = file.try_clone().unwrap();
        let node = Node::from_stat(&fstat(&file).unwrap());
        FileReader::new(file, &node)
    }

    #[test]
    fn a_growing_file_is_read_to_its_size_at_open_and_a_shrinking_one_gives_what_is_there() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1000]).unwrap();
        let (mut reader, outcome) = reader_of(&file);
        file.write_all(&[8; 1000]).unwrap();
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        assert_eq!(content, [7; 1000]);
        let (digest, bytes, _) = outcome_of(&outcome).done.unwrap();
        assert_eq!((digest, bytes), (Digest::of(&[7; 1000]), 1000));

        let (mut reader, outcome) = reader_of(&file);
        file.set_len(10).unwrap();
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        assert_eq!(content, [7; 10]);
        assert_eq!(outcome_of(&outcome).done.unwrap().1, 10);
    }

    #[test]
    fn holes_are_zeros_at_the_start_in_the_middle_and_at_the_end() {
        const MIB: u64 = 1024 * 1024;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"one", 3 * MIB + 5).unwrap();
        file.write_all_at(b"two", 7 * MIB).unwrap();
        file.set_len(12 * MIB).unwrap();
        let (mut reader, _) = reader_of(&file);
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        let mut expected = vec![0; usize::try_from(12 * MIB).unwrap()];
        expected[3 * 1024 * 1024 + 5..][..3].copy_from_slice(b"one");
        expected[7 * 1024 * 1024..][..3].copy_from_slice(b"two");
        assert!(content == expected);
    }

    #[test]
    fn a_reader_that_is_dropped_early_tells_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1000]).unwrap();
        let (mut reader, outcome) = reader_of(&file);
        reader.read_exact(&mut [0; 1000]).unwrap();
        drop(reader);
        assert!(outcome_of(&outcome).done.is_none());
    }
}
