//! The contract with stores that are not retained: what is owed for them all the same.
//!
//! In: the running store, and how it is made again after a loss. Out: whether something in it looks as if it were meant to
//! last, and whether making it again works and may be done twice.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::{Finding, Monitor};

use crate::adapter::{CanaryResult, CheckResult, Inspection};

/// What a look at the running store found.
#[derive(Clone, Debug)]
pub struct Look {
    /// Numbers by name, such as `keys`.
    pub numbers: BTreeMap<String, u64>,
    /// Whether everything was looked at that had to be.
    pub complete: bool,
    /// What looks as if it were meant to last. Names of things in the store may stand in it.
    pub findings: Vec<Finding>,
}

/// What making the store again in a sandbox came to.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// Every check.
    pub checks: Vec<CheckResult>,
    /// How long it took the first time, in seconds; nothing if it failed.
    pub seconds: Option<f64>,
}

/// A store with duties.
pub trait Duties: Send + Sync {
    /// Whether the running store is there and lets us look, which is cheap.
    fn reach(&self) -> Result<Inspection, Failure>;

    /// Looks at the running store. Reads only, and is bounded in time and memory.
    fn look(&self, monitor: &dyn Monitor) -> Result<Look, Failure>;

    /// Whether the row says how the store is made again.
    fn is_rebuildable(&self) -> bool;

    /// Makes the store again in a sandbox inside `scratch`, and once more on top: never touches the running one.
    fn rebuild(&self, scratch: &Path, monitor: &dyn Monitor) -> Result<Rebuilt, Failure>;

    /// Runs the checks of [`Duties::rebuild`] on samples that are made again well and badly.
    fn rebuild_canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure>;
}
