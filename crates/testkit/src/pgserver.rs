//! A real PostgreSQL server for one test: its own data directory, a unix socket, a port of 127.0.0.1.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::lease::Lease;
use lifeboat_base::time::SystemClock;
use lifeboat_postgres::server::{Account, Installation, Launch, Postmaster, Stop, Wait, give_tree, run_tool};
use tempfile::TempDir;

use crate::fail::{fail, need};
use crate::leftovers;
use crate::peers::pg_installation;
use crate::pgport::Port;

/// How long a server may take to start, recover or stop.
const SERVER_LIMIT: Duration = Duration::from_secs(120);
/// How long a program such as `pgbench` may take.
const PROGRAM_LIMIT: Duration = Duration::from_secs(300);

/// A statement that waits for ever fails its test instead.
const STATEMENT_LIMITS: &str = "-c lock_timeout=30s -c statement_timeout=300s";

/// What every server starts from: small, and as fast as a server that only its own crash can hurt may be.
const SETTINGS: [(&str, &str); 9] = [
    ("fsync", "off"),
    ("shared_buffers", "32MB"),
    ("max_connections", "60"),
    ("max_prepared_transactions", "20"),
    ("max_wal_senders", "10"),
    ("wal_level", "replica"),
    ("log_line_prefix", "%m [%p] "),
    ("lc_messages", "C"),
    ("timezone", "UTC"),
];

/// What a test wants its server to be.
#[derive(Clone, Debug)]
pub struct PgOptions {
    /// The major version, one of [`pg_majors`](crate::pg_majors).
    pub major: u32,
    /// Lines of `postgresql.conf`, stronger than the fixture's own.
    pub settings: Vec<(String, String)>,
    /// Further arguments of `initdb`, such as `--data-checksums` or `--wal-segsize=1`.
    pub initdb: Vec<String>,
    /// Lines of `pg_hba.conf` that come before the fixture's own, which trust every local connection.
    pub hba: Vec<String>,
    /// Tablespaces to make after the first start, by name.
    pub tablespaces: Vec<String>,
}

impl PgOptions {
    /// A plain server of this major version.
    pub fn new(major: u32) -> Self {
        let none = Vec::new();
        Self { major, settings: Vec::new(), initdb: none, hba: Vec::new(), tablespaces: Vec::new() }
    }

    /// With one more line of `postgresql.conf`.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// With one more argument of `initdb`.
    #[must_use]
    pub fn initdb(mut self, argument: &str) -> Self {
        self.initdb.push(argument.to_owned());
        self
    }

    /// With one more line of `pg_hba.conf`, after those given before.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// With one more tablespace.
    #[must_use]
    pub fn tablespace(mut self, name: &str) -> Self {
        self.tablespaces.push(name.to_owned());
        self
    }
}

/// A server that runs as an unprivileged account and ends, every process of it, when this is dropped.
#[derive(Debug)]
pub struct PgServer {
    // The order is that of dropping: the processes, then the folder, then the port.
    postmaster: Option<Postmaster>,
    pub(crate) root: TempDir,
    port: Port,
    pub(crate) installation: Installation,
    pub(crate) account: Account,
    clock: SystemClock,
    _lease: Lease,
}

impl PgServer {
    /// Makes a cluster and starts it; superuser `postgres`, no password, database `postgres`.
    #[track_caller]
    pub fn start(options: PgOptions) -> Self {
        let mut server = Self::prepare(pg_installation(options.major));
        server.initdb(&options);
        server.start_again();
        for name in &options.tablespaces {
            let folder = server.tablespace_dir(name);
            server.psql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", folder.display()));
        }
        server
    }

    /// A folder, an account and a port, and no cluster yet.
    #[track_caller]
    pub(crate) fn prepare(installation: Installation) -> Self {
        leftovers::sweep(Path::new("/tmp"));
        let root = tempfile::Builder::new().prefix(leftovers::FOLDER_PREFIX).tempdir_in("/tmp");
        let root = need(root, "no folder for a server");
        let account = Account::unprivileged();
        for name in ["s", "tablespaces"] {
            need(fs::create_dir(root.path().join(name)), "no folder for a server");
        }
        need(give_tree(root.path(), &account), "the server's folder cannot be given to its account");
        let lease = need(leftovers::claim(root.path()), "no folder for a server");
        need(account.check_way_to(&installation.program("postgres")), "the server cannot be run");
        let clock = SystemClock::new();
        Self { postmaster: None, root, port: Port::take(), installation, account, clock, _lease: lease }
    }

    #[track_caller]
    fn initdb(&self, options: &PgOptions) {
        let mut arguments = vec!["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "-D"];
        let data = self.data();
        let data = data.to_string_lossy();
        arguments.push(&data);
        arguments.extend(options.initdb.iter().map(String::as_str));
        self.run("initdb", &arguments);
        let defaults = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.configure(&defaults);
        self.configure(&options.settings);
        self.configure(&self.place());
        let mut hba = options.hba.join("\n");
        hba.push_str(
            "\nlocal all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 trust\n\
             host replication all 127.0.0.1/32 trust\n",
        );
        self.write(&self.data().join("pg_hba.conf"), hba.as_bytes());
    }

    /// Where this server listens, as lines of its configuration.
    pub(crate) fn place(&self) -> [(String, String); 3] {
        let sockets = self.socket_dir().to_string_lossy().into_owned();
        [
            ("port".to_owned(), self.port().to_string()),
            ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
            ("unix_socket_directories".to_owned(), sockets),
        ]
    }

    /// Starts it again after [`Self::stop`] or [`Self::crash`], and waits until it takes connections.
    #[track_caller]
    pub fn start_again(&mut self) {
        let (data, log) = (self.data(), self.log_path());
        let launch = Launch {
            installation: &self.installation,
            data: &data,
            settings: &[],
            account: &self.account,
            log: &log,
            apart: false,
        };
        let mut postmaster = need(Postmaster::spawn(&launch), "the server cannot be started");
        need(postmaster.wait_ready(self.wait()), "the server does not start");
        self.postmaster = Some(postmaster);
    }

    /// Ends it in order.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(mut postmaster) = self.postmaster.take() {
            need(postmaster.stop(Stop::Fast, self.wait()), "the server does not stop");
        }
    }

    /// Ends it in order and starts it again on the same port.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Ends every process of it with SIGKILL.
    #[track_caller]
    pub fn crash(&mut self) {
        if let Some(mut postmaster) = self.postmaster.take() {
            need(postmaster.kill(&self.clock), "the server cannot be killed");
        }
    }

    /// The process id of its first process; fails the test if it does not run.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.postmaster.as_ref().map_or_else(|| fail("the server does not run"), Postmaster::pid)
    }

    /// The data directory; readable by us only while we are root or the server's account.
    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// The folder with its socket, for `host=`.
    pub fn socket_dir(&self) -> PathBuf {
        self.root.path().join("s")
    }

    /// Its port on 127.0.0.1, which is also in the socket's name.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its programs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Who it runs as.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Connection options in words, over the socket, as the superuser.
    pub fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.socket_dir().display(), self.port())
    }

    /// Connection options as an address, over TCP.
    pub fn url(&self, user: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/postgres", self.port())
    }

    /// Everything it has logged.
    #[track_caller]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&need(fs::read(self.log_path()), "the log cannot be read")).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.root.path().join("log")
    }

    fn wait(&self) -> Wait<'_> {
        Wait::for_at_most(SERVER_LIMIT, &self.clock)
    }

    /// A new folder that belongs to the server's account, such as an archive or the target of a program.
    #[track_caller]
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.root.path().join(name);
        need(crashsafe::create_dir_all(&dir), "a folder cannot be made");
        need(give_tree(&dir, &self.account), "a folder cannot be given away");
        dir
    }

    /// The folder of a tablespace.
    #[track_caller]
    pub fn tablespace_dir(&self, name: &str) -> PathBuf {
        self.dir(&format!("tablespaces/{name}"))
    }

    /// Writes a file that belongs to the server's account.
    #[track_caller]
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        need(crashsafe::replace(path, bytes), "a file cannot be written");
        need(give_tree(path, &self.account), "a file cannot be given away");
    }

    /// Gives what was made for this server to its account; nothing changes where we are not root.
    #[track_caller]
    pub fn give(&self, tree: &Path) {
        need(give_tree(tree, &self.account), "a folder cannot be given away");
    }

    /// Appends lines to `postgresql.conf`; they count from the next reload or restart.
    #[track_caller]
    pub fn configure(&self, settings: &[(String, String)]) {
        let path = self.data().join("postgresql.conf");
        let lines = settings.iter().map(|(name, value)| format!("{name} = '{}'", value.replace('\'', "''")));
        let text = lines.collect::<Vec<_>>().join("\n") + "\n";
        let file = OpenOptions::new().append(true).open(&path);
        need(file.and_then(|mut file| file.write_all(text.as_bytes())), "postgresql.conf cannot be written");
    }

    /// One of the server's programs as the server's account, pointed at this server through its environment.
    pub fn bin(&self, name: &str) -> Command {
        let mut command = Command::new(self.installation.program(name));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        command.env("PGHOST", self.socket_dir()).env("PGPORT", self.port().to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", "postgres").current_dir("/");
        self.account.apply(&mut command);
        command
    }

    /// Runs one of the server's programs to its end and gives its standard output; fails the test if it fails.
    #[track_caller]
    pub fn run(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = self.bin(name);
        command.args(arguments);
        let output = need(run_tool(command, PROGRAM_LIMIT, &self.clock), "a program of the server failed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs SQL (several statements, each its own transaction) and gives the rows: columns joined by `|`, no titles.
    /// Fails the test at the first error.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        let output = self.try_psql(sql);
        if !output.status.success() {
            fail(format_args!("psql failed: {}\nin: {sql}", String::from_utf8_lossy(&output.stderr)));
        }
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// As [`Self::psql`], for SQL that may fail.
    #[track_caller]
    pub fn try_psql(&self, sql: &str) -> Output {
        let mut command = self.bin("psql");
        command.env("PGOPTIONS", STATEMENT_LIMITS);
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = need(command.spawn(), "psql cannot be run");
        let input = child.stdin.take();
        std::thread::scope(|scope| {
            // Beside the reading, so that a long script and its answers cannot wait for each other.
            scope.spawn(move || input.map(|mut input| input.write_all(sql.as_bytes())));
            need(child.wait_with_output(), "psql cannot be waited for")
        })
    }
}
