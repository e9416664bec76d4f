//! Kind `redis` over REST, against a front before a real server that refuses, loses, cuts and drips.

use std::time::Duration;

use lifeboat_base::failure::FailureKind;
use lifeboat_base::monitor::Findings;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::{Clock as _, SystemClock};
use lifeboat_stores::{CaptureContext, Conflict, LoadOptions, MergeOptions, Recording, ScanOptions};
use lifeboat_testkit::{Mood, RedisOptions, RedisServer, RestFront};

use super::redis::{adapter, adapter_with};
use super::redis_scan::{address, capture, fill, words};

const TOKEN: &str = "canary-of-a-token";

/// A server with one database, as services have.
fn source() -> RedisServer {
    let server = RedisServer::start(RedisOptions::default());
    fill(&server);
    for db in 1..16 {
        server.connect().ask(&format!("SELECT {db}")).unwrap();
        server.load([words(&format!("SELECT {db}")), words("FLUSHDB")]);
    }
    server
}

/// Something goes wrong with every few requests, each in its own way.
fn moody(number: u64) -> Mood {
    match number {
        _ if number % 23 == 4 => Mood::Refuse(429, Some(0)),
        _ if number % 29 == 7 => Mood::Refuse(503, None),
        _ if number % 31 == 9 => Mood::Cut,
        _ if number % 37 == 12 => Mood::Lose(500),
        _ if number % 5 == 1 => Mood::Drip,
        _ => Mood::Answer,
    }
}

#[test]
fn what_comes_over_rest_is_what_replication_finds_whatever_goes_wrong_on_the_way() {
    let server = source();
    let scratch = tempfile::tempdir().unwrap();
    let expected = capture(adapter(address(&server), None).as_ref(), scratch.path());
    let front = RestFront::start(&server, TOKEN, true, moody);
    // The address alone says how it is read.
    let keeper = adapter_with(front.url(), None, Some(TOKEN));
    let found = capture(keeper.as_ref(), scratch.path());
    assert_eq!(found.facts().counts, expected.facts().counts);
    assert_eq!(found.facts().checksums, expected.facts().checksums);
    assert_eq!(found.facts().changes(), Some(0), "{}", found.facts().environment["redis.scan"]);
    assert!(front.requests() > 60, "{}", front.requests());
    let writing = ["SET", "DEL", "FLUSHALL", "SELECT", "PSYNC", "DUMP", "CONFIG"];
    assert!(front.commands().iter().all(|name| !writing.contains(&name.as_str())));
}

#[test]
fn a_restore_over_rest_ends_with_what_was_captured_whatever_goes_wrong_on_the_way() {
    let server = source();
    // Names of groups and values of streams that are no text have no form over REST that is long enough.
    let scratch = tempfile::tempdir().unwrap();
    let keeper = adapter(address(&server), Some(ScanOptions::default()));
    let point = capture(keeper.as_ref(), scratch.path());
    let back = scratch.path().join("back");
    std::fs::create_dir(&back).unwrap();
    keeper.restore(&point, point.facts(), &back, &Findings::new()).unwrap();
    let target = RedisServer::start(RedisOptions::default());
    target.run("SET lifeboat-restoring:left behind");
    let front = RestFront::start(&target, TOKEN, true, moody);
    let filling = adapter_with(front.url(), None, Some(TOKEN));
    let place = Secret::new(front.url());
    let options = LoadOptions::default();

    let loader = filling.loader().unwrap();
    loader.ready(&place, &options).unwrap();
    let loaded = loader.load(&back, &place, &options, &Findings::new()).unwrap();
    assert_eq!((loaded.items, loaded.compared), (point.facts().counts["keys"], point.facts().counts["keys"]));
    let found = capture(adapter(address(&target), None).as_ref(), scratch.path());
    assert_eq!(found.facts().checksums, point.facts().checksums);
    // Once more, also where keys are told to be replaced: there is nothing to replace.
    let merge = MergeOptions { conflict: Conflict::Replace, ..MergeOptions::default() };
    let again = LoadOptions { merge: Some(merge), ..LoadOptions::default() };
    let loaded = loader.load(&back, &place, &again, &Findings::new()).unwrap();
    assert_eq!((loaded.items, loaded.unchanged), (0, point.facts().counts["keys"]));
}

#[test]
fn a_service_that_does_not_take_what_is_no_text_is_refused_and_nothing_is_left_out() {
    let server = source();
    let scratch = tempfile::tempdir().unwrap();
    let front = RestFront::start(&server, TOKEN, false, |_| Mood::Answer);
    let keeper = adapter_with(front.url(), None, Some(TOKEN));
    let at = CaptureContext { clock: &SystemClock::new(), spool: scratch.path(), kept: None, known: &[] };
    let failure = Recording::record(keeper.capture(&at).unwrap(), &Findings::new()).unwrap_err();
    assert!(failure.chain().contains("use its redis:// address"), "{}", failure.chain());
}

#[test]
fn a_wrong_token_is_told_and_never_shown_and_a_missing_one_asked_for() {
    let server = RedisServer::start(RedisOptions::default());
    let front = RestFront::start(&server, TOKEN, true, |_| Mood::Answer);
    let failure = adapter_with(front.url(), None, Some("another-canary")).inspect().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Unreachable);
    assert!(!failure.chain().contains("canary"), "{}", failure.chain());
    let failure = adapter_with(front.url(), None, None).inspect().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Usage);
    assert!(failure.chain().contains("token"), "{}", failure.chain());
    adapter_with(front.url(), None, Some(TOKEN)).inspect().unwrap();
}

#[test]
fn a_limit_of_commands_a_second_is_kept() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..200).map(|n| words(&format!("SET key:{n} {n}"))));
    let scratch = tempfile::tempdir().unwrap();
    let front = RestFront::start(&server, TOKEN, true, |_| Mood::Answer);
    let options = ScanOptions { requests_per_second: Some(1_000), ..ScanOptions::default() };
    let keeper = adapter_with(front.url(), Some(options), Some(TOKEN));
    let clock = SystemClock::new();
    let started = clock.monotonic();
    capture(keeper.as_ref(), scratch.path());
    let took = clock.monotonic().saturating_sub(started);
    let commands = u32::try_from(front.commands().len()).unwrap();
    assert!(commands > 1_000, "{commands}");
    // The last ones need not be waited for.
    assert!(took > Duration::from_millis(1) * (commands - 200), "{commands} commands in {took:?}");
}
