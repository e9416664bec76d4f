//! The replication protocol: what a backup and a WAL receiver need of a connection.

use std::time::Duration;

use lifeboat_postgres::Lsn;
use lifeboat_postgres::wire::{
    Connection, Event, Mode, PgError, quote_identifier, quote_replication_literal,
};
use lifeboat_testkit::{PgOptions, PgServer};

use super::support::{MAJORS, code, drain, local, options, value};

/// A standby's report that everything up to `at` is safe.
fn status(at: Lsn) -> Vec<u8> {
    let mut out = vec![b'r'];
    for position in [at.0, at.0, 0, 0] {
        out.extend(position.to_be_bytes());
    }
    out.push(0);
    out
}

fn big_endian(data: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(data[at..at + 8].try_into().unwrap())
}

#[test]
fn a_role_that_may_only_replicate_reads_the_wal_as_it_is_written() {
    for major in MAJORS {
        let server = PgServer::start(PgOptions::new(major));
        server.psql("CREATE ROLE keeper LOGIN REPLICATION; CREATE TABLE t (s text)");
        let keeper = options(&server.url("keeper"));
        let mut connection = Connection::connect(&keeper, Mode::Replication).unwrap();
        let rows = connection.query("IDENTIFY_SYSTEM").unwrap();
        let start: Lsn = rows[0].by_name("xlogpos").unwrap().parse().unwrap();
        assert_eq!(rows[0].by_name("timeline"), Some("1"));
        assert!(rows[0].by_name("systemid").unwrap().parse::<u64>().is_ok());
        assert_eq!(rows[0].by_name("dbname"), None);
        assert_eq!(value(&mut connection, "SHOW wal_segment_size"), "16MB");
        let error = connection.query("SELECT 1").unwrap_err();
        assert_eq!(code(&error), "0A000");
        let slot = quote_identifier("ours");
        connection.query(&format!("CREATE_REPLICATION_SLOT {slot} PHYSICAL RESERVE_WAL")).unwrap();

        connection.start(&format!("START_REPLICATION SLOT {slot} PHYSICAL {start} TIMELINE 1")).unwrap();
        assert!(matches!(connection.next().unwrap(), Event::CopyBoth));
        server.psql("INSERT INTO t VALUES ('the needle of this test')");
        let written: Lsn = server.psql("SELECT pg_current_wal_flush_lsn()").parse().unwrap();
        let (mut end, mut found) = (start, false);
        while end < written {
            let Some(event) = connection.next_within(Duration::from_secs(30)).unwrap() else {
                panic!("the server sent nothing for half a minute");
            };
            let Event::Data(data) = event else { panic!("{event:?}") };
            if data[0] == b'w' {
                assert_eq!(big_endian(&data, 1), end.0);
                end = Lsn(end.0 + data.len() as u64 - 25);
                found |= data.windows(23).any(|piece| piece == b"the needle of this test");
            }
        }
        assert!(found);
        assert!(connection.quiet_for() < Duration::from_secs(30));
        connection.send_copy(&status(end)).unwrap();

        connection.finish_copy().unwrap();
        loop {
            match connection.next().unwrap() {
                Event::Ready => break,
                Event::Data(_) | Event::CopyDone | Event::Command(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let confirmed: Lsn = server
            .psql("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'ours'")
            .parse()
            .unwrap();
        assert_eq!(confirmed, end);
        assert_eq!(connection.query("IDENTIFY_SYSTEM").unwrap().len(), 1);
    }
}

#[test]
fn an_error_of_the_server_during_replication_leaves_the_connection_usable() {
    let server = PgServer::start(PgOptions::new(16));
    let mut connection = Connection::connect(&local(&server), Mode::Replication).unwrap();
    connection.start("START_REPLICATION PHYSICAL FFFF/0 TIMELINE 1").unwrap();
    // The server looks at the position only after it has begun to stream.
    assert!(matches!(connection.next().unwrap(), Event::CopyBoth));
    assert!(connection.next().unwrap_err().to_string().contains("ahead of the WAL flush position"));
    assert!(matches!(connection.send_copy(b"r").unwrap_err(), PgError::Misuse { .. }));
    drain(&mut connection);
    assert_eq!(connection.query("IDENTIFY_SYSTEM").unwrap().len(), 1);
}

#[test]
fn a_session_in_a_database_takes_statements_and_replication_commands() {
    let server = PgServer::start(PgOptions::new(18));
    let mut connection = Connection::connect(&local(&server), Mode::ReplicationDatabase).unwrap();
    assert_eq!(value(&mut connection, "SELECT current_database()"), "postgres");
    let rows = connection.query("IDENTIFY_SYSTEM").unwrap();
    assert_eq!(rows[0].by_name("dbname"), Some("postgres"));
}

#[test]
fn a_base_backup_comes_as_rows_and_a_stream() {
    for major in MAJORS {
        let server = PgServer::start(PgOptions::new(major).tablespace("spare"));
        let mut connection = Connection::connect(&local(&server), Mode::Replication).unwrap();
        let label = quote_replication_literal(r"it's a \ label");
        connection.start(&format!("BASE_BACKUP (LABEL {label}, CHECKPOINT 'fast', MANIFEST 'yes')")).unwrap();
        let (mut archives, mut bytes, mut rows, mut streams) = (0, 0, 0, 0);
        let mut labelled = false;
        loop {
            match connection.next().unwrap() {
                Event::Row(_) => rows += 1,
                Event::CopyOut => streams += 1,
                Event::Data(data) => match data[0] {
                    b'n' => archives += 1,
                    b'd' => {
                        bytes += data.len() - 1;
                        labelled |= data.windows(14).any(|piece| piece == br"it's a \ label");
                    }
                    _ => {}
                },
                Event::Ready => break,
                _ => {}
            }
        }
        // The start, two tablespaces, the end; everything in one stream.
        assert_eq!((rows, streams, archives), (4, 1, 2), "{major}");
        assert!(bytes > 10 << 20, "{bytes}");
        assert!(labelled);
    }
}
