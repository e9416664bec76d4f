//! Scratch data too large for memory: written once, read back any number of times, gone with its last handle.
//!
//! The file has no name (or loses it at once), so a killed process leaves nothing behind.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::failure::{Failure, FailureKind};

/// A scratch file being written.
pub(crate) struct Spool {
    file: BufWriter<File>,
    hasher: Hasher,
    length_bytes: u64,
}

impl Spool {
    /// Opens a nameless file in the existing directory `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self, Failure> {
        let file = tempfile::tempfile_in(dir).map_err(|error| {
            Failure::io(format!("failed to open a scratch file in {}", dir.display()), error)
        })?;
        Ok(Self { file: BufWriter::new(file), hasher: Hasher::new(), length_bytes: 0 })
    }

    /// Appends `bytes`.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(write_failure)?;
        self.hasher.update(bytes);
        self.length_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Ends the writing.
    pub(crate) fn seal(self) -> Result<Sealed, Failure> {
        let Self { file, hasher, length_bytes } = self;
        let file = file.into_inner().map_err(|error| write_failure(error.into_error()))?;
        Ok(Sealed { file: Arc::new(file), length_bytes, digest: hasher.finish() })
    }
}

fn write_failure(error: io::Error) -> Failure {
    Failure::with_source(FailureKind::Internal, "failed to write scratch data", error)
}

/// A finished scratch file.
pub(crate) struct Sealed {
    file: Arc<File>,
    length_bytes: u64,
    digest: Digest,
}

impl Sealed {
    /// How much was written.
    pub(crate) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// The SHA-256 of what was written.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Reads from the start, independent of other readers.
    pub(crate) fn reader(&self) -> SpoolReader {
        SpoolReader { file: Arc::clone(&self.file), at: 0, end: self.length_bytes }
    }
}

/// Reads a [`Sealed`] file by position.
pub(crate) struct SpoolReader {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.end || buffer.is_empty() {
            return Ok(0);
        }
        match self.file.read_at(buffer, self.at)? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "scratch data is shorter than what was written",
            )),
            count => {
                self.at += count as u64;
                Ok(count)
            }
        }
    }
}
