//! The time that locks end by while this process removes something: the clock's, and never later than what captures bear out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifeboat_base::ids::StoreName;
use lifeboat_base::time::{Clock, Timestamp};

/// Up to where the clock is believed, for each row of which that was asked.
#[derive(Clone, Default)]
pub(crate) struct Believed(Arc<Mutex<BTreeMap<StoreName, Timestamp>>>);

impl Believed {
    /// From now on the locks of this row end by nothing later than `until`; by the clock alone if there is none.
    pub(crate) fn set(&self, store: &StoreName, until: Option<Timestamp>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) => all.insert(store.clone(), until),
            None => all.remove(store),
        };
    }

    /// The clock of the places that hold this row's copies.
    pub(crate) fn clock(&self, store: &StoreName, clock: &Arc<dyn Clock>) -> Arc<dyn Clock> {
        Arc::new(LockClock { believed: self.clone(), store: store.clone(), clock: Arc::clone(clock) })
    }
}

struct LockClock {
    believed: Believed,
    store: StoreName,
    clock: Arc<dyn Clock>,
}

impl Clock for LockClock {
    fn now(&self) -> Timestamp {
        let all = self.believed.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = all.get(&self.store).copied();
        let now = self.clock.now();
        until.map_or(now, |until| until.min(now))
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::time::ManualClock;

    use super::*;

    #[test]
    fn a_clock_that_is_not_believed_ends_no_lock_of_that_row() {
        let [shop, other] = ["shop", "other"].map(|name| StoreName::new(name).unwrap());
        let at = |second| Timestamp::constant(second, 0);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(at(100)));
        let believed = Believed::default();
        let [shops, others] = [&shop, &other].map(|store| believed.clock(store, &clock));
        assert_eq!((shops.now(), others.now()), (at(100), at(100)));
        believed.set(&shop, Some(at(40)));
        assert_eq!((shops.now(), others.now()), (at(40), at(100)));
        believed.set(&shop, Some(at(140)));
        assert_eq!(shops.now(), at(100), "a belief makes it no later");
        believed.set(&shop, None);
        assert_eq!(shops.now(), at(100));
    }
}
