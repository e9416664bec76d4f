//! Segment files under their own name, and under every wrong one.

use lifeboat_base::failure::FailureKind;
use lifeboat_postgres::Lsn;
use lifeboat_postgres::lsn::segment_name;
use lifeboat_postgres::wal::{SegmentScan, WalError, check_segment};

use super::logs::{Entry, write};
use super::writer::{SHAPE, SYSTEM, Writer};

const SEGMENT: usize = 1 << 20;

/// A full segment; its last record goes on in the next.
fn full() -> (String, Writer) {
    let mut log = Writer::new(16, 3, Lsn(7 << 20));
    let mut number = 0;
    while log.bytes.len() < SEGMENT - 9000 {
        write(&mut log, number, &Entry::Noise { manager: 10, info: 0, length: 8000 });
        write(&mut log, number, &Entry::Prepare);
        number += 1;
    }
    write(&mut log, number, &Entry::Noise { manager: 10, info: 0, length: 20_000 });
    log.bytes.truncate(SEGMENT);
    (segment_name(3, log.start, SHAPE.segment_bytes), log)
}

#[test]
fn a_segment_under_its_own_name_gives_its_facts() {
    let (name, log) = full();
    let mut events = Vec::new();
    let facts = check_segment(&name, &log.bytes, Some(SYSTEM), &mut events).unwrap();
    assert_eq!(events, log.events);
    assert_eq!((facts.timeline, facts.start, facts.major, facts.shape), (3, log.start, 16, SHAPE));
    assert_eq!((facts.system_identifier, facts.switched, facts.log_end), (SYSTEM, false, None));
    let last = &log.records[log.records.len() - 2..];
    assert_eq!((facts.record_end, facts.unfinished), (Some(last[0].2), Some(last[1].0)));
    assert_eq!(facts.first_record, Some(log.records[0].0));

    let mut scan = SegmentScan::new(&name, None);
    let mut pieces = Vec::new();
    for piece in log.bytes.chunks(17) {
        scan.feed(piece, &mut pieces).unwrap();
    }
    assert_eq!((scan.finish(), pieces), (Ok(facts), events));
}

#[test]
fn a_segment_under_another_name_is_refused() {
    let (name, log) = full();
    let refused = |name: &str| check_segment(name, &log.bytes, None, &mut Vec::new()).unwrap_err();
    assert!(matches!(refused("000000030000000000000008"), WalError::Page { .. }), "another position");
    assert!(matches!(refused("000000020000000000000007"), WalError::Timeline { found: 3, expected: 2, .. }));
    for name in ["", "00000003.history", &name[..23], &format!("{name}.partial"), &name.replace('3', "x")] {
        let error = refused(name);
        assert_eq!(error, WalError::Name { name: name.to_owned(), segment_bytes: SHAPE.segment_bytes });
        assert_eq!(error.kind(), FailureKind::Refused);
    }
}

#[test]
fn a_segment_of_another_system_is_refused() {
    let (name, log) = full();
    let error = check_segment(&name, &log.bytes, Some(SYSTEM + 1), &mut Vec::new()).unwrap_err();
    assert_eq!(error, WalError::System { at: log.start, found: SYSTEM, expected: SYSTEM + 1 });
}

#[test]
fn a_segment_that_is_too_short_or_too_long_is_refused() {
    let (name, log) = full();
    let longer = [&log.bytes[..], &[0]].concat();
    for (bytes, segment_bytes) in [
        (&log.bytes[..0], 0),
        (&log.bytes[..39], 0),
        (&log.bytes[..SEGMENT - 1], 1 << 20),
        (&longer, 1 << 20),
    ] {
        let error = check_segment(&name, bytes, None, &mut Vec::new()).unwrap_err();
        let found_bytes = bytes.len() as u64;
        assert_eq!(error, WalError::FileLength { name: name.clone(), found_bytes, segment_bytes });
    }
}

#[test]
fn a_segment_that_is_not_full_says_so() {
    let mut log = Writer::new(16, 3, Lsn(7 << 20));
    write(&mut log, 0, &Entry::Prepare);
    let end = log.end();
    log.blank();
    let name = segment_name(3, log.start, SHAPE.segment_bytes);
    let facts = check_segment(&name, &log.bytes, None, &mut Vec::new()).unwrap();
    assert_eq!((facts.log_end, facts.record_end, facts.switched), (Some(end), Some(end), false));

    let mut log = Writer::new(16, 3, Lsn(7 << 20));
    log.switch(0);
    let facts = check_segment(&name, &log.bytes, None, &mut Vec::new()).unwrap();
    assert_eq!((facts.log_end, facts.switched), (None, true));
}

#[test]
fn something_that_is_no_log_at_all_is_refused() {
    for byte in [0u8, 0xFF] {
        let bytes = vec![byte; SEGMENT];
        let error = check_segment("000000030000000000000007", &bytes, None, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, WalError::Page { .. }), "{error:?}");
        assert_eq!(error.kind(), FailureKind::Damaged);
    }
}
