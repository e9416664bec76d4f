//! A folder that is held open, so that what is done in it is done in it, whatever its path leads to by then.
//!
//! In: a path, resolved once. Out: work on single names in the folder, none of which is ever followed if it is a link.
//! Whoever may write in a folder, or above it, can put something else under any name between a look and an act: only a held
//! folder is still the one that was looked at. Needs `/proc`. Each folder costs one descriptor.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, Stat, StatxAttributes,
    StatxFlags, Uid, chmod, chownat, fchmod, fchown, flock, fstat, mkdirat, openat, renameat, renameat_with,
    statat, statx, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::crashsafe;

/// How deep a tree may be that is removed: far deeper than a path can name. A level costs memory for the names in it.
const MAX_DEPTH: usize = 1 << 20;
/// Bits by which others than the owner may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What is known about an entry; of a link, about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A folder.
    pub is_dir: bool,
    /// A plain file with a single name.
    pub is_plain: bool,
    /// A symbolic link.
    pub is_link: bool,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Bytes of content.
    pub len_bytes: u64,
    /// What tells it from every other entry that is there: device and inode.
    pub identity: (u64, u64),
}

impl Entry {
    fn of(found: &Stat) -> Self {
        let kind = FileType::from_raw_mode(found.st_mode);
        Self {
            is_dir: kind == FileType::Directory,
            is_plain: kind == FileType::RegularFile && found.st_nlink == 1,
            is_link: kind == FileType::Symlink,
            owner: (found.st_uid, found.st_gid),
            mode: found.st_mode & 0o7777,
            len_bytes: u64::try_from(found.st_size).unwrap_or_default(),
            identity: (found.st_dev, found.st_ino),
        }
    }

    /// Whether nobody can have written it but us and root.
    pub fn is_ours(&self) -> bool {
        let (uid, _) = self.owner;
        let ours = uid == 0 || uid == rustix::process::geteuid().as_raw();
        ours && !self.is_link && self.mode & WRITABLE_BY_OTHERS == 0
    }
}

/// A folder that is held.
#[derive(Debug)]
pub struct Folder {
    file: File,
}

/// A folder that was made, and can be removed again while it is empty.
#[derive(Debug)]
pub struct Made {
    parent: Folder,
    name: OsString,
}

impl Made {
    /// Removes it if it is empty.
    pub fn remove(&self) -> io::Result<()> {
        self.parent.remove_empty(&self.name)
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Folder {
    /// Holds the folder at `path`, which must be a real one and no link.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::from(openat(CWD, path, DIRECTORY, Mode::empty())?) })
    }

    /// Holds the folder that `path` lies in; a link is the caller's own way to say where that is.
    pub(crate) fn above(path: &Path) -> io::Result<Self> {
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        Ok(Self { file: File::from(openat(CWD, crashsafe::parent_of(path), flags, Mode::empty())?) })
    }

    /// Holds the folder at `path`, making it and what is missing above it (mode 0700). Says if it was made.
    pub fn open_or_make(path: &Path) -> io::Result<(Self, Option<Made>)> {
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return Ok((other?, None)),
        }
        let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
        crashsafe::create_dir_all(crashsafe::parent_of(path))?;
        let parent = Self::above(path)?;
        mkdirat(&parent, name, Mode::RWXU)?;
        parent.sync()?;
        let folder = parent.inner(name)?;
        Ok((folder, Some(Made { parent, name: name.to_owned() })))
    }

    /// Holds the folder of this name, which must be a real one and no link.
    pub fn inner(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        Ok(Self { file: File::from(openat(self, name.as_ref(), DIRECTORY, Mode::empty())?) })
    }

    /// As [`Folder::inner`]; makes the folder if nothing has its name (mode 0700), durably.
    pub fn inner_or_make(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        match mkdirat(self, name.as_ref(), Mode::RWXU) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.inner(name)
    }

    /// A path of this very folder, for as long as it is held and in this process only. What is below it is still resolved
    /// name by name.
    pub fn path(&self) -> PathBuf {
        // The dot makes it the folder itself even for those who follow no link.
        PathBuf::from(format!("/proc/self/fd/{}/.", self.file.as_raw_fd()))
    }

    /// What is known about the folder itself.
    pub fn entry(&self) -> io::Result<Entry> {
        Ok(Entry::of(&fstat(self)?))
    }

    /// What has this name; nothing if nothing has.
    pub fn look(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Entry>> {
        match statat(self, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(Entry::of(&found))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in it, in no order.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(self)? {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Whether nothing lies in it.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.names()?.is_empty())
    }

    /// Whether something is mounted on this name; a link is never a mount.
    pub fn is_mount(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        let name = name.as_ref();
        if statat(self, name, AtFlags::SYMLINK_NOFOLLOW)?.st_dev != self.file.metadata()?.dev() {
            return Ok(true);
        }
        // Also finds one of the same file system; kernels before 5.8 do not say, and refuse to rename it later.
        let found = statx(self, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
        Ok(found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)))
    }

    /// Locks it for as long as it is held; false if somebody else has it.
    pub fn lock(&self) -> io::Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the folder itself away where we are root; otherwise nothing is changed.
    pub fn give(&self, owner: (u32, u32)) -> io::Result<()> {
        give(self, owner)
    }

    /// Sets the mode of the folder itself.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(self, Mode::from_raw_mode(mode & 0o7777))?)
    }

    /// Makes the folder root's where we are root, so that nobody else may change what is in it; otherwise nothing is changed.
    pub fn keep(&self, mode: u32) -> io::Result<()> {
        if rustix::process::geteuid().is_root() {
            // The owner first: who owned it can then no longer undo the mode.
            self.give((0, 0))?;
            self.set_mode(mode)?;
        }
        Ok(())
    }

    /// Gives the folder the owner it had before and the mode, where we are root and so could have changed them.
    pub fn give_back(&self, before: &Entry) -> io::Result<()> {
        if rustix::process::geteuid().is_root() { self.hand_over(before) } else { Ok(()) }
    }

    /// Gives the folder the mode of another, and its owner where we are root.
    pub fn hand_over(&self, like: &Entry) -> io::Result<()> {
        // The mode while it is still ours: afterwards somebody else may change it.
        self.set_mode(like.mode)?;
        self.give(like.owner)
    }

    /// Gives what has this name away where we are root: a link itself, never what it leads to.
    pub fn give_entry(&self, name: impl AsRef<OsStr>, (uid, gid): (u32, u32)) -> io::Result<()> {
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(self, name.as_ref(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Moves an entry into another folder, durably; a name that is taken there is an error.
    pub fn move_to(&self, name: impl AsRef<OsStr>, to: &Self) -> io::Result<()> {
        let name = name.as_ref();
        renameat_with(self, name, to, name, RenameFlags::NOREPLACE)?;
        to.sync()?;
        self.sync()
    }

    /// Makes a link. `AlreadyExists` if its name is taken.
    pub fn link(&self, name: impl AsRef<OsStr>, aim: &Path) -> io::Result<()> {
        Ok(symlinkat(aim, self, name.as_ref())?)
    }

    /// The content of a plain file with a single name, of which at most `limit_bytes` are read; nothing if there is none. Anything
    /// else, and a longer file, is `InvalidData`: whoever may write here must not make us read something else for them.
    pub fn read(&self, name: impl AsRef<OsStr>, limit_bytes: u64) -> io::Result<Option<(Entry, Vec<u8>)>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let wrong = || {
            let what = format!("{} is no plain file of ordinary size", name.as_ref().display());
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        };
        let file = match openat(self, name.as_ref(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NXIO) => return wrong(),
            Err(error) => return Err(error.into()),
        };
        let entry = Entry::of(&fstat(&file)?);
        if !entry.is_plain || entry.len_bytes > limit_bytes {
            return wrong();
        }
        let mut bytes = Vec::new();
        file.take(limit_bytes).read_to_end(&mut bytes)?;
        Ok(Some((entry, bytes)))
    }

    /// Makes or replaces a file (mode 0600) that belongs to `owner` where we are root. Readers see the old or the new content;
    /// durable when it returns. A link of its name is replaced itself, a folder is an error.
    pub fn write(
        &self,
        name: impl AsRef<OsStr>,
        pieces: &[&[u8]],
        owner: Option<(u32, u32)>,
    ) -> io::Result<()> {
        let temp = crashsafe::temp_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(self, &temp, flags, Mode::RUSR | Mode::WUSR)?);
        let written = (|| {
            for piece in pieces {
                file.write_all(piece)?;
            }
            if let Some(owner) = owner {
                give(&file, owner)?;
            }
            file.sync_all()?;
            renameat(self, &temp, self, name.as_ref())?;
            self.sync()
        })();
        if written.is_err() {
            // What is left of it the next sweep removes.
            drop(self.remove_file(&temp));
        }
        written
    }

    /// Removes a file or a link itself. `NotFound` if nothing has its name, an error for a folder.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(unlinkat(self, name.as_ref(), AtFlags::empty())?)
    }

    /// Removes a folder if it is empty.
    pub fn remove_empty(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(unlinkat(self, name.as_ref(), AtFlags::REMOVEDIR)?)
    }

    /// Removes what has this name with everything below it, also where a mode forbids it. No link is followed, no other file
    /// system is entered: what is mounted below is an error. What is not there is fine. Holds two folders open, however deep
    /// the tree is; a folder in it that is moved elsewhere meanwhile is an error.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let device = self.file.metadata()?.dev();
        let Some(mut inner) = absent(self.emptied(name.as_ref(), device))?.flatten() else { return Ok(()) };
        let mut above: Vec<Level> = Vec::new();
        let mut level = Level::of(&inner, name.as_ref())?;
        loop {
            if let Some(child) = level.names.pop() {
                let Some(deeper) = absent(inner.emptied(&child, device))?.flatten() else { continue };
                if above.len() >= MAX_DEPTH {
                    return refuse(&child, io::ErrorKind::InvalidInput, "lies too deep to be removed");
                }
                let next = Level::of(&deeper, &child)?;
                above.push(std::mem::replace(&mut level, next));
                inner = deeper;
                continue;
            }
            let Some(parent) = above.pop() else { return absent(self.remove_empty(&level.name)).map(drop) };
            inner = inner.back_to(&parent)?;
            absent(inner.remove_empty(&level.name))?;
            level = parent;
        }
    }

    /// Removes everything in it, as [`Folder::remove`] does.
    pub fn clear(&self) -> io::Result<()> {
        self.names()?.iter().try_for_each(|name| self.remove(name))
    }

    /// Makes what was done in it durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Removes what has this name if it is no folder; else holds the folder, which has to be emptied first.
    fn emptied(&self, name: &OsStr, device: u64) -> io::Result<Option<Self>> {
        let found = statat(self, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return self.remove_file(name).map(|()| None);
        }
        if found.st_dev != device || self.is_mount(name)? {
            return refuse(
                name,
                io::ErrorKind::CrossesDevices,
                "is a mount of its own, which is not emptied",
            );
        }
        self.inner_opened_up(name, found.st_mode).map(Some)
    }

    /// Holds the folder this one lies in, which was `before` when it was entered from there.
    fn back_to(&self, before: &Level) -> io::Result<Self> {
        let outer = self.inner("..")?;
        if outer.entry()?.identity != before.identity {
            let why = "is not where it was: something in it was moved while it was being removed";
            return refuse(&before.name, io::ErrorKind::InvalidData, why);
        }
        Ok(outer)
    }

    /// Holds the folder of this name, with a mode by which its owner may empty it. Root may in any case.
    fn inner_opened_up(&self, name: &OsStr, mode: u32) -> io::Result<Self> {
        let closed = mode & Mode::RWXU.bits() != Mode::RWXU.bits();
        if closed && !rustix::process::geteuid().is_root() {
            self.open_up(name)?;
        }
        self.inner(name)
    }

    /// Gives the owner of a folder access to it. A link is an error: the mode that is set is that of what was opened.
    fn open_up(&self, name: &OsStr) -> io::Result<()> {
        // A folder that may not be read can only be pointed at, and only by its path in /proc changed.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pointed = File::from(openat(self, name, flags, Mode::empty())?);
        Ok(chmod(format!("/proc/self/fd/{}", pointed.as_raw_fd()), Mode::RWXU)?)
    }
}

/// A folder on the way down to one that is being emptied.
struct Level {
    name: OsString,
    /// Tells it when it is come back to.
    identity: (u64, u64),
    /// What is still to be removed in it.
    names: Vec<OsString>,
}

impl Level {
    fn of(folder: &Folder, name: &OsStr) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), identity: folder.entry()?.identity, names: folder.names()? })
    }
}

fn refuse<T>(name: &OsStr, kind: io::ErrorKind, why: &str) -> io::Result<T> {
    Err(io::Error::new(kind, format!("`{}` {why}", name.display())))
}

/// What is not there any more is fine.
fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn give(file: impl AsFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A folder, and a file outside it that nobody else may read.
    fn scene() -> (tempfile::TempDir, Folder, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (inside, secret) = (dir.path().join("inside"), dir.path().join("secret"));
        fs::create_dir(&inside).unwrap();
        crashsafe::write_new(&secret, b"secret").unwrap();
        let folder = Folder::open(&inside).unwrap();
        (dir, folder, secret)
    }

    fn of(path: &Path) -> (u32, u32, Vec<u8>) {
        let meta = fs::metadata(path).unwrap();
        (meta.mode(), meta.uid(), if meta.is_dir() { Vec::new() } else { fs::read(path).unwrap() })
    }

    #[test]
    fn what_is_done_in_a_held_folder_stays_in_it_when_its_path_leads_elsewhere() {
        let (dir, folder, secret) = scene();
        let victim = dir.path().join("victim");
        fs::create_dir(&victim).unwrap();
        crashsafe::write_new(&victim.join("precious"), b"precious").unwrap();
        fs::create_dir(folder.path().join("precious")).unwrap();
        let before = of(&victim);
        crashsafe::publish(&dir.path().join("inside"), &dir.path().join("moved")).unwrap();
        symlink(&victim, dir.path().join("inside")).unwrap();
        folder.set_mode(0o751).unwrap();
        folder.give((12_345, 12_345)).unwrap();
        folder.write("file", &[b"content"], Some((12_345, 12_345))).unwrap();
        folder.remove("precious").unwrap();
        assert_eq!(of(&victim), before);
        assert_eq!(fs::read(victim.join("precious")).unwrap(), b"precious");
        assert_eq!(fs::metadata(dir.path().join("moved")).unwrap().mode() & 0o7777, 0o751);
        assert_eq!(fs::read(dir.path().join("moved/file")).unwrap(), b"content");
        assert!(Folder::open(&dir.path().join("inside")).is_err(), "a link was taken for a folder");
        assert_eq!(fs::read(secret).unwrap(), b"secret");
    }

    #[test]
    fn a_link_is_neither_read_nor_written_through_nor_given_what_it_leads_to() {
        let (_dir, folder, secret) = scene();
        let before = of(&secret);
        let plant = || symlink(&secret, folder.path().join("name")).unwrap();
        plant();
        assert_eq!(folder.read("name", 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
        folder.give_entry("name", (12_345, 12_345)).unwrap();
        assert!(folder.open_up(OsStr::new("name")).is_err());
        folder.write("name", &[b"mine"], Some((12_345, 12_345))).unwrap();
        assert_eq!(folder.read("name", 100).unwrap().unwrap().1, b"mine");
        folder.remove("name").unwrap();
        plant();
        folder.remove("name").unwrap();
        // A second name of a file, and a pipe, which would be waited for.
        fs::hard_link(&secret, folder.path().join("name")).unwrap();
        assert_eq!(folder.read("name", 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
        folder.remove("name").unwrap();
        let pipe = (FileType::Fifo, Mode::RUSR | Mode::WUSR);
        rustix::fs::mknodat(&folder, "name", pipe.0, pipe.1, 0).unwrap();
        assert_eq!(folder.read("name", 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(of(&secret), before);
    }

    #[test]
    fn a_folder_that_was_exchanged_for_a_link_is_neither_entered_nor_opened_up() {
        let (dir, folder, _secret) = scene();
        let victim = dir.path().join("victim");
        fs::create_dir(&victim).unwrap();
        crashsafe::write_new(&victim.join("precious"), b"precious").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o500)).unwrap();
        let before = of(&victim);
        // As somebody would do it between the look and the act.
        fs::create_dir(folder.path().join("tree")).unwrap();
        assert!(folder.look("tree").unwrap().unwrap().is_dir);
        fs::remove_dir(folder.path().join("tree")).unwrap();
        symlink(&victim, folder.path().join("tree")).unwrap();
        assert!(folder.open_up(OsStr::new("tree")).is_err());
        assert!(folder.inner_opened_up(OsStr::new("tree"), 0).is_err());
        folder.remove("tree").unwrap();
        assert_eq!(of(&victim), before);
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    }

    #[test]
    fn a_closed_folder_is_opened_up_and_removed_with_what_is_in_it() {
        let (dir, folder, _secret) = scene();
        fs::create_dir_all(folder.path().join("tree/inner")).unwrap();
        crashsafe::write_new(&folder.path().join("tree/inner/file"), b"x").unwrap();
        for name in ["tree/inner", "tree"] {
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o000)).unwrap();
        }
        folder.open_up(OsStr::new("tree")).unwrap();
        assert_eq!(fs::metadata(dir.path().join("inside/tree")).unwrap().mode() & 0o777, 0o700);
        folder.remove("tree").unwrap();
        assert!(folder.is_empty().unwrap());
        folder.remove("tree").unwrap();
    }

    /// A chain of folders below `folder`, each called `d`; gives the innermost.
    fn chain(folder: &Folder, depth: usize) -> Folder {
        let mut inner = folder.inner(".").unwrap();
        for _level in 0..depth {
            mkdirat(&inner, "d", Mode::RWXU).unwrap();
            inner = inner.inner("d").unwrap();
        }
        inner
    }

    #[test]
    fn a_tree_deeper_than_any_stack_is_removed() {
        // In memory where there is such a place: some file systems take long over each folder that goes.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let innermost = chain(&folder, 6_000);
        innermost.write("file", &[b"x"], None).unwrap();
        innermost.link("link", Path::new("/etc")).unwrap();
        drop(innermost);
        let small = std::thread::Builder::new().stack_size(96 * 1024);
        std::thread::scope(|scope| {
            let thread = small.spawn_scoped(scope, || {
                folder.remove("d").unwrap();
                assert!(folder.is_empty().unwrap());
            });
            thread.unwrap().join().unwrap();
        });
    }

    #[test]
    fn a_folder_that_is_moved_away_while_it_is_emptied_leads_nowhere_else() {
        let (dir, folder, _secret) = scene();
        let victim = dir.path().join("victim");
        crashsafe::create_dir_all(&victim.join("b")).unwrap();
        crashsafe::write_new(&victim.join("precious"), b"precious").unwrap();
        crashsafe::create_dir_all(&dir.path().join("inside/a/b")).unwrap();
        let outer = folder.inner("a").unwrap();
        let (inner, before) = (outer.inner("b").unwrap(), Level::of(&outer, OsStr::new("a")).unwrap());
        assert_eq!(inner.back_to(&before).unwrap().entry().unwrap(), outer.entry().unwrap());
        // As somebody would do it while the inner one is emptied.
        fs::remove_dir(victim.join("b")).unwrap();
        crashsafe::publish(&dir.path().join("inside/a/b"), &victim.join("b")).unwrap();
        let refused = inner.back_to(&before).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{refused}");
        assert_eq!(fs::read(victim.join("precious")).unwrap(), b"precious");
    }

    #[test]
    fn only_what_nobody_else_can_have_written_is_ours() {
        let (_dir, folder, _secret) = scene();
        folder.write("file", &[b"x"], None).unwrap();
        let ours = |folder: &Folder| folder.look("file").unwrap().unwrap().is_ours();
        assert!(ours(&folder));
        for mode in [0o620, 0o602] {
            fs::set_permissions(folder.path().join("file"), fs::Permissions::from_mode(mode)).unwrap();
            assert!(!ours(&folder), "{mode:o}");
        }
        if rustix::process::geteuid().is_root() {
            folder.write("file", &[b"x"], Some((12_345, 12_345))).unwrap();
            assert!(!ours(&folder), "a file of another user is not ours");
        }
    }
}
