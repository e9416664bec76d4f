//! Damaged logs: every wrong byte that recovery would stop at is found, and nothing is ever invented.

use lifeboat_postgres::Lsn;
use lifeboat_postgres::wal::{Event, PageFault, Scanner, WalError, WalShape};
use proptest::prelude::*;

use super::logs::{Entry, Plan, plans, scan, write};
use super::writer::{Care, Draft, SHAPE, SYSTEM, Writer, main_data, server_time, time};

/// What a scan says that took `bytes` for the bytes of `log`.
fn verdict(log: &Writer, bytes: &[u8]) -> Result<(), WalError> {
    scan(log, bytes, &[usize::MAX]).2
}

/// A log of every kind of record, over a few pages and a segment's start.
fn sample() -> Writer {
    let entries = vec![
        Entry::Noise { manager: 10, info: 0, length: 90 },
        Entry::Transaction { prepared: false, abort: false, parts: 0, count: 0 },
        Entry::Noise { manager: 11, info: 0x30, length: 2500 },
        Entry::Transaction { prepared: true, abort: false, parts: 0x1FF, count: 3 },
        Entry::Pages { image_bytes: vec![100, 20, 300], compressed: true, commit: true },
        Entry::RestorePoint { name: "before_migration".to_owned() },
        Entry::Checkpoint { shutdown: false },
        Entry::Noise { manager: 10, info: 0, length: 10 },
    ];
    Plan { version: 3, pages: 2, rest_bytes: 0, entries }.write()
}

fn assert_not_silent(log: &Writer, bytes: &[u8], at: usize) {
    let (scanner, events, outcome) = scan(log, bytes, &[usize::MAX]);
    let sound = outcome.is_ok() && scanner.unfinished().is_none() && scanner.log_end().is_none();
    assert!(!sound, "a wrong byte at {at} was not noticed");
    assert!(log.events.starts_with(&events), "a wrong byte at {at} made up an event");
}

#[test]
fn every_flipped_bit_of_a_log_is_noticed() {
    let log = sample();
    assert_eq!(verdict(&log, &log.bytes), Ok(()));
    for at in 0..log.bytes.len() {
        for bit in 0..8u8 {
            let mask = 1 << bit;
            if log.care[at] == Care::None || log.care[at] == Care::AllBut(mask) {
                continue;
            }
            let mut bytes = log.bytes.clone();
            bytes[at] ^= mask;
            assert_not_silent(&log, &bytes, at);
        }
    }
}

proptest! {
    #[test]
    fn any_wrong_byte_of_any_log_is_noticed(plan in plans(), at in any::<prop::sample::Index>(), mask in 1u8..) {
        let log = plan.write();
        let at = at.index(log.bytes.len());
        prop_assume!(log.care[at] == Care::Full);
        let mut bytes = log.bytes.clone();
        bytes[at] ^= mask;
        assert_not_silent(&log, &bytes, at);
    }

    #[test]
    fn a_page_of_zeros_in_any_log_is_a_hole(plan in plans(), page in any::<prop::sample::Index>()) {
        let log = plan.write();
        let page_bytes = usize::try_from(SHAPE.page_bytes).unwrap();
        let pages = log.bytes.len().div_ceil(page_bytes);
        prop_assume!(pages > 2);
        // Neither the first, without which there is no log, nor the last, which is then merely not written yet.
        let at = (1 + page.index(pages - 2)) * page_bytes;
        let mut bytes = log.bytes.clone();
        bytes[at..at + page_bytes].fill(0);
        let error = verdict(&log, &bytes);
        prop_assert!(matches!(error, Err(WalError::Hole { .. })), "{:?}", error);
    }

    #[test]
    fn arbitrary_bytes_never_pass_for_a_log(bytes in proptest::collection::vec(any::<u8>(), 100..4000)) {
        let log = sample();
        prop_assert!(verdict(&log, &bytes).is_err());
    }
}

#[test]
fn a_record_that_is_missing_or_stands_twice_is_noticed() {
    let build = |numbers: &[u32]| {
        let mut log = Writer::new(15, 3, Lsn(1 << 20));
        let mut befores = vec![log.previous];
        for number in numbers {
            // As in a log that was put together from parts: each record names the predecessor it had.
            log.previous = befores[usize::try_from(*number).unwrap().min(befores.len() - 1)];
            write(&mut log, *number, &Entry::Prepare);
            befores.push(log.previous);
        }
        log
    };
    assert_eq!(verdict(&build(&[0, 1, 2]), &build(&[0, 1, 2]).bytes), Ok(()));
    let twice = build(&[0, 1, 1]);
    let at = twice.records[2].0;
    assert_eq!(verdict(&twice, &twice.bytes), Err(WalError::Sequence { at, found: twice.records[0].0 }));
}

#[test]
fn a_page_of_another_place_system_shape_or_version_is_named() {
    let log = sample();
    let start = log.start;
    let wrong = |system: Option<u64>, shape: WalShape, start: Lsn| {
        let mut scanner = Scanner::new(shape, log.timeline, system, start).unwrap();
        scanner.feed(&log.bytes, &mut Vec::new())
    };
    assert_eq!(wrong(None, SHAPE, start), Ok(()));
    let segment = start.0.next_multiple_of(u64::from(SHAPE.segment_bytes));
    assert_eq!(
        wrong(Some(1), SHAPE, start),
        Err(WalError::System { at: Lsn(segment), found: SYSTEM, expected: 1 })
    );
    let elsewhere = Lsn(start.0 + u64::from(SHAPE.segment_bytes));
    assert_eq!(
        wrong(None, SHAPE, elsewhere),
        Err(WalError::Page { at: elsewhere, fault: PageFault::Address(start) })
    );
    let sizes = WalShape { segment_bytes: 2 << 20, page_bytes: 1 << 10 };
    // Long, and in the middle of a record.
    let fault = PageFault::Flags(3);
    let found = wrong(None, sizes, start);
    assert!(matches!(found, Err(WalError::Page { fault: found, .. }) if found == fault), "{found:?}");
    let mut old = log.bytes.clone();
    old[..2].copy_from_slice(&0xD101u16.to_le_bytes());
    assert_eq!(verdict(&log, &old), Err(WalError::Version { at: start, magic: 0xD101 }));
}

#[test]
fn sizes_and_starts_that_no_server_has_are_refused() {
    for (segment_bytes, page_bytes) in
        [(0, 8192), (16 << 20, 0), (3 << 20, 8192), (1 << 19, 8192), (1 << 20, 1 << 17)]
    {
        let shape = WalShape { segment_bytes, page_bytes };
        let refused = Scanner::new(shape, 1, None, Lsn(0)).unwrap_err();
        assert_eq!(refused, WalError::Shape { segment_bytes, page_bytes });
    }
    let refused = Scanner::new(WalShape::default(), 1, None, Lsn(8)).unwrap_err();
    assert_eq!(refused, WalError::Start { at: Lsn(8) });
}

#[test]
fn impossible_lengths_are_named() {
    for total_bytes in [1u32, 23, 1 << 30, u32::MAX] {
        let mut log = Writer::new(15, 3, Lsn(1 << 20));
        write(&mut log, 0, &Entry::Prepare);
        let at = log.records[0].0;
        let offset = usize::try_from(at.0 - log.start.0).unwrap();
        log.bytes[offset..offset + 4].copy_from_slice(&total_bytes.to_le_bytes());
        assert_eq!(verdict(&log, &log.bytes), Err(WalError::Length { at, total_bytes }));
    }
}

#[test]
fn a_record_with_the_right_checksum_and_the_wrong_build_is_named() {
    let second = server_time(time(1));
    let long_list = [&second[..], &0x12u32.to_le_bytes(), &u32::MAX.to_le_bytes(), &[0; 40]].concat();
    let drafts = [
        (0, 0x70, main_data(&[1; 72]), "restore point"),
        (0, 0x70, main_data(&[1; 20]), "restore point"),
        (0, 0x10, vec![255, 200, 1, 1], "checkpoint"),
        (1, 0x00, Vec::new(), "commit"),
        (1, 0x00, main_data(&i64::MAX.to_le_bytes()), "commit"),
        (1, 0x30, main_data(&second), "commit"),
        (1, 0xB0, main_data(&long_list), "commit"),
        (1, 0xC0, main_data(&[&second[..], &[0; 4]].concat()), "abort"),
        (1, 0x00, vec![100, 0, 0, 0], "commit"),
    ];
    for (manager, info, body, kind) in drafts {
        let mut log = Writer::new(15, 3, Lsn(1 << 20));
        let at = log.record(&Draft { manager, info, xid: 5, body }, |_, _| None);
        assert_eq!(verdict(&log, &log.bytes), Err(WalError::Content { at, kind }), "{kind} {info:02X}");
    }
}

#[test]
fn what_stands_behind_the_end_of_the_log_is_a_hole_unless_it_is_a_recycled_segment() {
    let mut log = sample();
    let end = log.position();
    log.blank();
    let (page_bytes, segment_bytes) = (u64::from(SHAPE.page_bytes), u64::from(SHAPE.segment_bytes));
    let offset = |at: Lsn| usize::try_from(at.0 - log.start.0).unwrap();
    let mut same_page = log.bytes.clone();
    let at = Lsn(end.0 + 100);
    same_page[offset(at)] = 1;
    assert_eq!(verdict(&log, &same_page), Err(WalError::Hole { end, at }));

    let page = Lsn(end.0.next_multiple_of(page_bytes) + page_bytes);
    let header = |address: u64| {
        let mut header = log.bytes[..24].to_vec();
        header[8..16].copy_from_slice(&address.to_le_bytes());
        let mut bytes = log.bytes.clone();
        bytes[offset(page)..offset(page) + 24].copy_from_slice(&header);
        bytes
    };
    assert_eq!(verdict(&log, &header(page.0)), Err(WalError::Hole { end, at: page }));
    let recycled = header(page.0 - 3 * segment_bytes);
    let (scanner, events, outcome) = scan(&log, &recycled, &[777]);
    assert_eq!((outcome, scanner.log_end(), events), (Ok(()), Some(end), log.events.clone()));
}

#[test]
fn a_record_given_up_after_a_crash_is_told_and_only_that_one() {
    let long = Draft { manager: 10, info: 0, xid: 9, body: vec![1; 5000] };
    let build = |claimed: Option<Lsn>| {
        let mut log = Writer::new(16, 3, Lsn((1 << 20) - 2048));
        write(&mut log, 0, &Entry::Prepare);
        log.broken_off(&long, claimed);
        write(&mut log, 1, &Entry::Prepare);
        log
    };
    let log = build(None);
    let (_, events, outcome) = scan(&log, &log.bytes, &[13]);
    assert_eq!((outcome, &events), (Ok(()), &log.events));
    assert!(matches!(events[1], Event::Overwritten { .. }));
    let wrong = build(Some(Lsn(64)));
    let at = wrong.records[1].0;
    assert_eq!(verdict(&wrong, &wrong.bytes), Err(WalError::Content { at, kind: "overwritten record" }));
}

#[test]
fn a_giving_up_that_no_page_announces_is_refused() {
    let mut log = Writer::new(16, 3, Lsn(1 << 20));
    let body = main_data(&[0; 16]);
    let at = log.record(&Draft { manager: 0, info: 0xD0, xid: 0, body }, |_, _| None);
    assert_eq!(verdict(&log, &log.bytes), Err(WalError::Content { at, kind: "overwritten record" }));
}
