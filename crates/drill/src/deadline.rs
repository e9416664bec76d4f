//! What the work of a stage reports to: it says of which store the work is, and asks it to stop when its time is up. A restore
//! that hangs must not keep the drill from telling so.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::ids::StoreName;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::Clock;

/// A stage that takes this many times the promised recovery time has missed it beyond doubt.
const TIMES_RTO: u32 = 4;
/// A short promise leaves a slow machine time to show by how much it is missed.
const LEAST: Duration = Duration::from_secs(3600);
/// Where nothing is promised.
const UNPROMISED: Duration = Duration::from_secs(24 * 3600);

/// Names the store in every phase, and asks the work to stop once its time is up; work that listens to its monitor does.
pub(crate) struct Deadline<'a> {
    clock: &'a dyn Clock,
    inner: &'a dyn Monitor,
    store: &'a StoreName,
    limit: Duration,
    began: Mutex<Duration>,
}

impl<'a> Deadline<'a> {
    pub(crate) fn new(
        clock: &'a dyn Clock,
        inner: &'a dyn Monitor,
        store: &'a StoreName,
        rto: Option<Duration>,
    ) -> Self {
        let limit = rto.map_or(UNPROMISED, |rto| rto.saturating_mul(TIMES_RTO).max(LEAST));
        Self { clock, inner, store, limit, began: Mutex::new(clock.monotonic()) }
    }

    /// A stage begins.
    pub(crate) fn begin(&self) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = self.clock.monotonic();
    }

    fn passed(&self) -> bool {
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.monotonic().saturating_sub(began) > self.limit
    }

    /// What ended a stage, if not what it says itself. Damage that was found is told as such, however late: it is of the copies.
    pub(crate) fn blame(&self, stage: &str, failure: Failure) -> Failure {
        let why = if failure.kind() == FailureKind::Damaged {
            return failure;
        } else if self.inner.cancelled() {
            format!("`{stage}` was stopped")
        } else if self.passed() {
            format!("`{stage}` was not done after {}", human::duration(self.limit))
        } else {
            return failure;
        };
        Failure::with_source(FailureKind::Findings, why, failure)
    }
}

impl Monitor for Deadline<'_> {
    fn phase(&self, name: &str, total_bytes: Option<u64>) {
        self.inner.phase(&format!("{}: {name}", self.store), total_bytes);
    }

    fn advance(&self, bytes: u64, items: u64) {
        self.inner.advance(bytes, items);
    }

    fn finding(&self, finding: Finding) {
        self.inner.finding(finding);
    }

    fn notice(&self, text: &str) {
        self.inner.notice(text);
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled() || self.passed()
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::monitor::Findings;
    use lifeboat_base::time::{ManualClock, Timestamp};

    use super::*;

    #[test]
    fn a_stage_is_asked_to_stop_when_its_time_is_up_and_the_next_one_has_its_own() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let (monitor, store) = (Findings::new(), StoreName::new("orders").unwrap());
        let deadline = Deadline::new(&clock, &monitor, &store, Some(Duration::from_secs(1800)));
        let failed = || Failure::new(FailureKind::Refused, "it was cancelled");
        clock.advance(Duration::from_secs(7200));
        assert!(!deadline.cancelled());
        assert_eq!(deadline.blame("restore", failed()).to_string(), "it was cancelled");
        clock.advance(Duration::from_secs(1));
        assert!(deadline.cancelled());
        assert_eq!(deadline.blame("restore", failed()).to_string(), "`restore` was not done after 2h");
        let damaged = deadline.blame("restore", Failure::new(FailureKind::Damaged, "a pack is damaged"));
        assert_eq!(
            (damaged.kind(), damaged.to_string().as_str()),
            (FailureKind::Damaged, "a pack is damaged")
        );
        deadline.begin();
        assert!(!deadline.cancelled());
    }
}
