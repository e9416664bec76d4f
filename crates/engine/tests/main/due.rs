//! What is due is named when it is due, and not before.

use std::time::Duration;

use lifeboat_base::time::Timestamp;
use lifeboat_engine::{DrillOptions, ProofLevel, RetainOptions, Task, VerifyOptions};

use super::world::{HOUR, POLICY, World};

fn world() -> World {
    let promises = "schedule = \"every 1h\"\nverify = { readable = \"1d\", restore = \"2d\" }";
    let policy = POLICY.replace("passphrase:env:PHRASE", "keyfile:./ops.key");
    World::of(&policy.replace("verify = { readable = \"1d\" }", promises))
}

/// The commands that are due, in order, and when the next one will be.
fn due(world: &World) -> (Vec<String>, Option<Timestamp>) {
    let agenda = world.engine().agenda().unwrap();
    (agenda.due.iter().map(|due| due.task.arguments().join(" ")).collect(), agenda.next)
}

fn retain(world: &World) {
    let options = RetainOptions { apply: true, ..RetainOptions::default() };
    assert_eq!(world.engine().retain(&[], &options).unwrap().worst(), None);
}

#[test]
fn each_task_is_due_when_its_time_has_come_and_not_before() {
    let world = world();
    assert_eq!(due(&world).0, ["backup uploads"]);
    assert_eq!(world.backup(), None);
    let (now, _) = due(&world);
    assert_eq!(now, ["retain --apply uploads", "verify --level readable uploads", "drill uploads"]);
    retain(&world);
    let options = VerifyOptions { level: ProofLevel::Readable, copy: None };
    assert_eq!(world.engine().verify(&[], &options).unwrap().worst(), None);
    world.engine().drill(&[], &DrillOptions::default()).unwrap();
    assert_eq!(due(&world), (Vec::new(), Some("2026-03-01T13:00:00Z".parse().unwrap())));
    world.clock.advance(Duration::from_secs(3_599));
    assert_eq!(due(&world).0, Vec::<String>::new());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(due(&world).0, ["backup uploads", "retain --apply uploads"]);
    // Proofs before they lapse: at three quarters of a day, and of two.
    world.clock.advance(HOUR * 17);
    assert!(due(&world).0.contains(&"verify --level readable uploads".to_owned()));
    assert!(!due(&world).0.contains(&"drill uploads".to_owned()));
    world.clock.advance(HOUR * 18);
    assert!(due(&world).0.contains(&"drill uploads".to_owned()));
}

#[test]
fn what_failed_rests_for_a_while_and_is_due_again() {
    let world = world();
    assert_eq!(world.backup(), None);
    retain(&world);
    world.clock.advance(HOUR * 2);
    std::fs::remove_dir_all(world.dir.path().join("uploads")).unwrap();
    assert!(world.backup().is_some());
    let backup = "backup uploads".to_owned();
    assert!(!due(&world).0.contains(&backup));
    world.clock.advance(Duration::from_secs(899));
    assert!(!due(&world).0.contains(&backup));
    world.clock.advance(Duration::from_secs(1));
    assert!(due(&world).0.contains(&backup));
}

/// What was done by a clock that was ahead is no reason to wait for that moment.
#[test]
fn a_run_from_the_future_delays_nothing() {
    let world = world();
    world.clock.advance(HOUR * 24 * 3650);
    assert_eq!(world.backup(), None);
    world.set_back(HOUR * 24 * 3650);
    assert!(due(&world).0.contains(&"backup uploads".to_owned()));
}

#[test]
fn a_store_without_a_schedule_is_captured_by_hand() {
    let world = World::of(&POLICY.replace("passphrase:env:PHRASE", "keyfile:./ops.key"));
    assert_eq!(due(&world).0, Vec::<String>::new());
    assert_eq!(world.backup(), None);
    let now = world.engine().agenda().unwrap();
    assert!(now.due.iter().all(|due| !matches!(due.task, Task::Backup { .. })), "{now:?}");
    assert!(now.follow.is_empty());
}
