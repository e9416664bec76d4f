//! Measures one probe: six answers of the index under test in, a row of the board and its detail out.
//!
//! The index ranks; the pinned embedder measures. A board that an index made with its own vectors would call it sound
//! whatever it found.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;

use crate::ProbeError;
use crate::citation::meets;
use crate::coverage::{Piece, Place, Section, coverage};
use crate::gold::{Anchor, GoldProbe};
use crate::lambda::{ProbeLambda, RunFacts};
use crate::number::{Sample, finite, share};
use crate::profile::{PARAPHRASES_COUNT, Profile, RUNS_COUNT, SEEDS_COUNT};
use crate::row::{BoardRow, RunHit, RunRow, RunSet};
use crate::seeds::Jitter;
use crate::span::{Span, words};
use crate::stress::{Embedded, Flaw, Stress, centre};

/// Makes vectors of texts: pinned, with its own identity, apart from the index under test.
pub trait Embedder {
    /// Its name.
    fn id(&self) -> &str;
    /// The hash of its parameters.
    fn hash(&self) -> Digest;
    /// One vector per text, all of one length. A text without a known word gets zeros.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ProbeError>;
}

/// A snippet that the index gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Its id.
    pub snippet_id: String,
    /// The section it says it is from.
    pub section_id: String,
    /// Its document.
    pub place: Place,
    /// Its bytes.
    pub span: Span,
    /// Its text.
    pub text: String,
    /// The store's own score.
    pub score: f64,
    /// Its place before a reranker, from 1.
    pub k_pos: u64,
}

/// What the index answered to one paraphrase with one seed.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Retrieval {
    /// The seed it was asked with.
    pub variation: u64,
    /// How the question was typed differently.
    pub jitter: Option<Jitter>,
    /// What was found, in its final order.
    pub hits: Vec<Hit>,
    /// How long it took.
    pub latency_ms: Option<u64>,
    /// The error it ended in.
    pub error: Option<String>,
    /// The code of the rule that its citations break.
    pub citation_fault: Option<String>,
}

/// What is known of the question.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The gold question; it has an answer.
    pub gold: &'a GoldProbe,
    /// The sections that a complete answer draws on, with their words.
    pub required: Vec<Section>,
    /// The text of the decoy section.
    pub decoy: Option<&'a str>,
}

/// What all rows of a board have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct BoardContext {
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
    pub index_hash: Digest,
    /// The reranker.
    pub rerank_conf: String,
    /// The gold set.
    pub gold_version: Digest,
    /// How many snippets are retrieved.
    pub k: u64,
    /// The upper quartile of the store's own rank-1 scores on the baseline, when there is one.
    pub baseline_score_q3: Option<f64>,
}

/// One probe, measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Its row.
    pub row: BoardRow,
    /// Its runs, paraphrase by paraphrase.
    pub runs: Vec<RunRow>,
    /// Its states.
    pub lambda: ProbeLambda,
    /// The share of its runs whose rank-1 snippet holds the anchor.
    pub citation_match: f64,
    /// The store is sure, and wrong; `None` without a baseline to tell.
    pub similar_but_wrong: Option<bool>,
}

/// Vectors by text, made in one call.
struct Vectors(BTreeMap<String, Vec<f32>>);

impl Vectors {
    fn of(embedder: &dyn Embedder, texts: BTreeSet<&str>) -> Result<Self, ProbeError> {
        let texts: Vec<&str> = texts.into_iter().collect();
        let vectors = embedder.embed(&texts)?;
        if vectors.len() != texts.len() {
            let why = format!("it gave {} vectors for {} texts", vectors.len(), texts.len());
            return Err(ProbeError::invalid(format!("embedder `{}`", embedder.id()), why));
        }
        let dim = vectors.first().map_or(0, Vec::len);
        for vector in &vectors {
            if vector.len() != dim {
                let what = "the measuring embedder".to_owned();
                return Err(ProbeError::Dimension { what, found: vector.len(), expected: dim });
            }
            for value in vector {
                finite("a component of a measuring vector", f64::from(*value))?;
            }
        }
        Ok(Self(texts.into_iter().map(str::to_owned).zip(vectors).collect()))
    }

    fn get<'a>(&'a self, text: &'a str) -> Embedded<'a> {
        Embedded { text, vector: self.0.get(text).map_or(&[], Vec::as_slice) }
    }
}

/// One run with what it needs to be judged.
struct Run<'a> {
    retrieval: &'a Retrieval,
    hits: &'a [Hit],
    facts: RunFacts,
    to_context: Option<f64>,
    to_anchor: f64,
    to_decoy: Option<f64>,
    flaw: Option<Flaw>,
}

/// Measures one probe. `retrievals` are those of the first paraphrase by seed, then of the second, then of the third.
pub fn measure(
    question: &Question<'_>,
    retrievals: &[Retrieval],
    embedder: &dyn Embedder,
    context: &BoardContext,
    profile: &Profile,
) -> Result<Measured, ProbeError> {
    let probe = question.gold.qid.as_str();
    let Some(anchor) = &question.gold.anchor else {
        return Err(ProbeError::invalid(
            format!("gold question `{probe}`"),
            "it has no anchor to measure by",
        ));
    };
    if retrievals.len() != RUNS_COUNT || question.gold.paraphrases.len() != PARAPHRASES_COUNT {
        return Err(ProbeError::Runs { probe: probe.to_owned(), found: retrievals.len() });
    }
    let vectors = Vectors::of(embedder, texts(question, anchor, retrievals))?;
    let asked = question.gold.paraphrases.iter().flat_map(|text| [text.as_str(); SEEDS_COUNT]);
    let runs = retrievals
        .iter()
        .zip(asked)
        .map(|(retrieval, asked)| judge(question, anchor, retrieval, asked, &vectors, context))
        .collect::<Result<Vec<_>, _>>()?;
    let facts: Vec<RunFacts> = runs.iter().map(|run| run.facts.clone()).collect();
    let lambda = ProbeLambda::decide(probe, &facts, profile)?;
    let row = row(question, &runs, &lambda, embedder, context)?;
    let holds =
        |run: &&Run<'_>| run.hits.first().is_some_and(|hit| is_met(hit, anchor, &question.gold.revision));
    let citation_match = share(runs.iter().filter(holds).count() as u64, RUNS_COUNT as u64);
    let similar_but_wrong = similar_but_wrong(&runs, &row, context, profile)?;
    let numbered = runs.iter().zip(&lambda.runs).enumerate();
    let runs = numbered.map(|(at, (run, state))| run_row(probe, at, run, *state, context)).collect();
    Ok(Measured { row, runs, lambda, citation_match, similar_but_wrong })
}

fn is_met(hit: &Hit, anchor: &Anchor, revision: &str) -> bool {
    hit.place.doc_id == anchor.doc_id && hit.place.rev == revision && meets(hit.span, anchor.offsets)
}

fn texts<'a>(
    question: &'a Question<'_>,
    anchor: &'a Anchor,
    retrievals: &'a [Retrieval],
) -> BTreeSet<&'a str> {
    let snippets = retrievals.iter().flat_map(|retrieval| &retrieval.hits).map(|hit| hit.text.as_str());
    let asked = question.gold.paraphrases.iter().map(String::as_str);
    let others = [Some(anchor.text.as_str()), question.decoy].into_iter().flatten();
    snippets.chain(asked).chain(others).collect()
}

fn judge<'a>(
    question: &Question<'_>,
    anchor: &Anchor,
    retrieval: &'a Retrieval,
    asked: &str,
    vectors: &Vectors,
    context: &BoardContext,
) -> Result<Run<'a>, ProbeError> {
    let limit = usize::try_from(context.k).unwrap_or(usize::MAX);
    let hits = retrieval.hits.get(..limit).unwrap_or(&retrieval.hits);
    for hit in hits {
        finite("the score of a snippet", hit.score)?;
    }
    let broken = if retrieval.error.is_some() {
        Some(Flaw::QueryFailed)
    } else if retrieval.citation_fault.is_some() {
        Some(Flaw::InvalidCitation)
    } else {
        None
    };
    let Some(first) = hits.first().filter(|_| retrieval.error.is_none()) else {
        let flaw = broken.unwrap_or(Flaw::EmptyRetrieval);
        let facts =
            RunFacts { is_broken: broken.is_some(), sections: BTreeSet::new(), coverage: 0.0, ds: 1.0 };
        let flaw = Some(flaw);
        return Ok(Run {
            retrieval,
            hits: &[],
            facts,
            to_context: None,
            to_anchor: 1.0,
            to_decoy: None,
            flaw,
        });
    };
    let stress = Stress::between(vectors.get(asked), vectors.get(&first.text))?;
    let to_anchor = Stress::between(vectors.get(&first.text), vectors.get(&anchor.text))?.gated;
    let to_decoy = question.decoy.map(|decoy| Stress::between(vectors.get(&first.text), vectors.get(decoy)));
    let all: Vec<&[f32]> = hits.iter().map(|hit| vectors.get(&hit.text).vector).collect();
    let to_context = match centre(&all)? {
        Some(centre) => {
            let middle = Embedded { text: "", vector: &centre };
            Some(Stress::between(vectors.get(asked), middle)?.gated)
        }
        None => None,
    };
    let facts = RunFacts {
        is_broken: broken.is_some(),
        sections: hits.iter().map(|hit| hit.section_id.clone()).collect(),
        coverage: coverage(&question.required, &hits.iter().map(piece).collect::<Vec<_>>())?.share(),
        ds: stress.gated,
    };
    let to_decoy = to_decoy.transpose()?.map(|stress| stress.gated);
    Ok(Run { retrieval, hits, facts, to_context, to_anchor, to_decoy, flaw: broken.or(stress.flaw) })
}

fn piece(hit: &Hit) -> Piece {
    let words = words(&hit.text, hit.span.start());
    Piece { section_id: hit.section_id.clone(), place: hit.place.clone(), span: hit.span, words }
}

fn row(
    question: &Question<'_>,
    runs: &[Run<'_>],
    lambda: &ProbeLambda,
    embedder: &dyn Embedder,
    context: &BoardContext,
) -> Result<BoardRow, ProbeError> {
    let ds = Sample::new("ΔS", runs.iter().map(|run| run.facts.ds))?;
    let covered = Sample::new("coverage", runs.iter().map(|run| run.facts.coverage))?;
    let ds_r_anchor = Sample::new("ΔS to the anchor", runs.iter().map(|run| run.to_anchor))?.median();
    let cited = runs.iter().filter_map(|run| run.hits.first());
    let citations: BTreeSet<String> =
        cited.map(|hit| format!("doc:{}#{}", hit.place.doc_id, hit.section_id)).collect();
    Ok(BoardRow {
        probe_id: question.gold.qid.clone(),
        question: question.gold.question.clone(),
        expected_section: question.gold.expected_section.clone(),
        ds_q_r: ds.median(),
        coverage: covered.median(),
        lambda_state: lambda.state,
        citations: citations.into_iter().collect(),
        index_family: context.index_family.clone(),
        retriever_metric: context.retriever_metric.clone(),
        analyzer: context.analyzer.clone(),
        run_set: context.run_set,
        ts: context.ts.clone(),
        index_hash: context.index_hash,
        rerank_conf: context.rerank_conf.clone(),
        embedder_id: embedder.id().to_owned(),
        embedder_hash: embedder.hash(),
        gold_version: context.gold_version,
        k: context.k,
        conv: lambda.conv(),
        flip_count: lambda.flip_count,
        ds_r_anchor,
        ds_max: ds.median().max(ds_r_anchor),
        ds_q_r_worst: ds.max(),
        coverage_worst: covered.min(),
        reason: runs.iter().filter_map(|run| run.flaw).min(),
    })
}

/// The store gives one of its best scores to what is not the answer.
fn similar_but_wrong(
    runs: &[Run<'_>],
    row: &BoardRow,
    context: &BoardContext,
    profile: &Profile,
) -> Result<Option<bool>, ProbeError> {
    let Some(q3) = context.baseline_score_q3 else { return Ok(None) };
    finite("the baseline's upper quartile of scores", q3)?;
    let scores: Vec<f64> = runs.iter().filter_map(|run| run.hits.first()).map(|hit| hit.score).collect();
    if scores.is_empty() {
        return Ok(Some(false));
    }
    let is_sure = Sample::new("the score of a snippet", scores)?.median() >= q3;
    let margins: Vec<f64> =
        runs.iter().filter_map(|run| run.to_decoy.map(|decoy| decoy - run.to_anchor)).collect();
    let is_near_decoy = !margins.is_empty()
        && Sample::new("the margin to the decoy", margins)?.median() < profile.decoy_margin_min;
    Ok(Some(is_sure && (row.coverage < profile.coverage_suspect_below || is_near_decoy)))
}

fn run_row(probe: &str, at: usize, run: &Run<'_>, state: crate::Lambda, context: &BoardContext) -> RunRow {
    let hit = |(hit, place): (&Hit, u64)| RunHit {
        snippet_id: hit.snippet_id.clone(),
        section_id: hit.section_id.clone(),
        score: hit.score,
        k_pos: hit.k_pos,
        k_final: place,
    };
    RunRow {
        probe_id: probe.to_owned(),
        paraphrase: (at / SEEDS_COUNT) as u64 + 1,
        variation: run.retrieval.variation,
        k: context.k,
        jitter: run.retrieval.jitter,
        topk: run.hits.iter().zip(1..).map(hit).collect(),
        ds_q_r: run.facts.ds,
        ds_q_ctx: run.to_context,
        ds_r_anchor: run.to_anchor,
        ds_r_decoy: run.to_decoy,
        coverage: run.facts.coverage,
        lambda: state,
        latency_ms: run.retrieval.latency_ms,
        reason: run.flaw,
        err: run.retrieval.error.clone(),
    }
}
