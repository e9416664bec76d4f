//! The canaries of the board: an index of made-up sections with a gold set of its own, and ways to spoil what it means.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{ManualClock, Timestamp};
use lifeboat_probe::{Lsa, Metric, USUAL_RANK_COUNT, shuffle};
use serde_json::{Value, json};

use super::adapter::{VectorAdapter, VectorOptions};
use super::canaries::{edit_manifest, joined, put, sample_contract};
use super::gold::{self, EMBEDDER, LOCK};
use crate::adapter::{Adapter, CanaryResult, CaptureContext, CheckState};
use crate::meaning::{BOARD, Probes};
use crate::recording::Recording;

const SHARD: &str = "a.jsonl";
const SECTIONS_COUNT: u64 = 100;
const WORDS_COUNT: u64 = 160;
/// Different words of a section.
const OWN_COUNT: usize = 9;

type Spoil = fn(&Path, &mut Recording) -> io::Result<()>;

const CANARIES: [(&str, Spoil); 7] = [
    ("every vector is that of the next record", |dir, _| {
        spoil(dir, |lines| {
            let mut vectors: Vec<Value> = lines.iter().map(vector).collect();
            vectors.rotate_left(1);
            lines.iter_mut().zip(vectors).for_each(|(line, vector)| put(line, "vector", vector));
        })
    }),
    ("all vectors are the same", |dir, _| {
        spoil(dir, |lines| {
            let first = lines.first().map(vector).unwrap_or_default();
            for line in lines {
                put(line, "vector", first.clone());
            }
        })
    }),
    ("the vectors are of another basis", |dir, _| {
        spoil(dir, |lines| {
            for line in lines {
                if let Some(components) = line.get_mut("vector").and_then(Value::as_array_mut) {
                    components.rotate_right(7);
                }
            }
        })
    }),
    ("the index is empty", |dir, _| spoil(dir, Vec::clear)),
    ("half of the records are missing", |dir, _| {
        spoil(dir, |lines| {
            let mut at = 0;
            lines.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        })
    }),
    ("the index is of another embedder", |_, point| {
        edit_manifest(point, |manifest| "another".clone_into(&mut manifest.contract.embed_model_ver))
    }),
    ("the lock of the gold set is edited", |_, point| {
        let path = gold::path(LOCK).map_err(io::Error::other)?;
        let (Some(entry), Some(content)) = (point.entry(&path).cloned(), point.content(&path)) else {
            return Err(io::Error::other("the sample has no lock"));
        };
        let content = [content, b" "].concat();
        point.put(entry, content);
        Ok(())
    }),
];

/// Runs them all inside `scratch`.
pub(crate) fn run(scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
    let place = tempfile::tempdir_in(scratch)
        .map_err(|error| Failure::io("failed to make a directory for the canaries", error))?;
    let (adapter, point) = sample(place.path())?;
    let good = state(&adapter, &point, place.path(), |_, _| Ok(()))?;
    let mut results = Vec::new();
    for (damage, spoil) in CANARIES {
        let bad = state(&adapter, &point, place.path(), spoil)?;
        let caught = good == CheckState::Passed && bad == CheckState::Failed;
        results.push(CanaryResult { check: BOARD.to_owned(), damage: damage.to_owned(), caught });
    }
    Ok(results)
}

/// An index with a curated gold set, captured.
fn sample(place: &Path) -> Result<(VectorAdapter, Recording), Failure> {
    let (index, gold) = (place.join("index"), place.join("gold"));
    let failed = |error| Failure::io("failed to make the sample of the canaries", error);
    let mut lines: Vec<Value> = (0..SECTIONS_COUNT).map(section).collect();
    let texts: Vec<&str> = lines.iter().filter_map(|line| line.get("text")?.as_str()).collect();
    let model = Lsa::fit(&texts, USUAL_RANK_COUNT)?;
    let vectors: Vec<Vec<f32>> = texts.iter().map(|text| model.vector(text)).collect();
    lines.iter_mut().zip(vectors).for_each(|(line, vector)| put(line, "vector", json!(vector)));
    let mut contract = sample_contract(model.rank());
    for (key, value) in [("embed_model_id", "lsa-v1".to_owned()), ("embed_model_ver", model_version(&model))]
    {
        if let Some(field) = contract.pointer_mut(&format!("/contract/{key}")) {
            *field = json!(value);
        }
    }
    let model = model.to_bytes()?;
    let written = (|| {
        fs::create_dir(&index)?;
        fs::create_dir(&gold)?;
        crashsafe::write_new(&index.join(SHARD), joined(&lines).as_bytes())?;
        crashsafe::write_new(&place.join("contract.json"), contract.to_string().as_bytes())?;
        crashsafe::write_new(&gold.join(EMBEDDER), &model)
    })();
    written.map_err(failed)?;
    let adapter = VectorAdapter::new(VectorOptions {
        path: index,
        contract: place.join("contract.json"),
        metric: Metric::Cosine,
        gold: Some(gold),
    });
    let monitor = Findings::new();
    adapter.draft(usize::MAX, &monitor)?;
    let curated = adapter.curate(&monitor)?;
    if !curated.lacks.is_empty() {
        let what = format!("the gold set of the sample lacks: {}", curated.lacks.join("; "));
        return Err(Failure::new(FailureKind::Internal, what));
    }
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let context = CaptureContext { clock: &clock, spool: place, kept: None, known: &[] };
    let point = Recording::record(adapter.capture(&context)?, &monitor)?;
    Ok((adapter, point))
}

fn model_version(model: &Lsa) -> String {
    lifeboat_probe::Embedder::hash(model).to_string()
}

/// A section of words that other sections have too, each as often as chance has it.
fn section(at: u64) -> Value {
    let chance = Digest::of(format!("section {at}").as_bytes());
    let mut order: Vec<u64> = (0..WORDS_COUNT).collect();
    shuffle(&mut order, at);
    let own: Vec<String> = order.into_iter().take(OWN_COUNT).map(word).collect();
    let mut words: Vec<&str> = Vec::new();
    for (word, byte) in own.iter().zip(chance.as_bytes()) {
        words.extend(std::iter::repeat_n(word.as_str(), usize::from(3 + byte % 4)));
    }
    shuffle(&mut words, at + SECTIONS_COUNT);
    let text =
        words.chunks(OWN_COUNT).map(|line| format!("{}.", line.join(" "))).collect::<Vec<_>>().join(" ");
    let heading: Vec<&str> = own.iter().take(2).map(String::as_str).collect();
    json!({
        "id": format!("c{at:03}"), "text": text, "doc_id": format!("d{}", at % 9), "section_id": format!("s{at:03}"),
        "offsets": [at * 10_000, at * 10_000 + text.len() as u64], "rev": "1", "heading": heading.join(" "),
    })
}

/// A word that means nothing.
fn word(number: u64) -> String {
    const SYLLABLES: [&str; 13] =
        ["ba", "do", "fu", "ga", "ko", "lu", "ma", "no", "pu", "ra", "to", "vu", "za"];
    let syllable =
        |at: u64| SYLLABLES.get(usize::try_from(at % 13).unwrap_or_default()).copied().unwrap_or("x");
    format!("{}{}{}k", syllable(number), syllable(number / 13), syllable(number * 7 + 3))
}

fn vector(line: &Value) -> Value {
    line.get("vector").cloned().unwrap_or_default()
}

fn spoil(dir: &Path, change: impl FnOnce(&mut Vec<Value>)) -> io::Result<()> {
    let path = dir.join(SHARD);
    let content = fs::read_to_string(&path)?;
    let lines = content.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let mut lines = lines.map_err(io::Error::other)?;
    change(&mut lines);
    let mut file = OpenOptions::new().write(true).truncate(true).open(&path)?;
    file.write_all(joined(&lines).as_bytes())
}

fn state(
    adapter: &VectorAdapter,
    point: &Recording,
    scratch: &Path,
    spoil: Spoil,
) -> Result<CheckState, Failure> {
    let dir = tempfile::tempdir_in(scratch)
        .map_err(|error| Failure::io("failed to make a directory for a canary", error))?;
    let (monitor, mut point) = (Findings::new(), point.clone());
    adapter.restore(&point, point.facts(), dir.path(), &monitor)?;
    spoil(dir.path(), &mut point).map_err(|error| {
        Failure::with_source(FailureKind::Internal, "failed to damage the sample of a canary", error)
    })?;
    Ok(adapter.probe(&point, point.facts(), dir.path(), &monitor)?.0.state)
}
