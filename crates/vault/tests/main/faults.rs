//! Every storage call of a creation and of a backup fails once: each time the vault ends in a state the next run
//! completes, and what was committed stays restorable.

use std::sync::Arc;

use lifeboat_base::monitor::Findings;
use lifeboat_vault::CheckLevel;
use lifeboat_vault::storage::{MemoryStorage, Storage};

use super::storage::FaultyStorage;
use super::support::{Fixture, Model, backup, noise, restore};

const MAX_CALLS: u64 = 500;

fn model(number: u8) -> Model {
    Model::new()
        .file("data/same", noise(1, 3_000_000))
        .file("data/new", noise(u64::from(number) + 10, 2_000_000))
        .file("data/small", format!("{number}"))
}

#[test]
fn any_failed_call_of_a_creation_is_completed_by_the_next() {
    let fixture = Fixture::new();
    for lie in [false, true] {
        let mut number = 0;
        loop {
            assert!(number < MAX_CALLS);
            let faulty = Arc::new(FaultyStorage::new(Arc::new(MemoryStorage::new())));
            faulty.fail_at(number, lie);
            let first = fixture.create(Arc::clone(&faulty) as Arc<dyn Storage>);
            if !faulty.failed() {
                first.unwrap();
                break;
            }
            // A lie about the last write leaves a complete vault: creating refuses, opening works.
            let vault = fixture
                .create(Arc::clone(&faulty) as Arc<dyn Storage>)
                .or_else(|_exists| fixture.open(Arc::clone(&faulty) as Arc<dyn Storage>))
                .unwrap();
            let (manifest, _) = backup(&vault, 1, &model(1), &Findings::new()).unwrap();
            assert!(restore(&vault, &manifest).unwrap() == model(1).below_data());
            number += 1;
        }
        assert!(number > 5);
    }
}

#[test]
fn any_failed_call_of_a_backup_loses_nothing_and_the_next_run_succeeds() {
    let fixture = Fixture::new();
    for lie in [false, true] {
        let mut number = 0;
        loop {
            assert!(number < MAX_CALLS);
            let faulty = Arc::new(FaultyStorage::new(Arc::new(MemoryStorage::new())));
            let vault = fixture.create(Arc::clone(&faulty) as Arc<dyn Storage>).unwrap();
            let (committed, _) = backup(&vault, 1, &model(1), &Findings::new()).unwrap();
            faulty.fail_at(number, lie);
            let second = backup(&vault, 2, &model(2), &Findings::new());
            let reached = faulty.failed();
            faulty.fail_at(u64::MAX, false);
            if !reached {
                second.unwrap();
                break;
            }
            assert!(second.is_err(), "call {number} failed and nobody said so");
            assert!(restore(&vault, &committed).unwrap() == model(1).below_data());
            // Whatever is listed is restorable, even when the failed call was a lie.
            for entry in vault.points().unwrap() {
                restore(&vault, entry.manifest().unwrap()).unwrap();
            }
            let (third, _) = backup(&vault, 3, &model(2), &Findings::new()).unwrap();
            assert!(restore(&vault, &third).unwrap() == model(2).below_data());
            let report = vault.check(CheckLevel::Readable, &Findings::new()).unwrap();
            assert_eq!(report.damaged, [], "after call {number}");
            number += 1;
        }
        assert!(number > 10);
    }
}

#[test]
fn a_second_writer_is_refused() {
    let storage = Arc::new(MemoryStorage::new());
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    let lock = storage.lock().unwrap();
    let error = backup(&vault, 1, &model(1), &Findings::new()).unwrap_err();
    assert_eq!(error.kind(), lifeboat_base::failure::FailureKind::Refused);
    drop(lock);
    backup(&vault, 1, &model(1), &Findings::new()).unwrap();
}

#[test]
fn packs_a_killed_run_left_behind_are_used_and_not_sent_again() {
    let storage = Arc::new(MemoryStorage::new());
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    let model = Model::new().file("data/big", noise(1, 40_000_000));
    let (_, first) = backup(&vault, 1, &model, &Findings::new()).unwrap();
    // A kill leaves packs without index, snapshot and manifest.
    for folder in ["index/", "snapshots/", "lifeboat/points/"] {
        for listed in storage.list(folder).unwrap() {
            storage.remove(&listed.name).unwrap();
        }
    }
    let (manifest, second) = backup(&vault, 2, &model, &Findings::new()).unwrap();
    assert_eq!(second.new_blobs, 0);
    assert_eq!((second.packs, second.adopted_packs), (0, first.packs));
    assert!(restore(&vault, &manifest).unwrap() == model.below_data());
}
