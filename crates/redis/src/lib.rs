//! Speaks Redis' protocols and reads its files, blocking and without the server's own libraries.
//!
//! In: connection options, bytes of the replication protocol, dumps. Out: replies, dumps as they come in, the stream of
//! commands with its offsets, what a dump amounts to, and throwaway servers. Invariant: knows no vault, no policy and no
//! adapter; a password never leaves [`Secret`](lifeboat_base::secret::Secret).

pub mod aof;
pub mod census;
pub mod commands;
pub mod files;
pub mod pattern;
pub mod place;
pub mod rdb;
pub mod replication;
pub mod rest;
pub mod scan;
pub mod server;
pub mod wire;
