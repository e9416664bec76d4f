//! Each way a drill can go wrong turns its verdict, and the sandbox is gone whatever happens.

use std::time::Duration;

use lifeboat_base::capture::{CaptureFacts, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, DrillId, PointId, StoreName};
use lifeboat_base::monitor::Findings;
use lifeboat_drill::{DrillReport, DrillSubject, DrillVerdict, Rehearsal, run};
use lifeboat_stores::CheckState;

use super::adapters::{Empty, Told, facts, listing, now};

fn drilled(told: &Told, facts: &CaptureFacts, opens: bool) -> DrillReport {
    let root = tempfile::tempdir().unwrap();
    let subject = DrillSubject {
        store: StoreName::new("orders").unwrap(),
        point: PointId::new("pt-1").unwrap(),
        copy: CopyName::new("local").unwrap(),
        facts,
        reach: facts.consistency.moment,
        adapter: told,
        open: Box::new(move || {
            if opens {
                Ok(Box::new(Empty) as Box<dyn RestoreSource>)
            } else {
                Err(Failure::new(FailureKind::Damaged, "the manifest is altered"))
            }
        }),
        log: None,
        rto: Some(Duration::from_secs(10)),
        rpo: Some(Duration::from_secs(120)),
    };
    let id = DrillId::new("drill-1").unwrap();
    let clock = told.clock.as_ref();
    let rehearsal = Rehearsal {
        id,
        moment: now(),
        common: None,
        waves: vec![vec![subject]],
        rules: Vec::new(),
        applications: Vec::new(),
    };
    let report = run(rehearsal, root.path(), clock, &Findings::new()).unwrap();
    assert!(listing(root.path()).is_empty(), "the sandbox is gone");
    report
}

fn codes(report: &DrillReport) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn a_drill_passes_when_everything_was_shown() {
    let report = drilled(&Told::well(), &facts(), true);
    assert_eq!((report.verdict, codes(&report)), (DrillVerdict::Passed, vec![]));
    let store = &report.stores[0];
    assert_eq!(store.rto_s, Some(5.0));
    assert!((store.rpo_s - 60.0).abs() < 1e-9);
    assert_eq!(store.checks[0].canary_caught, Some(true));
    let stages: Vec<&str> = store.stages.iter().map(|stage| stage.stage.as_str()).collect();
    assert_eq!(stages, ["open", "restore", "check", "canaries"]);
}

/// One way for a drill to go wrong.
type Mishap = fn(&mut Told);

#[test]
fn whatever_goes_wrong_fails_the_drill_and_says_what() {
    let cases: [(&str, Mishap); 8] = [
        ("drill.failed", |told| told.restore_fails = true),
        ("drill.failed", |told| told.checks_error = true),
        ("told.rows/orders", |told| told.check_state = CheckState::Failed),
        ("drill.unproven", |told| told.check_state = CheckState::NotApplicable),
        ("drill.no-power", |told| told.canary = Some(false)),
        ("drill.no-power", |told| told.canary = None),
        ("drill.canaries", |told| told.canaries_error = true),
        ("drill.rto", |told| told.restore_takes = Duration::from_secs(11)),
    ];
    for (code, break_it) in cases {
        let mut told = Told::well();
        break_it(&mut told);
        let report = drilled(&told, &facts(), true);
        assert_eq!(report.verdict, DrillVerdict::Failed, "{code}");
        assert!(codes(&report).contains(&code), "{code}: {:?}", report.findings);
    }
}

#[test]
fn a_point_that_does_not_open_fails_the_drill_as_damaged() {
    let report = drilled(&Told::well(), &facts(), false);
    assert_eq!(report.verdict, DrillVerdict::Failed);
    assert_eq!(report.findings[0].kind, FailureKind::Damaged);
    assert_eq!(report.stores[0].rto_s, None);
}

#[test]
fn an_old_or_incomplete_point_fails_the_drill() {
    let mut old = facts();
    old.consistency.moment = now() - Duration::from_secs(121);
    assert_eq!(codes(&drilled(&Told::well(), &old, true)), ["drill.rpo"]);
    let mut incomplete = facts();
    incomplete.unreadable.push("secret.txt".to_owned());
    assert_eq!(codes(&drilled(&Told::well(), &incomplete, true)), ["drill.incomplete"]);
}
