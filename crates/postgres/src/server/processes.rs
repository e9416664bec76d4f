//! The processes of a server, and ending exactly those.
//!
//! A server's children leave its process group at once, so the group says nothing. On Linux they are found through
//! `/proc`; elsewhere only the first process is known, and its children end by themselves when it is gone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lifeboat_base::process::{arguments, birth, end_if, everyone, parent, stands_in};
use rustix::process::Signal;

/// The processes of any server that works in `data`: a server's processes stand in their data directory.
pub(super) fn servers_in(data: &Path) -> BTreeSet<i32> {
    let Ok(data) = fs::canonicalize(data) else { return BTreeSet::new() };
    everyone().into_iter().filter(|pid| is_server_in(*pid, &data)).collect()
}

/// Whether `pid` is a server's process that stands in `data`, a path without links.
fn is_server_in(pid: i32, data: &Path) -> bool {
    stands_in(pid, data, "postgres")
}

/// Ends what is left in `data`, which may be gone, of a server whose first process is gone: a session that computes notices
/// late. Gives back how many were still there.
pub(super) fn end_widowed(data: &Path) -> usize {
    let mut removed = data.as_os_str().to_owned();
    removed.push(" (deleted)");
    let removed = PathBuf::from(removed);
    let is_there = |pid: i32| is_server_in(pid, data) || is_server_in(pid, &removed);
    // A first process has the words it was started with; its children say what they do.
    let is_child =
        |pid: i32| arguments(pid).first().is_some_and(|word| word.as_bytes().starts_with(b"postgres: "));
    let is_widowed =
        |pid: i32| is_there(pid) && is_child(pid) && parent(pid).is_some_and(|parent| !is_there(parent));
    let widowed: Vec<i32> = everyone().into_iter().filter(|pid| is_widowed(*pid)).collect();
    for pid in &widowed {
        end_if(*pid, Signal::KILL, || is_widowed(*pid));
    }
    widowed.len()
}

/// Ends what is left of a server on `data` and of its children `family`; gives back how many were still there.
pub(super) fn end_remains(data: &Path, family: &BTreeSet<(i32, u64)>) -> usize {
    let servers = servers_in(data);
    let data = fs::canonicalize(data).unwrap_or_default();
    for pid in &servers {
        end_if(*pid, Signal::KILL, || is_server_in(*pid, &data));
    }
    let others: Vec<_> =
        family.iter().filter(|(pid, born)| !servers.contains(pid) && birth(*pid) == Some(*born)).collect();
    for (pid, born) in &others {
        end_if(*pid, Signal::KILL, || birth(*pid) == Some(*born));
    }
    servers.len() + others.len()
}
