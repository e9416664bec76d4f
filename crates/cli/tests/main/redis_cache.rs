//! A cache that is not retained: nothing of it is stored, nothing durable hides in it, and it can be made again.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lifeboat_testkit::{RedisOptions, RedisServer};
use serde_json::Value;

use super::redis::words;
use super::tree;
use super::world::World;

/// A row of kind redis that is not retained, with these lines in it.
fn world(server: &RedisServer, lines: &str) -> World {
    let mut world = World::of_redis(&server.url());
    let (head, _row) = world.policy.split_once("[store.cache]").unwrap();
    world.policy = format!(
        "{head}[store.cache]\nkind = \"redis\"\nurl = \"env:CACHE_URL\"\nretention = \"none\"\n{lines}\n"
    );
    world.write_policy(&world.policy);
    // Copies of other rows are there; one that is not might be unmounted.
    for copy in ["local", "offsite"] {
        fs::create_dir_all(world.path("vaults").join(copy)).unwrap();
    }
    world
}

/// A program of the user's that fills a server through `redis-cli`.
fn program(world: &World, commands: &str) {
    let path = world.path("warm");
    // Each by itself: with many on its standard input `redis-cli` ends well whatever the answers are.
    let script = format!(
        "#!/bin/sh\nset -e\nwhile read -r line; do redis-cli -s \"${{1#unix://}}\" -e $line; done <<END >/dev/null\n{commands}\nEND\n"
    );
    tree::write(&path, script.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
}

const GOOD: &str =
    "SET page:1 $ORIGIN EX 600\nHSET page:2 title two\nEXPIRE page:2 600\nSET version 3 EX 600";
const CHECKS: &str = "rto = \"60s\"\nchecks = { replay = [\"./warm\", \"{url}\"], \
                      replay_environment = [\"ORIGIN\"], commands = [\"GET version = 3\", \"GET page:1 = shop\"] }";

fn cell(world: &World, promise: &str) -> (String, String) {
    world.promise("cache", promise)
}

fn kept(world: &World, promise: &str) {
    let (state, reason) = cell(world, promise);
    assert_eq!(state, "kept", "{promise}: {reason}");
}

/// Every file below a folder, in one text.
fn everything(folder: &std::path::Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            all.extend(everything(&entry.path()));
        } else {
            all.extend(fs::read(entry.path()).unwrap());
        }
    }
    all
}

#[test]
fn a_cache_in_which_everything_ends_is_green_and_nothing_of_it_is_stored() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..1500).map(|n| words(&format!("SET session:{n} a-canary-value EX 9000"))));
    let world = world(&server, "");
    let (state, reason) = cell(&world, "retention");
    assert!(state == "unproven" && reason.contains("lifeboat backup cache"), "{reason}");
    let report = world.json(&["backup"], 0);
    let store = &report["stores"][0];
    assert_eq!((&store["outcome"], &store["point"]), (&"not_retained".into(), &Value::Null), "{store}");
    assert_eq!(store["looked_at"]["keys"], 1500);
    assert_eq!(store["looked_at"]["endless"], 0);
    kept(&world, "retention");
    assert_eq!(cell(&world, "drill").0, "not_applicable");
    for copy in ["local", "offsite"] {
        assert!(!world.vault(copy, "cache").exists());
    }
    for folder in ["state", "vaults"] {
        assert!(memchr(&everything(&world.path(folder)), b"canary").is_none(), "{folder}");
    }
    // Another server at the row's place has not been looked at.
    world.write_policy(&world.policy.replace("env:CACHE_URL", "file:./other"));
    assert_eq!(cell(&world, "retention").0, "unproven");
}

fn memchr(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[test]
fn keys_that_never_end_are_counted_named_printably_and_break_the_promise() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..700).map(|n| words(&format!("SET session:{n} v EX 9000"))));
    server.run("SET flag:dark on");
    server.run_parts(&[b"SELECT", b"0"]);
    let world = world(&server, "checks = { durable = [\"flag:*\"] }");
    world.run(&["backup"]).expect(0);
    kept(&world, "retention");
    server.run_parts(&[b"SET", b"basket\x1b[31m\xff\n7", b"v"]);
    let ran = world.run(&["backup"]).expect(5);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("2 of 702 keys have no time to live"), "{said}");
    assert!(said.contains(r"db0 basket\x1b[31m\xff\n7") && !said.contains("flag:dark"), "{said}");
    let (state, reason) = cell(&world, "retention");
    assert!(state == "broken" && reason.contains("2 of 702"), "{reason}");
    world.run(&["status"]).expect(5);
    // Names of keys are for whoever looks, and are not filed.
    assert!(memchr(&everything(&world.path("state")), b"basket").is_none());
    server.run_parts(&[b"DEL", b"basket\x1b[31m\xff\n7"]);
    world.run(&["backup"]).expect(0);
    kept(&world, "retention");
}

#[test]
fn a_cache_that_cannot_be_looked_at_is_a_finding_and_not_proven() {
    let mut server = RedisServer::start(RedisOptions::default());
    let world = world(&server, "");
    world.run(&["backup"]).expect(0);
    kept(&world, "retention");
    server.crash();
    world.run(&["backup"]).expect(4);
    let (state, reason) = cell(&world, "retention");
    assert!(state == "unproven" && reason.contains("the last look at it failed"), "{reason}");
}

#[test]
fn the_rights_that_init_prints_for_a_cache_are_enough_and_needed() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..50).map(|n| words(&format!("SET session:{n} v EX 9000"))));
    server.run("SET stays 1");
    let mut world = world(&server, "checks = { durable = [\"stays\"] }");
    let said = world.run(&["init", "redis"]).expect(0).stdout;
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("#   ").filter(|l| l.starts_with("ACL SETUSER lifeboat-look")));
    let line = line.unwrap().replace("choose-one", "secret");
    server.run(&line);
    let url = format!("redis://lifeboat-look:secret@127.0.0.1:{}", server.port());
    world.env = vec![("CACHE_URL".to_owned(), url)];
    world.run(&["backup"]).expect(0);
    for right in ["+info", "+select", "+scan", "+pttl", "%R~*"] {
        server.run(&line.replace(&format!(" {right}"), "").replace("resetkeys", "reset on >secret"));
        world.run(&["backup"]).expect(4);
    }
}

#[test]
fn something_stored_of_a_cache_breaks_its_promise_wherever_it_lies() {
    let server = RedisServer::start(RedisOptions::default());
    let world = world(&server, "");
    world.run(&["backup"]).expect(0);
    fs::create_dir_all(world.vault("offsite", "cache").join("data")).unwrap();
    tree::write(&world.vault("offsite", "cache").join("data/x"), b"x");
    let ran = world.run(&["backup"]).expect(5);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("lies in `offsite`"));
    assert_eq!(cell(&world, "retention").0, "broken");
}

#[test]
fn a_cache_is_made_again_from_nothing_twice_and_measured() {
    let server = RedisServer::start(RedisOptions::default());
    server.run("SET production 1 EX 9000");
    let mut world = world(&server, CHECKS);
    world.env.push(("ORIGIN".to_owned(), "shop".to_owned()));
    program(&world, GOOD);
    world.run(&["backup"]).expect(0);
    assert_eq!(cell(&world, "drill").0, "unproven");
    let report = world.json(&["drill", "--all"], 0);
    let replay = &report["replays"][0];
    for id in [
        "redis.replay",
        "redis.filled",
        "redis.ends",
        "redis.idempotent",
        "redis.command/1",
        "redis.command/2",
    ] {
        let checks = replay["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("{id}: {report}"));
        assert_eq!((&check["state"], &check["canary_caught"]), (&"passed".into(), &true.into()), "{check}");
    }
    for promise in ["retention", "rto", "drill"] {
        kept(&world, promise);
    }
    // The running server was not touched.
    assert_eq!(server.run("DBSIZE").integer(), Some(1));
    let page = world.run(&["drill", "cache"]).expect(0).stdout;
    assert!(page.contains("cache: passed; not retained, filled from nothing in"), "{page}");
    world.run(&["evidence", "verify"]).expect(0);
    // What was shown of the old row says nothing about a new one.
    world.write_policy(&world.policy.replace("\"GET version = 3\", ", ""));
    assert_eq!(cell(&world, "drill").0, "unproven");
}

#[test]
fn a_replay_that_doubles_leaves_nothing_leaves_for_ever_or_fails_is_no_replay() {
    let server = RedisServer::start(RedisOptions::default());
    let mut world = world(&server, CHECKS);
    world.env.push(("ORIGIN".to_owned(), "shop".to_owned()));
    world.run(&["backup"]).expect(0);
    for (commands, check) in [
        (format!("{GOOD}\nRPUSH list a\nEXPIRE list 600"), "redis.idempotent"),
        (format!("{GOOD}\nINCR visits\nEXPIRE visits 600"), "redis.idempotent"),
        (format!("{GOOD}\nSET forever 1"), "redis.ends"),
        ("PING".to_owned(), "redis.filled"),
        (format!("{GOOD}\nNO-SUCH-COMMAND"), "redis.replay"),
        (GOOD.replace("version 3", "version 4"), "redis.command/1"),
    ] {
        program(&world, &commands);
        let ran = world.run(&["drill", "cache"]).expect(5);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains(&format!("FAILED {check}")), "{check}: {said}");
        assert_eq!(cell(&world, "drill").0, "broken", "{check}");
    }
    program(&world, GOOD);
    world.run(&["drill", "cache"]).expect(0);
    kept(&world, "drill");
}

#[test]
fn check_reaches_a_cache_with_the_rights_of_a_look_and_says_when_it_is_away() {
    let mut server = RedisServer::start(RedisOptions::default());
    server.run("SET page:1 x EX 600");
    server.run("ACL SETUSER look on >a-canary resetkeys resetchannels %R~* -@all +info +select +scan +pttl");
    let mut world = world(&server, "");
    world.env.retain(|(name, _)| name != "CACHE_URL");
    world.env.push(("CACHE_URL".to_owned(), format!("redis://look:a-canary@127.0.0.1:{}", server.port())));
    let report = world.json(&["check"], 0);
    let store = &report["stores"][0];
    assert_eq!(
        (&store["ok"], &store["reason"]),
        (&true.into(), &"not retained by policy".into()),
        "{report}"
    );
    assert!(store["version"].as_str().unwrap().starts_with("Redis "), "{report}");
    server.stop();
    let report = world.json(&["check"], 4);
    assert_eq!(report["stores"][0]["ok"], false, "{report}");
    assert!(!report.to_string().contains("canary"));
}
