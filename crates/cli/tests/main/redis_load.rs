//! A point restored into a running server: only into an empty one, key by key with their ends, compared afterwards.

use lifeboat_redis::wire::Reply;
use lifeboat_testkit::{RedisOptions, RedisServer};

use super::redis::{content, server, words};
use super::redis_log::{once, write};
use super::world::World;

const LIBRARY: &[u8] = b"#!lua name=mylib\nredis.register_function('f', function() return 7 end)";

#[test]
fn a_point_with_its_stream_is_loaded_into_an_empty_server_and_compared() {
    let source = server();
    source.run_parts(&[b"FUNCTION", b"LOAD", LIBRARY]);
    source.run_parts(&[b"SET", b"binary\x00\xff\r\nname", &[0, 255, 13, 10, 0]]);
    source.run_parts(&[b"SET", b"large", &vec![b'x'; 9 << 20]]);
    let mut world = World::of_redis(&source.url());
    world.backup("cache");
    for number in 1..=50 {
        write(&mut source.connect(), number);
    }
    once(&world);
    let expected = content(&source);
    let target = RedisServer::start(RedisOptions::default());
    // With no more rights than are asked for.
    target.run(
        "ACL SETUSER loader on >a-canary resetkeys resetchannels ~* -@all +ping +info +select +replconf +psync \
         +restore +function|restore +flushall",
    );
    let url = format!("redis://loader:a-canary@127.0.0.1:{}", target.port());
    world.env.push(("NEW_SERVER".to_owned(), url));
    let report = world.json(&["restore", "cache", "--to", "env:NEW_SERVER"], 0);
    assert_eq!(report["loaded"]["items"], expected.keys(), "{report}");
    assert_eq!(report["loaded"]["compared"], expected.keys(), "{report}");
    let found = content(&target);
    assert_eq!((&found.databases, &found.function_sum), (&expected.databases, &expected.function_sum));
    assert_eq!(target.run("FCALL f 0"), Reply::Integer(7));
    // Nothing of it stays here, and the proof is filed.
    assert_eq!(std::fs::read_dir(world.path("state/sandbox")).unwrap().count(), 0);
    world.run(&["evidence", "verify"]).expect(0);
    // It is not empty any more.
    let before = content(&target).databases;
    let ran = world.run(&["restore", "cache", "--to", "env:NEW_SERVER"]).expect(3);
    assert!(ran.stderr.contains("nothing was changed") && ran.stderr.contains("--force"), "{}", ran.stderr);
    assert_eq!(content(&target).databases, before);
    // With force its content goes.
    target.load([words("SET somebody-elses 1"), words("SELECT 11"), words("SET x y")]);
    let socket = format!("unix://{}", target.socket().display());
    let said = world.run(&["restore", "cache", "--to", &socket, "--force"]).expect(0).stdout;
    assert!(said.contains("keys loaded"), "{said}");
    assert_eq!(content(&target).databases, expected.databases);
}

#[test]
fn a_server_that_cannot_be_filled_is_refused_and_nothing_is_changed() {
    let source = server();
    let world = World::of_redis(&source.url());
    world.backup("cache");
    let replica = RedisServer::start(RedisOptions::default());
    replica.run(&format!("REPLICAOF 127.0.0.1 {}", source.port()));
    let ran = world.run(&["restore", "cache", "--to", &replica.url(), "--force"]).expect(3);
    assert!(ran.stderr.contains("is a replica"), "{}", ran.stderr);
    // A password never belongs on a command line, and is not repeated.
    let ran = world.run(&["restore", "cache", "--to", "redis://u:a-canary@127.0.0.1:1"]).expect(2);
    assert!(ran.stderr.contains("env:NAME") && !ran.stderr.contains("canary"), "{}", ran.stderr);
    world.run(&["restore", "cache", "--to", "redis://127.0.0.1:1"]).expect(4);
    world.run(&["restore", "cache", "--to", &replica.url(), "--delta"]).expect(2);
}

#[test]
fn a_server_that_ends_up_with_something_else_is_not_called_restored() {
    let source = server();
    source.run("DEBUG SET-ACTIVE-EXPIRE 0");
    source.load((0..200).map(|n| words(&format!("SET soon:{n} v PX {}", 1 + n))));
    let world = World::of_redis(&source.url());
    world.backup("cache");
    // It throws away what does not fit.
    let small = RedisServer::start(
        RedisOptions::default().set("maxmemory", "1mb").set("maxmemory-policy", "allkeys-random"),
    );
    let ran = world.run(&["restore", "cache", "--to", &small.url()]).expect(5);
    assert!(ran.stderr.contains("--force") && ran.stderr.contains("something else"), "{}", ran.stderr);
    // What has ended is left out and told; all the rest is there.
    let target = RedisServer::start(RedisOptions::default());
    let report = world.json(&["restore", "cache", "--to", &target.url()], 0);
    assert_eq!(report["loaded"]["passed"], 200, "{report}");
    assert_eq!(target.run("GET promised"), Reply::Bulk(b"kept".to_vec()));
}

#[test]
fn a_load_that_is_killed_leaves_a_server_that_is_refused_and_that_force_makes_whole() {
    let source = server();
    source.load((0..60_000).map(|n| words(&format!("SET bulk:{n} {n}-of-many"))));
    let world = World::of_redis(&source.url());
    world.backup("cache");
    let expected = content(&source).databases;
    let target = RedisServer::start(RedisOptions::default());
    let mut restore = world.start(&["restore", "cache", "--to", &target.url()]);
    while target.run("DBSIZE") == Reply::Integer(0) {
        assert!(restore.try_wait().unwrap().is_none(), "it ended before it was killed");
    }
    restore.kill().unwrap();
    restore.wait().unwrap();
    let ran = world.run(&["restore", "cache", "--to", &target.url()]).expect(3);
    assert!(ran.stderr.contains("nothing was changed"), "{}", ran.stderr);
    world.run(&["restore", "cache", "--to", &target.url(), "--force"]).expect(0);
    assert_eq!(content(&target).databases, expected);
    // Nor is anything left of the run that died.
    assert_eq!(std::fs::read_dir(world.path("state/sandbox")).unwrap().count(), 0);
    world.run(&["evidence", "verify"]).expect(0);
}
