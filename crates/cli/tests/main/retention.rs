//! Retention that is applied: what may go goes from every copy, for good; nothing else does; a kill loses nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::kills::{Kills, kill_after};
use super::peers::{assert_restic_is_happy, recover};
use super::tree::{self, Random, assert_same, picture};
use super::world::{KEY_FILE, World, finished, texts};

/// Kills of `retain --apply`. More with `LIFEBOAT_RETAIN_KILLS=50`.
const KILLS: u64 = 12;
/// Removals are killed within this after they were recorded.
const LONGEST_REMOVAL_US: u64 = 25_000;
const KILLS_ENV: &str = "LIFEBOAT_RETAIN_KILLS";

/// A company that keeps the first point of each day, and the newest.
pub(crate) fn world() -> World {
    let mut world = World::of_files();
    world.policy = world.policy.replace("7d 4w 12mo 1y", "1d");
    world.write_policy(&world.policy);
    world
}

/// So many backups, each after a change; gives the points.
fn backups(world: &World, rounds: std::ops::Range<u64>) -> Vec<String> {
    let backup = |round| {
        tree::change(&world.uploads(), round);
        world.backup("uploads")
    };
    rounds.map(backup).collect()
}

fn retain(world: &World, code: i32) -> Value {
    let report = world.json(&["retain", "uploads", "--apply", "--grace", "0s"], code);
    report["stores"][0].clone()
}

/// Everything in a copy but its envelope, without where it lies.
fn copy(world: &World, copy: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    tree::contents(&world.vault(copy, "uploads"))
}

fn sound(world: &World) {
    let report = world.json(&["verify", "uploads"], 0);
    assert!(report["findings"].as_array().unwrap().is_empty(), "{report}");
    for copy in report["copies"].as_array().unwrap() {
        assert_eq!(copy["proven"].as_array().unwrap().len(), world.points("uploads").len(), "{report}");
    }
}

/// After a kill: the rest of an interrupted write may lie about, but all that is listed is whole.
fn unharmed(world: &World) {
    let ran = world.run(&["--json", "verify", "uploads"]);
    assert!(matches!(ran.code, Some(0 | 5)), "{ran:?}");
    let listed = world.points("uploads");
    let report = ran.json();
    for copy in report["copies"].as_array().unwrap() {
        assert!(copy["damaged"].as_array().unwrap().is_empty(), "{report}");
        let proven: Vec<&str> =
            copy["proven"].as_array().unwrap().iter().map(|point| point.as_str().unwrap()).collect();
        assert!(listed.iter().all(|point| proven.contains(&point.as_str())), "{listed:?}: {report}");
    }
}

#[test]
fn what_retention_drops_is_gone_from_every_copy_and_what_it_keeps_is_whole() {
    let world = world();
    let points = backups(&world, 1..6);
    let shown = world.json(&["retain", "uploads"], 0);
    let plan = shown["stores"][0]["plan"].as_str().unwrap();
    assert!(shown["stores"][0]["space"]["mark_bytes"].as_u64().unwrap() > 0, "{shown}");
    assert_eq!(world.points("uploads"), points, "a plan removes nothing");
    // What was shown is what is done, or nothing.
    world.run(&["retain", "uploads", "--apply", "--plan", "0123456789"]).expect(3);
    assert_eq!(world.points("uploads"), points);
    let report = world.json(&["retain", "uploads", "--apply", "--plan", &plan[..16]], 0);
    let applied = &report["stores"][0]["applied"];
    assert_eq!(applied["dropped"].as_array().unwrap().len(), 3, "{report}");
    let stays = [points[0].clone(), points[4].clone()];
    assert_eq!(world.points("uploads"), stays);
    sound(&world);
    let freed = retain(&world, 0);
    assert!(freed["applied"]["freed_bytes"].as_u64().unwrap() > 0, "{freed}");
    for name in ["local", "offsite"] {
        assert_restic_is_happy(&world, name, "uploads");
    }
    assert!(copy(&world, "local") == copy(&world, "offsite"), "the copies differ");
    sound(&world);
    world.run(&["restore", "uploads", "--to", "back", "--copy", "offsite"]).expect(0);
    assert_same(&picture(&world.path("back")), &picture(&world.uploads()));
    world.run(&["restore", "uploads", "--to", "first", "--at", &points[0]]).expect(0);
    // The chain tells what was meant and what came of it, and a person reads when.
    world.run(&["evidence", "verify"]).expect(0);
    let told = world.run(&["evidence", "show"]).expect(0).stdout;
    assert!(told.contains("retain-intent") && told.contains("retain"), "{told}");
    let (state, reason) = world.promise("uploads", "retention");
    assert!(state == "kept" && reason.contains("applied"), "{state}: {reason}");
    // Neither a rebuilt catalog nor a lost state folder takes what was dropped for lost.
    world.run(&["catalog", "rebuild"]).expect(0);
    assert_eq!(world.points("uploads"), stays);
    fs::remove_dir_all(world.path("state")).unwrap();
    // That the chain is gone is told; that points are gone is not, because none is.
    let told = world.run(&["catalog", "rebuild"]).expect(6).stdout;
    assert!(told.contains("evidence chain") && !told.contains("holds it"), "{told}");
    assert_eq!(world.points("uploads"), stays);
    assert_eq!(world.promise("uploads", "retention").0, "kept");
}

#[test]
fn a_copy_that_was_away_brings_nothing_back_and_is_cleared_when_it_returns() {
    let world = world();
    let points = backups(&world, 1..5);
    let (there, aside) = (world.path("vaults/offsite"), world.path("aside"));
    tree::rename(&there, &aside);
    let report = world.run(&["--json", "retain", "uploads", "--apply", "--grace", "0s"]).json();
    let applied = &report["stores"][0]["applied"];
    assert_eq!(texts(&applied["copies"], "copy"), ["local"], "{report}");
    assert_eq!(applied["away"][0], "offsite");
    // What was dropped lies there still: nobody calls that a promise kept.
    assert!(texts(&report["findings"], "code").iter().any(|code| code == "removal-postponed"), "{report}");
    assert_eq!(world.promise("uploads", "retention").0, "broken");
    world.run(&["retain", "uploads", "--apply", "--grace", "0s"]);
    tree::rename(&aside, &there);
    let newest = backups(&world, 5..6).remove(0);
    assert_eq!(world.points("uploads"), [points[0].clone(), points[3].clone(), newest.clone()]);
    let manifests =
        |copy: &str| fs::read_dir(world.vault(copy, "uploads").join("lifeboat/points")).unwrap().count();
    assert_eq!((manifests("local"), manifests("offsite")), (3, 5), "only retention removes");
    // Without Lifeboat, too, what was dropped is told apart from what is offered.
    let kit = |command: &str, copy: &str| {
        let (key, vault) =
            (world.path(KEY_FILE).display().to_string(), world.vault(copy, "uploads").display().to_string());
        finished(&mut recover(&world, &[command, "--key-file", &key, &vault])).expect(0).stdout
    };
    let told = kit("points", "offsite");
    assert_eq!(told.matches("was dropped by retention").count(), 2, "{told}");
    for name in ["local", "offsite"] {
        kit("verify", name);
    }
    for _again in 0..2 {
        retain(&world, 0);
    }
    assert_eq!(world.points("uploads"), [points[0].clone(), newest]);
    assert_eq!((manifests("local"), manifests("offsite")), (2, 2));
    assert_eq!(world.promise("uploads", "retention").0, "kept");
    assert!(copy(&world, "local") == copy(&world, "offsite"), "the copies differ");
    sound(&world);
    // A copy that is lost and filled again gets nothing of it either.
    fs::remove_dir_all(&there).unwrap();
    world.run(&["backup", "uploads", "--heal"]).expect(0);
    assert_eq!((manifests("local"), manifests("offsite")), (3, 3));
    sound(&world);
}

/// Nobody can look at what only a copy holds that is away: no record names it, whatever the rules say.
#[test]
fn what_only_a_copy_has_that_is_away_stays_until_it_is_back() {
    let world = world();
    let points = backups(&world, 1..3);
    let (local, offsite) = (world.path("vaults/local"), world.path("vaults/offsite"));
    let (aside, afar) = (world.path("aside"), world.path("afar"));
    let round = |round| {
        tree::change(&world.uploads(), round);
        world.run(&["backup", "uploads"]);
        world.points("uploads").pop().unwrap()
    };
    tree::rename(&local, &aside);
    let alone = round(3);
    tree::rename(&aside, &local);
    tree::rename(&offsite, &afar);
    let newest = round(4);
    let report = world.run(&["--json", "retain", "uploads", "--apply", "--grace", "0s"]).json();
    let store = &report["stores"][0];
    assert_eq!(store["applied"]["dropped"], serde_json::json!([points[1]]), "{report}");
    let told =
        store["points"].as_array().unwrap().iter().find(|point| point["id"] == alone.as_str()).unwrap();
    assert_eq!(told["kept"], serde_json::json!([{ "rule": "away" }]), "{report}");
    tree::rename(&afar, &offsite);
    world.run(&["restore", "uploads", "--to", "alone", "--at", &alone]).expect(0);
    // Once it can be looked at, the rules have their way.
    let done = retain(&world, 0);
    assert_eq!(done["applied"]["dropped"], serde_json::json!([alone]), "{done}");
    assert_eq!(world.points("uploads"), [points[0].clone(), newest]);
}

/// Case 17: a deletion is done when nothing is left, not when a call succeeded.
#[test]
fn case_17_what_somebody_put_back_is_found_and_removed_again() {
    let world = world();
    backups(&world, 1..5);
    let before = copy(&world, "local");
    for _again in 0..2 {
        retain(&world, 0);
    }
    let gone: Vec<&PathBuf> =
        before.keys().filter(|name| !world.vault("local", "uploads").join(name).exists()).collect();
    assert!(gone.len() >= 6, "{gone:?}");
    for name in &gone {
        tree::write(&world.vault("local", "uploads").join(name), &before[*name]);
    }
    let listed = world.points("uploads");
    assert_eq!(listed.len(), 2, "what was dropped is not offered: {listed:?}");
    let done = retain(&world, 0);
    for copy in done["applied"]["copies"].as_array().unwrap() {
        assert_eq!(copy["absence"]["left_count"], 0, "{done}");
    }
    for name in gone {
        assert!(!world.vault("local", "uploads").join(name).exists(), "{} is back", name.display());
    }
    sound(&world);
}

/// Case 15: every row that is retained has its outcome, and one that has none is an error.
#[test]
fn case_15_a_store_that_cannot_be_looked_after_is_told_and_keeps_no_other_from_it() {
    let mut world = World::of_everything();
    world.policy = world.policy.replace("7d 4w 12mo 1y", "1d");
    world.write_policy(&world.policy);
    for round in 1..4 {
        tree::change(&world.uploads(), round);
        world.add_orders(2_000 + u32::try_from(round).unwrap(), 1);
        world.run(&["backup"]).expect(0);
    }
    // Every manifest of one store is unreadable in both copies.
    for name in ["local", "offsite"] {
        let folder = world.vault(name, "orders").join("lifeboat/points");
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            bytes[40] ^= 1;
            fs::remove_file(&path).unwrap();
            tree::write(&path, &bytes);
        }
    }
    let ran = world.run(&["--json", "retain", "--apply", "--grace", "0s"]).expect(6);
    let report = ran.json();
    let stores = report["stores"].as_array().unwrap();
    let failed = texts(&report["findings"], "code");
    assert!(failed.iter().any(|code| code == "manifest-damaged" || code == "retain-failed"), "{report}");
    let uploads = stores.iter().find(|store| store["name"] == "uploads").unwrap();
    assert_eq!(uploads["applied"]["dropped"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(world.promise("uploads", "retention").0, "kept");
    assert_eq!(world.promise("orders", "retention").0, "broken");
    // A row that is not retained has no outcome.
    assert!(stores.iter().all(|store| store["name"] != "sessions"));
    world.run(&["retain", "sessions", "--apply"]).expect(3);
}

#[test]
fn a_retention_that_failed_breaks_its_promise_until_one_succeeds() {
    let world = world();
    backups(&world, 1..4);
    // Another tool is at work in one copy; the other one is cleared all the same.
    let foreign = world.vault("offsite", "uploads").join("locks").join("0".repeat(64));
    tree::write(&foreign, b"restic");
    let done = retain(&world, 5);
    assert_eq!(done["applied"]["copies"][0]["points"], 1, "{done}");
    assert!(done["applied"]["copies"][1]["postponed"].as_str().unwrap().contains("another tool"), "{done}");
    let (state, reason) = world.promise("uploads", "retention");
    assert!(state == "broken" && reason.contains("another tool"), "{state}: {reason}");
    fs::remove_file(&foreign).unwrap();
    retain(&world, 0);
    assert_eq!(world.promise("uploads", "retention").0, "kept");
}

#[expect(clippy::disallowed_methods, reason = "how often is asked by hand")]
fn wanted() -> u64 {
    std::env::var(KILLS_ENV).ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS)
}

/// How many records of removals there are.
fn records(world: &World) -> usize {
    fs::read_dir(world.vault("local", "uploads").join("lifeboat/retired")).map_or(0, Iterator::count)
}

/// After a kill all that is listed is whole, and the next retention leaves the first point and the newest.
fn completes(world: &World, first: &str, when: &str) {
    unharmed(world);
    assert_eq!(world.points("uploads").first().map(String::as_str), Some(first), "after {when}");
    world.run(&["evidence", "verify"]).expect(0);
    let done = retain(world, 0);
    for copy in done["applied"]["copies"].as_array().unwrap() {
        assert_eq!(copy["absence"]["left_count"], 0, "after {when}: {done}");
    }
    assert_eq!(world.points("uploads").len(), 2, "after {when}");
    sound(world);
}

#[test]
fn a_retention_killed_at_any_moment_harms_nothing_that_stays_and_the_next_one_completes_it() {
    let world = world();
    let first = backups(&world, 1..4).remove(0);
    let apply = ["retain", "uploads", "--apply", "--grace", "0s"];
    let mut kills = Kills::of(wanted(), &world, &apply, "kills of retention");
    let mut round = 4;
    while let Some(moment) = kills.next() {
        round += 2;
        backups(&world, round..round + 2);
        kills.kill(world.start(&apply), moment);
        completes(&world, &first, &format!("{moment:?}"));
    }
    // On a busy machine the moments above may all come too early: these come once something was recorded.
    let mut random = Random::printed("kills of removals");
    let mut met = 0;
    for _kill in 0..wanted().div_ceil(2) {
        round += 2;
        backups(&world, round..round + 2);
        let before = records(&world);
        let mut child = world.start(&apply);
        while child.try_wait().unwrap().is_none() && records(&world) == before {
            std::thread::yield_now();
        }
        let moment = Duration::from_micros(random.below(LONGEST_REMOVAL_US));
        met += u64::from(kill_after(child, moment));
        completes(&world, &first, &format!("{moment:?} after the record"));
    }
    println!("{met} kills met a removal at work");
    assert!(met > 0, "no kill met a removal at work");
    retain(&world, 0);
    assert!(copy(&world, "local") == copy(&world, "offsite"), "the copies differ");
    for name in ["local", "offsite"] {
        assert_restic_is_happy(&world, name, "uploads");
    }
    world.run(&["restore", "uploads", "--to", "back"]).expect(0);
    assert_same(&picture(&world.path("back")), &picture(&world.uploads()));
    world.run(&["restore", "uploads", "--to", "first", "--at", &first]).expect(0);
}

/// What fills a slot has to be there: nothing goes because of a point that no copy can give.
#[test]
fn nothing_is_dropped_for_a_point_that_no_copy_can_give() {
    let world = world();
    let points = backups(&world, 1..5);
    let listed = world.json(&["points", "uploads"], 0);
    let snapshot = listed["points"][0]["copies"][0]["snapshot"].as_str().unwrap();
    for name in ["local", "offsite"] {
        fs::remove_file(world.vault(name, "uploads").join("snapshots").join(snapshot)).unwrap();
    }
    let ran = world.run(&["--json", "retain", "uploads", "--apply", "--grace", "0s"]).expect(6);
    let report = ran.json();
    let damaged = report["findings"].as_array().unwrap();
    assert!(
        damaged.iter().any(|one| one["code"] == "point-damaged" && one["subject"] == points[0]),
        "{report}"
    );
    // The second one fills the slot of the day now; the third goes.
    assert_eq!(report["stores"][0]["applied"]["dropped"], serde_json::json!([points[2]]), "{report}");
    world.run(&["restore", "uploads", "--to", "second", "--at", &points[1]]).expect(0);
    assert_eq!(world.promise("uploads", "retention").0, "broken");
}

/// Somebody deletes the records of removals from every copy, or they rot there: the chain knows of them.
#[test]
fn records_that_vanish_from_every_copy_are_noticed_and_written_again() {
    let world = world();
    let points = backups(&world, 1..5);
    let before = copy(&world, "local");
    for _again in 0..2 {
        retain(&world, 0);
    }
    let folder = |name: &str| world.vault(name, "uploads").join("lifeboat/retired");
    for name in ["local", "offsite"] {
        fs::remove_dir_all(folder(name)).unwrap();
    }
    let manifest = PathBuf::from(format!("lifeboat/points/{}.json", points[1]));
    tree::write(&world.vault("offsite", "uploads").join(&manifest), &before[&manifest]);
    let told = world.run(&["--json", "verify", "uploads"]).expect(6).json();
    assert!(texts(&told["findings"], "code").iter().any(|code| code == "record-lost"), "{told}");
    let report = world.run(&["--json", "retain", "uploads", "--apply", "--grace", "0s"]).expect(6).json();
    assert!(texts(&report["findings"], "code").iter().any(|code| code == "record-lost"), "{report}");
    let applied = &report["stores"][0]["applied"];
    assert_eq!(applied["dropped"], serde_json::json!([]), "they were dropped before: {report}");
    for copy in applied["copies"].as_array().unwrap() {
        assert_eq!(copy["absence"]["points"], 2, "{report}");
        assert_eq!(copy["absence"]["left_count"], 0, "{report}");
    }
    // Numbers go on where they were.
    let names: Vec<String> = fs::read_dir(folder("local"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().all(|name| name.as_str() > "0000000002-z"), "{names:?}");
    retain(&world, 0);
    sound(&world);
}

/// A copy that cannot follow makes no news of what was dropped before.
#[test]
fn what_was_dropped_is_filed_once_however_long_a_copy_is_behind() {
    let world = world();
    backups(&world, 1..4);
    let foreign = world.vault("offsite", "uploads").join("locks").join("0".repeat(64));
    tree::write(&foreign, b"restic");
    let dropped = |done: &Value| done["applied"]["dropped"].as_array().unwrap().len();
    assert_eq!(dropped(&retain(&world, 5)), 1);
    for _again in 0..2 {
        assert_eq!(dropped(&retain(&world, 5)), 0);
    }
    fs::remove_file(&foreign).unwrap();
    assert_eq!(dropped(&retain(&world, 0)), 0);
}

#[test]
fn nothing_new_is_dropped_while_the_copies_cannot_be_made_equal() {
    let world = world();
    let points = backups(&world, 1..4);
    let logs = world.vault("offsite", "uploads").join("lifeboat/logs");
    std::os::unix::fs::symlink("/tmp", &logs).unwrap();
    let ran = world.run(&["--json", "retain", "uploads", "--apply", "--grace", "0s"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert_eq!(world.points("uploads"), points);
    assert_eq!(world.promise("uploads", "retention").0, "broken");
    fs::remove_file(&logs).unwrap();
    retain(&world, 0);
    assert_eq!(world.points("uploads").len(), 2);
}
