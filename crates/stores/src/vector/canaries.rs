//! The canaries of kind `vector`: a small index, and one way to damage it per check and kind of damage.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{ManualClock, Timestamp};
use lifeboat_probe::{IndexManifest, Metric, config_hash, index_hash};
use serde_json::{Value, json};

use super::adapter::{VectorAdapter, VectorOptions};
use super::capture::MANIFEST;
use super::checks::below;
use super::records::RECORDS;
use crate::adapter::{Adapter, CanaryResult, CaptureContext};
use crate::canary::{self, Canary};
use crate::recording::Recording;

const SHARD: &str = "a.jsonl";
const OTHER: &str = "b.jsonl";
/// Records of the sample, half in each shard.
const RECORDS_COUNT: usize = 12;

const CANARIES: [Canary; 18] = [
    Canary {
        check: "vector.missing",
        damage: "a record is missing",
        apply: |dir, _| edit(dir, |lines| drop(lines.pop())),
    },
    Canary {
        check: "vector.count",
        damage: "a record is missing",
        apply: |dir, _| edit(dir, |lines| drop(lines.pop())),
    },
    Canary {
        check: "vector.count",
        damage: "a shard is missing",
        apply: |dir, _| fs::remove_file(dir.join(OTHER)),
    },
    Canary {
        check: "vector.extra",
        damage: "a record too many",
        apply: |dir, _| edit(dir, |lines| lines.push(record(99, 1.0))),
    },
    Canary {
        check: "vector.changed",
        damage: "a component of a vector is a little larger",
        apply: |dir, _| change(dir, |record| nudge(record, 1e-6)),
    },
    Canary {
        check: "vector.changed",
        damage: "two texts are swapped",
        apply: |dir, _| {
            edit(dir, |lines| {
                let (one, other) = (text(lines, 0), text(lines, 1));
                set(lines, 0, "text", other);
                set(lines, 1, "text", one);
            })
        },
    },
    Canary {
        check: "vector.changed",
        damage: "a record stands in another section",
        apply: |dir, _| change(dir, |record| put(record, "section_id", json!("elsewhere"))),
    },
    Canary {
        check: "vector.vectors",
        damage: "a vector is zero",
        apply: |dir, _| change(dir, |record| put(record, "vector", json!([0.0, 0.0, 0.0]))),
    },
    Canary {
        check: "vector.vectors",
        damage: "a vector is too short",
        apply: |dir, _| change(dir, |record| put(record, "vector", json!([1.0, 0.0]))),
    },
    Canary {
        check: "vector.vectors",
        damage: "vectors are not of length 1",
        apply: |dir, _| {
            edit(dir, |lines| {
                for (at, line) in lines.iter_mut().enumerate() {
                    *line = record(at, 3.0);
                }
            })
        },
    },
    Canary {
        check: "vector.vectors",
        damage: "all vectors are the same",
        apply: |dir, _| {
            same(dir, SHARD)?;
            same(dir, OTHER)
        },
    },
    Canary {
        check: "vector.records",
        damage: "a component of a vector is no number",
        apply: |dir, _| change_text(dir, |line| line.replacen('[', "[NaN,", 1)),
    },
    Canary {
        check: "vector.records",
        damage: "the last line is cut off",
        apply: |dir, _| {
            let content = fs::read_to_string(dir.join(SHARD))?;
            let cut = content.get(..content.len().saturating_sub(20)).unwrap_or_default();
            crashsafe::replace(&dir.join(SHARD), cut.as_bytes())
        },
    },
    Canary {
        check: "vector.records",
        damage: "a record stands there twice",
        apply: |dir, _| edit(dir, |lines| lines.extend(lines.first().cloned())),
    },
    Canary {
        check: "vector.records",
        damage: "the list of records is edited",
        apply: |_, point| edit_list(point),
    },
    Canary {
        check: "vector.manifest",
        damage: "a record has another text",
        apply: |dir, _| change_text(dir, |line| line.replacen("text of", "text to", 1)),
    },
    Canary {
        check: "vector.manifest",
        damage: "the manifest is of another metric, and its hashes fit",
        apply: |_, point| edit_manifest(point, |manifest| manifest.contract.metric = Metric::L2),
    },
    Canary {
        check: "vector.contract",
        damage: "the index was built by another version of the model",
        apply: |_, point| {
            edit_manifest(point, |manifest| "2".clone_into(&mut manifest.contract.embed_model_ver))
        },
    },
];

/// Runs them all inside `scratch`.
pub(crate) fn run(scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
    let place = tempfile::tempdir_in(scratch)
        .map_err(|error| Failure::io("failed to make a directory for the canaries", error))?;
    let root = place.path().join("sample");
    make_sample(place.path(), &root)
        .map_err(|error| Failure::io("failed to make the sample of the canaries", error))?;
    let adapter = VectorAdapter::new(VectorOptions {
        path: root,
        contract: place.path().join("contract.json"),
        metric: Metric::Cosine,
        gold: None,
    });
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let context = CaptureContext { clock: &clock, spool: place.path(), kept: None, known: &[] };
    let recording = Recording::record(adapter.capture(&context)?, &Findings::new())?;
    canary::run(&adapter, &recording, &CANARIES, place.path())
}

/// A record whose vector has this length, and a direction of its own.
fn record(at: usize, length: f64) -> Value {
    let text = format!("text of {at:02}");
    let turn = f64::from(u32::try_from(at).unwrap_or_default()) * 0.4;
    let vector = [turn.cos() * 0.6, turn.sin() * 0.6, 0.8].map(|value| value * length);
    json!({
        "id": format!("c{at:02}"), "vector": vector, "text": text, "doc_id": format!("d{}", at % 3),
        "section_id": format!("s{at}"), "offsets": [at * 10, at * 10 + text.len()], "rev": "1",
    })
}

fn make_sample(place: &Path, root: &Path) -> io::Result<()> {
    fs::create_dir(root)?;
    let half = |range: std::ops::Range<usize>| joined(&range.map(|at| record(at, 1.0)).collect::<Vec<_>>());
    crashsafe::write_new(&root.join(SHARD), half(0..RECORDS_COUNT / 2).as_bytes())?;
    crashsafe::write_new(&root.join(OTHER), half(RECORDS_COUNT / 2..RECORDS_COUNT).as_bytes())?;
    crashsafe::write_new(&place.join("contract.json"), sample_contract(3).to_string().as_bytes())
}

/// What the owner of a sample declares.
pub(crate) fn sample_contract(dim: usize) -> Value {
    json!({
        "schema": "lifeboat.index-contract/v1", "index_family": "sample-v1", "corpus_rev": "1",
        "contract": {
            "metric": "cosine", "norm": "l2", "dim": dim, "index_type": "flat", "store_params": {},
            "embed_model_id": "sample", "embed_model_ver": "1", "pooling": "none", "tokenizer_ver": "1",
            "analyzer_id": "sample", "analyzer_conf": {}, "analyzer_fingerprint": Digest::of(b"sample"),
            "text_preproc": {"unicode_norm": "NFC", "lowercase": true, "strip_punct": false, "language": "und"},
            "chunk_schema_ver": "1",
            "chunk_recipe": {"window": 80, "overlap": 0, "boundary_markers": [], "block_rules": {}},
        },
        "rerank_conf": {"model": "none", "ver": "1", "cutoff": 0},
        "contracts": {"snippet_schema_ver": "1", "citation_schema_ver": "1", "schema_files": []},
    })
}

pub(crate) fn joined(lines: &[Value]) -> String {
    let mut text: String = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    text.push_str(if lines.is_empty() { "" } else { "\n" });
    text
}

/// Changes the records of a shard.
fn edit_of(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<Value>)) -> io::Result<()> {
    let path = dir.join(name);
    let content = fs::read_to_string(&path)?;
    let lines = content.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let mut lines = lines.map_err(io::Error::other)?;
    change(&mut lines);
    let mut file = OpenOptions::new().write(true).truncate(true).open(&path)?;
    file.write_all(joined(&lines).as_bytes())
}

fn edit(dir: &Path, change: impl FnOnce(&mut Vec<Value>)) -> io::Result<()> {
    edit_of(dir, SHARD, change)
}

/// Changes the first record.
fn change(dir: &Path, change: impl FnOnce(&mut Value)) -> io::Result<()> {
    edit(dir, |lines| lines.first_mut().into_iter().for_each(change_once(change)))
}

fn change_once(change: impl FnOnce(&mut Value)) -> impl FnMut(&mut Value) {
    let mut change = Some(change);
    move |value| {
        if let Some(change) = change.take() {
            change(value);
        }
    }
}

/// Changes the text of a shard.
fn change_text(dir: &Path, change: impl FnOnce(String) -> String) -> io::Result<()> {
    let content = change(fs::read_to_string(dir.join(SHARD))?);
    let mut file = OpenOptions::new().write(true).truncate(true).open(dir.join(SHARD))?;
    file.write_all(content.as_bytes())
}

pub(crate) fn put(record: &mut Value, key: &str, value: Value) {
    if let Some(fields) = record.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

fn set(lines: &mut [Value], at: usize, key: &str, value: Value) {
    if let Some(line) = lines.get_mut(at) {
        put(line, key, value);
    }
}

fn text(lines: &[Value], at: usize) -> Value {
    lines.get(at).and_then(|line| line.get("text")).cloned().unwrap_or_default()
}

fn nudge(record: &mut Value, by: f64) {
    let first = record.pointer("/vector/0").and_then(Value::as_f64).unwrap_or_default();
    if let Some(component) = record.pointer_mut("/vector/0") {
        *component = json!(first + by);
    }
}

fn same(dir: &Path, name: &str) -> io::Result<()> {
    edit_of(dir, name, |lines| {
        for line in lines {
            put(line, "vector", json!([1.0, 0.0, 0.0]));
        }
    })
}

/// Changes the manifest so that it holds by itself.
pub(crate) fn edit_manifest(
    point: &mut Recording,
    change: impl FnOnce(&mut IndexManifest),
) -> io::Result<()> {
    let path = below(MANIFEST).map_err(io::Error::other)?;
    let (Some(entry), Some(content)) = (point.entry(&path).cloned(), point.content(&path)) else {
        return Err(io::Error::other("the sample has no manifest"));
    };
    let mut manifest: IndexManifest = serde_json::from_slice(content).map_err(io::Error::other)?;
    change(&mut manifest);
    manifest.config_hash = config_hash(&manifest.contract).map_err(io::Error::other)?;
    manifest.index_hash = index_hash(manifest.config_hash, manifest.corpus_root);
    point.put(entry, serde_json::to_vec(&manifest).map_err(io::Error::other)?);
    Ok(())
}

/// Exchanges the vectors of two records in the list; every line stays well formed.
fn edit_list(point: &mut Recording) -> io::Result<()> {
    let path = below(RECORDS).map_err(io::Error::other)?;
    let (Some(entry), Some(content)) = (point.entry(&path).cloned(), point.content(&path)) else {
        return Err(io::Error::other("the sample has no list of records"));
    };
    let text = String::from_utf8_lossy(content);
    let kept: Vec<&str> = text.lines().skip(1).collect();
    point.put(entry, format!("{}\n", kept.join("\n")).into_bytes());
    Ok(())
}
