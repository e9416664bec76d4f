//! Throwaway servers: they start, they keep to themselves, and they leave nothing behind.

mod isolation;
mod lifetime;
mod orphans;

use std::fs;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::time::SystemClock;
use lifeboat_postgres::server::{Sandbox, SandboxOptions, ServerError, Wait, run_tool};
use lifeboat_testkit::PgServer;

const LIMIT: Duration = Duration::from_secs(120);

/// A base backup of `server` without the files that say how to recover, as a restore leaves it: where we are root, it
/// belongs to root.
fn restored(server: &PgServer, name: &str) -> PathBuf {
    let data = server.dir(name);
    server.run("pg_basebackup", &["-D", &data.to_string_lossy(), "-X", "stream", "-c", "fast", "--no-sync"]);
    if is_root() {
        give_to_root(&data);
    }
    data
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

fn give_to_root(path: &Path) {
    lchown(path, Some(0), Some(0)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_to_root(&entry.unwrap().path());
        }
    }
}

fn start(server: &PgServer, data: &Path, options: &SandboxOptions) -> Result<Sandbox, ServerError> {
    start_within(server, data, options, LIMIT)
}

fn start_within(
    server: &PgServer,
    data: &Path,
    options: &SandboxOptions,
    limit: Duration,
) -> Result<Sandbox, ServerError> {
    let clock = SystemClock::new();
    Sandbox::start(server.installation(), data, options, &OsEntropy, Wait::for_at_most(limit, &clock))
}

/// Options with a runtime folder of the test's own, so that tests do not sweep each other. No test cuts the power.
fn options(runtime: &tempfile::TempDir) -> SandboxOptions {
    SandboxOptions {
        runtime: Some(runtime.path().to_owned()),
        settings: vec![("fsync".to_owned(), "off".to_owned())],
        ..SandboxOptions::default()
    }
}

/// A short folder that every account may pass through.
fn runtime() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("lb-rt-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    dir
}

fn psql(sandbox: &Sandbox, sql: &str) -> String {
    let mut command = sandbox.program("psql");
    command.args(["-X", "-A", "-t", "-q", "-U", "postgres", "-d", "postgres", "-c", sql]);
    let output = run_tool(command, LIMIT, &SystemClock::new()).unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Processes whose working folder is `data`.
fn processes_in(data: &Path) -> Vec<PathBuf> {
    fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|process| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == data))
        .collect()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}
