//! Kind `redis` read key by key, after a capture that was ended in the middle: it goes on there, and nothing rests on what was read
//! before.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use lifeboat_base::capture::Body;
use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::SystemClock;
use lifeboat_stores::{Adapter, CaptureContext, Recording, ScanOptions};
use lifeboat_testkit::{RedisOptions, RedisServer};
use serde_json::Value;

use super::redis::adapter;
use super::redis_scan::{address, capture, words};

/// So many that the walk has to wait for its reader, and comes through several pages before.
const KEYS: u64 = 20_000;

fn server() -> RedisServer {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..KEYS).map(|n| words(&format!("SET page:{n} {n:0>100}"))));
    server.load([words("SELECT 3"), words("HSET hash a 1 b 2"), words("SET last one")]);
    server
}

fn context<'a>(clock: &'a SystemClock, folder: &'a Path, kept: &'a Path) -> CaptureContext<'a> {
    CaptureContext { clock, spool: folder, kept: Some(kept), known: &[] }
}

/// Begins a capture, and leaves it as soon as something comes.
fn leave(adapter: &dyn Adapter, folder: &Path, kept: &Path) {
    let clock = SystemClock::new();
    let mut capture = adapter.capture(&context(&clock, folder, kept)).unwrap();
    capture.next_entry(&Findings::new()).unwrap();
    let Some(Body::File { mut reader, .. }) =
        capture.next_entry(&Findings::new()).unwrap().map(|entry| entry.body)
    else {
        panic!("no file")
    };
    reader.read_exact(&mut vec![0; 600_000]).unwrap();
}

fn go_on(adapter: &dyn Adapter, folder: &Path, kept: &Path) -> Recording {
    let clock = SystemClock::new();
    let capture = adapter.capture(&context(&clock, folder, kept)).unwrap();
    Recording::record(capture, &Findings::new()).unwrap()
}

fn scan(recording: &Recording) -> &Value {
    &recording.facts().environment["redis.scan"]
}

/// How many keys the second walk took.
fn taken(recording: &Recording) -> Option<u64> {
    let second = &scan(recording)["second_pass"];
    assert_eq!(second["measured"], second.get("taken").is_none(), "{second}");
    assert_eq!(recording.facts().changes().is_some(), second["measured"].as_bool().unwrap());
    second.get("taken").map(|taken| taken.as_u64().unwrap())
}

/// What replication finds there.
fn expected(server: &RedisServer, folder: &Path) -> (BTreeMap<String, u64>, BTreeMap<String, String>) {
    let recording = capture(adapter(address(server), None).as_ref(), folder);
    (recording.facts().counts.clone(), recording.facts().checksums.clone())
}

fn found(recording: &Recording) -> (BTreeMap<String, u64>, BTreeMap<String, String>) {
    (recording.facts().counts.clone(), recording.facts().checksums.clone())
}

fn reads(server: &RedisServer) -> u64 {
    let stats = server.connect().info("commandstats").unwrap();
    let calls = stats
        .get("cmdstat_type")
        .and_then(|text| text.strip_prefix("calls=")?.split(',').next()?.parse().ok());
    calls.unwrap_or_default()
}

#[test]
fn a_capture_goes_on_where_one_was_ended() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let keeper = adapter(address(&server), Some(ScanOptions::default()));
    leave(keeper.as_ref(), folder.path(), &kept);
    let before = reads(&server);
    let point = go_on(keeper.as_ref(), folder.path(), &kept);
    let late = taken(&point).unwrap();
    assert!((2_000..KEYS).contains(&late), "{late}");
    assert_eq!(found(&point), expected(&server, folder.path()));
    // What was left of the first walk, what only the second has read, and a question for what can be asked.
    assert_eq!(reads(&server) - before, KEYS + 2 + 1);
    // What came to its end is no beginning.
    assert!(!kept.exists());
    let next = go_on(keeper.as_ref(), folder.path(), &kept);
    assert!(taken(&next).is_none() && !kept.exists(), "{}", scan(&next));
    // Whoever walks only once has nothing that he could go on from.
    leave(keeper.as_ref(), folder.path(), &kept);
    let once = ScanOptions { second_pass: false, ..ScanOptions::default() };
    let point = go_on(adapter(address(&server), Some(once)).as_ref(), folder.path(), &kept);
    assert_eq!(scan(&point)["second_pass"], serde_json::json!({ "measured": false }));
    assert_eq!(found(&point), expected(&server, folder.path()));
}

#[test]
fn nothing_that_an_earlier_run_read_is_in_a_point() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let mut server = server();
    let keeper = adapter(address(&server), Some(ScanOptions::default()));
    let goes_on = |server: &RedisServer| {
        let point = go_on(keeper.as_ref(), folder.path(), &kept);
        assert!(taken(&point).is_some(), "{}", scan(&point));
        assert_eq!(found(&point), expected(server, folder.path()));
    };
    // Some keys change, come and go.
    leave(keeper.as_ref(), folder.path(), &kept);
    server.load((0..KEYS).step_by(2).map(|n| words(&format!("SET page:{n} other"))));
    server.load((0..KEYS).step_by(5).map(|n| words(&format!("DEL page:{n}"))));
    server.load((0..77).map(|n| words(&format!("SET new:{n} {n}"))));
    goes_on(&server);
    // Another content under the same names, and no trace of its coming.
    leave(keeper.as_ref(), folder.path(), &kept);
    server.run("FLUSHALL");
    server.load((0..KEYS).map(|n| words(&format!("SET page:{n} of-another"))));
    server.run("CONFIG RESETSTAT");
    goes_on(&server);
    // Nothing that was there.
    leave(keeper.as_ref(), folder.path(), &kept);
    server.run("FLUSHALL");
    server.load((0..3_000).map(|n| words(&format!("SADD other:{n} m"))));
    goes_on(&server);
    // A server with another order of names.
    server.load((0..KEYS).map(|n| words(&format!("SET page:{n} {n:0>100}"))));
    leave(keeper.as_ref(), folder.path(), &kept);
    server.run("SAVE");
    server.stop();
    server.start_again();
    goes_on(&server);
    // None at all.
    leave(keeper.as_ref(), folder.path(), &kept);
    server.run("FLUSHALL");
    let point = go_on(keeper.as_ref(), folder.path(), &kept);
    assert_eq!(found(&point), expected(&server, folder.path()));
}

#[test]
fn no_place_that_a_trail_can_name_loses_a_key() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let keeper = adapter(address(&server), Some(ScanOptions::default()));
    leave(keeper.as_ref(), folder.path(), &kept);
    let expected = expected(&server, folder.path());
    let trail = fs::read(&kept).unwrap();
    let places = [
        "\"db\":0,\"cursor\":0",
        "\"db\":0,\"cursor\":1",
        "\"db\":0,\"cursor\":77777777777",
        "\"db\":0,\"cursor\":18446744073709551615",
        "\"db\":0",
        "\"db\":2,\"cursor\":5",
        "\"db\":3,\"cursor\":5",
        "\"db\":3",
        "\"db\":15",
        // The second walk was begun.
        "\"db\":18446744073709551615",
    ];
    for place in places {
        let page = format!("{{{place}}}");
        let sum: String = Digest::of(page.as_bytes()).to_string().chars().take(16).collect();
        let text = [&trail[..], format!("{sum} {page}\n").as_bytes()].concat();
        crashsafe::replace(&kept, &text).unwrap();
        let point = go_on(keeper.as_ref(), folder.path(), &kept);
        assert!(taken(&point).is_some(), "{place}");
        assert_eq!(found(&point), expected, "{place}");
    }
}
