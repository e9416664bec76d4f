//! Runs an adapter's own checks on a good sample and on damaged ones, and says which damage was caught.
//!
//! In: an adapter over a small sample, its recording, and a list of ways to damage the restored sample or the
//! recording. Out: one result per damage. The check code is the adapter's own, not a copy.

use std::io;
use std::path::Path;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;

use crate::adapter::{Adapter, CanaryResult, CheckState};
use crate::recording::Recording;

/// One way to damage a sample and the family of checks that has to notice.
pub(crate) struct Canary {
    pub(crate) check: &'static str,
    pub(crate) damage: &'static str,
    /// Changes the restored sample in a directory, or what the recovery point says about it.
    pub(crate) apply: fn(&Path, &mut Recording) -> io::Result<()>,
}

/// Restores the sample once per canary. The good sample is checked first: a check that fails there is no check.
pub(crate) fn run(
    adapter: &dyn Adapter,
    recording: &Recording,
    canaries: &[Canary],
    scratch: &Path,
) -> Result<Vec<CanaryResult>, Failure> {
    let good = states(adapter, recording, &|_, _| Ok(()), scratch)?;
    let mut results = Vec::with_capacity(canaries.len());
    for canary in canaries {
        let bad = states(adapter, recording, &canary.apply, scratch)?;
        let of = |all: &[(String, CheckState)], wanted: CheckState, every: bool| {
            let mut family =
                all.iter().filter(|(id, _)| id == canary.check).map(|(_, state)| *state).peekable();
            family.peek().is_some()
                && if every {
                    family.all(|state| state == wanted)
                } else {
                    family.any(|state| state == wanted)
                }
        };
        results.push(CanaryResult {
            check: canary.check.to_owned(),
            damage: canary.damage.to_owned(),
            caught: of(&good, CheckState::Passed, true) && of(&bad, CheckState::Failed, false),
        });
    }
    Ok(results)
}

type Damage<'a> = &'a dyn Fn(&Path, &mut Recording) -> io::Result<()>;

fn states(
    adapter: &dyn Adapter,
    recording: &Recording,
    damage: Damage<'_>,
    scratch: &Path,
) -> Result<Vec<(String, CheckState)>, Failure> {
    let dir = tempfile::tempdir_in(scratch)
        .map_err(|error| Failure::io("failed to make a directory for a canary", error))?;
    let monitor = Findings::new();
    let mut recording = recording.clone();
    adapter.restore(&recording, recording.facts(), dir.path(), &monitor)?;
    damage(dir.path(), &mut recording).map_err(|error| {
        Failure::with_source(FailureKind::Internal, "failed to damage the sample of a canary", error)
    })?;
    let results = adapter.checks(&recording, recording.facts(), dir.path(), &monitor)?;
    Ok(results.into_iter().map(|result| (result.family().to_owned(), result.state)).collect())
}
