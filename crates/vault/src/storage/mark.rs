//! Locks of files: a mark beside the objects says until when, and where the file system can, its immutable flag refuses
//! everybody else.
//!
//! The mark is written first and its date never goes back; the flag is set after it and taken off only to delete. So whatever
//! a kill leaves is locked: a mark without a flag is kept by this program alone, a flag without a mark has no known end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::time::Timestamp;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use super::file::open_itself;
use super::locks::{GovernanceBypass, Keeper, LockMode, LockTerm, Locked, ObjectLock, ObjectLocks};
use super::{FileStorage, ObjectName, Storage, StorageError};

/// The folder of marks. No object can be in it, since none starts with a dot.
pub(super) const MARKS: &str = ".locks";
/// What a mark begins with.
const MAGIC: &str = "lifeboat.lock/v1";
/// More than any mark has.
const MAX_MARK_BYTES: u64 = 1024;

/// What a mark says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    term: Option<LockTerm>,
    held: bool,
}

impl Mark {
    /// One line, and the SHA-256 of it.
    fn to_text(self) -> String {
        let (mode, until) = match self.term {
            Some(term) => (term.mode.word(), term.until.to_string()),
            None => ("none", "-".to_owned()),
        };
        let line = format!("{MAGIC} {mode} {until} {}\n", if self.held { "held" } else { "free" });
        let digest = Digest::of(line.as_bytes());
        format!("{line}{digest}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (MAGIC, mode, until, held) = (words.next()?, words.next()?, words.next()?, words.next()?) else {
            return None;
        };
        let mode = match mode {
            "none" => None,
            "governance" => Some(LockMode::Governance),
            "compliance" => Some(LockMode::Compliance),
            _ => return None,
        };
        let term = match mode {
            None => None,
            Some(mode) => Some(LockTerm { until: until.parse().ok()?, mode }),
        };
        let mark = Self { term, held: held == "held" };
        // Written again it has to be the same, its digest too: nothing else is a mark.
        (mark.to_text() == text).then_some(mark)
    }
}

/// Whether a file system answered that it, or this account, has no such flag.
fn no_flag(error: Errno) -> bool {
    [Errno::NOTTY, Errno::OPNOTSUPP, Errno::NOSYS, Errno::PERM, Errno::ACCESS, Errno::INVAL].contains(&error)
}

/// Whether the flag is set; a file system without it has none set.
fn flagged(file: &File) -> io::Result<bool> {
    match ioctl_getflags(file) {
        Ok(flags) => Ok(flags.contains(IFlags::IMMUTABLE)),
        Err(error) if no_flag(error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sets or clears the flag; gives whether it is as asked now.
fn set_flag(file: &File, on: bool) -> io::Result<bool> {
    let changed = ioctl_getflags(file).and_then(|mut flags| {
        if flags.contains(IFlags::IMMUTABLE) != on {
            flags.set(IFlags::IMMUTABLE, on);
            ioctl_setflags(file, flags)?;
        }
        Ok(())
    });
    match changed {
        Ok(()) => {}
        Err(error) if no_flag(error) => {}
        Err(error) => return Err(error.into()),
    }
    // Some file systems take the call and forget it.
    Ok(flagged(file)? == on)
}

impl FileStorage {
    fn mark_path(&self, name: &ObjectName) -> Result<PathBuf, StorageError> {
        let relative = Path::new(MARKS).join(name.to_path());
        let folder = relative.parent().unwrap_or(Path::new(MARKS));
        self.no_links(folder).map_err(|error| self.error(name.as_str(), error))?;
        Ok(self.root().join(relative))
    }

    /// What the mark of an object says, or why that is not known.
    fn mark(&self, name: &ObjectName) -> Result<Result<Mark, String>, StorageError> {
        let path = self.mark_path(name)?;
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() <= MAX_MARK_BYTES => {}
            Ok(_) => return Ok(Err("its mark is no mark".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(Mark::default())),
            Err(error) => return Err(self.error(name.as_str(), error)),
        }
        let mut text = String::new();
        let read = open_itself(&path).and_then(|file| file.take(MAX_MARK_BYTES).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                return Err(self.error(name.as_str(), error));
            }
            _ => {}
        }
        let mark = Mark::parse(&text);
        Ok(mark.ok_or_else(|| "its mark is damaged".to_owned()))
    }

    fn write_mark(&self, name: &ObjectName, mark: Mark) -> Result<(), StorageError> {
        let path = self.mark_path(name)?;
        let written = crashsafe::create_dir_all(path.parent().unwrap_or(self.root()))
            .and_then(|()| crashsafe::replace(&path, mark.to_text().as_bytes()));
        written.map_err(|error| self.error(name.as_str(), error))
    }

    fn lock_at(&self, name: &ObjectName, file: &File) -> Result<ObjectLock, StorageError> {
        let flag = flagged(file).map_err(|error| self.error(name.as_str(), error))?;
        let (locked, held) = match self.mark(name)? {
            Ok(mark) => match mark.term {
                Some(term) => (Locked::Term(term), mark.held),
                None if flag && !mark.held => {
                    (Locked::Unknown("its mark is gone, and the immutable flag is set".to_owned()), false)
                }
                None => (Locked::No, mark.held),
            },
            Err(why) => (Locked::Unknown(why), false),
        };
        let keeper = if flag { Keeper::Place } else { Keeper::Program };
        Ok(ObjectLock { locked, held, keeper })
    }

    /// Writes the mark, then sets the flag as it asks for.
    fn keep(&self, name: &ObjectName, file: &File, mark: Mark) -> Result<ObjectLock, StorageError> {
        if self.mark(name)?.ok() != Some(mark) {
            self.write_mark(name, mark)?;
        }
        let wanted = mark.held || mark.term.is_some();
        set_flag(file, wanted).map_err(|error| self.error(name.as_str(), error))?;
        self.lock_at(name, file)
    }

    /// The mark that stands for a lock.
    fn mark_of(lock: &ObjectLock) -> Mark {
        let term = match lock.locked {
            Locked::Term(term) => Some(term),
            Locked::No | Locked::Unknown(_) => None,
        };
        Mark { term, held: lock.held }
    }

    /// That the object may be deleted; takes the flag off if so. Fine if there is none: what is no file was never locked.
    pub(super) fn release(&self, name: &ObjectName) -> Result<(), StorageError> {
        if self.stat(name)?.is_none() {
            return Ok(());
        }
        let (file, _size) = self.open(name)?;
        self.lock_at(name, &file)?.permits(name, self.clock().now())?;
        set_flag(&file, false).map_err(|error| self.error(name.as_str(), error))?;
        Ok(())
    }

    /// Removes the mark of an object that is gone.
    pub(super) fn forget_mark(&self, name: &ObjectName) -> Result<(), StorageError> {
        match crashsafe::remove(&self.mark_path(name)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(name.as_str(), error)),
            _ => Ok(()),
        }
    }

    /// Removes what a killed write left. It may be a second name of an object that was locked since: the lock stays.
    pub(super) fn remove_unfinished(path: &Path) -> io::Result<()> {
        let locked = match open_itself(path) {
            Ok(file) if flagged(&file)? => file,
            _ => return crashsafe::remove(path),
        };
        set_flag(&locked, false)?;
        let removed = crashsafe::remove(path);
        set_flag(&locked, true)?;
        removed
    }
}

impl ObjectLocks for FileStorage {
    fn lock_of(&self, name: &ObjectName) -> Result<ObjectLock, StorageError> {
        let (file, _size) = self.open(name)?;
        self.lock_at(name, &file)
    }

    fn refusal(&self, name: &ObjectName) -> Result<Option<String>, StorageError> {
        Ok(self.lock_of(name)?.refusal(self.clock().now()))
    }

    fn locks(&self, prefix: &str) -> Result<Vec<(ObjectName, ObjectLock)>, StorageError> {
        let mut locks = Vec::new();
        for listed in self.list(prefix)? {
            match self.lock_of(&listed.name) {
                Ok(lock) => locks.push((listed.name, lock)),
                Err(StorageError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(locks)
    }

    fn lock_until(&self, name: &ObjectName, term: LockTerm) -> Result<ObjectLock, StorageError> {
        self.can_keep(term.mode)?;
        let (file, _size) = self.open(name)?;
        let lock = self.lock_at(name, &file)?;
        self.keep(name, &file, Mark { term: Some(lock.extended(term)), held: lock.held })
    }

    fn set_held(&self, name: &ObjectName, held: bool) -> Result<ObjectLock, StorageError> {
        let (file, _size) = self.open(name)?;
        let lock = self.lock_at(name, &file)?;
        if let Locked::Unknown(why) = lock.locked {
            // With a term of its own first nothing is forgotten by writing the mark anew.
            return Err(StorageError::Locked { name: name.clone(), until: None, why });
        }
        self.keep(name, &file, Mark { held, ..Self::mark_of(&lock) })
    }

    fn put_locked(&self, name: &ObjectName, pieces: &[&[u8]], term: LockTerm) -> Result<(), StorageError> {
        self.can_keep(term.mode)?;
        if self.stat(name)?.is_some() {
            return Err(StorageError::AlreadyExists { name: name.clone() });
        }
        self.write_mark(name, Mark { term: Some(term), held: false })?;
        self.put_new(name, pieces)?;
        self.lock_until(name, term).map(drop)
    }

    fn lift(&self, name: &ObjectName, _bypass: GovernanceBypass) -> Result<(), StorageError> {
        let (file, _size) = self.open(name)?;
        let lock = self.lock_at(name, &file)?;
        let hard = |term: LockTerm| term.mode == LockMode::Compliance && term.until > self.clock().now();
        match lock.locked {
            Locked::Term(term) if hard(term) => return lock.permits(name, Timestamp::MIN),
            _ => {}
        }
        self.keep(name, &file, Mark { term: None, held: lock.held }).map(drop)
    }
}

impl FileStorage {
    fn can_keep(&self, mode: LockMode) -> Result<(), StorageError> {
        match mode {
            LockMode::Governance => Ok(()),
            LockMode::Compliance => Err(StorageError::Unenforceable {
                location: self.location(),
                why: "whoever is root there can take the immutable flag off".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_every_flipped_bit_or_cut_of_it_is_found() {
        let until = "2027-03-01T02:00:00.25Z".parse().unwrap();
        let term = |mode| Some(LockTerm { until, mode });
        for term in [None, term(LockMode::Governance), term(LockMode::Compliance)] {
            for held in [false, true] {
                let mark = Mark { term, held };
                let text = mark.to_text();
                assert_eq!(Mark::parse(&text), Some(mark));
                assert!((text.len() as u64) < MAX_MARK_BYTES);
                for at in 0..text.len() {
                    assert_eq!(Mark::parse(&text[..at]), None, "cut at {at}");
                    for bit in 0..8 {
                        let mut bytes = text.clone().into_bytes();
                        bytes[at] ^= 1 << bit;
                        let flipped = std::str::from_utf8(&bytes).ok().and_then(Mark::parse);
                        assert_eq!(flipped, None, "{at} {bit}");
                    }
                }
            }
        }
    }
}
