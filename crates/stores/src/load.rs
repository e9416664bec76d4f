//! The contract with stores that are restored into a running server.
//!
//! In: a restored directory whose checks have passed, and the address of a server. Out: the server holds what the directory
//! holds, compared after it was loaded. A server cannot take it whole or not at all: what is there after a failure is said.

use std::path::Path;

use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::secret::Secret;

/// What becomes of things that are there already with other content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflict {
    /// Nothing is changed at all.
    #[default]
    Fail,
    /// They stay as they are.
    Skip,
    /// They are replaced.
    Replace,
}

/// Some things, beside what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeOptions {
    /// Only names that begin like this; all if it is empty.
    pub prefix: String,
    /// Only names that begin with the first, and then with the second in its place.
    pub rename: Option<(String, String)>,
    /// What becomes of what is there already.
    pub conflict: Conflict,
}

/// How a server is filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// What is in the server may go.
    pub force: bool,
    /// Beside what is there, in place of everything into an empty server.
    pub merge: Option<MergeOptions>,
}

/// What was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The server, for people.
    pub server: String,
    /// Things that were loaded, such as keys.
    pub items: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Things whose time was over, and which were left out.
    pub passed: u64,
    /// Things that were found again as they are in the directory; the rest ends too soon to be compared.
    pub compared: u64,
    /// Things that were there with the same content.
    pub unchanged: u64,
    /// Things that were there with other content, and stayed.
    pub skipped: u64,
    /// Things of those that were loaded that replaced others.
    pub replaced: u64,
}

/// A store that is loaded into a running server.
pub trait Loader: Send + Sync {
    /// `Refused` unless the server may be filled: it must be empty, unless `force` says that what is in it may go, or it is
    /// merged into.
    fn ready(&self, address: &Secret<String>, options: &LoadOptions) -> Result<(), Failure>;

    /// Fills the server with what is in `restored`, and compares. `Findings` if it holds something else then.
    fn load(
        &self,
        restored: &Path,
        address: &Secret<String>,
        options: &LoadOptions,
        monitor: &dyn Monitor,
    ) -> Result<Loaded, Failure>;
}
