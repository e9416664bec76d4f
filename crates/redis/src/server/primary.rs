//! A small server of our own that takes writes: for samples whose damage must be noticed, and for demonstrations.
//!
//! Its folder `lb-redis-RANDOM` is that of a sandbox: a run that dies leaves nothing that the next sweep does not end.

use std::path::Path;
use std::time::Duration;

use lifeboat_base::entropy::Entropy;
use lifeboat_base::leased::LeasedFolder;

use super::error::SandboxError;
use super::process::Process;
use super::programs::Programs;
use super::sandbox::{RUNTIME, SOCKET, folder};
use super::wait::Wait;
use crate::wire::{Connection, RedisError};

/// A running primary, reachable through a private socket only. Dropping it ends the server and removes its own folder;
/// the working directory stays.
#[derive(Debug)]
pub struct Primary {
    // The order is that of dropping.
    process: Process,
    folder: LeasedFolder,
}

impl Primary {
    /// Starts it and waits until it takes commands. It loads what `work` holds, from `appendonlydir/` where `append_only`
    /// is true, and saves nothing by itself. Replicas get their dump at once.
    pub fn start(
        programs: &Programs,
        (work, append_only): (&Path, bool),
        entropy: &dyn Entropy,
        wait: Wait<'_>,
    ) -> Result<Self, SandboxError> {
        let folder = folder(Path::new(RUNTIME), entropy)?;
        let more = [
            ("appendonly", if append_only { "yes" } else { "no" }),
            ("repl-diskless-sync", "yes"),
            ("repl-diskless-sync-delay", "0"),
        ];
        let process = Process::start_private(programs, (folder.path(), work), &more, wait)?;
        Ok(Self { process, folder })
    }

    /// Its address, as a policy or a client takes it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.folder.path().join(SOCKET).display())
    }

    /// A connection to it.
    pub fn connect(&self) -> Result<Connection, RedisError> {
        Connection::open(&self.process.options())
    }

    /// Writes everything it holds to `dump.rdb` in its working directory. It answers nobody meanwhile.
    pub fn save(&self, limit: Duration) -> Result<(), SandboxError> {
        let options = self.process.options().with_silence_limit(limit);
        Connection::open(&options)?.ask("SAVE").map(drop).map_err(SandboxError::from)
    }

    /// Ends it and removes its own folder.
    pub fn stop(mut self, wait: Wait<'_>) -> Result<(), SandboxError> {
        self.process.stop(wait)
    }
}
