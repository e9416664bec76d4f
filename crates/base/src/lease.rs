//! Leases on this machine: a lock file the kernel releases when its holder dies, however it dies.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::crashsafe;

/// Longest holder note read back for an error message.
const MAX_NOTE_BYTES: u64 = 256;

/// An exclusive lease; released when dropped or when the process ends.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

/// Who holds a lease that was asked for: the note they left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBy(pub String);

impl Lease {
    /// Takes the lease at `path` without waiting; `note` tells others who holds it (no secrets). The lock file stays
    /// behind when the lease ends: removing it would let two holders lock two different files.
    pub fn try_acquire(path: &Path, note: &str) -> io::Result<Result<Self, HeldBy>> {
        if let Some(folder) = path.parent() {
            crashsafe::create_dir_all(folder)?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0)?;
                file.write_all(format!("{note}, process {}", std::process::id()).as_bytes())?;
                Ok(Ok(Self { _file: file }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut note = String::new();
                file.rewind()?;
                file.take(MAX_NOTE_BYTES).read_to_string(&mut note)?;
                Ok(Err(HeldBy(note)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks/orders.lock");
        let first = Lease::try_acquire(&path, "backup of orders").unwrap().unwrap();
        let held = Lease::try_acquire(&path, "drill").unwrap().unwrap_err();
        assert!(held.0.starts_with("backup of orders, process "), "{held:?}");
        drop(first);
        assert!(Lease::try_acquire(&path, "drill").unwrap().is_ok());
    }
}
