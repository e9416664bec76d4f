//! How long recovery points are kept: `7d 4w 12mo 1y`, `24h 7d`, `30d` or `none`.
//!
//! In: text. Out: the number of hourly, daily, weekly, monthly and yearly slots to fill. Deciding which point fills
//! which slot is the retention engine's work, not this file's.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::retain::Unit;
use crate::span::Span;
use crate::value::{InvalidValue, number_and_unit};

/// The most slots of one kind.
pub const MAX_SLOTS: u32 = 100_000;

const HELP: &str =
    "write slots such as `7d 4w 12mo 1y` (h hourly, d daily, w weekly, mo monthly, y yearly), or `none`";

/// Slots of grandfather, father and son: keep the last `daily` days with a point, and so on. Never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gfs {
    /// Hours to keep one point of.
    pub hourly: u32,
    /// Days to keep one point of.
    pub daily: u32,
    /// Weeks to keep one point of.
    pub weekly: u32,
    /// Months to keep one point of.
    pub monthly: u32,
    /// Years to keep one point of.
    pub yearly: u32,
}

/// What a row promises to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Retention {
    /// Nothing, on purpose: the row has duties (a time to rebuild, a place in the matrix) but no recovery points.
    None,
    /// Recovery points in slots.
    Keep(Gfs),
}

impl Gfs {
    /// Every slot with its unit, from the shortest.
    fn slots(&self) -> [(u32, &'static str); 5] {
        [(self.hourly, "h"), (self.daily, "d"), (self.weekly, "w"), (self.monthly, "mo"), (self.yearly, "y")]
    }

    /// Every slot count with its unit, from the shortest.
    pub(crate) fn units(&self) -> [(u32, Unit); 5] {
        [
            (self.hourly, Unit::Hour),
            (self.daily, Unit::Day),
            (self.weekly, Unit::Week),
            (self.monthly, Unit::Month),
            (self.yearly, Unit::Year),
        ]
    }

    /// How long the shortest promised slot lasts, as far as that is no more than a day.
    pub(crate) fn finest(&self) -> Duration {
        Duration::from_secs(if self.hourly > 0 { 3_600 } else { 86_400 })
    }

    /// How far back the oldest kept point reaches.
    pub fn reach(&self) -> Option<Span> {
        [
            Span::from_seconds(u64::from(self.hourly) * 3_600),
            Span::from_days(self.daily),
            Span::from_days(self.weekly.saturating_mul(7)),
            Span::from_months(self.monthly),
            Span::from_months(self.yearly.saturating_mul(12)),
        ]
        .into_iter()
        .flatten()
        .max_by_key(Span::approx)
    }
}

impl Retention {
    /// True when recovery points are made for this row.
    pub fn keeps_points(&self) -> bool {
        matches!(self, Self::Keep(_))
    }

    /// The slots, where there are any.
    pub fn gfs(&self) -> Option<Gfs> {
        match self {
            Self::None => None,
            Self::Keep(gfs) => Some(*gfs),
        }
    }
}

impl FromStr for Gfs {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut counts = [0u32; 5];
        for token in text.split_whitespace() {
            let (digits, unit) = number_and_unit(token);
            let wrong = |why: String| InvalidValue::new(format!("`{text}` is not a retention: {why}"), HELP);
            let place = match unit {
                "h" => 0,
                "d" => 1,
                "w" => 2,
                "mo" => 3,
                "y" => 4,
                "m" => {
                    return Err(InvalidValue::new(
                        format!("`{text}` is not a retention: `{token}` would be minutes"),
                        format!("months are `mo`: write `{digits}mo`"),
                    ));
                }
                "" => return Err(wrong(format!("`{token}` has no unit"))),
                unit => return Err(wrong(format!("unknown unit in `{token}`: `{unit}`"))),
            };
            let number: u32 = digits
                .parse()
                .ok()
                .filter(|number| *number <= MAX_SLOTS)
                .ok_or_else(|| wrong(format!("`{token}` needs a number from 1 to {MAX_SLOTS}")))?;
            if number == 0 {
                return Err(InvalidValue::new(
                    format!("`{text}` is not a retention: `{token}` keeps nothing"),
                    "leave the unit out, or write `none` for a store that is not retained",
                ));
            }
            match counts.get_mut(place) {
                Some(count) if *count == 0 => *count = number,
                _ => return Err(wrong(format!("`{unit}` appears twice"))),
            }
        }
        let [hourly, daily, weekly, monthly, yearly] = counts;
        let gfs = Self { hourly, daily, weekly, monthly, yearly };
        if counts.iter().all(|count| *count == 0) {
            return Err(InvalidValue::new("the retention is empty", HELP));
        }
        Ok(gfs)
    }
}

impl fmt::Display for Gfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self
            .slots()
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, unit)| format!("{count}{unit}"))
            .collect();
        f.pad(&words.join(" "))
    }
}

impl FromStr for Retention {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.trim() == "none" { Ok(Self::None) } else { text.parse().map(Self::Keep) }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Keep(gfs) => gfs.fmt(f),
        }
    }
}

impl TryFrom<String> for Gfs {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl From<Gfs> for String {
    fn from(gfs: Gfs) -> Self {
        gfs.to_string()
    }
}

impl TryFrom<String> for Retention {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl From<Retention> for String {
    fn from(retention: Retention) -> Self {
        retention.to_string()
    }
}
