//! Retention in doubt: what nobody can know, or what turns out to be otherwise on the way, makes nothing go.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::retention::world;
use super::tree;
use super::world::{World, texts};

const APPLY: [&str; 6] = ["--json", "retain", "uploads", "--apply", "--grace", "0s"];

fn backups(world: &World, rounds: std::ops::Range<u64>) -> Vec<String> {
    let backup = |round| {
        tree::change(&world.uploads(), round);
        world.run(&["backup", "uploads"]);
        world.points("uploads").pop().unwrap()
    };
    rounds.map(backup).collect()
}

fn hold(world: &World, more: &[&str]) -> String {
    let mut args = vec!["hold", "add", "--store", "uploads", "--reason", "case 7/26", "--holder", "counsel"];
    args.extend(more);
    world.json(&args, 0)["holds"][0]["id"].as_str().unwrap().to_owned()
}

fn dropped(report: &Value) -> Value {
    report["stores"][0]["applied"]["dropped"].clone()
}

fn told(report: &Value, code: &str) -> bool {
    texts(&report["findings"], "code").iter().any(|known| known == code)
}

/// A clock that is wrong makes much old, and so does a slip in the policy: a person looks first.
#[test]
fn more_than_half_of_what_was_kept_goes_only_once_somebody_looked() {
    let world = world();
    let points = backups(&world, 1..10);
    let id = hold(&world, &[]);
    world.run(&APPLY).expect(0);
    world.json(&["hold", "release", &id, "--reason", "settled", "--by", "counsel"], 0);
    for _again in 0..2 {
        let report = world.run(&APPLY).expect(5).json();
        assert!(dropped(&report) == json!([]) && told(&report, "too-many"), "{report}");
        assert_eq!(world.points("uploads"), points);
    }
    let (state, reason) = world.promise("uploads", "retention");
    assert!(state == "broken" && reason.contains("--plan"), "{state}: {reason}");
    let plan = world.json(&["retain", "uploads", "--grace", "0s"], 0)["stores"][0]["plan"].clone();
    let args = [&APPLY[..], &["--plan", plan.as_str().unwrap()]].concat();
    let report = world.run(&args).expect(0).json();
    assert_eq!(dropped(&report).as_array().unwrap().len(), 7, "{report}");
    // From here on it is as usual.
    let newest = backups(&world, 10..11).remove(0);
    let report = world.run(&APPLY).expect(0).json();
    assert_eq!(dropped(&report), json!([points[8]]), "{report}");
    assert_eq!(world.points("uploads"), [points[0].clone(), newest]);
}

/// A plan names what is done to space, too: what was looked at is what happens.
#[test]
fn a_plan_that_frees_other_space_is_another_plan() {
    let world = world();
    backups(&world, 1..4);
    world.run(&APPLY).expect(0);
    let plan = |grace: &str| {
        let shown = world.json(&["retain", "uploads", "--grace", grace], 0);
        let removes = shown["stores"][0]["space"]["remove_bytes"].as_u64().unwrap();
        (shown["stores"][0]["plan"].as_str().unwrap().to_owned(), removes > 0)
    };
    let (now, later) = (plan("0s"), plan("7d"));
    assert!(now.1 && !later.1 && now.0 != later.0, "{now:?} {later:?}");
    world.run(&[&APPLY[..], &["--plan", &later.0]].concat()).expect(3);
    world.run(&[&APPLY[..], &["--plan", &now.0]].concat()).expect(0);
}

fn packs(world: &World) -> BTreeSet<PathBuf> {
    tree::files(&world.vault("local", "uploads").join("data")).into_iter().collect()
}

/// What a point needs is read when its pack is written again: that it is damaged everywhere is known before anything goes.
#[test]
fn damage_that_is_met_on_the_way_stops_the_removal_it_was_decided_without() {
    let world = world();
    let first = backups(&world, 1..2).remove(0);
    let before = packs(&world);
    for file in 0..8 {
        tree::write(&world.uploads().join(format!("big-{file}")), &tree::noise(900 + file, 150_000));
    }
    let second = backups(&world, 2..3).remove(0);
    let new: Vec<PathBuf> = packs(&world).difference(&before).cloned().collect();
    for file in 1..8 {
        fs::remove_file(world.uploads().join(format!("big-{file}"))).unwrap();
    }
    let rest = backups(&world, 3..5);
    // The pack of the files, most of which nothing needs any more.
    let path = |copy: &str, pack: &PathBuf| world.vault(copy, "uploads").join("data").join(pack);
    let pack = new.iter().max_by_key(|pack| fs::metadata(path("local", pack)).unwrap().len()).unwrap();
    for name in ["local", "offsite"] {
        let path = path(name, pack);
        let mut bytes = fs::read(&path).unwrap();
        for at in (100..bytes.len() - 10_000).step_by(1_000) {
            bytes[at] ^= 1;
        }
        fs::remove_file(&path).unwrap();
        tree::write(&path, &bytes);
    }
    let report = world.run(&APPLY).expect(6).json();
    assert_eq!(dropped(&report), json!([]), "{report}");
    assert!(told(&report, "space-not-freed") && told(&report, "point-damaged"), "{report}");
    assert_eq!(world.points("uploads"), [&[first.clone(), second][..], &rest].concat());
    assert_eq!(world.promise("uploads", "retention").0, "broken");
    world.run(&["restore", "uploads", "--to", "first", "--at", &first]).expect(0);
}

/// The chain is gone and so is the copy that knows of the hold: unknown means that nothing goes.
#[test]
fn nothing_goes_while_a_hold_may_lie_where_nobody_can_look() {
    let world = world();
    let points = backups(&world, 1..5);
    hold(&world, &["--point", &points[1]]);
    let (local, offsite, aside) =
        (world.path("vaults/local"), world.path("vaults/offsite"), world.path("aside"));
    fs::remove_dir_all(local.join("uploads/lifeboat/holds")).unwrap();
    tree::rename(&offsite, &aside);
    fs::remove_dir_all(world.path("state")).unwrap();
    world.run(&["catalog", "rebuild"]);
    let newest = backups(&world, 5..6).remove(0);
    let all = [&points[..], std::slice::from_ref(&newest)].concat();
    for _again in 0..2 {
        let report = world.run(&APPLY).json();
        assert!(dropped(&report) == json!([]) && told(&report, "holds-unknown"), "{report}");
        assert_eq!(world.points("uploads"), all);
    }
    assert_eq!(world.promise("uploads", "retention").0, "broken");
    tree::rename(&aside, &offsite);
    let report = world.run(&APPLY).json();
    assert_eq!(dropped(&report), json!([points[2], points[3]]), "{report}");
    assert_eq!(world.points("uploads"), [points[0].clone(), points[1].clone(), newest]);
    assert!(fs::read_dir(local.join("uploads/lifeboat/holds")).unwrap().count() > 0, "it is back here");
}

/// A chain that was begun anew did not drop what another one dropped.
#[test]
fn what_another_chain_dropped_is_not_called_dropped_now() {
    let world = world();
    let points = backups(&world, 1..5);
    world.run(&APPLY).expect(0);
    fs::remove_dir_all(world.path("state")).unwrap();
    world.run(&["catalog", "rebuild"]).expect(6);
    let newest = backups(&world, 5..6).remove(0);
    let report = world.run(&APPLY).json();
    assert_eq!(dropped(&report), json!([points[3]]), "{report}");
    assert_eq!(report["stores"][0]["applied"]["taken_over"], json!([points[1], points[2]]), "{report}");
    let report = world.run(&APPLY).json();
    assert_eq!(report["stores"][0]["applied"]["taken_over"], json!([]), "{report}");
    world.run(&["catalog", "rebuild"]);
    assert_eq!(world.points("uploads"), [points[0].clone(), newest]);
    world.run(&["evidence", "verify"]).expect(0);
}

/// Two installations look after one store: neither calls the other's chain a forgery of its own.
#[test]
fn points_of_another_installation_do_not_make_this_chain_unsound() {
    let world = world();
    backups(&world, 1..4);
    let first = world.policy.clone();
    world.write_policy(&first.replace("./state", "./state2"));
    world.run(&["catalog", "rebuild"]);
    backups(&world, 4..5);
    let told = world.run(&["evidence", "verify"]).expect(0).stdout;
    assert!(told.contains("3 recovery points were made under another chain"), "{told}");
    let report = world.json(&["evidence", "verify"], 0);
    assert_eq!(report["points_elsewhere"], 3, "{report}");
    // The canary: a chain that lost its end is found in either.
    let records = world.path("state2/evidence/records");
    fs::remove_file(records.join(tree::files(&records).iter().max().unwrap())).unwrap();
    world.run(&["evidence", "verify"]).expect(6);
    world.write_policy(&first);
    world.run(&["status"]);
    world.run(&["evidence", "verify"]).expect(0);
}

/// That a point could be restored was shown: a check that fails later takes it back as little as it makes it go.
#[test]
fn what_was_proven_by_a_restore_stays_though_a_later_drill_of_it_fails() {
    let mut world = World::of_everything();
    world.policy = world.policy.replace("7d 4w 12mo 1y", "1d");
    world.write_policy(&world.policy);
    let backup = |round: u32| {
        world.add_orders(2_000 + round, 1);
        world.backup("orders")
    };
    let points: Vec<String> = (1..5).map(backup).collect();
    world.run(&["drill", "orders", "--at", &points[1]]).expect(0);
    world.write_policy(&world.policy.replace("where total < 0", "where total >= 0"));
    let ran = world.run(&["drill", "orders", "--at", &points[1]]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    let listed = world.json(&["points", "orders"], 0);
    let second = &listed["points"][1];
    assert!(second["proof"]["restored"].is_string() && second["failed"]["restored"].is_string(), "{listed}");
    assert!(world.run(&["points", "orders"]).expect(0).stdout.contains(", not restored"));
    let report = world.run(&["--json", "retain", "orders", "--apply", "--grace", "0s"]).expect(0).json();
    assert_eq!(dropped(&report), json!([points[2]]), "{report}");
}
