//! A small folder of one process, with a lease in it that tells whether the process lives: for throwaway servers.
//!
//! In: where it is made, and how such folders are called. Out: the folder, removed when dropped; or one whose owner died,
//! taken by whoever cleans up. Folders of other users are never touched.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::crashsafe;
use crate::entropy::Entropy;
use crate::lease::Lease;

/// The lock that says its owner lives.
const LEASE: &str = "lease";

/// The folder; removed with everything in it when dropped.
#[derive(Debug)]
pub struct LeasedFolder {
    path: PathBuf,
    _lease: Lease,
}

impl LeasedFolder {
    /// Makes `runtime/prefixRANDOM` (mode 0700, 16 hexadecimal digits); `note` says what for.
    pub fn make(runtime: &Path, prefix: &str, note: &str, entropy: &dyn Entropy) -> io::Result<Self> {
        let mut random = [0; 8];
        entropy.fill(&mut random);
        let path = runtime.join(format!("{prefix}{:016x}", u64::from_ne_bytes(random)));
        DirBuilder::new().mode(0o700).create(&path)?;
        let lease = Lease::try_acquire(&path.join(LEASE), note)?
            .map_err(|held| io::Error::new(io::ErrorKind::ResourceBusy, held.0))?;
        Ok(Self { path, _lease: lease })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LeasedFolder {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next sweep.
        drop(crashsafe::remove_tree(&self.path));
    }
}

/// Takes the lease of a folder whose owner died. Nothing if the owner lives, if the folder is being made this moment, or if
/// it is not one of ours.
pub fn orphaned(folder: &Path) -> io::Result<Option<Lease>> {
    let meta = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Ok(None);
    }
    match Lease::try_take_existing(&folder.join(LEASE)) {
        Ok(Some(Ok(lease))) => Ok(Some(lease)),
        Ok(Some(Err(_)) | None) => Ok(None),
        Err(error) if Lease::is_foreign(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::entropy::OsEntropy;

    #[test]
    fn a_folder_is_private_and_taken_by_nobody_while_its_owner_lives() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = LeasedFolder::make(runtime.path(), "lb-", "a test", &OsEntropy).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(orphaned(&path).unwrap().is_none());
        drop(folder);
        assert!(!path.exists());
        assert!(orphaned(&path).unwrap().is_none());
    }

    #[test]
    fn what_a_dead_owner_left_is_taken_and_what_is_not_ours_stays() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = runtime.path().join("lb-left");
        crashsafe::create_dir_all(&folder).unwrap();
        assert!(orphaned(&folder).unwrap().is_none(), "without a lease it may be being made");
        crashsafe::write_new(&folder.join(LEASE), b"").unwrap();
        let taken = orphaned(&folder).unwrap();
        assert!(taken.is_some() && orphaned(&folder).unwrap().is_none(), "taken twice");
        drop(taken);
        let link = runtime.path().join("lb-link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(orphaned(&link).unwrap().is_none(), "a link was taken");
        crashsafe::remove(&folder.join(LEASE)).unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.join(LEASE)).unwrap();
        assert!(orphaned(&folder).unwrap().is_none(), "a planted lock was taken");
    }
}
