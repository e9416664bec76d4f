//! One database or one table out of a cluster: what comes back, what is refused, and what a broken program may not publish.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_testkit::{PgOptions, PgServer};
use serde_json::Value;

use super::kills::Kills;
use super::postgres::{NOW, server, world_of};
use super::tree;
use super::world::{World, texts};

const ORDERS: &str = "SELECT * FROM public.orders ORDER BY id";
const EVERYTHING: [&str; 6] = [
    "SELECT * FROM public.customers ORDER BY id",
    ORDERS,
    "SELECT * FROM app.orders ORDER BY 1",
    "SELECT * FROM app.\"Orders\" ORDER BY 1",
    "SELECT * FROM app.events ORDER BY at, what",
    "SELECT * FROM app.\"a*b\" ORDER BY 1",
];
/// Names that a pattern or a shell would read as something else, each with one that it would then mean as well.
const ODD: &str = r#"CREATE ROLE clerk; CREATE SCHEMA app;
    CREATE TABLE app.orders (n int); INSERT INTO app.orders VALUES (1);
    CREATE TABLE app."Orders" (n int); INSERT INTO app."Orders" VALUES (2), (3); ALTER TABLE app."Orders" OWNER TO clerk;
    CREATE TABLE app."a*b" (n int); INSERT INTO app."a*b" VALUES (4);
    CREATE TABLE app.aXb (n int); CREATE TABLE app."x.y" (n int); INSERT INTO app."x.y" VALUES (5);
    CREATE TABLE app."say ""no"" $(x)" (n int); INSERT INTO app."say ""no"" $(x)" VALUES (6);
    CREATE TABLE app."größe" (n int); INSERT INTO app."größe" VALUES (7), (8);
    CREATE VIEW app.seen AS SELECT * FROM app.orders;
    CREATE UNLOGGED TABLE app.passing (n int); INSERT INTO app.passing VALUES (9);
    CREATE TABLE app.events (at date NOT NULL, what text) PARTITION BY RANGE (at);
    CREATE TABLE app.events_old PARTITION OF app.events FOR VALUES FROM ('2020-01-01') TO ('2025-01-01');
    CREATE TABLE app.events_new PARTITION OF app.events FOR VALUES FROM ('2025-01-01') TO ('2030-01-01');
    INSERT INTO app.events SELECT date '2024-12-01' + g, 'event ' || g FROM generate_series(1, 100) g;"#;

/// Tables whose rows are in no recovery point.
const ROWLESS: &str = r#"CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
    CREATE FOREIGN TABLE "Far away" (n int) SERVER far;
    DO $$ BEGIN FOR i IN 1..7 LOOP
        EXECUTE format('CREATE UNLOGGED TABLE passing_%s AS SELECT generate_series(1, 2) AS n', i);
    END LOOP; END $$;"#;

/// Gives a file to one of another server's programs, as a user would.
#[track_caller]
fn feed(server: &PgServer, program: &str, args: &[&str], file: &Path) {
    let mut command = server.bin(program);
    let output = command.args(args).stdin(File::open(file).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn extract<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["restore", "shop", "--to", file, "--database", "postgres"];
    args.extend(more);
    args
}

/// Neither a file, nor anything unfinished beside it, nor a sandbox.
#[track_caller]
fn assert_nothing_left(world: &World, file: &str) {
    assert!(!world.path(file).exists());
    assert_no_scratch(world);
}

#[track_caller]
fn assert_no_scratch(world: &World) {
    let names = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let unfinished: Vec<_> =
        names(world.dir().to_owned()).into_iter().filter(|name| name.starts_with(".lifeboat-tmp")).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
    assert_eq!(names(world.path("state/sandbox")), Vec::<String>::new());
    assert_eq!(servers_below(world), 0);
}

/// Servers that run on a directory of this world.
fn servers_below(world: &World) -> usize {
    let below = world.path("state").display().to_string();
    let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let text = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    });
    commands.filter(|command| command.contains("postgres") && command.contains(&below)).count()
}

/// The server's programs, each behind a script; that of one of them is the `lie`, or it is missing.
pub(crate) fn programs_with(world: &World, server: &PgServer, liar: &str, lie: Option<&str>) -> PathBuf {
    let folder = world.path("programs");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(&server.installation().bin).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let real = server.installation().program(&name).display().to_string();
        let honest = format!("exec {real} \"$@\"");
        let text = match lie {
            None if name == liar => continue,
            Some(lie) if name == liar => {
                format!("case \"$1\" in --version) {honest};; esac\nreal={real}\n{lie}")
            }
            _ => honest,
        };
        let path = folder.join(name);
        tree::write(&path, format!("#!/bin/sh\n{text}\n").as_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

pub(crate) fn set_programs(world: &mut World, folder: &Path) {
    world.env.retain(|(name, _)| name != "PATH");
    world.env.push(("PATH".to_owned(), format!("{}:/usr/bin:/bin", folder.display())));
}

#[test]
fn a_table_comes_back_from_the_moment_before_it_was_truncated() {
    for major in [15, 18] {
        let server = server(major);
        let world = world_of(&server);
        world.backup("shop");
        server.psql("INSERT INTO orders (order_no, customer, total) VALUES ('after the base', 1, 1)");
        let (before, orders) = (server.psql(NOW), server.psql(ORDERS));
        let customers = server.psql(EVERYTHING[0]);
        server.psql("TRUNCATE orders; DELETE FROM customers");
        world.run(&["wal", "stream", "shop", "--once"]).expect(0);
        let tables = ["--table", "public.orders", "--table", "customers", "--at", before.trim()];
        let report = world.json(&extract("lost.dump", &tables), 0);
        assert_eq!(report["schema"], "lifeboat.restore/v1");
        assert_eq!(report["replayed"], true, "{report}");
        assert_eq!(report["part"]["tables"][0], serde_json::json!({ "name": "public.orders", "rows": 2001 }));
        assert_eq!(report["part"]["tables"][1]["rows"], 50, "{report}");
        assert!(report["checks"].as_u64().unwrap() > 5, "{report}");
        let file = world.path("lost.dump");
        let meta = fs::metadata(&file).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        assert_eq!(report["bytes"], meta.len());
        assert_no_scratch(&world);
        let other = PgServer::start(PgOptions::new(major));
        feed(&other, "pg_restore", &["--exit-on-error", "--dbname=postgres"], &file);
        assert!(other.psql(ORDERS) == orders && orders.lines().count() == 2001, "{major}");
        assert_eq!(other.psql(EVERYTHING[0]), customers);
        assert_eq!(other.psql("SELECT to_regclass('public.ledger') IS NULL"), "t", "only what was asked for");
        // As the pages tell it: into the live database, where the table is empty, and where it is gone.
        let load = |more: &[&str]| {
            let mut args = vec!["--single-transaction", "--dbname=postgres"];
            args.extend(more);
            feed(&server, "pg_restore", &args, &file);
            assert!(server.psql(ORDERS) == orders && server.psql(EVERYTHING[0]) == customers, "{more:?}");
        };
        load(&["--data-only"]);
        server.psql("DROP TABLE orders; DROP TABLE customers");
        load(&[]);
        // The evidence says what left the vault.
        let shown = world.run(&["evidence", "show", &report["evidence"].to_string()]).expect(0).stdout;
        assert!(shown.contains("\"public.orders\"") && shown.contains("\"database\""), "{shown}");
        // Canary: after the accident there is nothing to get back, and the answer says so.
        let report = world.json(&extract("late.dump", &["--table", "orders", "--skip-checks"]), 0);
        assert_eq!(report["part"]["tables"][0]["rows"], 0, "{report}");
        let ran = world.run(&extract("people.dump", &["--table", "orders", "--at", before.trim()])).expect(0);
        assert!(ran.stdout.contains("  public.orders: 2,001 rows"), "{}", ran.stdout);
    }
}

#[test]
fn a_whole_database_comes_back_on_another_server_without_its_roles() {
    for major in [15, 18] {
        let server = server(major);
        server.psql(ODD);
        let world = world_of(&server);
        world.backup("shop");
        for (file, format) in [("all.dump", "archive"), ("all.sql", "sql")] {
            // One of the tables is unlogged.
            let report = world.json(&extract(file, &["--skip-checks"]), 5);
            assert_eq!(report["part"]["format"], format);
            assert_eq!(fs::metadata(world.path(file)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_no_scratch(&world);
        let other = PgServer::start(PgOptions::new(major));
        other.psql("CREATE DATABASE again");
        let args = ["--no-owner", "--no-privileges", "--exit-on-error", "--dbname=postgres"];
        feed(&other, "pg_restore", &args, &world.path("all.dump"));
        for sql in EVERYTHING {
            assert_eq!(other.psql(sql), server.psql(sql), "{major}: {sql}");
        }
        other.psql("CREATE ROLE clerk");
        feed(
            &other,
            "psql",
            &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "again", "-f", "-"],
            &world.path("all.sql"),
        );
        let again = other.run("psql", &["-X", "-A", "-t", "-d", "again", "-c", ORDERS]);
        assert_eq!(again.trim_end(), server.psql(ORDERS));
    }
}

#[test]
fn a_whole_database_says_which_tables_come_without_rows() {
    for major in [15, 18] {
        let server = server(major);
        let world = world_of(&server);
        world.backup("shop");
        // Canary: where there are none, nothing is said.
        let report = world.json(&extract("plain.dump", &["--skip-checks"]), 0);
        assert_eq!(report["findings"], serde_json::json!([]), "{report}");
        server.psql(ROWLESS);
        world.backup("shop");
        let report = world.json(&extract("all.dump", &["--skip-checks"]), 5);
        assert_eq!(texts(&report["findings"], "code"), ["unlogged-tables", "foreign-tables"], "{report}");
        let messages = texts(&report["findings"], "message");
        assert_eq!(
            messages,
            [
                "7 unlogged tables come out empty, whatever they held: a recovery empties them \
                 (public.passing_1, public.passing_2, public.passing_3, public.passing_4, public.passing_5 and more)",
                "1 foreign table comes without rows: its are on another server (public.\"Far away\")",
            ]
        );
        let ran = world.run(&extract("again.dump", &["--skip-checks"])).expect(5);
        for message in messages {
            assert!(ran.stdout.contains(&message), "{}", ran.stdout);
        }
        // So it is: the definitions come back, and no row.
        let other = PgServer::start(PgOptions::new(major));
        feed(&other, "pg_restore", &["--exit-on-error", "--dbname=postgres"], &world.path("all.dump"));
        assert_eq!(other.psql("SELECT count(*) FROM passing_1"), "0");
        assert_eq!(server.psql("SELECT count(*) FROM passing_1"), "2");
        let foreign = "SELECT count(*) FROM pg_class WHERE relkind = 'f'";
        assert_eq!(other.psql(foreign), "1");
    }
}

#[test]
fn a_name_means_one_table_and_no_other_whatever_it_is_made_of() {
    let server = server(15);
    server.psql(ODD);
    let world = world_of(&server);
    world.backup("shop");
    let asked = [
        ("app.Orders", 2),
        ("app.a*b", 1),
        ("app.x.y", 1),
        ("app.say \"no\" $(x)", 1),
        ("app.größe", 2),
        ("app.events", 100),
    ];
    let mut args = vec!["--skip-checks"];
    args.extend(asked.iter().flat_map(|(name, _)| ["--table", name]));
    let report = world.json(&extract("odd.dump", &args), 0);
    let rows: Vec<_> = report["part"]["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["rows"].as_u64().unwrap())
        .collect();
    assert_eq!(rows, asked.map(|(_, rows)| rows), "{report}");
    let other = PgServer::start(PgOptions::new(15));
    other.psql("CREATE SCHEMA app");
    feed(
        &other,
        "pg_restore",
        &["--no-owner", "--exit-on-error", "--dbname=postgres"],
        &world.path("odd.dump"),
    );
    let names = other.psql("SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'app'::regnamespace");
    assert_eq!(names, "Orders, a*b, events, events_new, events_old, größe, say \"no\" $(x), x.y");
    assert_eq!(other.psql(EVERYTHING[4]), server.psql(EVERYTHING[4]), "a partitioned table brings its rows");
    // In the quotes of SQL, and by the name alone where only one schema has it.
    for name in ["app.\"Orders\"", "\"app\".\"Orders\"", "Orders"] {
        let report = world.json(&extract("quoted.dump", &["--skip-checks", "--force", "--table", name]), 0);
        assert_eq!(report["part"]["tables"][0]["name"], "app.\"Orders\"", "{name}");
    }
    let ran = world.run(&extract("x.dump", &["--skip-checks", "--table", "orders"])).expect(3);
    assert!(ran.stderr.contains("can mean \"app\".\"orders\", \"public\".\"orders\""), "{}", ran.stderr);
    let report = world.json(&extract("view.dump", &["--skip-checks", "--table", "app.seen"]), 0);
    assert_eq!(report["part"]["tables"][0]["rows"], Value::Null);
    // What a recovery cannot bring back is not passed over in silence.
    let ran = world.run(&extract("unlogged.dump", &["--skip-checks", "--table", "app.passing"])).expect(5);
    assert!(ran.stdout.contains("unlogged") && ran.stdout.contains("app.passing: 0 rows"), "{}", ran.stdout);
}

#[test]
fn what_is_not_there_or_in_the_way_is_refused_and_named() {
    let server = server(15);
    server.psql("CREATE DATABASE \"Books\"");
    let world = world_of(&server);
    world.backup("shop");
    let refused = |args: &[&str], words: &[&str]| {
        let ran = world.run(args).expect(3);
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
        assert_nothing_left(&world, "x.dump");
    };
    refused(
        &extract("x.dump", &["--skip-checks", "--table", "public.Orders"]),
        &["had no table \"public.Orders\"", "it had public.orders, public.customers, public.ledger"],
    );
    refused(
        &["restore", "shop", "--to", "x.dump", "--skip-checks", "--database", "books"],
        &["had no database \"books\"", "it had Books, postgres"],
    );
    refused(
        &["restore", "shop", "--to", "x.dump", "--skip-checks", "--database", "template0"],
        &["takes no connections"],
    );
    for (name, text) in [("there.dump", "mine"), ("folder/inner", "mine")] {
        tree::write(&world.path(name), text.as_bytes());
    }
    refused(&extract("there.dump", &[]), &["there.dump is there", "--force"]);
    refused(&extract("folder", &["--force"]), &["is not a file"]);
    assert_eq!(fs::read(world.path("there.dump")).unwrap(), b"mine");
    world.run(&extract("there.dump", &["--skip-checks", "--force"])).expect(0);
    assert!(fs::read(world.path("there.dump")).unwrap().starts_with(b"PGDMP"));
    world.run(&["restore", "shop", "--to", "x.dump", "--table", "public.orders"]).expect(2);
    let files = World::of_files();
    files.backup("uploads");
    let ran = files.run(&["restore", "uploads", "--to", "x.dump", "--database", "postgres"]).expect(3);
    assert!(ran.stderr.contains("kind `files`, which has no databases"), "{}", ran.stderr);
}

#[test]
fn a_program_that_is_missing_or_lies_publishes_nothing() {
    let server = server(18);
    let mut world = world_of(&server);
    world.backup("shop");
    let args = extract("x.dump", &["--skip-checks", "--table", "public.orders"]);
    let half = "f=$(mktemp); $real \"$@\" > $f; head -c $(($(wc -c < $f) / 2)) $f; rm $f";
    for (lie, words) in [
        (format!("{half}; echo 'it broke' >&2; exit 1"), "pg_dump failed (exit status: 1): it broke"),
        (half.to_owned(), "pg_restore failed"),
        ("exec $real --schema-only \"$@\"".to_owned(), "left out the rows of public.orders"),
        ("exec $real --format=custom --table=public.ledger".to_owned(), "left out public.orders"),
        ("exit 0".to_owned(), "pg_restore failed"),
    ] {
        let folder = programs_with(&world, &server, "pg_dump", Some(&lie));
        set_programs(&mut world, &folder);
        let ran = world.run(&args).expect(1);
        assert!(ran.stderr.contains(words), "{lie}: {}", ran.stderr);
        assert_nothing_left(&world, "x.dump");
    }
    // Canary: behind an honest script the same programs do.
    let folder = programs_with(&world, &server, "pg_dump", Some("exec $real \"$@\""));
    set_programs(&mut world, &folder);
    world.run(&args).expect(0);
    fs::remove_file(world.path("x.dump")).unwrap();
    let folder = programs_with(&world, &server, "pg_dump", None);
    set_programs(&mut world, &folder);
    let ran = world.run(&args).expect(3);
    assert!(
        ran.stderr.contains("pg_dump cannot be used") && ran.stderr.contains("postgresql-client-18"),
        "{}",
        ran.stderr
    );
    set_programs(&mut world, Path::new("/nowhere"));
    let ran = world.run(&args).expect(3);
    let no_server = "no PostgreSQL 18 server programs on this machine";
    assert!(ran.stderr.contains(no_server), "{}", ran.stderr);
    assert_nothing_left(&world, "x.dump");
    let ran = world.run(&["drill", "shop"]).expect(5);
    assert!(ran.stdout.contains(no_server), "a drill says the same: {}", ran.stdout);
}

#[test]
fn an_extraction_killed_at_any_moment_leaves_no_file_and_no_server_after_the_next_one() {
    let server = server(18);
    let mut world = world_of(&server);
    world.backup("shop");
    let honest = server.installation().bin.clone();
    let marks = server.dir("marks");
    // The worst moment: the sandbox answers, and half of the file is written.
    let lie = format!(
        "echo half; touch {}/reached; exec {}/psql -X -c 'SELECT pg_sleep(600)'",
        marks.display(),
        honest.display()
    );
    let folder = programs_with(&world, &server, "pg_dump", Some(&lie));
    set_programs(&mut world, &folder);
    let args = extract("x.dump", &["--skip-checks"]);
    let mut child = world.start(&args);
    while !marks.join("reached").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::yield_now();
    }
    assert!(servers_below(&world) > 0, "the kill meets no server");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!world.path("x.dump").exists());
    let killed = SystemClock::new();
    while servers_below(&world) > 0 {
        assert!(killed.monotonic() < Duration::from_secs(20), "a server outlives who started it");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    set_programs(&mut world, &honest);
    world.run(&args).expect(0);
    assert_no_scratch(&world);
    let again = extract("x.dump", &["--skip-checks", "--force"]);
    let mut kills = Kills::of(8, &world, &again, "kills of extractions");
    fs::remove_file(world.path("x.dump")).unwrap();
    while let Some(moment) = kills.next() {
        kills.kill(world.start(&args), moment);
        // Whole or not at all.
        if world.path("x.dump").exists() {
            let mut list = Command::new(honest.join("pg_restore"));
            let list = list.arg("--list").arg(world.path("x.dump")).stdout(Stdio::null()).status().unwrap();
            assert!(list.success(), "after {moment:?}");
        }
        world.run(&again).expect(0);
        assert_no_scratch(&world);
        fs::remove_file(world.path("x.dump")).unwrap();
    }
    // A drill sweeps what an extraction left as well, its server included.
    set_programs(&mut world, &folder);
    fs::remove_file(marks.join("reached")).unwrap();
    let mut child = world.start(&args);
    while !marks.join("reached").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    set_programs(&mut world, &honest);
    world.run(&["drill", "shop"]).expect(0);
    assert_eq!(servers_below(&world), 0);
    assert_eq!(fs::read_dir(world.path("state/sandbox")).unwrap().count(), 0);
    world.run(&["evidence", "verify"]).expect(0);
}
