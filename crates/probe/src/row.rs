//! One row of a board and one line of its detail, in the shape of the documents.
//!
//! In: what was measured. Out: records whose numbers have four decimals when they are written; what gates compare is never
//! rounded.

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize, Serializer};

use crate::lambda::Lambda;
use crate::number::rounded;
use crate::profile::Profile;
use crate::seeds::Jitter;
use crate::stress::Flaw;

/// When a board was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunSet {
    /// On the index as it was.
    Before,
    /// While it was broken.
    During,
    /// On the restored index.
    After,
}

impl RunSet {
    /// The word in a board.
    pub fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(crate) fn short<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*value))
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
pub(crate) fn short_option<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => short(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// One probe on a board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardRow {
    /// The probe, such as `p-037`.
    pub probe_id: String,
    /// Its question.
    pub question: String,
    /// The section that answers it.
    pub expected_section: String,
    /// The median over its runs of ΔS between question and rank-1 snippet.
    #[serde(rename = "ΔS_q_r", alias = "ds_q_r", serialize_with = "short")]
    pub ds_q_r: f64,
    /// The median over its runs of coverage.
    #[serde(serialize_with = "short")]
    pub coverage: f64,
    /// Its state.
    #[serde(rename = "λ_state", alias = "lambda_state")]
    pub lambda_state: Lambda,
    /// What its rank-1 snippets cite: `doc:DOC#SECTION`.
    pub citations: Vec<String>,
    /// The label of the build.
    pub index_family: String,
    /// How the index measures.
    pub retriever_metric: String,
    /// The name of its analyzer.
    pub analyzer: String,
    /// When.
    pub run_set: RunSet,
    /// The moment, RFC 3339 in UTC.
    pub ts: String,
    /// The index.
    #[serde(rename = "INDEX_HASH")]
    pub index_hash: Digest,
    /// The reranker.
    pub rerank_conf: String,
    /// The pinned embedder.
    pub embedder_id: String,
    /// Its parameters, by their hash.
    pub embedder_hash: Digest,
    /// The gold set.
    pub gold_version: Digest,
    /// How many snippets were retrieved.
    pub k: u64,
    /// The share of its runs that converge.
    #[serde(serialize_with = "short")]
    pub conv: f64,
    /// How many paraphrases flip.
    pub flip_count: u64,
    /// The median over its runs of ΔS between rank-1 snippet and anchor.
    #[serde(rename = "ΔS_r_anchor", alias = "ds_r_anchor", serialize_with = "short")]
    pub ds_r_anchor: f64,
    /// The larger of the two.
    #[serde(rename = "ΔS_max", alias = "ds_max", serialize_with = "short")]
    pub ds_max: f64,
    /// The worst run's ΔS.
    #[serde(rename = "ΔS_q_r_worst", alias = "ds_q_r_worst", serialize_with = "short")]
    pub ds_q_r_worst: f64,
    /// The worst run's coverage.
    #[serde(serialize_with = "short")]
    pub coverage_worst: f64,
    /// Why a run of it says nothing, if one does.
    pub reason: Option<Flaw>,
}

impl BoardRow {
    /// Whether enough of its runs converge. One that is called split may; one that is chaotic never does.
    pub fn converges(&self, profile: &Profile) -> bool {
        self.conv >= profile.lambda_conv_rate_min && self.lambda_state != Lambda::Chaotic
    }
}

/// A retrieved snippet in the detail of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunHit {
    /// Its id.
    pub snippet_id: String,
    /// Its section.
    pub section_id: String,
    /// The store's own score.
    #[serde(serialize_with = "short")]
    pub score: f64,
    /// Its place as the index gave it, from 1.
    pub k_pos: u64,
    /// Its place after the reranker, from 1.
    pub k_final: u64,
}

/// One run of a probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRow {
    /// The probe.
    pub probe_id: String,
    /// Which paraphrase, from 1.
    pub paraphrase: u64,
    /// The seed it was asked with.
    #[serde(rename = "seed")]
    pub variation: u64,
    /// How many snippets were asked for.
    pub k: u64,
    /// How the question was typed differently.
    pub jitter: Option<Jitter>,
    /// What was found, in its final order.
    pub topk: Vec<RunHit>,
    /// ΔS between question and rank-1 snippet.
    #[serde(rename = "ΔS_q_r", alias = "ds_q_r", serialize_with = "short")]
    pub ds_q_r: f64,
    /// ΔS between question and the centre of what was found.
    #[serde(rename = "ΔS_q_ctx", alias = "ds_q_ctx", serialize_with = "short_option")]
    pub ds_q_ctx: Option<f64>,
    /// ΔS between rank-1 snippet and anchor.
    #[serde(rename = "ΔS_r_anchor", alias = "ds_r_anchor", serialize_with = "short")]
    pub ds_r_anchor: f64,
    /// ΔS between rank-1 snippet and decoy.
    #[serde(rename = "ΔS_r_decoy", alias = "ds_r_decoy", serialize_with = "short_option")]
    pub ds_r_decoy: Option<f64>,
    /// Its coverage.
    #[serde(serialize_with = "short")]
    pub coverage: f64,
    /// Its state.
    #[serde(rename = "λ", alias = "lambda")]
    pub lambda: Lambda,
    /// How long the index took; none when nobody looked.
    pub latency_ms: Option<u64>,
    /// Why it says nothing, if it does not.
    pub reason: Option<Flaw>,
    /// The error it ended in.
    pub err: Option<String>,
}
