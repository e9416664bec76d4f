//! Ends members whose owner died, and removes what they left.
//!
//! A member is an orphan when nobody holds its lease. A process is ended only where it is an etcd that stands in that
//! member's own folder, and by a handle that no other process can take over.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::leased::orphaned;
use lifeboat_base::process::{end_if, everyone, stands_in};
use lifeboat_base::time::Clock;
use rustix::process::Signal;

use super::tool::pause;
use crate::error::EtcdError;

/// How a member's own folder is called.
pub(super) const FOLDER_PREFIX: &str = "lb-etcd-";
/// How long the process of an orphan may take to disappear.
const ORPHAN_LIMIT: Duration = Duration::from_secs(20);

/// Sweeps the folders of members below `runtime`; gives those that were removed. Folders of other users and everything
/// that is not a member's are left alone, and so is all where the system has no `/proc`.
pub fn sweep(runtime: &Path, clock: &dyn Clock) -> Result<Vec<PathBuf>, EtcdError> {
    let mut removed = Vec::new();
    if !Path::new("/proc/self").exists() {
        return Ok(removed);
    }
    for entry in fs::read_dir(runtime).map_err(EtcdError::io("list", runtime))? {
        let entry = entry.map_err(EtcdError::io("list", runtime))?;
        if entry.file_name().as_bytes().starts_with(FOLDER_PREFIX.as_bytes())
            && sweep_one(&entry.path(), clock)?
        {
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

fn sweep_one(folder: &Path, clock: &dyn Clock) -> Result<bool, EtcdError> {
    let Some(_lease) = orphaned(folder).map_err(EtcdError::io("lock", folder))? else { return Ok(false) };
    let started = clock.monotonic();
    loop {
        let ours = |pid: i32| stands_in(pid, folder, "etcd");
        let members: Vec<_> = everyone().into_iter().filter(|pid| ours(*pid)).collect();
        if members.is_empty() {
            break;
        }
        for pid in members {
            end_if(pid, Signal::KILL, || ours(pid));
        }
        if clock.monotonic().saturating_sub(started) > ORPHAN_LIMIT {
            return Err(EtcdError::Program {
                program: "etcd".to_owned(),
                status: "running".to_owned(),
                message: format!("the orphan in {} cannot be ended", folder.display()),
            });
        }
        pause();
    }
    crashsafe::remove_tree(folder).map_err(EtcdError::io("remove", folder))?;
    Ok(true)
}
