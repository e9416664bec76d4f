//! Retention of a log, end to end: what lies before the base of the promised window goes from every copy, a window never gets a
//! hole, and what comes after is kept as before.

use std::fs;
use std::sync::Arc;

use lifeboat_base::ids::StreamName;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::{Clock, SystemClock, Timestamp};
use lifeboat_engine::keys::KeyFileRecipient;
use lifeboat_vault::Vault;
use lifeboat_vault::storage::FileStorage;
use serde_json::{Value, json};

use super::postgres::{self, ask};
use super::redis;
use super::redis_log::{ledger, write};
use super::world::{KEY_FILE, World};

const COPIES: [&str; 2] = ["local", "offsite"];

fn now() -> Timestamp {
    SystemClock::new().now()
}

/// Lists every piece of log as if its hour were long over: only what is listed may go.
fn roll_up(world: &World, store: &str) {
    let text = Secret::new(fs::read_to_string(world.path(KEY_FILE)).unwrap());
    let key = KeyFileRecipient::parse(&text, format!("keyfile:./{KEY_FILE}")).unwrap();
    for copy in COPIES {
        let storage = Arc::new(FileStorage::new(world.vault(copy, store)));
        let envelope = Vault::read_envelope(storage.as_ref()).unwrap().unwrap();
        let (secrets, _label) = envelope.open(&[&key]).unwrap();
        let vault = Vault::open(storage, secrets, &envelope).unwrap();
        let logs = fs::read_dir(world.vault(copy, store).join("lifeboat/logs")).unwrap();
        for stream in logs.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
            let later = now() + std::time::Duration::from_secs(2 * 3_600);
            vault.logs().roll_up(&StreamName::new(&stream).unwrap(), later).unwrap();
        }
    }
}

fn pieces(world: &World, store: &str, copy: &str) -> usize {
    let streams = fs::read_dir(world.vault(copy, store).join("lifeboat/logs")).unwrap();
    let files = streams.flat_map(|stream| fs::read_dir(stream.unwrap().path()).unwrap());
    files.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_file()).count()
}

fn retain(world: &World, store: &str) -> Value {
    let report = world.json(&["retain", store, "--apply", "--grace", "0s"], 0);
    report["stores"][0].clone()
}

/// Waits until the point shows what was before the window: a second, by what the commands see.
fn until_older_than_the_window(world: &World, store: &str) {
    let listed = world.json(&["points", store], 0);
    let newest: Timestamp =
        listed["points"].as_array().unwrap().last().unwrap()["moment"].as_str().unwrap().parse().unwrap();
    while now() < newest + std::time::Duration::from_secs(2) {
        world.run(&["points", store]).expect(0);
    }
}

/// The first point, some log, the second, some log, the third, some log; then a window of a second, which starts at the third.
fn only_the_log_before_the_window_goes(
    world: &mut World,
    store: &str,
    mut write: impl FnMut(u64),
    rows: impl Fn(&World, &str) -> u64,
) {
    let once = |world: &World| world.run(&["wal", "stream", store, "--once"]).expect(0);
    let mut points = Vec::new();
    let mut between = Vec::new();
    for number in 1..=3 {
        points.push(world.backup(store));
        once(world);
        write(number);
        once(world);
        between.push(now().to_string());
        if number == 2 {
            // What comes later is listed by itself.
            roll_up(world, store);
        }
    }
    // Nothing lies before a window that is longer than all there is.
    let plain = retain(world, store);
    assert_eq!((&plain["log"], &plain["applied"]["dropped"]), (&json!([]), &json!([])), "{plain}");
    world.run(&["restore", store, "--to", "one", "--at", &between[0]]).expect(0);
    assert_eq!(rows(world, "one"), 1);
    world.policy = world.policy.replace("logs = \"7d\"", "logs = \"1s\"").replace("7d 4w 12mo 1y", "1d");
    world.write_policy(&world.policy);
    until_older_than_the_window(world, store);
    let before = COPIES.map(|copy| pieces(world, store, copy));
    let done = retain(world, store);
    assert_eq!(done["applied"]["dropped"], json!([points[1]]), "{done}");
    assert!(!done["log"].as_array().unwrap().is_empty(), "{done}");
    for (copy, before) in done["applied"]["copies"].as_array().unwrap().iter().zip(before) {
        assert!(copy["log_objects"].as_u64().unwrap() > 0, "{done}");
        assert_eq!(copy["absence"]["left_count"], 0, "{done}");
        assert!(pieces(world, store, copy["copy"].as_str().unwrap()) < before);
    }
    assert_eq!(world.promise(store, "retention").0, "kept", "{:?}", world.promise(store, "retention"));
    // What was dropped is refused, not restored to something else; what stays is all there.
    world.run(&["restore", store, "--to", "no", "--at", &between[0]]).expect(3);
    world.run(&["restore", store, "--to", "first", "--at", &points[0]]).expect(0);
    assert_eq!(rows(world, "first"), 0);
    write(4);
    once(world);
    world.run(&["restore", store, "--to", "third", "--at", &between[2]]).expect(0);
    assert_eq!(rows(world, "third"), 3);
    world.run(&["restore", store, "--to", "latest"]).expect(0);
    assert_eq!(rows(world, "latest"), 4);
    world.run(&["verify", store]).expect(0);
    let again = retain(world, store);
    assert!(again["applied"]["copies"][0]["log_objects"] == 0, "{again}");
    world.run(&["drill", store]).expect(0);
}

#[test]
fn case_18_log_of_a_cluster_goes_only_before_the_base_that_the_window_starts_from() {
    let server = postgres::server(15);
    let mut world = postgres::world_of(&server);
    let write = |number: u64| {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({number})"));
    };
    only_the_log_before_the_window_goes(&mut world, "shop", write, |world, target| {
        ask(&server, &world.path(target), "SELECT count(*) FROM ledger").trim().parse().unwrap()
    });
}

#[test]
fn case_18_commands_of_a_redis_go_only_before_the_base_that_the_window_starts_from() {
    let server = redis::server();
    let mut world = World::of_redis(&server.url());
    let numbers = |number: u64| write(&mut server.connect(), number);
    only_the_log_before_the_window_goes(&mut world, "cache", numbers, |world, target| {
        ledger(world, target).len() as u64
    });
}
