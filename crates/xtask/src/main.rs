//! Checks of this repository: `cargo xtask tidy | ci | bench`.
//!
//! In: the command's name. Out: findings and times on standard output, and the exit code of the `lifeboat` contract.

mod bench;
mod ci;
mod command;
mod say;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lifeboat_base::failure::{Failure, FailureKind};

use crate::command::Task;
use crate::say::say;

const USAGE: &str = "usage: cargo xtask COMMAND

  tidy               check what the compiler and clippy cannot: crate edges, module docs, sizes, secrets, pages
  ci                 everything CI does, in its order: fmt, clippy, deny, tidy, doc, test, build, demo
  bench [MIB [RUNS]] back up and restore generated data with lifeboat and with restic; default 512 MiB, 3 runs";

/// The root of the repository we stand in. Not the one this program was built from: a target folder may be shared
/// between clones, and then the path in the program is another clone's.
fn repository() -> Result<PathBuf, Failure> {
    let root = Task::new("git rev-parse --show-toplevel").output(Path::new("."))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&root).trim_end()))
}

fn number(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|error| {
        Failure::with_source(FailureKind::Usage, format!("failed to read `{text}` as a number"), error)
    })
}

fn dispatch(words: &[&str]) -> Result<(), Failure> {
    let root = repository()?;
    match words {
        ["tidy"] => tidy::report(&root),
        ["ci"] => ci::run(&root),
        ["bench"] => bench::run(&root, bench::DEFAULT_DATA_MIB, bench::DEFAULT_RUNS_COUNT),
        ["bench", mib] => bench::run(&root, number(mib)?, bench::DEFAULT_RUNS_COUNT),
        ["bench", mib, runs] => bench::run(&root, number(mib)?, number(runs)?),
        _ => Err(Failure::new(FailureKind::Usage, USAGE)),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("xtask: {}", failure.chain()));
            ExitCode::from(failure.kind().exit_code())
        }
    }
}
