//! Ends members whose owner died, and removes what they left.
//!
//! A member is an orphan when nobody holds its lease. A process is ended only where it is an etcd that stands in that
//! member's own folder, and by a handle that no other process can take over.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::lease::Lease;
use lifeboat_base::time::Clock;

use super::tool::pause;
use crate::error::EtcdError;

/// How a member's own folder is called.
pub(super) const FOLDER_PREFIX: &str = "lb-etcd-";
/// The lock that says its owner lives.
pub(super) const LEASE: &str = "lease";
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
    let meta = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(EtcdError::io("look at", folder))?,
    };
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    let _lease = match Lease::try_take_existing(&folder.join(LEASE)) {
        Ok(Some(Ok(lease))) => lease,
        // Held: alive. Missing: being made this moment, or not ours.
        Ok(Some(Err(_)) | None) => return Ok(false),
        Err(error) if Lease::is_foreign(&error) => return Ok(false),
        Err(error) => return Err(EtcdError::io("lock", folder)(error)),
    };
    let started = clock.monotonic();
    loop {
        let members = standing_in(folder);
        if members.is_empty() {
            break;
        }
        for pid in members {
            end(pid, folder);
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

fn standing_in(folder: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_member(*pid, folder)).collect()
}

fn is_member(pid: i32, folder: &Path) -> bool {
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}"));
    link("cwd").is_ok_and(|cwd| cwd == folder)
        && link("exe").is_ok_and(|exe| {
            let name = exe.file_name().unwrap_or_default().as_bytes();
            // A program that was replaced by an upgrade shows as deleted.
            name == b"etcd" || name == b"etcd (deleted)"
        })
}

/// Ends a process that is still the member when it can no longer be mistaken for another.
#[cfg(target_os = "linux")]
fn end(pid: i32, folder: &Path) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(number) = Pid::from_raw(pid) else { return };
    if let Ok(handle) = pidfd_open(number, PidfdFlags::empty())
        && is_member(pid, folder)
    {
        // Only a process that is gone already refuses; the caller looks again.
        pidfd_send_signal(&handle, Signal::KILL).unwrap_or(());
    }
}

#[cfg(not(target_os = "linux"))]
fn end(_pid: i32, _folder: &Path) {}
