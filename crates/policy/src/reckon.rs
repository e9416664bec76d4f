//! The time that retention reckons with: what captures bear out, not what a clock says.
//!
//! In: when captures were made, as far as vaults, catalog and records tell, and what a person confirmed. Out: the moment after
//! which nothing is believed to have happened, if there is one. A clock that is wrong makes points older than they are, and no
//! machine can tell it from an outage: a long gap without captures is believed when a person says that the time has passed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::retention::Gfs;

/// Without a capture for so many intervals of the schedule, or of the finest promised slots, or days, time stands still for
/// the rest: a wrong clock may not eat more slots than these at once.
const STALL: u32 = 2;
/// A gap so many times as long as time may stand still, for a daily row at least, is never believed without a person's word.
const LONG: u32 = 4;
const DAY: Duration = Duration::from_secs(86_400);
/// Further ahead than this a moment comes from a wrong clock.
pub(crate) const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(120);
/// With fewer gaps than this nothing is usual.
const FEWEST_GAPS: usize = 4;

/// A stretch without captures that may be a clock that jumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The last capture before it.
    pub from: Timestamp,
    /// The first one after it.
    pub to: Timestamp,
    /// Whether only a person can say that the time has passed; else it is believed once captures went on long enough.
    pub needs_word: bool,
}

/// Where time stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// Nothing is believed to have happened later.
    pub at: Timestamp,
    /// Why.
    pub gap: Gap,
}

/// Without a capture for this long time stands still for the rest.
pub(crate) fn stall(keep: Gfs, interval: Option<Duration>) -> Duration {
    keep.finest().max(interval.unwrap_or_default()).saturating_mul(STALL)
}

/// A longer stretch without captures is an exception that somebody has to explain.
pub(crate) fn long(stall: Duration) -> Duration {
    stall.max(DAY * STALL).saturating_mul(LONG)
}

/// Where time stops if the clock may have jumped ahead. Times of captures come in any order; those that lie ahead of `now`
/// say nothing. Each gap longer than time may stand still is weighed by itself: it is believed once captures went on behind it
/// for as long as time may stand still, of which no two captures bear out more than half; and one four times as long only
/// if `confirmed`, a moment that a person said was right, is not before its end.
pub fn ceiling(
    captures: &[Timestamp],
    (keep, interval): (Gfs, Option<Duration>),
    confirmed: Option<Timestamp>,
    now: Timestamp,
) -> Option<Ceiling> {
    let mut times: Vec<Timestamp> =
        captures.iter().copied().filter(|at| at.duration_since(now) <= CLOCK_TOLERANCE).collect();
    times.sort_unstable();
    times.dedup();
    let stall = stall(keep, interval.or_else(|| usual(&times)));
    let long = long(stall);
    let mut first_open: Option<Gap> = None;
    let mut first_long: Option<Gap> = None;
    // How long captures went on behind the gap at hand.
    let mut went_on = Duration::ZERO;
    for pair in times.windows(2).rev() {
        let [from, to] = *pair else { continue };
        let span = since(from, to);
        let needs_word = span > long;
        let open =
            span > stall && confirmed.is_none_or(|right| to > right) && (needs_word || went_on < stall);
        if open {
            let gap = Gap { from, to, needs_word };
            first_open = Some(gap);
            first_long = first_long.filter(|_| !needs_word).or(needs_word.then_some(gap));
        }
        // What lies behind a gap that nobody believes bears out nothing before it.
        went_on =
            if open && needs_word { Duration::ZERO } else { went_on.saturating_add(span.min(stall / 2)) };
    }
    // A person is asked for the gap that only they can explain, also if another one is still to be believed before it.
    let at = later(first_open?.from, stall);
    Some(Ceiling { at, gap: first_long.or(first_open)? })
}

/// How far captures usually lie apart: the median, which no single outage moves. Nothing while there are too few to tell.
pub fn usual(captures: &[Timestamp]) -> Option<Duration> {
    let mut times = captures.to_vec();
    times.sort_unstable();
    times.dedup();
    let mut gaps: Vec<Duration> = times
        .windows(2)
        .map(|pair| match pair {
            [earlier, later] => since(*earlier, *later),
            _ => Duration::ZERO,
        })
        .collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).copied().filter(|_| gaps.len() >= FEWEST_GAPS)
}

fn since(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

pub(crate) fn later(moment: Timestamp, span: Duration) -> Timestamp {
    moment.checked_add(span).unwrap_or(Timestamp::MAX)
}
