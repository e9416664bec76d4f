//! Installed programs of etcd, data directories made by them, and members that run for a while on a copy.
//!
//! Invariant: no line is made for a shell, nothing of our environment is passed on, a member listens on sockets in its own folder only,
//! and no process is ended that was not shown to be that member.

mod installation;
mod member;
mod sweep;
mod tool;

pub use installation::{Installation, Version, installation, installations};
pub use member::{Member, RUNTIME, Wait};
pub use sweep::sweep;
pub use tool::make_data_directory;
