//! Installed server programs, and servers that run for a while on a directory of ours.
//!
//! In: folders to look in, a directory that is a copy. Out: [`Programs`], [`Process`]es (a server as its settings say)
//! and [`Sandbox`]es (a server that reaches nothing). Invariant: no shell runs, no process is ended that was not shown
//! to be ours.

mod error;
mod process;
mod programs;
mod sandbox;
mod sweep;
mod wait;

pub use error::SandboxError;
pub use process::{Launch, Process};
pub use programs::Programs;
pub use sandbox::{RUNTIME, Sandbox, SandboxOptions};
pub use sweep::sweep;
pub use wait::Wait;
