//! Sandboxes: a folder of its own, held by a lease that dies with its process, removed at the end.

use std::io;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::DrillId;
use lifeboat_base::lease::Lease;

const LOCK_SUFFIX: &str = ".lock";

/// Why a sandbox could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} the sandbox {}", path.display())]
pub struct SandboxError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        Self::with_source(FailureKind::Internal, "failed to isolate the drill", error)
    }
}

/// A throwaway folder (mode 0700, for root 0711: the servers of a sandbox run as somebody else). Torn down by [`Sandbox::teardown`], and as well as possible when dropped.
#[derive(Debug)]
pub struct Sandbox {
    dir: PathBuf,
    lock: PathBuf,
    // Released after the folder is gone: a sweep that gets the lease finds nothing left to keep.
    _lease: Lease,
}

impl Sandbox {
    /// Makes `root/ID`, after sweeping what dead drills left in `root`.
    pub fn create(root: &Path, id: &DrillId) -> Result<Self, SandboxError> {
        sweep(root)?;
        let dir = root.join(id.as_str());
        let lock = root.join(format!("{id}{LOCK_SUFFIX}"));
        let fail = |source| SandboxError { action: "make", path: dir.clone(), source };
        let lease = Lease::try_acquire(&lock, "drill")
            .map_err(fail)?
            .map_err(|held| fail(io::Error::new(io::ErrorKind::ResourceBusy, held.0)))?;
        crashsafe::create_dir_all(&dir).map_err(fail)?;
        crashsafe::let_through(root).map_err(fail)?;
        crashsafe::let_through(&dir).map_err(fail)?;
        Ok(Self { dir, lock, _lease: lease })
    }

    /// A new empty folder inside.
    pub fn folder(&self, name: &str) -> Result<PathBuf, SandboxError> {
        let dir = self.dir.join(name);
        crashsafe::create_dir_all(&dir).map_err(|source| SandboxError {
            action: "fill",
            path: dir.clone(),
            source,
        })?;
        crashsafe::let_through(&dir).map_err(|source| SandboxError {
            action: "open a way to",
            path: dir.clone(),
            source,
        })?;
        Ok(dir)
    }

    /// Removes everything; an error means something is left, which the next drill removes.
    pub fn teardown(self) -> Result<(), SandboxError> {
        self.remove()
    }

    fn remove(&self) -> Result<(), SandboxError> {
        let fail = |source| SandboxError { action: "remove", path: self.dir.clone(), source };
        crashsafe::remove_tree(&self.dir).map_err(fail)?;
        match crashsafe::remove(&self.lock) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
            _ => Ok(()),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Reached on an early return; the next sweep takes what stays.
        drop(self.remove());
    }
}

/// Removes the sandboxes of drills that no longer run; gives how many there were.
pub fn sweep(root: &Path) -> Result<usize, SandboxError> {
    let fail = |source| SandboxError { action: "sweep", path: root.to_owned(), source };
    crashsafe::create_dir_all(root).map_err(fail)?;
    let mut swept = 0;
    for entry in std::fs::read_dir(root).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let id = name.strip_suffix(LOCK_SUFFIX).unwrap_or(name);
        if DrillId::new(id).is_err() {
            continue;
        }
        let lock = root.join(format!("{id}{LOCK_SUFFIX}"));
        let lease = match Lease::try_take_existing(&lock) {
            Ok(Some(Err(_held))) => continue,
            Ok(lease) => lease,
            // Not a lock of ours, so not a sandbox of ours.
            Err(error) if Lease::is_foreign(&error) => continue,
            Err(error) => return Err(fail(error)),
        };
        // The lock is made before the folder and removed after it: a folder without one is dead.
        let dir = root.join(id);
        if std::fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir()) {
            crashsafe::remove_tree(&dir).map_err(fail)?;
            swept += 1;
        }
        match crashsafe::remove(&lock) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        drop(lease);
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_drills_sandbox_is_swept_and_a_living_one_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let living = Sandbox::create(root.path(), &DrillId::new("drill-living").unwrap()).unwrap();
        let dead = root.path().join("drill-dead");
        crashsafe::create_dir_all(&dead.join("orders")).unwrap();
        assert_eq!(sweep(root.path()).unwrap(), 1);
        assert!(!dead.exists());
        assert!(living.dir.exists());
        living.teardown().unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sweep_leaves_a_planted_lock_and_its_folder_alone() {
        let root = tempfile::tempdir().unwrap();
        let precious = root.path().join("precious");
        crashsafe::write_new(&precious, b"precious").unwrap();
        crashsafe::create_dir_all(&root.path().join("drill-odd")).unwrap();
        std::os::unix::fs::symlink(&precious, root.path().join("drill-odd.lock")).unwrap();
        assert_eq!(sweep(root.path()).unwrap(), 0);
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
        assert!(root.path().join("drill-odd").exists());
    }
}
