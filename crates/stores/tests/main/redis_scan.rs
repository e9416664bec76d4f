//! Kind `redis` read key by key: what comes of it is what replication finds, and a restore gives it back.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_base::capture::{Body, ConsistencyLevel};
use lifeboat_base::failure::FailureKind;
use lifeboat_base::monitor::Findings;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::{Clock, ManualClock, SystemClock};
use lifeboat_stores::{Adapter, CaptureContext, CheckState, Recording, ScanOptions};
use lifeboat_testkit::{RedisOptions, RedisServer};
use serde_json::Value;

use super::redis::{adapter, adapter_by};

pub(super) fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

pub(super) fn address(server: &RedisServer) -> String {
    format!("unix://{}", server.socket().display())
}

pub(super) fn capture(adapter: &dyn Adapter, spool: &Path) -> Recording {
    let at = CaptureContext { clock: &SystemClock::new(), spool, kept: None, known: &[] };
    Recording::record(adapter.capture(&at).unwrap(), &Findings::new()).unwrap()
}

fn scan(recording: &Recording) -> &Value {
    &recording.facts().environment["redis.scan"]
}

/// Every type, small and large, with names and values of any bytes.
pub(super) fn fill(server: &RedisServer) {
    server.load([
        vec![b"SET".to_vec(), b"binary \x00\xff\r\n{\"".to_vec(), vec![0, 255, 13, 10, 34]],
        vec![b"SET".to_vec(), b"empty".to_vec(), Vec::new()],
        vec![b"SET".to_vec(), b"one".to_vec(), vec![7]],
        vec![b"SET".to_vec(), "gr\u{f6}\u{df}e".as_bytes().to_vec(), "\u{2028}\u{1f30a}".as_bytes().to_vec()],
        vec![b"SET".to_vec(), b"long".to_vec(), vec![b'x'; 5 << 20]],
        vec![b"SET".to_vec(), b"just".to_vec(), vec![b'y'; 64 * 1024]],
        vec![b"HSET".to_vec(), b"h".to_vec(), vec![0xfe], vec![0xff; 70_000], b"n".to_vec(), b"-17".to_vec()],
    ]);
    server.load((0..2_000).map(|n| words(&format!("RPUSH list {n} same"))));
    server.load((0..3_000).map(|n| words(&format!("SADD set m{n}"))));
    server.load((0..900).map(|n| words(&format!("SADD numbers {n}"))));
    server.load((0..3_000).map(|n| words(&format!("ZADD zset {} m{n}", f64::from(n) / 7.0))));
    server.load([words("ZADD odd inf a -inf b 0.1 c -0 d 1e300 e 3 f")]);
    server.load((0..3_000).map(|n| words(&format!("HSET hash f{n} v{n}"))));
    server.load((0..60).map(|n| words(&format!("SET ends:{n} v PXAT {}", 4_000_000_000_000_u64 + n))));
    server.load((1..=700).map(|n| words(&format!("XADD stream {n}-{} n {n} fixed field", n % 3))));
    server.load((1..=40).map(|n| words(&format!("XADD mixed {n}-1 a{} 1 b {n}", n % 2))));
    for command in [
        "XADD stream 700-9 other x",
        "XDEL stream 5-2 700-9",
        "XGROUP CREATE stream readers 0",
        "XGROUP CREATE stream late $ ENTRIESREAD 650",
        "XREADGROUP GROUP readers anna COUNT 30 STREAMS stream >",
        "XREADGROUP GROUP readers bert COUNT 5 STREAMS stream >",
        "XACK stream readers 3-0 4-1",
        "XGROUP CREATECONSUMER stream late idle",
        "XGROUP CREATE nothing first $ MKSTREAM",
        "XADD emptied 1-1 a b",
        "XTRIM emptied MAXLEN 0",
    ] {
        server.run(command);
    }
    server.load((0..16).flat_map(|db| {
        [
            words(&format!("SELECT {db}")),
            words(&format!("SET in:{db} {db}")),
            words(&format!("RPUSH l:{db} a b")),
        ]
    }));
}

#[test]
fn every_type_comes_out_as_replication_finds_it_and_comes_back() {
    let server = RedisServer::start(RedisOptions::default());
    fill(&server);
    let scratch = tempfile::tempdir().unwrap();
    let by_replication = capture(adapter(address(&server), None).as_ref(), scratch.path());
    let keeper = adapter(address(&server), Some(ScanOptions::default()));
    let by_key = capture(keeper.as_ref(), scratch.path());
    assert_eq!(by_key.facts().counts, by_replication.facts().counts);
    assert_eq!(by_key.facts().checksums, by_replication.facts().checksums);
    assert_eq!(by_key.facts().consistency.level, ConsistencyLevel::Fuzzy);
    assert_eq!(by_key.facts().consistency.changes, 0, "{}", scan(&by_key));
    assert_eq!(scan(&by_key)["second_pass"]["measured"], true);
    let back = scratch.path().join("back");
    std::fs::create_dir(&back).unwrap();
    keeper.restore(&by_key, by_key.facts(), &back, &Findings::new()).unwrap();
    let checks = keeper.checks(&by_key, by_key.facts(), &back, &Findings::new()).unwrap();
    for check in &checks {
        assert_eq!(check.state, CheckState::Passed, "{check:?}");
    }
    // A server that is no throwaway of ours takes it too, and replication finds the same there.
    let restored = RedisServer::start_on(&back, RedisOptions::default().set("appendonly", "yes"));
    let again = capture(adapter(address(&restored), None).as_ref(), scratch.path());
    assert_eq!(again.facts().checksums, by_key.facts().checksums);
}

#[test]
fn lines_are_bounded_and_a_person_can_read_them() {
    let server = RedisServer::start(RedisOptions::default());
    fill(&server);
    let scratch = tempfile::tempdir().unwrap();
    let recording = capture(adapter(address(&server), Some(ScanOptions::default())).as_ref(), scratch.path());
    let lines = recording.content(&RelPath::new("data/keys.jsonl").unwrap()).unwrap();
    let text = std::str::from_utf8(lines).unwrap();
    let mut keys = BTreeMap::new();
    for line in text.lines() {
        assert!(line.len() < 3 << 20, "{} bytes", line.len());
        let line: Value = serde_json::from_str(line).unwrap();
        if line.get("key").is_some() {
            assert!(keys.insert(format!("{} {}", line["db"], line["key"]), line).is_none());
        }
    }
    assert_eq!(keys.len() as u64, recording.facts().counts["keys"]);
    assert_eq!(keys["0 \"one\""]["values"][0], "\u{7}");
    assert_eq!(keys["3 \"in:3\""]["values"][0], "3");
    assert_eq!(keys["0 \"ends:4\""]["end_ms"], 4_000_000_000_004_u64);
    let binary = keys.values().find(|line| line["key"].is_object()).unwrap();
    assert_eq!(binary["values"][0]["base64"], "AP8NCiI=");
}

#[test]
fn what_changed_appeared_vanished_and_ended_during_the_capture_is_counted() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..50).map(|n| words(&format!("SET key:{n} {n}"))));
    server.load([words("SELECT 1")]);
    // So much that the walk has to wait for its reader in the second database.
    server.load((0..80).flat_map(|n| {
        let set = vec![b"SET".to_vec(), format!("large:{n}").into_bytes(), vec![b'x'; 60_000]];
        [words("SELECT 1"), set]
    }));
    server.run("SET ends soon PX 3600000");
    let scratch = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock::new().now()));
    let adapter = adapter_by(clock.clone(), address(&server), Some(ScanOptions::default()), None);
    let at = CaptureContext { clock: clock.as_ref(), spool: scratch.path(), kept: None, known: &[] };
    let monitor = Findings::new();
    let mut capture = adapter.capture(&at).unwrap();
    capture.next_entry(&monitor).unwrap();
    let Some(Body::File { mut reader, .. }) = capture.next_entry(&monitor).unwrap().map(|entry| entry.body)
    else {
        panic!("no file")
    };
    reader.read_exact(&mut [0]).unwrap();
    // The first database has been read whole, and nothing was looked at again.
    for change in ["SET key:1 other", "APPEND key:2 more", "PEXPIRE key:3 99999999", "DEL key:4 key:5"] {
        server.run(change);
    }
    for new in 0..4 {
        server.run(&format!("SET new:{new} 1"));
    }
    // Its hour is over.
    server.run("DEL ends");
    clock.advance(Duration::from_hours(2));
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    drop(reader);
    while let Some(entry) = capture.next_entry(&monitor).unwrap() {
        if let Body::File { mut reader, .. } = entry.body {
            std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        }
    }
    let facts = capture.finish().unwrap();
    let second = &facts.environment["redis.scan"]["second_pass"];
    let counts = ["changed", "appeared", "vanished", "ended"].map(|name| second[name].as_u64().unwrap());
    assert_eq!(counts, [3, 4, 2, 1], "{second}");
    assert_eq!((facts.consistency.changes, facts.changes()), (9, Some(9)));
    assert_eq!(facts.counts["keys/db0"], 51);
}

#[test]
fn what_is_not_understood_is_named_with_its_number_and_left_out_only_if_told_so() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..20).map(|n| words(&format!("SET key:{n} {n}"))));
    // A stream that cannot be read whole stands for a module's type.
    server.load((0..10_020).map(|n| words(&format!("XADD stream {}-1 a b", n + 1))));
    server.run("XGROUP CREATE stream g 0");
    server.run("XREADGROUP GROUP g c COUNT 10010 STREAMS stream >");
    let scratch = tempfile::tempdir().unwrap();
    let at = CaptureContext { clock: &SystemClock::new(), spool: scratch.path(), kept: None, known: &[] };
    let refusing = adapter(address(&server), Some(ScanOptions::default()));
    let failure = Recording::record(refusing.capture(&at).unwrap(), &Findings::new()).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Refused, "{}", failure.chain());
    assert!(failure.chain().contains("1 of the type `stream with more than 10000"), "{}", failure.chain());
    let options = ScanOptions { skip_unknown: true, ..ScanOptions::default() };
    let monitor = Findings::new();
    let skipping = adapter(address(&server), Some(options));
    let recording = Recording::record(skipping.capture(&at).unwrap(), &monitor).unwrap();
    assert_eq!(recording.facts().counts["keys"], 20);
    assert_eq!(monitor.list()[0].code, "redis-unknown-type");
    assert_eq!(scan(&recording)["unknown"].as_object().unwrap().len(), 1);
}

#[test]
fn every_cut_and_every_wrong_line_is_found() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..300).map(|n| words(&format!("HSET key:{n} a {n} b c"))));
    let scratch = tempfile::tempdir().unwrap();
    let keeper = adapter(address(&server), Some(ScanOptions::default()));
    let good = capture(keeper.as_ref(), scratch.path());
    let path = RelPath::new("data/keys.jsonl").unwrap();
    let lines = good.content(&path).unwrap().to_vec();
    let entry = good.entry(&path).unwrap().clone();
    let fails = |lines: Vec<u8>| {
        let mut bad = good.clone();
        bad.put(entry.clone(), lines);
        let back = tempfile::tempdir_in(scratch.path()).unwrap();
        let outcome = keeper.restore(&bad, bad.facts(), back.path(), &Findings::new());
        assert_eq!(outcome.unwrap_err().kind(), FailureKind::Damaged);
    };
    for at in (0..lines.len()).step_by(lines.len() / 60) {
        fails(lines[..at].to_vec());
    }
    for at in (0..lines.len()).step_by(lines.len() / 300) {
        // What the header says for people is not compared.
        if at > lines.iter().position(|byte| *byte == b'\n').unwrap() {
            let mut wrong = lines.clone();
            wrong[at] ^= 1;
            fails(wrong);
        }
    }
    let text = String::from_utf8(lines).unwrap();
    let all: Vec<&str> = text.lines().collect();
    let join = |lines: &[&str]| (lines.join("\n") + "\n").into_bytes();
    let without: Vec<&str> =
        all.iter().enumerate().filter(|(at, _)| *at != 7).map(|(_, line)| *line).collect();
    fails(join(&without));
    let mut twice = all.clone();
    twice.insert(7, all[7]);
    fails(join(&twice));
}
