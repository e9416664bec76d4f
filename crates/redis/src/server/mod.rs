//! Installed server programs, and servers that run for a while on a directory of ours.
//!
//! In: folders to look in, a directory that is a copy. Out: [`Programs`], [`Process`]es (a server as its settings say),
//! [`Sandbox`]es (a server that reaches nothing) and [`Primary`]s (one that takes writes). Invariant: no line is made for a shell, no process is ended that was not shown
//! to be ours.

mod error;
mod primary;
mod process;
mod programs;
mod sandbox;
mod sweep;
mod wait;

pub use error::SandboxError;
pub use primary::Primary;
pub use process::{Launch, Process};
pub use programs::Programs;
pub use sandbox::{RUNTIME, Sandbox, SandboxOptions};
pub use sweep::sweep;
pub use wait::Wait;
