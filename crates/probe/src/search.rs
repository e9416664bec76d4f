//! Exact search over an index that need not fit into memory: every record is offered once, every query keeps its best.
//!
//! In: queries, then records in any order. Out: the top-k of each query in one total order, so that neither the order of
//! records nor a seed changes it. Memory: twice k hits per query.

use std::cmp::Ordering;

use crate::ProbeError;
use crate::coverage::Place;
use crate::manifest::Metric;
use crate::measure::Hit;
use crate::number::finite;
use crate::span::Span;
use crate::stress::norm;

/// The most snippets that a query keeps.
pub const MAX_K_COUNT: usize = 1_000;
/// The most queries of one pass.
pub const MAX_QUERIES_COUNT: usize = 10_000;

/// One record of an index.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its id.
    pub snippet_id: String,
    /// Its section.
    pub section_id: String,
    /// Its document.
    pub place: Place,
    /// Its bytes.
    pub span: Span,
    /// Its text.
    pub text: String,
    /// Its vector.
    pub vector: Vec<f32>,
}

/// Queries and what was found for them so far.
#[derive(Debug)]
pub struct Searcher {
    metric: Metric,
    k: usize,
    dim: Option<usize>,
    queries: Vec<Query>,
}

#[derive(Debug)]
struct Query {
    vector: Vec<f32>,
    norm: f64,
    best: Vec<Hit>,
    /// The score of the last of k that were sorted; nothing below it matters any more.
    bar: Option<f64>,
}

impl Searcher {
    /// Takes queries in; all of one length, and each a direction.
    pub fn new(queries: Vec<Vec<f32>>, k: usize, metric: Metric) -> Result<Self, ProbeError> {
        if k == 0 || k > MAX_K_COUNT || queries.len() > MAX_QUERIES_COUNT {
            return Err(ProbeError::TooMany {
                what: "k or the list of queries".to_owned(),
                limit: MAX_K_COUNT as u64,
            });
        }
        let dim = queries.first().map(Vec::len);
        let query = |vector: Vec<f32>| {
            let norm = norm(&vector)?;
            if Some(vector.len()) != dim {
                let (found, expected) = (vector.len(), dim.unwrap_or_default());
                return Err(ProbeError::Dimension { what: "a query".to_owned(), found, expected });
            }
            Ok(Query { vector, norm, best: Vec::new(), bar: None })
        };
        let queries = queries.into_iter().map(query).collect::<Result<_, _>>()?;
        Ok(Self { metric, k, dim, queries })
    }

    /// Shows a record to every query.
    pub fn offer(&mut self, entry: &Entry) -> Result<(), ProbeError> {
        let what = || format!("`{}`", entry.snippet_id);
        if let Some(expected) = self.dim.filter(|dim| *dim != entry.vector.len()) {
            return Err(ProbeError::Dimension { what: what(), found: entry.vector.len(), expected });
        }
        let length = norm(&entry.vector)?;
        if length == 0.0 {
            return Err(ProbeError::ZeroVector { what: what() });
        }
        for query in &mut self.queries {
            let score = finite("the score of a record", query.score(self.metric, &entry.vector, length))?;
            // A query without a direction finds nothing.
            if query.norm == 0.0 || !query.wants(score) {
                continue;
            }
            query.best.push(Hit {
                snippet_id: entry.snippet_id.clone(),
                section_id: entry.section_id.clone(),
                place: entry.place.clone(),
                span: entry.span,
                text: entry.text.clone(),
                score,
                k_pos: 0,
            });
            if query.best.len() >= 2 * self.k {
                query.prune(self.k);
            }
        }
        Ok(())
    }

    /// The top-k of each query, in the order of the queries.
    pub fn finish(self) -> Vec<Vec<Hit>> {
        let k = self.k;
        let sorted = self.queries.into_iter().map(|mut query| {
            query.prune(k);
            query.best.iter_mut().zip(1..).for_each(|(hit, place)| hit.k_pos = place);
            query.best
        });
        sorted.collect()
    }
}

impl Query {
    fn score(&self, metric: Metric, vector: &[f32], length: f64) -> f64 {
        let pairs = || self.vector.iter().zip(vector).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        match metric {
            Metric::InnerProduct => pairs().map(|(a, b)| a * b).sum(),
            Metric::Cosine if self.norm == 0.0 => 0.0,
            Metric::Cosine => pairs().map(|(a, b)| a * b).sum::<f64>() / (self.norm * length),
            Metric::L2 => -pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
        }
    }

    /// Whether a hit with this score may be among the best.
    fn wants(&self, score: f64) -> bool {
        self.bar.is_none_or(|bar| score >= bar)
    }

    fn prune(&mut self, k: usize) {
        self.best.sort_by(compare);
        self.best.truncate(k);
        self.bar = self.best.last().filter(|_| self.best.len() == k).map(|hit| hit.score);
    }
}

/// By score, then by section, id and place.
fn compare(a: &Hit, b: &Hit) -> Ordering {
    let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
    by_score
        .then_with(|| a.section_id.cmp(&b.section_id))
        .then_with(|| a.snippet_id.cmp(&b.snippet_id))
        .then_with(|| a.span.start().cmp(&b.span.start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seeds::shuffle;

    fn entry(at: usize, vector: Vec<f32>) -> Entry {
        Entry {
            snippet_id: format!("c{at:03}"),
            section_id: format!("s{}", at % 3),
            place: Place { doc_id: "d".to_owned(), rev: "r".to_owned() },
            span: Span::new("x", at as u64, at as u64 + 1).unwrap(),
            text: String::new(),
            vector,
        }
    }

    fn search(entries: &[Entry], query: &[f32], k: usize, metric: Metric) -> Vec<Hit> {
        let mut searcher = Searcher::new(vec![query.to_vec()], k, metric).unwrap();
        for entry in entries {
            searcher.offer(entry).unwrap();
        }
        searcher.finish().swap_remove(0)
    }

    #[test]
    fn metrics_order_raw_vectors_differently() {
        let entries = [entry(0, vec![1.0, 0.1]), entry(1, vec![5.0, 4.0]), entry(2, vec![0.0, 1.0])];
        let first = |metric| search(&entries, &[1.0, 0.0], 1, metric)[0].snippet_id.clone();
        assert_eq!(
            (
                first(Metric::Cosine).as_str(),
                first(Metric::InnerProduct).as_str(),
                first(Metric::L2).as_str()
            ),
            ("c000", "c001", "c000")
        );
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let mut searcher = Searcher::new(vec![vec![1.0, 0.0]], 3, Metric::Cosine).unwrap();
        assert!(matches!(searcher.offer(&entry(0, vec![1.0])), Err(ProbeError::Dimension { .. })));
        assert!(matches!(searcher.offer(&entry(0, vec![0.0, 0.0])), Err(ProbeError::ZeroVector { .. })));
        assert!(matches!(searcher.offer(&entry(0, vec![f32::NAN, 0.0])), Err(ProbeError::NotFinite { .. })));
        assert!(Searcher::new(vec![vec![1.0], vec![1.0, 0.0]], 3, Metric::Cosine).is_err());
        assert!(Searcher::new(vec![vec![1.0]], 0, Metric::Cosine).is_err());
        assert!(search(&[entry(0, vec![1.0, 0.0])], &[0.0, 0.0], 3, Metric::Cosine).is_empty());
    }

    proptest! {
        #[test]
        fn the_best_are_found_whatever_the_order_of_records(
            vectors in prop::collection::vec(prop::collection::vec(-2i8..3, 3), 1..40),
            k in 1usize..6,
            seed in any::<u64>(),
        ) {
            let vectors = vectors.into_iter().map(|vector| vector.into_iter().map(f32::from).collect::<Vec<_>>());
            let usable = vectors.filter(|vector| vector.iter().any(|value| *value != 0.0));
            let mut entries: Vec<Entry> = usable.enumerate().map(|(at, vector)| entry(at, vector)).collect();
            for metric in [Metric::Cosine, Metric::InnerProduct, Metric::L2] {
                let found = search(&entries, &[1.0, 0.5, -0.5], k, metric);
                shuffle(&mut entries, seed);
                prop_assert_eq!(&found, &search(&entries, &[1.0, 0.5, -0.5], k, metric));
                let mut all = search(&entries, &[1.0, 0.5, -0.5], 1_000, metric);
                all.truncate(k);
                prop_assert_eq!(&found, &all);
            }
        }
    }
}
