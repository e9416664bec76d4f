//! Row over tier over defaults over built-in, and what is warned about.

use lifeboat_base::ids::StoreName;
use lifeboat_policy::{
    CopyUrl, Endpoint, Origin, Policy, Recipient, Retention, Severity, Source, explain, parse,
};

const POLICY: &str = r#"version = 1
timezone = "Europe/Berlin"

[keys]
recipients = ["passphrase:env:PASS"]

[copy.near]
url = "file:./vaults"

[copy.far]
url = "s3://far-away/lifeboat/"
lock = { mode = "compliance", min = "7d" }

[defaults]
rpo = "48h"
rto = "4h"
schedule = "02:00"
retention = "30d"
copies = ["near"]
logs = "7d"
verify = { checksum = "weekly" }

[tier.S]
rpo = "24h"
rto = "30m"
copies = ["near", "far"]

[store.orders]
kind = "sqlite"
path = "./orders.db"
tier = "S"
rto = "5m"

[store.notes]
kind = "files"
path = "./notes"
schedule = "none"
verify = { restore = "monthly" }

[store.sessions]
kind = "redis"
url = "redis://cache.internal:6379"
tier = "S"
retention = "none"
"#;

fn policy(text: &str) -> Policy {
    parse(text, "policy.toml").unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

fn name(text: &str) -> StoreName {
    StoreName::new(text).unwrap()
}

fn warnings(text: &str) -> Vec<&'static str> {
    let policy = policy(text);
    assert!(policy.warnings.iter().all(|warning| warning.severity() == Severity::Warning));
    policy.warnings.iter().map(lifeboat_policy::Problem::code).collect()
}

#[test]
fn the_nearest_layer_wins_and_is_remembered_with_its_line() {
    let policy = policy(POLICY);
    let orders = &policy.stores[&name("orders")];
    assert_eq!(orders.rto.value.unwrap().to_string(), "5m");
    assert_eq!(orders.rto.origin, Origin::Row { line: 32 });
    assert_eq!(orders.rpo.value.unwrap().to_string(), "24h");
    assert_eq!(orders.rpo.origin, Origin::Tier { name: "S".parse().unwrap(), line: 24 });
    assert_eq!(orders.retention.origin, Origin::Defaults { line: 18 });
    assert_eq!(orders.immutability.origin, Origin::BuiltIn);
    assert_eq!(orders.copies.value.len(), 2);
    assert_eq!(orders.line, 28);
    assert_eq!(policy.tiers[&"S".parse().unwrap()].line, 23);
}

#[test]
fn a_row_can_take_back_what_the_defaults_promise() {
    let policy = policy(POLICY);
    let notes = &policy.stores[&name("notes")];
    assert_eq!(notes.schedule.value, None);
    assert_eq!(notes.schedule.origin, Origin::Row { line: 37 });
    // `verify` is one promise: the row's replaces the defaults' as a whole.
    assert_eq!(notes.verify.value.checksum, None);
    assert_eq!(notes.verify.value.restore.unwrap().to_string(), "1mo");
}

#[test]
fn a_log_window_from_the_defaults_is_for_stores_that_have_a_log() {
    let policy = policy(POLICY);
    assert_eq!(policy.stores[&name("orders")].logs.value, None);
    assert_eq!(policy.stores[&name("orders")].logs.origin, Origin::BuiltIn);
}

#[test]
fn a_store_that_is_not_retained_inherits_nothing_that_would_capture_it() {
    let policy = policy(POLICY);
    let sessions = &policy.stores[&name("sessions")];
    assert_eq!(sessions.retention.value, Retention::None);
    assert!(sessions.copies.value.is_empty());
    assert_eq!(sessions.schedule.value, None);
    assert_eq!(sessions.rpo.value, None);
    assert_eq!(sessions.logs.value, None);
    assert_eq!(sessions.schedule.origin, sessions.retention.origin);
    assert_eq!(sessions.rto.value.unwrap().to_string(), "30m");
}

#[test]
fn places_and_recipients_are_read() {
    let policy = policy(POLICY);
    assert!(matches!(&policy.keys.recipients[..], [Recipient::Passphrase(_)]));
    assert_eq!(policy.copies[&"near".parse().unwrap()].url, CopyUrl::File("./vaults".to_owned()));
    let far = &policy.copies[&"far".parse().unwrap()];
    assert_eq!(far.url, CopyUrl::S3 { bucket: "far-away".to_owned(), prefix: "lifeboat".to_owned() });
    assert_eq!(far.lock.unwrap().min.to_string(), "7d");
    let sessions = &policy.stores[&name("sessions")].source;
    assert!(matches!(
        sessions,
        Source::Redis { url: Endpoint::Plain(url), token: None, scan: None }
            if url == "redis://cache.internal:6379"
    ));
    assert_eq!((policy.state.as_str(), policy.timezone_name.as_str()), ("./state", "Europe/Berlin"));
}

#[test]
fn explain_tells_every_promise_with_its_origin() {
    let policy = policy(POLICY);
    let lines = explain(&policy, &name("orders")).unwrap();
    let shown: Vec<String> = lines
        .iter()
        .map(|line| format!("{} = {} ({}): {}", line.promise, line.value, line.origin, line.text))
        .collect();
    assert_eq!(
        shown,
        [
            "rpo = 24h (tier S, line 24): at most 24h of writes may be lost",
            "rto = 5m (this row, line 32): a restore may take at most 5m",
            "schedule = 02:00 (defaults, line 17): captured at `02:00` in Europe/Berlin",
            "logs = none (built in): only the moments of recovery points can be restored",
            "retention = 30d (defaults, line 18): keeps one recovery point of each of the last 30 days",
            "copies = near, far (tier S, line 26): kept in 2 places: `near` and `far`",
            "encryption = required (built in): every vault is encrypted and authenticated",
            "immutability = none (built in): no lock against deletion is promised",
            "verify = checksum every 7d (defaults, line 21): each proof is renewed before it is older than this",
        ]
    );
    assert!(explain(&policy, &name("nobody")).is_none());
    let sessions = explain(&policy, &name("sessions")).unwrap();
    assert!(sessions.iter().any(|line| line.promise == "schedule" && line.text == "never captured"));
}

#[test]
fn what_cannot_hold_is_warned_about() {
    // Only the missing schedule of `notes`; `sessions` writes nothing that has no effect.
    assert_eq!(warnings(POLICY), ["no-schedule"]);
    let with = |from: &str, to: &str| {
        let text = POLICY.replace("schedule = \"none\"\n", "");
        assert!(text.contains(from), "{from}");
        warnings(&text.replace(from, to))
    };
    assert_eq!(with("rpo = \"24h\"", "rpo = \"5m\""), ["rpo-too-short"]);
    assert_eq!(with("rto = \"5m\"", "immutability = \"30d\""), ["not-immutable"]);
    assert_eq!(with("rto = \"5m\"", "immutability = \"7d\""), [""; 0]);
    assert_eq!(with("rto = \"5m\"", "retention = \"3d\""), ["lock-outlives-retention"]);
    assert_eq!(with("rto = \"5m\"", "verify = { pitr = \"weekly\" }"), ["pitr-without-logs"]);
    assert_eq!(with("retention = \"none\"", "retention = \"none\"\nschedule = \"03:00\""), ["no-effect"]);
    assert_eq!(with("retention = \"none\"", "logs = \"60d\"\nrpo = \"5m\""), ["logs-outlive-points"]);
}

#[test]
fn the_policy_hash_is_the_hash_of_the_file() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(lifeboat_policy::digest("").to_string(), empty);
    assert_ne!(lifeboat_policy::digest(POLICY), lifeboat_policy::digest(&format!("{POLICY}\n")));
}
