//! Citations: whether an answer's sources are complete, true to the index, and what the text says at that place.
//!
//! In: the citations of an answer as they came, and what was retrieved. Out: the first rule that is broken, by its code.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::span::Span;

/// A citation as it came; nothing of it is taken for granted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Citation {
    /// The snippet.
    pub snippet_id: Option<String>,
    /// Its section.
    pub section_id: Option<String>,
    /// Where it can be read; a hash of it when it is private.
    pub source_url: Option<String>,
    /// Its place in the document.
    pub offsets: Option<CitedOffsets>,
    /// How many words it has.
    #[serde(rename = "tokens")]
    pub word_count: Option<u64>,
    /// The index it came from.
    pub index_hash: Option<String>,
    /// The model of that index.
    pub embed_model: Option<String>,
    /// The analyzer of that index.
    pub analyzer: Option<String>,
    /// The revision of the document.
    pub rev: Option<String>,
    /// The store's own score.
    pub score_raw: Option<f64>,
    /// The score between 0 and 1.
    pub score_norm: Option<f64>,
    /// The text that was cited.
    pub text: Option<String>,
}

/// Offsets before anybody looked at them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CitedOffsets {
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
    /// What is counted.
    pub unit: String,
}

/// A snippet as the index gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its section.
    pub section_id: String,
    /// Its revision.
    pub rev: String,
    /// Its place.
    pub span: Span,
    /// Its canonical text, which begins at `span`.
    pub text: String,
}

/// What citations are held against.
#[derive(Clone, Debug, Default)]
pub struct CitationContext {
    /// INDEX_HASH of the index that serves.
    pub index_hash: String,
    /// Its analyzer.
    pub analyzer: String,
    /// What was retrieved for the answer, by snippet id.
    pub retrieved: BTreeMap<String, Given>,
    /// The sections that the answer is about; empty when any will do.
    pub sections: BTreeSet<String>,
    /// Whether sources from other sections are welcome.
    pub allow_cross_section: bool,
}

/// The rule that a citation breaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CitationFault {
    /// Which citation, counted from 0; 0 for a block without any.
    pub at: usize,
    /// The code of the rule.
    pub code: String,
}

/// The first rule that a block of citations breaks, in the order of the rules; `None` when it breaks none.
pub fn validate(citations: &[Citation], context: &CitationContext) -> Option<CitationFault> {
    if citations.is_empty() {
        return Some(CitationFault { at: 0, code: "empty_citations".to_owned() });
    }
    let rules: [fn(&Citation, &CitationContext) -> Option<String>; 9] = [
        missing_field,
        bad_offsets,
        cross_section_reuse,
        missing_score,
        mismatch_index_hash,
        analyzer_mismatch,
        not_retrieved,
        rev_mismatch,
        text_mismatch,
    ];
    rules.iter().find_map(|rule| {
        let mut numbered = citations.iter().enumerate();
        numbered.find_map(|(at, citation)| rule(citation, context).map(|code| CitationFault { at, code }))
    })
}

fn missing_field(citation: &Citation, _context: &CitationContext) -> Option<String> {
    let blank = |text: &Option<String>| text.as_ref().is_none_or(|text| text.trim().is_empty());
    let fields = [
        ("snippet_id", blank(&citation.snippet_id)),
        ("section_id", blank(&citation.section_id)),
        ("source_url", blank(&citation.source_url)),
        ("offsets", citation.offsets.is_none()),
        ("tokens", citation.word_count.is_none()),
        ("index_hash", blank(&citation.index_hash)),
        ("embed_model", blank(&citation.embed_model)),
        ("analyzer", blank(&citation.analyzer)),
        ("rev", blank(&citation.rev)),
    ];
    fields.iter().find(|(_, is_missing)| *is_missing).map(|(field, _)| format!("missing_{field}"))
}

fn bad_offsets(citation: &Citation, _context: &CitationContext) -> Option<String> {
    let offsets = citation.offsets.as_ref()?;
    let is_bad = offsets.start >= offsets.end || offsets.unit != "byte";
    is_bad.then(|| "bad_offsets".to_owned())
}

fn cross_section_reuse(citation: &Citation, context: &CitationContext) -> Option<String> {
    let section = citation.section_id.as_ref()?;
    let given = citation.snippet_id.as_ref().and_then(|id| context.retrieved.get(id));
    let is_relabelled = given.is_some_and(|given| given.section_id != *section);
    let is_foreign = !context.sections.is_empty() && !context.sections.contains(section);
    (is_relabelled || (is_foreign && !context.allow_cross_section)).then(|| "cross_section_reuse".to_owned())
}

fn missing_score(citation: &Citation, _context: &CitationContext) -> Option<String> {
    let is_number = |score: Option<f64>| score.is_some_and(f64::is_finite);
    let has_score = is_number(citation.score_raw) || is_number(citation.score_norm);
    (!has_score).then(|| "missing_score".to_owned())
}

fn mismatch_index_hash(citation: &Citation, context: &CitationContext) -> Option<String> {
    (citation.index_hash.as_ref() != Some(&context.index_hash)).then(|| "mismatch_index_hash".to_owned())
}

fn analyzer_mismatch(citation: &Citation, context: &CitationContext) -> Option<String> {
    (citation.analyzer.as_ref() != Some(&context.analyzer)).then(|| "analyzer_mismatch".to_owned())
}

fn given<'a>(citation: &Citation, context: &'a CitationContext) -> Option<&'a Given> {
    context.retrieved.get(citation.snippet_id.as_ref()?)
}

fn not_retrieved(citation: &Citation, context: &CitationContext) -> Option<String> {
    given(citation, context).is_none().then(|| "not_retrieved".to_owned())
}

fn rev_mismatch(citation: &Citation, context: &CitationContext) -> Option<String> {
    let given = given(citation, context)?;
    (citation.rev.as_ref() != Some(&given.rev)).then(|| "rev_mismatch".to_owned())
}

/// The offsets must lead to the cited text, byte for byte.
fn text_mismatch(citation: &Citation, context: &CitationContext) -> Option<String> {
    let given = given(citation, context)?;
    let offsets = citation.offsets.as_ref()?;
    let resolved = || {
        let start = usize::try_from(offsets.start.checked_sub(given.span.start())?).ok()?;
        let end = usize::try_from(offsets.end.checked_sub(given.span.start())?).ok()?;
        given.text.get(start..end)
    };
    let cited = citation.text.as_deref();
    let is_true = resolved().is_some_and(|text| cited.is_none_or(|cited| cited == text));
    (!is_true).then(|| "text_mismatch".to_owned())
}

/// How far a citation may begin or end from the anchor and still meet it.
pub const HIT_WINDOW_BYTES: u64 = 30;

/// Whether a cited span meets the anchor of a gold question: all of it is there, give or take the window.
pub fn meets(cited: Span, anchor: Span) -> bool {
    cited.widened(HIT_WINDOW_BYTES).holds(anchor)
}
