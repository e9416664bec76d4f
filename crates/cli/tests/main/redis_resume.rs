//! A capture key by key that is killed: the next one goes on, over RESP and over REST, and its point is whole.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lifeboat_testkit::{Mood, RedisOptions, RedisServer, RestFront};

use super::redis::{content, start_restored, words};
use super::redis_scan;
use super::world::World;

/// Slow enough to be met at work.
const SLOWLY: &str = "requests_per_second = 8000\n";
const KEYS: u64 = 6_000;
const TRAIL: &str = "state/captures/cache";

fn server() -> RedisServer {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..KEYS).map(|n| words(&format!("SET page:{n} {n}"))));
    server
}

/// Lines of the trail: its head, then one a page.
fn pages(world: &World) -> usize {
    fs::read_to_string(world.path(TRAIL)).map_or(0, |text| text.matches('\n').count())
}

/// Starts a backup and kills it once it has come some pages further.
fn killed(world: &World) {
    let wanted = pages(world).max(1) + 2;
    let mut backup = world.start(&["backup", "cache"]);
    while pages(world) < wanted {
        assert!(backup.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::yield_now();
    }
    backup.kill().unwrap();
    backup.wait().unwrap();
    assert!(world.points("cache").is_empty());
}

/// Kills twice, changes something, then lets it end.
fn goes_on(world: &World, server: &RedisServer) {
    killed(world);
    let mode = fs::metadata(world.path(TRAIL)).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
    killed(world);
    server.run("SET page:1 changed");
    server.run("DEL page:2");
    let ran = world.run(&["backup", "cache"]).expect(0);
    assert!(ran.stderr.contains("going on where a capture was ended"), "{ran:?}");
    assert!(!world.path(TRAIL).exists());
    let point = &world.json(&["points", "cache"], 0)["points"][0];
    assert!(point["changes"].is_null() && point["consistency"] == "fuzzy", "{point}");
    assert_eq!(world.json(&["drill", "cache"], 0)["verdict"], "passed");
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert_eq!(content(&start_restored(&world.path("back"))).databases, content(server).databases);
    let ran = world.run(&["backup", "cache"]).expect(0);
    assert!(!ran.stderr.contains("going on"), "{ran:?}");
    // What is stored already was not sent again: nothing has changed but the line that says when.
    let points = world.json(&["points", "cache"], 0)["points"].clone();
    let newest = points.as_array().unwrap().last().unwrap();
    assert!(newest["changes"] == 0, "{newest}");
}

#[test]
fn a_capture_that_is_killed_is_gone_on_with() {
    let server = server();
    let world = redis_scan::world(&server, SLOWLY);
    goes_on(&world, &server);
    // A row that reads something else begins anew.
    fs::remove_dir_all(world.path("vaults")).unwrap();
    fs::remove_dir_all(world.path("state")).unwrap();
    killed(&world);
    world.write_policy(&world.policy.replace(SLOWLY, &format!("prefix = \"page:1\"\n{SLOWLY}")));
    let ran = world.run(&["backup", "cache"]).expect(0);
    assert!(!ran.stderr.contains("going on"), "{ran:?}");
}

#[test]
fn a_capture_over_rest_that_is_killed_is_gone_on_with() {
    let server = server();
    let front = RestFront::start(&server, "canary", true, |number| match number % 23 {
        5 => Mood::Refuse(429, Some(0)),
        11 => Mood::Cut,
        _ => Mood::Answer,
    });
    let mut world = redis_scan::world(&server, &format!("token = \"env:CACHE_TOKEN\"\n{SLOWLY}"));
    world.policy = world.policy.replace("env:CACHE_URL", &front.url());
    world.write_policy(&world.policy);
    world.env = vec![("CACHE_TOKEN".to_owned(), "canary".to_owned())];
    goes_on(&world, &server);
}
