//! Green must be earned and stay earned: each way found to show a promise as kept that was not, and what stops it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tree;
use super::world::{World, texts};

/// A store in two copies, backed up, verified and drilled: every promise it makes is kept.
fn all_green() -> World {
    let world = World::of_files();
    world.backup("uploads");
    tree::change(&world.uploads(), 1);
    world.backup("uploads");
    world.run(&["verify"]).expect(0);
    world.run(&["drill", "--all"]).expect(0);
    for promise in ["rpo", "rto", "retention", "encryption", "copies", "drill"] {
        let (state, reason) = world.promise("uploads", promise);
        assert_eq!(state, "kept", "{promise}: {reason}");
    }
    world
}

fn packs(world: &World, copy: &str) -> Vec<PathBuf> {
    let data = world.vault(copy, "uploads").join("data");
    let fans = fs::read_dir(data).unwrap().map(|fan| fan.unwrap().path());
    fans.flat_map(|fan| fs::read_dir(fan).unwrap()).map(|pack| pack.unwrap().path()).collect()
}

fn flip_every_pack(world: &World, copy: &str) {
    for pack in packs(world, copy) {
        let mut bytes = fs::read(&pack).unwrap();
        bytes[20] ^= 1;
        tree::write(&pack, &bytes);
    }
}

fn copy_dir(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn forget_catalog(world: &World) {
    for suffix in ["", "-wal", "-shm"] {
        drop(fs::remove_file(world.path(&format!("state/catalog.db{suffix}"))));
    }
}

#[test]
fn a_point_that_rests_on_known_damage_is_never_called_sound() {
    let world = all_green();
    flip_every_pack(&world, "local");
    flip_every_pack(&world, "offsite");
    world.run(&["verify"]).expect(6);
    for _ in 0..2 {
        let report = world.json(&["backup"], 6);
        assert!(texts(&report["stores"][0]["findings"], "code").contains(&"point-doubtful".to_owned()));
    }
    assert_eq!(world.promise("uploads", "rpo").0, "broken");
    world.run(&["restore", "uploads", "--to", "x"]).expect(6);
}

#[test]
fn damage_that_a_backup_meets_is_remembered_until_a_verification_clears_it() {
    let world = all_green();
    let sound: Vec<_> =
        packs(&world, "local").into_iter().map(|pack| (fs::read(&pack).unwrap(), pack)).collect();
    for (_bytes, pack) in &sound {
        tree::write(pack, b"");
    }
    tree::change(&world.uploads(), 2);
    world.run(&["backup"]).expect(6);
    assert_eq!(world.promise("uploads", "copies").0, "broken");
    for (bytes, pack) in &sound {
        tree::write(pack, bytes);
    }
    assert_eq!(world.promise("uploads", "copies").0, "broken", "nobody has looked since");
    world.run(&["verify"]).expect(0);
    assert_eq!(world.promise("uploads", "copies").0, "kept");
}

#[test]
fn evidence_that_was_deleted_or_rolled_back_stops_everything_that_would_file_into_it() {
    let world = all_green();
    let old = world.path("old-evidence");
    tree::rename(&world.path("state/evidence"), &old);
    world.run(&["status"]).expect(3);
    world.run(&["drill", "--all"]).expect(3);
    world.run(&["backup"]).expect(3);
    tree::rename(&old, &world.path("state/evidence"));
    let newest = world.json(&["evidence", "show"], 0)["records"].as_array().unwrap().len();
    let head = fs::read(world.path("state/evidence/head.json")).unwrap();
    world.run(&["verify"]).expect(0);
    for extra in newest + 1..=newest + 2 {
        fs::remove_file(world.path(&format!("state/evidence/records/{extra:08}.json"))).unwrap();
    }
    tree::write(&world.path("state/evidence/head.json"), &head);
    let report = world.json(&["evidence", "verify"], 6);
    assert_eq!(report["problems"][0]["kind"], "truncated");
    world.run(&["status"]).expect(3);
}

#[test]
fn damage_is_not_forgotten_with_the_catalog() {
    let world = all_green();
    flip_every_pack(&world, "local");
    flip_every_pack(&world, "offsite");
    world.run(&["verify"]).expect(6);
    forget_catalog(&world);
    world.run(&["points"]);
    assert_eq!(world.promise("uploads", "rpo").0, "broken");
    assert_eq!(world.promise("uploads", "copies").0, "broken");
}

#[test]
fn vaults_that_were_rolled_back_lose_a_point_and_say_so() {
    let world = all_green();
    for copy in ["local", "offsite"] {
        copy_dir(&world.vault(copy, "uploads"), &world.path(&format!("old-{copy}")));
    }
    tree::change(&world.uploads(), 2);
    let newest = world.backup("uploads");
    for copy in ["local", "offsite"] {
        fs::remove_dir_all(world.vault(copy, "uploads")).unwrap();
        tree::rename(&world.path(&format!("old-{copy}")), &world.vault(copy, "uploads"));
    }
    forget_catalog(&world);
    world.run(&["catalog", "rebuild"]).expect(6);
    let (state, reason) = world.promise("uploads", "retention");
    assert_eq!((state.as_str(), reason.contains(&newest)), ("broken", true), "{reason}");
    let report = world.json(&["restore", "uploads", "--to", "x"], 5);
    assert_eq!(report["findings"][0]["subject"], newest.as_str());
}

#[test]
fn a_row_that_means_another_store_now_is_not_proven_by_what_it_meant_before() {
    let world = all_green();
    let policy = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    let uploads = "path = \"./live/uploads\"";
    assert!(policy.contains(uploads));
    world.write_policy(&policy.replace(uploads, "path = \"./elsewhere\""));
    for promise in ["rpo", "rto", "drill"] {
        assert_eq!(world.promise("uploads", promise).0, "unproven", "{promise}");
    }
    world.write_policy(&policy);
    assert_eq!(world.promise("uploads", "rpo").0, "kept");
}

#[test]
fn a_recipient_that_joined_later_is_not_said_to_open_anything() {
    let world = all_green();
    let policy = fs::read_to_string(world.path("lifeboat.toml")).unwrap();
    world.run(&["keys", "new-file", &world.path("secrets/new.key").display().to_string()]).expect(0);
    world.write_policy(&policy.replace("recipients = [", "recipients = [\"keyfile:./secrets/new.key\", "));
    let (state, reason) = world.promise("uploads", "encryption");
    assert_eq!((state.as_str(), reason.contains("new.key")), ("unproven", true), "{reason}");
    world.run(&["check"]).expect(5);
}

#[test]
fn a_drill_of_an_older_point_does_not_speak_for_the_newest() {
    let world = all_green();
    let older = world.points("uploads").remove(0);
    let before = packs(&world, "local");
    tree::write(&world.uploads().join("new.bin"), &vec![7u8; 40_000]);
    world.backup("uploads");
    for copy in ["local", "offsite"] {
        for pack in packs(&world, copy) {
            if !before.iter().any(|known| known.file_name() == pack.file_name()) {
                tree::write(&pack, b"gone");
            }
        }
    }
    world.run(&["drill", "--all"]).expect(6);
    assert_eq!(world.promise("uploads", "drill").0, "broken");
    world.run(&["drill", "uploads", "--at", &older]).expect(0);
    assert_eq!(world.promise("uploads", "drill").0, "broken");
}

#[test]
fn a_drill_that_could_not_begin_is_not_the_one_before_it_that_passed() {
    let world = all_green();
    for copy in ["local", "offsite"] {
        let vault = world.vault(copy, "uploads");
        tree::rename(&vault, &vault.with_extension("away"));
    }
    world.run(&["drill", "--all"]).expect(5);
    for copy in ["local", "offsite"] {
        let vault = world.vault(copy, "uploads");
        tree::rename(&vault.with_extension("away"), &vault);
    }
    let (state, reason) = world.promise("uploads", "drill");
    assert!(state == "broken" && reason.contains("uploads cannot be drilled"), "{state}: {reason}");
    assert_eq!(world.promise("uploads", "rto").0, "broken");
    world.run(&["drill", "--all"]).expect(0);
    assert_eq!(world.promise("uploads", "drill").0, "kept");
}

#[test]
fn a_store_that_was_emptied_is_told_apart_from_one_that_is_empty() {
    let world = all_green();
    fs::remove_dir_all(world.uploads()).unwrap();
    fs::create_dir(world.uploads()).unwrap();
    let report = world.json(&["backup"], 5);
    assert_eq!(report["stores"][0]["findings"][0]["code"], "store-emptied");
    assert_eq!(world.promise("uploads", "rpo").0, "unproven");
}

#[test]
fn a_signing_key_that_is_not_the_chains_stops_a_backup_before_it_begins() {
    let world = all_green();
    let points = world.points("uploads");
    fs::remove_file(world.path("state/evidence.key")).unwrap();
    tree::write(
        &world.path("state/evidence.key"),
        format!("lifeboat-signing-1:{}\n", "5".repeat(64)).as_bytes(),
    );
    let report = world.json(&["backup"], 3);
    assert_eq!(report["stores"][0]["outcome"], "failed");
    assert_eq!(world.points("uploads"), points, "nothing was captured");
}

#[test]
fn a_drill_whose_integrity_check_could_not_be_applied_is_not_passed() {
    let world = World::of_everything();
    // An index in an order that only the application knows.
    let database = world.orders();
    database
        .execute_batch(
            "CREATE INDEX by_number ON orders (order_no COLLATE NOCASE);
             PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'OF_SHOP') WHERE name = 'by_number';",
        )
        .unwrap();
    drop(database);
    world.backup("orders");
    world.run(&["drill", "orders"]).expect(5);
    let (state, reason) = world.promise("orders", "drill");
    assert_eq!(state, "broken", "{reason}");
    assert!(reason.contains("sqlite.integrity"), "{reason}");
}
