//! Runs a program to its end: no shell, bounded output, a deadline, and no child of it left behind, also if we end first.
//!
//! In: a command whose words and environment are the caller's. Out: what it said, or why it failed.

mod guard;

use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::human::printable;
use crate::time::Clock;

pub use guard::Guard;

/// How much of each output stream of a program is kept; the rest is read and dropped.
const MAX_OUTPUT_BYTES: usize = 1024 * 1024;
/// How much of a program's complaint goes into an error: its end, where the reason stands.
const MAX_MESSAGE_CHARS: usize = 600;
/// How long the rest of its output is waited for once a program has ended.
const OUTPUT_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a process: there is no event to wait for.
const POLL: Duration = Duration::from_millis(5);

/// How a program is run.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// How long it may take.
    pub limit: Duration,
    /// The clock that measures it.
    pub clock: &'a dyn Clock,
    /// Asked every few milliseconds; true ends the program.
    pub cancelled: &'a dyn Fn() -> bool,
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({:?})", self.limit)
    }
}

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// It failed, or did not end in time.
    #[error("{program} failed ({status}): {message}")]
    Program {
        /// Its name.
        program: String,
        /// Its exit status in words.
        status: String,
        /// Its exit status; nothing if a signal ended it.
        code: Option<i32>,
        /// What it said, printable and bounded.
        message: String,
    },
    /// Whoever watches asked for an end.
    #[error("cancelled")]
    Cancelled,
    /// The operating system refused something.
    #[error("could not {what}")]
    Io {
        /// What was tried, with its path.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl OutsideError {
    fn doing(what: &str) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_owned();
        move |source| Self::Io { what, source }
    }
}

/// Lets a moment pass before the next look.
fn pause() {
    thread::park_timeout(POLL);
}

/// Runs `command` to its end, in a process group of its own; anything but success is an error with the end of what it
/// said. Gives its standard output.
pub fn run(command: Command, how: &Run<'_>) -> Result<String, OutsideError> {
    let started = how.clock.monotonic();
    let mut running = Running::start(command)?;
    while !running.has_ended()? {
        if (how.cancelled)() {
            running.end();
            return Err(OutsideError::Cancelled);
        }
        if how.clock.monotonic().saturating_sub(started) > how.limit {
            running.end();
            let message = format!("no end within {} s", how.limit.as_secs());
            return Err(running.failed("ended by us".to_owned(), None, message));
        }
        pause();
    }
    running.wait(how.clock)
}

/// Runs `command` while `work` goes on, and ends it then with everything in its process group. One that ends before is an error,
/// whatever came of the work; `work` may ask whether it still runs.
pub fn beside<T>(
    command: Command,
    clock: &dyn Clock,
    work: impl FnOnce(&dyn Fn() -> bool) -> T,
) -> Result<T, OutsideError> {
    let mut running = Running::start(command)?;
    let came = work(&|| running.has_ended().is_ok_and(|ended| !ended));
    if running.has_ended()? {
        let program = running.name.clone();
        return Err(match running.wait(clock) {
            Err(error) => error,
            Ok(_said) => {
                let (status, message) = ("exit status: 0".to_owned(), "it did not keep running".to_owned());
                OutsideError::Program { program, status, code: Some(0), message }
            }
        });
    }
    running.end();
    Ok(came)
}

/// A program that was started.
struct Running {
    name: String,
    child: Child,
    /// Ends it if we end first. Dropped before it is waited for: then its number is somebody else's.
    guard: Option<Guard>,
    out: Heard,
    err: Heard,
}

impl Running {
    fn start(mut command: Command) -> Result<Self, OutsideError> {
        let program = command.get_program().to_owned();
        let name = program.to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut guard = Guard::new();
        let mut child =
            command.spawn().map_err(OutsideError::doing(&format!("run {}", program.display())))?;
        guard.over_group(&child);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        Ok(Self { name, child, guard: Some(guard), out: Heard::from(out), err: Heard::from(err) })
    }

    /// Whether it has ended; it stays to be waited for.
    fn has_ended(&self) -> Result<bool, OutsideError> {
        let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) else { return Ok(true) };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::Pid(pid), look).map_err(io::Error::from);
        Ok(ended.map_err(OutsideError::doing("look at a program"))?.is_some())
    }

    /// Ends it, if it was not waited for yet, and everything in its process group.
    fn end(&mut self) {
        kill_group(&self.child);
        self.guard = None;
        drop(self.child.wait());
    }

    /// What it said, once it has ended.
    fn wait(&mut self, clock: &dyn Clock) -> Result<String, OutsideError> {
        // What it left running would keep the pipes open. Until it is waited for, its number is nobody else's.
        kill_group(&self.child);
        self.guard = None;
        let status = self.child.wait().map_err(OutsideError::doing("wait for a program"))?;
        let ended = clock.monotonic();
        let is_all = || self.out.is_all() && self.err.is_all();
        while !is_all() && clock.monotonic().saturating_sub(ended) < OUTPUT_LIMIT {
            pause();
        }
        let (out, err) = (self.out.take(), self.err.take());
        if status.success() {
            return Ok(String::from_utf8_lossy(&out).into_owned());
        }
        let said = String::from_utf8_lossy(if err.is_empty() { &out } else { &err }).trim().to_owned();
        let skipped = said.chars().count().saturating_sub(MAX_MESSAGE_CHARS);
        let message = printable(&said.chars().skip(skipped).collect::<String>());
        Err(self.failed(status.to_string(), status.code(), message))
    }

    fn failed(&self, status: String, code: Option<i32>, message: String) -> OutsideError {
        OutsideError::Program { program: self.name.clone(), status, code, message }
    }
}

/// What a program says. It is read by a thread of its own, which lives until the last process that has the pipe is gone: one
/// that left the program's group may keep it for ever, and nobody waits for that.
struct Heard {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Heard {
    fn from(stream: Option<impl Read + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&kept);
        Self { kept, reader: thread::spawn(move || drain(stream, &shared)) }
    }

    fn is_all(&self) -> bool {
        self.reader.is_finished()
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn kill_group(child: &Child) {
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        kill_process_group(group, Signal::KILL).unwrap_or(());
    }
}

/// Reads to the end, so that the program never waits for us, and keeps a bounded part.
fn drain(stream: Option<impl Read>, kept: &Mutex<Vec<u8>>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 8192];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MAX_OUTPUT_BYTES.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SystemClock;

    fn ran(script: &str, limit: Duration, cancelled: bool) -> Result<String, OutsideError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        run(command, &Run { limit, clock: &SystemClock::new(), cancelled: &|| cancelled })
    }

    #[test]
    fn a_program_is_heard_to_its_end_and_its_failure_told() {
        let long = Duration::from_secs(60);
        assert_eq!(ran("echo one; echo two >&2", long, false).unwrap(), "one\n");
        let failed = ran("echo why >&2; exit 3", long, false).unwrap_err().to_string();
        assert!(failed.contains("exit status: 3") && failed.ends_with("why"), "{failed}");
    }

    #[test]
    fn a_program_that_takes_too_long_or_is_not_wanted_is_ended_with_its_children() {
        let script = "sleep 1000 & wait";
        let late = ran(script, Duration::ZERO, false).unwrap_err().to_string();
        assert!(late.contains("ended by us"), "{late}");
        assert!(matches!(ran(script, Duration::from_secs(60), true), Err(OutsideError::Cancelled)));
    }

    #[test]
    fn a_program_runs_beside_the_work_and_ends_with_it_and_one_that_ends_before_is_an_error() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.arg("-c").arg(script);
            command
        };
        let clock = SystemClock::new();
        let came = beside(shell("sleep 1000 & wait"), &clock, |runs| (runs(), 7)).unwrap();
        assert_eq!(came, (true, 7));
        let wait = |runs: &dyn Fn() -> bool| {
            while runs() {
                pause();
            }
        };
        for (script, status) in [("exit 0", "exit status: 0"), ("echo why >&2; exit 3", "exit status: 3")] {
            let failed = beside(shell(script), &clock, wait).unwrap_err().to_string();
            assert!(failed.contains(status), "{failed}");
        }
    }
}
