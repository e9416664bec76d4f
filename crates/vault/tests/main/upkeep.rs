//! Copies and pruning: nothing listed is ever unrestorable.

#![expect(clippy::unwrap_used, reason = "a helper of a test that fails, fails the test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_vault::storage::{FileStorage, MemoryStorage, ObjectName, Storage};
use lifeboat_vault::{CheckLevel, CopyStats, PruneOptions, PrunePlan, Vault};

use super::support::{Fixture, Model, backup, noise, point_id, restic, restore};

fn model(number: u64) -> Model {
    Model::new().file("data/same", noise(100, 3_000_000)).file("data/own", noise(number, 3_000_000))
}

fn sound(vault: &Vault, points: usize) {
    let report = vault.check(CheckLevel::Readable, &Findings::new()).unwrap();
    assert_eq!(report.damaged, []);
    assert_eq!(report.points.len(), points);
}

#[test]
fn a_copy_has_every_point_and_needs_nothing_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = Fixture::new().create(Arc::new(FileStorage::new(dir.path().join("one")))).unwrap();
    let (manifest, _) = backup(&first, 1, &model(1), &Findings::new()).unwrap();
    let second = Vault::adopt(Arc::new(FileStorage::new(dir.path().join("two"))), &first).unwrap();
    let stats = first.copy_to(&second, &Findings::new()).unwrap();
    assert_eq!((stats.points, stats.damaged.len(), stats.withheld.len()), (1, 0, 0));
    backup(&first, 2, &model(2), &Findings::new()).unwrap();
    let stats = first.copy_to(&second, &Findings::new()).unwrap();
    assert!(stats.points == 1 && stats.bytes < 4_000_000, "{stats:?}");
    assert_eq!(first.copy_to(&second, &Findings::new()).unwrap(), CopyStats::default());
    std::fs::remove_dir_all(dir.path().join("one")).unwrap();
    sound(&second, 2);
    assert!(restore(&second, &manifest).unwrap() == model(1).below_data());
    let (ok, text) = restic(&second, &["check".as_ref(), "--read-data".as_ref()]);
    assert!(ok, "{text}");
}

#[test]
fn a_damaged_object_is_not_copied_and_its_points_are_withheld() {
    let storage = Arc::new(MemoryStorage::new());
    let fixture = Fixture::new();
    let first = fixture.create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    backup(&first, 1, &Model::new().file("data/a", noise(1, 900_000)), &Findings::new()).unwrap();
    let old: BTreeSet<_> = storage.list("data/").unwrap().into_iter().collect();
    backup(&first, 2, &Model::new().file("data/a", noise(2, 900_000)), &Findings::new()).unwrap();
    let new = storage.list("data/").unwrap();
    let hit = new.iter().find(|listed| !old.contains(listed) && listed.size_bytes > 500_000).unwrap();
    storage.tamper(&hit.name, |bytes| bytes[10] ^= 1).unwrap();
    let second = Vault::adopt(Arc::new(MemoryStorage::new()), &first).unwrap();
    let stats = first.copy_to(&second, &Findings::new()).unwrap();
    assert_eq!((stats.points, stats.withheld), (1, vec![point_id(2)]));
    assert_eq!(stats.damaged[0].0, hit.name);
    assert_eq!(second.points().unwrap().len(), 1);
    for entry in second.points().unwrap() {
        restore(&second, entry.manifest().unwrap()).unwrap();
    }
}

#[test]
fn another_vault_is_not_a_copy() {
    let first = Fixture::new().create(Arc::new(MemoryStorage::new())).unwrap();
    let other = Fixture::new().create(Arc::new(MemoryStorage::new())).unwrap();
    let error = first.copy_to(&other, &Findings::new()).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused);
}

fn options(min_age: Duration) -> PruneOptions {
    PruneOptions { now: SystemClock::new().now(), min_age, max_unused_percent: 0 }
}

fn keep(numbers: &[u32]) -> BTreeSet<lifeboat_base::ids::PointId> {
    numbers.iter().map(|number| point_id(*number)).collect()
}

#[test]
fn pruning_drops_what_is_not_kept_and_frees_its_space_in_two_phases() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(FileStorage::new(dir.path().join("vault")));
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    let manifests: Vec<_> = (1..=4)
        .map(|number| backup(&vault, number, &model(u64::from(number)), &Findings::new()).unwrap().0)
        .collect();
    let bytes = |storage: &dyn Storage| {
        storage.list("data/").unwrap().iter().map(|listed| listed.size_bytes).sum::<u64>()
    };
    let before = bytes(storage.as_ref());
    let plan = vault.plan_prune(&keep(&[2, 4]), &options(Duration::ZERO)).unwrap();
    assert_eq!(plan.drop, [point_id(1), point_id(3)]);
    assert!(plan.unused_bytes > 5_900_000, "{plan:?}");
    let plan: PrunePlan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    let report = vault.apply_prune(&plan).unwrap();
    assert_eq!((report.points, report.snapshots), (2, 2));
    assert!(bytes(storage.as_ref()) >= before, "marked packs are still there");
    sound(&vault, 2);
    let (ok, text) = restic(&vault, &["check".as_ref(), "--read-data".as_ref()]);
    assert!(ok, "{text}");

    let plan = vault.plan_prune(&keep(&[2, 4]), &options(Duration::ZERO)).unwrap();
    assert!(plan.delete_bytes > 5_900_000, "{plan:?}");
    vault.apply_prune(&plan).unwrap();
    assert!(bytes(storage.as_ref()) < before - 5_900_000);
    sound(&vault, 2);
    for number in [2usize, 4] {
        let restored = restore(&vault, &manifests[number - 1]).unwrap();
        assert!(restored == model(number as u64).below_data());
    }
    // What was dropped is stored again when it is needed again.
    let (again, _) = backup(&vault, 5, &model(1), &Findings::new()).unwrap();
    assert!(restore(&vault, &again).unwrap() == model(1).below_data());
    let (ok, text) = restic(&vault, &["check".as_ref(), "--read-data".as_ref()]);
    assert!(ok, "{text}");
}

#[test]
fn a_plan_is_void_once_the_vault_changed_or_while_others_work() {
    let storage = Arc::new(MemoryStorage::new());
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    backup(&vault, 1, &model(1), &Findings::new()).unwrap();
    backup(&vault, 2, &model(2), &Findings::new()).unwrap();
    let plan = vault.plan_prune(&keep(&[2]), &options(Duration::ZERO)).unwrap();
    let refused = |plan: &PrunePlan| {
        let error = vault.apply_prune(plan).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Refused, "{error}");
        assert_eq!(vault.points().unwrap().len(), 2);
    };
    let lock = storage.lock().unwrap();
    refused(&plan);
    drop(lock);
    let foreign = ObjectName::new("locks/0123").unwrap();
    storage.put_new(&foreign, &[b"x"]).unwrap();
    refused(&plan);
    storage.remove(&foreign).unwrap();
    assert_eq!(
        vault.plan_prune(&keep(&[7]), &options(Duration::ZERO)).unwrap_err().kind(),
        FailureKind::Refused
    );
    vault.apply_prune(&plan).unwrap();
    assert_eq!(vault.apply_prune(&plan).unwrap_err().kind(), FailureKind::Refused);
    sound(&vault, 1);
}

#[test]
fn nothing_is_removed_while_a_kept_point_or_a_manifest_is_damaged() {
    let storage = Arc::new(MemoryStorage::new());
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    backup(&vault, 1, &model(1), &Findings::new()).unwrap();
    backup(&vault, 2, &model(2), &Findings::new()).unwrap();
    let manifest = ObjectName::new("lifeboat/points/pt-0001.json").unwrap();
    storage.tamper(&manifest, |bytes| bytes[30] ^= 1).unwrap();
    assert!(vault.plan_prune(&keep(&[2]), &options(Duration::ZERO)).is_err());
    storage.tamper(&manifest, |bytes| bytes[30] ^= 1).unwrap();
    let pack = storage.list("data/").unwrap().remove(0).name;
    let whole = storage.get(&pack).unwrap();
    storage.remove(&pack).unwrap();
    let error = vault.plan_prune(&keep(&[1, 2]), &options(Duration::ZERO)).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Damaged);
    storage.put_new(&pack, &[&whole]).unwrap();
    vault.plan_prune(&keep(&[1, 2]), &options(Duration::ZERO)).unwrap();
}

#[test]
fn a_snapshot_whose_point_is_not_sealed_yet_survives_until_it_is_old() {
    let storage = Arc::new(MemoryStorage::new());
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    let (manifest, _) = backup(&vault, 1, &model(1), &Findings::new()).unwrap();
    storage.remove(&ObjectName::new("lifeboat/points/pt-0001.json").unwrap()).unwrap();
    let mut options = options(Duration::from_secs(3600));
    options.now = manifest.started;
    assert_eq!(vault.plan_prune(&keep(&[]), &options).unwrap().drop_snapshots, []);
    options.now = manifest.started + Duration::from_secs(3601);
    assert_eq!(vault.plan_prune(&keep(&[]), &options).unwrap().drop_snapshots, [manifest.snapshot]);
}
