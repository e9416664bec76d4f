//! Kind `files`: a directory tree, captured entry by entry and compared with its inventory after a restore.

mod adapter;
mod apply;
mod canaries;
mod capture;
mod checks;
mod descent;
mod exclude;
mod inventory;
mod node;
mod notes;
mod reader;
mod recheck;
mod restore;
mod select;
mod walk;

pub use adapter::{FilesAdapter, FilesOptions};
pub(crate) use apply::apply_meta;
pub(crate) use canaries::run as run_canaries;
pub(crate) use checks::check_tree;
pub(crate) use restore::restore_tree;
pub(crate) use walk::{Found, Step, Trouble, WalkOptions, Walker};
