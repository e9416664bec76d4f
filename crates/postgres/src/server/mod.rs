//! Installed server programs, and servers that run for a while on a data directory of ours.
//!
//! In: folders to look in, a data directory that is a copy. Out: [`Installation`]s, [`Postmaster`]s (a server as its
//! settings say) and [`Sandbox`]es (a server that reaches nothing outside its own folders). Invariant: no line is made for a shell,
//! no process is ended that was not shown to be the server of that very data directory.

mod account;
mod control;
mod error;
mod installation;
mod isolation;
mod memory;
mod occupied;
mod postmaster;
mod processes;
mod sandbox;
mod sweep;
mod tool;

pub use account::{Account, give_tree};
pub use control::control_data;
pub use error::ServerError;
pub use installation::{Installation, installation, installations};
pub use memory::release_shared_memory;
pub use occupied::{in_use, system_identifier};
pub use postmaster::{Launch, Postmaster, ServerState, Stop, Wait};
pub use sandbox::{CLIENT_OPTIONS, PORT, RUNTIME, Sandbox, SandboxOptions};
pub use sweep::{Swept, sweep};
pub use tool::{MAX_TOOL_OUTPUT_BYTES, run_tool, run_tool_on};
