//! Base backups of real servers, of both forms of the protocol, with tablespaces, compared with the server's manifest.

use std::collections::BTreeMap;
use std::io::Read;

use lifeboat_base::secret::Secret;
use lifeboat_postgres::backup::{BackupEntry, BackupError, BackupKind, BackupOptions, BaseBackup, Manifest};
use lifeboat_postgres::wire::{ConnectOptions, Connection, Mode};
use lifeboat_testkit::{PgOptions, PgServer};

fn connect(server: &PgServer, mode: Mode) -> Connection {
    let options = ConnectOptions::parse(&Secret::new(server.conninfo())).unwrap();
    Connection::connect(&options, mode).unwrap()
}

fn begin(server: &PgServer) -> BaseBackup {
    let options = BackupOptions { label: "it's a test".to_owned(), fast_checkpoint: true };
    BaseBackup::start(connect(server, Mode::Replication), &options).unwrap()
}

struct Taken {
    entries: BTreeMap<String, (BackupEntry, Vec<u8>)>,
    manifest: Vec<u8>,
    checked: Result<(), BackupError>,
}

fn take(mut backup: BaseBackup, mut read: impl FnMut(&BackupEntry) -> bool) -> Taken {
    let mut entries = BTreeMap::new();
    while let Some(entry) = backup.next_entry().unwrap() {
        let mut content = Vec::new();
        if read(&entry) {
            backup.read_to_end(&mut content).unwrap();
            if let BackupKind::File(size_bytes) = entry.kind {
                assert_eq!(content.len() as u64, size_bytes, "{}", entry.path);
            }
        }
        entries.insert(entry.path.clone(), (entry, content));
    }
    let start = backup.start_position();
    let mut text = Vec::new();
    let (stop, seen) = backup.finish(&mut text).unwrap();
    assert!(stop.lsn > start.lsn, "{start:?} {stop:?}");
    let manifest = Manifest::read(&mut text.as_slice()).unwrap();
    assert_eq!(manifest.wal_ranges[0].start, start.lsn);
    assert_eq!(manifest.wal_ranges[0].end, stop.lsn);
    let checked = manifest.compare(&seen, |path| path.starts_with("pg_wal/"));
    Taken { entries, manifest: text, checked }
}

#[test]
fn every_file_of_every_version_arrives_as_the_manifest_lists_it() {
    for major in [15, 16, 18] {
        let server = PgServer::start(PgOptions::new(major).tablespace("fast").tablespace("slow"));
        server.psql(
            "CREATE TABLE t AS SELECT g AS id, repeat('x', 500) AS pad FROM generate_series(1, 20000) g",
        );
        server.psql("CREATE TABLE u TABLESPACE fast AS SELECT g AS id FROM generate_series(1, 1000) g");
        let backup = begin(&server);
        // The stream names a tablespace's folder by its number only; whoever writes the files makes it.
        let spaces: Vec<String> =
            backup.tablespaces().iter().map(|space| format!("pg_tblspc/{}", space.oid)).collect();
        assert_eq!(spaces.len(), 2);
        assert!(backup.total_bytes() > 20_000_000, "{}", backup.total_bytes());
        let taken = take(backup, |_| true);
        taken.checked.unwrap();
        let content = |path: &str| taken.entries[path].1.as_slice();
        assert_eq!(content("PG_VERSION"), format!("{major}\n").as_bytes());
        assert_eq!(content("global/pg_control").len(), 8192);
        assert!(content("backup_label").starts_with(b"START WAL LOCATION"));
        let paths = || taken.entries.keys();
        assert!(paths().any(|path| path.starts_with("pg_tblspc/") && path.matches('/').count() == 4));
        assert!(paths().any(|path| path.starts_with("pg_wal/0000000100000000")), "no log in the backup");
        assert!(!taken.manifest.is_empty());
        assert!(paths().all(|path| !spaces.contains(path)), "{spaces:?}");
        for path in paths() {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            let known = parent.is_empty()
                || taken.entries.contains_key(parent)
                || spaces.iter().any(|space| space == parent);
            assert!(known, "{path} has no directory");
        }
    }
}

#[test]
fn content_that_nobody_reads_is_hashed_all_the_same() {
    let server = PgServer::start(PgOptions::new(15));
    let mut number = 0;
    let taken = take(begin(&server), |_| {
        number += 1;
        number % 3 == 0
    });
    taken.checked.unwrap();
}

#[test]
fn a_server_that_dies_during_the_backup_is_an_error() {
    let mut server = PgServer::start(PgOptions::new(15));
    server.psql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS pad FROM generate_series(1, 600000) g");
    let mut backup = begin(&server);
    let first = backup.next_entry().unwrap();
    assert!(first.is_some());
    server.crash();
    let error = loop {
        match backup.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a whole backup of a dead server"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BackupError::Connection { .. }), "{error:?}");
}

#[test]
fn a_backup_that_is_given_up_ends_on_the_server_too() {
    let server = PgServer::start(PgOptions::new(15));
    server.psql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS pad FROM generate_series(1, 600000) g");
    drop(begin(&server));
    let mut sql = connect(&server, Mode::Sql);
    let waiting = "SELECT count(*) FROM pg_stat_replication WHERE state = 'backup'";
    while sql.query(waiting).unwrap()[0].get(0) != Some("0") {
        sql.query("SELECT pg_sleep(0.05)").unwrap();
    }
}
