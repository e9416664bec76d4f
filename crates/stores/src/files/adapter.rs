//! The adapter of kind `files`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_base::capture::{Capture, CaptureFacts, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Finding, Monitor};

use super::canaries;
use super::capture::{Counts, FilesCapture};
use super::checks::check_tree;
use super::exclude::Excludes;
use super::inventory::LineType;
use super::notes::shown;
use super::restore::restore_tree;
use super::select;
use super::walk::{Step, Trouble, WalkOptions, Walker};
use crate::adapter::{Adapter, CanaryResult, CaptureContext, CheckResult, Inspection, RestoreReport};
use crate::select::{Select, Selection, Take};
use crate::serve::{self, Serve};

/// Findings an inspection spells out; further ones are only counted.
const MAX_INSPECTION_FINDINGS: usize = 100;

/// What to capture of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesOptions {
    /// The directory whose content is captured; a symbolic link to a directory is followed here and nowhere else.
    pub root: PathBuf,
    /// Patterns of what is left out; `docs/stores.md` has their rules.
    pub exclude: Vec<String>,
    /// Leave out what is mounted below the root; mount points become empty directories.
    pub one_file_system: bool,
}

/// Captures and restores a directory tree.
#[derive(Clone, Debug)]
pub struct FilesAdapter {
    options: FilesOptions,
    /// Of what lies in the root itself, only this.
    only: Option<OsString>,
}

impl FilesAdapter {
    /// An adapter for one tree. A pattern that cannot be understood is reported by the first use, as `Usage`.
    pub fn new(options: FilesOptions) -> Self {
        Self { options, only: None }
    }

    /// The same adapter for one file or folder of the root, with what is below it.
    pub(crate) fn only(self, only: Option<OsString>) -> Self {
        Self { only, ..self }
    }

    fn walker(&self, options: WalkOptions) -> Result<Walker, Failure> {
        let options = WalkOptions {
            excludes: Excludes::new(&self.options.exclude)?,
            one_file_system: self.options.one_file_system,
            only: self.only.clone(),
            ..options
        };
        let root = &self.options.root;
        Walker::start(root, options).map_err(|error| {
            let what = match error.kind() {
                io::ErrorKind::NotADirectory => format!("{} is not a directory", root.display()),
                _ => format!("failed to open {}", root.display()),
            };
            Failure::with_source(FailureKind::Unreachable, what, error)
        })
    }
}

impl Adapter for FilesAdapter {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn inspect(&self) -> Result<Inspection, Failure> {
        let mut walker = self.walker(WalkOptions::default())?;
        let mut counts = Counts::default();
        let mut findings = Vec::new();
        while let Some(step) = walker.step()? {
            match step {
                Step::Found(found) => {
                    if let Some(kind) = LineType::of(&found.node) {
                        counts.add(kind, if kind == LineType::File { found.node.size_bytes } else { 0 });
                    }
                }
                Step::Lost { trouble: Trouble::Vanished, .. } => {}
                Step::Lost { path, trouble: Trouble::Unreadable(error) } => {
                    if findings.len() < MAX_INSPECTION_FINDINGS {
                        let message = format!("it cannot be read: {error}");
                        findings.push(Finding::new("file-unreadable", shown(&path), message));
                    }
                }
            }
        }
        let items = counts.named().into_iter().filter(|(name, _)| *name != "bytes");
        Ok(Inspection {
            version: format!("file tree on {}", std::env::consts::OS),
            logical_bytes: Some(counts.bytes),
            items: items.map(|(name, count)| (name.to_owned(), count)).collect(),
            findings,
            share: None,
        })
    }

    fn capture(&self, at: &CaptureContext<'_>) -> Result<Box<dyn Capture>, Failure> {
        let spool = fs::metadata(at.spool)
            .map_err(|error| Failure::io(format!("failed to reach {}", at.spool.display()), error))?;
        let moment = at.clock.now();
        let walker = self.walker(WalkOptions {
            open: true,
            without: Some((spool.dev(), spool.ino())),
            ..WalkOptions::default()
        })?;
        Ok(Box::new(FilesCapture::start(&self.options.root, walker, at.spool, moment)?))
    }

    fn selects(&self) -> Option<&dyn Select> {
        Some(self)
    }

    fn serves(&self) -> Option<&dyn Serve> {
        Some(self)
    }

    fn restore(
        &self,
        from: &dyn RestoreSource,
        _facts: &CaptureFacts,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<RestoreReport, Failure> {
        restore_tree(from, into, monitor)
    }

    fn checks(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        check_tree(from, facts, restored, monitor)
    }

    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        canaries::run(scratch)
    }
}

impl Select for FilesAdapter {
    fn select(
        &self,
        _facts: &CaptureFacts,
        artefact: &Path,
        wanted: &[Selection],
        monitor: &dyn Monitor,
        take: &mut Take<'_>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        select::select(artefact, wanted, monitor, take)
    }
}

impl Serve for FilesAdapter {
    fn address(&self, _facts: &CaptureFacts, at: &Path) -> String {
        serve::path(at)
    }

    fn serve(
        &self,
        _facts: &CaptureFacts,
        artefact: &Path,
        _monitor: &dyn Monitor,
        work: &mut dyn FnMut(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        work(artefact)
    }
}
