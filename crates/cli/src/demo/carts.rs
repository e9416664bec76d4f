//! A Redis server for the demo, where programs of one are on this machine.
//!
//! In: a folder of the demo. Out: shopping carts on a server that listens on a unix socket only and ends with the demo.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_engine::EngineError;
use lifeboat_redis::server::{Primary, Programs, SandboxError, Wait};
use lifeboat_redis::wire::{Connection, RedisError};

/// Carts at the start, and those that are filled before the accident.
pub(super) const CARTS: u64 = 5_000;
pub(super) const MORE_CARTS: u64 = 2_500;
/// What the cache holds.
const SESSIONS: u64 = 1_000;
/// How long the server may take to start, stop, or to be followed.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at how far it is followed.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// What the row of the policy promises.
const FIRST: [&str; 2] = ["SET catalogue 2026-11", "SADD vip 17 42 4711"];

/// A running server. Dropping it ends it.
pub(super) struct Carts {
    server: Primary,
    programs: Programs,
    clock: SystemClock,
}

fn failed(error: SandboxError) -> EngineError {
    Failure::with_source(error.kind(), "failed to run the demo's Redis server", error).into()
}

fn refused(error: RedisError) -> EngineError {
    Failure::with_source(error.kind(), "failed to use the demo's Redis server", error).into()
}

impl Carts {
    /// Starts a server with the first carts in it, if this machine has one.
    pub(super) fn start(data: &Path, programs: &[PathBuf]) -> Result<Option<Self>, EngineError> {
        let Ok(programs) = Programs::find(programs) else { return Ok(None) };
        let io = |error| Failure::io("failed to make room for the demo's Redis server", error);
        crashsafe::create_dir_all(data).map_err(io)?;
        let carts = Self::open(programs, data, false)?;
        carts.promise()?;
        carts.fill(0, CARTS)?;
        Ok(Some(carts))
    }

    /// Sets what the row of the policy promises.
    pub(super) fn promise(&self) -> Result<(), EngineError> {
        FIRST.iter().try_for_each(|words| self.run(words))
    }

    /// Starts a cache beside it, in which everything ends.
    pub(super) fn start_sessions(&self, data: &Path) -> Result<Self, EngineError> {
        let io = |error| Failure::io("failed to make room for the demo's cache", error);
        crashsafe::create_dir_all(data).map_err(io)?;
        let sessions = Self::open(self.programs.clone(), data, false)?;
        let mut connection = sessions.connect()?;
        for number in 0..SESSIONS {
            connection.ask(&format!("SET session:{number} customer:{number} EX 86400")).map_err(refused)?;
        }
        Ok(sessions)
    }

    /// Starts a server on a directory that is there, such as a restored one.
    pub(super) fn open(programs: Programs, data: &Path, append_only: bool) -> Result<Self, EngineError> {
        let clock = SystemClock::new();
        let wait = Wait::for_at_most(LIMIT, &clock);
        let server = Primary::start(&programs, (data, append_only), &OsEntropy, wait).map_err(failed)?;
        Ok(Self { server, programs, clock })
    }

    /// The programs it runs from.
    pub(super) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// How to reach it; holds no password.
    pub(super) fn address(&self) -> String {
        self.server.address()
    }

    fn connect(&self) -> Result<Connection, EngineError> {
        self.server.connect().map_err(refused)
    }

    /// Fills carts numbered from `first`.
    pub(super) fn fill(&self, first: u64, count: u64) -> Result<(), EngineError> {
        let mut connection = self.connect()?;
        for number in first..first + count {
            let words =
                format!("HSET cart:{number} article:{} 1 article:{} 2", number % 97, 100 + number % 89);
            connection.ask(&words).map_err(refused)?;
        }
        Ok(())
    }

    /// Runs one command.
    pub(super) fn run(&self, words: &str) -> Result<(), EngineError> {
        self.connect()?.ask(words).map(drop).map_err(refused)
    }

    /// How many keys there are.
    pub(super) fn keys(&self) -> Result<u64, EngineError> {
        let reply = self.connect()?.ask("DBSIZE").map_err(refused)?;
        let count = reply.integer().and_then(|count| u64::try_from(count).ok());
        count.ok_or_else(|| Failure::new(FailureKind::Internal, "the demo's server does not count").into())
    }

    /// Waits until somebody who follows has acknowledged everything there is now.
    pub(super) fn wait_followed(&self) -> Result<(), EngineError> {
        let mut connection = self.connect()?;
        let wanted = connection.info("replication").map_err(refused)?.number("master_repl_offset");
        let started = self.clock.monotonic();
        loop {
            let info = connection.info("replication").map_err(refused)?;
            let reached = info.get("slave0").and_then(|text| {
                text.split(',').find_map(|part| part.strip_prefix("offset=")?.parse::<u64>().ok())
            });
            if reached.is_some() && reached >= wanted {
                return Ok(());
            }
            if self.clock.monotonic().saturating_sub(started) > LIMIT {
                let what = "nobody follows the demo's Redis server";
                return Err(Failure::new(FailureKind::Internal, what).into());
            }
            std::thread::park_timeout(BETWEEN_LOOKS);
        }
    }

    /// Ends the server in order.
    pub(super) fn stop(self) -> Result<(), EngineError> {
        self.server.stop(Wait::for_at_most(LIMIT, &self.clock)).map_err(failed)
    }
}
