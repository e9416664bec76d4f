//! Drills that are ended from outside while an application is tried: nothing of them stays, and the next one is clean.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use lifeboat_base::process::{arguments, everyone};
use lifeboat_base::time::{Clock, SystemClock};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use super::tree;
use super::world::{World, texts};

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
        std::fs::set_permissions(world.path("front"), std::fs::Permissions::from_mode(0o755)).unwrap();
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
        std::fs::remove_file(&gate).unwrap();
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
        let sandboxes = std::fs::read_dir(self.world.path("state/sandbox")).unwrap();
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
