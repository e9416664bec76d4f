//! Killed at any moment: nothing committed is lost, nothing half-made is visible, the next run carries on.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use lifeboat_base::crashsafe::TEMP_PREFIX;
use lifeboat_base::time::{Clock, SystemClock};

use super::peers::assert_restic_is_happy;
use super::tree::{self, Random, assert_same, picture};
use super::world::World;

/// Moments at which each command is killed; fifty in all.
const BACKUPS: u64 = 20;
const VERIFIES: u64 = 8;
const RESTORES: u64 = 11;
const DRILLS: u64 = 11;

/// How long a command takes when nobody kills it.
pub(super) fn measured(world: &World, args: &[&str]) -> Duration {
    let clock = SystemClock::new();
    world.run(args).expect(0);
    clock.monotonic()
}

/// Lets a child live for `span` and then kills it; true if it was still running.
pub(super) fn kill_after(mut child: Child, span: Duration) -> bool {
    let (_keep, quiet) = sync_channel::<()>(1);
    assert!(quiet.recv_timeout(span).is_err(), "nobody sends");
    let running = child.try_wait().unwrap().is_none();
    // SIGKILL; a child that has ended is only collected.
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

/// Spreads `count` moments evenly over the life of a command, each at random within its share.
pub(super) fn moments(count: u64, life: Duration, random: &mut Random) -> Vec<Duration> {
    let share = u64::try_from(life.as_micros()).unwrap() / count;
    (0..count).map(|index| Duration::from_micros(index * share + random.below(share))).collect()
}

/// Files with a temporary name below `root`.
fn unfinished(root: &Path) -> Vec<String> {
    let names = tree::files(root).into_iter().map(|name| name.display().to_string());
    names.filter(|name| name.contains(TEMP_PREFIX)).collect()
}

#[test]
fn a_backup_killed_at_any_moment_loses_nothing_and_the_next_one_succeeds() {
    let world = World::of_files();
    let mut random = Random::printed("kills of backups");
    let mut committed = vec![world.backup("uploads")];
    tree::change(&world.uploads(), 1);
    let life = measured(&world, &["backup", "uploads"]);
    committed.push(world.points("uploads").pop().unwrap());
    let mut killed = 0;
    let moments = moments(BACKUPS, life, &mut random);
    for (round, moment) in (2u64..).zip(moments) {
        tree::change(&world.uploads(), round);
        killed += u64::from(kill_after(world.start(&["backup", "uploads"]), moment));
        let listed = world.points("uploads");
        assert!(committed.iter().all(|point| listed.contains(point)), "after {moment:?}: {listed:?}");
        committed = listed;
        if round % 5 == 0 {
            committed.push(world.backup("uploads"));
            for copy in ["local", "offsite"] {
                assert_restic_is_happy(&world, copy, "uploads");
            }
        }
    }
    assert!(killed >= BACKUPS / 2, "only {killed} of {BACKUPS} were still running");
    let newest = world.backup("uploads");
    let report = world.json(&["verify", "uploads"], 0);
    assert!(report["findings"].as_array().unwrap().is_empty(), "{report}");
    for copy in report["copies"].as_array().unwrap() {
        assert_eq!(copy["proven"].as_array().unwrap().len(), world.points("uploads").len(), "{report}");
    }
    world.run(&["evidence", "verify"]).expect(0);
    world.run(&["restore", "uploads", "--to", "back", "--at", &newest, "--copy", "offsite"]).expect(0);
    assert_same(&picture(&world.path("back")), &picture(&world.uploads()));
    assert_eq!(unfinished(&world.path("vaults")), Vec::<String>::new());
    assert_eq!(unfinished(&world.path("state")), Vec::<String>::new());
}

#[test]
fn the_first_backup_killed_at_any_moment_leaves_a_vault_that_the_next_one_completes() {
    let world = World::of_files();
    let mut random = Random::printed("kills of first backups");
    let life = measured(&world, &["backup", "uploads"]);
    for moment in moments(10, life, &mut random) {
        for folder in ["vaults", "state"] {
            fs::remove_dir_all(world.path(folder)).unwrap();
        }
        kill_after(world.start(&["backup", "uploads"]), moment);
        world.backup("uploads");
        let report = world.json(&["verify", "uploads"], 0);
        assert!(report["findings"].as_array().unwrap().is_empty(), "after {moment:?}: {report}");
        for copy in ["local", "offsite"] {
            assert_restic_is_happy(&world, copy, "uploads");
        }
    }
}

#[test]
fn a_verification_killed_at_any_moment_changes_no_vault_and_the_next_one_succeeds() {
    let world = World::of_everything();
    world.run(&["backup"]).expect(0);
    let mut random = Random::printed("kills of verifications");
    let before = tree::contents(&world.path("vaults"));
    let life = measured(&world, &["verify"]);
    for moment in moments(VERIFIES, life, &mut random) {
        kill_after(world.start(&["verify"]), moment);
        world.run(&["verify"]).expect(0);
    }
    assert!(tree::contents(&world.path("vaults")) == before, "a verification changed a vault");
    world.run(&["evidence", "verify"]).expect(0);
    assert_eq!(unfinished(&world.path("state")), Vec::<String>::new());
}

#[test]
fn a_restore_killed_at_any_moment_publishes_nothing_half_made_and_the_next_one_sweeps() {
    let world = World::of_files();
    world.backup("uploads");
    let original = picture(&world.uploads());
    let vaults = tree::contents(&world.path("vaults"));
    let mut random = Random::printed("kills of restores");
    let restore = ["restore", "uploads", "--to", "out/target"];
    let life = measured(&world, &restore);
    let mut left_behind = 0;
    for moment in moments(RESTORES, life, &mut random) {
        fs::remove_dir_all(world.path("out")).unwrap();
        kill_after(world.start(&restore), moment);
        let target = world.path("out/target");
        if target.exists() {
            assert_same(&picture(&target), &original);
            fs::remove_dir_all(&target).unwrap();
        }
        left_behind += usize::from(fs::read_dir(world.path("out")).map_or(0, Iterator::count) > 0);
        world.run(&restore).expect(0);
        assert_same(&picture(&target), &original);
        let names: Vec<_> =
            fs::read_dir(world.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["target"], "after {moment:?}");
    }
    // On a busy machine the moments above may all come too early or too late: this one comes in the middle.
    fs::remove_dir_all(world.path("out")).unwrap();
    fs::create_dir(world.path("out")).unwrap();
    let mut child = world.start(&restore);
    let at_work = |name: &str| name.starts_with(".lifeboat-tmp-restore-") && !name.contains(".lock");
    let names = || fs::read_dir(world.path("out")).unwrap().map(|e| e.unwrap().file_name());
    while child.try_wait().unwrap().is_none() && !names().any(|name| at_work(&name.to_string_lossy())) {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    left_behind += usize::from(names().any(|name| name != "target"));
    assert!(left_behind > 0, "no kill met a restore at work");
    drop(fs::remove_dir_all(world.path("out")));
    world.run(&restore).expect(0);
    assert!(tree::contents(&world.path("vaults")) == vaults, "a restore changed a vault");
    world.run(&["evidence", "verify"]).expect(0);
}

#[test]
fn a_drill_killed_at_any_moment_leaves_no_sandbox_after_the_next_one() {
    let world = World::of_everything();
    world.run(&["backup"]).expect(0);
    let vaults = tree::contents(&world.path("vaults"));
    let mut random = Random::printed("kills of drills");
    let drill = ["drill", "--all"];
    let life = measured(&world, &drill);
    let mut left_behind = 0;
    for moment in moments(DRILLS, life, &mut random) {
        kill_after(world.start(&drill), moment);
        left_behind += fs::read_dir(world.path("state/sandbox")).map_or(0, Iterator::count);
        world.run(&drill).expect(0);
        assert_eq!(fs::read_dir(world.path("state/sandbox")).unwrap().count(), 0, "after {moment:?}");
    }
    assert!(left_behind > 0, "no kill met a drill at work");
    assert!(tree::contents(&world.path("vaults")) == vaults, "a drill changed a vault");
    assert!(world.path("live/orders.db").exists() && world.path("live/uploads/notes.txt").exists());
    world.run(&["evidence", "verify"]).expect(0);
}
