//! Services that neither replicate nor hand out dumps: read key by key with plain commands, kept as lines of text.
//!
//! In: a [`Link`](lifeboat_redis::scan::Link), and how its server was found. Out: `data/keys.jsonl`, documented in docs/format.md, and from it the same
//! directory that the other ways of capturing restore to. Consistency is `fuzzy`, and how much so is measured.

mod capture;
mod lines;
mod parse;
mod passes;
mod restore;
mod trail;

pub(super) use capture::{Reach, inspect, start};
pub use passes::ScanOptions;
pub(super) use restore::restore;
