//! Kind `sqlite`: the conformance suite over a busy database, and the proof that a capture is one moment.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lifeboat_base::capture::{Body, Capture, ConsistencyLevel, Layout};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::{ManualClock, Timestamp};
use lifeboat_stores::conformance::{Answer, Fixture, violations, without_privilege};
use lifeboat_stores::{
    Adapter, CaptureContext, CheckResult, CheckState, Recording, Selection, SqliteAdapter, SqliteOptions,
};
use rusqlite::backup::Backup;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

fn adapter(path: &Path) -> SqliteAdapter {
    SqliteAdapter::new(SqliteOptions { path: path.to_owned(), unique: Vec::new(), sql: Vec::new() })
}

fn start(path: &Path) -> Result<Box<dyn Capture>, Failure> {
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    adapter(path).capture(&CaptureContext {
        clock: &clock,
        spool: Path::new("/nowhere"),
        kept: None,
        known: &[],
    })
}

fn record(path: &Path) -> (Recording, Findings) {
    let monitor = Findings::new();
    let point = Recording::record(start(path).unwrap(), &monitor).unwrap();
    (point, monitor)
}

/// The one file below `data`.
fn database_in(point: &Recording) -> &[u8] {
    let path = point.paths().find(|path| path.depth() == 2).unwrap();
    point.content(path).unwrap()
}

fn restore(adapter: &SqliteAdapter, point: &Recording, into: &Path) -> Vec<CheckResult> {
    let monitor = Findings::new();
    adapter.restore(point, point.facts(), into, &monitor).unwrap();
    adapter.checks(point, point.facts(), into, &monitor).unwrap()
}

fn ids_that(state: CheckState, results: &[CheckResult]) -> Vec<&str> {
    results.iter().filter(|result| result.state == state).map(|result| result.id.as_str()).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

const FULL: &str = r#"
    PRAGMA journal_mode = WAL;
    PRAGMA application_id = 1234;
    PRAGMA user_version = 7;
    CREATE TABLE customers(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
    CREATE TABLE orders(
        id INTEGER PRIMARY KEY, order_no TEXT UNIQUE, customer INTEGER REFERENCES customers(id), total REAL,
        cents INTEGER GENERATED ALWAYS AS (CAST(total * 100 AS INTEGER)) STORED
    );
    CREATE TABLE "größe ""日本"" 🚑"("a b" TEXT, "select" BLOB, rowid TEXT);
    CREATE TABLE tags(tag TEXT COLLATE NOCASE PRIMARY KEY, weight) WITHOUT ROWID;
    CREATE TABLE vacant(a);
    CREATE TABLE large(body BLOB);
    CREATE VIRTUAL TABLE notes USING fts5(title, body);
    CREATE VIEW rich AS SELECT * FROM orders WHERE total > 100;
    CREATE INDEX orders_customer ON orders(customer) WHERE total > 5;
    CREATE TRIGGER t AFTER DELETE ON orders BEGIN DELETE FROM tags WHERE tag = old.order_no; END;
    CREATE TABLE _sqlx_migrations(version BIGINT PRIMARY KEY, description TEXT, checksum BLOB, execution_time BIGINT);
    INSERT INTO _sqlx_migrations VALUES (1, 'first', x'00ff', 5), (2, 'second', x'01', 6);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
        INSERT INTO customers(name) SELECT 'customer ' || i FROM n;
    INSERT INTO orders(order_no, customer, total) SELECT 'A-' || id, id, id * 1.5 FROM customers;
    INSERT INTO "größe ""日本"" 🚑" VALUES ('x', x'00', 'shadows'), (NULL, NULL, NULL), ('', x'', ''),
        (CAST(x'fffe80' AS TEXT), zeroblob(3), 'not UTF-8'), ('a' || char(0) || 'b', 1e308 * 10, -0.0);
    INSERT INTO tags VALUES ('a', 1), ('b', 1.0), ('c', '1'), ('d', x'31'), ('e', NULL), ('f', 9223372036854775807);
    INSERT INTO large VALUES (randomblob(3000000)), (zeroblob(100000)), (randomblob(5000));
    INSERT INTO notes VALUES ('one', 'the quick brown fox'), ('two', 'jumps over');
    ANALYZE;
"#;

struct Databases;

fn full_at(path: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    // The log stays full when the connection closes, as after a crash of the application.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch(FULL)
}

fn bench(error: rusqlite::Error) -> Failure {
    Failure::with_source(FailureKind::Internal, "the bench failed", error)
}

const NAME: &str = "größe ? 100% #日本.db";

impl Fixture for Databases {
    fn empty(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        File::create(place.join(NAME)).map_err(|error| Failure::io("the bench failed", error))?;
        Ok(Box::new(adapter(&place.join(NAME))))
    }

    fn full(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        full_at(&place.join(NAME)).map_err(bench)?;
        Ok(Box::new(SqliteAdapter::new(SqliteOptions {
            path: place.join(NAME),
            unique: vec!["orders(order_no)".to_owned(), "customers(id, name)".to_owned()],
            sql: vec![
                "select count(*) = 500 from orders".to_owned(),
                "select count(*) = 1 from notes where notes match 'fox'".to_owned(),
            ],
        })))
    }

    fn question(&self) -> Option<(Selection, Answer)> {
        let text = "SELECT order_no, customer AS value, 1795302000 AS at FROM orders".to_owned();
        let row = |id: u32| (format!("A-{id}").into_bytes(), Some(id.to_string().into_bytes()));
        Some((Selection::Sql { database: None, text }, (1..=500).map(row).collect()))
    }

    fn change(&self, place: &Path, round: u64) -> Result<(), Failure> {
        let connection = Connection::open(place.join(NAME)).map_err(bench)?;
        connection
            .execute("UPDATE orders SET total = total + ?1 WHERE id % 7 = 0", [round.cast_signed()])
            .and_then(|_| connection.execute("INSERT INTO customers(name) VALUES ('new')", []))
            .map_err(bench)?;
        Ok(())
    }

    fn seal(&self, place: &Path) -> Result<(), Failure> {
        fs::set_permissions(place.join(NAME), fs::Permissions::from_mode(0o000))
            .map_err(|error| Failure::io("the bench failed", error))
    }

    fn missing(&self, place: &Path) -> Box<dyn Adapter> {
        Box::new(adapter(&place.join("not-there.db")))
    }

    fn wrong(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure> {
        let path = place.join("encrypted.db");
        let noise: Vec<u8> =
            (0..8192_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        File::create(&path)
            .and_then(|mut file| file.write_all(&noise))
            .map_err(|error| Failure::io("the bench failed", error))?;
        Ok(Box::new(adapter(&path)))
    }

    fn is_content(&self, path: &Path) -> bool {
        // Locks and an index of the log, made anew by whoever comes first.
        !path.to_string_lossy().ends_with("-shm")
    }

    fn reopen(&self, artefact: &Path) -> Box<dyn Adapter> {
        Box::new(adapter(artefact))
    }
}

#[test]
fn the_adapter_conforms() {
    let scratch = tempfile::tempdir().unwrap();
    let violations = violations(&Databases, scratch.path());
    assert!(violations.is_empty(), "{violations:#?}");
}

/// The header fields that a backup's destination counts for itself: change counter, size in pages, schema cookie,
/// version-valid-for and version number.
const COUNTED_BY_THE_DESTINATION: [std::ops::Range<usize>; 3] = [24..32, 40..44, 92..100];

fn without_counters(database: &[u8]) -> Vec<u8> {
    let mut database = database.to_vec();
    for range in COUNTED_BY_THE_DESTINATION {
        if let Some(field) = database.get_mut(range) {
            field.fill(0);
        }
    }
    database
}

/// What SQLite's own online backup makes of the snapshot `source` stands in.
fn online_backup(source: &Connection, to: &Path) -> Vec<u8> {
    let mut target = Connection::open(to).unwrap();
    Backup::new(source, &mut target)
        .unwrap()
        .run_to_completion(100, std::time::Duration::ZERO, None)
        .unwrap();
    drop(target);
    fs::read(to).unwrap()
}

fn pinned(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").unwrap();
    connection
}

#[test]
fn a_capture_is_the_snapshot_that_the_online_backup_copies_whatever_happens_meanwhile() {
    for (page_size, auto_vacuum) in [(512, 0), (4096, 0), (4096, 1), (8192, 2), (65536, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch(&format!("PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum};"))
            .unwrap();
        writer.execute_batch(FULL).unwrap();
        writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); DELETE FROM large WHERE rowid = 1;").unwrap();
        writer.execute_batch("UPDATE customers SET name = name || ' in the log';").unwrap();

        let frozen = pinned(&path);
        let mut capture = start(&path).unwrap();
        let monitor = Findings::new();
        capture.next_entry(&monitor).unwrap();
        let Body::File { mut reader, layout, .. } = capture.next_entry(&monitor).unwrap().unwrap().body
        else {
            panic!("the second entry is the database")
        };
        assert_eq!(layout, Layout::Pages { page_bytes: page_size });
        let mut captured = vec![0; 70_000];
        reader.read_exact(&mut captured).unwrap();
        // Half-way: rows change and go, pages are freed and reused, the log is copied into the file, the file is rebuilt.
        writer
            .execute_batch(
                "DELETE FROM orders; UPDATE customers SET name = 'gone'; DROP TABLE tags; PRAGMA wal_checkpoint(PASSIVE);
                 INSERT INTO large VALUES (randomblob(500000)); VACUUM; PRAGMA wal_checkpoint(PASSIVE);
                 CREATE TABLE after(a);",
            )
            .unwrap();
        reader.read_to_end(&mut captured).unwrap();
        let copied = online_backup(&frozen, &dir.path().join("backup.db"));
        assert!(without_counters(&captured) == without_counters(&copied), "page size {page_size}");
        assert_eq!(captured.len(), copied.len());
        // And the tables, read after the pages, are of the same moment.
        while capture.next_entry(&monitor).unwrap().is_some() {}
        let facts = capture.finish().unwrap();
        assert_eq!(facts.consistency.level, ConsistencyLevel::PointInTime);
        assert_eq!((facts.counts["rows/orders"], facts.counts["rows/tags"]), (500, 6));
        assert_eq!(monitor.list(), []);
    }
}

#[test]
fn a_capture_of_a_database_at_rest_is_the_file_itself() {
    let dir = tempfile::tempdir().unwrap();
    for mode in ["DELETE", "WAL"] {
        let path = dir.path().join(format!("{mode}.db"));
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(FULL).unwrap();
        connection.execute_batch(&format!("PRAGMA journal_mode = {mode}")).unwrap();
        drop(connection);
        let (point, _) = record(&path);
        assert!(database_in(&point) == fs::read(&path).unwrap(), "{mode}");
        assert_eq!(point.facts().environment["journal_mode"], mode.to_lowercase());
    }
    assert_eq!(names(dir.path()), ["DELETE.db", "WAL.db"]);
}

#[test]
fn a_busy_ledger_never_shows_half_a_transfer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let setup = Connection::open(&path).unwrap();
    setup
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER, filler BLOB);
             CREATE TABLE transfers(id INTEGER PRIMARY KEY, source INTEGER REFERENCES accounts(id), amount INTEGER);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                INSERT INTO accounts SELECT i, 1000, randomblob(400) FROM n;",
        )
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (writer_stop, writer_path) = (Arc::clone(&stop), path.clone());
    let writer = std::thread::spawn(move || {
        let connection = Connection::open(writer_path).unwrap();
        connection.execute_batch("PRAGMA wal_autocheckpoint = 50").unwrap();
        let mut round = 0;
        while !writer_stop.load(Ordering::Relaxed) {
            round += 1;
            let (from, to) = (round * 7 % 1000 + 1, round * 13 % 1000 + 1);
            connection
                .execute_batch(&format!(
                    "BEGIN IMMEDIATE; UPDATE accounts SET balance = balance - 5, filler = randomblob(400) WHERE id = {from};
                     UPDATE accounts SET balance = balance + 5 WHERE id = {to};
                     INSERT INTO transfers(source, amount) VALUES ({from}, 5); COMMIT;"
                ))
                .unwrap();
        }
        round
    });
    let adapter = SqliteAdapter::new(SqliteOptions {
        path: path.clone(),
        unique: vec!["transfers(id)".to_owned()],
        sql: vec!["select sum(balance) = 1000000 from accounts".to_owned()],
    });
    let mut seen = Vec::new();
    for _ in 0..8 {
        let (point, monitor) = record(&path);
        let into = tempfile::tempdir().unwrap();
        let results = restore(&adapter, &point, into.path());
        assert_eq!(ids_that(CheckState::Failed, &results), [""; 0]);
        assert_eq!(monitor.list(), []);
        seen.push(point.facts().counts["rows/transfers"]);
    }
    stop.store(true, Ordering::Relaxed);
    let rounds: i64 = writer.join().unwrap();
    assert!(seen.is_sorted() && rounds.unsigned_abs() >= seen[7], "{seen:?} of {rounds}");
}

#[test]
fn with_a_rollback_journal_a_writer_waits_and_a_rebuild_cannot_slip_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1);").unwrap();
    writer.busy_timeout(std::time::Duration::ZERO).unwrap();
    let capture = start(&path).unwrap();
    let busy = |sql: &str| writer.execute_batch(sql).unwrap_err().sqlite_error_code();
    assert_eq!(busy("INSERT INTO t VALUES (2)"), Some(ErrorCode::DatabaseBusy));
    assert_eq!(busy("PRAGMA page_size = 1024; VACUUM"), Some(ErrorCode::DatabaseBusy));
    drop(capture);
    writer.execute_batch("INSERT INTO t VALUES (2); PRAGMA page_size = 1024; VACUUM").unwrap();
    assert_eq!(record(&path).0.facts().environment["page_size"], 1024);
}

#[test]
fn a_log_that_is_gone_is_made_and_taken_away_again_even_when_the_capture_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    Connection::open(&path).unwrap().execute_batch(FULL).unwrap();
    assert_eq!(names(dir.path()), ["app.db"]);
    let before = fs::metadata(&path).unwrap();
    let mut capture = start(&path).unwrap();
    capture.next_entry(&Findings::new()).unwrap();
    drop(capture);
    adapter(&path).inspect().unwrap();
    record(&path);
    let after = fs::metadata(&path).unwrap();
    assert_eq!(names(dir.path()), ["app.db"]);
    assert_eq!((before.mtime_nsec(), before.ctime_nsec()), (after.mtime_nsec(), after.ctime_nsec()));
}

/// Locks of this process on the file, as the kernel lists them.
fn locks_on(path: &Path) -> usize {
    let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
    let pid = format!(" {} ", std::process::id());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().filter(|line| line.contains(&inode) && line.contains(&pid)).count()
}

#[test]
fn a_capture_does_not_drop_the_locks_of_its_own_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1);").unwrap();
    // A reader leaves no journal beside the file, a writer does: the file is looked into in different ways.
    for transaction in ["BEGIN; SELECT * FROM t;", "BEGIN IMMEDIATE; INSERT INTO t VALUES (2);"] {
        writer.execute_batch(transaction).unwrap();
        let held = locks_on(&path);
        assert!(held > 0, "{transaction}");
        adapter(&path).inspect().unwrap();
        record(&path);
        assert_eq!(locks_on(&path), held, "{transaction}");
        writer.execute_batch("COMMIT").unwrap();
    }
}

#[test]
fn the_journal_of_a_crashed_application_is_left_to_the_application() {
    let dir = tempfile::tempdir().unwrap();
    let (live, crashed) = (dir.path().join("live.db"), dir.path().join("crashed.db"));
    let connection = Connection::open(&live).unwrap();
    connection
        .execute_batch(
            "PRAGMA cache_size = 1; CREATE TABLE t(a); CREATE INDEX i ON t(a);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                INSERT INTO t SELECT randomblob(500) FROM n;
             BEGIN; UPDATE t SET a = randomblob(500);",
        )
        .unwrap();
    // What a power cut would leave: both files as they are now.
    let copy = |from: &Path, to: &Path| {
        let content = fs::read(from).unwrap();
        File::create(to).unwrap().write_all(&content).unwrap();
    };
    copy(&live, &crashed);
    copy(&dir.path().join("live.db-journal"), &dir.path().join("crashed.db-journal"));
    let before = fs::read(&crashed).unwrap();
    let failure = start(&crashed).map(|_| ()).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Unreachable, "{failure:?}");
    assert!(failure.to_string().contains("application may roll"), "{failure}");
    assert!(fs::read(&crashed).unwrap() == before);
    assert!(dir.path().join("crashed.db-journal").exists());
}

#[test]
fn the_log_of_a_crashed_application_is_part_of_the_capture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    full_at(&path).unwrap();
    fs::remove_file(dir.path().join("app.db-shm")).unwrap();
    let log = fs::read(dir.path().join("app.db-wal")).unwrap();
    let (point, _) = record(&path);
    assert_eq!(point.facts().counts["rows/orders"], 500);
    assert!(fs::read(dir.path().join("app.db-wal")).unwrap() == log);
    let into = tempfile::tempdir().unwrap();
    let results = restore(&adapter(&path), &point, into.path());
    assert_eq!(ids_that(CheckState::Failed, &results), [""; 0]);
    assert_eq!(names(into.path()), ["app.db"]);
}

#[test]
fn a_log_that_may_not_be_read_is_an_error_not_an_older_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    full_at(&path).unwrap();
    fs::set_permissions(dir.path().join("app.db-wal"), fs::Permissions::from_mode(0o000)).unwrap();
    let failure = without_privilege(|| start(&path).map(|_| ()).unwrap_err()).unwrap();
    assert_eq!(failure.kind(), FailureKind::Unreachable, "{failure:?}");
    assert!(failure.to_string().contains("-wal"), "{failure}");
}

#[test]
fn what_is_known_about_a_database_is_in_the_facts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    full_at(&path).unwrap();
    let (point, _) = record(&path);
    let environment = &point.facts().environment;
    assert_eq!(environment["application_id"], 1234);
    assert_eq!(environment["user_version"], 7);
    assert_eq!(environment["encoding"], "UTF-8");
    assert_eq!(environment["virtual_tables"][0], "notes");
    let migrations = &environment["migrations"]["_sqlx_migrations"];
    assert_eq!(migrations["columns"].to_string(), r#"["version","description","checksum"]"#);
    assert_eq!(migrations["rows"].to_string(), r#"[[1,"first","00ff"],[2,"second","01"]]"#);
    let counts = &point.facts().counts;
    assert_eq!(counts["rows/größe \"日本\" 🚑"], 5);
    assert_eq!((counts["rows/vacant"], counts["rows/sqlite_sequence"]), (0, 1));
    assert!(counts.contains_key("rows/notes_data") && !counts.contains_key("rows/notes"));
    assert!(point.facts().consistency.position.as_ref().unwrap().starts_with("change-counter:"));
    let schema = point.content(&RelPath::new("meta/schema.sql").unwrap()).unwrap();
    assert!(String::from_utf8_lossy(schema).contains("CREATE TRIGGER t AFTER DELETE"));
}

#[test]
fn a_database_behind_a_link_is_captured_with_its_log() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let link = elsewhere.path().join("link.db");
    full_at(&dir.path().join("app.db")).unwrap();
    symlink(dir.path().join("app.db"), &link).unwrap();
    assert_eq!(record(&link).0.facts().counts["rows/orders"], 500);
    assert_eq!(names(elsewhere.path()), ["link.db"]);
}

fn edit_schema(path: &Path, statements: &str) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(&format!("PRAGMA writable_schema = ON; {statements}")).unwrap();
}

#[test]
fn what_only_the_application_can_read_is_told_and_not_called_proven() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    edit_schema(
        &path,
        "CREATE TABLE words(w TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID; INSERT INTO words VALUES ('a');
         CREATE TABLE plain(a); INSERT INTO plain VALUES (1);
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'ICELANDIC') WHERE name = 'words';
         INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING nosuchmodule(x)');",
    );
    let (point, monitor) = record(&path);
    let told: Vec<_> = monitor.list().into_iter().map(|finding| (finding.code, finding.subject)).collect();
    assert_eq!(told, [("sqlite-table-unchecked".to_owned(), "words".to_owned())]);
    assert!(point.facts().unreadable.is_empty());
    let into = tempfile::tempdir().unwrap();
    let results = restore(&adapter(&path), &point, into.path());
    assert_eq!(ids_that(CheckState::Failed, &results), [""; 0]);
    let unproven = ids_that(CheckState::NotApplicable, &results);
    assert!(unproven.contains(&"sqlite.content/words"), "{unproven:?}");
    assert!(ids_that(CheckState::Passed, &results).contains(&"sqlite.content/plain"));
}

#[test]
fn a_corrupt_table_is_captured_as_it_is_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("CREATE TABLE good(a); INSERT INTO good VALUES (1); CREATE TABLE bad(a);")
        .unwrap();
    connection.execute_batch("INSERT INTO bad VALUES (2);").unwrap();
    let root: u64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'bad'", [], |row| row.get::<_, i64>(0))
        .unwrap()
        .unsigned_abs();
    drop(connection);
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(&[0xee; 4096], (root - 1) * 4096)
        .unwrap();
    let (point, monitor) = record(&path);
    assert_eq!(point.facts().unreadable, ["table bad"]);
    assert_eq!(monitor.list()[0].code, "sqlite-table-unreadable");
    assert!(database_in(&point) == fs::read(&path).unwrap());
    let into = tempfile::tempdir().unwrap();
    let results = restore(&adapter(&path), &point, into.path());
    assert!(ids_that(CheckState::Failed, &results).contains(&"sqlite.integrity"));
}

#[test]
fn a_truncated_source_and_a_directory_are_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("app.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (zeroblob(50000));").unwrap();
    drop(connection);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(20_000).unwrap();
    for path in [path.as_path(), dir.path()] {
        let failure = start(path).map(|_| ()).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Unreachable, "{failure:?}");
    }
}
