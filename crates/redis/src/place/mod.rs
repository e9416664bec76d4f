//! Where a server is that moves: asked of sentinels, or of any node of a cluster, each time one is wanted.
//!
//! In: an address that names several servers and what to find through them. Out: the options of one server, which has
//! said itself that it is in the role that was wanted, and what was told about it. Nothing is remembered between two
//! questions: after a failover the next one gives the next server.

mod address;
mod cluster;
mod error;
mod found;
mod sentinel;

pub use address::Target;
pub use cluster::{SLOTS, Shard, SlotRange};
pub use error::PlaceError;
pub use found::{Found, Role};

use found::is_in_role;
