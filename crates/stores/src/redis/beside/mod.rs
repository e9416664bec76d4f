//! The files of a server beside us, running or stopped, as a capture; restored and checked as what replication gives.
//!
//! In: the server's folder. Out: points with its dump, or with the base of its log and the whole commands after it.

mod adapter;
mod canaries;
mod capture;

pub use adapter::{RedisFilesAdapter, RedisFilesOptions};
