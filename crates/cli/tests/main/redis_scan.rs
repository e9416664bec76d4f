//! A service that does not replicate, end to end: key by key into the vault, drilled, restored.

use lifeboat_testkit::{RedisOptions, RedisServer};

use super::redis::{content, server, start_restored, words};
use super::world::World;

/// A row that is read key by key, with these lines.
pub(crate) fn world(server: &RedisServer, lines: &str) -> World {
    let row = format!(
        "\n[store.cache]\nkind = \"redis\"\nurl = \"env:CACHE_URL\"\ncapture = \"scan\"\nschedule = \"02:00\"\n\
         retention = \"7d\"\nrpo = \"36h\"\n{lines}\n"
    );
    let mut world = World::with(&[&row]);
    world.env.push(("CACHE_URL".to_owned(), server.url()));
    world
}

#[test]
fn a_service_is_captured_drilled_and_restored_ready_to_start() {
    let server = server();
    let mut world = world(&server, "");
    // With no more rights than `init` asks for.
    let said = world.run(&["init", "redis"]).expect(0).stdout;
    let line = said.lines().find(|line| line.contains("lifeboat-scan")).unwrap();
    server.run(&line.trim_start_matches(['#', ' ']).replace("choose-one", "a-canary-of-a-password"));
    let url = format!("redis://lifeboat-scan:a-canary-of-a-password@127.0.0.1:{}", server.port());
    world.env.retain(|(name, _)| name != "CACHE_URL");
    world.env.push(("CACHE_URL".to_owned(), url));
    world.run(&["check"]).expect(0);
    world.backup("cache");
    let expected = content(&server);
    let point = &world.json(&["points", "cache"], 0)["points"][0];
    assert_eq!((&point["consistency"], &point["changes"]), (&"fuzzy".into(), &0.into()), "{point}");
    let report = world.json(&["drill", "cache"], 0);
    assert_eq!(report["drills"][0]["verdict"], "passed", "{report}");
    world.run(&["status"]).expect(0);
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    let restored = start_restored(&world.path("back"));
    assert_eq!(content(&restored).databases, expected.databases);
}

#[test]
fn what_was_not_measured_is_called_not_measured() {
    let server = server();
    let world = world(&server, "second_pass = false\nprefix = \"user:\"\nrequests_per_second = 100000");
    world.backup("cache");
    let point = world.json(&["points", "cache"], 0)["points"][0].clone();
    assert!(point["changes"].is_null() && point["consistency"] == "fuzzy", "{point}");
    let said = world.run(&["points", "cache"]).expect(0).stdout;
    assert!(said.contains("not measured"), "{said}");
    let said = world.run(&["status"]).expect(5).stdout;
    let status = world.run(&["status", "--json"]).expect(5).stdout;
    assert!(status.contains("nobody looked how much changed"), "{said}\n{status}");
    // Only the prefix came.
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    let restored = start_restored(&world.path("back"));
    assert_eq!(content(&restored).keys(), 2000);
}

#[test]
fn a_policy_that_contradicts_itself_is_refused() {
    let server = RedisServer::start(RedisOptions::default());
    server.load([words("SET a 1")]);
    let refused = world(&server, "logs = \"7d\"");
    let said = refused.run(&["check"]).expect(2).stderr;
    assert!(said.contains("stream of commands"), "{said}");
    let refused = world(&server, "requests_per_second = 0");
    refused.run(&["check"]).expect(2);
}
