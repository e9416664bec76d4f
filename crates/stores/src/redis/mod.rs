//! Redis servers: a dump over the replication protocol and the stream of commands after it, their files, or their keys one
//! by one; each restored to a directory that a server starts on.
//!
//! In: the address of a primary or a replica and a user that may replicate or read, a service that is asked over REST, or
//! the folder of a server beside us. Out: a capture that touches no disk of the server, and checks of what a throwaway
//! server makes of the restored directory. Invariant: the production server is only read unless it is to be filled; no
//! value is ever shown, and a name only where it has to be known.

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
mod hosted;
mod layout;
mod load;
mod merge;
mod replay;
mod restore;
mod select;
mod shards;

pub use adapter::{RedisAdapter, RedisOptions};
pub use beside::{RedisFilesAdapter, RedisFilesOptions};
pub use duties::{Upkeep, Variables};
pub use hosted::ScanOptions;
