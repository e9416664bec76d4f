//! After a restore: what differs from the manifest, and what to do before the index may serve.
//!
//! In: differences, faults of vectors, a comparison of scores, a board. Out: one action with every reason, and the steps in
//! their order. Identity speaks first, the board second; nothing that is unknown serves.

use serde::{Deserialize, Serialize};

use crate::board::{Board, BoardVerdict, GateName};
use crate::manifest::{Counts, Difference};
use crate::number::number;
use crate::profile::Profile;
use crate::vectors::VectorFault;

/// What to do with a restored index, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It may serve.
    Serve,
    /// A person looks before it serves.
    Review,
    /// Set the reranker to the manifest's; no rebuild.
    PinReranker,
    /// Compare the order of scores on a fixed list of queries; rebuild when it differs.
    CompareScores,
    /// Add what is missing.
    Backfill,
    /// Build it again from its texts.
    Rebuild,
    /// Build it again and map old ids to new ones.
    RebuildWithMigration,
    /// Build it again with new vectors.
    RebuildWithEmbedding,
    /// Take the snapshot before this one; without one, build it again from its texts.
    Refuse,
}

impl Action {
    /// Whether the index may answer before the action is done.
    pub fn serves(self) -> bool {
        self == Self::Serve
    }

    /// The word of a report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Review => "review",
            Self::PinReranker => "pin_reranker",
            Self::CompareScores => "compare_scores",
            Self::Backfill => "backfill",
            Self::Rebuild => "rebuild",
            Self::RebuildWithMigration => "rebuild_with_migration",
            Self::RebuildWithEmbedding => "rebuild_with_embedding",
            Self::Refuse => "refuse",
        }
    }
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Set the reranker to the manifest's.
    PinReranker,
    /// Drop what it had cached.
    PurgeRerankCache,
    /// Compare the order of scores.
    CompareScores,
    /// Take the snapshot before this one, else rebuild.
    UsePreviousSnapshot,
    /// Cut the documents again.
    Rechunk,
    /// Make the tokens again.
    Retokenise,
    /// Make the vectors again.
    Reembed,
    /// Build the index from its texts.
    Rebuild,
    /// Write the table of old and new ids.
    Migrate,
    /// Add what is missing.
    Backfill,
    /// Compute INDEX_HASH and the roots again.
    Rehash,
    /// Try other k, and hold snippets against decoys.
    SweepAndMargin,
    /// Measure the board again.
    Reprobe,
}

/// Why an action is due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The field, or the gate.
    pub field: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What it asks for.
    pub action: Action,
}

/// What to do, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The gravest action that any reason asks for.
    pub action: Action,
    /// Every reason, the gravest first.
    pub reasons: Vec<Reason>,
    /// The steps in their order.
    pub steps: Vec<Step>,
}

impl Decision {
    fn of(mut reasons: Vec<Reason>) -> Self {
        reasons.sort_by(|a, b| b.action.cmp(&a.action).then_with(|| a.field.cmp(&b.field)));
        let action = reasons.first().map_or(Action::Serve, |reason| reason.action);
        Self { action, steps: steps(action, &reasons), reasons }
    }
}

/// What is known of an index before it is asked anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// The manifest could not be read, and why.
    pub manifest_fault: Option<String>,
    /// Fields that differ between the snapshot's manifest and what was found.
    pub differences: Vec<Difference>,
    /// What the manifest counts, and what is there.
    pub counts: Option<(Counts, Counts)>,
    /// What is wrong with the vectors.
    pub vector_faults: Vec<VectorFault>,
    /// The rank correlation of scores between the two index types, when it was measured.
    pub score_correlation: Option<f64>,
}

/// The fields that `config_hash` is of.
const CONTRACT: &[&str] = &[
    "metric",
    "norm",
    "dim",
    "index_type",
    "store_params",
    "embed_model_id",
    "embed_model_ver",
    "pooling",
    "tokenizer_ver",
    "analyzer_id",
    "analyzer_conf",
    "analyzer_fingerprint",
    "text_preproc",
    "chunk_schema_ver",
    "chunk_recipe",
];

/// What identity alone says. `Serve` means: go on to the board.
pub fn by_identity(identity: &Identity, profile: &Profile) -> Decision {
    let mut reasons = Vec::new();
    if let Some(why) = &identity.manifest_fault {
        reasons.push(reason("manifest", "readable", why, Action::Refuse));
    }
    let missing = identity.counts.and_then(|(expected, found)| count_reason(expected, found, profile));
    let changed = |field: &str| identity.differences.iter().any(|other| other.field == field);
    let is_partial = identity.counts.is_some_and(|(expected, found)| expected != found);
    let is_newer = changed("corpus_rev");
    for difference in &identity.differences {
        let action = match difference.field.as_str() {
            // Said by the counts themselves, with their tolerance.
            "counts" if identity.counts.is_some() => continue,
            // Follow from what is compared apart.
            "INDEX_HASH" if changed("corpus_root") || CONTRACT.iter().any(|field| changed(field)) => continue,
            "config_hash" if CONTRACT.iter().any(|field| changed(field)) => continue,
            "corpus_root" | "vector_root" if is_partial || is_newer => Action::Backfill,
            field => action_of(field, identity.score_correlation, profile),
        };
        if action > Action::Serve {
            reasons.push(reason(&difference.field, &difference.expected, &difference.found, action));
        }
    }
    reasons.extend(missing);
    reasons.extend(
        identity.vector_faults.iter().map(|fault| vector_reason(fault, &reasons)).collect::<Vec<_>>(),
    );
    Decision::of(reasons)
}

fn reason(field: &str, expected: impl ToString, found: impl ToString, action: Action) -> Reason {
    Reason { field: field.to_owned(), expected: expected.to_string(), found: found.to_string(), action }
}

/// The row of the table for a field. A field that the table does not know refuses.
fn action_of(field: &str, score_correlation: Option<f64>, profile: &Profile) -> Action {
    match field {
        "metric"
        | "norm"
        | "dim"
        | "embed_model_id"
        | "embed_model_ver"
        | "pooling"
        | "analyzer_id"
        | "analyzer_conf"
        | "analyzer_fingerprint"
        | "tokenizer_ver"
        | "text_preproc" => Action::RebuildWithEmbedding,
        "chunk_schema_ver" | "chunk_recipe" => Action::RebuildWithMigration,
        "rerank_conf" => Action::PinReranker,
        "index_type" | "store_params" => match score_correlation {
            Some(found) if found >= profile.spearman_min => Action::Serve,
            Some(_) => Action::Rebuild,
            None => Action::CompareScores,
        },
        "corpus_rev" | "counts" => Action::Backfill,
        "corpus_root" => Action::Rebuild,
        _ => Action::Refuse,
    }
}

fn count_reason(expected: Counts, found: Counts, profile: &Profile) -> Option<Reason> {
    let pairs =
        [(expected.docs, found.docs), (expected.chunks, found.chunks), (expected.vectors, found.vectors)];
    let too_far = |(expected, found): &(u64, u64)| {
        number(expected.abs_diff(*found)) > number(*expected) * profile.count_tolerance
    };
    let shown = |counts: Counts| {
        format!("{} docs, {} chunks, {} vectors", counts.docs, counts.chunks, counts.vectors)
    };
    pairs.iter().any(too_far).then(|| reason("counts", shown(expected), shown(found), Action::Backfill))
}

fn vector_reason(fault: &VectorFault, others: &[Reason]) -> Reason {
    let field = fault.field();
    let is_partial = others.iter().any(|other| other.field == "counts");
    match fault {
        VectorFault::None => reason(field, "vectors", "none", Action::Refuse),
        VectorFault::Count { vectors, chunks } => {
            let action = if is_partial { Action::Backfill } else { Action::Rebuild };
            reason(field, format!("{chunks} vectors, one per chunk"), vectors, action)
        }
        VectorFault::Dimension { count, expected } => {
            let found = format!("{count} vectors of another length");
            reason(field, expected, found, Action::RebuildWithEmbedding)
        }
        VectorFault::NotFinite { count } => {
            reason(field, "numbers", format!("{count} vectors with a component that is none"), Action::Refuse)
        }
        VectorFault::Zero { count } => reason(
            field,
            "vectors with a direction",
            format!("{count} without"),
            Action::RebuildWithEmbedding,
        ),
        VectorFault::Norm { mean, deviation } => {
            let found = format!("mean {mean:.4}, deviation {deviation:.4}");
            reason(field, "norms of 1", found, Action::RebuildWithEmbedding)
        }
        VectorFault::Duplicates { share } => {
            reason(field, "few vectors twice", format!("share {share:.4}"), Action::Rebuild)
        }
    }
}

/// What identity and board say together. With a difference the table decides and the board is measured again afterwards;
/// without one the board decides. No board is not a good board.
pub fn decide(identity: &Identity, board: Option<&Board>, profile: &Profile) -> Decision {
    let first = by_identity(identity, profile);
    if first.action != Action::Serve {
        return first;
    }
    let Some(board) = board else {
        return Decision::of(vec![reason("board", "measured", "not measured", Action::Review)]);
    };
    let mut reasons = Vec::new();
    for gate in &board.verdict.failed_gates {
        let (expected, found) = (gate.threshold.as_str(), gate.measured.as_str());
        let action = match gate.name {
            GateName::Stress if board.verdict.ds.median >= profile.ds_rebuild_min => Action::Rebuild,
            GateName::Coverage | GateName::CoveragePassRate | GateName::SimilarButWrong => Action::Rebuild,
            GateName::Stress | GateName::Lambda | GateName::Citations | GateName::Valid => Action::Review,
        };
        reasons.push(reason(gate.name.word(), expected, found, action));
    }
    if reasons.is_empty() && board.verdict.verdict != BoardVerdict::Pass {
        reasons.push(reason("board", "pass", board.verdict.verdict.word(), Action::Review));
    }
    Decision::of(reasons)
}

fn steps(action: Action, reasons: &[Reason]) -> Vec<Step> {
    let asks = |asked: Action| reasons.iter().any(|reason| reason.action == asked);
    let mut steps = Vec::new();
    if asks(Action::PinReranker) && action < Action::Refuse {
        steps.extend([Step::PinReranker, Step::PurgeRerankCache]);
    }
    match action {
        Action::Serve => return Vec::new(),
        Action::Review => steps.push(Step::SweepAndMargin),
        Action::PinReranker => {}
        Action::CompareScores => steps.push(Step::CompareScores),
        Action::Backfill => {
            // The reranker's effect is looked at before anything else changes.
            if asks(Action::PinReranker) {
                steps.push(Step::Reprobe);
            }
            if asks(Action::CompareScores) {
                steps.push(Step::CompareScores);
            }
            steps.extend([Step::Backfill, Step::Rehash]);
        }
        Action::Rebuild => steps.extend([Step::Rebuild, Step::Rehash]),
        Action::RebuildWithMigration => {
            steps.extend([Step::Rechunk, Step::Rebuild, Step::Migrate, Step::Rehash]);
        }
        Action::RebuildWithEmbedding => {
            let recut = asks(Action::RebuildWithMigration);
            steps.extend(recut.then_some(Step::Rechunk));
            steps.extend([Step::Retokenise, Step::Reembed, Step::Rebuild]);
            steps.extend(recut.then_some(Step::Migrate));
            steps.push(Step::Rehash);
        }
        Action::Refuse => steps.push(Step::UsePreviousSnapshot),
    }
    steps.push(Step::Reprobe);
    steps
}
