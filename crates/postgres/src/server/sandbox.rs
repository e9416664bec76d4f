//! A throwaway server on a data directory that is a copy: reachable through a private socket folder only, and
//! reaching nothing outside its own folders. It has a network of its own where the machine allows it, and ends with us where
//! it can.
//!
//! Its folder `lb-pg-RANDOM` holds `lease` (held by us while we live), `record` (what a sweep needs), the three
//! configuration files, `log`, and `s/`, the socket folder, which alone belongs to the server's account. The cluster's
//! own `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf` are not read; its `postgresql.auto.conf`, which the server
//! always reads, is set aside.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::Entropy;
use lifeboat_base::leased::LeasedFolder;
use lifeboat_base::time::{Clock, SystemClock};

use super::account::{Account, give_tree};
use super::control::control_data;
use super::error::ServerError;
use super::installation::Installation;
use super::isolation::{check_links, settings};
use super::memory::release_shared_memory;
use super::postmaster::{Launch, PidFile, Postmaster, ServerState, Stop, Wait, read_pid_file};
use super::processes::servers_in;
use super::sweep::{FOLDER_PREFIX, RECORD, SOCKETS};

/// The longest path of a socket: `sun_path` has 108 bytes, one of them for the end.
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Every sandbox has its own folder, so that all may use the same port number.
/// The number in the name of a sandbox's socket.
pub const PORT: u16 = 5432;
/// How long a sandbox that is dropped may take to end in order before it is killed.
const DROP_LIMIT: Duration = Duration::from_secs(10);
/// For the `options` of every connection to a sandbox, which must be a superuser's: what a role or a database has set
/// beats the command line of the server, and this beats it. No library is loaded into the session, no damage hidden.
pub const CLIENT_OPTIONS: &str = "-c session_preload_libraries= -c local_preload_libraries= \
                                  -c zero_damaged_pages=off -c ignore_checksum_failure=off";
/// Where the cluster's own `postgresql.auto.conf` is kept.
const SET_ASIDE: &str = "postgresql.auto.conf.before-sandbox";
/// Only what can enter the socket folder gets as far as this file.
const HBA: &[u8] = b"local all all trust\n";

/// Where sandboxes have their folders if they are not told otherwise.
pub const RUNTIME: &str = "/tmp";

/// What a sandbox is to be like.
#[derive(Clone, Debug, Default)]
pub struct SandboxOptions {
    /// Where the sandbox's own small folder is made; [`RUNTIME`] if nothing is given. The path must be short.
    pub runtime: Option<PathBuf>,
    /// Further folders that belong to the copy, such as its tablespaces or a `pg_wal` elsewhere. Given to the server's
    /// account as the data directory is; the only places links in the data directory may lead to.
    pub trees: Vec<PathBuf>,
    /// Settings, such as `recovery_target_time`; those the isolation rests on are refused.
    pub settings: Vec<(String, String)>,
    /// The command that fetches WAL segments, run by the server through the system's shell.
    pub restore_command: Option<String>,
    /// Libraries that may be preloaded because the caller knows them to be harmless.
    pub preload: Vec<String>,
}

/// A running sandbox. Dropping it ends the server and removes the sandbox's own folder; the data directory stays.
#[derive(Debug)]
pub struct Sandbox {
    postmaster: Postmaster,
    installation: Installation,
    account: Account,
    folder: Folder,
}

/// The sandbox's own folder; removed when dropped.
#[derive(Debug)]
struct Folder(LeasedFolder);

impl Sandbox {
    /// Starts a server on `data` and waits until it takes connections. With the default `hot_standby=off` that is
    /// when recovery has ended.
    ///
    /// Takes the data directory over: where we are root, it and `options.trees` are given to the account the server
    /// runs as; `postgresql.auto.conf` is set aside; the server recovers and writes. Never call it on anything but a
    /// copy: a directory a server runs on is refused, as is one with links that lead elsewhere. What is changed is changed
    /// through `given` and `options.trees` as they stand: a path below `/proc/self/fd` keeps us to the folder that is held.
    pub fn start(
        installation: &Installation,
        given: &Path,
        options: &SandboxOptions,
        entropy: &dyn Entropy,
        wait: Wait<'_>,
    ) -> Result<Self, ServerError> {
        let real = |path: &Path| fs::canonicalize(path).map_err(ServerError::io("find", path));
        let data = &real(given)?;
        refuse_running(data, given)?;
        let mut trees = vec![given.to_owned()];
        trees.extend(options.trees.iter().cloned());
        check_links(data, &trees)?;
        let account = Account::for_data(given)?;
        for tree in &trees {
            give_tree(tree, &account)?;
        }
        // Afterwards: one of the trees may be the folder above the others.
        for tree in &trees {
            account.check_way_to(&real(tree)?)?;
        }
        account.check_way_to(&installation.program("postgres"))?;
        let control = control_data(installation, data, wait.clock)?;
        let runtime = options.runtime.as_deref().unwrap_or(Path::new(RUNTIME));
        let folder = Folder::make(runtime, data, &account, entropy)?;
        let own = [
            ("config_file", folder.file("postgresql.conf")),
            ("hba_file", folder.file("pg_hba.conf")),
            ("ident_file", folder.file("pg_ident.conf")),
            ("unix_socket_directories", folder.file(SOCKETS)),
            ("port", PORT.to_string()),
            ("shared_preload_libraries", options.preload.join(",")),
            ("restore_command", options.restore_command.clone().unwrap_or_default()),
            ("max_replication_slots", slots(data).to_string()),
        ];
        let settings = settings(installation.major, &control, &options.settings, &own)?;
        set_aside(given)?;
        let log = folder.path().join("log");
        let launch =
            Launch { installation, data, settings: &settings, account: &account, log: &log, apart: true };
        let mut postmaster = Postmaster::spawn(&launch)?;
        postmaster.wait_ready(wait)?;
        Ok(Self { postmaster, installation: installation.clone(), account, folder })
    }

    /// The folder with the socket, for `host=`.
    pub fn socket_dir(&self) -> PathBuf {
        self.folder.path().join(SOCKETS)
    }

    /// The number in the socket's name, for `port=`; no such port is open.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The process id of the server's first process.
    pub fn pid(&self) -> i32 {
        self.postmaster.pid()
    }

    /// Whether it lives.
    pub fn is_running(&mut self) -> bool {
        self.postmaster.is_running()
    }

    /// What it says about itself.
    pub fn state(&self) -> Option<ServerState> {
        self.postmaster.state()
    }

    /// The last lines of its log, printable, at most 4 KiB.
    pub fn log_tail(&self) -> String {
        self.postmaster.log_tail()
    }

    /// One of the server's programs, such as `pg_dump`, as the server's account, pointed at this server through its
    /// environment, which holds nothing else.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.installation.program(name));
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("PGHOST", self.socket_dir());
        command.env("PGPORT", PORT.to_string()).current_dir("/");
        command.env("PGOPTIONS", CLIENT_OPTIONS);
        self.account.apply(&mut command);
        command
    }

    /// Ends it and removes the sandbox's own folder.
    pub fn stop(mut self, how: Stop, limit: Duration, clock: &dyn Clock) -> Result<(), ServerError> {
        self.postmaster.stop(how, Wait::for_at_most(limit, clock))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // In order first, so that its shared memory is given back; the process's own end follows from `Postmaster`.
        drop(self.postmaster.stop(Stop::Immediate, Wait::for_at_most(DROP_LIMIT, &SystemClock::new())));
    }
}

impl Folder {
    fn make(
        runtime: &Path,
        data: &Path,
        account: &Account,
        entropy: &dyn Entropy,
    ) -> Result<Self, ServerError> {
        let longest = runtime.join(format!("{FOLDER_PREFIX}{:016x}", 0)).join(SOCKETS);
        if longest.join(format!(".s.PGSQL.{PORT}.lock")).as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(ServerError::TooLong(runtime.to_owned()));
        }
        let folder = LeasedFolder::make(runtime, FOLDER_PREFIX, "sandbox", entropy);
        let folder = Self(folder.map_err(ServerError::io("make a folder in", runtime))?);
        let sockets = folder.path().join(SOCKETS);
        folder.write(RECORD, data.as_os_str().as_encoded_bytes(), 0o600)?;
        folder.write("postgresql.conf", b"", 0o644)?;
        folder.write("pg_hba.conf", HBA, 0o644)?;
        folder.write("pg_ident.conf", b"", 0o644)?;
        fs::DirBuilder::new().mode(0o700).create(&sockets).map_err(ServerError::io("make", &sockets))?;
        give_tree(&sockets, account)?;
        // The server's account may pass through and read what it is named, and list or change nothing.
        open_to_all(folder.path(), 0o711)?;
        account.check_way_to(&sockets)?;
        Ok(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), ServerError> {
        let path = self.path().join(name);
        crashsafe::write_new(&path, bytes).map_err(ServerError::io("write", &path))?;
        open_to_all(&path, mode)
    }

    fn file(&self, name: &str) -> String {
        self.path().join(name).to_string_lossy().into_owned()
    }
}

fn open_to_all(path: &Path, mode: u32) -> Result<(), ServerError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(ServerError::io("open up", path))
}

/// Refuses a directory on which a server runs, and removes a pid file that a copy brought along, as it was `given`.
fn refuse_running(data: &Path, given: &Path) -> Result<(), ServerError> {
    if let Some(pid) = servers_in(data).first() {
        return Err(ServerError::Running { data: data.to_owned(), pid: *pid });
    }
    if let Some(PidFile { pid, .. }) = read_pid_file(data) {
        // Without /proc a living process of that number cannot be told from the server.
        if !cfg!(target_os = "linux") {
            return Err(ServerError::Running { data: data.to_owned(), pid });
        }
        release_shared_memory(data);
        let path = given.join("postmaster.pid");
        crashsafe::remove(&path).map_err(ServerError::io("remove", &path))?;
    }
    Ok(())
}

/// Keeps the cluster's own `postgresql.auto.conf` under another name, once.
fn set_aside(data: &Path) -> Result<(), ServerError> {
    let (from, to) = (data.join("postgresql.auto.conf"), data.join(SET_ASIDE));
    match crashsafe::publish(&from, &to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // An earlier sandbox on the same directory kept the original; this one belongs to a sandbox.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            crashsafe::remove(&from).map_err(ServerError::io("remove", &from))
        }
        other => other.map_err(ServerError::io("set aside", &from)),
    }
}

/// The server refuses to start with fewer slots than it finds.
fn slots(data: &Path) -> usize {
    const DEFAULT_SLOTS: usize = 10;
    fs::read_dir(data.join("pg_replslot")).into_iter().flatten().count().max(DEFAULT_SLOTS)
}
