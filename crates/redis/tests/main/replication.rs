//! A replica of a real server that keeps nothing.

use std::io::Read;
use std::time::Duration;

use lifeboat_redis::rdb::Survey;
use lifeboat_redis::replication::{self, FullSync, Resumed, Stream};
use lifeboat_testkit::{RedisOptions, RedisServer};

use super::samples::every_kind;

const TICK: Duration = Duration::from_millis(100);

fn saved(server: &RedisServer) -> Survey {
    server.run("SAVE");
    Survey::read(std::fs::File::open(server.data().join("dump.rdb")).unwrap(), 0).unwrap()
}

fn continued(resumed: Resumed) -> Stream {
    match resumed {
        Resumed::Continued(stream) => stream,
        Resumed::Full(_) => panic!("everything is sent again"),
    }
}

/// Receives until everything that the server has was received.
fn catch_up(stream: &mut Stream, server: &RedisServer) -> Vec<u8> {
    let end = replication::place(&mut server.connect()).unwrap().offset;
    let mut bytes = Vec::new();
    while stream.offset() < end {
        bytes.extend_from_slice(&stream.next_within(TICK).unwrap().unwrap_or_default());
    }
    bytes
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_dump_comes_in_from_disk_and_from_memory_and_is_what_the_server_saves() {
    for diskless in ["yes", "no"] {
        let server = RedisServer::start(RedisOptions::default().set("repl-diskless-sync", diskless));
        server.load(every_kind());
        let expected = saved(&server).databases;
        for dump_only in [true, false] {
            let mut sync = replication::full_sync(&server.options(), dump_only).unwrap();
            assert_eq!(sync.length_bytes().is_some(), diskless == "no");
            let survey = Survey::read(&mut sync, 0).unwrap();
            assert_eq!(survey.databases, expected);
            assert_eq!(survey.functions, 1);
        }
    }
}

#[test]
fn the_stream_goes_on_where_the_dump_ends_and_again_after_a_cut() {
    let server = RedisServer::start(RedisOptions::default());
    server.run("SET before 1");
    let mut sync: FullSync = replication::full_sync(&server.options(), false).unwrap();
    sync.read_to_end(&mut Vec::new()).unwrap();
    let place = sync.place().clone();
    let mut stream = sync.into_stream().unwrap();
    assert_eq!((stream.offset(), stream.id()), (place.offset, &place.id));
    server.run("SET after 2");
    let first = catch_up(&mut stream, &server);
    assert!(text(&first).contains("SELECT") && text(&first).contains("after"));
    assert!(!text(&first).contains("before"));
    let middle = stream.offset();
    drop(stream);
    server.run("SET while-away 3");
    let asked = replication::Place { id: place.id.clone(), offset: middle };
    let mut stream = continued(replication::resume(&server.options(), &asked).unwrap());
    let second = catch_up(&mut stream, &server);
    // The whole again, from the place of the dump, is the same bytes.
    let mut again = continued(replication::resume(&server.options(), &place).unwrap());
    let all = catch_up(&mut again, &server);
    assert_eq!(all[..first.len() + second.len()], [first, second].concat());
    assert!(text(&all).contains("while-away"));
}

#[test]
fn a_stream_that_was_kept_up_to_the_middle_of_a_command_goes_on_there() {
    let server = RedisServer::start(RedisOptions::default());
    let mut sync = replication::full_sync(&server.options(), false).unwrap();
    sync.read_to_end(&mut Vec::new()).unwrap();
    let place = sync.place().clone();
    let mut stream = sync.into_stream().unwrap();
    server.run_parts(&[b"SET", b"key", &[b'x'; 500]]);
    let all = catch_up(&mut stream, &server);
    drop(stream);
    for cut in [1, 30, 100, all.len() as u64 - 5] {
        let asked = replication::Place { id: place.id.clone(), offset: place.offset + cut };
        let mut stream = continued(replication::resume(&server.options(), &asked).unwrap());
        let rest = catch_up(&mut stream, &server);
        assert!(rest.starts_with(&all[usize::try_from(cut).unwrap()..]), "{cut}");
    }
}

#[test]
fn what_is_acknowledged_is_what_is_durable() {
    let server = RedisServer::start(RedisOptions::default());
    let mut sync = replication::full_sync(&server.options(), false).unwrap();
    sync.read_to_end(&mut Vec::new()).unwrap();
    let start = sync.place().offset;
    let mut stream = sync.into_stream().unwrap();
    let acknowledged = || server.connect().info("replication").unwrap().get("slave0").map(str::to_owned);
    server.run("SET a 1");
    catch_up(&mut stream, &server);
    stream.acknowledge().unwrap();
    let expected = format!("offset={start}");
    while !acknowledged().unwrap().contains(&expected) {
        std::thread::yield_now();
    }
    stream.durable(stream.offset()).unwrap();
    // A client that waits for replicas makes the server ask, and the answer comes at once.
    let options = server.options();
    let waiting = std::thread::spawn(move || {
        let mut client = lifeboat_redis::wire::Connection::open(&options).unwrap();
        client.ask("SET b 2").unwrap();
        client.ask("WAIT 1 20000").unwrap().integer()
    });
    while !waiting.is_finished() {
        if stream.next_within(TICK).unwrap().is_some() {
            stream.durable(stream.offset()).unwrap();
        }
    }
    assert_eq!(waiting.join().unwrap(), Some(1));
}

#[test]
fn a_place_the_server_does_not_know_makes_it_send_everything() {
    let server = RedisServer::start(RedisOptions::default());
    server.run("SET a 1");
    for place in [format!("{}:10", "a".repeat(40)), {
        let mut place = replication::place(&mut server.connect()).unwrap();
        place.offset += 1_000_000;
        place.to_string()
    }] {
        let resumed = replication::resume(&server.options(), &place.parse().unwrap()).unwrap();
        assert!(matches!(resumed, Resumed::Full(_)), "{place}");
    }
}

#[test]
fn a_failover_goes_on_under_a_new_name_and_a_replica_can_be_followed() {
    let primary = RedisServer::start(RedisOptions::default());
    let replica = RedisServer::start(RedisOptions::default());
    replica.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    let field = |server: &RedisServer, name: &str| {
        server.connect().info("replication").unwrap().get(name).map(str::to_owned).unwrap_or_default()
    };
    while field(&replica, "master_link_status") != "up" {
        std::thread::yield_now();
    }
    let mut sync = replication::full_sync(&replica.options(), false).unwrap();
    sync.read_to_end(&mut Vec::new()).unwrap();
    let old = sync.place().id.clone();
    let mut stream = sync.into_stream().unwrap();
    assert_eq!(field(&primary, "master_replid"), old.as_str());
    primary.run("SET through-the-replica 1");
    let end = replication::place(&mut primary.connect()).unwrap().offset;
    while stream.offset() < end {
        stream.next_within(TICK).unwrap();
    }
    let offset = stream.offset();
    replica.run("REPLICAOF NO ONE");
    replica.run("SET after-the-failover 1");
    let asked = replication::Place { id: old.clone(), offset };
    let mut stream = continued(replication::resume(&replica.options(), &asked).unwrap());
    assert_ne!(stream.id(), &old);
    assert_eq!(stream.offset(), offset);
    assert!(text(&catch_up(&mut stream, &replica)).contains("after-the-failover"));
}
