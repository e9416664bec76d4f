//! Planned drills: what is due how often when the plan does not say.

use lifeboat_base::ids::PlanName;
use lifeboat_policy::{Policy, parse};

const REST: &str = r#"
version = 1
[keys]
recipients = ["keyfile:./key", "passphrase:env:PASS"]
[copy.here]
url = "file:./here"
[copy.there]
url = "file:./there"
[store.orders]
kind = "sqlite"
path = "./orders.db"
retention = "7d"
copies = ["here", "there"]
"#;

fn policy(plans: &str) -> Policy {
    parse(&format!("{REST}{plans}"), "lifeboat.toml").unwrap()
}

#[test]
fn what_a_drill_does_decides_how_often_it_is_due_unless_it_says_so() {
    let policy = policy(
        r#"
[drill.small]
stores = ["orders"]
[drill.past]
back = "1h"
[drill.all]
[drill.region]
without = ["here"]
[drill.keys]
open_with = ["keyfile:./key"]
[drill.said]
every = "hourly"
without = ["here"]
"#,
    );
    let every = |name: &str| policy.drills[&PlanName::new(name).unwrap()].every.to_string();
    let found = ["small", "past", "all", "region", "keys", "said"].map(every);
    assert_eq!(found, ["1d", "7d", "1mo", "3mo", "3mo", "1h"]);
}

#[test]
fn a_recipient_that_is_none_is_not_repeated() {
    let text = format!("{REST}\n[drill.keys]\nopen_with = [\"hunter2-is-my-passphrase\"]\n");
    let errors = parse(&text, "lifeboat.toml").unwrap_err();
    let said = errors.render(false);
    assert!(said.contains("none of the recipients") && !said.contains("hunter2"), "{said}");
}
