//! The contract with kinds that an application can use once they are restored.
//!
//! In: a restored store that passed its checks. Out: the place where an application finds it, for as long as its caller
//! works; a server of the kind runs meanwhile, where it needs one, reachable through a file only.

use std::path::Path;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;

/// A kind that can be lent to an application.
pub trait Serve: Send + Sync {
    /// How an application is told of a store of the kind that is found at the file or folder `at`.
    fn address(&self, facts: &CaptureFacts, at: &Path) -> String;

    /// Makes what [`restore`](crate::Adapter::restore) left at `artefact` usable while `work` runs, which is told where it
    /// is found. What an application writes is its own affair: nothing is compared afterwards.
    fn serve(
        &self,
        facts: &CaptureFacts,
        artefact: &Path,
        monitor: &dyn Monitor,
        work: &mut dyn FnMut(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure>;
}

/// The address of what is opened by its path.
pub(crate) fn path(at: &Path) -> String {
    at.to_string_lossy().into_owned()
}

/// A part of an address, in the form that stands for itself wherever it is put.
pub(crate) fn encoded(text: &str) -> String {
    let mut all = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            all.push(char::from(byte));
        } else {
            all.push('%');
            for digit in [byte >> 4, byte & 15] {
                all.extend(char::from_digit(u32::from(digit), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
    all
}
