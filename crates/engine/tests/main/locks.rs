//! Locks over weeks: they follow what is kept, end with it, and free what may go.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::time::{Clock, TimeZone};
use lifeboat_engine::{PromiseKind, PromiseState, ProofLevel, RetainOptions, RetainReport, VerifyOptions};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::world::{POLICY, World};

const DAY: Duration = Duration::from_secs(86_400);

/// Takes the immutable flag off everything below a folder in the end, so that it can be removed.
struct Unlocked(PathBuf);

impl Drop for Unlocked {
    fn drop(&mut self) {
        let mut waiting = vec![self.0.clone()];
        while let Some(folder) = waiting.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    waiting.push(path);
                } else {
                    unflag(&path);
                }
            }
        }
    }
}

/// In this process: a program that is started holds the locks of the other tests' engines until it runs.
fn unflag(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    if let Ok(flags) = ioctl_getflags(&file) {
        // Whoever needs it off looks whether it is.
        ioctl_setflags(&file, flags - IFlags::IMMUTABLE).unwrap_or_default();
    }
}

fn world() -> (World, Unlocked) {
    let lock = "url = \"file:./vaults\"\nlock = { mode = \"governance\", min = \"1d\" }";
    let policy = POLICY.replace("passphrase:env:PHRASE", "keyfile:./ops.key");
    let policy = policy.replace("url = \"file:./vaults\"", lock).replace("\"7d\"", "\"2d 1w\"");
    let world = World::of(&policy);
    let unlocked = Unlocked(world.dir.path().to_owned());
    (world, unlocked)
}

/// Points of four hours, locked for nine days while that was promised; the rules keep fewer of them, and for less.
fn lock_for_longer(world: &World) {
    for hour in 0..4u64 {
        world.file(&format!("uploads/{hour}.txt"), &hour.to_string().repeat(2_000));
        assert_eq!(world.backup(), None);
        world.clock.advance(Duration::from_secs(3_600));
    }
    world.policy_says(|policy| policy.replace("min = \"1d\"", "min = \"9d\""));
    apply(world);
    world.policy_says(|policy| policy.replace("min = \"9d\"", "min = \"1d\""));
}

fn apply(world: &World) -> RetainReport {
    let options = RetainOptions { apply: true, grace: Some(Duration::ZERO), ..RetainOptions::default() };
    world.engine().retain(&[], &options).unwrap()
}

#[test]
fn a_locked_copy_grows_for_weeks_and_every_lock_ends_with_what_it_is_for() {
    let (world, _unlocked) = world();
    let vault = world.dir.path().join("vaults/uploads");
    let count = |folder: &str| std::fs::read_dir(vault.join(folder)).unwrap().count();
    for day in 0..12u32 {
        world.file(&format!("uploads/{day}.txt"), &format!("{day}").repeat(2_000));
        if day > 0 {
            std::fs::remove_file(world.dir.path().join(format!("uploads/{}.txt", day - 1))).unwrap();
        }
        assert_eq!(world.backup(), None, "day {day}");
        let report = apply(&world);
        assert_eq!(report.worst(), None, "day {day}: {:?}", report.findings);
        let cell = world.promise(PromiseKind::Immutability);
        assert_eq!(cell.state, PromiseState::Kept, "day {day}: {}", cell.reason);
        // Two days, the one in progress, a week: no lock keeps anything longer than its slot.
        assert!(count("lifeboat/points") <= 6, "day {day}");
        let waits = |point: &lifeboat_engine::RetainedPoint| point.locked.is_some();
        assert!(!report.stores[0].points.iter().any(waits), "day {day}: {report:?}");
        world.clock.advance(DAY);
    }
    assert!(count("snapshots") <= 6 && count(".locks/snapshots") <= 6, "marks go with their objects");
    let options = VerifyOptions { level: ProofLevel::Readable, copy: None };
    assert_eq!(world.engine().verify(&[], &options).unwrap().worst(), None);
}

#[test]
fn what_was_locked_for_longer_waits_for_its_date_and_goes_after_it() {
    let (world, _unlocked) = world();
    world.backup();
    world.clock.advance(Duration::from_secs(3_600));
    world.backup();
    world.clock.advance(Duration::from_secs(3_600));
    world.backup();
    // Promised for longer for a while: the point is locked for as long, whatever is promised later.
    let long = |policy: String| policy.replace("min = \"1d\"", "min = \"9d\"");
    world.policy_says(long);
    assert_eq!(apply(&world).worst(), Some(FailureKind::Findings), "longer than what is kept");
    world.policy_says(|policy| policy.replace("min = \"9d\"", "min = \"1d\""));
    let mut went = None;
    let mut left = String::new();
    for day in 1..14u32 {
        world.clock.advance(DAY);
        assert_eq!(world.backup(), None, "day {day}");
        let report = apply(&world);
        assert_eq!(report.worst(), None, "day {day}: {:?}", report.findings);
        let applied = report.stores[0].applied.as_ref().unwrap();
        let absence = applied.copies[0].absence.as_ref().unwrap();
        let locked = absence.locked_count;
        left = format!("{:?}", absence.locked);
        if day >= 3 && locked == 0 {
            went.get_or_insert(day);
        }
        assert!(locked == 0 || went.is_none(), "day {day}: {locked}");
    }
    assert!(went.is_some_and(|day| (8..=10).contains(&day)), "{went:?}: {left}");
    assert_eq!(world.state(PromiseKind::Immutability), PromiseState::Kept);
}

#[test]
fn what_nobody_dares_to_lock_since_the_clock_may_be_wrong_is_never_called_locked() {
    let (world, _unlocked) = world();
    for _day in 0..3 {
        assert_eq!(world.backup(), None);
        world.clock.advance(DAY);
    }
    assert_eq!(world.state(PromiseKind::Immutability), PromiseState::Kept);
    // Nothing for weeks, or a clock that jumped: nobody can tell which.
    world.clock.advance(DAY * 20);
    assert_eq!(world.backup(), Some(FailureKind::Findings));
    let cell = world.promise(PromiseKind::Immutability);
    assert_eq!(cell.state, PromiseState::Broken, "{}", cell.reason);
    assert!(cell.reason.contains("the clock is not believed"), "{}", cell.reason);
    let options = VerifyOptions { level: ProofLevel::Readable, copy: None };
    let report = world.engine().verify(&[], &options).unwrap();
    assert_eq!(report.worst(), Some(FailureKind::Findings));
    assert!(format!("{report:?}").contains("lock-doubt"), "{report:?}");
    // A person who says which day it is lets them be locked.
    let today = world.clock.now().to_zoned(TimeZone::UTC).date();
    let options = RetainOptions { apply: true, today: Some(today), ..RetainOptions::default() };
    let report = world.engine().retain(&[], &options).unwrap();
    let cell = world.promise(PromiseKind::Immutability);
    assert_eq!(cell.state, PromiseState::Kept, "{}: {:?}", cell.reason, report.findings);
}

#[test]
fn what_was_locked_and_is_gone_before_its_time_is_told_also_where_no_rule_asks_for_it_any_more() {
    let (world, _unlocked) = world();
    lock_for_longer(&world);
    // Whoever may lift the flag removes what no rule keeps and a lock still has for days.
    let points = world.dir.path().join("vaults/uploads/lifeboat/points");
    let mut names: Vec<_> = std::fs::read_dir(&points).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let first = names.first().unwrap();
    unflag(first);
    std::fs::remove_file(first).unwrap();
    for _day in 0..3 {
        world.clock.advance(DAY);
        world.backup();
        let told =
            |report: &RetainReport| report.findings.iter().any(|finding| finding.code == "lock-lifted");
        let report = apply(&world);
        assert!(told(&report), "{:?}", report.findings);
        assert_eq!(world.state(PromiseKind::Immutability), PromiseState::Broken);
    }
}

#[test]
fn a_clock_set_ahead_frees_nothing_that_is_locked_until_a_person_says_which_day_it_is() {
    let (world, _unlocked) = world();
    lock_for_longer(&world);
    for _day in 0..3 {
        world.clock.advance(DAY);
        assert_eq!(world.backup(), None);
    }
    let locked = |report: &RetainReport| {
        let applied = report.stores[0].applied.as_ref().unwrap();
        applied.copies[0].absence.as_ref().unwrap().locked_count
    };
    let before = locked(&apply(&world));
    assert!(before > 0);
    world.clock.advance(DAY * 3_650);
    assert!(locked(&apply(&world)) >= before, "what may go waits, too");
    let today = Some(world.clock.now().to_zoned(TimeZone::UTC).date());
    let grace = Some(Duration::ZERO);
    let options = RetainOptions { apply: true, grace, today, ..RetainOptions::default() };
    assert_eq!(locked(&world.engine().retain(&[], &options).unwrap()), 0);
}
