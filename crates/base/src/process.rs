//! Processes as the kernel knows them, and ending exactly those that are meant.
//!
//! In: process ids. Out: arguments, families, times of birth. On Linux through `/proc`; elsewhere there is nothing to
//! find, and only a process that is still a child of ours can be ended.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal};

/// The descendants of `root`, without itself.
pub fn descendants(root: i32) -> BTreeSet<i32> {
    let parents: Vec<_> = everyone().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = BTreeSet::from([root]);
    // A generation per round; the tree cannot be deeper than it has members.
    for _generation in 0..parents.len() {
        let before = family.len();
        let children = parents.iter().filter(|(_, parent)| family.contains(parent)).map(|(pid, _)| *pid);
        let children: Vec<_> = children.collect();
        family.extend(children);
        if family.len() == before {
            break;
        }
    }
    family.remove(&root);
    family
}

/// Whether `pid` runs the program called `name` and stands in `folder`, a path without links.
pub fn stands_in(pid: i32, folder: &Path, name: &str) -> bool {
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}"));
    link("cwd").is_ok_and(|cwd| cwd == folder)
        && link("exe").is_ok_and(|exe| {
            let exe = exe.file_name().unwrap_or_default().to_string_lossy();
            // A program that was replaced by an upgrade shows as deleted.
            exe.strip_suffix(" (deleted)").unwrap_or(&exe) == name
        })
}

/// The arguments of a process; none if it is gone or may not be looked at.
pub fn arguments(pid: i32) -> Vec<OsString> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|part| OsStr::from_bytes(part).to_owned()).collect()
}

/// Ends `pid` at once if `sure` still holds when the process can no longer be mistaken for another.
#[cfg(target_os = "linux")]
pub fn end_if(pid: i32, signal: Signal, sure: impl FnOnce() -> bool) {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
    let Some(pid) = Pid::from_raw(pid) else { return };
    // The number may be given to another process at any time; the handle opened here stays with this one.
    if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
        && sure()
    {
        // Only a process that is gone already or was never ours refuses; the caller looks again.
        pidfd_send_signal(&handle, signal).unwrap_or(());
    }
}

/// Ends `pid` at once if `sure` holds.
#[cfg(not(target_os = "linux"))]
pub fn end_if(pid: i32, signal: Signal, sure: impl FnOnce() -> bool) {
    if let Some(pid) = Pid::from_raw(pid)
        && sure()
    {
        rustix::process::kill_process(pid, signal).unwrap_or(());
    }
}

/// The descendants of `root` with their times of birth, by which a reused number is told apart.
pub fn family(root: i32) -> BTreeSet<(i32, u64)> {
    descendants(root).into_iter().filter_map(|pid| Some((pid, birth(pid)?))).collect()
}

/// When a living process was started, in the kernel's ticks; nothing for one that is gone or only waits to be reaped.
pub fn birth(pid: i32) -> Option<u64> {
    let fields = stat(pid)?;
    if matches!(fields.first().map(String::as_str), Some("Z" | "X") | None) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Whether a process has ended and only waits to be reaped.
pub fn has_ended(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| matches!(fields.first().map(String::as_str), Some("Z" | "X")))
}

/// Whether a process is about to end: it has a number still, and no memory any more that could tell what it was started with. So has a
/// thread of the kernel.
pub fn is_ending(pid: i32) -> bool {
    birth(pid).is_some() && arguments(pid).iter().all(|argument| argument.is_empty())
}

/// The process that a process is a child of; nothing if it is gone.
pub fn parent(pid: i32) -> Option<i32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The fields of `/proc/PID/stat` from the state on. The name before them may hold anything, also brackets.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Every process there is.
pub fn everyone() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
