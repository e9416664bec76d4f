//! Reads a server with plain commands, for services that neither replicate nor hand out dumps.
//!
//! In: a [`Link`] to a server. Out: keys in parts ([`Sink`]), their digests as a reader of dumps finds them, and what was seen
//! to change. Everything asked is a read that may be repeated. A walk with `SCAN` shows no single moment.

mod answers;
mod key;
mod known;
mod link;
mod pace;
mod probe;
mod stream;
mod value;
mod walk;

pub(crate) use answers::{command, good, single};
pub use key::{Outcome, Read, ReadError, read_page};
pub use known::{Known, MAX_KEYS, Seen};
pub(crate) use link::name;
pub use link::{Command, Link, RespLink};
pub use pace::{Pace, Patience};
pub use probe::Abilities;
pub use value::{Closed, Entry, Group, Head, Id, KeySum, Nowhere, Pair, Part, Pending, Sink, StreamHead};
pub use walk::{MAX_RESTARTS, Scope, Walk};
