//! A throwaway member on a data directory that is a copy. Its folder `lb-etcd-RANDOM` (mode 0700) holds `lease` (held by us
//! while we live), `log`, and the two sockets it listens on; it stands in that folder, has no port and no environment. It has a
//! network of its own where the machine allows it, and ends with us where it can.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use lifeboat_base::apart::servers;
use lifeboat_base::entropy::Entropy;
use lifeboat_base::human::printable;
use lifeboat_base::leased::LeasedFolder;
use lifeboat_base::time::Clock;

use super::installation::Installation;
use super::sweep::FOLDER_PREFIX;
use super::tool::pause;
use crate::error::EtcdError;
use crate::rpc::{Client, ClientOptions, Endpoint, TlsPem};

/// Where members have their folders.
pub const RUNTIME: &str = "/tmp";
/// The sockets, in the only form that all versions take: a name, a colon, a number.
const CLIENT_SOCKET: &str = "c:1";
const PEER_SOCKET: &str = "p:1";
/// A copy is never too large for its own quota.
const QUOTA_BYTES: &str = "1099511627776";
/// How much of the log's end is shown.
const LOG_TAIL_BYTES: u64 = 2048;

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

impl std::fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wait({:?})", self.limit)
    }
}

/// A running member. Dropping it ends the process and removes the member's own folder; the data directory stays.
#[derive(Debug)]
pub struct Member {
    child: Child,
    folder: Folder,
    started: Duration,
}

/// Its own folder; removed when dropped.
#[derive(Debug)]
struct Folder {
    /// Without links, as the working directory of a process is told.
    path: PathBuf,
    _own: LeasedFolder,
}

impl Member {
    /// Starts a member on `data` and waits until it leads its cluster of one. The member writes to `data`: never call it on
    /// anything but a copy.
    pub fn start(
        installed: &Installation,
        data: &Path,
        entropy: &dyn Entropy,
        wait: Wait<'_>,
    ) -> Result<Self, EtcdError> {
        let data = fs::canonicalize(data).map_err(EtcdError::io("find", data))?;
        let folder = Folder::make(Path::new(RUNTIME), entropy)?;
        let log_path = folder.path.join("log");
        let log = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&log_path);
        let log = log.map_err(EtcdError::io("make", &log_path))?;
        let second = log.try_clone().map_err(EtcdError::io("open", &log_path))?;
        let (clients, peers) = (format!("unix://{CLIENT_SOCKET}"), format!("unix://{PEER_SOCKET}"));
        let mut command = servers().command(&installed.server, None);
        command.arg("--data-dir").arg(&data);
        for (flag, value) in [
            ("--listen-client-urls", clients.as_str()),
            ("--advertise-client-urls", clients.as_str()),
            ("--listen-peer-urls", peers.as_str()),
            ("--initial-advertise-peer-urls", peers.as_str()),
            ("--initial-cluster", &format!("default={peers}")),
            ("--quota-backend-bytes", QUOTA_BYTES),
        ] {
            command.arg(flag).arg(value);
        }
        command.arg("--enable-grpc-gateway=false");
        command.env_clear().current_dir(&folder.path);
        command.stdin(Stdio::null()).stdout(second).stderr(log);
        let started = wait.clock.monotonic();
        let child = servers().start(command).map_err(EtcdError::io("run", &installed.server))?;
        let mut member = Self { child, folder, started };
        member.wait_ready(wait)?;
        Ok(member)
    }

    /// The socket that clients use.
    pub fn socket(&self) -> PathBuf {
        self.folder.path.join(CLIENT_SOCKET)
    }

    /// A new connection to it.
    pub fn connect(&self) -> Result<Client, EtcdError> {
        let endpoint = Endpoint::Unix(self.socket());
        let options =
            ClientOptions { endpoints: vec![endpoint.clone()], tls: TlsPem::default(), login: None };
        Client::connect(&options, &endpoint)
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How long ago it was started.
    pub fn age(&self, clock: &dyn Clock) -> Duration {
        clock.monotonic().saturating_sub(self.started)
    }

    fn wait_ready(&mut self, wait: Wait<'_>) -> Result<(), EtcdError> {
        let started = wait.clock.monotonic();
        loop {
            if let Some(status) = self.status()? {
                return Err(EtcdError::Ended { status: status.to_string(), log: self.log_tail() });
            }
            if self.folder.path.join(CLIENT_SOCKET).exists()
                && let Ok(mut client) = self.connect()
                && client.status().is_ok_and(|status| status.leader != 0)
            {
                return Ok(());
            }
            if (wait.cancelled)() {
                return Err(EtcdError::Cancelled);
            }
            if wait.clock.monotonic().saturating_sub(started) > wait.limit {
                return Err(EtcdError::Program {
                    program: "etcd".to_owned(),
                    status: "ended by us".to_owned(),
                    message: format!(
                        "not ready within {} s; its log ends with: {}",
                        wait.limit.as_secs(),
                        self.log_tail()
                    ),
                });
            }
            pause();
        }
    }

    fn status(&mut self) -> Result<Option<ExitStatus>, EtcdError> {
        self.child.try_wait().map_err(EtcdError::doing("wait for the server"))
    }

    /// The last lines of its log, printable, at most 2 KiB.
    pub fn log_tail(&self) -> String {
        tail(&self.folder.path.join("log")).unwrap_or_else(|error| format!("(not readable: {error})"))
    }
}

impl Drop for Member {
    /// At once: the copy it works on is removed next.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Folder {
    fn make(runtime: &Path, entropy: &dyn Entropy) -> Result<Self, EtcdError> {
        let own = LeasedFolder::make(runtime, FOLDER_PREFIX, "a throwaway etcd", entropy)
            .map_err(EtcdError::io("make a folder in", runtime))?;
        let path = fs::canonicalize(own.path()).map_err(EtcdError::io("find", own.path()))?;
        Ok(Self { path, _own: own })
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().rev().take(5).collect();
    Ok(printable(&lines.into_iter().rev().collect::<Vec<_>>().join(" / ")))
}
