//! When a store is captured: `02:00`, `every 6h`, or cron such as `0 2 * * 1-5`.
//!
//! In: a moment and a time zone. Out: the next or the previous due moment. Clock changes are part of the contract:
//! a daily time that does not exist fires at the first instant after the gap, one that exists twice fires at the
//! first of the two; `every` counts elapsed time from the Unix epoch, so no interval is ever longer than promised.
//! A cron with a wildcard or step in its time fields follows the wall clock through both passes of a repeated hour.
//! The cron crate matches wall clock times only: its own handling of zones gives up on unusual gaps.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, JobType};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

use crate::span::Span;
use crate::value::InvalidValue;

/// The shortest interval of `every`; anything tighter is the work of a continuous log.
pub const MIN_EVERY: Duration = Duration::from_secs(60);
/// Days looked at on each side of a moment for a daily time: one for the zone, one for a day a zone skipped.
const DAILY_SEARCH_DAYS: i64 = 3;
/// Occurrences looked at for the longest interval of a cron.
const MAX_INTERVALS: usize = 12_000;
/// Wall clock times a cron is asked for until one is not in the past: all minutes of the longest repeated range, a day.
const MAX_REPEATED_TIMES: usize = 1_500;
/// Clock changes looked at for one moment of a cron; more than any zone has in [`CRON_SEARCH_YEARS`].
const MAX_CLOCK_CHANGES: usize = 64;
/// How far back the previous moment of a cron is searched: one leap day to another across a century year.
const CRON_SEARCH_YEARS: i64 = 9;
/// Sunday, 1 January 2023 in UTC: where a cron is tried out when it is parsed.
const TRIAL_START: i64 = 1_672_531_200;

const HELP: &str =
    "write a time of day (`02:00`), an interval (`every 6h`) or five cron fields (`0 2 * * *`)";

/// A schedule; two are equal when they are written alike.
#[derive(Clone, Debug)]
pub struct Schedule(Rule);

#[derive(Clone, Debug)]
enum Rule {
    Daily(Time),
    Every { text: Span, seconds: i64 },
    Cron { text: String, cron: Box<Cron> },
}

impl Schedule {
    /// The first due moment strictly after `at`; `None` only at the end of representable time.
    pub fn next_after(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let second = floor_second(at);
        match &self.0 {
            Rule::Daily(time) => daily_moments(*time, at, zone).find(|moment| *moment > at),
            Rule::Every { seconds, .. } => {
                let next = (second.div_euclid(*seconds) + 1).checked_mul(*seconds)?;
                Timestamp::from_second(next).ok()
            }
            Rule::Cron { cron, .. } => {
                next_of_cron(cron, second, zone).and_then(|next| Timestamp::from_second(next).ok())
            }
        }
    }

    /// The last due moment at or before `at`; `None` when there is none within reach.
    pub fn previous_at_or_before(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let second = floor_second(at);
        match &self.0 {
            Rule::Daily(time) => daily_moments(*time, at, zone).filter(|moment| *moment <= at).max(),
            Rule::Every { seconds, .. } => {
                Timestamp::from_second(second.div_euclid(*seconds).checked_mul(*seconds)?).ok()
            }
            Rule::Cron { cron, .. } => previous_of_cron(cron, second, zone),
        }
    }

    /// The longest time between two due moments, leaving clock changes aside.
    pub fn longest_interval(&self) -> Duration {
        match &self.0 {
            Rule::Daily(_) => Duration::from_secs(86_400),
            Rule::Every { seconds, .. } => Duration::from_secs(seconds.unsigned_abs()),
            Rule::Cron { cron, .. } => longest_of_cron(cron),
        }
    }
}

/// Whole seconds, rounding towards the past also before 1970.
fn floor_second(at: Timestamp) -> i64 {
    let second = at.as_second();
    if at.subsec_nanosecond() < 0 { second - 1 } else { second }
}

/// The moments of `time` on the days around `at`, in order.
fn daily_moments(time: Time, at: Timestamp, zone: &TimeZone) -> impl Iterator<Item = Timestamp> {
    let today = at.to_zoned(zone.clone()).date();
    (-DAILY_SEARCH_DAYS..=DAILY_SEARCH_DAYS).filter_map(move |offset| {
        let date: Date = today.checked_add(offset.days()).ok()?;
        instant_of(date.to_datetime(time), zone)
    })
}

/// The instant of a wall clock time: the first when it exists twice, the end of the gap when it does not exist.
fn instant_of(wall: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(wall);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        AmbiguousOffset::Gap { .. } => {
            let before_gap = ambiguous.earlier().ok()?;
            zone.following(before_gap).next().map(|transition| transition.timestamp())
        }
    }
}

/// The fields match wall clock times; turning those into instants is done here, for every zone alike.
fn next_of_cron(cron: &Cron, second: i64, zone: &TimeZone) -> Option<i64> {
    let at = Timestamp::from_second(second).ok()?;
    let next = match cron.determine_job_type() {
        JobType::FixedTime => next_fixed(cron, at, zone),
        JobType::IntervalWildcard => next_by_the_clock(cron, at, zone),
    };
    next.map(Timestamp::as_second)
}

/// Like a daily time: a later wall clock time never means an earlier instant, so the first instant after `at` wins.
fn next_fixed(cron: &Cron, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut wall = at.to_zoned(zone.clone()).datetime();
    for _ in 0..MAX_REPEATED_TIMES {
        wall = cron.find_next_occurrence(&wall, false).ok()?;
        let instant = instant_of(wall, zone)?;
        if instant > at {
            return Some(instant);
        }
    }
    None
}

/// Walks from one clock change to the next; between two of them wall clock and elapsed time run alike.
fn next_by_the_clock(cron: &Cron, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut offset = zone.to_offset(at);
    let mut wall = cron.find_next_occurrence(&offset.to_datetime(at), false).ok()?;
    let mut from = at;
    for _ in 0..MAX_CLOCK_CHANGES {
        let candidate = offset.to_timestamp(wall).ok()?;
        let Some(change) = zone.following(from).next() else { return Some(candidate) };
        if candidate < change.timestamp() {
            return Some(candidate);
        }
        from = change.timestamp();
        offset = change.offset();
        let resumed = offset.to_datetime(from);
        // The time was due inside the gap, or just as the clock changed.
        if wall < resumed {
            return Some(from);
        }
        wall = cron.find_next_occurrence(&resumed, true).ok()?;
    }
    None
}

/// Bisects with the forward search, so that next and previous can never disagree.
fn previous_of_cron(cron: &Cron, second: i64, zone: &TimeZone) -> Option<Timestamp> {
    let due_by_now = |start: i64| next_of_cron(cron, start, zone).filter(|next| *next <= second);
    // Doubles the reach until something lies inside it.
    let limit = CRON_SEARCH_YEARS * 366 * 86_400;
    let mut reach = 60;
    while due_by_now(second - reach).is_none() {
        if reach >= limit {
            return None;
        }
        reach = (reach * 2).min(limit);
    }
    let (mut low, mut high) = (second - reach, second);
    // Invariant: something is due after `low` and by now; nothing is due after `high` and by now.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if due_by_now(middle).is_some() {
            low = middle;
        } else {
            high = middle;
        }
    }
    due_by_now(low).and_then(|moment| Timestamp::from_second(moment).ok())
}

fn longest_of_cron(cron: &Cron) -> Duration {
    let mut longest = 0;
    let mut at = TRIAL_START;
    for _ in 0..MAX_INTERVALS {
        let Some(next) = next_of_cron(cron, at, &TimeZone::UTC) else { break };
        if at != TRIAL_START {
            longest = longest.max(next - at);
        }
        at = next;
        if at - TRIAL_START > CRON_SEARCH_YEARS * 366 * 86_400 {
            break;
        }
    }
    Duration::from_secs(longest.unsigned_abs())
}

impl FromStr for Schedule {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            [] => Err(InvalidValue::new("the schedule is empty", HELP)),
            ["every", interval @ ..] => every(text, &interval.join(" ")),
            [word] if word.contains(':') => time_of_day(word).map(|time| Self(Rule::Daily(time))),
            [word] if !word.starts_with('@') => {
                Err(InvalidValue::new(format!("`{text}` is not a schedule"), HELP))
            }
            words => cron(&words.join(" ")),
        }
    }
}

fn time_of_day(word: &str) -> Result<Time, InvalidValue> {
    let parsed = word.split_once(':').filter(|(hour, minute)| {
        [hour, minute].iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let time =
        parsed.and_then(|(hour, minute)| Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok());
    time.ok_or_else(|| {
        InvalidValue::new(
            format!("`{word}` is not a time of day"),
            "write hours and minutes from `00:00` to `23:59`",
        )
    })
}

fn every(text: &str, interval: &str) -> Result<Schedule, InvalidValue> {
    let span: Span = interval.parse().map_err(|error: InvalidValue| {
        InvalidValue::new(format!("`{text}` is not a schedule: {error}"), error.help())
    })?;
    if span.approx() < MIN_EVERY {
        return Err(InvalidValue::new(
            format!("`{text}` is too often"),
            "the shortest interval is `every 1m`; smaller losses need a continuous log",
        ));
    }
    if !span.has_fixed_length() {
        return Err(InvalidValue::new(
            format!("`{text}` has no fixed length"),
            "months differ in length: use cron, such as `0 2 1 * *` for the first of each month",
        ));
    }
    let seconds = i64::try_from(span.approx().as_secs()).unwrap_or(i64::MAX);
    Ok(Schedule(Rule::Every { text: span, seconds }))
}

fn cron(text: &str) -> Result<Schedule, InvalidValue> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let cron = parser.parse(text).map_err(|error| {
        let reason = error.to_string();
        // Its own texts start with the class of the error.
        let reason = reason.rsplit(": ").next().unwrap_or_default().trim_end_matches('.').to_lowercase();
        InvalidValue::new(format!("`{text}` is not a schedule: {reason}"), HELP)
    })?;
    if next_of_cron(&cron, TRIAL_START, &TimeZone::UTC).is_none() {
        return Err(InvalidValue::new(
            format!("`{text}` never fires"),
            "check the day of the month against the month",
        ));
    }
    Ok(Schedule(Rule::Cron { text: text.to_owned(), cron: Box::new(cron) }))
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Rule::Daily(left), Rule::Daily(right)) => left == right,
            (Rule::Every { text: left, .. }, Rule::Every { text: right, .. }) => left == right,
            (Rule::Cron { text: left, .. }, Rule::Cron { text: right, .. }) => left == right,
            _ => false,
        }
    }
}

impl Eq for Schedule {}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Daily(time) => f.pad(&format!("{:02}:{:02}", time.hour(), time.minute())),
            Rule::Every { text, .. } => f.pad(&format!("every {text}")),
            Rule::Cron { text, .. } => f.pad(text),
        }
    }
}
