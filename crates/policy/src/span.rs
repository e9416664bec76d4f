//! Durations as people write them: `5m`, `24h`, `35d`, `12mo`, `1y`.
//!
//! In: text. Out: a [`Span`] that keeps calendar units apart from elapsed time, so that `1mo` is a month of the
//! calendar and `1d` is a day of the policy's time zone, 23 or 25 hours long when the clocks change.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::value::{InvalidValue, number_and_unit};

/// The longest duration a policy may name, in years; beyond it a typing error is likelier than a plan.
pub const MAX_YEARS: u32 = 1_000;

const MAX_MONTHS: u32 = MAX_YEARS * 12;
const MAX_DAYS: u32 = MAX_YEARS * 366;
const SECONDS_PER_DAY: u64 = 86_400;
const MAX_SECONDS: u64 = 366_000 * SECONDS_PER_DAY;
const HELP: &str =
    "write a number and a unit: `30s`, `5m` (minutes), `24h`, `35d`, `2w`, `12mo` (months) or `1y`";

/// A duration above zero and at most [`MAX_YEARS`] in each unit.
///
/// Two spans are equal when they are exact for the same reason: `12mo` equals `1y` and `60m` equals `1h`, while `1d`
/// (a calendar day) differs from `24h` (elapsed time).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    months: u32,
    days: u32,
    seconds: u64,
}

impl Span {
    /// Elapsed seconds; `None` when zero or too long.
    pub fn from_seconds(seconds: u64) -> Option<Self> {
        (1..=MAX_SECONDS).contains(&seconds).then_some(Self { months: 0, days: 0, seconds })
    }

    /// Calendar days; `None` when zero or too long.
    pub fn from_days(days: u32) -> Option<Self> {
        (1..=MAX_DAYS).contains(&days).then_some(Self { months: 0, days, seconds: 0 })
    }

    /// Calendar months; `None` when zero or too long.
    pub fn from_months(months: u32) -> Option<Self> {
        (1..=MAX_MONTHS).contains(&months).then_some(Self { months, days: 0, seconds: 0 })
    }

    /// The length without a calendar: a day is 24 hours, a month 30.436875 days. For comparing and ordering.
    pub fn approx(&self) -> Duration {
        /// A twelfth of 365.2425 days.
        const SECONDS_PER_MONTH: u64 = 2_629_746;
        Duration::from_secs(
            u64::from(self.months) * SECONDS_PER_MONTH
                + u64::from(self.days) * SECONDS_PER_DAY
                + self.seconds,
        )
    }

    /// True without months and years, whose length depends on the date.
    pub fn has_fixed_length(&self) -> bool {
        self.months == 0
    }

    /// The moment this span after `at`, by the calendar of `zone`; the last representable moment when beyond it.
    pub fn after(&self, at: Timestamp, zone: &TimeZone) -> Timestamp {
        at.to_zoned(zone.clone())
            .checked_add(self.to_jiff())
            .map_or(Timestamp::MAX, |later| later.timestamp())
    }

    /// The moment this span before `at`, by the calendar of `zone`; the first representable moment when beyond it.
    pub fn before(&self, at: Timestamp, zone: &TimeZone) -> Timestamp {
        at.to_zoned(zone.clone())
            .checked_sub(self.to_jiff())
            .map_or(Timestamp::MIN, |earlier| earlier.timestamp())
    }

    /// The exact length of this span when it starts at `at` in `zone`.
    pub fn as_duration_from(&self, at: Timestamp, zone: &TimeZone) -> Duration {
        self.after(at, zone).duration_since(at).unsigned_abs()
    }

    fn to_jiff(self) -> jiff::Span {
        jiff::Span::new()
            .months(i64::from(self.months))
            .days(i64::from(self.days))
            .seconds(i64::try_from(self.seconds).unwrap_or(i64::MAX))
    }

    fn checked(months: u64, days: u64, seconds: u64, text: &str) -> Result<Self, InvalidValue> {
        let too_long = || {
            InvalidValue::new(
                format!("`{text}` is too long: at most {MAX_YEARS} years"),
                "write a shorter duration",
            )
        };
        if months == 0 && days == 0 && seconds == 0 {
            return Err(InvalidValue::new(
                format!("`{text}` is no time at all"),
                "write a duration above zero, or `none` where nothing is promised",
            ));
        }
        let months =
            u32::try_from(months).ok().filter(|months| *months <= MAX_MONTHS).ok_or_else(too_long)?;
        let days = u32::try_from(days).ok().filter(|days| *days <= MAX_DAYS).ok_or_else(too_long)?;
        if seconds > MAX_SECONDS {
            return Err(too_long());
        }
        Ok(Self { months, days, seconds })
    }
}

/// One unit: its word, and how many months, days and seconds it is.
const UNITS: [(&str, u64, u64, u64); 7] = [
    ("s", 0, 0, 1),
    ("m", 0, 0, 60),
    ("h", 0, 0, 3_600),
    ("d", 0, 1, 0),
    ("w", 0, 7, 0),
    ("mo", 1, 0, 0),
    ("y", 12, 0, 0),
];

impl FromStr for Span {
    type Err = InvalidValue;

    /// Accepts parts such as `1d12h` or `1d 12h`, each unit at most once.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut rest = text.trim();
        let (mut months, mut days, mut seconds) = (0u64, 0u64, 0u64);
        let mut seen: Vec<&str> = Vec::new();
        if rest.is_empty() {
            return Err(InvalidValue::new("the duration is empty", HELP));
        }
        while !rest.is_empty() {
            let (digits, tail) = number_and_unit(rest);
            let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let number: u64 = digits.parse().map_err(|_error| {
                InvalidValue::new(format!("`{text}` is not a duration: expected a number at `{rest}`"), HELP)
            })?;
            let Some((word, per_month, per_day, per_second)) = UNITS.iter().find(|entry| entry.0 == unit)
            else {
                return Err(unknown_unit(text, unit, tail));
            };
            if seen.contains(word) {
                return Err(InvalidValue::new(format!("`{text}` names `{word}` twice"), HELP));
            }
            seen.push(word);
            months = months.saturating_add(number.saturating_mul(*per_month));
            days = days.saturating_add(number.saturating_mul(*per_day));
            seconds = seconds.saturating_add(number.saturating_mul(*per_second));
            rest = tail.trim_start();
        }
        Self::checked(months, days, seconds, text)
    }
}

fn unknown_unit(text: &str, unit: &str, tail: &str) -> InvalidValue {
    if unit.is_empty() && tail.trim_start().starts_with(char::is_alphabetic) {
        return InvalidValue::new(
            format!("`{text}` is not a duration: the unit follows the number at once"),
            HELP,
        );
    }
    if unit.is_empty() {
        return InvalidValue::new(format!("`{text}` has a number without a unit"), HELP);
    }
    InvalidValue::new(format!("`{text}` is not a duration: unknown unit `{unit}`"), HELP)
}

impl fmt::Display for Span {
    /// The shortest exact text: the largest unit that divides each part, never `w`, which few policies use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match self.months {
            0 => {}
            months if months % 12 == 0 => parts.push(format!("{}y", months / 12)),
            months => parts.push(format!("{months}mo")),
        }
        if self.days > 0 {
            parts.push(format!("{}d", self.days));
        }
        match self.seconds {
            0 => {}
            seconds if seconds % 3_600 == 0 => parts.push(format!("{}h", seconds / 3_600)),
            seconds if seconds % 60 == 0 => parts.push(format!("{}m", seconds / 60)),
            seconds => parts.push(format!("{seconds}s")),
        }
        f.pad(&parts.join(" "))
    }
}

impl TryFrom<String> for Span {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}
