//! Objects as files below one directory, written through `crashsafe`; `flock` finds the only writer.
//!
//! Packs fan out into `data/xx/`, as other readers of the format expect.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::crashsafe;
use lifeboat_base::human::printable;
use lifeboat_base::time::{Clock, SystemClock};
use rustix::fs::{FlockOperation, flock};

use super::mark::MARKS;
use super::{Listed, MAX_OBJECT_BYTES, ObjectLocks, ObjectName, Storage, StorageError, WriteLock};

/// The folder whose files fan out by the first two characters of their names.
const FAN_OUT: &str = "data/";
/// How deep a listing descends; a vault is four levels deep.
const MAX_DEPTH: usize = 8;

/// Objects as files below one directory (directories 0700, files 0600).
#[derive(Clone)]
pub struct FileStorage {
    root: PathBuf,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for FileStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStorage").field("root", &self.root).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct DirLock(#[expect(dead_code, reason = "holds the lock until it is closed")] File);

impl WriteLock for DirLock {}

/// What stands below the root: objects, and what cannot be one.
#[derive(Default)]
struct Found {
    objects: Vec<Listed>,
    strays: Vec<String>,
}

/// Opens a file for reading. A link in a vault is not an object: following it could read anything on the machine. Nor may a
/// pipe make it wait.
pub(super) fn open_itself(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

impl FileStorage {
    /// Objects below `root`, which [`Storage::make_folders`] makes.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::by_clock(root, Arc::new(SystemClock::new()))
    }

    /// The same, whose locks end by `clock`.
    pub fn by_clock(root: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self { root: root.into(), clock }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path_of(&self, name: &ObjectName) -> PathBuf {
        match name.below(FAN_OUT).and_then(|id| Some((id, id.get(..2)?))) {
            Some((id, fan)) if !id.contains('/') => self.root.join(FAN_OUT).join(fan).join(id),
            _ => self.root.join(name.to_path()),
        }
    }

    /// A folder of the vault that is a link could lead anywhere: nothing is read, listed or written through it.
    pub(super) fn no_links(&self, relative: &Path) -> io::Result<()> {
        let mut folder = self.root.clone();
        for part in relative {
            folder.push(part);
            match fs::symlink_metadata(&folder) {
                Ok(meta) if meta.is_symlink() => {
                    return Err(io::Error::other(format!("{} is a link", folder.display())));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The path of an object whose folders were looked at.
    fn checked_path(&self, name: &ObjectName) -> Result<PathBuf, StorageError> {
        let path = self.path_of(name);
        let relative = path.parent().and_then(|folder| folder.strip_prefix(&self.root).ok());
        self.no_links(relative.unwrap_or(Path::new(""))).map_err(|error| self.error(name.as_str(), error))?;
        Ok(path)
    }

    /// Which directory the root is now; another one than before, or none, was unmounted or moved.
    fn place(&self) -> Result<(u64, u64), StorageError> {
        match fs::metadata(&self.root) {
            Ok(meta) => Ok((meta.dev(), meta.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StorageError::Missing { location: self.location() })
            }
            Err(error) => Err(self.error("the vault", error)),
        }
    }

    /// That there is no such object is believed only of a place that is there.
    fn not_found(&self, name: &ObjectName) -> StorageError {
        self.place().err().unwrap_or_else(|| StorageError::NotFound { name: name.clone() })
    }

    pub(super) fn error(&self, what: &str, source: io::Error) -> StorageError {
        StorageError::from_io(what, self.location(), source)
    }

    pub(super) fn open(&self, name: &ObjectName) -> Result<(File, u64), StorageError> {
        let file = match open_itself(&self.checked_path(name)?) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.not_found(name)),
            Err(error) => return Err(self.error(name.as_str(), error)),
        };
        let meta = file.metadata().map_err(|error| self.error(name.as_str(), error))?;
        if !meta.is_file() {
            return Err(self.error(name.as_str(), io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Ok((file, meta.len()))
    }

    /// The object name of a file found at `relative`, undoing the fan-out.
    fn name_at(relative: &str) -> Option<ObjectName> {
        let text = match relative.strip_prefix(FAN_OUT).and_then(|rest| rest.split_once('/')) {
            Some((fan, id)) if id.starts_with(fan) && fan.len() == 2 => format!("{FAN_OUT}{id}"),
            Some(_) => return None,
            None => relative.to_owned(),
        };
        ObjectName::new(text).ok()
    }

    /// Whether a file at `relative` is where the mark of an object's lock would be.
    fn is_mark(relative: &str) -> bool {
        let name = relative.strip_prefix(MARKS).and_then(|rest| rest.strip_prefix('/'));
        name.is_some_and(|name| ObjectName::new(name).is_ok())
    }

    fn scan(&self, relative: &str, depth: usize, found: &mut Found) -> Result<(), StorageError> {
        let dir = self.root.join(relative);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.error(relative, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| self.error(relative, error))?;
            let base = entry.file_name();
            let Some(base) = base.to_str() else {
                found.strays.push(printable(&format!("{relative}{}", base.to_string_lossy())));
                continue;
            };
            let path = format!("{relative}{base}");
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.error(&path, error)),
            };
            if meta.is_dir() && depth < MAX_DEPTH {
                self.scan(&format!("{path}/"), depth + 1, found)?;
            } else {
                match Self::name_at(&path).filter(|_| meta.is_file()) {
                    // Marks of locks are no objects; what a killed write left among them is.
                    _ if Self::is_mark(&path) && meta.is_file() => {}
                    Some(name) => found.objects.push(Listed { name, size_bytes: meta.len() }),
                    None => found.strays.push(printable(&path)),
                }
            }
        }
        Ok(())
    }
}

impl FileStorage {
    /// Removes unfinished files of writers that died; the caller holds the lock, so that none of them lives.
    fn sweep(&self) -> Result<(), StorageError> {
        for stray in self.strays()? {
            let path = self.root.join(&stray);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.starts_with(crashsafe::TEMP_PREFIX) {
                continue;
            }
            match Self::remove_unfinished(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.error(&stray, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Storage for FileStorage {
    fn put_new(&self, name: &ObjectName, pieces: &[&[u8]]) -> Result<(), StorageError> {
        self.place()?;
        let path = self.checked_path(name)?;
        let parent = path.parent().unwrap_or(&self.root);
        crashsafe::create_dir_all(parent).map_err(|error| self.error(name.as_str(), error))?;
        match crashsafe::write_new_pieces(&path, pieces) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(StorageError::AlreadyExists { name: name.clone() })
            }
            Err(error) => Err(self.error(name.as_str(), error)),
        }
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StorageError> {
        let (file, size_bytes) = self.open(name)?;
        if size_bytes > MAX_OBJECT_BYTES {
            return Err(StorageError::TooLarge { name: name.clone(), size_bytes });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size_bytes).unwrap_or_default());
        file.take(MAX_OBJECT_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|error| self.error(name.as_str(), error))?;
        Ok(bytes)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let (file, size_bytes) = self.open(name)?;
        // Checked before the buffer is made: a length read from a damaged object must not fill the memory.
        if offset.checked_add(length as u64).is_none_or(|end| end > size_bytes) {
            return Err(StorageError::TooShort { name: name.clone() });
        }
        let mut bytes = vec![0; length];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(StorageError::TooShort { name: name.clone() })
            }
            Err(error) => Err(self.error(name.as_str(), error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StorageError> {
        let mut found = Found::default();
        let place = self.place()?;
        self.no_links(Path::new(prefix)).map_err(|error| self.error(prefix, error))?;
        self.scan(prefix, 0, &mut found)?;
        // A folder that is not there lists as empty, also when it went with the place while it was read.
        if self.place()? != place {
            return Err(StorageError::Missing { location: self.location() });
        }
        found.objects.sort();
        Ok(found.objects)
    }

    fn stat(&self, name: &ObjectName) -> Result<Option<u64>, StorageError> {
        match fs::symlink_metadata(self.checked_path(name)?) {
            Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.place().map(|_| None),
            Err(error) => Err(self.error(name.as_str(), error)),
        }
    }

    fn remove(&self, name: &ObjectName) -> Result<(), StorageError> {
        let path = self.checked_path(name)?;
        self.release(name)?;
        match crashsafe::remove(&path) {
            Ok(()) => self.forget_mark(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.not_found(name)),
            Err(error) => Err(self.error(name.as_str(), error)),
        }
    }

    fn location(&self) -> String {
        printable(&self.root.display().to_string())
    }

    fn strays(&self) -> Result<Vec<String>, StorageError> {
        let mut found = Found::default();
        self.scan("", 0, &mut found)?;
        found.strays.sort();
        Ok(found.strays)
    }

    fn object_locks(&self) -> Option<&dyn ObjectLocks> {
        Some(self)
    }

    fn lock(&self) -> Result<Box<dyn WriteLock>, StorageError> {
        self.place()?;
        // The lock is on the directory itself: it leaves no file behind and the kernel gives it up on a kill.
        let dir = File::open(&self.root).map_err(|error| self.error("lock", error))?;
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.sweep()?;
                Ok(Box::new(DirLock(dir)))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StorageError::Busy { location: self.location() }),
            Err(error) => Err(self.error("lock", error.into())),
        }
    }

    fn make_folders(&self, names: &[&str]) -> Result<(), StorageError> {
        crashsafe::create_dir_all(&self.root).map_err(|error| self.error("the vault", error))?;
        for name in names {
            self.no_links(Path::new(name)).map_err(|error| self.error(name, error))?;
            crashsafe::create_dir_all(&self.root.join(name)).map_err(|error| self.error(name, error))?;
        }
        Ok(())
    }
}
