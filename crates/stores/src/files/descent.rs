//! A position in a tree, held by directory descriptors: no step ever follows a symbolic link.
//!
//! At most [`MAX_OPEN_DIRS`] descriptors are open, so depth is limited by memory alone; a directory whose
//! descriptor was given up is reached again from the root, name by name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

/// Descriptors held at once, for the deepest levels.
pub(crate) const MAX_OPEN_DIRS: usize = 64;

struct Level {
    name: OsString,
    fd: Option<OwnedFd>,
}

/// The way from the root of a tree to one of its directories.
pub(crate) struct Descent {
    root: OwnedFd,
    levels: Vec<Level>,
}

/// Opens a directory for listing, without moving its access time where that is allowed.
pub(crate) fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    quiet(|extra| openat(parent, name, flags | extra, Mode::empty()))
}

/// Only the owner of a file may ask for its access time to stay as it is.
pub(crate) fn quiet<T>(open: impl Fn(OFlags) -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match open(OFlags::NOATIME) {
        Err(Errno::PERM) => open(OFlags::empty()),
        other => other,
    }
}

impl Descent {
    /// Starts at `root`, the one place where a symbolic link is followed.
    pub(crate) fn start(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = quiet(|extra| open(root, flags | extra, Mode::empty()))?;
        Ok(Self { root, levels: Vec::new() })
    }

    /// The root's descriptor.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Steps down into `fd`, which is the child `name`.
    pub(crate) fn enter(&mut self, name: OsString, fd: OwnedFd) {
        self.levels.push(Level { name, fd: Some(fd) });
        let over = self.levels.len().checked_sub(MAX_OPEN_DIRS + 1);
        if let Some(level) = over.and_then(|index| self.levels.get_mut(index)) {
            level.fd = None;
        }
    }

    /// Steps up.
    pub(crate) fn leave(&mut self) {
        self.levels.pop();
    }

    /// The descriptor of the directory it stands in. If it has to be reached again it may be another directory
    /// than before: the caller compares inode numbers where that matters.
    pub(crate) fn here(&mut self) -> io::Result<BorrowedFd<'_>> {
        if self.levels.last().is_some_and(|level| level.fd.is_none()) {
            self.reopen()?;
        }
        Ok(self.levels.last().and_then(|level| level.fd.as_ref()).unwrap_or(&self.root).as_fd())
    }

    fn reopen(&mut self) -> io::Result<()> {
        let keep_from = self.levels.len().saturating_sub(MAX_OPEN_DIRS);
        let mut above: Option<OwnedFd> = None;
        for index in 0..self.levels.len() {
            let (done, rest) = self.levels.split_at_mut(index);
            let Some(level) = rest.first_mut() else { break };
            let parent = above.as_ref().or_else(|| done.last().and_then(|level| level.fd.as_ref()));
            let fd = open_dir(parent.unwrap_or(&self.root).as_fd(), &level.name)?;
            if index < keep_from {
                above = Some(fd);
            } else {
                above = None;
                level.fd = Some(fd);
            }
        }
        Ok(())
    }

    /// Moves to the directory with these names below the root and gives its descriptor.
    pub(crate) fn seek<'n>(&mut self, names: impl Iterator<Item = &'n OsStr>) -> io::Result<BorrowedFd<'_>> {
        let mut depth = 0;
        for name in names {
            if self.levels.get(depth).is_none_or(|level| level.name != name) {
                self.levels.truncate(depth);
                let fd = open_dir(self.here()?, name)?;
                self.enter(name.to_owned(), fd);
            }
            depth += 1;
        }
        self.levels.truncate(depth);
        self.here()
    }
}
