//! Where a drill restores to: a place that shares nothing with production and is gone afterwards.
//!
//! A drill knows its place by these two traits alone. [`Local`] makes folders of this machine, for servers that run here; a
//! namespace of a cluster, a container or a given address would be further ones.

use std::path::{Path, PathBuf};

use lifeboat_base::apart::servers;
use lifeboat_base::ids::DrillId;
use lifeboat_base::monitor::Finding;

use crate::sandbox::{Sandbox, SandboxError};

/// What of an earlier drill is still there.
pub(crate) const LEFTOVER: &str = "drill.leftover";

/// A kind of place.
pub trait Target: Sync {
    /// The word of the policy and of reports.
    fn word(&self) -> &'static str;

    /// Makes a place for one drill, after removing what dead ones left. An error means that there is none.
    fn provision(&self, id: &DrillId) -> Result<Box<dyn Isolated>, SandboxError>;

    /// Whether servers that run there reach nothing but each other's own.
    fn is_alone(&self) -> bool;
}

/// The place of one drill. Dropping it removes as much of it as can be.
pub trait Isolated: Sync {
    /// Where everything below it stands.
    fn root(&self) -> &Path;

    /// A new empty folder of this name.
    fn folder(&self, name: &str) -> Result<PathBuf, SandboxError>;

    /// What earlier drills left that could not be removed.
    fn leftovers(&self) -> Vec<Finding>;

    /// Removes everything; an error means that something is left, which the next drill removes.
    fn teardown(self: Box<Self>) -> Result<(), SandboxError>;
}

/// Folders below one of this machine.
#[derive(Debug)]
pub struct Local {
    root: PathBuf,
}

impl Local {
    /// Makes places below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

impl Target for Local {
    fn word(&self) -> &'static str {
        "local"
    }

    fn provision(&self, id: &DrillId) -> Result<Box<dyn Isolated>, SandboxError> {
        Ok(Box::new(Sandbox::create(&self.root, id)?))
    }

    fn is_alone(&self) -> bool {
        servers().are_alone()
    }
}

impl Isolated for Sandbox {
    fn root(&self) -> &Path {
        self.dir()
    }

    fn folder(&self, name: &str) -> Result<PathBuf, SandboxError> {
        Self::folder(self, name)
    }

    fn leftovers(&self) -> Vec<Finding> {
        self.swept().findings(LEFTOVER)
    }

    fn teardown(self: Box<Self>) -> Result<(), SandboxError> {
        Self::teardown(*self)
    }
}
