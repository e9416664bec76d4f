//! A folder whose content is worked on where it lies: taken down into a folder of ours inside it, put up again when done.
//!
//! In: a folder and its keystone, the one name without which nothing opens the content. While work goes on, everything lies in
//! `lifeboat-unfinished/content`; the keystone leaves first and comes back last, so at every moment the folder holds its
//! content whole or cannot be opened. Every step is a rename: a kill at any moment leaves one of [`State`], and
//! [`Site::take_down`] goes on from each. What was renamed is never followed. The folder may belong to an account that means
//! us harm: it is resolved once and held, and where we are root it is root's until its content is put up.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::crashsafe::{self, PASSAGE_MODE};
use crate::folder::{Entry, Folder, Made};

/// Our folder inside the one that is worked on.
pub const UNFINISHED: &str = "lifeboat-unfinished";
const CONTENT: &str = "content";
const RECORD: &str = "resume.json";
/// A record is a page of text.
const MAX_RECORD_BYTES: u64 = 1024 * 1024;
/// Nobody but us gets at what is half-made.
const PRIVATE_MODE: u32 = 0o700;

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

/// Looks at `folder`; one that does not exist is untouched. An error if a file or link has the name of our folder.
pub fn state(folder: &Path, keystone: &str) -> io::Result<State> {
    let Some(top) = there(Folder::open(folder))? else { return Ok(State::Untouched) };
    let Some(ours) = ours_in(&top, folder)? else { return Ok(State::Untouched) };
    let down = match there(ours.inner(CONTENT))? {
        Some(content) => !content.is_empty()?,
        None => false,
    };
    Ok(match (top.look(keystone)?.is_some(), down) {
        (true, false) => State::Untouched,
        (true, true) => State::Mixed,
        // Before anything is moved there is a record.
        (false, false) if ours.look(RECORD)?.is_none() => State::Untouched,
        (false, _) => State::Unfinished,
    })
}

/// Where the content of `folder` lies while it is worked on.
pub fn content(folder: &Path) -> PathBuf {
    folder.join(UNFINISHED).join(CONTENT)
}

/// Whether nothing but an empty remainder of ours lies in `folder`; one that does not exist is vacant.
pub fn is_vacant(folder: &Path, keystone: &str) -> io::Result<bool> {
    Ok(is_ours_alone(folder)? && state(folder, keystone)? == State::Untouched)
}

/// Whether nothing lies in `folder` but our own folder, if that; so it is with one that does not exist.
pub fn is_ours_alone(folder: &Path) -> io::Result<bool> {
    let Some(top) = there(Folder::open(folder))? else { return Ok(true) };
    Ok(top.names()?.iter().all(|name| name == UNFINISHED))
}

/// Removes the empty remainder that makes a folder vacant and not empty; anything more stays.
pub fn remove_remainder(folder: &Path) -> io::Result<()> {
    let Some(top) = there(Folder::open(folder))? else { return Ok(()) };
    let Some(ours) = ours_in(&top, folder)? else { return Ok(()) };
    for name in ours.names()? {
        let unfinished = name.to_string_lossy().starts_with(crashsafe::TEMP_PREFIX);
        if unfinished && ours.look(&name)?.is_some_and(|entry| entry.is_plain) {
            ours.remove_file(&name)?;
        }
    }
    // What is not empty after all keeps its folder, and that is the caller's answer.
    drop(ours.remove_empty(CONTENT));
    drop(top.remove_empty(UNFINISHED));
    Ok(())
}

/// The part of our remains in `folder` that somebody else may have written, so that nothing it says can be believed: it
/// must belong to root or to us, and nobody else may write it.
pub fn foreign(folder: &Path) -> io::Result<Option<PathBuf>> {
    match there(Folder::open(folder))? {
        Some(top) => foreign_in(&top, folder),
        None => Ok(None),
    }
}

fn foreign_in(top: &Folder, folder: &Path) -> io::Result<Option<PathBuf>> {
    let Some(ours) = ours_in(top, folder)? else { return Ok(None) };
    let path = folder.join(UNFINISHED);
    if !ours.entry()?.is_ours() {
        return Ok(Some(path));
    }
    let record = ours.look(RECORD)?;
    let believed = |entry: Entry| entry.is_plain && entry.is_ours();
    Ok(record.filter(|entry| !believed(*entry)).map(|_| path.join(RECORD)))
}

/// What the last work on `folder` wrote down about itself; nothing if there is no such thing that can be believed.
pub fn record(folder: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some(top) = there(Folder::open(folder))? else { return Ok(None) };
    let Some(ours) = ours_in(&top, folder)?.filter(|ours| ours.entry().is_ok_and(|entry| entry.is_ours()))
    else {
        return Ok(None);
    };
    // Looked at once it is open: what was there before may have been exchanged.
    let found = ours.read(RECORD, MAX_RECORD_BYTES)?;
    Ok(found.filter(|(entry, _)| entry.is_ours()).map(|(_, bytes)| bytes))
}

/// Locks a folder that must be a real one for as long as it is held, making it if it does not exist; nothing if somebody else
/// has it.
pub fn hold(folder: &Path) -> io::Result<Option<(Folder, Option<Made>)>> {
    let (held, made) = Folder::open_or_make(folder)?;
    Ok(held.lock()?.then_some((held, made)))
}

/// A folder at work, locked.
#[derive(Debug)]
pub struct Site {
    /// How it is told; what is done goes through `top`.
    folder: PathBuf,
    keystone: &'static str,
    top: Folder,
    /// What the folder was like.
    before: Entry,
    /// How to remove it, if it was made for this.
    made: Option<Made>,
    down: Option<Down>,
}

/// Where the content is while it is taken down.
#[derive(Debug)]
struct Down {
    ours: Folder,
    content: Folder,
}

impl Site {
    /// Locks `folder`, making it if it does not exist. `ResourceBusy` if another process works on it. Nothing in it is changed.
    pub fn open(folder: &Path, keystone: &'static str) -> io::Result<Self> {
        let (top, made) = hold(folder)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::ResourceBusy, "another process is at work in it"))?;
        let before = top.entry()?;
        Ok(Self { folder: folder.to_owned(), keystone, top, before, made, down: None })
    }

    /// A path of this very folder, for as long as this lives and in this process only.
    pub fn path(&self) -> PathBuf {
        self.top.path()
    }

    /// Takes the content down, the keystone first, also where an earlier run got only part of the way. `record` says how to
    /// go on and is durable before anything is moved. Once nobody can open the content any more, `alone` is asked whether
    /// nobody had it open. On failure what was moved is put back. Gives a path of the folder the content lies in, as
    /// [`Site::path`] does; where we are root, that folder and those above it are root's from now on.
    pub fn take_down(&mut self, record: &[u8], alone: &dyn Fn() -> io::Result<()>) -> io::Result<PathBuf> {
        let standing = self.standing()?;
        self.refuse_mounts(&standing)?;
        if let Some(path) = foreign_in(&self.top, &self.folder)? {
            let why = format!("{} may have been written by somebody else", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let ours = self.top.inner_or_make(UNFINISHED)?;
        ours.write(RECORD, &[record], None)?;
        let content = ours.inner_or_make(CONTENT)?;
        let down = Down { ours, content };
        let moved = self.move_down(&standing, &down, alone);
        let path = down.content.path();
        // Also after a failure: what is there of ours has to go.
        self.down = Some(down);
        moved.map(|()| path)
    }

    fn move_down(
        &self,
        standing: &[OsString],
        down: &Down,
        alone: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        let moved = standing.iter().try_for_each(|name| {
            if done == 1 {
                // A folder without its keystone is one that cannot be opened in any case: now it may change hands.
                self.top.keep(PASSAGE_MODE)?;
                alone()?;
            }
            let path = self.folder.join(name);
            self.top.move_to(name, &down.content).map_err(|error| {
                io::Error::new(error.kind(), format!("{} cannot be moved: {error}", path.display()))
            })?;
            done += 1;
            Ok(())
        });
        if let Err(error) = moved {
            // Only what this call moved: what an earlier run took down may be half-made. The keystone was first to
            // leave and is last to return; what cannot return leaves the folder unfinished.
            let mut back = standing.iter().enumerate().take(done).rev();
            back.all(|(number, name)| {
                (number > 0 || self.top.give_back(&self.before).is_ok())
                    && down.content.move_to(name, &self.top).is_ok()
            });
            return Err(error);
        }
        self.top.keep(PASSAGE_MODE)?;
        down.ours.keep(PASSAGE_MODE)?;
        down.content.keep(PRIVATE_MODE)
    }

    /// What lies in the folder beside ours, the keystone first.
    fn standing(&self) -> io::Result<Vec<OsString>> {
        let mut names = self.top.names()?;
        names.retain(|name| name != UNFINISHED);
        names.sort_by_key(|name| name.as_os_str() != OsStr::new(self.keystone));
        Ok(names)
    }

    /// A mount cannot be renamed, and what lies on it is not ours to remove.
    fn refuse_mounts(&self, names: &[OsString]) -> io::Result<()> {
        for name in names {
            if self.top.is_mount(name)? {
                let why = format!("{} is a mount of its own", self.folder.join(name).display());
                return Err(io::Error::new(io::ErrorKind::CrossesDevices, why));
            }
        }
        Ok(())
    }

    /// Puts the content up, the keystone last, and removes what is ours. The folder gets the owner and the mode that the content has.
    pub fn put_up(self) -> io::Result<()> {
        let Some(down) = &self.down else { return Ok(()) };
        let meta = down.content.entry()?;
        let (last, others): (Vec<OsString>, Vec<OsString>) =
            down.content.names()?.into_iter().partition(|name| name == self.keystone);
        others.iter().try_for_each(|name| down.content.move_to(name, &self.top))?;
        // Whoever can open it finds it as it is to be: a kill after the keystone leaves nothing to be done.
        self.top.hand_over(&meta)?;
        last.iter().try_for_each(|name| down.content.move_to(name, &self.top))?;
        self.remove_ours(down)
    }

    /// Removes what is ours as far as it is empty: for work that ended before it began.
    pub fn leave(self) -> io::Result<()> {
        if let Some(down) = &self.down {
            match down.ours.remove_empty(CONTENT) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.remove_ours(down)?;
        }
        self.made.as_ref().map_or(Ok(()), Made::remove)
    }

    /// Removes the content and everything of ours; the folder itself only if it was made for this, else it becomes what it was.
    pub fn discard(self) -> io::Result<()> {
        if let Some(down) = &self.down {
            down.content.clear()?;
            self.remove_ours(down)?;
        }
        match &self.made {
            Some(made) => made.remove(),
            None => self.top.give_back(&self.before),
        }
    }

    fn remove_ours(&self, down: &Down) -> io::Result<()> {
        // The record goes last: until then the next run knows what is here.
        down.ours.remove(CONTENT)?;
        down.ours.clear()?;
        match self.top.remove_empty(UNFINISHED) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.top.sync()
    }
}

/// Nothing in place of what is not there.
fn there(found: io::Result<Folder>) -> io::Result<Option<Folder>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Our folder in `top`. It is a folder: a link of its name would aim us at something else.
fn ours_in(top: &Folder, folder: &Path) -> io::Result<Option<Folder>> {
    match top.look(UNFINISHED)? {
        None => Ok(None),
        Some(entry) if entry.is_dir => there(top.inner(UNFINISHED)),
        Some(_) => {
            let why = format!("{} is not a folder of ours", folder.join(UNFINISHED).display());
            Err(io::Error::new(io::ErrorKind::NotADirectory, why))
        }
    }
}

/// Whether nothing lies in `folder`; one that does not exist is empty.
pub fn is_empty(folder: &Path) -> io::Result<bool> {
    there(Folder::open(folder))?.map_or(Ok(true), |folder| folder.is_empty())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn cluster() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["KEY", "base", "other"] {
            crashsafe::write_new(&dir.path().join(name), name.as_bytes()).unwrap();
        }
        symlink("/nowhere", dir.path().join("link")).unwrap();
        dir
    }

    fn standing(dir: &Path) -> Vec<OsString> {
        let mut names = Folder::open(dir).unwrap().names().unwrap();
        names.sort();
        names
    }

    fn taken_down(dir: &Path) -> (Site, PathBuf) {
        let mut site = Site::open(dir, "KEY").unwrap();
        let content = site.take_down(b"how", &|| Ok(())).unwrap();
        (site, content)
    }

    #[test]
    fn content_is_taken_down_and_put_up_as_it_was() {
        let dir = cluster();
        let before = standing(dir.path());
        let (site, content) = taken_down(dir.path());
        assert_eq!(standing(dir.path()), [UNFINISHED]);
        assert_eq!(standing(&content), before);
        assert_eq!(state(dir.path(), "KEY").unwrap(), State::Unfinished);
        assert_eq!(record(dir.path()).unwrap().unwrap(), b"how");
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
                    crashsafe::publish(&dir.path().join(name), &content.join(name)).unwrap();
                }
            }
            let expected = match (down & 1, down) {
                (1, _) => State::Unfinished,
                (_, 0) => State::Untouched,
                _ => State::Mixed,
            };
            assert_eq!(state(dir.path(), "KEY").unwrap(), expected, "{down:b}");
            let (site, _content) = taken_down(dir.path());
            assert_eq!(standing(dir.path()), [UNFINISHED]);
            site.put_up().unwrap();
            assert_eq!(standing(dir.path()).len(), 4);
        }
    }

    #[test]
    fn content_that_somebody_has_open_is_put_back() {
        let dir = cluster();
        let before = standing(dir.path());
        let mut site = Site::open(dir.path(), "KEY").unwrap();
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
            symlink(outside.path(), dir.path().join(&name)).unwrap();
            let mut site = Site::open(dir.path(), "KEY").unwrap();
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
        let mut site = Site::open(dir.path(), "KEY").unwrap();
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
            let (site, content) = taken_down(folder);
            crashsafe::write_new(&content.join("base"), b"x").unwrap();
            site.discard().unwrap();
        }
        assert!(!new.exists() && is_empty(&empty).unwrap());
    }

    /// Owner, group and mode.
    fn of(path: &Path) -> (u32, u32, u32) {
        let meta = fs::metadata(path).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Makes it somebody else's, where we can.
    fn give(path: &Path) {
        Folder::open(path).unwrap().give((12_345, 12_346)).unwrap();
    }

    #[test]
    fn a_folder_is_roots_while_it_is_worked_on_and_its_owners_again_afterwards() {
        let dir = cluster();
        set(dir.path(), 0o750);
        give(dir.path());
        let before = of(dir.path());
        // Only root can take something from its owner.
        let kept = if rustix::process::geteuid().is_root() { (0, 0, 0o711) } else { before };
        let open = || {
            assert_eq!(of(dir.path()), kept, "asked while others could still change it");
            Err(io::Error::other("open"))
        };
        assert!(Site::open(dir.path(), "KEY").unwrap().take_down(b"how", &open).is_err());
        assert_eq!(of(dir.path()), before);
        let (site, content) = taken_down(dir.path());
        assert_eq!(of(dir.path()), kept);
        assert_eq!(of(&dir.path().join(UNFINISHED)).0, kept.0);
        assert_eq!((of(&content).0, of(&content).2), (kept.0, 0o700));
        give(&content);
        site.put_up().unwrap();
        assert_eq!(of(dir.path()), (before.0, before.1, 0o700));
        assert_eq!(standing(dir.path()).len(), 4);
        // What fails leaves an empty folder as it was.
        let empty = tempfile::tempdir().unwrap();
        give(empty.path());
        let before = of(empty.path());
        taken_down(empty.path()).0.discard().unwrap();
        assert_eq!(of(empty.path()), before);
    }

    /// A folder at work, whose path somebody lets lead to another folder before the next step.
    fn exchanged(step: fn(Site) -> io::Result<()>) -> (tempfile::TempDir, io::Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let (folder, victim) = (dir.path().join("folder"), dir.path().join("victim"));
        for (place, mode) in [(&folder, 0o700), (&victim, 0o751), (&content(&victim), 0o755)] {
            crashsafe::create_dir_all(place).unwrap();
            crashsafe::write_new(&place.join("precious"), b"precious").unwrap();
            set(place, mode);
        }
        crashsafe::write_new(&folder.join("KEY"), b"x").unwrap();
        let (site, _content) = taken_down(&folder);
        crashsafe::publish(&folder, &dir.path().join("moved")).unwrap();
        symlink(&victim, &folder).unwrap();
        let done = step(site);
        assert_eq!(of(&victim).2, 0o751);
        assert_eq!(of(&content(&victim)).2, 0o755);
        assert_eq!(standing(&victim), [UNFINISHED, "precious"]);
        assert_eq!(standing(&content(&victim)), ["precious"]);
        (dir, done)
    }

    #[test]
    fn nothing_is_given_away_moved_or_removed_in_what_a_path_was_made_to_lead_to() {
        let (dir, done) = exchanged(Site::put_up);
        done.unwrap();
        assert_eq!(standing(&dir.path().join("moved")), ["KEY", "precious"]);
        let (dir, done) = exchanged(Site::discard);
        done.unwrap();
        assert!(is_empty(&dir.path().join("moved")).unwrap());
        // Exchanged before anything is taken down.
        let (folder, victim) = (dir.path().join("other"), cluster());
        crashsafe::create_dir_all(&folder).unwrap();
        crashsafe::write_new(&folder.join("KEY"), b"x").unwrap();
        let before = (of(victim.path()), standing(victim.path()));
        let mut site = Site::open(&folder, "KEY").unwrap();
        crashsafe::publish(&folder, &dir.path().join("real")).unwrap();
        symlink(victim.path(), &folder).unwrap();
        site.take_down(b"how", &|| Ok(())).unwrap();
        assert_eq!((of(victim.path()), standing(victim.path())), before);
        assert_eq!(standing(&dir.path().join("real")), [UNFINISHED]);
        // A folder that was made goes by what it was made in.
        let dir = tempfile::tempdir().unwrap();
        let (outer, victim) = (dir.path().join("outer"), dir.path().join("victim"));
        for place in [&outer, &victim.join("new")] {
            crashsafe::create_dir_all(place).unwrap();
        }
        let (site, _content) = taken_down(&outer.join("new"));
        crashsafe::publish(&outer, &dir.path().join("moved")).unwrap();
        symlink(&victim, &outer).unwrap();
        site.discard().unwrap();
        assert!(victim.join("new").is_dir() && is_empty(&dir.path().join("moved")).unwrap());
    }

    #[test]
    fn what_somebody_else_may_have_written_is_not_believed() {
        let dir = cluster();
        let (ours, record_path) = (dir.path().join(UNFINISHED), dir.path().join(UNFINISHED).join(RECORD));
        let (site, _content) = taken_down(dir.path());
        drop(site);
        assert_eq!(foreign(dir.path()).unwrap(), None);
        let told = |foreigner: &Path| {
            assert_eq!(foreign(dir.path()).unwrap().as_deref(), Some(foreigner));
            assert_eq!(record(dir.path()).ok().flatten(), None);
            let mut site = Site::open(dir.path(), "KEY").unwrap();
            assert!(site.take_down(b"how", &|| Ok(())).is_err());
            site.leave().unwrap();
            assert_eq!(state(dir.path(), "KEY").unwrap(), State::Unfinished);
        };
        let before = of(&ours).2;
        set(&ours, 0o777);
        told(&ours);
        set(&ours, before);
        set(&record_path, 0o660);
        told(&record_path);
        set(&record_path, 0o600);
        if rustix::process::geteuid().is_root() {
            let ours_held = Folder::open(&ours).unwrap();
            ours_held.give_entry(RECORD, (12_345, 12_345)).unwrap();
            told(&record_path);
            ours_held.give_entry(RECORD, (0, 0)).unwrap();
            ours_held.give((12_345, 12_345)).unwrap();
            told(&ours);
            ours_held.give((0, 0)).unwrap();
        }
        // Another file under its name, and a link to one.
        let other = dir.path().join("other-file");
        crashsafe::publish(&record_path, &other).unwrap();
        fs::hard_link(&other, &record_path).unwrap();
        told(&record_path);
        fs::remove_file(&record_path).unwrap();
        symlink(&other, &record_path).unwrap();
        told(&record_path);
    }
}
