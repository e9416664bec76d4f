//! The sample cluster of the canaries: made by `initdb`, filled, recorded as a capture would, stopped in order.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_base::capture::{CaptureFacts, Consistency, ConsistencyLevel};
use lifeboat_base::crashsafe;
use lifeboat_base::digest::{Digest, digest_of_reader};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::{Clock, Timestamp};
use lifeboat_postgres::server::{Account, Installation, ServerError, control_data, give_tree, run_tool};
use lifeboat_postgres::wire::PgError;
use serde_json::json;

use super::Texts;
use crate::postgres::capture::MANIFEST;
use crate::postgres::checks::{Cluster, Recovery, files_below};
use crate::postgres::error;
use crate::postgres::facts;
use crate::postgres::tables::{settled, survey};

/// The database that promises are about.
pub(super) const DATABASE: &str = "sample";
/// How long making the cluster may take.
const INITDB_LIMIT: Duration = Duration::from_secs(120);
/// What the manifest does not list.
const LOG: &str = "pg_wal/";

/// What is in the sample, statement by statement, and in which database.
const CONTENT: [(&str, &str); 4] = [
    ("postgres", "CREATE DATABASE sample"),
    ("postgres", "CREATE DATABASE other"),
    ("postgres", "CREATE DATABASE gone"),
    ("other", "CREATE TABLE shape (a int); INSERT INTO shape VALUES (1)"),
];
const TABLES: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, name text);
    CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, total int);
    CREATE TABLE codes (code text);
    CREATE TABLE fewer (a int);
    CREATE TABLE more (a int);
    CREATE TABLE notes (note text);
    CREATE TABLE dropped (a int);
    CREATE INDEX unusable ON codes (code);
    CREATE FUNCTION twist(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
    CREATE INDEX twisted ON more (twist(a));
    INSERT INTO customers VALUES (1, 'a'), (2, 'b');
    INSERT INTO orders VALUES (1, 1, 10), (2, 2, 20), (3, 2, 30), (4, NULL, 0);
    INSERT INTO codes VALUES ('A'), ('B'), (NULL), (NULL);
    INSERT INTO fewer VALUES (1), (2), (3);
    INSERT INTO more VALUES (1), (2), (3);
    INSERT INTO notes VALUES ('');
    INSERT INTO dropped VALUES (1)";

/// The damage, each to objects of its own.
pub(super) const DAMAGE: [(&str, &str); 12] = [
    ("postgres", "DROP DATABASE gone"),
    ("postgres", "CREATE DATABASE surplus"),
    (DATABASE, "DROP TABLE dropped"),
    (DATABASE, "CREATE TABLE added (a int)"),
    (DATABASE, "DELETE FROM fewer WHERE a = 2"),
    (DATABASE, "INSERT INTO more VALUES (3)"),
    (DATABASE, "UPDATE orders SET total = -30 WHERE id = 3"),
    (DATABASE, "UPDATE notes SET note = NULL; INSERT INTO codes VALUES ('A')"),
    (DATABASE, "SET session_replication_role = replica; DELETE FROM customers WHERE id = 1"),
    (DATABASE, "UPDATE pg_catalog.pg_index SET indisvalid = false WHERE indexrelid = 'unusable'::regclass"),
    (DATABASE, "CREATE OR REPLACE FUNCTION twist(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT -$1'"),
    ("other", "ALTER TABLE shape ALTER a TYPE bigint"),
];

/// A sample cluster; its directory goes with it.
pub(super) struct Sample<'a> {
    installed: &'a Installation,
    clock: &'a dyn Clock,
    _place: tempfile::TempDir,
    data: PathBuf,
    pub(super) facts: CaptureFacts,
    pub(super) texts: Texts,
}

impl<'a> Sample<'a> {
    /// Makes, fills, records and stops it.
    pub(super) fn make(
        installed: &'a Installation,
        scratch: &Path,
        clock: &'a dyn Clock,
    ) -> Result<Self, Failure> {
        let fail = |error| Failure::io("failed to make a directory for the canaries", error);
        let place = tempfile::tempdir_in(scratch).map_err(fail)?;
        // Where we are root the server runs as somebody else, who must be able to pass.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o711)).map_err(fail)?;
        let data = place.path().join("data");
        fs::create_dir(&data).map_err(fail)?;
        initdb(installed, &data, clock)
            .map_err(error::server("failed to make a cluster for the canaries"))?;
        let mut sample =
            Self { installed, clock, _place: place, data, facts: nothing(), texts: Texts::new() };
        let cluster = sample.start()?;
        fill(&cluster).map_err(error::connection("failed to fill the sample of the canaries"))?;
        sample.record(&cluster)?;
        cluster.stop(clock).map_err(error::server("failed to stop the sample of the canaries"))?;
        let control = control_data(installed, &sample.data, clock);
        let control = control.map_err(error::server("failed to read the sample of the canaries"))?;
        sample.facts.consistency.position = control.get("Latest checkpoint location").cloned();
        write_manifest(&sample.data)
            .map_err(|error| Failure::io("failed to write the manifest of the canaries", error))?;
        Ok(sample)
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Starts a server on it; what happens to a sample in a power cut matters to nobody.
    pub(super) fn start(&self) -> Result<Cluster, Failure> {
        let quick = Recovery::new(vec![("fsync".to_owned(), "off".to_owned())]);
        Cluster::start(self.installed, (&self.data, &[]), "postgres", Some(&quick), self.clock, &|| false)
            .map_err(error::server("failed to start the sample of the canaries"))
    }

    /// Reads what a capture would have recorded, with the same code.
    fn record(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let options = cluster.options("postgres").map_err(error::connection("failed to name the sample"))?;
        let known = facts::read(&options)?;
        let seen = survey(&options)?;
        let settled = settled(&seen, &seen);
        self.facts.environment = known.environment;
        self.facts.environment.insert("postgres.ranges".to_owned(), json!(settled.ranges));
        self.facts.environment.insert("postgres.unchecked".to_owned(), json!(settled.unchecked));
        self.facts.counts = settled.counts;
        self.facts.checksums = settled.sums;
        self.texts = known.schema_texts.into_iter().collect();
        Ok(())
    }
}

/// The facts of a point of which nothing is known.
pub(crate) fn nothing() -> CaptureFacts {
    CaptureFacts {
        consistency: Consistency {
            level: ConsistencyLevel::PointInTime,
            moment: Timestamp::UNIX_EPOCH,
            position: None,
            changes: 0,
        },
        logical_bytes: 0,
        counts: std::collections::BTreeMap::new(),
        checksums: std::collections::BTreeMap::new(),
        environment: std::collections::BTreeMap::new(),
        unreadable: Vec::new(),
    }
}

fn initdb(installed: &Installation, data: &Path, clock: &dyn Clock) -> Result<(), ServerError> {
    let account = Account::unprivileged();
    give_tree(data, &account)?;
    let mut command = Command::new(installed.program("initdb"));
    command.args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "-N",
        "--data-checksums",
        "-D",
    ]);
    command
        .arg(data)
        .env_clear()
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/");
    account.apply(&mut command);
    run_tool(command, INITDB_LIMIT, clock).map(drop)
}

fn fill(cluster: &Cluster) -> Result<(), PgError> {
    for (database, sql) in CONTENT.into_iter().chain([(DATABASE, TABLES)]) {
        cluster.session_as_set(database)?.ask(sql)?;
    }
    Ok(())
}

/// The manifest a base backup of the stopped cluster would have.
fn write_manifest(data: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for path in files_below(data)?.into_iter().filter(|path| !path.starts_with(LOG)) {
        let (digest, size_bytes) = digest_of_reader(fs::File::open(data.join(&path))?)?;
        files.push(
            json!({ "Path": path, "Size": size_bytes, "Checksum-Algorithm": "SHA256", "Checksum": digest })
                .to_string(),
        );
    }
    let head = format!(
        "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n\
         {{ \"Timeline\": 1, \"Start-LSN\": \"0/0\", \"End-LSN\": \"0/0\" }}\n],\n",
        files.join(",\n")
    );
    let seal = Digest::of(head.as_bytes());
    let text = format!("{head}\"Manifest-Checksum\": \"{seal}\"}}\n");
    crashsafe::write_new(&data.join(MANIFEST), text.as_bytes())
}

/// Something the sample must have and has not.
pub(super) fn needs(what: &str) -> Failure {
    Failure::new(FailureKind::Internal, format!("the sample of the canaries has not got {what}"))
}
