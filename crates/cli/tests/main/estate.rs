//! Several stores at once: one moment, one order, and what they must say of each other, under a load that writes to all.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_testkit::{PgServer, RedisServer};
use serde_json::Value;

use super::postgres;
use super::redis;
use super::tree;
use super::world::{World, texts};

/// The file is written first, then the key, the row, and last the line of the audit.
const RULES: &str = r#"
[agreement.attachments]
left = { store = "shop", sql = "SELECT n, at FROM ledger" }
right = { store = "uploads", paths = "attachments/*", prefix = "attachments/", suffix = ".txt" }
within = "1s"

[agreement.carts]
left = { store = "shop", sql = "SELECT n, at FROM ledger" }
right = { store = "cache", keys = "cart:*", prefix = "cart:" }
within = "1s"

[agreement.audited]
left = { store = "orders", sql = "SELECT n, at FROM audit" }
right = { store = "shop", sql = "SELECT n, at FROM ledger" }
within = "1s"
"#;

struct Estate {
    shop: PgServer,
    cache: RedisServer,
    world: World,
}

impl Estate {
    fn new(lines: &str) -> Self {
        let (shop, cache) = (postgres::server(15), redis::server());
        let mut world = World::of_estate(&shop.url("postgres"), &cache.url(), lines);
        let programs = shop.installation().bin.display();
        world.env.push(("PATH".to_owned(), format!("{programs}:/usr/bin:/bin")));
        tree::write(&world.uploads().join("attachments/readme"), b"not a record");
        std::fs::remove_file(world.uploads().join("attachments/readme")).unwrap();
        world.orders().execute_batch("CREATE TABLE audit (n INTEGER PRIMARY KEY, at TEXT)").unwrap();
        Self { shop, cache, world }
    }

    /// One record in all stores.
    fn write(&self, n: u32) {
        tree::write(&self.world.uploads().join(format!("attachments/{n}.txt")), n.to_string().as_bytes());
        self.cache.run(&format!("SET cart:{n} {n}"));
        self.shop.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        let sql = "INSERT INTO audit VALUES (?1, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))";
        self.world.orders().execute(sql, [n]).unwrap();
    }

    /// Writes from number `first` on while `work` runs; gives the number after the last, and what the work gave.
    fn under_load<T>(&self, first: u32, work: impl FnOnce() -> T) -> (u32, T) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut n = first;
                while !over.load(Ordering::Relaxed) {
                    self.write(n);
                    n += 1;
                }
                n
            });
            let done = catch_unwind(AssertUnwindSafe(work));
            over.store(true, Ordering::Relaxed);
            let next = load.join().unwrap();
            (next, done.unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    fn rule<'r>(report: &'r Value, name: &str) -> &'r Value {
        let rules = report["agreement"].as_array().unwrap();
        rules.iter().find(|rule| rule["id"] == format!("agreement/{name}")).unwrap()
    }
}

#[test]
fn stores_under_load_come_back_to_one_moment_and_agree_until_one_of_them_loses_something() {
    let estate = Estate::new(RULES);
    let world = &estate.world;
    // What is written has to be in every copy soon.
    world.write_policy(&world.policy.replace("rpo = \"5m\"", "rpo = \"4s\""));
    (0..20).for_each(|n| estate.write(n));
    world.run(&["backup"]).expect(0);
    let mut followers = [
        world.start(&["--no-progress", "wal", "stream", "shop"]),
        world.start(&["--no-progress", "wal", "stream", "cache"]),
    ];
    let clock = SystemClock::new();
    let (mut next, report) = estate.under_load(20, || {
        let until = clock.monotonic() + Duration::from_secs(12);
        while clock.monotonic() < until {
            // Files that appear meanwhile are told, which is no success.
            let code = world.run(&["backup", "uploads", "orders"]).code;
            assert!(matches!(code, Some(0 | 5)), "{code:?}");
        }
        world.run(&["--json", "drill", "--all"])
    });
    let report = report.expect(0).json();
    assert_eq!(report["verdict"], "passed", "{report:#}");
    assert_eq!(report["order"], serde_json::json!([["cache", "orders", "shop"], ["uploads"]]));
    for store in report["stores"].as_array().unwrap() {
        let lag = store["lag_s"].as_f64().unwrap();
        assert!((0.0..10.0).contains(&lag), "{store:#}");
    }
    for rule in report["agreement"].as_array().unwrap() {
        assert_eq!((&rule["state"], &rule["canary_caught"]), (&"passed".into(), &true.into()), "{rule:#}");
    }

    // A file is lost, and the next capture does not know that it ever was.
    std::fs::remove_file(world.uploads().join("attachments/7.txt")).unwrap();
    world.run(&["backup", "uploads", "orders"]).expect(0);
    estate.write(next);
    next += 1;
    let ran = world.run(&["drill", "--all"]).expect(5);
    assert!(ran.stdout.contains("`7` of shop is not in uploads"), "{}", ran.stdout);
    let cell = |store: &str| world.promise(store, "drill");
    for store in ["shop", "uploads"] {
        assert_eq!(cell(store).0, "broken", "{:?}", cell(store));
        assert!(cell(store).1.contains("the stores do not agree"), "{:?}", cell(store));
    }
    assert_eq!(cell("cache").0, "kept", "{:?}", cell("cache"));
    tree::write(&world.uploads().join("attachments/7.txt"), b"7");

    // A line too much in the audit.
    world.orders().execute("INSERT INTO audit VALUES (999999, '2020-01-01')", []).unwrap();
    world.run(&["backup", "uploads", "orders"]).expect(0);
    let report = world.json(&["drill", "--all"], 5);
    assert_eq!(Estate::rule(&report, "audited")["differences"], 1);
    assert_eq!(texts(&report["findings"], "code"), ["agreement/audited"]);
    assert_eq!(Estate::rule(&report, "attachments")["state"], "passed");
    world.orders().execute("DELETE FROM audit WHERE n = 999999", []).unwrap();
    world.run(&["backup", "uploads", "orders"]).expect(0);
    world.run(&["drill", "--all"]).expect(0);
    for follower in &mut followers {
        follower.kill().unwrap();
        follower.wait().unwrap();
    }
    assert!(next > 21, "the load wrote nothing");
}

#[test]
fn what_stores_need_decides_the_order_and_a_rule_that_cannot_be_asked_fails_the_drill() {
    let lines = r#"
[agreement.misspelt]
left = { store = "orders", sql = "SELECT order_nr FROM orders" }
right = { store = "uploads", paths = "**" }
"#;
    let world = World::of_everything();
    let policy = world
        .policy
        .replace("path = \"./live/orders.db\"", "path = \"./live/orders.db\"\nneeds = [\"uploads\"]");
    world.write_policy(&format!("{policy}{lines}"));
    world.run(&["backup", "--jobs", "1"]).expect(0);
    let report = world.json(&["drill", "--all"], 5);
    assert_eq!(report["order"], serde_json::json!([["uploads"], ["orders"]]));
    assert_eq!(texts(&report["findings"], "code"), ["drill.unproven"]);
    assert!(report["findings"][0]["message"].as_str().unwrap().contains("order_nr"), "{report:#}");
    world.assert_seen("estate-unproven", &world.run(&["drill", "--all"]).expect(5).stdout);
    // Alone, a store is compared with nothing.
    let report = world.json(&["drill", "orders"], 0);
    assert_eq!((&report["agreement"], &report["common_moment"]), (&serde_json::json!([]), &Value::Null));
}
