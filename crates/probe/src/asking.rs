//! Asks an index every question of a gold set, in three wordings with two seeds, by exact search over its records.
//!
//! In: questions, then records in any order. Out: a board. Memory: twice k hits per question, whatever the size of the index.

use std::collections::BTreeMap;

use crate::ProbeError;
use crate::board::Board;
use crate::frozen::Queries;
use crate::gold::{GoldProbe, GoldSet};
use crate::inventory::Record;
use crate::manifest::Metric;
use crate::measure::{BoardContext, Embedder, Measured, Question, Retrieval, measure};
use crate::profile::Profile;
use crate::search::Searcher;
use crate::sections::GoldSections;
use crate::seeds::Jitter;

/// The seeds, and how each has a question typed. An exact index must not notice either.
const SEEDS: [(u64, Jitter); crate::profile::SEEDS_COUNT] = [(1, Jitter::Ws), (2, Jitter::Punct)];

/// Questions that were asked, before all records have been offered.
#[derive(Debug)]
pub struct Asking {
    searcher: Searcher,
    /// Per question and run, which query it is: two runs with one vector are one query.
    runs: Vec<usize>,
}

impl Asking {
    /// Makes the queries. A set without a question that has an answer is refused.
    pub fn new(
        set: &GoldSet,
        queries: &Queries<'_>,
        metric: Metric,
        profile: &Profile,
    ) -> Result<Self, ProbeError> {
        let (mut known, mut vectors, mut runs) = (BTreeMap::new(), Vec::new(), Vec::new());
        for probe in asked(set) {
            for text in &probe.paraphrases {
                for (_, jitter) in SEEDS {
                    let vector = queries.vector(text, &jitter.apply(text))?;
                    let bits: Vec<u32> = vector.iter().map(|value| value.to_bits()).collect();
                    runs.push(*known.entry(bits).or_insert_with(|| {
                        vectors.push(vector);
                        vectors.len() - 1
                    }));
                }
            }
        }
        if runs.is_empty() {
            return Err(ProbeError::Empty { what: "the gold set".to_owned() });
        }
        let k = usize::try_from(profile.probe_k_count).unwrap_or(usize::MAX);
        Ok(Self { searcher: Searcher::new(vectors, k, metric)?, runs })
    }

    /// Shows a record to every question; one without a vector cannot be found.
    pub fn offer(&mut self, record: &Record) -> Result<(), ProbeError> {
        match record.clone().entry() {
            Some(entry) => self.searcher.offer(&entry),
            None => Ok(()),
        }
    }

    /// The board, measured by the pinned embedder.
    pub fn board(
        self,
        set: &GoldSet,
        sections: &GoldSections,
        embedder: &dyn Embedder,
        context: &BoardContext,
        profile: &Profile,
    ) -> Result<Board, ProbeError> {
        let found = self.searcher.finish();
        let retrieval = |(run, (seed, jitter)): (&usize, (u64, Jitter))| Retrieval {
            variation: seed,
            jitter: Some(jitter),
            hits: found.get(*run).cloned().unwrap_or_default(),
            ..Retrieval::default()
        };
        let per_probe = crate::profile::RUNS_COUNT;
        let measured = asked(set).zip(self.runs.chunks(per_probe)).map(|(gold, runs)| {
            let (required, decoy) = sections.of_probe(gold)?;
            let question = Question { gold, required, decoy: decoy.as_deref() };
            let seeds = SEEDS.into_iter().cycle();
            let retrievals: Vec<Retrieval> = runs.iter().zip(seeds).map(retrieval).collect();
            measure(&question, &retrievals, embedder, context, profile)
        });
        Board::of(measured.collect::<Result<Vec<Measured>, _>>()?, profile)
    }
}

fn asked(set: &GoldSet) -> impl Iterator<Item = &GoldProbe> {
    set.probes().filter(|probe| probe.answerable)
}
