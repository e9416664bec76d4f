//! The records of an index as lines of JSON, and everything that a manifest says of them, in one pass.
//!
//! In: lines in any order. Out: roots, counts and a report of the vectors. Memory: some 150 bytes per record beside its id,
//! whatever the length of its vector and text.

use std::collections::BTreeSet;

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ProbeError;
use crate::coverage::Place;
use crate::identity::{Tree, corpus_leaf, vector_leaf};
use crate::manifest::Counts;
use crate::search::Entry;
use crate::span::Span;
use crate::vectors::{VectorCensus, VectorReport};

/// The most bytes of one record.
pub const MAX_RECORD_BYTES: usize = 4 << 20;
/// The most records of one index.
pub const MAX_RECORDS_COUNT: usize = 50_000_000;

/// One record of an index. Fields that are not known here are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Its vector; none for a text that was never embedded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vec<f32>>,
    /// Its canonical text.
    pub text: String,
    /// Its document.
    pub doc_id: String,
    /// Its section.
    pub section_id: String,
    /// Its place in the document.
    pub offsets: Span,
    /// The document's revision.
    pub rev: String,
    /// Everything else, such as metadata and what citations need.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl Record {
    /// Reads one line. A vector with a component that single precision cannot hold is refused.
    pub fn from_line(line: &str) -> Result<Self, ProbeError> {
        if line.len() > MAX_RECORD_BYTES {
            return Err(ProbeError::TooMany {
                what: "a record in bytes".to_owned(),
                limit: MAX_RECORD_BYTES as u64,
            });
        }
        let record: Self =
            serde_json::from_str(line).map_err(|error| ProbeError::invalid("a record", error.to_string()))?;
        let len = record.offsets.end() - record.offsets.start();
        if len != record.text.len() as u64 {
            let why = format!("its offsets span {len} bytes, its text has {}", record.text.len());
            return Err(ProbeError::invalid(format!("record `{}`", record.id), why));
        }
        if record.vector.iter().flatten().any(|value| !value.is_finite()) {
            return Err(ProbeError::NotFinite {
                what: format!("a component of the vector of `{}`", record.id),
            });
        }
        Ok(record)
    }

    /// The record as search takes it; none without a vector.
    pub fn entry(self) -> Option<Entry> {
        Some(Entry {
            snippet_id: self.id,
            section_id: self.section_id,
            place: Place { doc_id: self.doc_id, rev: self.rev },
            span: self.offsets,
            text: self.text,
            vector: self.vector?,
        })
    }
}

/// What is known of one record without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its id.
    pub id: Box<str>,
    /// Of its text, section and place.
    pub corpus: Digest,
    /// Of its vector; none without one.
    pub vector: Option<Digest>,
}

/// All records by their ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Sorted {
    /// Each id once, the first record of it that came.
    pub leaves: Vec<Leaf>,
    /// Ids that came again, once for each time.
    pub repeated: Vec<Box<str>>,
    /// What a manifest says of the leaves; the vectors of records that came again are in its census.
    pub report: InventoryReport,
}

/// Collects what a manifest says of records.
#[derive(Debug, Default)]
pub struct Inventory {
    leaves: Vec<Leaf>,
    docs: BTreeSet<[u8; 16]>,
    census: VectorCensus,
}

/// What a manifest says of records.
#[derive(Clone, Debug, PartialEq)]
pub struct InventoryReport {
    /// How much there is.
    pub counts: Counts,
    /// Of the texts.
    pub corpus_root: Digest,
    /// Of the vectors.
    pub vector_root: Digest,
    /// Lengths, norms, duplicates.
    pub vectors: VectorReport,
}

impl Inventory {
    /// Adds a record, whatever came before it.
    pub fn add(&mut self, record: &Record) -> Result<(), ProbeError> {
        if self.leaves.len() >= MAX_RECORDS_COUNT {
            let limit = MAX_RECORDS_COUNT as u64;
            return Err(ProbeError::TooMany { what: "the number of records".to_owned(), limit });
        }
        let corpus = corpus_leaf(&record.id, &record.text, &record.section_id, record.offsets)?;
        let vector = match &record.vector {
            Some(vector) => {
                self.census.add(vector)?;
                Some(vector_leaf(&record.id, vector)?)
            }
            None => None,
        };
        if let Some(name) = Digest::of(record.doc_id.as_bytes()).as_bytes().first_chunk() {
            self.docs.insert(*name);
        }
        self.leaves.push(Leaf { id: record.id.as_str().into(), corpus, vector });
        Ok(())
    }

    /// Adds all records of another inventory after those of this one.
    pub fn absorb(&mut self, other: Self) -> Result<(), ProbeError> {
        if self.leaves.len().saturating_add(other.leaves.len()) > MAX_RECORDS_COUNT {
            let limit = MAX_RECORDS_COUNT as u64;
            return Err(ProbeError::TooMany { what: "the number of records".to_owned(), limit });
        }
        self.leaves.extend(other.leaves);
        self.docs.extend(other.docs);
        self.census.absorb(other.census)
    }

    /// How many records were added.
    pub fn count(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// Everything that was added; an id that came twice is refused.
    pub fn finish(self) -> Result<InventoryReport, ProbeError> {
        let sorted = self.sorted();
        match sorted.repeated.first() {
            Some(id) => Err(ProbeError::Unsorted { id: id.to_string(), after: id.to_string() }),
            None => Ok(sorted.report),
        }
    }

    /// Everything that was added, by id. What came twice is told, and counts once.
    pub fn sorted(mut self) -> Sorted {
        // Stable, so that of two the first stays.
        self.leaves.sort_by(|a, b| a.id.cmp(&b.id));
        let mut repeated = Vec::new();
        self.leaves.dedup_by(|next, one| {
            let is_again = next.id == one.id;
            if is_again {
                repeated.push(next.id.clone());
            }
            is_again
        });
        let (mut corpus, mut vectors) = (Tree::default(), Tree::default());
        let mut vectors_count = 0;
        for leaf in &self.leaves {
            corpus.add(leaf.corpus);
            if let Some(vector) = leaf.vector {
                vectors.add(vector);
                vectors_count += 1;
            }
        }
        let (docs, chunks) = (self.docs.len() as u64, self.leaves.len() as u64);
        let report = InventoryReport {
            counts: Counts { docs, chunks, vectors: vectors_count },
            corpus_root: corpus.root(),
            vector_root: vectors.root(),
            vectors: self.census.finish(),
        };
        Sorted { leaves: self.leaves, repeated, report }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{CorpusRoot, VectorRoot};
    use crate::seeds::shuffle;

    fn line(at: usize) -> String {
        let text = format!("text {at}");
        let (start, end) = (at * 100, at * 100 + text.len());
        format!(
            "{{\"id\":\"c{at:04}\",\"vector\":[0.6,0.8,{at}],\"text\":\"{text}\",\"doc_id\":\"d{}\",\"section_id\":\"s{at}\",\
             \"offsets\":[{start},{end}],\"rev\":\"r1\",\"source_url\":\"https://example.org/\",\"metadata\":{{\"n\":1}}}}",
            at % 3
        )
    }

    fn record(at: usize) -> Record {
        Record::from_line(&line(at)).unwrap()
    }

    fn report(records: &[Record]) -> InventoryReport {
        let mut inventory = Inventory::default();
        for record in records {
            inventory.add(record).unwrap();
        }
        inventory.finish().unwrap()
    }

    #[test]
    fn a_record_keeps_what_is_not_known_here() {
        let read = record(7);
        let again = Record::from_line(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again, read);
        assert!(read.others.contains_key("source_url") && read.others.contains_key("metadata"));
        assert_eq!(read.entry().unwrap().snippet_id, "c0007");
    }

    #[test]
    fn a_record_that_cannot_be_believed_is_refused() {
        let refused = |from: &str, to: &str| {
            let wrong = line(7).replacen(from, to, 1);
            assert_ne!(wrong, line(7), "{from}");
            assert!(Record::from_line(&wrong).is_err(), "{to}");
        };
        refused("[700,706]", "[706,700]");
        refused("[700,706]", "[700,707]");
        refused("0.6", "1e39");
        refused("0.6", "NaN");
        refused("0.6", "\"0.6\"");
        refused("\"text\":", "\"txt\":");
        refused("\"id\":", "\"key\":");
        let long = format!("{{\"id\":\"{}\"}}", "x".repeat(MAX_RECORD_BYTES));
        assert!(matches!(Record::from_line(&long), Err(ProbeError::TooMany { .. })));
    }

    #[test]
    fn an_id_that_comes_twice_is_refused_and_a_text_without_a_vector_is_counted() {
        let mut inventory = Inventory::default();
        for at in [1, 2, 1] {
            inventory.add(&record(at)).unwrap();
        }
        assert!(matches!(inventory.finish(), Err(ProbeError::Unsorted { .. })));
        let mut inventory = Inventory::default();
        for at in [1, 2, 1] {
            inventory.add(&record(at)).unwrap();
        }
        let sorted = inventory.sorted();
        assert_eq!((sorted.repeated, sorted.report.counts.chunks), (vec!["c0001".into()], 2));
        let bare = Record { vector: None, ..record(2) };
        assert_eq!(report(&[record(1), bare]).counts, Counts { docs: 2, chunks: 2, vectors: 1 });
    }

    proptest! {
        #[test]
        fn parts_that_are_put_together_are_the_whole(count in 0usize..40, cut in 0usize..40) {
            let records: Vec<Record> = (0..count).map(record).collect();
            let (front, back) = records.split_at(cut.min(count));
            let part = |records: &[Record]| {
                let mut inventory = Inventory::default();
                for record in records {
                    inventory.add(record).unwrap();
                }
                inventory
            };
            let mut whole = part(front);
            whole.absorb(part(back)).unwrap();
            let (found, expected) = (whole.finish().unwrap(), report(&records));
            prop_assert_eq!((found.counts, found.corpus_root), (expected.counts, expected.corpus_root));
            prop_assert_eq!(found.vector_root, expected.vector_root);
            let (found, expected) = (found.vectors, expected.vectors);
            prop_assert!((found.norm_mean - expected.norm_mean).abs() < 1e-9);
            prop_assert!((found.norm_deviation - expected.norm_deviation).abs() < 1e-9);
            prop_assert_eq!((found.norm_min, found.norm_max), (expected.norm_min, expected.norm_max));
            prop_assert_eq!((found.count, found.dim, found.duplicate_count), (expected.count, expected.dim, expected.duplicate_count));
        }

        #[test]
        fn one_pass_in_any_order_gives_what_two_in_order_give(count in 0usize..40, seed in any::<u64>()) {
            let mut records: Vec<Record> = (0..count).map(record).collect();
            let (mut corpus, mut vectors) = (CorpusRoot::default(), VectorRoot::default());
            for record in &records {
                corpus.add(&record.id, &record.text, &record.section_id, record.offsets).unwrap();
                vectors.add(&record.id, record.vector.as_ref().unwrap()).unwrap();
            }
            shuffle(&mut records, seed);
            let found = report(&records);
            prop_assert_eq!(found.corpus_root, corpus.finish());
            prop_assert_eq!(found.vector_root, vectors.finish());
            prop_assert_eq!(found.counts, Counts { docs: count.min(3) as u64, chunks: count as u64, vectors: count as u64 });
        }
    }
}
