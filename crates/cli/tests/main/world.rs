//! A small company in a temporary folder: a policy, live stores, two copies, and the binary that looks after them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lifeboat_testkit::{Account, EtcdServer, PgServer};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use super::tree;

/// The passphrase of policies that use one.
pub(crate) const PASSPHRASE: &str = "correct horse battery staple";
/// The environment variable it is given in.
pub(crate) const PASSPHRASE_ENV: &str = "LIFEBOAT_TEST_PASSPHRASE";
/// The key file of every policy here, relative to it.
pub(crate) const KEY_FILE: &str = "secrets/lifeboat.key";

const KEYS_AND_COPIES: &str = r#"version = 1
timezone = "UTC"
state = "./state"

[keys]
recipients = ["keyfile:./secrets/lifeboat.key"]

[copy.local]
url = "file:./vaults/local"
region = "A"

[copy.offsite]
url = "file:./vaults/offsite"
region = "B"

[defaults]
rpo = "24h"
rto = "60m"
retention = "7d 4w 12mo 1y"
copies = ["local", "offsite"]
verify = { checksum = "weekly", restore = "daily" }
"#;

pub(crate) const UPLOADS: &str = "
[store.uploads]
kind = \"files\"
path = \"./live/uploads\"
";

pub(crate) const ORDERS: &str = r#"
[store.orders]
kind = "sqlite"
path = "./live/orders.db"
checks = { unique = ["orders(order_no)"], sql = ["select count(*) = 0 from orders where total < 0"] }
"#;

const SESSIONS: &str = r#"
[store.sessions]
kind = "queue"
url = "env:SESSIONS_URL"
retention = "none"
"#;

const CLUSTER: &str = r#"
[store.shop]
kind = "postgres"
url = "env:SHOP_URL"
logs = "7d"
rpo = "5m"
checks = { unique = ["orders(order_no)"], sql = ["select count(*) = 0 from orders where total < 0"] }
"#;

const CACHE: &str = r#"
[store.cache]
kind = "redis"
url = "env:CACHE_URL"
logs = "7d"
rpo = "5m"
checks = { commands = ["GET promised = kept", "DBSIZE > 0"] }
"#;

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Fails with everything the command said unless it ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The one JSON document on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }
}

/// The folder and how to run the binary in it.
pub(crate) struct World {
    temp: TempDir,
    /// What the policy says, to write variants of.
    pub(crate) policy: String,
    /// Environment variables of every command.
    pub(crate) env: Vec<(String, String)>,
    /// Commands run as the account of this server, where we are root.
    account: Option<Account>,
}

impl World {
    pub(crate) fn with(stores: &[&str]) -> Self {
        let temp = tempfile::Builder::new().prefix("lifeboat-e2e-").tempdir().unwrap();
        let policy = format!("{KEYS_AND_COPIES}{}", stores.concat());
        let world = Self { temp, policy, env: Vec::new(), account: None };
        world.write_policy(&world.policy);
        world.run(&["keys", "new-file", &world.path(KEY_FILE).display().to_string()]).expect(0);
        world
    }

    /// One store of files.
    pub(crate) fn of_files() -> Self {
        let world = Self::with(&[UPLOADS]);
        tree::grow(&world.uploads());
        world
    }

    /// A PostgreSQL cluster whose log is kept; every name in the address stays a secret.
    pub(crate) fn of_cluster(url: &str) -> Self {
        let mut world = Self::with(&[CLUSTER]);
        // A server in a sandbox refuses to be root, and has to get to its files.
        fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o711)).unwrap();
        world.env.push(("SHOP_URL".to_owned(), url.to_owned()));
        world
    }

    /// A Redis server whose stream of commands is kept; the address stays a secret.
    pub(crate) fn of_redis(url: &str) -> Self {
        let mut world = Self::with(&[CACHE]);
        world.env.push(("CACHE_URL".to_owned(), url.to_owned()));
        world
    }

    /// A cluster, a Redis, a database and files that refer to each other, with these lines at the end of the policy.
    pub(crate) fn of_estate(postgres: &str, redis: &str, lines: &str) -> Self {
        let mut world = Self::with(&[UPLOADS, ORDERS, CLUSTER, CACHE, lines]);
        fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::create_dir_all(world.uploads()).unwrap();
        world.make_orders(100);
        world.env.push(("SHOP_URL".to_owned(), postgres.to_owned()));
        world.env.push(("CACHE_URL".to_owned(), redis.to_owned()));
        world
    }

    /// An etcd called `plane`, with these lines in its row.
    pub(crate) fn of_etcd(server: &EtcdServer, lines: &str) -> Self {
        let row = format!(
            "\n[store.plane]\nkind = \"etcd\"\nschedule = \"every 1h\"\nretention = \"24h 7d\"\nrpo = \"1h\"\n{lines}\n"
        );
        let mut world = Self::with(&[&row]);
        // Only the programs of its own version.
        world.env.push(("PATH".to_owned(), format!("{}:/usr/bin:/bin", server.programs().display())));
        world
    }

    /// Everything here belongs to the account of `server` from now on, and commands run as it: a server runs them too.
    pub(crate) fn belongs_to(&mut self, server: &PgServer) {
        server.give(self.dir());
        self.account = Some(server.account().clone());
    }

    /// Files, a database and a store that must leave nothing behind.
    pub(crate) fn of_everything() -> Self {
        let world = Self::with(&[UPLOADS, ORDERS, SESSIONS]);
        tree::grow(&world.uploads());
        world.make_orders(2_000);
        world
    }

    /// Also opened by a passphrase, which costs time on purpose.
    pub(crate) fn and_passphrase(mut self) -> Self {
        let both = format!("\"passphrase:env:{PASSPHRASE_ENV}\", \"keyfile:./{KEY_FILE}\"");
        self.policy = self.policy.replace(&format!("\"keyfile:./{KEY_FILE}\""), &both);
        self.write_policy(&self.policy);
        self.env.push((PASSPHRASE_ENV.to_owned(), PASSPHRASE.to_owned()));
        self
    }

    pub(crate) fn write_policy(&self, text: &str) {
        tree::write(&self.path("lifeboat.toml"), text.as_bytes());
    }

    pub(crate) fn dir(&self) -> &Path {
        self.temp.path()
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir().join(below)
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.path("live/uploads")
    }

    pub(crate) fn vault(&self, copy: &str, store: &str) -> PathBuf {
        self.path("vaults").join(copy).join(store)
    }

    /// Makes the database, in WAL mode as a live one would be.
    pub(crate) fn make_orders(&self, count: u32) {
        fs::create_dir_all(self.path("live")).unwrap();
        let database = self.orders();
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
                 CREATE TABLE orders (id INTEGER PRIMARY KEY, order_no TEXT NOT NULL,
                     customer INTEGER NOT NULL REFERENCES customers (id), total INTEGER NOT NULL);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
                     INSERT INTO customers SELECT i, 'customer ' || i FROM n;",
            )
            .unwrap();
        self.add_orders(1, count);
    }

    pub(crate) fn orders(&self) -> Connection {
        Connection::open(self.path("live/orders.db")).unwrap()
    }

    /// Adds `count` orders, numbered from `first`.
    pub(crate) fn add_orders(&self, first: u32, count: u32) {
        let mut database = self.orders();
        let transaction = database.transaction().unwrap();
        for number in first..first + count {
            transaction
                .execute(
                    "INSERT INTO orders (order_no, customer, total) VALUES (?1, ?2, ?3)",
                    (format!("A-{number:06}"), number % 50 + 1, number % 997),
                )
                .unwrap();
        }
        transaction.commit().unwrap();
    }

    /// The binary in this folder, ready to start.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.current_dir(self.dir()).args(args).stdin(Stdio::null());
        command.env_remove("LIFEBOAT_POLICY").env("COLUMNS", "130").env("TZ", "UTC");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(account) = &self.account {
            account.apply(&mut command);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        finished(&mut self.command(args))
    }

    /// Starts a command whose output nobody reads.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs it with `--json`; gives the document of a command that ends with `code`.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str], code: i32) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        self.run(&all).expect(code).json()
    }

    /// The ids of a store's recovery points, oldest first, as `points` shows them.
    #[track_caller]
    pub(crate) fn points(&self, store: &str) -> Vec<String> {
        let ran = self.run(&["--json", "points", store]);
        texts(&ran.json()["points"], "id")
    }

    /// Backs one store up and gives the new point.
    #[track_caller]
    pub(crate) fn backup(&self, store: &str) -> String {
        let report = self.json(&["backup", store], 0);
        report["stores"][0]["point"].as_str().unwrap().to_owned()
    }

    /// The state and the reason of every promise of a store, as `status` shows them.
    #[track_caller]
    pub(crate) fn promises(&self, store: &str) -> BTreeMap<String, (String, String)> {
        let report = self.run(&["--json", "status", store]).json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let cells = report["stores"][0]["promises"].as_array().unwrap();
        let cell = |cell: &Value| (text(&cell["promise"]), (text(&cell["state"]), text(&cell["reason"])));
        cells.iter().map(cell).collect()
    }

    /// One of them.
    #[track_caller]
    pub(crate) fn promise(&self, store: &str, promise: &str) -> (String, String) {
        self.promises(store).remove(promise).unwrap()
    }

    /// Compares what a person sees with the snapshot of that name.
    #[track_caller]
    pub(crate) fn assert_seen(&self, name: &str, text: &str) {
        let dir = self.dir().display().to_string();
        let mut filters = vec![(dir.as_str(), "DIR")];
        filters.extend(MASKS);
        insta::with_settings!({ filters => filters, omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "../snapshots" }, {
            insta::assert_snapshot!(name, text);
        });
    }
}

/// What differs from run to run, and the name it gets.
const MASKS: [(&str, &str); 12] = [
    (r"pt-\d{8}T\d{9}Z-[0-9a-f]{8}", "POINT"),
    (r"(drill|run)-\d{8}T\d{9}Z-[0-9a-f]{8}", "$1-ID"),
    (r"[0-9a-f]{64}", "HASH"),
    (r"\b[0-9a-f]{2}/HASH", "HASH"),
    (r"\b[0-9a-f]{32}\b", "VAULT"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?( UTC|Z)?", "TIME"),
    (r"process \d+", "process PID"),
    (r"ed25519:[A-Za-z0-9+/=]+", "PUBLIC-KEY"),
    (r"\b\d+(\.\d+)?(ms|s)\b", "SECONDS"),
    (r"\b\d+(\.\d+)? (B|KiB|MiB)", "SIZE"),
    (r"──+", "──"),
    (r"  +(\S|$)", "  $1"),
];

/// Runs a command to its end.
pub(crate) fn finished(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// One text field of every item of a list.
pub(crate) fn texts(list: &Value, field: &str) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}
