//! The contract with stores whose content may lie in several places, and may be restored over what is there.
//!
//! In: what was captured, and a folder. Out: what the folder holds and who works in it. The caller decides and moves.

use std::path::{Path, PathBuf};

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::Failure;
use lifeboat_base::path::RelPath;

/// A part of the content that comes to lie in a folder of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it stands in the content.
    pub inside: RelPath,
    /// Where it comes to lie; the content then holds an absolute link to it.
    pub folder: PathBuf,
}

/// What a folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// An earlier or later state of the store that was captured.
    Same,
    /// Something else, in words.
    Other(String),
}

/// A kind of store that can be restored in place.
pub trait InPlace: Send + Sync {
    /// The name at the top of the content without which nothing opens it.
    fn keystone(&self) -> &'static str;

    /// The places the adapter was told to use, for this point. `Refused` if it has no such parts, with those it has.
    fn places(&self, facts: &CaptureFacts) -> Result<Vec<Place>, Failure>;

    /// What `folder` holds, compared with what was captured.
    fn standing(&self, facts: &CaptureFacts, folder: &Path) -> Result<Standing, Failure>;

    /// Where parts of the content in `folder` lie that links lead out of it to.
    fn outside(&self, folder: &Path) -> Result<Vec<Place>, Failure>;

    /// Whether nothing lies in `folder` but what a part of the content may hold: only then may it be taken for one.
    fn is_part(&self, folder: &Path) -> bool;
}

/// Why nothing may be changed in `folder`: a server works in it, as far as can be seen from here.
pub fn in_use(folder: &Path) -> Option<String> {
    lifeboat_postgres::server::in_use(folder)
}
