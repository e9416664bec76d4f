//! How long the next restore will take, from how long earlier ones took and how large they were. Pure.
//!
//! No shape of distribution is assumed. The growth with size is the median of the growth between every two drills (Theil 1950,
//! Sen 1968), which a few odd drills do not move. What is left after it is taken away is as good one time as another, so the next
//! one falls between the smallest and the largest of `n` with probability `(n - 1) / (n + 1)`.

use serde::{Deserialize, Serialize};

/// Fewer say nothing about how much times differ.
const MIN_DRILLS: usize = 3;
/// Sizes closer than this say nothing about growth: the noise of the times would be taken for it.
const MIN_GROWTH: f64 = 1.05;
/// A size beyond this many times the largest seen is another matter than those seen.
const MAX_REACH: f64 = 2.0;

/// A drill that was done: what was restored, and how long it took until it was checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Past {
    /// Bytes restored.
    pub bytes: u64,
    /// Seconds until the store had passed its checks.
    pub seconds: f64,
}

/// What is to be expected of the next drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// As likely longer as shorter, in seconds.
    pub expected_s: f64,
    /// The next one is expected to be between this, in seconds,
    pub low_s: f64,
    /// and this, in seconds,
    pub high_s: f64,
    /// with this probability, while nothing but the size changes.
    pub probability: f64,
    /// From how many drills.
    pub drills: usize,
    /// Whether the size is far beyond every one that was drilled: then it is a guess.
    pub beyond: bool,
}

/// The forecast for a restore of `bytes`; nothing from fewer than three drills.
pub fn forecast(past: &[Past], bytes: u64) -> Option<Forecast> {
    let past: Vec<Past> =
        past.iter().copied().filter(|drill| drill.seconds.is_finite() && drill.seconds >= 0.0).collect();
    if past.len() < MIN_DRILLS {
        return None;
    }
    let rate = growth(&past);
    let size = real(bytes);
    let mut rests: Vec<f64> = past.iter().map(|drill| drill.seconds - rate * real(drill.bytes)).collect();
    rests.sort_by(f64::total_cmp);
    let at = |rest: f64| (rest + rate * size).max(0.0);
    let count = real(past.len() as u64);
    let largest = past.iter().map(|drill| drill.bytes).max().unwrap_or_default();
    Some(Forecast {
        expected_s: at(median(&rests)),
        low_s: at(*rests.first()?),
        high_s: at(*rests.last()?),
        probability: (count - 1.0) / (count + 1.0),
        drills: past.len(),
        beyond: size > real(largest) * MAX_REACH,
    })
}

/// Seconds for each byte more; never less than none.
fn growth(past: &[Past]) -> f64 {
    let mut rates = Vec::new();
    for (number, one) in past.iter().enumerate() {
        for other in past.iter().skip(number + 1) {
            let (small, large) = if one.bytes <= other.bytes { (one, other) } else { (other, one) };
            if real(large.bytes) > real(small.bytes) * MIN_GROWTH {
                rates.push((large.seconds - small.seconds) / real(large.bytes - small.bytes));
            }
        }
    }
    rates.sort_by(f64::total_cmp);
    if rates.is_empty() { 0.0 } else { median(&rates).max(0.0) }
}

#[expect(clippy::cast_precision_loss, reason = "a size that is off by one part in 10^15 foretells the same")]
fn real(count: u64) -> f64 {
    count as f64
}

/// Of values in order, at least one.
fn median(values: &[f64]) -> f64 {
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    let half = values.len() / 2;
    if values.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.saturating_sub(1)), at(half)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn past(pairs: &[(u64, f64)]) -> Vec<Past> {
        pairs.iter().map(|(mib, seconds)| Past { bytes: mib * MIB, seconds: *seconds }).collect()
    }

    #[test]
    fn two_drills_foretell_nothing() {
        assert_eq!(forecast(&past(&[(100, 10.0), (200, 20.0)]), 300 * MIB), None);
    }

    #[test]
    fn a_store_that_grows_takes_longer_and_one_odd_drill_does_not_matter() {
        // Two seconds and a hundred MiB a second, and once something else was running.
        let seen = past(&[(100, 3.0), (200, 4.0), (300, 5.0), (400, 60.0), (500, 7.0), (600, 8.0)]);
        let next = forecast(&seen, 800 * MIB).unwrap();
        assert!((next.expected_s - 10.0).abs() < 0.5, "{next:?}");
        assert!(next.high_s > 60.0 && next.low_s <= next.expected_s, "{next:?}");
        assert_eq!((next.drills, next.beyond), (6, false));
        assert!((next.probability - 5.0 / 7.0).abs() < 1e-9);
        assert!(forecast(&seen, 1300 * MIB).unwrap().beyond);
    }

    #[test]
    fn times_of_one_size_are_not_taken_for_growth() {
        let seen = past(&[(100, 3.0), (101, 9.0), (100, 4.0)]);
        let next = forecast(&seen, 100 * MIB).unwrap();
        assert_eq!((next.low_s, next.expected_s, next.high_s), (3.0, 4.0, 9.0));
        let empty = forecast(&past(&[(0, 3.0), (0, 9.0), (0, 4.0)]), 0).unwrap();
        assert_eq!((empty.low_s, empty.expected_s, empty.high_s), (3.0, 4.0, 9.0));
    }

    proptest! {
        #[test]
        fn every_forecast_is_in_order_and_covers_what_it_was_made_from(
            pairs in prop::collection::vec((0..10_000u64, 0.0..10_000.0f64), 3..30),
            next in 0..20_000u64,
        ) {
            let seen = past(&pairs);
            let told = forecast(&seen, next * MIB).unwrap();
            prop_assert!(told.low_s <= told.expected_s && told.expected_s <= told.high_s, "{told:?}");
            prop_assert!(told.low_s >= 0.0 && told.high_s.is_finite());
            for drill in &seen {
                let of_its_size = forecast(&seen, drill.bytes).unwrap();
                prop_assert!(drill.seconds <= of_its_size.high_s + 1e-6 && drill.seconds >= of_its_size.low_s - 1e-6);
            }
        }
    }
}
