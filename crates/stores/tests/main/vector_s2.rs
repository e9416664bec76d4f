//! An index of real text that is restored wrongly in every way of the scenario: each is refused before it serves, by the check
//! that names the field, and what spoils the answers fails the board as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lifeboat_base::crashsafe;
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{ManualClock, Timestamp};
use lifeboat_probe::{Action, BoardVerdict, GoldSet, Lsa};
use lifeboat_stores::{
    Adapter, CaptureContext, CheckResult, CheckState, Meaning, Metric, Recording, VectorAdapter,
    VectorOptions,
};
use serde_json::{Value, json};

use super::vector::{contract, joined, number};

const BOARD: &str = "vector.board";

/// The index as it was captured, with its gold set, and the model that its questions were embedded by.
struct World {
    dir: tempfile::TempDir,
    point: Recording,
    chunks_count: usize,
    questions_count: u64,
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn adapter(&self, contract: &Path) -> VectorAdapter {
        adapter(self.dir.path(), contract)
    }

    /// Restores, damages, and gives the failed checks with the decision. `today` changes the contract of today.
    fn restored(
        &self,
        damage: impl FnOnce(&mut Vec<Value>),
        today: impl FnOnce(&mut Value),
    ) -> (Vec<CheckResult>, Meaning) {
        let (into, other, monitor) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Findings::new());
        let mut declared: Value =
            serde_json::from_slice(&fs::read(self.path("contract.json")).unwrap()).unwrap();
        today(&mut declared);
        let contract = other.path().join("contract.json");
        crashsafe::write_new(&contract, declared.to_string().as_bytes()).unwrap();
        let adapter = self.adapter(&contract);
        adapter.restore(&self.point, self.point.facts(), into.path(), &monitor).unwrap();
        let shard = into.path().join("docs.jsonl");
        let text = fs::read_to_string(&shard).unwrap();
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let sound = lines.clone();
        damage(&mut lines);
        // A number may be written in other words and be the same: only what was damaged is written again.
        if lines != sound {
            let damaged = joined(lines);
            fs::remove_file(&shard).unwrap();
            crashsafe::write_new(&shard, damaged.as_bytes()).unwrap();
        }
        let mut results = adapter.checks(&self.point, self.point.facts(), into.path(), &monitor).unwrap();
        let probes = adapter.probes().unwrap();
        let (board, meaning) = probes.probe(&self.point, self.point.facts(), into.path(), &monitor).unwrap();
        results.push(board);
        println!("{} / {}", meaning.said(), meaning.decided());
        results.retain(|result| result.state != CheckState::Passed && result.id.starts_with("vector."));
        (results, meaning)
    }
}

fn adapter(dir: &Path, contract: &Path) -> VectorAdapter {
    VectorAdapter::new(VectorOptions {
        path: dir.join("index"),
        contract: contract.to_owned(),
        metric: Metric::Cosine,
        gold: Some(dir.join("gold")),
    })
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let pieces = lifeboat_testkit::corpus();
        let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
        // The index has a model of its own; the one that measures is fitted when questions are drafted.
        let searching = Lsa::fit(&texts, 160).unwrap();
        let record = |piece: &lifeboat_testkit::Piece| {
            json!({
                "id": piece.id, "vector": searching.vector(&piece.text), "text": piece.text, "doc_id": piece.doc_id,
                "section_id": piece.section_id, "offsets": [piece.start, piece.start + piece.text.len()], "rev": "r1",
                "heading": piece.heading,
            })
        };
        let has_words = |piece: &&lifeboat_testkit::Piece| {
            searching.vector(&piece.text).iter().any(|value| *value != 0.0)
        };
        let lines = joined(pieces.iter().filter(has_words).map(record));
        fs::create_dir(dir.path().join("index")).unwrap();
        crashsafe::write_new(&dir.path().join("index/docs.jsonl"), lines.as_bytes()).unwrap();
        let contract = contract(searching.rank());
        crashsafe::write_new(&dir.path().join("contract.json"), contract.to_string().as_bytes()).unwrap();
        let adapter = adapter(dir.path(), &dir.path().join("contract.json"));
        let monitor = Findings::new();
        adapter.draft(140, &monitor).unwrap();
        let drafts = GoldSet::from_jsonl(&fs::read_to_string(dir.path().join("gold/drafts.jsonl")).unwrap()).unwrap();
        let texts = drafts.probes().flat_map(|probe| &probe.paraphrases);
        let asked = joined(texts.map(|text| {
            json!({"model_id": "m", "model_ver": "1", "text": text, "vector": searching.vector(text)})
        }));
        crashsafe::write_new(&dir.path().join("gold/questions.jsonl"), asked.as_bytes()).unwrap();
        let curated = adapter.curate(&monitor).unwrap();
        assert_eq!(curated.lacks, Vec::<String>::new(), "{} let in", curated.kept_count);
        let boarded = adapter.baseline(&monitor).unwrap();
        println!("{} chunks, {} questions: {}", lines.lines().count(), curated.kept_count, boarded.meaning.said());
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let context = CaptureContext { clock: &clock, spool: dir.path(), kept: None, known: &[] };
        let point = Recording::record(adapter.capture(&context).unwrap(), &monitor).unwrap();
        assert_eq!(monitor.list(), []);
        World { dir, point, chunks_count: lines.lines().count(), questions_count: curated.kept_count }
    })
}

fn ids(failed: &[CheckResult]) -> Vec<&str> {
    failed.iter().map(|result| result.id.as_str()).collect()
}

fn names(failed: &[CheckResult], id: &str, field: &str) -> bool {
    let result = failed.iter().find(|result| result.id == id);
    result.is_some_and(|result| result.measured.contains(field) || result.detail.join(" ").contains(field))
}

fn board_fails(meaning: &Meaning) -> bool {
    meaning.board.as_ref().is_some_and(|board| board.verdict != BoardVerdict::Pass)
}

#[test]
fn the_corpus_is_real_and_large_enough_and_h_a_clean_restore_serves() {
    let world = world();
    assert!(world.chunks_count >= 2_000 && world.questions_count >= 60);
    let (failed, meaning) = world.restored(|_| {}, |_| {});
    assert_eq!(ids(&failed), Vec::<&str>::new(), "{failed:?}");
    assert_eq!(meaning.decision.action, Action::Serve);
    let drift = meaning.drift.unwrap();
    assert!(drift.ds_mean.abs() < 1e-9 && drift.probes.is_empty(), "{drift:?}");
}

#[test]
fn a_another_metric_is_refused_by_name() {
    let (failed, meaning) = world().restored(|_| {}, |today| today["contract"]["metric"] = json!("l2"));
    assert_eq!(ids(&failed), ["vector.contract"]);
    assert!(names(&failed, "vector.contract", "metric"));
    assert_eq!(meaning.decision.action, Action::RebuildWithEmbedding);
}

#[test]
fn b_raw_vectors_under_a_cosine_contract_are_caught_by_their_norms() {
    let raw = |lines: &mut Vec<Value>| {
        for (at, line) in lines.iter_mut().enumerate() {
            let factor = 0.5 + number(at % 16) / 10.0;
            for value in line["vector"].as_array_mut().unwrap() {
                *value = json!(value.as_f64().unwrap() * factor);
            }
        }
    };
    let (failed, meaning) = world().restored(raw, |_| {});
    assert!(names(&failed, "vector.vectors", "norm") && names(&failed, "vector.manifest", "vector_root"));
    assert!(meaning.decision.reasons.iter().any(|reason| reason.field == "norm"));
    assert!(!meaning.decision.action.serves());
}

#[test]
fn c_another_analyzer_is_refused_by_its_fingerprint() {
    let other = |today: &mut Value| today["contract"]["analyzer_fingerprint"] = json!("22".repeat(32));
    let (failed, meaning) = world().restored(|_| {}, other);
    assert_eq!(ids(&failed), ["vector.contract"]);
    assert!(names(&failed, "vector.contract", "analyzer_fingerprint"));
    assert_eq!(meaning.decision.action, Action::RebuildWithEmbedding);
}

#[test]
fn d_missing_chunks_are_caught_by_counts_however_few_and_by_the_board_when_many() {
    for (share, spoils) in [(20, false), (3, true)] {
        let (failed, meaning) = world().restored(
            |lines| {
                let mut at = 0;
                lines.retain(|_| {
                    at += 1;
                    at % share != 0
                });
            },
            |_| {},
        );
        assert!(
            names(&failed, "vector.count", "chunks") && names(&failed, "vector.missing", ""),
            "{failed:?}"
        );
        assert!(meaning.decision.reasons.iter().any(|reason| reason.field == "counts"));
        assert!(!meaning.decision.action.serves());
        assert!(!spoils || board_fails(&meaning), "{}", meaning.said());
    }
}

#[test]
fn e_vectors_of_another_version_of_the_embedder_are_refused_by_name_and_fail_the_board() {
    let turned = |lines: &mut Vec<Value>| {
        for line in lines {
            line["vector"].as_array_mut().unwrap().rotate_right(7);
        }
    };
    let (failed, meaning) =
        world().restored(turned, |today| today["contract"]["embed_model_ver"] = json!("2"));
    assert!(names(&failed, "vector.contract", "embed_model_ver") && ids(&failed).contains(&BOARD));
    assert!(board_fails(&meaning), "{}", meaning.said());
}

#[test]
fn f_ids_that_shifted_are_caught_by_the_root_of_the_texts_and_fail_the_board() {
    let shifted = |lines: &mut Vec<Value>| {
        let vectors: Vec<Value> = lines.iter().map(|line| line["vector"].clone()).collect();
        let ids: Vec<Value> = lines.iter().map(|line| line["id"].clone()).collect();
        for (at, line) in lines.iter_mut().enumerate() {
            line["id"] = ids[(at + 1) % ids.len()].clone();
            line["vector"] = vectors[(at + 1) % vectors.len()].clone();
        }
    };
    let (failed, meaning) = world().restored(shifted, |_| {});
    assert!(names(&failed, "vector.manifest", "corpus_root") && ids(&failed).contains(&BOARD));
    assert!(board_fails(&meaning), "{}", meaning.said());
}

#[test]
fn g_another_reranker_is_refused_by_name_and_pinned_without_a_rebuild() {
    let (failed, meaning) = world().restored(|_| {}, |today| today["rerank_conf"]["ver"] = json!("2"));
    assert_eq!(ids(&failed), ["vector.contract"]);
    assert!(names(&failed, "vector.contract", "rerank_conf"));
    assert_eq!(meaning.decision.action, Action::PinReranker);
}

#[test]
fn texts_that_went_on_ask_for_a_backfill_and_fail_nothing() {
    let (failed, meaning) = world().restored(|_| {}, |today| today["corpus_rev"] = json!("8"));
    assert_eq!(ids(&failed), Vec::<&str>::new());
    assert_eq!(meaning.decision.action, Action::Backfill);
}

#[test]
fn questions_that_were_asked_by_other_vectors_are_not_those_that_were_curated() {
    let world = world();
    let mut point = world.point.clone();
    let path = lifeboat_base::path::RelPath::new("meta/probes/questions.jsonl").unwrap();
    let content = String::from_utf8(point.content(&path).unwrap().to_vec()).unwrap();
    let entry = point.entry(&path).unwrap().clone();
    point.put(entry, content.replacen("\"vector\":[", "\"vector\":[ ", 1).into_bytes());
    let (into, monitor) = (tempfile::tempdir().unwrap(), Findings::new());
    let adapter = world.adapter(&world.path("contract.json"));
    adapter.restore(&point, point.facts(), into.path(), &monitor).unwrap();
    let (check, meaning) =
        adapter.probes().unwrap().probe(&point, point.facts(), into.path(), &monitor).unwrap();
    assert_eq!(check.state, CheckState::Failed);
    assert!(meaning.board.is_none() && meaning.said().contains("is not the one that was signed"));
}
