//! Makes a gold set on an index that is known to be good: drafts for a person to read, the gate of curation, the baseline.
//!
//! In: the live index and the folder of the row. Out: files of the folder, and what was measured. Nothing is frozen that a board
//! could not be measured with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_probe::{
    AskedVectors, Asking, Baseline, Board, BoardRow, Dropped, Embedder, Frozen, GoldFiles, GoldLock,
    GoldSections, GoldSet, Identity, IndexManifest, Lsa, Metric, ProbeError, Profile, Queries, Record,
    RunSet, USUAL_RANK_COUNT, curate, draft,
};

use super::adapter::VectorAdapter;
use super::checks::faults;
use super::gold::{self, BASELINE, DRAFTS, EMBEDDER, GOLD, LOCK, QUESTIONS, SECTIONS};
use super::place::{declared, root_of, take_stock};
use super::probing::{context, judged};
use super::stock::Taken;
use crate::adapter::{CheckResult, CheckState};
use crate::meaning::Meaning;

/// What drafting came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drafted {
    /// How many questions were drafted.
    pub drafts_count: usize,
    /// Of how many sections.
    pub sections_count: usize,
    /// Whether the pinned embedder was fitted now, and not there before.
    pub has_fitted: bool,
}

/// What curation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Curated {
    /// How many questions were let in.
    pub kept_count: u64,
    /// The others, with the reasons.
    pub dropped: BTreeMap<String, Vec<Dropped>>,
    /// Questions that are far from their own anchor.
    pub far_from_anchor: Vec<String>,
    /// What the set lacks; it was frozen only if there is nothing.
    pub lacks: Vec<String>,
    /// What all of the drafts measured.
    pub rows: Vec<BoardRow>,
}

/// A board of the live index.
#[derive(Clone, Debug)]
pub struct Boarded {
    /// The board.
    pub board: Board,
    /// As a check.
    pub check: CheckResult,
    /// Against the baseline.
    pub meaning: Meaning,
}

fn damaged(what: &str) -> impl FnOnce(std::str::Utf8Error) -> Failure {
    let what = format!("{what} is not UTF-8");
    move |error| Failure::with_source(FailureKind::Damaged, what, error)
}

impl VectorAdapter {
    fn folder(&self) -> Result<&Path, Failure> {
        self.options.gold.as_deref().ok_or_else(|| {
            Failure::new(FailureKind::Usage, "the row names no gold set: add `gold = \"FOLDER\"` to it")
        })
    }

    /// Shows every record of the live index, and gives what is there. A line that is no record is refused: what is wrong
    /// already is no measure for others.
    fn live(&self, monitor: &dyn Monitor, visit: &mut super::stock::Visit<'_>) -> Result<Taken, Failure> {
        let (root, only) = root_of(&self.options.path)?;
        let taken = take_stock(&root, only, monitor, visit)?;
        match taken.faults.named.first() {
            Some(fault) => {
                let what =
                    format!("the index holds {} lines that are no records: {fault}", taken.faults.count);
                Err(Failure::new(FailureKind::Damaged, what))
            }
            None => Ok(taken),
        }
    }

    fn live_manifest(&self, taken: &Taken) -> Result<IndexManifest, Failure> {
        Ok(declared(&self.options.contract)?.manifest(&taken.sorted.report, taken.files())?)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let folder = self.folder()?;
        let path = folder.join(name);
        let write = crashsafe::create_dir_all(folder).and_then(|()| crashsafe::replace(&path, bytes));
        write.map_err(|error| Failure::io(format!("failed to write {}", path.display()), error))
    }

    fn sections(&self, monitor: &dyn Monitor) -> Result<GoldSections, Failure> {
        let mut sections = GoldSections::default();
        self.live(monitor, &mut |record| sections.add(record))?;
        Ok(sections)
    }

    /// The pinned embedder; fitted on the texts where there is none yet.
    fn embedder(&self, monitor: &dyn Monitor) -> Result<(Lsa, bool), Failure> {
        if let Some(bytes) = gold::file(self.folder()?, EMBEDDER)? {
            return Ok((Lsa::from_bytes(&bytes)?, false));
        }
        let mut texts: Vec<String> = Vec::new();
        self.live(monitor, &mut |record: &Record| {
            texts.push(record.text.clone());
            Ok(())
        })?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let model = Lsa::fit(&texts, USUAL_RANK_COUNT)?;
        self.put(EMBEDDER, &model.to_bytes()?)?;
        Ok((model, true))
    }

    /// Drafts up to `count` questions for a person to read. The same index gives the same drafts.
    pub fn draft(&self, count: usize, monitor: &dyn Monitor) -> Result<Drafted, Failure> {
        let sections = self.sections(monitor)?;
        let (_, has_fitted) = self.embedder(monitor)?;
        let all: Vec<_> = sections.iter().map(lifeboat_probe::GoldSection::draft).collect();
        let drafts = draft(&all, count)?;
        self.put(DRAFTS, drafts.to_jsonl()?.as_bytes())?;
        Ok(Drafted { drafts_count: drafts.probes().len(), sections_count: sections.iter().len(), has_fitted })
    }

    fn measured(
        &self,
        (set, sections): (&GoldSet, &GoldSections),
        (embedder, asked): (&Lsa, Option<&AskedVectors>),
        baseline: Option<&Baseline>,
        monitor: &dyn Monitor,
    ) -> Result<(Board, IndexManifest, Identity), Failure> {
        let profile = Profile::default();
        let contract = declared(&self.options.contract)?.contract;
        let metric: Metric = contract.metric;
        if metric != self.options.metric {
            let (row, own) = (self.options.metric.word(), metric.word());
            let what = format!("the row says metric `{row}`, the contract of the index `{own}`");
            return Err(Failure::new(FailureKind::Refused, what));
        }
        let mut asking = Asking::new(set, &Queries::new(embedder, asked, &contract)?, metric, &profile)?;
        let taken = self.live(monitor, &mut |record| asking.offer(record))?;
        let manifest = self.live_manifest(&taken)?;
        let q3 = baseline.and_then(|baseline| baseline.verdict.score_q3);
        // A board of the live index has no moment of its own: the same index gives the same board.
        let at = (RunSet::Before, String::new());
        let context = context(&manifest, (set.version()?, q3), at, &profile);
        let measuring: &dyn Embedder = embedder;
        let board = asking.board(set, sections, measuring, &context, &profile)?;
        let vector_faults = faults(&manifest, &taken);
        Ok((board, manifest, Identity { vector_faults, ..Identity::default() }))
    }

    /// Lets the drafts in that the index answers, and freezes them with everything they were measured with. Nothing is written
    /// where the set lacks something.
    pub fn curate(&self, monitor: &dyn Monitor) -> Result<Curated, Failure> {
        let folder = self.folder()?;
        let Some(drafts) = gold::file(folder, DRAFTS)? else {
            let what = format!("there are no drafts in {}", folder.display());
            return Err(Failure::new(FailureKind::Refused, what));
        };
        let drafts =
            GoldSet::from_jsonl(std::str::from_utf8(&drafts).map_err(damaged("the list of drafts"))?)?;
        let all = self.sections(monitor)?;
        let (embedder, _) = self.embedder(monitor)?;
        let asked = gold::file(folder, QUESTIONS)?.as_deref().map(AskedVectors::from_jsonl).transpose()?;
        let models = (&embedder, asked.as_ref());
        let profile = Profile::default();
        let (board, manifest, identity) =
            self.measured((&drafts, &all.of(&drafts)?), models, None, monitor)?;
        if let Some(fault) = identity.vector_faults.first() {
            let what = format!("questions are frozen with a sound index only; of this one: {fault:?}");
            return Err(Failure::new(FailureKind::Refused, what));
        }
        let to_anchor = Frozen::to_anchors(&drafts, &embedder)?;
        let mut curation = curate(&drafts, &board.rows, &to_anchor, &BTreeSet::new(), &profile)?;
        if curation.lacks.is_empty() {
            let sections = all.of(&curation.kept)?;
            let measured = (manifest.index_hash, &profile);
            let lock: GoldLock =
                Frozen::lock(&curation.kept, &sections, &embedder, asked.as_ref(), measured)?;
            // What was let in one by one must pass together, before anything is written.
            let (again, _, _) = self.measured((&curation.kept, &sections), models, None, monitor)?;
            let verdict = again.verdict.verdict;
            if verdict == lifeboat_probe::BoardVerdict::Pass {
                self.freeze(&curation.kept, &sections, &lock)?;
            } else {
                curation.lacks.push(format!("the board of those let in is `{}`", verdict.word()));
            }
        }
        Ok(Curated {
            kept_count: curation.kept.answerable_count(),
            dropped: curation.dropped,
            far_from_anchor: curation.far_from_anchor,
            lacks: curation.lacks,
            rows: board.rows,
        })
    }

    /// The lock comes last: without it, nothing that was written counts.
    fn freeze(&self, set: &GoldSet, sections: &GoldSections, lock: &GoldLock) -> Result<(), Failure> {
        let folder = self.folder()?;
        for name in [LOCK, BASELINE] {
            if gold::file(folder, name)?.is_some() {
                let path = folder.join(name);
                crashsafe::remove(&path)
                    .map_err(|error| Failure::io(format!("failed to remove {}", path.display()), error))?;
            }
        }
        self.put(SECTIONS, sections.to_jsonl()?.as_bytes())?;
        self.put(GOLD, set.to_jsonl()?.as_bytes())?;
        let lock = lifeboat_probe::canonical_json(lock)?;
        self.put(LOCK, format!("{lock}\n").as_bytes())
    }

    /// Asks the live index the questions that were let in.
    pub fn board(&self, monitor: &dyn Monitor) -> Result<Boarded, Failure> {
        Ok(self.boarded(monitor)?.0)
    }

    fn boarded(&self, monitor: &dyn Monitor) -> Result<(Boarded, Identity), Failure> {
        let files = gold::of_folder(self.folder()?)?;
        let files: GoldFiles =
            gold::assembled(files).map_err(|why| Failure::new(FailureKind::Refused, why))?;
        let frozen = Frozen::open(&files)?;
        let models = (&frozen.embedder, frozen.asked.as_ref());
        let of_set = (&frozen.set, &frozen.sections);
        let (board, _, identity) = self.measured(of_set, models, frozen.baseline.as_ref(), monitor)?;
        let (mut check, meaning) = judged(&frozen, &board, &identity, &Profile::default());
        // What a drill would refuse is not called sound here.
        if let Some(fault) = identity.vector_faults.first() {
            check.state = CheckState::Failed;
            check.detail.push(format!("the vectors are not what the contract says: {fault:?}"));
        }
        Ok((Boarded { board, check, meaning }, identity))
    }

    /// Measures the board that later ones are compared with. One that does not pass is not kept.
    pub fn baseline(&self, monitor: &dyn Monitor) -> Result<Boarded, Failure> {
        let (boarded, identity) = self.boarded(monitor)?;
        if let Some(fault) = identity.vector_faults.first() {
            let what = format!("an unsound index gives no baseline; of this one: {fault:?}");
            return Err(Failure::new(FailureKind::Refused, what));
        }
        let baseline = Baseline::of(&boarded.board).map_err(|error: ProbeError| {
            Failure::with_source(FailureKind::Refused, "the board cannot be a baseline", error)
        })?;
        self.put(BASELINE, baseline.to_json()?.as_bytes())?;
        Ok(boarded)
    }
}
