//! Segments that two timelines share, switches, and what a scan makes of pages of older timelines.

use lifeboat_postgres::wal::{Event, Scanner, TimelineHistory, WalError};
use lifeboat_postgres::{Lsn, Timeline};

use super::logs::{Entry, scan, write};
use super::writer::{SHAPE, SYSTEM, Writer};

const SEGMENT: u64 = 1 << 20;

/// Timeline 5's first segment: pages of timelines 2 and 3, and its own from the page after the switch on.
fn forked() -> (Writer, Lsn) {
    let mut log = Writer::new(17, 2, Lsn(3 * SEGMENT));
    let noise = Entry::Noise { manager: 10, info: 0, length: 3000 };
    write(&mut log, 0, &noise);
    log.timeline = 3;
    write(&mut log, 1, &noise);
    let switch = log.end();
    log.timeline = 5;
    write(&mut log, 2, &Entry::EndOfRecovery);
    write(&mut log, 3, &noise);
    (log, switch)
}

fn history(first: Lsn, switch: Lsn) -> TimelineHistory {
    let history = TimelineHistory::root(2).fork(3, first, "a").unwrap();
    history.fork(5, switch, "b").unwrap()
}

fn feed(scanner: Scanner, bytes: &[u8]) -> Result<Vec<Event>, WalError> {
    let (mut scanner, mut events) = (scanner, Vec::new());
    scanner.feed(bytes, &mut events).map(|()| events)
}

fn scanner(log: &Writer, timeline: Timeline) -> Scanner {
    Scanner::new(SHAPE, timeline, Some(SYSTEM), log.start).unwrap()
}

#[test]
fn a_timelines_first_segment_starts_with_pages_of_its_parents() {
    let (log, switch) = forked();
    assert_eq!(feed(scanner(&log, 5), &log.bytes), Ok(log.events.clone()));
    let exact = scanner(&log, 5).with_history(history(log.records[0].2, switch));
    assert_eq!(feed(exact, &log.bytes), Ok(log.events.clone()));
}

#[test]
fn pages_of_a_timeline_that_does_not_lead_here_are_refused() {
    let (log, switch) = forked();
    let refused = |scanner: Scanner| match feed(scanner, &log.bytes) {
        Err(WalError::Timeline { found, expected, .. }) => (found, expected),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(scanner(&log, 4)), (5, 4), "a younger timeline");
    let unrelated = TimelineHistory::root(1).fork(5, switch, "").unwrap();
    assert_eq!(refused(scanner(&log, 5).with_history(unrelated)), (2, 1));
    let later = history(log.records[0].2, Lsn(switch.0 + 2 * u64::from(SHAPE.page_bytes)));
    assert_eq!(refused(scanner(&log, 5).with_history(later)), (5, 3), "the history leaves timeline 3 later");
}

#[test]
fn an_older_page_after_a_timelines_own_or_after_its_first_segment_is_refused() {
    let (mut log, _) = forked();
    log.timeline = 3;
    write(&mut log, 4, &Entry::Noise { manager: 10, info: 0, length: 1500 });
    assert!(matches!(
        feed(scanner(&log, 5), &log.bytes),
        Err(WalError::Timeline { found: 3, expected: 5, .. })
    ));

    let mut log = Writer::new(17, 3, Lsn(SEGMENT - 1024));
    write(&mut log, 0, &Entry::Noise { manager: 10, info: 0, length: 1500 });
    let refused = feed(scanner(&log, 5), &log.bytes);
    assert_eq!(refused, Err(WalError::Timeline { at: Lsn(SEGMENT), found: 3, expected: 5 }));
}

#[test]
fn what_follows_a_switch_is_filler_up_to_the_end_of_the_segment() {
    for filler in [0u8, 0xFF] {
        let mut log = Writer::new(13, 3, Lsn(2 * SEGMENT - 5 * 1024));
        write(&mut log, 0, &Entry::Prepare);
        log.switch(filler);
        assert_eq!(log.position(), Lsn(2 * SEGMENT));
        let (scanner, events, outcome) = scan(&log, &log.bytes, &[999]);
        assert_eq!((outcome, events.len(), scanner.is_switched()), (Ok(()), 2, true));
        assert_eq!(scanner.record_end(), Some(events[1].end()));
        write(&mut log, 1, &Entry::Prepare);
        let (scanner, events, outcome) = scan(&log, &log.bytes, &[999]);
        assert_eq!((outcome, &events, scanner.is_switched()), (Ok(()), &log.events, false));
    }
}

#[test]
fn a_switch_that_just_fits_its_segment_leaves_no_filler() {
    let mut log = Writer::new(18, 3, Lsn(2 * SEGMENT - 1024));
    // The page holds its header of 24 bytes, a record of this body, and the 24 bytes of the switch.
    write(&mut log, 0, &Entry::Noise { manager: 10, info: 0, length: 1024 - 24 - 24 - 24 });
    log.switch(0);
    assert_eq!(log.end(), Lsn(2 * SEGMENT));
    write(&mut log, 1, &Entry::Prepare);
    let (_, events, outcome) = scan(&log, &log.bytes, &[7]);
    assert_eq!((outcome, events), (Ok(()), log.events.clone()));
}
