//! Reports as people read them: one page each, the worst first, the next command at the end.

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod drill;
pub(crate) mod holds;
pub(crate) mod inventory;
pub(crate) mod jobs;
pub(crate) mod points;
pub(crate) mod probe;
pub(crate) mod retain;
pub(crate) mod shred;
pub(crate) mod status;
mod text;

pub(crate) use text::{Page, plural};
