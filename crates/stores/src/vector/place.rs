//! Where an index lies: which files are its shards, and what its owner declares of it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_probe::{Declared, MAX_MANIFEST_BYTES};

use super::stock::{Shard, Stock, Taken, Visit};
use crate::files::{Found, Step, Trouble, WalkOptions, Walker};

/// What the name of a shard ends in.
const ENDING: &str = ".jsonl";
const READ_BYTES: usize = 256 << 10;

/// Whether a file with this path is a shard.
pub(crate) fn is_shard(path: &RelPath) -> bool {
    path.split_last().is_some_and(|(_, name)| name.to_string_lossy().ends_with(ENDING))
}

/// Whether it is named nearly like a shard, so that somebody may take it for one.
pub(crate) fn looks_like_shard(path: &RelPath) -> bool {
    let ends =
        |name: &str| [ENDING, ".ndjson", ".jsonl.gz", ".jsonl.zst"].iter().any(|end| name.ends_with(end));
    path.split_last().is_some_and(|(_, name)| ends(&name.to_string_lossy().to_ascii_lowercase()))
}

/// The folder to walk, and the one file in it where the index is a file.
pub(crate) fn root_of(path: &Path) -> Result<(PathBuf, Option<OsString>), Failure> {
    let unreachable = |why: String| Failure::new(FailureKind::Unreachable, why);
    let meta = fs::metadata(path).map_err(|error| {
        let what = format!("failed to open the index {}", path.display());
        Failure::with_source(FailureKind::Unreachable, what, error)
    })?;
    if meta.is_dir() {
        return Ok((path.to_owned(), None));
    }
    let name = path.file_name().filter(|name| name.to_string_lossy().ends_with(ENDING));
    let Some(name) = name.filter(|_| meta.is_file()) else {
        let what = format!("{} is neither a folder nor a file whose name ends in {ENDING}", path.display());
        return Err(unreachable(what));
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((parent.to_owned(), Some(name.to_owned())))
}

/// Reads what the owner declares.
pub(crate) fn declared(path: &Path) -> Result<Declared, Failure> {
    let what = || format!("failed to read the contract of the index, {}", path.display());
    let file = regular(path).map_err(|error| {
        // Only what is not there is declared by nobody.
        let missing = error.kind() == io::ErrorKind::NotFound;
        let kind = if missing { FailureKind::Unreachable } else { FailureKind::Refused };
        Failure::with_source(kind, what(), error)
    })?;
    let mut text = String::new();
    file.take(MAX_MANIFEST_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::with_source(FailureKind::Refused, what(), error))?;
    let read = Declared::from_json(&text);
    read.map_err(|error| Failure::with_source(FailureKind::Refused, what(), error))
}

/// A file for reading; a pipe in its place would be waited for.
pub(crate) fn regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    File::open(path)
}

/// Takes stock of the shards in a folder, and shows every record of them.
pub(crate) fn take_stock(
    root: &Path,
    only: Option<OsString>,
    monitor: &dyn Monitor,
    visit: &mut Visit<'_>,
) -> Result<Taken, Failure> {
    let options = WalkOptions { open: true, only, ..WalkOptions::default() };
    let mut walker = Walker::start(root, options)
        .map_err(|error| Failure::io(format!("failed to open the index {}", root.display()), error))?;
    let mut stock = Stock::default();
    let mut buffer = vec![0; READ_BYTES];
    while let Some(step) = walker.step()? {
        let found = match step {
            Step::Found(found) => found,
            Step::Lost { path, trouble } if is_shard(&path) => {
                let why = match trouble {
                    Trouble::Vanished => "it is gone".to_owned(),
                    Trouble::Unreadable(error) => error.to_string(),
                };
                let what = format!("the shard {path} of the index cannot be read: {why}");
                return Err(Failure::new(FailureKind::Internal, what));
            }
            Step::Lost { .. } => continue,
        };
        if let Some((path, mut file)) = shard(*found) {
            let mut shard = Shard::new(path.to_string());
            loop {
                if monitor.cancelled() {
                    return Err(Failure::new(FailureKind::Refused, "taking stock was cancelled"));
                }
                let read = file
                    .read(&mut buffer)
                    .map_err(|error| Failure::io(format!("failed to read the shard {path}"), error))?;
                let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
                shard.push(bytes, visit)?;
                monitor.advance(read as u64, 0);
            }
            shard.end(visit)?;
            stock.absorb(shard)?;
        }
    }
    Ok(stock.finish())
}

fn shard(found: Found) -> Option<(RelPath, File)> {
    let is_shard = found.is_file() && is_shard(&found.path);
    found.file.filter(|_| is_shard).map(|file| (found.path, file))
}
