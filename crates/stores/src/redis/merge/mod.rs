//! Keys into a running server with plain commands: some or all of them, under the same or other names, beside what is there.
//!
//! In: a restored directory, whichever way it was captured, and a [`Link`](lifeboat_redis::scan::Link). Out: every key whole
//! or not at all, and every one read back. A second run after one that was killed ends with the same content.

mod compare;
mod run;
mod write;

pub(super) use run::{merge, ready};
