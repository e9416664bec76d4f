//! Random logs of every version, scanned in random pieces: what was written is what is found, no more and no less.

use std::ops::Range;

use lifeboat_postgres::Lsn;
use lifeboat_postgres::wal::{Event, Scanner, TimelineHistory, WalError, WalLevel};
use proptest::prelude::*;

use super::writer::{Draft, SHAPE, SYSTEM, VERSIONS, Writer, main_data, main_header, server_time, time};

/// A kind of record, with the numbers that make it up.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Noise { manager: u8, info: u8, length: usize },
    Pages { image_bytes: Vec<u16>, compressed: bool, commit: bool },
    Transaction { prepared: bool, abort: bool, parts: u32, count: u32 },
    Prepare,
    RestorePoint { name: String },
    Checkpoint { shutdown: bool },
    EndOfRecovery,
    BackupEnd,
    Settings { level: usize },
}

pub(super) fn entries(count: Range<usize>) -> impl Strategy<Value = Vec<Entry>> {
    let noise = (2u8..22, any::<u8>(), prop_oneof![0usize..300, 0usize..9000])
        .prop_map(|(manager, info, length)| Entry::Noise { manager, info, length });
    let pages = (proptest::collection::vec(0u16..700, 0..33), any::<bool>(), any::<bool>())
        .prop_map(|(image_bytes, compressed, commit)| Entry::Pages { image_bytes, compressed, commit });
    let transaction = (any::<bool>(), any::<bool>(), 0u32..512, 0u32..200)
        .prop_map(|(prepared, abort, parts, count)| Entry::Transaction { prepared, abort, parts, count });
    let entry = prop_oneof![
        4 => noise,
        2 => pages,
        4 => transaction,
        1 => Just(Entry::Prepare),
        1 => "[a-z]{0,63}".prop_map(|name| Entry::RestorePoint { name }),
        1 => any::<bool>().prop_map(|shutdown| Entry::Checkpoint { shutdown }),
        1 => Just(Entry::EndOfRecovery),
        1 => Just(Entry::BackupEnd),
        1 => (0usize..3).prop_map(|level| Entry::Settings { level }),
    ];
    proptest::collection::vec(entry, count)
}

/// Writes one entry as record number `number`.
pub(super) fn write(log: &mut Writer, number: u32, entry: &Entry) {
    let (xid, at) = (1000 + number, time(i64::from(number)));
    let second = server_time(at);
    let xlog = |info: u8, main: &[u8]| Draft { manager: 0, info, xid: 0, body: main_data(main) };
    match entry {
        Entry::Noise { manager, info, length } => {
            let body = (0..*length).map(|at| u8::try_from(at % 251).unwrap() ^ *info).collect();
            log.record(&Draft { manager: *manager, info: *info, xid, body }, |_, _| None);
        }
        Entry::Pages { image_bytes, compressed, commit } => {
            let body = with_pages(log.major, image_bytes, *compressed, &second);
            let manager = u8::from(*commit);
            let info = if *commit { 0 } else { 0xA0 };
            let event = |lsn, end| commit.then_some(Event::Commit { lsn, end, xid, at });
            log.record(&Draft { manager, info, xid, body }, event);
        }
        Entry::Transaction { prepared, abort, parts, count } => {
            let main = transaction(log.major, &second, *prepared, *abort, *parts, *count, xid);
            let opcode = [[0x00, 0x20], [0x30, 0x40]][usize::from(*prepared)][usize::from(*abort)];
            let has_info = if *prepared || *parts != 0 { 0x80 } else { 0 };
            let header_xid = if *prepared { 0 } else { xid };
            let draft =
                Draft { manager: 1, info: opcode | has_info, xid: header_xid, body: main_data(&main) };
            log.record(&draft, |lsn, end| {
                Some(if *abort {
                    Event::Abort { lsn, end, xid, at }
                } else {
                    Event::Commit { lsn, end, xid, at }
                })
            });
        }
        Entry::Prepare => {
            let main = [&[9u8; 8][..], &xid.to_le_bytes(), &[5; 4], &second, &[7; 400]].concat();
            let draft = Draft { manager: 1, info: 0x10, xid: 0, body: main_data(&main) };
            log.record(&draft, |lsn, end| Some(Event::Prepare { lsn, end, xid, at }));
        }
        Entry::RestorePoint { name } => {
            let mut main = [&second[..], name.as_bytes()].concat();
            main.resize(72, 0);
            let name = name.clone();
            log.record(&xlog(0x70, &main), |lsn, end| Some(Event::RestorePoint { lsn, end, name, at }));
        }
        Entry::Checkpoint { shutdown } => {
            let redo = Lsn(log.position().0.saturating_sub(64));
            let main =
                [&redo.0.to_le_bytes()[..], &3u32.to_le_bytes(), &2u32.to_le_bytes(), &[1; 72]].concat();
            let (timeline, previous_timeline, shutdown) = (3, 2, *shutdown);
            log.record(&xlog(if shutdown { 0 } else { 0x10 }, &main), |lsn, end| {
                Some(Event::Checkpoint { lsn, end, redo, timeline, previous_timeline, shutdown })
            });
        }
        Entry::EndOfRecovery => {
            let main = [&second[..], &9u32.to_le_bytes(), &8u32.to_le_bytes()].concat();
            let (timeline, previous_timeline) = (9, 8);
            log.record(&xlog(0x90, &main), |lsn, end| {
                Some(Event::EndOfRecovery { lsn, end, timeline, previous_timeline, at })
            });
        }
        Entry::BackupEnd => {
            let start = Lsn(u64::from(number));
            log.record(&xlog(0x50, &start.0.to_le_bytes()), |lsn, end| {
                Some(Event::BackupEnd { lsn, end, start })
            });
        }
        Entry::Settings { level } => {
            let main = [&[3; 20][..], &u32::try_from(*level).unwrap().to_le_bytes(), &[1, 1, 0, 0]].concat();
            let level = [WalLevel::Minimal, WalLevel::Replica, WalLevel::Logical][*level];
            log.record(&xlog(0x60, &main), |lsn, end| Some(Event::Settings { lsn, end, level }));
        }
    }
}

/// A commit behind page references of every build: with and without image, hole, data and relation.
fn with_pages(major: u32, image_bytes: &[u16], compressed: bool, main: &[u8]) -> Vec<u8> {
    let (mut head, mut data) = (vec![252, 1, 2, 3, 4, 253, 9, 9], Vec::new());
    for (index, length) in image_bytes.iter().enumerate() {
        let (has_image, same_relation, has_hole) = (index % 4 != 3, index % 2 == 1, index % 3 == 0);
        let flags = if has_image { 0x10 } else { 0 } | if same_relation { 0x80 } else { 0 } | 0x20;
        head.extend_from_slice(&[u8::try_from(index).unwrap(), flags, 5, 0]);
        data.extend_from_slice(&[0xAA; 5]);
        if has_image {
            head.extend_from_slice(&length.to_le_bytes());
            // Version 15 has three methods of compression, where version 14 has one under another number.
            let method = if major >= 15 { [0x04, 0x08, 0x10][index % 3] } else { 0x02 };
            let apply = if major >= 15 { 0x02 } else { 0x04 };
            let method = if compressed { method } else { 0 };
            head.extend_from_slice(&[0, 1, u8::from(has_hole) | method | apply]);
            head.extend_from_slice(if compressed && has_hole { &[7, 0] } else { &[] });
            data.resize(data.len() + usize::from(*length), 0xBB);
        }
        head.extend_from_slice(if same_relation { &[] } else { &[1; 12] });
        head.extend_from_slice(&[2; 4]);
    }
    [&head[..], &main_header(main.len()), &data, main].concat()
}

/// The main data of a commit or rollback; `parts` are bits of its optional parts, lists of `count` items each.
fn transaction(
    major: u32,
    second: &[u8],
    prepared: bool,
    abort: bool,
    parts: u32,
    count: u32,
    xid: u32,
) -> Vec<u8> {
    let known = if major >= 15 { 0x1FF } else { 0xFF };
    let invalidations = if abort { 0 } else { 8 };
    let has_info = prepared || parts != 0;
    let parts = (parts & known & !0x18) | (parts & invalidations) | if prepared { 0x10 } else { 0 };
    let statistic_bytes = if major >= 18 { 16 } else { 12 };
    let mut main = second.to_vec();
    main.extend_from_slice(&parts.to_le_bytes());
    let list = |main: &mut Vec<u8>, bit: u32, item_bytes: u32| {
        if parts & bit != 0 {
            main.extend_from_slice(&count.to_le_bytes());
            main.resize(main.len() + usize::try_from(count * item_bytes).unwrap(), 0xCC);
        }
    };
    main.extend_from_slice(if parts & 1 != 0 { &[4; 8] } else { &[] });
    list(&mut main, 2, 4);
    list(&mut main, 4, 12);
    list(&mut main, 0x100, statistic_bytes);
    list(&mut main, 8, 16);
    main.extend_from_slice(&if prepared { xid.to_le_bytes().to_vec() } else { Vec::new() });
    main.extend_from_slice(if parts & 0x80 != 0 { b"gid\0" } else { &[] });
    main.extend_from_slice(if parts & 0x20 != 0 { &[6; 16] } else { &[] });
    if has_info { main } else { second.to_vec() }
}

/// A log that starts `pages` before the end of a segment, maybe in the middle of a record.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) version: usize,
    pub(super) pages: u64,
    pub(super) rest_bytes: usize,
    pub(super) entries: Vec<Entry>,
}

pub(super) fn plans() -> impl Strategy<Value = Plan> {
    let rest = prop_oneof![Just(0usize), 1usize..40, 1000usize..4000];
    (0..VERSIONS.len(), 0u64..12, rest, entries(1..40))
        .prop_map(|(version, pages, rest_bytes, entries)| Plan { version, pages, rest_bytes, entries })
}

impl Plan {
    pub(super) fn write(&self) -> Writer {
        let start = Lsn(9 * u64::from(SHAPE.segment_bytes) - self.pages * u64::from(SHAPE.page_bytes));
        let mut log = Writer::new(VERSIONS[self.version].0, 3, start);
        log.rest(&vec![0xEE; self.rest_bytes]);
        for (number, entry) in self.entries.iter().enumerate() {
            write(&mut log, u32::try_from(number).unwrap(), entry);
        }
        log
    }
}

pub(super) fn scanner(log: &Writer) -> Scanner {
    let history = TimelineHistory::root(log.timeline);
    Scanner::new(SHAPE, log.timeline, Some(SYSTEM), log.start).unwrap().with_history(history)
}

/// A scan of `bytes` as the bytes of `log`, in pieces of these lengths over and over.
pub(super) fn scan(
    log: &Writer,
    bytes: &[u8],
    pieces: &[usize],
) -> (Scanner, Vec<Event>, Result<(), WalError>) {
    let (mut scanner, mut events, mut rest) = (scanner(log), Vec::new(), bytes);
    for piece in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((*piece).min(rest.len()));
        if let Err(error) = scanner.feed(now, &mut events) {
            assert_eq!(scanner.feed(&[0], &mut events), Err(error.clone()), "an error is final");
            return (scanner, events, Err(error));
        }
        rest = later;
    }
    (scanner, events, Ok(()))
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    let piece = prop_oneof![Just(1usize), 1usize..30, 1usize..3000, Just(usize::MAX)];
    proptest::collection::vec(piece, 1..20)
}

proptest! {
    #[test]
    fn a_log_in_any_pieces_gives_exactly_what_was_written(plan in plans(), pieces in pieces()) {
        let log = plan.write();
        let (scanner, events, outcome) = scan(&log, &log.bytes, &pieces);
        prop_assert_eq!(outcome, Ok(()));
        prop_assert_eq!(events, log.events.clone());
        prop_assert_eq!(scanner.position(), log.position());
        prop_assert_eq!(scanner.first_record(), log.records.first().map(|record| record.0));
        prop_assert_eq!(scanner.last_record(), log.records.last().map(|record| record.0));
        prop_assert_eq!(scanner.record_end(), Some(log.end()));
        prop_assert_eq!((scanner.unfinished(), scanner.log_end()), (None, None));
        prop_assert_eq!(scanner.major(), Some(log.major));
    }

    #[test]
    fn a_log_cut_anywhere_is_unfinished_and_not_wrong(plan in plans(), at in any::<prop::sample::Index>()) {
        let log = plan.write();
        let cut = at.index(log.bytes.len() + 1);
        let position = Lsn(log.start.0 + cut as u64);
        let (scanner, events, outcome) = scan(&log, &log.bytes[..cut], &[usize::MAX]);
        prop_assert_eq!(outcome, Ok(()));
        let whole: Vec<_> = log.records.iter().filter(|record| record.1 <= position).collect();
        let expected: Vec<Event> =
            log.events.iter().filter(|event| whole.iter().any(|record| record.0 == event.lsn())).cloned().collect();
        prop_assert_eq!(events, expected);
        prop_assert_eq!(scanner.record_end(), whole.last().map(|record| record.2));
        let cut_record = log.records.iter().find(|record| record.0 < position && position < record.1);
        prop_assert_eq!(scanner.unfinished(), cut_record.map(|record| record.0));
    }

    #[test]
    fn zeros_after_the_last_record_are_the_end_of_what_was_written(plan in plans()) {
        let mut log = plan.write();
        let end = log.position();
        log.blank();
        let (scanner, events, outcome) = scan(&log, &log.bytes, &[1000]);
        prop_assert_eq!(outcome, Ok(()));
        prop_assert_eq!(events, log.events.clone());
        let full = end.0.is_multiple_of(u64::from(SHAPE.segment_bytes));
        prop_assert_eq!(scanner.log_end(), (!full).then_some(end));
        prop_assert_eq!(scanner.record_end(), Some(end));
    }

    #[test]
    fn a_scan_that_starts_at_any_page_finds_what_starts_there(plan in plans(), page in 0usize..30) {
        let log = plan.write();
        let skip = page * usize::try_from(SHAPE.page_bytes).unwrap();
        prop_assume!(skip < log.bytes.len());
        let start = Lsn(log.start.0 + skip as u64);
        let mut scanner = Scanner::new(SHAPE, log.timeline, Some(SYSTEM), start).unwrap();
        let mut events = Vec::new();
        prop_assert_eq!(scanner.feed(&log.bytes[skip..], &mut events), Ok(()));
        let expected: Vec<Event> = log.events.iter().filter(|event| event.lsn() >= start).cloned().collect();
        prop_assert_eq!(events, expected);
    }
}
