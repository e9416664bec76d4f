//! Generated stores: a shop database that is written to all the time, and a tree of uploads. The same every time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use rusqlite::{Connection, params};

pub(super) const CUSTOMERS: u64 = 20_000;
pub(super) const ORDERS: u64 = 200_000;
const FOLDERS: u64 = 60;
const FILES: u64 = 3_000;
const LARGE: u64 = 3;
const LARGE_BYTES: u64 = 24 * 1024 * 1024;
/// How long the writer rests between transactions.
const PAUSE: Duration = Duration::from_millis(2);

/// A small generator of numbers that look random and repeat exactly (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

pub(super) fn sql(error: rusqlite::Error) -> Failure {
    Failure::with_source(FailureKind::Internal, "failed to work on the demo database", error)
}

fn io(error: io::Error) -> Failure {
    Failure::io("failed to write the demo's files", error)
}

pub(super) fn open(path: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open(path).map_err(sql)?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(sql)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(sql)?;
    Ok(connection)
}

/// The shop: customers, orders that belong to them, and the history of its schema.
pub(super) fn make_shop(path: &Path) -> Result<(), Failure> {
    let mut connection = open(path)?;
    connection
        .execute_batch(
            "CREATE TABLE schema_migrations (version TEXT PRIMARY KEY, applied_at TEXT NOT NULL);
             INSERT INTO schema_migrations VALUES ('001_customers', '2026-01-05'), ('002_orders', '2026-02-11');
             CREATE TABLE customers (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL);
             CREATE TABLE orders (
                 id INTEGER PRIMARY KEY, order_no TEXT NOT NULL, customer_id INTEGER NOT NULL REFERENCES customers(id),
                 total_cents INTEGER NOT NULL, note TEXT);
             CREATE UNIQUE INDEX orders_by_number ON orders(order_no);
             CREATE INDEX orders_by_customer ON orders(customer_id);",
        )
        .map_err(sql)?;
    let transaction = connection.transaction().map_err(sql)?;
    {
        let mut insert = transaction
            .prepare("INSERT INTO customers (id, email, name) VALUES (?1, ?2, ?3)")
            .map_err(sql)?;
        for id in 1..=CUSTOMERS {
            let id = id.cast_signed();
            insert
                .execute(params![id, format!("c{id}@example.com"), format!("Customer {id}")])
                .map_err(sql)?;
        }
    }
    insert_orders(&transaction, 1, ORDERS, &mut Dice::new(7))?;
    transaction.commit().map_err(sql)?;
    connection.pragma_update(None, "wal_checkpoint", "TRUNCATE").map_err(sql)
}

fn insert_orders(connection: &Connection, first: u64, count: u64, dice: &mut Dice) -> Result<(), Failure> {
    let mut insert = connection
        .prepare_cached(
            "INSERT INTO orders (order_no, customer_id, total_cents, note) VALUES (?1, ?2, ?3, ?4)",
        )
        .map_err(sql)?;
    for number in first..first + count {
        let customer = (dice.below(CUSTOMERS) + 1).cast_signed();
        let total = dice.below(100_000).cast_signed();
        let note = format!("{:016x}{:016x}", dice.next(), dice.next());
        insert.execute(params![format!("A{number:08}"), customer, total, note]).map_err(sql)?;
    }
    Ok(())
}

/// Customers who keep ordering: one small transaction after the other until stopped.
pub(super) struct Shoppers {
    stop: mpsc::SyncSender<()>,
    thread: JoinHandle<Result<u64, Failure>>,
}

impl Shoppers {
    /// Starts writing orders numbered from `first`.
    pub(super) fn start(path: PathBuf, first: u64) -> Self {
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            let mut connection = open(&path)?;
            let mut dice = Dice::new(first);
            let mut written = 0;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PAUSE) {
                let transaction = connection.transaction().map_err(sql)?;
                insert_orders(&transaction, first + written, 5, &mut dice)?;
                transaction.commit().map_err(sql)?;
                written += 5;
            }
            Ok(written)
        });
        Self { stop, thread }
    }

    /// Stops and says how many orders were written meanwhile.
    pub(super) fn finish(self) -> Result<u64, Failure> {
        drop(self.stop);
        self.thread.join().map_err(|_panic| Failure::new(FailureKind::Internal, "the demo's writer died"))?
    }
}

/// Orders in the database.
pub(super) fn count_orders(path: &Path) -> Result<u64, Failure> {
    let count: i64 =
        open(path)?.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).map_err(sql)?;
    Ok(count.unsigned_abs())
}

/// A tree of uploads: many small files, some large ones, links and awkward names. Gives files and bytes.
pub(super) fn make_uploads(root: &Path) -> Result<(u64, u64), Failure> {
    let mut dice = Dice::new(42);
    let (mut files, mut bytes) = (0, 0);
    for folder in 0..FOLDERS {
        let dir = root.join(format!("customer-{folder:03}"));
        fs::create_dir_all(&dir).map_err(io)?;
        for number in 0..FILES / FOLDERS {
            let size = 512 + dice.below(24 * 1024);
            write_noise(&dir.join(format!("photo {number:04}.jpg")), size, &mut dice)?;
            files += 1;
            bytes += size;
        }
    }
    let large = root.join("videos");
    fs::create_dir_all(&large).map_err(io)?;
    for number in 0..LARGE {
        write_noise(&large.join(format!("tour-{number}.mp4")), LARGE_BYTES, &mut dice)?;
        files += 1;
        bytes += LARGE_BYTES;
    }
    symlink("videos/tour-0.mp4", root.join("latest.mp4")).map_err(io)?;
    fs::hard_link(large.join("tour-1.mp4"), root.join("same-as-tour-1.mp4")).map_err(io)?;
    write_noise(&root.join("übersicht\n2026.txt"), 2_000, &mut dice)?;
    Ok((files + 2, bytes + 2_000 + LARGE_BYTES))
}

/// What happens in a day: new files, a changed one, and one deleted by mistake.
pub(super) fn change_uploads(root: &Path) -> Result<(), Failure> {
    let mut dice = Dice::new(43);
    for number in 0..20 {
        write_noise(&root.join(format!("customer-000/new {number}.jpg")), 8_000, &mut dice)?;
    }
    write_noise(&root.join("customer-001/photo 0001.jpg"), 9_000, &mut dice)?;
    fs::remove_file(root.join("videos/tour-2.mp4")).map_err(io)
}

fn write_noise(path: &Path, bytes: u64, dice: &mut Dice) -> Result<(), Failure> {
    let mut writer = io::BufWriter::new(File::create(path).map_err(io)?);
    let mut left = bytes;
    while left > 0 {
        let word = dice.next().to_le_bytes();
        let take = usize::try_from(left.min(8)).unwrap_or(8);
        writer.write_all(word.get(..take).unwrap_or_default()).map_err(io)?;
        left -= take as u64;
    }
    writer.flush().map_err(io)
}
