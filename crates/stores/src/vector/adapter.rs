//! The adapter of kind `vector`, engine `jsonl`.

use std::path::{Path, PathBuf};

use lifeboat_base::capture::{Capture, CaptureFacts, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_probe::{Frozen, Metric};

use super::canaries;
use super::capture::VectorCapture;
use super::checks::{self, Subject};
use super::gold;
use super::place::{declared, is_shard, root_of};
use crate::adapter::{Adapter, CanaryResult, CaptureContext, CheckResult, Inspection, RestoreReport};
use crate::files::{FilesAdapter, FilesOptions, Step, WalkOptions, Walker};
use crate::meaning::Probes;

/// What to capture of an index and what to hold it against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VectorOptions {
    /// The file of the index, or the folder of its shards.
    pub path: PathBuf,
    /// What its owner declares of it.
    pub contract: PathBuf,
    /// How it measures, as the policy knows it.
    pub metric: Metric,
    /// The folder of the questions that are asked of it.
    pub gold: Option<PathBuf>,
}

/// Captures and restores an index of lines of JSON.
#[derive(Clone, Debug)]
pub struct VectorAdapter {
    pub(crate) options: VectorOptions,
}

impl VectorAdapter {
    /// An adapter for one index.
    pub fn new(options: VectorOptions) -> Self {
        Self { options }
    }

    /// The files of the gold set, if a board can be measured with them.
    fn usable_gold(&self, folder: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
        let places = (folder.canonicalize().ok(), self.options.path.canonicalize().ok());
        if let (Some(gold), Some(index)) = places
            && gold.starts_with(&index)
        {
            let what =
                format!("the gold set {} lies inside the index, whose shards it would be", folder.display());
            return Err(Failure::new(FailureKind::Refused, what));
        }
        let files = gold::of_folder(folder)?;
        let refused = |why: String| Failure::new(FailureKind::Refused, why);
        let set = gold::assembled(files.clone()).map_err(refused)?;
        let frozen = Frozen::open(&set)?;
        frozen.queries(&declared(&self.options.contract)?.contract)?;
        Ok(files)
    }

    /// The index as files, after a look for shards: a folder without any is another folder.
    fn files(&self) -> Result<(FilesAdapter, u64, u64), Failure> {
        let (root, only) = root_of(&self.options.path)?;
        let options = WalkOptions { only: only.clone(), ..WalkOptions::default() };
        let mut walker = Walker::start(&root, options).map_err(|error| {
            let what = format!("failed to open {}", root.display());
            Failure::with_source(FailureKind::Unreachable, what, error)
        })?;
        let (mut shards, mut bytes) = (0, 0);
        while let Some(step) = walker.step()? {
            match step {
                Step::Found(found) if found.is_file() && is_shard(&found.path) => {
                    shards += 1;
                    bytes += found.node.size_bytes;
                }
                Step::Found(_) | Step::Lost { .. } => {}
            }
        }
        if shards == 0 {
            let what = format!("{} holds no file whose name ends in .jsonl", root.display());
            return Err(Failure::new(FailureKind::Unreachable, what));
        }
        let options = FilesOptions { root, exclude: Vec::new(), one_file_system: false };
        Ok((FilesAdapter::new(options).only(only), shards, bytes))
    }
}

impl Adapter for VectorAdapter {
    fn kind(&self) -> &'static str {
        "vector"
    }

    fn inspect(&self) -> Result<Inspection, Failure> {
        let (_, shards, bytes) = self.files()?;
        let mut findings = Vec::new();
        let mut version = "jsonl".to_owned();
        match declared(&self.options.contract) {
            Ok(declared) => {
                version = format!("jsonl, {} ({})", declared.index_family, declared.contract.metric.word());
                if declared.contract.metric != self.options.metric {
                    let message = format!(
                        "the row says that the index measures by {}, its contract says {}",
                        self.options.metric.word(),
                        declared.contract.metric.word()
                    );
                    findings.push(Finding::new("contract-differs", "metric", message));
                }
            }
            Err(failure) => {
                let kind = failure.kind();
                findings.push(Finding::new("contract-unusable", "contract", failure.chain()).with_kind(kind));
            }
        }
        if let Some(folder) = &self.options.gold
            && let Err(failure) = self.usable_gold(folder)
        {
            let kind = failure.kind();
            findings.push(Finding::new("gold-unusable", "gold", failure.chain()).with_kind(kind));
        }
        let items = vec![("shards".to_owned(), shards)];
        Ok(Inspection { version, logical_bytes: Some(bytes), items, findings, share: None })
    }

    fn capture(&self, at: &CaptureContext<'_>) -> Result<Box<dyn Capture>, Failure> {
        let moment = at.clock.now();
        let (files, _, _) = self.files()?;
        let declared = declared(&self.options.contract);
        let gold = self.options.gold.as_deref().map(|folder| self.usable_gold(folder));
        let inner = files.capture(at)?;
        Ok(Box::new(VectorCapture::new(inner, (declared, gold), at.spool, moment)))
    }

    fn restore(
        &self,
        from: &dyn RestoreSource,
        _facts: &CaptureFacts,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<RestoreReport, Failure> {
        crate::files::restore_tree(from, into, monitor)
    }

    fn probes(&self) -> Option<&dyn Probes> {
        Some(self)
    }

    fn essential(&self) -> &'static [&'static str] {
        &[checks::MANIFEST_CHECK, checks::RECORDS_CHECK, checks::VECTORS]
    }

    fn checks(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        let mut results = crate::files::check_tree(from, facts, restored, monitor)?;
        let subject = Subject { options: &self.options, from, facts, restored, monitor };
        results.extend(subject.checks()?);
        Ok(results)
    }

    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        let mut results = crate::files::run_canaries(scratch)?;
        results.extend(canaries::run(scratch)?);
        Ok(results)
    }
}
