//! Legal holds: what they cover stays in every copy until they are released, whatever else is lost.

use std::fs;

use super::tree;
use super::world::{World, texts};

/// The first point of a day stays, and the newest; four points, of which the second and the third may go.
fn world() -> (World, Vec<String>) {
    let mut world = World::of_files();
    world.policy = world.policy.replace("7d 4w 12mo 1y", "1d");
    world.write_policy(&world.policy);
    let backup = |round| {
        tree::change(&world.uploads(), round);
        world.backup("uploads")
    };
    let points = (1..5).map(backup).collect();
    (world, points)
}

fn place(world: &World, more: &[&str]) -> String {
    let mut args = vec!["hold", "add", "--store", "uploads", "--reason", "case 7/26", "--holder", "counsel"];
    args.extend(more);
    let report = world.json(&args, 0);
    assert_eq!(report["holds"][0]["copies"].as_array().unwrap().len(), 2, "{report}");
    report["holds"][0]["id"].as_str().unwrap().to_owned()
}

fn retain(world: &World) {
    world.run(&["retain", "uploads", "--apply", "--grace", "0s"]).expect(0);
}

#[test]
fn a_held_point_outlives_its_retention_until_the_hold_is_released() {
    let (world, points) = world();
    let id = place(&world, &["--point", &points[1]]);
    retain(&world);
    assert_eq!(world.points("uploads"), [&points[0], &points[1], &points[3]].map(String::clone));
    let shown = world.run(&["retain", "uploads"]).expect(0).stdout;
    assert!(shown.contains(&format!("held by {id}")), "{shown}");
    let listed = world.json(&["points", "uploads"], 0);
    assert_eq!(listed["points"][1]["holds"][0], id.as_str(), "{listed}");
    assert_eq!(world.promise("uploads", "retention").0, "kept");
    world.run(&["restore", "uploads", "--to", "held", "--at", &points[1]]).expect(0);
    world.run(&["verify", "uploads"]).expect(0);
    let report = world.json(&["hold", "release", &id, "--reason", "settled", "--by", "counsel"], 0);
    assert_eq!(report["holds"][0]["release"]["by"], "counsel");
    world.run(&["hold", "release", &id, "--reason", "again", "--by", "x"]).expect(3);
    retain(&world);
    assert_eq!(world.points("uploads"), [&points[0], &points[3]].map(String::clone));
    let listed = world.run(&["hold", "list"]).expect(0).stdout;
    assert!(listed.contains("released") && listed.contains("case 7/26"), "{listed}");
    let told = world.run(&["evidence", "show"]).expect(0).stdout;
    assert!(told.contains("hold-release"), "{told}");
    world.run(&["evidence", "verify"]).expect(0);
    world.run(&["verify", "uploads"]).expect(0);
}

#[test]
fn a_hold_survives_the_loss_of_the_state_folder_and_of_the_copy_that_knows_it() {
    let (world, points) = world();
    // Only one copy is there when it is placed.
    tree::rename(&world.path("vaults/offsite"), &world.path("aside"));
    let args = ["--json", "hold", "add", "--store", "uploads", "--reason", "r", "--holder", "h"];
    let ran = world.run(&args);
    assert_eq!(texts(&ran.json()["holds"], "id").len(), 1, "{ran:?}");
    assert_ne!(ran.code, Some(0), "a copy without it is told");
    tree::rename(&world.path("aside"), &world.path("vaults/offsite"));
    // The evidence knows it while the copy that has it is away.
    tree::rename(&world.path("vaults/local"), &world.path("aside"));
    world.run(&["retain", "uploads", "--apply", "--grace", "0s"]);
    tree::rename(&world.path("aside"), &world.path("vaults/local"));
    assert_eq!(world.points("uploads"), points);
    // The copy knows it when the evidence is gone; and brings it to the other one.
    fs::remove_dir_all(world.path("state")).unwrap();
    retain(&world);
    assert_eq!(world.points("uploads"), points);
    for copy in ["local", "offsite"] {
        let holds = world.vault(copy, "uploads").join("lifeboat/holds");
        assert_eq!(fs::read_dir(&holds).unwrap().count(), 1, "{copy}");
    }
}

#[test]
fn holds_up_to_a_moment_keep_what_shows_it_and_a_damaged_hold_keeps_everything() {
    let (world, points) = world();
    let listed = world.json(&["points", "uploads"], 0);
    let moment = listed["points"][1]["moment"].as_str().unwrap().to_owned();
    let id = place(&world, &["--before", &moment]);
    retain(&world);
    assert_eq!(world.points("uploads"), [&points[0], &points[1], &points[3]].map(String::clone));
    let fifth = world.backup("uploads");
    let file = |copy: &str| world.vault(copy, "uploads").join(format!("lifeboat/holds/{id}.json"));
    let flip = || {
        for copy in ["local", "offsite"] {
            let mut bytes = fs::read(file(copy)).unwrap();
            bytes[50] ^= 1;
            fs::remove_file(file(copy)).unwrap();
            tree::write(&file(copy), &bytes);
        }
    };
    flip();
    // The chain still tells what it covers; without it nobody knows, and nothing goes.
    fs::remove_dir_all(world.path("state")).unwrap();
    world.run(&["retain", "uploads", "--apply", "--grace", "0s"]);
    assert_eq!(world.points("uploads").len(), 4);
    world.run(&["verify", "uploads"]).expect(6);
    world.run(&["hold", "list"]).expect(6);
    flip();
    retain(&world);
    assert_eq!(world.points("uploads"), [&points[0], &points[1], &fifth].map(String::clone));
}

#[test]
fn what_cannot_be_held_is_refused() {
    let (world, _) = world();
    let add = |more: &[&str]| {
        let mut args = vec!["hold", "add", "--store", "uploads", "--holder", "h"];
        args.extend(more);
        world.run(&args).code
    };
    assert_eq!(add(&["--reason", "r", "--point", "pt-20200101T000000000Z-00000000"]), Some(3));
    assert_eq!(add(&["--reason", "r", "--before", "whenever"]), Some(2));
    assert_eq!(add(&["--reason", ""]), Some(2));
    assert_eq!(add(&[]), Some(2));
    world.run(&["hold", "release", "hold-1", "--reason", "r", "--by", "b"]).expect(3);
    let none = world.run(&["hold", "list"]).expect(0).stdout;
    assert!(none.contains("there are no holds"), "{none}");
}

/// Dropped in the copy that was there, held before the other one came back: it stays, is listed, and comes back.
#[test]
fn a_hold_placed_after_the_removal_keeps_what_a_copy_that_was_away_still_has() {
    let (world, points) = world();
    tree::rename(&world.path("vaults/offsite"), &world.path("aside"));
    world.run(&["retain", "uploads", "--apply", "--grace", "0s"]);
    world.run(&["retain", "uploads", "--apply", "--grace", "0s"]);
    tree::rename(&world.path("aside"), &world.path("vaults/offsite"));
    let report =
        world.json(&["hold", "add", "--store", "uploads", "--reason", "case 7/26", "--holder", "counsel"], 0);
    let still = report["holds"][0]["dropped"]["still"].as_array().unwrap();
    assert_eq!(still.len(), 2, "{report}");
    assert_eq!(world.points("uploads"), points, "what is held is offered");
    for _again in 0..3 {
        let ran = world.run(&["--json", "retain", "uploads", "--apply", "--grace", "0s"]);
        assert!(matches!(ran.code, Some(0 | 5)), "{ran:?}");
        assert_eq!(world.points("uploads"), points);
    }
    for copy in ["local", "offsite"] {
        let manifests = world.vault(copy, "uploads").join("lifeboat/points");
        assert_eq!(fs::read_dir(&manifests).unwrap().count(), 4, "{copy}");
    }
    world.run(&["restore", "uploads", "--to", "held", "--at", &points[1]]).expect(0);
    world.run(&["verify", "uploads"]).expect(0);
    let id =
        report["holds"][0]["hold"]["id"].as_str().or(report["holds"][0]["id"].as_str()).unwrap().to_owned();
    world.run(&["hold", "release", &id, "--reason", "settled", "--by", "counsel"]).expect(0);
    retain(&world);
    assert_eq!(world.points("uploads"), [&points[0], &points[3]].map(String::clone));
}

#[test]
fn holds_that_vanish_from_every_copy_are_noticed_stay_in_force_and_are_written_back() {
    let (world, points) = world();
    let id = place(&world, &[]);
    let file = |copy: &str| world.vault(copy, "uploads").join(format!("lifeboat/holds/{id}.json"));
    for copy in ["local", "offsite"] {
        fs::remove_file(file(copy)).unwrap();
    }
    for command in [["verify", "uploads"], ["hold", "list"]] {
        let told = world.run(&[&["--json"][..], &command[..]].concat()).expect(6).json();
        assert!(texts(&told["findings"], "code").iter().any(|code| code == "hold-missing"), "{told}");
    }
    let told = world.json(&["retain", "uploads", "--apply", "--grace", "0s"], 5);
    assert!(texts(&told["findings"], "code").iter().any(|code| code == "hold-mended"), "{told}");
    assert_eq!(world.points("uploads"), points);
    for copy in ["local", "offsite"] {
        assert!(file(copy).exists(), "{copy}");
    }
    retain(&world);
    world.run(&["verify", "uploads"]).expect(0);
}
