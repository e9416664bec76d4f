//! Kind `files`: the conformance suite over a tree with everything in it, and the edges of walking a live tree.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_base::capture::{Body, Capture, ConsistencyLevel, MAX_TREE_DEPTH, StoredKind};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::{ManualClock, Timestamp};
use lifeboat_stores::conformance::{Answer, Fixture, SmallDisk, violations};
use lifeboat_stores::{
    Adapter, CaptureContext, CheckState, FilesAdapter, FilesOptions, Recording, Selection,
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat, setxattr};

fn adapter(root: &Path) -> FilesAdapter {
    FilesAdapter::new(FilesOptions { root: root.to_owned(), exclude: Vec::new(), one_file_system: false })
}

fn excluding(root: &Path, exclude: &[&str]) -> FilesAdapter {
    let exclude = exclude.iter().map(|&pattern| pattern.to_owned()).collect();
    FilesAdapter::new(FilesOptions { root: root.to_owned(), exclude, one_file_system: false })
}

fn put(path: &Path, content: &[u8]) {
    File::create(path).unwrap().write_all(content).unwrap();
}

fn start(adapter: &FilesAdapter, spool: &Path) -> Box<dyn Capture> {
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    adapter.capture(&CaptureContext { clock: &clock, spool, kept: None, known: &[] }).unwrap()
}

fn record(adapter: &FilesAdapter) -> (Recording, Findings) {
    let (spool, monitor) = (tempfile::tempdir().unwrap(), Findings::new());
    let point = Recording::record(start(adapter, spool.path()), &monitor).unwrap();
    (point, monitor)
}

/// Restores and gives the ids of the checks that did not pass.
fn restore(adapter: &FilesAdapter, point: &Recording, into: &Path) -> Vec<String> {
    let monitor = Findings::new();
    adapter.restore(point, point.facts(), into, &monitor).unwrap();
    let results = adapter.checks(point, point.facts(), into, &monitor).unwrap();
    results.into_iter().filter(|result| result.state != CheckState::Passed).map(|result| result.id).collect()
}

fn data(path: &str) -> RelPath {
    RelPath::new(Path::new("data").join(path)).unwrap()
}

struct Trees;

fn fill(root: &Path) -> std::io::Result<()> {
    for number in 0..300 {
        let dir = root.join(format!("many/{:02}", number % 17));
        fs::create_dir_all(&dir)?;
        put(&dir.join(format!("file-{number}.txt")), format!("content of {number}").as_bytes());
    }
    let large: Vec<u8> =
        (0..3_000_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    put(&root.join("large.bin"), &large);
    put(&root.join("zero"), b"");
    let odd = root.join("odd");
    fs::create_dir(&odd)?;
    for name in
        [&b"line\nbreak"[..], b"\xff\xfe\x80", "größe-日本-🚑".as_bytes(), b"-rf *", b"back\\slash", b" "]
    {
        put(&odd.join(OsStr::from_bytes(name)), name);
        fs::create_dir(odd.join(OsStr::from_bytes(&[name, b".d"].concat())))?;
    }
    put(&odd.join("n".repeat(255)), b"long");
    symlink(OsStr::from_bytes(b"nowhere/\xff\n"), odd.join("dangling"))?;
    symlink("/etc/passwd", odd.join("absolute"))?;
    symlink("..", odd.join("up"))?;
    fs::create_dir(root.join("empty"))?;
    let modes = root.join("modes");
    fs::create_dir(&modes)?;
    for mode in [0o000, 0o444, 0o4755, 0o2755, 0o1777, 0o600] {
        let path = modes.join(format!("{mode:o}"));
        put(&path, b"mode");
        std::os::unix::fs::chown(&path, Some(1234), Some(4321))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        setxattr(&path, "user.origin", format!("{mode}").as_bytes(), XattrFlags::empty())?;
    }
    fs::set_permissions(&modes, fs::Permissions::from_mode(0o2711))?;
    setxattr(&modes, "user.on-a-directory", b"\0\xff", XattrFlags::empty())?;
    lsetxattr(odd.join("dangling"), "trusted.link", b"on a link", XattrFlags::empty())?;
    fs::hard_link(root.join("large.bin"), root.join("many/large-too.bin"))?;
    fs::hard_link(odd.join(" "), root.join("blank"))?;
    let special = root.join("special");
    fs::create_dir(&special)?;
    mknodat(CWD, special.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0)?;
    mknodat(CWD, special.join("socket"), FileType::Socket, Mode::from_raw_mode(0o640), 0)?;
    mknodat(CWD, special.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), 0x103)?;
    let sparse = File::create(root.join("sparse"))?;
    sparse.write_all_at(b"island", 5_000_000)?;
    sparse.set_len(8_000_000)?;
    Ok(())
}

impl Fixture for Trees {
    fn empty(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        Ok(Box::new(adapter(place)))
    }

    fn full(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        fill(place).map_err(|error| Failure::io("failed to fill a tree", error))?;
        Ok(Box::new(adapter(place)))
    }

    fn question(&self) -> Option<(Selection, Answer)> {
        let name = |number: u32| format!("many/{:02}/file-{number}.txt", number % 17);
        let mut names: Vec<String> = (0..300).map(name).collect();
        names.push("many/large-too.bin".to_owned());
        let answer = names.into_iter().map(|name| (name.into_bytes(), None)).collect();
        Some((Selection::Paths("many/**".to_owned()), answer))
    }

    fn change(&self, place: &Path, round: u64) -> Result<(), Failure> {
        put(&place.join("many/00/file-0.txt"), format!("changed {round}").as_bytes());
        put(&place.join(format!("zz-{round}")), b"new");
        Ok(())
    }

    fn seal(&self, place: &Path) -> Result<(), Failure> {
        let sealed = fs::Permissions::from_mode(0o000);
        fs::set_permissions(place.join("many/03"), sealed.clone())
            .and_then(|()| fs::set_permissions(place.join("zero"), sealed))
            .map_err(|error| Failure::io("failed to seal", error))
    }

    fn missing(&self, place: &Path) -> Box<dyn Adapter> {
        Box::new(adapter(&place.join("not-there")))
    }

    fn wrong(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        put(&place.join("a-file"), b"not a tree");
        Ok(Box::new(adapter(&place.join("a-file"))))
    }

    fn reopen(&self, artefact: &Path) -> Box<dyn Adapter> {
        Box::new(adapter(artefact))
    }
}

#[test]
fn the_adapter_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    let violations = violations(&Trees, scratch.path());
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn excluded_names_are_neither_captured_nor_missed() {
    let (tree, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in ["cache/deep", "keep/cache", "logs"] {
        fs::create_dir_all(tree.path().join(dir)).unwrap();
    }
    for file in ["cache/deep/x", "keep/cache/x", "keep/a.tmp", "logs/a.log", "keep/b"] {
        put(&tree.path().join(file), b"x");
    }
    let adapter = excluding(tree.path(), &["/cache", "*.tmp", "logs/*.log"]);
    let (point, monitor) = record(&adapter);
    let paths: Vec<_> = point.paths().map(ToString::to_string).collect();
    assert_eq!(
        paths,
        [
            "data",
            "data/keep",
            "data/keep/b",
            "data/keep/cache",
            "data/keep/cache/x",
            "data/logs",
            "meta",
            "meta/inventory.jsonl"
        ]
    );
    assert!(monitor.list().is_empty());
    assert!(restore(&adapter, &point, into.path()).is_empty());
}

#[test]
fn a_pattern_that_makes_no_sense_is_a_usage_error() {
    let tree = tempfile::tempdir().unwrap();
    let failure = excluding(tree.path(), &["a["]).inspect().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Usage);
    assert!(failure.to_string().contains("a["));
}

#[test]
fn scratch_space_inside_the_tree_is_not_captured() {
    let tree = tempfile::tempdir().unwrap();
    let spool = tree.path().join("state/spool");
    fs::create_dir_all(&spool).unwrap();
    put(&spool.join("leftover"), b"x");
    let point = Recording::record(start(&adapter(tree.path()), &spool), &Findings::new()).unwrap();
    assert!(point.entry(&data("state")).is_some());
    assert!(point.entry(&data("state/spool")).is_none());
}

#[test]
fn other_file_systems_become_empty_directories_when_asked() {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("mounted")).unwrap();
    let disk = SmallDisk::mount(&tree.path().join("mounted"), 64 * 1024).unwrap();
    put(&disk.path().join("inside"), b"x");
    let mut options =
        FilesOptions { root: tree.path().to_owned(), exclude: Vec::new(), one_file_system: true };
    let (point, _) = record(&FilesAdapter::new(options.clone()));
    assert!(point.entry(&data("mounted")).is_some() && point.entry(&data("mounted/inside")).is_none());
    options.one_file_system = false;
    let (point, _) = record(&FilesAdapter::new(options));
    assert!(point.entry(&data("mounted/inside")).is_some());
}

#[test]
fn a_tree_is_walked_with_few_descriptors_and_what_is_deeper_than_a_restore_follows_is_told() {
    const DEPTH: usize = 2_200;
    let tree = tempfile::tempdir().unwrap();
    let mut dir = rustix::fs::open(tree.path(), rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    for level in 0..DEPTH {
        rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).unwrap();
        if level % 500 == 0 {
            drop(
                rustix::fs::openat(&dir, "z-after", rustix::fs::OFlags::CREATE, Mode::from_raw_mode(0o644))
                    .unwrap(),
            );
        }
        dir = rustix::fs::openat(&dir, "d", rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let (point, monitor) = record(&adapter(tree.path()));
    // What no restore would follow is told when it is captured.
    assert_eq!(point.facts().counts["dirs"], MAX_TREE_DEPTH as u64);
    assert_eq!(point.facts().counts["files"], 4);
    let codes: Vec<String> = monitor.list().into_iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["file-unreadable"]);
    assert_eq!(point.facts().unreadable.len(), 1);
    // The standard library cannot remove what it cannot name.
    assert!(Command::new("rm").arg("-rf").arg(tree.path().join("d")).status().unwrap().success());
}

/// Runs a capture, doing something to the tree after the first file was opened and before it is read.
fn meddle(root: &Path, act: impl FnOnce() + Send + 'static) -> (Recording, Vec<(String, String)>) {
    struct Meddled<F>(Box<dyn Capture>, Option<F>);
    impl<F: FnOnce() + Send> Capture for Meddled<F> {
        fn total_bytes(&self) -> Option<u64> {
            self.0.total_bytes()
        }
        fn next_entry(
            &mut self,
            monitor: &dyn lifeboat_base::monitor::Monitor,
        ) -> Result<Option<lifeboat_base::capture::Entry>, Failure> {
            let entry = self.0.next_entry(monitor)?;
            if entry.as_ref().is_some_and(|entry| matches!(entry.body, Body::File { .. }))
                && let Some(act) = self.1.take()
            {
                act();
            }
            Ok(entry)
        }
        fn lost(&mut self, path: &RelPath, why: &str) {
            self.0.lost(path, why);
        }
        fn finish(self: Box<Self>) -> Result<lifeboat_base::capture::CaptureFacts, Failure> {
            self.0.finish()
        }
    }
    let (spool, monitor) = (tempfile::tempdir().unwrap(), Findings::new());
    let capture = start(&adapter(root), spool.path());
    let point = Recording::record(Box::new(Meddled(capture, Some(act))), &monitor).unwrap();
    let findings = monitor.list().into_iter().map(|finding| (finding.code, finding.subject)).collect();
    (point, findings)
}

fn small_tree() -> (tempfile::TempDir, PathBuf) {
    let tree = tempfile::tempdir().unwrap();
    let root = tree.path().to_owned();
    fs::create_dir(root.join("dir")).unwrap();
    for name in ["a", "b", "dir/c", "z"] {
        put(&root.join(name), &[b'x'; 5000]);
    }
    (tree, root)
}

fn told(code: &str, path: &str) -> (String, String) {
    (code.to_owned(), path.to_owned())
}

#[test]
fn a_tree_at_rest_is_crash_consistent() {
    let (_tree, root) = small_tree();
    let (point, findings) = meddle(&root, || {});
    assert!(findings.is_empty());
    assert_eq!(point.facts().consistency.level, ConsistencyLevel::CrashConsistent);
}

#[test]
fn a_file_changed_while_it_is_read_is_told_and_its_checksum_is_that_of_what_was_stored() {
    let (_tree, root) = small_tree();
    let path = root.join("a");
    let (point, findings) = meddle(&root, move || {
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
    });
    assert_eq!(findings, [told("file-changed", "a")]);
    assert_eq!(point.content(&data("a")).unwrap().len(), 5000);
    let consistency = &point.facts().consistency;
    assert_eq!((consistency.level, consistency.changes), (ConsistencyLevel::Fuzzy, 1));
    let into = tempfile::tempdir().unwrap();
    assert!(restore(&adapter(&root), &point, into.path()).is_empty());
}

#[test]
fn a_file_with_two_names_that_changed_between_them_comes_back_as_two() {
    let (_tree, root) = small_tree();
    fs::hard_link(root.join("a"), root.join("aa")).unwrap();
    let path = root.join("a");
    let (point, findings) = meddle(&root, move || {
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
    });
    assert_eq!(findings, [told("file-changed", "a")]);
    assert_eq!(point.content(&data("aa")).unwrap().len(), 5004);
    let into = tempfile::tempdir().unwrap();
    assert!(restore(&adapter(&root), &point, into.path()).is_empty());
}

#[test]
fn a_file_changed_after_it_was_read_is_told() {
    let (_tree, root) = small_tree();
    let (changed, touched) = (root.join("a"), root.join("dir"));
    let act = move || {
        fs::set_permissions(changed, fs::Permissions::from_mode(0o600)).unwrap();
        put(&touched.join("new-but-listed"), b"x");
    };
    // The change comes while `a` is read, the new file before its directory is listed: only one is a change.
    let (point, findings) = meddle(&root, act);
    assert_eq!(findings, [told("file-changed", "a")]);
    assert!(point.entry(&data("dir/new-but-listed")).is_some());
}

#[test]
fn what_vanishes_or_appears_behind_the_walk_is_told() {
    let (_tree, root) = small_tree();
    let before = root.clone();
    let (point, findings) = meddle(&root, move || {
        fs::remove_file(before.join("z")).unwrap();
        put(&before.join("appears"), b"x");
    });
    // The listing of the root was made before: `z` is on it, `appears` is not.
    assert_eq!(findings, [told("file-vanished", "z"), told("dir-changed", ".")]);
    assert!(point.entry(&data("appears")).is_none() && point.entry(&data("z")).is_none());
    assert_eq!(point.facts().consistency.changes, 2);
    assert!(point.facts().unreadable.is_empty());
}

#[test]
fn a_directory_swapped_for_a_link_is_never_followed() {
    let (_tree, root) = small_tree();
    let outside = tempfile::tempdir().unwrap();
    put(&outside.path().join("c"), b"a secret of somebody else");
    let (swap, target) = (root.clone(), outside.path().to_owned());
    let (point, findings) = meddle(&root, move || {
        lifeboat_base::crashsafe::publish(&swap.join("dir"), &swap.join("moved")).unwrap();
        symlink(target, swap.join("dir")).unwrap();
    });
    assert_eq!(point.entry(&data("dir")).unwrap().kind, StoredKind::Symlink(outside.path().into()));
    assert!(point.entry(&data("dir/c")).is_none());
    assert_eq!(findings, [told("dir-changed", ".")]);
}

#[test]
fn reading_does_not_move_access_times() {
    let (_tree, root) = small_tree();
    let old = rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    for name in ["a", "dir"] {
        rustix::fs::utimensat(CWD, root.join(name), &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    record(&adapter(&root));
    for name in ["a", "dir"] {
        assert_eq!(fs::metadata(root.join(name)).unwrap().atime(), 1_000_000, "{name}");
    }
}

#[test]
fn a_file_that_gives_errors_is_left_out_and_the_rest_is_kept() {
    let (_tree, root) = small_tree();
    let (spool, monitor) = (tempfile::tempdir().unwrap(), Findings::new());
    let mut capture = start(&adapter(&root), spool.path());
    let mut lost = false;
    while let Some(entry) = capture.next_entry(&monitor).unwrap() {
        if let Body::File { mut reader, .. } = entry.body {
            if entry.path == data("b") {
                reader.read_exact(&mut [0; 10]).unwrap();
                capture.lost(&entry.path, "input/output error");
                lost = true;
            } else {
                reader.read_to_end(&mut Vec::new()).unwrap();
            }
        }
    }
    let facts = capture.finish().unwrap();
    assert!(lost);
    assert_eq!(facts.unreadable, ["b"]);
    assert_eq!(facts.counts["files"], 3);
    assert_eq!(facts.consistency.changes, 1);
    // The vault that read it tells; twice would be once too often.
    assert_eq!(monitor.list(), []);
}

#[test]
fn a_reader_that_was_not_read_to_its_end_is_an_error_not_a_shorter_file() {
    let (_tree, root) = small_tree();
    let (spool, monitor) = (tempfile::tempdir().unwrap(), Findings::new());
    let mut capture = start(&adapter(&root), spool.path());
    let failure = loop {
        match capture.next_entry(&monitor) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an unread file went unnoticed"),
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.kind(), FailureKind::Internal);
    assert!(capture.finish().is_err());
}
