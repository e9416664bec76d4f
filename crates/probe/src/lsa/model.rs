//! The built-in embedder: latent semantic analysis, fitted on a corpus once and then frozen.
//!
//! In: the texts of a corpus, or the bytes of a model. Out: vectors of length 1. No network, no weights from elsewhere; the
//! same corpus gives the same model, byte for byte.

use std::collections::BTreeMap;

use lifeboat_base::digest::Digest;

use super::analyzer::Terms;
use super::matrix::Sparse;
use crate::ProbeError;
use crate::analyzer::Analyzer;
use crate::measure::Embedder;
use crate::number::{Sample, number};
use crate::seeds::shuffle;
use crate::stress::{Embedded, Stress, narrow};

/// The most texts that a model is fitted on.
pub const MAX_TEXTS_COUNT: usize = 200_000;
/// The most bytes of all texts that a model is fitted on.
pub const MAX_CORPUS_BYTES: usize = 512 << 20;
/// The most terms of a model; the rarest go first.
pub const MAX_TERMS_COUNT: usize = 50_000;
/// The largest rank of a model.
pub const MAX_RANK_COUNT: usize = 512;
/// The rank with which the published bounds are met on prose.
pub const USUAL_RANK_COUNT: usize = 128;
/// The least distance of the nearest twentieth of random pairs; below it the model tells nothing apart.
pub const RANDOM_PAIR_P5_MIN: f64 = 0.60;

/// A fitted model.
#[derive(Clone, Debug, PartialEq)]
pub struct Lsa {
    pub(super) texts_count: u64,
    pub(super) rank: usize,
    /// Sorted; their numbers are their places.
    pub(super) terms: Vec<String>,
    pub(super) idf: Vec<f64>,
    /// `rank` components per term.
    pub(super) basis: Vec<f32>,
    pub(super) hash: Digest,
}

impl Lsa {
    /// Fits a model: sublinear frequencies times inverse document frequencies, reduced to `rank` directions. Texts without a
    /// term count for nothing; a corpus without two texts that differ is refused.
    pub fn fit(texts: &[&str], rank: usize) -> Result<Self, ProbeError> {
        bound("the texts of the corpus", texts.len(), MAX_TEXTS_COUNT)?;
        bound("the corpus in bytes", texts.iter().map(|text| text.len()).sum(), MAX_CORPUS_BYTES)?;
        bound("the rank", rank, MAX_RANK_COUNT)?;
        if rank == 0 {
            return Err(ProbeError::Empty { what: "the rank".to_owned() });
        }
        let mut texts = texts.to_vec();
        // Texts come in the order of some database; the model does not depend on it.
        texts.sort_unstable();
        let counted: Vec<BTreeMap<String, u64>> = texts.iter().map(|text| frequencies(text)).collect();
        let (terms, idf) = vocabulary(&counted);
        let row = |counts: &BTreeMap<String, u64>| weights(&terms, &idf, counts);
        let rows: Vec<_> = counted.iter().map(row).filter(|row| !row.is_empty()).collect();
        if rows.len() < 2 {
            return Err(ProbeError::Empty { what: "the corpus to fit on".to_owned() });
        }
        let leading = Sparse { rows, columns: terms.len() }.leading(rank)?;
        if leading.values.len() < 2 {
            return Err(ProbeError::invalid("the corpus", "its texts do not differ enough to fit on"));
        }
        let (rank, basis) = (leading.values.len(), leading.vectors);
        let texts_count = texts.len() as u64;
        let mut model = Self { texts_count, rank, terms, idf, basis, hash: Digest::of(&[]) };
        model.hash = Digest::of(&model.body()?);
        Ok(model)
    }

    /// How many directions it has.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many terms it knows.
    pub fn terms_count(&self) -> usize {
        self.terms.len()
    }

    /// The vector of a text: of length 1, or zero when no term of it is known.
    pub fn vector(&self, text: &str) -> Vec<f32> {
        let mut sum = vec![0.0f64; self.rank];
        for (term, weight) in weights(&self.terms, &self.idf, &frequencies(text)) {
            let components = self.basis.iter().skip(term * self.rank).take(self.rank);
            sum.iter_mut().zip(components).for_each(|(total, value)| *total += weight * f64::from(*value));
        }
        let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        sum.into_iter().map(|value| narrow(value * scale)).collect()
    }

    /// ΔS of pairs of texts that a seed picks: what a model tells apart at random. Compare its 5th percentile with
    /// [`RANDOM_PAIR_P5_MIN`] before a model is frozen.
    pub fn random_pairs(
        &self,
        texts: &[&str],
        pairs_count: usize,
        variation: u64,
    ) -> Result<Sample, ProbeError> {
        let mut order: Vec<&str> = texts.to_vec();
        let mut distances = Vec::new();
        for round in 0..pairs_count as u64 {
            if distances.len() >= pairs_count || order.len() < 2 {
                break;
            }
            shuffle(&mut order, variation.wrapping_add(round));
            for pair in order.chunks_exact(2).take(pairs_count - distances.len()) {
                if let [a, b] = pair {
                    let (one, other) = (self.vector(a), self.vector(b));
                    let (one, other) =
                        (Embedded { text: a, vector: &one }, Embedded { text: b, vector: &other });
                    distances.push(Stress::between(one, other)?.gated);
                }
            }
        }
        Sample::new("ΔS of random pairs", distances)
    }
}

impl Embedder for Lsa {
    fn id(&self) -> &'static str {
        "lsa-v1"
    }

    fn hash(&self) -> Digest {
        self.hash
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ProbeError> {
        Ok(texts.iter().map(|text| self.vector(text)).collect())
    }
}

fn bound(what: &str, found: usize, limit: usize) -> Result<(), ProbeError> {
    if found > limit {
        return Err(ProbeError::TooMany { what: what.to_owned(), limit: limit as u64 });
    }
    Ok(())
}

fn frequencies(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for term in Terms.tokens(text) {
        *counts.entry(term).or_default() += 1;
    }
    counts
}

/// The terms that are kept, sorted, and how rare each is. Terms of one text alone connect nothing and are left out, unless
/// the corpus is so small that nothing would remain.
fn vocabulary(counted: &[BTreeMap<String, u64>]) -> (Vec<String>, Vec<f64>) {
    let mut documents: BTreeMap<&str, u64> = BTreeMap::new();
    for counts in counted {
        for term in counts.keys() {
            *documents.entry(term).or_default() += 1;
        }
    }
    let shared = documents.values().filter(|count| **count > 1).count();
    let fewest = if shared >= counted.len().min(USUAL_RANK_COUNT) { 2 } else { 1 };
    let mut kept: Vec<(&str, u64)> = documents.into_iter().filter(|(_, count)| *count >= fewest).collect();
    kept.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    kept.truncate(MAX_TERMS_COUNT);
    kept.sort_unstable();
    let all = number(counted.len() as u64);
    let idf = |count: u64| ((1.0 + all) / (1.0 + number(count))).ln() + 1.0;
    kept.into_iter().map(|(term, count)| (term.to_owned(), idf(count))).unzip()
}

/// The weights of a text's known terms, by their numbers, at length 1.
fn weights(terms: &[String], idf: &[f64], counts: &BTreeMap<String, u64>) -> Vec<(usize, f64)> {
    let mut row: Vec<(usize, f64)> = counts
        .iter()
        .filter_map(|(term, count)| {
            let at = terms.binary_search(term).ok()?;
            Some((at, (1.0 + number(*count).ln()) * idf.get(at)?))
        })
        .collect();
    let length = row.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
    if length > 0.0 {
        for (_, weight) in &mut row {
            *weight /= length;
        }
    }
    row
}
