//! A folder whose content is worked on where it lies: taken down into a folder of ours inside it, put up again when done.
//!
//! In: a folder and its keystone, the one name without which nothing opens the content. While work goes on, everything lies in
//! `lifeboat-unfinished/content`; the keystone leaves first and comes back last, so at every moment the folder holds its
//! content whole or cannot be opened. Every step is a rename: a kill at any moment leaves one of [`State`], and
//! [`Site::take_down`] goes on from each. What was renamed is never followed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, OFlags, StatxAttributes, StatxFlags, flock, statx};

use crate::crashsafe;

/// Our folder inside the one that is worked on.
pub const UNFINISHED: &str = "lifeboat-unfinished";
const CONTENT: &str = "content";
const RECORD: &str = "resume.json";
/// A record is a page of text.
const MAX_RECORD_BYTES: u64 = 1024 * 1024;

/// What a folder is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing of ours is in it, or only an empty remainder of work that ended.
    Untouched,
    /// Its content is taken down, at least in part.
    Unfinished,
    /// Its keystone is in place while content is still taken down: somebody else put it there.
    Mixed,
}

/// Looks at `folder`; one that does not exist is untouched.
pub fn state(folder: &Path, keystone: &str) -> io::Result<State> {
    let ours = folder.join(UNFINISHED);
    if !present(&ours)? {
        return Ok(State::Untouched);
    }
    match (present(&folder.join(keystone))?, is_empty(&ours.join(CONTENT))?) {
        (true, true) => Ok(State::Untouched),
        (true, false) => Ok(State::Mixed),
        (false, _) => Ok(State::Unfinished),
    }
}

/// What the last work on `folder` wrote down about itself.
pub fn record(folder: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let path = folder.join(UNFINISHED).join(RECORD);
    File::open(path)?.take(MAX_RECORD_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Locks a folder that must be a real one for as long as the file lives; nothing if somebody else has it.
pub fn hold(folder: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(folder, flags, rustix::fs::Mode::empty())?);
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A folder at work, locked.
#[derive(Debug)]
pub struct Site {
    folder: PathBuf,
    keystone: &'static str,
    /// Made by us, to be removed with what is in it.
    made: bool,
    _held: File,
}

impl Site {
    /// Locks `folder`, making it if it does not exist. `ResourceBusy` if another process works on it. Nothing in it is changed.
    pub fn open(folder: &Path, keystone: &'static str) -> io::Result<Self> {
        let made = !present(folder)?;
        crashsafe::create_dir_all(folder)?;
        let held = hold(folder)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::ResourceBusy, "another process is at work in it"))?;
        Ok(Self { folder: folder.to_owned(), keystone, made, _held: held })
    }

    /// Where the content lies while it is worked on.
    pub fn content(&self) -> PathBuf {
        self.ours().join(CONTENT)
    }

    fn ours(&self) -> PathBuf {
        self.folder.join(UNFINISHED)
    }

    /// Takes the content down, the keystone first, also where an earlier run got only part of the way. `record` says how to
    /// go on and is durable before anything is moved. On failure what was moved is put back.
    pub fn take_down(&self, record: &[u8]) -> io::Result<()> {
        let standing = self.standing()?;
        self.refuse_mounts(&standing)?;
        let content = self.content();
        crashsafe::create_dir_all(&content)?;
        crashsafe::replace(&self.ours().join(RECORD), record)?;
        for folder in [&self.folder, &self.ours(), &content] {
            crashsafe::let_through(folder)?;
        }
        for (done, name) in standing.iter().enumerate() {
            if let Err(error) = move_entry(&self.folder, &content, name) {
                // Only what this call moved: what an earlier run took down may be half-made. The keystone was first to
                // leave and is last to return; what cannot return leaves the folder unfinished.
                let back = |name: &OsString| move_entry(&content, &self.folder, name).is_ok();
                standing.iter().take(done).rev().all(back);
                return Err(error);
            }
        }
        Ok(())
    }

    /// What lies in the folder beside ours, the keystone first.
    fn standing(&self) -> io::Result<Vec<OsString>> {
        let mut names = names(&self.folder)?;
        names.retain(|name| name != UNFINISHED);
        names.sort_by_key(|name| name.as_os_str() != OsStr::new(self.keystone));
        Ok(names)
    }

    /// A mount cannot be renamed, and what lies on it is not ours to remove.
    fn refuse_mounts(&self, names: &[OsString]) -> io::Result<()> {
        for name in names {
            let path = self.folder.join(name);
            if is_mount(&path)? {
                let why = format!("{} is a mount of its own", path.display());
                return Err(io::Error::new(io::ErrorKind::CrossesDevices, why));
            }
        }
        Ok(())
    }

    fn put_back(&self) -> io::Result<()> {
        let content = self.content();
        let mut names = names(&content)?;
        names.sort_by_key(|name| name.as_os_str() == OsStr::new(self.keystone));
        names.iter().try_for_each(|name| move_entry(&content, &self.folder, name))
    }

    /// Puts the content up, the keystone last, and removes what is ours. The folder gets the owner and the mode that the content has.
    pub fn put_up(self) -> io::Result<()> {
        let meta = fs::metadata(self.content())?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&self.folder, Some(meta.uid()), Some(meta.gid()))?;
        }
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        self.put_back()?;
        crashsafe::remove_tree(&self.ours())?;
        crashsafe::sync_dir(&self.folder)
    }

    /// Removes the content and everything of ours; the folder itself only if it was made for this.
    pub fn discard(self) -> io::Result<()> {
        // The record goes last: until then the next run knows what is here.
        crashsafe::remove_tree(&self.content())?;
        crashsafe::remove_tree(&self.ours())?;
        if self.made { fs::remove_dir(&self.folder) } else { Ok(()) }
    }
}

fn present(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_meta) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether nothing lies in `folder`; one that does not exist is empty.
pub fn is_empty(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Whether something is mounted at `path`; a link is never a mount.
fn is_mount(path: &Path) -> io::Result<bool> {
    let meta = fs::symlink_metadata(path)?;
    let parent = path.parent().map(fs::symlink_metadata).transpose()?;
    if parent.is_some_and(|parent| parent.dev() != meta.dev()) {
        return Ok(true);
    }
    // Also finds one of the same file system; kernels before 5.8 do not say, and refuse the rename later.
    let found = statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
    Ok(found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)))
}

/// Moves one entry, durably; a name that is taken on the other side is an error.
fn move_entry(from: &Path, to: &Path, name: &OsStr) -> io::Result<()> {
    crashsafe::publish(&from.join(name), &to.join(name)).map_err(|error| {
        io::Error::new(error.kind(), format!("{} cannot be moved: {error}", from.join(name).display()))
    })?;
    crashsafe::sync_dir(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["KEY", "base", "other"] {
            crashsafe::write_new(&dir.path().join(name), name.as_bytes()).unwrap();
        }
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        dir
    }

    fn standing(dir: &Path) -> Vec<OsString> {
        let mut names = names(dir).unwrap();
        names.sort();
        names
    }

    #[test]
    fn content_is_taken_down_and_put_up_as_it_was() {
        let dir = cluster();
        let before = standing(dir.path());
        let site = Site::open(dir.path(), "KEY").unwrap();
        site.take_down(b"how").unwrap();
        assert_eq!(standing(dir.path()), [UNFINISHED]);
        assert_eq!(standing(&site.content()), before);
        assert_eq!(state(dir.path(), "KEY").unwrap(), State::Unfinished);
        assert_eq!(record(dir.path()).unwrap(), b"how");
        site.put_up().unwrap();
        assert_eq!(standing(dir.path()), before);
        assert_eq!(state(dir.path(), "KEY").unwrap(), State::Untouched);
    }

    #[test]
    fn every_stage_on_the_way_is_told_and_gone_on_from() {
        // Each entry may be on either side when a run is killed; with the keystone up nothing else may be down.
        for down in 0..16u32 {
            let dir = cluster();
            let content = dir.path().join(UNFINISHED).join(CONTENT);
            crashsafe::create_dir_all(&content).unwrap();
            for (bit, name) in ["KEY", "base", "other", "link"].iter().enumerate() {
                if down >> bit & 1 == 1 {
                    move_entry(dir.path(), &content, OsStr::new(name)).unwrap();
                }
            }
            let expected = match (down & 1, down) {
                (1, _) => State::Unfinished,
                (_, 0) => State::Untouched,
                _ => State::Mixed,
            };
            assert_eq!(state(dir.path(), "KEY").unwrap(), expected, "{down:b}");
            let site = Site::open(dir.path(), "KEY").unwrap();
            site.take_down(b"how").unwrap();
            assert_eq!(standing(dir.path()), [UNFINISHED]);
            site.put_up().unwrap();
            assert_eq!(standing(dir.path()).len(), 4);
        }
    }

    #[test]
    fn a_second_worker_is_turned_away_and_a_name_on_both_sides_stops_the_work() {
        let dir = cluster();
        let site = Site::open(dir.path(), "KEY").unwrap();
        assert_eq!(Site::open(dir.path(), "KEY").unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        site.take_down(b"how").unwrap();
        crashsafe::write_new(&dir.path().join("other"), b"new").unwrap();
        crashsafe::write_new(&dir.path().join("more"), b"new").unwrap();
        assert!(site.take_down(b"how").is_err());
        assert_eq!(fs::read(dir.path().join("other")).unwrap(), b"new");
        // What an earlier run took down stays down: it may be half-made.
        assert_eq!(standing(dir.path()), [UNFINISHED, "more", "other"]);
    }

    #[test]
    fn what_is_discarded_leaves_what_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let (new, empty) = (dir.path().join("new"), dir.path().join("empty"));
        fs::create_dir(&empty).unwrap();
        for folder in [&new, &empty] {
            let site = Site::open(folder, "KEY").unwrap();
            site.take_down(b"how").unwrap();
            crashsafe::write_new(&site.content().join("base"), b"x").unwrap();
            site.discard().unwrap();
        }
        assert!(!new.exists() && is_empty(&empty).unwrap());
    }
}
