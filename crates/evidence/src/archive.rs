//! A bundle as one file: a tar archive below one folder, the same bytes for the same bundle; and such a file opened again.
//!
//! In: a bundle's directory, or an archive from anybody. Out: an archive, or a directory that holds nothing but files a bundle
//! can have. Links, other names, names twice and more bytes than a bundle has are refused.

use std::io::Read;
use std::path::Path;

use lifeboat_base::crashsafe;
use lifeboat_base::human::printable;

use crate::bundle::{BUNDLE, MAX_BUNDLE_BYTES, PAGES, Page};
use crate::error::EvidenceError;
use crate::files::{self, RECORDS};

/// The largest archive made or opened, in bytes; the one that is made is held in memory. A chain of about 200,000 records.
const MAX_ARCHIVE_BYTES: u64 = 512 * 1024 * 1024;
const BLOCK_BYTES: u64 = 512;
const MODE: u32 = 0o644;

/// Whether a bundle is to be one file.
pub(crate) fn is_wanted(out: &Path) -> bool {
    out.extension().is_some_and(|ending| ending == "tar")
}

/// Writes the bundle in `dir` as the file `out`, which must not exist; it appears whole or not at all.
pub(crate) fn pack(dir: &Path, out: &Path) -> Result<(), EvidenceError> {
    let folder = out.file_stem().and_then(|stem| stem.to_str()).unwrap_or("evidence");
    let mut names = files::unexpected(dir, &[RECORDS]).map_err(EvidenceError::io("list", dir))?;
    let listing = files::list_records(&dir.join(RECORDS)).map_err(EvidenceError::io("list", dir))?;
    names.extend(listing.seqs.into_iter().map(|seq| format!("{RECORDS}/{}", files::record_name(seq))));
    let mut archive = tar::Builder::new(Vec::new());
    let mut total_bytes = 0u64;
    for name in names {
        let path = dir.join(&name);
        let bytes = files::read(&path, MAX_BUNDLE_BYTES).map_err(EvidenceError::io("read", &path))?;
        total_bytes += bytes.len() as u64 + 2 * BLOCK_BYTES;
        if total_bytes > MAX_ARCHIVE_BYTES {
            let why =
                format!("an archive of more than {MAX_ARCHIVE_BYTES} bytes; export to a folder instead");
            return Err(EvidenceError::InvalidRecord { why });
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(MODE);
        // The same bundle gives the same bytes: no moment, no owner.
        header.set_mtime(0);
        archive
            .append_data(&mut header, format!("{folder}/{name}"), bytes.as_slice())
            .map_err(EvidenceError::io("pack", &path))?;
    }
    let bytes = archive.into_inner().map_err(EvidenceError::io("pack", out))?;
    crashsafe::write_new(out, &bytes).map_err(EvidenceError::io("write", out))
}

/// Opens an archive into the empty directory `into`. What is in it is anybody's word until it is verified.
pub fn unpack(archive: &Path, into: &Path) -> Result<(), EvidenceError> {
    let refused = |why: String| EvidenceError::damaged(archive, why);
    let file = std::fs::File::open(archive).map_err(EvidenceError::io("open", archive))?;
    let mut reader = tar::Archive::new(file.take(MAX_ARCHIVE_BYTES));
    let records = into.join(RECORDS);
    crashsafe::create_dir_all(&records).map_err(EvidenceError::io("create", &records))?;
    let unreadable =
        |error: std::io::Error| EvidenceError::damaged(archive, format!("is no archive: {error}"));
    for entry in reader.entries().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        let name =
            path.split_once('/').map(|(_folder, name)| name).filter(|name| kind.is_file() && belongs(name));
        let Some(name) = name else {
            return Err(refused(format!("holds `{}`, which no bundle has", printable(&path))));
        };
        let mut bytes = Vec::new();
        entry.take(MAX_BUNDLE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BUNDLE_BYTES {
            return Err(refused(format!("holds `{name}` of more than {MAX_BUNDLE_BYTES} bytes")));
        }
        let target = into.join(name);
        match crashsafe::write_new(&target, &bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(refused(format!("holds `{name}` twice")));
            }
            written => written.map_err(EvidenceError::io("write", &target))?,
        }
    }
    Ok(())
}

/// Whether a bundle can have a file of this name.
fn belongs(name: &str) -> bool {
    let record = |name: &str| files::parse_record_name(name.as_ref()).is_some();
    name == BUNDLE
        || PAGES.contains(&name)
        || Page::may_be_called(name)
        || name.strip_prefix(RECORDS).and_then(|rest| rest.strip_prefix('/')).is_some_and(record)
}
