//! A capture of a tree: entries as they are walked, then what is known about them.

use std::io;
use std::path::{Path, PathBuf};

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, Consistency, ConsistencyLevel, DATA, Entry, Layout, META, Meta,
};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Timestamp;

use super::inventory::{Line, LineType};
use super::node::{Accounts, Node};
use super::notes::{Notes, shown};
use super::reader::{FileReader, SharedOutcome, outcome_of};
use super::recheck::recheck;
use super::walk::{Found, Step, Trouble, Walker};
use crate::spool::{Sealed, Spool};

/// The file below `meta` that lists every entry.
pub(crate) const INVENTORY: &str = "inventory.jsonl";
const META_FILE_MODE: u32 = 0o600;
const META_DIR_MODE: u32 = 0o700;

/// How many of each were captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) files: u64,
    pub(crate) dirs: u64,
    pub(crate) symlinks: u64,
    pub(crate) others: u64,
    pub(crate) bytes: u64,
}

impl Counts {
    /// Adds an entry; `bytes` only for files.
    pub(crate) fn add(&mut self, kind: LineType, bytes: u64) {
        match kind {
            LineType::File => self.files += 1,
            LineType::Dir => self.dirs += 1,
            LineType::Symlink => self.symlinks += 1,
            _ => self.others += 1,
        }
        self.bytes += bytes;
    }

    /// Under the names the facts use.
    pub(crate) fn named(self) -> [(&'static str, u64); 5] {
        [
            ("bytes", self.bytes),
            ("dirs", self.dirs),
            ("files", self.files),
            ("others", self.others),
            ("symlinks", self.symlinks),
        ]
    }
}

/// Where a capture of the options' root stands.
enum Stage {
    Tree {
        walker: Box<Walker>,
        inventory: Spool,
    },
    Meta(Sealed),
    Done(Sealed),
    /// A failure ended it.
    Broken,
}

/// The file given out last.
struct Pending {
    path: RelPath,
    line: Line,
    before: Node,
    outcome: SharedOutcome,
}

pub(crate) struct FilesCapture {
    root: PathBuf,
    stage: Stage,
    pending: Option<Pending>,
    accounts: Accounts,
    moment: Timestamp,
    counts: Counts,
    notes: Notes,
}

impl FilesCapture {
    pub(crate) fn start(
        root: &Path,
        walker: Walker,
        spool: &Path,
        moment: Timestamp,
    ) -> Result<Self, Failure> {
        Ok(Self {
            root: root.to_owned(),
            stage: Stage::Tree { walker: Box::new(walker), inventory: Spool::create(spool)? },
            pending: None,
            accounts: Accounts::load(),
            moment,
            counts: Counts::default(),
            notes: Notes::default(),
        })
    }

    fn tree_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        loop {
            if monitor.cancelled() {
                return Err(Failure::new(FailureKind::Refused, "the capture was cancelled"));
            }
            let Stage::Tree { walker, .. } = &mut self.stage else { return Ok(None) };
            match walker.step()? {
                None => return Ok(None),
                Some(Step::Lost { path, trouble }) => self.note_lost(&path, trouble, monitor),
                Some(Step::Found(found)) => {
                    if let Some(entry) = self.entry_of(*found, monitor)? {
                        return Ok(Some(entry));
                    }
                }
            }
        }
    }

    fn note_lost(&mut self, path: &RelPath, trouble: Trouble, monitor: &dyn Monitor) {
        match trouble {
            Trouble::Vanished => {
                let message = "it vanished between being listed and being opened";
                self.notes.changed(Finding::new("file-vanished", shown(path), message), monitor);
            }
            Trouble::Unreadable(error) => {
                self.notes.unreadable(path, "", unreadable(path, &error.to_string()), monitor);
            }
        }
    }

    fn entry_of(&mut self, found: Found, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        let Found { path, node, xattrs, xattr_error, file, target } = found;
        let Some(line) = Line::new(&path, &node, &xattrs, target.as_deref()) else {
            self.note_lost(&path, Trouble::Unreadable(io::Error::other("unknown file type")), monitor);
            return Ok(None);
        };
        if let Some(error) = xattr_error {
            let message = format!("its extended attributes could not be read: {error}");
            let finding = Finding::new("xattrs-unreadable", shown(&path), message);
            self.notes.unreadable(&path, " (extended attributes)", finding, monitor);
        }
        let body = match (line.kind, file, target) {
            (LineType::File, Some(file), _) => {
                let (reader, outcome) = FileReader::new(file, &node);
                self.pending =
                    Some(Pending { path: path.clone(), line: line.clone(), before: node, outcome });
                Body::File { reader: Box::new(reader), size_hint: node.size_bytes, layout: Layout::Stream }
            }
            (LineType::Symlink, _, Some(target)) => Body::Symlink(target),
            (LineType::Dir, ..) => Body::Dir,
            (LineType::Fifo, ..) => Body::Fifo,
            (LineType::Socket, ..) => Body::Socket,
            (LineType::CharDevice, ..) => Body::Device { character: true, rdev: node.rdev },
            (LineType::BlockDevice, ..) => Body::Device { character: false, rdev: node.rdev },
            (LineType::File | LineType::Symlink, ..) => {
                return Err(Failure::new(
                    FailureKind::Internal,
                    format!("{path} was walked without its content"),
                ));
            }
        };
        if !matches!(body, Body::File { .. }) {
            self.write_line(&line)?;
            self.counts.add(line.kind, 0);
        }
        let path = below(DATA)?.concat(&path);
        Ok(Some(Entry { path, meta: node.meta(xattrs, &self.accounts), body }))
    }

    fn write_line(&mut self, line: &Line) -> Result<(), Failure> {
        let Stage::Tree { inventory, .. } = &mut self.stage else {
            return Err(Failure::new(FailureKind::Internal, "the inventory is already closed"));
        };
        let bytes = line.to_bytes().map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to encode an inventory line", error)
        })?;
        inventory.push(&bytes)
    }

    /// Takes what the reader of the last file has found out.
    fn settle(&mut self, monitor: &dyn Monitor) -> Result<(), Failure> {
        let Some(Pending { path, mut line, before, outcome }) = self.pending.take() else { return Ok(()) };
        let Some((digest, bytes, after)) = outcome_of(&outcome).done else {
            return Err(Failure::new(FailureKind::Internal, format!("{path} was not read to its end")));
        };
        line.size_bytes = Some(bytes);
        line.sha256 = Some(digest);
        if after.version() != before.version() || bytes != before.size_bytes {
            line.source.changed = true;
            let finding = Finding::new("file-changed", shown(&path), "it changed while it was read");
            self.notes.changed(finding, monitor);
        }
        self.counts.add(LineType::File, bytes);
        self.write_line(&line)
    }

    fn close_tree(&mut self, monitor: &dyn Monitor) -> Result<Entry, Failure> {
        let Stage::Tree { inventory, .. } = std::mem::replace(&mut self.stage, Stage::Broken) else {
            return Err(Failure::new(FailureKind::Internal, "the inventory is already closed"));
        };
        let inventory = inventory.seal()?;
        recheck(&self.root, &inventory, &mut self.notes, monitor)?;
        self.notes.close(monitor);
        self.stage = Stage::Meta(inventory);
        Ok(Entry { path: below(META)?, meta: self.meta(META_DIR_MODE), body: Body::Dir })
    }

    fn meta(&self, mode: u32) -> Meta {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Meta { mode, uid, gid, mtime: Some(self.moment), links: 1, ..Meta::default() }
    }
}

fn below(folder: &str) -> Result<RelPath, Failure> {
    RelPath::new(folder)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name an entry", error))
}

fn unreadable(path: &RelPath, why: &str) -> Finding {
    Finding::new("file-unreadable", shown(path), format!("it could not be read and is not captured: {why}"))
}

impl Capture for FilesCapture {
    fn total_bytes(&self) -> Option<u64> {
        None
    }

    fn next_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        self.settle(monitor)?;
        match &self.stage {
            Stage::Tree { .. } => match self.tree_entry(monitor)? {
                Some(entry) => Ok(Some(entry)),
                None => self.close_tree(monitor).map(Some),
            },
            Stage::Meta(inventory) => {
                let body = Body::File {
                    reader: Box::new(inventory.reader()),
                    size_hint: inventory.length_bytes(),
                    layout: Layout::Stream,
                };
                let path = RelPath::new(Path::new(META).join(INVENTORY)).map_err(|error| {
                    Failure::with_source(FailureKind::Internal, "failed to name an entry", error)
                })?;
                let entry = Entry { path, meta: self.meta(META_FILE_MODE), body };
                if let Stage::Meta(inventory) = std::mem::replace(&mut self.stage, Stage::Broken) {
                    self.stage = Stage::Done(inventory);
                }
                Ok(Some(entry))
            }
            Stage::Done(_) => Ok(None),
            Stage::Broken => Err(Failure::new(FailureKind::Internal, "the capture has already failed")),
        }
    }

    fn lost(&mut self, path: &RelPath, _why: &str) {
        let data = below(DATA).unwrap_or_default();
        match self.pending.take_if(|pending| data.concat(&pending.path) == *path) {
            // Whoever read it has told why.
            Some(pending) => self.notes.lost(&pending.path, ""),
            // The inventory, or a file that was already accounted for: what was promised about it is not true.
            None => self.stage = Stage::Broken,
        }
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        let Stage::Done(inventory) = &self.stage else {
            return Err(Failure::new(FailureKind::Internal, "the capture was not read to its end"));
        };
        let changes = self.notes.changes();
        let level = if changes == 0 { ConsistencyLevel::CrashConsistent } else { ConsistencyLevel::Fuzzy };
        Ok(CaptureFacts {
            consistency: Consistency { level, moment: self.moment, position: None, changes },
            logical_bytes: self.counts.bytes,
            counts: self.counts.named().map(|(name, count)| (name.to_owned(), count)).into(),
            checksums: [("inventory".to_owned(), format!("sha256:{}", inventory.digest()))].into(),
            environment: [("root".to_owned(), self.root.to_string_lossy().into_owned().into())].into(),
            unreadable: self.notes.into_unreadable(),
        })
    }
}
