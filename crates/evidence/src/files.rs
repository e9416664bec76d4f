//! The directory of a chain: names, bounded reads, listing, the lock.
//!
//! In: a directory anyone may have written to. Out: bytes and names, nothing trusted. Only regular files are
//! opened, so that a pipe or a device put there cannot hang a verification.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use lifeboat_base::crashsafe::TEMP_PREFIX;
use lifeboat_base::human::printable;

use crate::record::MAX_RECORDS;

pub(crate) const RECORDS: &str = "records";
pub(crate) const HEAD: &str = "head.json";
pub(crate) const PUBLIC_KEY: &str = "public.key";
pub(crate) const LOCK: &str = "lock";

const SUFFIX: &[u8] = b".json";
const DIGITS: usize = 8;

/// `00000042.json`.
pub(crate) fn record_name(seq: u64) -> String {
    format!("{seq:08}.json")
}

pub(crate) fn record_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(RECORDS).join(record_name(seq))
}

/// The number in a name this tool could have written.
pub(crate) fn parse_record_name(name: &OsStr) -> Option<u64> {
    let digits = name.as_bytes().strip_suffix(SUFFIX)?;
    if digits.len() != DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seq = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (1..=MAX_RECORDS).contains(&seq).then_some(seq)
}

fn is_temporary(name: &OsStr) -> bool {
    name.as_bytes().starts_with(TEMP_PREFIX.as_bytes())
}

/// Reads a regular file of at most `limit_bytes`.
pub(crate) fn read(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit_bytes} bytes")));
    }
    Ok(bytes)
}

/// As [`read`]; nothing where there is no such file.
pub(crate) fn read_optional(path: &Path, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    match read(path, limit_bytes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// The names in a folder of records; what a killed process left half-written is passed over.
#[derive(Default)]
pub(crate) struct Listing {
    /// Numbers in order.
    pub(crate) seqs: Vec<u64>,
    /// Names that are not a record's, printable, in order.
    pub(crate) extra: Vec<String>,
}

pub(crate) fn list_records(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
        other => other?,
    };
    for entry in entries {
        let name = entry?.file_name();
        match parse_record_name(&name) {
            Some(seq) => listing.seqs.push(seq),
            None if is_temporary(&name) => {}
            None => listing.extra.push(printable(&name.to_string_lossy())),
        }
    }
    listing.seqs.sort_unstable();
    listing.extra.sort_unstable();
    Ok(listing)
}

/// The names in `folder` beyond `expected`, printable, in order.
pub(crate) fn unexpected(folder: &Path, expected: &[&str]) -> io::Result<Vec<String>> {
    let mut extra = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !is_temporary(&name) && !expected.iter().any(|expected| name == *expected) {
            extra.push(printable(&name.to_string_lossy()));
        }
    }
    extra.sort_unstable();
    Ok(extra)
}

/// Waits for every other writer and reader; released when dropped, or by the kernel when the process dies.
pub(crate) fn lock_exclusive(dir: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join(LOCK))?;
    retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
    Ok(file)
}

/// Waits for a writer. Nothing where there is no lock to take: a chain handed over on a disc has no writer.
pub(crate) fn lock_shared(dir: &Path) -> Option<File> {
    let path = dir.join(LOCK);
    let regular = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file());
    let file = regular.then(|| File::open(path).ok()).flatten()?;
    retry_on_intr(|| flock(&file, FlockOperation::LockShared)).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_this_tool_writes_are_record_names() {
        assert_eq!(parse_record_name(OsStr::new(&record_name(42))), Some(42));
        assert_eq!(parse_record_name(OsStr::new(&record_name(MAX_RECORDS))), Some(MAX_RECORDS));
        for name in
            ["1.json", "00000000.json", "000000001.json", "+0000001.json", "00000001.JSON", "00000001"]
        {
            assert_eq!(parse_record_name(OsStr::new(name)), None, "{name}");
        }
    }
}
