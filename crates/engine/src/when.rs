//! Moments as people write them: `2026-11-21T02:00:00Z`, `2026-11-21 02:00`, `yesterday 21:00`, `5 minutes ago`.

use lifeboat_base::failure::FailureKind;
use lifeboat_base::time::{SignedDuration, TimeZone, Timestamp};

use crate::error::EngineError;

/// Resolves `text` at `now` in the policy's time zone. A time that a clock change skips or repeats resolves to the
/// later reading of the clock before it, so that no write made before the moment asked for is left out silently.
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
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
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
    Some(zoned.timestamp())
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
        assert_eq!(at("2026-11-21T02:00:00Z"), "2026-11-21T02:00:00Z");
        assert_eq!(at("2026-11-20 21:00"), "2026-11-20T20:00:00Z");
        assert_eq!(at("yesterday 21:00"), "2026-11-20T20:00:00Z");
        assert_eq!(at("today 09:30:15"), "2026-11-21T08:30:15Z");
        assert_eq!(at("5 minutes ago"), "2026-11-21T09:55:00Z");
        assert_eq!(at("1 hour ago"), "2026-11-21T09:00:00Z");
        assert_eq!(at("yesterday"), "2026-11-20T22:59:59.999999999Z");
        assert_eq!(at("now"), "2026-11-21T10:00:00Z");
    }

    #[test]
    fn what_is_no_moment_is_said_to_be_none() {
        for text in ["", "soon", "25:00", "yesterday 99:00", "-5 minutes ago", "5 parsecs ago"] {
            assert!(at(text).contains("is not a moment"), "{text}");
        }
    }
}
