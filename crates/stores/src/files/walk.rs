//! Walks a tree in capture order, one entry at a time.
//!
//! In: a directory. Out: every node below it with an open file where there is content to read. Parents come before
//! children and siblings in the order of their bytes. Memory: the names of the directories on the way to the
//! current entry, one listing each; never the tree.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use lifeboat_base::capture::{MAX_TREE_DEPTH, Xattr};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::path::RelPath;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::descent::{Descent, open_dir, quiet};
use super::exclude::Excludes;
use super::node::{Node, XattrsOf};

/// What is to be walked and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct WalkOptions {
    /// What is left out.
    pub(crate) excludes: Excludes,
    /// Do not list directories on another device than the root.
    pub(crate) one_file_system: bool,
    /// Device and inode of a directory that is left out with all it holds: Lifeboat's own scratch space.
    pub(crate) without: Option<(u64, u64)>,
    /// Of what lies in the root itself, only this.
    pub(crate) only: Option<OsString>,
    /// Open regular files and read attributes; without it only names and status are read.
    pub(crate) open: bool,
}

/// One step of a walk.
pub(crate) enum Step {
    /// A node that is there.
    Found(Box<Found>),
    /// A node that was listed but cannot be given.
    Lost { path: RelPath, trouble: Trouble },
}

/// A node, as it was when it was opened.
pub(crate) struct Found {
    /// Relative to the root of the walk, which is itself the empty path.
    pub(crate) path: RelPath,
    pub(crate) node: Node,
    pub(crate) xattrs: Vec<Xattr>,
    /// Why the attributes could not be read, if so.
    pub(crate) xattr_error: Option<io::Error>,
    /// The open file, for regular files when asked for.
    pub(crate) file: Option<File>,
    /// The target, for symbolic links.
    pub(crate) target: Option<OsString>,
}

/// Why a listed node is not given.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It was gone, or had become something else, when it was opened.
    Vanished,
    /// It is there and cannot be read.
    Unreadable(io::Error),
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        match error {
            // LOOP and NOTDIR: a link or file took the place of what was listed.
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO => Self::Vanished,
            other => Self::Unreadable(other.into()),
        }
    }
}

struct Frame {
    names: std::vec::IntoIter<OsString>,
    identity: (u64, u64),
    /// Set when its children have been walked: its descriptor may have to be found again.
    resumed: bool,
}

/// A walk in progress.
pub(crate) struct Walker {
    options: WalkOptions,
    descent: Descent,
    root_device: u64,
    frames: Vec<Frame>,
    path: PathBuf,
    started: bool,
}

impl Walker {
    /// Opens `root`. Fails if it is missing, unreadable or not a directory.
    pub(crate) fn start(root: &Path, options: WalkOptions) -> io::Result<Self> {
        let descent = Descent::start(root)?;
        let root_device = Node::from_stat(&fstat(descent.root())?).device;
        Ok(Self { options, descent, root_device, frames: Vec::new(), path: PathBuf::new(), started: false })
    }

    /// The next step, or nothing at the end.
    pub(crate) fn step(&mut self) -> Result<Option<Step>, Failure> {
        if !self.started {
            self.started = true;
            return self.first().map(Some);
        }
        while let Some(frame) = self.frames.last_mut() {
            if frame.resumed {
                frame.resumed = false;
                let identity = frame.identity;
                if let Err(trouble) = self.check_resumed(identity) {
                    let step = Step::Lost { path: self.rel_path()?, trouble };
                    self.leave();
                    return Ok(Some(step));
                }
                continue;
            }
            let Some(name) = frame.names.next() else {
                self.leave();
                continue;
            };
            self.path.push(&name);
            let outcome = self.visit(name);
            let step = match outcome {
                Ok(Visit::Excluded) => {
                    self.path.pop();
                    continue;
                }
                Ok(Visit::Node(mut found)) => {
                    found.path = self.rel_path()?;
                    self.path.pop();
                    Step::Found(found)
                }
                // The path stays: it now names the directory being listed.
                Ok(Visit::Entered(mut found)) => {
                    found.path = self.rel_path()?;
                    Step::Found(found)
                }
                Err(trouble) => {
                    let path = self.rel_path()?;
                    self.path.pop();
                    Step::Lost { path, trouble }
                }
            };
            return Ok(Some(step));
        }
        Ok(None)
    }

    fn rel_path(&self) -> Result<RelPath, Failure> {
        RelPath::new(&self.path)
            .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name an entry", error))
    }

    fn leave(&mut self) {
        self.frames.pop();
        self.descent.leave();
        self.path.pop();
        if let Some(frame) = self.frames.last_mut() {
            frame.resumed = true;
        }
    }

    /// Makes sure that the directory gone back to is the one whose names were listed.
    fn check_resumed(&mut self, identity: (u64, u64)) -> Result<(), Trouble> {
        let here = self.descent.here().map_err(Trouble::Unreadable)?;
        let node = Node::from_stat(&fstat(here)?);
        if (node.device, node.inode) == identity { Ok(()) } else { Err(moved()) }
    }

    fn first(&mut self) -> Result<Step, Failure> {
        let fd = self.descent.root();
        let outcome = (|| {
            let node = Node::from_stat(&fstat(fd)?);
            let mut names = if self.left_out(&node) { Vec::new() } else { list(fd)? };
            names.retain(|name| self.options.only.as_ref().is_none_or(|only| only == name));
            Ok((node, names))
        })();
        match outcome {
            Ok((node, names)) => {
                let (xattrs, xattr_error) = read_xattrs(&self.options, &XattrsOf::Open(fd));
                self.frames.push(Frame::new(names, &node));
                Ok(Step::Found(Box::new(Found::new(node, xattrs, xattr_error))))
            }
            Err(Trouble::Vanished) => {
                Err(Failure::io("failed to read the root of the tree", Errno::NOENT.into()))
            }
            Err(Trouble::Unreadable(error)) => Err(Failure::io("failed to read the root of the tree", error)),
        }
    }

    fn left_out(&self, node: &Node) -> bool {
        self.options.one_file_system && node.device != self.root_device
    }

    fn visit(&mut self, name: OsString) -> Result<Visit, Trouble> {
        let dir = self.descent.here().map_err(Trouble::Unreadable)?;
        let node = Node::from_stat(&statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?);
        if self.options.excludes.covers(&self.path, node.is_dir()) {
            return Ok(Visit::Excluded);
        }
        if node.is_dir() {
            if self.frames.len() >= MAX_TREE_DEPTH {
                let why = format!("it is a folder more than {MAX_TREE_DEPTH} deep");
                return Err(Trouble::Unreadable(io::Error::other(why)));
            }
            return self.enter(name);
        }
        let options = &self.options;
        if node.file_type == FileType::RegularFile && options.open {
            let flags =
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let fd = quiet(|extra| openat(dir, &name, flags | extra, Mode::empty()))?;
            let node = Node::from_stat(&fstat(&fd)?);
            if node.file_type != FileType::RegularFile {
                return Err(Trouble::Vanished);
            }
            let file = File::from(fd);
            let (xattrs, xattr_error) = read_xattrs(options, &XattrsOf::Open(file.as_fd()));
            let mut found = Found::new(node, xattrs, xattr_error);
            found.file = Some(file);
            return Ok(Visit::Node(Box::new(found)));
        }
        let (xattrs, xattr_error) = read_xattrs(options, &XattrsOf::Name { dir, name: &name });
        let mut found = Found::new(node, xattrs, xattr_error);
        if node.file_type == FileType::Symlink {
            let target = match readlinkat(dir, &name, Vec::new()) {
                // Not a symbolic link any more.
                Err(Errno::INVAL) => return Err(Trouble::Vanished),
                other => other?,
            };
            found.target = Some(OsString::from_vec(target.into_bytes()));
        }
        Ok(Visit::Node(Box::new(found)))
    }

    fn enter(&mut self, name: OsString) -> Result<Visit, Trouble> {
        let dir = self.descent.here().map_err(Trouble::Unreadable)?;
        let fd = open_dir(dir, &name)?;
        let node = Node::from_stat(&fstat(&fd)?);
        if self.options.without == Some((node.device, node.inode)) {
            return Ok(Visit::Excluded);
        }
        let names = if self.left_out(&node) { Vec::new() } else { list(fd.as_fd())? };
        let (xattrs, xattr_error) = read_xattrs(&self.options, &XattrsOf::Open(fd.as_fd()));
        self.frames.push(Frame::new(names, &node));
        self.descent.enter(name, fd);
        Ok(Visit::Entered(Box::new(Found::new(node, xattrs, xattr_error))))
    }
}

enum Visit {
    Excluded,
    Node(Box<Found>),
    Entered(Box<Found>),
}

fn moved() -> Trouble {
    Trouble::Unreadable(io::Error::other("the directory was moved away; the rest of it was not read"))
}

impl Frame {
    fn new(names: Vec<OsString>, node: &Node) -> Self {
        Self { names: names.into_iter(), identity: (node.device, node.inode), resumed: false }
    }
}

impl Found {
    /// Whether it is a regular file.
    pub(crate) fn is_file(&self) -> bool {
        self.node.file_type == FileType::RegularFile
    }

    fn new(node: Node, xattrs: Vec<Xattr>, xattr_error: Option<io::Error>) -> Self {
        Self { path: RelPath::root(), node, xattrs, xattr_error, file: None, target: None }
    }
}

fn read_xattrs(options: &WalkOptions, of: &XattrsOf<'_>) -> (Vec<Xattr>, Option<io::Error>) {
    if !options.open {
        return (Vec::new(), None);
    }
    match of.read() {
        Ok(xattrs) => (xattrs, None),
        Err(error) => (Vec::new(), Some(error)),
    }
}

/// The names in a directory, sorted by bytes.
fn list(dir: BorrowedFd<'_>) -> Result<Vec<OsString>, Trouble> {
    let mut names = Vec::new();
    // A duplicate, because opening the directory a second time would move its access time.
    for entry in Dir::new(rustix::io::fcntl_dupfd_cloexec(dir, 0)?)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
