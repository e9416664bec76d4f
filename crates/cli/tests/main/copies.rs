//! Copies that go away, and points that go missing: never silent, and healed when asked.

use std::fs;

use super::tree::{self, assert_same, picture};
use super::world::{World, texts};

#[test]
fn a_copy_that_is_gone_is_reported_until_it_is_healed() {
    let world = World::of_files();
    let first = world.backup("uploads");
    let original = picture(&world.uploads());
    let aside = world.path("unmounted");
    tree::rename(&world.path("vaults/offsite"), &aside);
    tree::change(&world.uploads(), 1);
    let ran = world.run(&["backup"]).expect(4);
    world.assert_seen("copy-gone-backup", &ran.stdout);
    assert!(!world.path("vaults/offsite").exists(), "an unmounted copy was begun anew");
    world.assert_seen("copy-gone-verify", &world.run(&["verify"]).expect(6).stdout);
    let (state, reason) = world.promise("uploads", "copies");
    assert_eq!(state, "broken", "{reason}");
    world.run(&["restore", "uploads", "--to", "x", "--copy", "offsite"]).expect(4);
    assert!(!world.path("x").exists());

    // It comes back as it was, behind by a point.
    tree::rename(&aside, &world.path("vaults/offsite"));
    world.backup("uploads");
    world.run(&["verify"]).expect(0);
    assert_eq!(world.promise("uploads", "copies").0, "kept");

    // It is lost for good.
    fs::remove_dir_all(world.path("vaults/offsite")).unwrap();
    world.run(&["backup"]).expect(4);
    world.run(&["backup", "--heal"]).expect(0);
    world.run(&["verify"]).expect(0);
    assert_eq!(world.promise("uploads", "copies").0, "kept");
    world.run(&["restore", "uploads", "--to", "x", "--copy", "offsite", "--at", &first]).expect(0);
    assert_same(&picture(&world.path("x")), &original);
    super::peers::assert_restic_is_happy(&world, "offsite", "uploads");
}

#[test]
fn a_first_copy_that_is_lost_is_filled_from_the_second() {
    let world = World::of_files();
    let first = world.backup("uploads");
    let original = picture(&world.uploads());
    fs::remove_dir_all(world.path("vaults/local")).unwrap();
    tree::change(&world.uploads(), 1);
    let report = world.json(&["backup"], 4);
    assert_eq!(report["stores"][0]["outcome"], "captured", "the copy that is left must be used");
    world.run(&["backup", "--heal"]).expect(0);
    assert_eq!(world.points("uploads").len(), 3);
    world.run(&["verify"]).expect(0);
    world.run(&["restore", "uploads", "--to", "x", "--copy", "local", "--at", &first]).expect(0);
    assert_same(&picture(&world.path("x")), &original);
}

#[test]
fn all_copies_gone_is_an_error_and_no_new_vault_is_begun() {
    let world = World::of_files();
    world.backup("uploads");
    tree::rename(&world.path("vaults"), &world.path("aside"));
    let report = world.json(&["backup"], 4);
    assert_eq!(report["stores"][0]["outcome"], "failed");
    assert!(!world.path("vaults").exists());
    assert_eq!(world.promise("uploads", "rpo").0, "broken");
    tree::rename(&world.path("aside"), &world.path("vaults"));
    world.run(&["backup"]).expect(0);
    world.run(&["verify"]).expect(0);
}

#[test]
fn a_deleted_manifest_is_a_missing_point_and_comes_back_from_the_other_copy() {
    let world = World::of_files();
    let first = world.backup("uploads");
    world.backup("uploads");
    let manifest = world.vault("local", "uploads").join(format!("lifeboat/points/{first}.json"));
    fs::remove_file(&manifest).unwrap();
    let report = world.json(&["points", "uploads"], 6);
    assert_eq!(texts(&report["findings"], "code"), ["point-missing"]);
    assert_eq!(report["findings"][0]["subject"], *first);
    assert_eq!(report["points"][0]["copies"][0]["damaged"], "the copy no longer lists it");
    assert_eq!(report["points"][0]["copies"][1]["damaged"], serde_json::Value::Null);
    assert_eq!(world.promise("uploads", "copies").0, "broken");
    world.run(&["verify"]).expect(6);
    world.run(&["backup"]).expect(6);
    assert!(manifest.exists(), "the next backup brings it back from the copy that has it");
    world.run(&["verify"]).expect(0);
    assert_eq!(world.promise("uploads", "copies").0, "kept");
}

#[test]
fn a_rebuild_notices_points_that_the_evidence_knows_and_no_copy_holds() {
    let world = World::of_files();
    let first = world.backup("uploads");
    world.backup("uploads");
    world.run(&["catalog", "rebuild"]).expect(0);
    for copy in ["local", "offsite"] {
        fs::remove_file(world.vault(copy, "uploads").join(format!("lifeboat/points/{first}.json"))).unwrap();
    }
    fs::remove_file(world.path("state/catalog.db")).unwrap();
    let report = world.json(&["catalog", "rebuild"], 6);
    assert_eq!(texts(&report["findings"], "code"), ["point-missing"]);
    assert_eq!(report["findings"][0]["subject"], *first);
}

/// Flips one bit in the middle of every pack of a vault.
fn damage_packs(world: &World, copy: &str) {
    let data = world.vault(copy, "uploads").join("data");
    for pack in tree::files(&data) {
        let path = data.join(pack);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        tree::write(&path, &bytes);
    }
}

#[test]
fn damage_in_one_copy_never_travels_to_the_other() {
    let world = World::of_files();
    world.backup("uploads");
    damage_packs(&world, "local");
    let offsite = tree::contents(&world.vault("offsite", "uploads"));
    tree::change(&world.uploads(), 1);
    world.run(&["backup"]);
    for (name, bytes) in offsite {
        let now = fs::read(world.vault("offsite", "uploads").join(&name)).unwrap();
        assert!(now == bytes, "{} was touched", name.display());
    }
    world.run(&["verify", "--copy", "local"]).expect(6);
    world.run(&["verify", "--copy", "offsite"]).expect(0);
    world.run(&["restore", "uploads", "--to", "x", "--copy", "local"]).expect(6);
    assert!(!world.path("x").exists());
    world.run(&["restore", "uploads", "--to", "x", "--copy", "offsite"]).expect(0);
    assert_same(&picture(&world.path("x")), &picture(&world.uploads()));
}

#[test]
fn a_copy_filled_from_a_damaged_one_claims_no_point_that_it_cannot_give_back() {
    let world = World::of_files();
    world.backup("uploads");
    fs::remove_dir_all(world.path("vaults/offsite")).unwrap();
    damage_packs(&world, "local");
    let ran = world.run(&["--json", "backup", "--heal"]);
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert_eq!(ran.json()["stores"][0]["copies"], serde_json::json!(["local"]), "{ran:?}");
    let points = world.vault("offsite", "uploads").join("lifeboat/points");
    assert_eq!(fs::read_dir(points).map_or(0, Iterator::count), 0, "a point without its content is shown");
    assert_eq!(world.promise("uploads", "copies").0, "broken");
    world.run(&["restore", "uploads", "--to", "x"]).expect(6);
    assert!(!world.path("x").exists());
}
