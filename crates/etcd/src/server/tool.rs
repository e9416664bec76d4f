//! Runs a program to its end: no shell, bounded output, a deadline, and no child of it left behind.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lifeboat_base::human::printable;
use lifeboat_base::time::Clock;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::installation::Installation;
use crate::error::EtcdError;

/// How much of each output stream of a program is kept; the rest is read and dropped.
const MAX_OUTPUT_BYTES: usize = 1024 * 1024;
/// How much of a program's complaint goes into an error: its end, where the reason stands.
const MAX_MESSAGE_CHARS: usize = 600;
/// How long the rest of its output is waited for once a program has ended.
const OUTPUT_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a process: there is no event to wait for.
const POLL: Duration = Duration::from_millis(5);
/// How long making a data directory may take.
const RESTORE_LIMIT: Duration = Duration::from_secs(3600);
/// How deep a data directory is.
const MAX_DEPTH: usize = 8;

/// How a program is run.
pub(crate) struct Run<'a> {
    pub(crate) limit: Duration,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) cancelled: &'a dyn Fn() -> bool,
}

/// Lets a moment pass before the next look.
pub(super) fn pause() {
    thread::park_timeout(POLL);
}

/// Runs `command` to its end, in a process group of its own; anything but success is an error with the end of what it
/// said. Gives its standard output.
pub(crate) fn run(mut command: Command, how: &Run<'_>) -> Result<String, EtcdError> {
    let program = command.get_program().to_owned();
    let name = program.to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
    let started = how.clock.monotonic();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(EtcdError::io("run", Path::new(&program)))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = (Heard::from(out), Heard::from(err));
    let failed = |status: String, message: String| EtcdError::Program { program: name, status, message };
    while !has_ended(&child)? {
        if (how.cancelled)() {
            end(&mut child);
            return Err(EtcdError::Cancelled);
        }
        if how.clock.monotonic().saturating_sub(started) > how.limit {
            end(&mut child);
            let message = format!("no end within {} s", how.limit.as_secs());
            return Err(failed("ended by us".to_owned(), message));
        }
        pause();
    }
    // What it left running would keep the pipes open. Until it is waited for, its number is nobody else's.
    kill_group(&child);
    let status = child.wait().map_err(EtcdError::doing("wait for a program"))?;
    let ended = how.clock.monotonic();
    while !(out.is_all() && err.is_all()) && how.clock.monotonic().saturating_sub(ended) < OUTPUT_LIMIT {
        pause();
    }
    let (out, err) = (out.take(), err.take());
    if status.success() {
        return Ok(String::from_utf8_lossy(&out).into_owned());
    }
    let said = String::from_utf8_lossy(if err.is_empty() { &out } else { &err }).trim().to_owned();
    let skipped = said.chars().count().saturating_sub(MAX_MESSAGE_CHARS);
    Err(failed(status.to_string(), printable(&said.chars().skip(skipped).collect::<String>())))
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

/// Whether a child has ended; it stays to be waited for.
fn has_ended(child: &Child) -> Result<bool, EtcdError> {
    let Some(pid) = Pid::from_raw(child.id().cast_signed()) else { return Ok(true) };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let ended = waitid(WaitId::Pid(pid), look).map_err(io::Error::from);
    Ok(ended.map_err(EtcdError::doing("look at a program"))?.is_some())
}

/// Ends a child that was not waited for yet, and everything in its process group.
fn end(child: &mut Child) {
    kill_group(child);
    drop(child.wait());
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

/// Has etcd's own program make the data directory `into` (new) of a snapshot, for a cluster of one member that is called
/// `default`. Everything in it is durable when this returns.
pub fn make_data_directory(
    installed: &Installation,
    snapshot: &Path,
    into: &Path,
    clock: &dyn Clock,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), EtcdError> {
    let Some(restorer) = &installed.restorer else {
        return Err(EtcdError::NotInstalled {
            wanted: format!("{} with etcdutl or etcdctl", installed.version),
            looked: installed.server.display().to_string(),
        });
    };
    // The program runs elsewhere.
    let snapshot = fs::canonicalize(snapshot).map_err(EtcdError::io("find", snapshot))?;
    let into = std::path::absolute(into).map_err(EtcdError::io("find", into))?;
    let mut command = Command::new(restorer);
    command.arg("snapshot").arg("restore").arg(snapshot).arg("--data-dir").arg(&into);
    command.env_clear().env("ETCDCTL_API", "3").current_dir("/");
    run(command, &Run { limit: RESTORE_LIMIT, clock, cancelled })?;
    sync(&into, 0)
}

fn sync(path: &Path, depth: usize) -> Result<(), EtcdError> {
    let meta = fs::symlink_metadata(path).map_err(EtcdError::io("look at", path))?;
    if meta.is_dir() && depth < MAX_DEPTH {
        for entry in fs::read_dir(path).map_err(EtcdError::io("list", path))? {
            sync(&entry.map_err(EtcdError::io("list", path))?.path(), depth + 1)?;
        }
    }
    if meta.is_symlink() {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(EtcdError::io("sync", path))
}
