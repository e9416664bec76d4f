//! The one place that writes files: temporary name, fsync, link or rename, fsync of the directory.
//!
//! Temporary names start with [`TEMP_PREFIX`], so that a sweep can recognise what a killed process left behind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::folder::Folder;

/// Marks files that are not finished.
pub const TEMP_PREFIX: &str = ".lifeboat-tmp-";

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// Lets others pass, and look at nothing.
pub(crate) const PASSAGE_MODE: u32 = 0o711;

pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name for a file that is not finished, which no other call in this process gets.
pub(crate) fn temp_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{TEMP_PREFIX}{}-{number}", std::process::id())
}

fn temp_path(path: &Path) -> PathBuf {
    parent_of(path).join(temp_name())
}

/// Makes a directory's entries durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` and its missing parents (mode 0700) and makes each durable.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = parent_of(dir);
    if parent != dir {
        create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(DIR_MODE).create(dir) {
        Ok(()) => sync_dir(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if dir.is_dir() {
                Ok(())
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        }
        Err(error) => Err(error),
    }
}

/// Lets other accounts pass through `dir`, one of ours, to folders below it whose names they know (mode 0711). Needed
/// where we are root and a server that refuses to be runs below; otherwise nothing is changed. An error for a link.
pub fn let_through(dir: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        Folder::open(dir)?.set_mode(PASSAGE_MODE)?;
    }
    Ok(())
}

fn write_temp(path: &Path, pieces: &[&[u8]]) -> io::Result<PathBuf> {
    let temp = temp_path(path);
    write_pieces(&temp, pieces)?;
    Ok(temp)
}

/// Writes a file that must not exist, durably but for its name; none is left after an error.
fn write_pieces(temp: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(temp)?;
    let written = (|| {
        for piece in pieces {
            file.write_all(piece)?;
        }
        file.sync_all()
    })();
    if written.is_err() {
        remove_quietly(temp);
    }
    written
}

/// Removes a leftover; its absence or presence changes nothing that anyone relies on.
fn remove_quietly(path: &Path) {
    drop(fs::remove_file(path));
}

/// Removes the unfinished files that a killed process left in `dir` itself; the caller holds whatever keeps other
/// writers out of it.
pub fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let unfinished = entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX);
        if unfinished && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a file that must not exist yet (mode 0600). Visible whole or not at all; durable when it returns.
/// `AlreadyExists` if there is one, which is left as it is.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_new_pieces(path, &[bytes])
}

/// As [`write_new`], for content in several pieces.
pub fn write_new_pieces(path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    let temp = write_temp(path, pieces)?;
    // A hard link fails where rename would silently replace.
    let linked = match fs::hard_link(&temp, path) {
        Err(error) if matches!(error.raw_os_error(), Some(code) if link_unsupported(code)) => {
            rename_noreplace(&temp, path)
        }
        other => other,
    };
    remove_quietly(&temp);
    linked?;
    sync_dir(parent_of(path))
}

/// File systems without hard links answer one of these.
fn link_unsupported(code: i32) -> bool {
    use rustix::io::Errno;
    [Errno::PERM, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::MLINK]
        .iter()
        .any(|errno| errno.raw_os_error() == code)
}

fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from)
}

/// Replaces or creates a file (mode 0600). Readers see the old or the new content; durable when it returns.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that may rename: it syncs the file and the directory"
)]
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = write_temp(path, &[bytes])?;
    if let Err(error) = fs::rename(&temp, path) {
        remove_quietly(&temp);
        return Err(error);
    }
    sync_dir(parent_of(path))
}

/// As [`replace`], through the name `temp` in the same folder: what a killed call leaves there, the next one replaces. For
/// folders that nobody sweeps; one caller at a time.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that may rename: it syncs the file and the directory"
)]
pub fn replace_through(temp: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove_quietly(temp);
    write_pieces(temp, &[bytes])?;
    if let Err(error) = fs::rename(temp, path) {
        remove_quietly(temp);
        return Err(error);
    }
    sync_dir(parent_of(path))
}

/// Moves a finished file or directory to a name that is free, durably. Fails if `to` exists.
pub fn publish(from: &Path, to: &Path) -> io::Result<()> {
    rename_noreplace(from, to)?;
    sync_dir(parent_of(to))
}

/// Moves a finished file, durably, to a name that may be taken: what is there is replaced in one step, a link itself and
/// never what it leads to. Fails if `to` is a directory.
#[expect(clippy::disallowed_methods, reason = "syncs the directory; replacing is what the caller asks for")]
pub fn publish_over(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(parent_of(to))
}

/// Exchanges two directories or files that both exist, in one step and durably. Not every file system can: then nothing
/// is changed.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    sync_dir(parent_of(one))?;
    sync_dir(parent_of(other))
}

/// Removes a file, durably. Its absence is an error of kind `NotFound`.
pub fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_dir(parent_of(path))
}

/// Removes a directory and everything below it, also where a restored mode forbids it; never follows a link, and refuses what
/// is mounted below. A directory that is not there is fine; a link in its place goes itself. Each level of folders costs one
/// descriptor.
pub fn remove_tree(dir: &Path) -> io::Result<()> {
    let Some(name) = dir.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    match Folder::above(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        parent => parent?.remove(name),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn write_new_never_replaces_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("object");
        write_new(&path, b"one").unwrap();
        assert_eq!(write_new(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(names(dir.path()), ["object"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn replace_swaps_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["state"]);
    }

    #[test]
    fn an_exchange_leaves_both_under_the_others_name() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        write_new(&one, b"1").unwrap();
        assert!(exchange(&one, &other).is_err(), "there is nothing to exchange with");
        create_dir_all(&other).unwrap();
        exchange(&one, &other).unwrap();
        assert!(one.is_dir() && fs::read(&other).unwrap() == b"1");
    }

    #[test]
    fn what_a_killed_call_left_under_the_temporary_name_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (temp, path) = (dir.path().join("segment.part"), dir.path().join("segment"));
        write_new(&temp, b"half of an older one").unwrap();
        write_new(&path, b"older").unwrap();
        replace_through(&temp, &path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["segment"]);
    }

    #[test]
    fn publish_refuses_an_existing_target() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(&dir.path().join("staging/inner")).unwrap();
        create_dir_all(&dir.path().join("taken")).unwrap();
        assert!(publish(&dir.path().join("staging"), &dir.path().join("taken")).is_err());
        publish(&dir.path().join("staging"), &dir.path().join("final")).unwrap();
        assert_eq!(names(dir.path()), ["final", "taken"]);
    }

    #[test]
    fn publish_over_replaces_a_file_and_never_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let [old, new, taken] = ["old", "new", "taken"].map(|name| dir.path().join(name));
        write_new(&old, b"one").unwrap();
        write_new(&new, b"two").unwrap();
        create_dir_all(&taken).unwrap();
        assert!(publish_over(&new, &taken).is_err());
        publish_over(&new, &old).unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["old", "taken"]);
    }

    #[test]
    fn a_link_is_not_let_through_and_not_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("link"));
        create_dir_all(&victim.join("inner")).unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        // Only where we are root anything would be changed at all.
        assert_eq!(let_through(&link).is_err(), rustix::process::geteuid().is_root());
        assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o777, DIR_MODE);
        remove_tree(&link).unwrap();
        assert_eq!(names(dir.path()), ["victim"]);
        assert_eq!(names(&victim), ["inner"]);
        remove_tree(&victim).unwrap();
        remove_tree(&victim).unwrap();
        remove_tree(&dir.path().join("no/where")).unwrap();
    }
}
