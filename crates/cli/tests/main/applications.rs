//! Applications on stores that were restored together: they work, they miss what is gone, and they reach nobody else.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use lifeboat_testkit::{EtcdOptions, EtcdServer, etcd_installations};
use serde_json::Value;

use super::postgres;
use super::redis;
use super::tree;
use super::world::{World, texts};

/// Believes the configuration it finds, which names production, and asks every store for something.
const FRONT: &str = r#"#!/bin/bash
set -eu
production=$(cat "$STORE_UPLOADS/app.conf")
(exec 3<>"/dev/tcp/127.0.0.1/$production") 2>/dev/null || true
test "$(psql -X -At "$STORE_SHOP" -c 'SELECT count(*) FROM ledger')" = 3
test "$(redis-cli -s "${STORE_CACHE#unix://}" GET cart:1)" = 1
test "$(etcdctl --endpoints "$STORE_PLANE" get --print-value-only flags/dark)" = on
count='import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM orders").fetchone()[0])'
test "$(python3 -c "$count" "$STORE_ORDERS")" = 100
"#;

fn front(report: &Value) -> &Value {
    let rules = report["agreement"].as_array().unwrap();
    rules.iter().find(|rule| rule["id"] == "application/front").unwrap()
}

#[test]
fn an_application_works_on_what_was_restored_and_never_reaches_the_production_it_was_told_of() {
    let production = TcpListener::bind("127.0.0.1:0").unwrap();
    production.set_nonblocking(true).unwrap();
    let (shop, cache) = (postgres::server(15), redis::server());
    let plane = EtcdServer::start(EtcdOptions::new(etcd_installations().first().unwrap()));
    let lines = format!(
        "\n[store.plane]\nkind = \"etcd\"\nurl = \"{}\"\n\n[application.front]\ncommand = [\"./front\"]\nwithin = \"60s\"\n\
         stores = [\"shop\", \"cache\", \"plane\", \"orders\", \"uploads\"]\n",
        plane.url()
    );
    let mut world = World::of_estate(&shop.url("postgres"), &cache.url(), &lines);
    world.env.push(("PATH".to_owned(), format!("{}:/usr/bin:/bin", shop.installation().bin.display())));
    let front_program = world.dir().join("front");
    tree::write(&front_program, FRONT.as_bytes());
    fs::set_permissions(&front_program, fs::Permissions::from_mode(0o755)).unwrap();
    let port = production.local_addr().unwrap().port().to_string();
    tree::write(&world.uploads().join("app.conf"), port.as_bytes());
    shop.psql("INSERT INTO ledger (n) VALUES (1), (2), (3)");
    cache.run("SET cart:1 1");
    plane.ctl(&["put", "flags/dark", "on"]);
    world.run(&["backup"]).expect(0);

    let report = world.json(&["drill", "--all"], 0);
    let tried = front(&report);
    assert_eq!((&tried["state"], &tried["canary_caught"]), (&"passed".into(), &true.into()), "{tried:#}");
    assert_eq!(production.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(world.promise("cache", "drill").0, "kept", "{:?}", world.promise("cache", "drill"));

    // The listener does hear an application that is let out, and what was shown before is not what is asked now.
    world.write_policy(&world.policy.replace("within = \"60s\"", "within = \"60s\"\nnetwork = \"host\""));
    let (state, why) = world.promise("cache", "drill");
    assert_eq!(state, "unproven", "{why}");
    assert!(why.contains("front"), "{why}");
    world.run(&["drill", "--all"]).expect(0);
    production.accept().unwrap();
    world.write_policy(&world.policy);

    // What it misses is told, and every store that it needs is concerned.
    cache.run("DEL cart:1");
    world.run(&["backup"]).expect(0);
    let report = world.json(&["drill", "--all"], 5);
    assert_eq!(texts(&report["findings"], "code"), ["application/front"]);
    assert_eq!(front(&report)["state"], "failed");
    for store in ["shop", "cache", "plane", "orders", "uploads"] {
        let (state, why) = world.promise(store, "drill");
        assert_eq!(state, "broken", "{store}: {why}");
        assert!(why.contains("front does not work"), "{store}: {why}");
    }
    // A drill of one of them alone neither tries it nor takes back what it said.
    world.run(&["drill", "cache"]).expect(0);
    assert_eq!(world.promise("cache", "drill").0, "broken");
}
