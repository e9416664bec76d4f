//! A whole subtree written to disk: entries made in capture order, content fetched in pack order, all synced at the end.
//!
//! Memory: one window of planned files and chunks (see `plan`), one range of 8 MiB and one chunk per worker, about
//! 300 bytes per directory (their times are restored last) and 100 per hard-linked file.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use lifeboat_base::capture::{MaterializeStats, Meta, StoredKind};
use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use rustix::fs::{AtFlags, FileType, Mode, linkat, mknodat, symlinkat, syncfs};

use super::dirs::Dirs;
use super::metadata::Restorer;
use super::plan::{self, PlannedFile, Target, WINDOW_CHUNKS, WINDOW_FILES};
use super::reader::PointReader;
use super::writer::{self, WindowWriter};
use crate::error::VaultError;
use crate::format::index::BlobKind;
use crate::format::node::ReadNode;

/// Hard links are found by device, inode and content: a hostile tree cannot make one file stand for another.
type LinkKey = (u64, u64, Digest);

struct Materializer<'a> {
    reader: &'a PointReader,
    dirs: Dirs,
    restorer: Restorer<'a>,
    monitor: &'a dyn Monitor,
    files: Vec<PlannedFile>,
    targets: Vec<Target>,
    finished_dirs: Vec<(RelPath, Meta)>,
    links: HashMap<LinkKey, RelPath>,
    stats: MaterializeStats,
}

/// Restores everything below `under` into the empty directory `into`.
pub(super) fn run(
    reader: &PointReader,
    under: &RelPath,
    into: &Path,
    monitor: &dyn Monitor,
) -> Result<MaterializeStats, Failure> {
    let dirs = Dirs::new(into).map_err(|source| VaultError::Target {
        doing: format!("use {} as an empty target", into.display()),
        source,
    })?;
    monitor.phase("restoring", None);
    let mut this = Materializer {
        reader,
        dirs,
        restorer: Restorer { monitor, owners: rustix::process::geteuid().is_root() },
        monitor,
        files: Vec::new(),
        targets: Vec::new(),
        finished_dirs: Vec::new(),
        links: HashMap::new(),
        stats: MaterializeStats::default(),
    };
    reader.visit(under, &mut |path, node| this.entry(under, &path, node).map_err(Failure::from))?;
    this.flush()?;
    this.finish_dirs()?;
    // One call makes every file and directory durable and reports what could not be written.
    syncfs(this.dirs.root()).map_err(|error| VaultError::Target {
        doing: format!("sync {}", into.display()),
        source: error.into(),
    })?;
    Ok(this.stats)
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
                self.finished_dirs.push((RelPath::root(), node.meta));
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
                self.dirs.make(&place).map_err(target_error("make the directory", &place))?;
                self.finished_dirs.push((place, node.meta));
                self.stats.others += 1;
                Ok(())
            }
            StoredKind::File(size_bytes) => self.file(place, node.meta, &node.content, size_bytes),
            kind => self.special(&place, &node.meta, &kind),
        }
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
        let number = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let mut offset = 0u64;
        for id in content {
            let location = self.reader.blobs.locate(BlobKind::Data, id)?;
            self.targets.push(Target { location, file: number, offset });
            offset += location.blob.plain_bytes();
        }
        if offset != size_bytes {
            return Err(VaultError::Inconsistent(format!(
                "the chunks of `{path}` do not add up to its size"
            )));
        }
        let handle = self.dirs.create_file(&path).map_err(target_error("create", &path))?;
        let file = PlannedFile { path, meta, missing: AtomicU64::new(content.len() as u64) };
        self.stats.files += 1;
        self.stats.bytes += size_bytes;
        if content.is_empty() {
            return writer::finish(&self.restorer, self.monitor, &file, &handle);
        }
        handle.set_len(size_bytes).map_err(target_error("make room for", &file.path))?;
        self.files.push(file);
        if self.files.len() >= WINDOW_FILES || self.targets.len() >= WINDOW_CHUNKS {
            self.flush()?;
        }
        Ok(())
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
        let fetches = plan::fetches(&mut self.targets);
        let window = WindowWriter {
            blobs: &self.reader.blobs,
            dirs: &self.dirs,
            restorer: &self.restorer,
            monitor: self.monitor,
            files: &self.files,
            targets: &self.targets,
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

fn symlink(target: &OsString, parent: &std::fs::File, name: &OsStr) -> io::Result<()> {
    Ok(symlinkat(target.as_os_str(), parent, name)?)
}

fn make_node(parent: &std::fs::File, name: &OsStr, kind: FileType, device: u64) -> io::Result<()> {
    Ok(mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)?)
}
