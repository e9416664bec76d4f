//! Production that is named in what was restored hears nothing of a drill.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::postgres;
use super::tree;
use super::world::{World, finished, texts};

/// Calls production from the server, and says what came of it. Whoever captures the database captures this. The program reads
/// what it is given: one that ends before would be told as a broken pipe, however far it reached.
const CALL_HOME: &str = r#"CREATE FUNCTION call_home() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'COPY (SELECT 1) TO PROGRAM ''bash -c "exec 3<>/dev/tcp/127.0.0.1/PORT && cat >/dev/null"''';
    RETURN 'reached';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLERRM;
END $$"#;

#[test]
fn production_that_a_restored_database_calls_hears_nothing_of_a_drill() {
    let production = TcpListener::bind("127.0.0.1:0").unwrap();
    production.set_nonblocking(true).unwrap();
    let port = production.local_addr().unwrap().port().to_string();
    let server = postgres::server(15);
    server.psql(&CALL_HOME.replace("PORT", &port));
    let world = postgres::world_of(&server);
    let calls = "select call_home() <> 'reached'";
    world.write_policy(&world.policy.replace("sql = [", &format!("sql = [\"{calls}\", ")));
    world.backup("shop");
    while production.accept().is_ok() {}

    let report = world.json(&["drill", "shop"], 0);
    assert_eq!(production.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "production was called");
    let checks = report["stores"][0]["checks"].as_array().unwrap();
    let called = checks.iter().any(|check| check["id"] == "postgres.sql/1" && check["state"] == "passed");
    assert!(called, "{report:#}");
    // The evidence says so, and so does the report that is handed over.
    assert_eq!(report["environment"]["servers_alone"], true, "{report:#}");
    world.run(&["evidence", "export", "last", "--to", "handed-over"]).expect(0);
    let page = fs::read_to_string(world.path("handed-over/report.md")).unwrap();
    assert!(page.contains("Network of the throwaway servers: of their own"), "{page}");

    // The listener does hear the same call of a server that is on its network.
    assert_eq!(server.psql("SELECT call_home()"), "reached");
    production.accept().unwrap();

    // And a drill that may make no network: it is told, and so is what the row's own check found.
    let ran = finished(&mut without_own_networks(&world.command(&["drill", "shop"]))).expect(5);
    production.accept().unwrap();
    for needle in ["throwaway servers were on this machine's network", "postgres.sql/1"] {
        assert!(ran.stdout.contains(needle), "{ran:?}");
    }
}

/// The same command without the right to make networks, which is what a container often lacks.
fn without_own_networks(command: &Command) -> Command {
    let mut bare = Command::new("setpriv");
    bare.args(["--bounding-set=-sys_admin", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bare.env(name, value),
            None => bare.env_remove(name),
        };
    }
    bare.current_dir(command.get_current_dir().unwrap());
    bare
}

#[test]
fn a_secret_of_production_among_restored_files_is_told_and_nothing_that_reaches_a_network_runs_beside_it() {
    let mut world = World::of_files();
    world
        .env
        .push(("CACHE_URL".to_owned(), "redis://:a-canary-of-a-password@cache.internal:6379".to_owned()));
    let cache = "\n[store.cache]\nkind = \"redis\"\nurl = \"env:CACHE_URL\"\nretention = \"none\"\n";
    let caller =
        "\n[application.caller]\nstores = [\"uploads\"]\ncommand = [\"./caller\"]\nnetwork = \"host\"\n";
    world.write_policy(&format!("{}{cache}", world.policy));
    let program =
        format!("#!/bin/sh\ntest -f \"$STORE_UPLOADS/.env\" && echo ran >> {}/ran\n", world.dir().display());
    tree::write(&world.path("caller"), program.as_bytes());
    fs::set_permissions(world.path("caller"), fs::Permissions::from_mode(0o755)).unwrap();
    let settings = b"PASSWORD=a-canary-of-a-password\nCACHE=cache.internal:6379\n";
    tree::write(&world.uploads().join(".env"), settings);
    world.backup("uploads");

    // Nothing reaches a network: it is told.
    let report = world.json(&["drill", "uploads"], 0);
    let found = &report["must_differ"];
    assert_eq!(found["canary_caught"], true, "{report:#}");
    assert_eq!(texts(&found["seen"], "file"), ["uploads/.env", "uploads/.env"], "{found:#}");
    assert_eq!(
        texts(&found["seen"], "what"),
        ["env:CACHE_URL of `cache`", "the address cache.internal:6379 of `cache`"]
    );
    let ran = world.run(&["drill", "uploads"]).expect(0);
    assert!(
        ran.stdout.contains("restored with the data, on no network: env:CACHE_URL of `cache`"),
        "{ran:?}"
    );
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("canary-of"), "{ran:?}");

    // What reaches one does not run, and neither does a drill pass whose servers are on this machine's.
    world.write_policy(&format!("{}{cache}{caller}", world.policy));
    let report = world.json(&["drill", "uploads"], 5);
    let expected = ["drill.must-differ", "drill.must-differ"];
    assert_eq!(texts(&report["findings"], "code"), expected, "{report:#}");
    assert!(!world.path("ran").exists());
    assert_eq!(world.promise("uploads", "drill").0, "broken");
    world.write_policy(&format!("{}{cache}", world.policy));
    let ran = finished(&mut without_own_networks(&world.command(&["drill", "uploads"]))).expect(5);
    assert!(
        ran.stdout.contains("drill.must-differ") || ran.stdout.contains("beside what reaches"),
        "{ran:?}"
    );

    // Without it, it does.
    tree::write(&world.uploads().join(".env"), b"PASSWORD=of-a-scratch-server\n");
    world.backup("uploads");
    world.write_policy(&format!("{}{cache}{caller}", world.policy));
    world.run(&["drill", "uploads"]).expect(0);
    assert!(world.path("ran").exists());
}
