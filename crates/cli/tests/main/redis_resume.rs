//! A capture key by key that is killed is gone on with: nothing is lost, nothing comes twice, nothing is read again.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lifeboat_testkit::{Mood, RedisOptions, RedisServer, RestFront};

use super::redis::{content, server_with, start_restored, words};
use super::redis_scan;
use super::tree;
use super::world::World;

/// Slow enough to be met at work, and one pass only, so that what is asked can be counted.
const SLOWLY: &str = "requests_per_second = 8000\nsecond_pass = false\n";
const KEYS: u64 = 9_000;
/// Questions about no key of the server's, and about keys that take more than one answer.
const ASIDE: u64 = 20;

fn options() -> RedisOptions {
    RedisOptions::default().set("appendonly", "yes")
}

fn server() -> RedisServer {
    let server = server_with(options());
    server.load((0..KEYS).map(|n| words(&format!("SET page:{n} {n}"))));
    server
}

fn marks(world: &World) -> usize {
    let listed = fs::read_dir(world.path("state/scans/cache")).into_iter().flatten();
    listed
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "mark"))
        .count()
}

/// Keys in the pieces that count.
fn kept(world: &World) -> u64 {
    let piece = |number| {
        let text = fs::read_to_string(world.path(&format!("state/scans/cache/{number:06}.lines"))).unwrap();
        text.lines().filter(|line| line.contains("\"digest\":")).count() as u64
    };
    (1..=marks(world)).map(piece).sum()
}

/// Starts a backup and kills it once so many more marks are set.
fn killed(world: &World, more: usize) {
    let wanted = marks(world) + more;
    let mut backup = world.start(&["backup", "cache"]);
    while marks(world) < wanted {
        assert!(backup.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::yield_now();
    }
    backup.kill().unwrap();
    backup.wait().unwrap();
    assert!(world.points("cache").is_empty());
}

/// Kills twice, then lets it end. `asked` tells how many keys were read until now.
fn goes_on(world: &World, server: &RedisServer, asked: impl Fn() -> u64) {
    killed(world, 1);
    let text = fs::read_to_string(world.path("state/scans/cache/beginning.json")).unwrap();
    let beginning: serde_json::Value = serde_json::from_str(&text).unwrap();
    killed(world, 1);
    for name in tree::files(&world.path("state/scans")) {
        let mode = fs::metadata(world.path("state/scans").join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", name.display());
    }
    let (kept, before) = (kept(world), asked());
    assert!(kept > 1_000, "{kept}");
    let ran = world.run(&["backup", "cache"]).expect(0);
    assert!(ran.stderr.contains("going on with the capture that was begun at"), "{ran:?}");
    let (all, read) = (content(server).keys(), asked() - before);
    assert!(read <= all - kept + ASIDE, "{read} were read, {kept} of {all} were there");
    assert!(!world.path("state/scans/cache").exists());
    // The moment is that of the beginning.
    let points = world.json(&["points", "cache"], 0);
    assert_eq!(points["points"][0]["moment"], beginning["begun"], "{points}");
    assert_eq!(world.json(&["drill", "cache"], 0)["verdict"], "passed");
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert_eq!(content(&start_restored(&world.path("back"))).databases, content(server).databases);
    // What was made a point is not taken again.
    server.run("SET page:0 changed");
    let ran = world.run(&["backup", "cache"]).expect(0);
    assert!(!ran.stderr.contains("going on"), "{ran:?}");
    world.run(&["restore", "cache", "--to", "changed"]).expect(0);
    assert_eq!(start_restored(&world.path("changed")).run("GET page:0").text().unwrap(), "changed");
}

#[test]
fn a_capture_that_is_killed_goes_on_where_it_was() {
    let server = server();
    let world = redis_scan::world(&server, SLOWLY);
    goes_on(&world, &server, || {
        let stats = server.connect().info("commandstats").unwrap();
        let calls = stats
            .get("cmdstat_type")
            .and_then(|text| text.strip_prefix("calls=")?.split(',').next()?.parse().ok());
        calls.unwrap_or_default()
    });
}

#[test]
fn a_capture_over_rest_that_is_killed_goes_on_where_it_was() {
    let server = server();
    let front = RestFront::start(&server, "canary", true, |number| match number % 23 {
        5 => Mood::Refuse(429, Some(0)),
        11 => Mood::Cut,
        _ => Mood::Answer,
    });
    let mut world = redis_scan::world(&server, &format!("token = \"env:CACHE_TOKEN\"\n{SLOWLY}"));
    // It has one database.
    for db in [7, 15] {
        server.load([format!("SELECT {db}").as_str(), "FLUSHDB"].map(words));
    }
    world.policy = world.policy.replace("env:CACHE_URL", &front.url());
    world.write_policy(&world.policy);
    world.env = vec![("CACHE_TOKEN".to_owned(), "canary".to_owned())];
    goes_on(&world, &server, || {
        let asked = front.commands().iter().filter(|name| *name == "TYPE").count();
        // What is cut is asked again.
        (asked - asked / 20) as u64
    });
}

#[test]
fn what_another_server_answers_or_another_row_asks_for_begins_anew_and_says_so() {
    let mut server = server();
    let world = redis_scan::world(&server, SLOWLY);
    let begins_anew = |server: &RedisServer, why: &str| {
        let ran = world.run(&["backup", "cache"]).expect(0);
        assert!(ran.stderr.contains("begins again") && ran.stderr.contains(why), "{why}: {ran:?}");
        let point = world.points("cache").pop().unwrap();
        world.run(&["restore", "cache", "--to", &point, "--at", &point]).expect(0);
        assert_eq!(content(&start_restored(&world.path(&point))).databases, content(server).databases);
    };
    killed(&world, 1);
    server.stop();
    server.start_again();
    begins_anew(&server, "another server answers now");
    // A flipped bit.
    fs::remove_dir_all(world.path("vaults")).unwrap();
    fs::remove_dir_all(world.path("state")).unwrap();
    killed(&world, 1);
    let piece = world.path("state/scans/cache/000001.lines");
    let mut bytes = fs::read(&piece).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    tree::write(&piece, &bytes);
    begins_anew(&server, "what it had read is damaged");
    // Nothing is left of a row that is not kept any more.
    fs::remove_dir_all(world.path("vaults")).unwrap();
    fs::remove_dir_all(world.path("state")).unwrap();
    killed(&world, 1);
    world.write_policy(&world.policy.replace("retention = \"7d\"\nrpo = \"36h\"", "retention = \"none\""));
    world.run(&["backup"]);
    assert!(!world.path("state/scans/cache").exists());
}
