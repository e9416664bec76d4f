//! What applications can do on restored stores: a command that cannot fail shows nothing.

use std::time::Duration;

use lifeboat_base::apart::Network;
use lifeboat_base::ids::{ApplicationName, DrillId, StoreName};
use lifeboat_base::monitor::Findings;
use lifeboat_drill::{Application, CheckOutcome, DrillReport, DrillVerdict, Need, Rehearsal, run};
use lifeboat_stores::CheckState;

use super::adapters::{Told, facts, listing, now};
use super::agreement::subject;

const BOTH: &str = r#"test -f "$STORE_ORDERS" && test -f "$STORE_UPLOADS""#;

/// A drill of two stores, tried by a script of a shell.
fn tried(script: &str, uploads: &Told) -> DrillReport {
    let (orders, facts) = (Told::well(), facts());
    let root = tempfile::tempdir().unwrap();
    let need = |name: &str| Need {
        store: StoreName::new(name).unwrap(),
        address: format!("STORE_{}", name.to_uppercase()),
        moment: format!("MOMENT_{}", name.to_uppercase()),
    };
    let rehearsal = Rehearsal {
        id: DrillId::new("drill-1").unwrap(),
        moment: now(),
        common: None,
        waves: vec![vec![subject("orders", &facts, &orders), subject("uploads", &facts, uploads)]],
        rules: Vec::new(),
        applications: vec![Application {
            name: ApplicationName::new("web").unwrap(),
            stores: vec![need("orders"), need("uploads")],
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            folder: root.path().to_owned(),
            within: Duration::from_secs(60),
            network: Network::None,
        }],
    };
    let report = run(rehearsal, root.path(), orders.clock.as_ref(), &Findings::new()).unwrap();
    assert!(listing(root.path()).is_empty(), "the sandbox is gone");
    report
}

fn outcome(report: &DrillReport) -> (&CheckOutcome, Vec<&str>) {
    (&report.agreement[0], report.findings.iter().map(|finding| finding.code.as_str()).collect())
}

#[test]
fn an_application_passes_where_it_finds_its_stores_and_misses_each_that_is_gone() {
    let report = tried(BOTH, &Told::well());
    let (web, codes) = outcome(&report);
    assert_eq!(
        (web.id.as_str(), web.state, web.canary_caught),
        ("application/web", CheckState::Passed, Some(true))
    );
    assert_eq!((codes, report.verdict), (vec![], DrillVerdict::Passed));
}

#[test]
fn one_that_passes_without_a_store_has_no_power() {
    for (script, blind) in [
        ("true", &["it passes without `orders`", "it passes without `uploads`"][..]),
        (r#"test -f "$STORE_ORDERS""#, &["it passes without `uploads`"][..]),
    ] {
        let report = tried(script, &Told::well());
        let (web, codes) = outcome(&report);
        assert_eq!(
            (web.canary_caught, web.detail.as_slice()),
            (Some(false), &blind.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()[..])
        );
        assert_eq!((codes, report.verdict), (vec!["application/web"], DrillVerdict::Failed));
    }
}

#[test]
fn a_failure_that_would_have_come_anyway_shows_nothing() {
    for (script, doubt) in [
        // What it consumes is gone when the stores are away, and afterwards.
        (r#"test -f "$STORE_ORDERS" && rm "$STORE_UPLOADS""#, "it does not pass a second time"),
        (
            r#"test -f "$STORE_ORDERS" || kill -KILL $$; test -f "$STORE_UPLOADS""#,
            "without `orders` it does not end",
        ),
    ] {
        let report = tried(script, &Told::well());
        let (web, codes) = outcome(&report);
        assert_eq!((web.canary_caught, codes), (Some(false), vec!["application/web"]));
        assert!(web.detail[0].starts_with(doubt), "{:?}", web.detail);
    }
    // Its home is new each time, and so is the place where nothing is.
    let script = format!(
        r#"test ! -e "$HOME/ran" && : > "$HOME/ran"; {BOTH} || {{ mkdir -p "$STORE_ORDERS"; exit 1; }}"#
    );
    let report = tried(&script, &Told::well());
    assert_eq!(outcome(&report).1, Vec::<&str>::new(), "{:?}", outcome(&report).0);
}

#[test]
fn what_it_says_when_it_fails_is_told() {
    let report = tried("echo no orders of today >&2; exit 3", &Told::well());
    let (web, codes) = outcome(&report);
    assert_eq!((web.state, web.measured.as_str()), (CheckState::Failed, "exit status: 3"));
    assert_eq!(web.detail, ["no orders of today"]);
    assert_eq!(codes, ["application/web"]);
    assert!(
        report.findings[0].message.ends_with("exit status: 3: no orders of today"),
        "{:?}",
        report.findings
    );
    let report = tried("exec ./no-such-program", &Told::well());
    assert_eq!(outcome(&report).0.state, CheckState::Failed);
}

#[test]
fn it_is_not_tried_where_a_store_did_not_come_back() {
    let report = tried(BOTH, &Told { restore_fails: true, ..Told::well() });
    let (web, codes) = outcome(&report);
    assert_eq!(web.state, CheckState::NotApplicable);
    assert!(codes.contains(&"drill.unproven"), "{codes:?}");
    assert!(web.detail[0].starts_with("uploads: it was not restored"), "{:?}", web.detail);
}

#[test]
fn it_sees_its_stores_and_nothing_else_of_ours() {
    let names = "HOME LC_ALL MOMENT_ORDERS MOMENT_UPLOADS PATH STORE_ORDERS STORE_UPLOADS TMPDIR TZ";
    let shells = "-e PWD -e OLDPWD -e SHLVL -e _";
    let script = format!(
        "{BOTH} && : > \"$HOME/note\" && test \"$(env | cut -d= -f1 | grep -vx {shells} | sort | xargs)\" = '{names}'"
    );
    let report = tried(&script, &Told::well());
    let (web, codes) = outcome(&report);
    assert_eq!((web.state, codes), (CheckState::Passed, vec![]), "{web:?}");
}
