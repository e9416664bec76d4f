//! The canaries of kind `sqlite`: a sample database and one way to damage it per check and kind of damage.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{ManualClock, Timestamp};
use rusqlite::Connection;

use super::adapter::{SqliteAdapter, SqliteOptions};
use crate::adapter::{Adapter, CanaryResult, CaptureContext};
use crate::canary::{self, Canary};
use crate::recording::Recording;

const FILE: &str = "sample.db";
/// A text that stands in the file twice: in its table and in its index.
const NEEDLE: &str = "canary-needle-5f1c";
const SAMPLE: &str = "
    PRAGMA page_size = 1024;
    CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE INDEX customers_name ON customers(name);
    CREATE TABLE orders(
        id INTEGER PRIMARY KEY, order_no TEXT, customer INTEGER REFERENCES customers(id), total INTEGER
    );
    CREATE TABLE tags(tag TEXT PRIMARY KEY, weight REAL) WITHOUT ROWID;
    INSERT INTO customers VALUES (1, 'canary-needle-5f1c'), (2, 'b'), (3, 'c');
    INSERT INTO orders VALUES (1, 'A-1', 1, 10), (2, 'A-2', 2, 20), (3, 'A-3', 2, 30), (4, 'A-4', 3, 40);
    INSERT INTO tags VALUES ('new', 0.5), ('old', 1.5);";

const CANARIES: [Canary; 15] = [
    Canary {
        check: "sqlite.file",
        damage: "one bit of the last page is flipped",
        apply: |dir, _| flip_last(dir),
    },
    Canary {
        check: "sqlite.file",
        damage: "a log lies beside the database",
        apply: |dir, _| lifeboat_base::crashsafe::write_new(&dir.join("sample.db-wal"), b"stray"),
    },
    Canary {
        check: "sqlite.integrity",
        damage: "one bit of an index is flipped",
        apply: |dir, _| flip_index(dir),
    },
    Canary { check: "sqlite.integrity", damage: "the file is cut short", apply: |dir, _| cut(dir) },
    Canary {
        check: "sqlite.foreign_keys",
        damage: "a customer with orders is gone",
        apply: |dir, _| alter(dir, "DELETE FROM customers WHERE id = 2"),
    },
    Canary {
        check: "sqlite.tables",
        damage: "a table is missing",
        apply: |dir, _| alter(dir, "DROP TABLE tags"),
    },
    Canary {
        check: "sqlite.tables",
        damage: "a table too many",
        apply: |dir, _| alter(dir, "CREATE TABLE more(a)"),
    },
    Canary {
        check: "sqlite.rows",
        damage: "a row is missing",
        apply: |dir, _| alter(dir, "DELETE FROM orders WHERE id = 4"),
    },
    Canary {
        check: "sqlite.rows",
        damage: "a row too many",
        apply: |dir, _| alter(dir, "INSERT INTO tags VALUES ('odd', 0)"),
    },
    Canary {
        check: "sqlite.content",
        damage: "a value is changed",
        apply: |dir, _| alter(dir, "UPDATE orders SET total = 31 WHERE id = 3"),
    },
    Canary {
        check: "sqlite.content",
        damage: "a value has another type",
        apply: |dir, _| alter(dir, "UPDATE orders SET order_no = CAST(order_no AS BLOB) WHERE id = 1"),
    },
    Canary {
        check: "sqlite.schema",
        damage: "an index is missing",
        apply: |dir, _| alter(dir, "DROP INDEX customers_name"),
    },
    Canary {
        check: "sqlite.unique",
        damage: "a number is given twice",
        apply: |dir, _| alter(dir, "UPDATE orders SET order_no = 'A-1' WHERE id = 2"),
    },
    Canary {
        check: "sqlite.sql",
        damage: "a total is negative",
        apply: |dir, _| alter(dir, "UPDATE orders SET total = -1 WHERE id = 1"),
    },
    Canary {
        check: "sqlite.sql",
        damage: "the table asked about is gone",
        apply: |dir, _| alter(dir, "ALTER TABLE orders RENAME TO moved"),
    },
];

/// Runs them all inside `scratch`.
pub(crate) fn run(scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
    let place = tempfile::tempdir_in(scratch)
        .map_err(|error| Failure::io("failed to make a directory for the canaries", error))?;
    let path = place.path().join(FILE);
    Connection::open(&path).and_then(|connection| connection.execute_batch(SAMPLE)).map_err(|error| {
        Failure::with_source(FailureKind::Internal, "failed to make the sample of the canaries", error)
    })?;
    let adapter = SqliteAdapter::new(SqliteOptions {
        path,
        unique: vec!["orders(order_no)".to_owned()],
        sql: vec!["SELECT count(*) = 0 FROM orders WHERE total < 0".to_owned()],
    });
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let context = CaptureContext { clock: &clock, spool: place.path(), kept: None, known: &[] };
    let recording = Recording::record(adapter.capture(&context)?, &Findings::new())?;
    canary::run(&adapter, &recording, &CANARIES, place.path())
}

fn alter(dir: &Path, sql: &str) -> io::Result<()> {
    let change = || -> rusqlite::Result<()> {
        let connection = Connection::open(dir.join(FILE))?;
        connection.execute_batch("PRAGMA foreign_keys = OFF")?;
        connection.execute_batch(sql)
    };
    change().map_err(io::Error::other)
}

fn open(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(dir.join(FILE))
}

fn flip(file: &File, at: u64) -> io::Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)
}

fn flip_last(dir: &Path) -> io::Result<()> {
    let file = open(dir)?;
    let length_bytes = file.metadata()?.len();
    flip(&file, length_bytes - 1)
}

fn flip_index(dir: &Path) -> io::Result<()> {
    let content = std::fs::read(dir.join(FILE))?;
    let needle = NEEDLE.as_bytes();
    let mut found = content.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle);
    match (found.next(), found.next()) {
        // Either place will do: table and index no longer agree.
        (Some(_), Some((at, _))) => flip(&open(dir)?, at as u64),
        _ => Err(io::Error::other("the sample does not hold its text twice")),
    }
}

fn cut(dir: &Path) -> io::Result<()> {
    let file = open(dir)?;
    let length_bytes = file.metadata()?.len();
    file.set_len(length_bytes / 2)
}
