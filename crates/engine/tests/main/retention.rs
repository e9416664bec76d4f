//! Retention over weeks: applied daily it keeps its promise, and one that fails is red from the first failure on.

use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::time::Clock;
use lifeboat_engine::policy::Verdict;
use lifeboat_engine::{PromiseKind, PromiseState, RetainOptions, RetainReport};

use super::world::{HOUR, World};

const DAY: Duration = Duration::from_secs(86_400);

fn apply(world: &World) -> RetainReport {
    world.engine().retain(&[], &RetainOptions { apply: true, ..RetainOptions::default() }).unwrap()
}

/// How many points there are, and what all packs weigh.
fn stored(world: &World) -> (usize, u64) {
    let vault = world.dir.path().join("vaults/uploads");
    let points = std::fs::read_dir(vault.join("lifeboat/points")).unwrap().count();
    let folders = std::fs::read_dir(vault.join("data")).unwrap().map(|entry| entry.unwrap().path());
    let packs = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    (points, packs.map(|entry| entry.unwrap().metadata().unwrap().len()).sum())
}

/// One file replaces the one before.
fn change(world: &World, day: u32) {
    let path = world.dir.path().join("uploads/one.txt");
    std::fs::remove_file(&path).unwrap();
    let content: String =
        (0..20_000u32).map(|n| char::from(b'a' + ((n * 7919 + day * day) % 26) as u8)).collect();
    crashsafe::write_new(&path, format!("{day} {content}").as_bytes()).unwrap();
}

#[test]
fn applied_every_day_it_keeps_what_is_promised_and_space_stops_growing() {
    let world = World::with_key_file();
    let mut sizes = Vec::new();
    for day in 0..40 {
        change(&world, day);
        assert_eq!(world.backup(), None);
        let report = apply(&world);
        assert_eq!(report.worst(), None, "day {day}: {:?}", report.findings);
        assert_eq!(world.state(PromiseKind::Retention), PromiseState::Kept, "day {day}");
        let (points, bytes) = stored(&world);
        // The day in progress, seven whole ones.
        assert!(points <= 8, "day {day}: {points}");
        sizes.push(bytes);
        world.clock.advance(DAY);
    }
    assert!(sizes[39] < sizes[12] + sizes[12] / 2, "{sizes:?}");
    let reason = world.promise(PromiseKind::Retention).reason;
    assert!(reason.contains("applied"), "{reason}");
}

/// Case 14: 52 days of failures that nobody saw.
#[test]
fn case_14_retention_that_fails_for_52_days_is_red_from_the_first_failure_on() {
    let world = World::with_key_file();
    for day in 0..10 {
        change(&world, day);
        assert_eq!(world.backup(), None);
        world.clock.advance(DAY);
    }
    let foreign = world.dir.path().join("vaults/uploads/locks").join("0".repeat(64));
    crashsafe::write_new(&foreign, b"another tool that died").unwrap();
    for day in 10..62 {
        change(&world, day);
        world.backup();
        let report = apply(&world);
        assert_eq!(report.worst(), Some(FailureKind::Refused), "day {day}");
        let cell = world.promise(PromiseKind::Retention);
        assert_eq!(cell.state, PromiseState::Broken, "day {day}: {}", cell.reason);
        world.clock.advance(DAY);
    }
    let cell = world.promise(PromiseKind::Retention);
    assert!(cell.reason.contains("never applied"), "{}", cell.reason);
    std::fs::remove_file(&foreign).unwrap();
    assert_eq!(apply(&world).worst(), None);
    assert_eq!(world.state(PromiseKind::Retention), PromiseState::Kept);
    // The day in progress has no point yet.
    assert_eq!(stored(&world).0, 7);
}

#[test]
fn a_clock_that_jumped_ahead_ages_nothing_by_more_than_two_days() {
    let world = World::with_key_file();
    for day in 0..9 {
        change(&world, day);
        assert_eq!(world.backup(), None);
        world.clock.advance(DAY);
    }
    let before = stored(&world).0;
    let right = world.clock.now();
    world.clock.advance(DAY * 3650);
    change(&world, 100);
    assert_eq!(world.backup(), None);
    let report = apply(&world);
    let kept = |report: &RetainReport| {
        report.stores[0].points.iter().filter(|point| matches!(point.verdict, Verdict::Kept(_))).count()
    };
    assert!(report.stores[0].stalled && kept(&report) == 7, "{report:?}");
    assert!(stored(&world).0 >= before - 2, "{:?}", stored(&world));
    // Set right again: which of the two was wrong is known once somebody says so. The point from the future stays until it is
    // no longer one, and the others age as ever.
    world.clock.set_wall(right + HOUR);
    change(&world, 101);
    assert_eq!(world.backup(), None);
    assert!(codes(&apply(&world)).contains(&"clock-in-doubt"));
    assert_eq!(world.engine().retain(&[], &on(&world, 0)).unwrap().worst(), None);
    world.clock.advance(DAY);
    change(&world, 102);
    assert_eq!(world.backup(), None);
    assert_eq!(apply(&world).worst(), None);
    assert!(stored(&world).0 >= 7, "{:?}", stored(&world));
}

fn daily(world: &World, days: std::ops::Range<u32>) {
    for day in days {
        change(world, day);
        assert_eq!(world.backup(), None);
        world.clock.advance(DAY);
    }
}

fn codes(report: &RetainReport) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.code.as_str()).collect()
}

fn on(world: &World, days: i64) -> RetainOptions {
    let now = world.clock.now().to_zoned(lifeboat_base::time::TimeZone::UTC).date();
    let today = now.checked_add(jiff::Span::new().days(days)).unwrap();
    RetainOptions { apply: true, today: Some(today), ..RetainOptions::default() }
}

/// An outage of a month that a person confirmed is no habit: what jumps later is in doubt until a person says otherwise.
#[test]
fn a_long_time_without_captures_is_believed_on_a_persons_word_only() {
    let world = World::with_key_file();
    daily(&world, 0..9);
    world.clock.advance(DAY * 31);
    daily(&world, 10..15);
    let before = stored(&world).0;
    let report = apply(&world);
    assert!(codes(&report).contains(&"clock-in-doubt"), "{report:?}");
    assert_eq!((stored(&world).0, report.worst()), (before, Some(FailureKind::Findings)));
    let cell = world.promise(PromiseKind::Retention);
    assert!(cell.state == PromiseState::Broken && cell.reason.contains("--today"), "{}", cell.reason);
    // A person who means another day than the machine is no witness for its clock.
    for days in [-3, 5] {
        let refused = world.engine().retain(&[], &on(&world, days)).unwrap_err();
        assert_eq!(refused.kind(), FailureKind::Refused);
    }
    assert_eq!(stored(&world).0, before);
    let report = world.engine().retain(&[], &on(&world, 0)).unwrap();
    assert_eq!(report.worst(), None, "{report:?}");
    assert_eq!(stored(&world).0, 5, "the outage is real, and what lies before it is over");
    assert_eq!(world.state(PromiseKind::Retention), PromiseState::Kept);
    // The word holds for what it was said of.
    daily(&world, 15..22);
    assert_eq!(apply(&world).worst(), None);
    let before = stored(&world).0;
    world.clock.advance(DAY * 100);
    daily(&world, 30..34);
    assert!(codes(&apply(&world)).contains(&"clock-in-doubt"));
    assert_eq!(stored(&world).0, before + 4);
}

/// The state folder is lost, and the clock of the machine that takes over is ten years ahead.
#[test]
fn a_jump_is_seen_by_what_lies_in_the_vaults_when_nothing_else_is_left() {
    let world = World::with_key_file();
    daily(&world, 0..12);
    assert_eq!(apply(&world).worst(), None);
    let before = stored(&world).0;
    for folder in ["state", "evidence"] {
        let path = world.dir.path().join(folder);
        if path.exists() {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    world.clock.advance(DAY * 3650);
    daily(&world, 20..24);
    let report = apply(&world);
    assert!(codes(&report).contains(&"clock-in-doubt"), "{report:?}");
    assert_eq!(stored(&world).0, before + 4);
}
