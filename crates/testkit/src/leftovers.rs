//! What tests that were killed left behind: their servers are ended and their folders removed by the next test.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::lease::Lease;
use lifeboat_postgres::server::release_shared_memory;
use rustix::process::{Pid, Signal, kill_process};

/// How the folders of tests' servers are called.
pub(crate) const FOLDER_PREFIX: &str = "lb-test-";
/// The lock in such a folder that says its test lives.
const LEASE: &str = "lease";

/// How often the processes of a killed test are looked for, and how long apart.
const MAX_LOOKS: u32 = 500;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Marks `folder` as in use by this process.
pub(crate) fn claim(folder: &Path) -> std::io::Result<Lease> {
    let taken = Lease::try_acquire(&folder.join(LEASE), "a test")?;
    taken.map_err(|held| std::io::Error::new(std::io::ErrorKind::ResourceBusy, held.0))
}

/// Sweeps `parent`. Folders of living tests and of other users are left alone; so is what cannot be removed.
pub(crate) fn sweep(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok);
    for folder in entries.map(|entry| entry.path()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(FOLDER_PREFIX) || folder.is_symlink() {
            continue;
        }
        if let Ok(Some(Ok(_dead))) = Lease::try_take_existing(&folder.join(LEASE)) {
            end_server(&folder.join("data"));
            drop(crashsafe::remove_tree(&folder));
        }
    }
}

/// Ends the processes of the server that stands in `data`, and looks until they are gone.
fn end_server(data: &Path) {
    for _look in 0..MAX_LOOKS {
        let processes = standing_in(data);
        if processes.is_empty() && release_shared_memory(data) {
            return;
        }
        for pid in processes.into_iter().filter_map(Pid::from_raw) {
            kill_process(pid, Signal::KILL).unwrap_or(());
        }
        std::thread::park_timeout(BETWEEN_LOOKS);
    }
}

fn standing_in(data: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let server = |pid: &i32| {
        let link = |name| fs::read_link(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let exe = link("exe").file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ours = exe == "postgres" || exe == "etcd" || exe.starts_with("redis-");
        link("cwd") == data && ours
    };
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(server).collect()
}
