//! A throwaway server on a directory that is a copy: reachable through a private socket only, and reaching nothing. It has a
//! network of its own where the machine allows it, and ends with us where it can.
//!
//! It runs as a replica whose primary does not exist: a replica never lets a key end by itself, so what was captured is
//! what is found, also when its time is over. Its folder `lb-redis-RANDOM` holds `lease` (held by us while we live),
//! `redis.conf`, `log` and the socket `s`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lifeboat_base::entropy::Entropy;
use lifeboat_base::leased::LeasedFolder;
use rustix::net::{AddressFamily, SocketType};

use super::error::SandboxError;
use super::process::Process;
use super::programs::Programs;
use super::sweep::FOLDER_PREFIX;
use super::wait::Wait;
use crate::wire::{ConnectOptions, Connection, RedisError};

/// The longest path of a socket: `sun_path` has 108 bytes, one of them for the end.
const MAX_SOCKET_PATH_BYTES: usize = 107;
pub(super) const SOCKET: &str = "s";

/// Where sandboxes have their folders if they are not told otherwise.
pub const RUNTIME: &str = "/tmp";

/// What a sandbox is to be like.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Where its own small folder is made; [`RUNTIME`] if nothing is given. The path must be short.
    pub runtime: Option<PathBuf>,
    /// The server's working directory. It loads `appendonlydir/` from here, or `dump.rdb` where `append_only` is false,
    /// and writes what it is told to save.
    pub work: PathBuf,
    /// Whether it loads a base and commands, else a dump alone.
    pub append_only: bool,
    /// How many databases there are.
    pub databases: u64,
}

/// A running sandbox. Dropping it ends the server and removes its own folder; the working directory stays.
#[derive(Debug)]
pub struct Sandbox {
    // The order is that of dropping.
    process: Process,
    _folder: LeasedFolder,
    /// Ours, and nobody listens on it.
    _nobody: OwnedFd,
}

impl Sandbox {
    /// Starts a server and waits until it has loaded everything. What it loads must be whole: a file of commands that
    /// was cut is refused.
    pub fn start(
        programs: &Programs,
        options: &SandboxOptions,
        entropy: &dyn Entropy,
        wait: Wait<'_>,
    ) -> Result<Self, SandboxError> {
        let runtime = options.runtime.as_deref().unwrap_or(Path::new(RUNTIME));
        let folder = folder(runtime, entropy)?;
        let (nobody, port) = nobody()?;
        let more = [
            ("databases", options.databases.max(1).to_string()),
            ("appendonly", if options.append_only { "yes" } else { "no" }.to_owned()),
            ("aof-load-truncated", "no".to_owned()),
            ("auto-aof-rewrite-percentage", "0".to_owned()),
            ("maxmemory", "0".to_owned()),
            ("replicaof", format!("127.0.0.1 {port}")),
            ("replica-read-only", "yes".to_owned()),
            ("replica-serve-stale-data", "yes".to_owned()),
            ("crash-log-enabled", "no".to_owned()),
            ("crash-memcheck-enabled", "no".to_owned()),
        ];
        let more: Vec<_> = more.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let process = Process::start_private(programs, (folder.path(), &options.work), &more, wait)?;
        Ok(Self { process, _folder: folder, _nobody: nobody })
    }

    /// A connection to it.
    pub fn connect(&self) -> Result<Connection, RedisError> {
        Connection::open(&self.process.options())
    }

    /// Options for a connection to it.
    pub fn options(&self) -> ConnectOptions {
        self.process.options()
    }

    /// The socket that clients use.
    pub fn socket(&self) -> &Path {
        self.process.socket()
    }

    /// The server's process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The last lines of its log, printable, at most 4 KiB.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Writes everything it holds to `dump.rdb` in its working directory. It answers nobody meanwhile.
    pub fn save(&self, limit: std::time::Duration) -> Result<PathBuf, SandboxError> {
        let options = self.process.options().with_silence_limit(limit);
        Connection::open(&options)?.ask("SAVE")?;
        Ok(PathBuf::from("dump.rdb"))
    }

    /// Ends it and removes its own folder.
    pub fn stop(mut self, wait: Wait<'_>) -> Result<(), SandboxError> {
        self.process.stop(wait)
    }
}

/// The sandbox's own folder, whose socket has a name that the system takes.
pub(super) fn folder(runtime: &Path, entropy: &dyn Entropy) -> Result<LeasedFolder, SandboxError> {
    let folder = LeasedFolder::make(runtime, FOLDER_PREFIX, "sandbox", entropy);
    let folder = folder.map_err(SandboxError::io("make a folder in", runtime))?;
    if folder.path().join(SOCKET).as_os_str().len() > MAX_SOCKET_PATH_BYTES {
        return Err(SandboxError::TooLong(runtime.to_owned()));
    }
    Ok(folder)
}

/// A port of this machine that is bound and not listened on: whoever connects is refused, and nobody else can take it.
fn nobody() -> Result<(OwnedFd, u16), SandboxError> {
    let bind = || {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        let address = rustix::net::getsockname(&socket)?;
        let address = SocketAddrV4::try_from(address)?;
        Ok::<_, rustix::io::Errno>((socket, address.port()))
    };
    bind().map_err(|errno| SandboxError::Io {
        what: "reserve a port that nobody listens on".to_owned(),
        source: errno.into(),
    })
}
