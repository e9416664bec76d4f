//! A files row on a clock that stands still, runs on, and is set back.

use std::time::Duration;

use lifeboat_base::ids::StoreName;
use lifeboat_engine::policy::Verdict;
use lifeboat_engine::{PromiseKind, PromiseState, RestoreOptions, RetainOptions};

use super::world::{HOUR, World};

#[test]
fn promises_run_out_with_time() {
    let world = World::new();
    world.prove();
    assert_eq!(world.state(PromiseKind::Rpo), PromiseState::Kept);
    assert_eq!(world.state(PromiseKind::Verify), PromiseState::Kept);
    world.clock.advance(HOUR);
    assert_eq!(world.state(PromiseKind::Rpo), PromiseState::Kept, "an hour is what was promised");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.state(PromiseKind::Rpo), PromiseState::Broken);
    world.clock.advance(HOUR * 23);
    assert_eq!(world.state(PromiseKind::Verify), PromiseState::Broken, "a day has passed since it was read");
    world.clock.advance(HOUR * 24 * 9);
    assert_eq!(world.state(PromiseKind::Retention), PromiseState::Kept, "the only point is never too old");
}

#[test]
fn points_that_outlive_their_retention_break_its_promise_and_the_plan_names_them() {
    let world = World::new();
    for day in 0..11 {
        assert_eq!(world.backup(), None);
        let state = if day < 10 { PromiseState::Kept } else { PromiseState::Broken };
        assert_eq!(world.state(PromiseKind::Retention), state, "day {day}");
        world.clock.advance(HOUR * 24);
    }
    let report = world.engine().retain(&[], &RetainOptions::default()).unwrap();
    assert_eq!(report.worst(), None);
    let store = &report.stores[0];
    let may_go = store.points.iter().filter(|point| matches!(point.verdict, Verdict::Deletable { .. }));
    // The day that runs has no point yet; seven whole ones are kept.
    let ids: Vec<_> = may_go.map(|point| point.id.clone()).collect();
    assert_eq!(ids, store.points.iter().take(4).map(|point| point.id.clone()).collect::<Vec<_>>());
    assert!(!store.stalled);
    let reason = world.promise(PromiseKind::Retention).reason;
    assert!(reason.contains(ids[0].as_str()) && reason.contains("since 2026-03-09"), "{reason}");
    // A month without a point: time stands still, and hardly more may go than before.
    world.clock.advance(HOUR * 24 * 30);
    let later = world.engine().retain(&[], &RetainOptions::default()).unwrap().stores.remove(0);
    let stays = later.points.iter().filter(|point| matches!(point.verdict, Verdict::Kept(_))).count();
    assert!(later.stalled && stays >= 6, "{later:?}");
}

#[test]
fn what_claims_to_come_from_the_future_keeps_no_promise() {
    let world = World::new();
    world.prove();
    world.set_back(HOUR);
    for kind in [PromiseKind::Rpo, PromiseKind::Verify] {
        assert_eq!(world.state(kind), PromiseState::Broken, "{kind:?}: {}", world.promise(kind).reason);
    }
    // Captured under the right clock, the store is protected again.
    world.file("uploads/two.txt", "second");
    assert_eq!(world.backup(), None);
    assert_eq!(world.state(PromiseKind::Rpo), PromiseState::Kept);
}

#[test]
fn a_clock_that_differs_a_little_changes_nothing() {
    let world = World::new();
    world.prove();
    world.set_back(Duration::from_secs(60));
    assert_eq!(world.state(PromiseKind::Rpo), PromiseState::Kept);
    assert_eq!(world.state(PromiseKind::Verify), PromiseState::Kept);
}

#[test]
fn a_point_of_the_future_is_not_what_a_restore_takes_for_now() {
    let world = World::new();
    world.prove();
    world.set_back(HOUR * 48);
    world.file("uploads/two.txt", "second");
    assert_eq!(world.backup(), None);
    world.clock.advance(Duration::from_secs(10));
    let target = world.dir.path().join("restored");
    let options = RestoreOptions::new(StoreName::new("uploads").unwrap(), target.clone());
    let outcome = world.engine().restore(&options).unwrap();
    let codes: Vec<&str> = outcome.findings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["point-passed-over"], "an older capture is never taken in silence");
    assert_eq!(std::fs::read_to_string(target.join("two.txt")).unwrap(), "second");
}
