//! A real cluster of three shards: a row each, every slot in some row, and slots that move.

use std::sync::Arc;

use lifeboat_base::time::SystemClock;
use lifeboat_redis::scan::{Abilities, Nowhere, Outcome, Pace, RespLink, read_page};
use lifeboat_redis::wire::Reply;
use lifeboat_testkit::{Port, RedisOptions, RedisServer};
use serde_json::Value;

use super::redis::start_restored;
use super::world::World;

/// The first slot of each shard, and the one after the last.
const BORDERS: [u16; 4] = [0, 5461, 10923, 16384];

struct Node {
    server: RedisServer,
    /// Held while the server may use it.
    bus: Port,
}

impl Node {
    fn start() -> Self {
        let bus = Port::take();
        let options = RedisOptions::default()
            .set("cluster-enabled", "yes")
            .set("cluster-port", bus.number())
            .set("cluster-node-timeout", "5000")
            .set("cluster-allow-replica-migration", "no");
        Self { server: RedisServer::start(options), bus }
    }

    fn id(&self) -> String {
        self.server.run("CLUSTER MYID").text().unwrap()
    }

    fn knows(&self, line: &str) -> bool {
        self.server.run("CLUSTER INFO").text().unwrap().lines().any(|found| found.trim_end() == line)
    }

    fn meet(&self, other: &Self) {
        let (port, bus) = (other.server.port(), other.bus.number());
        self.server.run(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"));
    }
}

fn wait(mut until: impl FnMut() -> bool) {
    while !until() {
        std::thread::yield_now();
    }
}

/// Three primaries with all slots, a key in each slot that is asked for.
fn cluster() -> [Node; 3] {
    let nodes = [0; 3].map(|_| Node::start());
    for (index, (node, range)) in nodes.iter().zip(BORDERS.windows(2)).enumerate() {
        node.server.run(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
        node.server.run(&format!("CLUSTER ADDSLOTSRANGE {} {}", range[0], range[1] - 1));
    }
    nodes[0].meet(&nodes[1]);
    nodes[0].meet(&nodes[2]);
    for node in &nodes {
        wait(|| node.knows("cluster_state:ok") && node.knows("cluster_known_nodes:3"));
    }
    for number in 0..600 {
        let key = format!("key:{number}");
        let slot = nodes[0].server.run(&format!("CLUSTER KEYSLOT {key}")).integer().unwrap();
        let owner = BORDERS.iter().rposition(|first| i64::from(*first) <= slot).unwrap();
        nodes[owner].server.run(&format!("SET {key} {number}"));
    }
    nodes
}

/// Rows for these slots, found through a node that is gone and one that is there.
fn world_of(seed: &Node, slots: &[(&str, &str)]) -> World {
    let mut world = World::of_redis("redis://127.0.0.1:1");
    let (head, _) = world.policy.split_once("[store.cache]").unwrap();
    let mut policy = head.to_owned();
    for (name, slot) in slots {
        let url = format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}/{slot}", seed.server.port());
        let row = format!("[store.{name}]\nkind = \"redis\"\nurl = \"{url}\"\nlogs = \"7d\"\nrpo = \"5m\"\n");
        policy.push_str(&row);
    }
    world.policy = policy;
    world.write_policy(&world.policy);
    world
}

#[test]
fn every_shard_has_its_row_and_slots_without_one_are_told() {
    let nodes = cluster();
    let some = world_of(&nodes[1], &[("a", "0"), ("c", "16383")]);
    let ran = some.run(&["check"]).expect(5);
    assert!(format!("{ran:?}").contains("no row keeps the slots 5461-10922"), "{ran:?}");
    for command in ["backup", "status"] {
        let ran = some.run(&[command]).expect(5);
        assert!(format!("{ran:?}").contains("no recovery point holds the slots 5461-10922"), "{ran:?}");
    }
    let report = some.json(&["status"], 5);
    assert_eq!(report["findings"][0]["code"], "slots-uncovered", "{report}");
    let world = world_of(&nodes[1], &[("a", "0"), ("b", "6000"), ("c", "16383")]);
    world.run(&["check"]).expect(0);
    // Rows are no points.
    let ran = world.run(&["backup", "a", "b"]).expect(5);
    assert!(format!("{ran:?}").contains("no recovery point holds the slots 10923-16383"), "{ran:?}");
    world.run(&["backup"]).expect(0);
    assert_eq!(world.json(&["status"], 0)["findings"], Value::Null);
    let mut found = 0;
    for (name, node) in ["a", "b", "c"].iter().zip(&nodes) {
        world.run(&["restore", name, "--to", name]).expect(0);
        let back = start_restored(&world.path(name));
        assert_eq!(back.run("DBSIZE"), node.server.run("DBSIZE"));
        found += back.run("DBSIZE").integer().unwrap();
    }
    assert_eq!(found, 600);
    world.run(&["drill", "--all"]).expect(0);
}

#[test]
fn a_shard_that_is_read_key_by_key_is_known_by_its_slots() {
    let nodes = cluster();
    let mut world = world_of(&nodes[2], &[("a", "0"), ("b", "6000"), ("c", "16383")]);
    let row = "/0\"\nlogs = \"7d\"\nrpo = \"5m\"\n";
    assert!(world.policy.contains(row));
    world.policy = world.policy.replace(row, "/0\"\ncapture = \"scan\"\nrpo = \"36h\"\n");
    world.write_policy(&world.policy);
    // Its slots count as those of a row, and it is no surprise that it is a shard.
    world.run(&["check"]).expect(0);
    world.run(&["backup"]).expect(0);
    world.run(&["drill", "a"]).expect(0);
    world.run(&["restore", "a", "--to", "back"]).expect(0);
    assert_eq!(start_restored(&world.path("back")).run("DBSIZE"), nodes[0].server.run("DBSIZE"));
    let is_empty =
        |slot: &u16| nodes[0].server.run(&format!("CLUSTER COUNTKEYSINSLOT {slot}")) == Reply::Integer(0);
    let slot = (1..5461).find(is_empty).unwrap();
    let to = nodes[1].id();
    for node in [&nodes[1], &nodes[0], &nodes[2]] {
        node.server.run(&format!("CLUSTER SETSLOT {slot} NODE {to}"));
    }
    let ran = world.run(&["backup", "a"]).expect(5);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("had the slots 0-5460 at the point before"), "{said}");
    // Until the other shard has a point with that slot, no newest point has it.
    let ran = world.run(&["backup", "a"]).expect(5);
    assert!(format!("{ran:?}").contains(&format!("holds the slots {slot} of")), "{ran:?}");
    world.run(&["backup", "b"]).expect(5);
    world.run(&["backup", "a"]).expect(0);
}

#[test]
fn slots_that_moved_are_told_once_and_a_failover_inside_a_shard_is_followed() {
    let nodes = cluster();
    let world = world_of(&nodes[0], &[("a", "0"), ("b", "6000"), ("c", "16383")]);
    world.run(&["backup"]).expect(0);
    let backup = |code: i32| {
        let ran = world.run(&["backup", "a"]).expect(code);
        format!("{}{}", ran.stdout, ran.stderr)
    };
    backup(0);
    // An empty slot goes to another shard.
    let is_empty =
        |slot: &u16| nodes[0].server.run(&format!("CLUSTER COUNTKEYSINSLOT {slot}")) == Reply::Integer(0);
    let slot = (1..5461).find(is_empty).unwrap();
    let to = nodes[1].id();
    for node in [&nodes[1], &nodes[0], &nodes[2]] {
        node.server.run(&format!("CLUSTER SETSLOT {slot} NODE {to}"));
    }
    let said = backup(5);
    assert!(
        said.contains("had the slots 0-5460 at the point before") && said.contains("keys have moved"),
        "{said}"
    );
    world.run(&["backup", "b"]).expect(5);
    backup(0);
    // The shard's replica becomes its primary.
    let replica = Node::start();
    replica.meet(&nodes[0]);
    let all = [&nodes[0], &nodes[1], &nodes[2], &replica];
    for node in all {
        wait(|| node.knows("cluster_known_nodes:4") && node.knows("cluster_state:ok"));
    }
    replica.server.run(&format!("CLUSTER REPLICATE {}", nodes[0].id()));
    let role = |node: &Node, role: &str| {
        node.server.connect().info("replication").unwrap().get("role") == Some(role)
    };
    let up = || replica.server.connect().info("replication").unwrap().get("master_link_status") == Some("up");
    wait(up);
    let names = |node: &Node| {
        let port = i64::from(replica.server.port());
        let slots = node.server.run("CLUSTER SLOTS");
        let of = |part: &Reply| {
            part.members().iter().any(|node| node.members().get(1) == Some(&Reply::Integer(port)))
        };
        slots.members().iter().any(of)
    };
    wait(|| names(&nodes[0]));
    world.write_policy(&world.policy.replace("/0\"", "/0?role=replica\""));
    let point = world.backup("a");
    let report = world.json(&["points", "a"], 0);
    assert!(report.to_string().contains(&point));
    assert_eq!(replica.server.connect().info("stats").unwrap().number("sync_full"), Some(1));
    world.write_policy(&world.policy);
    replica.server.run("CLUSTER FAILOVER");
    wait(|| role(&replica, "master") && role(&nodes[0], "slave"));
    let first = |node: &Node| {
        let slots = node.server.run("CLUSTER SLOTS");
        let primary = slots.members().iter().find(|part| part.members()[0] == Reply::Integer(0)).cloned();
        primary.and_then(|part| part.members().get(2)?.members().get(1)?.integer())
    };
    wait(|| first(&nodes[0]) == Some(i64::from(replica.server.port())));
    replica.server.run("SET {06S}after-the-failover 1");
    backup(0);
    assert!(replica.server.connect().info("stats").unwrap().number("sync_full") >= Some(2));
}

#[test]
fn slots_on_their_way_are_told_and_stand_in_the_point() {
    let nodes = cluster();
    let world = world_of(&nodes[0], &[("a", "0"), ("b", "6000"), ("c", "16383")]);
    world.run(&["backup"]).expect(0);
    let mut keys = (0..600).map(|number| format!("key:{number}"));
    let slot_of = |key: &String| {
        nodes[0].server.run(&format!("CLUSTER KEYSLOT {key}")).integer().filter(|slot| *slot < 5461)
    };
    let slot = keys.find_map(|key| slot_of(&key)).unwrap();
    let (from, to) = (nodes[0].id(), nodes[1].id());
    nodes[1].server.run(&format!("CLUSTER SETSLOT {slot} IMPORTING {from}"));
    nodes[0].server.run(&format!("CLUSTER SETSLOT {slot} MIGRATING {to}"));
    for (row, way) in [("a", format!("({slot}->{to})")), ("b", format!("({slot}<-{from})"))] {
        for command in ["check", "backup"] {
            let args: &[&str] = if command == "check" { &["check"] } else { &["backup", row] };
            let ran = world.run(args).expect(5);
            let said = format!("{ran:?}");
            assert!(said.contains("slots are being moved") && said.contains(&way), "{way}: {said}");
        }
    }
    // Neither end says it any more.
    for node in [&nodes[0], &nodes[1]] {
        node.server.run(&format!("CLUSTER SETSLOT {slot} STABLE"));
    }
    world.run(&["backup"]).expect(0);
}

#[test]
fn every_node_that_is_named_is_asked_and_another_cluster_is_not_believed() {
    let nodes = cluster();
    // All of another cluster, and one that knows nothing.
    let (other, empty) = (Node::start(), Node::start());
    other.server.run("CLUSTER ADDSLOTSRANGE 0 16383");
    other.server.run("CLUSTER BUMPEPOCH");
    wait(|| other.knows("cluster_state:ok"));
    let world = world_of(&nodes[0], &[("a", "0"), ("b", "6000"), ("c", "16383")]);
    let first = |port: u16| world.policy.replace("127.0.0.1:1,", &format!("127.0.0.1:1,127.0.0.1:{port},"));
    world.write_policy(&first(empty.server.port()));
    world.run(&["check"]).expect(0);
    world.run(&["backup"]).expect(0);
    world.run(&["restore", "b", "--to", "back"]).expect(0);
    assert_eq!(start_restored(&world.path("back")).run("DBSIZE"), nodes[1].server.run("DBSIZE"));
    world.write_policy(&first(other.server.port()));
    let ran = world.run(&["backup", "a"]).expect(4);
    assert!(format!("{ran:?}").contains("belongs to another cluster than"), "{ran:?}");
    // It alone answers.
    let port = format!("127.0.0.1:{}/", nodes[0].server.port());
    world.write_policy(&world.policy.replace(&port, &format!("127.0.0.1:{}/", other.server.port())));
    let ran = world.run(&["backup", "a"]).expect(5);
    assert!(format!("{ran:?}").contains("this may be another cluster"), "{ran:?}");
}

#[test]
fn a_key_that_went_to_another_node_is_named_and_the_others_are_read() {
    let nodes = cluster();
    let slot_of = |name: &str| nodes[0].server.run(&format!("CLUSTER KEYSLOT {name}")).integer().unwrap();
    let mut own = (0..600).map(|number| format!("key:{number}")).filter(|name| slot_of(name) < 5461);
    let (gone, stays) = (own.next().unwrap(), own.next().unwrap());
    // As one that was moved since it was listed, and one of a slot that has gone.
    nodes[0].server.run(&format!("CLUSTER SETSLOT {} MIGRATING {}", slot_of(&gone), nodes[1].id()));
    let other = (0..600).map(|number| format!("key:{number}")).find(|name| slot_of(name) > 5460).unwrap();
    let names = [format!("{{{gone}}}moved"), other, stays].map(String::into_bytes);
    let pace = Pace::new(Arc::new(SystemClock::new()), None);
    let mut link = RespLink::open(&nodes[0].server.options(), pace).unwrap();
    let abilities = Abilities::probe(&mut link, b"").unwrap();
    let mut outcomes = Vec::new();
    let mut done = |_name: &[u8], outcome: Outcome| {
        outcomes.push(matches!(outcome, Outcome::Unreadable(why) if why.contains("another node")));
        Ok(())
    };
    read_page(&mut link, (0, &abilities), &names, &mut Nowhere, &mut done).unwrap();
    outcomes.sort_unstable();
    assert_eq!(outcomes, [false, true, true]);
}
