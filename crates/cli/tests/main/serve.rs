//! What is due is done when it is due: captures, proofs and retention, and a broken promise is told once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use lifeboat_base::time::{Clock, SystemClock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::tree;
use super::world::World;

/// Two stores with a schedule, a proof to be renewed and retention.
fn world() -> World {
    let mut world = World::of_everything();
    for row in ["path = \"./live/uploads\"", "path = \"./live/orders.db\""] {
        let promises = "schedule = \"every 1h\"\nverify = { readable = \"7d\", restore = \"7d\" }";
        world.policy = world.policy.replace(row, &format!("{row}\n{promises}"));
    }
    world.write_policy(&world.policy);
    world
}

fn signal(serve: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(serve.id()).unwrap()).unwrap(), signal).unwrap();
}

/// Ends it as a service manager does; its exit code.
fn end(mut serve: Child) -> Option<i32> {
    signal(&serve, Signal::TERM);
    serve.wait().unwrap().code()
}

/// Asks again and again until it is so; fails after a minute and a half.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !is() {
        assert!(clock.monotonic() < Duration::from_secs(120), "not within 2 minutes: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_due_is_done_once_and_then_not_again_before_its_time() {
    let world = world();
    let ran = world.run(&["serve", "--once"]).expect(0);
    for store in ["uploads", "orders"] {
        assert_eq!(world.points(store).len(), 1, "{ran:?}");
        for promise in ["rpo", "verify", "drill", "retention"] {
            assert_eq!(world.promise(store, promise).0, "kept", "{promise} of {store}: {ran:?}");
        }
    }
    let ran = world.run(&["serve", "--once"]).expect(0);
    assert!(!ran.stderr.contains(": lifeboat "), "nothing is due: {ran:?}");
    assert_eq!(world.points("uploads").len(), 1);
}

#[test]
fn what_fails_is_told_and_what_is_due_besides_is_done_all_the_same() {
    let world = world();
    tree::rename(&world.uploads(), &world.path("live/elsewhere"));
    let ran = world.run(&["serve", "--once"]).expect(4);
    assert_eq!((world.points("uploads").len(), world.points("orders").len()), (0, 1), "{ran:?}");
    // It rests for a while, and is no reason to rest for the others.
    let ran = world.run(&["serve", "--once"]).expect(0);
    assert!(!ran.stderr.contains("backup uploads"), "{ran:?}");
}

/// Runs until it is told to stop, tells a promise that breaks to a program, and that it holds again.
#[test]
fn it_serves_until_it_is_told_to_stop_and_tells_what_breaks() {
    let world = world();
    let told = world.path("told.jsonl");
    let program = world.path("alert.sh");
    tree::write(&program, format!("#!/bin/sh\ncat >> '{0}'\necho >> '{0}'\n", told.display()).as_bytes());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = world.command(&["serve", "--alert", &program.display().to_string()]);
    let serve = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let changes = |to: &str| {
        let text = fs::read_to_string(&told).unwrap_or_default();
        let alerts = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let all = alerts.flat_map(|alert| alert["changes"].as_array().unwrap().clone());
        all.filter(|one| one["store"] == "uploads" && one["promise"] == "copies" && one["to"] == to).count()
    };
    until("it is in both copies", || changes("kept") == 1);
    tree::rename(&world.vault("offsite", "uploads"), &world.path("away"));
    signal(&serve, Signal::HUP);
    until("the lost copy is told", || changes("broken") == 1);
    tree::rename(&world.path("away"), &world.vault("offsite", "uploads"));
    signal(&serve, Signal::HUP);
    until("it holds again", || changes("kept") == 2);
    assert_eq!(end(serve), Some(0));
    assert_eq!((world.points("uploads").len(), world.points("orders").len()), (1, 1));
    world.run(&["verify"]).expect(0);
}
