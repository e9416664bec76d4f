//! What the file system says about one node: its status, owner names and extended attributes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lifeboat_base::capture::{Meta, Xattr};
use lifeboat_base::time::Timestamp;
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Stat, fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::Errno;

/// The kernel's own limit on one attribute and on a list of names.
const MAX_XATTR_BYTES: usize = 64 * 1024;
/// `/etc/passwd` and `/etc/group` are read no further than this.
const MAX_ACCOUNT_FILE_BYTES: u64 = 16 * 1024 * 1024;
const PERMISSION_BITS: u32 = 0o7777;

/// A moment as the file system stores it: seconds and nanoseconds since the epoch.
pub(crate) type FsTime = (i64, u32);

/// The fields of `struct stat` that are captured or compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) file_type: FileType,
    pub(crate) mode: u32,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) links: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u64,
    pub(crate) size_bytes: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) atime: FsTime,
    pub(crate) mtime: FsTime,
    pub(crate) ctime: FsTime,
}

/// What must stay the same for content to count as unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size_bytes: u64,
    pub(crate) mtime: FsTime,
    pub(crate) ctime: FsTime,
}

impl Node {
    #[expect(clippy::useless_conversion, reason = "field widths of `struct stat` differ between platforms")]
    pub(crate) fn from_stat(stat: &Stat) -> Self {
        let nanos = |value| u32::try_from(value).unwrap_or_default();
        Self {
            file_type: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode & PERMISSION_BITS,
            device: stat.st_dev.into(),
            inode: stat.st_ino.into(),
            links: stat.st_nlink.into(),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev.into(),
            size_bytes: u64::try_from(stat.st_size).unwrap_or_default(),
            allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512),
            atime: (stat.st_atime.into(), nanos(stat.st_atime_nsec)),
            mtime: (stat.st_mtime.into(), nanos(stat.st_mtime_nsec)),
            ctime: (stat.st_ctime.into(), nanos(stat.st_ctime_nsec)),
        }
    }

    pub(crate) fn version(&self) -> Version {
        Version {
            device: self.device,
            inode: self.inode,
            size_bytes: self.size_bytes,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// Whether another name for the same file exists; directories count their children instead.
    pub(crate) fn is_hard_linked(&self) -> bool {
        self.links > 1 && !self.is_dir()
    }

    pub(crate) fn meta(&self, xattrs: Vec<Xattr>, accounts: &Accounts) -> Meta {
        Meta {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            user: accounts.users.get(&self.uid).cloned(),
            group: accounts.groups.get(&self.gid).cloned(),
            mtime: timestamp(self.mtime),
            atime: timestamp(self.atime),
            ctime: timestamp(self.ctime),
            inode: self.inode,
            device: self.device,
            links: self.links,
            xattrs,
        }
    }
}

/// Nothing for times outside the years a timestamp can name.
fn timestamp((seconds, nanos): FsTime) -> Option<Timestamp> {
    Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok()
}

/// Names of owners, from `/etc/passwd` and `/etc/group` alone: no name service is asked.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Accounts {
    /// Reads both files; one that cannot be read gives no names.
    pub(crate) fn load() -> Self {
        Self { users: names_in(Path::new("/etc/passwd")), groups: names_in(Path::new("/etc/group")) }
    }
}

fn names_in(path: &Path) -> BTreeMap<u32, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_ACCOUNT_FILE_BYTES).read_to_end(&mut text));
    if read.is_err() {
        return BTreeMap::new();
    }
    let mut names = BTreeMap::new();
    for line in String::from_utf8_lossy(&text).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(id)) = (fields.next(), fields.nth(1).and_then(|id| id.parse().ok())) {
            // The first line for a number wins, as with the C library.
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// Where attributes are read from: an open file or directory, or a name inside one that must not be opened.
pub(crate) enum XattrsOf<'a> {
    Open(BorrowedFd<'a>),
    Name { dir: BorrowedFd<'a>, name: &'a OsStr },
}

impl XattrsOf<'_> {
    /// All attributes in the order of their names; none where the file system has none.
    pub(crate) fn read(&self) -> io::Result<Vec<Xattr>> {
        let path = match self {
            Self::Open(_) => PathBuf::new(),
            // There is no `lgetxattrat` yet; the link in /proc names the open directory itself, so nothing is raced.
            Self::Name { dir, name } => {
                Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name)
            }
        };
        let list = fill(|buffer| match self {
            Self::Open(fd) => flistxattr(fd, spare_capacity(buffer)),
            Self::Name { .. } => llistxattr(&path, spare_capacity(buffer)),
        });
        let list = match list {
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            other => other?,
        };
        let mut xattrs = Vec::new();
        for name in list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(OsStr::from_bytes) {
            let value = fill(|buffer| match self {
                Self::Open(fd) => fgetxattr(fd, name, spare_capacity(buffer)),
                Self::Name { .. } => lgetxattr(&path, name, spare_capacity(buffer)),
            });
            match value {
                Ok(value) => xattrs.push(Xattr { name: OsString::from(name), value }),
                // It was removed since the list was made.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
        }
        xattrs.sort();
        Ok(xattrs)
    }
}

fn fill(mut call: impl FnMut(&mut Vec<u8>) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    const FIRST_GUESS_BYTES: usize = 256;
    let mut buffer = Vec::with_capacity(FIRST_GUESS_BYTES);
    match call(&mut buffer) {
        Err(Errno::RANGE) => {}
        Ok(_) => return Ok(buffer),
        Err(error) => return Err(error),
    }
    let mut buffer = Vec::with_capacity(MAX_XATTR_BYTES);
    call(&mut buffer)?;
    buffer.shrink_to_fit();
    Ok(buffer)
}
