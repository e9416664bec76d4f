//! Throwaway servers.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_redis::rdb::Survey;
use lifeboat_redis::server::{Launch, Process, Sandbox, SandboxOptions, Wait, sweep};
use lifeboat_redis::wire::{Connection, Reply};
use lifeboat_testkit::{RedisOptions, RedisServer, redis_programs};

use super::samples::{every_kind, words};

const LIMIT: Duration = Duration::from_secs(60);

fn options(work: &std::path::Path) -> SandboxOptions {
    SandboxOptions { runtime: None, work: work.to_owned(), append_only: false, databases: 16 }
}

#[test]
fn a_sandbox_keeps_keys_whose_time_is_over_and_saves_what_was_captured() {
    let server = RedisServer::start(RedisOptions::default());
    server.load(every_kind());
    server.run("DEBUG SET-ACTIVE-EXPIRE 0");
    server.load((0..100).map(|n| words(&format!("SET soon{n} v PX 1"))));
    server.run("SAVE");
    let dump = fs::read(server.data().join("dump.rdb")).unwrap();
    let expected = Survey::read(dump.as_slice(), 0).unwrap();
    assert!(expected.databases[&0].keys > 100);
    let work = tempfile::tempdir().unwrap();
    crashsafe::write_new(&work.path().join("dump.rdb"), &dump).unwrap();
    let clock = SystemClock::new();
    let wait = Wait::for_at_most(LIMIT, &clock);
    let sandbox = Sandbox::start(&redis_programs(), &options(work.path()), &OsEntropy, wait).unwrap();
    let mut connection = sandbox.connect().unwrap();
    assert_eq!(connection.ask("SET a 1").unwrap_err().server().unwrap().code, "READONLY");
    assert_eq!(connection.info("server").unwrap().get("tcp_port"), Some("0"));
    sandbox.save(LIMIT).unwrap();
    let again = Survey::read(fs::File::open(work.path().join("dump.rdb")).unwrap(), 0).unwrap();
    assert_eq!(again.databases, expected.databases);
    sandbox.stop(wait).unwrap();
}

#[test]
fn an_orphan_is_ended_and_its_folder_removed_and_a_living_sandbox_is_left_alone() {
    let runtime = tempfile::Builder::new().prefix("lb").tempdir_in("/tmp").unwrap();
    let work = tempfile::tempdir().unwrap();
    let clock = SystemClock::new();
    let wait = Wait::for_at_most(LIMIT, &clock);
    let options = SandboxOptions { runtime: Some(runtime.path().to_owned()), ..options(work.path()) };
    let sandbox = Sandbox::start(&redis_programs(), &options, &OsEntropy, wait).unwrap();
    assert_eq!(sweep(runtime.path(), &clock).unwrap(), 0);
    sandbox.connect().unwrap().ask("PING").unwrap();
    let folder = fs::read_dir(runtime.path()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    // A lease that is let go of is what a dead owner leaves; the kernel does the same.
    crashsafe::remove(&folder.join("lease")).unwrap();
    crashsafe::write_new(&folder.join("lease"), b"").unwrap();
    assert_eq!(sweep(runtime.path(), &clock).unwrap(), 1);
    assert!(!folder.exists());
    assert!(sandbox.connect().is_err());
}

#[test]
fn a_dump_that_is_damaged_does_not_start_and_the_log_says_why() {
    let work = tempfile::tempdir().unwrap();
    crashsafe::write_new(&work.path().join("dump.rdb"), b"REDIS0010nonsense").unwrap();
    let clock = SystemClock::new();
    let wait = Wait::for_at_most(LIMIT, &clock);
    let error = Sandbox::start(&redis_programs(), &options(work.path()), &OsEntropy, wait).unwrap_err();
    assert!(error.to_string().contains("the server ended"), "{error}");
}

#[test]
fn a_primary_that_a_sandbox_is_told_of_hears_nothing_and_one_on_its_network_does() {
    let production = TcpListener::bind("127.0.0.1:0").unwrap();
    production.set_nonblocking(true).unwrap();
    let follow = format!("REPLICAOF 127.0.0.1 {}", production.local_addr().unwrap().port());
    let work = tempfile::tempdir().unwrap();
    let clock = SystemClock::new();
    let wait = Wait::for_at_most(LIMIT, &clock);
    let sandbox = Sandbox::start(&redis_programs(), &options(work.path()), &OsEntropy, wait).unwrap();
    sandbox.connect().unwrap().ask(&follow).unwrap();
    // It tells of the attempt that failed.
    let told = |log: String| log.rsplit("REPLICAOF").next().is_some_and(|after| after.contains("refused"));
    let limit = clock.monotonic() + LIMIT;
    while !told(sandbox.log_tail()) {
        assert!(clock.monotonic() < limit, "{}", sandbox.log_tail());
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(production.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(network(&sandbox.pid().to_string()), network("self"));
    sandbox.stop(wait).unwrap();

    let server = RedisServer::start(RedisOptions::default());
    server.run(&follow);
    production.set_nonblocking(false).unwrap();
    production.accept().unwrap();
}

#[test]
fn case_27_a_server_is_asked_only_once_it_has_loaded_everything() {
    let root = tempfile::tempdir().unwrap();
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..3_000).map(|n| words(&format!("SET key:{n} {n}"))));
    server.run("SAVE");
    crashsafe::write_new(&root.path().join("dump.rdb"), &fs::read(server.data().join("dump.rdb")).unwrap())
        .unwrap();
    let socket = root.path().join("s");
    let text = |value: &std::path::Path| value.to_str().unwrap().to_owned();
    // Half a millisecond a key: long enough to be asked too early.
    let settings = [
        ("port", "0".to_owned()),
        ("unixsocket", text(&socket)),
        ("dir", text(root.path())),
        ("key-load-delay", "500".to_owned()),
        ("loading-process-events-interval-bytes", "1024".to_owned()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let launch = Launch {
        programs: &redis_programs(),
        settings: &settings,
        configuration: &root.path().join("redis.conf"),
        socket: &socket,
        log: &root.path().join("log"),
        apart: true,
    };
    let clock = SystemClock::new();
    let mut process = Process::spawn(&launch).unwrap();
    let limit = clock.monotonic() + LIMIT;
    let early = loop {
        if let Ok(mut connection) = Connection::open(&process.options()) {
            break connection.ask("DBSIZE");
        }
        assert!(clock.monotonic() < limit, "{}", process.log_tail());
        std::thread::park_timeout(Duration::from_millis(1));
    };
    assert_eq!(early.unwrap_err().server().unwrap().code, "LOADING", "this shows nothing");
    process.wait_ready(Wait::for_at_most(LIMIT, &clock)).unwrap();
    let mut connection = Connection::open(&process.options()).unwrap();
    assert_eq!(connection.ask("DBSIZE").unwrap(), Reply::Integer(3_000));
}
