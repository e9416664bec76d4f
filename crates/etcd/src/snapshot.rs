//! A snapshot: a database file and, behind it, the SHA-256 of its bytes.
//!
//! In: a file. Out: the database inside, only if the digest is there and right: a digest that is absent or wrong is its
//! own error, so that nothing is ever stored or restored from a snapshot that was cut short.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use lifeboat_base::digest::{Digest, Hasher};

use crate::bolt::Bolt;
use crate::error::EtcdError;

/// The digest at the end of a snapshot.
pub const TRAILER_BYTES: u64 = 32;
/// The length of a database is a multiple of this, so what is left over tells whether a digest follows.
const SECTOR_BYTES: u64 = 512;
const BUFFER_BYTES: usize = 256 * 1024;

/// A snapshot whose digest was found right, and whose database has the length it says.
#[derive(Clone, Debug)]
pub struct Snapshot {
    file: Arc<File>,
    length_bytes: u64,
    digest: Digest,
    bolt: Bolt,
}

impl Snapshot {
    /// Reads all of `file` once. `cancelled` is asked every 256 KiB.
    pub fn open(file: Arc<File>, cancelled: &dyn Fn() -> bool) -> Result<Self, EtcdError> {
        let length_bytes = file.metadata().map_err(EtcdError::doing("look at the snapshot"))?.len();
        let body_bytes = match length_bytes.checked_sub(TRAILER_BYTES) {
            Some(body_bytes) if body_bytes > 0 && body_bytes.is_multiple_of(SECTOR_BYTES) => body_bytes,
            _ => return Err(EtcdError::NoDigest { length_bytes }),
        };
        let (mut body, mut whole) = (Hasher::new(), Hasher::new());
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut reader = At { file: &file, at: 0 };
        let mut left = body_bytes;
        while left > 0 {
            if cancelled() {
                return Err(EtcdError::Cancelled);
            }
            let wanted = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            reader.read_exact(part).map_err(EtcdError::doing("read the snapshot"))?;
            body.update(part);
            whole.update(part);
            left -= part.len() as u64;
        }
        let mut trailer = [0; 32];
        reader.read_exact(&mut trailer).map_err(EtcdError::doing("read the snapshot"))?;
        if *body.finish().as_bytes() != trailer {
            return Err(EtcdError::WrongDigest);
        }
        whole.update(&trailer);
        let bolt = Bolt::open(Arc::clone(&file), body_bytes)?;
        Ok(Self { file, length_bytes, digest: whole.finish(), bolt })
    }

    /// The database inside.
    pub fn database(&self) -> &Bolt {
        &self.bolt
    }

    /// The SHA-256 of the whole file, its own digest included.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The length of the whole file.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Reads the whole file from its start.
    pub fn reader(&self) -> impl Read + Send + 'static {
        SnapshotReader { file: Arc::clone(&self.file), at: 0, end: self.length_bytes }
    }
}

/// Reads a file by position, so that its handle can be shared.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

struct SnapshotReader {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let count = self.file.read_at(part, self.at)?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

/// Appends the digest that a snapshot ends with to the database in the first `length_bytes` of `file`, and syncs it.
pub fn seal(file: &File, length_bytes: u64) -> Result<(), EtcdError> {
    let (digest, _) = lifeboat_base::digest::digest_of_reader(At { file, at: 0 }.take(length_bytes))
        .map_err(EtcdError::doing("read a snapshot"))?;
    file.set_len(length_bytes)
        .and_then(|()| file.write_all_at(digest.as_bytes(), length_bytes))
        .and_then(|()| file.sync_all())
        .map_err(EtcdError::doing("write a snapshot"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::tests::sample;

    fn reopened(bytes: &[u8]) -> Result<Snapshot, EtcdError> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Snapshot::open(Arc::new(file), &|| false)
    }

    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        sample(300).reader().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_snapshot_gives_the_very_bytes_it_was_read_from() {
        let bytes = bytes();
        let snapshot = reopened(&bytes).unwrap();
        assert_eq!(snapshot.digest(), Digest::of(&bytes));
        assert_eq!(snapshot.length_bytes(), bytes.len() as u64);
        let mut again = Vec::new();
        snapshot.reader().read_to_end(&mut again).unwrap();
        assert_eq!(again, bytes);
    }

    #[test]
    fn a_snapshot_without_its_digest_is_refused() {
        let bytes = bytes();
        let error = reopened(&bytes[..bytes.len() - 32]).unwrap_err();
        assert!(matches!(error, EtcdError::NoDigest { .. }), "{error}");
        assert_eq!(error.kind(), lifeboat_base::failure::FailureKind::Refused);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        let bytes = bytes();
        // All cuts near the borders of sectors and pages, and a step that meets every remainder.
        for end in (0..bytes.len()).filter(|end| end % 37 == 0 || end % 512 < 34 || end % 512 > 478) {
            assert!(reopened(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in (0..bytes.len()).step_by(61).chain(bytes.len() - 33..bytes.len()) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(matches!(reopened(&bytes), Err(EtcdError::WrongDigest)), "flipped at {at}");
        }
    }

    #[test]
    fn a_right_digest_of_the_wrong_thing_is_refused() {
        let mut bytes = vec![7; 4096];
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        assert!(matches!(reopened(&bytes), Err(EtcdError::Corrupt(_))));
    }
}
