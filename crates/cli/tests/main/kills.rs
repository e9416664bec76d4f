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

/// Commands may end before they are killed this many times as often as they are to be killed.
const MISSES: u64 = 10;

/// Kills spread evenly over the life of a command, each at random within its share. On a busy machine no two lives are
/// alike: a command that ended before its moment shows that life is shorter, and does not count.
pub(crate) struct Kills {
    random: Random,
    life: Duration,
    wanted: u64,
    met: u64,
    missed: u64,
}

impl Kills {
    /// Learns from one run of `args` that nobody kills. `what` names the kills where the seed is printed.
    pub(crate) fn of(wanted: u64, world: &World, args: &[&str], what: &str) -> Self {
        let clock = SystemClock::new();
        world.run(args).expect(0);
        let life = clock.monotonic();
        Self { random: Random::printed(what), life, wanted, met: 0, missed: 0 }
    }

    /// When to kill next, until all have met a running command.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        if self.met == self.wanted {
            return None;
        }
        let share = u64::try_from(self.life.as_micros()).unwrap() / self.wanted;
        Some(Duration::from_micros(self.met * share + self.random.below(share)))
    }

    /// Lets a child live until `moment` of its life and then kills it.
    pub(crate) fn kill(&mut self, child: Child, moment: Duration) {
        if kill_after(child, moment) {
            self.met += 1;
            return;
        }
        self.missed += 1;
        assert!(
            self.missed < self.wanted * MISSES,
            "only {} of {} kills met it running",
            self.met,
            self.wanted
        );
        self.life = moment;
    }
}

/// Lets a child live for `span` and then kills it; true if it was still running.
pub(crate) fn kill_after(mut child: Child, span: Duration) -> bool {
    let (_keep, quiet) = sync_channel::<()>(1);
    assert!(quiet.recv_timeout(span).is_err(), "nobody sends");
    let running = child.try_wait().unwrap().is_none();
    // SIGKILL; a child that has ended is only collected.
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

/// Files with a temporary name below `root`.
fn unfinished(root: &Path) -> Vec<String> {
    let names = tree::files(root).into_iter().map(|name| name.display().to_string());
    names.filter(|name| name.contains(TEMP_PREFIX)).collect()
}

#[test]
fn a_backup_killed_at_any_moment_loses_nothing_and_the_next_one_succeeds() {
    let world = World::of_files();
    let mut committed = vec![world.backup("uploads")];
    tree::change(&world.uploads(), 1);
    let mut kills = Kills::of(BACKUPS, &world, &["backup", "uploads"], "kills of backups");
    committed.push(world.points("uploads").pop().unwrap());
    let mut round = 1;
    while let Some(moment) = kills.next() {
        round += 1;
        tree::change(&world.uploads(), round);
        kills.kill(world.start(&["backup", "uploads"]), moment);
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
    let mut kills = Kills::of(10, &world, &["backup", "uploads"], "kills of first backups");
    while let Some(moment) = kills.next() {
        for folder in ["vaults", "state"] {
            fs::remove_dir_all(world.path(folder)).unwrap();
        }
        kills.kill(world.start(&["backup", "uploads"]), moment);
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
    let before = tree::contents(&world.path("vaults"));
    let mut kills = Kills::of(VERIFIES, &world, &["verify"], "kills of verifications");
    while let Some(moment) = kills.next() {
        kills.kill(world.start(&["verify"]), moment);
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
    let restore = ["restore", "uploads", "--to", "out/target"];
    let mut kills = Kills::of(RESTORES, &world, &restore, "kills of restores");
    let mut left_behind = 0;
    while let Some(moment) = kills.next() {
        fs::remove_dir_all(world.path("out")).unwrap();
        kills.kill(world.start(&restore), moment);
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
    let drill = ["drill", "--all"];
    let mut kills = Kills::of(DRILLS, &world, &drill, "kills of drills");
    let mut left_behind = 0;
    while let Some(moment) = kills.next() {
        kills.kill(world.start(&drill), moment);
        left_behind += fs::read_dir(world.path("state/sandbox")).map_or(0, Iterator::count);
        world.run(&drill).expect(0);
        assert_eq!(fs::read_dir(world.path("state/sandbox")).unwrap().count(), 0, "after {moment:?}");
    }
    assert!(left_behind > 0, "no kill met a drill at work");
    assert!(tree::contents(&world.path("vaults")) == vaults, "a drill changed a vault");
    assert!(world.path("live/orders.db").exists() && world.path("live/uploads/notes.txt").exists());
    world.run(&["evidence", "verify"]).expect(0);
}
