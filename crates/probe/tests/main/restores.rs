//! A restored index of real text: a clean restore serves, and each way in which it can be wrong is caught by its own check.
//!
//! The text is the documentation inside the sources of locked packages. The index has its own embedder, apart from the one
//! that measures; questions are drafted and curated on the sound index.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::OnceLock;

use lifeboat_base::digest::Digest;
use lifeboat_probe::{
    Action, Board, BoardContext, BoardVerdict, CorpusRoot, Counts, DraftSection, Embedder, Entry, GateName,
    GoldSet, Hit, Identity, Lsa, Measured, Metric, Normalisation, Place, Profile, Question, Retrieval,
    RunSet, Searcher, Section, Span, VectorCensus, VectorFault, VectorRoot, config_hash, curate, decide,
    draft, index_hash, measure, words,
};

/// Packages whose documentation is the corpus.
const PACKAGES: [&str; 5] = ["jiff", "clap_builder", "regex", "regex-syntax", "proptest"];
const WINDOW: usize = 80;
const DRAFTS: usize = 240;

/// A corpus, an index over it, and questions that were curated on that index.
struct World {
    sections: BTreeMap<String, DraftSection>,
    entries: Vec<Entry>,
    searching: Lsa,
    measuring: Lsa,
    gold: GoldSet,
}

fn package_folders() -> Vec<std::path::PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .output();
    let metadata: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let folder = |name: &&str| {
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == **name).unwrap();
        std::path::PathBuf::from(package["manifest_path"].as_str().unwrap()).parent().unwrap().join("src")
    };
    PACKAGES.iter().map(folder).collect()
}

fn rust_files(folder: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    let mut inside: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inside.sort();
    for path in inside {
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The doc comments of a file, each one section; code in them is left out.
fn sections_of(doc_id: &str, text: &str) -> Vec<DraftSection> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    let (mut block, mut in_code) = (String::new(), false);
    for line in text.lines().chain([""]) {
        let line = line.trim_start();
        if let Some(doc) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) {
            if doc.trim_start().starts_with("```") {
                in_code = !in_code;
            } else if !in_code {
                block.push_str(doc.trim());
                block.push('\n');
            }
        } else if !block.is_empty() && !line.starts_with("#[") {
            let item: String = line.split(['(', '{', ';', '=']).next().unwrap_or_default().trim().to_owned();
            blocks.push((item, std::mem::take(&mut block)));
            in_code = false;
        }
    }
    let mut start = 0u64;
    let mut sections = Vec::new();
    for (at, (item, text)) in blocks.into_iter().enumerate() {
        let name = item.split_whitespace().last().unwrap_or_default().replace(['_', ':', '<', '>'], " ");
        let first = text.split(['.', '\n']).next().unwrap_or_default();
        sections.push(DraftSection {
            section_id: format!("{doc_id}#{at:04}"),
            doc_id: doc_id.to_owned(),
            rev: "r1".to_owned(),
            heading: format!("{} {first}", name.trim()),
            start,
            text: text.clone(),
        });
        start += text.len() as u64 + 1;
    }
    sections
}

fn chunks(section: &DraftSection) -> Vec<Entry> {
    let all = words(&section.text, 0);
    let cut = |at: usize| all.get(at).map_or(section.text.len() as u64, |word| word.start());
    let one = |(number, group): (usize, &[Span])| {
        let from = if number == 0 { 0 } else { group[0].start() };
        let to = cut(number * WINDOW + group.len());
        let (start, end) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
        Entry {
            snippet_id: format!("{}#{number:03}", section.section_id),
            section_id: section.section_id.clone(),
            place: Place { doc_id: section.doc_id.clone(), rev: section.rev.clone() },
            span: Span::new("a chunk", section.start + from, section.start + to).unwrap(),
            text: section.text[start..end].to_owned(),
            vector: Vec::new(),
        }
    };
    all.chunks(WINDOW).enumerate().map(one).collect()
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let mut files = Vec::new();
        for folder in package_folders() {
            rust_files(&folder, &mut files);
        }
        let mut seen = BTreeSet::new();
        let mut sections = BTreeMap::new();
        for (at, file) in files.iter().enumerate() {
            let text = std::fs::read_to_string(file).unwrap();
            for section in sections_of(&format!("f{at:03}"), &text) {
                // The same comment on ten types is one text.
                let is_new = seen.insert(section.text.clone());
                if words(&section.text, 0).len() >= 25 && is_new {
                    sections.insert(section.section_id.clone(), section);
                }
            }
        }
        let mut entries: Vec<Entry> = sections.values().flat_map(chunks).collect();
        let headed: Vec<String> = entries.iter().map(|entry| headed(&sections, entry)).collect();
        let texts: Vec<&str> = headed.iter().map(String::as_str).collect();
        let searching = Lsa::fit(&texts, 160).unwrap();
        let measuring = Lsa::fit(&texts, 96).unwrap();
        for (entry, text) in entries.iter_mut().zip(&texts) {
            entry.vector = searching.vector(text);
        }
        entries.retain(|entry| entry.vector.iter().any(|value| *value != 0.0));
        let all: Vec<DraftSection> = sections.values().cloned().collect();
        let drafts = draft(&all, DRAFTS).unwrap();
        let mut world = World { sections, entries, searching, measuring, gold: drafts };
        let rows: Vec<_> =
            world.measured(&world.entries, &Index::default()).into_iter().map(|probe| probe.row).collect();
        let curated =
            curate(&world.gold, &rows, &BTreeMap::new(), &BTreeSet::new(), &Profile::default()).unwrap();
        let kept: Vec<_> = curated.kept.probes().take(80).cloned().collect();
        println!(
            "{} sections, {} chunks, {} drafts, {} let in",
            world.sections.len(),
            world.entries.len(),
            DRAFTS,
            curated.kept.probes().len()
        );
        world.gold = GoldSet::new(kept).unwrap();
        world
    })
}

fn headed(sections: &BTreeMap<String, DraftSection>, entry: &Entry) -> String {
    format!("{}\n{}", sections[&entry.section_id].heading, entry.text)
}

/// How an index under test is asked.
struct Index {
    metric: Metric,
    seeds: [u64; 2],
    /// What is done to a question before it is embedded.
    analyse: fn(&str) -> String,
    /// What is done to the hits.
    rerank: fn(&mut Vec<Hit>),
}

impl Default for Index {
    fn default() -> Self {
        Self { metric: Metric::Cosine, seeds: [1, 2], analyse: str::to_owned, rerank: |_hits| {} }
    }
}

impl World {
    fn measured(&self, entries: &[Entry], index: &Index) -> Vec<Measured> {
        let probes: Vec<_> = self.gold.probes().collect();
        let asked = probes.iter().flat_map(|probe| &probe.paraphrases);
        let queries = asked.map(|text| self.searching.vector(&(index.analyse)(text))).collect();
        let mut searcher = Searcher::new(queries, 20, index.metric).unwrap();
        for entry in entries {
            searcher.offer(entry).unwrap();
        }
        let found = searcher.finish();
        let context = BoardContext {
            index_family: "docs-v1".to_owned(),
            retriever_metric: index.metric.word().to_owned(),
            analyzer: "terms".to_owned(),
            run_set: RunSet::After,
            ts: "2026-11-22T02:00:00Z".to_owned(),
            index_hash: Digest::of(b"index"),
            rerank_conf: "none".to_owned(),
            gold_version: Digest::of(b"gold"),
            k: 10,
            baseline_score_q3: None,
        };
        let measured = probes.iter().zip(found.chunks(3)).map(|(gold, hits)| {
            let retrieval = |hits: &Vec<Hit>, seed| {
                let mut hits = hits.clone();
                (index.rerank)(&mut hits);
                // What is measured is what a reader sees: heading and text.
                for hit in &mut hits {
                    hit.text = self.shown(hit);
                }
                Retrieval { variation: seed, hits, ..Retrieval::default() }
            };
            let runs: Vec<Retrieval> =
                hits.iter().flat_map(|hits| index.seeds.map(|seed| retrieval(hits, seed))).collect();
            let section = &self.sections[&gold.expected_section];
            let span =
                Span::new("a section", section.start, section.start + section.text.len() as u64).unwrap();
            let required = Section {
                section_id: section.section_id.clone(),
                place: Place { doc_id: section.doc_id.clone(), rev: section.rev.clone() },
                spans: vec![span],
                words: words(&section.text, section.start),
            };
            let question = Question { gold, required: vec![required], decoy: None };
            measure(&question, &runs, &self.measuring, &context, &Profile::default()).unwrap()
        });
        measured.collect()
    }

    fn shown(&self, hit: &Hit) -> String {
        format!("{}\n{}", self.sections[&hit.section_id].heading, hit.text)
    }

    fn board(&self, entries: &[Entry], index: &Index) -> Board {
        let board = Board::of(self.measured(entries, index), &Profile::default()).unwrap();
        let verdict = &board.verdict;
        println!(
            "{:?}: ds {:.3} p90 {:.3}, coverage {:.3} / {:.3}, conv {:.3}, {:?}, failed {:?}",
            verdict.verdict,
            verdict.ds.median,
            verdict.ds.p90,
            verdict.coverage.mean,
            verdict.coverage.pass_rate,
            verdict.lambda.conv_rate,
            verdict.lambda.states,
            failed(&board)
        );
        board
    }
}

fn failed(board: &Board) -> Vec<GateName> {
    board.verdict.failed_gates.iter().map(|gate| gate.name).collect()
}

#[test]
fn a_corpus_of_real_text_is_large_enough_and_its_embedder_tells_texts_apart() {
    let world = world();
    assert!(world.entries.len() >= 2_000, "{}", world.entries.len());
    assert!(world.gold.answerable_count() >= 60, "{}", world.gold.answerable_count());
    let texts: Vec<&str> = world.entries.iter().map(|entry| entry.text.as_str()).collect();
    let pairs = world.measuring.random_pairs(&texts, 1_000, 1).unwrap();
    println!("random pairs: p5 {:.3}, median {:.3}", pairs.percentile(0.05), pairs.median());
    assert!(pairs.percentile(0.05) >= lifeboat_probe::RANDOM_PAIR_P5_MIN);
}

#[test]
fn a_clean_restore_serves_without_a_rebuild() {
    let world = world();
    let board = world.board(&world.entries, &Index::default());
    assert_eq!(board.verdict.verdict, BoardVerdict::Pass);
    assert_eq!(decide(&Identity::default(), Some(&board), &Profile::default()).action, Action::Serve);
    let mut turned = world.entries.clone();
    turned.reverse();
    let other = world.board(&turned, &Index { seeds: [7, 8], ..Index::default() });
    assert_eq!(board.rows, other.rows);
}

#[test]
fn a_rebuild_from_the_texts_reaches_the_same_hashes_and_shifted_ids_do_not() {
    let world = world();
    let roots = |entries: &[Entry]| {
        let (mut corpus, mut vectors) = (CorpusRoot::default(), VectorRoot::default());
        for entry in entries {
            corpus.add(&entry.snippet_id, &entry.text, &entry.section_id, entry.span).unwrap();
            vectors.add(&entry.snippet_id, &entry.vector).unwrap();
        }
        let config =
            config_hash(&serde_json::json!({"metric": "cosine", "dim": world.searching.rank()})).unwrap();
        (index_hash(config, corpus.finish()), vectors.finish())
    };
    let mut rebuilt: Vec<Entry> = world.sections.values().flat_map(chunks).collect();
    for entry in &mut rebuilt {
        entry.vector = world.searching.vector(&headed(&world.sections, entry));
    }
    rebuilt.retain(|entry| entry.vector.iter().any(|value| *value != 0.0));
    assert_eq!(roots(&rebuilt), roots(&world.entries));
    let mut shifted = rebuilt.clone();
    for (entry, next) in shifted.iter_mut().zip(rebuilt.iter().cycle().skip(1)) {
        entry.snippet_id.clone_from(&next.snippet_id);
    }
    shifted.sort_by(|a, b| a.snippet_id.cmp(&b.snippet_id));
    assert_ne!(roots(&shifted), roots(&rebuilt));
}

#[test]
fn another_analyzer_is_caught_by_the_board() {
    let world = world();
    let halved = |text: &str| {
        let cut = text.split_whitespace().map(|word| word.chars().take(5).collect::<String>());
        cut.collect::<Vec<_>>().join(" ")
    };
    let board = world.board(&world.entries, &Index { analyse: halved, ..Index::default() });
    assert_eq!(board.verdict.verdict, BoardVerdict::Fail);
    assert!(failed(&board).contains(&GateName::Lambda));
}

#[test]
fn missing_chunks_are_caught_by_the_board_when_many_and_by_counts_always() {
    let world = world();
    let without = |share: u8| {
        let bar = u64::from(share) * 256 / 100;
        let stays = |entry: &&Entry| u64::from(Digest::of(entry.snippet_id.as_bytes()).as_bytes()[0]) >= bar;
        world.entries.iter().filter(stays).cloned().collect::<Vec<_>>()
    };
    let third = world.board(&without(30), &Index::default());
    assert_eq!(third.verdict.verdict, BoardVerdict::Fail);
    let few = without(5);
    world.board(&few, &Index::default());
    let counts = |chunks: usize| Counts { docs: 1, chunks: chunks as u64, vectors: chunks as u64 };
    let identity =
        Identity { counts: Some((counts(world.entries.len()), counts(few.len()))), ..Identity::default() };
    let sound = world.board(&world.entries, &Index::default());
    let decision = decide(&identity, Some(&sound), &Profile::default());
    assert_eq!((decision.action, decision.reasons[0].field.as_str()), (Action::Backfill, "counts"));
}

#[test]
fn vectors_of_another_basis_and_ids_that_shifted_fail_the_board() {
    let world = world();
    let mut turned = world.entries.clone();
    for entry in &mut turned {
        entry.vector.rotate_right(7);
    }
    assert_eq!(world.board(&turned, &Index::default()).verdict.verdict, BoardVerdict::Fail);
    let mut shifted = world.entries.clone();
    for (entry, next) in shifted.iter_mut().zip(world.entries.iter().cycle().skip(1)) {
        entry.vector.clone_from(&next.vector);
    }
    assert_eq!(world.board(&shifted, &Index::default()).verdict.verdict, BoardVerdict::Fail);
}

#[test]
fn a_reranker_that_turns_the_order_round_fails_the_board() {
    let world = world();
    let board = world.board(&world.entries, &Index { rerank: |hits| hits.reverse(), ..Index::default() });
    assert_eq!(board.verdict.verdict, BoardVerdict::Fail);
}

#[test]
fn another_metric_on_vectors_of_length_one_changes_nothing_and_raw_vectors_are_caught_by_their_norms() {
    let world = world();
    let cosine = world.board(&world.entries, &Index::default());
    let inner = world.board(&world.entries, &Index { metric: Metric::InnerProduct, ..Index::default() });
    assert_eq!(cosine.verdict.ds, inner.verdict.ds);
    let mut raw = world.entries.clone();
    for entry in &mut raw {
        let factor = 0.5 + f32::from(Digest::of(entry.snippet_id.as_bytes()).as_bytes()[0]) / 170.0;
        entry.vector.iter_mut().for_each(|value| *value *= factor);
    }
    world.board(&raw, &Index { metric: Metric::InnerProduct, ..Index::default() });
    let mut census = VectorCensus::default();
    for entry in &raw {
        census.add(&entry.vector).unwrap();
    }
    let (dim, chunks) = (world.searching.rank() as u64, raw.len() as u64);
    let faults = census.finish().faults(dim, Metric::Cosine, Normalisation::L2, chunks, &Profile::default());
    assert!(matches!(faults.as_slice(), [VectorFault::Norm { .. }]), "{faults:?}");
    let identity = Identity { vector_faults: faults, ..Identity::default() };
    assert_eq!(decide(&identity, Some(&cosine), &Profile::default()).action, Action::RebuildWithEmbedding);
    assert_ne!(world.searching.hash(), world.measuring.hash());
}
