//! Locks of single objects: one suite for every storage that has them, and what kills leave of those of files.

#![expect(clippy::unwrap_used, reason = "a helper of a test that fails, fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::{PointId, StreamName};
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{Clock, ManualClock, SignedDuration, Timestamp};
use lifeboat_vault::locks::{LockDrift, LockPlan, LockReport, lock_drift};
use lifeboat_vault::logs::{LogObject, LogsLevel, Position};
use lifeboat_vault::shred::{SHREDDING_FORMAT, Shredding};
use lifeboat_vault::storage::{
    FileStorage, GovernanceBypass, Keeper, LockMode, LockTerm, Locked, MemoryStorage, ObjectLocks,
    ObjectName, Storage, StorageError,
};
use lifeboat_vault::{CheckLevel, Vault, VaultError};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::retire::model;
use super::storage::{FAULTS, FaultyStorage, name};
use super::support::{Fixture, OnPut, Over, backup, point_id};

/// Takes the immutable flag off everything below a folder in the end, so that it can be removed.
pub(crate) struct Unlocked(pub(crate) PathBuf);

impl Drop for Unlocked {
    fn drop(&mut self) {
        let mut waiting = vec![self.0.clone()];
        while let Some(path) = waiting.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if meta.is_file() {
                flag(&path, false);
            }
        }
    }
}

/// Sets or clears the immutable flag of a file; gives whether it is as asked.
fn flag(path: &Path, on: bool) -> bool {
    let file = fs::File::open(path).unwrap();
    let Ok(mut flags) = ioctl_getflags(&file) else { return !on };
    if flags.contains(IFlags::IMMUTABLE) != on {
        flags.set(IFlags::IMMUTABLE, on);
        return ioctl_setflags(&file, flags).is_ok();
    }
    true
}

/// Whether files of this folder can be made immutable by us.
fn can_flag(folder: &Path) -> bool {
    let probe = folder.join("probe");
    crashsafe::write_new(&probe, b"").unwrap();
    let can = flag(&probe, true);
    assert!(flag(&probe, false));
    crashsafe::remove(&probe).unwrap();
    can
}

fn start() -> Timestamp {
    "2026-01-31T02:00:00Z".parse().unwrap()
}

fn day(number: i64) -> Timestamp {
    start().checked_add(SignedDuration::from_hours(24 * number)).unwrap()
}

fn soft(number: i64) -> LockTerm {
    LockTerm { until: day(number), mode: LockMode::Governance }
}

fn refused(answer: Result<(), StorageError>, end: Option<Timestamp>) -> bool {
    matches!(answer, Err(StorageError::Locked { until, .. }) if until == end)
}

struct Place<'a> {
    storage: &'a dyn Storage,
    clock: &'a ManualClock,
    /// Who keeps its locks.
    keeper: Keeper,
    compliance: bool,
}

impl Place<'_> {
    fn locks(&self) -> &dyn ObjectLocks {
        self.storage.object_locks().unwrap()
    }

    fn remove(&self, name: &ObjectName) -> Result<(), StorageError> {
        self.storage.remove(name)
    }
}

/// What every storage with locks must do.
fn conforms(place: &Place<'_>) {
    let Place { storage, clock, .. } = place;
    clock.set_wall(start());
    storage.make_folders(&["data"]).unwrap();
    let (one, two, absent) = (name("data/aa01"), name("lifeboat/points/pt-1.json"), name("index/ff"));
    storage.put_new(&one, &[b"one"]).unwrap();
    let locks = place.locks();
    assert!(matches!(locks.lock_of(&absent), Err(StorageError::NotFound { .. })));
    assert!(matches!(locks.lock_until(&absent, soft(1)), Err(StorageError::NotFound { .. })));
    assert!(matches!(locks.set_held(&absent, true), Err(StorageError::NotFound { .. })));
    let free = locks.lock_of(&one).unwrap();
    assert_eq!((free.locked.clone(), free.held, free.refusal(start())), (Locked::No, false, None));

    // Locked: nothing deletes it, it is read as before, and shows in no listing.
    let lock = locks.lock_until(&one, soft(10)).unwrap();
    assert_eq!((lock.locked.clone(), lock.keeper), (Locked::Term(soft(10)), place.keeper));
    assert!(refused(place.remove(&one), Some(day(10))));
    assert_eq!(place.remove(&one).unwrap_err().kind(), FailureKind::Refused);
    assert_eq!(storage.get(&one).unwrap(), b"one");
    assert_eq!(storage.list("").unwrap().len(), 1, "a lock is not an object");
    assert!(storage.strays().unwrap().is_empty());
    drop(storage.lock().unwrap());

    // A shorter one changes nothing, a longer one extends it.
    assert_eq!(locks.lock_until(&one, soft(3)).unwrap().until(), Some(day(10)));
    assert_eq!(locks.lock_until(&one, soft(20)).unwrap().until(), Some(day(20)));
    assert_eq!(locks.lock_until(&one, soft(20)).unwrap(), locks.lock_of(&one).unwrap());
    clock.set_wall(day(15));
    assert!(refused(place.remove(&one), Some(day(20))));

    // A hold outlives the lock.
    assert!(locks.set_held(&one, true).unwrap().held);
    clock.set_wall(day(21));
    assert!(refused(place.remove(&one), Some(day(20))));
    assert!(!locks.set_held(&one, false).unwrap().held);
    place.remove(&one).unwrap();
    assert_eq!(storage.stat(&one).unwrap(), None);

    // What is stored under the same name later is not locked by what was there before.
    storage.put_new(&one, &[b"again"]).unwrap();
    assert_eq!(locks.lock_of(&one).unwrap().locked, Locked::No);
    place.remove(&one).unwrap();

    // Locked from the start; never over another object.
    locks.put_locked(&two, &[b"t", b"wo"], soft(30)).unwrap();
    assert_eq!(storage.get(&two).unwrap(), b"two");
    assert!(refused(place.remove(&two), Some(day(30))));
    let taken = locks.put_locked(&two, &[b"other"], soft(90));
    assert!(matches!(taken, Err(StorageError::AlreadyExists { .. })));
    assert_eq!(locks.lock_of(&two).unwrap().until(), Some(day(30)));
    let listed = locks.locks("").unwrap();
    assert_eq!(listed, [(two.clone(), locks.lock_of(&two).unwrap())]);
    assert_eq!(locks.locks("data/").unwrap(), []);

    // Lifted on purpose, in governance mode only; a hold stays.
    locks.set_held(&two, true).unwrap();
    locks.lift(&two, GovernanceBypass).unwrap();
    assert!(refused(place.remove(&two), None));
    locks.set_held(&two, false).unwrap();
    place.remove(&two).unwrap();
    compliance(place, &one);
}

fn compliance(place: &Place<'_>, name: &ObjectName) {
    let hard = LockTerm { until: day(40), mode: LockMode::Compliance };
    let locks = place.locks();
    place.storage.put_new(name, &[b"x"]).unwrap();
    if !place.compliance {
        for answer in [locks.lock_until(name, hard).map(drop), locks.put_locked(name, &[b"x"], hard)] {
            assert!(matches!(answer, Err(StorageError::Unenforceable { .. })), "{answer:?}");
            assert_eq!(answer.unwrap_err().kind(), FailureKind::Refused);
        }
        assert_eq!(locks.lock_of(name).unwrap().locked, Locked::No);
        return place.remove(name).unwrap();
    }
    locks.lock_until(name, hard).unwrap();
    assert_eq!(locks.lock_until(name, soft(35)).unwrap().locked, Locked::Term(hard));
    let longer = LockTerm { until: day(50), ..hard };
    assert_eq!(locks.lock_until(name, soft(50)).unwrap().locked, Locked::Term(longer), "made weaker");
    assert!(refused(locks.lift(name, GovernanceBypass), Some(day(50))));
    assert!(refused(place.remove(name), Some(day(50))));
    place.clock.set_wall(day(50));
    place.remove(name).unwrap();
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(start()))
}

#[test]
fn every_storage_with_locks_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let _unlocked = Unlocked(dir.path().to_owned());
    let keeper = if can_flag(dir.path()) { Keeper::Place } else { Keeper::Program };
    let clock = clock();
    let files = FileStorage::by_clock(dir.path().join("vault"), Arc::clone(&clock) as Arc<dyn Clock>);
    conforms(&Place { storage: &files, clock: &clock, keeper, compliance: false });
    let memory = || MemoryStorage::by_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let all = Place { storage: &memory(), clock: &clock, keeper: Keeper::Place, compliance: true };
    conforms(&all);
    conforms(&Place { storage: &FaultyStorage::new(Arc::new(memory())), ..all });
    conforms(&Place { storage: &Over(Arc::new(memory()), OnPut(|_name: &ObjectName| {})), ..all });
}

/// A vault of files with one object.
struct Files {
    /// Before the folder, which goes after it.
    _unlocked: Unlocked,
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    storage: FileStorage,
    one: ObjectName,
}

impl Files {
    fn new() -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
        let storage = FileStorage::by_clock(dir.path(), Arc::clone(&clock) as Arc<dyn Clock>);
        let one = name("data/aa01");
        storage.put_new(&one, &[b"one"]).unwrap();
        Self { _unlocked: Unlocked(dir.path().to_owned()), dir, clock, storage, one }
    }

    fn object(&self) -> PathBuf {
        self.dir.path().join("data/aa/aa01")
    }

    fn mark(&self) -> PathBuf {
        self.dir.path().join(".locks/data/aa01")
    }
}

#[test]
fn where_the_file_system_can_nobody_removes_or_changes_a_locked_file_and_else_it_says_soft() {
    let files = Files::new();
    let lock = files.storage.lock_until(&files.one, soft(5)).unwrap();
    if can_flag(files.dir.path()) {
        assert_eq!(lock.keeper, Keeper::Place);
        assert!(crashsafe::remove(&files.object()).is_err());
        assert!(crashsafe::replace(&files.object(), b"other").is_err());
        assert!(fs::OpenOptions::new().append(true).open(files.object()).is_err());
    }
    // Whoever takes the flag off on purpose leaves a lock that is kept by us alone, and it shows.
    assert!(flag(&files.object(), false));
    let lock = files.storage.lock_of(&files.one).unwrap();
    assert_eq!((lock.until(), lock.keeper), (Some(day(5)), Keeper::Program));
    assert!(refused(files.storage.remove(&files.one), Some(day(5))));
}

#[test]
fn what_a_kill_leaves_between_two_steps_of_a_lock_is_locked_and_the_same_call_completes_it() {
    let files = Files::new();
    let (storage, one) = (&files.storage, &files.one);
    let hard = can_flag(files.dir.path());
    let keeper = if hard { Keeper::Place } else { Keeper::Program };
    let whole = || assert_eq!(storage.lock_until(one, soft(5)).unwrap().keeper, keeper);
    whole();
    // The mark stood, the flag did not yet: as after a kill in a first lock.
    assert!(flag(&files.object(), false));
    assert!(refused(storage.remove(one), Some(day(5))));
    whole();
    // The mark of a put that died before its object: whatever comes under that name is locked.
    let next = name("data/bb02");
    crashsafe::write_new(&files.dir.path().join(".locks/data/bb02"), &fs::read(files.mark()).unwrap())
        .unwrap();
    assert!(matches!(storage.lock_of(&next), Err(StorageError::NotFound { .. })));
    storage.put_new(&next, &[b"x"]).unwrap();
    assert!(refused(storage.remove(&next), Some(day(5))));
    // What was left of writing a mark is swept by the next writer, and no mark with it.
    let unfinished = files.dir.path().join(".locks/data/.lifeboat-tmp-1-1");
    crashsafe::write_new(&unfinished, b"half").unwrap();
    drop(Storage::lock(storage).unwrap());
    assert!(!unfinished.exists() && files.mark().exists());
    // A deletion that died after it took the flag off: the lock is over, and the next deletion completes it.
    files.clock.set_wall(day(6));
    assert!(flag(&files.object(), false));
    storage.remove(one).unwrap();
    assert!(!files.object().exists() && !files.mark().exists());
}

#[test]
fn a_mark_that_is_lost_or_damaged_leaves_a_lock_without_an_end_until_it_is_set_anew() {
    for damage in [None, Some(&b"lifeboat.lock/v1 none - free\n"[..]), Some(b""), Some(&[0xff; 4000])] {
        let files = Files::new();
        if damage.is_none() && !can_flag(files.dir.path()) {
            continue;
        }
        files.storage.lock_until(&files.one, soft(5)).unwrap();
        match damage {
            None => crashsafe::remove(&files.mark()).unwrap(),
            Some(bytes) => crashsafe::replace(&files.mark(), bytes).unwrap(),
        }
        files.clock.set_wall(day(9_000));
        let lock = files.storage.lock_of(&files.one).unwrap();
        assert!(matches!(lock.locked, Locked::Unknown(_)), "{lock:?}");
        assert!(refused(files.storage.remove(&files.one), None));
        assert!(refused(files.storage.set_held(&files.one, true).map(drop), None));
        assert_eq!(files.storage.lock_until(&files.one, soft(9_001)).unwrap().until(), Some(day(9_001)));
        files.clock.set_wall(day(9_001));
        files.storage.remove(&files.one).unwrap();
    }
}

#[test]
fn a_mark_or_a_folder_of_marks_that_is_a_link_is_not_followed() {
    let files = Files::new();
    let outside = tempfile::tempdir().unwrap();
    files.storage.lock_until(&files.one, soft(5)).unwrap();
    let elsewhere = outside.path().join("mark");
    crashsafe::publish(&files.mark(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, files.mark()).unwrap();
    let lock = files.storage.lock_of(&files.one).unwrap();
    assert!(matches!(lock.locked, Locked::Unknown(_)), "{lock:?}");
    crashsafe::remove_tree(&files.dir.path().join(".locks")).unwrap();
    std::os::unix::fs::symlink(outside.path(), files.dir.path().join(".locks")).unwrap();
    let error = files.storage.lock_until(&files.one, soft(6)).unwrap_err();
    assert!(lifeboat_base::failure::chain(&error).contains("is a link"), "{error}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "written out of the vault");
}

#[test]
fn an_unfinished_name_of_a_locked_object_is_swept_and_the_lock_stays() {
    let files = Files::new();
    let unfinished = files.dir.path().join("data/aa/.lifeboat-tmp-1-1");
    fs::hard_link(files.object(), &unfinished).unwrap();
    let before = files.storage.lock_until(&files.one, soft(5)).unwrap();
    drop(Storage::lock(&files.storage).unwrap());
    assert!(!unfinished.exists());
    assert_eq!(fs::metadata(files.object()).unwrap().nlink(), 1);
    assert_eq!(files.storage.lock_of(&files.one).unwrap(), before);
}

#[test]
fn no_failed_call_leaves_less_locked_than_before() {
    for fault in FAULTS {
        let clock = clock();
        let memory = Arc::new(MemoryStorage::by_clock(Arc::clone(&clock) as Arc<dyn Clock>));
        let storage = FaultyStorage::new(Arc::clone(&memory) as Arc<dyn Storage>);
        let one = name("data/aa01");
        memory.put_locked(&one, &[b"x"], soft(5)).unwrap();
        storage.fail_at(0, fault);
        assert!(storage.lock_until(&one, soft(9)).is_err());
        assert!(storage.heal());
        assert!(memory.lock_of(&one).unwrap().reaches(day(5)));
        assert_eq!(storage.lock_until(&one, soft(9)).unwrap().until(), Some(day(9)));
    }
}

/// A vault with three points, which share content and have some of their own.
fn three_points(storage: Arc<dyn Storage>) -> Vault {
    let vault = Fixture::new().create(storage).unwrap();
    for number in 1..=3 {
        backup(&vault, number, &model(number), &Findings::new()).unwrap();
    }
    vault
}

fn ends(days: [i64; 3]) -> BTreeMap<PointId, Timestamp> {
    (1..).zip(days).map(|(number, end)| (point_id(number), day(end))).collect()
}

fn drift(vault: &Vault, plan: &LockPlan) -> Result<LockDrift, VaultError> {
    lock_drift(vault.storage().as_ref(), &plan.objects)
}

fn extend(vault: &Vault, days: [i64; 3]) -> (LockPlan, LockReport) {
    let plan = vault.lock_plan(&ends(days), &BTreeMap::new()).unwrap();
    assert_eq!(plan.unknown, BTreeMap::new());
    let report = vault.extend_locks(&plan, LockMode::Governance).unwrap();
    assert_eq!(drift(vault, &plan).unwrap().short_count, 0);
    (plan, report)
}

/// Everything that a place lets somebody delete, deleted. Gives how much that was.
fn ransack(storage: &MemoryStorage) -> usize {
    let all = storage.list("").unwrap();
    all.iter().filter(|listed| storage.remove(&listed.name).is_ok()).count()
}

fn memory(clock: &Arc<ManualClock>) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::by_clock(Arc::clone(clock) as Arc<dyn Clock>))
}

#[test]
fn whoever_deletes_all_that_is_not_locked_leaves_every_locked_point_whole() {
    let clock = clock();
    let storage = memory(&clock);
    let vault = three_points(Arc::clone(&storage) as Arc<dyn Storage>);
    let all = storage.list("").unwrap().len();
    let (plan, report) = extend(&vault, [100, 10, 50]);
    assert_eq!((report.kept_count, report.soft_count), (0, 0));
    assert_eq!(report.extended_count, plan.objects.len() as u64);
    assert_eq!((ransack(&storage), storage.list("").unwrap().len()), (0, all), "everything is needed");
    for (now, whole) in [(40, &[1, 3][..]), (90, &[1][..])] {
        clock.set_wall(day(now));
        assert!(ransack(&storage) > 0);
        let report = vault.check(CheckLevel::Readable, &Findings::new()).unwrap();
        let ok: Vec<PointId> =
            report.points.iter().filter(|point| point.ok).map(|point| point.id.clone()).collect();
        assert_eq!(ok, whole.iter().map(|number| point_id(*number)).collect::<Vec<_>>(), "{report:?}");
    }
    clock.set_wall(day(101));
    ransack(&storage);
    assert!(storage.list("").unwrap().is_empty(), "no lock outlives the points");
}

#[test]
fn no_index_file_is_locked_longer_than_a_pack_it_names() {
    let vault = three_points(memory(&clock()));
    let (plan, _report) = extend(&vault, [10, 100, 50]);
    let of = |folder: &str| {
        let all = plan.objects.iter().filter(|(name, _)| name.as_str().starts_with(folder));
        all.map(|(_, until)| *until).collect::<Vec<_>>()
    };
    // What is shared lies in packs of the first point, beside what only that needs.
    assert_eq!(of("data/").iter().max(), Some(&day(100)));
    assert!(of("index/").contains(&day(10)) && of("index/").contains(&day(100)), "{plan:?}");
    assert_eq!(of("config"), [day(100)]);
}

#[test]
fn locks_grow_with_what_is_promised_never_shrink_and_cost_nothing_where_nothing_changed() {
    let clock = clock();
    let storage = memory(&clock);
    let vault = three_points(Arc::clone(&storage) as Arc<dyn Storage>);
    extend(&vault, [10, 10, 10]);
    let (_plan, report) = extend(&vault, [10, 10, 10]);
    assert_eq!((report.extended_count, report.soft_count), (0, 0));
    // A day became a month.
    let (longer, report) = extend(&vault, [10, 60, 10]);
    assert!(report.extended_count > 0 && report.kept_count > 0, "{report:?}");
    let (_plan, report) = extend(&vault, [5, 5, 5]);
    assert_eq!(report.extended_count, 0);
    assert_eq!(drift(&vault, &longer).unwrap().short_count, 0);
    // Whoever lifts one lock is seen, by what the place says.
    let (name, wanted) = longer.objects.last_key_value().unwrap();
    storage.lift(name, GovernanceBypass).unwrap();
    let drift = drift(&vault, &longer).unwrap();
    assert_eq!((drift.short_count, drift.checked_count), (1, longer.objects.len() as u64));
    assert_eq!((&drift.short[0].object, drift.short[0].until), (name, None));
    assert_eq!(drift.short[0].wanted, *wanted);
}

/// What a later point adds, planned beside what is known: the rest is not looked at again, and no index file outlives what was
/// planned before.
#[test]
fn a_plan_for_what_changed_is_part_of_the_whole_plan_and_makes_it_whole() {
    let vault = three_points(memory(&clock()));
    let of = |days: [i64; 3], known| vault.lock_plan(&ends(days), known).unwrap().objects;
    let whole = of([10, 20, 90], &BTreeMap::new());
    let first = vault.lock_plan(&ends([10, 20, 0]).into_iter().take(2).collect(), &BTreeMap::new()).unwrap();
    let last: BTreeMap<PointId, Timestamp> = [(point_id(3), day(90))].into();
    let changed = vault.lock_plan(&last, &first.objects).unwrap();
    assert!(changed.objects.len() < whole.len(), "{changed:?}");
    let mut together = first.objects;
    for (name, until) in &changed.objects {
        assert!(whole[name] >= *until, "{name}");
        let known = together.entry(name.clone()).or_insert(*until);
        *known = (*known).max(*until);
    }
    assert_eq!(together, whole);
}

/// Six pieces of log, an hour apart, of which the first four are rolled up by two.
fn with_log(vault: &Vault) -> StreamName {
    let stream = StreamName::new("wal").unwrap();
    for number in 0..6_u64 {
        let (first, last) = (Position::new(1, number * 10), Position::new(1, number * 10 + 10));
        let ended = start() + SignedDuration::from_mins(i64::try_from(number).unwrap() * 30);
        let log = LogObject {
            first,
            last,
            follows: None,
            history: None,
            marks: Vec::new(),
            previous: None,
            started: ended,
            ended,
            content: &mut b"what was written".as_slice(),
        };
        vault.logs().append(&stream, log, &OsEntropy).unwrap();
    }
    let rolled = vault.logs().roll_up(&stream, start() + SignedDuration::from_mins(130)).unwrap();
    assert_eq!(rolled.iter().map(|rollup| rollup.entries_count).collect::<Vec<_>>(), [2, 2]);
    stream
}

#[test]
fn log_is_locked_piece_by_piece_and_no_roll_up_longer_than_what_it_lists() {
    let clock = clock();
    let storage = memory(&clock);
    let vault = three_points(Arc::clone(&storage) as Arc<dyn Storage>);
    let stream = with_log(&vault);
    let mut plan = LockPlan::default();
    // A day more for each half hour; what was written first is not locked at all.
    let until = |ended: Timestamp| {
        let halves = ended.duration_since(start()).as_secs() / 1800;
        (halves > 0).then(|| day(10 + halves))
    };
    vault.plan_log_locks(&stream, &until, &mut plan).unwrap();
    let ends: Vec<Timestamp> = plan.objects.values().copied().collect();
    // The roll-up of the first hour lists what is not locked, so it is not, either.
    assert_eq!(ends, [day(11), day(12), day(13), day(14), day(15), day(12)], "{plan:?}");
    vault.extend_locks(&plan, LockMode::Governance).unwrap();
    for listed in storage.list("lifeboat/logs/").unwrap() {
        let removed = storage.remove(&listed.name).is_ok();
        assert_eq!(removed, !plan.objects.contains_key(&listed.name), "{}", listed.name);
    }
    let pieces = || vault.logs().inventory(&stream, LogsLevel::Readable, &Findings::new()).unwrap().pieces;
    assert_eq!(pieces().len(), 5);
    // What is listed and gone is no object to lock.
    clock.set_wall(day(11));
    let gone = plan.objects.keys().next().unwrap();
    storage.remove(gone).unwrap();
    let mut again = LockPlan::default();
    vault.plan_log_locks(&stream, &until, &mut again).unwrap();
    assert_eq!(again.objects.len(), plan.objects.len() - 1);
    assert_eq!(
        (drift(&vault, &plan).unwrap().short_count, drift(&vault, &again).unwrap().short_count),
        (1, 0)
    );
    let report = vault.extend_locks(&plan, LockMode::Governance).unwrap();
    assert_eq!((report.missing_count, report.missing.as_ref()), (1, Some(gone)));
}

#[test]
fn a_directory_whose_flags_were_taken_off_is_soft_and_hard_again_after_the_next_pass() {
    let dir = tempfile::tempdir().unwrap();
    let _unlocked = Unlocked(dir.path().to_owned());
    let hard = can_flag(dir.path());
    let clock = clock();
    let storage = FileStorage::by_clock(dir.path().join("vault"), Arc::clone(&clock) as Arc<dyn Clock>);
    let vault = three_points(Arc::new(storage));
    let (plan, report) = extend(&vault, [10, 20, 30]);
    let all = plan.objects.len() as u64;
    assert_eq!(report.soft_count, if hard { 0 } else { all });
    drop(Unlocked(dir.path().to_owned()));
    let drift = drift(&vault, &plan).unwrap();
    assert_eq!((drift.short_count, drift.soft_count), (0, all));
    let report = vault.extend_locks(&plan, LockMode::Governance).unwrap();
    assert_eq!(report.soft_count, if hard { 0 } else { all });
    // Locked, it is a vault as any: read, checked, written to.
    let report = vault.check(CheckLevel::Readable, &Findings::new()).unwrap();
    assert_eq!((report.damaged, report.extra), (Vec::new(), Vec::new()));
    backup(&vault, 4, &model(4), &Findings::new()).unwrap();
}

#[test]
fn any_failed_call_of_a_pass_leaves_locks_as_long_as_they_were_and_the_next_pass_completes_them() {
    for fault in FAULTS {
        let clock = clock();
        let faulty = Arc::new(FaultyStorage::new(memory(&clock)));
        let vault = three_points(Arc::clone(&faulty) as Arc<dyn Storage>);
        let (before, _report) = extend(&vault, [10, 10, 10]);
        let mut number = 0;
        loop {
            let plan = vault.lock_plan(&ends([20 + number, 15, 10]), &BTreeMap::new()).unwrap();
            faulty.fail_at(u64::try_from(number * 3).unwrap(), fault);
            let done = vault.extend_locks(&plan, LockMode::Governance);
            let reached = faulty.heal();
            assert_eq!(done.is_err(), reached);
            assert_eq!(drift(&vault, &before).unwrap().short_count, 0);
            vault.extend_locks(&plan, LockMode::Governance).unwrap();
            assert_eq!(drift(&vault, &plan).unwrap().short_count, 0);
            if !reached {
                break;
            }
            number += 1;
        }
        assert!(number > 3, "{number}");
    }
}

#[test]
fn keys_that_a_place_keeps_are_not_destroyed_by_halves() {
    let clock = clock();
    let storage = memory(&clock);
    let vault = three_points(Arc::clone(&storage) as Arc<dyn Storage>);
    let notice = Shredding {
        format: SHREDDING_FORMAT.to_owned(),
        vault: vault.vault_id().clone(),
        store: vault.store().clone(),
        at: start(),
        reason: "a test".to_owned(),
        by: "a test".to_owned(),
        public_key: vault.secrets().signing.public().to_string(),
    };
    let keys = Vault::keys_left(storage.as_ref()).unwrap();
    // One of them is enough.
    storage.lock_until(keys.last().unwrap(), soft(10)).unwrap();
    assert_eq!(vault.shred(&notice).unwrap_err().kind(), FailureKind::Refused);
    assert!(Vault::keys_locked(storage.as_ref()).unwrap().is_some());
    assert_eq!(Vault::keys_left(storage.as_ref()).unwrap(), keys);
    assert!(Vault::shredded(storage.as_ref()).unwrap().is_none());
    clock.set_wall(day(11));
    vault.shred(&notice).unwrap();
    assert!(Vault::keys_left(storage.as_ref()).unwrap().is_empty());
}

#[test]
fn an_index_file_that_is_damaged_and_locked_stops_no_copy_and_is_mended_after_its_lock() {
    for number in 0..3 {
        let clock = clock();
        let (one, two) = (memory(&clock), memory(&clock));
        let first = three_points(Arc::clone(&one) as Arc<dyn Storage>);
        let second = Vault::adopt(Arc::clone(&two) as Arc<dyn Storage>, &first).unwrap();
        first.copy_to(&second, &Findings::new()).unwrap();
        extend(&second, [10, 10, 10]);
        let index = two.list("index/").unwrap().remove(number).name;
        let whole = two.get(&index).unwrap();
        two.tamper(&index, |bytes| bytes[40] ^= 1).unwrap();
        backup(&first, 4, &model(4), &Findings::new()).unwrap();
        first.copy_to(&second, &Findings::new()).unwrap();
        assert_ne!(two.get(&index).unwrap(), whole);
        assert_eq!(second.points().unwrap().len(), 4, "{index}");
        // It stays known as damaged, and what it said is said once beside it.
        let report = second.check(CheckLevel::Readable, &Findings::new()).unwrap();
        assert!(report.damaged.iter().any(|damaged| damaged.object == index), "{report:?}");
        assert_eq!(report.points.iter().filter(|point| point.ok).count(), 4, "{report:?}");
        let count = two.list("index/").unwrap().len();
        first.copy_to(&second, &Findings::new()).unwrap();
        assert_eq!((count, two.list("index/").unwrap().len()), (5, 5));
        clock.set_wall(day(11));
        first.copy_to(&second, &Findings::new()).unwrap();
        assert_eq!(two.get(&index).unwrap(), whole);
    }
}
