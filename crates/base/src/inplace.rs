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
    /// Nothing of ours is in it, or only an empty remainder of work that ended or had not begun.
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
        // Before anything is moved there is a record.
        (false, true) if !present(&ours.join(RECORD))? => Ok(State::Untouched),
        (false, _) => Ok(State::Unfinished),
    }
}

/// Where the content of `folder` lies while it is worked on.
pub fn content(folder: &Path) -> PathBuf {
    folder.join(UNFINISHED).join(CONTENT)
}

/// Whether nothing but an empty remainder of ours lies in `folder`; one that does not exist is vacant.
pub fn is_vacant(folder: &Path, keystone: &str) -> io::Result<bool> {
    if is_empty(folder)? {
        return Ok(true);
    }
    let only_ours = names(folder)?.iter().all(|name| name == UNFINISHED);
    Ok(only_ours && state(folder, keystone)? == State::Untouched)
}

/// Removes the empty remainder that makes a folder vacant and not empty; anything more stays.
pub fn remove_remainder(folder: &Path) -> io::Result<()> {
    let ours = folder.join(UNFINISHED);
    if present(&ours)? && is_empty(&ours.join(CONTENT))? && !present(&ours.join(RECORD))? {
        crashsafe::sweep(&ours)?;
        // What is not empty after all keeps its folder, and that is the caller's answer.
        drop(fs::remove_dir(ours.join(CONTENT)));
        drop(fs::remove_dir(&ours));
    }
    Ok(())
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
        content(&self.folder)
    }

    fn ours(&self) -> PathBuf {
        self.folder.join(UNFINISHED)
    }

    /// Takes the content down, the keystone first, also where an earlier run got only part of the way. `record` says how to
    /// go on and is durable before anything is moved. Once nobody can open the content any more, `alone` is asked whether
    /// nobody had it open. On failure what was moved is put back.
    pub fn take_down(&self, record: &[u8], alone: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
        let standing = self.standing()?;
        self.refuse_mounts(&standing)?;
        let (ours, content) = (self.ours(), self.content());
        refuse_link(&ours)?;
        refuse_link(&content)?;
        crashsafe::create_dir_all(&ours)?;
        crashsafe::replace(&ours.join(RECORD), record)?;
        crashsafe::create_dir_all(&content)?;
        for (done, name) in standing.iter().enumerate() {
            let first = if done == 1 { alone() } else { Ok(()) };
            if let Err(error) = first.and_then(|()| move_entry(&self.folder, &content, name)) {
                // Only what this call moved: what an earlier run took down may be half-made. The keystone was first to
                // leave and is last to return; what cannot return leaves the folder unfinished.
                let back = |name: &OsString| move_entry(&content, &self.folder, name).is_ok();
                standing.iter().take(done).rev().all(back);
                return Err(error);
            }
        }
        [&self.folder, &self.ours(), &content]
            .into_iter()
            .try_for_each(|folder| crashsafe::let_through(folder))
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

    /// Removes what is ours as far as it is empty: for work that ended before it began.
    pub fn leave(self) -> io::Result<()> {
        match fs::remove_dir(self.content()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        crashsafe::remove_tree(&self.ours())?;
        if self.made { fs::remove_dir(&self.folder) } else { Ok(()) }
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

/// A folder of ours is a folder: a link of its name would aim us at something else.
fn refuse_link(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_meta) => {
            let why = format!("{} is not a folder of ours", path.display());
            Err(io::Error::new(io::ErrorKind::NotADirectory, why))
        }
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

/// Everything mounted below `folder`; nothing where the system does not tell.
pub fn mounts_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = fs::canonicalize(folder)?;
    match fs::read("/proc/self/mountinfo") {
        Ok(table) => Ok(below(&table, &folder)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The mount points of a kernel's table that lie below `folder`.
fn below(table: &[u8], folder: &Path) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        let mut bytes = Vec::new();
        let mut rest = field;
        while let Some((&byte, after)) = rest.split_first() {
            // Blanks, ends of lines and backslashes stand as three octal digits.
            let code = after.get(..3).filter(|_| byte == b'\\');
            let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
            bytes.push(code.unwrap_or(byte));
            rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
        }
        Some(PathBuf::from(OsString::from_vec(bytes)))
    });
    points.filter(|point| point.starts_with(folder) && point != folder).collect()
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
        site.take_down(b"how", &|| Ok(())).unwrap();
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
            site.take_down(b"how", &|| Ok(())).unwrap();
            assert_eq!(standing(dir.path()), [UNFINISHED]);
            site.put_up().unwrap();
            assert_eq!(standing(dir.path()).len(), 4);
        }
    }

    #[test]
    fn content_that_somebody_has_open_is_put_back() {
        let dir = cluster();
        let before = standing(dir.path());
        let site = Site::open(dir.path(), "KEY").unwrap();
        let open = || {
            assert!(!dir.path().join("KEY").exists(), "asked while it could still be opened");
            Err(io::Error::other("open"))
        };
        assert!(site.take_down(b"how", &open).is_err());
        let mut after = standing(dir.path());
        after.retain(|name| name != UNFINISHED);
        assert_eq!(after, before);
        assert_eq!(state(dir.path(), "KEY").unwrap(), State::Untouched);
    }

    #[test]
    fn mounts_are_told_with_blanks_in_their_names() {
        let table = b"22 1 8:1 / / rw - ext4 a rw\n30 22 8:2 / /srv/a\\040b/in rw - ext4 b rw\n31 22 8:2 / /srv/ab rw - x y z\n";
        assert_eq!(below(table, Path::new("/srv/a b")), [PathBuf::from("/srv/a b/in")]);
        assert!(below(table, Path::new("/srv/a b/in")).is_empty());
    }

    #[test]
    fn a_planted_link_is_not_worked_through() {
        let outside = cluster();
        for name in [UNFINISHED.to_owned(), format!("{UNFINISHED}/{CONTENT}")] {
            let dir = cluster();
            crashsafe::create_dir_all(dir.path().join(&name).parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(outside.path(), dir.path().join(&name)).unwrap();
            let site = Site::open(dir.path(), "KEY").unwrap();
            assert!(site.take_down(b"how", &|| Ok(())).is_err());
            assert_eq!(standing(outside.path()).len(), 4);
            assert!(dir.path().join("KEY").exists());
        }
    }

    #[test]
    fn a_remainder_without_a_record_is_no_work() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(UNFINISHED)).unwrap();
        assert_eq!(state(dir.path(), "KEY").unwrap(), State::Untouched);
        assert!(is_vacant(dir.path(), "KEY").unwrap());
        remove_remainder(dir.path()).unwrap();
        assert!(is_empty(dir.path()).unwrap());
        crashsafe::write_new(&dir.path().join("KEY"), b"x").unwrap();
        assert!(!is_vacant(dir.path(), "KEY").unwrap());
    }

    #[test]
    fn a_second_worker_is_turned_away_and_a_name_on_both_sides_stops_the_work() {
        let dir = cluster();
        let site = Site::open(dir.path(), "KEY").unwrap();
        assert_eq!(Site::open(dir.path(), "KEY").unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        site.take_down(b"how", &|| Ok(())).unwrap();
        crashsafe::write_new(&dir.path().join("other"), b"new").unwrap();
        crashsafe::write_new(&dir.path().join("more"), b"new").unwrap();
        assert!(site.take_down(b"how", &|| Ok(())).is_err());
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
            site.take_down(b"how", &|| Ok(())).unwrap();
            crashsafe::write_new(&site.content().join("base"), b"x").unwrap();
            site.discard().unwrap();
        }
        assert!(!new.exists() && is_empty(&empty).unwrap());
    }
}
