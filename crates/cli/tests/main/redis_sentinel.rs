//! Redis through sentinels: real ones that make a replica the primary, and ones of ours that say what is not so.

use std::io::{Read, Write};
use std::net::TcpListener;

use lifeboat_redis::replication;
use lifeboat_testkit::{RedisOptions, RedisServer, Sentinel};

use super::redis::{content, server_with, start_restored};
use super::redis_log::{Follower, ledger, shipped, write};
use super::redis_scan;
use super::world::World;

const USER: &str =
    "lifeboat on >canary-of-servers resetkeys resetchannels -@all +ping +info +replconf +psync";
const PASSWORD: &str = "canary-of-sentinels";

fn options() -> RedisOptions {
    RedisOptions::default().set("user", USER)
}

/// Lets others work for a moment: a sentinel whose own timer comes late trusts nothing for half a minute. A replica may be
/// asked too.
fn pause(server: &RedisServer) {
    // One that changes its role lets go of whoever waits.
    drop(server.connect().ask("XREAD BLOCK 100 STREAMS nothing 0"));
}

/// A primary, its replica, and three sentinels who know both.
fn house() -> (RedisServer, RedisServer, [Sentinel; 3]) {
    let primary = server_with(options().set("rdb-key-save-delay", "0"));
    let replica = RedisServer::start(options());
    replica.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    while replica.connect().info("replication").unwrap().get("master_link_status") != Some("up") {
        std::thread::yield_now();
    }
    let sentinels = [0; 3].map(|_| Sentinel::start("shop", primary.port(), PASSWORD));
    for sentinel in &sentinels {
        let knows = |field: &str, wanted: &str| sentinel.field("shop", field).as_deref() == Some(wanted);
        while !(knows("num-slaves", "1") && knows("num-other-sentinels", "2")) {
            pause(&primary);
        }
    }
    (primary, replica, sentinels)
}

fn url(sentinels: &[Sentinel], more: &str) -> String {
    let hosts: Vec<String> =
        sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
    format!(
        "redis+sentinel://lifeboat:canary-of-servers@{}/shop?sentinel_password={PASSWORD}{more}",
        hosts.join(",")
    )
}

fn set_url(world: &mut World, url: String) {
    world.env.retain(|(name, _)| name != "CACHE_URL");
    world.env.push(("CACHE_URL".to_owned(), url));
}

fn failed_over(sentinels: &[Sentinel], to: &RedisServer) {
    let is_known = |sentinel: &Sentinel| sentinel.primary("shop") == Some(to.port());
    let is_primary = || to.connect().info("replication").unwrap().get("role") == Some("master");
    while !(is_primary() && sentinels.iter().all(is_known)) {
        pause(to);
    }
}

/// Written, and with the replica: an acknowledged write alone may die with its server.
fn write_twice(server: &RedisServer, number: u64) {
    let mut connection = server.connect();
    write(&mut connection, number);
    assert_eq!(connection.ask("WAIT 1 0").unwrap().integer(), Some(1));
}

#[test]
fn a_failover_in_the_middle_of_the_stream_and_of_a_capture_is_followed() {
    let (mut primary, replica, sentinels) = house();
    let mut world = World::of_redis(&url(&sentinels, ""));
    world.policy = world.policy.replace("rpo = \"5m\"", "rpo = \"2s\"");
    world.write_policy(&world.policy);
    world.run(&["check"]).expect(0);
    world.backup("cache");
    let follower = Follower(world.start(&["wal", "stream", "cache"]));
    for number in 1..=200 {
        write_twice(&primary, number);
    }
    while shipped(&world, "offsite") == 0 {
        pause(&primary);
    }
    primary.crash();
    failed_over(&sentinels, &replica);
    for number in 201..=400 {
        write(&mut replica.connect(), number);
    }
    let reached = replication::place(&mut replica.connect()).unwrap().offset;
    while ["local", "offsite"].iter().any(|copy| shipped(&world, copy) < reached) {
        pause(&replica);
    }
    drop(follower);
    world.run(&["restore", "cache", "--to", "latest"]).expect(0);
    assert_eq!(ledger(&world, "latest"), (1..=400).collect::<Vec<_>>());
    // The old one comes back as a replica of the new one, which dies while its dump is on its way.
    primary.start_again();
    while primary.connect().info("replication").unwrap().get("master_link_status") != Some("up") {
        pause(&primary);
    }
    for sentinel in &sentinels {
        while sentinel.ask("SENTINEL CKQUORUM shop").is_none() {
            pause(&primary);
        }
    }
    let mut dying = replica;
    dying.run("CONFIG SET rdb-key-save-delay 5000");
    let before = world.points("cache");
    let mut backup = world.start(&["backup", "cache"]);
    while dying.connect().info("persistence").unwrap().get("rdb_bgsave_in_progress") != Some("1") {
        assert!(backup.try_wait().unwrap().is_none(), "it ended before its server did");
    }
    dying.crash();
    assert_ne!(backup.wait().unwrap().code(), Some(0));
    assert_eq!(world.points("cache"), before);
    failed_over(&sentinels, &primary);
    let expected = content(&primary).databases;
    let point = world.backup("cache");
    world.run(&["restore", "cache", "--to", "back", "--at", &point]).expect(0);
    assert_eq!(content(&start_restored(&world.path("back"))).databases, expected);
    // Nobody is left to be a replica.
    set_url(&mut world, url(&sentinels, "&role=replica"));
    let ran = world.run(&["backup", "cache"]).expect(4);
    assert!(!format!("{ran:?}").contains("canary"), "{ran:?}");
}

#[test]
fn a_replica_is_found_where_one_is_wanted_and_secrets_are_not_told() {
    let (primary, replica, sentinels) = house();
    let mut world = World::of_redis(&url(&sentinels, "&role=replica"));
    let point = world.backup("cache");
    assert_eq!(replica.connect().info("stats").unwrap().number("sync_full"), Some(1));
    world.run(&["restore", "cache", "--to", "back", "--at", &point]).expect(0);
    assert_eq!(content(&start_restored(&world.path("back"))).databases, content(&primary).databases);
    // Most sentinels are gone: the one that is left knows enough, since the server is asked too.
    let [one, two, three] = sentinels;
    drop((one, two));
    set_url(&mut world, url(std::slice::from_ref(&three), ""));
    world.backup("cache");
    for (from, to, said) in [
        (PASSWORD, "canary-that-is-wrong", "WRONGPASS"),
        ("canary-of-servers", "canary-that-is-wrong", "WRONGPASS"),
        ("/shop", "/shelf", "know no primary called `shelf`"),
    ] {
        set_url(&mut world, url(std::slice::from_ref(&three), "").replace(from, to));
        let ran = world.run(&["backup", "cache"]).expect(4);
        let all = format!("{ran:?}");
        assert!(all.contains(said) && !all.contains("canary"), "{said}: {all}");
    }
    drop(three);
    let ran = world.run(&["backup", "cache"]).expect(4);
    assert!(format!("{ran:?}").contains("none of 1 sentinels answered"), "{ran:?}");
}

/// A sentinel that names this port of 127.0.0.1 to whoever asks, for ever.
fn liar(names: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            drop(stream.read(&mut [0; 1024]));
            let text = names.to_string();
            let answer = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{text}\r\n", text.len());
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    port
}

#[test]
fn what_sentinels_say_is_believed_only_when_the_server_says_so_too() {
    let one = server_with(RedisOptions::default());
    let other = server_with(RedisOptions::default());
    other.run("SET other 1");
    let replica = RedisServer::start(RedisOptions::default());
    replica.run(&format!("REPLICAOF 127.0.0.1 {}", one.port()));
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (of_one, of_one_too, of_other) = (liar(one.port()), liar(one.port()), liar(other.port()));
    let (of_replica, of_dead, of_dead_too) = (liar(replica.port()), liar(dead), liar(dead));
    let mut world = World::of_redis("redis://127.0.0.1:1");
    let mut backup = |ports: &[u16], code: i32, said: &str| {
        let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        set_url(&mut world, format!("redis+sentinel://{}/shop", hosts.join(",")));
        let ran = world.run(&["backup", "cache"]).expect(code);
        assert!(format!("{ran:?}").contains(said), "{said}: {ran:?}");
    };
    backup(&[of_dead], 4, "failed to connect");
    backup(&[of_replica], 4, "is none");
    backup(&[of_one, of_other], 4, "the sentinels disagree");
    // A dead address and a replica are passed over, also if most name them.
    backup(&[of_dead, of_dead_too, of_one], 0, "");
    backup(&[of_replica, of_one], 0, "");
    backup(&[dead, of_one], 0, "");
    // Two that were never told of each other: most sentinels stand behind one.
    backup(&[of_other, of_one, of_one_too], 0, "");
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert!(start_restored(&world.path("back")).run("EXISTS other").integer() == Some(0));
}

#[test]
fn a_server_that_is_read_key_by_key_is_found_too_and_must_keep_its_role_to_the_end() {
    let server = server_with(RedisOptions::default());
    let mut world = redis_scan::world(&server, "");
    let address = format!("redis+sentinel://127.0.0.1:{}/shop", liar(server.port()));
    set_url(&mut world, address);
    world.run(&["check"]).expect(0);
    world.backup("cache");
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert_eq!(content(&start_restored(&world.path("back"))).databases, content(&server).databases);
    // It becomes a replica while its keys are read.
    let before = world.points("cache");
    let slowly = "capture = \"scan\"\nrequests_per_second = 500";
    world.write_policy(&world.policy.replace("capture = \"scan\"", slowly));
    let asked = || server.connect().info("commandstats").unwrap().get("cmdstat_type").map(str::to_owned);
    let types = asked();
    let mut backup = world.start(&["backup", "cache"]);
    while asked() == types {
        assert!(backup.try_wait().unwrap().is_none(), "it ended before it began");
    }
    server.run("REPLICAOF 127.0.0.1 1");
    assert_eq!(backup.wait().unwrap().code(), Some(4));
    assert_eq!(world.points("cache"), before);
    // The sentinel goes on to name what is no primary any more.
    let ran = world.run(&["backup", "cache"]).expect(4);
    assert!(format!("{ran:?}").contains("is none"), "{ran:?}");
    server.run("REPLICAOF NO ONE");
    world.write_policy(&world.policy);
    world.backup("cache");
}
