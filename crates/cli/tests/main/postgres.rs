//! PostgreSQL end to end: base, log, every moment between, and what the sandbox says about it.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use lifeboat_testkit::{PgOptions, PgServer};

use super::world::{World, texts};

pub(crate) const SCHEMA: &str = "CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_no text NOT NULL,
        customer int NOT NULL REFERENCES customers (id), total int NOT NULL);
    INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 50) g;
    INSERT INTO orders (order_no, customer, total) SELECT 'A-' || g, g % 50 + 1, g % 997 FROM generate_series(1, 2000) g;
    CREATE TABLE ledger (n int PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp());";

pub(crate) fn server(major: u32) -> PgServer {
    let server = PgServer::start(PgOptions::new(major).initdb("--data-checksums"));
    server.psql(SCHEMA);
    server
}

pub(crate) fn world_of(server: &PgServer) -> World {
    let mut world = World::of_cluster(&server.url("postgres"));
    let programs = server.installation().bin.display();
    world.env.push(("PATH".to_owned(), format!("{programs}:/usr/bin:/bin")));
    world
}

/// Starts the restored cluster as a user would, asks it, and stops it.
pub(crate) fn ask(server: &PgServer, cluster: &Path, sql: &str) -> String {
    let answer = try_ask(server, cluster, sql);
    answer.unwrap_or_else(|log| panic!("the cluster does not start:\n{log}"))
}

/// As [`ask`]; gives the log of a cluster that does not start.
pub(crate) fn try_ask(server: &PgServer, cluster: &Path, sql: &str) -> Result<String, String> {
    let sockets = server.socket_dir();
    let options =
        format!("-c listen_addresses='' -c unix_socket_directories='{}' -c port=5999", sockets.display());
    let log = || std::fs::read_to_string(cluster.join("log-of-the-test")).unwrap_or_default();
    let run = |arguments: &[&str]| {
        let mut command = server.bin("pg_ctl");
        command.args(["-D", &cluster.display().to_string(), "-w", "-l"]);
        command.arg(cluster.join("log-of-the-test")).args(arguments);
        let output = command.output().unwrap();
        if output.status.success() { Ok(()) } else { Err(log()) }
    };
    run(&["-o", &options, "start"])?;
    let psql = |sql: &str| {
        let mut command: Command = server.bin("psql");
        command.args(["-X", "-A", "-t", "-p", "5999", "-U", "postgres", "-c", sql]);
        command.arg("-h").arg(&sockets).output().unwrap()
    };
    // On its way a server answers with what it has replayed so far; one long statement would hold the replay up.
    while psql("SELECT pg_is_in_recovery()").stdout == b"t\n" {}
    let answer = psql(sql);
    let stopped = run(&["-m", "fast", "stop"]);
    let said = String::from_utf8_lossy(&answer.stderr);
    if said.contains("connection to server") {
        // It went down on its way.
        return Err(log());
    }
    stopped?;
    assert!(answer.status.success(), "{said}");
    Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}

#[test]
fn a_cluster_is_captured_drilled_and_restored_ready_to_start() {
    for major in [15, 16, 18] {
        let server = server(major);
        let world = world_of(&server);
        world.run(&["check"]).expect(0);
        world.backup("shop");
        let ran = world.run(&["drill", "shop", "-v"]);
        ran.expect(0);
        world.run(&["verify", "shop"]).expect(0);
        world.run(&["restore", "shop", "--to", "back"]).expect(0);
        assert_eq!(ask(&server, &world.path("back"), "SELECT count(*) FROM orders"), "2000", "{major}");
    }
}

#[test]
fn every_commit_up_to_a_moment_is_there_and_none_after_it() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    for n in 1..=5 {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
    }
    let middle = server.psql(NOW);
    server.psql("SELECT pg_create_restore_point('before the rest')");
    for n in 6..=9 {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
    }
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let ledger = "SELECT string_agg(n::text, ',' ORDER BY n) FROM ledger";
    for (target, at, expected) in [
        ("latest", None, "1,2,3,4,5,6,7,8,9"),
        ("middle", Some(middle.trim()), "1,2,3,4,5"),
        ("named", Some("name:before the rest"), "1,2,3,4,5"),
    ] {
        let mut args = vec!["restore", "shop", "--to", target];
        args.extend(at.into_iter().flat_map(|at| ["--at", at]));
        world.run(&args).expect(0);
        assert_eq!(ask(&server, &world.path(target), ledger), expected, "{target}");
    }
    let report = world.json(&["points", "shop"], 0);
    assert_eq!(report["ranges"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["ranges"][0]["copies"], serde_json::json!(["local", "offsite"]));
    let shown = world.run(&["points", "shop"]).expect(0).stdout;
    assert!(shown.contains("any moment from its log") && !shown.contains("A GAP"), "{shown}");
    // Both ends, as they are shown, can be restored.
    let line = shown.lines().rev().find(|line| line.contains(" UTC ")).unwrap();
    for (target, end) in ["first", "last"].into_iter().zip(line.split(" UTC ")) {
        let at = format!("{} UTC", end.trim());
        world.run(&["restore", "shop", "--to", target, "--at", &at, "--skip-checks"]).expect(0);
    }
    let all = "1,2,3,4,5,6,7,8,9";
    assert_eq!(ask(&server, &world.path("last"), ledger), all, "{line}");
    assert_eq!(world.promise("shop", "rpo").0, "kept");
    world.run(&["restore", "shop", "--to", "later", "--at", "2100-01-01 00:00"]).expect(3);
    assert!(!world.path("later").exists());
    // A newer point without any log yet knows nothing of what was named before it.
    world.backup("shop");
    let named = ["restore", "shop", "--to", "again", "--skip-checks", "--at", "name:before the rest"];
    world.run(&named).expect(0);
    assert_eq!(ask(&server, &world.path("again"), ledger), "1,2,3,4,5");
    for nothing in ["name:nonsense", "xid:99999999"] {
        world.run(&["restore", "shop", "--to", "nothing", "--at", nothing]).expect(3);
        assert!(!world.path("nothing").exists(), "{nothing}");
    }
}

#[test]
fn a_lost_piece_of_log_ends_the_range_there() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    server.psql("INSERT INTO ledger (n) VALUES (1)");
    let before = server.psql(NOW);
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    server.psql("INSERT INTO ledger (n) VALUES (2)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let after = server.psql(NOW);
    server.psql("INSERT INTO ledger (n) VALUES (3)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    for copy in ["local", "offsite"] {
        let folder = world.vault(copy, "shop").join("lifeboat/logs/wal");
        let mut pieces: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        pieces.retain(|path| path.is_file());
        pieces.sort();
        assert!(pieces.len() >= 3, "{pieces:?}");
        std::fs::remove_file(&pieces[pieces.len() - 2]).unwrap();
    }
    world.run(&["restore", "shop", "--to", "beyond", "--at", after.trim()]).expect(3);
    world.run(&["restore", "shop", "--to", "within", "--at", before.trim()]).expect(0);
    assert_eq!(ask(&server, &world.path("within"), "SELECT count(*) FROM ledger"), "1");
    let report = world.run(&["--json", "points", "shop"]).json();
    assert!(report["ranges"].as_array().unwrap().iter().any(|range| range["gap_after"] == true), "{report}");
    let shown = world.run(&["points", "shop"]).stdout;
    assert!(shown.contains("A GAP"), "{shown}");
    // A drill of the newest moment restores less than was kept once: it is called failed, here and in the matrix.
    world.run(&["drill", "shop"]).expect(5);
    let (state, reason) = world.promise("shop", "drill");
    assert!(state == "broken" && reason.contains("gap"), "{state}: {reason}");
    let reason = world.promise("shop", "rpo").1;
    assert!(texts(&report["points"], "id").len() == 1 && reason.contains("shows the store"), "{reason}");
    // A new base mends what would be lost, and not what was promised of the days before it.
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    assert_eq!(world.promise("shop", "rpo").0, "kept");
    let retention = |wanted: &str, why: &str| {
        let (state, reason) = world.promise("shop", "retention");
        assert!(state == wanted && reason.contains(why), "{state}: {reason}");
    };
    retention("broken", "not every moment of the last 7d");
    // Less to look at makes nothing of it whole again.
    let head = world.path("state/logs/shop/head.json");
    super::tree::rename(&head, &world.path("head"));
    retention("unproven", "its log is not followed");
    super::tree::rename(&world.path("head"), &head);
    let offsite = world.vault("offsite", "shop");
    super::tree::rename(&offsite, &world.path("away"));
    retention("unproven", "the log in `offsite` cannot be listed");
    super::tree::rename(&world.path("away"), &offsite);
    // Nor does it help to lose all of it.
    for copy in ["local", "offsite"] {
        let folder = world.vault(copy, "shop").join("lifeboat/logs/wal");
        let pieces = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        pieces.filter(|path| path.is_file()).for_each(|path| std::fs::remove_file(path).unwrap());
    }
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    assert_eq!(world.promise("shop", "rpo").0, "kept");
    retention("broken", "not every moment of the last 7d");
}

#[test]
fn what_cannot_be_captured_is_refused_with_the_line_to_change() {
    let hba = "host all plain 127.0.0.1/32 scram-sha-256";
    let server = PgServer::start(PgOptions::new(15).hba(hba));
    server.psql("CREATE ROLE plain LOGIN PASSWORD 'right'; CREATE ROLE narrow LOGIN REPLICATION");
    let with = |url: String| {
        let world = World::of_cluster(&url);
        let ran = world.run(&["backup", "shop"]);
        assert!(world.points("shop").is_empty(), "{ran:?}");
        assert!(!world.path("state/locks/shop.lock").is_dir());
        (ran.code, format!("{}{}", ran.stdout, ran.stderr))
    };
    let (code, text) = with(server.url("plain").replace("plain@", "plain:wrong@"));
    assert!(code == Some(4) && text.contains("password authentication failed"), "{code:?} {text}");
    assert!(text.contains("`ALTER ROLE \"plain\" PASSWORD"), "{text}");
    assert!(!text.contains("wrong@"), "{text}");
    let (code, text) = with(server.url("plain").replace("plain@", "plain:right@"));
    assert!(code == Some(3) && text.contains("ALTER ROLE \"plain\" REPLICATION"), "{code:?} {text}");
    let (code, text) = with("postgres://nobody@127.0.0.1:1/postgres".to_owned());
    assert!(code == Some(4) && text.contains("failed to reach the server"), "{code:?} {text}");
    for (name, value, line) in [
        ("wal_level", "minimal", "set `wal_level = replica`"),
        ("max_wal_senders", "0", "set `max_wal_senders = 10`"),
    ] {
        let mut options = PgOptions::new(15).set("max_wal_senders", "0");
        options = options.set(name, value);
        let server = PgServer::start(options);
        let (code, text) = with(server.url("postgres"));
        assert!(code == Some(3) && text.contains(line), "{code:?} {text}");
    }
}

#[test]
fn a_base_backup_that_the_server_cuts_off_is_told_as_that_and_leaves_no_point() {
    let server = server(15);
    let world = world_of(&server);
    server.psql("CREATE TABLE t AS SELECT g AS id, md5(g::text) AS pad FROM generate_series(1, 600000) g");
    let mut command = world.command(&["--no-progress", "backup", "shop"]);
    let backup = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_basebackup
        WHERE phase = 'streaming database files' AND backup_streamed > 8000000";
    let ended = (0..1200).any(|_| server.psql(cut) == "t" || server.psql("SELECT pg_sleep(0.02)") == "t");
    let ran = backup.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ended, "the backup was never seen at work: {said}");
    assert_eq!(ran.status.code(), Some(4), "{said}");
    assert!(said.contains("the base backup broke off"), "{said}");
    // A server that was in the middle of a message when it was told to end can say nothing more.
    let reasons = ["terminating connection due to administrator command", "was cut"];
    assert!(reasons.iter().any(|reason| said.contains(reason)), "{said}");
    assert_eq!(world.points("shop"), [""; 0]);
}

#[test]
fn the_role_that_init_prints_is_enough() {
    let server = server(16);
    let world = world_of(&server);
    let sql = world.run(&["init", "postgres"]).expect(0).stdout;
    server.psql(&sql);
    let mut world = world;
    world.env.retain(|(name, _)| name != "SHOP_URL");
    world.env.push(("SHOP_URL".to_owned(), server.url("lifeboat")));
    world.run(&["check"]).expect(0);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let report = world.json(&["drill", "shop"], 0);
    let checks = report["stores"][0]["checks"].as_array().unwrap();
    let passed = |id: &str| checks.iter().any(|check| check["id"] == id && check["state"] == "passed");
    for id in ["postgres.files", "postgres.recovery", "postgres.system", "postgres.unique/orders(order_no)"] {
        assert!(passed(id), "{id}: {report}");
    }
}

#[test]
fn a_second_base_stores_little_more_than_what_changed() {
    // Nothing but the update may change pages.
    let server = PgServer::start(PgOptions::new(15).set("autovacuum", "off"));
    server.psql("CREATE TABLE big WITH (fillfactor = 50) AS SELECT g AS id, md5(g::text) || md5((g + 1)::text) AS pad FROM generate_series(1, 1000000) g");
    server.psql("VACUUM ANALYZE; CHECKPOINT");
    let world = world_of(&server);
    let stored = |report: &serde_json::Value| report["stores"][0]["stored_bytes"].as_u64().unwrap();
    let first = stored(&world.json(&["backup", "shop"], 0));
    // One row on each of about a hundredth of the pages, spread over all of the table.
    let pages: u64 =
        server.psql("SELECT relpages FROM pg_class WHERE relname = 'big'").trim().parse().unwrap();
    let step = 1_000_000 / (pages / 100);
    server.psql(&format!("UPDATE big SET pad = reverse(pad) WHERE id % {step} = 1"));
    server.psql("CHECKPOINT");
    let second = stored(&world.json(&["backup", "shop"], 0));
    println!("first {first} bytes, second {second} bytes: {} thousandths", 1000 * second / first);
    assert!(second * 20 < first, "first {first}, second {second}");
}

#[test]
fn a_promotion_is_followed_and_both_timelines_can_be_restored() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let standby = server.standby();
    server.psql("INSERT INTO ledger (n) VALUES (1)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let before = server.psql(NOW);
    standby.catch_up(&server);
    drop(server);
    standby.promote();
    standby.psql("INSERT INTO ledger (n) VALUES (2)");
    let mut world = world;
    world.env.retain(|(name, _)| name != "SHOP_URL");
    world.env.push(("SHOP_URL".to_owned(), standby.url("postgres")));
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let rpo = |state: &str, reason: &str| {
        let found = world.promise("shop", "rpo");
        assert!(found.0 == state && found.1.contains(reason), "{found:?}");
    };
    rpo("kept", "with its log");
    // How one timeline left the other is known again as soon as the log is followed.
    std::fs::remove_file(world.path("state/logs/shop/forks.json")).unwrap();
    rpo("broken", "where timeline 2 of its log began is not known here");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    rpo("kept", "with its log");
    let ledger = "SELECT string_agg(n::text, ',' ORDER BY n) FROM ledger";
    world.run(&["restore", "shop", "--to", "new"]).expect(0);
    assert_eq!(ask(&standby, &world.path("new"), ledger), "1,2");
    world.run(&["restore", "shop", "--to", "old", "--at", before.trim()]).expect(0);
    assert_eq!(ask(&standby, &world.path("old"), ledger), "1");
}

#[test]
fn after_a_crash_under_load_every_acknowledged_commit_is_there_and_none_is_invented() {
    let mut server = server(15);
    server.pgbench_init(2);
    let world = world_of(&server);
    world.backup("shop");
    let mut follower = world.command(&["wal", "stream", "shop"]);
    let mut follower = follower.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut load = server.bin("pgbench");
    load.args(["-h", &server.socket_dir().display().to_string()]);
    load.args(["-p", &server.port().to_string(), "-U", "postgres", "-n", "-c", "2", "-T", "120", "postgres"]);
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut acknowledged = Vec::new();
    for n in 1..=60 {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        acknowledged.push((n, server.psql(NOW).trim().to_owned()));
    }
    // The server is killed; the follower brings what had arrived to every copy and waits.
    server.crash();
    load.wait().unwrap();
    let mut said = BufReader::new(follower.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("waiting for shop")));
    follower.kill().unwrap();
    follower.wait().unwrap();
    world.run(&["restore", "shop", "--to", "latest"]).expect(0);
    let found = ask(&server, &world.path("latest"), LEDGER);
    println!(
        "of 60 acknowledged commits {found} are there; the last was acknowledged at {}",
        acknowledged[59].1
    );
    let (count, last) = found.split_once('|').unwrap();
    assert_eq!(count, last, "a commit in the middle is missing, or one was invented");
    assert!(last.parse::<u32>().unwrap() >= 59, "lost more than the commit under way: {found}");
    for (n, at) in acknowledged.iter().skip(1).step_by(3).take(20) {
        // As a user would who trusts nobody: the first start recovers.
        let target = format!("moment-{n}");
        world.run(&["restore", "shop", "--to", &target, "--at", at, "--skip-checks"]).expect(0);
        assert_eq!(ask(&server, &world.path(&target), LEDGER), format!("{n}|{n}"), "at {at}");
        std::fs::remove_dir_all(world.path(&target)).unwrap();
    }
}

#[test]
fn a_follower_outlives_restarts_and_crashes_of_its_server() {
    let mut server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    let mut follower = world.start(&["--no-progress", "wal", "stream", "shop"]);
    let followed = |server: &PgServer| {
        let active = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'lifeboat_shop' AND active";
        while server.psql(active).trim() != "1" {}
    };
    for n in 1..=4 {
        followed(&server);
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        if n % 2 == 0 {
            server.crash();
            server.start_again();
        } else {
            server.restart();
        }
    }
    followed(&server);
    server.psql("INSERT INTO ledger (n) VALUES (5)");
    let written = server.psql("SELECT pg_current_wal_flush_lsn()");
    // What the slot lets go of is durable at the follower.
    let kept = format!("SELECT restart_lsn >= '{}' FROM pg_replication_slots", written.trim());
    while server.psql(&kept).trim() != "t" {}
    assert!(follower.try_wait().unwrap().is_none(), "it has ended");
    follower.kill().unwrap();
    follower.wait().unwrap();
    server.stop();
    // The server is not there: only what the follower kept goes out.
    world.run(&["wal", "stream", "shop", "--once"]).expect(4);
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "5|5");
    let report = world.run(&["--json", "points", "shop"]).json();
    assert!(report["ranges"].as_array().unwrap().iter().all(|range| range["gap_after"] == false), "{report}");
}

#[test]
fn another_cluster_or_one_that_was_set_back_is_refused_and_nothing_is_mixed() {
    let mut server = server(15);
    let mut world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    server.stop();
    let old = tempfile::Builder::new().prefix("lb-old-").tempdir_in("/tmp").unwrap();
    let copy = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-aT").arg(from).arg(to).status().unwrap().success());
    };
    copy(&server.data(), &old.path().join("data"));
    server.start_again();
    server.psql("INSERT INTO ledger (n) VALUES (100)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let head = std::fs::read(world.path("state/logs/shop/head.json")).unwrap();
    server.stop();
    std::fs::remove_dir_all(server.data()).unwrap();
    copy(&old.path().join("data"), &server.data());
    server.start_again();
    // Behind what was kept, and then past it with another history.
    let ran = world.run(&["wal", "stream", "shop", "--once"]).expect(3);
    assert!(ran.stderr.contains("was set back"), "{ran:?}");
    server.psql("INSERT INTO ledger (n) SELECT g FROM generate_series(200, 3000) g");
    let ran = world.run(&["wal", "stream", "shop", "--once"]).expect(3);
    assert!(ran.stderr.contains("was set back"), "{ran:?}");
    let other = PgServer::start(PgOptions::new(15));
    other.psql("CREATE TABLE filler AS SELECT g, md5(g::text) FROM generate_series(1, 300000) g");
    world.env.retain(|(name, _)| name != "SHOP_URL");
    world.env.push(("SHOP_URL".to_owned(), other.url("postgres")));
    for _ in 0..2 {
        let ran = world.run(&["wal", "stream", "shop", "--once"]).expect(3);
        assert!(ran.stderr.contains("another cluster"), "{ran:?}");
    }
    let ran = world.run(&["backup", "shop"]).expect(3);
    assert!(ran.stderr.contains("another cluster") || ran.stdout.contains("another cluster"), "{ran:?}");
    assert_eq!(world.points("shop").len(), 1);
    assert_eq!(other.psql("SELECT count(*) FROM pg_replication_slots").trim(), "0");
    assert_eq!(std::fs::read(world.path("state/logs/shop/head.json")).unwrap(), head);
}

#[test]
fn a_restored_cluster_leaves_production_alone_when_it_is_started() {
    let archive = tempfile::Builder::new().prefix("lb-archive-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(archive.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let command = format!("cp %p {}/%f", archive.path().display());
    let server =
        PgServer::start(PgOptions::new(15).set("archive_mode", "on").set("archive_command", command));
    server.psql(SCHEMA);
    let world = world_of(&server);
    let point = world.backup("shop");
    let count = || std::fs::read_dir(archive.path()).unwrap().count();
    while count() == 0 {
        server.psql("SELECT pg_sleep(0.05)");
    }
    server.psql("ALTER SYSTEM SET archive_command = 'false'");
    server.psql("SELECT pg_reload_conf()");
    let before = count();
    world.run(&["restore", "shop", "--to", "back", "--at", &point]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), "SHOW archive_mode"), "off");
    assert_eq!(count(), before);
}

#[test]
fn a_piece_that_one_copy_lost_is_taken_from_the_other() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    for n in 1..=2 {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    }
    let folder = world.vault("local", "shop").join("lifeboat/logs/wal");
    let mut pieces: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    pieces.sort();
    std::fs::remove_file(pieces.last().unwrap()).unwrap();
    assert_eq!(world.promise("shop", "rpo").0, "broken");
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "2|2");
}

pub(crate) const LEDGER: &str = "SELECT count(*), max(n) FROM ledger";

#[test]
fn case_7_log_that_the_server_gave_up_is_a_gap_and_the_next_base_begins_anew() {
    let small = PgOptions::new(15).set("min_wal_size", "32MB").set("max_wal_size", "32MB");
    let server = PgServer::start(small);
    server.psql(SCHEMA);
    let world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    server.psql("SELECT pg_drop_replication_slot('lifeboat_shop')");
    for _ in 0..4 {
        server.psql("SELECT pg_switch_wal()");
        server.psql("CREATE TABLE passing ()");
        server.psql("DROP TABLE passing");
        server.psql("CHECKPOINT");
    }
    let ran = world.run(&["wal", "stream", "shop", "--once"]).expect(5);
    assert!(ran.stdout.contains("has a gap after"), "{ran:?}");
    let (state, reason) = world.promise("shop", "rpo");
    assert!(reason.contains("shows the store"), "{state} {reason}");
    let gone = server.psql(NOW);
    world.run(&["restore", "shop", "--to", "gone", "--at", gone.trim()]).expect(3);
    world.backup("shop");
    server.psql("INSERT INTO ledger (n) VALUES (7)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    world.run(&["restore", "shop", "--to", "again"]).expect(0);
    assert_eq!(ask(&server, &world.path("again"), "SELECT count(*) FROM ledger"), "1");
}

/// The server's clock, as `--at` takes it.
pub(crate) const NOW: &str =
    "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

#[test]
fn a_server_that_is_shut_down_is_told_as_what_it_is() {
    for major in [15, 18] {
        let mut server = server(major);
        let world = world_of(&server);
        world.backup("shop");
        let mut follower = world.command(&["wal", "stream", "shop"]);
        let mut follower = follower.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        while server.psql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").trim() != "1"
        {
        }
        server.stop();
        let mut said = BufReader::new(follower.stderr.take().unwrap()).lines();
        let line = said.find(|line| line.as_ref().unwrap().contains("waiting for shop")).unwrap().unwrap();
        follower.kill().unwrap();
        follower.wait().unwrap();
        assert!(line.ends_with("the server was shut down"), "{major}: {line}");
    }
}
