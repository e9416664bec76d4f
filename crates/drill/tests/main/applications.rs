//! What applications can do on restored stores: a command that cannot fail shows nothing.

use std::time::Duration;

use lifeboat_base::apart::Network;
use lifeboat_base::digest::Digest;
use lifeboat_base::ids::{ApplicationName, DrillId, StoreName};
use lifeboat_base::monitor::Findings;
use lifeboat_drill::{
    Application, CheckOutcome, DrillReport, DrillVerdict, Local, Need, Question, Rehearsal, Telltales, run,
};
use lifeboat_stores::CheckState;

use super::adapters::{Told, facts, listing, now, reading};
use super::agreement::subject;

const BOTH: &str = r#"test -f "$STORE_ORDERS" && test -f "$STORE_UPLOADS""#;

/// A drill of two stores, tried by a script of a shell.
fn tried(script: &str, uploads: &Told) -> DrillReport {
    tried_with(&["sh", "-c", script], Vec::new(), uploads)
}

fn tried_with(command: &[&str], http: Vec<Question>, uploads: &Told) -> DrillReport {
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
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            folder: root.path().to_owned(),
            within: Duration::from_secs(60),
            network: Network::None,
            http,
            subject: Digest::of(b"web"),
        }],
        reading: reading(true),
        telltales: Telltales::default(),
    };
    let report = run(rehearsal, &Local::new(root.path()), orders.clock.as_ref(), &Findings::new()).unwrap();
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

/// A shop that answers from both of its stores.
const SHOP: &str = r#"
import http.server, os, socketserver, sys
class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = 0
    def do_GET(self):
        Shop.asked += 1
        there = all(os.path.isfile(os.environ["STORE_" + name]) for name in sys.argv[1].split())
        if self.path == "/breaks" and Shop.asked % 50 == 49:
            self.send_response(200); self.send_header("Content-Length", "9"); self.end_headers()
            self.wfile.write(b"half"); self.close_connection = True
            return
        status = 200 if there else 503
        if self.path == "/odd" and Shop.asked % 40 == 39: status = 500
        body = b'{"orders": 3}' if there else b"{}"
        self.send_response(status); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): daemon_threads = True
Server(os.environ["HTTP_SOCKET"], Shop).serve_forever()
"#;
const ALL: &str = "ORDERS UPLOADS";

fn question(text: &str, baseline_p95_ms: Option<f64>) -> Question {
    let mut words = text.splitn(3, ' ');
    let path = words.next().unwrap().to_owned();
    let status = words.next().map_or(200, |status| status.parse().unwrap());
    Question { path, status, text: words.next().map(str::to_owned), baseline_p95_ms }
}

fn asked(needs: &str, questions: &[Question]) -> DrillReport {
    tried_with(&["python3", "-c", SHOP, needs], questions.to_vec(), &Told::well())
}

#[test]
fn an_application_that_answers_from_its_stores_passes_and_is_measured() {
    let report = asked(ALL, &[question("/orders 200 \"orders\": 3", None), question("/", Some(60_000.0))]);
    let (web, codes) = outcome(&report);
    assert_eq!((web.state, web.canary_caught), (CheckState::Passed, Some(true)), "{web:#?}");
    assert_eq!((codes, report.verdict), (vec![], DrillVerdict::Passed));
    let said: Vec<_> = report.answers.iter().map(|all| (all.path.as_str(), all.requests)).collect();
    assert_eq!(said, [("/orders", 200), ("/", 200)]);
    assert!(report.answers.iter().all(|all| all.unexpected.is_empty() && all.p95_ms.is_some()));
    assert!(web.detail[0].ends_with(" ms"), "{web:#?}");
    assert!(web.detail[1].ends_with("(baseline 60000.0 ms)"), "{web:#?}");
}

#[test]
fn wrong_answers_have_a_class_and_fail_the_application() {
    for (question, class) in [
        (question("/ 404", None), "headers/200"),
        (question("/ 200 nobody says this", None), "body/text"),
        (question("/odd", None), "headers/500"),
        (question("/breaks", None), "body/cut"),
    ] {
        let report = asked(ALL, std::slice::from_ref(&question));
        let (web, codes) = outcome(&report);
        assert_eq!((web.state, codes), (CheckState::Failed, vec!["application/web"]), "{web:#?}");
        let classes: Vec<_> = report.answers[0].unexpected.keys().map(String::as_str).collect();
        assert_eq!(classes, [class], "{web:#?}");
        assert!(web.detail[0].contains(class), "{web:#?}");
    }
}

#[test]
fn an_application_that_answers_without_a_store_or_does_not_keep_running_shows_nothing() {
    let report = asked("ORDERS", &[question("/", None)]);
    let (web, codes) = outcome(&report);
    assert_eq!((web.state, web.canary_caught), (CheckState::Passed, Some(false)));
    assert_eq!((web.detail[0].as_str(), codes), ("it passes without `uploads`", vec!["application/web"]));
    for (script, said) in [("exit 0", "did not keep running"), ("echo no >&2; exit 3", "no")] {
        let report = tried_with(&["sh", "-c", script], vec![question("/", None)], &Told::well());
        let (web, codes) = outcome(&report);
        assert_eq!((web.state, codes), (CheckState::Failed, vec!["application/web"]), "{web:#?}");
        assert!(web.detail[0].contains(said), "{web:#?}");
    }
}
