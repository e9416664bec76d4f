//! Sandboxes: a folder of its own, held by a lease that dies with its process, removed at the end.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::ids::DrillId;
use lifeboat_base::lease::Lease;
use lifeboat_base::monitor::Finding;

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
    swept: Swept,
    // Released after the folder is gone: a sweep that gets the lease finds nothing left to keep.
    _lease: Lease,
}

impl Sandbox {
    /// Makes `root/ID`, after sweeping what dead drills left in `root`; see [`Sandbox::swept`].
    pub fn create(root: &Path, id: &DrillId) -> Result<Self, SandboxError> {
        let swept = sweep(root)?;
        let dir = root.join(id.as_str());
        let lock = root.join(format!("{id}{LOCK_SUFFIX}"));
        let fail = |source| SandboxError { action: "make", path: dir.clone(), source };
        let lease = Lease::try_acquire(&lock, "drill")
            .map_err(fail)?
            .map_err(|held| fail(io::Error::new(io::ErrorKind::ResourceBusy, held.0)))?;
        crashsafe::create_dir_all(&dir).map_err(fail)?;
        crashsafe::let_through(root).map_err(fail)?;
        crashsafe::let_through(&dir).map_err(fail)?;
        Ok(Self { dir, lock, swept, _lease: lease })
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was found of earlier drills when it was made.
    pub fn swept(&self) -> &Swept {
        &self.swept
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

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// How many sandboxes were removed.
    pub removed: usize,
    /// What could not be removed, and why.
    pub left: Vec<SandboxError>,
}

impl Swept {
    /// One finding about each that is left.
    pub fn findings(&self, code: &str) -> Vec<Finding> {
        let told = |error: &SandboxError| {
            let id = error.path.file_name().unwrap_or_default().to_string_lossy();
            let message = format!("what an earlier run restored is still there: {}", chain(error));
            Finding::new(code, id, message)
        };
        self.left.iter().map(told).collect()
    }
}

/// Removes the sandboxes of drills that no longer run. One that cannot be removed keeps no other from it.
pub fn sweep(root: &Path) -> Result<Swept, SandboxError> {
    let fail = |source| SandboxError { action: "sweep", path: root.to_owned(), source };
    crashsafe::create_dir_all(root).map_err(fail)?;
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(root).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        // A folder and its lock are one sandbox.
        let id = name.to_str().map(|name| name.strip_suffix(LOCK_SUFFIX).unwrap_or(name));
        ids.extend(id.and_then(|id| DrillId::new(id).ok()));
    }
    let mut swept = Swept::default();
    for id in ids {
        let dir = root.join(id.as_str());
        match sweep_one(&dir, &root.join(format!("{id}{LOCK_SUFFIX}"))) {
            Ok(removed) => swept.removed += usize::from(removed),
            Err(source) => swept.left.push(SandboxError { action: "remove", path: dir, source }),
        }
    }
    Ok(swept)
}

/// Removes one sandbox if its drill no longer runs; true if there was a folder.
fn sweep_one(dir: &Path, lock: &Path) -> io::Result<bool> {
    let lease = match Lease::try_take_existing(lock) {
        Ok(Some(Err(_held))) => return Ok(false),
        Ok(lease) => lease,
        // Not a lock of ours, so not a sandbox of ours.
        Err(error) if Lease::is_foreign(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    // The lock is made before the folder and removed after it: a folder without one is dead.
    let is_dead = std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir());
    if is_dead {
        crashsafe::remove_tree(dir)?;
    }
    match crashsafe::remove(lock) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    drop(lease);
    Ok(is_dead)
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
        assert_eq!(sweep(root.path()).unwrap().removed, 1);
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
        let swept = sweep(root.path()).unwrap();
        assert_eq!((swept.removed, swept.left.len()), (0, 0));
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
        assert!(root.path().join("drill-odd").exists());
    }
}
