//! Statements: what comes back, and what is left of the connection after something went wrong.

use std::time::Duration;

use lifeboat_base::failure::{FailureKind, chain};
use lifeboat_postgres::wire::{Connection, Event, Mode, PgError, quote_identifier, quote_literal};
use lifeboat_testkit::{PgOptions, PgServer};

use super::support::{MAJORS, code, connect, drain, local, value};

#[test]
fn values_come_back_as_the_server_wrote_them() {
    for major in MAJORS {
        let server = PgServer::start(PgOptions::new(major));
        let mut connection = connect(&server);
        assert_eq!(connection.server_version().unwrap() / 10_000, major);
        assert_eq!(connection.server_version().unwrap().to_string(), server.psql("SHOW server_version_num"));
        assert_eq!(connection.parameter("server_encoding"), Some("UTF8"));
        let rows = connection.query("SELECT 1 AS one, NULL AS gone, 'ä€🛟' AS text, '' AS empty").unwrap();
        assert_eq!(rows[0].columns(), ["one", "gone", "text", "empty"]);
        let values: Vec<_> = (0..5).map(|index| rows[0].get(index)).collect();
        assert_eq!(values, [Some("1"), None, Some("ä€🛟"), Some(""), None]);
        assert_eq!(rows[0].by_name("text"), Some("ä€🛟"));
        let rows = connection.query("SELECT 1; SELECT 2 UNION SELECT 3 ORDER BY 1; CREATE TEMP TABLE t ()");
        let values: Vec<_> = rows.unwrap().iter().map(|row| row.get(0).unwrap().to_owned()).collect();
        assert_eq!(values, ["2", "3"]);
        assert!(connection.query("").unwrap().is_empty());
        assert_eq!(value(&mut connection, "SELECT pg_backend_pid()"), connection.backend_pid().to_string());
        let shown = value(
            &mut connection,
            "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        );
        assert_eq!(shown, "lifeboat");
    }
}

#[test]
fn quoted_text_reads_back() {
    let server = PgServer::start(PgOptions::new(16));
    let mut connection = connect(&server);
    for text in ["plain", "it's", r"back\slash '\", "ä \"quoted\" \n€", "$$; DROP TABLE t --"] {
        for strings in ["on", "off"] {
            connection.query(&format!("SET standard_conforming_strings = {strings}")).unwrap();
            let sql = format!("SELECT {} AS {}", quote_literal(text), quote_identifier(text));
            let rows = connection.query(&sql).unwrap();
            assert_eq!((rows[0].get(0), rows[0].columns()[0].as_str()), (Some(text), text));
        }
    }
}

#[test]
fn an_error_names_its_cause_and_leaves_the_connection_usable() {
    let server = PgServer::start(PgOptions::new(15));
    let mut connection = connect(&server);
    let error = connection.query("SELECT 1; SELECT frmo x; SELECT 2").unwrap_err();
    assert_eq!((code(&error), error.server().unwrap().severity.as_str()), ("42703", "ERROR"));
    assert_eq!(error.server().unwrap().position, Some(18));
    let error = connection.query("DO $$ BEGIN RAISE 'a%b', chr(27) USING HINT = 'h', DETAIL = 'd'; END $$");
    let error = error.unwrap_err();
    assert_eq!(chain(&error), "the server says ERROR: a\u{fffd}b [P0001]; detail: d; hint: h");
    assert!(connection.query("SELECT repeat('x', 5000)::int").is_err());
    let long = connection.query("SELECT repeat('x', 5000)::int").unwrap_err();
    assert!(chain(&long).len() < 2_300);
    let error = connection.query("SELECT '\0'").unwrap_err();
    assert!(matches!(error, PgError::Misuse { .. }));
    // Data for a COPY that `query` cannot give.
    connection.query("CREATE TEMP TABLE t (i int)").unwrap();
    assert_eq!(code(&connection.query("COPY t FROM STDIN").unwrap_err()), "57014");
    assert_eq!(value(&mut connection, "SELECT 7"), "7");
}

#[test]
fn the_connection_says_when_it_is_of_no_use_any_more() {
    let server = PgServer::start(PgOptions::new(18));
    let mut connection = connect(&server);
    let error = connection.query("SELECT pg_terminate_backend(pg_backend_pid())").unwrap_err();
    assert_eq!((code(&error), error.kind()), ("57P01", FailureKind::Unreachable));
    assert!(matches!(connection.query("SELECT 1").unwrap_err(), PgError::Misuse { .. }));
    // Ended by somebody else while nothing was asked: the parting message is found.
    let mut connection = connect(&server);
    let pid = connection.backend_pid();
    server.psql(&format!("SELECT pg_terminate_backend({pid}, 10000)"));
    assert_eq!(code(&connection.query("SELECT 1").unwrap_err()), "57P01");
    // A statement that streams cannot be a query.
    let mut connection = connect(&server);
    assert!(matches!(connection.query("COPY (SELECT 1) TO STDOUT").unwrap_err(), PgError::Misuse { .. }));
}

#[test]
fn events_come_in_order_and_only_when_asked_for() {
    let server = PgServer::start(PgOptions::new(16));
    let mut connection = connect(&server);
    assert!(matches!(connection.next().unwrap_err(), PgError::Misuse { .. }));
    connection.start("DO $$ BEGIN RAISE WARNING 'careful'; END $$; SELECT 1 AS a; SELECT 1/0").unwrap();
    assert!(matches!(connection.start("SELECT 1").unwrap_err(), PgError::Misuse { .. }));
    assert!(matches!(connection.send_copy(b"x").unwrap_err(), PgError::Misuse { .. }));
    let notice = connection.next().unwrap();
    assert!(matches!(notice, Event::Notice(notice) if notice.message == "careful"));
    assert!(matches!(connection.next().unwrap(), Event::Command(tag) if tag == "DO"));
    assert!(matches!(connection.next().unwrap(), Event::Columns(names) if names[..] == ["a"]));
    assert!(matches!(connection.next().unwrap(), Event::Row(row) if row.get(0) == Some("1")));
    assert!(matches!(connection.next().unwrap(), Event::Command(tag) if tag == "SELECT 1"));
    assert_eq!(code(&connection.next().unwrap_err()), "22012");
    assert!(matches!(connection.next().unwrap(), Event::Ready));
    assert!(connection.is_idle());
}

#[test]
fn a_value_that_is_not_utf_8_is_an_error_and_not_another_value() {
    let server = PgServer::start(PgOptions::new(15));
    server.psql("CREATE DATABASE raw ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'");
    let mut connection = Connection::connect(&local(&server).with_database("raw"), Mode::Sql).unwrap();
    let error = connection.query(r"SELECT 'fine', E'\xE4'; SELECT 1").unwrap_err();
    assert_eq!(code(&error), "22021");
    assert_eq!(value(&mut connection, "SELECT 2"), "2");
}

#[test]
fn a_connection_may_move_to_another_thread() {
    let server = PgServer::start(PgOptions::new(15));
    let mut connection = connect(&server);
    std::thread::spawn(move || assert_eq!(value(&mut connection, "SELECT 5"), "5")).join().unwrap();
}

#[test]
fn another_thread_can_cancel() {
    for major in MAJORS {
        let server = PgServer::start(PgOptions::new(major));
        let mut connection = connect(&server);
        connection.start("SELECT pg_sleep(600)").unwrap();
        // Nothing has come, and the wait for it was short.
        assert!(connection.next_within(Duration::from_millis(50)).unwrap().is_none());
        let canceller = connection.canceller();
        std::thread::spawn(move || canceller.cancel()).join().unwrap().unwrap();
        let error = loop {
            match connection.next() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(code(&error), "57014");
        drain(&mut connection);
        assert_eq!(value(&mut connection, "SELECT 3"), "3");
    }
}
