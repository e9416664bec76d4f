//! The log of a real server, received through a slot while it is written.

use std::time::Duration;

use lifeboat_base::secret::Secret;
use lifeboat_base::time::Timestamp;
use lifeboat_postgres::Lsn;
use lifeboat_postgres::receive::{Message, ReceiveError, Receiver, ensure_slot, identify, timeline_history};
use lifeboat_postgres::wal::{Event, Scanner, TimelineHistory, WalShape};
use lifeboat_postgres::wire::{ConnectOptions, Connection, Mode};
use lifeboat_testkit::{PgOptions, PgServer};

const SLOT: &str = "lifeboat_test";
const SHAPE: WalShape = WalShape { segment_bytes: 16 * 1024 * 1024, page_bytes: 8192 };
const TICK: Duration = Duration::from_millis(50);

fn connect(server: &PgServer) -> Connection {
    let options = ConnectOptions::parse(&Secret::new(server.conninfo())).unwrap();
    Connection::connect(&options, Mode::Replication).unwrap()
}

fn lsn(server: &PgServer) -> Lsn {
    server.psql("SELECT pg_current_wal_lsn()").trim().parse().unwrap()
}

/// Receives up to `target`.
fn receive(receiver: &mut Receiver, target: Lsn) -> Vec<u8> {
    let mut all = Vec::new();
    while receiver.position() < target {
        if let Some(Message::Log { bytes, .. }) = receiver.next_within(TICK).unwrap() {
            all.extend_from_slice(&bytes);
        }
    }
    all
}

#[test]
fn every_commit_arrives_while_it_is_written() {
    for major in [15, 16, 18] {
        let server = PgServer::start(PgOptions::new(major));
        let mut connection = connect(&server);
        assert!(ensure_slot(&mut connection, SLOT).unwrap());
        assert!(!ensure_slot(&mut connection, SLOT).unwrap(), "the slot was made twice");
        let identity = identify(&mut connection).unwrap();
        assert_eq!(identity.timeline, 1);
        let from = identity.flushed.segment_start(SHAPE.segment_bytes);
        let mut receiver = Receiver::start(connection, SLOT, 1, from).unwrap();
        server.psql("CREATE TABLE t (id int)");
        for number in 0..20 {
            server.psql(&format!("INSERT INTO t VALUES ({number})"));
        }
        let bytes = receive(&mut receiver, lsn(&server));
        let mut scanner = Scanner::new(SHAPE, 1, Some(identity.system_identifier), from).unwrap();
        let mut events = Vec::new();
        scanner.feed(&bytes, &mut events).unwrap();
        let commits = events.iter().filter(|event| matches!(event, Event::Commit { .. })).count();
        assert!(commits >= 21, "{major}: {commits}");
        receiver.report(receiver.position(), Timestamp::UNIX_EPOCH, false).unwrap();
        let flushed = "SELECT restart_lsn FROM pg_replication_slots";
        let reported = receiver.position().to_string();
        while server.psql(flushed).trim() != reported {
            receiver.next_within(TICK).unwrap();
        }
    }
}

#[test]
fn the_end_of_a_timeline_names_the_next_one() {
    let server = PgServer::start(PgOptions::new(15));
    server.psql("CREATE TABLE t (id int)");
    let standby = server.standby();
    let mut connection = connect(&standby);
    ensure_slot(&mut connection, SLOT).unwrap();
    let identity = identify(&mut connection).unwrap();
    let from = identity.flushed.segment_start(SHAPE.segment_bytes);
    let mut receiver = Receiver::start(connection, SLOT, 1, from).unwrap();
    standby.promote();
    let (next, switch) = loop {
        match receiver.next_within(TICK).unwrap() {
            Some(Message::TimelineEnd { next, switch }) => break (next, switch),
            Some(Message::Alive { urgent: true, .. }) => {
                receiver.report(receiver.position(), Timestamp::UNIX_EPOCH, false).unwrap();
            }
            _ => {}
        }
    };
    assert_eq!(next, 2);
    assert_eq!(switch, receiver.position());
    let text = timeline_history(&mut connect(&standby), 2).unwrap();
    let history = TimelineHistory::parse("00000002.history", &text).unwrap();
    assert_eq!(history.switch_from(1), Some(switch));
}

#[test]
fn log_that_is_gone_is_told_apart_from_other_trouble() {
    let server = PgServer::start(PgOptions::new(15).set("min_wal_size", "32MB").set("max_wal_size", "32MB"));
    let mut connection = connect(&server);
    let from = identify(&mut connection).unwrap().flushed.segment_start(SHAPE.segment_bytes);
    for _ in 0..4 {
        server.psql("SELECT pg_switch_wal(); CREATE TABLE x (); DROP TABLE x; CHECKPOINT");
    }
    ensure_slot(&mut connection, SLOT).unwrap();
    let error = match Receiver::start(connection, SLOT, 1, from) {
        Err(error) => error,
        Ok(mut receiver) => loop {
            if let Err(error) = receiver.next_within(TICK) {
                break error;
            }
        },
    };
    assert!(matches!(error, ReceiveError::Gone { .. }), "{error:?}");
}
