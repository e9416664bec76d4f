//! Every storage call of a creation and of a backup fails once: each time the vault ends in a state the next run
//! completes, and what was committed stays restorable.

#![expect(clippy::unwrap_used, reason = "a helper of a test that fails, fails the test")]

use std::sync::Arc;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::monitor::{Finding, Findings, Monitor};
use lifeboat_vault::retire::RetireReport;
use lifeboat_vault::storage::{MemoryStorage, ObjectName, Storage, StorageError};
use lifeboat_vault::{CheckLevel, PointManifest, Vault};

use super::retire::{dropped, names, retire};
use super::storage::{FAULTS, Fault, FaultyStorage};
use super::support::{Fixture, Model, Over, Ways, backup, noise, restore};

const MAX_CALLS: u64 = 500;

fn model(number: u8) -> Model {
    Model::new()
        .file("data/same", noise(1, 700_000))
        .file("data/new", noise(u64::from(number) + 10, 300_000))
        .file("data/small", format!("{number}"))
}

/// Runs `attempt` with every single call failing in every way, until one passes without reaching the fault.
fn each_call(least: u64, attempt: impl Fn(u64, Fault) -> bool) {
    for fault in FAULTS {
        let mut number = 0;
        while attempt(number, fault) {
            number += 1;
            assert!(number < MAX_CALLS);
        }
        assert!(number >= least, "only {number} calls were tried");
    }
}

fn faulty() -> (Arc<FaultyStorage>, Arc<dyn Storage>) {
    let faulty = Arc::new(FaultyStorage::new(Arc::new(MemoryStorage::new())));
    (Arc::clone(&faulty), faulty)
}

/// A vault with points, made once, and a fresh faulty copy of it for every attempt.
struct Base {
    fixture: Fixture,
    storage: MemoryStorage,
    manifests: Vec<PointManifest>,
}

impl Base {
    fn with_points(count: u8) -> Self {
        Self::of(count, model)
    }

    fn of(count: u8, model: fn(u8) -> Model) -> Self {
        let fixture = Fixture::new();
        let storage = MemoryStorage::new();
        let vault = fixture.create(Arc::new(storage.clone())).unwrap();
        let point = |number| backup(&vault, u32::from(number), &model(number), &Findings::new()).unwrap().0;
        let manifests = (1..=count).map(point).collect();
        Self { fixture, storage, manifests }
    }

    fn fork(&self) -> (Arc<FaultyStorage>, Vault) {
        let (faulty, storage) = faulty();
        for listed in self.storage.list("").unwrap() {
            storage.put_new(&listed.name, &[&self.storage.get(&listed.name).unwrap()]).unwrap();
        }
        (faulty, self.fixture.open(storage).unwrap())
    }
}

/// Everything a vault lists is restorable.
fn all_listed_restore(vault: &Vault) {
    for entry in vault.points().unwrap() {
        restore(vault, entry.manifest().unwrap()).unwrap();
    }
}

fn sound(vault: &Vault, after: u64) {
    let report = vault.check(CheckLevel::Readable, &Findings::new()).unwrap();
    assert_eq!(report.damaged, [], "after call {after}");
}

#[test]
fn any_failed_call_of_a_creation_is_completed_by_the_next() {
    let fixture = Fixture::new();
    each_call(5, |number, fault| {
        let (faulty, storage) = faulty();
        faulty.fail_at(number, fault);
        let first = fixture.create(Arc::clone(&storage));
        let reached = faulty.heal();
        if !reached {
            first.unwrap();
            return false;
        }
        // A lie about the last write leaves a complete vault: creating refuses, opening works.
        let vault = fixture
            .create(Arc::clone(&storage))
            .or_else(|_exists| fixture.open(Arc::clone(&storage)))
            .unwrap();
        let (manifest, _) = backup(&vault, 1, &model(1), &Findings::new()).unwrap();
        assert!(restore(&vault, &manifest).unwrap() == model(1).below_data());
        true
    });
}

#[test]
fn any_failed_call_of_a_backup_loses_nothing_and_the_next_run_succeeds() {
    let base = Base::with_points(1);
    each_call(10, |number, fault| {
        let (faulty, vault) = base.fork();
        faulty.fail_at(number, fault);
        let second = backup(&vault, 2, &model(2), &Findings::new());
        if !faulty.heal() {
            second.unwrap();
            return false;
        }
        assert!(second.is_err(), "call {number} failed and nobody said so");
        assert!(restore(&vault, &base.manifests[0]).unwrap() == model(1).below_data());
        all_listed_restore(&vault);
        let (third, _) = backup(&vault, 3, &model(2), &Findings::new()).unwrap();
        assert!(restore(&vault, &third).unwrap() == model(2).below_data());
        sound(&vault, number);
        true
    });
}

#[test]
fn any_failed_call_of_a_copy_is_completed_by_the_next() {
    let first = Fixture::new().create(Arc::new(MemoryStorage::new())).unwrap();
    backup(&first, 1, &model(1), &Findings::new()).unwrap();
    backup(&first, 2, &model(2), &Findings::new()).unwrap();
    each_call(20, |number, fault| {
        let (faulty, storage) = faulty();
        faulty.fail_at(number, fault);
        let copied = Vault::adopt(Arc::clone(&storage), &first)
            .and_then(|second| first.copy_to(&second, &Findings::new()));
        if !faulty.heal() {
            copied.unwrap();
            return false;
        }
        let second = Vault::adopt(storage, &first).unwrap();
        all_listed_restore(&second);
        assert_eq!(first.copy_to(&second, &Findings::new()).unwrap().withheld, []);
        assert_eq!(second.points().unwrap().len(), 2);
        sound(&second, number);
        true
    });
}

/// Two copies of the base, the first of which fails on command.
fn two_copies(base: &Base) -> (Arc<FaultyStorage>, [Vault; 2]) {
    let (faulty, first) = base.fork();
    let second = Vault::adopt(Arc::new(MemoryStorage::new()), &first).unwrap();
    first.copy_to(&second, &Findings::new()).unwrap();
    (faulty, [first, second])
}

/// Little content, for many rounds.
fn little(number: u8) -> Model {
    Model::new().file("data/same", noise(1, 20_000)).file("data/new", noise(u64::from(number) + 10, 20_000))
}

#[test]
fn any_failed_call_of_a_retirement_keeps_every_kept_point_and_the_next_one_completes_it() {
    let base = Base::of(3, little);
    let drop = [dropped(&base.manifests[0]), dropped(&base.manifests[1])];
    // The second application removes what the first one marked.
    for (fail_in, least) in [(0, 40), (1, 40)] {
        each_call(least, |number, fault| {
            let (faulty, copies) = two_copies(&base);
            let mut reached = false;
            for day in 1..=2 {
                if day == fail_in + 1 {
                    faulty.fail_at(number, fault);
                    let applied = retire(&copies, &drop, day);
                    reached = faulty.heal();
                    if reached {
                        let postponed =
                            |report: &RetireReport| report.copies.iter().any(|copy| copy.postponed.is_some());
                        let told = applied.as_ref().map_or(true, postponed);
                        assert!(told, "call {number} failed and nobody said so");
                    } else {
                        applied.unwrap();
                    }
                } else {
                    retire(&copies, &drop, day).unwrap();
                }
                for vault in &copies {
                    all_listed_restore(vault);
                    assert!(restore(vault, &base.manifests[2]).unwrap() == little(3).below_data());
                }
            }
            for day in 3..=7 {
                // As whoever applies retention does first: what one copy got alone goes to the other.
                copies[1].copy_to(&copies[0], &Findings::new()).unwrap();
                copies[0].copy_to(&copies[1], &Findings::new()).unwrap();
                retire(&copies, &drop, day).unwrap();
            }
            for vault in &copies {
                assert_eq!(vault.points().unwrap().len(), 1, "after call {number}");
                assert!(restore(vault, &base.manifests[2]).unwrap() == little(3).below_data());
                sound(vault, number);
                let absence = vault.absence(&vault.retired().unwrap()).unwrap();
                assert!(absence.holds() && absence.waiting.is_empty(), "after call {number}: {absence:?}");
            }
            assert_eq!(names(&copies[0]), names(&copies[1]), "after call {number}");
            reached
        });
    }
}

#[test]
fn a_second_writer_is_refused() {
    let storage = Arc::new(MemoryStorage::new());
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    let lock = storage.lock().unwrap();
    let error = backup(&vault, 1, &model(1), &Findings::new()).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused);
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

/// How a storage loses what it said it stored.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Everything,
    TheEnd,
    TheContent,
}

/// Says yes to every write below `data/` and keeps something else.
impl Ways for Loss {
    fn put_new(&self, below: &dyn Storage, name: &ObjectName, pieces: &[&[u8]]) -> Result<(), StorageError> {
        let bytes = pieces.concat();
        match self {
            _ if !name.as_str().starts_with("data/") => below.put_new(name, pieces),
            Self::Everything => Ok(()),
            Self::TheEnd => below.put_new(name, &[&bytes[..bytes.len() - 1]]),
            Self::TheContent => below.put_new(name, &[&vec![0; bytes.len()]]),
        }
    }
}

/// Silent failures 3 and 8: an upload that was not, named by an index all the same.
#[test]
fn a_pack_that_was_not_stored_as_written_is_never_indexed() {
    for loss in [Loss::Everything, Loss::TheEnd, Loss::TheContent] {
        let memory = MemoryStorage::new();
        let storage = Arc::new(Over(Arc::new(memory.clone()), loss));
        let vault = Fixture::new().create(storage).unwrap();
        let error = backup(&vault, 1, &model(1), &Findings::new()).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Damaged, "{loss:?}");
        for folder in ["index/", "snapshots/", "lifeboat/points/"] {
            assert_eq!(memory.list(folder).unwrap(), [], "{loss:?}");
        }
    }
}

/// A pack that is lost later must not be relied on by the next backup.
#[test]
fn content_whose_pack_is_gone_is_stored_again() {
    let storage = Arc::new(MemoryStorage::new());
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    backup(&vault, 1, &model(1), &Findings::new()).unwrap();
    for listed in storage.list("data/").unwrap() {
        storage.remove(&listed.name).unwrap();
    }
    let monitor = Findings::new();
    let (manifest, written) = backup(&vault, 2, &model(1), &monitor).unwrap();
    assert!(written.new_bytes > 1_000_000, "{written:?}");
    assert!(monitor.list().iter().all(|finding| finding.kind == FailureKind::Damaged));
    assert!(restore(&vault, &manifest).unwrap() == model(1).below_data());
}

struct StopAfter(std::sync::atomic::AtomicI64);

impl Monitor for StopAfter {
    fn phase(&self, _name: &str, _total_bytes: Option<u64>) {}

    fn advance(&self, _bytes: u64, _items: u64) {}

    fn finding(&self, _finding: Finding) {}

    fn cancelled(&self) -> bool {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) <= 0
    }
}

#[test]
fn a_cancelled_backup_leaves_nothing_visible_and_is_continued() {
    let storage = Arc::new(MemoryStorage::new());
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    let model = Model::new().file("data/big", noise(1, 60_000_000)).file("data/last", "x");
    let error = backup(&vault, 1, &model, &StopAfter(40.into())).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused);
    assert_eq!(storage.list("snapshots/").unwrap(), []);
    let (manifest, written) = backup(&vault, 2, &model, &Findings::new()).unwrap();
    assert!(written.new_bytes < 40_000_000, "{} bytes were sent again", written.new_bytes);
    assert!(restore(&vault, &manifest).unwrap() == model.below_data());
}

/// Silent failure 13: encryption that was asked for and not done.
#[test]
fn no_stored_byte_is_readable_without_the_key() {
    let storage = Arc::new(MemoryStorage::new());
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    let canary = b"canary-5be1-in-content";
    let model = Model::new().file("data/canary-5be1-in-a-name", canary.repeat(1000));
    backup(&vault, 1, &model, &Findings::new()).unwrap();
    let secret = vault.secrets().repository_password.expose().clone();
    for listed in storage.list("").unwrap() {
        let bytes = storage.get(&listed.name).unwrap();
        for needle in [b"canary-5be1".as_slice(), secret.as_bytes()] {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{}", listed.name);
        }
    }
}
