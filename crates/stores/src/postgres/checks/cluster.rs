//! A restored cluster, running in a sandbox for as long as it is checked, and left as if it had not been.
//!
//! In: a data directory and the programs of its major version. Out: sessions of its superuser.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Clock;
use lifeboat_postgres::server::{
    CLIENT_OPTIONS, Installation, Sandbox, SandboxOptions, ServerError, Stop, Wait,
};
use lifeboat_postgres::wire::{ConnectOptions, PgError};

use crate::postgres::session::{Patience, Session};

/// How long a recovery may take before it counts as failed.
const RECOVERY_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// How long the last checkpoint may take.
const STOP_LIMIT: Duration = Duration::from_secs(30 * 60);
/// How long one statement of a check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(2 * 3600);
/// How long one statement of a policy may take.
pub(crate) const STATEMENT_LIMIT: Duration = Duration::from_secs(60);
/// Nobody else is there, so a lock that is held is an error.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// An index can differ from its table, and then the table is what counts.
const TABLES_ONLY: &str =
    "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off";
/// Settings of which the sandbox keeps the cluster's own under another name, and that name.
const SET_ASIDE: [&str; 2] = ["postgresql.auto.conf", "postgresql.auto.conf.before-sandbox"];
/// The server notes its command line, for a restart that must not happen with our settings.
const COMMAND_LINE: &str = "postmaster.opts";

/// How a recovery to a target is done, for a directory that asks for one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recovery {
    /// The command that fetches segments of the log.
    restore_command: Option<String>,
    /// `recovery_target_…` settings.
    settings: Vec<(String, String)>,
}

impl Recovery {
    /// From the settings a restored cluster is to recover with.
    pub(crate) fn new(mut settings: Vec<(String, String)>) -> Self {
        let at = settings.iter().position(|(name, _)| name == "restore_command");
        Self { restore_command: at.map(|at| settings.remove(at).1), settings }
    }
}

/// A running cluster. Dropping it ends the server.
pub(crate) struct Cluster {
    sandbox: Sandbox,
    data: PathBuf,
    user: String,
}

impl Cluster {
    /// Starts the server on a data directory and its tablespaces elsewhere, and waits until recovery has ended.
    pub(crate) fn start(
        installation: &Installation,
        (data, spaces): (&Path, &[PathBuf]),
        user: &str,
        recovery: Option<&Recovery>,
        clock: &dyn Clock,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, ServerError> {
        let Recovery { restore_command, mut settings } = recovery.cloned().unwrap_or_default();
        // Nothing may change while it is compared.
        settings.push(("autovacuum".to_owned(), "off".to_owned()));
        settings.push(("recovery_target_action".to_owned(), "promote".to_owned()));
        let options =
            SandboxOptions { trees: spaces.to_vec(), settings, restore_command, ..SandboxOptions::default() };
        let wait = Wait { limit: RECOVERY_LIMIT, clock, cancelled };
        let started = Sandbox::start(installation, data, &options, &OsEntropy, wait);
        match started {
            Ok(sandbox) => Ok(Self { sandbox, data: data.to_owned(), user: user.to_owned() }),
            Err(error) => {
                tidy(data)?;
                Err(error)
            }
        }
    }

    /// Where `database` is reached.
    pub(crate) fn options(&self, database: &str) -> Result<ConnectOptions, PgError> {
        let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let text = format!(
            "host={} port={} user={} dbname={} options={}",
            quoted(&self.sandbox.socket_dir().to_string_lossy()),
            self.sandbox.port(),
            quoted(&self.user),
            quoted(database),
            quoted(CLIENT_OPTIONS)
        );
        let options = ConnectOptions::parse(&Secret::new(text))?;
        Ok(options.with_silence_limit(CHECK_LIMIT + STATEMENT_LIMIT))
    }

    /// The folder with its socket.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.sandbox.socket_dir()
    }

    /// A session that reads tables, never indexes.
    pub(crate) fn session(&self, database: &str) -> Result<Session, PgError> {
        let patience = Patience { statement: CHECK_LIMIT, lock: LOCK_LIMIT };
        let mut session = Session::open(&self.options(database)?, patience)?;
        session.ask(TABLES_ONLY)?;
        Ok(session)
    }

    /// A session as an application of the superuser would have it.
    pub(crate) fn session_as_set(&self, database: &str) -> Result<Session, PgError> {
        let patience = Patience { statement: STATEMENT_LIMIT, lock: LOCK_LIMIT };
        Session::open_as_set(&self.options(database)?, patience)
    }

    /// One of the server's programs, for `database`, as the superuser; whom and what it asks is told through its environment.
    pub(crate) fn program(&self, name: &str, database: &str) -> Command {
        let mut command = self.sandbox.program(name);
        command.env("PGUSER", &self.user).env("PGDATABASE", database);
        command
    }

    /// The last lines of the server's log.
    pub(crate) fn log_tail(&self) -> String {
        self.sandbox.log_tail()
    }

    /// Ends the server in order, so that the directory needs no recovery, and removes what the sandbox left in it.
    pub(crate) fn stop(self, clock: &dyn Clock) -> Result<(), ServerError> {
        let stopped = self.sandbox.stop(Stop::Fast, STOP_LIMIT, clock);
        tidy(&self.data)?;
        stopped
    }
}

/// Puts the cluster's own settings back and removes the command line of the sandbox.
fn tidy(data: &Path) -> Result<(), ServerError> {
    let [name, kept] = SET_ASIDE.map(|name| data.join(name));
    let put_back = || -> io::Result<()> {
        if kept.symlink_metadata().is_ok() {
            absent(crashsafe::remove(&name))?;
            crashsafe::publish(&kept, &name)?;
        }
        absent(fs::remove_file(data.join(COMMAND_LINE)))
    };
    put_back().map_err(|source| ServerError::Io { what: format!("tidy up {}", data.display()), source })
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
