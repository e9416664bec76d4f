//! A server's first process: started with exact arguments, waited for, ended. Knows nothing of isolation.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use lifeboat_base::apart::servers;
use lifeboat_base::human::printable;
use lifeboat_base::process::family;
use lifeboat_base::time::Clock;
use rustix::process::{Pid, Signal, kill_process};

use super::account::Account;
use super::error::ServerError;
use super::installation::Installation;
use super::memory::{Segment, release_shared_memory};
use super::occupied::open_plain;
use super::processes::end_remains;

/// Between two looks at a state that a server publishes in a file: there is no event to wait for.
const POLL: Duration = Duration::from_millis(10);
/// How much of the log's end is shown.
const LOG_TAIL_BYTES: u64 = 4 * 1024;
/// How long processes may take to disappear after they were ended, before that is an error.
const END_LIMIT: Duration = Duration::from_secs(20);
/// The longest pid file read.
const MAX_PID_FILE_BYTES: u64 = 8 * 1024;
/// The search path of a server; nothing of ours is passed on.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Lets a moment pass before the next look.
pub(super) fn pause() {
    std::thread::park_timeout(POLL);
}

/// What to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The server's programs.
    pub installation: &'a Installation,
    /// The data directory; belongs to `account`.
    pub data: &'a Path,
    /// Settings for the command line, where they beat every configuration file.
    pub settings: &'a [(String, String)],
    /// Who it runs as.
    pub account: &'a Account,
    /// Where its messages go; made if missing, appended to.
    pub log: &'a Path,
    /// Whether it is kept from the machine's network and ends with this process, as far as the machine lets us.
    pub apart: bool,
}

/// How long to wait and who may end the waiting.
#[derive(Clone, Copy)]
pub struct Wait<'a> {
    /// The longest time to wait.
    pub limit: Duration,
    /// The clock that measures it.
    pub clock: &'a dyn Clock,
    /// Asked every few milliseconds; true ends the waiting.
    pub cancelled: &'a dyn Fn() -> bool,
}

impl<'a> Wait<'a> {
    /// Waits for `limit` and cannot be cancelled.
    pub fn for_at_most(limit: Duration, clock: &'a dyn Clock) -> Self {
        Self { limit, clock, cancelled: &|| false }
    }
}

impl std::fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wait({:?})", self.limit)
    }
}

/// What a server says about itself in its pid file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It starts or recovers and takes no connections.
    Starting,
    /// It recovers, and `hot_standby` is off: no connections until recovery ends.
    Recovering,
    /// It takes connections. With `hot_standby` on that may be while it still recovers.
    Ready,
    /// It is about to end.
    Stopping,
}

/// How to end a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Transactions are rolled back, a checkpoint is written.
    Fast,
    /// No checkpoint: the next start recovers as after a crash.
    Immediate,
}

/// A running server. Dropping it ends every process of it.
#[derive(Debug)]
pub struct Postmaster {
    child: Child,
    data: PathBuf,
    log: PathBuf,
    /// The log's length at the start, so that older messages are not shown as this server's.
    log_start_bytes: u64,
    ended: Option<ExitStatus>,
}

impl Postmaster {
    /// Starts a server in a process group of its own, with an empty environment; returns before it is ready.
    pub fn spawn(launch: &Launch<'_>) -> Result<Self, ServerError> {
        if let Some(PidFile { pid, .. }) = read_pid_file(launch.data)
            && super::processes::servers_in(launch.data).contains(&pid)
        {
            return Err(ServerError::Running { data: launch.data.to_owned(), pid });
        }
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(launch.log);
        let log = log.map_err(ServerError::io("open", launch.log))?;
        let log_start_bytes = log.metadata().map_err(ServerError::io("look at", launch.log))?.len();
        let second = log.try_clone().map_err(ServerError::io("open", launch.log))?;
        let program = launch.installation.program("postgres");
        let mut command = if launch.apart {
            servers().command(&program, launch.account.switched())
        } else {
            let mut command = Command::new(&program);
            launch.account.apply(&mut command);
            command
        };
        command.arg("-D").arg(launch.data);
        for (name, value) in launch.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
        command.stdin(Stdio::null()).stdout(second).stderr(log).process_group(0);
        let child = if launch.apart { servers().start(command) } else { command.spawn() };
        let child = child.map_err(ServerError::io("run", &program))?;
        Ok(Self {
            child,
            data: launch.data.to_owned(),
            log: launch.log.to_owned(),
            log_start_bytes,
            ended: None,
        })
    }

    /// The process id of the first process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Whether its first process lives.
    pub fn is_running(&mut self) -> bool {
        self.status().is_ok_and(|status| status.is_none())
    }

    /// What it says about itself now; nothing before it wrote its pid file.
    pub fn state(&self) -> Option<ServerState> {
        let file = read_pid_file(&self.data)?;
        (file.pid == self.pid()).then_some(file.state).flatten()
    }

    /// Waits until it takes connections; with `hot_standby=off` that is when recovery has ended. On any failure the
    /// server is ended.
    pub fn wait_ready(&mut self, wait: Wait<'_>) -> Result<(), ServerError> {
        let started = wait.clock.monotonic();
        let failure = loop {
            if let Some(status) = self.status()? {
                break ServerError::Ended { status: status.to_string(), log: self.log_tail() };
            }
            if self.state() == Some(ServerState::Ready) {
                return Ok(());
            }
            if (wait.cancelled)() {
                break ServerError::Cancelled;
            }
            if wait.clock.monotonic().saturating_sub(started) > wait.limit {
                break self.late("ready", wait.limit);
            }
            pause();
        };
        self.kill(wait.clock)?;
        Err(failure)
    }

    /// Ends it and waits until its last process is gone. One that does not end in time is killed, which is an error.
    pub fn stop(&mut self, how: Stop, wait: Wait<'_>) -> Result<(), ServerError> {
        let started = wait.clock.monotonic();
        let relatives = family(self.pid());
        self.signal(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        })?;
        while self.status()?.is_none() {
            if wait.clock.monotonic().saturating_sub(started) > wait.limit {
                let late = self.late("stopped", wait.limit);
                self.kill(wait.clock)?;
                return Err(late);
            }
            pause();
        }
        self.wait_gone(&relatives, wait.clock)
    }

    /// Ends every process at once, as a power cut would, and waits until they are gone.
    pub fn kill(&mut self, clock: &dyn Clock) -> Result<(), ServerError> {
        let relatives = family(self.pid());
        self.signal(Signal::KILL)?;
        let started = clock.monotonic();
        while self.status()?.is_none() {
            // A process that waits for a dead disk or network file system cannot be ended.
            if clock.monotonic().saturating_sub(started) > END_LIMIT {
                return Err(self.late("gone", END_LIMIT));
            }
            pause();
        }
        self.wait_gone(&relatives, clock)?;
        while !release_shared_memory(&self.data) && clock.monotonic().saturating_sub(started) <= END_LIMIT {
            pause();
        }
        Ok(())
    }

    /// The last lines of this server's messages, printable, at most 4 KiB.
    pub fn log_tail(&self) -> String {
        tail(&self.log, self.log_start_bytes).unwrap_or_else(|error| format!("(not readable: {error})"))
    }

    fn late(&self, goal: &'static str, limit: Duration) -> ServerError {
        ServerError::Late { goal, limit_s: limit.as_secs(), log: self.log_tail() }
    }

    fn status(&mut self) -> Result<Option<ExitStatus>, ServerError> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().map_err(ServerError::io("wait for", &self.data))?;
        }
        Ok(self.ended)
    }

    /// Signals the first process, unless it has ended: until it is reaped here its number is not given to another.
    fn signal(&mut self, signal: Signal) -> Result<(), ServerError> {
        if self.status()?.is_some() {
            return Ok(());
        }
        let Some(pid) = Pid::from_raw(self.pid()) else { return Ok(()) };
        kill_process(pid, signal)
            .map_err(io::Error::from)
            .map_err(ServerError::io("signal the server on", &self.data))
    }

    fn wait_gone(&self, relatives: &BTreeSet<(i32, u64)>, clock: &dyn Clock) -> Result<(), ServerError> {
        let started = clock.monotonic();
        while end_remains(&self.data, relatives) > 0 {
            if clock.monotonic().saturating_sub(started) > END_LIMIT {
                return Err(self.late("gone", END_LIMIT));
            }
            pause();
        }
        Ok(())
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        // Nobody is left to tell; whatever stays behind is found by the next sweep.
        drop(self.kill(&lifeboat_base::time::SystemClock::new()));
    }
}

/// What a server says about itself in its data directory.
pub(super) struct PidFile {
    pub(super) pid: i32,
    /// Its first folder with sockets.
    pub(super) sockets: Option<PathBuf>,
    pub(super) segment: Option<Segment>,
    pub(super) state: Option<ServerState>,
}

/// The pid file of `data`, if there is one.
pub(super) fn read_pid_file(data: &Path) -> Option<PidFile> {
    let mut text = String::new();
    let file = open_plain(&data.join("postmaster.pid")).ok()?;
    file.take(MAX_PID_FILE_BYTES).read_to_string(&mut text).ok()?;
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let sockets = lines.nth(3).filter(|line| !line.is_empty()).map(PathBuf::from);
    let segment = lines.nth(1).and_then(Segment::parse);
    let state = match lines.next().map(str::trim) {
        Some("starting") => Some(ServerState::Starting),
        Some("standby") => Some(ServerState::Recovering),
        Some("ready") => Some(ServerState::Ready),
        Some("stopping") => Some(ServerState::Stopping),
        _ => None,
    };
    Some(PidFile { pid, sockets, segment, state })
}

fn tail(log: &Path, start_bytes: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let end = file.seek(SeekFrom::End(0))?;
    let from = end.saturating_sub(LOG_TAIL_BYTES).max(start_bytes.min(end));
    let mut bytes = vec![0; usize::try_from(end - from).unwrap_or_default()];
    file.read_exact_at(&mut bytes, from)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.trim().lines().map(printable).collect();
    Ok(lines.join("\n"))
}
