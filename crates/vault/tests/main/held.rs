//! What keeps a removal from going too far: holds wherever they are known, copies that are not what they were, points that
//! are not there, records that were lost.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a helper of a test that fails, fails the test; a disk is taken away by moving its folder"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::HoldId;
use lifeboat_base::monitor::{Finding, Findings, Monitor};
use lifeboat_vault::holds::{HOLD_FORMAT, Hold, HoldScope, Holds, RELEASE_FORMAT, Release};
use lifeboat_vault::retire::{BadBlobs, Filed, RetireOptions, RetirePlan, RetireReport, Wanted};
use lifeboat_vault::storage::{FileStorage, ObjectName, Storage};
use lifeboat_vault::{Vault, VaultError};

use super::retire::{copies, dropped, in_memory, model, names, on_day, plan, retire, sound};
use super::support::{Model, OnPut, Over, backup, noise, now, point_id, restore};

const DAY: Duration = Duration::from_secs(86_400);

fn hold(vault: &Vault, scope: HoldScope) -> Hold {
    Hold {
        format: HOLD_FORMAT.to_owned(),
        id: HoldId::new("hold-1").unwrap(),
        vault: vault.vault_id().clone(),
        store: vault.store().clone(),
        scope,
        reason: "case 7/26".to_owned(),
        holder: "counsel".to_owned(),
        placed: now(),
    }
}

fn release(hold: &Hold) -> Release {
    Release {
        format: RELEASE_FORMAT.to_owned(),
        id: hold.id.clone(),
        vault: hold.vault.clone(),
        reason: "settled".to_owned(),
        by: "counsel".to_owned(),
        released: now(),
    }
}

fn filed(hold: &Hold) -> Filed {
    let known = [(hold.id.clone(), (hold.clone(), None))].into();
    Filed { holds: Holds { known, ..Holds::default() }, ..Filed::default() }
}

fn with(copies: &[&Vault], wanted: &Wanted<'_>, day: u32) -> Result<RetireReport, VaultError> {
    let options = RetireOptions { now: on_day(day), reckoned: on_day(day), grace: DAY, all_open: true };
    RetirePlan::new(copies, wanted, &options)?.apply(copies, &Findings::new())
}

fn object(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// The copy that was away has the hold and the point; the others dropped it, packs and all.
#[test]
fn what_a_hold_covers_stays_in_the_copy_that_has_it_and_comes_back_to_the_others() {
    for scope in
        [HoldScope::Store, HoldScope::Point { point: point_id(1) }, HoldScope::Before { before: now() }]
    {
        let (copies, manifests, _) = in_memory(3);
        let [here, away] = &copies;
        let drop = [dropped(&manifests[0])];
        for day in 0..3 {
            plan(&[here], &drop, day).unwrap().apply(&[here], &Findings::new()).unwrap();
        }
        let placed = hold(away, scope);
        away.put_hold(&placed).unwrap();
        for day in 3..7 {
            away.copy_to(here, &Findings::new()).unwrap();
            here.copy_to(away, &Findings::new()).unwrap();
            let report = retire(&copies, &[], day).unwrap();
            assert!(report.copies.iter().all(|copy| copy.postponed.is_none()), "day {day}: {report:?}");
            assert!(restore(away, &manifests[0]).unwrap() == model(1).below_data(), "day {day}");
            for vault in &copies {
                assert!(vault.absence(&report.retired).unwrap().holds(), "day {day}");
            }
        }
        assert!(restore(here, &manifests[0]).unwrap() == model(1).below_data());
        sound(here, 3);
        sound(away, 3);
        // Released anywhere, the record stands again.
        away.put_release(&release(&placed)).unwrap();
        for day in 7..10 {
            away.copy_to(here, &Findings::new()).unwrap();
            here.copy_to(away, &Findings::new()).unwrap();
            retire(&copies, &[], day).unwrap();
        }
        for vault in &copies {
            sound(vault, 2);
            assert!(vault.absence(&vault.retired().unwrap()).unwrap().holds());
        }
        assert_eq!(names(here), names(away));
    }
}

/// The chain knows of a hold that no copy at hand has.
#[test]
fn a_hold_that_was_only_filed_keeps_what_a_record_names() {
    let (copies, manifests, _) = in_memory(3);
    let [here, away] = &copies;
    let drop = [dropped(&manifests[0])];
    for day in 0..3 {
        plan(&[here], &drop, day).unwrap().apply(&[here], &Findings::new()).unwrap();
    }
    let filed = filed(&hold(here, HoldScope::Store));
    let more = [dropped(&manifests[1])];
    for day in 3..6 {
        with(&[here, away], &Wanted { points: &more, logs: &[], filed: &filed, bad: &BadBlobs::new() }, day)
            .unwrap();
        assert_eq!((here.points().unwrap().len(), away.points().unwrap().len()), (2, 3), "day {day}");
        assert!(restore(away, &manifests[0]).unwrap() == model(1).below_data(), "day {day}");
    }
}

/// Does something once it is told of a phase.
struct AtPhase<F: Fn() + Send + Sync>(&'static str, F);

impl<F: Fn() + Send + Sync> Monitor for AtPhase<F> {
    fn phase(&self, name: &str, _total_bytes: Option<u64>) {
        if name.starts_with(self.0) {
            (self.1)();
        }
    }

    fn advance(&self, _bytes: u64, _items: u64) {}

    fn finding(&self, _finding: Finding) {}

    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn a_hold_that_comes_between_the_plan_and_the_removal_keeps_what_it_covers() {
    let (copies, manifests, _) = in_memory(3);
    let open = [&copies[0], &copies[1]];
    let drop = [dropped(&manifests[0])];
    let made = plan(&open, &drop, 0).unwrap();
    let placed = hold(open[1], HoldScope::Store);
    open[1].put_hold(&placed).unwrap();
    assert_eq!(made.apply(&open, &Findings::new()).unwrap_err().kind(), FailureKind::Refused);
    assert!(open[0].retired().unwrap().names().is_empty());
    open[1].put_release(&release(&placed)).unwrap();
    // Once the record stands, placed by a program that knows no locks.
    let other = Hold { id: HoldId::new("hold-2").unwrap(), ..hold(open[0], HoldScope::Store) };
    let late = AtPhase("removing from", || open[0].put_hold(&other).unwrap());
    let report = plan(&open, &drop, 0).unwrap().apply(&open, &late).unwrap();
    assert!(report.copies[0].postponed.as_ref().is_some_and(|why| why.contains("hold")), "{report:?}");
    assert!(report.copies[0].points == 0 && report.record.is_some());
    assert!(restore(open[0], &manifests[0]).unwrap() == model(1).below_data());
}

/// A disk that is gone, a folder where it would be mounted, a copy without the newest record: none of them is empty.
#[test]
fn a_copy_that_cannot_be_looked_at_is_not_called_clean() {
    let dir = tempfile::tempdir().unwrap();
    let storage = |name: &str| Arc::new(FileStorage::new(dir.path().join(name))) as Arc<dyn Storage>;
    let (copies, manifests) = copies(3, [storage("one"), storage("two")]);
    let open = [&copies[0], &copies[1]];
    let (two, aside) = (dir.path().join("two"), dir.path().join("aside"));
    let gone = || std::fs::rename(&two, &aside).unwrap();
    let back = || std::fs::rename(&aside, &two).unwrap();
    let drop = [dropped(&manifests[0])];
    // It goes while the removal is at work.
    let late = AtPhase("removing from", || {
        if two.exists() {
            gone();
        }
    });
    let report = plan(&open, &drop, 0).unwrap().apply(&open, &late).unwrap();
    assert!(report.copies[0].postponed.is_none() && report.copies[1].postponed.is_some(), "{report:?}");
    assert!(open[0].absence(&report.retired).unwrap().holds());
    let unknown = || assert!(open[1].absence(&report.retired).is_err());
    unknown();
    assert!(plan(&open, &drop, 1).is_err(), "nothing is known of a copy that is not there");
    std::fs::create_dir(&two).unwrap();
    unknown();
    assert!(plan(&open, &drop, 1).is_err(), "nor of an empty folder");
    std::fs::remove_dir(&two).unwrap();
    back();
    assert!(!open[1].absence(&report.retired).unwrap().holds(), "and now it is seen");
    let record = report.retired.names().first().unwrap().clone();
    let bytes = open[1].storage().get(&record).unwrap();
    open[1].storage().remove(&record).unwrap();
    unknown();
    open[1].storage().put_new(&record, &[&bytes]).unwrap();
    let report = retire(&copies, &drop, 1).unwrap();
    assert!(open.iter().all(|vault| vault.absence(&report.retired).unwrap().holds()));
}

/// A disk that is unmounted leaves an empty folder: nothing is written into that.
#[test]
fn nothing_is_written_where_a_copy_was_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let (two, aside) = (dir.path().join("two"), dir.path().join("aside"));
    for moment in ["lifeboat/retired/", "data/"] {
        let (there, away) = (two.clone(), aside.clone());
        let armed = Arc::new(AtomicBool::new(false));
        let unmount = {
            let armed = Arc::clone(&armed);
            move |name: &ObjectName| {
                if name.below(moment).is_some() && armed.swap(false, Ordering::Relaxed) {
                    std::fs::rename(&there, &away).unwrap();
                    std::fs::create_dir(&there).unwrap();
                }
            }
        };
        let one = Arc::new(FileStorage::new(dir.path().join(moment.replace('/', "-"))));
        let one = Arc::new(Over(one as Arc<dyn Storage>, OnPut(unmount)));
        let (copies, _) = copies(0, [one, Arc::new(FileStorage::new(two.clone())) as Arc<dyn Storage>]);
        let open = [&copies[0], &copies[1]];
        // All but one of the small files change: their pack is written again.
        let small = |round: u64| {
            (0..20u64).fold(Model::new(), |model, file| {
                let seed = if file == 7 { 7 } else { round * 1000 + file };
                model.file(format!("data/{file}"), noise(seed, 100_000))
            })
        };
        let old = backup(open[0], 1, &small(1), &Findings::new()).unwrap().0;
        backup(open[0], 2, &small(2), &Findings::new()).unwrap();
        open[0].copy_to(open[1], &Findings::new()).unwrap();
        let made = plan(&open, &[dropped(&old)], 0).unwrap();
        assert!(!made.rewrite.is_empty());
        armed.store(true, Ordering::Relaxed);
        let done = made.apply(&open, &Findings::new());
        assert!(!armed.load(Ordering::Relaxed), "it never came to {moment}");
        assert!(done.is_err() || done.is_ok_and(|report| report.copies[1].postponed.is_some()));
        assert_eq!(std::fs::read_dir(&two).unwrap().count(), 0, "{moment}");
        std::fs::remove_dir(&two).unwrap();
        std::fs::rename(&aside, &two).unwrap();
        for day in 0..3 {
            retire(&copies, &[dropped(&old)], day).unwrap();
        }
        for vault in open {
            sound(vault, 1);
        }
        std::fs::remove_dir_all(&two).unwrap();
    }
}

#[test]
fn a_point_that_no_copy_can_give_is_named_before_anything_is_recorded() {
    let (copies, _, storages) = in_memory(3);
    let open = [&copies[0], &copies[1]];
    let before = names(open[0]);
    assert!(plan(&open, &[], 0).unwrap().unresolved.is_empty());
    // What only the second point needs.
    let needs = |number: usize| {
        let packs = |drop: &[_]| {
            let made = plan(&open, drop, 0).unwrap();
            made.record.mark.into_iter().map(|pack| pack.id).collect::<Vec<_>>()
        };
        let points = open[0].points().unwrap();
        packs(&[dropped(points[number].manifest().unwrap())])
    };
    for pack in needs(1) {
        let name = object(&format!("data/{pack}"));
        let bytes = storages[0].get(&name).unwrap();
        storages[0].remove(&name).unwrap();
        assert!(plan(&open, &[], 0).unwrap().unresolved.is_empty(), "the other copy has it");
        storages[1].remove(&name).unwrap();
        let made = plan(&open, &[], 0).unwrap();
        assert_eq!(made.unresolved.keys().collect::<Vec<_>>(), [&point_id(2)]);
        for storage in &storages {
            storage.put_new(&name, &[&bytes]).unwrap();
        }
    }
    let snapshot = open[0].points().unwrap()[2].manifest().unwrap().snapshot;
    for storage in &storages {
        storage.remove(&object(&format!("snapshots/{snapshot}"))).unwrap();
    }
    let made = plan(&open, &[], 0).unwrap();
    assert_eq!(made.unresolved.keys().collect::<Vec<_>>(), [&point_id(3)]);
    assert!(names(open[0]).len() + 1 == before.len());
}

#[test]
fn damaged_holds_records_and_index_files_are_whole_again_from_the_other_copy() {
    let (copies, manifests, storages) = in_memory(3);
    let placed = hold(&copies[0], HoldScope::Point { point: point_id(3) });
    for vault in &copies {
        vault.put_hold(&placed).unwrap();
    }
    retire(&copies, &[dropped(&manifests[0])], 0).unwrap();
    let first = |folder: &str| storages[1].list(folder).unwrap().remove(0).name;
    for name in [first("lifeboat/holds/"), first("lifeboat/retired/"), first("index/")] {
        storages[1].tamper(&name, |bytes| bytes[20] ^= 1).unwrap();
        let monitor = Findings::new();
        copies[0].copy_to(&copies[1], &monitor).unwrap();
        assert_eq!(storages[0].get(&name).unwrap(), storages[1].get(&name).unwrap(), "{name}");
        let told = monitor.list();
        assert!(
            told.iter().any(|one| one.code == "object-mended" && one.subject == name.as_str()),
            "{told:?}"
        );
    }
    // Retention does it too, and is not kept from its work.
    let record = first("lifeboat/retired/");
    storages[0].tamper(&record, |bytes| bytes[20] ^= 1).unwrap();
    let (open, told) = ([&copies[0], &copies[1]], Findings::new());
    let report = plan(&open, &[], 1).unwrap().apply(&open, &told).unwrap();
    assert!(report.copies.iter().all(|copy| copy.postponed.is_none()), "{report:?}");
    assert!(told.list().iter().any(|one| one.code == "object-mended"), "{:?}", told.list());
    assert_eq!(storages[0].get(&record).unwrap(), storages[1].get(&record).unwrap());
    for vault in &copies {
        sound(vault, 2);
    }
}

#[test]
fn what_lost_records_named_is_recorded_again_under_a_higher_number() {
    let (copies, manifests, storages) = in_memory(3);
    let open = [&copies[0], &copies[1]];
    let manifest = object("lifeboat/points/pt-0001.json");
    let bytes = storages[0].get(&manifest).unwrap();
    let drop = [dropped(&manifests[0])];
    for day in 0..3 {
        retire(&copies, &drop, day).unwrap();
    }
    let seq = copies[0].retired().unwrap().seq();
    let damaged = storages[0].list("lifeboat/retired/").unwrap();
    for storage in &storages {
        for (number, listed) in damaged.iter().enumerate() {
            if number == 0 {
                storage.tamper(&listed.name, |bytes| bytes[20] ^= 1).unwrap();
            } else {
                storage.remove(&listed.name).unwrap();
            }
        }
    }
    // Meanwhile it came back from somewhere.
    storages[1].put_new(&manifest, &[&bytes]).unwrap();
    let filed =
        Filed { seq, points: drop.to_vec(), replaced: vec![damaged[0].name.clone()], ..Filed::default() };
    let report =
        with(&open, &Wanted { points: &[], logs: &[], filed: &filed, bad: &BadBlobs::new() }, 3).unwrap();
    assert!(report.retired.seq() > seq && report.retired.point(&point_id(1)).is_some(), "{report:?}");
    for vault in open {
        assert!(vault.absence(&report.retired).unwrap().holds());
        sound(vault, 2);
    }
}
