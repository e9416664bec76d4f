//! Redis servers: a dump over the replication protocol, the stream of commands after it, and both restored to a directory
//! that a server starts on.
//!
//! In: the address of a primary or a replica and a user that may replicate, or the folder of a server beside us. Out: a
//! capture that touches no disk of the server, and checks of what a throwaway server makes of the restored directory. Invariant: the production server is
//! only read; nothing of a key or a value is ever shown.

mod adapter;
mod beside;
mod canaries;
mod capture;
mod checks;
mod commands;
mod duties;
mod error;
mod facts;
mod feed;
mod layout;
mod load;
mod replay;
mod restore;
mod select;
mod shards;

pub use adapter::{RedisAdapter, RedisOptions};
pub use beside::{RedisFilesAdapter, RedisFilesOptions};
pub use duties::{Upkeep, Variables};
