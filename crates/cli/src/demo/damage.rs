//! Damage on purpose, done to a scratch copy only.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lifeboat_base::failure::{Failure, FailureKind};

fn fail(error: io::Error) -> Failure {
    Failure::io("failed to prepare the scratch copy", error)
}

/// Copies a vault's files; a vault has folders and plain files only.
#[expect(clippy::disallowed_methods, reason = "a throwaway copy: nothing relies on it being durable")]
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to).map_err(fail)?;
    for entry in fs::read_dir(from).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(fail)?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(fail)?;
        }
    }
    Ok(())
}

/// Flips one bit in the middle of the largest pack; gives its name below the vault.
pub(super) fn flip_one_bit(vault: &Path) -> Result<String, Failure> {
    let mut largest: Option<(u64, PathBuf)> = None;
    for fan in fs::read_dir(vault.join("data")).map_err(fail)? {
        for pack in fs::read_dir(fan.map_err(fail)?.path()).map_err(fail)? {
            let pack = pack.map_err(fail)?;
            let size = pack.metadata().map_err(fail)?.len();
            if largest.as_ref().is_none_or(|(known, _path)| size > *known) {
                largest = Some((size, pack.path()));
            }
        }
    }
    let (size, path) =
        largest.ok_or_else(|| Failure::new(FailureKind::Internal, "the demo's vault holds no pack"))?;
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
    let mut byte = [0u8; 1];
    file.read_exact_at(&mut byte, size / 2).map_err(fail)?;
    file.write_all_at(&[byte[0] ^ 1], size / 2).map_err(fail)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(format!("data/{name}"))
}
