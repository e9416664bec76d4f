//! Failures that stayed silent elsewhere, by their numbers in `docs/reliability.md`, on real servers.

use lifeboat_base::crashsafe;
use lifeboat_testkit::{EtcdOptions, PgOptions, PgServer, etcd_installations};

use super::etcd;
use super::postgres::{LEDGER, NOW, SCHEMA, ask, server, world_of};
use super::world::{KEY_FILE, PASSPHRASE_ENV, texts};

/// Everything in the shop, in one line.
const CONTENT: &str = "SELECT (SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o), \
                       (SELECT count(*) FROM ledger)";

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
        let newest = |world: &super::world::World| {
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
    let point_to = |world: &mut super::world::World, server: &PgServer| {
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
