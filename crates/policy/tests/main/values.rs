//! Durations and retention: what they mean and that they round trip.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use lifeboat_policy::{Gfs, Retention, Span};
use proptest::prelude::*;

fn span(text: &str) -> Span {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap()
}

#[test]
fn a_duration_is_shown_in_its_shortest_exact_form() {
    for (written, shown) in [
        ("5m", "5m"),
        ("60m", "1h"),
        ("90m", "90m"),
        ("24h", "24h"),
        ("1d", "1d"),
        ("2w", "14d"),
        ("35d", "35d"),
        ("12mo", "1y"),
        ("18mo", "18mo"),
        ("1d12h", "1d 12h"),
        (" 1h 30m ", "90m"),
        ("61s", "61s"),
    ] {
        assert_eq!(span(written).to_string(), shown, "{written}");
    }
}

#[test]
fn what_is_not_a_duration_is_refused_with_help() {
    for text in [
        "",
        " ",
        "5",
        "m",
        "-5m",
        "5 m",
        "5m5m",
        "0s",
        "1.5h",
        "5M",
        "5min",
        "1001y",
        "99999999999999999999d",
    ] {
        let error = text.parse::<Span>().expect_err(text);
        assert!(!error.help().is_empty(), "{text}");
    }
}

#[test]
fn a_day_is_a_day_of_the_calendar_and_24_hours_are_24_hours() {
    let berlin = zone("Europe/Berlin");
    let noon_before_summer: Timestamp = "2026-03-28T11:00:00Z".parse().unwrap();
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    assert_eq!(span("1d").as_duration_from(noon_before_summer, &berlin), hours(23));
    assert_eq!(span("24h").as_duration_from(noon_before_summer, &berlin), hours(24));
    let noon_before_winter: Timestamp = "2026-10-24T10:00:00Z".parse().unwrap();
    assert_eq!(span("1d").as_duration_from(noon_before_winter, &berlin), hours(25));
}

#[test]
fn a_month_ends_with_its_month() {
    let at: Timestamp = "2028-01-31T02:00:00Z".parse().unwrap();
    assert_eq!(span("1mo").after(at, &TimeZone::UTC).to_string(), "2028-02-29T02:00:00Z");
    let leap_day: Timestamp = "2028-02-29T02:00:00Z".parse().unwrap();
    assert_eq!(span("1y").after(leap_day, &TimeZone::UTC).to_string(), "2029-02-28T02:00:00Z");
    assert_eq!(span("1y").before(leap_day, &TimeZone::UTC).to_string(), "2027-02-28T02:00:00Z");
}

#[test]
fn retention_names_slots() {
    let gfs: Gfs = "7d 4w 12mo 1y".parse().unwrap();
    assert_eq!(gfs, Gfs { hourly: 0, daily: 7, weekly: 4, monthly: 12, yearly: 1 });
    assert_eq!(
        "24h 7d".parse::<Gfs>().unwrap(),
        Gfs { hourly: 24, daily: 7, weekly: 0, monthly: 0, yearly: 0 }
    );
    assert_eq!("30d".parse::<Gfs>().unwrap(), Gfs { hourly: 0, daily: 30, weekly: 0, monthly: 0, yearly: 0 });
    assert_eq!("1y  7d".parse::<Gfs>().unwrap().to_string(), "7d 1y");
    assert_eq!(gfs.reach().unwrap(), span("12mo"));
    assert_eq!("none".parse::<Retention>().unwrap(), Retention::None);
}

#[test]
fn what_is_not_a_retention_is_refused_with_help() {
    for text in
        ["", "7", "d", "7d7d", "7d 7d", "0d", "7d 0w", "12m", "-7d", "none 7d", "100001d", "7 d", "forever"]
    {
        let error = text.parse::<Retention>().expect_err(text);
        assert!(!error.help().is_empty(), "{text}");
    }
}

proptest! {
    #[test]
    fn durations_round_trip(months in 0u32..12_000, days in 0u32..300_000, seconds in 0u64..1_000_000) {
        let text = format!("{months}mo {days}d {seconds}s");
        match text.parse::<Span>() {
            Err(_) => prop_assert!(months == 0 && days == 0 && seconds == 0),
            Ok(span) => prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span),
        }
    }

    #[test]
    fn adding_and_taking_away_elapsed_time_agree(seconds in 1u64..100_000_000, at in 0i64..4_000_000_000) {
        let span = Span::from_seconds(seconds).unwrap();
        let at = Timestamp::from_second(at).unwrap();
        let berlin = zone("Europe/Berlin");
        prop_assert_eq!(span.before(span.after(at, &berlin), &berlin), at);
        prop_assert_eq!(span.as_duration_from(at, &berlin), span.approx());
    }

    #[test]
    fn retentions_round_trip(
        hourly in 0u32..500, daily in 0u32..500, weekly in 0u32..500, monthly in 0u32..500, yearly in 1u32..200,
    ) {
        let retention = Retention::Keep(Gfs { hourly, daily, weekly, monthly, yearly });
        prop_assert_eq!(retention.to_string().parse::<Retention>().unwrap(), retention);
    }
}
