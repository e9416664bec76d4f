//! The files of a restored cluster against the server's own manifest, in both directions, before anything starts.
//!
//! In: the data directory. Out: one check result. Memory: about 300 bytes per file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use lifeboat_base::digest::digest_of_reader;
use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::human::printable;
use lifeboat_base::monitor::Monitor;
use lifeboat_postgres::backup::{Manifest, ManifestFile};

use super::FILES;
use crate::adapter::CheckResult;
use crate::postgres::adapter::TABLESPACES;
use crate::postgres::capture::MANIFEST;
use crate::postgres::placing::LINKS;
use crate::tally::{Tally, failed};

const EXPECTED: &str = "every file of the manifest, and no other";
/// Settings that a restore may append lines to.
const APPENDED: &str = "postgresql.auto.conf";
/// What a restore adds, where the manifest does not list it.
const ADDED: [&str; 5] = [MANIFEST, "recovery.signal", "postgresql.conf", "pg_hba.conf", "pg_ident.conf"];
/// The log, of which the manifest lists only the range that is needed; recovery itself tells whether it is whole.
const LOG: &str = "pg_wal";
/// Deeper than any cluster.
const MAX_DEPTH: usize = 32;

/// Reads every file once. `spaces` are the tablespaces that were placed elsewhere.
pub(crate) fn check_files(
    restored: &Path,
    spaces: &[PathBuf],
    monitor: &dyn Monitor,
) -> Result<CheckResult, Failure> {
    let manifest = match File::open(restored.join(MANIFEST)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(failed(FILES, EXPECTED, format!("there is no {MANIFEST}")));
        }
        other => other.map_err(|error| Failure::io(format!("failed to open the {MANIFEST}"), error))?,
    };
    let manifest = match Manifest::read(&mut std::io::BufReader::new(manifest)) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(failed(FILES, EXPECTED, chain(&error))),
    };
    let mut tally = Tally::default();
    let mut found = BTreeSet::new();
    walk(restored, spaces, &mut found, &mut tally)
        .map_err(|error| Failure::io("failed to list the restored cluster", error))?;
    for path in &found {
        if !manifest.files.contains_key(path) && !is_added(path) {
            tally.add(|| format!("extra: {}", printable(path)));
        }
    }
    for (path, expected) in &manifest.files {
        if monitor.cancelled() {
            return Err(Failure::new(FailureKind::Refused, "reading the restored files was cancelled"));
        }
        if !found.contains(path) {
            tally.add(|| format!("missing: {}", printable(path)));
            continue;
        }
        match compare(&restored.join(path), expected, path == APPENDED) {
            Ok(true) => {}
            Ok(false) => tally.add(|| format!("changed: {}", printable(path))),
            Err(error) => tally.add(|| format!("unreadable: {}: {error}", printable(path))),
        }
        monitor.advance(expected.size_bytes, 1);
    }
    let measured = format!("{} files, {} differences", found.len(), tally.count());
    Ok(tally.result(FILES, measured, EXPECTED))
}

fn is_added(path: &str) -> bool {
    ADDED.contains(&path) || path.strip_prefix(LOG).is_some_and(|rest| rest.starts_with('/'))
}

fn compare(path: &Path, expected: &ManifestFile, may_be_longer: bool) -> std::io::Result<bool> {
    let file = File::open(path)?;
    let length_bytes = file.metadata()?.len();
    if length_bytes < expected.size_bytes || (length_bytes > expected.size_bytes && !may_be_longer) {
        return Ok(false);
    }
    let (digest, _) = digest_of_reader(file.take(expected.size_bytes))?;
    Ok(digest == expected.sha256)
}

/// The files of a cluster by their paths in a manifest.
pub(crate) fn files_below(data: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    walk(data, &[], &mut found, &mut Tally::default())?;
    Ok(found)
}

/// Every file below `restored`, by its path in the manifest: those of a tablespace stand below its link. Links anywhere
/// else, and links that lead anywhere else, are differences.
fn walk(
    restored: &Path,
    spaces: &[PathBuf],
    found: &mut BTreeSet<String>,
    tally: &mut Tally,
) -> std::io::Result<()> {
    let mut pending: Vec<(PathBuf, String, usize)> = vec![(restored.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = pending.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                tally.add(|| format!("extra: {}", printable(&entry.path().to_string_lossy())));
                continue;
            };
            let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_file() {
                found.insert(path);
            } else if kind.is_dir() && depth < MAX_DEPTH {
                // Its files are found through the links; what no link leads to is found here.
                let linked = prefix == TABLESPACES && leads_to(restored, name, &entry.path());
                if !linked {
                    pending.push((entry.path(), path, depth + 1));
                }
            } else if kind.is_symlink()
                && prefix == LINKS
                && leads_to(restored, name, &restored.join(TABLESPACES).join(name))
            {
                pending.push((restored.join(TABLESPACES).join(name), path, depth + 1));
            } else if kind.is_symlink()
                && prefix == LINKS
                && let Some(space) = spaces.iter().find(|space| leads_to(restored, name, space))
            {
                pending.push((space.clone(), path, depth + 1));
            } else {
                tally.add(|| format!("neither file nor folder: {}", printable(&path)));
            }
        }
    }
    Ok(())
}

/// Whether the link of tablespace `oid` leads to `folder`.
fn leads_to(restored: &Path, oid: &str, folder: &Path) -> bool {
    let link = restored.join(LINKS).join(oid);
    link.is_symlink()
        && match (fs::canonicalize(link), fs::canonicalize(folder)) {
            (Ok(link), Ok(folder)) => link == folder,
            _ => false,
        }
}
