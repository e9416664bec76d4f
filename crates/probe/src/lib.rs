//! Semantic probes of vector indexes: whether an index answers as it did, and what to do when it does not.
//!
//! In: what an index retrieved for the questions of a gold set, a pinned embedder, manifests, vectors. Out: boards with a
//! verdict, drift against a baseline, the identity of an index, and the decision after a restore.
//!
//! Invariant: no I/O, no clock, no randomness; the same input gives the same bytes. A number that is NaN or infinite is
//! refused, and what is not known never passes.

#![cfg_attr(
    test,
    expect(clippy::float_cmp, reason = "tests compare with the very numbers of the specification")
)]

mod analyzer;
mod asking;
mod board;
mod canonical;
mod check;
mod citation;
mod coverage;
mod decision;
mod declared;
mod draft;
mod drift;
mod effects;
mod error;
mod frozen;
mod gate;
mod gold;
mod identity;
mod inventory;
mod lambda;
mod lsa;
mod manifest;
mod measure;
mod next_fix;
mod number;
mod profile;
mod row;
mod search;
mod sections;
mod seeds;
mod sheet;
mod span;
mod stress;
mod trend;
mod vectors;

pub use analyzer::{Analyzer, CANARIES, fingerprint};
pub use asking::Asking;
pub use board::{
    Board, BoardVerdict, CoverageSummary, FailedGate, GateName, LambdaSummary, StressSummary, Verdict,
};
pub use canonical::canonical_json;
pub use check::{
    CheckContext, CheckResult, CheckState, MeasuredValue, Scope, board_checks, drift_check, identity_checks,
};
pub use citation::{
    Citation, CitationContext, CitationFault, CitedOffsets, Given, HIT_WINDOW_BYTES, meets, validate,
};
pub use coverage::{Coverage, Piece, Place, Section, bleed, coverage};
pub use decision::{Action, Decision, Identity, Reason, Step, by_identity, decide};
pub use declared::Declared;
pub use draft::{DraftSection, SECTION_WORDS_MIN_COUNT, draft};
pub use drift::{
    COVERAGE_CRITICAL, COVERAGE_WARN, Crossed, DS_MEAN_ALERT, DS_P95_STOP, Drift, DriftLevel, FLIP_ALERT,
    FLIP_STOP, ProbeDrift, drift, parity,
};
pub use effects::{Arm, WriteAccount, arm, burn_threshold, dedupe_key, rule_of_three, success_rate};
pub use error::ProbeError;
pub use frozen::{AskedVector, AskedVectors, Baseline, Frozen, GoldFiles, Queries};
pub use gate::Gate;
pub use gold::{
    ANCHOR_STRESS_MAX, Anchor, Curation, Dropped, GoldLock, GoldProbe, GoldSet, MAX_GOLD_LINE_BYTES,
    MAX_GOLD_LINES_COUNT, SECTION_COVERAGE_MIN, TextType, curate,
};
pub use identity::{CorpusRoot, VectorRoot, config_hash, index_hash, snapshot_hash};
pub use inventory::{Inventory, InventoryReport, Leaf, MAX_RECORD_BYTES, MAX_RECORDS_COUNT, Record, Sorted};
pub use lambda::{BoardLambda, Lambda, ProbeLambda, RunFacts, jaccard};
pub use lsa::{
    Lsa, MAX_CORPUS_BYTES, MAX_RANK_COUNT, MAX_TERMS_COUNT, MAX_TEXTS_COUNT, RANDOM_PAIR_P5_MIN, Terms,
    USUAL_RANK_COUNT,
};
pub use manifest::{
    ChunkRecipe, Contract, Contracts, Counts, Difference, FileEntry, IndexManifest, MANIFEST_VERSION,
    MAX_MANIFEST_BYTES, Metric, Normalisation, Reranker, SchemaFile, TextPreparation, differences,
};
pub use measure::{BoardContext, Embedder, Hit, Measured, Question, Retrieval, measure};
pub use next_fix::{Sweep, Symptom, next_fix, sweep, symptoms};
pub use number::{Sample, finite, rounded, share, slope, spearman};
pub use profile::{PARAPHRASES_COUNT, Profile, RUNS_COUNT, SEEDS_COUNT};
pub use row::{BoardRow, RunHit, RunRow, RunSet};
pub use search::{Entry, MAX_K_COUNT, MAX_QUERIES_COUNT, Searcher};
pub use sections::{GoldPiece, GoldSection, GoldSections};
pub use seeds::{Jitter, Ranked, rank, shuffle};
pub use sheet::{COLUMNS, MAX_ROWS_COUNT, from_csv, from_jsonl, to_csv, to_jsonl};
pub use span::{Span, Union, words};
pub use stress::{Band, Embedded, FLAT_MAX, Flaw, Stress, centre, cosine, norm, residue, unit};
pub use trend::{
    BOARDS_MIN_COUNT, SLOPE_MAX, Trend, VARIANCE_RATIO_MAX, WORSENING_MAX_COUNT, resonance, telemetry, trend,
};
pub use vectors::{MAX_VECTORS_COUNT, VectorCensus, VectorFault, VectorReport};
