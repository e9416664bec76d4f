//! Bytes at rest: packs, index files, key files, sealed documents and tree nodes, as the restic format (version 2)
//! defines them.
//!
//! In: plain values and the master key. Out: sealed bytes, and back. Invariant: every length read from a file is
//! bounded before it is used, and nothing here does I/O.

pub(crate) mod document;
pub(crate) mod index;
pub(crate) mod keyfile;
pub(crate) mod node;
pub(crate) mod pack;
