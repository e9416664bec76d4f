//! Ends sandboxes whose owner died, and removes what they left.
//!
//! A sandbox is an orphan when nobody holds its lease. Its server is ended only where the process shows that it is the
//! server of the recorded data directory with that sandbox's socket folder on its command line, or a child that such a
//! server left there: where the machine lets us, the server itself has ended with its owner.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::leased::orphaned;
use lifeboat_base::process::{arguments, birth, end_if, everyone, family, is_ending};
use lifeboat_base::time::Clock;
use rustix::process::Signal;

use super::error::ServerError;
use super::memory::{attached, release_shared_memory};
use super::postmaster::{PidFile, pause, read_pid_file};
use super::processes::{end_remains, end_widowed, servers_in};

/// How a sandbox's own folder is called.
pub(super) const FOLDER_PREFIX: &str = "lb-pg-";
/// The data directory's path.
pub(super) const RECORD: &str = "record";
/// The socket folder.
pub(super) const SOCKETS: &str = "s";

/// How long an orphan may take to end in order before it is killed, and its processes to disappear.
const ORPHAN_LIMIT: Duration = Duration::from_secs(10);

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Data directories whose orphaned server was ended.
    pub ended: Vec<PathBuf>,
    /// Sandbox folders that were removed.
    pub removed: Vec<PathBuf>,
}

/// Sweeps the sandboxes below `runtime` (where [`SandboxOptions::runtime`](super::SandboxOptions) pointed). Folders of
/// other users and everything that is not a sandbox's are left alone, and so is all where the system has no `/proc`.
/// Data directories stay: they are the caller's.
pub fn sweep(runtime: &Path, clock: &dyn Clock) -> Result<Swept, ServerError> {
    let mut swept = Swept::default();
    for entry in fs::read_dir(runtime).map_err(ServerError::io("list", runtime))? {
        let entry = entry.map_err(ServerError::io("list", runtime))?;
        if entry.file_name().as_bytes().starts_with(FOLDER_PREFIX.as_bytes()) {
            sweep_one(&entry.path(), &mut swept, clock)?;
        }
    }
    Ok(swept)
}

fn sweep_one(folder: &Path, swept: &mut Swept, clock: &dyn Clock) -> Result<(), ServerError> {
    let Some(_lease) = orphaned(folder).map_err(ServerError::io("lock", folder))? else { return Ok(()) };
    // Without /proc an orphan cannot be told from another process: it is left, and its folder with it.
    if !Path::new("/proc/self").exists() {
        return Ok(());
    }
    // A sandbox that died before it wrote its record had not started its server.
    if let Ok(bytes) = fs::read(folder.join(RECORD)) {
        let data = PathBuf::from(OsStr::from_bytes(&bytes));
        if end_orphan(&data, &folder.join(SOCKETS), clock)? {
            swept.ended.push(data);
        }
    }
    crashsafe::remove_tree(folder).map_err(ServerError::io("remove", folder))?;
    swept.removed.push(folder.to_owned());
    Ok(())
}

/// Ends the server on `data` if it is the one that listens in `sockets`; true if there was one. Goes by the processes
/// themselves and not by the pid file: the data directory may be gone already.
fn end_orphan(data: &Path, sockets: &Path, clock: &dyn Clock) -> Result<bool, ServerError> {
    let mut wanted = OsStr::new("unix_socket_directories=").to_owned();
    wanted.push(sockets);
    let ours = |pid: i32| {
        let arguments = arguments(pid);
        let has = |wanted: &OsStr| arguments.iter().any(|argument| argument == wanted);
        has(data.as_os_str()) && has(&wanted)
    };
    let started = clock.monotonic();
    let (mut relatives, mut ended) = (BTreeSet::new(), BTreeSet::new());
    let mut found = false;
    loop {
        let living: Vec<_> = everyone().into_iter().filter(|pid| ours(*pid)).collect();
        let waited = clock.monotonic().saturating_sub(started);
        for pid in &living {
            relatives.extend(family(*pid));
            ended.insert(*pid);
            if !found {
                end_if(*pid, Signal::QUIT, || ours(*pid));
            } else if waited > ORPHAN_LIMIT {
                end_if(*pid, Signal::KILL, || ours(*pid));
            }
        }
        found |= !living.is_empty();
        // The first process is the last to end when all goes well; after a kill its children are ended here.
        if living.is_empty() {
            let widowed = end_widowed(data);
            let remains = if found { end_remains(data, &relatives) } else { 0 };
            found |= widowed > 0;
            let file = read_pid_file(data);
            // One that was killed before it had written where its sockets are is gone in a moment.
            let ending = file.as_ref().is_some_and(|file| is_ending(file.pid));
            let dead = |file: &PidFile| is_its(sockets, &ended)(file) || birth(file.pid).is_none();
            // One that was killed as it began to write it leaves it empty. Who writes it stands in the folder.
            let is_left = servers_in(data).is_empty() && file.as_ref().map_or_else(|| has_one(data), dead);
            let file = file.filter(is_its(sockets, &ended));
            let attached = file.as_ref().and_then(|file| attached(data, file)).unwrap_or_default();
            // Who is attached for longer is none of ours.
            if widowed + remains == 0 && ((attached == 0 && !ending) || waited > ORPHAN_LIMIT) {
                release_shared_memory(data);
                if is_left {
                    forget(data)?;
                }
                return Ok(found);
            }
        }
        if waited > 2 * ORPHAN_LIMIT {
            let limit_s = 2 * ORPHAN_LIMIT.as_secs();
            return Err(ServerError::Late { goal: "gone", limit_s, log: String::new() });
        }
        pause();
    }
}

/// Tells the pid file of the server that had its sockets there: nobody else has any in that folder.
fn is_its(sockets: &Path, ended: &BTreeSet<i32>) -> impl Fn(&PidFile) -> bool {
    move |file| ended.contains(&file.pid) || file.sockets.as_deref() == Some(sockets)
}

/// Whether there is a pid file, whatever it says.
fn has_one(data: &Path) -> bool {
    fs::symlink_metadata(data.join("postmaster.pid")).is_ok_and(|file| file.is_file())
}

/// Removes the pid file of a server that was killed: its number goes to whatever is started next, and the folder would be taken
/// for one in use.
fn forget(data: &Path) -> Result<(), ServerError> {
    let path = data.join("postmaster.pid");
    crashsafe::remove(&path).map_err(ServerError::io("remove", &path))
}
