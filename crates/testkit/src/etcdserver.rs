//! A real etcd for one test: its own data directory, and ports of 127.0.0.1.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::lease::Lease;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_etcd::Installation;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::fail::{fail, need};
use crate::leftovers;
use crate::pgport::Port;

/// How long a server may take to start.
const SERVER_LIMIT: Duration = Duration::from_secs(60);
/// Between two questions whether it is ready.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(20);
/// Keys that one transaction writes.
const KEYS_PER_TRANSACTION: usize = 10_000;

/// What a test wants its server to be.
#[derive(Debug)]
pub struct EtcdOptions {
    installation: Installation,
    tls: bool,
    arguments: Vec<String>,
    join: Option<String>,
    data: Option<PathBuf>,
}

impl EtcdOptions {
    /// A plain server with the programs of one of [`etcd_installations`](crate::etcd_installations).
    pub fn new(installation: &Installation) -> Self {
        Self { installation: installation.clone(), tls: false, arguments: Vec::new(), join: None, data: None }
    }

    /// With TLS, and with a client certificate asked for.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// With one more argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// On a copy of this data directory.
    #[must_use]
    pub fn on_copy_of(mut self, data: &Path) -> Self {
        self.data = Some(data.to_owned());
        self
    }
}

/// The files of an authority made for one server.
#[derive(Debug)]
pub struct EtcdTls {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// A certificate for 127.0.0.1 and for clients, whose name is `root`.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A server that ends when this is dropped.
#[derive(Debug)]
pub struct EtcdServer {
    // The order is that of dropping: the process, then the folder, then the ports.
    child: Option<Child>,
    root: TempDir,
    port: Port,
    peer: Port,
    options: EtcdOptions,
    tls: Option<EtcdTls>,
    login: Option<String>,
    _lease: Lease,
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.end();
    }
}

impl EtcdServer {
    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(options: EtcdOptions) -> Self {
        let mut server = Self::prepare(options);
        server.start_again();
        server
    }

    /// A second member of this server's cluster, which learns and has no vote.
    #[must_use]
    #[track_caller]
    pub fn learner(&self) -> Self {
        let mut options = EtcdOptions::new(&self.options.installation);
        options.join = Some(format!("default={}", self.peer_url()));
        let mut learner = Self::prepare(options);
        let peers = format!("--peer-urls={}", learner.peer_url());
        self.ctl(&["member", "add", "learner", "--learner", &peers]);
        learner.spawn();
        learner
    }

    #[track_caller]
    fn prepare(options: EtcdOptions) -> Self {
        leftovers::sweep(Path::new("/tmp"));
        let root = tempfile::Builder::new().prefix(leftovers::FOLDER_PREFIX).tempdir_in("/tmp");
        let root = need(root, "no folder for a server");
        let data = root.path().join("data");
        need(crashsafe::create_dir_all(&data), "no folder for a server");
        let lease = need(leftovers::claim(root.path()), "no folder for a server");
        if let Some(from) = &options.data {
            let copied = Command::new("cp").arg("-a").arg(from).arg(data.join("etcd")).status();
            assert!(need(copied, "cp cannot be run").success(), "the data directory cannot be copied");
        }
        let tls = options.tls.then(|| certificates(root.path()));
        let (port, peer) = (Port::take(), Port::take());
        Self { child: None, root, port, peer, options, tls, login: None, _lease: lease }
    }

    /// Starts it again after [`Self::end`], and waits until it answers.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.spawn();
        let clock = SystemClock::new();
        // A health check asks for a key; one that may not read it has been answered.
        let answers = |output: &Output| {
            output.status.success() || String::from_utf8_lossy(&output.stderr).contains("permission denied")
        };
        loop {
            if answers(&self.try_ctl(&["--command-timeout=2s", "endpoint", "health"])) {
                return;
            }
            let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || clock.monotonic() > SERVER_LIMIT {
                fail(format_args!("etcd does not start: {}", self.log()));
            }
            std::thread::park_timeout(BETWEEN_QUESTIONS);
        }
    }

    #[track_caller]
    fn spawn(&mut self) {
        let data = self.root.path().join("data");
        let log =
            need(File::options().append(true).create(true).open(self.root.path().join("log")), "no log");
        let second = need(log.try_clone(), "no log");
        let (url, peer) = (self.url(), self.peer_url());
        let mut command = Command::new(&self.options.installation.server);
        command.arg("--data-dir").arg(data.join("etcd"));
        let name = if self.options.join.is_some() { "learner" } else { "default" };
        let cluster = self.options.join.as_ref().map_or_else(String::new, |other| format!("{other},"));
        let cluster = format!("{cluster}{name}={peer}");
        for (flag, value) in [
            ("--name", name),
            ("--listen-client-urls", &url),
            ("--advertise-client-urls", &url),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &cluster),
            ("--initial-cluster-state", if self.options.join.is_some() { "existing" } else { "new" }),
            ("--max-txn-ops", "100000"),
            ("--max-request-bytes", "67108864"),
        ] {
            command.arg(flag).arg(value);
        }
        if let Some(tls) = &self.tls {
            command.arg("--cert-file").arg(&tls.cert).arg("--key-file").arg(&tls.key);
            command.arg("--trusted-ca-file").arg(&tls.ca).arg("--client-cert-auth");
        }
        command.args(&self.options.arguments).env_clear().current_dir(&data);
        command.stdin(Stdio::null()).stdout(second).stderr(log);
        self.child = Some(need(command.spawn(), "etcd cannot be run"));
    }

    /// Ends it at once, as a power cut would.
    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Where clients reach it.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port.number())
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer.number())
    }

    /// The files of its authority, if it speaks TLS.
    pub fn tls(&self) -> Option<&EtcdTls> {
        self.tls.as_ref()
    }

    /// Its programs.
    pub fn installation(&self) -> &Installation {
        &self.options.installation
    }

    /// The folder of its programs.
    #[track_caller]
    pub fn programs(&self) -> PathBuf {
        match self.options.installation.server.parent() {
            Some(folder) => folder.to_owned(),
            None => fail("a server without a folder"),
        }
    }

    /// A folder for what belongs to this server's test.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The database file; the server has it open.
    pub fn database(&self) -> PathBuf {
        self.root.path().join("data/etcd/member/snap/db")
    }

    /// Everything it has logged.
    #[track_caller]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&need(fs::read(self.root.path().join("log")), "no log")).into_owned()
    }

    /// `etcdctl`, pointed at this server.
    pub fn bin(&self) -> Command {
        let mut command = Command::new(self.options.installation.server.with_file_name("etcdctl"));
        command.env_clear().env("ETCDCTL_API", "3").current_dir("/").arg("--endpoints").arg(self.url());
        if let Some(tls) = &self.tls {
            command.arg("--cacert").arg(&tls.ca).arg("--cert").arg(&tls.cert).arg("--key").arg(&tls.key);
        }
        if let Some(login) = &self.login {
            command.arg("--user").arg(login);
        }
        command
    }

    /// Runs `etcdctl` to its end and gives what it says; fails the test if it fails.
    #[track_caller]
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.try_ctl(arguments);
        if !output.status.success() {
            fail(format_args!("etcdctl {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr)));
        }
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// As [`Self::ctl`], for what may fail.
    #[track_caller]
    pub fn try_ctl(&self, arguments: &[&str]) -> Output {
        need(self.bin().args(arguments).output(), "etcdctl cannot be run")
    }

    /// Asks for logins from now on: user `root` with this password.
    #[track_caller]
    pub fn enable_auth(&mut self, password: &str) {
        self.ctl(&["user", "add", &format!("root:{password}")]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        self.ctl(&["auth", "enable"]);
        self.login = Some(format!("root:{password}"));
    }

    /// Writes `count` keys below `prefix`, ten thousand in each transaction.
    #[track_caller]
    pub fn load(&self, prefix: &str, count: usize) {
        let numbers: Vec<usize> = (0..count).collect();
        for part in numbers.chunks(KEYS_PER_TRANSACTION) {
            let mut script = "\n".to_owned();
            for number in part {
                need(
                    writeln!(script, "put {prefix}{number:07} value-{number}-{}", "x".repeat(number % 50)),
                    "no memory",
                );
            }
            script.push_str("\n\n");
            let mut command = self.bin();
            command.arg("txn").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = need(command.spawn(), "etcdctl cannot be run");
            let input = child.stdin.take();
            let output = std::thread::scope(|scope| {
                // Beside the reading, so that a long script and its answers cannot wait for each other.
                scope.spawn(move || input.map(|mut input| input.write_all(script.as_bytes())));
                need(child.wait_with_output(), "etcdctl cannot be waited for")
            });
            if !output.status.success() || !String::from_utf8_lossy(&output.stdout).starts_with("SUCCESS") {
                fail(format_args!("a transaction failed: {}", String::from_utf8_lossy(&output.stderr)));
            }
        }
    }
}

/// An authority, and one certificate of it for the server and its clients.
#[track_caller]
fn certificates(root: &Path) -> EtcdTls {
    let mut authority = need(CertificateParams::new(Vec::new()), "no authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = need(KeyPair::generate(), "no key");
    let ca = need(authority.self_signed(&authority_key), "no authority");
    let issuer = Issuer::from_params(&authority, &authority_key);
    let mut leaf = need(CertificateParams::new(vec!["127.0.0.1".to_owned()]), "no certificate");
    leaf.distinguished_name.push(rcgen::DnType::CommonName, "root");
    leaf.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = need(KeyPair::generate(), "no key");
    let cert = need(leaf.signed_by(&key, &issuer), "no certificate");
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        need(crashsafe::replace(&path, text.as_bytes()), "a certificate cannot be written");
        path
    };
    EtcdTls {
        ca: write("ca.pem", &ca.pem()),
        cert: write("cert.pem", &cert.pem()),
        key: write("key.pem", &key.serialize_pem()),
    }
}
