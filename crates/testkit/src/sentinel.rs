//! A real sentinel for one test: it watches one primary, and with others makes a replica the next one.

use std::fs;
use std::process::{Child, Command, Stdio};

use lifeboat_base::crashsafe;
use lifeboat_base::secret::Secret;
use lifeboat_redis::wire::{ConnectOptions, Connection, Reply};
use tempfile::TempDir;

use crate::fail::need;
use crate::leftovers;
use crate::pgport::Port;
use crate::redisserver::redis_programs;

/// A sentinel that ends when this is dropped.
#[derive(Debug)]
pub struct Sentinel {
    child: Child,
    _root: TempDir,
    port: Port,
    password: Secret<String>,
}

impl Sentinel {
    /// Starts one that calls the server at `primary` (a port of 127.0.0.1) `name`, and wants two to agree that it is down,
    /// which takes them half a second. Clients and other sentinels must know `password`.
    #[track_caller]
    pub fn start(name: &str, primary: u16, password: &str) -> Self {
        let root = tempfile::Builder::new().prefix(leftovers::FOLDER_PREFIX).tempdir_in("/tmp");
        let root = need(root, "no folder for a sentinel");
        let port = Port::take();
        let file = root.path().join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nrequirepass {password}\nsentinel sentinel-pass {password}\n\
             sentinel monitor {name} 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 3000\n",
            port.number(),
            root.path().display(),
        );
        need(crashsafe::write_new(&file, text.as_bytes()), "no configuration for a sentinel");
        let log = need(fs::File::create(root.path().join("log")), "no log for a sentinel");
        let mut command = Command::new(redis_programs().program("redis-server"));
        command.arg(&file).arg("--sentinel").stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let child = need(command.spawn(), "the sentinel cannot be run");
        let sentinel = Self { child, _root: root, port, password: Secret::new(password.to_owned()) };
        while sentinel.ask("PING").is_none() {
            std::thread::yield_now();
        }
        sentinel
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Runs one command of plain words; nothing if it does not answer.
    pub fn ask(&self, words: &str) -> Option<Reply> {
        let url = format!("redis://:{}@127.0.0.1:{}", self.password.expose(), self.port());
        let options = ConnectOptions::parse(&Secret::new(url)).ok()?;
        Connection::open(&options).ok()?.ask(words).ok()
    }

    /// The port of the primary, as it knows it.
    pub fn primary(&self, name: &str) -> Option<u16> {
        let reply = self.ask(&format!("SENTINEL GET-MASTER-ADDR-BY-NAME {name}"))?;
        reply.members().get(1)?.text()?.parse().ok()
    }

    /// A field of what it knows about the primary, such as `num-slaves`.
    pub fn field(&self, name: &str, field: &str) -> Option<String> {
        let reply = self.ask(&format!("SENTINEL MASTER {name}"))?;
        let fields: Vec<String> = reply.members().iter().filter_map(Reply::text).collect();
        let at = fields.iter().position(|found| found == field)?;
        fields.get(at + 1).cloned()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Nothing of it is worth an orderly end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
