//! Continuous logs: kept while they are written, shown as ranges of time, replayed after a restore.
//!
//! What arrives is durable in a spool of the state folder before the store is told so, and goes from there to every copy.

mod follow;
mod head;
mod plan;
mod ranges;
mod source;
mod spool;

pub use follow::{FollowOptions, FollowReport};
pub(crate) use head::Head;
pub(crate) use plan::Replay;
pub(crate) use ranges::{Reach, position};
