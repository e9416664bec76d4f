//! Keys of a point into a running server beside what is there: chosen, renamed, each whole, each read back.

use lifeboat_redis::wire::Reply;
use lifeboat_testkit::{RedisOptions, RedisServer};

use super::redis::{content, server, words};
use super::redis_scan;
use super::world::World;

/// Everything that is hard to make again with plain commands.
fn fill(server: &RedisServer) {
    server.load([
        vec![b"SET".to_vec(), b"binary \x00\xff".to_vec(), vec![0, 255, 13, 10]],
        vec![b"SET".to_vec(), b"empty".to_vec(), Vec::new()],
        vec![b"SET".to_vec(), b"long".to_vec(), vec![b'x'; 9 << 20]],
        vec![b"HSET".to_vec(), b"wide".to_vec(), vec![0xfe], vec![0xff; 3 << 20]],
    ]);
    server.load((0..3_000).map(|n| words(&format!("RPUSH list {n} same"))));
    server.load((0..3_000).map(|n| words(&format!("ZADD zset {} m{n}", f64::from(n) / 7.0))));
    server.load([words("ZADD odd inf a -inf b 1e300 e")]);
    server.load((0..50).map(|n| words(&format!("HSET ends:{n} a b"))));
    server.load((0..50).map(|n| words(&format!("PEXPIREAT ends:{n} {}", 4_000_000_000_000_u64 + n))));
    server.load((1..=700).map(|n| words(&format!("XADD stream {n}-{} n {n} fixed field", n % 3))));
    for command in [
        "XGROUP CREATE stream readers 0",
        "XREADGROUP GROUP readers anna COUNT 30 STREAMS stream >",
        "XREADGROUP GROUP readers bert COUNT 5 STREAMS stream >",
        "XACK stream readers 3-0 4-1",
        "XDEL stream 5-2 31-1 650-2",
        "XGROUP CREATE stream late $ ENTRIESREAD 650",
        "XGROUP CREATECONSUMER stream late idle",
        "XGROUP CREATE nothing first $ MKSTREAM",
        "XADD emptied 1-1 a b",
        "XTRIM emptied MAXLEN 0",
        "XADD lost 1-1 a b",
        "XGROUP CREATE lost g 0",
        "XREADGROUP GROUP g c STREAMS lost >",
        "XDEL lost 1-1",
    ] {
        server.run(command);
    }
}

/// A user that may do what such a restore takes, and nothing else.
fn target(world: &mut World) -> RedisServer {
    let target = RedisServer::start(RedisOptions::default());
    let said = world.run(&["init", "redis"]).expect(0).stdout;
    let line = said.lines().find(|line| line.contains("lifeboat-fill")).unwrap();
    target.run(&line.trim_start_matches(['#', ' ']).replace("choose-one", "a-canary-of-a-password"));
    let url = format!("redis://lifeboat-fill:a-canary-of-a-password@127.0.0.1:{}", target.port());
    world.env.retain(|(name, _)| name != "NEW_SERVER");
    world.env.push(("NEW_SERVER".to_owned(), url));
    target
}

const TO: [&str; 4] = ["restore", "cache", "--to", "env:NEW_SERVER"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TO.iter().chain(more).copied().collect()
}

#[test]
fn every_kind_of_key_goes_into_a_server_that_takes_no_dumps_whichever_way_it_was_captured() {
    let source = server();
    fill(&source);
    let expected = content(&source).databases;
    let worlds = [redis_scan::world(&source, ""), World::of_redis(&source.url())];
    for mut world in worlds {
        world.backup("cache");
        let target = target(&mut world);
        let report = world.json(&with(&["--conflict", "fail"]), 0);
        assert_eq!(content(&target).databases, expected);
        assert_eq!(report["loaded"]["compared"], report["loaded"]["items"], "{report}");
        // Once more changes nothing, and is no conflict.
        let report = world.json(&with(&["--conflict", "fail"]), 0);
        assert_eq!(
            (&report["loaded"]["items"], &report["loaded"]["skipped"]),
            (&0.into(), &0.into()),
            "{report}"
        );
        assert_eq!(content(&target).databases, expected);
        world.run(&["evidence", "verify"]).expect(0);
    }
}

#[test]
fn conflicts_are_refused_before_anything_is_written_or_skipped_or_replaced_as_told() {
    let source = server();
    let mut world = redis_scan::world(&source, "");
    world.backup("cache");
    let target = target(&mut world);
    for command in ["SET user:1 theirs", "RPUSH profile:3 theirs", "SET user:2 name-2", "SET other theirs"] {
        target.run(command);
    }
    let before = content(&target).databases;
    let ran = world.run(&with(&["--conflict", "fail"])).expect(3);
    assert!(ran.stderr.contains("2 keys") && ran.stderr.contains("nothing was changed"), "{}", ran.stderr);
    assert!(ran.stderr.contains("db0 profile:3"), "{}", ran.stderr);
    assert_eq!(content(&target).databases, before);
    let report = world.json(&with(&["--conflict", "skip"]), 0)["loaded"].clone();
    assert_eq!((&report["skipped"], &report["unchanged"]), (&2.into(), &1.into()), "{report}");
    assert_eq!(target.run("GET user:1"), Reply::Bulk(b"theirs".to_vec()));
    assert_eq!(target.run("GET user:3"), Reply::Bulk(b"name-3".to_vec()));
    let report = world.json(&with(&["--conflict", "replace"]), 0)["loaded"].clone();
    assert_eq!((&report["replaced"], &report["items"]), (&2.into(), &2.into()), "{report}");
    target.run("DEL other");
    assert_eq!(content(&target).databases, content(&source).databases);
    // Contradictions are refused.
    world.run(&with(&["--conflict", "replace", "--force"])).expect(2);
    world.run(&with(&["--prefix", "a", "--rename-prefix", "b=c"])).expect(2);
    world.run(&["restore", "cache", "--to", "back", "--prefix", "user:"]).expect(2);
}

#[test]
fn one_project_comes_back_under_another_name() {
    let source = server();
    let mut world = redis_scan::world(&source, "");
    world.backup("cache");
    let target = target(&mut world);
    target.run("SET user:1 theirs");
    let report = world.json(&with(&["--rename-prefix", "user:=back:user:"]), 0)["loaded"].clone();
    assert_eq!((&report["items"], &report["compared"]), (&2000.into(), &2000.into()), "{report}");
    assert_eq!(target.run("GET user:1"), Reply::Bulk(b"theirs".to_vec()));
    assert_eq!(target.run("GET back:user:77"), Reply::Bulk(b"name-77".to_vec()));
    let report = world.json(&with(&["--prefix", "profile:4"]), 0)["loaded"].clone();
    assert_eq!(report["items"], 11, "{report}");
    assert_eq!(target.run("DBSIZE"), Reply::Integer(2012));
}

#[test]
fn a_restore_that_is_killed_leaves_whole_keys_only_and_the_next_one_finishes() {
    let source = server();
    source.load((0..40).map(|n| {
        let mut command = words(&format!("RPUSH long:{n}"));
        command.extend((0..4_000).map(|e| format!("element-{e}-of-{n}").into_bytes()));
        command
    }));
    let mut world = redis_scan::world(&source, "");
    world.backup("cache");
    let target = target(&mut world);
    let mut restore = world.start(&with(&["--conflict", "fail"]));
    while target.run("DBSIZE") == Reply::Integer(0) {
        assert!(restore.try_wait().unwrap().is_none(), "it ended before it was killed");
    }
    restore.kill().unwrap();
    restore.wait().unwrap();
    for n in 0..40 {
        let length = target.run(&format!("LLEN long:{n}")).integer().unwrap();
        assert!(length == 0 || length == 4_000, "{length}");
    }
    world.run(&with(&["--conflict", "fail"])).expect(0);
    assert_eq!(content(&target).databases, content(&source).databases);
    assert_eq!(std::fs::read_dir(world.path("state/sandbox")).unwrap().count(), 0);
}
