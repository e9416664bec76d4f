//! Finds installed server programs and runs them to their end. What a program is called is never believed: it is asked.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_base::failure::chain;
use lifeboat_base::human::printable;
use lifeboat_base::outside::Guard;
use lifeboat_base::time::SystemClock;

use super::error::SandboxError;
use super::wait::{Wait, pause};

/// How long a program may take to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// Where packages put the programs.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/sbin"];
/// How much of what a program says last is kept.
const TAIL_BYTES: u64 = 4 * 1024;
/// The search path of a program; nothing of ours is passed on.
pub(super) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The programs of one Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The version as the server tells it, such as `7.0.15`.
    pub version: String,
    /// The folder with `redis-server`, `redis-check-rdb` and `redis-check-aof`.
    pub bin: PathBuf,
}

impl Programs {
    /// The first server found in the folders `first` (such as the one a policy names), then where packages put it.
    pub fn find(first: &[PathBuf]) -> Result<Self, SandboxError> {
        let mut looked = Vec::new();
        for bin in first.iter().cloned().chain(FOLDERS.map(PathBuf::from)) {
            match ask(&bin) {
                Ok(version) => return Ok(Self { version, bin }),
                Err(why) => looked.push(format!("{} ({why})", bin.display())),
            }
        }
        Err(SandboxError::NotInstalled { looked: looked.join(", ") })
    }

    /// The first number of the version.
    pub fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or_default()
    }

    /// The path of one of its programs, which need not exist.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Runs one of its programs to its end, with what it says in a file in `scratch` meanwhile; anything but success is
    /// an error with what it said last.
    pub fn run(&self, name: &str, file: &Path, scratch: &Path, wait: Wait<'_>) -> Result<(), SandboxError> {
        let mut command = Command::new(self.program(name));
        command.arg(file);
        run(command, &scratch.join(format!("{name}.out")), wait).map(drop)
    }
}

fn ask(bin: &Path) -> Result<String, String> {
    let program = bin.join("redis-server");
    if !program.is_file() {
        return Err("no redis-server".to_owned());
    }
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("--version");
    let clock = SystemClock::new();
    let wait = Wait::for_at_most(VERSION_LIMIT, &clock);
    let said = run(command, &scratch.path().join("out"), wait).map_err(|error| chain(&error))?;
    let version = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
    version.map(str::to_owned).ok_or_else(|| "its version is not known".to_owned())
}

/// Runs a program without a shell; gives the last of what it said.
fn run(mut command: Command, said: &Path, wait: Wait<'_>) -> Result<String, SandboxError> {
    let name = command.get_program().to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
    let open = |path: &Path| OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    let mut out = open(said).map_err(SandboxError::io("open", said))?;
    let out_too = || out.try_clone().map_err(SandboxError::io("open", said));
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
    command.stdin(Stdio::null()).stdout(out_too()?).stderr(out_too()?);
    let mut guard = Guard::new();
    let mut child = command.spawn().map_err(SandboxError::io("run", Path::new(&name)))?;
    guard.over(&child);
    let started = wait.clock.monotonic();
    loop {
        if let Some(status) = child.try_wait().map_err(SandboxError::io("wait for", Path::new(&name)))? {
            let message = tail(&mut out).unwrap_or_default();
            if status.success() {
                return Ok(message);
            }
            return Err(SandboxError::Program { program: name, status: status.to_string(), message });
        }
        let late = wait.clock.monotonic().saturating_sub(started) > wait.limit;
        if late || (wait.cancelled)() {
            // One that is gone already is as good.
            drop(child.kill());
            drop(child.wait());
            if !late {
                return Err(SandboxError::Cancelled);
            }
            let (status, limit_s) = ("ended by us".to_owned(), wait.limit.as_secs());
            let message = format!("no end within {limit_s} s");
            return Err(SandboxError::Program { program: name, status, message });
        }
        pause();
    }
}

/// The end of a file, printable.
pub(super) fn tail(file: &mut File) -> std::io::Result<String> {
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim().lines().map(printable).collect::<Vec<_>>().join("\n"))
}
