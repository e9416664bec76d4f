//! A recovery point in memory: what a vault gives back, without a vault.
//!
//! In: a capture, read to its end. Out: a [`RestoreSource`] for canaries and for tests, which may also damage it.
//! Holds all content in memory and syncs nothing: for samples, never for real stores.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, MaterializeStats, Order, RestoreSource, StoredEntry, StoredKind,
};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::files::apply_meta;

/// Device, inode and content: a file that changed between two of its names is two files.
type LinkKey = (u64, u64, Digest);

#[derive(Clone, Debug)]
struct Kept {
    entry: StoredEntry,
    content: Vec<u8>,
}

/// A capture kept in memory.
#[derive(Clone, Debug)]
pub struct Recording {
    entries: BTreeMap<RelPath, Kept>,
    facts: CaptureFacts,
}

impl Recording {
    /// Reads a capture to its end, as a vault does: a file whose reader fails is left out and reported as lost.
    ///
    /// `Internal` if the capture breaks its contract: entries out of order, without their parent, or a half-read end.
    pub fn record(mut capture: Box<dyn Capture>, monitor: &dyn Monitor) -> Result<Self, Failure> {
        let mut entries: BTreeMap<RelPath, Kept> = BTreeMap::new();
        while let Some(entry) = capture.next_entry(monitor)? {
            let path = entry.path;
            let fits = match capture.order() {
                Order::Tree => {
                    entries.last_key_value().is_none_or(|(last, _)| *last < path)
                        && has_parent(&entries, &path)
                }
                Order::Any => !entries.contains_key(&path),
            };
            if !fits {
                return Err(contract(&format!("{path} comes out of order, twice or without its parent")));
            }
            let mut content = Vec::new();
            let kind = match entry.body {
                Body::Dir => StoredKind::Dir,
                Body::File { mut reader, .. } => match reader.read_to_end(&mut content) {
                    Ok(count) => StoredKind::File(count as u64),
                    Err(error) => {
                        capture.lost(&path, &chain(&error));
                        continue;
                    }
                },
                Body::Symlink(target) => StoredKind::Symlink(target),
                Body::Fifo => StoredKind::Fifo,
                Body::Socket => StoredKind::Socket,
                Body::Device { character, rdev } => StoredKind::Device { character, rdev },
            };
            let entry = StoredEntry { path: path.clone(), meta: entry.meta, kind };
            entries.insert(path, Kept { entry, content });
        }
        if let Some(orphan) = entries.keys().find(|path| !has_parent(&entries, path)) {
            return Err(contract(&format!("{orphan} comes without its parent")));
        }
        let facts = capture.finish()?;
        Ok(Self { entries, facts })
    }

    /// What the capture knew after its last entry.
    pub fn facts(&self) -> &CaptureFacts {
        &self.facts
    }

    /// Every path kept, in capture order.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.entries.keys()
    }

    /// The entry at `path`.
    pub fn entry(&self, path: &RelPath) -> Option<&StoredEntry> {
        self.entries.get(path).map(|kept| &kept.entry)
    }

    /// The content of the file at `path`.
    pub fn content(&self, path: &RelPath) -> Option<&[u8]> {
        self.entries.get(path).map(|kept| kept.content.as_slice())
    }

    /// Puts an entry in place of another, or a new one; how tests make a source that lies.
    pub fn put(&mut self, entry: StoredEntry, content: Vec<u8>) {
        self.entries.insert(entry.path.clone(), Kept { entry, content });
    }

    /// Forgets an entry; true if there was one.
    pub fn remove(&mut self, path: &RelPath) -> bool {
        self.entries.remove(path).is_some()
    }
}

fn has_parent(entries: &BTreeMap<RelPath, Kept>, path: &RelPath) -> bool {
    path.split_last().is_some_and(|(parent, _)| parent.depth() == 0 || entries.contains_key(&parent))
}

fn contract(what: &str) -> Failure {
    Failure::new(FailureKind::Internal, format!("capture broke its contract: {what}"))
}

impl RestoreSource for Recording {
    fn walk(
        &self,
        under: &RelPath,
        visit: &mut dyn FnMut(StoredEntry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.entries
            .range(under.clone()..)
            .take_while(|(path, _)| path.below(under).is_some())
            .try_for_each(|(_, kept)| visit(kept.entry.clone()))
    }

    fn open(&self, path: &RelPath) -> Result<Box<dyn Read + Send + '_>, Failure> {
        match self.entries.get(path) {
            Some(Kept { entry: StoredEntry { kind: StoredKind::File(_), .. }, content }) => {
                Ok(Box::new(content.as_slice()))
            }
            _ => Err(Failure::new(FailureKind::Refused, format!("there is no file {path}"))),
        }
    }

    fn materialize(
        &self,
        under: &RelPath,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<MaterializeStats, Failure> {
        let mut stats = MaterializeStats::default();
        let mut links: BTreeMap<LinkKey, PathBuf> = BTreeMap::new();
        let mut dirs = Vec::new();
        for (path, kept) in self.entries.range(under.clone()..) {
            let Some(relative) = path.below(under) else { break };
            if relative.depth() == 0 {
                continue;
            }
            let target = into.join(relative.to_path());
            let result = Self::make(kept, &target, &mut links, &mut stats);
            result.map_err(|error| Failure::io(format!("failed to restore {path}"), error))?;
            if kept.entry.kind == StoredKind::Dir {
                dirs.push((target, &kept.entry));
            }
            monitor.advance(kept.content.len() as u64, 1);
        }
        // A directory's time would move with every child made inside it.
        for (target, entry) in dirs.into_iter().rev() {
            apply_meta(&target, &entry.meta, &entry.kind)
                .map_err(|error| Failure::io(format!("failed to restore {}", entry.path), error))?;
        }
        Ok(stats)
    }
}

impl Recording {
    fn make(
        kept: &Kept,
        target: &Path,
        links: &mut BTreeMap<LinkKey, PathBuf>,
        stats: &mut MaterializeStats,
    ) -> io::Result<()> {
        let meta = &kept.entry.meta;
        let private = Mode::from_raw_mode(0o600);
        match &kept.entry.kind {
            StoredKind::Dir => {
                fs::create_dir(target)?;
                stats.others += 1;
                return Ok(());
            }
            StoredKind::File(_) => {
                let identity = (meta.device, meta.inode, Digest::of(&kept.content));
                if meta.links > 1
                    && let Some(first) = links.get(&identity)
                {
                    stats.others += 1;
                    return fs::hard_link(first, target);
                }
                let mut file = new_file(target)?;
                file.write_all(&kept.content)?;
                if meta.links > 1 {
                    links.insert(identity, target.to_owned());
                }
                stats.files += 1;
                stats.bytes += kept.content.len() as u64;
            }
            StoredKind::Symlink(link) => std::os::unix::fs::symlink(link, target)?,
            StoredKind::Fifo => mknodat(CWD, target, FileType::Fifo, private, 0)?,
            StoredKind::Socket => mknodat(CWD, target, FileType::Socket, private, 0)?,
            StoredKind::Device { character, rdev } => {
                let kind = if *character { FileType::CharacterDevice } else { FileType::BlockDevice };
                mknodat(CWD, target, kind, private, *rdev)?;
            }
        }
        if !matches!(kept.entry.kind, StoredKind::File(_)) {
            stats.others += 1;
        }
        apply_meta(target, meta, &kept.entry.kind)
    }
}

fn new_file(target: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)
}
