//! A server's process: started with a configuration file, waited for, ended.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use lifeboat_base::apart::servers;
use lifeboat_base::time::SystemClock;
use lifeboat_net::Address;
use rustix::process::{Pid, Signal, kill_process};

use super::error::SandboxError;
use super::programs::{PATH, Programs, tail};
use super::sandbox::SOCKET;
use super::wait::{Wait, pause};
use crate::wire::{ConnectOptions, Connection, RedisError};

/// How long a killed process may take to disappear.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How long a server that is dropped may take to end in order before it is killed.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// What to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The server's programs.
    pub programs: &'a Programs,
    /// Its configuration, one setting a pair; values are quoted here.
    pub settings: &'a [(String, String)],
    /// The file it is written to.
    pub configuration: &'a Path,
    /// The socket that the settings name.
    pub socket: &'a Path,
    /// Where its messages go; made if missing, appended to.
    pub log: &'a Path,
    /// Whether it is kept from the machine's network and ends with this process, as far as the machine lets us.
    pub apart: bool,
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a server in a process group of its own, with an empty environment; returns before it is ready.
    pub fn spawn(launch: &Launch<'_>) -> Result<Self, SandboxError> {
        let lines: Vec<_> = launch.settings.iter().map(|(name, value)| line(name, value)).collect();
        let text = lines.concat();
        lifeboat_base::crashsafe::replace(launch.configuration, text.as_bytes())
            .map_err(SandboxError::io("write", launch.configuration))?;
        let log = OpenOptions::new().append(true).create(true).open(launch.log);
        let log = log.map_err(SandboxError::io("open", launch.log))?;
        let second = log.try_clone().map_err(SandboxError::io("open", launch.log))?;
        let program = launch.programs.program("redis-server");
        let mut command =
            if launch.apart { servers().command(&program, None) } else { Command::new(&program) };
        command.arg(launch.configuration);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
        command.stdin(Stdio::null()).stdout(second).stderr(log).process_group(0);
        let child = if launch.apart { servers().start(command) } else { command.spawn() };
        let child = child.map_err(SandboxError::io("run", &program))?;
        Ok(Self { child, socket: launch.socket.to_owned(), log: launch.log.to_owned(), ended: None })
    }

    /// Starts a server of our own in `folder` on the data in `work` and waits until it takes commands: reachable through a
    /// private socket there and nowhere else, and saving nothing by itself. `more` adds to what all of them have.
    pub(super) fn start_private(
        programs: &Programs,
        (folder, work): (&Path, &Path),
        more: &[(&str, &str)],
        wait: Wait<'_>,
    ) -> Result<Self, SandboxError> {
        let socket = folder.join(SOCKET);
        let (path, work) = (socket.to_string_lossy(), work.to_string_lossy());
        let common = [
            ("port", "0"),
            ("unixsocket", &path),
            ("unixsocketperm", "600"),
            ("dir", &work),
            ("daemonize", "no"),
            ("supervised", "no"),
            ("save", ""),
            ("appendfsync", "no"),
        ];
        let settings = common.iter().chain(more);
        let settings: Vec<_> =
            settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let launch = Launch {
            programs,
            settings: &settings,
            configuration: &folder.join("redis.conf"),
            socket: &socket,
            log: &folder.join("log"),
            apart: true,
        };
        let mut process = Self::spawn(&launch)?;
        process.wait_ready(wait)?;
        Ok(process)
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Options for a connection to its socket, as the default user.
    pub fn options(&self) -> ConnectOptions {
        ConnectOptions::new(Address::Unix(self.socket.clone()))
    }

    /// Whether it lives.
    pub fn is_running(&mut self) -> bool {
        self.status().is_ok_and(|status| status.is_none())
    }

    /// Waits until it has loaded its data and answers. On any failure it is ended.
    pub fn wait_ready(&mut self, wait: Wait<'_>) -> Result<(), SandboxError> {
        let started = wait.clock.monotonic();
        let failure = loop {
            if let Some(status) = self.status()? {
                break SandboxError::Ended { status: status.to_string(), log: self.log_tail() };
            }
            match answers(&self.options()) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => break error.into(),
            }
            if (wait.cancelled)() {
                break SandboxError::Cancelled;
            }
            if wait.clock.monotonic().saturating_sub(started) > wait.limit {
                break self.late("ready", wait.limit);
            }
            pause();
        };
        self.kill()?;
        Err(failure)
    }

    /// Ends it as it ends when asked to; one that does not end in time is killed, which is an error.
    pub fn stop(&mut self, wait: Wait<'_>) -> Result<(), SandboxError> {
        self.signal(Signal::TERM)?;
        self.wait_gone("stopped", wait)
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) -> Result<(), SandboxError> {
        self.signal(Signal::KILL)?;
        self.wait_gone("gone", Wait::for_at_most(END_LIMIT, &SystemClock::new()))
    }

    /// The last lines of its messages, printable, at most 4 KiB.
    pub fn log_tail(&self) -> String {
        let read = OpenOptions::new().read(true).open(&self.log).and_then(|mut file| tail(&mut file));
        read.unwrap_or_else(|error| format!("(not readable: {error})"))
    }

    fn wait_gone(&mut self, goal: &'static str, wait: Wait<'_>) -> Result<(), SandboxError> {
        let started = wait.clock.monotonic();
        let mut late = None;
        while self.status()?.is_none() {
            let waited = wait.clock.monotonic().saturating_sub(started);
            if waited > wait.limit && late.is_none() {
                late = Some(self.late(goal, wait.limit));
                self.signal(Signal::KILL)?;
            }
            // A process that waits for a dead disk cannot be ended.
            if waited > wait.limit + END_LIMIT {
                break;
            }
            pause();
        }
        late.map_or(Ok(()), Err)
    }

    fn late(&self, goal: &'static str, limit: Duration) -> SandboxError {
        SandboxError::Late { goal, limit_s: limit.as_secs(), log: self.log_tail() }
    }

    fn status(&mut self) -> Result<Option<ExitStatus>, SandboxError> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().map_err(SandboxError::io("wait for", &self.socket))?;
        }
        Ok(self.ended)
    }

    /// Signals it, unless it has ended: until it is reaped here its number is not given to another.
    fn signal(&mut self, signal: Signal) -> Result<(), SandboxError> {
        if self.status()?.is_some() {
            return Ok(());
        }
        let Some(pid) = Pid::from_raw(self.pid()) else { return Ok(()) };
        kill_process(pid, signal)
            .map_err(std::io::Error::from)
            .map_err(SandboxError::io("signal the server of", &self.socket))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to tell; whatever stays behind is found by the next sweep.
        drop(self.stop(Wait::for_at_most(DROP_LIMIT, &SystemClock::new())));
    }
}

/// True once it takes commands; false while it starts or loads.
fn answers(options: &ConnectOptions) -> Result<bool, RedisError> {
    let mut connection = match Connection::open(options) {
        Ok(connection) => connection,
        Err(RedisError::Unreachable { .. } | RedisError::Closed { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    match connection.ask("PING") {
        Ok(_) => Ok(true),
        Err(RedisError::Server { source, .. }) if source.code == "LOADING" => Ok(false),
        // It wants a password, so it takes commands.
        Err(RedisError::Server { source, .. }) if source.code == "NOAUTH" => Ok(true),
        Err(RedisError::Closed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A line of the configuration file; values that are lists, such as those of `user` and `save`, stay as they are.
fn line(name: &str, value: &str) -> String {
    const LISTS: [&str; 8] = [
        "bind",
        "client-output-buffer-limit",
        "loadmodule",
        "rename-command",
        "replicaof",
        "save",
        "unixsocketperm",
        "user",
    ];
    if LISTS.contains(&name) && !value.is_empty() {
        return format!("{name} {value}\n");
    }
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{name} \"{value}\"\n")
}
