//! A board, drafts and curation, as a person reads them.

use lifeboat_engine::{Meaning, ProbeReport, WorstProbe};

use super::text::{Page, plural};

/// What a probe of an index, or a step towards one, came to.
pub(crate) fn page(report: &ProbeReport) -> String {
    let mut page = Page::new();
    let name = &report.store;
    if let Some(meaning) = &report.meaning {
        page.line(format!("{name}: {}", meaning.said()));
        board(meaning, &mut page);
        if report.action == "baseline" {
            page.line(format!("kept as the baseline in {}; the next backup takes it along", report.gold));
        }
    }
    if let Some(drafted) = &report.drafted {
        let drafts = plural(drafted.drafts as u64, "question", "questions");
        let sections = plural(drafted.sections as u64, "section", "sections");
        page.line(format!("{name}: {drafts} drafted of {sections}, in {}/drafts.jsonl", report.gold));
        if drafted.fitted {
            page.line("  the pinned embedder was fitted on the texts of the index: embedder.lsa");
        }
        page.line("  a draft may be nonsense: read, mend or remove each line");
        page.line(format!("next: lifeboat probe curate {name}"));
    }
    if let Some(curated) = &report.curated {
        let kept = plural(curated.kept, "question", "questions");
        page.line(format!("{name}: {kept} let in, {} dropped", curated.dropped.len()));
        for (id, why) in &curated.dropped {
            page.line(format!("  {id}: {}", why.join(", ").replace('_', " ")));
        }
        worst(&curated.worst, &mut page);
        if !curated.far_from_anchor.is_empty() {
            page.line(format!("  far from their own anchor: {}", curated.far_from_anchor.join(", ")));
        }
        if curated.lacks.is_empty() {
            page.line(format!("frozen in {}", report.gold));
            page.line(format!("next: lifeboat probe baseline {name}"));
        }
        for lack in &curated.lacks {
            page.line(format!("NOT FROZEN: {lack}"));
        }
    }
    page.finish()
}

fn board(meaning: &Meaning, page: &mut Page) {
    let Some(verdict) = &meaning.board else { return };
    let ds = &verdict.ds;
    page.line(format!(
        "  \u{394}S mean {:.4}, p90 {:.4}, p95 {:.4}, max {:.4}",
        ds.mean, ds.p90, ds.p95, ds.max
    ));
    let bands: Vec<String> = ds
        .bands
        .iter()
        .map(|(band, share)| format!("{} {share:.4}", format!("{band:?}").to_lowercase()))
        .collect();
    page.line(format!("  bands: {}", bands.join(", ")));
    let coverage = &verdict.coverage;
    page.line(format!("  coverage mean {:.4}, p10 {:.4}", coverage.mean, coverage.p10));
    let states: Vec<String> =
        verdict.lambda.states.iter().map(|(state, count)| format!("{state} {count}")).collect();
    page.line(format!("  \u{3bb} {}, flips {:.4}", states.join(", "), verdict.lambda.flip_rate));
    for gate in &verdict.failed_gates {
        page.line(format!("  FAILED {}: {}, expected {}", gate.name.word(), gate.measured, gate.threshold));
    }
    for warning in &verdict.warnings {
        page.line(format!("  {warning}"));
    }
    if let Some(drift) = &meaning.drift {
        for crossed in &drift.crossed {
            page.line(format!(
                "  DRIFT {} by {:+.4}, bound {:+.4}",
                crossed.field, crossed.change, crossed.bound
            ));
        }
    }
    worst(&meaning.worst, page);
    page.line(format!("decision: {}", meaning.decided()));
}

fn worst(probes: &[WorstProbe], page: &mut Page) {
    if !probes.is_empty() {
        page.line("  worst:");
    }
    for probe in probes {
        let WorstProbe { probe_id, question, expected_section, ds, coverage, lambda, citations } = probe;
        page.line(format!("    {probe_id} \u{394}S {ds:.4}, coverage {coverage:.4}, {lambda}: {question}"));
        page.line(format!("      expected {expected_section}, found {}", citations.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lifeboat_engine::{CurateView, DraftView};

    use super::*;

    fn report(action: &'static str) -> ProbeReport {
        ProbeReport {
            schema: "lifeboat.probe/v1",
            store: lifeboat_base::ids::StoreName::new("docs").unwrap(),
            action,
            ok: false,
            gold: "./gold".to_owned(),
            meaning: None,
            drafted: None,
            curated: None,
        }
    }

    #[test]
    fn a_board_is_read_from_its_numbers_to_the_decision() {
        let meaning = serde_json::from_value(serde_json::json!({
            "board": {
                "n": 60, "verdict": "fail", "citation_match": 0.8, "similar_but_wrong": null, "score_q3": 0.7,
                "ds": {"median": 0.62, "mean": 0.58, "p90": 0.8, "p95": 0.9, "max": 1.0,
                    "bands": {"stable": 0.2, "transitional": 0.3, "risk": 0.4, "danger": 0.1}},
                "coverage": {"median": 1.0, "mean": 0.65, "p10": 0.0, "pass_rate": 0.66},
                "lambda": {"conv_rate": 0.7, "states": {"\u{2192}": 40, "<>": 20}, "flip_rate": 0.1},
                "failed_gates": [{"name": "stress", "measured": "0.6200", "threshold": "<= 0.4500"}],
                "warnings": ["coverage_pass_rate is 0.6600, below 0.9000"], "profile_hash": "00".repeat(32),
            },
            "drift": {
                "ds_mean": 0.2, "ds_p95": 0.3, "coverage_mean": -0.3, "within_regions": false, "level": "stop", "probes": [],
                "crossed": [{"field": "ds_p95", "change": 0.3, "bound": 0.15, "level": "stop"}],
            },
            "worst": [{
                "probe_id": "p-007", "question": "How is an index restored?", "expected_section": "guide.restore",
                "ds": 0.97, "coverage": 0.0, "lambda": "<>", "citations": ["doc:guide#guide.backup"],
            }],
            "decision": {"action": "rebuild", "steps": ["rebuild", "rehash", "reprobe"], "reasons": [
                {"field": "ds_median", "expected": "<= 0.4500", "found": "0.6200", "action": "rebuild"}]},
        }));
        let report = ProbeReport { meaning: Some(meaning.unwrap()), ..report("board") };
        insta::assert_snapshot!(page(&report));
    }

    #[test]
    fn drafts_and_what_was_let_in_say_what_comes_next() {
        let drafted = DraftView { drafts: 120, sections: 400, fitted: true };
        let draft = ProbeReport { drafted: Some(drafted), ok: true, ..report("draft") };
        let curated = CurateView {
            kept: 40,
            dropped: BTreeMap::from([(
                "p-001".to_owned(),
                vec!["too_far".to_owned(), "not_convergent".to_owned()],
            )]),
            far_from_anchor: vec!["p-002".to_owned()],
            lacks: vec!["40 questions with an answer were let in, a board takes 50 to 200".to_owned()],
            worst: Vec::new(),
        };
        let curate = ProbeReport { curated: Some(curated), ..report("curate") };
        insta::assert_snapshot!(format!("{}\n{}", page(&draft), page(&curate)));
    }
}
