//! Our own end by SIGKILL: the server ends with us, and the next sweep removes what it left. Where the machine does not let it
//! end with us, the sweep ends it, and nothing else.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use lifeboat_base::apart::servers;
use lifeboat_base::crashsafe;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::leased::LeasedFolder;
use lifeboat_base::process::birth;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_postgres::server::{
    Account, Launch, Postmaster, Sandbox, SandboxOptions, Wait, give_tree, sweep,
};
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

/// As [`own`], a server that does not end with its owner, as on a machine that has no `setpriv`.
fn own_immortal(role: &str) {
    let (runtime, data) = role.split_once(':').unwrap();
    let (clock, data) = (SystemClock::new(), Path::new(data));
    let folder = LeasedFolder::make(Path::new(runtime), "lb-pg-", "sandbox", &OsEntropy).unwrap();
    let account = Account::for_data(data).unwrap();
    let sockets = folder.path().join("s");
    crashsafe::write_new(&folder.path().join("record"), data.as_os_str().as_encoded_bytes()).unwrap();
    std::fs::create_dir(&sockets).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    for tree in [data, &sockets] {
        give_tree(tree, &account).unwrap();
    }
    let setting = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let settings = [("listen_addresses", ""), ("unix_socket_directories", sockets.to_str().unwrap())];
    let launch = Launch {
        installation: &pg_installation(MAJOR),
        data,
        settings: &settings.map(setting),
        account: &account,
        log: &folder.path().join("log"),
        apart: false,
    };
    let mut postmaster = Postmaster::spawn(&launch).unwrap();
    postmaster.wait_ready(Wait::for_at_most(LIMIT, &clock)).unwrap();
    println!("started {}", postmaster.pid());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Looks until it is so.
#[track_caller]
fn wait_for(so: impl Fn() -> bool) {
    let clock = SystemClock::new();
    let limit = clock.monotonic() + LIMIT;
    while !so() {
        assert!(clock.monotonic() < limit, "it does not come to that");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Whether a session works on a statement in `data`.
fn is_busy(data: &Path) -> bool {
    processes_in(data).iter().any(|process| {
        let title = std::fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&title).trim_end_matches(['\0', ' ']).ends_with("] DO")
    })
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
fn a_server_ends_with_its_killed_owner_and_the_next_sweep_removes_what_it_left() {
    if let Some(role) = role() {
        return own(&role);
    }
    assert!(servers().are_alone() && servers().are_mortal(), "this machine does not let us show it");
    let server = PgServer::start(PgOptions::new(MAJOR));
    let (runtime, clock) = (runtime(), SystemClock::new());
    let data = restored(&server, "copy");
    let test = "a_server_ends_with_its_killed_owner_and_the_next_sweep_removes_what_it_left";
    let (mut child, _output, pid) = owner(test, runtime.path(), &data);
    let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(link(&pid.to_string()), link("self"), "it has a network of its own");
    assert_eq!(link(&server.pid().to_string()), link("self"), "and a server of a test has not");
    // A session that computes for an hour, and one that waits.
    let busy = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$";
    let sockets = runtime.path().read_dir().unwrap().next().unwrap().unwrap().path().join("s");
    let mut session = Command::new(pg_installation(MAJOR).program("psql"));
    session.args(["-h", sockets.to_str().unwrap(), "-U", "postgres", "-c", busy, "postgres"]);
    let mut session = session.spawn().unwrap();
    wait_for(|| is_busy(&data));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(|| birth(pid).is_none());
    assert!(!processes_in(&data).is_empty(), "who computes has not noticed, or this test shows nothing");
    assert!(data.join("postmaster.pid").exists());
    let swept = sweep(runtime.path(), &clock).unwrap();
    assert_eq!((swept.ended, swept.removed.len()), (vec![data.clone()], 1));
    assert_eq!(processes_in(&data), Vec::<PathBuf>::new());
    assert!(!data.join("postmaster.pid").exists(), "its number may be anybody's soon");
    session.wait().unwrap();
    assert_eq!(server.psql("SELECT 1"), "1", "every other server is left alone");
    assert!(is_empty(runtime.path()));
    let again = start(&server, &data, &options(&runtime)).unwrap();
    assert_eq!(psql(&again, "SELECT 1"), "1", "the data directory can be used again");
    drop(again);
}

#[test]
fn a_session_that_computes_ends_with_whoever_asked() {
    let server = PgServer::start(PgOptions::new(MAJOR));
    let runtime = runtime();
    let data = restored(&server, "copy");
    let sandbox = start(&server, &data, &options(&runtime)).unwrap();
    let mut session = sandbox.program("psql");
    session.args(["-U", "postgres", "-c", "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$", "postgres"]);
    let mut session = session.spawn().unwrap();
    wait_for(|| is_busy(&data));
    session.kill().unwrap();
    session.wait().unwrap();
    wait_for(|| !is_busy(&data));
}

#[test]
fn a_killed_owners_server_is_ended_by_the_next_sweep() {
    if let Some(role) = role() {
        return own_immortal(&role);
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
        return own_immortal(&role);
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
