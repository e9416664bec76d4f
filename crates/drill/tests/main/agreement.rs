//! What two stores say of each other: what is lost is told from what the time between them explains.

use std::time::Duration;

use lifeboat_base::capture::{CaptureFacts, RestoreSource};
use lifeboat_base::ids::{AgreementName, CopyName, DrillId, PointId, StoreName};
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::Timestamp;
use lifeboat_drill::{
    DrillReport, DrillSubject, DrillVerdict, Expect, Local, Rehearsal, Rule, Side, Telltales, run,
};
use lifeboat_stores::{CheckState, Selected, Selection};

use super::adapters::{Empty, Told, facts, listing, now, reading};

type Item = (&'static str, Option<&'static str>, Option<u64>);

/// Names with values, and how many seconds before the drill each was written.
fn said(items: &[Item]) -> Vec<Selected> {
    let one = |(name, value, age): &Item| Selected {
        name: name.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
        at: age.map(|seconds| now() - Duration::from_secs(seconds)),
    };
    items.iter().map(one).collect()
}

fn names(names: &[&'static str]) -> Vec<Selected> {
    said(&names.iter().map(|name| (*name, None, None)).collect::<Vec<_>>())
}

fn telling(says: Result<Vec<Selected>, &'static str>) -> Told {
    Told { says, ..Told::well() }
}

fn side(store: &str, prefix: &str) -> Side {
    Side {
        store: StoreName::new(store).unwrap(),
        selection: Selection::Paths("**".to_owned()),
        prefix: prefix.to_owned(),
        suffix: String::new(),
    }
}

pub(crate) fn subject<'a>(name: &str, facts: &'a CaptureFacts, told: &'a Told) -> DrillSubject<'a> {
    DrillSubject {
        store: StoreName::new(name).unwrap(),
        point: PointId::new(format!("pt-{name}")).unwrap(),
        copy: CopyName::new("local").unwrap(),
        facts,
        reach: facts.consistency.moment,
        adapter: told,
        open: Box::new(|| Ok(Box::new(Empty) as Box<dyn RestoreSource>)),
        log: None,
        replays: false,
        rto: None,
        rpo: None,
    }
}

/// A drill of `left` and `right`, which show the store so many seconds ago.
fn drilled(expect: Expect, (left, left_ago): (&Told, u64), (right, right_ago): (&Told, u64)) -> DrillReport {
    let showing = |seconds: u64| {
        let mut facts = facts();
        facts.consistency.moment = now() - Duration::from_secs(seconds);
        facts
    };
    let (left_facts, right_facts) = (showing(left_ago), showing(right_ago));
    let root = tempfile::tempdir().unwrap();
    let rehearsal = Rehearsal {
        id: DrillId::new("drill-1").unwrap(),
        moment: now(),
        common: Some(now() - Duration::from_secs(left_ago.min(right_ago))),
        waves: vec![
            vec![subject("orders", &left_facts, left)],
            vec![subject("uploads", &right_facts, right)],
        ],
        rules: vec![Rule {
            name: AgreementName::new("attachments").unwrap(),
            left: side("orders", ""),
            right: side("uploads", "files/"),
            expect,
            within: Duration::from_secs(5),
        }],
        applications: Vec::new(),
        reading: reading(true),
        telltales: Telltales::default(),
    };
    let report = run(rehearsal, &Local::new(root.path()), left.clock.as_ref(), &Findings::new()).unwrap();
    assert!(listing(root.path()).is_empty(), "the sandbox is gone");
    report
}

/// State, differences and findings of the one rule.
fn outcome(report: &DrillReport) -> (CheckState, u64, Vec<&str>) {
    let rule = &report.agreement[0];
    let codes = report.findings.iter().map(|finding| finding.code.as_str()).collect();
    (rule.state, rule.differences, codes)
}

#[test]
fn everything_named_on_the_left_must_be_on_the_right() {
    let left = telling(Ok(names(&["a", "b", "b"])));
    let right = telling(Ok(names(&["files/a", "files/b", "files/c"])));
    let report = drilled(Expect::Exists, (&left, 60), (&right, 60));
    assert_eq!(outcome(&report), (CheckState::Passed, 0, vec![]));
    assert_eq!(report.verdict, DrillVerdict::Passed);
    assert_eq!(report.agreement[0].canary_caught, Some(true));
    let order: Vec<Vec<&str>> =
        report.order.iter().map(|wave| wave.iter().map(StoreName::as_str).collect()).collect();
    assert_eq!(order, [["orders"], ["uploads"]]);

    let short = telling(Ok(names(&["files/a", "b"])));
    let report = drilled(Expect::Exists, (&left, 60), (&short, 60));
    assert_eq!(outcome(&report), (CheckState::Failed, 1, vec!["agreement/attachments"]));
    assert_eq!(report.verdict, DrillVerdict::Failed);
    assert_eq!(report.agreement[0].detail, ["`b` of orders is not in uploads"]);
    // Two names that both lack what should stand before them have nothing to do with each other.
    let (left, right) = (telling(Ok(names(&["a", "b"]))), telling(Ok(names(&["b", "files/a"]))));
    assert_eq!(outcome(&drilled(Expect::Exists, (&left, 60), (&right, 60))).1, 1);
}

#[test]
fn what_was_written_between_the_two_moments_is_told_and_allowed() {
    // The right shows what was there 100 s ago; 5 s more may pass between the two writes.
    let right = telling(Ok(names(&["files/old"])));
    for (age, state) in [
        (99, CheckState::Passed),
        (104, CheckState::Passed),
        (106, CheckState::Failed),
        (500, CheckState::Failed),
    ] {
        let left = telling(Ok(said(&[("old", None, Some(1000)), ("new", None, Some(age))])));
        let report = drilled(Expect::Exists, (&left, 10), (&right, 100));
        assert_eq!(report.agreement[0].state, state, "{age}");
        let explained = report.agreement[0].measured.contains("1 explained by the 95.0 s between the two");
        assert_eq!(explained, state == CheckState::Passed, "{}", report.agreement[0].measured);
    }
    // Without a time nothing is explained, and the report says what would help.
    let left = telling(Ok(names(&["old", "new"])));
    let report = drilled(Expect::Exists, (&left, 10), (&right, 100));
    assert_eq!(outcome(&report).1, 1);
    assert!(report.agreement[0].detail.iter().any(|line| line.contains("a column `at` would tell")));
    assert_eq!(report.stores.iter().map(|store| store.lag_s).collect::<Vec<_>>(), [Some(0.0), Some(90.0)]);
}

#[test]
fn both_sides_must_have_the_same_where_that_is_asked() {
    let left = telling(Ok(said(&[("acme", Some("3"), None), ("zeta", Some("4"), None)])));
    let cases: [(&[Item], u64); 5] = [
        (&[("files/acme", Some("3"), None), ("files/zeta", Some("4"), None)], 0),
        (&[("files/acme", Some("3"), None), ("files/zeta", None, None)], 1),
        (&[("files/acme", Some("3"), None), ("files/zeta", Some("5"), None)], 1),
        (&[("files/acme", Some("3"), None)], 1),
        (&[("files/acme", Some("3"), None), ("files/zeta", Some("4"), None), ("files/more", None, None)], 1),
    ];
    for (right, differences) in cases {
        let right = telling(Ok(said(right)));
        let report = drilled(Expect::Same, (&left, 60), (&right, 60));
        assert_eq!(outcome(&report).1, differences, "{:?}", report.agreement[0]);
        assert_eq!(report.verdict == DrillVerdict::Passed, differences == 0);
    }
    // A name that comes twice with two values is no value at all.
    let twice = telling(Ok(said(&[("files/acme", Some("3"), None), ("files/acme", Some("9"), None)])));
    assert_eq!(outcome(&drilled(Expect::Same, (&left, 60), (&twice, 60))).1, 2);
}

#[test]
fn the_newest_on_both_sides_must_be_equally_old() {
    let left = telling(Ok(said(&[("a", None, Some(70)), ("b", None, Some(3000))])));
    for (age, state) in [(70, CheckState::Passed), (75, CheckState::Passed), (76, CheckState::Failed)] {
        let right = telling(Ok(said(&[("files/x", None, Some(age))])));
        assert_eq!(drilled(Expect::Newest, (&left, 60), (&right, 60)).agreement[0].state, state, "{age}");
    }
}

#[test]
fn nothing_was_written_in_the_future() {
    // 2099, as in a column that says when something ends.
    let later = |name: &str| Selected {
        name: name.as_bytes().to_vec(),
        value: None,
        at: Some("2099-01-01T00:00:00Z".parse().unwrap()),
    };
    let left = telling(Ok(vec![later("a"), later("lost")]));
    let right = telling(Ok(names(&["files/a"])));
    assert_eq!(outcome(&drilled(Expect::Exists, (&left, 60), (&right, 60))).1, 1);
    let right = telling(Ok(vec![later("files/a"), later("files/more")]));
    let few = telling(Ok(vec![later("a")]));
    assert_eq!(outcome(&drilled(Expect::Same, (&few, 60), (&right, 60))).1, 1);
    let mut newer = said(&[("b", None, Some(70))]);
    newer.push(later("c"));
    let older = said(&[("files/b", None, Some(5000))]).into_iter().chain([later("files/c")]).collect();
    let report = drilled(Expect::Newest, (&telling(Ok(newer)), 60), (&telling(Ok(older)), 60));
    assert_eq!(report.agreement[0].state, CheckState::Failed);
}

#[test]
fn values_are_compared_or_it_is_said_that_they_were_not() {
    let left = telling(Ok(said(&[("acme", Some("3"), None)])));
    let mute = telling(Ok(names(&["files/acme"])));
    assert_eq!(drilled(Expect::Same, (&left, 60), (&mute, 60)).agreement[0].state, CheckState::NotApplicable);
    // Written again between the two moments.
    let left = telling(Ok(said(&[("acme", Some("4"), Some(50)), ("old", Some("1"), Some(900))])));
    let right =
        telling(Ok(said(&[("files/acme", Some("3"), Some(400)), ("files/old", Some("1"), Some(900))])));
    let report = drilled(Expect::Same, (&left, 10), (&right, 100));
    assert_eq!(outcome(&report), (CheckState::Passed, 0, vec![]), "{:?}", report.agreement[0]);
}

#[test]
fn a_rule_that_proves_nothing_is_never_called_kept() {
    let full = telling(Ok(names(&["a"])));
    let mute = telling(Err("there is no table `orders`"));
    let nothing = telling(Ok(Vec::new()));
    let broken = Told { check_state: CheckState::Failed, ..telling(Ok(names(&["files/a"]))) };
    for (expect, left, right) in [
        (Expect::Exists, &nothing, &full),
        (Expect::Exists, &mute, &full),
        (Expect::Exists, &full, &mute),
        (Expect::Exists, &full, &broken),
        (Expect::Same, &nothing, &nothing),
        (Expect::Newest, &full, &full),
    ] {
        let report = drilled(expect, (left, 60), (right, 60));
        assert_eq!(report.agreement[0].state, CheckState::NotApplicable, "{expect:?}");
        assert_eq!(report.verdict, DrillVerdict::Failed, "{expect:?}");
        assert!(outcome(&report).2.contains(&"drill.unproven"), "{:?}", report.findings);
    }
    // Everything there is was written too lately to be missed.
    let late = telling(Ok(said(&[("a", None, Some(1))])));
    let right = telling(Ok(said(&[("files/a", None, Some(1))])));
    let report = drilled(Expect::Exists, (&late, 0), (&right, 60));
    assert_eq!(outcome(&report), (CheckState::Passed, 0, vec!["drill.no-power"]));
    assert_eq!(report.verdict, DrillVerdict::Failed);
}

#[test]
fn a_hundred_thousand_names_are_compared_and_only_some_are_spelled_out() {
    let name = |number: u32| format!("{number:06}");
    let all: Vec<Selected> = (0..100_000)
        .map(|number| Selected { name: name(number).into_bytes(), value: None, at: None::<Timestamp> })
        .collect();
    let right: Vec<Selected> = all
        .iter()
        .filter(|found| !found.name.ends_with(b"77"))
        .map(|found| Selected { name: [b"files/", found.name.as_slice()].concat(), ..found.clone() })
        .collect();
    let report = drilled(Expect::Exists, (&telling(Ok(all)), 60), (&telling(Ok(right)), 60));
    assert_eq!(outcome(&report).1, 1000);
    assert_eq!(report.agreement[0].detail.len(), 10);
}
