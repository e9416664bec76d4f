//! Drills that are ended from outside while an application is tried or a server runs: nothing of them stays, and the next one
//! is clean.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use lifeboat_base::process::{arguments, birth, everyone, family};
use lifeboat_base::time::{Clock, SystemClock};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use super::world::{World, texts};
use super::{postgres, redis, tree};

/// Where there is a gate, a process that left the group says so to whoever holds it open; both then work for a day.
const FRONT: &str = r#"#!/bin/sh
if test -p gate; then
  setsid sh -c 'echo here > gate; exec sleep DAY' &
  exec sleep DAY
fi
test -f "$STORE_ORDERS"
"#;
/// How long what was killed may take to be gone.
const GONE: Duration = Duration::from_secs(20);

struct Gate {
    world: World,
    /// A number of seconds that nobody else sleeps.
    day: String,
}

impl Gate {
    /// `number` is the test's own.
    fn new(number: u32) -> Self {
        let world = World::of_everything();
        let day = format!("86399.{}{number}", std::process::id());
        let lines = "\n[application.front]\nstores = [\"orders\"]\ncommand = [\"./front\"]\n";
        world.write_policy(&format!("{}{lines}", world.policy));
        tree::write(&world.path("front"), FRONT.replace("DAY", &day).as_bytes());
        fs::set_permissions(world.path("front"), fs::Permissions::from_mode(0o755)).unwrap();
        world.run(&["backup"]).expect(0);
        Self { world, day }
    }

    /// A drill that is at its application now.
    fn started(&self) -> Child {
        let gate = self.world.path("gate");
        mknodat(CWD, &gate, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let mut drill = self.world.command(&["--no-progress", "--json", "drill", "orders"]);
        let drill = drill.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Opening waits for the other end, and reading for its word.
        let mut said = String::new();
        File::open(&gate).unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "here\n");
        fs::remove_file(&gate).unwrap();
        drill
    }

    fn sleepers(&self) -> usize {
        let is_ours =
            |pid: &i32| arguments(*pid).iter().any(|word| word.to_string_lossy().contains(&self.day));
        everyone().iter().filter(|pid| is_ours(pid)).count()
    }

    fn assert_clean(&self) {
        let (clock, (_keep, quiet)) = (SystemClock::new(), sync_channel::<()>(1));
        let limit = clock.monotonic() + GONE;
        while self.sleepers() > 0 {
            assert!(clock.monotonic() < limit, "what the application started is still there");
            assert!(quiet.recv_timeout(Duration::from_millis(20)).is_err(), "nobody sends");
        }
        let report = self.world.json(&["drill", "orders"], 0);
        assert_eq!(report["agreement"][0]["canary_caught"], true, "{report:#}");
        let sandboxes = fs::read_dir(self.world.path("state/sandbox")).unwrap();
        assert_eq!(sandboxes.count(), 0);
    }
}

#[test]
fn nothing_that_an_application_started_outlives_a_drill_that_is_killed() {
    let gate = Gate::new(1);
    let mut drill = gate.started();
    assert!(gate.sleepers() > 0, "the application works");
    drill.kill().unwrap();
    drill.wait().unwrap();
    gate.assert_clean();
}

#[test]
fn case_25_a_drill_that_hangs_is_never_taken_for_one_that_passed_and_keeps_no_other_from_its_work() {
    let gate = Gate::new(3);
    let mut drill = gate.started();
    kill_process(Pid::from_raw(drill.id().cast_signed()).unwrap(), Signal::STOP).unwrap();
    let (state, why) = gate.world.promise("orders", "drill");
    assert_ne!(state, "kept", "{why}");
    // Another does its work beside it, and does not take away what the first holds.
    gate.world.run(&["drill", "orders"]).expect(0);
    assert_eq!(gate.world.promise("orders", "drill").0, "kept");
    assert_eq!(fs::read_dir(gate.world.path("state/sandbox")).unwrap().count(), 2, "its folder and its lock");
    assert!(drill.try_wait().unwrap().is_none(), "it still hangs");
    drill.kill().unwrap();
    drill.wait().unwrap();
    gate.assert_clean();
}

#[test]
fn case_25_an_application_that_never_ends_fails_its_drill_in_time() {
    let world = World::of_everything();
    let lines =
        "\n[application.front]\nstores = [\"orders\"]\ncommand = [\"sleep\", \"86399\"]\nwithin = \"2s\"\n";
    world.write_policy(&format!("{}{lines}", world.policy));
    world.run(&["backup"]).expect(0);
    let report = world.json(&["drill", "orders"], 5);
    assert_eq!(texts(&report["findings"], "code"), ["application/front"]);
    let (state, why) = world.promise("orders", "drill");
    assert_eq!(state, "broken", "{why}");
}

#[test]
fn a_drill_that_is_asked_to_end_says_so_and_files_it() {
    let gate = Gate::new(2);
    let drill = gate.started();
    assert!(gate.sleepers() > 0, "the application works");
    kill_process(Pid::from_raw(drill.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    let output = drill.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert_eq!(gate.sleepers(), 0);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes = texts(&report["findings"], "code");
    assert!(
        ["drill.stopped", "drill.unproven"].iter().all(|code| codes.iter().any(|found| found == code)),
        "{codes:?}"
    );
    let (state, why) = gate.world.promise("orders", "drill");
    assert_eq!(state, "broken", "{why}");
    gate.assert_clean();
}

/// How many of its servers a drill is killed with, one after the other.
const ROUNDS: usize = 3;

/// A throwaway server of one drill: its folder, and its processes with their times of birth.
struct Running {
    folder: PathBuf,
    processes: BTreeSet<(i32, u64)>,
}

impl Running {
    /// One of the process `owner` in a folder that `(prefix, program)` name, and that is none of `before`.
    fn of(owner: u32, (prefix, program): (&str, &str), before: &BTreeSet<PathBuf>) -> Option<Self> {
        let note = format!("process {owner}");
        let is_its =
            |folder: &Path| fs::read_to_string(folder.join("lease")).is_ok_and(|text| text.ends_with(&note));
        let folders = fs::read_dir("/tmp").unwrap().filter_map(Result::ok).map(|entry| entry.path());
        let named = |folder: &PathBuf| folder.file_name().unwrap().to_string_lossy().starts_with(prefix);
        folders.filter(|folder| named(folder) && !before.contains(folder) && is_its(folder)).find_map(
            |folder| {
                let path = folder.to_string_lossy().into_owned();
                let link =
                    |pid: i32, name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap_or_default();
                // It stands in its folder, or was told of it.
                let pid = everyone().into_iter().find(|pid| {
                    link(*pid, "exe")
                        .file_name()
                        .is_some_and(|name| name.to_string_lossy().starts_with(program))
                        && (link(*pid, "cwd") == folder
                            || arguments(*pid).iter().any(|word| word.to_string_lossy().contains(&path)))
                })?;
                let processes = family(pid).into_iter().chain([(pid, birth(pid)?)]).collect();
                Some(Self { folder, processes })
            },
        )
    }
}

/// Kills drills of `store` with servers running, each time one later; `kind` is how their folders and their program are called.
pub(crate) fn killed_with_servers_running(world: &World, store: &str, kind: (&str, &str)) {
    let (clock, mut rounds) = (SystemClock::new(), 0);
    for round in 0..ROUNDS {
        let mut drill = world.start(&["drill", store]);
        let (mut seen, mut last) = (BTreeSet::new(), None);
        while seen.len() <= round && drill.try_wait().unwrap().is_none() {
            if let Some(running) = Running::of(drill.id(), kind, &seen) {
                seen.insert(running.folder.clone());
                last = Some(running);
            }
        }
        // A drill has so many servers and no more.
        let Some(Running { folder, processes }) = last.filter(|_| seen.len() == round + 1) else { break };
        drill.kill().unwrap();
        drill.wait().unwrap();
        let limit = clock.monotonic() + GONE;
        while processes.iter().any(|(pid, born)| birth(*pid) == Some(*born)) {
            assert!(clock.monotonic() < limit, "a server outlives the drill that was killed (round {round})");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        world.run(&["drill", store]).expect(0);
        assert!(!folder.exists());
        assert_eq!(fs::read_dir(world.path("state/sandbox")).unwrap().count(), 0);
        let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
        let made = |line: &str, pid: i32| line.split_whitespace().nth(4) == Some(&pid.to_string());
        let left = segments.lines().filter(|line| processes.iter().any(|(pid, _)| made(line, *pid)));
        assert_eq!(
            left.collect::<Vec<_>>(),
            Vec::<&str>::new(),
            "memory of the machine that nobody gives back"
        );
        rounds += 1;
    }
    assert!(rounds > 0, "no server was seen");
}

#[test]
fn a_drill_killed_with_a_cluster_running_leaves_none() {
    let server = postgres::server(15);
    let world = postgres::world_of(&server);
    world.backup("shop");
    killed_with_servers_running(&world, "shop", ("lb-pg-", "postgres"));
}

#[test]
fn a_drill_killed_with_a_redis_running_leaves_none() {
    let server = redis::server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    killed_with_servers_running(&world, "cache", ("lb-redis-", "redis-"));
}
