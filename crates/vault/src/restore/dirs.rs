//! Directories below the target, always reached one name at a time from the target and never through a link.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_base::path::RelPath;
use rustix::fs::{Mode, OFlags, mkdirat, openat};

/// Directories kept open.
const CACHED_DIRS: usize = 128;

/// The tree below a target directory.
pub(super) struct Dirs {
    root: Arc<File>,
    cache: Mutex<VecDeque<(RelPath, Arc<File>)>>,
}

fn open_dir(parent: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(parent, name, flags, Mode::empty())?))
}

impl Dirs {
    /// The directory at `into`, which must be empty.
    pub(super) fn new(into: &Path) -> io::Result<Self> {
        if std::fs::read_dir(into)?.next().is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the target directory is not empty"));
        }
        Ok(Self { root: Arc::new(File::open(into)?), cache: Mutex::default() })
    }

    /// The target itself.
    pub(super) fn root(&self) -> &File {
        &self.root
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
        let cached = self.cache().iter().find(|(cached, _)| cached == path).map(|(_, dir)| Arc::clone(dir));
        if let Some(dir) = cached {
            return Ok(dir);
        }
        let mut dir = Arc::clone(&self.root);
        for name in path.names() {
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
