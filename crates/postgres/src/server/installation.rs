//! Finds installed server programs. What a folder is called is never believed: the program itself is asked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_base::failure::chain;
use lifeboat_base::time::SystemClock;

use super::error::ServerError;
use super::tool::run_tool;

/// How long a program may take to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// How many folders are looked at before the rest is left out.
const MAX_FOLDERS: usize = 256;

/// Folders of packages: a parent and the prefix its entries must have, then what follows.
const PACKAGES: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/usr/local", "pgsql", "bin"),
];

/// The programs of one PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The major version, such as 15.
    pub major: u32,
    /// The whole version as the program tells it, such as `15.18` or `18beta1`.
    pub version: String,
    /// The folder with `postgres`, `initdb` and the rest, without links.
    pub bin: PathBuf,
}

impl Installation {
    /// The path of one of its programs, which need not exist.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Makes sure that a program such as `pg_dump`, which some packages keep apart from the server, is there, runs and is
    /// of the same major version.
    pub fn check_program(&self, name: &str) -> Result<(), ServerError> {
        let why = match ask_version(&self.bin, name) {
            Ok((major, _)) if major == self.major => return Ok(()),
            Ok((_, version)) => format!("it is of version {version}"),
            Err(why) => why,
        };
        Err(ServerError::NoProgram { program: self.program(name), major: self.major, why })
    }
}

/// Every server installed where the common packages put it, and in the folders `extra` (such as those of `$PATH`),
/// newest first. Starts one short-lived process per candidate; folders whose program does not run are left out.
pub fn installations(extra: &[PathBuf]) -> Vec<Installation> {
    let mut found: Vec<_> = candidates(extra).iter().filter_map(|bin| probe(bin).ok()).collect();
    found.sort_by_key(|found| std::cmp::Reverse((found.major, minor(&found.version))));
    found
}

/// The newest installed server of this major version.
pub fn installation(major: u32, extra: &[PathBuf]) -> Result<Installation, ServerError> {
    let mut looked = Vec::new();
    let mut best: Option<Installation> = None;
    for bin in candidates(extra) {
        match probe(&bin) {
            Ok(found) if found.major == major => {
                if best.as_ref().is_none_or(|best| minor(&best.version) < minor(&found.version)) {
                    best = Some(found);
                }
            }
            Ok(found) => looked.push(format!("{} ({})", bin.display(), found.version)),
            Err(why) => looked.push(format!("{} ({why})", bin.display())),
        }
    }
    if looked.is_empty() {
        looked = PACKAGES.iter().map(|(parent, prefix, tail)| format!("{parent}/{prefix}*/{tail}")).collect();
    }
    best.ok_or_else(|| ServerError::NotInstalled { major, looked: looked.join(", ") })
}

/// Folders that hold something called `postgres`, each once.
fn candidates(extra: &[PathBuf]) -> Vec<PathBuf> {
    let packaged = PACKAGES.iter().flat_map(|(parent, prefix, tail)| {
        let mut folders: Vec<_> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join(tail))
            .collect();
        folders.sort();
        folders
    });
    let mut seen = BTreeSet::new();
    packaged
        .chain(extra.iter().cloned())
        .filter_map(|folder| fs::canonicalize(folder.join("postgres")).ok())
        .filter_map(|program| program.parent().map(Path::to_owned))
        .filter(|folder| seen.insert(folder.clone()))
        .take(MAX_FOLDERS)
        .collect()
}

/// Asks the program in `bin` what it is.
fn probe(bin: &Path) -> Result<Installation, String> {
    let (major, version) = ask_version(bin, "postgres")?;
    Ok(Installation { major, version, bin: bin.to_owned() })
}

fn ask_version(bin: &Path, name: &str) -> Result<(u32, String), String> {
    let mut command = Command::new(bin.join(name));
    command.arg("--version").env_clear().env("LC_ALL", "C").current_dir("/");
    let output = run_tool(command, VERSION_LIMIT, &SystemClock::new()).map_err(|error| chain(&error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(name, &text).ok_or_else(|| "its answer to --version is not PostgreSQL's".to_owned())
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, the answer of the program `name`.
fn parse_version(name: &str, text: &str) -> Option<(u32, String)> {
    let rest = text.strip_prefix(name)?.strip_prefix(" (PostgreSQL) ")?;
    let version = rest.split_whitespace().next()?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    let plain =
        version.len() <= 32 && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    plain.then_some((digits.parse().ok()?, version.to_owned()))
}

/// The minor version for comparison; a beta or a development build counts as older than `.0`.
fn minor(version: &str) -> Option<u32> {
    version.split_once('.').and_then(|(_, minor)| minor.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_programs_own_answer() {
        for (text, major, version) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 15, "15.18"),
            ("postgres (PostgreSQL) 16.14\n", 16, "16.14"),
            ("postgres (PostgreSQL) 18beta1\n", 18, "18beta1"),
            ("postgres (PostgreSQL) 19devel\n", 19, "19devel"),
        ] {
            assert_eq!(parse_version("postgres", text), Some((major, version.to_owned())), "{text}");
        }
        for text in
            ["", "postgres", "postgres (Other) 15.1", "postgres (PostgreSQL) x", "psql (PostgreSQL) 15.1"]
        {
            assert_eq!(parse_version("postgres", text), None, "{text}");
        }
        assert!(minor("15.18") > minor("15.9"));
        assert!(minor("18beta1") < minor("18.0"));
    }
}
