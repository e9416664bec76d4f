//! Ends sandboxes whose owner died, and removes what they left.
//!
//! A sandbox is an orphan when nobody holds its lease. Its server is known by the path of its folder, which holds 64
//! random bits and stands in what the server calls itself.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::lease::Lease;
use lifeboat_base::process::{arguments, end_if, everyone};
use lifeboat_base::time::Clock;
use rustix::process::Signal;

use super::error::SandboxError;
use super::wait::pause;

/// How a sandbox's own folder is called.
pub(super) const FOLDER_PREFIX: &str = "lb-redis-";
/// The lock that says its owner lives.
pub(super) const LEASE: &str = "lease";
/// How long an orphan may take to disappear.
const ORPHAN_LIMIT: Duration = Duration::from_secs(20);

/// Sweeps the sandboxes below `runtime`; gives the number of folders removed. Those of living owners and of other users
/// and everything that is not a sandbox's are left alone, and so is all where the system has no `/proc`.
pub fn sweep(runtime: &Path, clock: &dyn Clock) -> Result<usize, SandboxError> {
    let mut removed = 0;
    for entry in fs::read_dir(runtime).map_err(SandboxError::io("list", runtime))? {
        let entry = entry.map_err(SandboxError::io("list", runtime))?;
        if entry.file_name().as_bytes().starts_with(FOLDER_PREFIX.as_bytes()) {
            removed += usize::from(sweep_one(&entry.path(), clock)?);
        }
    }
    Ok(removed)
}

fn sweep_one(folder: &Path, clock: &dyn Clock) -> Result<bool, SandboxError> {
    let meta = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(SandboxError::io("look at", folder))?,
    };
    let ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw();
    if !ours || !Path::new("/proc/self").exists() {
        return Ok(false);
    }
    let _lease = match Lease::try_take_existing(&folder.join(LEASE)) {
        Ok(Some(Ok(lease))) => lease,
        // Held: alive. Missing: being made this moment, or not ours.
        Ok(Some(Err(_)) | None) => return Ok(false),
        Err(error) if Lease::is_foreign(&error) => return Ok(false),
        Err(error) => return Err(SandboxError::io("lock", folder)(error)),
    };
    end_orphan(folder, clock)?;
    crashsafe::remove_tree(folder).map_err(SandboxError::io("remove", folder))?;
    Ok(true)
}

fn end_orphan(folder: &Path, clock: &dyn Clock) -> Result<(), SandboxError> {
    let mut name = folder.as_os_str().as_bytes().to_vec();
    name.push(b'/');
    let ours = |pid: i32| {
        arguments(pid).iter().any(|argument| memchr::memmem::find(argument.as_bytes(), &name).is_some())
            && arguments(pid)
                .first()
                .is_some_and(|first| memchr::memmem::find(first.as_bytes(), b"redis-server").is_some())
    };
    let started = clock.monotonic();
    loop {
        let living: Vec<_> = everyone().into_iter().filter(|pid| ours(*pid)).collect();
        if living.is_empty() {
            return Ok(());
        }
        for pid in living {
            end_if(pid, Signal::KILL, || ours(pid));
        }
        if clock.monotonic().saturating_sub(started) > ORPHAN_LIMIT {
            let limit_s = ORPHAN_LIMIT.as_secs();
            return Err(SandboxError::Late { goal: "gone", limit_s, log: String::new() });
        }
        pause();
    }
}
