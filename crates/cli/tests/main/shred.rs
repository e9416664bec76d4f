//! A store whose keys are destroyed: nobody opens it again, and everything says so.

use std::fs;
use std::process::Command;

use super::kills::Kills;
use super::peers::recover;
use super::tree;
use super::world::{KEY_FILE, World, finished, texts};

const SHRED: [&str; 8] =
    ["shred", "uploads", "--confirm", "uploads", "--reason", "contract ended", "--by", "dpo"];

fn world() -> World {
    let world = World::of_files();
    for round in 1..3 {
        tree::change(&world.uploads(), round);
        world.backup("uploads");
    }
    world
}

fn keys(world: &World, copy: &str) -> usize {
    let vault = world.vault(copy, "uploads");
    fs::read_dir(vault.join("keys")).unwrap().count()
        + usize::from(vault.join("lifeboat/envelope.json").exists())
}

#[test]
fn nobody_opens_a_store_whose_keys_were_destroyed() {
    let world = world();
    let password = world.run(&["keys", "password", "uploads", "--copy", "local"]).expect(0).stdout;
    let report = world.json(&SHRED, 0);
    assert_eq!(report["points"], 2, "{report}");
    for copy in report["copies"].as_array().unwrap() {
        assert_eq!((&copy["left"], &copy["closed_to_password"]), (&serde_json::json!([]), &true.into()));
        assert_eq!(copy["closed_to"].as_array().unwrap().len(), 1, "{report}");
    }
    for copy in ["local", "offsite"] {
        assert_eq!(keys(&world, copy), 0);
        // Not even who wrote the password down before.
        let mut restic = Command::new("restic");
        restic.args(["--no-cache", "--no-lock", "snapshots", "--repo"]).arg(world.vault(copy, "uploads"));
        assert_ne!(finished(restic.env("RESTIC_PASSWORD", password.trim())).code, Some(0));
        let (key, vault) = (world.path(KEY_FILE), world.vault(copy, "uploads"));
        let args = ["points", "--key-file", &key.display().to_string(), &vault.display().to_string()];
        assert_ne!(finished(&mut recover(&world, &args)).code, Some(0));
    }
    let said = world.run(&["restore", "uploads", "--to", "back"]);
    assert!(said.code != Some(0) && said.stderr.contains("was destroyed"), "{said:?}");
    assert!(!world.path("back").exists());
    let (state, reason) = world.promise("uploads", "retention");
    assert!(state == "broken" && reason.contains("dpo (contract ended)"), "{state}: {reason}");
    let told = world.json(&["retain", "uploads"], 5);
    assert_eq!(texts(&told["findings"], "code"), ["store-shredded"], "{told}");
    // No new vault is begun beside what is left, with or without the catalog.
    world.run(&["backup", "uploads"]).expect(3);
    world.run(&["backup", "uploads", "--heal"]).expect(3);
    world.run(&["catalog", "rebuild"]);
    assert_eq!(world.points("uploads"), Vec::<String>::new());
    assert_eq!(world.promise("uploads", "rpo").0, "broken");
    world.run(&["evidence", "verify"]).expect(0);
    fs::remove_dir_all(world.path("state")).unwrap();
    world.run(&["backup", "uploads"]).expect(3);
    // What is left is moved aside: the row begins anew.
    for copy in ["local", "offsite"] {
        tree::rename(&world.vault(copy, "uploads"), &world.path(&format!("old-{copy}")));
    }
    world.backup("uploads");
    assert_ne!(world.promise("uploads", "rpo").0, "broken");
}

#[test]
fn nothing_is_destroyed_that_something_keeps_or_that_is_not_all_at_hand() {
    let mut world = world();
    let whole = |world: &World| {
        assert_eq!((keys(world, "local"), keys(world, "offsite")), (2, 2));
        assert!(!world.vault("local", "uploads").join("lifeboat/shredded.json").exists());
    };
    let slip = ["shred", "uploads", "--confirm", "upload", "--reason", "r", "--by", "b"];
    world.run(&slip).expect(3);
    whole(&world);
    let args = ["hold", "add", "--store", "uploads", "--reason", "case 7/26", "--holder", "counsel"];
    let id = world.json(&args, 0)["holds"][0]["id"].as_str().unwrap().to_owned();
    let said = world.run(&SHRED).expect(3);
    assert!(said.stderr.contains(&id), "{said:?}");
    whole(&world);
    world.run(&["hold", "release", &id, "--reason", "settled", "--by", "counsel"]).expect(0);
    let policy = world.policy.clone();
    world.policy = policy.replace("[store.uploads]\n", "[store.uploads]\nimmutability = \"30d\"\n");
    world.write_policy(&world.policy);
    let said = world.run(&SHRED).expect(3);
    assert!(said.stderr.contains("locked until"), "{said:?}");
    whole(&world);
    world.write_policy(&policy);
    tree::rename(&world.path("vaults/offsite"), &world.path("aside"));
    world.run(&SHRED).expect(3);
    assert_eq!(keys(&world, "local"), 2);
    tree::rename(&world.path("aside"), &world.path("vaults/offsite"));
    whole(&world);
    world.run(&["restore", "uploads", "--to", "back"]).expect(0);
    world.run(&SHRED).expect(0);
    assert_eq!((keys(&world, "local"), keys(&world, "offsite")), (0, 0));
}

#[test]
fn a_shredding_that_was_killed_is_completed_by_the_next() {
    let fresh = world;
    let mut kills = Kills::of(4, &fresh(), &SHRED, "kills of a shredding");
    while let Some(moment) = kills.next() {
        let world = fresh();
        kills.kill(world.start(&SHRED), moment);
        let ran = world.run(&SHRED);
        // It had ended before, or begins or goes on now.
        assert!(ran.code == Some(0), "{moment:?}: {ran:?}");
        assert_eq!((keys(&world, "local"), keys(&world, "offsite")), (0, 0), "{moment:?}");
        assert_eq!(world.promise("uploads", "rpo").0, "broken");
    }
}
