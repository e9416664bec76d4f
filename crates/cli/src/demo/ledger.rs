//! A PostgreSQL server for the demo, where programs of one are on this machine.
//!
//! In: the demo's folder. Out: a small ledger on a server that listens on a unix socket only and ends with the demo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::secret::Secret;
use lifeboat_base::time::SystemClock;
use lifeboat_engine::EngineError;
use lifeboat_postgres::server::{
    Account, Installation, Launch, Postmaster, ServerError, Stop, Wait, give_tree, installations, run_tool,
};
use lifeboat_postgres::wire::{ConnectOptions, Connection, Mode, PgError};

/// Payments that the ledger starts with.
pub(super) const PAYMENTS: u64 = 50_000;
const SCHEMA: &str = "CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL); \
     CREATE TABLE payments (id bigint PRIMARY KEY, account int NOT NULL REFERENCES accounts, cents bigint NOT NULL)";
/// How long the server may take to start or stop.
const LIMIT: Duration = Duration::from_secs(60);
const PORT: &str = "5432";

/// A running server. Dropping it ends every process of it.
pub(super) struct Ledger {
    postmaster: Postmaster,
    installation: Installation,
    address: String,
    clock: SystemClock,
    /// Where its socket is: a path of its own, as the name of a socket must be short.
    _sockets: tempfile::TempDir,
}

/// Why the demo goes on without a server.
pub(super) enum Absent {
    /// No programs of a server that Lifeboat supports were found.
    NotInstalled,
    /// The server's account cannot reach the demo's folder.
    OutOfReach(String),
}

fn failed(error: ServerError) -> EngineError {
    Failure::with_source(error.kind(), "failed to run the demo's PostgreSQL server", error).into()
}

fn sql(error: PgError) -> EngineError {
    Failure::with_source(error.kind(), "failed to use the demo's PostgreSQL server", error).into()
}

impl Ledger {
    /// Makes a cluster in `data` and starts it, if this machine can.
    pub(super) fn start(data: &Path, programs: &[PathBuf]) -> Result<Result<Self, Absent>, EngineError> {
        let supported = |found: &Installation| (13..=18).contains(&found.major);
        let Some(installation) = installations(programs).into_iter().find(supported) else {
            return Ok(Err(Absent::NotInstalled));
        };
        let io = |error| Failure::io("failed to make room for the demo's PostgreSQL server", error);
        let account = Account::unprivileged();
        // Only the way there is opened; the folder itself belongs to the server.
        for folder in data.ancestors().skip(1).take(2) {
            crashsafe::create_dir_all(folder).map_err(io)?;
            crashsafe::let_through(folder).map_err(io)?;
        }
        crashsafe::create_dir_all(data).map_err(io)?;
        if let Err(why) = account.check_way_to(data.parent().unwrap_or(data)) {
            return Ok(Err(Absent::OutOfReach(why.to_string())));
        }
        give_tree(data, &account).map_err(failed)?;
        let clock = SystemClock::new();
        let mut initdb = Command::new(installation.program("initdb"));
        initdb.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/");
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums", "-D"]);
        initdb.arg(data);
        account.apply(&mut initdb);
        run_tool(initdb, LIMIT, &clock).map_err(failed)?;
        let ledger = Self::open(installation, data)?;
        ledger.run(SCHEMA)?;
        ledger.run("INSERT INTO accounts SELECT g, 'customer ' || g FROM generate_series(1, 1000) g")?;
        ledger.pay(1, PAYMENTS)?;
        Ok(Ok(ledger))
    }

    /// Starts a server on a cluster that is there, such as a restored one.
    pub(super) fn open(installation: Installation, data: &Path) -> Result<Self, EngineError> {
        let io = |error| Failure::io("failed to make room for a socket", error);
        let account = Account::for_data(data).map_err(failed)?;
        let clock = SystemClock::new();
        let sockets = tempfile::Builder::new().prefix("lifeboat-demo-").tempdir().map_err(io)?;
        give_tree(sockets.path(), &account).map_err(failed)?;
        let socket_dir = sockets.path().display().to_string();
        let setting = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let settings = [
            ("listen_addresses", ""),
            ("unix_socket_directories", &socket_dir),
            ("unix_socket_permissions", "0700"),
            ("port", PORT),
            ("shared_buffers", "32MB"),
            ("max_slot_wal_keep_size", "1GB"),
        ]
        .map(setting);
        let log = data.with_extension("log");
        let launch = Launch {
            installation: &installation,
            data,
            settings: &settings,
            account: &account,
            log: &log,
            apart: false,
        };
        let mut postmaster = Postmaster::spawn(&launch).map_err(failed)?;
        postmaster.wait_ready(Wait::for_at_most(LIMIT, &clock)).map_err(failed)?;
        let address = format!("host={socket_dir} port={PORT} user=postgres dbname=postgres");
        Ok(Self { postmaster, installation, address, clock, _sockets: sockets })
    }

    /// The programs it runs from.
    pub(super) fn installation(&self) -> &Installation {
        &self.installation
    }

    /// How to reach it; holds no password.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Runs one or more statements and gives the first value.
    pub(super) fn run(&self, statements: &str) -> Result<String, EngineError> {
        let options = ConnectOptions::parse(&Secret::new(self.address.clone())).map_err(sql)?;
        let mut connection = Connection::connect(&options, Mode::Sql).map_err(sql)?;
        let rows = connection.query(statements).map_err(sql)?;
        Ok(rows.first().and_then(|row| row.get(0)).unwrap_or_default().to_owned())
    }

    /// Books payments numbered from `first`.
    pub(super) fn pay(&self, first: u64, count: u64) -> Result<(), EngineError> {
        let last = first + count - 1;
        let insert = format!(
            "INSERT INTO payments SELECT g, 1 + g % 1000, (g * 37) % 100000 FROM generate_series({first}, {last}) g"
        );
        self.run(&insert).map(drop)
    }

    /// How many payments there are.
    pub(super) fn payments(&self) -> Result<u64, EngineError> {
        let count = self.run("SELECT count(*) FROM payments")?;
        count.parse().map_err(|_not_a_number| {
            Failure::new(FailureKind::Internal, "the demo's server does not count").into()
        })
    }

    /// Ends the server in order.
    pub(super) fn stop(mut self) -> Result<(), EngineError> {
        self.postmaster.stop(Stop::Fast, Wait::for_at_most(LIMIT, &self.clock)).map_err(failed)
    }
}

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotInstalled => f.write_str(
                "no PostgreSQL server is installed here, so the demo goes on without one (on Debian: apt-get install \
                 postgresql)",
            ),
            Self::OutOfReach(why) => write!(f, "the demo goes on without a PostgreSQL server: {why}"),
        }
    }
}
