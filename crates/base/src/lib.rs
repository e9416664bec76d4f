//! The vocabulary every Lifeboat crate shares.
//!
//! In: nothing but the standard library, the operating system's clock and entropy, and the local file system.
//! Out: ids, time, secrets, progress and findings, crash-safe files, failures with their consequences, and the
//! model of what a capture is made of.
//!
//! Invariant: depends on no sibling crate and does no network I/O.

pub mod apart;
pub mod capture;
pub mod crashsafe;
pub mod digest;
pub mod entropy;
pub mod failure;
pub mod folder;
pub mod human;
pub mod ids;
pub mod inplace;
pub mod lease;
pub mod leased;
pub mod monitor;
pub mod outside;
pub mod path;
pub mod process;
pub mod secret;
pub mod time;
