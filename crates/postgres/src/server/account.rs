//! Which account a server runs as (PostgreSQL refuses root), and giving it what it must own.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchown, fstat, openat, statat,
};
use rustix::io::Errno;

use super::error::ServerError;

/// The accounts tried for a data directory that belongs to root, best first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
/// The usual number of `nobody`, where the machine's list of accounts names neither.
const NOBODY: u32 = 65_534;
/// The longest list of accounts read.
const MAX_PASSWD_BYTES: u64 = 4 * 1024 * 1024;
/// How deep a tree is given away; a cluster's is less than ten deep.
const MAX_DEPTH: usize = 64;

/// Who a server runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    uid: u32,
    gid: u32,
    name: String,
    /// We are root and the server must not be.
    switch: bool,
}

impl Account {
    /// The account for a server on `data`: ourselves, unless we are root. Then the owner of `data`, and where that is
    /// root as well, the machine's `postgres` or `nobody`. Accounts that only a directory service knows are not
    /// found by name.
    pub fn for_data(data: &Path) -> Result<Self, ServerError> {
        let meta = fs::symlink_metadata(data).map_err(ServerError::io("look at", data))?;
        Ok(if rustix::process::geteuid().is_root() && meta.uid() != 0 {
            let name = passwd().iter().find(|entry| entry.1 == meta.uid()).map(|entry| entry.0.clone());
            Self {
                uid: meta.uid(),
                gid: meta.gid(),
                name: name.unwrap_or_else(|| format!("user {}", meta.uid())),
                switch: true,
            }
        } else {
            Self::unprivileged()
        })
    }

    /// Ourselves, unless we are root: then the machine's `postgres` or `nobody`.
    pub fn unprivileged() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        if uid != 0 {
            let gid = rustix::process::getegid().as_raw();
            return Self { uid, gid, name: format!("user {uid}"), switch: false };
        }
        let known = passwd();
        let pick = |name: &&str| known.iter().find(|entry| entry.0 == *name && entry.1 != 0).cloned();
        let (name, uid, gid) =
            UNPRIVILEGED.iter().find_map(pick).unwrap_or_else(|| ("nobody".to_owned(), NOBODY, NOBODY));
        Self { uid, gid, name, switch: true }
    }

    /// Its number.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its name, or `user N`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// User and group to change to; nothing where it is ourselves.
    pub(super) fn switched(&self) -> Option<(u32, u32)> {
        self.switch.then_some((self.uid, self.gid))
    }

    /// Makes `command` run as this account, with no other groups.
    pub fn apply(&self, command: &mut Command) {
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Fails with the first folder on the way to `path` (the last name included if it is a folder) that this account
    /// may not enter. Goes by the permission bits: access lists and mounts may still decide otherwise.
    pub fn check_way_to(&self, path: &Path) -> Result<(), ServerError> {
        let mut ways: Vec<&Path> = path.ancestors().collect();
        ways.reverse();
        for folder in ways.into_iter().filter(|folder| !folder.as_os_str().is_empty()) {
            let meta = fs::metadata(folder).map_err(ServerError::io("look at", folder))?;
            if meta.is_dir() && !self.may_enter(&meta) {
                return Err(ServerError::Closed { folder: folder.to_owned(), account: self.name.clone() });
            }
        }
        Ok(())
    }

    fn may_enter(&self, meta: &Metadata) -> bool {
        let bit = if meta.uid() == self.uid {
            0o100
        } else if meta.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        // Where we do not switch, further groups of ours may count as well: the server will tell.
        !self.switch || meta.mode() & bit != 0
    }
}

/// Gives every entry of `tree`, itself included, to `account`; does nothing where we are not root. Links are given
/// themselves and never followed, no other file system is entered, and a file with a second name is refused: whoever
/// owns part of the tree must not aim us at something outside it. Costs one look per entry.
pub fn give_tree(tree: &Path, account: &Account) -> Result<(), ServerError> {
    if !account.switch {
        return Ok(());
    }
    // Resolved once: from here on it is this folder, whatever its path leads to by then.
    let folder = match open_folder(CWD, tree, OFlags::NOFOLLOW) {
        Err(Errno::NOTDIR | Errno::LOOP) => return give_single(tree, account),
        other => other.map_err(errno("open", tree))?,
    };
    let found = fstat(&folder).map_err(errno("look at", tree))?;
    give_below(folder.as_fd(), tree, (found.st_dev, account), 0)?;
    if (found.st_uid, found.st_gid) == (account.uid, account.gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    fchown(&folder, Some(uid), Some(gid)).map_err(errno("give away", tree))
}

/// Gives away what is no folder.
fn give_single(path: &Path, account: &Account) -> Result<(), ServerError> {
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Err(errno("give away", path)(Errno::INVAL));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let folder = open_folder(CWD, parent, OFlags::empty()).map_err(errno("open", parent))?;
    let device = fstat(&folder).map_err(errno("look at", parent))?.st_dev;
    give(folder.as_fd(), name, path, (device, account), 0)
}

/// Gives away everything in `folder`, which is at `path`.
fn give_below(
    folder: BorrowedFd<'_>,
    path: &Path,
    to: (u64, &Account),
    depth: usize,
) -> Result<(), ServerError> {
    for entry in Dir::read_from(folder).map_err(errno("list", path))? {
        let entry = entry.map_err(errno("list", path))?;
        let child = OsStr::from_bytes(entry.file_name().to_bytes());
        if child != "." && child != ".." {
            give(folder, child, &path.join(child), to, depth + 1)?;
        }
    }
    Ok(())
}

/// Gives away `name` in `folder`; `path` is how it is told.
fn give(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    to: (u64, &Account),
    depth: usize,
) -> Result<(), ServerError> {
    let (device, account) = to;
    let meta = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(errno("look at", path))?;
    let kind = FileType::from_raw_mode(meta.st_mode);
    if meta.st_dev != device {
        return Ok(());
    }
    if kind == FileType::Directory {
        if depth > MAX_DEPTH {
            return Err(errno("go so deep as", path)(Errno::NAMETOOLONG));
        }
        let inner = open_folder(folder, Path::new(name), OFlags::NOFOLLOW).map_err(errno("open", path))?;
        give_below(inner.as_fd(), path, to, depth)?;
    } else if meta.st_nlink > 1 && meta.st_uid != account.uid {
        return Err(errno("give away a file with a second name,", path)(Errno::MLINK));
    }
    if (meta.st_uid, meta.st_gid) == (account.uid, account.gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(errno("give away", path))
}

fn open_folder(at: impl AsFd, path: &Path, further: OFlags) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | further, Mode::empty())
}

fn errno(verb: &str, path: &Path) -> impl FnOnce(Errno) -> ServerError {
    let wrap = ServerError::io(verb, path);
    move |errno| wrap(errno.into())
}

/// Name, user and group number of the machine's own accounts; none if the list cannot be read.
fn passwd() -> Vec<(String, u32, u32)> {
    use std::io::Read;
    let mut text = String::new();
    let read =
        fs::File::open("/etc/passwd").and_then(|file| file.take(MAX_PASSWD_BYTES).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some((name.to_owned(), uid, gid))
        })
        .collect()
}
