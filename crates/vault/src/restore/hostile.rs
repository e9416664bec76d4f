//! Restores of trees that somebody with the key made to do harm: nothing outside the target is touched.

use std::ffi::OsStr;

use lifeboat_base::capture::{Meta, RestoreSource, StoredKind};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::monitor::Findings;
use lifeboat_base::path::RelPath;
use rustic_core::repofile::Node;

use crate::check::CheckLevel;
use crate::format::index::BlobKind;
use crate::format::node::build;
use crate::testing;
use crate::write::store_blobs;

fn file(name: &str, size_bytes: u64, content: &[Digest]) -> Node {
    build(OsStr::new(name), &Meta::default(), &StoredKind::File(size_bytes), Some(content), None)
}

fn link(name: &str, target: &OsStr) -> Node {
    build(OsStr::new(name), &Meta::default(), &StoredKind::Symlink(target.to_owned()), None, None)
}

fn dir(name: &str, tree: &Digest) -> Node {
    build(OsStr::new(name), &Meta::default(), &StoredKind::Dir, None, Some(tree))
}

/// Restores a root listing made of `nodes`; gives the error and whether the directory beside the target is untouched.
fn attack(nodes: impl Fn(&OsStr, &Digest) -> Vec<Node>) -> FailureKind {
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().join("outside");
    let target = scratch.path().join("target");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(&target).unwrap();
    let vault = testing::vault();
    let inner = testing::listing(&[file("planted", 4, &[Digest::of(b"harm")])]);
    let root = testing::listing(&nodes(outside.as_os_str(), &Digest::of(&inner)));
    let blobs: [(BlobKind, &[u8]); 3] =
        [(BlobKind::Data, b"harm"), (BlobKind::Tree, &inner), (BlobKind::Tree, &root)];
    store_blobs(&vault, &blobs);
    let manifest = testing::point(&vault, &Digest::of(&root));
    let reader = vault.open_point(&manifest).unwrap();
    let error = reader.materialize(&RelPath::root(), &target, &Findings::new()).unwrap_err();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something was planted outside");
    let beside = std::fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(beside, 2, "something was planted beside the target");
    let report = vault.check(CheckLevel::Readable, &Findings::new()).unwrap();
    assert!(error.kind() != FailureKind::Damaged || !report.is_sound(), "the check calls it sound");
    error.kind()
}

#[test]
fn a_link_that_a_directory_of_the_same_name_would_follow_is_refused() {
    let kind = attack(|outside, tree| vec![link("a", outside), dir("a", tree)]);
    assert_eq!(kind, FailureKind::Damaged);
}

#[test]
fn names_that_climb_are_refused() {
    for name in ["../outside/planted", "..", "/tmp/planted", r"\x2e\x2e"] {
        let kind = attack(|_, _| {
            let mut node = file("x", 4, &[Digest::of(b"harm")]);
            node.name = name.to_owned();
            vec![node]
        });
        assert_eq!(kind, FailureKind::Damaged, "{name}");
    }
}

#[test]
fn two_files_of_one_name_are_refused() {
    let harm = [Digest::of(b"harm")];
    let kind = attack(|_, _| vec![file("a", 4, &harm), file("a", 4, &harm)]);
    assert_eq!(kind, FailureKind::Damaged);
}

#[test]
fn a_size_that_lies_and_a_chunk_that_is_not_there_are_refused() {
    let kind = attack(|_, _| vec![file("a", 1 << 60, &[Digest::of(b"harm")])]);
    assert_eq!(kind, FailureKind::Damaged);
    let kind = attack(|_, _| vec![file("a", 4, &[Digest::of(b"absent")])]);
    assert_eq!(kind, FailureKind::Damaged);
}

#[test]
fn a_hard_link_to_other_content_becomes_a_file_of_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let vault = testing::vault();
    let meta = Meta { inode: 5, device: 1, links: 2, mode: 0o600, ..Meta::default() };
    let node = |name: &str, content: &[u8]| {
        let kind = StoredKind::File(content.len() as u64);
        build(OsStr::new(name), &meta, &kind, Some(&[Digest::of(content)]), None)
    };
    let root = testing::listing(&[node("a", b"one"), node("b", b"other"), node("c", b"one")]);
    store_blobs(
        &vault,
        &[(BlobKind::Data, b"one"), (BlobKind::Data, b"other"), (BlobKind::Tree, root.as_slice())],
    );
    let manifest = testing::point(&vault, &Digest::of(&root));
    let reader = vault.open_point(&manifest).unwrap();
    reader.materialize(&RelPath::root(), scratch.path(), &Findings::new()).unwrap();
    let read = |name: &str| std::fs::read(scratch.path().join(name)).unwrap();
    assert_eq!([read("a"), read("b"), read("c")], [b"one".to_vec(), b"other".to_vec(), b"one".to_vec()]);
}
