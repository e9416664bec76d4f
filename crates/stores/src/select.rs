//! The contract with kinds that can be asked what they hold, so that one restored store can be compared with another.
//!
//! In: a restored store that passed its checks, and what to read out of it. Out: names with their values and times, one
//! after the other; never a list of them. The store's own server runs in a sandbox meanwhile, where it needs one.

use std::path::Path;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::Timestamp;

/// Statements and reads may take this long each.
pub(crate) const LIMIT: std::time::Duration = std::time::Duration::from_secs(2 * 3600);
/// From here on a number is taken for milliseconds since 1970, below it for seconds: the year 5138, or March 1973.
const FIRST_MILLISECOND: i64 = 100_000_000_000;

/// What to read out of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The rows of one statement that reads. The first column is the name, columns called `value` and `at` the rest. A row
    /// whose name is NULL names nothing.
    Sql {
        /// The database; nothing means the one that was captured with.
        database: Option<String>,
        /// The statement.
        text: String,
    },
    /// The regular files whose path below the root matches this glob, with the times they were last written.
    Paths(String),
    /// The keys this pattern fits, `dbN:` before it; with the value where that is a string of at most 64 KiB.
    Keys(String),
    /// The keys that start with this, with their values.
    Under(String),
    /// What the records of an index hold in this field, with their revisions as values. A record without it names nothing.
    Field(String),
}

/// One thing that a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// What it is called; any bytes.
    pub name: Vec<u8>,
    /// What it is worth, if that was asked for.
    pub value: Option<Vec<u8>>,
    /// When it was written, if the store says so.
    pub at: Option<Timestamp>,
}

/// Takes what selection number so-and-so, from 0, found. An error ends the work.
pub type Take<'a> = dyn FnMut(usize, Selected) -> Result<(), Failure> + 'a;

/// A kind that can be asked.
pub trait Select: Send + Sync {
    /// Reads every selection out of what [`restore`](crate::Adapter::restore) left at `artefact`, in their order. An inner
    /// failure is one selection's: the others are read all the same. Nothing is changed.
    fn select(
        &self,
        facts: &CaptureFacts,
        artefact: &Path,
        wanted: &[Selection],
        monitor: &dyn Monitor,
        take: &mut Take<'_>,
    ) -> Result<Vec<Result<(), Failure>>, Failure>;
}

/// What a kind says to a selection that is another kind's.
pub(crate) fn foreign(kind: &str) -> Failure {
    Failure::new(FailureKind::Usage, format!("a store of kind `{kind}` cannot be asked like that"))
}

/// Who cancels gets no half answer.
pub(crate) fn going_on(monitor: &dyn Monitor) -> Result<(), Failure> {
    if monitor.cancelled() {
        return Err(Failure::new(FailureKind::Refused, "comparing the stores was cancelled"));
    }
    Ok(())
}

/// A time as databases print it: with an offset, without one (UTC is meant), a date, or a number since 1970.
pub(crate) fn moment(text: &str) -> Result<Timestamp, Failure> {
    let text = text.trim();
    let number = || {
        let number: i64 = text.parse().ok()?;
        let made = if number.abs() >= FIRST_MILLISECOND {
            Timestamp::from_millisecond(number)
        } else {
            Timestamp::from_second(number)
        };
        made.ok()
    };
    let offset = || text.parse::<Timestamp>().ok();
    let civil = || {
        let civil = text.parse::<DateTime>().ok()?;
        civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    // A date of 8 digits would read as a number otherwise; nobody counts seconds since 1970 in fewer than 9.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') && text.len() >= 9;
    let found = if digits { number().or_else(civil) } else { offset().or_else(civil) };
    // What it was is the store's content, and not shown.
    found.ok_or_else(|| Failure::new(FailureKind::Findings, "a value in the column `at` is not a time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_as_databases_print_them() {
        for text in [
            "2026-11-21 23:00:00+00",
            "2026-11-21 23:00:00",
            "2026-11-21T23:00:00Z",
            "2026-11-22 00:00:00.000+01",
            "1795302000",
            "1795302000000",
        ] {
            assert_eq!(moment(text).unwrap().to_string(), "2026-11-21T23:00:00Z", "{text}");
        }
        assert_eq!(moment("2026-11-21").unwrap().to_string(), "2026-11-21T00:00:00Z");
        for text in ["", "soon", "12", "99999999999999999999"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
