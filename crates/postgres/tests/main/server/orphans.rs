//! Our own end by SIGKILL: the next sweep finds the server and ends it, and nothing else.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::time::SystemClock;
use lifeboat_postgres::server::{Sandbox, SandboxOptions, Wait, sweep};
use lifeboat_testkit::{PgOptions, PgServer, pg_installation};

use super::{LIMIT, is_empty, options, processes_in, psql, restored, runtime, start};

/// Tells a test that it is the process to be killed, and where: the runtime folder, a colon, the data directory.
const ROLE: &str = "LIFEBOAT_TEST_OWNER";
const MAJOR: u32 = 18;

/// Starts a sandbox and waits for its end; the end of its input would end it in order.
fn own(role: &str) {
    let (runtime, data) = role.split_once(':').unwrap();
    let clock = SystemClock::new();
    let options = SandboxOptions { runtime: Some(PathBuf::from(runtime)), ..SandboxOptions::default() };
    let wait = Wait::for_at_most(LIMIT, &clock);
    let sandbox =
        Sandbox::start(&pg_installation(MAJOR), Path::new(data), &options, &OsEntropy, wait).unwrap();
    println!("started {}", sandbox.pid());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// The same test in another process, which owns a sandbox; gives it, its output and the server's process id.
fn owner(test: &str, runtime: &Path, data: &Path) -> (Child, BufReader<ChildStdout>, i32) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([&format!("main::server::orphans::{test}"), "--exact", "--nocapture"])
        .env(ROLE, format!("{}:{}", runtime.display(), data.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    // The harness may have written before it on the same line.
    let number = |line: std::io::Result<String>| line.unwrap().rsplit_once("started ")?.1.parse().ok();
    let pid = output.by_ref().lines().find_map(number).expect("the owner ended without a sandbox");
    (child, output, pid)
}

#[expect(clippy::disallowed_methods, reason = "the other process of this test learns its role from it")]
fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

#[test]
fn a_killed_owners_server_is_ended_by_the_next_sweep() {
    if let Some(role) = role() {
        return own(&role);
    }
    let server = PgServer::start(PgOptions::new(MAJOR));
    let (runtime, clock) = (runtime(), SystemClock::new());
    let (data, other) = (restored(&server, "copy"), restored(&server, "other"));
    let living = start(&server, &other, &options(&runtime)).unwrap();
    let test = "a_killed_owners_server_is_ended_by_the_next_sweep";
    let (mut child, _output, pid) = owner(test, runtime.path(), &data);

    let idle = sweep(runtime.path(), &clock).unwrap();
    assert!(idle.ended.is_empty() && idle.removed.is_empty(), "its owner lives: {idle:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!processes_in(&data).is_empty(), "the server {pid} outlives its owner");
    let swept = sweep(runtime.path(), &clock).unwrap();
    assert_eq!((swept.ended, swept.removed.len()), (vec![data.clone()], 1));
    assert_eq!(processes_in(&data), Vec::<PathBuf>::new());

    assert_eq!(psql(&living, "SELECT 1"), "1", "the sandbox of a living owner is kept");
    assert_eq!(server.psql("SELECT 1"), "1", "and so is every other server");
    drop(living);
    assert!(is_empty(runtime.path()));
    let again = start(&server, &data, &options(&runtime)).unwrap();
    assert_eq!(psql(&again, "SELECT 1"), "1", "the data directory can be used again");
}

#[test]
fn an_orphan_whose_data_directory_was_removed_is_found_all_the_same() {
    if let Some(role) = role() {
        return own(&role);
    }
    let server = PgServer::start(PgOptions::new(MAJOR));
    let runtime = runtime();
    let data = restored(&server, "copy");
    let test = "an_orphan_whose_data_directory_was_removed_is_found_all_the_same";
    let (mut child, _output, pid) = owner(test, runtime.path(), &data);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    sweep(runtime.path(), &SystemClock::new()).unwrap();
    assert!(!Path::new(&format!("/proc/{pid}/cwd")).exists());
    assert!(is_empty(runtime.path()));
}

#[test]
fn folders_that_are_not_a_sandboxs_are_left_alone() {
    let runtime = runtime();
    for name in ["lb-pg-0000000000000000", "lb-pg-file", "other"] {
        std::fs::create_dir(runtime.path().join(name)).unwrap();
    }
    std::fs::remove_dir(runtime.path().join("lb-pg-file")).unwrap();
    std::os::unix::fs::symlink("/tmp", runtime.path().join("lb-pg-file")).unwrap();
    let swept = sweep(runtime.path(), &SystemClock::new()).unwrap();
    assert!(swept.ended.is_empty() && swept.removed.is_empty(), "{swept:?}");
    assert_eq!(std::fs::read_dir(runtime.path()).unwrap().count(), 3);
}
