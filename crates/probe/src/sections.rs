//! The sections that a gold set speaks of, frozen with it: what an answer must cover is known by the texts as they were, never
//! by what is left of them in an index under test.
//!
//! In: records of a sound index, or lines of JSON. Out: sections with their words, and the hash that a lock names.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::canonical::canonical_json;
use crate::coverage::{Place, Section};
use crate::draft::DraftSection;
use crate::gold::{GoldProbe, GoldSet, MAX_GOLD_LINES_COUNT};
use crate::inventory::{MAX_RECORD_BYTES, Record};
use crate::lsa::MAX_CORPUS_BYTES;
use crate::span::{Span, words};

/// A text of a section and its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldPiece {
    /// Its place in the document.
    pub offsets: Span,
    /// The text, as long as that.
    pub text: String,
}

/// A section as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldSection {
    /// Its id.
    pub section_id: String,
    /// Its document.
    pub doc_id: String,
    /// The document's revision.
    pub rev: String,
    /// What it is called, where the index says so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub heading: String,
    /// Its texts, by their places.
    pub pieces: Vec<GoldPiece>,
}

impl GoldSection {
    fn check(&self) -> Result<(), ProbeError> {
        let invalid = |why: String| Err(ProbeError::invalid(format!("section `{}`", self.section_id), why));
        for piece in &self.pieces {
            if piece.offsets.end() - piece.offsets.start() != piece.text.len() as u64 {
                return invalid("a piece of it is not as long as its text".to_owned());
            }
        }
        if !self.pieces.is_sorted() || self.pieces.iter().all(|piece| words(&piece.text, 0).is_empty()) {
            return invalid("its pieces are not in order, or hold no word".to_owned());
        }
        Ok(())
    }

    /// The section as coverage takes it.
    pub fn section(&self) -> Section {
        Section {
            section_id: self.section_id.clone(),
            place: Place { doc_id: self.doc_id.clone(), rev: self.rev.clone() },
            spans: self.pieces.iter().map(|piece| piece.offsets).collect(),
            words: self.pieces.iter().flat_map(|piece| words(&piece.text, piece.offsets.start())).collect(),
        }
    }

    /// Its text from its first byte on. Where pieces overlap the second gives way; a gap is filled with line ends, so that
    /// places hold and no sentence crosses it.
    pub fn text(&self) -> String {
        let Some(first) = self.pieces.first() else { return String::new() };
        let mut text: Vec<u8> = Vec::new();
        for piece in &self.pieces {
            let from = usize::try_from(piece.offsets.start() - first.offsets.start()).unwrap_or(usize::MAX);
            if from > text.len() && from - text.len() <= MAX_RECORD_BYTES {
                text.resize(from, b'\n');
            }
            let known = text.len().saturating_sub(from);
            text.extend_from_slice(piece.text.as_bytes().get(known..).unwrap_or_default());
        }
        // Pieces may be cut within a letter of each other's; what is no text any more is no question either.
        String::from_utf8(text).unwrap_or_else(|_odd| first.text.clone())
    }

    /// The section as drafts are made of it.
    pub fn draft(&self) -> DraftSection {
        let last = self.section_id.rsplit(['.', '#', '/']).next().unwrap_or_default();
        let heading = if self.heading.is_empty() { last.to_owned() } else { self.heading.clone() };
        DraftSection {
            section_id: self.section_id.clone(),
            doc_id: self.doc_id.clone(),
            rev: self.rev.clone(),
            heading,
            text: self.text(),
            start: self.pieces.first().map_or(0, |piece| piece.offsets.start()),
        }
    }
}

/// Sections by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoldSections {
    sections: BTreeMap<String, GoldSection>,
    text_bytes: usize,
}

impl GoldSections {
    /// Adds the text of a record. A section that lies in two documents, or in two revisions of one, is refused: nobody could
    /// say what covers it.
    pub fn add(&mut self, record: &Record) -> Result<(), ProbeError> {
        self.text_bytes = self.text_bytes.saturating_add(record.text.len());
        if self.text_bytes > MAX_CORPUS_BYTES {
            let limit = MAX_CORPUS_BYTES as u64;
            return Err(ProbeError::TooMany { what: "the texts of the sections in bytes".to_owned(), limit });
        }
        let heading = record.others.get("heading").and_then(serde_json::Value::as_str).unwrap_or_default();
        let section = self.sections.entry(record.section_id.clone()).or_insert_with(|| GoldSection {
            section_id: record.section_id.clone(),
            doc_id: record.doc_id.clone(),
            rev: record.rev.clone(),
            heading: heading.to_owned(),
            pieces: Vec::new(),
        });
        if (&section.doc_id, &section.rev) != (&record.doc_id, &record.rev) {
            let why = format!(
                "it lies in `{}` ({}) and in `{}` ({})",
                section.doc_id, section.rev, record.doc_id, record.rev
            );
            return Err(ProbeError::invalid(format!("section `{}`", record.section_id), why));
        }
        section.pieces.push(GoldPiece { offsets: record.offsets, text: record.text.clone() });
        section.pieces.sort();
        Ok(())
    }

    /// The section with that id.
    pub fn get(&self, id: &str) -> Option<&GoldSection> {
        self.sections.get(id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &GoldSection> {
        self.sections.values()
    }

    /// Only those that a gold set needs; one that is not there is refused.
    pub fn of(&self, set: &GoldSet) -> Result<Self, ProbeError> {
        let mut needed: BTreeSet<&str> = BTreeSet::new();
        for probe in set.probes().filter(|probe| probe.answerable) {
            needed.extend(probe.required());
            needed.extend(probe.decoy_section.as_deref());
        }
        let mut sections = BTreeMap::new();
        for id in needed {
            let section = self.sections.get(id).ok_or_else(|| {
                ProbeError::invalid("the gold set", format!("section `{id}` is not in the index"))
            })?;
            section.check()?;
            sections.insert(id.to_owned(), section.clone());
        }
        Ok(Self { sections, text_bytes: 0 })
    }

    /// Reads one section per line.
    pub fn from_jsonl(text: &str) -> Result<Self, ProbeError> {
        let mut sections = BTreeMap::new();
        for (line, number) in text.lines().zip(1u64..) {
            let what = || format!("line {number} of the sections of the gold set");
            if sections.len() >= MAX_GOLD_LINES_COUNT {
                return Err(ProbeError::TooMany { what: what(), limit: MAX_GOLD_LINES_COUNT as u64 });
            }
            let section: GoldSection =
                serde_json::from_str(line).map_err(|error| ProbeError::invalid(what(), error.to_string()))?;
            section.check()?;
            if sections.insert(section.section_id.clone(), section).is_some() {
                return Err(ProbeError::invalid(what(), "its id is used twice"));
            }
        }
        Ok(Self { sections, text_bytes: 0 })
    }

    /// The canonical text: one section per line, by id.
    pub fn to_jsonl(&self) -> Result<String, ProbeError> {
        let mut text = String::new();
        for section in self.sections.values() {
            text.push_str(&canonical_json(section)?);
            text.push('\n');
        }
        Ok(text)
    }

    /// The hash of that text.
    pub fn hash(&self) -> Result<Digest, ProbeError> {
        Ok(Digest::of(self.to_jsonl()?.as_bytes()))
    }

    /// The sections that a complete answer draws on, and the text of the decoy.
    pub(crate) fn of_probe(&self, probe: &GoldProbe) -> Result<(Vec<Section>, Option<String>), ProbeError> {
        let find = |id: &str| {
            self.sections.get(id).ok_or_else(|| {
                let what = format!("gold question `{}`", probe.qid);
                ProbeError::invalid(what, format!("section `{id}` was not frozen with it"))
            })
        };
        let required = probe.required().into_iter().map(|id| Ok(find(id)?.section()));
        let required = required.collect::<Result<Vec<_>, ProbeError>>()?;
        let decoy = probe.decoy_section.as_deref().map(find).transpose()?;
        Ok((required, decoy.map(GoldSection::text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, section: &str, start: usize, text: &str) -> Record {
        let end = start + text.len();
        let line = format!(
            "{{\"id\":\"{id}\",\"text\":\"{text}\",\"doc_id\":\"d\",\"section_id\":\"{section}\",\"offsets\":[{start},{end}],\"rev\":\"1\"}}"
        );
        Record::from_line(&line).unwrap()
    }

    #[test]
    fn pieces_come_together_at_their_places_whatever_their_order() {
        let mut sections = GoldSections::default();
        for record in [record("b", "s", 110, "two three"), record("a", "s", 100, "one two")] {
            sections.add(&record).unwrap();
        }
        let section = sections.get("s").unwrap();
        assert_eq!(section.text(), "one two\n\n\ntwo three");
        assert_eq!(section.section().words.len(), 4);
        sections.add(&record("c", "s", 104, "two")).unwrap();
        assert_eq!(sections.get("s").unwrap().text(), "one two\n\n\ntwo three");
        let again = GoldSections::from_jsonl(&sections.to_jsonl().unwrap()).unwrap();
        assert_eq!(again.hash().unwrap(), sections.hash().unwrap());
    }

    #[test]
    fn a_section_that_could_be_two_is_refused() {
        let mut sections = GoldSections::default();
        sections.add(&record("a", "s", 0, "one")).unwrap();
        let other = Record { rev: "2".to_owned(), ..record("b", "s", 10, "two") };
        assert!(sections.add(&other).is_err());
        let wordless = "{\"doc_id\":\"d\",\"pieces\":[],\"rev\":\"1\",\"section_id\":\"s\"}";
        assert!(GoldSections::from_jsonl(wordless).is_err());
    }
}
