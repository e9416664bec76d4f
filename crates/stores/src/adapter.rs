//! The contract between the engine and every kind of store.
//!
//! In: options of one store. Out: a capture to store, a restored store to open, and check results to believe.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::{Capture, CaptureFacts, MaterializeStats, RestoreSource};
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Clock;
use serde::{Deserialize, Serialize};

use crate::continuous::Continuous;
use crate::duties::Duties;
use crate::inplace::InPlace;
use crate::load::Loader;
use crate::meaning::Probes;
use crate::parts::Parts;
use crate::select::Select;
use crate::serve::Serve;

/// Gives the address of a server, with everything a connection needs; an account that may replicate is enough.
pub type Address = Arc<dyn Fn() -> Result<Secret<String>, Failure> + Send + Sync>;

/// What an adapter can say about a store without reading its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The engine and its version.
    pub version: String,
    /// The size of the content in bytes, where it is cheap to know.
    pub logical_bytes: Option<u64>,
    /// What is inside, such as `files` or `tables`, with its number.
    pub items: Vec<(String, u64)>,
    /// What would make a capture incomplete, found without making one.
    pub findings: Vec<Finding>,
    /// What it has of something larger that needs several rows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub share: Option<Share>,
}

/// A part of something that several rows keep together, such as a shard of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Who makes up the whole: shares that have one of these in common are of the same whole.
    pub members: Vec<String>,
    /// What this part has, as numbers from the first to the last.
    pub ranges: Vec<(u32, u32)>,
    /// Numbers below this one must all be had by someone.
    pub all: u32,
}

/// What a capture needs from its caller.
pub struct CaptureContext<'a> {
    /// Where time comes from.
    pub clock: &'a dyn Clock,
    /// An existing directory for scratch data. Scratch files have no name: a killed process leaves nothing there.
    pub spool: &'a Path,
    /// A file of this store alone, in a folder that exists, which a capture may leave for the next one when it is killed; nobody else
    /// writes there meanwhile. Nothing where nothing is to be kept.
    pub kept: Option<&'a Path>,
    /// What the store was known as before, such as a system identifier: another store is refused. Empty if nothing is
    /// known, or for a kind without an identity.
    pub known: &'a [String],
}

impl fmt::Debug for CaptureContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureContext").field("spool", &self.spool).finish_non_exhaustive()
    }
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// What was written.
    pub stats: MaterializeStats,
    /// What a user opens: the tree, or the database file.
    pub artefact: PathBuf,
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    /// What was measured is what was expected.
    Passed,
    /// It is not.
    Failed,
    /// It could not be measured here, or there is nothing to measure; it proves nothing.
    NotApplicable,
}

/// One check of a restored store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// A stable id; what follows the first `/` names the table or statement.
    pub id: String,
    /// The outcome.
    pub state: CheckState,
    /// What was found.
    pub measured: String,
    /// What should have been found.
    pub expected: String,
    /// The first differences, or the reason for `NotApplicable`.
    pub detail: Vec<String>,
    /// All differences, also those not in `detail`.
    pub differences: u64,
}

impl CheckResult {
    /// The part of the id that names the kind of check, before the first `/`.
    pub fn family(&self) -> &str {
        self.id.split('/').next().unwrap_or_default()
    }
}

/// Whether a check told a good sample from a damaged one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryResult {
    /// The family of check ids under test, such as `files.content`.
    pub check: String,
    /// What was done to the sample.
    pub damage: String,
    /// True only if the check passed on the good sample and failed on the damaged one.
    pub caught: bool,
}

/// One store of one kind.
pub trait Adapter: Send + Sync {
    /// The policy's word for this kind of store.
    fn kind(&self) -> &'static str;

    /// Reads what is cheap to know. `Unreachable` if the store is missing or is not what its kind says.
    fn inspect(&self) -> Result<Inspection, Failure>;

    /// Starts a capture. Nothing is written to the store; dropping the capture releases whatever it holds.
    fn capture(&self, at: &CaptureContext<'_>) -> Result<Box<dyn Capture>, Failure>;

    /// Restores a recovery point into the existing directory `into`, which is empty unless the kind can be restored
    /// [in place](Adapter::in_place).
    ///
    /// On failure what was written stays where it is and the caller removes it: `into` is a staging directory.
    fn restore(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<RestoreReport, Failure>;

    /// What [`Adapter::restore`] left in `restored` is about to be moved to `target`: the last chance to point to where it
    /// will lie.
    fn settle(&self, restored: &Path, target: &Path) -> Result<(), Failure> {
        // Most content does not know where it lies.
        let (_restored, _target) = (restored, target);
        Ok(())
    }

    /// Families of checks without which a drill proves nothing: where one of them cannot be applied, the drill fails.
    fn essential(&self) -> &'static [&'static str] {
        &[]
    }

    /// The store's continuous log, if its kind has one.
    fn continuous(&self) -> Option<&dyn Continuous> {
        None
    }

    /// What tells the store a point was taken of from every other, for a kind that has such a thing.
    fn identity(&self, facts: &CaptureFacts) -> Option<String> {
        self.continuous().and_then(|store| store.identity(facts))
    }

    /// What a point has of something larger that needs several rows.
    fn share(&self, _facts: &CaptureFacts) -> Option<Share> {
        // Most stores are whole.
        None
    }

    /// The store's parts that can be taken out alone, if its kind has any.
    fn parts(&self) -> Option<&dyn Parts> {
        None
    }

    /// Ends what a process of ours that died left running for stores of this kind, on behalf of any store. Called before
    /// scratch folders of dead processes are removed.
    fn sweep(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// What is owed for the store where it is not retained, if its kind knows.
    fn duties(&self) -> Option<&dyn Duties> {
        None
    }

    /// How the kind is restored into a running server; nothing if it is not.
    fn loader(&self) -> Option<&dyn Loader> {
        None
    }

    /// How a restored store of the kind is asked what it means; nothing if it cannot be.
    fn probes(&self) -> Option<&dyn Probes> {
        None
    }

    /// How a restored store of the kind is asked what it holds; nothing if it cannot be.
    fn selects(&self) -> Option<&dyn Select> {
        None
    }

    /// How a restored store of the kind is lent to an application; nothing if it cannot be.
    fn serves(&self) -> Option<&dyn Serve> {
        None
    }

    /// How the kind is restored over what is there, and into several places; nothing if it is not.
    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    /// Compares what [`Adapter::restore`] left in the directory `restored` with what was captured, in both
    /// directions: missing, extra and changed. A check that cannot run is `NotApplicable`, never `Passed`.
    fn checks(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure>;

    /// Runs the same check code on a small generated sample, good and damaged, inside the directory `scratch`.
    /// Every family of check ids has at least one canary. Takes a few seconds at most.
    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure>;
}
