//! Databases that are files, told by their first bytes.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The first bytes of every SQLite database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Entries that are looked at; a folder with more is one of data, and not where applications lie.
const MAX_ENTRIES: usize = 200_000;

/// Every SQLite database below `folder`, links not followed, without what is ours.
pub(super) fn databases(folder: &Path, ours: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut seen = 0;
    let mut left = vec![folder.canonicalize()?];
    while let Some(dir) = left.pop() {
        if ours.contains(&dir) {
            continue;
        }
        for entry in fs::read_dir(&dir).map_err(|error| named(&dir, &error))? {
            let entry = entry?;
            seen += 1;
            if seen > MAX_ENTRIES {
                let what = format!("there are more than {MAX_ENTRIES} entries: name the folders below it");
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, what));
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() && is_database(&entry.path())? {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Whether a file begins like a SQLite database. Never asked while one is captured by this process: closing the file would
/// give up the locks that hold it still.
pub fn is_database(path: &Path) -> io::Result<bool> {
    let mut first = [0; MAGIC.len()];
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        // It may have ended since the folder was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(named(path, &error)),
    };
    match file.read_exact(&mut first) {
        Ok(()) => Ok(&first == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(named(path, &error)),
    }
}
