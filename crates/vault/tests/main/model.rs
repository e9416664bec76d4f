//! Random trees go in and come out identical; unchanged content is not stored twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat_base::capture::RestoreSource;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::monitor::Findings;
use lifeboat_vault::VaultError;
use lifeboat_vault::storage::{MemoryStorage, Storage};
use proptest::prelude::*;

use super::support::{
    Fixture, Model, Thing, backup, backup_capture, bytes_of, noise, path, read_tree, restore,
};

fn name() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop::collection::vec(1u8.., 1..12).prop_filter("plain", |bytes| {
        !bytes.contains(&b'/') && bytes.as_slice() != b"." && bytes.as_slice() != b".."
    });
    prop_oneof!["[a-c]{1,2}".prop_map(String::into_bytes), plain]
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Thing::File(Arc::new(bytes))),
        1 => (any::<u64>(), 0usize..3_000_000).prop_map(|(seed, n)| Thing::File(Arc::new(noise(seed, n)))),
        1 => (any::<u64>(), 0usize..400_000).prop_map(|(seed, n)| Thing::Paged(Arc::new(noise(seed, n)))),
        1 => (0usize..3_000_000).prop_map(|n| Thing::File(Arc::new(vec![0; n]))),
        1 => prop::collection::vec(1u8.., 1..20).prop_map(|bytes| {
            Thing::Symlink(std::os::unix::ffi::OsStringExt::from_vec(bytes))
        }),
        1 => Just(Thing::Fifo),
        1 => Just(Thing::Socket),
    ]
}

fn tree() -> impl Strategy<Value = Model> {
    prop::collection::vec((prop::collection::vec(name(), 1..4), thing()), 0..25).prop_map(|entries| {
        let mut model = Model::new();
        for (names, thing) in entries {
            let mut at = b"data".to_vec();
            let mut blocked = false;
            for (depth, name) in names.iter().enumerate() {
                at.push(b'/');
                at.extend_from_slice(name);
                let last = depth + 1 == names.len();
                let fresh = if last { thing.clone() } else { Thing::Dir };
                let entry = model.0.entry(path(&at)).or_insert(fresh);
                blocked |= !last && *entry != Thing::Dir;
                if blocked {
                    break;
                }
            }
        }
        model
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_tree_comes_back_identical_and_is_stored_once(model in tree()) {
        let vault = Fixture::new().create(Arc::new(MemoryStorage::new())).unwrap();
        let (first, _) = backup(&vault, 1, &model, &Findings::new()).unwrap();
        prop_assert!(restore(&vault, &first).unwrap() == model.below_data());
        let (second, written) = backup(&vault, 2, &model, &Findings::new()).unwrap();
        prop_assert_eq!((written.new_blobs, written.new_bytes, written.packs), (0, 0, 0));
        prop_assert!(written.stored_bytes < 2_000);
        prop_assert!(restore(&vault, &second).unwrap() == model.below_data());
        let (third, written) =
            backup_capture(&vault, 3, model.capture().backwards(), &Findings::new()).unwrap();
        prop_assert_eq!((written.new_blobs, written.new_bytes), (0, 0), "another order, the same tree");
        prop_assert!(restore(&vault, &third).unwrap() == model.below_data());
    }
}

#[test]
fn a_changed_page_stores_at_most_two_chunks_and_the_listings() {
    let vault = Fixture::new().create(Arc::new(MemoryStorage::new())).unwrap();
    let mut content = noise(1, 64 * 1024 * 1024);
    let model = |content: &[u8]| Model::new().with("data/db", Thing::Paged(Arc::new(content.to_vec())));
    backup(&vault, 1, &model(&content), &Findings::new()).unwrap();
    content[20_000_000..20_004_096].fill(9);
    let (_, written) = backup(&vault, 2, &model(&content), &Findings::new()).unwrap();
    // At most two chunks, the listing of `data` and the root.
    assert!(written.new_blobs <= 4, "{written:?}");
    assert!(written.stored_bytes < 2 * 64 * 1024 + 100_000, "{written:?}");
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_is_left_out_and_told() {
    let vault = Fixture::new().create(Arc::new(MemoryStorage::new())).unwrap();
    let model = Model::new()
        .file("data/a", "a")
        .with("data/broken", Thing::Broken(Arc::new(noise(1, 2_000_000))))
        .file("data/z", "z");
    let monitor = Findings::new();
    let (manifest, written) = backup(&vault, 1, &model, &monitor).unwrap();
    assert_eq!(written.facts.unreadable, ["data/broken"]);
    assert_eq!(written.file_count, 2);
    let findings = monitor.list();
    assert_eq!((findings.len(), findings[0].code.as_str()), (1, "file-unreadable"));
    assert!(restore(&vault, &manifest).unwrap() == model.below_data());
}

#[test]
fn a_capture_out_of_order_is_refused_and_leaves_no_snapshot() {
    let storage = Arc::new(MemoryStorage::new());
    let vault = Fixture::new().create(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    // A child whose directory never came.
    let model = Model::default().file("data/orphan", "x");
    let error = backup(&vault, 1, &model, &Findings::new()).unwrap_err();
    assert!(matches!(error, VaultError::BadCapture(_)), "{error:?}");
    assert_eq!(storage.list("snapshots/").unwrap(), []);
}

#[test]
fn files_are_read_in_sequence_and_at_random_positions() {
    let vault = Fixture::new().create(Arc::new(MemoryStorage::new())).unwrap();
    let content = noise(7, 5_000_001);
    let model = Model::new().file("data/file", content.clone()).file("data/none", "");
    let (manifest, _) = backup(&vault, 1, &model, &Findings::new()).unwrap();
    let reader = vault.open_point(&manifest).unwrap();
    let mut read = Vec::new();
    reader.open(&path("data/file")).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == content);
    let file = reader.open_file(&path("data/file")).unwrap();
    assert_eq!(file.len(), 5_000_001);
    for (offset, length) in [(0, 10), (999_999, 3_000_000), (5_000_000, 10), (5_000_001, 1), (9_000_000, 1)] {
        let mut buffer = vec![0; length];
        let count = file.read_at(offset, &mut buffer).unwrap();
        let start = content.len().min(usize::try_from(offset).unwrap());
        assert!(buffer[..count] == content[start..content.len().min(start + length)], "{offset}");
    }
    assert!(reader.open_file(&path("data/none")).unwrap().is_empty());
    for absent in ["data/nothing", "data", "data/file/below", "data/file/file"] {
        let error = reader.open_file(&path(absent)).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Refused, "{absent}");
    }
}

#[test]
fn walking_visits_every_entry_in_capture_order() {
    let vault = Fixture::new().create(Arc::new(MemoryStorage::new())).unwrap();
    let model = Model::new()
        .with("data/a", Thing::Dir)
        .file("data/a/x", "1")
        .file("data/a.b", "2")
        .with("meta", Thing::Dir)
        .file("meta/m", "3");
    let (manifest, _) = backup(&vault, 1, &model, &Findings::new()).unwrap();
    let reader = vault.open_point(&manifest).unwrap();
    let walk = |under: &str| {
        let under = if under.is_empty() { lifeboat_base::path::RelPath::root() } else { path(under) };
        let mut seen = Vec::new();
        reader
            .walk(&under, &mut |entry| {
                seen.push(String::from_utf8(bytes_of(&entry.path)).unwrap());
                Ok(())
            })
            .map(|()| seen)
    };
    assert_eq!(walk("").unwrap(), ["data", "data/a", "data/a/x", "data/a.b", "meta", "meta/m"]);
    assert_eq!(walk("data/a").unwrap(), ["data/a", "data/a/x"]);
    assert_eq!(walk("meta/m").unwrap(), ["meta/m"]);
    assert_eq!(walk("nothing").unwrap_err().kind(), FailureKind::Refused);
}

#[test]
fn a_target_that_is_not_empty_is_refused() {
    let vault = Fixture::new().create(Arc::new(MemoryStorage::new())).unwrap();
    let (manifest, _) = backup(&vault, 1, &Model::new().file("data/a", "a"), &Findings::new()).unwrap();
    let target = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", target.path().join("a")).unwrap();
    let reader = vault.open_point(&manifest).unwrap();
    let error = reader.materialize(&path("data"), target.path(), &Findings::new()).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Refused, "{error:?}");
    assert_eq!(read_tree(target.path()).len(), 1);
}

#[test]
fn content_shared_by_thousands_of_files_is_restored_to_each() {
    let vault = Fixture::new().create(Arc::new(MemoryStorage::new())).unwrap();
    let mut model = Model::new();
    for number in 0..3_000 {
        model = model.file(format!("data/{number:05}"), format!("content {}", number % 7));
    }
    let (manifest, written) = backup(&vault, 1, &model, &Findings::new()).unwrap();
    assert_eq!(written.new_blobs, 7 + 2);
    assert!(restore(&vault, &manifest).unwrap() == model.below_data());
    let ids: BTreeSet<_> = vault.points().unwrap().iter().filter_map(|entry| entry.id().cloned()).collect();
    assert_eq!(ids.len(), 1);
}
