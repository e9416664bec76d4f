//! The canaries of kind `files`: a sample tree and one way to damage it per check and kind of damage.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use lifeboat_base::capture::META;
use lifeboat_base::crashsafe;
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Findings;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::{ManualClock, Timestamp};
use rustix::fs::{Timespec, Timestamps, XattrFlags, fstat, futimens, setxattr};

use super::adapter::{FilesAdapter, FilesOptions};
use super::capture::INVENTORY;
use crate::adapter::{Adapter, CanaryResult, CaptureContext};
use crate::canary::{self, Canary};
use crate::recording::Recording;

const DOCUMENT: &str = "docs/a.txt";
const COMMON: [Canary; 12] = [
    Canary {
        check: "files.missing",
        damage: "a file is missing",
        apply: |dir, _| fs::remove_file(dir.join(DOCUMENT)),
    },
    Canary {
        check: "files.missing",
        damage: "an empty directory is missing",
        apply: |dir, _| fs::remove_dir(dir.join("empty")),
    },
    Canary {
        check: "files.extra",
        damage: "a file too many",
        apply: |dir, _| crashsafe::write_new(&dir.join("docs/b.txt"), b"new"),
    },
    Canary {
        check: "files.content",
        damage: "one bit is flipped, times as before",
        apply: |dir, _| flip(dir),
    },
    Canary {
        check: "files.content",
        damage: "a file is cut short",
        apply: |dir, _| edit(dir, |file| file.set_len(3)),
    },
    Canary {
        check: "files.content",
        damage: "a file has become a directory",
        apply: |dir, _| {
            fs::remove_file(dir.join(DOCUMENT))?;
            fs::create_dir(dir.join(DOCUMENT))
        },
    },
    Canary {
        check: "files.metadata",
        damage: "a mode is changed",
        apply: |dir, _| fs::set_permissions(dir.join(DOCUMENT), fs::Permissions::from_mode(0o666)),
    },
    Canary {
        check: "files.metadata",
        damage: "a time is changed",
        apply: |dir, _| set_time(&File::open(dir.join(DOCUMENT))?, Timespec { tv_sec: 5, tv_nsec: 0 }),
    },
    Canary {
        check: "files.metadata",
        damage: "a link points elsewhere",
        apply: |dir, _| {
            fs::remove_file(dir.join("link"))?;
            symlink("elsewhere", dir.join("link"))
        },
    },
    Canary {
        check: "files.metadata",
        damage: "two names have become two files",
        apply: |dir, _| {
            let content = fs::read(dir.join("twin"))?;
            fs::remove_file(dir.join("twin"))?;
            crashsafe::write_new(&dir.join("twin"), &content)
        },
    },
    Canary {
        check: "files.count",
        damage: "a file is missing",
        apply: |dir, _| fs::remove_file(dir.join(DOCUMENT)),
    },
    Canary {
        check: "files.inventory",
        damage: "the inventory is edited",
        apply: |_, point| edit_inventory(point),
    },
];
const XATTR: Canary = Canary {
    check: "files.metadata",
    damage: "an extended attribute is changed",
    apply: |dir, _| Ok(setxattr(dir.join(DOCUMENT), XATTR_NAME, b"other", XattrFlags::REPLACE)?),
};
const XATTR_NAME: &str = "user.lifeboat-canary";

/// Runs them all inside `scratch`.
pub(crate) fn run(scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
    let place = tempfile::tempdir_in(scratch)
        .map_err(|error| Failure::io("failed to make a directory for the canaries", error))?;
    let root = place.path().join("sample");
    let has_xattrs = make_sample(&root)
        .map_err(|error| Failure::io("failed to make the sample of the canaries", error))?;
    let adapter = FilesAdapter::new(FilesOptions { root, exclude: Vec::new(), one_file_system: false });
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let context = CaptureContext { clock: &clock, spool: place.path(), kept: None, known: &[] };
    let recording = Recording::record(adapter.capture(&context)?, &Findings::new())?;
    let mut results = canary::run(&adapter, &recording, &COMMON, place.path())?;
    // Where the scratch space cannot hold attributes there are none to compare.
    if has_xattrs {
        results.extend(canary::run(&adapter, &recording, &[XATTR], place.path())?);
    }
    Ok(results)
}

fn make_sample(root: &Path) -> io::Result<bool> {
    fs::create_dir(root)?;
    fs::create_dir(root.join("docs"))?;
    fs::create_dir(root.join("empty"))?;
    crashsafe::write_new(&root.join(DOCUMENT), b"the quick brown fox")?;
    crashsafe::write_new(&root.join("one"), b"one file, two names")?;
    fs::hard_link(root.join("one"), root.join("twin"))?;
    symlink(DOCUMENT, root.join("link"))?;
    Ok(setxattr(root.join(DOCUMENT), XATTR_NAME, b"value", XattrFlags::empty()).is_ok())
}

/// Changes the content of the document and puts its time back, as silent damage would.
fn edit(dir: &Path, change: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(dir.join(DOCUMENT))?;
    let stat = fstat(&file)?;
    change(&file)?;
    let nanos = stat.st_mtime_nsec.try_into().unwrap_or_default();
    set_time(&file, Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos })
}

fn flip(dir: &Path) -> io::Result<()> {
    edit(dir, |file| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, 4)?;
        file.write_all_at(&[byte[0] ^ 1], 4)
    })
}

fn set_time(file: &File, mtime: Timespec) -> io::Result<()> {
    Ok(futimens(file, &Timestamps { last_access: mtime, last_modification: mtime })?)
}

/// Changes one mode in the inventory; every line stays well formed.
fn edit_inventory(point: &mut Recording) -> io::Result<()> {
    let path = RelPath::new(Path::new(META).join(INVENTORY)).map_err(io::Error::other)?;
    let (Some(entry), Some(content)) = (point.entry(&path).cloned(), point.content(&path)) else {
        return Err(io::Error::other("the sample has no inventory"));
    };
    let text = String::from_utf8_lossy(content).replacen("\"mode\":", "\"mode\":1", 1);
    point.put(entry, text.into_bytes());
    Ok(())
}
