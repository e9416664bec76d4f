//! One flipped byte, one missing file, one cut file, in every file of a vault: found, named, with its points.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test that fails, fails the test")]

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::{PointId, StreamName};
use lifeboat_base::monitor::Findings;
use lifeboat_vault::logs::{LogObject, Position};
use lifeboat_vault::storage::{MemoryStorage, ObjectName, Storage};
use lifeboat_vault::{CheckLevel, CheckReport, PointManifest, Vault, check_without_key};

use super::support::{Fixture, Model, backup, noise, now, point_id, restore};

struct Scene {
    storage: Arc<MemoryStorage>,
    fixture: Fixture,
    points: Vec<(PointManifest, Model)>,
}

/// Two points that share some content and differ in some, and a log stream.
fn scene() -> Scene {
    let fixture = Fixture::new();
    let storage = Arc::new(MemoryStorage::new());
    let vault = fixture.create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    let points = [1u8, 2]
        .into_iter()
        .map(|number| {
            let model = Model::new()
                .file("data/shared", noise(1, 700_000))
                .file("data/own", noise(u64::from(number) + 1, 700_000));
            (backup(&vault, u32::from(number), &model, &Findings::new()).unwrap().0, model)
        })
        .collect();
    let object = LogObject {
        first: Position::new(1, 0),
        last: Position::new(1, 10),
        follows: None,
        history: None,
        marks: Vec::new(),
        previous: None,
        started: now(),
        ended: now(),
        content: &mut b"piece of log".as_slice(),
    };
    vault.logs().append(&StreamName::new("wal").unwrap(), object, &OsEntropy).unwrap();
    Scene { storage, fixture, points }
}

fn names(storage: &dyn Storage) -> Vec<ObjectName> {
    storage.list("").unwrap().into_iter().map(|listed| listed.name).collect()
}

fn damaged_points(report: &CheckReport) -> BTreeSet<PointId> {
    report.points.iter().filter(|point| !point.ok).map(|point| point.id.clone()).collect()
}

/// Checks a damaged vault: the object must be named and blamed; points it does not blame must restore.
fn expect_found(scene: &Scene, object: &ObjectName, level: CheckLevel) {
    let open = scene.fixture.open(Arc::clone(&scene.storage) as Arc<dyn Storage>);
    let vault: Vault = match open {
        Ok(vault) => vault,
        Err(error) => {
            // Without its key file a vault cannot be opened: the error and the keyless check name the file.
            assert!(object.as_str().starts_with("keys/"), "{object}: {error}");
            assert!(matches!(error.kind(), FailureKind::Damaged | FailureKind::Unreachable), "{error}");
            if scene.storage.stat(object).unwrap().is_some() {
                assert!(error.to_string().contains(object.as_str()), "{error}");
                let report = check_without_key(scene.storage.as_ref(), &Findings::new()).unwrap();
                assert_eq!(report.damaged.iter().map(|d| &d.object).collect::<Vec<_>>(), [object]);
            }
            return;
        }
    };
    let report = vault.check(level, &Findings::new()).unwrap();
    let found = report.damaged.iter().find(|damaged| damaged.object == *object);
    let found = found.unwrap_or_else(|| panic!("{object} at {level:?}: {:?}", report.damaged));
    let is_log = object.as_str().starts_with("lifeboat/logs/");
    assert_eq!(found.points.is_empty(), is_log, "{object}: {found:?}");
    let bad = damaged_points(&report);
    for (manifest, model) in &scene.points {
        let restored = restore(&vault, manifest);
        if !bad.contains(&manifest.id) {
            assert!(restored.unwrap() == model.below_data(), "{object} hit {}", manifest.id);
        } else if let Err(error) = restored {
            assert_eq!(error.kind(), FailureKind::Damaged, "{object}: {error:?}");
        }
    }
}

#[test]
fn a_sound_vault_has_nothing_to_report() {
    let scene = scene();
    let vault = scene.fixture.open(Arc::clone(&scene.storage) as Arc<dyn Storage>).unwrap();
    for level in [CheckLevel::Checksummed, CheckLevel::Readable] {
        let monitor = Findings::new();
        let report = vault.check(level, &monitor).unwrap();
        assert_eq!((report.damaged.len(), report.extra.len(), monitor.list().len()), (0, 0, 0), "{report:?}");
        assert!(report.points.iter().all(|point| point.ok) && report.points.len() == 2);
        assert_eq!(report.files_checked, names(scene.storage.as_ref()).len() as u64);
    }
}

#[test]
fn a_flipped_byte_in_any_file_is_found_and_named_with_its_points() {
    let all = names(scene().storage.as_ref()).len();
    assert!(all >= 14, "{all} files");
    let scene = scene();
    for object in names(scene.storage.as_ref()) {
        let size = usize::try_from(scene.storage.stat(&object).unwrap().unwrap()).unwrap();
        let mut places = vec![0, size / 3, size / 2, size - 1];
        // A field that is only a hint is stored all the same.
        let content = scene.storage.get(&object).unwrap();
        places.extend(content.windows(9).position(|window| window == b"\"keyid\":\"").map(|at| at + 9));
        for place in places {
            scene.storage.tamper(&object, |bytes| bytes[place] ^= 0x20).unwrap();
            for level in [CheckLevel::Checksummed, CheckLevel::Readable] {
                expect_found(&scene, &object, level);
            }
            scene.storage.tamper(&object, |bytes| bytes[place] ^= 0x20).unwrap();
        }
    }
}

#[test]
fn a_cut_file_is_found_and_named() {
    let scene = scene();
    for object in names(scene.storage.as_ref()) {
        let whole = scene.storage.get(&object).unwrap();
        for keep in [0, whole.len() / 2, whole.len() - 1] {
            scene.storage.tamper(&object, |bytes| bytes.truncate(keep)).unwrap();
            expect_found(&scene, &object, CheckLevel::Checksummed);
            expect_found(&scene, &object, CheckLevel::Readable);
            scene.storage.tamper(&object, |bytes| bytes.clone_from(&whole)).unwrap();
        }
    }
}

#[test]
fn a_missing_file_that_something_relies_on_is_found() {
    let scene = scene();
    for object in names(scene.storage.as_ref()) {
        let promised = ["data/", "snapshots/", "config", "lifeboat/envelope", "lifeboat/vault"];
        if !promised.iter().any(|prefix| object.as_str().starts_with(prefix)) {
            continue;
        }
        let whole = scene.storage.get(&object).unwrap();
        scene.storage.remove(&object).unwrap();
        let envelope = object.as_str() == "lifeboat/envelope.json";
        if !envelope || scene.fixture.open(Arc::clone(&scene.storage) as Arc<dyn Storage>).is_ok() {
            expect_found(&scene, &object, CheckLevel::Checksummed);
        }
        scene.storage.put_new(&object, &[&whole]).unwrap();
    }
}

#[test]
fn a_missing_index_is_blamed_on_the_points_that_need_it() {
    let scene = scene();
    let vault = scene.fixture.open(Arc::clone(&scene.storage) as Arc<dyn Storage>).unwrap();
    let first = scene.storage.list("index/").unwrap().remove(0).name;
    scene.storage.remove(&first).unwrap();
    let report = vault.check(CheckLevel::Checksummed, &Findings::new()).unwrap();
    assert!(!report.is_sound() && !damaged_points(&report).is_empty(), "{report:?}");
}

#[test]
fn damage_of_one_points_own_content_leaves_the_other_point_sound() {
    let scene = scene();
    let vault = scene.fixture.open(Arc::clone(&scene.storage) as Arc<dyn Storage>).unwrap();
    // The second backup's data pack holds only the second point's own file.
    let mut packs = scene.storage.list("data/").unwrap();
    packs.retain(|listed| listed.size_bytes > 600_000);
    packs.sort_by_key(|listed| listed.size_bytes);
    let pack = &packs[0].name;
    scene.storage.tamper(pack, |bytes| bytes[1000] ^= 1).unwrap();
    let report = vault.check(CheckLevel::Readable, &Findings::new()).unwrap();
    assert_eq!(damaged_points(&report), BTreeSet::from([point_id(2)]));
    assert!(report.damaged[0].why.contains("blob "), "{report:?}");
    assert_eq!(restore(&vault, &scene.points[1].0).unwrap_err().kind(), FailureKind::Damaged);
    restore(&vault, &scene.points[0].0).unwrap();
}

#[test]
fn all_faults_are_named_in_one_run_and_foreign_files_are_not_damage() {
    let scene = scene();
    let vault = scene.fixture.open(Arc::clone(&scene.storage) as Arc<dyn Storage>).unwrap();
    let hit: Vec<_> = names(scene.storage.as_ref())
        .into_iter()
        .filter(|name| !name.as_str().starts_with("keys/"))
        .collect();
    for name in &hit {
        scene.storage.tamper(name, |bytes| bytes[5] ^= 1).unwrap();
    }
    scene.storage.put_new(&ObjectName::new("lifeboat/README").unwrap(), &[b"?"]).unwrap();
    let monitor = Findings::new();
    let report = vault.check(CheckLevel::Readable, &monitor).unwrap();
    let named: Vec<_> = report.damaged.iter().map(|damaged| damaged.object.clone()).collect();
    for name in hit {
        assert!(named.contains(&name), "{name} is not in {named:?}");
    }
    assert!(report.extra.contains(&"lifeboat/README".to_owned()));
    assert!(monitor.list().iter().any(|finding| finding.code == "unexpected-object"));
    assert_eq!(damaged_points(&report).len(), 2);
}

#[test]
fn damaged_manifests_are_listed_as_damaged_and_never_skipped() {
    let scene = scene();
    let vault = scene.fixture.open(Arc::clone(&scene.storage) as Arc<dyn Storage>).unwrap();
    let name = ObjectName::new("lifeboat/points/pt-0001.json").unwrap();
    let other = ObjectName::new("lifeboat/points/pt-0002.json").unwrap();
    let whole = scene.storage.get(&name).unwrap();
    let foreign = scene.storage.get(&other).unwrap();
    scene.storage.tamper(&name, |bytes| *bytes = foreign).unwrap();
    let points = vault.points().unwrap();
    assert_eq!(points.len(), 2);
    assert!(points[0].manifest().is_none() && points[0].id() == Some(&point_id(1)));
    assert!(points[1].manifest().is_some());
    scene.storage.tamper(&name, |bytes| *bytes = whole).unwrap();
    assert!(vault.points().unwrap().iter().all(|entry| entry.manifest().is_some()));
}
