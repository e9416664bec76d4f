//! The whole loop on generated stores, told step by step: every number printed was measured in this run.

mod carts;
mod damage;
mod data;
mod flags;
mod ledger;
mod story;

use std::path::Path;

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_engine::EngineError;

use crate::commands::Outcome;
use crate::output::Output;

/// Marks a folder that a demo made and the next one may replace.
const MARKER: &str = ".lifeboat-demo";

/// Runs the demo in `dir` and leaves everything there.
pub(crate) fn run(dir: &Path, output: &Output) -> Outcome {
    prepare(dir)?;
    let dir = dir.canonicalize().map_err(|error| Failure::io("failed to find the demo folder", error))?;
    story::tell(&dir, output)
}

/// An empty folder with the marker in it. Anything that is not a demo is left alone.
fn prepare(dir: &Path) -> Result<(), EngineError> {
    let fail = |error| Failure::io(format!("failed to prepare {}", dir.display()), error);
    if dir.join(MARKER).is_file() {
        crashsafe::remove_tree(dir).map_err(fail)?;
    } else if dir.exists() && std::fs::read_dir(dir).map_err(fail)?.next().is_some() {
        return Err(EngineError::new(
            FailureKind::Refused,
            format!("{} is not empty and was not made by a demo: nothing was changed", dir.display()),
        )
        .next("name another folder with --dir"));
    }
    crashsafe::create_dir_all(dir)
        .and_then(|()| crashsafe::replace(&dir.join(MARKER), b"made by lifeboat demo\n"))
        .map_err(fail)?;
    Ok(())
}
