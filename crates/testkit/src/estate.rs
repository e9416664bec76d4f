//! The reference estate: five stores that belong together, somebody who writes to all of them, and his ledger.
//!
//! Policy and ledger check are the files of `examples/estate/`. One record is a receipt, a cart, now and then a flag, an order
//! and a line of the audit, in this order; begin and acknowledgement of every write stand in `ledger.jsonl`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_postgres::wire as pg;
use rusqlite::Connection;

use crate::etcdserver::{EtcdOptions, EtcdServer};
use crate::fail::need;
use crate::peers::{etcd_installations, pg_system_major};
use crate::pgserver::{PgOptions, PgServer};
use crate::redisserver::{RedisOptions, RedisServer};

const POLICY: &str = include_str!("../../../examples/estate/lifeboat.toml");
const LEDGER_CHECK: &str = include_str!("../../../examples/estate/ledger.py");
const SCHEMA: &str = "CREATE TABLE orders (n bigint PRIMARY KEY, cents bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp()); \
     CREATE TABLE ballast (n bigint PRIMARY KEY, body text NOT NULL)";
const AUDIT_SCHEMA: &str =
    "CREATE TABLE audit (n INTEGER PRIMARY KEY, at TEXT NOT NULL); CREATE TABLE ballast (body BLOB NOT NULL)";
/// Every so many records a flag is set.
const FLAG_EVERY: u64 = 10;
/// Between two records while there is other work: the machine is small.
const BETWEEN_RECORDS: Duration = Duration::from_millis(30);
const MIB: u64 = 1024 * 1024;
/// The size of one file, one value and one row of what only weighs, in bytes.
const BALLAST_FILE: u64 = 8 * MIB;
const BALLAST_VALUE: u64 = 4096;
const BALLAST_ROW: u64 = 2048;

/// The servers, the folder and the ledger. Servers end when this is dropped; the folder stays.
#[derive(Debug)]
pub struct Estate {
    dir: PathBuf,
    /// The orders.
    pub shop: PgServer,
    /// The carts.
    pub carts: RedisServer,
    /// The flags.
    pub flags: EtcdServer,
    orders: pg::Connection,
    audit: Connection,
    ledger: File,
    clock: SystemClock,
    next: u64,
}

impl Estate {
    /// Starts the servers, and puts the policy and the ledger check into the empty folder `dir`, which has to have a key yet.
    #[track_caller]
    pub fn start(dir: &Path) -> Self {
        // The server of a sandbox may run as somebody else.
        need(fs::set_permissions(dir, fs::Permissions::from_mode(0o711)), "the folder cannot be opened");
        for folder in ["live/uploads/receipts", "secrets"] {
            need(fs::create_dir_all(dir.join(folder)), "no folder for the estate");
        }
        for (name, text) in [("lifeboat.toml", POLICY), ("ledger.py", LEDGER_CHECK)] {
            need(crashsafe::replace(&dir.join(name), text.as_bytes()), "the estate has no policy");
        }
        let shop = PgServer::start(PgOptions::new(pg_system_major()).initdb("--data-checksums"));
        shop.psql(SCHEMA);
        let options =
            need(pg::ConnectOptions::parse(&Secret::new(shop.conninfo())), "the shop has no address");
        let orders = need(pg::Connection::connect(&options, pg::Mode::Sql), "the shop takes no connection");
        let carts = RedisServer::start(RedisOptions::default().set("enable-debug-command", "local"));
        let flags = EtcdServer::start(EtcdOptions::new(&etcd_installations().swap_remove(0)));
        let audit = need(Connection::open(dir.join("live/audit.db")), "no database for the audit");
        need(audit.execute_batch(AUDIT_SCHEMA), "no table for the audit");
        let ledger = OpenOptions::new().create_new(true).append(true).open(dir.join("ledger.jsonl"));
        let ledger = need(ledger, "no ledger");
        let clock = SystemClock::new();
        Self { dir: dir.to_owned(), shop, carts, flags, orders, audit, ledger, clock, next: 1 }
    }

    /// A command that knows the estate: where its servers are, and where their programs are.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir);
        command.env("ESTATE_SHOP_URL", self.shop.url("postgres"));
        command.env("ESTATE_CARTS_URL", self.carts.url()).env("ESTATE_FLAGS_URL", self.flags.url());
        let programs = self.shop.installation().bin.display();
        command.env("PATH", format!("{programs}:{}:/usr/bin:/bin", self.flags.programs().display()));
        command
    }

    /// A file of the estate.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The audit's database.
    pub fn audit(&self) -> &Connection {
        &self.audit
    }

    /// How many records were written.
    pub fn records(&self) -> u64 {
        self.next - 1
    }

    /// Puts about so many bytes into the stores that only weigh: half of it files, the rest rows, values and blobs.
    #[track_caller]
    pub fn fill(&mut self, bytes: u64) {
        let ballast = self.path("live/uploads/ballast");
        need(fs::create_dir_all(&ballast), "no folder for the ballast");
        let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
        for number in 0..(bytes / 2).div_ceil(BALLAST_FILE) {
            let body = noise.bytes(BALLAST_FILE);
            need(
                crashsafe::write_new(&ballast.join(format!("{number}.bin")), &body),
                "no room for the ballast",
            );
        }
        let rows = bytes * 3 / 10 / BALLAST_ROW;
        self.shop.psql(&format!(
            "INSERT INTO ballast SELECT n, (SELECT string_agg(md5(n::text || m::text), '') FROM generate_series(1, {}) m) \
             FROM generate_series(1, {rows}) n",
            BALLAST_ROW / 32
        ));
        self.carts.run(&format!("DEBUG POPULATE {} ballast {BALLAST_VALUE}", bytes / 10 / BALLAST_VALUE));
        let blobs = format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {}) \
             INSERT INTO ballast SELECT randomblob({MIB}) FROM n",
            (bytes / 10).div_ceil(MIB)
        );
        need(self.audit.execute_batch(&blobs), "no room for the ballast");
    }

    /// Writes one record to all stores and to the ledger.
    #[track_caller]
    pub fn write(&mut self) {
        let n = self.next;
        self.next += 1;
        self.enter("began", "uploads", n);
        let receipt = self.path(&format!("live/uploads/receipts/{n}.txt"));
        need(
            crashsafe::write_new(&receipt, format!("receipt {n}\n").as_bytes()),
            "a receipt was not written",
        );
        self.enter("acked", "uploads", n);
        self.enter("began", "carts", n);
        self.carts.run(&format!("SET cart:{n} {n}"));
        self.enter("acked", "carts", n);
        if n.is_multiple_of(FLAG_EVERY) {
            self.enter("began", "flags", n);
            self.flags.ctl(&["put", &format!("/orders/{n}"), "placed"]);
            self.enter("acked", "flags", n);
        }
        self.enter("began", "shop", n);
        let order = format!("INSERT INTO orders (n, cents) VALUES ({n}, {})", n % 10_000);
        need(self.orders.query(&order), "an order was not written");
        self.enter("acked", "shop", n);
        self.enter("began", "audit", n);
        let at = self.clock.now().to_string();
        need(
            self.audit.execute("INSERT INTO audit VALUES (?1, ?2)", (n.cast_signed(), at)),
            "the audit was not written",
        );
        self.enter("acked", "audit", n);
    }

    /// Writes records while `work` runs.
    pub fn under_load<T>(&mut self, work: impl FnOnce() -> T + Send) -> T
    where
        T: Send,
    {
        let (over, news) = sync_channel::<()>(0);
        std::thread::scope(|scope| {
            let working = scope.spawn(move || {
                let done = catch_unwind(AssertUnwindSafe(work));
                // What ends the waiting below.
                drop(over);
                done
            });
            while news.recv_timeout(BETWEEN_RECORDS) == Err(RecvTimeoutError::Timeout) {
                self.write();
            }
            let done = working.join().unwrap_or_else(|panic| resume_unwind(panic));
            done.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    #[track_caller]
    fn enter(&mut self, event: &str, store: &str, n: u64) {
        let at = self.clock.now().as_millisecond();
        let line = format!(r#"{{"event":"{event}","store":"{store}","n":{n},"at_ms":{at}}}"#) + "\n";
        need(self.ledger.write_all(line.as_bytes()), "the ledger cannot be written");
    }
}

/// Bytes that do not compress, the same in every run.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: u64) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..count / 8 {
            // Xorshift, of Marsaglia.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            all.extend_from_slice(&self.0.to_le_bytes());
        }
        all
    }
}
