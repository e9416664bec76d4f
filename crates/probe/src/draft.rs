//! Drafts of gold questions from a corpus, for a person to read, mend and let in or leave out.
//!
//! In: sections with their texts. Out: questions of the words by which a section differs from the others, with anchor and
//! decoy. The same corpus gives the same drafts. A draft is no gold question: what it asks may be nonsense.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;

use crate::ProbeError;
use crate::analyzer::Analyzer;
use crate::gold::{Anchor, GoldProbe, GoldSet, TextType};
use crate::lsa::Terms;
use crate::number::number;
use crate::span::{Span, words};

/// The fewest words of a section that a question is drafted from.
pub const SECTION_WORDS_MIN_COUNT: usize = 30;
/// How many telling words a draft needs.
const TELLING_COUNT: usize = 6;

/// A section to draft from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftSection {
    /// Its id.
    pub section_id: String,
    /// Its document.
    pub doc_id: String,
    /// The document's revision.
    pub rev: String,
    /// Its heading.
    pub heading: String,
    /// Its canonical text.
    pub text: String,
    /// Where that text begins in the document.
    pub start: u64,
}

/// Up to `count` drafts, of sections that are picked by the hash of their id.
pub fn draft(sections: &[DraftSection], count: usize) -> Result<GoldSet, ProbeError> {
    let terms: Vec<BTreeMap<String, (u64, String)>> = sections.iter().map(surfaces).collect();
    let mut documents: BTreeMap<&str, u64> = BTreeMap::new();
    for term in terms.iter().flat_map(BTreeMap::keys) {
        *documents.entry(term).or_default() += 1;
    }
    let all = number(sections.len() as u64);
    let rarity = |term: &str| (all / number(documents.get(term).copied().unwrap_or(1))).ln();
    let mut order: Vec<(Digest, usize)> = sections
        .iter()
        .enumerate()
        .map(|(at, section)| (Digest::of(section.section_id.as_bytes()), at))
        .collect();
    order.sort_unstable();
    let mut probes = Vec::new();
    for (_, at) in order {
        let (Some(section), Some(own)) = (sections.get(at), terms.get(at)) else { continue };
        if probes.len() >= count {
            break;
        }
        let mut weighed: Vec<(f64, &str, &str)> = own
            .iter()
            .map(|(term, (count, surface))| {
                ((1.0 + number(*count).ln()) * rarity(term), term.as_str(), surface.as_str())
            })
            .collect();
        weighed.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        if words(&section.text, 0).len() < SECTION_WORDS_MIN_COUNT || weighed.len() < TELLING_COUNT {
            continue;
        }
        let Some(anchor) = anchor(section, &weighed) else { continue };
        let telling: Vec<&str> = weighed.iter().take(TELLING_COUNT).map(|(_, _, surface)| *surface).collect();
        if let Some(probe) = question(section, &telling, anchor, decoy(sections, at), probes.len()) {
            probes.push(probe);
        }
    }
    GoldSet::new(probes)
}

/// The terms of a section, how often each comes, and the word it first comes as.
fn surfaces(section: &DraftSection) -> BTreeMap<String, (u64, String)> {
    let mut found: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for span in words(&section.text, 0) {
        let Some(word) = slice(&section.text, span) else { continue };
        if word.chars().count() < 3 || word.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        for term in Terms.tokens(word) {
            found.entry(term).or_insert_with(|| (0, word.to_lowercase())).0 += 1;
        }
    }
    found
}

fn slice(text: &str, span: Span) -> Option<&str> {
    text.get(usize::try_from(span.start()).ok()?..usize::try_from(span.end()).ok()?)
}

/// The sentence with the most weight of telling words.
fn anchor(section: &DraftSection, weighed: &[(f64, &str, &str)]) -> Option<Anchor> {
    let weights: BTreeMap<&str, f64> = weighed.iter().map(|(weight, term, _)| (*term, *weight)).collect();
    let mut best: Option<(f64, Span)> = None;
    let mut start = 0usize;
    for piece in section.text.split_inclusive(['.', '\n', '?', '!']) {
        let bare = piece.trim();
        let from = start + (piece.len() - piece.trim_start().len());
        start += piece.len();
        let terms: BTreeSet<String> = Terms.tokens(bare).into_iter().collect();
        let weight: f64 = terms.iter().filter_map(|term| weights.get(term.as_str())).sum();
        if words(bare, 0).len() >= 4 && best.is_none_or(|(most, _)| weight > most) {
            best = Some((weight, Span::new("an anchor", from as u64, (from + bare.len()) as u64).ok()?));
        }
    }
    let (_, span) = best?;
    let text = slice(&section.text, span)?.to_owned();
    let offsets = Span::new("an anchor", section.start + span.start(), section.start + span.end()).ok()?;
    let (doc_id, section_id) = (section.doc_id.clone(), section.section_id.clone());
    Some(Anchor { doc_id, section_id, offsets, hash: Digest::of(text.as_bytes()), text })
}

/// The section whose length is nearest, of those that are not the same text.
fn decoy(sections: &[DraftSection], at: usize) -> Option<String> {
    let own = sections.get(at)?;
    let others = sections.iter().filter(|other| other.section_id != own.section_id && other.text != own.text);
    let nearest = others.min_by_key(|other| (other.text.len().abs_diff(own.text.len()), &other.section_id));
    nearest.map(|other| other.section_id.clone())
}

fn question(
    section: &DraftSection,
    telling: &[&str],
    anchor: Anchor,
    decoy_section: Option<String>,
    at: usize,
) -> Option<GoldProbe> {
    let [one, two, three, four, five, six] = telling else { return None };
    let heading = section.heading.trim();
    let paraphrases = vec![
        format!("What does {heading} say about {one}, {two} and {three}, {four} or {five}?"),
        format!("How are {two}, {one} and {four} explained, with {three} and {six}, in {heading}?"),
        format!("Where is {one} described together with {three}, {five} and {two}: {heading}?"),
    ];
    Some(GoldProbe {
        qid: format!("p-{:03}", at + 1),
        question: format!("{heading}: {one}, {two}, {three}?"),
        paraphrases,
        expected_section: section.section_id.clone(),
        required_sections: Vec::new(),
        anchor: Some(anchor),
        decoy_section,
        expected_citations: vec![format!("doc:{}#{}", section.doc_id, section.section_id)],
        answerable: true,
        flow: "draft".to_owned(),
        text_type: TextType::Prose,
        revision: section.rev.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections() -> Vec<DraftSection> {
        let subjects = ["vaults", "keys", "drills", "holds", "copies", "logs", "points", "tiers"];
        let section = |(at, subject): (usize, &&str)| {
            let own: Vec<String> = (0..8).map(|word| format!("{subject}word{word}")).collect();
            let text = format!(
                "This is the section of {subject} and of what people do with them every day. It names {} and then ends. \
                 Nothing else is said here that other sections do not say as well, more or less.",
                own.join(", ")
            );
            DraftSection {
                section_id: format!("handbook.{subject}"),
                doc_id: "handbook".to_owned(),
                rev: "r1".to_owned(),
                heading: format!("About {subject}"),
                start: at as u64 * 1_000,
                text,
            }
        };
        subjects.iter().enumerate().map(section).collect()
    }

    #[test]
    fn drafts_are_the_same_whenever_they_are_made_and_follow_the_rules() {
        let one = draft(&sections(), 5).unwrap();
        assert_eq!(one.to_jsonl().unwrap(), draft(&sections(), 5).unwrap().to_jsonl().unwrap());
        assert_eq!(one.probes().len(), 5);
        let mut turned = sections();
        turned.reverse();
        assert_eq!(one, draft(&turned, 5).unwrap());
    }

    #[test]
    fn an_anchor_is_the_telling_sentence_at_its_place() {
        for probe in draft(&sections(), 8).unwrap().probes() {
            let anchor = probe.anchor.as_ref().unwrap();
            assert!(anchor.text.starts_with("It names "), "{}", anchor.text);
            let all = sections();
            let section = all.iter().find(|section| section.section_id == probe.expected_section).unwrap();
            let document = format!("{}{}", " ".repeat(usize::try_from(section.start).unwrap()), section.text);
            assert!(anchor.resolves(&document));
        }
    }

    #[test]
    fn what_is_too_short_is_not_asked_about() {
        let mut short = sections();
        for section in &mut short {
            section.text.truncate(40);
        }
        assert_eq!(draft(&short, 5).unwrap().probes().len(), 0);
        assert_eq!(draft(&[], 5).unwrap().probes().len(), 0);
    }
}
