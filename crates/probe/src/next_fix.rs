//! What to look at next, from what was seen: the first row of a fixed table that applies.
//!
//! In: symptoms. Out: one fix, the same for the same symptoms. The table is in the order in which causes hide others: an
//! index that cannot be decrypted has no coverage to speak of.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::board::{Board, BoardVerdict, GateName};
use crate::decision::Identity;
use crate::profile::Profile;
use crate::stress::Flaw;

macro_rules! symptoms {
    ($($(#[$doc:meta])* $name:ident => $fix:literal;)*) => {
        /// Something that was seen; declared in the order in which causes hide others.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Symptom {
            $($(#[$doc])* $name,)*
        }

        impl Symptom {
            /// Every symptom, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What to look at.
            pub fn fix(self) -> &'static str {
                match self {
                    $(Self::$name => $fix,)*
                }
            }
        }
    };
}

symptoms! {
    /// Something could not be decrypted, or a credential was refused.
    DecryptOrAuthFailed => "secrets_rotation";
    /// Services wait for each other, or nothing moves.
    CycleOrStall => "deployment-deadlock";
    /// Something was used before it was ready, the index is empty, or every distance is zero.
    UsedBeforeReady => "bootstrap-ordering";
    /// The first call fails, or versions and environment differ.
    EnvironmentDiffers => "predeploy-collapse and the parity sheet";
    /// INDEX_HASH, metric, analyzer, dimension or norm differ.
    IndexDiffers => "embedding-vs-semantic, rebuild";
    /// The reranker differs.
    RerankerDiffers => "pin reranker";
    /// ΔS is flat and high whatever k is.
    FlatAndHigh => "metric and normalisation, rebuild";
    /// Coverage is low and ΔS is not high.
    CoverageLow => "chunking checklist, missing chunks by their counts";
    /// A citation breaks a rule.
    CitationInvalid => "retrieval-traceability, data-contracts";
    /// Offsets moved in a rebuild.
    OffsetsDrift => "reindex_migration";
    /// Effects were applied twice.
    Duplicates => "stateless_kv_queue and egress fences";
    /// Caches gave what was old, or another arm's.
    StaleReads => "edge_cache_invalidation";
    /// Two writers, or two heads of one entity.
    TwoWriters => "multi_region_routing, multi-agent";
    /// Cold starts are many or slow.
    ColdStarts => "cold_start_concurrency";
    /// Streams were cut or dropped.
    StreamsCut => "timeouts_streaming";
    /// Only λ is not met.
    LambdaOnly => "probe and paraphrase review, pin ordering";
    /// Safety answers differ.
    SafetyDiffers => "bluffing, prompt-injection";
}

/// The first fix of the table that applies; `None` when nothing was seen.
pub fn next_fix(symptoms: &BTreeSet<Symptom>) -> Option<&'static str> {
    symptoms.first().map(|symptom| symptom.fix())
}

/// How ΔS behaves over k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sweep {
    /// The same and high whatever k is: the metric, the norm or the index is another one.
    FlatAndHigh,
    /// Much lower with more snippets: a filter is too strict.
    SharpDrop,
    /// Neither.
    Usual,
}

/// Reads a sweep of medians of ΔS over rising k, with a hair's breadth for the rounding of differences; fewer than two say nothing, and so does a number that is none.
pub fn sweep(medians: &[f64]) -> Sweep {
    let (Some(first), true) = (medians.first(), medians.iter().all(|ds| ds.is_finite())) else {
        return Sweep::Usual;
    };
    let low = medians.iter().copied().fold(*first, f64::min);
    let high = medians.iter().copied().fold(*first, f64::max);
    if medians.len() >= 2 && high - low <= 0.02 + 1e-9 && low >= 0.60 {
        Sweep::FlatAndHigh
    } else if medians.iter().any(|ds| first - ds >= 0.10 - 1e-9) {
        Sweep::SharpDrop
    } else {
        Sweep::Usual
    }
}

/// The symptoms that an index and its board show.
pub fn symptoms(
    identity: &Identity,
    board: Option<&Board>,
    sweep: Sweep,
    profile: &Profile,
) -> BTreeSet<Symptom> {
    let mut seen = BTreeSet::new();
    let symptom = |field: &str| match field {
        "rerank_conf" => Symptom::RerankerDiffers,
        "counts" | "corpus_rev" => Symptom::CoverageLow,
        _ => Symptom::IndexDiffers,
    };
    seen.extend(identity.differences.iter().map(|other| symptom(&other.field)));
    seen.extend(identity.vector_faults.iter().map(|fault| symptom(fault.field())));
    if identity.manifest_fault.is_some() {
        seen.insert(Symptom::IndexDiffers);
    }
    if sweep == Sweep::FlatAndHigh {
        seen.insert(Symptom::FlatAndHigh);
    }
    let Some(board) = board else { return seen };
    let rows = || board.rows.iter();
    if rows().any(|row| matches!(row.reason, Some(Flaw::FlatZero)))
        || (!board.rows.is_empty() && rows().all(|row| row.reason == Some(Flaw::EmptyRetrieval)))
    {
        seen.insert(Symptom::UsedBeforeReady);
    }
    if rows().any(|row| row.reason == Some(Flaw::InvalidCitation)) {
        seen.insert(Symptom::CitationInvalid);
    }
    let failed = |name| board.verdict.failed_gates.iter().any(|gate| gate.name == name);
    let is_thin = failed(GateName::Coverage) || failed(GateName::CoveragePassRate);
    if is_thin && board.verdict.ds.median < profile.ds_rebuild_min {
        seen.insert(Symptom::CoverageLow);
    }
    if board.verdict.ds.median >= profile.ds_rebuild_min || failed(GateName::SimilarButWrong) {
        seen.insert(Symptom::FlatAndHigh);
    }
    if seen.is_empty() && board.verdict.verdict != BoardVerdict::Pass && failed(GateName::Lambda) {
        seen.insert(Symptom::LambdaOnly);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_that_applies_wins() {
        assert_eq!(Symptom::ALL.len(), 17);
        assert_eq!(next_fix(&BTreeSet::new()), None);
        for (at, symptom) in Symptom::ALL.iter().enumerate() {
            let later: BTreeSet<Symptom> = Symptom::ALL[at..].iter().rev().copied().collect();
            assert_eq!(next_fix(&later), Some(symptom.fix()));
        }
    }

    #[test]
    fn a_sweep_over_k_is_flat_drops_or_says_nothing() {
        assert_eq!(sweep(&[0.66, 0.65, 0.65]), Sweep::FlatAndHigh);
        assert_eq!(sweep(&[0.66, 0.65, 0.60]), Sweep::Usual);
        assert_eq!(sweep(&[0.50, 0.45, 0.40]), Sweep::SharpDrop);
        assert_eq!(sweep(&[0.40, 0.40, 0.40]), Sweep::Usual);
        assert_eq!(sweep(&[0.66]), Sweep::Usual);
        assert_eq!(sweep(&[0.66, f64::NAN]), Sweep::Usual);
        assert_eq!(sweep(&[]), Sweep::Usual);
    }
}
