//! Segments fetched before they are asked for: a few files in `state/ahead/STORE/`, each with a label of one line.
//!
//! Only whole segments lie here, which never change. A file is believed only if it is the segment of that name of this
//! vault and has the hash on its label; everything else is removed. Disk: at most 256 MiB for each store.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{StoreName, VaultId};
use serde::{Deserialize, Serialize};

/// Segments fetched ahead, at most.
const MAX_COUNT: u64 = 8;
/// Their bytes; of larger segments fewer are fetched, and none of those above this size.
const MAX_BYTES: u64 = 256 << 20;
const MAX_LABEL_BYTES: u64 = 4096;
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
const FORMAT: &str = "lifeboat.log-ahead/v1";
const SUFFIX: &str = ".segment";

/// What a file here says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    format: String,
    pub(super) store: StoreName,
    pub(super) vault: VaultId,
    pub(super) name: String,
    /// The cluster the segment is of.
    pub(super) identity: String,
    sha256: Digest,
}

impl Label {
    pub(super) fn new(
        store: &StoreName,
        vault: &VaultId,
        name: &str,
        identity: String,
        content: &[u8],
    ) -> Self {
        Self {
            format: FORMAT.to_owned(),
            store: store.clone(),
            vault: vault.clone(),
            name: name.to_owned(),
            identity,
            sha256: Digest::of(content),
        }
    }
}

/// How many segments of this size are fetched ahead.
pub(super) fn depth(segment_bytes: u32) -> u64 {
    (MAX_BYTES / u64::from(segment_bytes.max(1))).min(MAX_COUNT)
}

/// The folder of one store.
pub(super) struct Ahead {
    folder: PathBuf,
}

impl Ahead {
    pub(super) fn new(state: &Path, store: &StoreName) -> Self {
        Self { folder: state.join("ahead").join(store.as_str()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{SUFFIX}"))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).is_file()
    }

    /// The segment `name` with its label, if it is here and its hash is right; else nothing, and nothing stays of it.
    pub(super) fn get(&self, name: &str, store: &StoreName) -> Option<(Label, Vec<u8>)> {
        let path = self.path(name);
        let mut bytes = Vec::new();
        let file = File::open(&path).ok()?;
        let read = file.take(MAX_LABEL_BYTES + MAX_SEGMENT_BYTES).read_to_end(&mut bytes).ok();
        let found = read.and_then(|_| {
            let end = bytes.iter().take(4096).position(|byte| *byte == b'\n')?;
            let label: Label = serde_json::from_slice(bytes.get(..end)?).ok()?;
            let content = bytes.split_off(end + 1);
            let right = label.format == FORMAT && label.store == *store && label.name == name;
            (right && Digest::of(&content) == label.sha256).then_some((label, content))
        });
        if found.is_none() {
            self.forget(name);
        }
        found
    }

    /// Puts a whole segment here; it appears whole or not at all.
    pub(super) fn put(&self, label: &Label, content: &[u8]) -> Result<(), Failure> {
        let fail = |error| Failure::io("failed to keep a segment that was fetched ahead", error);
        crashsafe::create_dir_all(&self.folder).map_err(fail)?;
        let mut line = serde_json::to_vec(label).map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to label a segment", error)
        })?;
        line.push(b'\n');
        match crashsafe::write_new_pieces(&self.path(&label.name), &[&line, content]) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(fail(error)),
            _ => Ok(()),
        }
    }

    /// It was handed out, or is not what it should be.
    pub(super) fn forget(&self, name: &str) {
        // What stays is checked again, and goes with the next sweep.
        drop(fs::remove_file(self.path(name)));
    }

    /// Removes every file but the segments of `keep`, and what a killed process left. The caller holds the lease.
    pub(super) fn sweep(&self, keep: &BTreeSet<String>) -> Result<(), Failure> {
        let fail = |error| Failure::io("failed to remove segments that were fetched ahead", error);
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(fail)?,
        };
        crashsafe::sweep(&self.folder).map_err(fail)?;
        for entry in entries {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(name) = name.strip_suffix(SUFFIX).filter(|name| !keep.contains(*name)) else { continue };
            self.forget(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use lifeboat_base::entropy::OsEntropy;

    use super::*;

    #[test]
    fn only_what_has_its_hash_and_its_place_is_handed_out() {
        let dir = tempfile::tempdir().unwrap();
        let (store, other) = (StoreName::new("shop").unwrap(), StoreName::new("other").unwrap());
        let ahead = Ahead::new(dir.path(), &store);
        let vault = VaultId::generate(&OsEntropy);
        let label = Label::new(&store, &vault, "000000010000000000000003", "7".to_owned(), b"the log");
        ahead.put(&label, b"the log").unwrap();
        assert_eq!(ahead.get(&label.name, &store), Some((label.clone(), b"the log".to_vec())));
        // Under another name, for another store, with another byte.
        fs::hard_link(ahead.path(&label.name), ahead.path("000000010000000000000004")).unwrap();
        assert_eq!(ahead.get("000000010000000000000004", &store), None);
        assert!(!ahead.has("000000010000000000000004"));
        assert_eq!(ahead.get(&label.name, &other), None);
        ahead.put(&label, b"the log").unwrap();
        let file = fs::OpenOptions::new().write(true).open(ahead.path(&label.name)).unwrap();
        file.write_all_at(b"X", file.metadata().unwrap().len() - 1).unwrap();
        assert_eq!(ahead.get(&label.name, &store), None);
        assert!(!ahead.has(&label.name));
    }

    #[test]
    fn what_is_no_longer_ahead_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreName::new("shop").unwrap();
        let ahead = Ahead::new(dir.path(), &store);
        let vault = VaultId::generate(&OsEntropy);
        for name in ["A", "B", "C"] {
            ahead.put(&Label::new(&store, &vault, name, String::new(), b"log"), b"log").unwrap();
        }
        crashsafe::write_new(&ahead.folder.join(".lifeboat-tmp-1-1"), b"half").unwrap();
        ahead.sweep(&["B".to_owned()].into()).unwrap();
        let left: Vec<_> =
            fs::read_dir(&ahead.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["B.segment"]);
    }

    #[test]
    fn the_disk_for_what_is_ahead_is_bounded() {
        assert_eq!([16 << 20, 64 << 20, 256 << 20, 1 << 30].map(depth), [8, 4, 1, 0]);
    }
}
