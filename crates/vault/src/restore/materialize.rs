//! A whole subtree written to disk: entries made in capture order, content fetched in pack order, all synced at the end.
//!
//! Memory: one window of planned files and chunks (see `plan`), one range of 8 MiB and one chunk per worker, about
//! 300 bytes per directory (their times are restored last) and 100 per hard-linked file. Over what is there also one more
//! chunk and the names in one directory.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use lifeboat_base::capture::{MaterializeStats, Meta, StoredKind};
use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use rustix::fs::{AtFlags, FileType, Mode, linkat, mknodat, symlinkat, syncfs};

use super::dirs::Dirs;
use super::metadata::Restorer;
use super::over;
use super::plan::{self, PlannedFile, Target, WINDOW_CHUNKS, WINDOW_FILES};
use super::reader::PointReader;
use super::writer::{self, WindowWriter};
use crate::error::VaultError;
use crate::format::index::BlobKind;
use crate::format::node::ReadNode;

/// Hard links are found by device, inode and content: a hostile tree cannot make one file stand for another.
type LinkKey = (u64, u64, Digest);

/// How a bulk restore treats its target.
#[derive(Clone, Debug, Default)]
pub struct MaterializeOptions {
    /// The target may hold something: chunks that are equal stay, what differs is fetched, and what the recovery point does
    /// not have is removed. Else it must be empty. The target itself then keeps its owner, mode and times: who else may get
    /// at it is for those to say who go on working in it.
    pub over: bool,
    /// Folders below the one restored that come to lie in another, existing one.
    pub elsewhere: Vec<Elsewhere>,
}

/// A folder that comes to lie outside the target.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Where it stands in the recovery point.
    pub inside: RelPath,
    /// What the link says that takes its place; absolute.
    pub folder: PathBuf,
    /// How it is reached: the same as `folder`, or a path that others cannot make lead anywhere else meanwhile.
    pub through: PathBuf,
}

struct Materializer<'a> {
    reader: &'a PointReader,
    options: &'a MaterializeOptions,
    dirs: Dirs,
    restorer: Restorer<'a>,
    monitor: &'a dyn Monitor,
    files: Vec<PlannedFile>,
    targets: Vec<Target>,
    finished_dirs: Vec<(RelPath, Meta)>,
    links: HashMap<LinkKey, RelPath>,
    stats: MaterializeStats,
    fetched_bytes: AtomicU64,
    /// One chunk of a file that is there.
    buffer: Vec<u8>,
}

/// Restores everything below `under` into the directory `into`.
pub(super) fn run(
    reader: &PointReader,
    under: &RelPath,
    into: &Path,
    options: &MaterializeOptions,
    monitor: &dyn Monitor,
) -> Result<MaterializeStats, Failure> {
    let dirs = Dirs::new(into, &options.elsewhere, options.over).map_err(|source| VaultError::Target {
        doing: format!("use {} as {}target", into.display(), if options.over { "a " } else { "an empty " }),
        source,
    })?;
    monitor.phase("restoring", None);
    let mut this = Materializer {
        reader,
        options,
        dirs,
        restorer: Restorer { monitor, owners: rustix::process::geteuid().is_root() },
        monitor,
        files: Vec::new(),
        targets: Vec::new(),
        finished_dirs: Vec::new(),
        links: HashMap::new(),
        stats: MaterializeStats::default(),
        fetched_bytes: AtomicU64::new(0),
        buffer: Vec::new(),
    };
    if under.depth() == 0 {
        // The root of a point is no entry of the walk.
        this.prune(under, Some(&reader.root))?;
    }
    reader.visit(under, &mut |path, node| this.entry(under, &path, node).map_err(Failure::from))?;
    this.flush()?;
    this.finish_dirs()?;
    // One call makes every file and directory of a file system durable and reports what could not be written.
    for root in this.dirs.roots() {
        syncfs(root).map_err(|error| VaultError::Target {
            doing: format!("sync {}", into.display()),
            source: error.into(),
        })?;
    }
    Ok(MaterializeStats { fetched_bytes: this.fetched_bytes.into_inner(), ..this.stats })
}

fn target_error(what: &str, path: &RelPath) -> impl FnOnce(io::Error) -> VaultError {
    let doing = format!("{what} `{path}`");
    move |source| VaultError::Target { doing, source }
}

impl Materializer<'_> {
    fn entry(&mut self, under: &RelPath, path: &RelPath, node: ReadNode) -> Result<(), VaultError> {
        if self.monitor.cancelled() {
            return Err(VaultError::Cancelled);
        }
        let Some(below) = path.below(under) else {
            return Err(VaultError::Internal("an entry outside the walk".to_owned()));
        };
        // The folder that is restored becomes the target itself; a single file keeps its name.
        let place = match (below.depth(), &node.kind) {
            (0, StoredKind::Dir) => {
                self.prune(&RelPath::root(), node.subtree.as_ref())?;
                if !self.options.over {
                    self.finished_dirs.push((RelPath::root(), node.meta));
                }
                return Ok(());
            }
            (0, _) => match path.split_last() {
                Some((_, name)) => RelPath::root().join(name).unwrap_or_default(),
                None => return Ok(()),
            },
            _ => below,
        };
        match node.kind {
            StoredKind::Dir => {
                self.directory(&place, &node.meta)?;
                self.prune(&place, node.subtree.as_ref())?;
                self.finished_dirs.push((place, node.meta));
                self.stats.others += 1;
                Ok(())
            }
            StoredKind::File(size_bytes) => self.file(place, node.meta, &node.content, size_bytes),
            kind => self.special(&place, &node.meta, &kind),
        }
    }

    /// Makes a directory, or the link to where it lies.
    fn directory(&mut self, place: &RelPath, meta: &Meta) -> Result<(), VaultError> {
        let failed = || target_error("make the directory", place);
        if let Some(Elsewhere { folder, .. }) =
            self.options.elsewhere.iter().find(|other| other.inside == *place)
        {
            if self.options.over {
                self.stats.removed += self.dirs.clear(place).map_err(target_error("replace", place))?;
            }
            let (parent, name) = self.dirs.parent(place).map_err(failed())?;
            symlink(&folder.clone().into_os_string(), &parent, name).map_err(failed())?;
            return self
                .restorer
                .named_entry(place, &parent, name, meta, true)
                .map_err(target_error("restore the metadata of", place));
        }
        if self.options.over {
            self.stats.removed += self.dirs.make_over(place).map_err(failed())?;
            return Ok(());
        }
        self.dirs.make(place).map_err(failed())
    }

    /// Removes what lies in the directory at `place` and is not in the listing `tree`.
    fn prune(&mut self, place: &RelPath, tree: Option<&Digest>) -> Result<(), VaultError> {
        let Some(tree) = tree.filter(|_| self.options.over) else { return Ok(()) };
        let mut keep = HashSet::new();
        let mut cursor = self.reader.blobs.tree(tree)?;
        while let Some(node) = self.reader.next_node(&mut cursor, tree)? {
            keep.insert(node.name);
        }
        let failed = || target_error("remove what the recovery point does not have from", place);
        let dir = self.dirs.open(place).map_err(failed())?;
        self.stats.removed += over::prune(&dir, &keep).map_err(failed())?;
        Ok(())
    }

    fn file(
        &mut self,
        path: RelPath,
        meta: Meta,
        content: &[Digest],
        size_bytes: u64,
    ) -> Result<(), VaultError> {
        if self.linked(&path, &meta, content)? {
            return Ok(());
        }
        let here = if self.options.over {
            self.dirs.open_over(&path).map_err(target_error("open", &path))?
        } else {
            None
        };
        let planned_count = self.targets.len();
        let found_bytes = self.plan(&path, content, here.as_ref())?;
        if found_bytes != size_bytes {
            return Err(VaultError::Inconsistent(format!(
                "the chunks of `{path}` do not add up to its size"
            )));
        }
        let over = here.is_some();
        let handle = match here {
            Some(here) => here,
            None => self.create(&path)?,
        };
        let missing_count = self.targets.len() - planned_count;
        let file = PlannedFile { path, meta, missing: AtomicU64::new(missing_count as u64), over };
        self.stats.files += 1;
        self.stats.bytes += size_bytes;
        if missing_count == 0 {
            // Only what is there can be too long.
            handle.set_len(size_bytes).map_err(target_error("cut", &file.path))?;
            return writer::finish(&self.restorer, self.monitor, &file, &handle);
        }
        handle.set_len(size_bytes).map_err(target_error("make room for", &file.path))?;
        self.files.push(file);
        if self.files.len() >= WINDOW_FILES || self.targets.len() >= WINDOW_CHUNKS {
            self.flush()?;
        }
        Ok(())
    }

    /// Plans every chunk that `here` does not hold already; gives the size they add up to.
    fn plan(&mut self, path: &RelPath, content: &[Digest], here: Option<&File>) -> Result<u64, VaultError> {
        let number = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let here_bytes = match here {
            Some(here) => here.metadata().map_err(target_error("look at", path))?.len(),
            None => 0,
        };
        let mut offset = 0u64;
        for id in content {
            let location = self.reader.blobs.locate(BlobKind::Data, id)?;
            let length_bytes = location.blob.plain_bytes();
            let end = offset.saturating_add(length_bytes);
            let kept = end <= here_bytes
                && here.is_some_and(|here| over::holds(here, offset, length_bytes, id, &mut self.buffer));
            if kept {
                self.stats.kept_bytes += length_bytes;
                self.monitor.advance(length_bytes, 0);
                if self.monitor.cancelled() {
                    return Err(VaultError::Cancelled);
                }
            } else {
                self.targets.push(Target { location, file: number, offset });
            }
            offset = end;
        }
        Ok(offset)
    }

    /// Makes a file; over what is there, whatever has its name gives way.
    fn create(&mut self, path: &RelPath) -> Result<File, VaultError> {
        if self.options.over {
            self.stats.removed += self.dirs.clear(path).map_err(target_error("replace", path))?;
        }
        self.dirs.create_file(path).map_err(target_error("create", path))
    }

    /// Makes a hard link if the same file was restored already.
    fn linked(&mut self, path: &RelPath, meta: &Meta, content: &[Digest]) -> Result<bool, VaultError> {
        if meta.links < 2 || meta.inode == 0 {
            return Ok(false);
        }
        let mut hasher = Hasher::new();
        for id in content {
            hasher.update(id.as_bytes());
        }
        let key = (meta.device, meta.inode, hasher.finish());
        let Some(first) = self.links.get(&key) else {
            self.links.insert(key, path.clone());
            return Ok(false);
        };
        if self.options.over {
            self.stats.removed += self.dirs.clear(path).map_err(target_error("replace", path))?;
        }
        let link = || -> io::Result<()> {
            let (from_dir, from) = self.dirs.parent(first)?;
            let (to_dir, to) = self.dirs.parent(path)?;
            Ok(linkat(&*from_dir, from, &*to_dir, to, AtFlags::empty())?)
        };
        link().map_err(target_error("link", path))?;
        self.stats.files += 1;
        self.monitor.advance(0, 1);
        Ok(true)
    }

    fn special(&mut self, path: &RelPath, meta: &Meta, kind: &StoredKind) -> Result<(), VaultError> {
        if self.options.over {
            self.stats.removed += self.dirs.clear(path).map_err(target_error("replace", path))?;
        }
        let (parent, name) = self.dirs.parent(path).map_err(target_error("make", path))?;
        let made = match kind {
            StoredKind::Symlink(target) => symlink(target, &parent, name),
            StoredKind::Fifo => make_node(&parent, name, FileType::Fifo, 0),
            StoredKind::Socket => make_node(&parent, name, FileType::Socket, 0),
            StoredKind::Device { character, rdev } => {
                let file_type = if *character { FileType::CharacterDevice } else { FileType::BlockDevice };
                make_node(&parent, name, file_type, *rdev)
            }
            StoredKind::Dir | StoredKind::File(_) => Ok(()),
        };
        if let Err(error) = made {
            // Devices need privileges a restore may not have; the data around them is worth more.
            if matches!(kind, StoredKind::Device { .. }) && error.kind() == io::ErrorKind::PermissionDenied {
                let why = "a device node can be made by root only";
                self.monitor.finding(Finding::new("device-not-restored", path.to_string(), why));
                return Ok(());
            }
            return Err(target_error("make", path)(error));
        }
        let is_link = matches!(kind, StoredKind::Symlink(_));
        self.restorer
            .named_entry(path, &parent, name, meta, is_link)
            .map_err(target_error("restore the metadata of", path))?;
        self.stats.others += 1;
        self.monitor.advance(0, 1);
        Ok(())
    }

    /// Fetches and writes the content of the current window.
    fn flush(&mut self) -> Result<(), VaultError> {
        let gap_bytes = if self.options.over { plan::OVER_GAP_BYTES } else { plan::GAP_BYTES };
        let fetches = plan::fetches(&mut self.targets, gap_bytes);
        let window = WindowWriter {
            blobs: &self.reader.blobs,
            dirs: &self.dirs,
            restorer: &self.restorer,
            monitor: self.monitor,
            files: &self.files,
            targets: &self.targets,
            fetched_bytes: &self.fetched_bytes,
        };
        window.run(&fetches)?;
        self.files.clear();
        self.targets.clear();
        Ok(())
    }

    /// Directories last and deepest first: making entries in them changed their times.
    fn finish_dirs(&mut self) -> Result<(), VaultError> {
        for (path, meta) in self.finished_dirs.drain(..).rev() {
            let dir = self.dirs.open(&path).map_err(target_error("open", &path))?;
            self.restorer
                .open_entry(&path, &dir, &meta)
                .map_err(target_error("restore the metadata of", &path))?;
        }
        Ok(())
    }
}

fn symlink(target: &OsString, parent: &File, name: &OsStr) -> io::Result<()> {
    Ok(symlinkat(target.as_os_str(), parent, name)?)
}

fn make_node(parent: &File, name: &OsStr, kind: FileType, device: u64) -> io::Result<()> {
    Ok(mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)?)
}
