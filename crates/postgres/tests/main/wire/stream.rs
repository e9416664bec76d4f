//! Streams of copy data: order, bounds, and what happens when the server dies in the middle.

use std::process::Command;
use std::time::{Duration, Instant};

use lifeboat_base::failure::FailureKind;
use lifeboat_postgres::wire::{Event, PgError};
use lifeboat_testkit::{PgOptions, PgServer};

use super::support::{MAJORS, code, connect, drain, value};

/// Set in the child process of the test that measures its memory: other tests would be part of it here.
const ALONE: &str = "LIFEBOAT_TEST_ALONE";
/// What a stream may take beyond what the process had before, whatever its length.
const STREAM_LIMIT_BYTES: u64 = 16 << 20;

/// A figure of this process, such as `VmRSS:`.
fn memory_bytes(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Two hundred million bytes in lines of 1,000.
const LONG: &str = "COPY (SELECT lpad(i::text, 999, '.') FROM generate_series(1, 200000) i) TO STDOUT";

#[test]
fn a_long_copy_takes_little_memory_and_misses_nothing() {
    #[expect(clippy::disallowed_methods, reason = "how the child knows that it is the child")]
    if std::env::var_os(ALONE).is_some() {
        return copy_and_measure();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "main::wire::stream::a_long_copy_takes_little_memory_and_misses_nothing"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn copy_and_measure() {
    let server = PgServer::start(PgOptions::new(15));
    let mut connection = connect(&server);
    let before = memory_bytes("VmRSS:");
    connection.start(LONG).unwrap();
    assert!(matches!(connection.next().unwrap(), Event::CopyOut));
    let mut lines = 0u64;
    loop {
        match connection.next().unwrap() {
            Event::Data(data) => {
                lines += 1;
                assert_eq!(data.len(), 1_000);
                assert!(data.ends_with(format!(".{lines}\n").as_bytes()));
            }
            Event::CopyDone => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(connection.next().unwrap(), Event::Command(tag) if tag == "COPY 200000"));
    drain(&mut connection);
    assert_eq!(lines, 200_000);
    let taken = memory_bytes("VmHWM:").saturating_sub(before);
    assert!(taken < STREAM_LIMIT_BYTES, "{taken}");
    // Canary: what is kept shows.
    let rows = connection.query("SELECT repeat('x', 1000000) FROM generate_series(1, 40)").unwrap();
    assert!(memory_bytes("VmHWM:").saturating_sub(before) > STREAM_LIMIT_BYTES);
    assert_eq!(rows.len(), 40);
}

#[test]
fn a_result_that_would_fill_memory_is_refused_and_one_that_fits_is_kept() {
    let server = PgServer::start(PgOptions::new(16));
    let mut connection = connect(&server);
    let rows = connection.query("SELECT repeat('x', 1000000) FROM generate_series(1, 40)").unwrap();
    assert_eq!(rows.len(), 40);
    drop(rows);
    // Rows of nothing count, too.
    for sql in [
        "SELECT repeat('x', 1000000) FROM generate_series(1, 1000)",
        "SELECT FROM generate_series(1, 5000000)",
    ] {
        let error = connect(&server).query(sql).unwrap_err();
        assert!(matches!(error, PgError::Protocol { what } if what.contains("64 MiB")), "{error}");
    }
}

#[test]
fn copy_data_goes_the_other_way_too() {
    let server = PgServer::start(PgOptions::new(18));
    let mut connection = connect(&server);
    connection.query("CREATE TABLE t (i int, s text)").unwrap();
    connection.start("COPY t FROM STDIN").unwrap();
    assert!(matches!(connection.next().unwrap(), Event::CopyIn));
    for number in 0..10_000 {
        connection.send_copy(format!("{number}\tline {number}\n").as_bytes()).unwrap();
    }
    connection.finish_copy().unwrap();
    assert!(matches!(connection.next().unwrap(), Event::Command(tag) if tag == "COPY 10000"));
    drain(&mut connection);
    assert_eq!(value(&mut connection, "SELECT count(*) || ' ' || max(s) FROM t"), "10000 line 9999");
}

#[test]
fn a_stream_in_tiny_waits_is_the_same_stream() {
    let server = PgServer::start(PgOptions::new(16));
    let mut connection = connect(&server);
    connection
        .start("SELECT 1; COPY (SELECT pg_sleep(0.002), i FROM generate_series(1, 300) i) TO STDOUT")
        .unwrap();
    let (mut nothing, mut data) = (0, 0);
    loop {
        match connection.next_within(Duration::from_millis(1)).unwrap() {
            None => nothing += 1,
            Some(Event::Data(_)) => data += 1,
            Some(Event::Ready) => break,
            Some(_) => {}
        }
    }
    assert_eq!(data, 300);
    assert!(nothing > 0);
}

#[test]
fn a_server_killed_in_the_middle_of_a_stream_is_noticed_at_once() {
    for major in MAJORS {
        let mut server = PgServer::start(PgOptions::new(major));
        let mut connection = connect(&server);
        connection.start(LONG).unwrap();
        for _ in 0..1_000 {
            connection.next().unwrap();
        }
        server.crash();
        #[expect(clippy::disallowed_methods, reason = "the test measures")]
        let killed = Instant::now();
        let error = loop {
            match connection.next() {
                Ok(Event::Ready) => panic!("a killed server cannot finish"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(error, PgError::Closed { .. }), "{error:?}");
        assert_eq!(error.kind(), FailureKind::Unreachable);
        assert!(killed.elapsed() < Duration::from_secs(5));
        assert!(matches!(connection.next().unwrap_err(), PgError::Misuse { .. }));
    }
}

#[test]
fn an_orderly_stop_in_the_middle_of_a_stream_is_told_as_such() {
    let mut server = PgServer::start(PgOptions::new(15));
    let mut connection = connect(&server);
    connection.start("SELECT pg_sleep(600)").unwrap();
    server.stop();
    let error = loop {
        match connection.next() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(code(&error), "57P01");
}
