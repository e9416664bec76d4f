//! The manifest and the table: every field has its action, and nothing that is unknown serves.

use std::collections::BTreeMap;

use lifeboat_base::digest::Digest;
use lifeboat_probe::{
    Action, ChunkRecipe, Contract, Contracts, Counts, Difference, FileEntry, Identity, IndexManifest, Metric,
    Normalisation, Profile, Reranker, SchemaFile, Step, TextPreparation, VectorFault, by_identity,
    config_hash, decide, differences, index_hash, next_fix, snapshot_hash, symptoms,
};
use serde_json::json;

use super::samples::sound;

fn contract() -> Contract {
    Contract {
        metric: Metric::Cosine,
        norm: Normalisation::L2,
        dim: 384,
        index_type: "flat".to_owned(),
        store_params: BTreeMap::new(),
        embed_model_id: "minilm".to_owned(),
        embed_model_ver: "2".to_owned(),
        pooling: "mean".to_owned(),
        tokenizer_ver: "1".to_owned(),
        analyzer_id: "plain".to_owned(),
        analyzer_conf: BTreeMap::new(),
        analyzer_fingerprint: Digest::of(b"plain"),
        text_preproc: TextPreparation {
            unicode_norm: "NFC".to_owned(),
            lowercase: true,
            strip_punct: false,
            language: "en".to_owned(),
        },
        chunk_schema_ver: "1".to_owned(),
        chunk_recipe: ChunkRecipe {
            window: 120,
            overlap: 12,
            boundary_markers: vec!["heading".to_owned()],
            block_rules: BTreeMap::new(),
        },
    }
}

/// Hashes made to fit what the manifest says.
fn sealed(mut manifest: IndexManifest) -> IndexManifest {
    manifest.config_hash = config_hash(&manifest.contract).unwrap();
    manifest.index_hash = index_hash(manifest.config_hash, manifest.corpus_root);
    let files = manifest.files.iter().map(|file| (file.path.as_str(), file.size_bytes, file.sha256));
    manifest.snapshot_hash = snapshot_hash(files).unwrap();
    manifest
}

fn manifest() -> IndexManifest {
    let none = Digest::of(b"");
    sealed(IndexManifest {
        manifest_version: 1,
        index_family: "docs-v3-green".to_owned(),
        colour: Some("green".to_owned()),
        contract: contract(),
        config_hash: none,
        rerank_conf: Reranker { model: "none".to_owned(), ver: "0".to_owned(), cutoff: 0 },
        corpus_rev: "r1".to_owned(),
        counts: Counts { docs: 10, chunks: 2_000, vectors: 2_000 },
        corpus_root: Digest::of(b"corpus"),
        vector_root: Digest::of(b"vectors"),
        snapshot_hash: none,
        files: vec![FileEntry { path: "a.jsonl".to_owned(), size_bytes: 3, sha256: Digest::of(b"abc") }],
        contracts: Contracts {
            snippet_schema_ver: "1.0.0".to_owned(),
            citation_schema_ver: "1.0.0".to_owned(),
            schema_files: vec![SchemaFile { path: "s.json".to_owned(), sha256: none }],
        },
        index_hash: none,
        build_ts: "2026-11-22T02:00:00Z".to_owned(),
        tool_versions: BTreeMap::new(),
        source_snapshot_id: None,
        key_id: None,
    })
}

fn identity(change: impl Fn(&mut IndexManifest)) -> Identity {
    let expected = manifest();
    let mut found = manifest();
    change(&mut found);
    let found = sealed(found);
    let differences = differences(&expected, &found).unwrap();
    Identity { differences, counts: Some((expected.counts, found.counts)), ..Identity::default() }
}

fn action(change: impl Fn(&mut IndexManifest)) -> (Action, Vec<String>) {
    let decision = by_identity(&identity(change), &Profile::default());
    (decision.action, decision.reasons.into_iter().map(|reason| reason.field).collect())
}

#[test]
fn a_manifest_is_read_back_and_held_against_itself() {
    let text = serde_json::to_string(&manifest()).unwrap();
    assert_eq!(IndexManifest::from_json(&text).unwrap(), manifest());
    let value = serde_json::to_value(manifest()).unwrap();
    let changes = [
        ("manifest_version", json!(2)),
        ("index_family", json!("docs")),
        ("colour", json!("blue")),
        ("corpus_root", json!(Digest::of(b"other").to_string())),
        ("INDEX_HASH", json!(Digest::of(b"other").to_string())),
        ("config_hash", json!(Digest::of(b"other").to_string())),
        ("snapshot_hash", json!(Digest::of(b"other").to_string())),
        ("files", json!([])),
        ("something_new", json!(1)),
    ];
    for (field, other) in changes {
        let mut changed = value.clone();
        changed[field] = other;
        assert!(IndexManifest::from_json(&changed.to_string()).is_err(), "{field}");
    }
    let mut other_metric = value;
    other_metric["contract"]["metric"] = json!("l2");
    assert!(IndexManifest::from_json(&other_metric.to_string()).is_err());
    assert!(IndexManifest::from_json("{}").is_err());
}

#[test]
fn when_and_by_what_it_was_built_is_not_compared() {
    let same = identity(|manifest| {
        manifest.build_ts = "2026-11-23T02:00:00Z".to_owned();
        manifest.tool_versions.insert("lifeboat".to_owned(), "9".to_owned());
        manifest.key_id = Some("k".to_owned());
        manifest.source_snapshot_id = Some("s".to_owned());
    });
    assert_eq!(same.differences, []);
    assert_eq!(by_identity(&same, &Profile::default()).action, Action::Serve);
}

#[test]
fn every_row_of_the_table_has_its_action() {
    type Row = (&'static str, Action, fn(&mut IndexManifest));
    let rows: [Row; 22] = [
        ("metric", Action::RebuildWithEmbedding, |m| m.contract.metric = Metric::InnerProduct),
        ("norm", Action::RebuildWithEmbedding, |m| m.contract.norm = Normalisation::None),
        ("dim", Action::RebuildWithEmbedding, |m| m.contract.dim = 128),
        ("embed_model_id", Action::RebuildWithEmbedding, |m| m.contract.embed_model_id = "x".to_owned()),
        ("embed_model_ver", Action::RebuildWithEmbedding, |m| m.contract.embed_model_ver = "x".to_owned()),
        ("pooling", Action::RebuildWithEmbedding, |m| m.contract.pooling = "cls".to_owned()),
        ("analyzer_id", Action::RebuildWithEmbedding, |m| m.contract.analyzer_id = "x".to_owned()),
        ("analyzer_conf", Action::RebuildWithEmbedding, |m| {
            m.contract.analyzer_conf.insert("stem".to_owned(), json!(true));
        }),
        ("analyzer_fingerprint", Action::RebuildWithEmbedding, |m| {
            m.contract.analyzer_fingerprint = Digest::of(b"x");
        }),
        ("tokenizer_ver", Action::RebuildWithEmbedding, |m| m.contract.tokenizer_ver = "x".to_owned()),
        ("text_preproc", Action::RebuildWithEmbedding, |m| m.contract.text_preproc.lowercase = false),
        ("chunk_schema_ver", Action::RebuildWithMigration, |m| m.contract.chunk_schema_ver = "2".to_owned()),
        ("chunk_recipe", Action::RebuildWithMigration, |m| m.contract.chunk_recipe.window = 60),
        ("rerank_conf", Action::PinReranker, |m| m.rerank_conf.model = "x".to_owned()),
        ("index_type", Action::CompareScores, |m| m.contract.index_type = "hnsw".to_owned()),
        ("store_params", Action::CompareScores, |m| {
            m.contract.store_params.insert("m".to_owned(), json!(16));
        }),
        ("corpus_rev", Action::Backfill, |m| m.corpus_rev = "r2".to_owned()),
        ("counts", Action::Backfill, |m| m.counts.chunks = 1_900),
        ("corpus_root", Action::Rebuild, |m| m.corpus_root = Digest::of(b"x")),
        ("vector_root", Action::Refuse, |m| m.vector_root = Digest::of(b"x")),
        ("index_family", Action::Refuse, |m| m.index_family = "docs-v4-green".to_owned()),
        ("contracts", Action::Refuse, |m| m.contracts.citation_schema_ver = "2.0.0".to_owned()),
    ];
    for (field, expected, change) in rows {
        let (found, fields) = action(change);
        assert_eq!((found, fields.first().map(String::as_str)), (expected, Some(field)), "{fields:?}");
        let board = sound();
        assert_eq!(decide(&identity(change), Some(&board), &Profile::default()).action, expected, "{field}");
    }
}

#[test]
fn a_hash_that_differs_alone_refuses() {
    let of = |fields: &[&str]| {
        let differences = fields.iter().map(|field| Difference::new(field, "a", "b")).collect();
        by_identity(&Identity { differences, ..Identity::default() }, &Profile::default()).action
    };
    assert_eq!(of(&["INDEX_HASH"]), Action::Refuse);
    assert_eq!(of(&["INDEX_HASH", "config_hash"]), Action::Refuse);
    assert_eq!(of(&["INDEX_HASH", "rerank_conf"]), Action::Refuse);
    assert_eq!(of(&["a_field_nobody_knows"]), Action::Refuse);
    assert_eq!(of(&["INDEX_HASH", "config_hash", "index_type"]), Action::CompareScores);
}

#[test]
fn files_that_differ_refuse() {
    let (found, fields) = action(|m| m.files[0].sha256 = Digest::of(b"other"));
    assert_eq!(found, Action::Refuse);
    assert!(
        fields.contains(&"files".to_owned()) && fields.contains(&"snapshot_hash".to_owned()),
        "{fields:?}"
    );
    let unread = Identity { manifest_fault: Some("it is cut off".to_owned()), ..Identity::default() };
    let decision = decide(&unread, Some(&sound()), &Profile::default());
    assert_eq!(
        (decision.action, decision.steps),
        (Action::Refuse, vec![Step::UsePreviousSnapshot, Step::Reprobe])
    );
}

#[test]
fn counts_are_held_within_half_a_percent_and_roots_are_not() {
    assert_eq!(action(|m| m.counts.vectors = 1_990).0, Action::Serve);
    assert_eq!(action(|m| m.counts.vectors = 1_989).0, Action::Backfill);
    let missing = |m: &mut IndexManifest| {
        (m.counts.chunks, m.counts.vectors) = (1_999, 1_999);
        (m.corpus_root, m.vector_root) = (Digest::of(b"x"), Digest::of(b"y"));
    };
    assert_eq!(action(missing), (Action::Backfill, vec!["corpus_root".to_owned(), "vector_root".to_owned()]));
    let five_percent = |m: &mut IndexManifest| {
        (m.counts.chunks, m.counts.vectors) = (1_900, 1_900);
        (m.corpus_root, m.vector_root) = (Digest::of(b"x"), Digest::of(b"y"));
    };
    assert_eq!(action(five_percent).0, Action::Backfill);
}

#[test]
fn another_index_type_is_judged_by_the_order_of_its_scores() {
    let of = |correlation| {
        let changed = identity(|m| m.contract.index_type = "hnsw".to_owned());
        by_identity(&Identity { score_correlation: correlation, ..changed }, &Profile::default()).action
    };
    assert_eq!(of(None), Action::CompareScores);
    assert_eq!(of(Some(0.9)), Action::Serve);
    assert_eq!(of(Some(0.8999)), Action::Rebuild);
    assert_eq!(of(Some(f64::NAN)), Action::Rebuild);
}

#[test]
fn last_nights_index_with_another_reranker_is_pinned_then_filled_then_probed() {
    let last_night = identity(|m| {
        m.rerank_conf.ver = "1".to_owned();
        m.corpus_rev = "r0".to_owned();
        (m.counts.chunks, m.counts.vectors) = (1_950, 1_950);
        (m.corpus_root, m.vector_root) = (Digest::of(b"x"), Digest::of(b"y"));
    });
    let decision = decide(&last_night, None, &Profile::default());
    let fields: Vec<&str> = decision.reasons.iter().map(|reason| reason.field.as_str()).collect();
    assert!(fields.contains(&"rerank_conf") && fields.contains(&"corpus_rev"), "{fields:?}");
    let expected = [
        Step::PinReranker,
        Step::PurgeRerankCache,
        Step::Reprobe,
        Step::Backfill,
        Step::Rehash,
        Step::Reprobe,
    ];
    assert_eq!((decision.action, decision.steps.as_slice()), (Action::Backfill, &expected[..]));
    assert_eq!(
        next_fix(&symptoms(&last_night, None, lifeboat_probe::Sweep::Usual, &Profile::default())),
        Some("embedding-vs-semantic, rebuild")
    );
}

#[test]
fn the_gravest_reason_decides() {
    let (found, fields) = action(|m| {
        m.rerank_conf.ver = "1".to_owned();
        m.contract.metric = Metric::L2;
        m.contract.chunk_recipe.window = 60;
    });
    assert_eq!((found, fields[0].as_str()), (Action::RebuildWithEmbedding, "metric"));
}

#[test]
fn vectors_that_are_not_what_the_contract_says_do_not_serve() {
    let of = |fault: VectorFault| {
        let identity = Identity { vector_faults: vec![fault], ..Identity::default() };
        decide(&identity, Some(&sound()), &Profile::default()).action
    };
    assert_eq!(of(VectorFault::Norm { mean: 1.3, deviation: 0.4 }), Action::RebuildWithEmbedding);
    assert_eq!(of(VectorFault::Dimension { count: 1, expected: 384 }), Action::RebuildWithEmbedding);
    assert_eq!(of(VectorFault::Zero { count: 1 }), Action::RebuildWithEmbedding);
    assert_eq!(of(VectorFault::NotFinite { count: 1 }), Action::Refuse);
    assert_eq!(of(VectorFault::Duplicates { share: 0.2 }), Action::Rebuild);
    assert_eq!(of(VectorFault::Count { vectors: 1, chunks: 2 }), Action::Rebuild);
    assert_eq!(of(VectorFault::None), Action::Refuse);
}

#[test]
fn without_a_board_nothing_serves() {
    let decision = decide(&Identity::default(), None, &Profile::default());
    assert!(!decision.action.serves());
    assert_eq!(decision.action, Action::Review);
    assert!(decide(&Identity::default(), Some(&sound()), &Profile::default()).action.serves());
}
