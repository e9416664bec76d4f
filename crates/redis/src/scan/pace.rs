//! How fast a server is asked, and how long is waited before asking again.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::entropy::{Entropy, OsEntropy};
use lifeboat_base::time::Clock;

/// The first wait before asking again; each further one is twice as long,
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The longest wait that a server may ask for.
pub(crate) const LONGEST_ASKED: Duration = Duration::from_secs(120);
/// How often a question is asked before it is given up.
const MAX_TRIES: u32 = 8;
/// How long one question may take with all its repetitions.
const TOTAL: Duration = Duration::from_secs(300);

/// A limit to the number of commands in a second, and the patience with one question.
#[derive(Clone)]
pub struct Pace {
    clock: Arc<dyn Clock>,
    per_second: Option<u32>,
    next: Duration,
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pace").field("per_second", &self.per_second).finish_non_exhaustive()
    }
}

impl Pace {
    /// At most so many commands a second; as many as go through if nothing is given.
    pub fn new(clock: Arc<dyn Clock>, per_second: Option<u32>) -> Self {
        let next = clock.monotonic();
        Self { clock, per_second, next }
    }

    /// The most commands that should go at once: a tenth of a second's worth, where there is a limit.
    pub fn most_at_once(&self, usual: usize) -> usize {
        let tenth = self.per_second.map(|limit| usize::try_from(limit / 10).unwrap_or(usize::MAX).max(1));
        tenth.map_or(usual, |tenth| tenth.min(usual))
    }

    /// The clock it goes by.
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// Waits until so many commands may go.
    pub(crate) fn before(&mut self, commands: usize) {
        let Some(per_second) = self.per_second else { return };
        let now = self.clock.monotonic();
        wait(self.clock.as_ref(), self.next.saturating_sub(now));
        let each = Duration::from_secs(1) / per_second.max(1);
        let cost = each.saturating_mul(u32::try_from(commands).unwrap_or(u32::MAX));
        self.next = self.next.max(now).saturating_add(cost);
    }

    /// The patience with something that begins now.
    pub fn patience(&self) -> Patience {
        Patience { clock: Arc::clone(&self.clock), until: self.clock.monotonic() + TOTAL, tries: 0 }
    }
}

/// How often and how long one thing is tried again.
pub struct Patience {
    clock: Arc<dyn Clock>,
    until: Duration,
    tries: u32,
}

impl std::fmt::Debug for Patience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patience").field("tries", &self.tries).finish_non_exhaustive()
    }
}

impl Patience {
    /// How often it was asked.
    pub fn tries(&self) -> u32 {
        self.tries + 1
    }

    /// Waits before the next try, as long as the server asked for or by a growing time of our own; false if it is enough.
    pub fn again(&mut self, asked: Option<Duration>) -> bool {
        self.tries += 1;
        let grown = FIRST_WAIT.saturating_mul(1 << self.tries.min(16)).min(LONGEST_WAIT);
        let own = grown / 2 + grown.mul_f64(jitter() / 2.0);
        let pause = asked.map_or(own, |asked| asked.min(LONGEST_ASKED) + own / 10);
        if self.tries >= MAX_TRIES || self.clock.monotonic() + pause > self.until {
            return false;
        }
        wait(self.clock.as_ref(), pause);
        true
    }
}

/// A number from 0 to 1, so that those who were refused together do not come back together.
fn jitter() -> f64 {
    let mut bytes = [0; 2];
    OsEntropy.fill(&mut bytes);
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}

/// Lets this much time pass. A server's limits know no event to wait for.
fn wait(clock: &dyn Clock, pause: Duration) {
    let until = clock.monotonic() + pause;
    loop {
        let left = until.saturating_sub(clock.monotonic());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}
