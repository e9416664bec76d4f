//! Drills that the policy plans: run when they are due, as if what they do without were gone, and shown as promises.

use std::fs;

use lifeboat_base::crashsafe;
use serde_json::{Value, json};

use super::world::{KEY_FILE, World, texts};

const PLANS: &str = r#"
[drill.region-loss]
without = ["local"]
open_with = ["keyfile:./secrets/lifeboat.key"]

[drill.smoke]
stores = ["orders"]
"#;

/// A company with two recipients, and the plans above.
fn world() -> World {
    let world = World::of_everything().and_passphrase();
    world.write_policy(&format!("{}{PLANS}", world.policy));
    world.run(&["backup"]).expect(0);
    world
}

/// The states of the planned drills by name, and why.
fn plans(world: &World, code: i32) -> Vec<(String, String, String)> {
    let status = world.json(&["status"], code);
    let text = |plan: &Value, field: &str| plan[field].as_str().unwrap().to_owned();
    let drills = status["drills"].as_array().unwrap();
    drills.iter().map(|plan| (text(plan, "name"), text(plan, "state"), text(plan, "reason"))).collect()
}

fn states(world: &World, code: i32) -> Vec<(String, String)> {
    plans(world, code).into_iter().map(|(name, state, _)| (name, state)).collect()
}

fn both(first: &str, second: &str) -> Vec<(String, String)> {
    vec![("region-loss".to_owned(), first.to_owned()), ("smoke".to_owned(), second.to_owned())]
}

#[test]
fn what_is_due_is_drilled_without_what_the_plan_takes_away_and_is_kept_until_it_is_due_again() {
    let world = world();
    assert_eq!(states(&world, 0), both("unproven", "unproven"));
    let ran = world.json(&["drill", "--due"], 0);
    assert_eq!(texts(&ran["drills"], "plan"), ["region-loss", "smoke"]);
    for store in ran["drills"][0]["stores"].as_array().unwrap() {
        assert_eq!(store["copy"], "offsite", "{store:#}");
    }
    assert_eq!(ran["drills"][1]["stores"].as_array().unwrap().len(), 1);
    assert_eq!(states(&world, 0), both("kept", "kept"));
    // Without the matrix, which is as wide as what was measured.
    let status = world.run(&["status"]).expect(0).stdout;
    let (_matrix, below) = status.split_once("Not proven").unwrap();
    world.assert_seen("planned-drills", &format!("Not proven{below}"));
    let again = world.json(&["drill", "--due"], 0);
    assert_eq!(again["drills"], json!([]));
    assert!(world.run(&["drill", "--due"]).expect(0).stdout.contains("no planned drill is due"));
    // A drill without a place says nothing about what would be restored today.
    assert_eq!(world.promise("uploads", "drill").0, "unproven");
    assert_eq!(world.promise("orders", "drill").0, "kept");

    // What is filed is all that is needed to know it again.
    fs::remove_file(world.path("state/catalog.db")).unwrap();
    world.run(&["catalog", "rebuild"]).expect(0);
    assert_eq!(states(&world, 0), both("kept", "kept"));
    // Another plan was never run.
    world.write_policy(&format!(
        "{}{}",
        world.policy,
        PLANS.replace("\"orders\"", "\"orders\", \"uploads\"")
    ));
    assert_eq!(states(&world, 0), both("kept", "unproven"));
}

#[test]
fn a_plan_asks_the_rules_it_names_and_the_others_stay_unproven() {
    let world = World::of_everything();
    // Both sides of the rules name nothing that the other must have, and one of them is wrong.
    let rule = |name: &str, glob: &str| {
        format!(
            "[agreement.{name}]\nleft = {{ store = \"uploads\", paths = \"{glob}\" }}\n\
             right = {{ store = \"orders\", sql = \"SELECT 'memo.txt'\" }}\n\n"
        )
    };
    crashsafe::write_new(&world.uploads().join("memo.txt"), b"kept").unwrap();
    crashsafe::write_new(&world.uploads().join("stray.bin"), b"nobody knows").unwrap();
    let rules = rule("notes", "memo.txt") + &rule("strays", "stray.bin");
    world.write_policy(&format!("{}{rules}[drill.smoke]\nchecks = [\"notes\"]\n", world.policy));
    world.run(&["backup"]).expect(0);
    let report = world.json(&["drill", "--plan", "smoke"], 0);
    assert_eq!(texts(&report["agreement"], "id"), ["agreement/notes"]);
    assert_eq!(states(&world, 0), [("smoke".to_owned(), "kept".to_owned())]);
    // The rule that nobody asked is not kept because another was.
    let (state, reason) = world.promise("uploads", "drill");
    assert_eq!(state, "unproven", "{reason}");
    assert!(reason.contains("strays"), "{reason}");
    let report = world.json(&["drill", "--all"], 5);
    assert_eq!(texts(&report["agreement"], "id"), ["agreement/notes", "agreement/strays"]);
    // A rule that the plan does not ask may change without it, one that it asks may not.
    let other = rules.replace("stray.bin", "other.bin");
    world.write_policy(&format!("{}{other}[drill.smoke]\nchecks = [\"notes\"]\n", world.policy));
    assert_eq!(states(&world, 5), [("smoke".to_owned(), "kept".to_owned())]);
    let other = rules.replace("memo.txt", "memo.md");
    world.write_policy(&format!("{}{other}[drill.smoke]\nchecks = [\"notes\"]\n", world.policy));
    assert_eq!(states(&world, 5), [("smoke".to_owned(), "unproven".to_owned())]);
    // What cannot be asked is refused.
    for (lines, told) in [
        ("checks = [\"note\"]", "there is no rule or application `note`"),
        ("stores = [\"orders\"]\nchecks = [\"notes\"]", "`notes` needs `uploads`"),
    ] {
        world.write_policy(&format!("{}{rules}[drill.smoke]\n{lines}\n", world.policy));
        let ran = world.run(&["check"]).expect(2);
        assert!(ran.stderr.contains(told), "{ran:?}");
    }
}

#[test]
fn a_loss_that_nothing_comes_back_from_is_found_by_its_drill_and_not_by_the_everyday_one() {
    let world = world();
    // The break-glass key opens nothing any more, the passphrase still does.
    let key = world.path(KEY_FILE);
    crashsafe::publish(&key, &world.path("secrets/elsewhere")).unwrap();
    world.run(&["drill", "--plan", "smoke"]).expect(0);
    let code = world.run(&["drill", "--plan", "region-loss"]).code;
    assert!(!matches!(code, Some(0)), "{code:?}");
    let found = plans(&world, 5);
    assert_eq!((found[0].1.as_str(), found[1].1.as_str()), ("broken", "kept"), "{found:?}");
    crashsafe::publish(&world.path("secrets/elsewhere"), &key).unwrap();
    world.run(&["drill", "--plan", "region-loss"]).expect(0);
    assert_eq!(states(&world, 0), both("kept", "kept"));

    // One store is not in the other place any more.
    let there = world.vault("offsite", "orders");
    crashsafe::publish(&there, &world.path("moved")).unwrap();
    let ran = world.run(&["--json", "drill", "--plan", "region-loss"]);
    assert!(!matches!(ran.code, Some(0)), "{ran:?}");
    assert!(ran.json()["findings"][0]["message"].as_str().unwrap().contains("orders"), "{ran:?}");
    let found = plans(&world, 5);
    assert_eq!(found[0].1, "broken", "{found:?}");
    assert_eq!(world.run(&["drill", "--plan", "regionloss"]).expect(2).code, Some(2));
}

#[test]
fn an_audit_names_every_gap_with_what_closes_it_and_nothing_once_they_are_closed() {
    let world = World::of_everything();
    let policy = world.policy.replace("verify = { checksum = \"weekly\", restore = \"daily\" }\n", "");
    world.write_policy(&format!("{policy}[drill.all]\n"));
    let report = world.json(&["audit"], 5);
    assert_eq!(report["summary"]["verdict"], "broken");
    assert_eq!(report["minimal_set"], json!(["lifeboat backup", "lifeboat drill --all"]));
    assert_eq!(report["restore_order"], json!([["orders"], ["uploads"]]));
    assert_eq!(texts(&report["rebuild"], "store"), ["sessions"]);
    let first = &report["gaps"][0];
    assert_eq!(
        (&first["row"], &first["field"], &first["next"]),
        (&json!("orders"), &json!("rpo"), &json!("lifeboat backup orders"))
    );
    world.assert_seen("audit", &world.run(&["audit"]).expect(5).stdout);
    assert_eq!(world.json(&["audit"], 5)["gaps"], report["gaps"]);

    // What it says to do is done, and then there is nothing left to do.
    world.run(&["backup"]).expect(0);
    world.run(&["verify"]).expect(0);
    world.run(&["drill", "--all"]).expect(0);
    let report = world.json(&["audit"], 0);
    assert_eq!(report["minimal_set"], json!([]));
    assert_eq!(texts(&report["gaps"], "field"), ["plan"], "{report:#}");
    world.run(&["drill", "--due"]).expect(0);
    let report = world.json(&["audit"], 0);
    assert_eq!((&report["gaps"], &report["summary"]["verdict"]), (&json!([]), &json!("kept")), "{report:#}");

    // A store that is away breaks what it promised.
    fs::remove_dir_all(world.path("vaults")).unwrap();
    let report = world.json(&["audit"], 5);
    assert_eq!(report["summary"]["verdict"], "broken");
}
