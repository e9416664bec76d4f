//! Continuous logs: kept while they are written, shown as ranges of time, replayed after a restore.
//!
//! What arrives is durable in a spool of the state folder before the store is told so, and goes from there to every copy.

mod ahead;
mod fetch;
mod follow;
mod head;
mod histories;
mod keepers;
mod marks;
mod numbers;
mod plan;
mod proof;
mod push;
mod ranges;
mod ship;
mod source;
mod sources;
mod spool;
mod troubles;

pub use fetch::{FetchOptions, FetchReport};
pub(crate) use follow::stream_name;
pub use follow::{FollowOptions, FollowReport};
pub(crate) use head::Head;
pub(crate) use marks::{Marks, Way};
pub(crate) use numbers::Histories;
pub(crate) use plan::{Replay, Told};
pub(crate) use proof::Between;
pub use push::{Kept, PushOptions, PushReport};
pub(crate) use ranges::{Reach, position};
pub(crate) use sources::holes;
