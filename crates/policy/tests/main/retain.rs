//! What stays and what may go: the rules as properties, and the calendar's awkward days as a person reads them.

use std::collections::BTreeSet;
use std::fmt::Write;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use lifeboat_base::ids::PointId;
use lifeboat_policy::{
    BorneOut, Candidate, Decided, Gfs, Reason, Rules, Soundness, Span, Verdict, ceiling, decide, usual,
};
use proptest::prelude::*;

const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia"];

fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap()
}

fn point(at: Timestamp, n: usize) -> Candidate {
    Candidate {
        id: PointId::new(format!("pt-{n:06}")).unwrap(),
        moment: at,
        ended: at,
        complete: true,
        soundness: Soundness::Sound,
        restored: false,
        holds: Vec::new(),
    }
}

fn every(hours: i64, from: &str, to: &str) -> Vec<Candidate> {
    let (mut at, to): (Timestamp, Timestamp) = (from.parse().unwrap(), to.parse().unwrap());
    let mut points = Vec::new();
    while at <= to {
        points.push(point(at, points.len()));
        at += SignedDuration::from_hours(hours);
    }
    points
}

fn rules<'a>(keep: &str, window: Option<&str>, minimum: Option<&str>, zone: &'a TimeZone) -> Rules<'a> {
    let span = |text: Option<&str>| text.map(|text| text.parse::<Span>().unwrap());
    Rules {
        keep: keep.parse().unwrap(),
        window: span(window),
        minimum: span(minimum),
        interval: None,
        ceiling: None,
        borne_out: None,
        zone,
    }
}

fn kept(decided: &Decided) -> BTreeSet<PointId> {
    let stays = decided.points.iter().filter(|point| matches!(point.verdict, Verdict::Kept(_)));
    stays.map(|point| point.id.clone()).collect()
}

/// What a person would see of the points that stay, in their own time zone.
fn page(decided: &Decided, zone: &TimeZone) -> String {
    let mut text = String::new();
    for point in &decided.points {
        let at = point.moment.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M %:z").to_string();
        if let Verdict::Kept(reasons) = &point.verdict {
            let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
            writeln!(text, "{at}  {}", reasons.join(", ")).unwrap();
        }
    }
    text
}

fn seen(keep: &str, hours: i64, (from, now): (&str, &str), zone_name: &str) -> String {
    let zone = zone(zone_name);
    let points = every(hours, from, now);
    page(&decide(&rules(keep, None, None, &zone), points, now.parse().unwrap()), &zone)
}

#[test]
fn the_calendars_awkward_days_are_read_as_a_person_reads_them() {
    let month_end = seen("3d 2w 3mo", 24, ("2026-01-01T12:00:00Z", "2026-03-31T12:00:00Z"), "UTC");
    let leap = seen("2d 2mo 1y", 24, ("2023-12-30T00:30:00Z", "2024-03-01T00:30:00Z"), "UTC");
    let spring = seen("6h 2d", 1, ("2026-03-27T00:00:00Z", "2026-03-29T03:30:00Z"), "Europe/Berlin");
    let autumn = seen("6h 2d", 1, ("2026-10-23T00:00:00Z", "2026-10-25T03:30:00Z"), "Europe/Berlin");
    let skipped_day = seen("4d", 12, ("2011-12-26T00:00:00Z", "2011-12-31T20:00:00Z"), "Pacific/Apia");
    let all = [
        ("month ends, 3d 2w 3mo", month_end),
        ("a leap day, 2d 2mo 1y", leap),
        ("the clock goes forward, 6h 2d", spring),
        ("the clock goes back, 6h 2d", autumn),
        ("a zone that skipped a whole day, 4d", skipped_day),
    ];
    let text = all.map(|(title, page)| format!("{title}\n{page}")).join("\n");
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "../calendars" }, {
        insta::assert_snapshot!("retained", text);
    });
}

#[test]
fn case_16_every_tier_keeps_its_own_and_every_verdict_says_why() {
    let berlin = zone("Europe/Berlin");
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let points = every(24, "2024-01-01T01:00:00Z", "2026-11-21T01:00:00Z");
    let decided = decide(&rules("7d 4w 12mo 1y", None, None, &berlin), points, now);
    let mut counts = std::collections::BTreeMap::new();
    for point in &decided.points {
        match &point.verdict {
            Verdict::Kept(reasons) => {
                assert!(!reasons.is_empty());
                for reason in reasons {
                    if let Reason::Slot { unit, .. } = reason {
                        *counts.entry(unit.to_string()).or_insert(0) += 1;
                    }
                }
            }
            Verdict::Deletable { since, because } => assert!(*since <= now && !because.is_empty()),
        }
    }
    // The one in progress and the whole ones before it.
    let expected = [("day", 8), ("month", 13), ("week", 5), ("year", 2)];
    assert_eq!(counts, expected.map(|(unit, count)| (unit.to_owned(), count)).into());
}

#[test]
fn what_was_kept_last_and_since_when_not_is_told() {
    let utc = zone("UTC");
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let points = every(12, "2026-11-01T00:00:00Z", "2026-11-21T12:00:00Z");
    let decided = decide(&rules("3d", None, None, &utc), points, now);
    let told = |n: usize| match &decided.points[n].verdict {
        Verdict::Deletable { since, because } => format!("{since} {because}"),
        Verdict::Kept(reasons) => format!("{reasons:?}"),
    };
    assert_eq!(told(0), "2026-11-05T00:00:00Z day 2026-11-01 is over");
    assert_eq!(told(1), "2026-11-01T12:00:00Z day 2026-11-01 is kept by pt-000000");
    let locked = decide(
        &rules("3d", None, Some("18d"), &utc),
        every(12, "2026-11-01T00:00:00Z", "2026-11-21T12:00:00Z"),
        now,
    );
    match &locked.points[0].verdict {
        Verdict::Deletable { since, because } => {
            assert_eq!(
                (since.to_string().as_str(), because.as_str()),
                ("2026-11-19T00:00:00Z", "its lock is over")
            );
        }
        Verdict::Kept(reasons) => panic!("{reasons:?}"),
    }
    assert!(!locked.overstayed.is_empty(), "a lock that outlasts the slots is told");
}

#[test]
fn nothing_ages_while_no_new_point_comes_and_no_jump_of_the_clock_empties_a_vault() {
    let utc = zone("UTC");
    let points = || every(24, "2026-01-01T00:00:00Z", "2026-02-20T00:00:00Z");
    let rules = rules("7d 4w", Some("14d"), None, &utc);
    let today = decide(&rules, points(), "2026-02-20T01:00:00Z".parse().unwrap());
    let far = decide(&rules, points(), "2046-02-20T01:00:00Z".parse().unwrap());
    assert!(!today.stalled && far.stalled);
    assert!(kept(&far).len() >= 8, "{:?}", kept(&far));
    // A clock set back: the newest points claim to come from the future and stay.
    let back = decide(&rules, points(), "2026-02-10T00:00:00Z".parse().unwrap());
    assert!(
        kept(&today)
            .iter()
            .filter(|id| **id > PointId::new("pt-000041").unwrap())
            .all(|id| kept(&back).contains(id))
    );
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn daily(from: &str, to: &str) -> Vec<Timestamp> {
    every(24, from, to).into_iter().map(|point| point.moment).collect()
}

fn days() -> Gfs {
    "7d".parse().unwrap()
}

/// Where time stops, as seen at the newest of these captures, and whether only a person can tell.
fn stops(captures: &[Timestamp], confirmed: Option<&str>) -> Option<(Timestamp, bool)> {
    let now = *captures.iter().max().unwrap();
    let stops = ceiling(captures, (days(), None), confirmed.map(at), now)?;
    Some((stops.at, stops.gap.needs_word))
}

#[test]
fn a_short_gap_is_believed_once_captures_went_on_behind_it() {
    let before = daily("2026-01-01T02:00:00Z", "2026-02-10T02:00:00Z");
    assert_eq!(stops(&before, None), None);
    let after = |to: &str| [daily("2026-02-16T02:00:00Z", to), before.clone()].concat();
    let stopped = Some((at("2026-02-12T02:00:00Z"), false));
    assert_eq!(stops(&after("2026-02-16T02:00:00Z"), None), stopped);
    assert_eq!(stops(&after("2026-02-17T02:00:00Z"), None), stopped);
    assert_eq!(stops(&after("2026-02-18T02:00:00Z"), None), None);
    // One jump does not bear out another: two captures tell little, however far apart their clocks were.
    let twice = [before.clone(), vec![at("2026-02-16T02:00:00Z"), at("2026-02-22T02:00:00Z")]].concat();
    assert_eq!(stops(&twice, None), stopped);
    // Whoever captures every other week is used to gaps, and one outage makes nobody used to them.
    let fortnightly: Vec<Timestamp> = every(14 * 24, "2026-01-01T02:00:00Z", "2026-05-01T02:00:00Z")
        .into_iter()
        .map(|point| point.moment)
        .collect();
    assert_eq!(stops(&fortnightly, None), None);
}

/// Whoever captures now and then is behind by a few captures, and never stuck.
#[test]
fn irregular_captures_are_believed_gap_by_gap() {
    let day = Some(std::time::Duration::from_secs(86_400));
    let lag = |captures: &[Timestamp], interval| {
        let behind = |seen: usize| {
            let now = captures[seen - 1];
            let stops = ceiling(&captures[..seen], (days(), interval), None, now);
            assert!(!stops.is_some_and(|stops| stops.gap.needs_word), "{seen}: {stops:?}");
            stops.map_or(0, |stops| now.duration_since(stops.at).as_hours() / 24)
        };
        (10..=captures.len()).map(behind).max().unwrap()
    };
    // A daily schedule that somebody runs every third day.
    let third: Vec<Timestamp> = every(72, "2026-08-03T09:00:00Z", "2026-11-03T09:00:00Z")
        .into_iter()
        .map(|point| point.moment)
        .collect();
    assert!(lag(&third, day) <= 7, "{}", lag(&third, day));
    // No schedule: three captures each Monday and each Thursday.
    let sessions = every(7 * 24, "2026-08-03T09:00:00Z", "2026-11-03T09:00:00Z").into_iter();
    let hours = |monday: Candidate| {
        [0, 1, 2, 72, 73, 74].map(|hour| monday.moment + SignedDuration::from_hours(hour))
    };
    let twice_a_week: Vec<Timestamp> = sessions.flat_map(hours).collect();
    assert!(lag(&twice_a_week, None) <= 12, "{}", lag(&twice_a_week, None));
}

#[test]
fn a_long_gap_is_believed_by_nobody_but_a_person_however_long_captures_went_on() {
    let before = daily("2026-01-01T02:00:00Z", "2026-02-10T02:00:00Z");
    let stopped = Some((at("2026-02-12T02:00:00Z"), true));
    for to in ["2036-01-01T02:00:00Z", "2036-01-04T02:00:00Z", "2036-09-01T02:00:00Z"] {
        let jumped = [daily("2036-01-01T02:00:00Z", to), before.clone()].concat();
        assert_eq!(stops(&jumped, None), stopped, "{to}");
        assert_eq!(stops(&jumped, Some("2035-12-31T00:00:00Z")), stopped, "{to}: that was before it");
        assert_eq!(stops(&jumped, Some("2036-01-01T03:00:00Z")), None, "{to}");
    }
    // An outage of a month that was confirmed excuses no later jump.
    let outage = daily("2026-03-13T02:00:00Z", "2026-05-01T02:00:00Z");
    let jumped = [before.clone(), outage, daily("2026-08-09T02:00:00Z", "2026-08-12T02:00:00Z")].concat();
    assert_eq!(stops(&jumped, None), stopped);
    assert_eq!(stops(&jumped, Some("2026-03-14T00:00:00Z")), Some((at("2026-05-03T02:00:00Z"), true)));
    // Set right again, what lies ahead says nothing.
    let right =
        ceiling(&jumped, (days(), None), Some(at("2026-03-14T00:00:00Z")), at("2026-05-01T03:00:00Z"));
    assert_eq!(right, None);
}

/// Two days are many slots of a row that keeps hours.
#[test]
fn a_wrong_clock_eats_no_more_slots_than_time_may_stand_still() {
    let utc = zone("UTC");
    let hour = Some(std::time::Duration::from_secs(3_600));
    let mut points = every(1, "2026-08-03T00:10:00Z", "2026-08-04T02:10:00Z");
    points.push(point(at("2026-08-06T01:10:00Z"), 99));
    let now = at("2026-08-06T01:11:00Z");
    let captures: Vec<Timestamp> = points.iter().map(|point| point.moment).collect();
    let plain = Rules { interval: hour, ..rules("24h", None, None, &utc) };
    let gone = |rules: &Rules<'_>| points.len() - kept(&decide(rules, points.clone(), now)).len();
    assert!(gone(&plain) > 20, "or this shows nothing");
    let ceiling = ceiling(&captures, (plain.keep, hour), None, now);
    assert!(ceiling.is_some_and(|ceiling| !ceiling.gap.needs_word));
    assert!(gone(&Rules { ceiling, ..plain }) <= 5);
}

#[test]
fn standing_still_for_long_is_told_apart_from_a_missed_night() {
    let utc = zone("UTC");
    let points = every(24, "2026-08-01T00:00:00Z", "2026-08-31T00:00:00Z");
    let long = |points: Vec<Candidate>, now: &str| {
        decide(&rules("7d", None, None, &utc), points, at(now)).long_stalled
    };
    assert!(!long(points.clone(), "2026-09-03T00:00:00Z"));
    assert!(long(points.clone(), "2026-09-12T00:00:00Z"));
    // Nothing whole since the beginning.
    let halves: Vec<Candidate> =
        points.into_iter().map(|point| Candidate { complete: false, ..point }).collect();
    assert!(long(halves.clone(), "2026-08-31T00:00:00Z"));
    assert!(!long(halves[..3].to_vec(), "2026-08-03T00:00:00Z"));
}

#[test]
fn whoever_captures_every_other_week_is_not_told_each_time_that_time_stands_still() {
    let utc = zone("UTC");
    let points = every(14 * 24, "2026-01-01T02:00:00Z", "2026-05-07T02:00:00Z");
    let captures: Vec<Timestamp> = points.iter().map(|point| point.moment).collect();
    let told = |interval, now: &str| {
        let rules = Rules { interval, ..rules("3mo", None, None, &utc) };
        decide(&rules, points.clone(), at(now)).long_stalled
    };
    assert!(told(None, "2026-05-20T00:00:00Z"), "or this shows nothing");
    assert!(!told(usual(&captures), "2026-05-20T00:00:00Z"));
    assert!(told(usual(&captures), "2026-12-01T00:00:00Z"));
    // One point stays in any case.
    let one = decide(&rules("3mo", None, None, &utc), points[..1].to_vec(), at("2026-12-01T00:00:00Z"));
    assert!(one.stalled && !one.long_stalled);
}

/// Whether the newest of what was captured, by count, was always there while each day made a clock jump by so many hours.
fn outlasts(keep: &str, hours: i64, newest: usize, borne_out: Option<BorneOut>) -> bool {
    let utc = zone("UTC");
    let interval = Some(std::time::Duration::from_secs(86_400));
    let mut points = every(24, "2026-05-01T02:00:00Z", "2026-07-01T02:00:00Z");
    let mut all: Vec<PointId> = points.iter().map(|point| point.id.clone()).collect();
    for wrong in 1..=20_i64 {
        let moment = at("2026-07-01T02:00:00Z") + SignedDuration::from_hours(wrong * hours);
        points.push(point(moment, 1_000 + usize::try_from(wrong).unwrap()));
        all.push(points.last().unwrap().id.clone());
        let captures: Vec<Timestamp> = points.iter().map(|point| point.moment).collect();
        let plain = rules(keep, None, None, &utc);
        let ceiling = ceiling(&captures, (plain.keep, interval), None, moment);
        let known = kept(&decide(&Rules { interval, ceiling, borne_out, ..plain }, points.clone(), moment));
        points.retain(|point| known.contains(&point.id));
        if !all.iter().rev().take(newest).all(|id| known.contains(id)) {
            return false;
        }
    }
    true
}

/// Whatever a clock says, once or every day: of what is promised no more goes than new captures take the place of.
#[test]
fn a_clock_that_jumps_takes_no_more_than_new_captures_put_in_its_place() {
    let utc = zone("UTC");
    let day = Some(std::time::Duration::from_secs(86_400));
    let borne_out = Some(BorneOut { confirmed: None });
    for (keep, hours, newest) in [("6d", 47, 6), ("6d", 190, 6), ("30d", 47, 30), ("2d 4w", 190, 2)] {
        assert!(outlasts(keep, hours, newest, borne_out), "{keep} {hours}");
        // With captures as they should come it is as without.
        let plain = rules(keep, None, None, &utc);
        let regular = every(24, "2026-05-01T02:00:00Z", "2026-07-01T02:00:00Z");
        let now = at("2026-07-01T03:00:00Z");
        let guarded = decide(&Rules { interval: day, borne_out, ..plain }, regular.clone(), now);
        assert_eq!(kept(&guarded), kept(&decide(&Rules { interval: day, ..plain }, regular, now)));
    }
    assert!(!outlasts("6d", 47, 6, None) && !outlasts("30d", 47, 30, None), "or this shows nothing");
    // A person who says that the time has passed is believed.
    let points = [
        every(24, "2026-05-01T02:00:00Z", "2026-05-10T02:00:00Z"),
        vec![point(at("2026-06-01T02:00:00Z"), 999)],
    ];
    let said = |confirmed: Option<&str>| {
        let borne_out = Some(BorneOut { confirmed: confirmed.map(at) });
        let rules = Rules { interval: day, borne_out, ..rules("5d", None, None, &utc) };
        kept(&decide(&rules, points.concat(), at("2026-06-01T03:00:00Z"))).len()
    };
    assert_eq!((said(None), said(Some("2026-06-01T03:00:00Z"))), (5, 1));
}

#[test]
fn with_a_clock_in_doubt_nothing_goes_neither_by_its_slot_nor_by_its_lock() {
    let utc = zone("UTC");
    let mut points = every(24, "2026-01-01T02:00:00Z", "2026-02-10T02:00:00Z");
    points.push(point(at("2036-01-01T02:00:00Z"), 999));
    let captures: Vec<Timestamp> = points.iter().map(|point| point.moment).collect();
    let now = at("2036-01-01T03:00:00Z");
    let guarded = |rules: Rules<'_>| {
        decide(
            &Rules { ceiling: ceiling(&captures, (days(), None), None, now), ..rules },
            points.clone(),
            now,
        )
    };
    let plain = rules("7d 4w", None, None, &utc);
    assert!(kept(&decide(&plain, points.clone(), now)).len() < 3, "or this shows nothing");
    let slots = guarded(plain);
    assert!(kept(&slots).len() > 10 && slots.stalled, "{:?}", kept(&slots));
    assert!(slots.doubt.is_some_and(|gap| gap.needs_word && gap.to == at("2036-01-01T02:00:00Z")));
    // Locked for 30 days: all of them are, by the time that counts.
    let locked = guarded(rules("1d", None, Some("30d"), &utc));
    assert!(kept(&locked).len() >= 28, "{:?}", kept(&locked));
}

#[test]
fn a_hundred_thousand_points_are_decided_on_at_once() {
    let berlin = zone("Europe/Berlin");
    let points = every(1, "2015-01-01T00:00:00Z", "2026-06-01T00:00:00Z");
    assert!(points.len() > 100_000);
    let now = points.last().unwrap().moment;
    let decided = decide(&rules("48h 30d 12w 24mo 10y", Some("14d"), None, &berlin), points, now);
    // Every hour of the window, and one of each older slot.
    assert!((14 * 24..14 * 24 + 80).contains(&kept(&decided).len()), "{}", kept(&decided).len());
}

#[test]
fn what_is_held_stays_whatever_the_rules_say_and_is_no_contradiction() {
    let utc = zone("UTC");
    let mut points = every(24, "2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z");
    points[3].holds = vec!["hold-1".to_owned(), "hold-2".to_owned()];
    points[4].soundness = Soundness::Damaged;
    points[4].holds = vec!["hold-1".to_owned()];
    let now = points.last().unwrap().moment;
    let decided = decide(&rules("3d", None, None, &utc), points, now);
    let text = page(&decided, &utc);
    assert!(text.contains("held by hold-1, held by hold-2"), "{text}");
    assert!(kept(&decided).contains(&PointId::new("pt-000004").unwrap()));
    assert!(decided.overstayed.is_empty());
}

fn standing(decided: &Decided, n: usize) -> Option<&Vec<Reason>> {
    let id = PointId::new(format!("pt-{n:06}")).unwrap();
    decided.points.iter().find(|point| point.id == id).and_then(|point| match &point.verdict {
        Verdict::Kept(reasons) => Some(reasons),
        Verdict::Deletable { .. } => None,
    })
}

#[test]
fn a_suspected_point_stays_to_the_end_of_its_own_slot_and_so_does_the_one_in_its_stead() {
    let utc = zone("UTC");
    let rules = rules("1y", None, None, &utc);
    // The first of a year lasts until the end of the next one: longer than a year.
    let mut points = every(24, "2025-01-01T02:00:00Z", "2026-11-21T02:00:00Z");
    let now = points.last().unwrap().moment;
    points[0].soundness = Soundness::Damaged;
    let decided = decide(&rules, points.clone(), now);
    let year = Reason::Slot { unit: lifeboat_policy::Unit::Year, slot: "2025".to_owned() };
    assert_eq!(standing(&decided, 0), Some(&vec![year.clone(), Reason::MightHeal]));
    assert_eq!(standing(&decided, 1), Some(&vec![year]));
    assert_eq!(standing(&decided, 2), None);
    // Everything but the newest is suspected: nothing of a slot in force goes, because each might be the one that is whole.
    let newest = points.len() - 1;
    points[..newest].iter_mut().for_each(|point| point.soundness = Soundness::Damaged);
    let decided = decide(&rules, points.clone(), now);
    assert!((0..365).all(|n| standing(&decided, n).is_some()));
    // Over is over, also for what is damaged.
    let later = every(24, "2026-11-22T02:00:00Z", "2027-01-02T02:00:00Z");
    let own = points.len();
    points.extend(later.into_iter().enumerate().map(|(n, late)| point(late.moment, own + n)));
    let now = points.last().unwrap().moment;
    let decided = decide(&rules, points, now);
    assert!((0..365).all(|n| standing(&decided, n).is_none()));
    let Verdict::Deletable { since, because } = &decided.points[0].verdict else { unreachable!() };
    assert_eq!((since.to_string().as_str(), because.as_str()), ("2027-01-01T00:00:00Z", "year 2025 is over"));
}

#[test]
fn what_only_a_copy_has_that_is_away_stays_whatever_the_rules_say() {
    let utc = zone("UTC");
    let mut points = every(12, "2026-11-01T00:00:00Z", "2026-11-21T12:00:00Z");
    points[1].soundness = Soundness::Away;
    let now = points.last().unwrap().moment;
    let decided = decide(&rules("3d", None, None, &utc), points, now);
    assert_eq!(standing(&decided, 0), None);
    assert_eq!(standing(&decided, 1), Some(&vec![Reason::Away]));
}

#[test]
fn the_newest_proven_point_and_the_base_of_the_window_stay_when_they_are_doubted() {
    let utc = zone("UTC");
    let mut points = every(24, "2026-11-01T00:00:00Z", "2026-11-21T00:00:00Z");
    points[2].restored = true;
    points[4].restored = true;
    points[4].soundness = Soundness::Damaged;
    // The window of three days starts in the middle of the day that this one is the base of.
    points[17].soundness = Soundness::Damaged;
    let now = at("2026-11-21T12:00:00Z");
    let decided = decide(&rules("1d", Some("3d"), None, &utc), points, now);
    assert_eq!(standing(&decided, 4), Some(&vec![Reason::LastRestored, Reason::MightHeal]));
    assert_eq!(standing(&decided, 2), Some(&vec![Reason::LastRestored]));
    assert_eq!(standing(&decided, 17), Some(&vec![Reason::LogWindow, Reason::MightHeal]));
    assert_eq!(standing(&decided, 16), Some(&vec![Reason::LogWindow]));
    assert_eq!(standing(&decided, 15), None);
}

#[test]
fn captures_that_lack_something_bear_out_time_and_what_is_whole_stays() {
    let utc = zone("UTC");
    let mut points = every(24, "2026-08-01T00:00:00Z", "2026-08-31T00:00:00Z");
    points[3..].iter_mut().for_each(|point| point.complete = false);
    let now = points.last().unwrap().moment;
    let decided = decide(&rules("7d", None, None, &utc), points, now);
    assert!(!decided.stalled);
    assert_eq!(standing(&decided, 2), Some(&vec![Reason::LastGood]));
    assert_eq!(kept(&decided).len(), 1 + 8);
}

prop_compose! {
    fn history()(
        gaps in prop::collection::vec((0i64..200_000, 0u8..20, any::<bool>()), 1..60),
        start in 1_500_000_000i64..1_900_000_000,
    ) -> Vec<Candidate> {
        let mut at = start;
        gaps.into_iter().enumerate().map(|(n, (gap, sound, restored))| {
            at += gap;
            let soundness = match sound { 0 => Soundness::Damaged, 1 => Soundness::Away, _ => Soundness::Sound };
            let complete = sound != 2 && sound != 3;
            Candidate { complete, soundness, restored: restored && complete, ..point(Timestamp::from_second(at).unwrap(), n) }
        }).collect()
    }
}

prop_compose! {
    fn asked()(counts in prop::array::uniform5(0u32..5), window in 0u32..20, minimum in 0u32..20, zone in 0usize..ZONES.len())
        -> (Gfs, Option<Span>, Option<Span>, TimeZone) {
        let [hourly, daily, weekly, monthly, yearly] = counts;
        let daily = if counts == [0; 5] { 1 } else { daily };
        (Gfs { hourly, daily, weekly, monthly, yearly }, Span::from_days(window), Span::from_days(minimum), zone_of(zone))
    }
}

fn zone_of(index: usize) -> TimeZone {
    zone(ZONES[index])
}

proptest! {
    #[test]
    fn the_rules_hold_for_every_history(
        points in history(),
        (keep, window, minimum, zone) in asked(),
        ahead in -500_000i64..50_000_000,
        more in prop::array::uniform5(0u32..3),
        wider in 0u32..10,
    ) {
        let now = points.last().unwrap().moment + SignedDuration::from_secs(ahead);
        let rules = Rules { keep, window, minimum, interval: None, ceiling: None, borne_out: None, zone: &zone };
        let decided = decide(&rules, points.clone(), now);
        let stays = kept(&decided);
        prop_assert_eq!(decided.points.len(), points.len());
        let good = |point: &&Candidate| point.complete && point.soundness == Soundness::Sound;
        let present = |point: &&Candidate| point.moment <= now;
        // The newest whole point, and the newest proven one, stay, also those that are sound; without a sound one nothing goes.
        let last_good = points.iter().rev().filter(present).find(good);
        let whole = points.iter().rev().filter(present).find(|point| point.complete);
        let restored = points.iter().rev().filter(present).find(|point| point.restored);
        let proven = points.iter().rev().filter(present).filter(good).find(|point| point.restored);
        for point in last_good.into_iter().chain(whole).chain(restored).chain(proven) {
            prop_assert!(stays.contains(&point.id));
        }
        if last_good.is_none() {
            prop_assert_eq!(stays.len(), points.len());
        }
        for point in &points {
            // Never inside a lock.
            if minimum.is_some_and(|minimum| minimum.after(point.ended, &zone) > now) {
                prop_assert!(stays.contains(&point.id));
            }
        }
        // A promised window keeps all that is in it, and the points it starts from: the last one, and the last sound one.
        if let (Some(window), Some(_)) = (window, last_good) {
            let start = window.before(decided.as_of, &zone);
            let before = |point: &&Candidate| point.complete && point.moment <= start;
            let base = points.iter().rev().filter(present).find(before);
            let sound = points.iter().rev().filter(present).filter(good).find(before);
            let within = points.iter().filter(|point| point.moment >= start);
            for point in base.into_iter().chain(sound).chain(within) {
                prop_assert!(stays.contains(&point.id));
            }
        }
        // Nothing stays past its longest slot, its window and its lock unless it is the last of its sort.
        for point in decided.points.iter().filter(|point| stays.contains(&point.id)) {
            let Verdict::Kept(reasons) = &point.verdict else { unreachable!() };
            let longest = Span::from_days(keep.yearly * 366 + 366 + (keep.monthly + 1) * 31 + (keep.weekly + 1) * 7 + keep.daily + 2).unwrap();
            let plain = reasons.iter().all(|reason| matches!(reason, Reason::Slot { .. }));
            prop_assert!(!plain || longest.after(point.moment, &zone) >= decided.as_of, "{:?}", point);
        }
        // Applied, it asks for nothing more.
        let rest: Vec<Candidate> = points.iter().filter(|point| stays.contains(&point.id)).cloned().collect();
        prop_assert_eq!(&kept(&decide(&rules, rest, now)), &stays);
        // Promising more never deletes more.
        let [hourly, daily, weekly, monthly, yearly] = more;
        let keep = Gfs {
            hourly: keep.hourly + hourly, daily: keep.daily + daily, weekly: keep.weekly + weekly,
            monthly: keep.monthly + monthly, yearly: keep.yearly + yearly,
        };
        let days = |span: Option<Span>| span.map_or(0, |span| u32::try_from(span.approx().as_secs() / 86_400).unwrap());
        let window = Span::from_days(days(window) + wider);
        let minimum = Span::from_days(days(minimum) + wider);
        let generous = decide(&Rules { keep, window, minimum, interval: None, ceiling: None, borne_out: None, zone: &zone }, points.clone(), now);
        prop_assert!(kept(&generous).is_superset(&stays));
        // The order in which points are listed has no meaning.
        let reversed = points.into_iter().rev().collect();
        prop_assert_eq!(decide(&rules, reversed, now), decided);
    }
}

proptest! {
    #[test]
    fn nothing_that_gets_worse_makes_anything_deletable(
        points in history(),
        worse in prop::collection::vec(0u8..6, 60),
        (keep, window, minimum, zone) in asked(),
        ahead in -500_000i64..50_000_000,
    ) {
        let now = points.last().unwrap().moment + SignedDuration::from_secs(ahead);
        let rules = Rules { keep, window, minimum, interval: None, ceiling: None, borne_out: None, zone: &zone };
        let sound = points.iter().map(|point| Candidate { soundness: Soundness::Sound, ..point.clone() }).collect();
        let as_claimed = kept(&decide(&rules, sound, now));
        let before = kept(&decide(&rules, points.clone(), now));
        prop_assert!(before.is_superset(&as_claimed), "{:?}", as_claimed.difference(&before));
        let mut after = points;
        for (point, worse) in after.iter_mut().zip(worse) {
            point.soundness = match (worse, point.soundness) {
                (0, Soundness::Sound) => Soundness::Damaged,
                (1, _) => Soundness::Away,
                (_, soundness) => soundness,
            };
        }
        let after = kept(&decide(&rules, after, now));
        prop_assert!(after.is_superset(&before), "{:?}", before.difference(&after));
    }
}

/// The lock of each point that has one.
fn locks(decided: &Decided) -> std::collections::BTreeMap<PointId, Timestamp> {
    decided.points.iter().filter_map(|point| Some((point.id.clone(), point.lock_until?))).collect()
}

#[test]
fn a_lock_ends_with_the_last_slot_that_the_point_will_own() {
    let utc = zone("UTC");
    let points = every(12, "2026-01-28T00:00:00Z", "2026-02-03T12:00:00Z");
    let decided = |rules: &Rules<'_>| locks(&decide(rules, points.clone(), at("2026-02-03T13:00:00Z")));
    let tiers = decided(&rules("7d 2w 3mo", None, None, &utc));
    let until = |locks: &std::collections::BTreeMap<PointId, Timestamp>, n: usize| {
        locks.get(&PointId::new(format!("pt-{n:06}")).unwrap()).map(ToString::to_string)
    };
    // The first of January that there is; the first of a week and of February; a day alone; the second of a day.
    assert_eq!(until(&tiers, 0).as_deref(), Some("2026-05-01T00:00:00Z"));
    assert_eq!(until(&tiers, 2).as_deref(), Some("2026-02-06T00:00:00Z"));
    assert_eq!(until(&tiers, 8).as_deref(), Some("2026-06-01T00:00:00Z"));
    assert_eq!(until(&tiers, 10).as_deref(), Some("2026-02-23T00:00:00Z"));
    assert_eq!(until(&tiers, 3), None);
    // A minimum locks all, and longer only where it ends later.
    let minimum = decided(&rules("7d 2w 3mo", None, Some("5d"), &utc));
    assert_eq!(until(&minimum, 0), until(&tiers, 0));
    assert_eq!(until(&minimum, 3), None, "that is over");
    assert_eq!(until(&minimum, 5).as_deref(), Some("2026-02-04T12:00:00Z"));
    // A base is needed until the window begins after the next one.
    let window = decided(&rules("1d", Some("14d"), None, &utc));
    assert_eq!(until(&window, 2).as_deref(), Some("2026-02-12T12:00:00Z"));
    assert_eq!(until(&window, 13).as_deref(), Some("2026-02-17T12:00:00Z"));
}

#[test]
fn log_is_locked_until_the_window_begins_after_the_next_base() {
    let utc = zone("UTC");
    let points = every(24, "2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z");
    let until = |rules: &Rules<'_>, points: &[Candidate], ended: &str| {
        let decided = decide(rules, points.to_vec(), at("2026-01-05T01:00:00Z"));
        decided.log_lock_until(rules, at(ended)).map(|until| until.to_string())
    };
    let window = rules("3d", Some("10d"), None, &utc);
    // The base at its end is enough; without one after it, what was written is needed for as long as the window is.
    assert_eq!(until(&window, &points, "2026-01-02T00:00:00Z").as_deref(), Some("2026-01-12T00:00:00Z"));
    assert_eq!(until(&window, &points, "2026-01-02T06:00:00Z").as_deref(), Some("2026-01-13T00:00:00Z"));
    assert_eq!(until(&window, &points, "2026-01-05T00:30:00Z").as_deref(), Some("2026-01-15T00:30:00Z"));
    // One that cannot be relied on, or is not whole, is no base.
    let mut doubtful = points.clone();
    doubtful[2].soundness = Soundness::Damaged;
    doubtful[3].complete = false;
    let locked = until(&window, &doubtful, "2026-01-02T06:00:00Z");
    assert_eq!(locked.as_deref(), Some("2026-01-15T00:00:00Z"));
    // Neither of the last days of January has a like in February, and the earlier of these moments ends later there.
    let month = rules("3d", Some("1mo"), None, &utc);
    let late = [point(at("2026-01-31T14:00:00Z"), 0)];
    let decided = decide(&month, late.to_vec(), at("2026-01-31T15:00:00Z"));
    let locked = decided.log_lock_until(&month, at("2026-01-30T22:00:00Z"));
    assert_eq!(locked, Some(at("2026-02-28T22:00:00Z")));
    // A minimum counts where it ends later; without window and minimum there is no lock.
    let minimum = rules("3d", Some("10d"), Some("20d"), &utc);
    assert_eq!(until(&minimum, &points, "2026-01-02T00:00:00Z").as_deref(), Some("2026-01-22T00:00:00Z"));
    assert_eq!(until(&rules("3d", None, None, &utc), &points, "2026-01-02T00:00:00Z"), None);
    // What claims to come from the future is locked for the minimum from now on, and without one not at all.
    assert_eq!(until(&minimum, &points, "2036-01-01T00:00:00Z").as_deref(), Some("2026-01-25T01:00:00Z"));
    assert_eq!(until(&window, &points, "2036-01-01T00:00:00Z"), None);
}

#[test]
fn what_claims_a_time_that_nobody_bore_out_is_locked_no_longer_than_the_minimum_from_what_is_known() {
    let utc = zone("UTC");
    let mut points = every(24, "2026-01-01T02:00:00Z", "2026-02-10T02:00:00Z");
    points.push(point(at("2036-01-01T02:00:00Z"), 999));
    let captures: Vec<Timestamp> = points.iter().map(|point| point.moment).collect();
    let now = at("2036-01-01T03:00:00Z");
    let plain = rules("7d 10y", Some("30d"), Some("20d"), &utc);
    let newest = |rules: &Rules<'_>, now| {
        locks(&decide(rules, points.clone(), now))[&PointId::new("pt-000999").unwrap()]
    };
    assert!(newest(&plain, now) > at("2046-01-01T00:00:00Z"), "or this shows nothing");
    let ceiling = ceiling(&captures, (days(), None), None, now);
    let known = ceiling.map(|ceiling| ceiling.at).unwrap();
    assert_eq!(newest(&Rules { ceiling, ..plain }, now), known + SignedDuration::from_hours(20 * 24));
    // The same without a gap in the captures: a moment ahead of a clock that is right.
    assert_eq!(newest(&plain, at("2026-02-10T03:00:00Z")), at("2026-03-02T03:00:00Z"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Locks follow retention: none is longer, none is missing, and none is ever taken back.
    #[test]
    fn every_point_that_stays_is_locked_as_long_as_its_rules_keep_it_and_no_longer(
        (zone_name, apart) in (prop::sample::select(&ZONES), prop::sample::select(&[8_i64, 24, 60])),
        keep in prop::sample::select(&["3d", "5d 2w", "4d 3mo", "2w 2mo 1y", "9d 1y"]),
        window in prop::sample::select(&[None, Some("6d"), Some("1mo")]),
        minimum in prop::sample::select(&[None, Some("2d"), Some("45d")]),
        whole in prop::collection::vec(prop::bool::weighted(0.9), 700),
        (now, later) in (0_usize..400, 1_usize..300),
    ) {
        let zone = zone(zone_name);
        let rules = rules(keep, window, minimum, &zone);
        let mut points = every(apart, "2025-12-20T01:00:00Z", "2028-01-01T00:00:00Z");
        for (point, complete) in points.iter_mut().zip(whole) {
            point.complete = complete;
        }
        let (now, later) = (now.min(points.len() - 2), (now + later).min(points.len() - 1));
        let upto = |index: usize| decide(&rules, points[..=index].to_vec(), points[index].moment);
        let (first, second) = (upto(now), upto(later));
        let (before, after) = (locks(&first), locks(&second));
        let stays = kept(&second);
        for (id, until) in &before {
            // What stays is locked at least as long as it was.
            let extended = after.get(id).is_some_and(|after| after >= until);
            prop_assert!(extended || !stays.contains(id), "{id} {until} {:?}", after.get(id));
            // Nothing that a lock forbids to delete may be deleted by the rules, but for a change of the clocks.
            let slack = SignedDuration::from_hours(3);
            prop_assert!(stays.contains(id) || *until <= points[later].moment + slack, "{id} {until}");
        }
        for decision in &first.points {
            let Verdict::Kept(reasons) = &decision.verdict else {
                prop_assert_eq!(decision.lock_until, None);
                continue;
            };
            let promised = |reason: &Reason| {
                matches!(reason, Reason::Slot { .. } | Reason::LogWindow | Reason::Minimum { .. })
            };
            // A base before the window is kept while nothing takes its place, which no calendar foretells.
            let last = decision.lock_until.is_some_and(|until| until > first.as_of);
            let waits = reasons.iter().all(|reason| !promised(reason) || *reason == Reason::LogWindow);
            // So does half a point in a slot in progress, which a whole one may take.
            let half = points.iter().any(|point| point.id == decision.id && !point.complete);
            prop_assert!(last || waits || half, "{:?}", decision);
        }
    }
}
