//! The write-ahead log of servers 13 to 18: what recovery needs to find in it, and whether bytes are what they claim.
//!
//! In: segments or a replication stream, in pieces of any length; timeline history files. Out: commits, restore points,
//! checkpoints and the like with their positions ([`Event`]), or the first position that recovery could not pass
//! ([`WalError`]). Every record is checked against its checksum and its predecessor, every page header against its
//! place. Memory does not grow with the log or with the length of a record.

mod body;
mod error;
mod event;
mod history;
mod page;
mod pages;
mod record;
mod records;
mod scanner;
mod segment;

pub use error::{PageFault, WalError};
pub use event::{Event, WalLevel};
pub use history::{
    Fork, HistoryError, Span, TimelineHistory, history_name, newest_timeline, parse_history_name,
};
pub use page::WalShape;
pub use scanner::Scanner;
pub use segment::{SegmentFacts, SegmentScan, check_segment};
