//! Ends sandboxes whose owner died, and removes what they left.
//!
//! A sandbox is an orphan when nobody holds its lease. Its server is known by the path of its folder, which holds 64
//! random bits and stands in what the server calls itself.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::leased::orphaned;
use lifeboat_base::process::{arguments, end_if, everyone};
use lifeboat_base::time::Clock;
use rustix::process::Signal;

use super::error::SandboxError;
use super::wait::pause;

/// How a sandbox's own folder is called.
pub(super) const FOLDER_PREFIX: &str = "lb-redis-";
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
    let Some(_lease) = orphaned(folder).map_err(SandboxError::io("lock", folder))? else { return Ok(false) };
    // Without /proc an orphan cannot be told from another process: it is left, and its folder with it.
    if !Path::new("/proc/self").exists() {
        return Ok(false);
    }
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
