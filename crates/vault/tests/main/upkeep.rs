//! Copies: nothing listed is ever unrestorable.

#![expect(clippy::unwrap_used, reason = "a helper of a test that fails, fails the test")]

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::monitor::Findings;
use lifeboat_vault::storage::{FileStorage, MemoryStorage, Storage};
use lifeboat_vault::{CheckLevel, CopyStats, Vault};

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
