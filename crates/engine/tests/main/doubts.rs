//! Clocks that are wrong and disks that are away for longer than anything is kept: nothing promised goes, and somebody is told.

#![expect(clippy::disallowed_methods, reason = "a disk is taken away by moving its folder")]

use std::time::Duration;

use lifeboat_base::time::Clock;
use lifeboat_engine::{PromiseKind, PromiseState, RetainOptions, RetainReport};

use super::world::{POLICY, World};

const DAY: Duration = Duration::from_secs(86_400);

fn apply(world: &World) -> RetainReport {
    world.engine().retain(&[], &RetainOptions { apply: true, ..RetainOptions::default() }).unwrap()
}

fn dropped(report: &RetainReport) -> usize {
    report.stores[0].applied.as_ref().unwrap().dropped.len()
}

fn points(world: &World) -> Vec<String> {
    world.engine().points(&[]).unwrap()[0].points.iter().map(|point| point.id.to_string()).collect()
}

fn told(report: &RetainReport, code: &str) -> bool {
    report.findings.iter().any(|finding| finding.code == code)
}

/// Points of as many days, each applied.
fn days(world: &World, count: usize) {
    for _day in 0..count {
        world.backup();
        apply(world);
        world.clock.advance(DAY);
    }
}

/// Two copies, keeping so much.
fn world(keep: &str) -> World {
    let policy = POLICY
        .replace("passphrase:env:PHRASE", "keyfile:./ops.key")
        .replace("[store.uploads]", "[copy.second]\nurl = \"file:./second\"\n[store.uploads]")
        .replace("[\"local\"]", "[\"local\", \"second\"]")
        .replace("retention = \"7d\"", &format!("retention = \"{keep}\""));
    World::of(&policy)
}

/// A disk that was away until nothing is left of what it held is still one that was there before.
#[test]
fn a_copy_that_is_away_for_longer_than_anything_is_kept_is_not_begun_anew() {
    let world = world("3d");
    days(&world, 3);
    let (there, aside) = (world.dir.path().join("second"), world.dir.path().join("aside"));
    std::fs::create_dir(&aside).unwrap();
    std::fs::rename(there.join("uploads"), aside.join("uploads")).unwrap();
    for day in 0..8 {
        assert!(world.backup().is_some(), "day {day}");
        let report = apply(&world);
        assert!(!there.join("uploads").exists(), "day {day}");
        // From the first day on that something goes.
        if day > 1 {
            assert!(told(&report, "removal-postponed"), "day {day}: {:?}", report.findings);
            assert_eq!(world.state(PromiseKind::Retention), PromiseState::Broken, "day {day}");
        }
        world.clock.advance(DAY);
    }
    std::fs::rename(aside.join("uploads"), there.join("uploads")).unwrap();
    assert_eq!(world.backup(), None);
    apply(&world);
    assert_eq!(world.state(PromiseKind::Retention), PromiseState::Kept);
    let listed = |copy: &str| {
        std::fs::read_dir(world.dir.path().join(copy).join("uploads/lifeboat/points")).unwrap().count()
    };
    assert_eq!(listed("second"), listed("vaults"));
}

/// What is captured under a clock that is behind shows days that have their points: nothing goes until somebody looked.
#[test]
fn captures_under_a_clock_that_is_behind_stay_until_somebody_says_which_day_it_is() {
    let world = world("5d");
    days(&world, 7);
    let before = points(&world);
    world.set_back(DAY * 5);
    for day in 0..3 {
        world.backup();
        let report = apply(&world);
        assert!(told(&report, "clock-in-doubt") && dropped(&report) == 0, "day {day}: {:?}", report.findings);
        assert_eq!(world.state(PromiseKind::Retention), PromiseState::Broken, "day {day}");
        world.clock.advance(DAY);
    }
    // It is set right: what was captured meanwhile is there, and still asks for a person.
    world.clock.advance(DAY * 5);
    world.backup();
    let report = apply(&world);
    assert!(told(&report, "clock-in-doubt") && dropped(&report) == 0, "{:?}", report.findings);
    assert_eq!(points(&world).len(), before.len() + 4);
    let today = Some(world.clock.now().to_zoned(lifeboat_base::time::TimeZone::UTC).date());
    let options = RetainOptions { apply: true, today, ..RetainOptions::default() };
    let report = world.engine().retain(&[], &options).unwrap();
    assert!(!told(&report, "clock-in-doubt") && dropped(&report) > 0, "{:?}", report.findings);
    // The word holds for what came before it.
    world.clock.advance(DAY);
    world.backup();
    assert!(!told(&apply(&world), "clock-in-doubt"));
    assert_eq!(world.state(PromiseKind::Retention), PromiseState::Kept);
}

/// One jump, or one every day: the days that were really captured stay, however few are promised.
#[test]
fn a_clock_that_jumps_ahead_drops_no_day_that_no_new_one_replaced() {
    for (keep, jump, newest) in [("4d", 47, 4), ("6d", 190, 6)] {
        let world = world(keep);
        days(&world, 8);
        let mut all = points(&world);
        for wrong in 0..5 {
            // The second one jumps once.
            let hours = if jump > 48 && wrong > 0 { 24 } else { jump };
            world.clock.advance(Duration::from_secs((hours - 24) * 3_600));
            world.backup();
            let known = points(&world);
            all.extend(known.into_iter().filter(|id| !all.contains(id)).collect::<Vec<_>>());
            apply(&world);
            let left = points(&world);
            let gone: Vec<_> = all.iter().rev().take(newest).filter(|id| !left.contains(id)).collect();
            assert!(gone.is_empty(), "{keep} {jump} {wrong}: {gone:?} of {all:?}");
            world.clock.advance(DAY);
        }
    }
}

/// What was kept is remembered from every run, and that somebody looked counts also if a copy was away then.
#[test]
fn that_a_person_looked_counts_though_the_run_left_something() {
    let world = world("12d");
    days(&world, 12);
    let (there, aside) = (world.dir.path().join("second"), world.dir.path().join("aside"));
    std::fs::create_dir(&aside).unwrap();
    std::fs::rename(there.join("uploads"), aside.join("uploads")).unwrap();
    world.policy_says(|policy| policy.replace("retention = \"12d\"", "retention = \"2d\""));
    let report = apply(&world);
    assert!(told(&report, "too-many") && dropped(&report) == 0, "{:?}", report.findings);
    let plan = world.engine().retain(&[], &RetainOptions::default()).unwrap().stores[0].plan.unwrap();
    let options = RetainOptions { apply: true, plan: Some(plan.to_string()), ..RetainOptions::default() };
    let report = world.engine().retain(&[], &options).unwrap();
    assert!(dropped(&report) > 6, "{report:?}");
    world.clock.advance(DAY);
    world.backup();
    let report = apply(&world);
    assert!(!told(&report, "too-many") && dropped(&report) > 0, "{:?}", report.findings);
}
