//! Asks an index the questions of its gold set, and decides what to do with it.

use std::path::Path;

use lifeboat_base::capture::{CaptureFacts, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_probe::{
    Asking, Board, BoardContext, BoardVerdict, DriftLevel, Embedder, Frozen, Identity, IndexManifest,
    ProbeError, Profile, RunSet, decide,
};

use super::adapter::VectorAdapter;
use super::checks::{Kept, Subject, faults};
use super::gold;
use super::place::take_stock;
use super::stock::Taken;
use crate::adapter::{CanaryResult, CheckResult};
use crate::meaning::{BOARD, Meaning, Probes, WorstProbe};
use crate::tally::{Tally, failed, not_applicable};

const EXPECTED: &str = "a board that passes, by the curated questions and the pinned embedder";
/// Probes that a report spells out.
const WORST_COUNT: usize = 10;

/// What all rows of a board of an index have in common.
pub(crate) fn context(
    manifest: &IndexManifest,
    frozen: (lifeboat_base::digest::Digest, Option<f64>),
    (run_set, ts): (RunSet, String),
    profile: &Profile,
) -> BoardContext {
    let reranker = &manifest.rerank_conf;
    BoardContext {
        index_family: manifest.index_family.clone(),
        retriever_metric: manifest.contract.metric.word().to_owned(),
        analyzer: manifest.contract.analyzer_id.clone(),
        run_set,
        ts,
        index_hash: manifest.index_hash,
        rerank_conf: format!("{} {} {}", reranker.model, reranker.ver, reranker.cutoff),
        gold_version: frozen.0,
        k: profile.probe_k_count,
        baseline_score_q3: frozen.1,
    }
}

/// A board as a check, with what it says against the baseline, and what to do with an index that is known to be `identity`.
pub(crate) fn judged(
    frozen: &Frozen,
    board: &Board,
    identity: &Identity,
    profile: &Profile,
) -> (CheckResult, Meaning) {
    let mut tally = Tally::default();
    for gate in &board.verdict.failed_gates {
        tally.add(|| format!("{}: {}, expected {}", gate.name.word(), gate.measured, gate.threshold));
    }
    let has_passed = board.verdict.verdict == BoardVerdict::Pass;
    if !has_passed && tally.count() == 0 {
        tally.add(|| format!("the board is {}", board.verdict.verdict.word()));
    }
    let worst: Vec<WorstProbe> = board.worst(WORST_COUNT).into_iter().map(WorstProbe::of).collect();
    let (drift, not_compared) = match &frozen.baseline {
        None => (None, Some("there is no baseline to compare it with".to_owned())),
        Some(baseline) => match baseline.drift(board, profile) {
            Ok(drift) => (Some(drift), None),
            Err(error) => (None, Some(format!("it cannot be compared: {error}"))),
        },
    };
    // Who recorded a baseline wants to know when answers got worse, also while each gate still holds.
    if let Some(drift) = drift.as_ref().filter(|drift| drift.level >= DriftLevel::Alert) {
        let crossed = drift.crossed.iter().map(|crossed| crossed.field.clone()).collect::<Vec<_>>();
        tally.add(|| format!("it is too far from its baseline: {}", crossed.join(", ")));
    }
    if frozen.baseline.is_some() && drift.is_none() {
        tally.add(|| "there is a baseline, and it cannot be compared with it".to_owned());
    }
    let mut decided = board.clone();
    if tally.count() > 0 && has_passed {
        decided.verdict.verdict = BoardVerdict::Fail;
    }
    let meaning = Meaning {
        not_probed: None,
        board: Some(board.verdict.clone()),
        drift,
        not_compared,
        worst,
        decision: decide(identity, Some(&decided), profile),
    };
    (tally.result(BOARD, meaning.said(), EXPECTED), meaning)
}

/// Why an index cannot be asked.
enum Unasked {
    /// The row names no questions.
    Nothing(String),
    /// It does, and they cannot be used.
    Broken(String),
}

impl VectorAdapter {
    fn frozen(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
    ) -> Result<Result<Frozen, Unasked>, Failure> {
        let files = match gold::of_point(from, facts)? {
            Some(Ok(files)) => files,
            Some(Err(why)) => return Ok(Err(Unasked::Broken(why))),
            None if self.options.gold.is_some() => {
                let why = "the point was captured without a usable gold set, and the row names one";
                return Ok(Err(Unasked::Broken(why.to_owned())));
            }
            None => return Ok(Err(Unasked::Nothing("the row names no gold set".to_owned()))),
        };
        Ok(Frozen::open(&files).map_err(|error| Unasked::Broken(error.to_string())))
    }
}

fn asking(frozen: &Frozen, manifest: &IndexManifest, profile: &Profile) -> Result<Asking, ProbeError> {
    let queries = frozen.queries(&manifest.contract)?;
    Asking::new(&frozen.set, &queries, manifest.contract.metric, profile)
}

/// Everything that is known of the index before it is asked anything.
fn identity(subject: &Subject<'_>, kept: &Kept, taken: &Taken) -> Result<Identity, Failure> {
    let manifest = match &kept.manifest {
        Ok(manifest) if kept.is_signed => manifest,
        Ok(_) => {
            let why = "it is not the one that was signed".to_owned();
            return Ok(Identity { manifest_fault: Some(why), ..Identity::default() });
        }
        Err(why) => return Ok(Identity { manifest_fault: Some(why.clone()), ..Identity::default() }),
    };
    let mut differences = subject.differing(manifest, taken)?;
    match subject.redeclared(manifest, taken, &[]) {
        Ok(list) => {
            let known: Vec<String> = differences.iter().map(|other| other.field.clone()).collect();
            differences.extend(list.into_iter().filter(|other| !known.contains(&other.field)));
        }
        Err(failure) if failure.kind() == FailureKind::Unreachable => {}
        Err(failure) => {
            return Ok(Identity { manifest_fault: Some(failure.chain()), ..Identity::default() });
        }
    }
    Ok(Identity {
        manifest_fault: None,
        differences,
        counts: Some((manifest.counts, taken.sorted.report.counts)),
        vector_faults: faults(manifest, taken),
        score_correlation: None,
    })
}

impl Probes for VectorAdapter {
    fn probe(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<(CheckResult, Meaning), Failure> {
        monitor.phase("asking the restored index", facts.counts.get("bytes").copied());
        let profile = Profile::default();
        let subject = Subject { options: &self.options, from, facts, restored, monitor };
        let kept = subject.kept()?;
        let frozen = match (self.frozen(from, facts)?, &kept.manifest) {
            (Ok(_), Err(why)) => Err(Unasked::Broken(why.clone())),
            (frozen, _) => frozen,
        };
        let mut asked = match (&frozen, &kept.manifest) {
            (Ok(frozen), Ok(manifest)) => Some(asking(frozen, manifest, &profile)),
            _ => None,
        };
        let taken = take_stock(restored, None, monitor, &mut |record| {
            // What cannot be compared spoils the board, not the count.
            if let Some(asking) = asked.as_mut().and_then(|asked| asked.as_mut().ok())
                && let Err(error) = asking.offer(record)
            {
                asked = Some(Err(error));
            }
            Ok(())
        })?;
        let identity = identity(&subject, &kept, &taken)?;
        let unasked = |result: CheckResult, why: String| {
            let decision = decide(&identity, None, &profile);
            let (board, drift, worst) = (None, None, Vec::new());
            let meaning =
                Meaning { not_probed: Some(why), board, drift, not_compared: None, worst, decision };
            Ok((result, meaning))
        };
        let frozen = match frozen {
            Ok(frozen) => frozen,
            Err(Unasked::Nothing(why)) => return unasked(not_applicable(BOARD, EXPECTED, why.as_str()), why),
            Err(Unasked::Broken(why)) => return unasked(failed(BOARD, EXPECTED, why.as_str()), why),
        };
        let board = match (asked, &kept.manifest) {
            (Some(Ok(asking)), Ok(manifest)) => {
                let q3 = frozen.baseline.as_ref().and_then(|baseline| baseline.verdict.score_q3);
                // The moment of the point: the same restore gives the same board.
                let at = (RunSet::After, facts.consistency.moment.to_string());
                let context = context(manifest, (frozen.lock.gold_version, q3), at, &profile);
                let embedder: &dyn Embedder = &frozen.embedder;
                asking.board(&frozen.set, &frozen.sections, embedder, &context, &profile)
            }
            (Some(Err(error)), _) => Err(error),
            (None, _) | (_, Err(_)) => Err(ProbeError::Empty { what: "the manifest".to_owned() }),
        };
        match board {
            Ok(board) => Ok(judged(&frozen, &board, &identity, &profile)),
            Err(error) => {
                let why = error.to_string();
                unasked(failed(BOARD, EXPECTED, why.as_str()), why)
            }
        }
    }

    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        super::questions::run(scratch)
    }
}
