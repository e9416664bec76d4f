//! A service that does not replicate, end to end: key by key into the vault, drilled, restored.

use lifeboat_testkit::{Mood, RedisOptions, RedisServer, RestFront};

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
    assert_eq!(report["verdict"], "passed", "{report}");
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
    let said = world.run(&["status"]).expect(0).stdout;
    let status = world.run(&["status", "--json"]).expect(0).stdout;
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
    assert!(said.contains("that is captured this way has no continuous log"), "{said}");
    let refused = world(&server, "requests_per_second = 0");
    refused.run(&["check"]).expect(2);
}

#[test]
fn a_service_over_rest_is_kept_proven_and_filled_again_and_its_token_is_nowhere() {
    const TOKEN: &str = "a-canary-of-a-token";
    let source = RedisServer::start(RedisOptions::default());
    source.load((0..3_000).map(|n| words(&format!("SET user:{n} name-{n}"))));
    source.load((0..300).map(|n| words(&format!("HSET profile:{} f{n} {n}", n % 7))));
    let mood = |number: u64| if number % 19 == 3 { Mood::Refuse(429, Some(0)) } else { Mood::Answer };
    let front = RestFront::start(&source, TOKEN, true, mood);
    let row = format!(
        "\n[store.cache]\nkind = \"redis\"\nurl = \"{}\"\ntoken = \"env:CACHE_TOKEN\"\nschedule = \"02:00\"\n\
         retention = \"7d\"\nrpo = \"36h\"\nrequests_per_second = 100000\n",
        front.url()
    );
    let mut world = World::with(&[&row]);
    world.env.push(("CACHE_TOKEN".to_owned(), TOKEN.to_owned()));
    world.run(&["check"]).expect(0);
    world.backup("cache");
    assert_eq!(world.json(&["drill", "cache"], 0)["verdict"], "passed");
    let target = RedisServer::start(RedisOptions::default());
    let other = RestFront::start(&target, TOKEN, true, mood);
    // The row's token goes to nobody else.
    let ran = world.run(&["restore", "cache", "--to", &other.url()]).expect(2);
    assert!(ran.stderr.contains("needs a token"), "{}", ran.stderr);
    assert_eq!(other.requests(), 0);
    world.env.push(("NEW_SERVICE".to_owned(), other.url().replace("http://", &format!("http://:{TOKEN}@"))));
    let report = world.json(&["restore", "cache", "--to", "env:NEW_SERVICE"], 0);
    assert_eq!(report["loaded"]["compared"], 3_007, "{report}");
    assert_eq!(content(&target).databases, content(&source).databases);
    world.env.retain(|(name, _)| name != "CACHE_TOKEN");
    world.env.push(("CACHE_TOKEN".to_owned(), "another-canary".to_owned()));
    let ran = world.run(&["backup", "cache"]).expect(4);
    let said = ran.stdout + &ran.stderr;
    assert!(!said.contains("canary") && said.contains("does not accept the token"), "{said}");
}
