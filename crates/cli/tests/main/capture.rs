//! Captures of stores that do not hold still or do not let themselves be read: never called whole when they are not.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::tree;
use super::world::{World, finished, texts};

/// A file that no one can read while this lives, not even root.
struct Unreadable(std::path::PathBuf);

impl Unreadable {
    /// Puts a directory of `/proc` that cannot be read in its place, by a bind mount.
    fn new(path: std::path::PathBuf) -> Self {
        // Reading the memory of process 1 at address 0 is an input/output error for everybody.
        finished(Command::new("mount").args(["--bind", "/proc/self/mem"]).arg(&path)).expect(0);
        Self(path)
    }
}

impl Drop for Unreadable {
    fn drop(&mut self) {
        finished(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

#[test]
fn a_file_rewritten_during_the_capture_makes_the_point_fuzzy_and_is_named() {
    let world = World::of_files();
    let path = world.uploads().join("a-busy.log");
    tree::write(&path, &tree::noise(9, 8 << 20));
    let stop = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&path).unwrap();
            let mut round = 0u64;
            while !stop.load(Ordering::Relaxed) {
                file.write_all_at(&round.to_le_bytes(), (round * 4096) % (8 << 20)).unwrap();
                round += 1;
            }
        });
        let ran = world.run(&["--json", "backup"]);
        stop.store(true, Ordering::Relaxed);
        ran
    });
    assert_eq!(report.code, Some(5), "{report:?}");
    let store = report.json()["stores"][0].clone();
    assert_eq!(store["outcome"], "captured");
    assert!(texts(&store["findings"], "code").contains(&"file-changed".to_owned()), "{store}");
    assert!(texts(&store["findings"], "subject").iter().any(|what| what.contains("a-busy.log")), "{store}");
    let points = world.json(&["points", "uploads"], 0);
    assert_eq!(points["points"][0]["consistency"], "fuzzy");
    // What was stored is still exactly what is given back.
    world.run(&["verify"]).expect(0);
    world.run(&["drill", "--all"]).expect(0);
    // A capture of the same tree at rest is not fuzzy.
    world.run(&["backup"]).expect(0);
    assert_ne!(world.json(&["points", "uploads"], 0)["points"][1]["consistency"], "fuzzy");
}

#[test]
fn a_file_that_cannot_be_read_leaves_a_point_that_is_never_called_complete() {
    let world = World::of_files();
    let path = world.uploads().join("secret.bin");
    tree::write(&path, b"about to be unreadable");
    let unreadable = Unreadable::new(path);
    let ran = world.run(&["--json", "backup"]);
    assert_eq!(ran.code, Some(5), "{ran:?}");
    let store = ran.json()["stores"][0].clone();
    let promises: Vec<String> = texts(&store["at_risk"], "promise");
    assert!(promises.contains(&"rpo".to_owned()), "{store}");
    assert!(texts(&store["findings"], "subject").iter().any(|what| what.contains("secret.bin")), "{store}");
    let (state, reason) = world.promise("uploads", "rpo");
    assert_eq!(state, "broken", "{reason}");
    let points = world.run(&["--json", "points", "uploads"]).json();
    assert_eq!(points["points"][0]["unreadable"], 1, "{points}");
    let ran = world.run(&["restore", "uploads", "--to", "x"]).expect(5);
    assert!(ran.stdout.contains("1 item"), "{}", ran.stdout);
    assert!(!world.path("x/secret.bin").exists());
    world.run(&["drill", "--all"]).expect(5);
    drop(unreadable);
    world.backup("uploads");
    assert_eq!(world.promise("uploads", "rpo").0, "kept");
    world.run(&["drill", "--all"]).expect(0);
}

#[test]
fn a_database_written_to_all_the_time_is_captured_at_one_moment() {
    let world = World::of_everything();
    let stop = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 100_000;
            while !stop.load(Ordering::Relaxed) {
                world.add_orders(number, 5);
                number += 5;
            }
        });
        let ran = world.run(&["--json", "backup", "orders"]);
        stop.store(true, Ordering::Relaxed);
        ran
    });
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(world.json(&["points", "orders"], 0)["points"][0]["consistency"], "point-in-time");
    world.run(&["drill", "orders"]).expect(0);
    world.run(&["restore", "orders", "--to", "db"]).expect(0);
    let restored = rusqlite::Connection::open(world.path("db/orders.db")).unwrap();
    let sound: String = restored.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    // Five orders come in one transaction: a part of them would be a torn moment.
    let count: i64 = restored.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(count % 5, 0);
}

#[test]
fn a_database_that_breaks_its_own_rules_fails_its_drill() {
    let world = World::of_everything();
    world.backup("orders");
    world.run(&["drill", "orders"]).expect(0);
    world.orders().execute("UPDATE orders SET total = -1 WHERE id = 7", []).unwrap();
    world.orders().execute("UPDATE orders SET order_no = 'A-000001' WHERE id = 9", []).unwrap();
    let ran = world.run(&["--json", "backup", "orders"]);
    assert_eq!(ran.json()["stores"][0]["outcome"], "captured", "{ran:?}");
    let report = world.json(&["drill", "orders"], 5);
    let failed: Vec<&Value> = report["stores"][0]["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["state"] == "failed")
        .collect();
    assert!(failed.len() >= 2, "{report}");
    assert_eq!(world.promise("orders", "drill").0, "broken");
}

#[test]
fn an_empty_store_is_captured_and_comes_back_empty() {
    let world = World::of_files();
    fs::remove_dir_all(world.uploads()).unwrap();
    fs::create_dir(world.uploads()).unwrap();
    world.backup("uploads");
    world.run(&["drill", "--all"]).expect(0);
    world.run(&["restore", "uploads", "--to", "x"]).expect(0);
    tree::assert_same(&tree::picture(&world.path("x")), &tree::picture(&world.uploads()));
    let mut late = File::create(world.uploads().join("late")).unwrap();
    late.write_all(b"x").unwrap();
    assert_ne!(tree::picture(&world.path("x")), tree::picture(&world.uploads()));
}
