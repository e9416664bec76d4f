//! Servers start on every version, survive what tests do to them, and leave nothing behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_testkit::{PgOptions, PgServer, pg_majors, pg_system_major};

/// Processes whose working folder is `data`.
fn processes_in(data: &Path) -> Vec<PathBuf> {
    fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|process| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == data))
        .collect()
}

#[test]
fn every_version_starts_answers_and_leaves_nothing_behind() {
    for major in pg_majors() {
        let server = PgServer::start(PgOptions::new(major).initdb("--data-checksums").tablespace("spare"));
        let version = server.psql("SHOW server_version_num");
        assert_eq!(version.parse::<u32>().unwrap() / 10_000, major);
        assert_eq!(server.psql("SELECT 1, NULL, 'ä|'; SELECT 2"), "1||ä|\n2");
        assert_eq!(server.psql("SHOW data_checksums"), "on");
        server.psql("CREATE TABLE t (i int) TABLESPACE spare");
        assert!(TcpStream::connect(("127.0.0.1", server.port())).is_ok());
        let (root, data) = (server.data().parent().unwrap().to_owned(), server.data());
        assert!(!processes_in(&data).is_empty());
        drop(server);
        assert_eq!(processes_in(&data), Vec::<PathBuf>::new());
        assert!(!root.exists());
    }
}

#[test]
fn what_was_committed_survives_a_crash_and_a_restart_on_the_same_port() {
    let mut server = PgServer::start(PgOptions::new(16).set("work_mem", "1MB"));
    let (port, killed) = (server.port(), server.pid());
    server.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i");
    assert!(holds_shared_memory(killed), "the table of segments does not show what this test looks for");
    server.crash();
    assert!(!holds_shared_memory(killed), "every kill leaves a segment, until the machine has no more");
    assert_eq!(processes_in(&server.data()), Vec::<PathBuf>::new());
    server.start_again();
    assert_eq!(server.psql("SELECT count(*) FROM t; SHOW work_mem"), "1000\n1MB");
    server.restart();
    assert_eq!(server.port(), port);
    assert!(server.log().contains("database system was not properly shut down"));
    assert!(!server.try_psql("SELECT 1/0").status.success());
}

#[test]
fn a_standby_follows_its_primary_and_writes_after_its_promotion() {
    for major in pg_majors() {
        let primary = PgServer::start(PgOptions::new(major).tablespace("spare"));
        primary.psql("CREATE TABLE t (i int) TABLESPACE spare; INSERT INTO t VALUES (1)");
        let standby = primary.standby();
        assert_eq!(standby.psql("SELECT pg_is_in_recovery()"), "t");
        primary.psql("INSERT INTO t VALUES (1)");
        standby.catch_up(&primary);
        standby.promote();
        standby.psql("INSERT INTO t VALUES (2)");
        assert_eq!(standby.psql("SELECT sum(i) FROM t"), "4");
        assert_eq!(primary.psql("SELECT sum(i) FROM t"), "2");
        // A promoted server takes writes before the checkpoint that puts the new timeline into its control file.
        standby.psql("CHECKPOINT");
        assert_eq!(standby.psql("SELECT timeline_id FROM pg_control_checkpoint()"), "2");
    }
}

#[test]
fn a_test_that_panics_ends_its_server() {
    let (mut data, mut pid) = (PathBuf::new(), 0);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let server = PgServer::start(PgOptions::new(18));
        (data, pid) = (server.data(), server.pid());
        panic!("as a failed assertion would");
    }));
    assert!(panicked.is_err());
    assert!(data.is_absolute() && !data.exists() && !holds_shared_memory(pid));
    assert_eq!(processes_in(&data), Vec::<PathBuf>::new());
}

#[test]
fn load_comes_from_the_servers_own_program() {
    let server = PgServer::start(PgOptions::new(pg_system_major()));
    server.pgbench_init(1);
    let report = server.pgbench_run(&["-c", "2", "-t", "50"]);
    assert!(report.contains("100/100"), "{report}");
}

/// Whether the kernel still has a segment of shared memory that process `pid` made.
fn holds_shared_memory(pid: i32) -> bool {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let creator = |line: &str| line.split_whitespace().nth(4)?.parse().ok();
    table.lines().any(|line| creator(line) == Some(pid))
}

/// Tells the next test that it is the process to be killed.
const ROLE: &str = "LIFEBOAT_TEST_LEFTOVER";

#[expect(clippy::disallowed_methods, reason = "the other process of this test learns its role from it")]
fn is_the_one_to_be_killed() -> bool {
    std::env::var_os(ROLE).is_some()
}

#[test]
fn the_server_of_a_killed_test_is_ended_by_the_next_one() {
    if is_the_one_to_be_killed() {
        let server = PgServer::start(PgOptions::new(18));
        println!("started {} {}", server.pid(), server.data().display());
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let living = PgServer::start(PgOptions::new(18));
    let mut killed = Command::new(std::env::current_exe().unwrap())
        .args([
            "main::pgserver::the_server_of_a_killed_test_is_ended_by_the_next_one",
            "--exact",
            "--nocapture",
        ])
        .env(ROLE, "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| Some(line.unwrap().rsplit_once("started ")?.1.to_owned())).unwrap();
    let (pid, data) =
        line.split_once(' ').map(|(pid, data)| (pid.parse().unwrap(), PathBuf::from(data))).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    // Another test that starts at this moment may sweep it first.
    drop(PgServer::start(PgOptions::new(18)));
    let started = SystemClock::new();
    while data.exists() || !processes_in(&data).is_empty() || holds_shared_memory(pid) {
        assert!(started.monotonic() < Duration::from_secs(60), "it is still there");
        std::thread::yield_now();
    }
    assert_eq!(living.psql("SELECT 1"), "1");
}
