//! Finds installed programs of etcd. What a folder is called is never believed: the program itself is asked.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_base::failure::chain;
use lifeboat_base::outside::{Run, run};
use lifeboat_base::time::SystemClock;

use crate::error::EtcdError;

/// How long a program may take to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// Folders where packages and people put it.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/opt/etcd", "/opt/homebrew/bin"];
/// How many folders are looked at before the rest is left out.
const MAX_FOLDERS: usize = 256;

/// A version of etcd; data of one minor version can be read by the same and the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3.
    pub major: u32,
    /// Such as 4.
    pub minor: u32,
    /// Such as 23.
    pub patch: u32,
}

impl Version {
    /// Reads `3.4.23`, also with something behind it, such as `3.6.0-rc.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, '.');
        let mut number = || {
            let part = parts.next()?;
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..end)?.parse().ok()
        };
        Some(Self { major: number()?, minor: number()?, patch: number().unwrap_or_default() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The programs of one etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Its version.
    pub version: Version,
    /// The server.
    pub server: PathBuf,
    /// The program that makes data directories of snapshots, if it is there: `etcdutl` since 3.5, before `etcdctl`.
    pub restorer: Option<PathBuf>,
}

/// Every etcd in the usual folders and in `extra` (such as those of `$PATH`), oldest first. Starts one short-lived process
/// per candidate; programs that do not run are left out.
pub fn installations(extra: &[PathBuf]) -> Vec<Installation> {
    let mut found: Vec<_> = candidates(extra).iter().filter_map(|folder| probe(folder).ok()).collect();
    found.sort_by_key(|found| found.version);
    found
}

/// The etcd for data of the version `wanted`: of the same minor version (the newest), else of the next. Without a wish the
/// newest of all.
pub fn installation(wanted: Option<Version>, extra: &[PathBuf]) -> Result<Installation, EtcdError> {
    let found = installations(extra);
    let best = match wanted {
        None => found.last(),
        Some(wanted) => {
            let of = |minor: u32| {
                let fits = move |found: &&Installation| {
                    (found.version.major, found.version.minor) == (wanted.major, minor)
                };
                found.iter().rev().find(fits)
            };
            of(wanted.minor).or_else(|| of(wanted.minor + 1))
        }
    };
    best.cloned().ok_or_else(|| {
        let looked: Vec<String> = candidates(extra)
            .iter()
            .map(|folder| match probe(folder) {
                Ok(found) => format!("{} ({})", folder.display(), found.version),
                Err(error) => format!("{} ({})", folder.display(), chain(&error)),
            })
            .collect();
        EtcdError::NotInstalled {
            wanted: wanted
                .map_or_else(|| "3".to_owned(), |wanted| format!("{}.{}", wanted.major, wanted.minor)),
            looked: if looked.is_empty() { FOLDERS.join(", ") } else { looked.join(", ") },
        }
    })
}

/// Folders that hold something called `etcd`, each once.
fn candidates(extra: &[PathBuf]) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    extra
        .iter()
        .cloned()
        .chain(FOLDERS.map(PathBuf::from))
        .filter_map(|folder| fs::canonicalize(folder).ok())
        .filter(|folder| folder.join("etcd").is_file() && seen.insert(folder.clone()))
        .take(MAX_FOLDERS)
        .collect()
}

fn probe(folder: &Path) -> Result<Installation, EtcdError> {
    let server = folder.join("etcd");
    let mut command = Command::new(&server);
    command.arg("--version").env_clear().current_dir("/");
    let clock = SystemClock::new();
    let told = run(command, &Run { limit: VERSION_LIMIT, clock: &clock, cancelled: &|| false })?;
    let version = told.lines().find_map(|line| line.strip_prefix("etcd Version:")).and_then(Version::parse);
    let version = version.ok_or_else(|| EtcdError::Program {
        program: "etcd".to_owned(),
        status: "ended well".to_owned(),
        message: "it does not tell a version of etcd".to_owned(),
    })?;
    let mut named = ["etcdutl", "etcdctl"].iter().map(|name| folder.join(name));
    let restorer = named.find(|program| program.is_file() && answers(program));
    // The later `etcdctl` only knows how to ask a server.
    let knows = version >= Version { major: 3, minor: 6, patch: 0 };
    let restorer = restorer.filter(|program| !(knows && program.ends_with("etcdctl")));
    Ok(Installation { version, server, restorer })
}

/// Whether a program runs at all: packages are known whose `etcdutl` does not.
fn answers(program: &Path) -> bool {
    let mut command = Command::new(program);
    command.arg("version").env_clear().env("ETCDCTL_API", "3").current_dir("/");
    let clock = SystemClock::new();
    run(command, &Run { limit: VERSION_LIMIT, clock: &clock, cancelled: &|| false }).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let version = |major, minor, patch| Some(Version { major, minor, patch });
        assert_eq!(Version::parse("3.4.23"), version(3, 4, 23));
        assert_eq!(Version::parse(" 3.6.0-rc.1"), version(3, 6, 0));
        assert_eq!(Version::parse("3.5"), version(3, 5, 0));
        assert_eq!(Version::parse("etcd"), None);
    }
}
