//! Lends a restored etcd to an application: a throwaway member on a copy of the data directory.

use std::path::{Path, PathBuf};

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::Clock;
use lifeboat_etcd::Wait;

use super::error::etcd;
use super::restore::programs_for;
use super::running::{START_LIMIT, on_a_copy};

/// How a member that serves is asked for: what was captured, and folders with programs.
pub(crate) type Told<'a> = (&'a CaptureFacts, &'a [PathBuf]);

/// Starts it, works, and ends it. It asks nobody for a password.
pub(crate) fn serve(
    (facts, programs): Told<'_>,
    directory: &Path,
    (clock, monitor): (&dyn Clock, &dyn Monitor),
    work: &mut dyn FnMut(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    const WHAT: &str = "the restored etcd cannot be run on this machine";
    let installed = programs_for(facts, programs).map_err(etcd(WHAT))?;
    let cancelled = || monitor.cancelled();
    let wait = Wait { limit: START_LIMIT, clock, cancelled: &cancelled };
    let beside = directory.parent().unwrap_or(directory);
    let (_scratch, member) = on_a_copy(directory, beside, &installed, wait)?;
    let member = member.map_err(etcd(WHAT))?;
    work(&member.socket())
}
