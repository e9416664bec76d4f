//! Moments as people write them: `2026-11-21T02:00:00Z`, `2026-11-21 02:00`, `yesterday 21:00`, `5 minutes ago`.

use lifeboat_base::failure::FailureKind;
use lifeboat_base::time::{SignedDuration, TimeZone, Timestamp};

use crate::error::EngineError;

/// Resolves `text` at `now` in the policy's time zone. A time that a clock change skips or repeats resolves to the
/// later reading of the clock before it, so that no write made before the moment asked for is left out silently. For the
/// same reason a time without a fraction of a second means the end of its second: a moment copied from a
/// table finds the point that the table shows. That end is never after `now` when the second has begun.
pub(crate) fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, EngineError> {
    let trimmed = text.trim();
    resolve(trimmed, now, zone).ok_or_else(|| {
        EngineError::new(FailureKind::Usage, format!("`{trimmed}` is not a moment")).next(
            "write `2026-11-21T02:00:00Z`, `2026-11-21 02:00`, `yesterday 21:00`, `5 minutes ago`, `now`, or a recovery point id",
        )
    })
}

fn resolve(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if matches!(text, "now" | "latest") {
        return Some(now);
    }
    let (text, zone) = match text.strip_suffix(" UTC") {
        Some(text) => (text.trim_end(), &TimeZone::UTC),
        None => (text, zone),
    };
    if let Ok(at) = text.parse::<Timestamp>() {
        return end_of_second(at, text, now);
    }
    if let Some(amount) = text.strip_suffix(" ago") {
        return now.checked_sub(ago(amount)?).ok();
    }
    let today = now.to_zoned(zone.clone()).date();
    let (day, time) = text.split_once([' ', 'T']).unwrap_or((text, "23:59:59.999999999"));
    let day = match day {
        "today" => today,
        "yesterday" => today.yesterday().ok()?,
        other => other.parse().ok()?,
    };
    let time: jiff::civil::Time = time.trim().parse().ok()?;
    let zoned = zone.to_ambiguous_zoned(day.to_datetime(time)).later().ok()?;
    end_of_second(zoned.timestamp(), text, now)
}

/// The last moment of the second `at` lies in, unless `text` says which part of the second is meant.
fn end_of_second(at: Timestamp, text: &str, now: Timestamp) -> Option<Timestamp> {
    if text.contains(['.', ',']) {
        return Some(at);
    }
    let rest = SignedDuration::from_nanos(999_999_999 - i64::from(at.subsec_nanosecond()));
    let end = at.checked_add(rest).ok()?;
    Some(if at <= now { end.min(now) } else { end })
}

/// `5 minutes`, `1 hour`, `3 days`, `90 s`.
fn ago(text: &str) -> Option<SignedDuration> {
    let (number, unit) = text.trim().split_once(' ')?;
    let number: i64 = number.parse().ok().filter(|number| *number >= 0)?;
    let seconds = match unit.trim().trim_end_matches('s') {
        "" | "second" | "sec" => 1,
        "minute" | "min" | "m" => 60,
        "hour" | "h" => 3_600,
        "day" | "d" => 86_400,
        "week" | "w" => 7 * 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(SignedDuration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> String {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        parse(text, now, &zone).map_or_else(|error| error.to_string(), |at| at.to_string())
    }

    #[test]
    fn moments_are_read_in_the_policys_time_zone() {
        assert_eq!(at("2026-11-21T02:00:00.25Z"), "2026-11-21T02:00:00.25Z");
        assert_eq!(at("2026-11-20 21:00:00.5"), "2026-11-20T20:00:00.5Z");
        assert_eq!(at("2026-11-20 21:00"), "2026-11-20T20:00:00.999999999Z");
        assert_eq!(at("yesterday 21:00"), "2026-11-20T20:00:00.999999999Z");
        assert_eq!(at("today 09:30:15"), "2026-11-21T08:30:15.999999999Z");
        assert_eq!(at("5 minutes ago"), "2026-11-21T09:55:00Z");
        assert_eq!(at("1 hour ago"), "2026-11-21T09:00:00Z");
        assert_eq!(at("yesterday"), "2026-11-20T22:59:59.999999999Z");
        assert_eq!(at("now"), "2026-11-21T10:00:00Z");
    }

    #[test]
    fn a_moment_as_a_table_prints_it_includes_the_whole_second() {
        for shown in ["2026-11-21 02:00:07 UTC", "2026-11-21T02:00:07Z", "2026-11-21T03:00:07+01:00"] {
            assert_eq!(at(shown), "2026-11-21T02:00:07.999999999Z", "{shown}");
        }
        assert_eq!(at("2026-11-21 10:00:00 UTC"), "2026-11-21T10:00:00Z", "this second is not over yet");
        assert_eq!(at("2026-11-21 02:00:07.5 UTC"), "2026-11-21T02:00:07.5Z");
    }

    #[test]
    fn what_is_no_moment_is_said_to_be_none() {
        for text in ["", "soon", "25:00", "yesterday 99:00", "-5 minutes ago", "5 parsecs ago"] {
            assert!(at(text).contains("is not a moment"), "{text}");
        }
    }
}
