//! Has etcd's own program make data directories.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use lifeboat_base::outside::{Run, run};
use lifeboat_base::time::Clock;

use super::installation::Installation;
use crate::error::EtcdError;

/// Between two looks at a process: there is no event to wait for.
const POLL: Duration = Duration::from_millis(5);
/// How long making a data directory may take.
const RESTORE_LIMIT: Duration = Duration::from_secs(3600);
/// How deep a data directory is.
const MAX_DEPTH: usize = 8;

/// Lets a moment pass before the next look.
pub(super) fn pause() {
    thread::park_timeout(POLL);
}

/// Has etcd's own program make the data directory `into` (new) of a snapshot, for a cluster of one member that is called
/// `default`. Everything in it is durable when this returns.
pub fn make_data_directory(
    installed: &Installation,
    snapshot: &Path,
    into: &Path,
    clock: &dyn Clock,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), EtcdError> {
    let Some(restorer) = &installed.restorer else {
        return Err(EtcdError::NotInstalled {
            wanted: format!("{} with etcdutl or etcdctl", installed.version),
            looked: installed.server.display().to_string(),
        });
    };
    // The program runs elsewhere.
    let snapshot = fs::canonicalize(snapshot).map_err(EtcdError::io("find", snapshot))?;
    let into = std::path::absolute(into).map_err(EtcdError::io("find", into))?;
    let mut command = Command::new(restorer);
    command.arg("snapshot").arg("restore").arg(snapshot).arg("--data-dir").arg(&into);
    command.env_clear().env("ETCDCTL_API", "3").current_dir("/");
    run(command, &Run { limit: RESTORE_LIMIT, clock, cancelled })?;
    sync(&into, 0)
}

fn sync(path: &Path, depth: usize) -> Result<(), EtcdError> {
    let meta = fs::symlink_metadata(path).map_err(EtcdError::io("look at", path))?;
    if meta.is_dir() && depth < MAX_DEPTH {
        for entry in fs::read_dir(path).map_err(EtcdError::io("list", path))? {
            sync(&entry.map_err(EtcdError::io("list", path))?.path(), depth + 1)?;
        }
    }
    if meta.is_symlink() {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(EtcdError::io("sync", path))
}
