//! The main job from the first check to the exported evidence, and the catalog made again from nothing.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::tree::{self, assert_same, picture};
use super::world::{World, texts};

fn rows(world: &World) -> i64 {
    world.orders().query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap()
}

/// Everything about points that must survive the loss of the catalog.
fn proofs(world: &World, store: &str) -> Vec<(Value, Value, Value)> {
    let report = world.json(&["points", store], 0);
    let points = report["points"].as_array().unwrap();
    points.iter().map(|p| (p["id"].clone(), p["proof"].clone(), p["copies"].clone())).collect()
}

#[test]
fn the_loop_keeps_proves_and_shows_what_the_policy_promises() {
    let world = World::of_everything();
    let seen = |name: &str, args: &[&str], code: i32| {
        let ran = world.run(args).expect(code);
        world.assert_seen(name, &ran.stdout);
        assert_eq!(ran.stderr, "", "{name}");
    };
    seen("loop-check-before", &["check"], 0);
    seen("loop-explain", &["explain", "orders"], 0);
    let matrix = |name: &str, code: i32| {
        let page = world.run(&["status"]).expect(code).stdout;
        for column in ["Store", "RPO", "RTO", "Retention", "Encryption", "Copies", "Verify", "Drill"] {
            assert!(page.contains(column), "no column {column} in\n{page}");
        }
        // How the table wraps depends on how long things took; what is said below it does not.
        let below = page.rsplit_once('─').unwrap().1.trim_start();
        world.assert_seen(name, below);
    };
    matrix("loop-status-before", 5);
    let first_tree = picture(&world.uploads());
    let first_rows = rows(&world);
    seen("loop-backup", &["backup", "--jobs", "1"], 0);
    tree::change(&world.uploads(), 1);
    world.add_orders(3_000, 700);
    let second_tree = picture(&world.uploads());
    world.run(&["backup", "--jobs", "1"]).expect(0);
    seen("loop-check", &["check"], 0);
    seen("loop-points", &["points"], 0);
    matrix("loop-status-unproven", 0);
    for level in ["checksummed", "readable"] {
        seen(&format!("loop-verify-{level}"), &["verify", "--level", level], 0);
    }
    world.run(&["verify", "--level", "restored"]).expect(0);
    seen("loop-drill", &["drill", "--all"], 0);
    matrix("loop-status-proven", 0);
    seen("loop-status-markdown", &["status", "--markdown"], 0);
    restores(&world, (&first_tree, first_rows), &second_tree);
    seen("loop-restore", &["restore", "orders", "--to", "seen"], 0);
    evidence(&world);
    assert_eq!(fs::read_dir(world.path("state/sandbox")).unwrap().count(), 0, "a sandbox was left behind");
    assert!(!world.vault("local", "sessions").exists(), "something of an unretained store was kept");
}

fn restores(world: &World, first: (&tree::Picture, i64), second_tree: &tree::Picture) {
    let points = world.points("uploads");
    for (point, original, to) in [(Some(&points[0]), first.0, "old"), (None, second_tree, "new")] {
        let mut args = vec!["restore", "uploads", "--to", to];
        args.extend(point.iter().flat_map(|point| ["--at", point.as_str()]));
        world.run(&args).expect(0);
        assert_same(&picture(&world.path(to)), original);
    }
    // The comparison sees a difference where there is one.
    assert_ne!(picture(&world.path("old")), picture(&world.path("new")));
    let report = world.json(&["points", "orders"], 0);
    let moment = report["points"][0]["moment"].as_str().unwrap();
    world.run(&["restore", "orders", "--to", "deep/below/orders", "--at", moment]).expect(0);
    let restored = rusqlite::Connection::open(world.path("deep/below/orders/orders.db")).unwrap();
    let count: i64 = restored.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(count, first.1);
    assert_ne!(count, rows(world));
}

fn evidence(world: &World) {
    let seen = |name: &str, args: &[&str]| {
        world.assert_seen(name, &world.run(args).expect(0).stdout);
    };
    seen("loop-evidence-verify", &["evidence", "verify"]);
    seen("loop-evidence-show", &["evidence", "show"]);
    seen("loop-evidence-export", &["evidence", "export", "--to", "bundle"]);
    let key = world.path("key-we-were-given");
    tree::write(&key, &fs::read(world.path("state/evidence/public.key")).unwrap());
    let nowhere = World::of_files();
    let bundle = world.path("bundle").display().to_string();
    let key = key.display().to_string();
    let verify = ["evidence", "verify", "--dir", bundle.as_str(), "--public-key", key.as_str()];
    nowhere.run(&verify).expect(0);
    let record = world.path("bundle/records/00000003.json");
    let honest = fs::read_to_string(&record).unwrap();
    tree::write(&record, honest.replacen('A', "B", 1).as_bytes());
    nowhere.run(&verify).expect(6);
}

#[test]
fn status_has_the_shape_its_readers_rely_on() {
    let world = World::of_everything();
    world.run(&["backup"]).expect(0);
    let report = world.json(&["status"], 0);
    assert_eq!(report["schema"], "lifeboat.status/v1");
    assert_eq!(texts(&report["stores"], "name"), ["orders", "sessions", "uploads"]);
    let columns = ["rpo", "rto", "retention", "encryption", "immutability", "copies", "verify", "drill"];
    for store in report["stores"].as_array().unwrap() {
        assert_eq!(texts(&store["promises"], "promise"), columns);
        for cell in store["promises"].as_array().unwrap() {
            let fields: BTreeSet<&str> = cell.as_object().unwrap().keys().map(String::as_str).collect();
            let wanted = ["promise", "state", "target", "observed", "age_s", "reason", "evidence"];
            assert_eq!(fields, BTreeSet::from(wanted));
            let state = cell["state"].as_str().unwrap();
            assert!(["kept", "broken", "unproven", "not_applicable"].contains(&state), "{cell}");
            assert!(!cell["reason"].as_str().unwrap().is_empty(), "{cell}");
        }
    }
    let cell = |store: usize, column: usize| report["stores"][store]["promises"][column]["state"].clone();
    assert_eq!(cell(0, 0), "kept");
    assert_eq!(cell(0, 7), "unproven", "a drill that never ran proves nothing");
    assert_eq!(cell(1, 2), "kept");
    assert_eq!(cell(1, 0), "not_applicable");
}

#[test]
fn a_lost_catalog_is_made_again_with_the_same_points_and_proofs() {
    let world = World::of_everything();
    world.run(&["backup"]).expect(0);
    tree::change(&world.uploads(), 1);
    world.run(&["backup"]).expect(0);
    world.run(&["verify"]).expect(0);
    world.run(&["drill", "--all"]).expect(0);
    let before: Vec<_> = ["uploads", "orders"].map(|store| proofs(&world, store)).into();
    assert!(before[0].iter().all(|(_id, proof, _copies)| !proof["readable"].is_null()));
    assert!(!before[0][1].1["restored"].is_null());
    for suffix in ["", "-wal", "-shm"] {
        drop(fs::remove_file(world.path(&format!("state/catalog.db{suffix}"))));
    }
    let ran = world.run(&["catalog", "rebuild"]).expect(0);
    world.assert_seen("catalog-rebuild", &ran.stdout);
    let after: Vec<_> = ["uploads", "orders"].map(|store| proofs(&world, store)).into();
    assert_eq!(after, before);
    assert_eq!(world.promise("orders", "drill").0, "kept");
    // Without a rebuild the proofs come back from the evidence and the points from the vaults.
    fs::remove_file(world.path("state/catalog.db")).unwrap();
    assert_eq!(proofs(&world, "uploads"), before[0]);
    assert_eq!(world.promise("orders", "drill").0, "kept");
    // Without the evidence nothing claims that anything was proven, and nothing is filed in place of what is lost.
    fs::remove_dir_all(world.path("state/evidence")).unwrap();
    world.run(&["status"]).expect(3);
    world.run(&["drill", "--all"]).expect(3);
    world.run(&["catalog", "rebuild"]).expect(6);
    assert!(proofs(&world, "uploads").iter().all(|(_id, proof, _copies)| proof["readable"].is_null()));
    assert_ne!(world.promise("orders", "drill").0, "kept");
}
