//! Which account a server runs as (PostgreSQL refuses root), and giving it what it must own.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::ServerError;

/// The accounts tried for a data directory that belongs to root, best first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
/// The usual number of `nobody`, where the machine's list of accounts names neither.
const NOBODY: u32 = 65_534;
/// The longest list of accounts read.
const MAX_PASSWD_BYTES: u64 = 4 * 1024 * 1024;

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
/// themselves and never followed, and no other file system is entered. Costs one look per entry.
pub fn give_tree(tree: &Path, account: &Account) -> Result<(), ServerError> {
    if !account.switch {
        return Ok(());
    }
    let device = fs::symlink_metadata(tree).map_err(ServerError::io("look at", tree))?.dev();
    let mut pending: Vec<PathBuf> = vec![tree.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).map_err(ServerError::io("look at", &path))?;
        if meta.dev() != device {
            continue;
        }
        if meta.is_dir() {
            for entry in fs::read_dir(&path).map_err(ServerError::io("list", &path))? {
                pending.push(entry.map_err(ServerError::io("list", &path))?.path());
            }
        }
        if (meta.uid(), meta.gid()) != (account.uid, account.gid) {
            lchown(&path, Some(account.uid), Some(account.gid))
                .map_err(ServerError::io("give away", &path))?;
        }
    }
    Ok(())
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
