//! What the owner of an index declares of it: the contract, and what a manifest says besides that nobody can count.
//!
//! In: JSON that whoever builds the index keeps beside it. Out: the manifest of the index as it was found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::identity::{config_hash, index_hash, snapshot_hash};
use crate::inventory::InventoryReport;
use crate::manifest::{
    Contract, Contracts, FileEntry, IndexManifest, MANIFEST_VERSION, MAX_MANIFEST_BYTES, Reranker,
};

/// The declaration of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// `lifeboat.index-contract/v1`.
    pub schema: String,
    /// The label of one build: `CORPUS-vMAJOR[-COLOUR]`.
    pub index_family: String,
    /// The colour, when there are two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<String>,
    /// By what it is built.
    pub contract: Contract,
    /// The reranker that belongs to it.
    pub rerank_conf: Reranker,
    /// Which state of the texts.
    pub corpus_rev: String,
    /// The shapes.
    pub contracts: Contracts,
    /// When it was built; recorded, never compared.
    #[serde(rename = "BUILD_TS", default)]
    pub build_ts: String,
    /// By which tools; recorded, never compared.
    #[serde(default)]
    pub tool_versions: BTreeMap<String, String>,
}

impl Declared {
    /// The name and version of the record.
    pub const SCHEMA: &'static str = "lifeboat.index-contract/v1";

    /// Reads a declaration; a field that is not known, or missing, is refused.
    pub fn from_json(text: &str) -> Result<Self, ProbeError> {
        let invalid = |why: String| ProbeError::invalid("the contract of the index", why);
        if text.len() > MAX_MANIFEST_BYTES {
            let limit = MAX_MANIFEST_BYTES as u64;
            return Err(ProbeError::TooMany { what: "the contract of the index".to_owned(), limit });
        }
        let declared: Self = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if declared.schema != Self::SCHEMA {
            return Err(invalid(format!("its schema is `{}`, expected `{}`", declared.schema, Self::SCHEMA)));
        }
        Ok(declared)
    }

    /// The manifest of an index in which this was found. `files` are in the order of their paths.
    pub fn manifest(
        &self,
        found: &InventoryReport,
        files: Vec<FileEntry>,
    ) -> Result<IndexManifest, ProbeError> {
        let config_hash = config_hash(&self.contract)?;
        let hashed = files.iter().map(|file| (file.path.as_str(), file.size_bytes, file.sha256));
        let manifest = IndexManifest {
            manifest_version: MANIFEST_VERSION,
            index_family: self.index_family.clone(),
            colour: self.colour.clone(),
            contract: self.contract.clone(),
            config_hash,
            rerank_conf: self.rerank_conf.clone(),
            corpus_rev: self.corpus_rev.clone(),
            counts: found.counts,
            corpus_root: found.corpus_root,
            vector_root: found.vector_root,
            snapshot_hash: snapshot_hash(hashed)?,
            files,
            contracts: self.contracts.clone(),
            index_hash: index_hash(config_hash, found.corpus_root),
            build_ts: self.build_ts.clone(),
            tool_versions: self.tool_versions.clone(),
            source_snapshot_id: None,
            key_id: None,
        };
        manifest.check()?;
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Inventory;

    const TEXT: &str = r#"{"schema":"lifeboat.index-contract/v1","index_family":"docs-v1",
        "contract":{"metric":"cosine","norm":"l2","dim":2,"index_type":"flat","store_params":{},
            "embed_model_id":"m","embed_model_ver":"1","pooling":"none","tokenizer_ver":"1","analyzer_id":"a",
            "analyzer_conf":{},"analyzer_fingerprint":"0000000000000000000000000000000000000000000000000000000000000000",
            "text_preproc":{"unicode_norm":"NFC","lowercase":true,"strip_punct":false,"language":"en"},
            "chunk_schema_ver":"1","chunk_recipe":{"window":80,"overlap":0,"boundary_markers":[],"block_rules":{}}},
        "rerank_conf":{"model":"none","ver":"1","cutoff":0},"corpus_rev":"r1",
        "contracts":{"snippet_schema_ver":"1","citation_schema_ver":"1","schema_files":[]}}"#;

    #[test]
    fn a_declaration_with_a_count_is_a_manifest_that_holds_by_itself() {
        let found = Inventory::default().finish().unwrap();
        let manifest = Declared::from_json(TEXT).unwrap().manifest(&found, Vec::new()).unwrap();
        let text = serde_json::to_string(&manifest).unwrap();
        assert_eq!(IndexManifest::from_json(&text).unwrap(), manifest);
    }

    #[test]
    fn a_declaration_that_says_more_or_less_is_refused() {
        for (from, to) in [
            ("index-contract/v1", "index-contract/v2"),
            ("\"dim\":2,", ""),
            ("\"dim\":2", "\"dim\":2,\"dims\":2"),
            ("\"cosine\"", "\"cosin\""),
            ("\"corpus_rev\":\"r1\",", ""),
        ] {
            let wrong = TEXT.replacen(from, to, 1);
            assert_ne!(wrong, TEXT, "{from}");
            assert!(Declared::from_json(&wrong).is_err(), "{to}");
        }
        let found = Inventory::default().finish().unwrap();
        let nameless = TEXT.replacen("docs-v1", "docs", 1);
        assert!(Declared::from_json(&nameless).unwrap().manifest(&found, Vec::new()).is_err());
    }
}
