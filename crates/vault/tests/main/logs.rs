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
    Carried, Gap, GapVerdict, LogName, LogObject, LogPiece, LogRef, Logs, LogsError, LogsLevel, LogsReport,
    MAX_CONTENT_BYTES, Position,
};
use lifeboat_vault::storage::{MemoryStorage, ObjectName, Storage};
use proptest::prelude::*;

struct Fixture {
    storage: Arc<MemoryStorage>,
    logs: Logs,
    stream: StreamName,
    key: MasterKey,
    signing: SigningKey,
    vault: VaultId,
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
        let (signing, vault) = (SigningKey::generate(&OsEntropy), VaultId::generate(&OsEntropy));
        let dynamic = Arc::clone(&storage) as Arc<dyn Storage>;
        let logs = Logs::new(dynamic, key.clone(), signing.clone(), vault.clone());
        Self { storage, logs, stream: StreamName::new("wal").unwrap(), key, signing, vault }
    }

    /// Another copy of the same vault, with nothing in it.
    fn empty_copy(&self) -> Logs {
        let storage = Arc::new(MemoryStorage::new()) as Arc<dyn Storage>;
        Logs::new(storage, self.key.clone(), self.signing.clone(), self.vault.clone())
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

fn piece(name: LogName, content: &[u8]) -> LogPiece<'_> {
    let (history, marks) = (None, Vec::new());
    LogPiece { name, follows: None, history, marks, started: at(0), ended: at(0), content }
}

#[test]
fn what_a_damaged_object_held_comes_back_beside_it_and_the_damage_stays_named_until_it_is_removed() {
    let fixture = Fixture::new();
    fixture.fill(3);
    let (content, victim) = (b"0123456789", span(10, 20));
    fixture.storage.remove(&fixture.object(victim)).unwrap();
    fixture.try_put(position(10), position(20), None, 1, content).unwrap();
    assert_eq!(fixture.roll_up(66), 3);
    fixture.flip(&fixture.object(victim), 40, 0);
    let heal = || fixture.logs.append_beside(&fixture.stream, piece(victim, content), &OsEntropy);
    let names = |stored: Vec<LogRef>| stored.into_iter().map(|stored| stored.name).collect::<Vec<_>>();
    assert_eq!(names(heal().unwrap()), [span(10, 15), span(15, 20)]);
    assert!(heal().unwrap().iter().all(|stored| stored.existed));
    assert_eq!(fixture.verdict(position(0), position(30), LogsLevel::Readable), GapVerdict::Contiguous);
    let named = |level| {
        let report = fixture.verify(level);
        report.damaged.into_iter().map(|damage| damage.object).collect::<Vec<_>>()
    };
    assert_eq!(named(LogsLevel::Readable), [fixture.object(victim)]);
    // A half is damaged as well.
    fixture.flip(&fixture.object(span(15, 20)), 40, 0);
    assert_eq!(names(heal().unwrap()), [span(10, 15), span(15, 17), span(17, 20)]);
    assert_eq!(fixture.verdict(position(0), position(30), LogsLevel::Readable), GapVerdict::Contiguous);
    // Removed by hand: what the roll-up lists is gone, and nothing is missing.
    fixture.storage.remove(&fixture.object(victim)).unwrap();
    fixture.storage.remove(&fixture.object(span(15, 20))).unwrap();
    assert_eq!(named(LogsLevel::Readable), []);
    assert_eq!(fixture.verdict(position(0), position(30), LogsLevel::Readable), GapVerdict::Contiguous);
    // Unless a part of it is.
    fixture.storage.remove(&fixture.object(span(15, 17))).unwrap();
    assert_eq!(named(LogsLevel::Readable), [fixture.object(victim)]);
}

#[test]
fn halves_keep_the_name_of_the_history_and_the_arrivals_that_fall_into_them() {
    // Arrivals as (offset, moment): at 3 and 6, or, in the other piece, all before its middle, or at its very end.
    let cases: [(&[(u64, i64)], _, _); 4] = [
        (&[(103, 50), (106, 80), (110, 95)], vec![(103, 50), (105, 80)], vec![(106, 80), (110, 95)]),
        (&[(103, 50), (105, 70)], vec![(103, 50), (105, 70)], vec![]),
        (&[(110, 95)], vec![(105, 95)], vec![(110, 95)]),
        (&[], vec![], vec![]),
    ];
    for (arrivals, early, late) in cases {
        let fixture = Fixture::new();
        let victim = span(100, 110);
        fixture.put(victim.first(), victim.last(), None, 0);
        fixture.flip(&fixture.object(victim), 40, 0);
        let (mut offset, mut moment) = (100, 0);
        let mut marks = Vec::new();
        for (reached, when) in arrivals {
            marks.push((reached - offset, when - moment));
            (offset, moment) = (*reached, *when);
        }
        let other = fixture.empty_copy();
        let log = LogObject {
            first: victim.first(),
            last: victim.last(),
            follows: None,
            history: Some("a name".to_owned()),
            marks,
            previous: None,
            started: at(0),
            ended: at(0),
            content: &mut b"0123456789".as_slice(),
        };
        other.append(&fixture.stream, log, &OsEntropy).unwrap();
        let stored = other.carry_beside(&fixture.stream, victim, &fixture.logs, &OsEntropy).unwrap();
        let halves = stored.iter().map(|stored| {
            let (header, _) = fixture.logs.read(&fixture.stream, stored.name).unwrap();
            assert_eq!(header.history.as_deref(), Some("a name"));
            let (mut offset, mut moment) = (header.first.offset, 0);
            let mut arrivals = Vec::new();
            for (more, later) in header.marks {
                (offset, moment) = (offset + more, moment + later);
                arrivals.push((offset, moment));
            }
            (stored.name, arrivals)
        });
        let expected = [(span(100, 105), early), (span(105, 110), late)];
        assert_eq!(halves.collect::<Vec<_>>(), expected, "{arrivals:?}");
    }
}

#[test]
fn healing_keeps_how_a_timeline_was_entered_and_gives_up_where_nothing_can_be_cut() {
    let fixture = Fixture::new();
    fixture.put(position(0), position(10), None, 0);
    let place = |offset| Position::new(2, offset);
    let name = LogName::of(place(10), place(14)).unwrap();
    fixture.try_put(place(10), place(14), Some(position(10)), 0, b"abcd").unwrap();
    fixture.flip(&fixture.object(name), 40, 0);
    let entered = LogPiece { follows: Some(position(10)), ..piece(name, b"abcd") };
    fixture.logs.append_beside(&fixture.stream, entered, &OsEntropy).unwrap();
    assert_eq!(fixture.verdict(position(0), place(14), LogsLevel::Readable), GapVerdict::Contiguous);
    // A position that is no byte, and a single byte.
    let name = span(100, 110);
    fixture.put(position(100), position(110), None, 0);
    fixture.flip(&fixture.object(name), 40, 0);
    for (name, content) in [(name, b"four".as_slice()), (span(200, 201), b"x")] {
        if !fixture.logs.has(&fixture.stream, name).unwrap() {
            fixture.put(name.first(), name.last(), None, 0);
            fixture.flip(&fixture.object(name), 40, 0);
        }
        let refused = fixture.logs.append_beside(&fixture.stream, piece(name, content), &OsEntropy);
        assert!(matches!(refused, Err(LogsError::Damaged { .. })), "{refused:?}");
    }
}

#[test]
fn a_copy_whose_object_is_damaged_gets_it_from_another_one() {
    let one = Fixture::new();
    let storage = Arc::new(MemoryStorage::new());
    let (key, vault) = (MasterKey::generate(&OsEntropy), VaultId::generate(&OsEntropy));
    let signing = SigningKey::generate(&OsEntropy);
    let from =
        Logs::new(Arc::clone(&one.storage) as Arc<dyn Storage>, key.clone(), signing.clone(), vault.clone());
    let to = Logs::new(Arc::clone(&storage) as Arc<dyn Storage>, key, signing, vault);
    let name = span(0, 10);
    let append = |logs: &Logs| {
        let mut content = b"0123456789".as_slice();
        let log = LogObject {
            first: name.first(),
            last: name.last(),
            follows: None,
            history: None,
            marks: Vec::new(),
            previous: None,
            started: at(0),
            ended: at(0),
            content: &mut content,
        };
        logs.append(&one.stream, log, &OsEntropy).unwrap()
    };
    append(&from);
    let existed = || match from.carry(&one.stream, name, &to).unwrap() {
        Carried::Whole(stored) => stored.existed,
        Carried::InTheWay(why) => panic!("{why}"),
    };
    assert!(!existed());
    // The same content, sealed by itself, is the same.
    storage.remove(&to.object_name(&one.stream, name)).unwrap();
    append(&to);
    assert!(existed());
    let object = to.object_name(&one.stream, name);
    let cut = storage.get(&object).unwrap()[..20].to_vec();
    storage.remove(&object).unwrap();
    storage.put_new(&object, &[&cut]).unwrap();
    let carried = from.carry(&one.stream, name, &to).unwrap();
    assert!(matches!(carried, Carried::InTheWay(_)), "{carried:?}");
    // It is the damaged one that is told from the sound one.
    let damaged = to.carry(&one.stream, name, &from);
    assert!(matches!(damaged, Err(LogsError::Damaged { .. })), "{damaged:?}");
    from.carry_beside(&one.stream, name, &to, &OsEntropy).unwrap();
    let whole = to.gap_verdict(&one.stream, name.first(), name.last(), LogsLevel::Readable, &Findings::new());
    assert_eq!(whole.unwrap(), GapVerdict::Contiguous);
}

#[test]
fn a_listing_without_a_key_tells_the_size_that_a_roll_up_promises() {
    let fixture = Fixture::new();
    fixture.fill(2);
    fixture.roll_up(66);
    fixture.put(position(20), position(30), None, 61);
    let object = fixture.object(span(0, 10));
    let stored = fixture.storage.get(&object).unwrap();
    fixture.replace(&object, &stored[..stored.len() - 1]);
    let listed = |public: &lifeboat_keys::PublicKey| {
        let storage: &dyn Storage = &*fixture.storage;
        let sizes = Logs::list_sizes(storage, (&fixture.vault, public), &fixture.stream).unwrap();
        sizes
            .into_values()
            .map(|(size, listed)| listed.map(|listed| size.cast_signed() - listed.cast_signed()))
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(&fixture.signing.public()), [Some(-1), Some(0), None]);
    // What another key has signed says nothing.
    assert_eq!(listed(&SigningKey::generate(&OsEntropy).public()), [None, None, None]);
}
