//! Stock restic reads what we write: the independent oracle.

use std::ffi::OsStr;
use std::sync::Arc;

use lifeboat_base::capture::RestoreSource;
use lifeboat_base::monitor::Findings;
use lifeboat_vault::storage::FileStorage;

use super::support::{Fixture, Model, Thing, backup, inode, noise, path, read_tree, restic, restore};

fn odd_tree() -> Model {
    let mut sparse = vec![0u8; 20 * 1024 * 1024];
    sparse[9_000_000] = 1;
    Model::new()
        .file("data/plain.txt", "hello")
        .file("data/empty", "")
        .with("data/empty-dir", Thing::Dir)
        .with("data/dir", Thing::Dir)
        .with("data/dir/deeper", Thing::Dir)
        .file("data/dir/deeper/file", "deep")
        .file(b"data/non-utf8-\xff\xfe\x80", "x")
        .file("data/new\nline", "x")
        .file("data/tab\tand \\ and \"quotes\" and 'single' `back`", "x")
        .file("data/\x01\x07\x08\x0b\x0c\r\x1b\x7f", "x")
        .file("data/ünïcödé ❤ 💯\u{a0}\u{2028}", "x")
        .file("data/-dash", "x")
        .file("data/ space ", "x")
        .file("data/a,b", "comma")
        .with("data/link", Thing::Symlink("dir/deeper".into()))
        .with("data/dangling", Thing::Symlink("../../../etc/passwd".into()))
        .with("data/pipe", Thing::Fifo)
        .file("data/hard-1", "shared")
        .with("data/hard-2", Thing::HardLink(b"data/hard-1".to_vec()))
        .file("data/big", noise(1, 40 * 1024 * 1024))
        .file("data/sparse", sparse)
        .with("data/database", Thing::Paged(Arc::new(noise(2, 3 * 1024 * 1024 + 5))))
        .with("meta", Thing::Dir)
        .file("meta/inventory.json", "{}")
}

#[test]
fn restic_checks_and_restores_every_kind_of_entry_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Fixture::new().create(Arc::new(FileStorage::new(dir.path().join("vault")))).unwrap();
    let model = odd_tree();
    let (manifest, _) = backup(&vault, 1, &model, &Findings::new()).unwrap();

    let (ok, text) = restic(&vault, &["check".as_ref(), "--read-data".as_ref()]);
    assert!(ok && text.contains("no errors were found"), "{text}");

    let target = dir.path().join("restored");
    let (ok, text) = restic(
        &vault,
        &["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), target.as_os_str()] as &[&OsStr],
    );
    assert!(ok, "{text}");
    let expected = model.below_data();
    assert_eq!(keys(&read_tree(&target.join("data"))), keys(&expected));
    assert!(read_tree(&target.join("data")) == expected);
    assert_eq!(inode(&target, "data/hard-1"), inode(&target, "data/hard-2"));

    assert!(restore(&vault, &manifest).unwrap() == expected);
}

fn keys(tree: &std::collections::BTreeMap<Vec<u8>, Thing>) -> Vec<String> {
    tree.keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}

#[test]
fn the_library_behind_rustic_finds_no_fault_either() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Fixture::new().create(Arc::new(FileStorage::new(dir.path().join("vault")))).unwrap();
    backup(&vault, 1, &odd_tree(), &Findings::new()).unwrap();
    let (ok, text) = restic(&vault, &["snapshots".as_ref(), "--json".as_ref()]);
    assert!(ok && text.contains("\"point:pt-0001\"") && text.contains("\"host\""), "{text}");
    let listing = restic(&vault, &["stats".as_ref()]).1;
    assert!(listing.contains("Total Size"), "{listing}");
}

#[test]
fn hard_links_modes_times_and_attributes_come_back() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let vault = Fixture::new().create(Arc::new(FileStorage::new(dir.path().join("vault")))).unwrap();
    let (manifest, _) = backup(&vault, 1, &odd_tree(), &Findings::new()).unwrap();
    let target = dir.path().join("out");
    std::fs::create_dir(&target).unwrap();
    let reader = vault.open_point(&manifest).unwrap();
    let monitor = Findings::new();
    reader.materialize(&path("data"), &target, &monitor).unwrap();
    assert_eq!(monitor.list(), []);
    assert_eq!(inode(&target, "hard-1"), inode(&target, "hard-2"));
    for name in ["plain.txt", "dir", "big", "pipe", "empty"] {
        let meta = std::fs::symlink_metadata(target.join(name)).unwrap();
        let mode = if name == "dir" { 0o750 } else { 0o640 };
        assert_eq!(meta.permissions().mode() & 0o7777, mode, "{name}");
        assert_eq!((meta.uid(), meta.gid()), (12, 34), "{name}");
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_600_000_000, 123_456_789), "{name}");
        assert_eq!((meta.atime(), meta.atime_nsec()), (1_600_000_001, 987_654_321), "{name}");
    }
    let mut value = [0u8; 16];
    let count = rustix::fs::lgetxattr(target.join("plain.txt"), "user.origin", &mut value).unwrap();
    assert_eq!(&value[..count], b"\0model");
    let sparse = std::fs::metadata(target.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1024 * 1024, "{} blocks", sparse.blocks());
}
