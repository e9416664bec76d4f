//! Redis end to end: dumps over replication, restored directories that a server starts on, and what a sandbox says.

use std::path::Path;

use lifeboat_redis::rdb::Survey;
use lifeboat_redis::wire::Reply;
use lifeboat_testkit::{RedisOptions, RedisServer};

use super::world::World;

/// A command of plain words.
pub(crate) fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// A server with a little of everything in three databases, and a promise to keep.
pub(crate) fn server() -> RedisServer {
    server_with(RedisOptions::default())
}

pub(crate) fn server_with(options: RedisOptions) -> RedisServer {
    let server = RedisServer::start(options);
    server.load((0..2000).map(|n| words(&format!("SET user:{n} name-{n}"))));
    server.load((0..500).map(|n| words(&format!("HSET profile:{} field{n} {n}", n % 50))));
    server.load((0..500).map(|n| words(&format!("ZADD scores {n}.25 player{n}"))));
    server.load((0..500).map(|n| words(&format!("RPUSH queue:{} job{n}", n % 3))));
    server.load((1..300).map(|n| words(&format!("XADD events {n}-1 n {n}"))));
    server.load(
        ["XGROUP CREATE events workers 0", "XREADGROUP GROUP workers a COUNT 7 STREAMS events >"].map(words),
    );
    server.load((0..100).map(|n| words(&format!("SET session:{n} v EX {}", 10_000 + n))));
    server
        .load(["SET promised kept", "SELECT 7", "SADD tags a b c 1 2", "SELECT 15", "SET last 1"].map(words));
    server
}

/// A server on a restored directory, started as its configuration says.
pub(crate) fn start_restored(restored: &Path) -> RedisServer {
    let text = std::fs::read_to_string(restored.join("redis.conf")).unwrap();
    let mut options = RedisOptions::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once(' ').unwrap();
        options = options.set(name, value);
    }
    RedisServer::start_on(restored, options)
}

/// What a server holds.
pub(crate) fn content(server: &RedisServer) -> Survey {
    let dir = server.run("CONFIG GET dir").members()[1].text().unwrap();
    // A capture that was killed may have left the server at work for it.
    while server.connect().info("persistence").unwrap().get("rdb_bgsave_in_progress") != Some("0") {
        std::thread::yield_now();
    }
    server.run("SAVE");
    let file = std::fs::File::open(Path::new(&dir).join("dump.rdb")).unwrap();
    Survey::read(file, 0).unwrap()
}

/// Makes the user that `lifeboat init redis` describes; gives an address for it.
fn keeper(world: &World, server: &RedisServer) -> String {
    let said = world.run(&["init", "redis"]).expect(0).stdout;
    let line = said.lines().find(|line| line.starts_with("ACL SETUSER")).unwrap();
    server.run(&line.replace("choose-one", "a-canary-of-a-password"));
    format!("redis://lifeboat:a-canary-of-a-password@127.0.0.1:{}", server.port())
}

#[test]
fn a_server_is_captured_drilled_and_restored_ready_to_start() {
    let server = server();
    let mut world = World::of_redis(&server.url());
    let url = keeper(&world, &server);
    world.env.retain(|(name, _)| name != "CACHE_URL");
    world.env.push(("CACHE_URL".to_owned(), url));
    let expected = content(&server);
    world.run(&["check"]).expect(0);
    world.backup("cache");
    // Nothing was written on the server's disk but what this test saved itself.
    assert_eq!(std::fs::read_dir(server.data()).unwrap().count(), 1);
    let report = world.json(&["drill", "cache"], 0);
    let checks = report["stores"][0]["checks"].as_array().unwrap().clone();
    for id in [
        "redis.files",
        "redis.check_rdb",
        "redis.check_aof",
        "redis.start",
        "redis.keys",
        "redis.types",
        "redis.expiring",
        "redis.content/db0",
        "redis.content/db7",
        "redis.content/db15",
        "redis.functions",
        "redis.databases",
        "redis.command/1",
        "redis.command/2",
    ] {
        let check = checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("{id}: {report}"));
        assert_eq!((&check["state"], &check["canary_caught"]), (&"passed".into(), &true.into()), "{check}");
    }
    world.run(&["verify", "cache"]).expect(0);
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    let back = start_restored(&world.path("back"));
    assert_eq!(content(&back).databases, expected.databases);
    assert_eq!(back.run("GET promised"), Reply::Bulk(b"kept".to_vec()));
    // It goes on as a server with a log of its own.
    back.run("SET after-the-restore 1");
    // Neither the password nor a value is anywhere.
    for dir in ["state", "back", "evidence"] {
        let Ok(entries) = std::fs::read_dir(world.path(dir)) else { continue };
        assert!(entries.count() > 0);
    }
    let shown = world.run(&["status", "-v"]);
    assert!(!format!("{}{}", shown.stdout, shown.stderr).contains("canary"));
}

#[test]
fn keys_whose_time_is_over_are_captured_proven_and_told_at_the_restore() {
    let server = RedisServer::start(RedisOptions::default());
    server.run("SET promised kept");
    server.run("DEBUG SET-ACTIVE-EXPIRE 0");
    server.load((0..300).map(|n| words(&format!("SET soon:{n} v PX {}", 1 + n))));
    let world = World::of_redis(&server.url());
    world.backup("cache");
    // By now more of them are over than at the time of the capture.
    world.run(&["drill", "cache"]).expect(0);
    let ran = world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert!(ran.stderr.contains("300 keys had a time to live that has passed"), "{}", ran.stderr);
    let back = start_restored(&world.path("back"));
    assert_eq!(back.run("GET soon:1"), Reply::Null);
    assert_eq!(back.run("GET promised"), Reply::Bulk(b"kept".to_vec()));
}

#[test]
fn a_promise_of_the_row_that_does_not_hold_or_that_would_write_fails_the_drill() {
    let server = server();
    let world = World::of_redis(&server.url());
    for (promise, said) in [
        ("GET promised = broken", "answers something else"),
        ("GET nothing", "answers something else"),
        ("DBSIZE < 10", "answers something else"),
        ("db7:SCARD tags > 5", "answers something else"),
        ("SET promised broken", "does more than read"),
        ("EVAL return(1) 0", "does more than read"),
        ("CONFIG GET dir", "does more than read"),
        ("NOSUCH x", "has no command"),
    ] {
        world.write_policy(&world.policy.replace("GET promised = kept", promise));
        world.backup("cache");
        let ran = world.run(&["drill", "cache", "-v"]).expect(5);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(all.contains(said), "{promise}: {all}");
    }
}

#[test]
fn a_server_that_is_away_loading_or_closed_to_us_is_said_to_be_so_and_no_point_is_made() {
    let mut server = server();
    let mut world = World::of_redis(&server.url());
    let ran = |world: &World| {
        let ran = world.run(&["backup", "cache"]).expect(4);
        assert!(world.points("cache").is_empty());
        format!("{}{}", ran.stdout, ran.stderr)
    };
    server.run("CONFIG SET requirepass other");
    assert!(ran(&world).contains("NOAUTH"));
    world.env.push(("CACHE_URL".to_owned(), format!("redis://:wrong-canary@127.0.0.1:{}", server.port())));
    let said = ran(&world);
    assert!(said.contains("WRONGPASS") && !said.contains("canary"), "{said}");
    server.crash();
    assert!(ran(&world).contains("failed to connect"));
}
