//! Folders as values: everything a restore must reproduce, and small deterministic trees to capture.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lifeboat_base::digest::Digest;

/// One entry of a folder, without anything that no restore can give back (inode numbers, change times).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Nanoseconds since 1970; a symbolic link's own.
    pub(crate) modified: i128,
    pub(crate) content: Content,
    /// The first name of the same file, in the order of names.
    pub(crate) same_as: Option<PathBuf>,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Dir,
    File { bytes: u64, digest: Digest },
    Link(PathBuf),
    Other,
}

pub(crate) type Picture = BTreeMap<PathBuf, Node>;

/// Everything below `root`, and `root` itself under the empty name.
pub(crate) fn picture(root: &Path) -> Picture {
    let mut picture = Picture::new();
    look(root, Path::new(""), &mut picture);
    let mut first: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    for (name, node) in &mut picture {
        let meta = fs::symlink_metadata(root.join(name)).unwrap();
        if meta.is_file() && meta.nlink() > 1 {
            node.same_as = first.get(&(meta.dev(), meta.ino())).cloned();
            first.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
        }
    }
    picture
}

fn look(root: &Path, name: &Path, picture: &mut Picture) {
    let path = if name.as_os_str().is_empty() { root.to_owned() } else { root.join(name) };
    let meta = fs::symlink_metadata(&path).unwrap();
    let content = if meta.is_dir() {
        Content::Dir
    } else if meta.is_symlink() {
        Content::Link(fs::read_link(&path).unwrap())
    } else if meta.is_file() {
        Content::File { bytes: meta.len(), digest: Digest::of(&fs::read(&path).unwrap()) }
    } else {
        Content::Other
    };
    let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    let dir = content == Content::Dir;
    let node = Node { mode: meta.mode(), owner: (meta.uid(), meta.gid()), modified, content, same_as: None };
    picture.insert(name.to_owned(), node);
    if dir {
        for entry in fs::read_dir(&path).unwrap() {
            look(root, &name.join(entry.unwrap().file_name()), picture);
        }
    }
}

/// Fails naming the first entries that differ; `""` is the folder itself.
#[track_caller]
pub(crate) fn assert_same(restored: &Picture, original: &Picture) {
    let names: std::collections::BTreeSet<&PathBuf> = restored.keys().chain(original.keys()).collect();
    let different: Vec<String> = names
        .into_iter()
        .filter(|name| restored.get(*name) != original.get(*name))
        .map(|name| {
            let name_shown = name.display();
            format!("`{name_shown}`: restored {:?}, was {:?}", restored.get(name), original.get(name))
        })
        .take(5)
        .collect();
    assert!(different.is_empty(), "{different:#?}");
}

/// Every regular file below `root`, by name; sorted.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let of = |(name, node): (PathBuf, Node)| matches!(node.content, Content::File { .. }).then_some(name);
    picture(root).into_iter().filter_map(of).collect()
}

/// The content of every file below `root`, to see whether a folder was touched at all.
pub(crate) fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(root).into_iter().map(|name| (name.clone(), fs::read(root.join(&name)).unwrap())).collect()
}

/// Makes a file and the folders above it; replaces it if there is one.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Gives a file or folder another name, as an unmounted disk or a careless hand would.
#[expect(clippy::disallowed_methods, reason = "no crash to survive in a test")]
pub(crate) fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

/// `count` bytes that no compressor shortens, the same for the same seed.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..count.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(count).collect()
}

/// A small generator (SplitMix64) for moments and offsets; not for keys.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by the clock; the seed is printed so that a failure can be repeated.
    pub(crate) fn printed(what: &str) -> Self {
        let seed = lifeboat_base::time::Clock::now(&lifeboat_base::time::SystemClock::new());
        let seed = u64::try_from(seed.as_nanosecond() & i128::from(u64::MAX)).unwrap();
        println!("{what}: seed {seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// A tree with everything a file system may hold that both we and restic keep.
pub(crate) fn grow(root: &Path) {
    write(&root.join("invoices/2026/11.pdf"), &noise(1, 300_000));
    write(&root.join("invoices/2026/12.pdf"), &noise(2, 120_000));
    write(&root.join("notes.txt"), "the same line again\n".repeat(5_000).as_bytes());
    write(&root.join("empty"), b"");
    write(&root.join("grüße – 你好.txt"), "guten Tag".as_bytes());
    write(&root.join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), b"odd name");
    write(&root.join("scripts/run.sh"), b"#!/bin/sh\nexit 0\n");
    fs::set_permissions(root.join("scripts/run.sh"), Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(root.join("notes.txt"), Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(root.join("hollow/deep/down")).unwrap();
    fs::set_permissions(root.join("hollow"), Permissions::from_mode(0o1777)).unwrap();
    symlink("invoices/2026/11.pdf", root.join("latest")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    fs::hard_link(root.join("invoices/2026/11.pdf"), root.join("hard-link.pdf")).unwrap();
    let sparse = File::create(root.join("sparse.img")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    std::os::unix::fs::chown(root.join("empty"), Some(1234), Some(4321)).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    for name in ["invoices/2026/12.pdf", "invoices/2026", "hollow/deep"] {
        File::open(root.join(name)).unwrap().set_modified(then).unwrap();
    }
}

/// A later state of [`grow`]: one file changed, one gone, one new.
pub(crate) fn change(root: &Path, round: u64) {
    write(&root.join("notes.txt"), format!("round {round}\n").repeat(4_000).as_bytes());
    write(&root.join(format!("invoices/2027/{round:02}.pdf")), &noise(1_000 + round, 200_000));
    if root.join("invoices/2026/12.pdf").exists() {
        fs::remove_file(root.join("invoices/2026/12.pdf")).unwrap();
    }
}
