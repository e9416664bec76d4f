//! The manifest of an index: the contract by which it was built, and what was in it.
//!
//! In: JSON that stands beside a snapshot. Out: a record that is consistent in itself, and its difference to another one,
//! field by field. A manifest that this version does not know in full is refused, for a field it skips could be the one
//! that matters.

use std::collections::BTreeMap;

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ProbeError;
use crate::identity::{config_hash, index_hash, snapshot_hash};

/// The version of the manifest that this crate writes and reads.
pub const MANIFEST_VERSION: u32 = 1;

/// How an index measures nearness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// By the angle.
    Cosine,
    /// By the inner product.
    #[serde(rename = "ip")]
    InnerProduct,
    /// By the Euclidean distance.
    L2,
}

impl Metric {
    /// The word in a manifest and in a board.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::InnerProduct => "ip",
            Self::L2 => "l2",
        }
    }
}

/// Whether vectors are brought to length 1 before they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalisation {
    /// They are.
    L2,
    /// They are stored as they come.
    None,
}

/// What is done to a text before it is taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextPreparation {
    /// Such as `NFC` or `NFKC`.
    pub unicode_norm: String,
    /// Letters become small.
    pub lowercase: bool,
    /// Punctuation goes.
    pub strip_punct: bool,
    /// The language, or `und`.
    pub language: String,
}

/// How documents are cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkRecipe {
    /// Words per snippet, at most.
    pub window: u64,
    /// Words that neighbours share.
    pub overlap: u64,
    /// Where a cut is made whatever the length.
    pub boundary_markers: Vec<String>,
    /// How tables, code and formulas are treated.
    pub block_rules: BTreeMap<String, String>,
}

/// By what an index is built. Two indexes of the same texts by the same contract are one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// How it measures.
    pub metric: Metric,
    /// Whether vectors have length 1.
    pub norm: Normalisation,
    /// Components per vector.
    pub dim: u64,
    /// Such as `flat` or `hnsw`.
    pub index_type: String,
    /// Its parameters.
    pub store_params: BTreeMap<String, Value>,
    /// The model that made the vectors.
    pub embed_model_id: String,
    /// Its version.
    pub embed_model_ver: String,
    /// How it makes one vector of many.
    pub pooling: String,
    /// The version of its tokenizer.
    pub tokenizer_ver: String,
    /// The name of the analyzer; a label, nothing more.
    pub analyzer_id: String,
    /// Its settings.
    pub analyzer_conf: BTreeMap<String, Value>,
    /// What it does to the canary list.
    pub analyzer_fingerprint: Digest,
    /// What happens to a text first.
    pub text_preproc: TextPreparation,
    /// The version of the shape of a snippet.
    pub chunk_schema_ver: String,
    /// How documents are cut.
    pub chunk_recipe: ChunkRecipe,
}

/// The reranker: compared, but no part of the index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reranker {
    /// The model, or `none`.
    pub model: String,
    /// Its version.
    pub ver: String,
    /// How many candidates it sees.
    pub cutoff: u64,
}

/// How much is in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Documents.
    pub docs: u64,
    /// Snippets.
    pub chunks: u64,
    /// Vectors.
    pub vectors: u64,
}

/// One exported file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its path in the snapshot.
    pub path: String,
    /// Its length.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// Its content.
    pub sha256: Digest,
}

/// A file with a schema that travels with the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaFile {
    /// Its path in the snapshot.
    pub path: String,
    /// Its content.
    pub sha256: Digest,
}

/// The shapes that snippets and citations have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contracts {
    /// The version of the snippet's shape.
    pub snippet_schema_ver: String,
    /// The version of the citation's shape.
    pub citation_schema_ver: String,
    /// The schemas themselves.
    pub schema_files: Vec<SchemaFile>,
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexManifest {
    /// The version of this record.
    pub manifest_version: u32,
    /// The label of one build: `CORPUS-vMAJOR[-COLOUR]`.
    pub index_family: String,
    /// The colour, when there are two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<String>,
    /// By what it is built.
    pub contract: Contract,
    /// Of the contract.
    pub config_hash: Digest,
    /// The reranker that belongs to it.
    pub rerank_conf: Reranker,
    /// Which state of the texts.
    pub corpus_rev: String,
    /// How much is in it.
    pub counts: Counts,
    /// Of the texts.
    pub corpus_root: Digest,
    /// Of the vectors.
    pub vector_root: Digest,
    /// Of the files.
    pub snapshot_hash: Digest,
    /// The files.
    pub files: Vec<FileEntry>,
    /// The shapes.
    pub contracts: Contracts,
    /// Of contract and texts.
    #[serde(rename = "INDEX_HASH")]
    pub index_hash: Digest,
    /// When it was built; recorded, never compared.
    #[serde(rename = "BUILD_TS")]
    pub build_ts: String,
    /// By which tools; recorded, never compared.
    pub tool_versions: BTreeMap<String, String>,
    /// From which snapshot it was made, if from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_snapshot_id: Option<String>,
    /// Which key sealed it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// The most bytes of a manifest.
pub const MAX_MANIFEST_BYTES: usize = 64 << 20;

impl IndexManifest {
    /// Reads a manifest and holds it against itself.
    pub fn from_json(text: &str) -> Result<Self, ProbeError> {
        let invalid = |why: String| ProbeError::invalid("the index manifest", why);
        if text.len() > MAX_MANIFEST_BYTES {
            let limit = MAX_MANIFEST_BYTES as u64;
            return Err(ProbeError::TooMany { what: "the index manifest".to_owned(), limit });
        }
        let manifest: Self = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether the hashes in it follow from what it says.
    pub fn check(&self) -> Result<(), ProbeError> {
        let invalid = |why: String| Err(ProbeError::invalid("the index manifest", why));
        if self.manifest_version != MANIFEST_VERSION {
            let (found, known) = (self.manifest_version, MANIFEST_VERSION);
            return invalid(format!("its version is {found}, this program knows {known}"));
        }
        if !is_family(&self.index_family, self.colour.as_deref()) {
            return invalid(format!("`{}` is not `CORPUS-vMAJOR[-COLOUR]`", self.index_family));
        }
        if config_hash(&self.contract)? != self.config_hash {
            return invalid("`config_hash` is not of its contract".to_owned());
        }
        if index_hash(self.config_hash, self.corpus_root) != self.index_hash {
            return invalid("`INDEX_HASH` is not of its contract and corpus".to_owned());
        }
        let files = self.files.iter().map(|file| (file.path.as_str(), file.size_bytes, file.sha256));
        if snapshot_hash(files)? != self.snapshot_hash {
            return invalid("`snapshot_hash` is not of its files".to_owned());
        }
        Ok(())
    }
}

fn is_family(text: &str, colour: Option<&str>) -> bool {
    let rest = match colour {
        Some(colour) => text.strip_suffix(colour).and_then(|rest| rest.strip_suffix('-')),
        None => Some(text),
    };
    let Some((corpus, major)) = rest.and_then(|rest| rest.rsplit_once("-v")) else { return false };
    !corpus.is_empty() && !major.is_empty() && major.bytes().all(|byte| byte.is_ascii_digit())
}

/// A field in which two manifests differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// What the manifest of the snapshot says.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Difference {
    /// A difference by its texts.
    pub fn new(field: &str, expected: impl ToString, found: impl ToString) -> Self {
        Self { field: field.to_owned(), expected: expected.to_string(), found: found.to_string() }
    }
}

/// Every field in which `found` is not as `expected`. When it was built, by which tools, with which key and from what is
/// not compared.
pub fn differences(expected: &IndexManifest, found: &IndexManifest) -> Result<Vec<Difference>, ProbeError> {
    const NOT_COMPARED: &[&str] = &["BUILD_TS", "tool_versions", "key_id", "source_snapshot_id"];
    let fields = |manifest: &IndexManifest| -> Result<BTreeMap<String, Value>, ProbeError> {
        let value = serde_json::to_value(manifest)
            .map_err(|error| ProbeError::invalid("the index manifest", error.to_string()))?;
        let mut flat = BTreeMap::new();
        for (key, value) in value.as_object().into_iter().flatten() {
            match (key.as_str(), value) {
                (key, _) if NOT_COMPARED.contains(&key) => {}
                ("contract", Value::Object(fields)) => {
                    flat.extend(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
                (key, value) => {
                    flat.insert(key.to_owned(), value.clone());
                }
            }
        }
        Ok(flat)
    };
    let (mut expected, mut found) = (fields(expected)?, fields(found)?);
    let mut list = Vec::new();
    let keys: std::collections::BTreeSet<String> = expected.keys().chain(found.keys()).cloned().collect();
    for key in keys {
        let sides = (expected.remove(&key).unwrap_or(Value::Null), found.remove(&key).unwrap_or(Value::Null));
        if sides.0 != sides.1 {
            list.push(Difference::new(&key, shown(&sides.0), shown(&sides.1)));
        }
    }
    Ok(list)
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}
