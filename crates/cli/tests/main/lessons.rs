//! Failures that stayed silent elsewhere, by their numbers in `docs/reliability.md`, on real stores.

use std::fs;

use lifeboat_base::crashsafe;
use lifeboat_testkit::{EtcdOptions, PgOptions, PgServer, RedisOptions, RedisServer, etcd_installations};

use super::postgres::{LEDGER, NOW, SCHEMA, ask, server, world_of};
use super::world::{KEY_FILE, PASSPHRASE_ENV, World, texts};
use super::{etcd, redis, tree, vectors};

/// Everything in the shop, in one line.
const CONTENT: &str = "SELECT (SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o), \
                       (SELECT count(*) FROM ledger)";

#[test]
fn case_1_what_the_key_of_another_store_sealed_is_never_taken_for_ones_own() {
    let world = World::of_files();
    let twin = "\n[store.twin]\nkind = \"files\"\npath = \"./live/twin\"\n";
    world.write_policy(&format!("{}{twin}", world.policy));
    fs::create_dir(world.path("live/twin")).unwrap();
    // The same film in two stores, the second time when the first has it already.
    let film: Vec<u8> = (0..700_000u32).flat_map(|n| (n ^ n.rotate_left(13)).to_le_bytes()).collect();
    tree::write(&world.path("live/twin/film"), &film);
    world.backup("uploads");
    world.backup("twin");
    for part in ["data", "index"] {
        let (from, to) =
            (world.vault("local", "twin").join(part), world.vault("local", "uploads").join(part));
        for name in tree::files(&from) {
            crashsafe::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
            tree::write(&to.join(&name), &fs::read(from.join(&name)).unwrap());
        }
    }
    tree::write(&world.uploads().join("film"), &film);
    // It is sealed anew under the key of its own store, and what does not belong there is named.
    let ran = world.run(&["--json", "backup", "uploads"]).expect(6);
    let captured = &ran.json()["stores"][0];
    assert!(captured["new_bytes"].as_u64().unwrap() >= film.len() as u64, "{captured:#}");
    assert!(texts(&captured["findings"], "message").iter().any(|said| said.contains("under another key")));
    let ran = world.run(&["verify", "uploads"]).expect(6);
    assert!(ran.stdout.contains("2 of 2 points proven as readable"), "{ran:?}");
    for copy in ["local", "offsite"] {
        world.run(&["restore", "uploads", "--to", copy, "--copy", copy]).expect(0);
        assert!(fs::read(world.path(copy).join("film")).unwrap() == film, "{copy}");
    }
}

#[test]
fn case_2_a_base_that_shares_blocks_is_called_restorable_only_after_a_restore() {
    let server = server(15);
    let world = world_of(&server);
    let mut known = Vec::new();
    for round in 0..2 {
        server.psql(&format!("UPDATE orders SET total = total + 1 WHERE id % 100 = {round}"));
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({round})"));
        let point = world.backup("shop");
        known.push((point, server.psql(CONTENT)));
        world.run(&["wal", "stream", "shop", "--once"]).expect(0);
        // Captured is not restorable: a base on top of older blocks has proven nothing yet.
        let newest = |world: &World| {
            let report = world.json(&["points", "shop"], 0);
            report["points"].as_array().unwrap().last().unwrap()["proof"]["restored"].clone()
        };
        assert!(newest(&world).is_null(), "round {round}");
        world.run(&["drill", "shop"]).expect(0);
        assert!(newest(&world).is_string(), "round {round}");
    }
    for (round, (point, content)) in known.iter().enumerate() {
        let target = format!("round-{round}");
        world.run(&["restore", "shop", "--to", &target, "--at", point]).expect(0);
        assert_eq!(ask(&server, &world.path(&target), CONTENT), *content, "round {round}");
    }
}

#[test]
fn case_4_a_base_needs_no_archive_that_never_got_its_first_segment() {
    let options = PgOptions::new(15).set("archive_mode", "on").set("archive_command", "false");
    let server = PgServer::start(options);
    server.psql(SCHEMA);
    let world = world_of(&server);
    let point = world.backup("shop");
    assert_eq!(server.psql("SELECT archived_count FROM pg_stat_archiver"), "0");
    let report = world.json(&["points", "shop"], 0);
    assert_eq!(report["points"][0]["copies"].as_array().unwrap().len(), 2);
    // Every segment from start to stop is in each of the copies by itself.
    for copy in ["local", "offsite"] {
        let target = format!("from-{copy}");
        world.run(&["restore", "shop", "--to", &target, "--at", &point, "--copy", copy]).expect(0);
        assert_eq!(ask(&server, &world.path(&target), LEDGER), "0|");
    }
}

#[test]
fn case_5_a_snapshot_without_its_digest_is_refused_and_never_becomes_a_point() {
    for installation in etcd_installations() {
        let server = etcd::server(EtcdOptions::new(&installation));
        let world = etcd::world_of_talos(&server);
        for (then, needle) in [
            ("truncate -s -32 \"$3\"", "has no digest at its end"),
            ("truncate -s -8224 \"$3\"", "has no digest at its end"),
            ("truncate -s -8192 \"$3\"", "is not what its digest says"),
            (
                "printf '\\377' | dd of=\"$3\" bs=1 seek=20000 conv=notrunc 2>/dev/null",
                "is not what its digest says",
            ),
        ] {
            etcd::talosctl(&server, &world, then);
            let ran = world.run(&["backup", "plane"]).expect(3);
            assert!(ran.stdout.contains(needle), "{then}: {ran:?}");
            assert!(world.points("plane").is_empty(), "{then}");
        }
        // The same file with its digest is taken, and its hash is kept.
        etcd::talosctl(&server, &world, "");
        world.backup("plane");
        world.run(&["drill", "plane"]).expect(0);
    }
}

#[test]
fn case_12_a_key_that_fits_nothing_is_a_wrong_key_and_stops_before_anything_is_taken() {
    let server = server(15);
    let mut world = world_of(&server).and_passphrase();
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    server.psql("INSERT INTO ledger (n) VALUES (1)");
    let confirmed = "SELECT restart_lsn FROM pg_replication_slots";
    let before = (server.psql(confirmed), world.points("shop"));
    // The key file is gone and the passphrase is another one.
    let key = world.path(KEY_FILE);
    let aside = world.path("aside.key");
    crashsafe::publish(&key, &aside).unwrap();
    for (name, value) in &mut world.env {
        if name == PASSPHRASE_ENV {
            "not this one".clone_into(value);
        }
    }
    for args in [
        &["backup", "shop"][..],
        &["wal", "stream", "shop", "--once"],
        &["restore", "shop", "--to", "back"],
        &["drill", "shop"],
        &["verify", "shop"],
    ] {
        let ran = world.run(args);
        assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
        let told = format!("{}{}", ran.stdout, ran.stderr);
        assert!(told.contains("key") || told.contains("passphrase"), "{ran:?}");
        assert!(!told.contains("corrupt") && !told.to_lowercase().contains("damaged"), "{ran:?}");
    }
    assert_eq!(server.psql(confirmed), before.0);
    assert!(!world.path("back").exists());
    crashsafe::publish(&aside, &key).unwrap();
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    assert_eq!(world.points("shop"), before.1);
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "1|1");
}

#[test]
fn case_18_a_change_of_keys_leaves_the_log_that_bridges_it() {
    let server = server(15);
    let mut world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let mut moments = Vec::new();
    for n in 1..=3 {
        if n == 2 {
            // Another recipient joins in the middle of the stream.
            world = world.and_passphrase();
        }
        if n == 3 {
            world.backup("shop");
        }
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        moments.push((n, server.psql(NOW)));
        server.psql("SELECT pg_switch_wal()");
        world.run(&["wal", "stream", "shop", "--once"]);
    }
    let report = world.run(&["--json", "points", "shop"]).json();
    assert_eq!(texts(&report["points"], "id").len(), 2);
    assert!(report["ranges"].as_array().unwrap().iter().all(|range| range["gap_after"] == false), "{report}");
    for (n, at) in moments {
        let target = format!("moment-{n}");
        world.run(&["restore", "shop", "--to", &target, "--at", at.trim()]).expect(0);
        assert_eq!(ask(&server, &world.path(&target), LEDGER), format!("{n}|{n}"));
    }
}

#[test]
fn case_19_a_cluster_whose_timelines_begin_anew_never_mixes_with_the_one_before() {
    let old = server(15);
    let mut world = world_of(&old);
    let first = world.backup("shop");
    let standby = old.standby();
    old.psql("INSERT INTO ledger (n) VALUES (1)");
    standby.catch_up(&old);
    drop(old);
    standby.promote();
    let point_to = |world: &mut World, server: &PgServer| {
        world.env.retain(|(name, _)| name != "SHOP_URL");
        world.env.push(("SHOP_URL".to_owned(), server.url("postgres")));
    };
    point_to(&mut world, &standby);
    let second = world.backup("shop");
    // After an upgrade: another identifier, timeline 1 again, positions that sort before everything there is.
    let upgraded = server(16);
    point_to(&mut world, &upgraded);
    for args in [&["backup", "shop"][..], &["wal", "stream", "shop", "--once"]] {
        let ran = world.run(args).expect(3);
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains("a row of its own"), "{ran:?}");
    }
    // The order is that of time, and nothing of the old cluster was touched.
    assert_eq!(world.points("shop"), [first, second]);
    let policy = format!(
        "{}\n[store.shop16]\nkind = \"postgres\"\nurl = \"env:SHOP16_URL\"\nlogs = \"7d\"\nretention = \"7d\"\n",
        world.policy
    );
    world.write_policy(&policy);
    world.env.push(("SHOP16_URL".to_owned(), upgraded.url("postgres")));
    world.backup("shop16");
    upgraded.psql("INSERT INTO ledger (n) VALUES (16)");
    world.run(&["wal", "stream", "shop16", "--once"]).expect(0);
    world.run(&["restore", "shop", "--to", "old", "--skip-checks"]).expect(0);
    assert_eq!(ask(&standby, &world.path("old"), LEDGER), "1|1");
    world.run(&["restore", "shop16", "--to", "new", "--skip-checks"]).expect(0);
    assert_eq!(ask(&upgraded, &world.path("new"), LEDGER), "1|16");
}

#[test]
fn case_6_a_database_whose_own_check_fails_once_restored_fails_its_drill_though_every_row_is_there() {
    let world = World::of_everything();
    world.orders().execute_batch("CREATE INDEX by_customer ON orders (customer)").unwrap();
    world.backup("orders");
    world.run(&["drill", "orders"]).expect(0);
    // The index holds the customers and says that it holds the totals: every answer that goes by it is wrong.
    world
        .orders()
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = 'CREATE INDEX by_customer ON orders (total)' WHERE name = 'by_customer';",
        )
        .unwrap();
    let ran = world.run(&["--json", "backup", "orders"]);
    let outcome = &ran.json()["stores"][0]["outcome"];
    assert_eq!(outcome, "captured", "{ran:?}");
    let report = world.json(&["drill", "orders"], 5);
    let checks = report["stores"][0]["checks"].as_array().unwrap();
    let state = |id: &str| &checks.iter().find(|check| check["id"] == id).unwrap()["state"];
    assert_eq!(
        (state("sqlite.integrity"), state("sqlite.rows/orders")),
        (&"failed".into(), &"passed".into())
    );
    let (state, why) = world.promise("orders", "drill");
    assert_eq!(state, "broken", "{why}");
}

#[test]
fn case_20_an_index_that_comes_back_whole_and_finds_nothing_fails_its_drill() {
    let world = vectors::world();
    world.run(&["probe", "draft", "index", "--count", "200"]).expect(0);
    world.run(&["probe", "curate", "index"]).expect(0);
    world.run(&["probe", "baseline", "index"]).expect(0);
    world.backup("index");
    world.run(&["drill", "index"]).expect(0);
    assert_eq!(vectors::proofs(&world), (true, true));
    // Ids, texts, counts and norms stay; only what is found changes.
    vectors::shift(&world);
    world.backup("index");
    let report = world.json(&["drill", "index"], 5);
    let store = &report["stores"][0];
    let failed: Vec<&str> = store["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["state"] == "failed")
        .map(|check| check["id"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["vector.board"]);
    assert_eq!(store["meaning"]["decision"]["action"], "rebuild", "{store:#}");
    assert!(!store["meaning"]["drift"]["crossed"].as_array().unwrap().is_empty());
    assert_eq!(vectors::proofs(&world), (false, false));
    world.run(&["probe", "index"]).expect(5);
    world.run(&["probe", "baseline", "index"]).expect(3);
}

#[test]
fn case_21_every_way_back_gives_the_same_counts() {
    let source = redis::server();
    let world = World::of_redis(&source.url());
    world.backup("cache");
    let expected = redis::content(&source).databases;
    let target = RedisServer::start(RedisOptions::default());
    world.run(&["restore", "cache", "--to", &target.url()]).expect(0);
    assert_eq!(redis::content(&target).databases, expected, "into a running server");
    for copy in ["local", "offsite"] {
        world.run(&["restore", "cache", "--to", copy, "--copy", copy]).expect(0);
        let back = redis::start_restored(&world.path(copy));
        assert_eq!(redis::content(&back).databases, expected, "as a folder from {copy}");
    }

    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    server.psql("DELETE FROM orders WHERE id % 3 = 0; INSERT INTO ledger (n) VALUES (1), (2), (3)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let counts = "SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM orders), (SELECT count(*) FROM ledger)";
    let expected = server.psql(counts);
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), counts), expected, "beside");
    world.run(&["restore", "shop", "--to", "back", "--delta"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), counts), expected, "over what was there");
    let newest = world.backup("shop");
    world.run(&["restore", "shop", "--to", "later", "--at", &newest, "--copy", "offsite"]).expect(0);
    assert_eq!(ask(&server, &world.path("later"), counts), expected, "from a later base");
}

#[test]
fn case_22_what_is_restored_twice_is_there_once() {
    let source = redis::server();
    let world = World::of_redis(&source.url());
    world.backup("cache");
    let expected = redis::content(&source).databases;
    let target = RedisServer::start(RedisOptions::default());
    let url = target.url();
    // Lists, streams and counters would grow with every time.
    for how in [&[][..], &["--force"], &["--conflict", "replace"], &["--conflict", "skip"]] {
        let args = [&["restore", "cache", "--to", &url][..], how].concat();
        world.run(&args).expect(0);
        assert_eq!(redis::content(&target).databases, expected, "{how:?}");
    }
    // One element more is not "at least as many".
    target.run("RPUSH queue:0 again");
    assert_ne!(redis::content(&target).databases, expected);
}

#[test]
fn case_24_no_status_but_zero_is_a_pass() {
    let world = World::of_everything();
    let application = |(name, script): (&str, &str)| {
        format!(
            "\n[application.{name}]\nstores = [\"orders\"]\ncommand = [\"sh\", \"-c\", '{script}']\nwithin = \"60s\"\n"
        )
    };
    // Some tools call 1 or 100 and more a warning; the last two are ended by a signal.
    let bad = [
        ("one", "exit 1"),
        ("warned", "exit 100"),
        ("warned-more", "exit 127"),
        ("odd", "exit 129"),
        ("last", "exit 255"),
        ("killed", "kill -KILL $$"),
        ("ended", "kill -TERM $$"),
    ];
    let good = ("good", "test -f \"$STORE_ORDERS\"");
    let lines: String = bad.into_iter().chain([good]).map(application).collect();
    world.write_policy(&format!("{}{lines}", world.policy));
    world.run(&["backup"]).expect(0);
    let report = world.json(&["drill", "orders"], 5);
    let mut failed = texts(&report["findings"], "code");
    failed.sort();
    let mut expected: Vec<String> = bad.iter().map(|(name, _)| format!("application/{name}")).collect();
    expected.sort();
    assert_eq!(failed, expected, "{report:#}");
    let (state, why) = world.promise("orders", "drill");
    assert_eq!(state, "broken", "{why}");
    world.write_policy(&format!("{}{}", world.policy, application(good)));
    world.run(&["drill", "orders"]).expect(0);
    assert_eq!(world.promise("orders", "drill").0, "kept");
}
