//! Log streams end to end on memory storage: write-once, exact gaps, and damage of every byte found and named.

#![expect(clippy::unwrap_used, reason = "a helper of a test that fails, fails the test")]

use std::sync::Arc;

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::{StreamName, VaultId};
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{SignedDuration, Timestamp};
use lifeboat_keys::SigningKey;
use lifeboat_vault::crypto::MasterKey;
use lifeboat_vault::logs::{
    Gap, GapVerdict, LogName, LogObject, LogRef, Logs, LogsError, LogsLevel, LogsReport, MAX_CONTENT_BYTES,
    Position,
};
use lifeboat_vault::storage::{MemoryStorage, ObjectName, Storage};
use proptest::prelude::*;

struct Fixture {
    storage: Arc<MemoryStorage>,
    logs: Logs,
    stream: StreamName,
}

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_mins(minutes)
}

fn position(offset: u64) -> Position {
    Position::new(1, offset)
}

fn span(from: u64, to: u64) -> LogName {
    LogName::of(position(from), position(to)).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let key = MasterKey::generate(&OsEntropy);
        let logs = Logs::new(
            Arc::clone(&storage) as Arc<dyn Storage>,
            key,
            SigningKey::generate(&OsEntropy),
            VaultId::generate(&OsEntropy),
        );
        Self { storage, logs, stream: StreamName::new("wal").unwrap() }
    }

    fn put(&self, from: Position, to: Position, follows: Option<Position>, minute: i64) -> LogRef {
        self.try_put(from, to, follows, minute, format!("{from} {to}").as_bytes()).unwrap()
    }

    fn try_put(
        &self,
        first: Position,
        last: Position,
        follows: Option<Position>,
        minute: i64,
        mut content: &[u8],
    ) -> Result<LogRef, LogsError> {
        let log = LogObject {
            first,
            last,
            follows,
            history: None,
            marks: Vec::new(),
            previous: None,
            started: at(minute),
            ended: at(minute),
            content: &mut content,
        };
        self.logs.append(&self.stream, log, &OsEntropy)
    }

    /// One object per minute, each ten positions long.
    fn fill(&self, count: u64) {
        for index in 0..count {
            self.put(position(index * 10), position(index * 10 + 10), None, i64::try_from(index).unwrap());
        }
    }

    fn verdict(&self, from: Position, to: Position, level: LogsLevel) -> GapVerdict {
        self.logs.gap_verdict(&self.stream, from, to, level, &Findings::new()).unwrap()
    }

    fn verify(&self, level: LogsLevel) -> LogsReport {
        self.logs.verify(level, &Findings::new()).unwrap()
    }

    fn objects(&self) -> Vec<ObjectName> {
        self.storage.list("").unwrap().into_iter().map(|listed| listed.name).collect()
    }

    fn object(&self, name: LogName) -> ObjectName {
        self.logs.object_name(&self.stream, name)
    }

    fn flip(&self, name: &ObjectName, byte: usize, bit: u8) {
        let mut bytes = self.storage.get(name).unwrap();
        bytes[byte] ^= 1 << bit;
        self.replace(name, &bytes);
    }

    fn replace(&self, name: &ObjectName, bytes: &[u8]) {
        self.storage.remove(name).unwrap();
        self.storage.put_new(name, &[bytes]).unwrap();
    }

    fn roll_up(&self, minute: i64) -> usize {
        self.logs.roll_up(&self.stream, at(minute)).unwrap().iter().map(|rollup| rollup.entries_count).sum()
    }
}

fn gaps(verdict: &GapVerdict) -> Vec<(Position, Position)> {
    match verdict {
        GapVerdict::Contiguous => Vec::new(),
        GapVerdict::Gaps(gaps) => gaps.iter().map(|gap| (gap.from, gap.to)).collect(),
    }
}

#[test]
fn the_name_of_a_history_and_the_times_of_arrival_are_read_back_and_listed() {
    let fixture = Fixture::new();
    let log = LogObject {
        first: position(5),
        last: position(9),
        follows: None,
        history: Some("a name".to_owned()),
        marks: vec![(2, 1_800_000_000_000), (2, 150)],
        previous: None,
        started: at(0),
        ended: at(0),
        content: &mut b"four".as_slice(),
    };
    let stored = fixture.logs.append(&fixture.stream, log, &OsEntropy).unwrap();
    let (header, _) = fixture.logs.read(&fixture.stream, stored.name).unwrap();
    assert_eq!(header.history.as_deref(), Some("a name"));
    assert_eq!(header.marks, [(2, 1_800_000_000_000), (2, 150)]);
    let named = || {
        let inventory =
            fixture.logs.inventory(&fixture.stream, LogsLevel::Readable, &Findings::new()).unwrap();
        assert_eq!(inventory.damaged, []);
        inventory.pieces[0].history.clone()
    };
    assert_eq!(named().as_deref(), Some("a name"));
    assert_eq!(fixture.roll_up(120), 1);
    assert_eq!(named().as_deref(), Some("a name"));
}

#[test]
fn what_was_appended_is_read_back_with_its_header() {
    let fixture = Fixture::new();
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let stored = fixture.try_put(position(5), position(9), None, 0, &content).unwrap();
    let (header, read) = fixture.logs.read(&fixture.stream, stored.name).unwrap();
    assert_eq!(read, content);
    assert_eq!((header.first, header.last, header.plain_bytes), (position(5), position(9), 800_000));
    let object = fixture.storage.get(&fixture.object(stored.name)).unwrap();
    assert_eq!(object.len() as u64, stored.stored_bytes);
    assert!(object.starts_with(b"LBLOG1"));
    assert_eq!(lifeboat_base::digest::Digest::of(&object), stored.sha256);
}

#[test]
fn appending_the_same_again_is_success_and_other_content_is_refused() {
    let fixture = Fixture::new();
    let first = fixture.try_put(position(0), position(9), None, 0, b"one").unwrap();
    let again = fixture.try_put(position(0), position(9), None, 0, b"one").unwrap();
    assert_eq!(again, LogRef { existed: true, ..first.clone() });
    let error = fixture.try_put(position(0), position(9), None, 0, b"two").unwrap_err();
    assert!(matches!(error, LogsError::Conflict { .. }), "{error}");
    assert_eq!(error.kind(), FailureKind::Refused);
    assert_eq!(fixture.logs.read(&fixture.stream, first.name).unwrap().1, b"one");
    fixture.flip(&fixture.object(first.name), 40, 0);
    let error = fixture.try_put(position(0), position(9), None, 0, b"one").unwrap_err();
    assert_eq!(error.kind(), FailureKind::Damaged);
}

#[test]
fn spans_that_make_no_sense_are_refused_and_store_nothing() {
    let fixture = Fixture::new();
    let put = |from, to, follows| fixture.try_put(from, to, follows, 0, b"x").unwrap_err().kind();
    assert_eq!(put(position(5), position(5), None), FailureKind::Refused);
    assert_eq!(put(position(5), Position::new(2, 9), None), FailureKind::Refused);
    assert_eq!(put(position(5), position(9), Some(position(5))), FailureKind::Refused);
    assert_eq!(fixture.objects(), []);
}

#[test]
fn content_above_the_limit_is_refused_and_stores_nothing() {
    let fixture = Fixture::new();
    let mut endless = std::io::Read::take(std::io::repeat(7), MAX_CONTENT_BYTES + 1);
    let log = LogObject {
        first: position(0),
        last: position(1),
        follows: None,
        history: None,
        marks: Vec::new(),
        previous: None,
        started: at(0),
        ended: at(0),
        content: &mut endless,
    };
    let error = fixture.logs.append(&fixture.stream, log, &OsEntropy).unwrap_err();
    assert!(matches!(error, LogsError::TooLarge { limit_bytes: MAX_CONTENT_BYTES }), "{error}");
    assert_eq!(fixture.objects(), []);
}

#[test]
fn a_roll_up_lists_closed_hours_once_and_late_objects_in_another_part() {
    let fixture = Fixture::new();
    // 1_800_000_000 is on a full hour: minutes 0 to 59 are one hour.
    assert_eq!(at(0).as_second() % 3600, 0);
    fixture.fill(70);
    assert_eq!(fixture.roll_up(64), 0);
    assert_eq!(fixture.roll_up(66), 60);
    assert_eq!(fixture.roll_up(66), 0);
    fixture.put(position(700), position(710), None, 30);
    assert_eq!(fixture.roll_up(66), 1);
    let rollups: Vec<_> = fixture
        .objects()
        .iter()
        .filter(|n| n.as_str().contains("rollup"))
        .map(|n| n.base_name().to_owned())
        .collect();
    assert_eq!(rollups.len(), 2);
    assert!(rollups.iter().any(|name| name.ends_with("-2.json")), "{rollups:?}");
    assert_eq!(fixture.verdict(position(0), position(710), LogsLevel::Readable), GapVerdict::Contiguous);
}

#[test]
fn an_object_dropped_from_a_closed_hour_is_a_gap_that_names_it_without_reading_objects() {
    let fixture = Fixture::new();
    fixture.fill(60);
    fixture.roll_up(66);
    fixture.storage.remove(&fixture.object(span(300, 310))).unwrap();
    let inventory = fixture.logs.inventory(&fixture.stream, LogsLevel::Listed, &Findings::new()).unwrap();
    assert_eq!(inventory.read_count, 1, "only the roll-up is read");
    let gap = Gap { from: position(300), to: position(310), lost: vec![span(300, 310)] };
    assert_eq!(inventory.gap_verdict(position(0), position(600)).unwrap(), GapVerdict::Gaps(vec![gap]));
    let report = fixture.verify(LogsLevel::Listed);
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(report.damaged[0].object, fixture.object(span(300, 310)));
}

#[test]
fn every_flipped_byte_and_every_cut_of_every_object_is_found_and_named() {
    let fixture = Fixture::new();
    fixture.fill(2);
    fixture.roll_up(66);
    fixture.put(position(20), position(30), None, 61);
    assert_eq!(fixture.verify(LogsLevel::Readable).damaged, []);
    for object in fixture.objects() {
        let bytes = fixture.storage.get(&object).unwrap();
        for index in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[index] ^= 1;
            fixture.replace(&object, &altered);
            let damaged = fixture.verify(LogsLevel::Readable).damaged;
            assert!(
                damaged.iter().any(|damage| damage.object == object),
                "{object} byte {index}: {damaged:?}"
            );
        }
        fixture.replace(&object, &bytes[..bytes.len() - 1]);
        let damaged = fixture.verify(LogsLevel::Listed).damaged;
        assert!(damaged.iter().any(|damage| damage.object == object), "{object} cut: {damaged:?}");
        fixture.replace(&object, &bytes);
        fixture.logs.check_object(&object, &bytes).unwrap();
    }
    assert_eq!(fixture.verify(LogsLevel::Readable).damaged, []);
}

#[test]
fn an_object_moved_to_another_name_or_stream_is_damage_there() {
    let fixture = Fixture::new();
    fixture.fill(1);
    let bytes = fixture.storage.get(&fixture.object(span(0, 10))).unwrap();
    for place in
        ["wal/00000001-0000000000000000-00000000000000ff", "other/00000001-0000000000000000-000000000000000a"]
    {
        let name = ObjectName::new(format!("lifeboat/logs/{place}")).unwrap();
        fixture.storage.put_new(&name, &[&bytes]).unwrap();
        let damaged = fixture.verify(LogsLevel::Listed).damaged;
        assert_eq!(damaged.iter().map(|d| &d.object).collect::<Vec<_>>(), [&name]);
        fixture.storage.remove(&name).unwrap();
    }
    assert_eq!(
        fixture.verdict(position(0), position(255), LogsLevel::Listed),
        GapVerdict::Gaps(vec![Gap { from: position(10), to: position(255), lost: vec![] },])
    );
}

#[test]
fn a_roll_up_signed_by_another_key_is_damage_and_its_objects_are_read_instead() {
    let fixture = Fixture::new();
    fixture.fill(60);
    fixture.roll_up(66);
    let rollup = fixture.objects().into_iter().find(|name| name.as_str().contains("rollup")).unwrap();
    let other = Fixture::new();
    other.fill(60);
    other.roll_up(66);
    fixture.replace(&rollup, &other.storage.get(&rollup).unwrap());
    let report = fixture.verify(LogsLevel::Listed);
    assert_eq!(report.damaged.iter().map(|d| &d.object).collect::<Vec<_>>(), [&rollup]);
    assert_eq!(fixture.verdict(position(0), position(600), LogsLevel::Listed), GapVerdict::Contiguous);
}

#[test]
fn a_declared_timeline_switch_joins_and_an_undeclared_one_is_a_gap() {
    let fixture = Fixture::new();
    let (one, two) = (|offset| Position::new(1, offset), |offset| Position::new(2, offset));
    fixture.put(one(0), one(100), None, 0);
    fixture.put(one(100), one(200), None, 1);
    fixture.put(two(150), two(250), None, 2);
    assert_eq!(gaps(&fixture.verdict(one(0), two(250), LogsLevel::Listed)), [(one(200), two(150))]);
    fixture.put(two(140), two(150), Some(one(140)), 3);
    assert_eq!(fixture.verdict(one(0), two(250), LogsLevel::Listed), GapVerdict::Contiguous);
    // What the old timeline holds beyond the switch is not part of the new history.
    assert_eq!(gaps(&fixture.verdict(one(180), two(250), LogsLevel::Listed)), [(one(180), one(140))]);
    let ranges = fixture.logs.ranges(&fixture.stream, &Findings::new()).unwrap();
    let ends: Vec<_> = ranges.iter().map(|range| (range.from, range.to)).collect();
    assert_eq!(ends, [(one(0), one(200)), (one(0), two(250))]);
}

#[test]
fn a_successor_notices_that_its_predecessor_was_replaced() {
    let fixture = Fixture::new();
    let first = fixture.try_put(position(0), position(10), None, 0, b"true").unwrap();
    let mut content: &[u8] = b"next";
    let log = LogObject {
        first: position(10),
        last: position(20),
        follows: None,
        history: None,
        marks: Vec::new(),
        previous: Some(first.link()),
        started: at(1),
        ended: at(1),
        content: &mut content,
    };
    fixture.logs.append(&fixture.stream, log, &OsEntropy).unwrap();
    assert_eq!(fixture.verify(LogsLevel::Readable).damaged, []);
    fixture.storage.remove(&fixture.object(first.name)).unwrap();
    fixture.try_put(position(0), position(10), None, 0, b"false").unwrap();
    let damaged = fixture.verify(LogsLevel::Readable).damaged;
    assert_eq!(damaged.iter().map(|d| &d.object).collect::<Vec<_>>(), [&fixture.object(first.name)]);
    assert_eq!(
        gaps(&fixture.verdict(position(0), position(20), LogsLevel::Listed)),
        [(position(0), position(10))]
    );
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Kept,
    Dropped,
    Flipped(usize, u8),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Kept),
        1 => Just(Fate::Dropped),
        1 => (any::<usize>(), 0u8..8).prop_map(|(byte, bit)| Fate::Flipped(byte, bit)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_verdict_names_exactly_what_was_dropped_or_altered(
        objects in prop::collection::vec((1u64..50, fate()), 1..40),
        minutes_apart in 1i64..10,
        rolled_up_at in prop::option::of(0i64..400),
    ) {
        let fixture = Fixture::new();
        let mut start = 0;
        let mut names = Vec::new();
        for (index, (length, _)) in objects.iter().enumerate() {
            let minute = i64::try_from(index).unwrap() * minutes_apart;
            names.push(fixture.put(position(start), position(start + length), None, minute).name);
            start += length;
        }
        if let Some(minute) = rolled_up_at {
            fixture.roll_up(minute);
        }
        let mut expected: Vec<(Position, Position)> = Vec::new();
        let mut altered = Vec::new();
        for (name, (_, fate)) in names.iter().zip(&objects) {
            let object = fixture.object(*name);
            match *fate {
                Fate::Kept => continue,
                Fate::Dropped => fixture.storage.remove(&object).unwrap(),
                Fate::Flipped(byte, bit) => {
                    let length = fixture.storage.get(&object).unwrap().len();
                    fixture.flip(&object, byte % length, bit);
                    altered.push(object);
                }
            }
            match expected.last_mut() {
                Some(open) if open.1 == name.first() => open.1 = name.last(),
                _ => expected.push((name.first(), name.last())),
            }
        }
        let verdict = fixture.verdict(position(0), position(start), LogsLevel::Readable);
        prop_assert_eq!(gaps(&verdict), expected.clone());
        let checksummed = fixture.verdict(position(0), position(start), LogsLevel::Checksummed);
        prop_assert_eq!(gaps(&checksummed), expected);
        let named: Vec<_> = fixture.verify(LogsLevel::Readable).damaged.into_iter().map(|d| d.object).collect();
        for object in &altered {
            prop_assert!(named.contains(object), "{} is not named", object);
        }
        for (name, (_, fate)) in names.iter().zip(&objects) {
            if *fate == Fate::Kept {
                prop_assert!(!named.contains(&fixture.object(*name)), "{name} is whole");
            }
        }
    }
}
