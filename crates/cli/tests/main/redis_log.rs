//! The stream of commands of a Redis server, end to end: every moment and offset between two points.

use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lifeboat_redis::replication;
use lifeboat_redis::wire::Connection;
use lifeboat_testkit::{RedisOptions, RedisServer};
use rustix::process::{Pid, Signal, kill_process};

use super::redis::{content, server, start_restored, words};
use super::world::World;

fn now() -> String {
    use lifeboat_base::time::{Clock, SystemClock};
    SystemClock::new().now().to_string()
}

pub(crate) fn once(world: &World) {
    world.run(&["wal", "stream", "cache", "--once"]).expect(0);
}

/// The numbers of the ledger that a restored server has; both keys of each were written as one unit.
pub(crate) fn ledger(world: &World, target: &str) -> Vec<u64> {
    let back = start_restored(&world.path(target));
    let reply = back.run("KEYS ledger:*");
    let mut numbers: Vec<u64> =
        reply.members().iter().filter_map(|key| key.text()?.strip_prefix("ledger:")?.parse().ok()).collect();
    numbers.sort_unstable();
    let twins = back.run("KEYS twin:*").members().len();
    assert_eq!(twins, numbers.len(), "a unit was torn");
    numbers
}

pub(crate) fn write(connection: &mut Connection, number: u64) {
    for command in [
        "MULTI".to_owned(),
        format!("SET ledger:{number} 1"),
        format!("SET twin:{number} 1"),
        "EXEC".to_owned(),
    ] {
        connection.ask(&command).unwrap();
    }
}

#[test]
fn every_write_up_to_a_moment_is_there_and_none_after_it_and_the_latest_is_what_lives() {
    let server = server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    once(&world);
    let mut moments = Vec::new();
    for number in 1..=5 {
        write(&mut server.connect(), number);
        server.run("SELECT 3");
        server.load([words("SELECT 9"), words(&format!("SADD elsewhere {number}"))]);
        once(&world);
        moments.push((now(), replication::place(&mut server.connect()).unwrap().offset));
    }
    once(&world);
    let lives = content(&server).databases;
    for (number, (moment, offset)) in (1_u64..).zip(&moments) {
        let target = format!("moment-{number}");
        world.run(&["restore", "cache", "--to", &target, "--at", moment]).expect(0);
        assert_eq!(ledger(&world, &target), (1..=number).collect::<Vec<_>>(), "{moment}");
        let target = format!("offset-{number}");
        world.run(&["restore", "cache", "--to", &target, "--at", &format!("offset:{offset}")]).expect(0);
        assert_eq!(ledger(&world, &target), (1..=number).collect::<Vec<_>>(), "{offset}");
    }
    world.run(&["restore", "cache", "--to", "latest"]).expect(0);
    assert_eq!(content(&start_restored(&world.path("latest"))).databases, lives);
    world.run(&["drill", "cache"]).expect(0);
    assert_eq!(world.promise("cache", "rpo").0, "kept");
    world.run(&["verify", "cache", "--level", "readable"]).expect(0);
    // What nobody has is not promised, and what a server of this kind does not have is said so.
    world.run(&["restore", "cache", "--to", "no", "--at", "2100-01-01 00:00"]).expect(3);
    world.run(&["restore", "cache", "--to", "no", "--at", "name:x"]).expect(2);
    assert!(!world.path("no").exists());
}

#[test]
fn the_second_point_proves_the_stream_between_the_two() {
    let server = server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    once(&world);
    for number in 1..=200 {
        write(&mut server.connect(), number);
    }
    server.load((0..300).map(|n| words(&format!("XADD events * n {n}"))));
    server.load((0..300).map(|n| words(&format!("INCRBY counter:{} {n}", n % 7))));
    server.load((0..50).map(|n| words(&format!("SET short:{n} v PX {}", 1 + n))));
    server.load((0..50).map(|n| words(&format!("LPOP queue:{}", n % 3))));
    let second = world.backup("cache");
    once(&world);
    let report = world.json(&["points", "cache"], 0);
    let point =
        report["points"].as_array().unwrap().iter().find(|point| point["id"] == second.as_str()).unwrap();
    let offset = point["position"].as_str().and_then(|place| place.split_once(':')).unwrap().1.to_owned();
    // Only the first point is left to restore from, and the stream up to the second one's place.
    let forgotten = ["local", "offsite"]
        .map(|copy| world.vault(copy, "cache").join(format!("lifeboat/points/{second}.json")));
    world.run(&["restore", "cache", "--to", "second", "--at", &second]).expect(0);
    for path in &forgotten {
        lifeboat_base::crashsafe::remove(path).unwrap();
    }
    world.run(&["catalog", "rebuild"]);
    world.run(&["restore", "cache", "--to", "through", "--at", &format!("offset:{offset}")]).expect(0);
    let (second, through) = (start_restored(&world.path("second")), start_restored(&world.path("through")));
    for server in [&second, &through] {
        // What ended meanwhile goes, in both: a server lets go of what it is asked for.
        server.load((0..50).map(|n| words(&format!("EXISTS short:{n}"))));
    }
    assert_eq!(content(&second).databases[&0].sum, content(&through).databases[&0].sum);
}

/// The offset up to which a copy has the stream.
pub(crate) fn shipped(world: &World, copy: &str) -> u64 {
    let folder = world.vault(copy, "cache").join("lifeboat/logs/commands");
    let names = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let last = |name: &str| u64::from_str_radix(name.split('-').nth(2)?, 16).ok();
    names.filter_map(|entry| last(entry.file_name().to_str()?)).max().unwrap_or_default()
}

/// Follows in the background until dropped.
pub(crate) struct Follower(pub(crate) Child);

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Replication is not synchronous: what a server acknowledged in its last moments it may not have sent. What the follower
/// has called durable is another matter.
const DURABLE: u64 = 3000;

#[test]
fn a_server_killed_under_load_is_restored_to_the_latest_and_to_ten_offsets_without_a_torn_unit() {
    let mut server = server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    let first = replication::place(&mut server.connect()).unwrap().offset;
    let mut follower = Follower(world.start(&["wal", "stream", "cache"]));
    while server.connect().info("replication").unwrap().get("connected_slaves") != Some("1") {
        std::thread::yield_now();
    }
    let (acknowledged, durable) = (AtomicU64::new(0), AtomicBool::new(false));
    let options = server.options();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = Connection::open(&options).unwrap();
            for number in 1.. {
                for command in [
                    "MULTI".to_owned(),
                    format!("SET ledger:{number} 1"),
                    format!("SET twin:{number} 1"),
                    "EXEC".to_owned(),
                ] {
                    if connection.ask(&command).is_err() {
                        return;
                    }
                }
                acknowledged.store(number, Ordering::SeqCst);
                if number == DURABLE {
                    connection.ask("WAIT 1 0").unwrap();
                    durable.store(true, Ordering::SeqCst);
                }
            }
        });
        while !durable.load(Ordering::SeqCst) || acknowledged.load(Ordering::SeqCst) < DURABLE + 200 {
            std::thread::yield_now();
        }
        server.crash();
    });
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    // What arrived goes to the copies, also when the server is gone.
    kill_process(Pid::from_child(&follower.0), Signal::TERM).unwrap();
    follower.0.wait().unwrap();
    let reached = shipped(&world, "local");
    assert_eq!(shipped(&world, "offsite"), reached);
    world.run(&["restore", "cache", "--to", "latest"]).expect(0);
    let latest = ledger(&world, "latest");
    println!("acknowledged {acknowledged}, restored {}", latest.len());
    assert_eq!(latest, (1..=latest.len() as u64).collect::<Vec<_>>());
    assert!(latest.len() as u64 >= DURABLE, "{} of {acknowledged}", latest.len());
    let mut last = 0;
    for step in 1..=10_u64 {
        let offset = first + (reached - first) * step / 10 - step * 7;
        let target = format!("offset-{step}");
        world
            .run(&["restore", "cache", "--to", &target, "--at", &format!("offset:{offset}"), "--skip-checks"])
            .expect(0);
        let numbers = ledger(&world, &target);
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{offset}");
        assert!(numbers.len() >= last && numbers.len() <= latest.len(), "{offset}");
        last = numbers.len();
    }
    assert!(last > 2000);
}

#[test]
fn a_failover_is_followed_under_its_new_name() {
    let primary = server();
    let replica = RedisServer::start(RedisOptions::default());
    replica.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    let up = |server: &RedisServer| {
        server.connect().info("replication").unwrap().get("master_link_status") == Some("up")
    };
    while !up(&replica) {
        std::thread::yield_now();
    }
    // A replica is as good a source as its primary.
    let world = World::of_redis(&replica.url());
    world.backup("cache");
    write(&mut primary.connect(), 1);
    let offset = |server: &RedisServer| replication::place(&mut server.connect()).unwrap().offset;
    while offset(&replica) < offset(&primary) {
        std::thread::yield_now();
    }
    once(&world);
    replica.run("REPLICAOF NO ONE");
    write(&mut replica.connect(), 2);
    once(&world);
    write(&mut replica.connect(), 3);
    once(&world);
    let report = world.json(&["points", "cache"], 0);
    assert_eq!(report["ranges"].as_array().unwrap().len(), 1, "{report}");
    world.run(&["restore", "cache", "--to", "latest"]).expect(0);
    assert_eq!(ledger(&world, "latest"), [1, 2, 3]);
}

#[test]
fn a_restarted_server_has_another_history_the_gap_is_filed_and_the_next_point_goes_on() {
    let mut server = server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    write(&mut server.connect(), 1);
    once(&world);
    server.crash();
    server.start_again();
    server.run("SET promised kept");
    server.load((0..20).map(|n| words(&format!("SET after-the-restart:{n} 1"))));
    write(&mut server.connect(), 2);
    let ran = world.run(&["wal", "stream", "cache", "--once"]).expect(5);
    assert!(ran.stderr.contains("gap") || ran.stdout.contains("gap"), "{}{}", ran.stdout, ran.stderr);
    // The old history is still worth what it was, and nothing of the new one is mixed into it.
    world.run(&["restore", "cache", "--to", "old"]).expect(5);
    assert_eq!(ledger(&world, "old"), [1]);
    world.backup("cache");
    write(&mut server.connect(), 3);
    once(&world);
    world.run(&["restore", "cache", "--to", "new"]).expect(0);
    assert_eq!(ledger(&world, "new"), [2, 3]);
}

#[test]
fn a_server_that_saved_before_it_was_restarted_goes_on_with_its_history_under_a_new_name() {
    let mut server = server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    write(&mut server.connect(), 1);
    once(&world);
    server.run("SAVE");
    server.crash();
    server.start_again();
    write(&mut server.connect(), 2);
    once(&world);
    let report = world.json(&["points", "cache"], 0);
    assert_eq!(report["ranges"].as_array().unwrap().len(), 1, "{report}");
    world.run(&["restore", "cache", "--to", "latest"]).expect(0);
    assert_eq!(ledger(&world, "latest"), [1, 2]);
}
