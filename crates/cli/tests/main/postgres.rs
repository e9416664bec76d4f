//! PostgreSQL end to end: base, log, every moment between, and what the sandbox says about it.

use std::path::Path;
use std::process::Command;

use lifeboat_testkit::{PgOptions, PgServer};

use super::world::{World, texts};

const SCHEMA: &str = "CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_no text NOT NULL,
        customer int NOT NULL REFERENCES customers (id), total int NOT NULL);
    INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 50) g;
    INSERT INTO orders (order_no, customer, total) SELECT 'A-' || g, g % 50 + 1, g % 997 FROM generate_series(1, 2000) g;
    CREATE TABLE ledger (n int PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp());";

fn server(major: u32) -> PgServer {
    let server = PgServer::start(PgOptions::new(major).initdb("--data-checksums"));
    server.psql(SCHEMA);
    server
}

fn world_of(server: &PgServer) -> World {
    World::of_cluster(&server.url("postgres"))
}

/// Starts the restored cluster as a user would, asks it, and stops it.
fn ask(server: &PgServer, cluster: &Path, sql: &str) -> String {
    let sockets = server.socket_dir();
    let options =
        format!("-c listen_addresses='' -c unix_socket_directories='{}' -c port=5999", sockets.display());
    let run = |arguments: &[&str]| {
        let mut command = server.bin("pg_ctl");
        command.args(["-D", &cluster.display().to_string(), "-w", "-l"]);
        command.arg(cluster.join("log-of-the-test")).args(arguments);
        let output = command.output().unwrap();
        let log = std::fs::read_to_string(cluster.join("log-of-the-test")).unwrap_or_default();
        assert!(output.status.success(), "{output:?}\n{log}");
    };
    run(&["-o", &options, "start"]);
    let mut psql: Command = server.bin("psql");
    psql.args([
        "-X",
        "-A",
        "-t",
        "-h",
        &sockets.display().to_string(),
        "-p",
        "5999",
        "-U",
        "postgres",
        "-c",
        sql,
    ]);
    let answer = psql.output().unwrap();
    run(&["-m", "fast", "stop"]);
    String::from_utf8_lossy(&answer.stdout).trim().to_owned()
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
    let middle = server
        .psql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
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
    assert_eq!(world.promise("shop", "rpo").0, "kept");
    world.run(&["restore", "shop", "--to", "later", "--at", "2100-01-01 00:00"]).expect(3);
    assert!(!world.path("later").exists());
}

#[test]
fn a_lost_piece_of_log_ends_the_range_there() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    server.psql("INSERT INTO ledger (n) VALUES (1)");
    let before = server
        .psql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    server.psql("INSERT INTO ledger (n) VALUES (2)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let after = server
        .psql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
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
    let reason = world.promise("shop", "rpo").1;
    assert!(texts(&report["points"], "id").len() == 1 && reason.contains("shows the store"), "{reason}");
}
