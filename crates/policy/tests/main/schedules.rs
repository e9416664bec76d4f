//! When a store is due: across clock changes, month ends and leap days, and the laws every schedule obeys.

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use lifeboat_policy::Schedule;
use proptest::prelude::*;

fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap()
}

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The due moments after `start`, as local wall clock times with their offset.
fn due(text: &str, zone_name: &str, start: &str, count: usize) -> Vec<String> {
    let (zone, schedule) = (zone(zone_name), schedule(text));
    let mut at = moment(start);
    let mut moments = Vec::new();
    for _ in 0..count {
        at = schedule.next_after(at, &zone).unwrap();
        moments.push(at.to_zoned(zone.clone()).strftime("%m-%d %H:%M %:z").to_string());
    }
    moments
}

#[test]
fn a_time_that_does_not_exist_fires_at_the_end_of_the_gap() {
    for rule in ["02:30", "30 2 * * *"] {
        assert_eq!(
            due(rule, "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            ["03-28 02:30 +01:00", "03-29 03:00 +02:00", "03-30 02:30 +02:00"],
            "{rule}"
        );
        assert_eq!(
            due(rule, "America/New_York", "2026-03-07T05:00:00Z", 3),
            ["03-07 02:30 -05:00", "03-08 03:00 -04:00", "03-09 02:30 -04:00"],
            "{rule}"
        );
    }
    // Lord Howe moves by half an hour: 02:15 does not exist on 4 October.
    for rule in ["02:15", "15 2 * * *"] {
        assert_eq!(
            due(rule, "Australia/Lord_Howe", "2026-10-02T14:00:00Z", 3),
            ["10-03 02:15 +10:30", "10-04 02:30 +11:00", "10-05 02:15 +11:00"],
            "{rule}"
        );
    }
}

#[test]
fn a_time_that_exists_twice_fires_at_the_first() {
    for rule in ["02:30", "30 2 * * *"] {
        assert_eq!(
            due(rule, "Europe/Berlin", "2026-10-24T00:00:00Z", 3),
            ["10-24 02:30 +02:00", "10-25 02:30 +02:00", "10-26 02:30 +01:00"],
            "{rule}"
        );
    }
    for rule in ["01:30", "30 1 * * *"] {
        assert_eq!(
            due(rule, "America/New_York", "2026-10-31T04:00:00Z", 3),
            ["10-31 01:30 -04:00", "11-01 01:30 -04:00", "11-02 01:30 -05:00"],
            "{rule}"
        );
    }
    for rule in ["01:45", "45 1 * * *"] {
        assert_eq!(
            due(rule, "Australia/Lord_Howe", "2026-04-03T13:00:00Z", 3),
            ["04-04 01:45 +11:00", "04-05 01:45 +11:00", "04-06 01:45 +10:30"],
            "{rule}"
        );
    }
}

#[test]
fn an_interval_keeps_its_length_through_a_clock_change() {
    let (berlin, every) = (zone("Europe/Berlin"), schedule("every 6h"));
    let mut at = moment("2026-10-24T00:00:00Z");
    for _ in 0..12 {
        let next = every.next_after(at, &berlin).unwrap();
        assert_eq!(next.duration_since(at).as_hours(), 6);
        at = next;
    }
}

#[test]
fn a_cron_with_a_step_runs_through_both_passes_of_a_repeated_hour() {
    let (berlin, cron) = (zone("Europe/Berlin"), schedule("*/15 * * * *"));
    let mut at = moment("2026-10-24T22:00:00Z");
    for _ in 0..40 {
        let next = cron.next_after(at, &berlin).unwrap();
        assert_eq!(next.duration_since(at).as_mins(), 15);
        at = next;
    }
}

#[test]
fn a_step_whose_time_falls_into_a_gap_is_not_skipped() {
    assert_eq!(
        due("30 */2 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z", 3),
        ["03-29 00:30 +01:00", "03-29 03:00 +02:00", "03-29 04:30 +02:00"]
    );
}

#[test]
fn month_ends_and_leap_days_are_found() {
    assert_eq!(
        due("0 2 L * *", "UTC", "2028-01-15T00:00:00Z", 3),
        ["01-31 02:00 +00:00", "02-29 02:00 +00:00", "03-31 02:00 +00:00"]
    );
    let leap = schedule("0 2 29 2 *");
    assert_eq!(
        leap.next_after(moment("2028-03-01T00:00:00Z"), &TimeZone::UTC),
        Some(moment("2032-02-29T02:00:00Z"))
    );
    // 2100 is not a leap year: eight years lie between.
    assert_eq!(
        leap.next_after(moment("2096-03-01T00:00:00Z"), &TimeZone::UTC),
        Some(moment("2104-02-29T02:00:00Z"))
    );
    assert_eq!(
        leap.previous_at_or_before(moment("2104-02-29T01:59:59Z"), &TimeZone::UTC),
        Some(moment("2096-02-29T02:00:00Z"))
    );
}

#[test]
fn a_day_the_zone_left_out_is_not_waited_for() {
    // Samoa had no 30 December 2011.
    for rule in ["02:00", "0 2 * * *"] {
        assert_eq!(
            due(rule, "Pacific/Apia", "2011-12-29T00:00:00Z", 3),
            ["12-29 02:00 -10:00", "12-31 00:00 +14:00", "12-31 02:00 +14:00"],
            "{rule}"
        );
    }
}

#[test]
fn intervals_are_told() {
    let hours = |text: &str| schedule(text).longest_interval().as_secs() / 3_600;
    assert_eq!(hours("02:00"), 24);
    assert_eq!(hours("every 6h"), 6);
    assert_eq!(hours("0 */6 * * *"), 6);
    assert_eq!(hours("0 2 * * 1-5"), 72);
    assert_eq!(hours("*/10 9-17 * * 1-5"), 63);
    assert_eq!(hours("0 2 1 * *"), 31 * 24);
}

#[test]
fn what_is_not_a_schedule_is_refused_with_help() {
    for text in [
        "",
        "2:00",
        "02:60",
        "24:00",
        "0200",
        "every",
        "every 5",
        "every 1mo",
        "every 59s",
        "* * * *",
        "60 * * * *",
        "0 0 31 2 *",
        "@hourlyish",
    ] {
        assert!(!text.parse::<Schedule>().expect_err(text).help().is_empty(), "{text}");
    }
}

fn any_schedule() -> impl Strategy<Value = String> {
    prop_oneof![
        (0u8..24, 0u8..60).prop_map(|(hour, minute)| format!("{hour:02}:{minute:02}")),
        (1u32..5_000).prop_map(|minutes| format!("every {minutes}m")),
        (1u32..60).prop_map(|days| format!("every {days}d")),
        (0u8..60, 0u8..24).prop_map(|(minute, hour)| format!("{minute} {hour} * * *")),
        (0u8..60, 0u8..24, 1u8..29).prop_map(|(minute, hour, day)| format!("{minute} {hour} {day} * *")),
        (0u8..60, 0u8..24, 0u8..7).prop_map(|(minute, hour, day)| format!("{minute} {hour} * * {day}")),
        (2u8..31).prop_map(|step| format!("*/{step} * * * *")),
        (0u8..60, 2u8..12).prop_map(|(minute, step)| format!("{minute} */{step} * * *")),
        Just("0 2 L * *".to_owned()),
        Just("15,45 1-3 * 3,4,10,11 SUN".to_owned()),
    ]
}

fn any_zone() -> impl Strategy<Value = TimeZone> {
    prop_oneof![
        Just("UTC"),
        Just("Europe/Berlin"),
        Just("America/New_York"),
        Just("Australia/Lord_Howe"),
        Just("Asia/Kathmandu"),
        Just("Asia/Beirut"),
        Just("America/Sao_Paulo"),
        Just("Pacific/Apia"),
    ]
    .prop_map(zone)
}

/// Moments of 1990 to 2060, half of them close to a clock change of one of the zones.
fn any_moment() -> impl Strategy<Value = Timestamp> {
    let anywhere = 631_152_000i64..2_840_140_800;
    let near = (
        prop_oneof![
            Just("2026-03-29T01:00:00Z"),
            Just("2026-10-25T01:00:00Z"),
            Just("2026-03-08T07:00:00Z"),
            Just("2026-11-01T06:00:00Z"),
            Just("2026-10-03T15:30:00Z"),
            Just("2026-04-04T15:00:00Z"),
            Just("2018-11-04T03:00:00Z"),
            Just("2026-03-28T22:00:00Z"),
            Just("2011-12-30T10:00:00Z"),
        ],
        -200_000i64..200_000,
    )
        .prop_map(|(change, offset)| moment(change).as_second() + offset);
    (prop_oneof![anywhere, near], 0i32..1_000_000_000)
        .prop_map(|(second, nanosecond)| Timestamp::new(second, nanosecond).unwrap())
}

proptest! {
    #[test]
    fn schedules_round_trip(text in any_schedule()) {
        let parsed = schedule(&text);
        prop_assert_eq!(schedule(&parsed.to_string()), parsed);
    }

    #[test]
    fn the_next_moment_is_later_and_the_previous_is_not(text in any_schedule(), zone in any_zone(), at in any_moment()) {
        let schedule = schedule(&text);
        let next = schedule.next_after(at, &zone).unwrap();
        let previous = schedule.previous_at_or_before(at, &zone).unwrap();
        prop_assert!(next > at && previous <= at);
        // Nothing is due between the two, and each leads to the other.
        prop_assert_eq!(schedule.next_after(previous, &zone).unwrap(), next);
        prop_assert_eq!(schedule.previous_at_or_before(next, &zone).unwrap(), next);
        let just_before = next.checked_sub(jiff::SignedDuration::from_nanos(1)).unwrap();
        prop_assert_eq!(schedule.previous_at_or_before(just_before, &zone).unwrap(), previous);
    }

    #[test]
    fn a_later_start_never_finds_an_earlier_moment(
        text in any_schedule(), zone in any_zone(), at in any_moment(), ahead in 0i64..200_000,
    ) {
        let schedule = schedule(&text);
        let later = at.checked_add(jiff::SignedDuration::from_secs(ahead)).unwrap();
        prop_assert!(schedule.next_after(at, &zone).unwrap() <= schedule.next_after(later, &zone).unwrap());
        prop_assert!(
            schedule.previous_at_or_before(at, &zone).unwrap() <= schedule.previous_at_or_before(later, &zone).unwrap()
        );
    }

    #[test]
    fn a_daily_time_and_its_cron_agree(
        hour in 0u8..24, minute in 0u8..60, zone in any_zone(), at in any_moment(),
    ) {
        let daily = schedule(&format!("{hour:02}:{minute:02}"));
        let cron = schedule(&format!("{minute} {hour} * * *"));
        prop_assert_eq!(daily.next_after(at, &zone), cron.next_after(at, &zone));
        prop_assert_eq!(daily.previous_at_or_before(at, &zone), cron.previous_at_or_before(at, &zone));
    }
}

/// An hourly row of an etcd, as `examples/cluster.toml` has it.
const HOURLY: &str = r#"
version = 1
timezone = "Europe/Berlin"

[keys]
recipients = ["keyfile:./key"]

[copy.near]
url = "file:./vaults"

[store.control-plane]
kind = "etcd"
url = "https://10.0.0.1:2379"
rpo = "1h"
schedule = "every 1h"
retention = "24h 7d"
copies = ["near"]
"#;

#[test]
fn an_hourly_etcd_is_due_every_hour_through_both_clock_changes() {
    let policy = lifeboat_policy::parse(HOURLY, "policy.toml").unwrap();
    assert!(policy.warnings.is_empty(), "{:?}", policy.warnings);
    let row = &policy.stores[&"control-plane".parse().unwrap()];
    assert_eq!(row.retention.value.to_string(), "24h 7d");
    let schedule = row.schedule.value.clone().unwrap();
    // Both nights have an hour that is missing, or comes twice; elapsed time knows neither.
    for night in ["2026-03-28T22:00:00Z", "2026-10-24T22:00:00Z"] {
        let mut at = moment(night);
        for _hour in 0..30 {
            let next = schedule.next_after(at, &policy.timezone).unwrap();
            assert_eq!(next.duration_since(at).as_secs(), 3600, "{at}");
            at = next;
        }
    }
    let shown = |start| due("every 1h", "Europe/Berlin", start, 4);
    assert_eq!(
        shown("2026-03-28T23:00:00Z"),
        ["03-29 01:00 +01:00", "03-29 03:00 +02:00", "03-29 04:00 +02:00", "03-29 05:00 +02:00"]
    );
    assert_eq!(
        shown("2026-10-24T22:00:00Z"),
        ["10-25 01:00 +02:00", "10-25 02:00 +02:00", "10-25 02:00 +01:00", "10-25 03:00 +01:00"]
    );
}
