//! The pages as people read them, and that nothing hostile gets out of its place.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use lifeboat_base::digest::Digest;
use lifeboat_base::ids::{CopyName, DrillId, PlanName, PointId, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_drill::{
    CheckOutcome, DrillReport, DrillVerdict, Environment, Forecast, LogLine, MustDiffer, ReplayDrill,
    Sighting, StageReport, StoreDrill, TierDrill,
};
use lifeboat_report::pages;
use lifeboat_stores::CheckState;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn check(id: &str, state: CheckState, canary: Option<bool>) -> CheckOutcome {
    CheckOutcome {
        id: id.to_owned(),
        state,
        measured: "3 rows".to_owned(),
        threshold: "3 rows".to_owned(),
        differences: u64::from(state == CheckState::Failed),
        detail: Vec::new(),
        canary_caught: canary,
    }
}

fn stage(name: &str, started: i64, seconds: f64, ok: bool) -> StageReport {
    StageReport { stage: name.to_owned(), started: at(started), seconds, ok }
}

fn orders() -> StoreDrill {
    StoreDrill {
        name: StoreName::new("orders").unwrap(),
        point: PointId::new("pt-20270115t080000-orders").unwrap(),
        copy: CopyName::new("here").unwrap(),
        shows: at(-60),
        lag_s: Some(0.0),
        stages: vec![
            stage("open", 0, 0.4, true),
            stage("restore", 1, 2.0, true),
            stage("check", 3, 1.5, true),
            stage("canaries", 5, 0.7, true),
        ],
        rto_s: Some(52.0),
        rto_target_s: Some(60.0),
        forecast: Some(Forecast {
            expected_s: 41.0,
            low_s: 38.0,
            high_s: 44.0,
            probability: 0.75,
            drills: 7,
            beyond: false,
        }),
        ready_s: Some(52.0),
        rpo_s: 60.0,
        rpo_target_s: Some(300.0),
        bytes: 4_200_000,
        checks: vec![
            check("sqlite.rows/orders", CheckState::Passed, Some(true)),
            check("sqlite.integrity", CheckState::Passed, Some(true)),
            check("sqlite.foreign", CheckState::NotApplicable, None),
        ],
        meaning: None,
        verdict: DrillVerdict::Passed,
    }
}

fn uploads() -> StoreDrill {
    StoreDrill {
        name: StoreName::new("uploads").unwrap(),
        point: PointId::new("pt-20270115t070000-uploads").unwrap(),
        shows: at(-3600),
        lag_s: Some(3540.0),
        stages: vec![stage("open", 0, 0.2, true), stage("restore", 1, 4.0, false)],
        rto_s: None,
        rto_target_s: Some(1800.0),
        forecast: None,
        ready_s: None,
        rpo_s: 3600.0,
        rpo_target_s: Some(600.0),
        checks: vec![check("files.content", CheckState::Failed, Some(true))],
        meaning: serde_json::from_str(
            r#"{"not_probed": "the row names no <gold> set", "decision": {"action": "review", "steps": ["reprobe"], "reasons": [
                {"field": "board", "expected": "measured", "found": "not measured", "action": "review"}]}}"#,
        )
        .unwrap(),
        verdict: DrillVerdict::Failed,
        ..orders()
    }
}

fn report() -> DrillReport {
    DrillReport {
        schema: DrillReport::SCHEMA.to_owned(),
        id: DrillId::new("drill-20270115t080100-4f6b").unwrap(),
        plan: Some(PlanName::new("monthly").unwrap()),
        moment: at(0),
        common_moment: Some(at(-60)),
        order: vec![vec![StoreName::new("orders").unwrap()], vec![StoreName::new("uploads").unwrap()]],
        tiers: vec![TierDrill {
            tier: "A".to_owned(),
            stores: vec![StoreName::new("orders").unwrap(), StoreName::new("uploads").unwrap()],
            ready_s: None,
        }],
        target: Some("local".to_owned()),
        must_differ: Some(MustDiffer {
            looked_for: 3,
            unlooked: vec!["env:CACHE_URL of `cache`".to_owned()],
            files: 1_234,
            bytes: 5_678,
            seen: vec![Sighting {
                what: "env:SHOP_URL of `shop`".to_owned(),
                file: "uploads/.env".to_owned(),
            }],
            canary_caught: true,
        }),
        ended: at(9),
        stores: vec![orders(), uploads()],
        replays: vec![ReplayDrill {
            name: StoreName::new("cache").unwrap(),
            rto_s: Some(1.5),
            rto_target_s: Some(60.0),
            checks: vec![check("redis.keys", CheckState::Passed, Some(false))],
            verdict: DrillVerdict::Failed,
        }],
        agreement: vec![CheckOutcome {
            detail: vec!["`7` of orders is not in uploads".to_owned()],
            ..check("agreement/attachments", CheckState::Failed, Some(true))
        }],
        answers: Vec::new(),
        baseline: false,
        verdict: DrillVerdict::Failed,
        findings: vec![
            Finding::new("files.content", "uploads", "files.content measured 3 rows, expected 4"),
            Finding::new("drill.rpo", "uploads", "1h of writes would be lost, 10m are promised"),
            Finding::new("agreement/attachments", "attachments", "1 attachment is missing"),
        ],
        environment: Some(Environment {
            tool: "lifeboat 0.1.0".to_owned(),
            platform: "linux x86_64".to_owned(),
            processors: 2,
            servers_alone: Some(true),
            timezone: "Europe/Berlin".to_owned(),
            policy: Digest::of(b"policy"),
        }),
        log: vec![LogLine { at: at(1), text: "orders: restoring".to_owned() }],
        records: vec![12, 13],
        evidence: None,
    }
}

fn page(report: &DrillReport, name: &str) -> String {
    pages(report).unwrap().into_iter().find(|page| page.name == name).unwrap().text
}

#[test]
fn a_failed_drill_reads_well_in_markdown_and_in_tables() {
    let report = report();
    let names: Vec<&str> = pages(&report).unwrap().iter().map(|page| page.name).collect();
    assert_eq!(
        names,
        ["report.html", "report.md", "report.json", "stores.csv", "checks.csv", "timeline.csv"]
    );
    insta::assert_snapshot!("report.md", page(&report, "report.md"));
    for name in ["stores.csv", "checks.csv", "timeline.csv"] {
        insta::assert_snapshot!(name, page(&report, name).replace("\r\n", "\n"));
    }
    let again: DrillReport = serde_json::from_str(&page(&report, "report.json")).unwrap();
    assert_eq!(again, report);
}

#[test]
fn the_page_for_a_browser_fetches_and_runs_nothing_and_shows_every_result() {
    let html = page(&report(), "report.html");
    for absent in ["<script", "http://www.w3.org/1999/xlink", "src=", "@import", "url("] {
        assert!(!html.contains(absent), "{absent}");
    }
    for present in [
        "default-src 'none'",
        "FAILED",
        "drill-20270115t080100-4f6b",
        "class=\"bad\">failed",
        "class=\"bad\">no power",
        "`7` of orders is not in uploads",
        "1 of 2 stores restored and checked in isolation",
        "0 of 1 rules between stores held",
        "DORA Article 12(7)",
        "<svg",
        "never came back",
        "share of the promised time",
        "it took 87 % of the promised time to come back",
    ] {
        assert!(html.contains(present), "{present} is not in {html}");
    }
    assert_eq!(page(&report(), "report.html"), html);
}

#[test]
fn what_a_hostile_store_says_is_shown_and_never_obeyed() {
    let evil = "<img src=x onerror=alert(1)>|\n=cmd()";
    let mut report = report();
    report.findings = vec![Finding::new("drill.failed", evil, evil)];
    report.log = vec![LogLine { at: at(1), text: evil.to_owned() }];
    report.stores[0].checks[0].measured = evil.to_owned();
    report.stores[0].checks[0].id = format!("sqlite.rows/{evil}");
    report.agreement[0].detail = vec![evil.to_owned()];
    let html = page(&report, "report.html");
    assert!(!html.contains("<img"), "{html}");
    let markdown = page(&report, "report.md");
    assert!(!markdown.contains("<img"));
    // No line of a table is broken in two by what stands in it.
    assert!(!markdown.lines().any(|line| line.starts_with("=cmd")));
    report.stores[0].checks[0].measured = "=HYPERLINK(\"http://x\")".to_owned();
    assert!(page(&report, "checks.csv").contains("\"'=HYPERLINK(\"\"http://x\"\")\""));
}

#[test]
fn a_drill_that_could_not_begin_has_pages_too() {
    let mut report = report();
    report.stores.clear();
    report.replays.clear();
    report.agreement.clear();
    report.order.clear();
    let html = page(&report, "report.html");
    assert!(!html.contains("<svg") && html.contains("FAILED"));
}
