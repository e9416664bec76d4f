//! Kind `vector`: the conformance suite over an index of several shards, and every way in which an index can be wrong.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{ManualClock, Timestamp};
use lifeboat_stores::conformance::{Fixture, violations};
use lifeboat_stores::{Adapter, CaptureContext, CheckState, Metric, Recording, VectorAdapter, VectorOptions};
use serde_json::{Value, json};

const DIM: usize = 384;

fn put(path: &Path, content: &[u8]) {
    File::create(path).unwrap().write_all(content).unwrap();
}

pub(crate) fn contract(dim: usize) -> Value {
    json!({
        "schema": "lifeboat.index-contract/v1", "index_family": "docs-v1", "corpus_rev": "7",
        "contract": {
            "metric": "cosine", "norm": "l2", "dim": dim, "index_type": "flat", "store_params": {},
            "embed_model_id": "m", "embed_model_ver": "1", "pooling": "mean", "tokenizer_ver": "1",
            "analyzer_id": "terms", "analyzer_conf": {}, "analyzer_fingerprint": "00".repeat(32),
            "text_preproc": {"unicode_norm": "NFC", "lowercase": true, "strip_punct": false, "language": "en"},
            "chunk_schema_ver": "1",
            "chunk_recipe": {"window": 80, "overlap": 0, "boundary_markers": [], "block_rules": {}},
        },
        "rerank_conf": {"model": "none", "ver": "1", "cutoff": 0},
        "contracts": {"snippet_schema_ver": "1", "citation_schema_ver": "1", "schema_files": []},
    })
}

fn record(at: usize, dim: usize) -> Value {
    let text = format!("größe {at:06} {}", "some words of a text ".repeat(3));
    let raw: Vec<f64> = (0..dim).map(|place| number(at * 31 + place * 7).sin() + 0.01).collect();
    let length = raw.iter().map(|value| value * value).sum::<f64>().sqrt();
    let vector: Vec<f64> = raw.iter().map(|value| value / length).collect();
    json!({
        "id": format!("c-{at:06}"), "vector": vector, "text": text, "doc_id": format!("d{}", at % 7),
        "section_id": format!("s{}", at / 4), "offsets": [at * 1000, at * 1000 + text.len()], "rev": "r1",
        "metadata": {"lang": "de", "n": at},
    })
}

fn shard(range: std::ops::Range<usize>, dim: usize) -> String {
    joined(range.map(|at| record(at, dim)))
}

pub(crate) fn number(value: usize) -> f64 {
    f64::from(u32::try_from(value).unwrap())
}

/// One value a line.
pub(crate) fn joined(lines: impl IntoIterator<Item = Value>) -> String {
    lines.into_iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat()
}

fn adapter(path: &Path, contract: &Path) -> VectorAdapter {
    VectorAdapter::new(VectorOptions {
        path: path.to_owned(),
        contract: contract.to_owned(),
        metric: Metric::Cosine,
        gold: None,
    })
}

fn inside(path: &Path) -> VectorAdapter {
    adapter(path, &path.join("contract.json"))
}

struct Indexes;

impl Fixture for Indexes {
    fn empty(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        let root = place.join("index");
        fs::create_dir(&root).unwrap();
        put(&root.join("contract.json"), contract(DIM).to_string().as_bytes());
        put(&root.join("a.jsonl"), b"");
        Ok(Box::new(inside(&root)))
    }

    fn full(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        let root = place.join("index");
        fs::create_dir_all(root.join("more")).unwrap();
        put(&root.join("contract.json"), contract(DIM).to_string().as_bytes());
        put(&root.join("a.jsonl"), shard(0..300, DIM).as_bytes());
        put(&root.join("more/größe-日本.jsonl"), shard(300..500, DIM).as_bytes());
        put(&root.join(OsStr::from_bytes(b"\xff\xfe.jsonl")), shard(500..700, DIM).as_bytes());
        put(&root.join("snippet.schema"), b"{\"type\":\"object\"}");
        Ok(Box::new(inside(&root)))
    }

    fn change(&self, place: &Path, round: u64) -> Result<(), Failure> {
        let at = 10_000 + usize::try_from(round).unwrap();
        let mut file = OpenOptions::new().append(true).open(place.join("index/a.jsonl")).unwrap();
        file.write_all(format!("{}\n", record(at, DIM)).as_bytes()).unwrap();
        Ok(())
    }

    fn seal(&self, place: &Path) -> Result<(), Failure> {
        let path = place.join("index/more/größe-日本.jsonl");
        fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
        Ok(())
    }

    fn missing(&self, place: &Path) -> Box<dyn Adapter> {
        Box::new(inside(&place.join("nothing")))
    }

    fn wrong(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        fs::create_dir(place.join("texts")).unwrap();
        put(&place.join("texts/notes.txt"), b"no index");
        Ok(Box::new(inside(&place.join("texts"))))
    }

    fn reopen(&self, artefact: &Path) -> Box<dyn Adapter> {
        Box::new(inside(artefact))
    }
}

#[test]
fn the_adapter_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    let violations = violations(&Indexes, scratch.path());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// An index of two shards beside its contract.
struct Lab {
    dir: tempfile::TempDir,
    point: Recording,
    findings: Findings,
}

impl Lab {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn adapter(&self) -> VectorAdapter {
        adapter(&self.path("index"), &self.path("contract.json"))
    }

    fn of(shards: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("index")).unwrap();
        put(&dir.path().join("contract.json"), contract(8).to_string().as_bytes());
        for (name, text) in shards {
            put(&dir.path().join("index").join(name), text.as_bytes());
        }
        let findings = Findings::new();
        let point =
            record_of(&adapter(&dir.path().join("index"), &dir.path().join("contract.json")), &findings);
        Self { dir, point, findings }
    }

    fn sound() -> Self {
        Self::of(&[("a.jsonl", shard(0..20, 8)), ("b.jsonl", shard(20..40, 8))])
    }

    /// Restores, damages, and gives the checks that failed with all they say.
    fn failing(&self, damage: impl FnOnce(&Path)) -> Vec<(String, String)> {
        self.not_passed(damage, CheckState::Failed)
    }

    fn not_passed(&self, damage: impl FnOnce(&Path), state: CheckState) -> Vec<(String, String)> {
        let (into, monitor) = (tempfile::tempdir().unwrap(), Findings::new());
        let adapter = self.adapter();
        adapter.restore(&self.point, self.point.facts(), into.path(), &monitor).unwrap();
        damage(into.path());
        let results = adapter.checks(&self.point, self.point.facts(), into.path(), &monitor).unwrap();
        let wrong = results.into_iter().filter(|result| result.state == state);
        wrong
            .filter(|result| result.id.starts_with("vector."))
            .map(|result| (result.id, format!("{} {}", result.measured, result.detail.join("; "))))
            .collect()
    }
}

fn record_of(adapter: &VectorAdapter, findings: &Findings) -> Recording {
    let (spool, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(Timestamp::UNIX_EPOCH));
    let context = CaptureContext { clock: &clock, spool: spool.path(), kept: None, known: &[] };
    Recording::record(adapter.capture(&context).unwrap(), findings).unwrap()
}

fn ids(failing: &[(String, String)]) -> Vec<&str> {
    failing.iter().map(|(id, _)| id.as_str()).collect()
}

fn told<'a>(failing: &'a [(String, String)], id: &str) -> &'a str {
    failing.iter().find(|(other, _)| other == id).map_or("", |(_, text)| text)
}

/// Rewrites the records of a shard.
fn edit(dir: &Path, change: impl FnOnce(&mut Vec<Value>)) {
    let path = dir.join("a.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    change(&mut lines);
    put(&path, joined(lines).as_bytes());
}

#[test]
fn a_sound_restore_passes_and_says_what_is_there() {
    let lab = Lab::sound();
    assert_eq!(lab.failing(|_| {}), []);
    let counts = &lab.point.facts().counts;
    assert_eq!((counts["chunks"], counts["vectors"], counts["docs"]), (40, 40, 7));
    assert_eq!((counts["records/a.jsonl"], counts["records/b.jsonl"]), (20, 20));
    assert!(lab.findings.list().is_empty() && lab.point.facts().unreadable.is_empty());
}

#[test]
fn a_row_missing_extra_or_changed_is_told_with_its_id() {
    let lab = Lab::sound();
    let failing = lab.failing(|dir| edit(dir, |lines| drop(lines.remove(3))));
    assert_eq!(ids(&failing), ["vector.manifest", "vector.count", "vector.missing"]);
    assert!(told(&failing, "vector.missing").contains("c-000003"), "{failing:?}");
    assert!(told(&failing, "vector.count").contains("records/a.jsonl: 19, captured 20"), "{failing:?}");
    let failing = lab.failing(|dir| edit(dir, |lines| lines.push(record(99, 8))));
    assert!(told(&failing, "vector.extra").contains("c-000099"), "{failing:?}");
    let nudge = |lines: &mut Vec<Value>| {
        let first = lines[5]["vector"][0].as_f64().unwrap();
        lines[5]["vector"][0] = json!(first + 1e-4);
    };
    let failing = lab.failing(|dir| edit(dir, nudge));
    assert_eq!(ids(&failing), ["vector.manifest", "vector.changed"]);
    assert!(told(&failing, "vector.changed").contains("c-000005: vector"), "{failing:?}");
    assert!(told(&failing, "vector.manifest").contains("vector_root"), "{failing:?}");
}

#[test]
fn swapped_texts_zeros_wrong_lengths_and_what_is_no_number_are_caught() {
    let lab = Lab::sound();
    let swap = |lines: &mut Vec<Value>| {
        let (one, other) = (lines[0]["text"].clone(), lines[1]["text"].clone());
        (lines[0]["text"], lines[1]["text"]) = (other, one);
    };
    let failing = lab.failing(|dir| edit(dir, swap));
    assert!(told(&failing, "vector.changed").contains("c-000000: text"), "{failing:?}");
    assert!(told(&failing, "vector.manifest").contains("corpus_root"), "{failing:?}");
    let zero = |lines: &mut Vec<Value>| lines[2]["vector"] = json!([0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(told(&lab.failing(|dir| edit(dir, zero)), "vector.vectors").contains("Zero"));
    let short = |lines: &mut Vec<Value>| lines[2]["vector"] = json!([1.0]);
    assert!(told(&lab.failing(|dir| edit(dir, short)), "vector.vectors").contains("Dimension"));
    let raw = |lines: &mut Vec<Value>| lines[2]["vector"] = json!([9, 0, 0, 0, 0, 0, 0, 0]);
    assert!(told(&lab.failing(|dir| edit(dir, raw)), "vector.vectors").contains("Norm"));
    let failing = lab.failing(|dir| {
        let text = fs::read_to_string(dir.join("a.jsonl")).unwrap();
        put(&dir.join("a.jsonl"), text.replacen("\"vector\":[", "\"vector\":[NaN,", 1).as_bytes());
    });
    assert!(told(&failing, "vector.records").contains("a.jsonl line 1"), "{failing:?}");
    assert!(told(&failing, "vector.missing").contains("c-000000"), "{failing:?}");
}

#[test]
fn the_row_and_the_contract_of_today_must_be_those_of_the_point_and_the_field_is_named() {
    let lab = Lab::sound();
    let (into, monitor) = (tempfile::tempdir().unwrap(), Findings::new());
    let row = VectorAdapter::new(VectorOptions {
        path: lab.path("index"),
        contract: lab.path("contract.json"),
        metric: Metric::L2,
        gold: None,
    });
    row.restore(&lab.point, lab.point.facts(), into.path(), &monitor).unwrap();
    let results = row.checks(&lab.point, lab.point.facts(), into.path(), &monitor).unwrap();
    let manifest = results.iter().find(|result| result.id == "vector.manifest").unwrap();
    assert_eq!((manifest.state, manifest.measured.as_str()), (CheckState::Failed, "other metric"));
    assert!(row.inspect().unwrap().findings.iter().any(|finding| finding.subject == "metric"));
    for (field, value) in [
        ("embed_model_ver", json!("2")),
        ("analyzer_fingerprint", json!("11".repeat(32))),
        ("dim", json!(9)),
        ("chunk_recipe", json!({"window": 90, "overlap": 0, "boundary_markers": [], "block_rules": {}})),
    ] {
        let mut other = contract(8);
        other["contract"][field] = value;
        put(&lab.path("contract.json"), other.to_string().as_bytes());
        let failing = lab.failing(|_| {});
        assert_eq!(ids(&failing), ["vector.contract"], "{field}");
        assert!(told(&failing, "vector.contract").starts_with(&format!("other {field} ")), "{failing:?}");
    }
    let mut other = contract(8);
    other["corpus_rev"] = json!("8");
    put(&lab.path("contract.json"), other.to_string().as_bytes());
    assert_eq!(lab.failing(|_| {}), [], "texts go on");
    fs::remove_file(lab.path("contract.json")).unwrap();
    assert_eq!(lab.failing(|_| {}), [], "after a loss nobody declares it");
    assert_eq!(ids(&lab.not_passed(|_| {}, CheckState::NotApplicable)), ["vector.contract"]);
}

#[test]
fn a_shard_that_is_being_written_is_told_when_it_is_captured_and_never_passes() {
    let whole = shard(0..20, 8);
    let lab = Lab::of(&[("a.jsonl", whole[..whole.len() - 30].to_owned()), ("b.jsonl", shard(20..40, 8))]);
    let unreadable = &lab.point.facts().unreadable;
    assert!(
        unreadable[0].starts_with("a.jsonl line 20:") && unreadable[0].ends_with("was it being written?")
    );
    assert!(lab.findings.list().iter().any(|finding| finding.code == "record-unreadable"));
    assert_eq!(ids(&lab.failing(|_| {})), ["vector.records"]);
}

#[test]
fn an_index_without_a_contract_is_captured_as_incomplete_and_proves_nothing() {
    let lab = Lab::sound();
    put(&lab.path("contract.json"), b"{}");
    let findings = Findings::new();
    let point = record_of(&lab.adapter(), &findings);
    assert!(point.facts().unreadable[0].starts_with("contract: "));
    let lab = Lab { point, findings, ..lab };
    let failing = lab.failing(|_| {});
    assert_eq!(ids(&failing), ["vector.manifest", "vector.contract", "vector.vectors"]);
}

#[test]
fn an_empty_index_passes_no_check_of_its_vectors() {
    let lab = Lab::of(&[("a.jsonl", String::new())]);
    assert_eq!(ids(&lab.not_passed(|_| {}, CheckState::NotApplicable)), ["vector.vectors"]);
    assert!(lab.adapter().essential().contains(&"vector.vectors"));
    let full = Lab::sound();
    let failing = full.failing(|dir| {
        put(&dir.join("a.jsonl"), b"");
        put(&dir.join("b.jsonl"), b"");
    });
    assert_eq!(ids(&failing), ["vector.manifest", "vector.count", "vector.missing", "vector.vectors"]);
}

#[test]
fn an_index_that_is_one_file_comes_back_as_that_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    put(&dir.path().join("docs.jsonl"), shard(0..30, 8).as_bytes());
    put(&dir.path().join("other.jsonl"), b"no record");
    put(&dir.path().join("contract.json"), contract(8).to_string().as_bytes());
    let index = adapter(&dir.path().join("docs.jsonl"), &dir.path().join("contract.json"));
    assert_eq!(index.inspect().unwrap().items, [("shards".to_owned(), 1)]);
    let monitor = Findings::new();
    let point = record_of(&index, &monitor);
    let into = tempfile::tempdir().unwrap();
    index.restore(&point, point.facts(), into.path(), &monitor).unwrap();
    let names: Vec<_> = fs::read_dir(into.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["docs.jsonl"]);
    assert_eq!(
        fs::read(into.path().join("docs.jsonl")).unwrap(),
        fs::read(dir.path().join("docs.jsonl")).unwrap()
    );
    let results = index.checks(&point, point.facts(), into.path(), &monitor).unwrap();
    assert!(results.iter().all(|result| result.state == CheckState::Passed), "{results:?}");
    let text = adapter(&dir.path().join("contract.json"), &dir.path().join("contract.json"));
    assert_eq!(text.inspect().unwrap_err().kind(), FailureKind::Unreachable);
}

#[test]
fn the_board_tells_a_sound_index_from_one_that_is_spoiled() {
    let scratch = tempfile::tempdir().unwrap();
    let adapter = inside(scratch.path());
    let canaries = adapter.probes().unwrap().canaries(scratch.path()).unwrap();
    assert_eq!(canaries.len(), 7);
    for canary in canaries {
        assert!(canary.caught, "{canary:?}");
    }
}

#[test]
fn without_questions_nothing_is_said_about_meaning() {
    let lab = Lab::sound();
    let (into, monitor) = (tempfile::tempdir().unwrap(), Findings::new());
    let adapter = lab.adapter();
    adapter.restore(&lab.point, lab.point.facts(), into.path(), &monitor).unwrap();
    let probes = adapter.probes().unwrap();
    let (check, meaning) = probes.probe(&lab.point, lab.point.facts(), into.path(), &monitor).unwrap();
    assert_eq!(check.state, CheckState::NotApplicable);
    assert_eq!(meaning.said(), "meaning was not probed: the row names no gold set");
    assert_eq!(meaning.decided(), "review (board: expected measured, found not measured)");
}
