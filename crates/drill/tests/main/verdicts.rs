//! Each way a drill can go wrong turns its verdict, and the sandbox is gone whatever happens.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_base::capture::{CaptureFacts, RestoreSource};
use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, DrillId, PointId, StoreName};
use lifeboat_base::monitor::Findings;
use lifeboat_drill::{DrillReport, DrillSubject, DrillVerdict, Local, Rehearsal, Telltales, run};
use lifeboat_stores::CheckState;

use super::adapters::{Empty, Told, facts, listing, now, reading};

fn drilled(told: &Told, facts: &CaptureFacts, opens: bool) -> DrillReport {
    let root = tempfile::tempdir().unwrap();
    let report = drilled_in(root.path(), told, facts, opens);
    assert!(listing(root.path()).is_empty(), "the sandbox is gone");
    report
}

fn drilled_in(root: &Path, told: &Told, facts: &CaptureFacts, opens: bool) -> DrillReport {
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
        replays: false,
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
        reading: reading(told.reads),
        telltales: Telltales::default(),
    };
    run(rehearsal, &Local::new(root), clock, &Findings::new()).unwrap()
}

/// A file system in memory, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn on(folder: &Path) -> Self {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "lifeboat-test"]).arg(folder).status().unwrap();
        assert!(mounted.success(), "this test mounts a file system: run it as root");
        Self(folder.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn what_an_earlier_drill_left_that_cannot_be_removed_is_told_and_stops_no_later_drill() {
    let root = tempfile::tempdir().unwrap();
    let (held, dead) = (root.path().join("drill-held"), root.path().join("drill-later"));
    for folder in [held.join("orders"), dead.clone()] {
        crashsafe::create_dir_all(&folder).unwrap();
    }
    let mount = Mount::on(&held.join("orders"));
    for _drill in 0..2 {
        let report = drilled_in(root.path(), &Told::well(), &facts(), true);
        assert_eq!((report.verdict, codes(&report)), (DrillVerdict::Failed, vec!["drill.leftover"]));
        let finding = &report.findings[0];
        assert_eq!(finding.subject, "drill-held");
        assert!(finding.message.contains("is a mount of its own"), "{finding:?}");
        assert_eq!(report.stores[0].verdict, DrillVerdict::Passed, "the store itself came back");
        assert!(!dead.exists(), "one that cannot be removed keeps no other from it");
    }
    drop(mount);
    let report = drilled_in(root.path(), &Told::well(), &facts(), true);
    assert_eq!((report.verdict, codes(&report)), (DrillVerdict::Passed, vec![]));
    assert!(listing(root.path()).is_empty());
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
    let cases: [(&str, Mishap); 9] = [
        ("drill.failed", |told| told.restore_fails = true),
        ("drill.failed", |told| told.checks_error = true),
        ("told.rows/orders", |told| told.check_state = CheckState::Failed),
        ("drill.unproven", |told| told.check_state = CheckState::NotApplicable),
        ("drill.no-power", |told| told.canary = Some(false)),
        ("drill.no-power", |told| told.canary = None),
        ("drill.canaries", |told| told.canaries_error = true),
        ("drill.no-power", |told| told.reads = false),
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
fn case_23_a_drill_whose_checks_cannot_tell_good_from_bad_is_broken_whichever_way_they_err() {
    // What the check says of what was restored, whether it notices damage, and what the drill says of it.
    let cases = [
        (CheckState::Passed, Some(true), vec![]),
        (CheckState::Passed, Some(false), vec!["drill.no-power"]),
        (CheckState::Passed, None, vec!["drill.no-power"]),
        (CheckState::Failed, Some(true), vec!["told.rows/orders"]),
        (CheckState::Failed, Some(false), vec!["told.rows/orders", "drill.no-power"]),
        (CheckState::Failed, None, vec!["told.rows/orders", "drill.no-power"]),
    ];
    for (state, canary, expected) in cases {
        let told = Told { check_state: state, canary, ..Told::well() };
        let report = drilled(&told, &facts(), true);
        let mut found = codes(&report);
        found.dedup();
        assert_eq!(found, expected, "{state:?} {canary:?}");
        assert_eq!(report.verdict == DrillVerdict::Passed, expected.is_empty(), "{state:?} {canary:?}");
        assert_eq!(report.stores[0].checks[0].has_shown(), expected.is_empty(), "{state:?} {canary:?}");
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
