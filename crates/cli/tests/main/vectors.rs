//! A vector index of real text from its first draft to a drill that says whether it still means what it meant.

use std::fs;

use lifeboat_probe::{Embedder, Lsa, USUAL_RANK_COUNT};
use serde_json::{Value, json};

use super::tree;
use super::world::World;

const INDEX: &str = r#"
[store.index]
kind = "vector"
engine = "jsonl"
path = "./live/index"
contract = "./live/contract.json"
metric = "cosine"
gold = "./gold"
"#;

/// A company whose one store is an index of documentation, and the embedder that built it.
pub(crate) fn world() -> World {
    let world = World::with(&[INDEX]);
    fs::create_dir_all(world.path("live/index")).unwrap();
    fs::create_dir(world.path("gold")).unwrap();
    // Fewer pieces than the scenario tests take: this is about the commands.
    let pieces: Vec<_> = lifeboat_testkit::corpus().into_iter().take(1_500).collect();
    let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
    let model = Lsa::fit(&texts, USUAL_RANK_COUNT).unwrap();
    let lines = pieces.iter().map(|piece| {
        let vector = model.vector(&piece.text);
        let is_zero = vector.iter().all(|value| *value == 0.0);
        let record = json!({
            "id": piece.id, "vector": vector, "text": piece.text, "doc_id": piece.doc_id, "rev": "r1",
            "section_id": piece.section_id, "offsets": [piece.start, piece.start + piece.text.len()],
            "heading": piece.heading,
        });
        if is_zero { String::new() } else { format!("{record}\n") }
    });
    let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
    let (one, other) = lines.split_at(lines.len() / 2);
    tree::write(&world.path("live/index/a.jsonl"), one.concat().as_bytes());
    tree::write(&world.path("live/index/b.jsonl"), other.concat().as_bytes());
    let contract = json!({
        "schema": "lifeboat.index-contract/v1", "index_family": "docs-v1", "corpus_rev": "1",
        "contract": {
            "metric": "cosine", "norm": "l2", "dim": model.rank(), "index_type": "flat", "store_params": {},
            "embed_model_id": "lsa-v1", "embed_model_ver": model.hash(), "pooling": "none", "tokenizer_ver": "1",
            "analyzer_id": "terms", "analyzer_conf": {}, "analyzer_fingerprint": "00".repeat(32),
            "text_preproc": {"unicode_norm": "NFKC", "lowercase": true, "strip_punct": true, "language": "en"},
            "chunk_schema_ver": "1",
            "chunk_recipe": {"window": 80, "overlap": 0, "boundary_markers": [], "block_rules": {}},
        },
        "rerank_conf": {"model": "none", "ver": "1", "cutoff": 0},
        "contracts": {"snippet_schema_ver": "1", "citation_schema_ver": "1", "schema_files": []},
    });
    tree::write(&world.path("live/contract.json"), contract.to_string().as_bytes());
    tree::write(&world.path("gold/embedder.lsa"), &model.to_bytes().unwrap());
    world
}

/// Every vector becomes that of the next record; everything else stays.
pub(crate) fn shift(world: &World) {
    let path = world.path("live/index/a.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut vectors: Vec<Value> = lines.iter().map(|line| line["vector"].clone()).collect();
    vectors.rotate_left(1);
    lines.iter_mut().zip(vectors).for_each(|(line, vector)| line["vector"] = vector);
    let text = lines.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat();
    tree::write(&path, text.as_bytes());
}

/// Whether the newest point is proven as restored, and as probed.
pub(crate) fn proofs(world: &World) -> (bool, bool) {
    let report = world.run(&["--json", "points", "index"]).json();
    let proof = &report["points"].as_array().unwrap().last().unwrap()["proof"];
    (proof["restored"].is_string(), proof["probed"].is_string())
}

#[test]
fn an_index_is_probed_only_with_questions_that_were_curated() {
    let world = world();
    // The row names a gold set and there is none: told before anything is captured, and no proof of anything after it.
    let ran = world.run(&["probe", "index"]).expect(3);
    assert!(
        ran.stderr.contains("was it curated?") && ran.stderr.contains("lifeboat probe draft index"),
        "{ran:?}"
    );
    world.run(&["backup", "index"]).expect(5);
    world.run(&["drill", "index"]).expect(5);
    assert_eq!(proofs(&world), (false, false));
    world.run(&["probe", "draft", "index", "--count", "20"]).expect(0);
    let curated = world.json(&["probe", "curate", "index"], 5);
    assert!(!curated["curated"]["lacks"].as_array().unwrap().is_empty(), "{curated:#}");
    assert!(!world.path("gold/gold.lock").exists(), "too few questions freeze nothing");
    // Without a gold set in the row the index is restored, and its meaning is said not to be known.
    world.write_policy(&world.policy.replace("gold = \"./gold\"\n", ""));
    world.backup("index");
    let report = world.json(&["drill", "index"], 0);
    let meaning = &report["stores"][0]["meaning"];
    assert_eq!(meaning["not_probed"], "the row names no gold set");
    assert_eq!(meaning["decision"]["action"], "review");
    assert_eq!(proofs(&world), (true, false));
}

#[test]
fn an_index_is_drafted_curated_measured_and_proven_as_probed_in_a_drill() {
    let world = world();
    let drafted = world.json(&["probe", "draft", "index", "--count", "200"], 0);
    assert_eq!(
        (&drafted["schema"], &drafted["drafted"]["fitted"]),
        (&"lifeboat.probe/v1".into(), &false.into())
    );
    let first = fs::read(world.path("gold/drafts.jsonl")).unwrap();
    world.run(&["probe", "draft", "index", "--count", "200"]).expect(0);
    assert_eq!(fs::read(world.path("gold/drafts.jsonl")).unwrap(), first);
    let curated = world.json(&["probe", "curate", "index"], 0);
    println!("{} let in", curated["curated"]["kept"]);
    let board = world.json(&["probe", "index"], 0);
    assert_eq!(board["meaning"]["not_compared"], "there is no baseline to compare it with");
    world.run(&["probe", "baseline", "index"]).expect(0);
    let board = world.json(&["probe", "index"], 0);
    assert_eq!(board["meaning"]["board"]["verdict"], "pass");
    assert_eq!(board["meaning"]["drift"]["level"], "none", "{board:#}");
    assert_eq!(
        world.run(&["--json", "probe", "index"]).stdout,
        world.run(&["--json", "probe", "index"]).stdout
    );
    world.backup("index");
    let report = world.json(&["drill", "index"], 0);
    let store = &report["stores"][0];
    assert_eq!(store["meaning"]["decision"]["action"], "serve");
    assert_eq!(store["meaning"]["drift"]["level"], "none");
    let check =
        store["checks"].as_array().unwrap().iter().find(|check| check["id"] == "vector.board").unwrap();
    assert_eq!((&check["state"], &check["canary_caught"]), (&"passed".into(), &true.into()));
    assert_eq!(proofs(&world), (true, true));
    // What is proven comes back from the evidence alone.
    world.run(&["catalog", "rebuild"]).expect(0);
    assert_eq!(proofs(&world), (true, true));
    // A gold set that was touched is not the one that was curated.
    let gold = fs::read_to_string(world.path("gold/gold.jsonl")).unwrap();
    tree::write(&world.path("gold/gold.jsonl"), gold.replacen("What does", "What does the", 1).as_bytes());
    let ran = world.run(&["probe", "index"]);
    assert_eq!(ran.code, Some(6), "{ran:?}");
}

#[test]
fn what_is_far_from_its_baseline_or_lies_elsewhere_is_never_proven() {
    let world = world();
    world.run(&["probe", "draft", "index", "--count", "200"]).expect(0);
    world.run(&["probe", "curate", "index"]).expect(0);
    world.run(&["probe", "baseline", "index"]).expect(0);
    let shard = world.path("live/index/a.jsonl");
    let whole = fs::read_to_string(&shard).unwrap();
    // One answer of eight is gone, and what is left is counted anew.
    let lines = whole.lines().enumerate().filter(|(number, _)| number % 4 != 0);
    let thinned = lines.map(|(_, line)| [line, "\n"].concat()).collect::<Vec<_>>().concat();
    tree::write(&shard, thinned.as_bytes());
    world.run(&["backup", "index"]);
    let report = world.json(&["drill", "index"], 5);
    let meaning = &report["stores"][0]["meaning"];
    assert_eq!(meaning["drift"]["level"], "alert", "{meaning:#}");
    let said = report["findings"].to_string() + &report["stores"][0]["checks"].to_string();
    assert!(said.contains("too far from its baseline: coverage_mean"), "{said}");
    assert_ne!(meaning["decision"]["action"], "serve", "{meaning:#}");
    assert!(!proofs(&world).1);
    world.run(&["probe", "index"]).expect(5);
    tree::write(&shard, whole.as_bytes());
    world.backup("index");
    world.run(&["drill", "index"]).expect(0);
    assert_eq!(proofs(&world), (true, true));

    // A shard that is a link is not in the point, and one of another ending is no shard.
    tree::rename(&world.path("live/index/b.jsonl"), &world.path("live/b.jsonl"));
    std::os::unix::fs::symlink("../b.jsonl", world.path("live/index/b.jsonl")).unwrap();
    let report = world.json(&["backup", "index"], 5);
    assert!(report.to_string().contains("shard-unreadable"), "{report:#}");
    fs::remove_file(world.path("live/index/b.jsonl")).unwrap();
    tree::rename(&world.path("live/b.jsonl"), &world.path("live/index/b.JSONL"));
    world.run(&["backup", "index"]).expect(5);
    tree::rename(&world.path("live/index/b.JSONL"), &world.path("live/index/b.jsonl"));
    world.backup("index");

    // A contract that is there and cannot be read is not one that nobody declares; a pipe in its place is not waited for.
    let contract = world.path("live/contract.json");
    tree::rename(&contract, &world.path("kept.json"));
    rustix::fs::mknodat(rustix::fs::CWD, &contract, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    world.run(&["drill", "index"]).expect(5);
    world.run(&["backup", "index"]).expect(5);
    fs::remove_file(&contract).unwrap();
    tree::rename(&world.path("kept.json"), &contract);
    // The row may not call it by another metric.
    world.write_policy(&world.policy.replace("\"cosine\"", "\"ip\""));
    world.run(&["probe", "index"]).expect(3);
}
