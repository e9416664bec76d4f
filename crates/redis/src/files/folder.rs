//! A folder whose files are opened relative to it: no link is followed, nothing that could block is waited for.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::error::FilesError;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    /// What names are relative to for people; empty for the server's folder itself.
    prefix: String,
}

impl Folder {
    /// The server's folder. This is the one place where a link is followed.
    pub(super) fn open(path: &Path) -> Result<Self, FilesError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| FilesError::io("open", path.display().to_string())(errno.into()))?;
        Ok(Self { fd, prefix: String::new() })
    }

    /// A folder in it; nothing if there is none.
    pub(super) fn folder(&self, name: &str) -> Result<Option<Self>, FilesError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let prefix = format!("{}{name}/", self.prefix);
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, prefix })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(match self.kind(name) {
                Some(found) if found != "a directory" => {
                    FilesError::NotPlain { name: self.shown(name), found }
                }
                _ => FilesError::io("open", self.shown(name))(errno.into()),
            }),
        }
    }

    /// A regular file in it; nothing if there is no such name.
    pub(super) fn file(&self, name: &str) -> Result<Option<File>, FilesError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => {
                return Err(match self.kind(name) {
                    Some(found) => FilesError::NotPlain { name: self.shown(name), found },
                    None => FilesError::io("open", self.shown(name))(errno.into()),
                });
            }
        };
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| FilesError::io("look at", self.shown(name))(errno.into()))?;
        match word(FileType::from_raw_mode(stat.st_mode)) {
            Some(found) => Err(FilesError::NotPlain { name: self.shown(name), found }),
            None => Ok(Some(File::from(fd))),
        }
    }

    /// A small file as text; nothing if there is none.
    pub(super) fn text(&self, name: &str, limit_bytes: u64) -> Result<Option<String>, FilesError> {
        let Some(file) = self.file(name)? else { return Ok(None) };
        let mut text = String::new();
        let read = file.take(limit_bytes + 1).read_to_string(&mut text);
        read.map_err(FilesError::io("read", self.shown(name)))?;
        if text.len() as u64 > limit_bytes {
            let large = io::Error::new(io::ErrorKind::FileTooLarge, "it is too large");
            return Err(FilesError::io("read", self.shown(name))(large));
        }
        Ok(Some(text))
    }

    /// Whether anything is in it.
    pub(super) fn is_empty(&self) -> Result<bool, FilesError> {
        let fail = |errno: rustix::io::Errno| FilesError::io("list", self.prefix.clone())(errno.into());
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A name as people are told it.
    pub(super) fn shown(&self, name: &str) -> String {
        lifeboat_base::human::printable(&format!("{}{name}", self.prefix))
    }

    /// What stands there, unless it is a plain file or nothing.
    fn kind(&self, name: &str) -> Option<&'static str> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        word(FileType::from_raw_mode(stat.st_mode))
    }
}

fn word(kind: FileType) -> Option<&'static str> {
    Some(match kind {
        FileType::RegularFile => return None,
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        _ => "a device",
    })
}
