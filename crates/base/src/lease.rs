//! Leases on this machine: a lock file the kernel releases when its holder dies, however it dies.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::crashsafe;

/// Longest holder note read back for an error message.
const MAX_NOTE_BYTES: u64 = 256;
/// How often a lock file may be swept between opening and locking it before that is called an error.
const MAX_ATTEMPTS: u32 = 8;

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
    ///
    /// A lock file that was planted is an error and stays as it is: `InvalidInput` for a link, a second name of some
    /// file or anything but a file, `PermissionDenied` for a file of another user.
    pub fn try_acquire(path: &Path, note: &str) -> io::Result<Result<Self, HeldBy>> {
        if let Some(folder) = path.parent() {
            crashsafe::create_dir_all(folder)?;
        }
        for _attempt in 0..MAX_ATTEMPTS {
            match lock(open(path, true)?, path)? {
                Locked::Taken(mut file) => {
                    file.set_len(0)?;
                    file.write_all(format!("{note}, process {}", std::process::id()).as_bytes())?;
                    return Ok(Ok(Self { _file: file }));
                }
                Locked::Held(held) => return Ok(Err(held)),
                Locked::Swept => {}
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{} is swept again and again", path.display()),
        ))
    }

    /// As [`Lease::try_acquire`] for those who clean up: makes no file and leaves no note. Nothing if there is no
    /// lock file.
    pub fn try_take_existing(path: &Path) -> io::Result<Option<Result<Self, HeldBy>>> {
        for _attempt in 0..MAX_ATTEMPTS {
            let file = match open(path, false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            match lock(file, path)? {
                Locked::Taken(file) => return Ok(Some(Ok(Self { _file: file }))),
                Locked::Held(held) => return Ok(Some(Err(held))),
                Locked::Swept => {}
            }
        }
        Ok(None)
    }

    /// Whether an error of this type says that a lock file is not one of ours, so that a sweep leaves it alone.
    pub fn is_foreign(error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied)
    }
}

enum Locked {
    Taken(File),
    Held(HeldBy),
    /// Removed by a sweep after it was opened: a lock on it keeps nobody out.
    Swept,
}

/// Opens a lock file of ours, and nothing else: whoever may write to the folder must not aim us at another file.
fn open(path: &Path, create: bool) -> io::Result<File> {
    // Without NONBLOCK a pipe of that name would hold us up for ever.
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK).bits().cast_signed();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path);
    let refuse =
        |kind, why: &str| Err(io::Error::new(kind, format!("the lock file {} {why}", path.display())));
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return refuse(io::ErrorKind::InvalidInput, "is a symbolic link");
        }
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            return refuse(io::ErrorKind::InvalidInput, "is not a file");
        }
        other => other?,
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return refuse(io::ErrorKind::InvalidInput, "is not a file");
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return refuse(io::ErrorKind::PermissionDenied, "belongs to another user");
    }
    if meta.nlink() > 1 {
        return refuse(io::ErrorKind::InvalidInput, "is another name of some other file");
    }
    Ok(file)
}

fn lock(mut file: File, path: &Path) -> io::Result<Locked> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => match file.metadata()?.nlink() {
            0 => Ok(Locked::Swept),
            1 => Ok(Locked::Taken(file)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the lock file {} is another name of some other file", path.display()),
            )),
        },
        Err(Errno::WOULDBLOCK) => {
            let mut note = Vec::new();
            file.rewind()?;
            file.take(MAX_NOTE_BYTES).read_to_end(&mut note)?;
            Ok(Locked::Held(HeldBy(String::from_utf8_lossy(&note).into_owned())))
        }
        Err(error) => Err(error.into()),
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

    #[test]
    fn a_planted_lock_file_is_refused_and_what_it_aims_at_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        crashsafe::write_new(&precious, b"precious").unwrap();
        let link = dir.path().join("link.lock");
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        let dangling = dir.path().join("dangling.lock");
        std::os::unix::fs::symlink(dir.path().join("made-by-root"), &dangling).unwrap();
        let second = dir.path().join("second.lock");
        std::fs::hard_link(&precious, &second).unwrap();
        let folder = dir.path().join("folder.lock");
        std::fs::create_dir(&folder).unwrap();
        for path in [&link, &dangling, &second, &folder] {
            let error = Lease::try_acquire(path, "backup").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
            let error = Lease::try_take_existing(path).unwrap_err();
            assert!(Lease::is_foreign(&error), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
        assert!(!dir.path().join("made-by-root").exists());
    }

    #[test]
    fn a_sweep_neither_makes_a_lock_file_nor_writes_into_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orders.lock");
        assert!(Lease::try_take_existing(&path).unwrap().is_none());
        assert!(!path.exists());
        let first = Lease::try_acquire(&path, "backup of orders").unwrap().unwrap();
        let held = Lease::try_take_existing(&path).unwrap().unwrap().unwrap_err();
        assert!(held.0.starts_with("backup of orders, process "), "{held:?}");
        drop(first);
        let note = std::fs::read(&path).unwrap();
        assert!(Lease::try_take_existing(&path).unwrap().unwrap().is_ok());
        assert_eq!(std::fs::read(&path).unwrap(), note);
    }
}
