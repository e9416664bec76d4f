//! What goes wrong around Lifeboat: a clear error with the contract's exit code, nothing half-made, and a good run after.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lifeboat_base::crashsafe::TEMP_PREFIX;
use serde_json::Value;

use super::places::{Paused, SmallDisk};
use super::tree::{self, assert_same, noise, picture};
use super::world::{KEY_FILE, PASSPHRASE, PASSPHRASE_ENV, World};

/// An error that ends a command: the code, the words, and the document with `--json`.
#[track_caller]
fn refused(world: &World, name: &str, args: &[&str], code: i32) {
    let ran = world.run(args).expect(code);
    assert_eq!(ran.stdout, "", "{name}");
    world.assert_seen(&format!("fail-{name}"), &ran.stderr);
    let document = world.json(args, code);
    let kinds = ["", "internal", "usage", "refused", "unreachable", "findings", "damaged"];
    assert_eq!(document["schema"], "lifeboat.error/v1", "{document}");
    assert_eq!(document["exit_code"], code, "{document}");
    assert_eq!(document["kind"], kinds[usize::try_from(code).unwrap()], "{document}");
    assert!(
        document["at_risk"].is_array() && !document["message"].as_str().unwrap().is_empty(),
        "{document}"
    );
}

/// A failure inside a report: the code, the words, and the finding.
#[track_caller]
fn reported(world: &World, name: &str, args: &[&str], code: i32) -> Value {
    let ran = world.run(args).expect(code);
    world.assert_seen(&format!("fail-{name}"), &format!("{}{}", ran.stdout, ran.stderr));
    let report = world.json(args, code);
    assert_ne!(report["schema"], "lifeboat.error/v1");
    report
}

/// The world works: a new point in both copies, verified, restored to the same bytes.
#[track_caller]
fn works(world: &World) {
    let point = world.backup("uploads");
    world.run(&["verify", "uploads"]).expect(0);
    let target = world.path("works");
    let to = target.display().to_string();
    for copy in ["local", "offsite"] {
        world.run(&["restore", "uploads", "--at", &point, "--copy", copy, "--to", &to]).expect(0);
        assert_same(&picture(&target), &picture(&world.uploads()));
        fs::remove_dir_all(&target).unwrap();
    }
}

#[test]
fn a_wrong_command_line_or_policy_is_told_as_usage() {
    let world = World::of_files();
    refused(&world, "unknown-store", &["backup", "upload"], 2);
    refused(&world, "unknown-store-restore", &["restore", "upload", "--to", "x"], 2);
    refused(&world, "drill-of-nothing", &["drill"], 2);
    refused(&world, "no-policy", &["--policy", "nowhere.toml", "status"], 2);
    world.backup("uploads");
    refused(&world, "unknown-copy", &["restore", "uploads", "--to", "x", "--copy", "attic"], 2);
    refused(&world, "unknown-copy-verify", &["verify", "uploads", "--copy", "attic"], 2);
    refused(&world, "bad-moment", &["restore", "uploads", "--to", "x", "--at", "teatime"], 2);
    refused(&world, "unknown-point", &["restore", "uploads", "--to", "x", "--at", "pt-nothing"], 3);
    refused(&world, "too-early", &["restore", "uploads", "--to", "x", "--at", "1999-01-01"], 3);
    world.write_policy(&world.policy.replace("retention =", "retenton ="));
    refused(&world, "policy-typo", &["backup"], 2);
    assert_eq!(world.run(&["bakcup"]).code, Some(2));
    assert!(!world.path("x").exists());
    world.write_policy(&world.policy);
    works(&world);
}

#[test]
fn without_its_secret_no_vault_is_opened_or_begun() {
    let mut world = World::of_files().and_passphrase();
    let key = fs::read(world.path(KEY_FILE)).unwrap();
    fs::remove_file(world.path(KEY_FILE)).unwrap();
    let report = reported(&world, "key-file-missing-first", &["backup"], 4);
    assert_eq!(report["stores"][0]["outcome"], "failed");
    assert!(!world.path("vaults").exists(), "a vault was begun that not every recipient can open");
    tree::write(&world.path(KEY_FILE), &key);
    world.backup("uploads");

    fs::remove_file(world.path(KEY_FILE)).unwrap();
    world.run(&["verify"]).expect(0);
    world.env = vec![(PASSPHRASE_ENV.to_owned(), "not the passphrase".to_owned())];
    reported(&world, "wrong-passphrase", &["backup"], 6);
    reported(&world, "wrong-passphrase-verify", &["verify"], 6);
    refused(&world, "wrong-passphrase-restore", &["restore", "uploads", "--to", "x"], 6);
    refused(&world, "wrong-passphrase-password", &["keys", "password", "uploads", "--copy", "local"], 6);
    // A wrong key says nothing about the copies, and nothing good about what was not read.
    let promises = world.promises("uploads");
    assert_eq!(promises["copies"].0, "kept", "{promises:?}");
    assert_eq!(promises["verify"].0, "broken", "{promises:?}");

    world.env.clear();
    reported(&world, "no-passphrase", &["backup"], 4);
    refused(&world, "no-passphrase-restore", &["restore", "uploads", "--to", "x"], 4);
    refused(&world, "no-passphrase-verify", &["verify"], 4);
    reported(&world, "no-passphrase-check", &["check"], 4);
    world.env = vec![(PASSPHRASE_ENV.to_owned(), String::new())];
    refused(&world, "empty-passphrase", &["restore", "uploads", "--to", "x"], 4);
    assert!(!world.path("x").exists());

    world.env = vec![(PASSPHRASE_ENV.to_owned(), PASSPHRASE.to_owned())];
    works(&world);
    assert_ne!(world.promise("uploads", "verify").0, "broken");
}

#[test]
fn a_store_that_cannot_be_read_fails_alone_and_says_which_promise_is_at_risk() {
    let world = World::of_everything();
    world.run(&["backup"]).expect(0);
    let aside = world.path("live/aside");
    tree::rename(&world.uploads(), &aside);
    let report = reported(&world, "store-missing", &["backup", "--jobs", "1"], 4);
    assert_eq!(report["stores"][0]["outcome"], "captured", "another store must not suffer");
    assert_eq!(report["stores"][2]["outcome"], "failed");
    assert_eq!(report["stores"][2]["at_risk"][0]["promise"], "rpo");
    reported(&world, "store-missing-check", &["check"], 4);
    tree::write(&world.uploads(), b"now it is a file");
    reported(&world, "store-is-a-file", &["backup", "uploads"], 4);
    fs::remove_file(world.uploads()).unwrap();
    tree::rename(&aside, &world.uploads());
    let database = world.path("live/orders.db");
    let whole = fs::read(&database).unwrap();
    for name in ["live/orders.db", "live/orders.db-wal", "live/orders.db-shm"] {
        drop(fs::remove_file(world.path(name)));
    }
    reported(&world, "database-missing", &["backup", "orders"], 4);
    assert!(!database.exists(), "a backup made the database it was to read");
    fs::create_dir(&database).unwrap();
    reported(&world, "database-is-a-folder", &["backup", "orders"], 4);
    fs::remove_dir(&database).unwrap();
    tree::write(&database, "this is not a database, however long it is ".repeat(500).as_bytes());
    assert_ne!(world.run(&["backup", "orders"]).code, Some(0));
    assert_eq!(world.promise("orders", "rpo").0, "kept", "the points of before are still there");
    tree::write(&database, &whole);
    world.backup("orders");
    works(&world);
}

#[test]
fn a_copy_that_cannot_be_written_is_named_and_the_other_one_is_filled() {
    let world = World::of_files();
    let disk = SmallDisk::mount(&world.path("vaults/offsite"), 64 * 1024);
    world.backup("uploads");
    disk.remount("ro");
    tree::change(&world.uploads(), 1);
    let report = reported(&world, "copy-read-only", &["backup"], 4);
    assert_eq!(report["stores"][0]["copies"], serde_json::json!(["local"]));
    assert_eq!(world.promise("uploads", "copies").0, "broken");
    // What is there is still good to read.
    world
        .run(&["restore", "uploads", "--to", "x", "--copy", "offsite", "--at", &world.points("uploads")[0]])
        .expect(0);
    world.run(&["restore", "uploads", "--to", "y", "--copy", "local"]).expect(0);
    assert_same(&picture(&world.path("y")), &picture(&world.uploads()));
    disk.remount("rw");
    works(&world);
    assert_eq!(world.promise("uploads", "copies").0, "kept", "the copy that lagged is whole again");
}

#[test]
fn a_full_copy_loses_nothing_and_shows_nothing_half_made() {
    let world = World::of_files();
    let disk = SmallDisk::mount(&world.path("vaults/local"), 2 * 1024);
    let first = world.backup("uploads");
    let tree_then = picture(&world.uploads());
    let big = world.uploads().join("big.bin");
    tree::write(&big, &noise(7, 4 << 20));
    let report = reported(&world, "copy-full", &["backup"], 1);
    assert_eq!(report["stores"][0]["outcome"], "failed");
    assert_eq!(world.points("uploads"), std::slice::from_ref(&first), "a point that is not whole is shown");
    world.run(&["restore", "uploads", "--to", "x", "--copy", "local"]).expect(0);
    assert_same(&picture(&world.path("x")), &tree_then);
    assert_eq!(world.promise("uploads", "copies").0, "kept");
    disk.remount("size=64m");
    works(&world);
    assert_eq!(world.points("uploads")[0], first);
    super::peers::assert_restic_is_happy(&world, "local", "uploads");
}

#[test]
fn a_full_second_copy_is_named_and_catches_up_later() {
    let world = World::of_files();
    let disk = SmallDisk::mount(&world.path("vaults/offsite"), 2 * 1024);
    world.backup("uploads");
    tree::write(&world.uploads().join("big.bin"), &noise(7, 4 << 20));
    let report = reported(&world, "second-copy-full", &["backup"], 1);
    assert_eq!(report["stores"][0]["copies"], serde_json::json!(["local"]));
    assert_eq!(report["stores"][0]["outcome"], "captured");
    assert_eq!(world.promise("uploads", "copies").0, "broken");
    disk.remount("size=64m");
    works(&world);
    assert_eq!(world.promise("uploads", "copies").0, "kept");
    super::peers::assert_restic_is_happy(&world, "offsite", "uploads");
}

#[test]
fn a_full_state_disk_fails_loudly_and_keeps_every_point() {
    let world = World::of_files();
    let disk = SmallDisk::mount(&world.path("state"), 256);
    let first = world.backup("uploads");
    tree::write(&world.path("state/filler"), b"");
    let filler = fs::File::options().write(true).open(world.path("state/filler")).unwrap();
    let mut room = 0u64;
    while std::os::unix::fs::FileExt::write_at(&filler, &[1; 4096], room).is_ok() {
        room += 4096;
    }
    tree::change(&world.uploads(), 1);
    let ran = world.run(&["backup"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(
        ["No space left", "disk I/O error", "disk is full"].iter().any(|why| said.contains(why)),
        "{said}"
    );
    assert_ne!(world.run(&["verify"]).code, Some(0), "a proof that could not be filed was given");
    fs::remove_file(world.path("state/filler")).unwrap();
    disk.remount("size=64m");
    works(&world);
    assert!(world.points("uploads").contains(&first));
    world.run(&["evidence", "verify"]).expect(0);
}

#[test]
fn a_full_target_disk_leaves_neither_the_target_nor_its_staging() {
    let world = World::of_files();
    world.backup("uploads");
    let disk = SmallDisk::mount(&world.path("small"), 256);
    refused(&world, "target-full", &["restore", "uploads", "--to", "small/x"], 1);
    assert_eq!(fs::read_dir(world.path("small")).unwrap().count(), 0);
    disk.remount("ro");
    refused(&world, "target-read-only", &["restore", "uploads", "--to", "small/x"], 4);
    disk.remount("rw,size=64m");
    world.run(&["restore", "uploads", "--to", "small/x"]).expect(0);
    assert_same(&picture(&world.path("small/x")), &picture(&world.uploads()));
}

#[test]
fn a_file_in_the_place_of_a_copy_is_left_alone() {
    let world = World::of_files();
    tree::write(&world.path("vaults/offsite"), b"somebody's file");
    // A first vault is not begun in one copy while another may hold one already.
    let report = reported(&world, "copy-is-a-file-first", &["backup"], 4);
    assert_eq!(report["stores"][0]["outcome"], "failed");
    assert!(!world.path("vaults/local").exists());
    fs::remove_file(world.path("vaults/offsite")).unwrap();
    world.backup("uploads");
    fs::remove_dir_all(world.path("vaults/offsite")).unwrap();
    tree::write(&world.path("vaults/offsite"), b"somebody's file");
    let report = reported(&world, "copy-is-a-file", &["backup"], 4);
    assert_eq!(report["stores"][0]["copies"], serde_json::json!(["local"]));
    reported(&world, "copy-is-a-file-check", &["check"], 4);
    assert_eq!(fs::read(world.path("vaults/offsite")).unwrap(), b"somebody's file");
    fs::remove_file(world.path("vaults/offsite")).unwrap();
    world.run(&["backup", "--heal"]).expect(0);
    works(&world);
}

#[test]
fn a_state_folder_that_is_a_file_is_an_error_and_stays() {
    let world = World::of_files();
    tree::write(&world.path("state"), b"somebody's file");
    refused(&world, "state-is-a-file", &["backup"], 4);
    assert!(!world.path("vaults").exists());
    assert_eq!(fs::read(world.path("state")).unwrap(), b"somebody's file");
    fs::remove_file(world.path("state")).unwrap();
    works(&world);
}

#[test]
fn a_restore_never_writes_where_something_is() {
    let world = World::of_files();
    world.backup("uploads");
    tree::write(&world.path("taken/mine"), b"mine");
    tree::write(&world.path("file"), b"mine too");
    std::os::unix::fs::symlink("taken", world.path("link")).unwrap();
    refused(&world, "target-not-empty", &["restore", "uploads", "--to", "taken"], 3);
    refused(&world, "target-is-a-file", &["restore", "uploads", "--to", "file"], 3);
    refused(&world, "target-is-a-link", &["restore", "uploads", "--to", "link"], 3);
    refused(&world, "target-in-a-file", &["restore", "uploads", "--to", "file/below"], 4);
    assert_eq!(fs::read(world.path("taken/mine")).unwrap(), b"mine");
    assert_eq!(fs::read(world.path("file")).unwrap(), b"mine too");
    fs::create_dir(world.path("empty")).unwrap();
    world.run(&["restore", "uploads", "--to", "empty"]).expect(0);
    assert_same(&picture(&world.path("empty")), &picture(&world.uploads()));
}

#[test]
fn a_second_run_on_the_same_store_is_refused_while_the_first_one_lives() {
    let world = World::of_files();
    let first = world.backup("uploads");
    let (lock, packs) =
        (world.path("state/locks/uploads.lock"), world.vault("local", "uploads").join("data"));
    let at_work = || {
        // Asked of the kernel: trying the lock ourselves would keep the run out.
        let meta = fs::metadata(&lock).unwrap();
        let inode = format!(":{} ", meta.ino());
        let locks = fs::read_to_string("/proc/locks").unwrap();
        // Held, and said by whom; and in the middle of a pack, so that the catalog is nobody's.
        let held = locks.lines().any(|line| line.contains(" WRITE ") && line.contains(&inode));
        let names = |folder: &Path| fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut packs = names(&packs).flat_map(|folder| names(&folder.path()).collect::<Vec<_>>());
        let writes = packs.any(|pack| pack.file_name().to_string_lossy().starts_with(TEMP_PREFIX));
        meta.len() > 0 && held && writes
    };
    let started = |seed| {
        tree::write(&world.uploads().join(format!("more-{seed}.bin")), &noise(seed, 16 << 20));
        Paused::when(world.start(&["backup", "uploads"]), at_work)
    };
    let paused = (50..70).find_map(started).expect("no backup was met at work");
    let report = reported(&world, "two-runs", &["backup", "uploads"], 3);
    assert_eq!(report["stores"][0]["outcome"], "failed");
    // Reading goes on meanwhile.
    world.run(&["restore", "uploads", "--at", &first, "--to", "x"]).expect(0);
    world.run(&["verify", "uploads"]);
    drop(paused);
    works(&world);
    assert!(world.points("uploads").contains(&first));
}
