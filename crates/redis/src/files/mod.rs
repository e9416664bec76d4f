//! The files of a server beside us, running or stopped: which of them count, and what they hold as one consistent state.
//!
//! In: the server's folder, and its configuration if it is known. Out: a base (a dump) and the whole commands after it, with
//! what both amount to, held open so that a rewrite cannot take them away. Nothing is written or locked; nothing that is no
//! regular file is opened, and no link is followed. Memory: about 1 MiB.

mod choice;
mod config;
mod error;
mod folder;
mod manifest;
mod reading;
mod scan;

pub use choice::{Chosen, Origin, choose};
pub use config::Settings;
pub use error::FilesError;
pub use reading::{Part, Reading};
