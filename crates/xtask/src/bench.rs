//! `cargo xtask bench`: the same data backed up and restored by lifeboat and by stock restic, in turn, on this machine.
//!
//! In: how much data, how many runs. Out: median times, rates and sizes of both, and their ratio. Every restore is
//! compared with the data byte by byte, so that a fast wrong answer is a failure. Files are warm in the page cache.

mod data;
mod rivals;

use std::path::Path;
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::time::{Clock, SystemClock};

use crate::command::Task;
use crate::say::say;
use rivals::{Lifeboat, Restic, Rival};

pub(crate) const DEFAULT_DATA_MIB: u64 = 512;
pub(crate) const DEFAULT_RUNS_COUNT: u64 = 3;
const MAX_DATA_MIB: u64 = 64 * 1024;
const MAX_RUNS_COUNT: u64 = 100;

/// What one rival took in one run.
#[derive(Clone, Copy, Debug)]
struct Lap {
    first: Duration,
    again: Duration,
    restore: Duration,
    stored_bytes: u64,
}

/// One of the times of a lap.
type Pick = fn(&Lap) -> Duration;

fn median<T: Ord + Copy + Default>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn timed(clock: &dyn Clock, work: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let start = clock.monotonic();
    work()?;
    Ok(clock.monotonic().saturating_sub(start))
}

/// One rival on an empty repository: back up, back up again unchanged, restore, compare.
fn lap(rival: &dyn Rival, clock: &dyn Clock, data: &Path, dir: &Path) -> Result<Lap, Failure> {
    let failed = |error| Failure::io(format!("failed to prepare {}", dir.display()), error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    rival.prepare(data, dir)?;
    let first = timed(clock, || rival.back_up(data, dir))?;
    let again = timed(clock, || rival.back_up(data, dir))?;
    let restored = dir.join("restored");
    let restore = timed(clock, || rival.restore(dir, &restored))?;
    Task::new("diff --recursive --no-dereference --brief").word(data).word(&restored).output(dir)?;
    let stored_bytes = data::size_bytes(&rival.repository(dir)).map_err(failed)?;
    std::fs::remove_dir_all(dir).map_err(failed)?;
    Ok(Lap { first, again, restore, stored_bytes })
}

#[expect(clippy::cast_precision_loss, reason = "rates and ratios are shown with few digits")]
fn row(name: &str, bytes: u64, ours: Duration, theirs: Duration) -> String {
    let rate = |took: Duration| bytes as f64 / 1_048_576.0 / took.as_secs_f64();
    format!(
        "{name:<14} {:>8.2} s {:>7.0} MiB/s   {:>8.2} s {:>7.0} MiB/s   {:>5.2}x",
        ours.as_secs_f64(),
        rate(ours),
        theirs.as_secs_f64(),
        rate(theirs),
        theirs.as_secs_f64() / ours.as_secs_f64()
    )
}

fn say_results(bytes: u64, ours: &[Lap], theirs: &[Lap]) {
    let both = |pick: Pick| (median(ours.iter().map(pick)), median(theirs.iter().map(pick)));
    say(&format!(
        "\n{:<14} {:>10} {:>13}   {:>10} {:>13}   restic's time",
        "median", "lifeboat", "", "restic", ""
    ));
    let parts: [(&str, Pick); 3] = [
        ("first backup", |lap| lap.first),
        ("second, same", |lap| lap.again),
        ("restore", |lap| lap.restore),
    ];
    for (name, pick) in parts {
        let (ours, theirs) = both(pick);
        say(&row(name, bytes, ours, theirs));
    }
    let stored = |laps: &[Lap]| human::bytes(median(laps.iter().map(|lap| lap.stored_bytes)));
    say(&format!("{:<14} {:>24}   {:>24}", "stored", stored(ours), stored(theirs)));
}

/// Builds lifeboat for release, generates the data in a temporary folder and lets both run in turn.
pub(crate) fn run(root: &Path, data_mib: u64, runs_count: u64) -> Result<(), Failure> {
    if !(1..=MAX_DATA_MIB).contains(&data_mib) || !(1..=MAX_RUNS_COUNT).contains(&runs_count) {
        let limits = format!("bench takes 1 to {MAX_DATA_MIB} MiB and 1 to {MAX_RUNS_COUNT} runs");
        return Err(Failure::new(FailureKind::Usage, limits));
    }
    say("building lifeboat for release");
    let lifeboat = Lifeboat::build(root)?;
    let restic = Restic::find(root)?;
    let dir = tempfile::tempdir().map_err(|error| Failure::io("failed to make a temporary folder", error))?;
    let data = dir.path().join("data");
    let files_count = data::generate(&data, data_mib * 1_048_576)
        .map_err(|error| Failure::io(format!("failed to generate {}", data.display()), error))?;
    let bytes = data::size_bytes(&data).map_err(|error| Failure::io("failed to measure the data", error))?;
    say(&format!("{} in {} files, {runs_count} runs", human::bytes(bytes), human::count(files_count)));
    say(&format!("against {}", restic.version()));

    let clock = SystemClock::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..runs_count {
        let ours_now = || lap(&lifeboat, &clock, &data, &dir.path().join("lifeboat"));
        let theirs_now = || lap(&restic, &clock, &data, &dir.path().join("restic"));
        // Whoever goes second finds a warmer machine, so they change places.
        if run % 2 == 0 {
            ours.push(ours_now()?);
            theirs.push(theirs_now()?);
        } else {
            theirs.push(theirs_now()?);
            ours.push(ours_now()?);
        }
        say(&format!("run {} of {runs_count} done", run + 1));
    }
    say_results(bytes, &ours, &theirs);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_follow_the_slowest_run() {
        assert_eq!(median([9, 1, 2].into_iter()), 2);
        assert_eq!(median(std::iter::empty::<u64>()), 0);
    }

    /// Backs up by copying and restores with one byte changed, if told to.
    struct Copier {
        damage: bool,
    }

    impl Rival for Copier {
        fn prepare(&self, _data: &Path, _dir: &Path) -> Result<(), Failure> {
            Ok(())
        }
        fn back_up(&self, data: &Path, dir: &Path) -> Result<(), Failure> {
            Task::new("cp --recursive --no-target-directory").word(data).word(self.repository(dir)).run(dir)
        }
        fn restore(&self, dir: &Path, into: &Path) -> Result<(), Failure> {
            Task::new("cp --recursive").word(self.repository(dir)).word(into).run(dir)?;
            if self.damage { Task::new("truncate --size 0").word(into.join("a")).run(dir) } else { Ok(()) }
        }
        fn repository(&self, dir: &Path) -> std::path::PathBuf {
            dir.join("copy")
        }
    }

    #[test]
    fn stock_restic_runs_a_lap() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        data::generate(&data, 1 << 20).unwrap();
        let restic = Restic::find(dir.path()).unwrap();
        let lap = lap(&restic, &SystemClock::new(), &data, &dir.path().join("lap")).unwrap();
        assert!(lap.stored_bytes > 0);
    }

    #[test]
    fn a_wrong_restore_has_no_time() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        lifeboat_base::crashsafe::write_new(&data.join("a"), b"content").unwrap();
        let clock = SystemClock::new();
        let good = lap(&Copier { damage: false }, &clock, &data, &dir.path().join("lap")).unwrap();
        assert_eq!(good.stored_bytes, 7);
        assert!(lap(&Copier { damage: true }, &clock, &data, &dir.path().join("lap")).is_err());
    }
}
