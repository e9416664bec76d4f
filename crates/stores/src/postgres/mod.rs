//! PostgreSQL clusters: a physical base backup with its log, recovered and checked on a throwaway server.
//!
//! In: the address of a primary and a role that may replicate. Out: a capture that restores to a data directory, and
//! checks of what was recovered. The data directory is stored file by file, so stock tools restore it too.
//! Invariant: the production server is only read, but for the one replication slot of the row; a restored cluster is started only in a sandbox without a network.

mod adapter;
mod archive;
mod canaries;
mod capture;
mod checks;
mod error;
mod extract;
mod facts;
mod feed;
mod masking;
mod migrations;
mod placing;
mod preflight;
mod probe;
mod replay;
mod restore;
mod schema;
mod select;
mod session;
mod slot;
mod tables;

pub use adapter::{PostgresAdapter, PostgresOptions};
