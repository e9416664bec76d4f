//! Directories below the target, always reached one name at a time from the target and never through a link.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_base::path::RelPath;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, statat};

use super::materialize::Elsewhere;
use super::over::{names, remove_at};

/// Directories kept open.
const CACHED_DIRS: usize = 128;

/// The tree below a target directory.
pub(super) struct Dirs {
    root: Arc<File>,
    /// Folders that lie elsewhere.
    elsewhere: Vec<(RelPath, Arc<File>)>,
    cache: Mutex<VecDeque<(RelPath, Arc<File>)>>,
}

fn open_dir(parent: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(parent, name, flags, Mode::empty())?))
}

impl Dirs {
    /// The directory at `into` and those that lie elsewhere, which must exist, and be empty unless something may be in them.
    pub(super) fn new(into: &Path, elsewhere: &[Elsewhere], occupied: bool) -> io::Result<Self> {
        let open = |folder: &Path| {
            // What may hold something may hold a link planted for us.
            let dir =
                if occupied { open_dir(rustix::fs::CWD, folder.as_os_str())? } else { File::open(folder)? };
            if !occupied && !names(&dir)?.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "the target directory is not empty",
                ));
            }
            Ok(Arc::new(dir))
        };
        let elsewhere = elsewhere.iter().map(|other| Ok((other.inside.clone(), open(&other.through)?)));
        let elsewhere = elsewhere.collect::<io::Result<_>>()?;
        Ok(Self { root: open(into)?, elsewhere, cache: Mutex::default() })
    }

    /// The target itself and every folder that lies elsewhere.
    pub(super) fn roots(&self) -> impl Iterator<Item = &File> {
        std::iter::once(&*self.root).chain(self.elsewhere.iter().map(|(_, folder)| &**folder))
    }

    /// Makes the directory unless there is one; anything else of its name gives way. Gives how many entries that cost.
    pub(super) fn make_over(&self, path: &RelPath) -> io::Result<u64> {
        let (parent, name) = self.parent(path)?;
        match statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => return Ok(0),
            Err(rustix::io::Errno::NOENT) => {
                mkdirat(&*parent, name, Mode::RWXU)?;
                return Ok(0);
            }
            other => other?,
        };
        let removed = self.clear(path)?;
        mkdirat(&*parent, name, Mode::RWXU)?;
        Ok(removed)
    }

    /// Removes whatever has this name, links themselves and never what they lead to; gives how many entries that were.
    pub(super) fn clear(&self, path: &RelPath) -> io::Result<u64> {
        let (parent, name) = self.parent(path)?;
        let device = parent.metadata()?.dev();
        match remove_at(&*parent, name, device, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            other => other,
        }
    }

    /// Opens a file that may be written over: one of a single name. Nothing if there is none or it cannot be opened.
    pub(super) fn open_over(&self, path: &RelPath) -> io::Result<Option<File>> {
        let (parent, name) = self.parent(path)?;
        match statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found)
                if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_nlink == 1 => {
            }
            Ok(_) | Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(&*parent, name, flags, Mode::empty()) else { return Ok(None) };
        let file = File::from(file);
        let meta = file.metadata()?;
        // Looked at again once it is open: what was there before may have been exchanged.
        Ok((meta.is_file() && meta.nlink() == 1).then_some(file))
    }

    /// Makes a directory that must not exist yet.
    pub(super) fn make(&self, path: &RelPath) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(mkdirat(&*parent, name, Mode::RWXU)?)
    }

    /// The open parent of `path`, and its last name.
    pub(super) fn parent<'p>(&self, path: &'p RelPath) -> io::Result<(Arc<File>, &'p OsStr)> {
        // The root has no parent: nothing may replace the target itself.
        let Some((parent, name)) = path.split_last() else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        Ok((self.open(&parent)?, name))
    }

    /// The open directory at `path`.
    pub(super) fn open(&self, path: &RelPath) -> io::Result<Arc<File>> {
        if path.depth() == 0 {
            return Ok(Arc::clone(&self.root));
        }
        let start = self.elsewhere.iter().find(|(at, _)| path.below(at).is_some());
        let (start, below) = start.map_or((&self.root, 0), |(at, folder)| (folder, at.depth()));
        let cached = self.cache().iter().find(|(cached, _)| cached == path).map(|(_, dir)| Arc::clone(dir));
        if let Some(dir) = cached {
            return Ok(dir);
        }
        let mut dir = Arc::clone(start);
        for name in path.names().skip(below) {
            dir = Arc::new(open_dir(&dir, name)?);
        }
        let mut cache = self.cache();
        if cache.len() >= CACHED_DIRS {
            cache.pop_back();
        }
        cache.push_front((path.clone(), Arc::clone(&dir)));
        Ok(dir)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, VecDeque<(RelPath, Arc<File>)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a file that must not exist yet.
    pub(super) fn create_file(&self, path: &RelPath) -> io::Result<File> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&*parent, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Opens a file made before.
    pub(super) fn reopen_file(&self, path: &RelPath) -> io::Result<File> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&*parent, name, flags, Mode::empty())?))
    }
}
