//! A real Redis server for one test: its own directory, a unix socket, a port of 127.0.0.1.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::lease::Lease;
use lifeboat_base::time::SystemClock;
use lifeboat_redis::server::{Launch, Process, Programs, Wait};
use lifeboat_redis::wire::{ConnectOptions, Connection, Reply, encode};
use tempfile::TempDir;

use crate::fail::{fail, need};
use crate::leftovers;
use crate::pgport::Port;

/// How long a server may take to start, load or stop.
const SERVER_LIMIT: Duration = Duration::from_secs(120);
/// How long a command of a test may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);

/// The server programs of the tests; without them the test fails and says what to run.
#[track_caller]
pub fn redis_programs() -> Programs {
    need(Programs::find(&[]), "a peer of the tests is missing; run scripts/install-test-peers.sh")
}

/// What a test wants its server to be.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    settings: Vec<(String, String)>,
}

impl RedisOptions {
    /// With one more line of `redis.conf`, stronger than the fixture's own.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }
}

/// A server that ends when this is dropped.
#[derive(Debug)]
pub struct RedisServer {
    // The order is that of dropping: the process, then the folder, then the port.
    process: Option<Process>,
    root: TempDir,
    port: Port,
    settings: Vec<(String, String)>,
    clock: SystemClock,
    _lease: Lease,
}

impl RedisServer {
    /// Starts an empty server, with 16 databases, that saves nothing by itself and makes replicas wait for nothing.
    #[track_caller]
    pub fn start(options: RedisOptions) -> Self {
        let mut server = Self::prepare(options);
        server.start_again();
        server
    }

    /// A server on a directory that is there, such as one that was restored.
    #[track_caller]
    pub fn start_on(data: &Path, options: RedisOptions) -> Self {
        let mut server = Self::prepare(options);
        server.settings.push(("dir".to_owned(), data.to_string_lossy().into_owned()));
        server.start_again();
        server
    }

    #[track_caller]
    fn prepare(options: RedisOptions) -> Self {
        leftovers::sweep(Path::new("/tmp"));
        let root = tempfile::Builder::new().prefix(leftovers::FOLDER_PREFIX).tempdir_in("/tmp");
        let root = need(root, "no folder for a server");
        need(fs::create_dir(root.path().join("data")), "no folder for a server");
        let lease = need(leftovers::claim(root.path()), "no folder for a server");
        let port = Port::take();
        let path = |name: &str| root.path().join(name).to_string_lossy().into_owned();
        let own = [
            ("port", port.number().to_string()),
            ("bind", "127.0.0.1".to_owned()),
            ("unixsocket", path("socket")),
            ("dir", path("data")),
            ("save", String::new()),
            ("daemonize", "no".to_owned()),
            ("enable-debug-command", "yes".to_owned()),
            ("repl-diskless-sync-delay", "0".to_owned()),
        ];
        let mut settings: Vec<_> = own.map(|(name, value)| (name.to_owned(), value)).to_vec();
        settings.extend(options.settings);
        Self { process: None, root, port, settings, clock: SystemClock::new(), _lease: lease }
    }

    /// Starts it again after [`Self::stop`] or [`Self::crash`], and waits until it takes commands.
    #[track_caller]
    pub fn start_again(&mut self) {
        let root = self.root.path();
        let programs = redis_programs();
        let launch = Launch {
            programs: &programs,
            settings: &self.settings,
            configuration: &root.join("redis.conf"),
            socket: &root.join("socket"),
            log: &root.join("log"),
            apart: false,
        };
        let mut process = need(Process::spawn(&launch), "the server cannot be run");
        let wait = Wait::for_at_most(SERVER_LIMIT, &self.clock);
        need(process.wait_ready(wait), "the server did not start");
        self.process = Some(process);
    }

    /// Ends it in order.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            need(process.stop(Wait::for_at_most(SERVER_LIMIT, &self.clock)), "the server did not stop");
        }
    }

    /// Ends it as a power cut would.
    #[track_caller]
    pub fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            need(process.kill(), "the server could not be killed");
        }
    }

    /// Its process id.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        match &self.process {
            Some(process) => process.pid(),
            None => fail("the server does not run"),
        }
    }

    /// Its directory.
    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.root.path().join("socket")
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("log")).unwrap_or_default()
    }

    /// Its address for clients, without a user.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Options for its socket.
    pub fn options(&self) -> ConnectOptions {
        ConnectOptions::new(lifeboat_net::Address::Unix(self.socket())).with_silence_limit(COMMAND_LIMIT)
    }

    /// A connection of its own.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        need(Connection::open(&self.options()), "the server takes no connection")
    }

    /// Runs one command of plain words on a connection of its own.
    #[track_caller]
    pub fn run(&self, words: &str) -> Reply {
        need(self.connect().ask(words), words)
    }

    /// Runs one command of any bytes on a connection of its own.
    #[track_caller]
    pub fn run_parts(&self, parts: &[&[u8]]) -> Reply {
        need(self.connect().command(parts), "a command of a test")
    }

    /// Sends commands as fast as they are read, and waits for all their answers, none of which may be an error.
    #[track_caller]
    pub fn load<P: AsRef<[u8]>>(&self, commands: impl IntoIterator<Item = Vec<P>>) {
        const BATCH: usize = 1000;
        let mut stream = need(UnixStream::connect(self.socket()), "the server takes no connection");
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let mut out = Vec::new();
            let mut count = 0;
            for command in commands.by_ref().take(BATCH) {
                let parts: Vec<&[u8]> = command.iter().map(AsRef::as_ref).collect();
                out.extend_from_slice(&encode(&parts));
                count += 1;
            }
            out.extend_from_slice(&encode(&[b"ECHO", b"lifeboat-batch-end"]));
            need(stream.write_all(&out), "commands could not be sent");
            let (answers, errors) = need(read_until_mark(&mut stream), "answers could not be read");
            if errors > 0 {
                fail(format_args!("{errors} of {count} commands failed: {answers}"));
            }
        }
    }
}

/// Reads answers up to the mark; gives the first error and how many there are.
fn read_until_mark(stream: &mut UnixStream) -> std::io::Result<(String, usize)> {
    use std::io::{BufRead, BufReader};
    let (mut first, mut errors) = (String::new(), 0);
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.starts_with(b"lifeboat-batch-end") {
            return Ok((first, errors));
        }
        if line.starts_with(b"-") {
            errors += 1;
            if first.is_empty() {
                first = String::from_utf8_lossy(&line).into_owned();
            }
        }
    }
}
