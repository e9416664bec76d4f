//! Citations: a good one passes, and each damage is told by its own code.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_probe::{Citation, CitationContext, CitedOffsets, Given, Span, meets, validate};

fn citation() -> Citation {
    Citation {
        snippet_id: Some("c1".to_owned()),
        section_id: Some("a.b".to_owned()),
        source_url: Some("https://example.org/a".to_owned()),
        offsets: Some(CitedOffsets { start: 104, end: 107, unit: "byte".to_owned() }),
        word_count: Some(1),
        index_hash: Some("abc".to_owned()),
        embed_model: Some("model".to_owned()),
        analyzer: Some("plain".to_owned()),
        rev: Some("r1".to_owned()),
        score_raw: Some(0.9),
        score_norm: None,
        text: Some("two".to_owned()),
    }
}

fn context() -> CitationContext {
    let given = Given {
        section_id: "a.b".to_owned(),
        rev: "r1".to_owned(),
        span: Span::new("sample", 100, 111).unwrap(),
        text: "one two six".to_owned(),
    };
    CitationContext {
        index_hash: "abc".to_owned(),
        analyzer: "plain".to_owned(),
        retrieved: BTreeMap::from([("c1".to_owned(), given)]),
        sections: BTreeSet::from(["a.b".to_owned()]),
        allow_cross_section: false,
    }
}

fn code(change: impl Fn(&mut Citation)) -> Option<String> {
    let mut changed = citation();
    change(&mut changed);
    validate(&[citation(), changed], &context()).map(|fault| {
        assert_eq!(fault.at, 1);
        fault.code
    })
}

#[test]
fn a_good_block_breaks_no_rule_and_an_empty_one_does() {
    assert_eq!(validate(&[citation()], &context()), None);
    assert_eq!(validate(&[], &context()).unwrap().code, "empty_citations");
}

#[test]
fn every_missing_field_is_named() {
    type Change = (&'static str, fn(&mut Citation));
    let fields: [Change; 9] = [
        ("missing_snippet_id", |citation| citation.snippet_id = None),
        ("missing_section_id", |citation| citation.section_id = Some(" ".to_owned())),
        ("missing_source_url", |citation| citation.source_url = None),
        ("missing_offsets", |citation| citation.offsets = None),
        ("missing_tokens", |citation| citation.word_count = None),
        ("missing_index_hash", |citation| citation.index_hash = None),
        ("missing_embed_model", |citation| citation.embed_model = None),
        ("missing_analyzer", |citation| citation.analyzer = None),
        ("missing_rev", |citation| citation.rev = None),
    ];
    for (expected, change) in fields {
        assert_eq!(code(change).as_deref(), Some(expected));
    }
}

#[test]
fn every_other_rule_has_its_code() {
    let offsets = |start, end, unit: &str| Some(CitedOffsets { start, end, unit: unit.to_owned() });
    assert_eq!(code(|citation| citation.offsets = offsets(107, 107, "byte")).as_deref(), Some("bad_offsets"));
    assert_eq!(code(|citation| citation.offsets = offsets(104, 107, "line")).as_deref(), Some("bad_offsets"));
    let relabel = |citation: &mut Citation| citation.section_id = Some("a.c".to_owned());
    assert_eq!(code(relabel).as_deref(), Some("cross_section_reuse"));
    assert_eq!(code(|citation| citation.score_raw = None).as_deref(), Some("missing_score"));
    assert_eq!(code(|citation| citation.score_raw = Some(f64::NAN)).as_deref(), Some("missing_score"));
    let hash = |citation: &mut Citation| citation.index_hash = Some("abd".to_owned());
    assert_eq!(code(hash).as_deref(), Some("mismatch_index_hash"));
    let analyzer = |citation: &mut Citation| citation.analyzer = Some("stem".to_owned());
    assert_eq!(code(analyzer).as_deref(), Some("analyzer_mismatch"));
    assert_eq!(code(|citation| citation.rev = Some("r2".to_owned())).as_deref(), Some("rev_mismatch"));
    let other = |citation: &mut Citation| citation.snippet_id = Some("c9".to_owned());
    assert_eq!(code(other).as_deref(), Some("not_retrieved"));
    assert_eq!(code(|citation| citation.text = Some("tw0".to_owned())).as_deref(), Some("text_mismatch"));
    assert_eq!(code(|citation| citation.offsets = offsets(90, 97, "byte")).as_deref(), Some("text_mismatch"));
}

#[test]
fn the_first_rule_is_told_whichever_citation_breaks_it() {
    let late = Citation { rev: Some("r2".to_owned()), ..citation() };
    let early = Citation { snippet_id: None, ..citation() };
    assert_eq!(validate(&[late, early], &context()).unwrap().code, "missing_snippet_id");
}

#[test]
fn sources_from_other_sections_are_welcome_when_that_is_said() {
    let mut other = context();
    other.sections = BTreeSet::from(["z".to_owned()]);
    assert_eq!(validate(&[citation()], &other).unwrap().code, "cross_section_reuse");
    other.allow_cross_section = true;
    assert_eq!(validate(&[citation()], &other), None);
}

#[test]
fn an_anchor_is_met_within_thirty_bytes() {
    let span = |start, end| Span::new("sample", start, end).unwrap();
    assert!(meets(span(130, 200), span(100, 200)));
    assert!(!meets(span(131, 200), span(100, 200)));
    assert!(!meets(span(100, 169), span(100, 200)));
}
