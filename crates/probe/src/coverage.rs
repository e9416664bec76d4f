//! Coverage: which share of the words that answer a question was retrieved; bleed: what came along from elsewhere.
//!
//! In: sections and snippets as spans of documents. Out: shares from 0 to 1. Snippets that overlap count once.

use std::collections::BTreeSet;

use crate::ProbeError;
use crate::number::share;
use crate::span::{Span, Union};

/// Where a text stands: a document in one of its revisions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The document.
    pub doc_id: String,
    /// Its revision; spans of different revisions have nothing to do with each other.
    pub rev: String,
}

/// A section that a complete answer draws on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its id, a dotted path.
    pub section_id: String,
    /// Its document.
    pub place: Place,
    /// Its spans; more than one where tables or notes are set apart.
    pub spans: Vec<Span>,
    /// Its words, by the measuring tokenizer.
    pub words: Vec<Span>,
}

/// A snippet as a span of its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The section it says it is from.
    pub section_id: String,
    /// Its document.
    pub place: Place,
    /// Its bytes.
    pub span: Span,
    /// Its words, by the measuring tokenizer.
    pub words: Vec<Span>,
}

/// Words that were to be retrieved, and those that were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Words retrieved.
    pub covered_count: u64,
    /// Words of all required sections.
    pub total_count: u64,
}

impl Coverage {
    /// The share, from 0 to 1.
    pub fn share(self) -> f64 {
        share(self.covered_count, self.total_count)
    }
}

/// Coverage of all required sections by the top-k snippets. A word counts when all of its bytes were retrieved, in one
/// snippet or in two that meet. Sections without words are refused: nothing could show that they were found.
pub fn coverage(required: &[Section], pieces: &[Piece]) -> Result<Coverage, ProbeError> {
    let mut sum = Coverage::default();
    for section in required {
        if section.words.is_empty() {
            let what = format!("section `{}`", section.section_id);
            return Err(ProbeError::Empty { what });
        }
        let near = pieces.iter().filter(|piece| piece.place == section.place);
        let union = Union::of(near.map(|piece| piece.span));
        let tokens: BTreeSet<&Span> = section.words.iter().collect();
        sum.total_count += tokens.len() as u64;
        sum.covered_count += tokens.into_iter().filter(|token| union.holds(**token)).count() as u64;
    }
    if sum.total_count == 0 {
        return Err(ProbeError::Empty { what: "the list of required sections".to_owned() });
    }
    Ok(sum)
}

/// Of the words of the snippets that say they are from `section`, the share that lies outside it. `None` when no snippet
/// says so, or none of them has a word.
pub fn bleed(section: &Section, pieces: &[Piece]) -> Option<f64> {
    let inside = Union::of(section.spans.iter().copied());
    let labelled = pieces.iter().filter(|piece| piece.section_id == section.section_id);
    let tokens: BTreeSet<(bool, &Span)> = labelled
        .flat_map(|piece| {
            let here = piece.place == section.place;
            piece.words.iter().map(move |token| (here, token))
        })
        .collect();
    let outside = tokens.iter().filter(|(here, token)| !here || !inside.holds(**token)).count();
    (!tokens.is_empty()).then(|| share(outside as u64, tokens.len() as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(rev: &str) -> Place {
        Place { doc_id: "handbook".to_owned(), rev: rev.to_owned() }
    }

    fn tokens(start: u64, end: u64) -> Vec<Span> {
        (start..end).map(|byte| Span::new("x", byte, byte + 1).unwrap()).collect()
    }

    fn section(start: u64, end: u64) -> Section {
        let spans = vec![Span::new("x", start, end).unwrap()];
        Section { section_id: "a".to_owned(), place: place("1"), spans, words: tokens(start, end) }
    }

    fn piece(start: u64, end: u64) -> Piece {
        let span = Span::new("x", start, end).unwrap();
        Piece { section_id: "a".to_owned(), place: place("1"), span, words: tokens(start, end) }
    }

    #[test]
    fn overlapping_snippets_count_once() {
        let pieces = [piece(0, 40), piece(30, 60), piece(90, 120)];
        let found = coverage(&[section(0, 100)], &pieces).unwrap();
        assert_eq!(found, Coverage { covered_count: 70, total_count: 100 });
        assert!(found.share() >= 0.70);
        assert_eq!(bleed(&section(0, 100), &pieces[2..]), Some(20.0 / 30.0));
    }

    #[test]
    fn required_sections_are_summed() {
        let second = Section { section_id: "b".to_owned(), ..section(1000, 1050) };
        let found = coverage(&[section(0, 100), second], &[piece(0, 100), piece(1000, 1005)]).unwrap();
        assert_eq!(found, Coverage { covered_count: 105, total_count: 150 });
        assert!(found.share() >= 0.70);
    }

    #[test]
    fn another_revision_covers_nothing_and_bleeds() {
        let other = Piece { place: place("2"), ..piece(0, 100) };
        assert_eq!(coverage(&[section(0, 100)], std::slice::from_ref(&other)).unwrap().covered_count, 0);
        assert_eq!(bleed(&section(0, 100), &[other]), Some(1.0));
    }

    #[test]
    fn a_section_without_words_is_refused_and_no_label_is_no_bleed() {
        let empty = Section { words: Vec::new(), ..section(0, 100) };
        assert!(coverage(&[empty], &[piece(0, 10)]).is_err());
        assert!(coverage(&[], &[piece(0, 10)]).is_err());
        assert_eq!(bleed(&section(0, 100), &[]), None);
    }

    #[test]
    fn a_word_cut_in_two_counts_when_both_halves_are_there() {
        let word = Section { words: vec![Span::new("x", 0, 10).unwrap()], ..section(0, 100) };
        assert_eq!(coverage(std::slice::from_ref(&word), &[piece(0, 5)]).unwrap().covered_count, 0);
        assert_eq!(coverage(&[word], &[piece(5, 10), piece(0, 5)]).unwrap().covered_count, 1);
    }

    proptest! {
        #[test]
        fn coverage_is_a_share_that_more_snippets_never_lower(spans in prop::collection::vec((0u64..120, 1u64..40), 0..8)) {
            let pieces: Vec<Piece> = spans.into_iter().map(|(start, len)| piece(start, start + len)).collect();
            let mut last = 0;
            for count in 0..=pieces.len() {
                let found = coverage(&[section(10, 110)], &pieces[..count]).unwrap();
                prop_assert!(last <= found.covered_count && found.covered_count <= found.total_count);
                prop_assert!((0.0..=1.0).contains(&found.share()));
                last = found.covered_count;
            }
            let mut turned = pieces.clone();
            turned.reverse();
            prop_assert_eq!(coverage(&[section(10, 110)], &turned).unwrap().covered_count, last);
            prop_assert_eq!(bleed(&section(10, 110), &turned), bleed(&section(10, 110), &pieces));
        }
    }
}
