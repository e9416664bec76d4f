//! Dumps that a real server wrote.

use std::io::Cursor;

use lifeboat_redis::rdb::{Kind, RdbError, Survey, read};
use lifeboat_testkit::{RedisOptions, RedisServer};
use proptest::prelude::*;

use super::samples::{every_kind, keep_packed, words};

const NOW_MS: i64 = 1_800_000_000_000;

fn dump(server: &RedisServer) -> Vec<u8> {
    server.run("SAVE");
    std::fs::read(server.data().join("dump.rdb")).unwrap()
}

fn survey(dump: &[u8]) -> Survey {
    Survey::read(dump, NOW_MS).unwrap()
}

#[test]
fn every_kind_and_encoding_is_counted_and_the_same_content_has_the_same_digest() {
    let (packed, large) =
        (RedisServer::start(RedisOptions::default()), RedisServer::start(RedisOptions::default()));
    keep_packed(&packed, true);
    keep_packed(&large, false);
    // Deliveries and trimmed entries bear the time of the server: the second one gets them from the first.
    packed.load(every_kind());
    let one = survey(&dump(&packed));
    large.run(&format!("REPLICAOF 127.0.0.1 {}", packed.port()));
    let mut connection = large.connect();
    while connection.info("replication").unwrap().get("master_link_status") != Some("up") {
        std::thread::yield_now();
    }
    large.run("REPLICAOF NO ONE");
    let two = survey(&dump(&large));
    assert_eq!(one.databases.keys().collect::<Vec<_>>(), [&0, &9]);
    assert_eq!(one.databases, two.databases);
    let zero = &one.databases[&0];
    for (kind, least) in
        [(Kind::String, 18), (Kind::List, 5), (Kind::Set, 8), (Kind::Zset, 4), (Kind::Hash, 3)]
    {
        assert!(zero.kinds[&kind] >= least, "{kind:?}: {:?}", zero.kinds);
    }
    assert_eq!((zero.kinds[&Kind::Stream], zero.expiring, one.functions), (3, 3, 1));
    assert_eq!(zero.keys.to_string(), packed.run("DBSIZE").integer().unwrap().to_string());
}

#[test]
fn any_change_of_content_changes_the_digest_of_its_database() {
    let server = RedisServer::start(RedisOptions::default());
    server.load(every_kind());
    let mut seen = vec![survey(&dump(&server)).databases[&0].sum];
    for change in [
        "SET one y",
        "RPUSH numbers 1",
        "SADD mixed 3",
        "ZADD edges 18 f",
        "HSET hash-new a b",
        "XADD stream 9000-1 a b",
        "XACK stream group 3-1",
        "XGROUP CREATECONSUMER stream idle dave",
        "XDEL stream 100-1",
        "PEXPIREAT one 4000000000001",
        "PERSIST ends-later",
        "RENAME one eno",
        "LSET numbers 0 5",
        "SMOVE mixed other a",
        "DEL empty",
    ] {
        server.run(change);
        let sum = survey(&dump(&server)).databases[&0].sum;
        assert!(!seen.contains(&sum), "{change}");
        seen.push(sum);
    }
}

#[test]
fn a_set_in_another_order_and_a_hash_in_another_encoding_are_the_same() {
    let sums: Vec<_> = [(0..50, true), (0..50, false)]
        .into_iter()
        .map(|(numbers, forward)| {
            let server = RedisServer::start(RedisOptions::default());
            keep_packed(&server, forward);
            let mut numbers: Vec<u32> = numbers.collect();
            if !forward {
                numbers.reverse();
            }
            server.load(numbers.iter().map(|n| words(&format!("SADD s member{n}"))));
            server.load(numbers.iter().map(|n| words(&format!("HSET h {n} {n}"))));
            server.load(numbers.iter().map(|n| words(&format!("ZADD z {n} {n}"))));
            let encodings =
                ["h", "z"].map(|key| server.run(&format!("OBJECT ENCODING {key}")).text().unwrap());
            (encodings, survey(&dump(&server)).databases)
        })
        .collect();
    assert_ne!(sums[0].0, sums[1].0);
    assert_eq!(sums[0].1, sums[1].1);
}

#[test]
fn one_flipped_bit_or_a_cut_anywhere_is_an_error() {
    let server = RedisServer::start(RedisOptions::default());
    server.load(
        every_kind().into_iter().filter(|words| words.iter().map(Vec::len).sum::<usize>() < 200).take(3000),
    );
    let good = dump(&server);
    survey(&good);
    let step = (good.len() / 700).max(1);
    for at in (0..good.len()).step_by(step) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        // A dump of another known version may only differ in its name.
        assert!(Survey::read(bad.as_slice(), NOW_MS).is_err(), "bit at {at}");
        assert!(Survey::read(&good[..at], NOW_MS).is_err(), "cut at {at}");
    }
    let mut long = good;
    long.push(0);
    assert!(matches!(Survey::read(long.as_slice(), NOW_MS), Err(RdbError::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_bytes_come_there_is_an_end_and_no_panic(version in 1u32..13, bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let dump = [format!("REDIS{version:04}").into_bytes(), bytes].concat();
        // Old versions have no checksum, so that some of these even are dumps.
        drop(read(Cursor::new(dump), &mut |_| {}));
    }
}
