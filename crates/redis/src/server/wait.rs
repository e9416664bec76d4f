//! How long to wait for a process, and who may end the waiting.

use std::fmt;
use std::time::Duration;

use lifeboat_base::time::Clock;

/// Between two looks at a process: there is no event to wait for.
const POLL: Duration = Duration::from_millis(10);

/// Lets a moment pass before the next look.
pub(super) fn pause() {
    std::thread::park_timeout(POLL);
}

/// How long to wait and who may end the waiting.
#[derive(Clone, Copy)]
pub struct Wait<'a> {
    /// The longest time to wait.
    pub limit: Duration,
    /// The clock that measures it.
    pub clock: &'a dyn Clock,
    /// Asked every few milliseconds; true ends the waiting.
    pub cancelled: &'a dyn Fn() -> bool,
}

impl<'a> Wait<'a> {
    /// Waits for `limit` and cannot be cancelled.
    pub fn for_at_most(limit: Duration, clock: &'a dyn Clock) -> Self {
        Self { limit, clock, cancelled: &|| false }
    }
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wait({:?})", self.limit)
    }
}
