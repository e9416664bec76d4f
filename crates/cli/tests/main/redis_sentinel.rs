//! Redis through sentinels: real ones that make a replica the primary, and ones of ours that say what is not so.

use std::borrow::Borrow;
use std::io::{Read, Write};
use std::net::TcpListener;

use lifeboat_redis::replication;
use lifeboat_redis::wire::encode;
use lifeboat_testkit::{RedisOptions, RedisServer, Sentinel};
use rustix::process::{Pid, Signal, kill_process};

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

fn url<S: Borrow<Sentinel>>(sentinels: &[S], more: &str) -> String {
    let hosts: Vec<String> =
        sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.borrow().port())).collect();
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
    let mut follower = Follower(world.start(&["wal", "stream", "cache"]));
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
    kill_process(Pid::from_child(&follower.0), Signal::TERM).unwrap();
    follower.0.wait().unwrap();
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
    // Two of three are most of them.
    let [one, two, three] = sentinels;
    drop(one);
    let left = [two, three];
    set_url(&mut world, url(&left, ""));
    world.backup("cache");
    for (from, to, said) in [
        (PASSWORD, "canary-that-is-wrong", "WRONGPASS"),
        ("canary-of-servers", "canary-that-is-wrong", "WRONGPASS"),
        ("/shop", "/shelf", "know no primary called `shelf`"),
    ] {
        set_url(&mut world, url(&left, "").replace(from, to));
        let ran = world.run(&["backup", "cache"]).expect(4);
        let all = format!("{ran:?}");
        assert!(all.contains(said) && !all.contains("canary"), "{said}: {all}");
    }
    // One that is left of three may be cut off from the others, whether they are named or not.
    let [two, three] = left;
    let (both, alone) = (url(&[&two, &three], ""), url(&[&three], ""));
    drop(two);
    for left in [both, alone.clone()] {
        set_url(&mut world, left);
        let ran = world.run(&["backup", "cache"]).expect(4);
        let said = "only a minority of the sentinels agrees on a primary of `shop`: 3 are known, 1 answered";
        assert!(format!("{ran:?}").contains(said), "{ran:?}");
    }
    drop(three);
    set_url(&mut world, alone);
    let ran = world.run(&["backup", "cache"]).expect(4);
    assert!(format!("{ran:?}").contains("none of 1 sentinels answered"), "{ran:?}");
}

/// A sentinel that names this port of 127.0.0.1 to whoever asks, for ever, and knows so many others.
fn liar(names: u16, epoch: u64, others: u64) -> u16 {
    liar_as(None, names, epoch, others)
}

/// The same under this id, where its own is not wanted.
fn liar_as(id: Option<&'static str>, names: u16, epoch: u64, others: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut asked = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut asked) {
                    let text = String::from_utf8_lossy(&asked[..count]).into_owned();
                    let [names, epoch, others] =
                        [names.into(), epoch, others].map(|number: u64| number.to_string());
                    let answer = if text.contains("MYID") {
                        format!("+{}\r\n", id.map_or(own.to_string(), str::to_owned)).into_bytes()
                    } else if text.contains("GET-MASTER") {
                        encode(&[b"127.0.0.1", names.as_bytes()])
                    } else {
                        let words = ["config-epoch", &epoch, "num-other-sentinels", &others];
                        encode(&words.map(str::as_bytes))
                    };
                    drop(stream.write_all(&answer));
                }
            });
        }
    });
    own
}

#[test]
fn what_sentinels_say_is_believed_only_if_most_of_them_say_it_and_the_server_too() {
    let one = server_with(RedisOptions::default());
    let other = server_with(RedisOptions::default());
    other.run("SET other 1");
    let replica = RedisServer::start(RedisOptions::default());
    replica.run(&format!("REPLICAOF 127.0.0.1 {}", one.port()));
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let [of_one, of_one_too] = [0; 2].map(|_| liar(one.port(), 3, 0));
    let (of_other, of_replica) = (liar(other.port(), 3, 0), liar(replica.port(), 3, 0));
    let [of_dead, of_dead_too] = [0; 2].map(|_| liar(dead, 3, 0));
    let (cut_off, ahead) = (liar(other.port(), 2, 2), liar(other.port(), 4, 0));
    let mut world = World::of_redis("redis://127.0.0.1:1");
    let mut backup = |ports: &[u16], code: i32, said: &str| {
        let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        set_url(&mut world, format!("redis+sentinel://{}/shop", hosts.join(",")));
        let ran = world.run(&["backup", "cache"]).expect(code);
        assert!(format!("{ran:?}").contains(said), "{said}: {ran:?}");
    };
    let minority = "only a minority of the sentinels agrees";
    backup(&[of_dead], 4, "failed to connect");
    backup(&[of_replica], 4, "is none");
    backup(&[of_one, of_other], 4, minority);
    backup(&[of_replica, of_one], 4, minority);
    // One that does not answer is one all the same.
    backup(&[dead, of_one], 4, minority);
    backup(&[of_one, dead, of_one_too], 0, "");
    // Under two addresses it is one too.
    backup(&[of_one, of_one, of_other], 4, minority);
    // One that is cut off, and knows that there are two more.
    backup(&[cut_off], 4, "3 are known, 1 answered");
    backup(&[cut_off, of_one, of_one_too], 0, "");
    // What most name is dead: one that says otherwise is not followed.
    backup(&[of_dead, of_dead_too, of_one], 4, "failed to connect");
    // A failover of which most have not heard, or one that is wrong for ever.
    backup(&[ahead, of_one, of_one_too], 5, "a sentinel names the primary 127.0.0.1:");
    // Two that call themselves the same, and of which one hides what the other knows.
    let twins = [liar_as(Some("a"), one.port(), 3, 2), liar_as(Some("a"), other.port(), 999, 0)];
    backup(&twins, 4, "names different primaries under two addresses");
    backup(&[of_other, of_one, of_one_too], 0, "");
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert!(start_restored(&world.path("back")).run("EXISTS other").integer() == Some(0));
}

#[test]
fn a_server_that_is_read_key_by_key_is_found_too_and_must_keep_its_role_to_the_end() {
    let server = server_with(RedisOptions::default());
    let mut world = redis_scan::world(&server, "");
    let address = format!("redis+sentinel://127.0.0.1:{}/shop", liar(server.port(), 0, 0));
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
