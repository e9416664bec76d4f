//! The moment at which several stores are restored together. Pure: what each can be restored to in, one moment out.
//!
//! A store without a log shows only the moments it was captured at; at any later one it lags behind. The moment that is
//! chosen keeps the stores close together, and is the newest of those that do: a nightly copy of files is not compared with
//! a database as it was this noon.

use std::time::Duration;

use lifeboat_base::time::{SignedDuration, Timestamp};

/// What a store can be restored to: every moment from the first to the last of each pair.
pub(crate) type Spans = Vec<(Timestamp, Timestamp)>;

/// Stores that are this close together are together.
const CLOSE: Duration = Duration::from_secs(60);
/// How much further apart than the least possible the stores may be for the sake of a newer moment.
const SLACK: i32 = 2;

/// The newest moment a store can show, not after `at`.
pub(crate) fn state(spans: &[(Timestamp, Timestamp)], at: Timestamp) -> Option<Timestamp> {
    spans.iter().filter(|(from, _)| *from <= at).map(|(_, to)| at.min(*to)).max()
}

/// How far the furthest store is behind `at`; nothing if one was not there yet.
fn apart(stores: &[&Spans], at: Timestamp) -> Option<SignedDuration> {
    let mut furthest = SignedDuration::ZERO;
    for spans in stores {
        furthest = furthest.max(at.duration_since(state(spans, at)?));
    }
    Some(furthest)
}

/// The moment to restore all of them to; nothing if no moment has something of each.
pub(crate) fn common_moment(stores: &[&Spans]) -> Option<Timestamp> {
    let mut candidates: Vec<Timestamp> =
        stores.iter().flat_map(|spans| spans.iter().flat_map(|(from, to)| [*from, *to])).collect();
    candidates.sort_unstable();
    candidates.dedup();
    let lags: Vec<(Timestamp, SignedDuration)> =
        candidates.into_iter().filter_map(|at| Some((at, apart(stores, at)?))).collect();
    let least = lags.iter().map(|(_, lag)| *lag).min()?;
    let close = SignedDuration::try_from(CLOSE).unwrap_or(SignedDuration::ZERO);
    let enough = least.saturating_mul(SLACK).saturating_add(close);
    lags.into_iter().rev().find(|(_, lag)| *lag <= enough).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600;

    fn spans(pairs: &[(i64, i64)]) -> Spans {
        let at = |second| Timestamp::from_second(second).unwrap();
        pairs.iter().map(|(from, to)| (at(*from), at(*to))).collect()
    }

    fn common(stores: &[Spans]) -> Option<i64> {
        common_moment(&stores.iter().collect::<Vec<_>>()).map(Timestamp::as_second)
    }

    #[test]
    fn logs_are_replayed_to_where_the_nightly_captures_are() {
        let (night, before) = (26 * HOUR, 2 * HOUR);
        let database = spans(&[(before, 36 * HOUR), (night + 1, 36 * HOUR)]);
        let files = spans(&[(before + 9, before + 9), (night + 9, night + 9)]);
        let sqlite = spans(&[(before + 3, before + 3), (night + 3, night + 3)]);
        assert_eq!(common(&[database.clone(), files, sqlite]), Some(night + 9));
        assert_eq!(common(&[database.clone(), database]), Some(36 * HOUR));
    }

    #[test]
    fn the_first_captures_of_all_make_a_moment_without_any_log() {
        let stores = [spans(&[(10, 10)]), spans(&[(12, 12)]), spans(&[(11, 11)])];
        assert_eq!(common(&stores), Some(12));
        assert_eq!(common(&[spans(&[(10, 10)]), spans(&[])]), None);
    }

    #[test]
    fn an_older_round_of_captures_is_not_taken_for_being_a_second_closer() {
        let night = 24 * HOUR;
        let stores = [spans(&[(0, 0), (night, night)]), spans(&[(50, 50), (night + 51, night + 51)])];
        assert_eq!(common(&stores), Some(night + 51));
    }

    #[test]
    fn a_log_that_ended_long_ago_takes_the_others_back_with_it() {
        let hourly: Vec<(i64, i64)> = (0..720).map(|hour| (hour * HOUR, hour * HOUR)).collect();
        let ended = spans(&[(0, 5 * HOUR)]);
        let moment = common(&[spans(&hourly), ended]).unwrap();
        assert!((5 * HOUR..=6 * HOUR).contains(&moment), "{moment}");
    }

    proptest! {
        #[test]
        fn every_store_has_something_at_the_moment_and_none_newer_is_as_close(
            stores in prop::collection::vec(prop::collection::vec((0..100_000i64, 0..5_000i64), 1..8), 1..5)
        ) {
            let stores: Vec<Spans> = stores
                .iter()
                .map(|pairs| spans(&pairs.iter().map(|(from, more)| (*from, from + more)).collect::<Vec<_>>()))
                .collect();
            let all: Vec<&Spans> = stores.iter().collect();
            // The last candidate of all has something of each.
            let moment = common_moment(&all).unwrap();
            let lag = apart(&all, moment).unwrap();
            for at in stores.iter().flatten().flat_map(|(from, to)| [*from, *to]) {
                if let Some(other) = apart(&all, at) {
                    prop_assert!(lag <= other * SLACK + SignedDuration::from_secs(60), "{at} is closer");
                    prop_assert!(at <= moment || other > lag, "{at} is newer and as close");
                }
            }
        }
    }
}
