//! Points that are taken out for good, in every copy: nothing else is harmed, nothing comes back.

#![expect(clippy::unwrap_used, reason = "a helper of a test that fails, fails the test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::capture::{Capture, CaptureFacts, Entry, Order};
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::StreamName;
use lifeboat_base::monitor::{Findings, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::time::{Clock, ManualClock, Timestamp};
use lifeboat_vault::logs::{GapVerdict, LogObject, LogsLevel, Position, floors_of};
use lifeboat_vault::retire::{
    BadBlobs, DroppedPoint, Filed, LogFloor, RetireOptions, RetirePlan, RetireReport, Wanted,
};
use lifeboat_vault::storage::{
    FileStorage, GovernanceBypass, Listed, LockMode, LockTerm, MemoryStorage, ObjectLocks, ObjectName,
    Storage, StorageError, WriteLock,
};
use lifeboat_vault::{CheckLevel, PointManifest, SnapshotStamp, Vault, VaultError, WriteOptions};

use super::support::{
    Fixture, Model, ModelCapture, Over, Ways, backup, begun, noise, now, point_id, restic, restore,
};

const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn dropped(manifest: &PointManifest) -> DroppedPoint {
    DroppedPoint {
        id: manifest.id.clone(),
        moment: manifest.facts.consistency.moment,
        snapshot: manifest.snapshot,
        since: manifest.ended,
        because: "the test says so".to_owned(),
    }
}

pub(crate) fn on_day(day: u32) -> Timestamp {
    now() + DAY * (day + 10)
}

pub(crate) fn plan(copies: &[&Vault], points: &[DroppedPoint], day: u32) -> Result<RetirePlan, VaultError> {
    plan_of(copies, points, day, true)
}

/// `all_open` says whether these are all copies there are.
fn plan_of(
    copies: &[&Vault],
    points: &[DroppedPoint],
    day: u32,
    all_open: bool,
) -> Result<RetirePlan, VaultError> {
    let options = RetireOptions { now: on_day(day), reckoned: on_day(day), grace: DAY, all_open };
    RetirePlan::new(
        copies,
        &Wanted { points, logs: &[], filed: &Filed::default(), bad: &BadBlobs::new() },
        &options,
    )
}

/// One application of retention, some days after everything was captured.
pub(crate) fn retire(
    copies: &[Vault; 2],
    points: &[DroppedPoint],
    day: u32,
) -> Result<RetireReport, VaultError> {
    let open: Vec<&Vault> = copies.iter().collect();
    plan(&open, points, day)?.apply(&open, &Findings::new())
}

/// Everything in a copy but its envelope.
pub(crate) fn names(vault: &Vault) -> BTreeSet<Listed> {
    vault.storage().list("").unwrap().into_iter().collect()
}

pub(crate) fn sound(vault: &Vault, points: usize) {
    let report = vault.check(CheckLevel::Readable, &Findings::new()).unwrap();
    assert_eq!((report.damaged, report.extra), (Vec::new(), Vec::new()));
    assert_eq!(report.points.len(), points);
    assert!(report.points.iter().all(|point| point.ok));
}

fn bytes(vault: &Vault) -> u64 {
    vault.storage().list("data/").unwrap().iter().map(|listed| listed.size_bytes).sum()
}

pub(crate) fn model(number: u32) -> Model {
    Model::new()
        .file("data/same", noise(100, 3_000_000))
        .file("data/own", noise(u64::from(number), 3_000_000))
}

/// Two copies of one vault with so many points, each with content of its own and content they share.
pub(crate) fn copies(points: u32, storages: [Arc<dyn Storage>; 2]) -> ([Vault; 2], Vec<PointManifest>) {
    let [one, two] = storages;
    let first = Fixture::new().create(one).unwrap();
    let manifests = (1..=points)
        .map(|number| backup(&first, number, &model(number), &Findings::new()).unwrap().0)
        .collect();
    let second = Vault::adopt(two, &first).unwrap();
    first.copy_to(&second, &Findings::new()).unwrap();
    ([first, second], manifests)
}

pub(crate) fn in_memory(points: u32) -> ([Vault; 2], Vec<PointManifest>, [Arc<MemoryStorage>; 2]) {
    let storages = [Arc::new(MemoryStorage::new()), Arc::new(MemoryStorage::new())];
    let (copies, manifests) = copies(points, storages.clone().map(|storage| storage as Arc<dyn Storage>));
    (copies, manifests, storages)
}

#[test]
fn what_is_dropped_goes_from_every_copy_in_two_steps_and_its_space_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let storage = |name: &str| Arc::new(FileStorage::new(dir.path().join(name))) as Arc<dyn Storage>;
    let (copies, manifests) = copies(4, [storage("one"), storage("two")]);
    let before = bytes(&copies[0]);
    let drop = [dropped(&manifests[0]), dropped(&manifests[2])];
    let report = retire(&copies, &drop, 0).unwrap();
    for copy in &report.copies {
        assert_eq!((copy.points, copy.snapshots, copy.packs, &copy.postponed), (2, 2, 0, &None));
    }
    assert!(report.marked_bytes > 5_900_000, "{report:?}");
    for vault in &copies {
        sound(vault, 2);
        assert!(bytes(vault) >= before, "what is marked is still there");
        assert!(restic(vault, &["check".as_ref(), "--read-data".as_ref()]).0);
    }
    // The time has not come.
    let report = retire(&copies, &drop, 0).unwrap();
    assert_eq!((report.record, report.copies[0].freed_bytes), (None, 0));
    let report = retire(&copies, &drop, 1).unwrap();
    for (vault, copy) in copies.iter().zip(&report.copies) {
        assert!(copy.freed_bytes > 5_900_000 && bytes(vault) < before - 5_900_000, "{report:?}");
        sound(vault, 2);
        let (ok, text) = restic(vault, &["check".as_ref(), "--read-data".as_ref()]);
        assert!(ok, "{text}");
        for (manifest, number) in manifests.iter().zip(1u32..).filter(|(_, number)| number % 2 == 0) {
            assert!(restore(vault, manifest).unwrap() == model(number).below_data());
        }
        let absence = vault.absence(&vault.retired().unwrap()).unwrap();
        assert!(absence.holds() && absence.points == 2 && absence.waiting.is_empty(), "{absence:?}");
    }
    assert_eq!(names(&copies[0]), names(&copies[1]));
    // Applied again it finds nothing to do, and what was dropped is stored again when it is needed again.
    assert_eq!(retire(&copies, &drop, 2).unwrap().record, None);
    let (again, _) = backup(&copies[0], 5, &model(1), &Findings::new()).unwrap();
    assert!(restore(&copies[0], &again).unwrap() == model(1).below_data());
}

/// The proof must see what it looks for.
#[test]
fn a_retired_object_that_is_still_there_is_found_by_the_proof_of_absence() {
    let (copies, manifests, storages) = in_memory(3);
    let kept: Vec<(ObjectName, Vec<u8>)> = storages[0]
        .list("")
        .unwrap()
        .into_iter()
        .map(|listed| (listed.name.clone(), storages[0].get(&listed.name).unwrap()))
        .collect();
    for day in 0..2 {
        retire(&copies, &[dropped(&manifests[0])], day).unwrap();
    }
    let retired = copies[0].retired().unwrap();
    assert!(copies[0].absence(&retired).unwrap().holds());
    let mut found = 0;
    for (name, bytes) in kept {
        if storages[0].stat(&name).unwrap().is_some() {
            continue;
        }
        storages[0].put_new(&name, &[&bytes]).unwrap();
        let absence = copies[0].absence(&retired).unwrap();
        assert!(absence.left.iter().any(|left| left.object == name), "{name}: {absence:?}");
        storages[0].remove(&name).unwrap();
        found += 1;
    }
    // Manifest, snapshot, index file and pack at least.
    assert!(found >= 4, "{found}");
}

#[test]
fn a_backup_of_the_same_content_between_marking_and_removal_relies_on_nothing_that_goes() {
    let (copies, manifests, _) = in_memory(2);
    let drop = [dropped(&manifests[0])];
    retire(&copies, &drop, 0).unwrap();
    // The very content that is marked.
    let (again, written) = backup(&copies[0], 3, &model(1), &Findings::new()).unwrap();
    assert!((2_900_000..3_300_000).contains(&written.new_bytes), "{written:?}");
    copies[0].copy_to(&copies[1], &Findings::new()).unwrap();
    let report = retire(&copies, &drop, 1).unwrap();
    assert!(report.copies[0].packs > 0, "{report:?}");
    for vault in &copies {
        assert!(restore(vault, &again).unwrap() == model(1).below_data());
        sound(vault, 2);
    }
}

/// As a place that several machines write to and that has no locks.
struct NoLocks;

#[derive(Debug)]
struct NoLock;

impl WriteLock for NoLock {}

impl Ways for NoLocks {
    fn lock(&self, _below: &dyn Storage) -> Result<Box<dyn WriteLock>, StorageError> {
        Ok(Box::new(NoLock))
    }
}

/// A capture during which something else happens, once.
struct Meanwhile<F: FnMut() + Send>(ModelCapture, F, bool);

impl<F: FnMut() + Send> Capture for Meanwhile<F> {
    fn order(&self) -> Order {
        self.0.order()
    }

    fn total_bytes(&self) -> Option<u64> {
        None
    }

    fn next_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        if !std::mem::replace(&mut self.2, true) {
            (self.1)();
        }
        self.0.next_entry(monitor)
    }

    fn lost(&mut self, path: &RelPath, why: &str) {
        self.0.lost(path, why);
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        Box::new(self.0).finish()
    }
}

/// Case 10: a machine that slept while another one marked and removed what it was about to rely on.
#[test]
fn case_10_a_capture_that_slept_through_marking_and_removal_is_refused_and_harms_nothing() {
    for days in [vec![0], vec![0, 1], vec![0, 1, 2]] {
        let storage = Over(Arc::new(MemoryStorage::new()), NoLocks);
        let vault = Fixture::new().create(Arc::new(storage)).unwrap();
        let manifests: Vec<PointManifest> = (1..=2)
            .map(|number| backup(&vault, number, &model(number), &Findings::new()).unwrap().0)
            .collect();
        let other = vault.clone();
        let drop = [dropped(&manifests[0])];
        let asleep = days.clone();
        let capture = Meanwhile(
            model(1).capture(),
            move || {
                for day in &asleep {
                    plan(&[&other], &drop, *day).unwrap().apply(&[&other], &Findings::new()).unwrap();
                }
            },
            false,
        );
        let stamp = SnapshotStamp {
            point: point_id(3),
            store: vault.store().clone(),
            host: "laptop".to_owned(),
            user: "user".to_owned(),
            time: begun(3),
            parent: None,
        };
        let options = WriteOptions { workers: 2, spool: std::env::temp_dir() };
        let error = vault.write(Box::new(capture), &stamp, &options, &Findings::new()).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Refused, "{days:?}: {error}");
        assert_eq!(vault.points().unwrap().len(), 1);
        assert!(restore(&vault, &manifests[1]).unwrap() == model(2).below_data());
        // The next run stores what is gone.
        let (again, _) = backup(&vault, 4, &model(1), &Findings::new()).unwrap();
        for day in 20..23 {
            plan(&[&vault], &[], day).unwrap().apply(&[&vault], &Findings::new()).unwrap();
        }
        assert!(restore(&vault, &again).unwrap() == model(1).below_data());
        sound(&vault, 2);
    }
}

#[test]
fn a_capture_that_finished_just_before_the_marking_gets_back_what_was_marked() {
    let storage = Over(Arc::new(MemoryStorage::new()), NoLocks);
    let vault = Fixture::new().create(Arc::new(storage)).unwrap();
    let first = backup(&vault, 1, &model(1), &Findings::new()).unwrap().0;
    backup(&vault, 2, &model(2), &Findings::new()).unwrap();
    let drop = [dropped(&first)];
    // The plan looked before the new point was there, and is applied all the same by a machine that cannot compare.
    let mut stale = plan(&[&vault], &drop, 0).unwrap();
    let (again, written) = backup(&vault, 3, &model(1), &Findings::new()).unwrap();
    assert!(written.new_bytes < 100_000);
    stale.states = plan(&[&vault], &drop, 0).unwrap().states;
    stale.apply(&[&vault], &Findings::new()).unwrap();
    assert!(restore(&vault, &again).unwrap() == model(1).below_data());
    for day in 1..4 {
        plan(&[&vault], &drop, day).unwrap().apply(&[&vault], &Findings::new()).unwrap();
        sound(&vault, 2);
    }
    assert!(restore(&vault, &again).unwrap() == model(1).below_data());
}

#[test]
fn a_copy_that_was_away_brings_nothing_back_and_follows_when_it_returns() {
    let (copies, manifests, _) = in_memory(4);
    let [here, away] = &copies;
    let drop = [dropped(&manifests[0]), dropped(&manifests[1])];
    for day in 0..2 {
        plan_of(&[here], &drop, day, false).unwrap().apply(&[here], &Findings::new()).unwrap();
    }
    assert_eq!((here.points().unwrap().len(), away.points().unwrap().len()), (2, 4));
    let before = names(here);
    away.copy_to(here, &Findings::new()).unwrap();
    assert_eq!(names(here), before, "the copy that was away brought something back");
    here.copy_to(away, &Findings::new()).unwrap();
    retire(&copies, &[], 3).unwrap();
    sound(away, 2);
    sound(here, 2);
    assert!(away.absence(&away.retired().unwrap()).unwrap().holds());
    assert_eq!(names(here), names(away));
}

/// What only the copy that was away knew of is not harmed by what was removed meanwhile.
#[test]
fn a_point_that_only_an_absent_copy_holds_keeps_what_it_needs_there() {
    let (copies, manifests, _) = in_memory(2);
    let [here, away] = &copies;
    // Made while the other copy could not be reached: content of the point that is dropped here.
    let (only, _) = backup(away, 3, &model(1), &Findings::new()).unwrap();
    let drop = [dropped(&manifests[0])];
    for day in 0..3 {
        plan_of(&[here], &drop, day, false).unwrap().apply(&[here], &Findings::new()).unwrap();
    }
    for day in 4..8 {
        // As a backup does: copies are made equal, then retention runs.
        away.copy_to(here, &Findings::new()).unwrap();
        here.copy_to(away, &Findings::new()).unwrap();
        retire(&copies, &drop, day).unwrap();
        assert!(restore(away, &only).unwrap() == model(1).below_data(), "day {day}");
        sound(away, 2);
    }
    backup(here, 9, &model(2), &Findings::new()).unwrap();
    here.copy_to(away, &Findings::new()).unwrap();
    away.copy_to(here, &Findings::new()).unwrap();
    assert!(restore(here, &only).unwrap() == model(1).below_data());
}

#[test]
fn packs_of_which_little_is_in_use_are_written_again_and_the_bound_holds() {
    let (copies, _, storages) = in_memory(0);
    let [first, second] = &copies;
    // Many small files in one pack; all but one of them change.
    let small = |round: u64| {
        (0..40u64).fold(Model::new(), |model, file| {
            let seed = if file == 7 { 7 } else { round * 1000 + file };
            model.file(format!("data/{file}"), noise(seed, 200_000))
        })
    };
    let old = backup(first, 1, &small(1), &Findings::new()).unwrap().0;
    let new = backup(first, 2, &small(2), &Findings::new()).unwrap().0;
    first.copy_to(second, &Findings::new()).unwrap();
    let open = [first, second];
    let made = plan(&open, &[dropped(&old)], 0).unwrap();
    assert!(!made.rewrite.is_empty(), "{made:?}");
    // While one copy refuses to delete it, a pack that was written again would lie there twice.
    for rewritten in &made.rewrite {
        let name = ObjectName::new(format!("data/{}", rewritten.pack)).unwrap();
        let term = LockTerm { until: Timestamp::MAX, mode: LockMode::Governance };
        storages[1].lock_until(&name, term).unwrap();
    }
    let unlocked = made;
    let made = plan(&open, &[dropped(&old)], 0).unwrap();
    assert!(made.rewrite.is_empty() && made.unused_bytes > unlocked.unused_bytes, "{made:?}");
    for rewritten in &unlocked.rewrite {
        let name = ObjectName::new(format!("data/{}", rewritten.pack)).unwrap();
        storages[1].lift(&name, GovernanceBypass).unwrap();
    }
    let made = plan(&open, &[dropped(&old)], 0).unwrap();
    let report = made.apply(&open, &Findings::new()).unwrap();
    assert!(report.new_packs > 0);
    retire(&copies, &[], 1).unwrap();
    for vault in &copies {
        sound(vault, 1);
        assert!(restore(vault, &new).unwrap() == small(2).below_data());
        assert!(bytes(vault) < 8_500_000, "{}", bytes(vault));
        let (used, all) = {
            let made = plan(&[vault], &[], 2).unwrap();
            (made.used_bytes, bytes(vault))
        };
        assert!(all <= used * 2 + 10_000, "{all} for {used}");
    }
    assert_eq!(names(first), names(second));
}

/// Case 9: a blob that does not say what its name says is not moved: the other copy gives it, or nothing is recorded, because
/// what was decided took it for whole, and the next plan names what needs it.
#[test]
fn case_9_a_damaged_blob_is_never_moved_and_nothing_is_recorded_that_took_it_for_whole() {
    let small = |round: u64| {
        (0..20u64).fold(Model::new(), |model, file| {
            let seed = if file == 7 { 7 } else { round * 1000 + file };
            model.file(format!("data/{file}"), noise(seed, 200_000))
        })
    };
    for everywhere in [false, true] {
        let (copies, _, storages) = in_memory(0);
        let [first, second] = &copies;
        let old = backup(first, 1, &small(1), &Findings::new()).unwrap().0;
        let new = backup(first, 2, &small(2), &Findings::new()).unwrap().0;
        first.copy_to(second, &Findings::new()).unwrap();
        let made = plan(&[first, second], &[dropped(&old)], 0).unwrap();
        let rewrite = made.rewrite.iter().max_by_key(|one| one.used_bytes).unwrap().clone();
        let at = usize::try_from(*rewrite.offsets.first().unwrap()).unwrap() + 40;
        let pack = ObjectName::new(format!("data/{}", rewrite.pack)).unwrap();
        for storage in storages.iter().take(if everywhere { 2 } else { 1 }) {
            storage.tamper(&pack, |bytes| bytes[at] ^= 1).unwrap();
        }
        let report = made.apply(&[first, second], &Findings::new()).unwrap();
        assert_eq!(report.copies[0].points, u64::from(!everywhere), "{report:?}");
        assert_eq!(report.record.is_none(), everywhere);
        assert_eq!(report.bad.contains_key(&rewrite.pack), everywhere);
        if everywhere {
            let drop = [dropped(&old)];
            let wanted = Wanted { points: &drop, logs: &[], filed: &Filed::default(), bad: &report.bad };
            let options = RetireOptions { now: on_day(0), reckoned: on_day(0), grace: DAY, all_open: true };
            let again = RetirePlan::new(&[first, second], &wanted, &options).unwrap();
            assert_eq!(again.unresolved.keys().collect::<Vec<_>>(), [&new.id]);
            assert!(again.rewrite.iter().all(|one| one.pack != rewrite.pack));
            assert!(restore(first, &new).is_err() && restore(second, &new).is_err());
            continue;
        }
        assert!(first.retired().unwrap().fate(&rewrite.pack).is_some());
        for day in 1..3 {
            retire(&copies, &[], day).unwrap();
        }
        for (vault, storage) in copies.iter().zip(&storages) {
            assert!(storage.stat(&pack).unwrap().is_none());
            assert!(restore(vault, &new).is_ok());
        }
    }
}

#[test]
fn a_plan_is_void_once_a_copy_changed_or_while_others_work() {
    let (copies, manifests, storages) = in_memory(2);
    let open = [&copies[0], &copies[1]];
    let drop = [dropped(&manifests[0])];
    let made = plan(&open, &drop, 0).unwrap();
    let locks = storages.each_ref().map(|storage| storage.lock().unwrap());
    assert_eq!(made.clone().apply(&open, &Findings::new()).unwrap_err().kind(), FailureKind::Refused);
    let [first, second] = locks;
    // One copy is enough; the other follows.
    std::mem::drop(first);
    let report = made.clone().apply(&open, &Findings::new()).unwrap();
    assert!(report.copies[1].postponed.is_some() && report.copies[0].points == 1);
    std::mem::drop(second);
    assert_eq!(made.apply(&open, &Findings::new()).unwrap_err().kind(), FailureKind::Refused);
    retire(&copies, &drop, 0).unwrap();
    assert_eq!(copies[1].points().unwrap().len(), 1);
    let foreign = ObjectName::new("locks/0123").unwrap();
    storages[0].put_new(&foreign, &[b"x"]).unwrap();
    let report = retire(&copies, &drop, 1).unwrap();
    assert!(report.copies[0].postponed.is_some() && report.copies[1].packs > 0);
}

#[test]
fn packs_are_left_alone_while_it_is_not_known_what_is_needed() {
    let (copies, manifests, storages) = in_memory(3);
    let open = [&copies[0], &copies[1]];
    let drop = [dropped(&manifests[0])];
    let manifest = ObjectName::new("lifeboat/points/pt-0002.json").unwrap();
    // Damaged in one copy: the other tells.
    storages[0].tamper(&manifest, |bytes| bytes[30] ^= 1).unwrap();
    assert_eq!(plan(&open, &drop, 0).unwrap().blocked, None);
    // Damaged in both: nobody does.
    storages[1].tamper(&manifest, |bytes| bytes[30] ^= 1).unwrap();
    let made = plan(&open, &drop, 0).unwrap();
    assert!(made.blocked.as_ref().is_some_and(|why| why.contains("pt-0002")), "{made:?}");
    assert!(made.record.mark.is_empty() && made.record.points.len() == 1);
    let report = made.apply(&open, &Findings::new()).unwrap();
    assert!(report.copies.iter().all(|copy| copy.packs == 0 && copy.postponed.is_some()), "{report:?}");
    for storage in &storages {
        storage.tamper(&manifest, |bytes| bytes[30] ^= 1).unwrap();
    }
    for day in 1..3 {
        retire(&copies, &drop, day).unwrap();
    }
    sound(&copies[0], 2);
}

#[test]
fn a_snapshot_whose_point_is_not_sealed_yet_survives_until_it_is_old_and_every_copy_is_there() {
    let (copies, manifests, storages) = in_memory(2);
    for storage in &storages {
        storage.remove(&ObjectName::new("lifeboat/points/pt-0001.json").unwrap()).unwrap();
    }
    let open = [&copies[0], &copies[1]];
    let leftovers = |now: Timestamp, all_open: bool| {
        let options = RetireOptions { now, reckoned: now, grace: Duration::ZERO, all_open };
        RetirePlan::new(
            &open,
            &Wanted { points: &[], logs: &[], filed: &Filed::default(), bad: &BadBlobs::new() },
            &options,
        )
        .unwrap()
        .record
        .snapshots
    };
    let begun = manifests[0].started;
    assert_eq!(leftovers(begun + DAY, true), []);
    assert_eq!(leftovers(begun + DAY + Duration::from_secs(1), false), []);
    assert_eq!(leftovers(begun + DAY + Duration::from_secs(1), true), [manifests[0].snapshot]);
    retire(&copies, &[], 0).unwrap();
    // Whoever still wants to seal it is told.
    let error = copies[0].seal_point(&manifests[0]).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused);
}

#[test]
fn a_record_that_was_altered_says_nothing_and_is_named_as_damage() {
    let (copies, manifests, storages) = in_memory(2);
    retire(&copies, &[dropped(&manifests[0])], 0).unwrap();
    let name = storages[0].list("lifeboat/retired/").unwrap().remove(0).name;
    let length = storages[0].get(&name).unwrap().len();
    for at in (0..length).step_by(7) {
        storages[0].tamper(&name, |bytes| bytes[at] ^= 1).unwrap();
        assert!(copies[0].retired().unwrap().names().is_empty(), "byte {at}");
        let report = copies[0].check(CheckLevel::Checksummed, &Findings::new()).unwrap();
        assert_eq!(
            report.damaged.iter().map(|damage| &damage.object).collect::<Vec<_>>(),
            [&name],
            "byte {at}"
        );
        storages[0].tamper(&name, |bytes| bytes[at] ^= 1).unwrap();
    }
    sound(&copies[0], 1);
}

/// A log of so many objects, ten positions and twenty minutes each, rolled up but for the last hour.
fn with_log(vault: &Vault, stream: &StreamName, count: u64) {
    let start = now();
    for index in 0..count {
        let ended = start + Duration::from_secs(1200) * u32::try_from(index).unwrap();
        let mut content = format!("piece {index}").into_bytes();
        let mut content = content.as_mut_slice() as &[u8];
        let log = LogObject {
            first: Position::new(1, index * 10),
            last: Position::new(1, index * 10 + 10),
            follows: None,
            marks: Vec::new(),
            history: None,
            previous: None,
            started: ended,
            ended,
            content: &mut content,
        };
        vault.logs().append(stream, log, &OsEntropy).unwrap();
    }
    let end = start + Duration::from_secs(1200) * u32::try_from(count).unwrap();
    vault.logs().roll_up(stream, end).unwrap();
}

/// Case 18: what bridges from the base of the window to now is not for removal, whatever else is.
#[test]
fn case_18_log_goes_only_before_the_base_of_the_window() {
    let (copies, _, storages) = in_memory(2);
    let stream = StreamName::new("wal").unwrap();
    with_log(&copies[0], &stream, 40);
    copies[0].copy_to(&copies[1], &Findings::new()).unwrap();
    // A base that ends within the eighth piece: seven may go, and of them two whole hours.
    let rollups = copies[0].logs().rolled_up(&stream).unwrap();
    let floors = floors_of(&rollups, |piece| piece.last.offset <= 75);
    let below = floors[&1];
    assert!((50..=70).contains(&below), "{below}");
    assert!(rollups.iter().all(|listed| {
        listed.iter().all(|piece| piece.last.offset <= below)
            || listed.iter().all(|piece| piece.last.offset > below)
    }));
    // One of those that go is damaged, and one is nowhere any more.
    let damaged = ObjectName::new("lifeboat/logs/wal/00000001-000000000000000a-0000000000000014").unwrap();
    storages[0].tamper(&damaged, |bytes| bytes[30] ^= 1).unwrap();
    let wanted = [LogFloor { stream: stream.clone(), timeline: 1, below }];
    let options = RetireOptions { now: on_day(0), reckoned: on_day(0), grace: DAY, all_open: true };
    let open = [&copies[0], &copies[1]];
    let made = RetirePlan::new(
        &[open[0]],
        &Wanted { points: &[], logs: &wanted, filed: &Filed::default(), bad: &BadBlobs::new() },
        &options,
    )
    .unwrap();
    let report = made.apply(&[open[0]], &Findings::new()).unwrap();
    assert!(report.copies[0].log_objects > below / 10, "objects and their roll-ups: {report:?}");
    let whole = |vault: &Vault| {
        let verdict = vault.logs().gap_verdict(
            &stream,
            Position::new(1, 75),
            Position::new(1, 400),
            LogsLevel::Readable,
            &Findings::new(),
        );
        assert_eq!(verdict.unwrap(), GapVerdict::Contiguous);
        sound(vault, 2);
    };
    whole(open[0]);
    // The other copy was away.
    let before = names(open[0]);
    open[1].copy_to(open[0], &Findings::new()).unwrap();
    assert_eq!(names(open[0]), before, "log came back");
    open[0].copy_to(open[1], &Findings::new()).unwrap();
    retire(&copies, &[], 1).unwrap();
    whole(open[1]);
    assert_eq!(names(open[0]), names(open[1]));
    for vault in open {
        assert!(vault.absence(&vault.retired().unwrap()).unwrap().holds());
        let first = vault.logs().list(&stream).unwrap()[0];
        assert_eq!(first.first().offset, below);
    }
    // The same floor again says nothing new.
    let made = RetirePlan::new(
        &open,
        &Wanted { points: &[], logs: &wanted, filed: &Filed::default(), bad: &BadBlobs::new() },
        &options,
    )
    .unwrap();
    assert!(made.record.logs.is_empty());
}

/// What a place refuses to delete waits for the end of its lock; everything else goes as ever.
#[test]
fn what_a_lock_keeps_waits_is_told_with_its_date_and_goes_after_it() {
    let clock = Arc::new(ManualClock::at(on_day(0)));
    let memory = || Arc::new(MemoryStorage::by_clock(Arc::clone(&clock) as Arc<dyn Clock>));
    let locked_one = memory();
    let (copies, manifests) = copies(4, [Arc::clone(&locked_one) as Arc<dyn Storage>, memory()]);
    let until = on_day(20);
    let all = locked_one.list("").unwrap();
    for listed in &all {
        let term = LockTerm { until, mode: LockMode::Compliance };
        locked_one.lock_until(&listed.name, term).unwrap();
    }
    let drop = [dropped(&manifests[0]), dropped(&manifests[2])];
    for day in 0..4 {
        clock.set_wall(on_day(day));
        let report = retire(&copies, &drop, day).unwrap();
        let [hard, free] = report.copies.as_slice() else { panic!("{report:?}") };
        assert_eq!((hard.points, hard.snapshots, hard.packs, hard.freed_bytes), (0, 0, 0, 0), "day {day}");
        assert_eq!((hard.locked_until, &hard.postponed), (Some(until), &None));
        assert!(hard.locked_count >= 4 && free.locked_count == 0, "{report:?}");
        // Told apart from what should be gone, each with its date.
        let absence = copies[0].absence(&report.retired).unwrap();
        assert!(absence.holds() && absence.locked_count >= 4, "{absence:?}");
        assert_eq!(absence.locked_until, Some(until));
        assert!(absence.locked.iter().all(|one| one.until == Some(until) && one.locked.is_some()));
        let absence = copies[1].absence(&report.retired).unwrap();
        assert!(absence.holds() && absence.locked_count == 0);
        for vault in &copies {
            sound(vault, 2);
        }
    }
    assert!(bytes(&copies[1]) < bytes(&copies[0]), "whole packs went from the other copy");
    // Once nothing is new, a day in a locked place writes nothing more.
    let before = names(&copies[0]);
    let report = retire(&copies, &drop, 4).unwrap();
    assert_eq!((report.record, names(&copies[0])), (None, before));
    // A lock that ended leaves what is there for what it is: something that should be gone.
    clock.set_wall(on_day(21));
    assert!(!copies[0].absence(&report.retired).unwrap().holds());
    retire(&copies, &drop, 21).unwrap();
    let report = retire(&copies, &drop, 23).unwrap();
    for vault in &copies {
        sound(vault, 2);
        let absence = vault.absence(&report.retired).unwrap();
        assert!(absence.holds() && absence.locked_count == 0, "{absence:?}");
    }
    assert_eq!(bytes(&copies[0]), bytes(&copies[1]));
}
