//! A sandbox reaches nothing outside, whatever the restored cluster was told. Each claim is first shown to be
//! noticed on a server that is not isolated.

use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::time::SystemClock;
use lifeboat_postgres::server::{ServerError, Stop};
use lifeboat_testkit::{PgOptions, PgServer, pg_majors, pg_system_major};

use super::{LIMIT, is_empty, options, psql, restored, runtime, start};

/// Whether any process of the server with this first process listens on TCP.
fn listens_on_tcp(pid: i32) -> bool {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut listening = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // The fourth column is the state, 0A is LISTEN; the tenth is the socket's inode.
        listening.extend(rows.filter(|row| row.get(3) == Some(&"0A")).map(|row| row[9].to_owned()));
    }
    sockets.iter().any(|socket| listening.contains(socket))
}

fn has_mapped(pid: i32, library: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains(library)
}

/// Lines that reach outside in every way that can be noticed from outside.
fn hostile(marks: &Path, port: u16) -> String {
    let marks = marks.display();
    format!(
        "listen_addresses = '*'\nport = {port}\narchive_mode = on\n\
         archive_command = 'touch {marks}/archived'\narchive_cleanup_command = 'touch {marks}/cleaned'\n\
         recovery_end_command = 'touch {marks}/recovered'\nexternal_pid_file = '{marks}/pid'\n\
         primary_conninfo = 'host=127.0.0.1 port={port} application_name=leak'\n\
         synchronous_standby_names = '*'\nsynchronous_commit = local\nunix_socket_directories = '{marks}'\n\
         logging_collector = on\nlog_directory = '{marks}/log'\nlog_statement = all\n"
    )
}

#[test]
fn no_setting_of_the_restored_cluster_reaches_outside() {
    for major in pg_majors() {
        let mut server = PgServer::start(PgOptions::new(major));
        let marks = server.dir("marks");
        let outside = server.dir("outside").join("included.conf");
        server.write(&outside, hostile(&marks, server.port()).as_bytes());
        let data = restored(&server, "copy");
        let include = format!("include '{}'\n", outside.display());
        for (folder, name) in [
            (&data, "postgresql.conf"),
            (&data, "postgresql.auto.conf"),
            (&server.data(), "postgresql.auto.conf"),
        ] {
            server.write(&folder.join(name), include.as_bytes());
        }
        crashsafe::replace(&data.join("pg_hba.conf"), b"local all all reject\n").unwrap();

        // The canary: on an ordinary server the same lines do all of it.
        server.restart();
        assert!(listens_on_tcp(server.pid()), "{major}");
        let switched =
            server.bin("psql").env("PGHOST", &marks).args(["-X", "-c", "SELECT pg_switch_wal()"]).output();
        assert!(switched.unwrap().status.success());
        server.stop();
        for mark in ["archived", "pid", "log"] {
            let gone_at_the_end = mark == "pid";
            assert!(gone_at_the_end || marks.join(mark).exists(), "{major} {mark}");
        }
        for name in ["archived", "log"] {
            let path = marks.join(name);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        assert!(is_empty(&marks), "{:?}", fs::read_dir(&marks).unwrap().collect::<Vec<_>>());

        let runtime = runtime();
        fs::File::create(data.join("recovery.signal")).unwrap();
        let mut options = options(&runtime);
        options.restore_command = Some("false".to_owned());
        let sandbox = start(&server, &data, &options).unwrap();
        assert!(!listens_on_tcp(sandbox.pid()), "{major}");
        psql(&sandbox, "CREATE TABLE t (i int)");
        psql(&sandbox, "SELECT pg_switch_wal()");
        let sources = psql(&sandbox, "SELECT count(*) FROM pg_settings WHERE sourcefile IS NOT NULL");
        assert_eq!(sources, "0", "no configuration file gave a value");
        sandbox.stop(Stop::Fast, LIMIT, &SystemClock::new()).unwrap();
        assert!(is_empty(&marks), "{major}: {:?}", fs::read_dir(&marks).unwrap().collect::<Vec<_>>());
        assert!(data.join("postgresql.auto.conf.before-sandbox").exists());
    }
}

#[test]
fn no_library_of_the_restored_cluster_is_loaded_unless_it_is_allowed() {
    // Only the system's own packages bring a library that can be preloaded.
    let server =
        PgServer::start(PgOptions::new(pg_system_major()).set("shared_preload_libraries", "auto_explain"));
    server.psql("ALTER DATABASE postgres SET session_preload_libraries = 'auto_explain'");
    assert!(has_mapped(server.pid(), "auto_explain"), "the canary");
    let data = restored(&server, "copy");
    let runtime = runtime();
    let sandbox = start(&server, &data, &options(&runtime)).unwrap();
    assert!(!has_mapped(sandbox.pid(), "auto_explain"));
    let shown = "SELECT count(*) FROM pg_settings WHERE name LIKE 'auto_explain.%'";
    assert_eq!(psql(&sandbox, shown), "0", "the programs of a sandbox load none for a session either");
    let mut bare = sandbox.program("psql");
    bare.env_remove("PGOPTIONS").args(["-X", "-A", "-t", "-U", "postgres", "-c", shown]);
    let bare = lifeboat_postgres::server::run_tool(bare, LIMIT, &SystemClock::new()).unwrap();
    assert_ne!(String::from_utf8(bare.stdout).unwrap().trim(), "0", "the canary");
    drop(sandbox);
    let mut options = options(&runtime);
    options.preload = vec!["auto_explain".to_owned()];
    let sandbox = start(&server, &data, &options).unwrap();
    assert!(has_mapped(sandbox.pid(), "auto_explain"));
}

#[test]
fn a_subscription_of_the_restored_cluster_does_not_connect() {
    let publisher = PgServer::start(PgOptions::new(16).set("wal_level", "logical"));
    publisher.psql("CREATE TABLE t (i int); CREATE PUBLICATION p FOR TABLE t");
    let subscriber = PgServer::start(PgOptions::new(16));
    subscriber.psql(&format!(
        "CREATE TABLE t (i int); CREATE SUBSCRIPTION s CONNECTION '{}' PUBLICATION p",
        publisher.conninfo()
    ));
    let data = restored(&subscriber, "copy");
    subscriber.psql("ALTER SUBSCRIPTION s DISABLE");
    let runtime = runtime();
    let sandbox = start(&subscriber, &data, &options(&runtime)).unwrap();
    assert_eq!(psql(&sandbox, "SELECT subenabled FROM pg_subscription"), "t");
    let launcher = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%'";
    assert_eq!(psql(&sandbox, launcher), "0");
    assert_eq!(subscriber.psql(launcher), "1", "the canary: an ordinary server has the process");
}

#[test]
fn links_that_lead_to_the_productions_own_folders_are_refused() {
    let server = PgServer::start(PgOptions::new(16).tablespace("spare"));
    server.psql("CREATE TABLE t (i int) TABLESPACE spare; INSERT INTO t VALUES (7)");
    let data = server.dir("copy");
    let moved = server.dir("moved");
    let mapping =
        format!("--tablespace-mapping={}={}", server.tablespace_dir("spare").display(), moved.display());
    server.run(
        "pg_basebackup",
        &["-D", &data.to_string_lossy(), &mapping, "-X", "stream", "-c", "fast", "--no-sync"],
    );
    let runtime = runtime();
    let mut options = options(&runtime);
    let refused = start(&server, &data, &options).unwrap_err();
    assert!(matches!(&refused, ServerError::LeadsOutside { target, .. } if *target == moved), "{refused:?}");
    options.trees = vec![moved];
    let sandbox = start(&server, &data, &options).unwrap();
    assert_eq!(psql(&sandbox, "SELECT i FROM t"), "7");
    drop(sandbox);

    // A base backup in the tar format brings a map instead, and the server makes the links itself.
    let map = format!("16384 {}\n", server.tablespace_dir("spare").display());
    crashsafe::write_new(&data.join("tablespace_map"), map.as_bytes()).unwrap();
    let refused = start(&server, &data, &options).unwrap_err();
    let production: PathBuf = server.tablespace_dir("spare");
    assert!(matches!(&refused, ServerError::LeadsOutside { target, .. } if *target == production));
}

#[test]
fn a_caller_cannot_loosen_the_isolation() {
    let server = PgServer::start(PgOptions::new(16));
    let data = restored(&server, "copy");
    let runtime = runtime();
    let mut options = options(&runtime);
    options.settings = vec![("Listen-Addresses".to_owned(), "*".to_owned())];
    let refused = start(&server, &data, &options).unwrap_err();
    assert!(matches!(refused, ServerError::Forbidden(name) if name == "Listen-Addresses"));
    assert!(is_empty(runtime.path()));
}
