//! The contract with stores that are restored into a running server.
//!
//! In: a restored directory whose checks have passed, and the address of a server. Out: the server holds what the directory
//! holds, compared after it was loaded. A server cannot take it whole or not at all: what is there after a failure is said.

use std::path::Path;

use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::secret::Secret;

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// A store that is loaded into a running server.
pub trait Loader: Send + Sync {
    /// `Refused` unless the server may be filled: it must be empty, unless `force` says that what is in it may go.
    fn ready(&self, address: &Secret<String>, force: bool) -> Result<(), Failure>;

    /// Fills the server with what is in `restored`, and compares. `Findings` if it holds something else then.
    fn load(
        &self,
        restored: &Path,
        address: &Secret<String>,
        force: bool,
        monitor: &dyn Monitor,
    ) -> Result<Loaded, Failure>;
}
