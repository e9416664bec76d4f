//! Stores that are there and that no row names, on real ones.

use lifeboat_testkit::{RedisOptions, RedisServer};

use super::tree;
use super::world::{ORDERS, UPLOADS, World, texts};

const LOOK: &str = "\n[inventory]\nfiles = [\".env\"]\nfolders = [\"live\"]\n";

/// A shop with files and a database, whose application also keeps something in Redis.
fn shop(server: &RedisServer) -> World {
    let world = World::with(&[UPLOADS, ORDERS]);
    tree::grow(&world.uploads());
    world.make_orders(20);
    let settings = format!(
        "DATABASE_URL=sqlite:///live/orders.db\nFEATURES_URL=redis://app:a-canary@127.0.0.1:{}/0\n",
        server.port()
    );
    tree::write(&world.path(".env"), settings.as_bytes());
    world
}

fn with(world: &World, lines: &str) {
    world.write_policy(&format!("{}{LOOK}{lines}", world.policy));
}

#[test]
fn case_26_a_live_store_without_a_row_is_red_although_everything_that_has_one_comes_back() {
    let server = RedisServer::start(RedisOptions::default());
    let world = shop(&server);
    world.run(&["backup"]).expect(0);
    world.run(&["drill", "--all"]).expect(0);
    with(&world, "");
    let address = format!("redis://localhost:{}", server.port());
    let report = world.json(&["drill", "--all"], 5);
    assert_eq!(report["verdict"], "failed");
    assert_eq!(texts(&report["findings"], "code"), ["inventory.uncovered"], "{report:#}");
    assert_eq!(texts(&report["findings"], "subject"), [address.as_str()]);
    let status = world.json(&["status"], 5);
    assert_eq!(texts(&status["findings"], "code"), ["inventory.uncovered"], "{status:#}");
    let gaps = world.json(&["audit"], 5);
    assert!(texts(&gaps["gaps"], "row").contains(&address), "{gaps:#}");
    let check = world.run(&["check"]).expect(5);
    let inventory = world.run(&["inventory"]).expect(5);
    for ran in [check, inventory] {
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains(&address) && !said.contains("canary"), "{said}");
    }
    // A row that says what is owed for it, or a reason why it needs none.
    let row = "\n[store.features]\nkind = \"redis\"\nurl = \"env:FEATURES_URL\"\nretention = \"none\"\n";
    let mut world = world;
    world.env.push(("FEATURES_URL".to_owned(), format!("redis://127.0.0.1:{}", server.port())));
    with(&world, row);
    let covered = world.json(&["inventory"], 0);
    let stores = covered["stores"].as_array().unwrap();
    let rows: Vec<_> = stores.iter().map(|store| store["row"].as_str().unwrap()).collect();
    assert_eq!(rows, ["features", "orders"], "{covered:#}");
    with(&world, &format!("[inventory.known]\n\"{address}\" = \"switches; made again from orders\"\n"));
    let known = world.json(&["inventory"], 0);
    assert_eq!(known["stores"][0]["reason"], "switches; made again from orders");
    world.run(&["drill", "--all"]).expect(0);
}

#[test]
fn a_database_nobody_named_is_found_by_its_first_bytes_and_a_place_nobody_can_look_at_is_told() {
    let world = World::with(&[UPLOADS, ORDERS]);
    tree::grow(&world.uploads());
    world.make_orders(20);
    tree::write(&world.path(".env"), b"# redis://gone.internal/0\nNAME=shop\n");
    with(&world, "");
    assert_eq!(world.json(&["inventory"], 0)["stores"].as_array().unwrap().len(), 1);
    let other = rusqlite::Connection::open(world.path("live/uploads/forgotten.bin")).unwrap();
    other.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1)").unwrap();
    let found = world.json(&["inventory"], 5);
    let message = &texts(&found["findings"], "message")[0];
    assert!(message.contains("forgotten.bin") && message.contains("has no row"), "{message}");
    std::fs::remove_file(world.path("live/uploads/forgotten.bin")).unwrap();
    std::fs::remove_file(world.path(".env")).unwrap();
    let blind = world.json(&["inventory"], 5);
    assert_eq!(texts(&blind["findings"], "code"), ["inventory.unseen"], "{blind:#}");
    // A row whose address nobody can read covers nothing.
    tree::write(&world.path(".env"), b"CACHE=redis://cache.internal\n");
    with(&world, "\n[store.cache]\nkind = \"redis\"\nurl = \"env:NOT_SET\"\nretention = \"none\"\n");
    let codes = texts(&world.json(&["inventory"], 5)["findings"], "code");
    assert_eq!(codes, ["inventory.uncovered", "inventory.unseen"]);
}

#[test]
fn a_server_of_this_machine_is_seen_without_being_contacted() {
    let server = RedisServer::start(RedisOptions::default());
    let world = World::with(&[UPLOADS]);
    tree::grow(&world.uploads());
    world.write_policy(&format!("{}\n[inventory]\nmachine = true\n", world.policy));
    // Other tests have servers of their own.
    let found = world.json(&["inventory"], 5);
    let address = format!("redis://localhost:{}", server.port());
    let stores = found["stores"].as_array().unwrap();
    let store = stores.iter().find(|store| store["address"] == address.as_str()).unwrap();
    let seen = store["seen_in"][0].as_str().unwrap();
    assert!(seen.starts_with(&format!("process {} of this machine", server.pid())), "{store:#}");
    assert!(store["row"].is_null());
}
