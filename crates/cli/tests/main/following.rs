//! A follower over days: copies that go and come, a full spool, a server that refuses it, an end in good order.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};

use lifeboat_testkit::PgServer;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::archive::{objects, server};
use super::postgres::{LEDGER, NOW, ask, world_of};
use super::world::{World, texts};

/// How often something is looked at, each time after a server slept for a twentieth of a second.
const MAX_LOOKS: usize = 1200;
const FOLLOWED: &str =
    "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = 'lifeboat_shop' AND active";

/// A follower whose words go into files.
struct Follower<'a> {
    world: &'a World,
    child: Child,
}

impl<'a> Follower<'a> {
    fn start(world: &'a World, more: &[&str]) -> Self {
        let mut command = world.command(&["--no-progress", "--json", "wal", "stream", "shop"]);
        let file = |name: &str| Stdio::from(File::create(world.path(name)).unwrap());
        let child = command.args(more).stdout(file("result")).stderr(file("said")).spawn().unwrap();
        Self { world, child }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.world.path("said")).unwrap()
    }

    fn times(&self, text: &str) -> usize {
        self.said().lines().filter(|line| line.contains(text)).count()
    }

    #[track_caller]
    fn wait_until(&mut self, server: &PgServer, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..MAX_LOOKS {
            if done(self) {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended: {}", self.said());
            server.psql("SELECT pg_sleep(0.05)");
        }
        panic!("it never came true: {what}\n{}", self.said());
    }

    /// Asks it to end; gives its exit code and its report.
    fn end(mut self) -> (Option<i32>, Value) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let code = self.child.wait().unwrap().code();
        let text = fs::read_to_string(self.world.path("result")).unwrap();
        (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {}", self.said())))
    }
}

fn insert(server: &PgServer, n: u32) {
    server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
    server.psql("SELECT pg_switch_wal()");
}

fn spooled(world: &World) -> usize {
    let names = fs::read_dir(world.path("state/logs/shop")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("piece")).count()
}

fn same(world: &World, count: usize) -> bool {
    let local = objects(world, "local");
    local.len() >= count && local == objects(world, "offsite") && spooled(world) == 0
}

fn rename(from: &Path, to: &Path) {
    super::tree::rename(from, to);
}

#[test]
fn a_copy_that_goes_and_comes_back_gets_everything_and_each_is_told_once() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    let (offsite, away) = (world.vault("offsite", "shop"), world.path("away"));
    // Away from the start.
    rename(&offsite, &away);
    let mut follower = Follower::start(&world, &[]);
    follower.wait_until(&server, "followed", |_| server.psql(FOLLOWED) == "t");
    insert(&server, 1);
    insert(&server, 2);
    follower.wait_until(&server, "two pieces", |_| objects(&world, "local").len() >= 2);
    assert!(!offsite.exists() && spooled(&world) >= 2);
    assert_eq!(follower.times("copy `offsite` cannot be used"), 1, "{}", follower.said());
    assert!(follower.said().contains("at risk: rpo and copies of `shop`"), "{}", follower.said());
    rename(&away, &offsite);
    follower.wait_until(&server, "both have both", |_| same(&world, 2));
    assert_eq!(follower.times("copy `offsite` is used again"), 1, "{}", follower.said());
    // Later, and what it lost meanwhile although the others hold it is brought again.
    rename(&offsite, &away);
    insert(&server, 3);
    follower.wait_until(&server, "told", |follower| follower.times("copy `offsite` cannot be used") == 2);
    assert!(!offsite.exists(), "something was written where no vault is");
    let lost = objects(&world, "local").into_iter().next().unwrap();
    fs::remove_file(away.join("lifeboat/logs/wal").join(&lost)).unwrap();
    rename(&away, &offsite);
    follower.wait_until(&server, "both have three", |_| same(&world, 3));
    insert(&server, 4);
    follower.wait_until(&server, "both have four", |_| same(&world, 4));
    assert_eq!(follower.times("copy `offsite` is used again"), 2, "{}", follower.said());
    let (code, report) = follower.end();
    assert_eq!(
        (code, &report["findings"], &report["waiting_bytes"]),
        (Some(0), &Value::Array(vec![]), &Value::from(0)),
        "{report}"
    );
    world.run(&["restore", "shop", "--to", "back", "--copy", "offsite"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "4|4");
}

#[test]
fn a_full_spool_leaves_the_log_to_the_server_and_goes_on_when_there_is_room() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    rename(&world.vault("offsite", "shop"), &world.path("away"));
    let mut follower = Follower::start(&world, &["--spool-limit", "2"]);
    follower.wait_until(&server, "followed", |_| server.psql(FOLLOWED) == "t");
    for n in 1..=6 {
        insert(&server, n);
    }
    follower.wait_until(&server, "told", |follower| follower.times("which is the limit") == 1);
    let said = follower.said();
    let line = said.lines().find(|line| line.contains("which is the limit")).unwrap();
    for part in
        ["wait here for offsite", "the server keeps its log itself", "at risk: rpo of `shop`", "next: "]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    // It is still there, takes nothing and lets go of nothing.
    let kept =
        "SELECT pg_current_wal_lsn() - restart_lsn > 2 * 1024 * 1024 AND active FROM pg_replication_slots";
    assert_eq!(server.psql(kept), "t");
    assert!((2..=3).contains(&spooled(&world)), "{}", spooled(&world));
    rename(&world.path("away"), &world.vault("offsite", "shop"));
    follower.wait_until(&server, "everything in both", |_| same(&world, 6));
    assert_eq!(follower.times("there is room again"), 1, "{}", follower.said());
    let (code, report) = follower.end();
    assert_eq!(code, Some(0), "{report}");
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "6|6");
}

#[test]
fn a_server_that_refuses_the_role_is_told_at_once_with_what_to_do() {
    let server = server(16);
    let mut world = world_of(&server);
    let sql = world.run(&["init", "postgres"]).expect(0).stdout;
    server.psql(&sql);
    world.env.retain(|(name, _)| name != "SHOP_URL");
    world.env.push(("SHOP_URL".to_owned(), server.url("lifeboat")));
    world.backup("shop");
    let mut follower = Follower::start(&world, &[]);
    follower.wait_until(&server, "followed", |_| server.psql(FOLLOWED) == "t");
    server.psql("ALTER ROLE lifeboat NOLOGIN");
    server.psql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots");
    follower.wait_until(&server, "told", |follower| follower.times("not permitted to log in") > 0);
    let said = follower.said();
    let line = said.lines().find(|line| line.contains("not permitted to log in")).unwrap();
    assert!(line.contains("at risk: rpo of `shop`; next: ") && line.contains("pg_hba.conf"), "{line}");
    server.psql("ALTER ROLE lifeboat LOGIN");
    follower.wait_until(&server, "followed again", |_| server.psql(FOLLOWED) == "t");
    follower.wait_until(&server, "told", |follower| follower.times("is there again") > 0);
    assert_eq!(follower.times("not permitted to log in"), 1, "{}", follower.said());
    insert(&server, 1);
    follower.wait_until(&server, "kept", |_| same(&world, 1));
    let (code, report) = follower.end();
    assert_eq!(code, Some(0), "{report}");
}

#[test]
fn a_request_to_end_keeps_what_was_received_and_says_what_is_wrong() {
    let mut server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    let mut follower = Follower::start(&world, &[]);
    follower.wait_until(&server, "followed", |_| server.psql(FOLLOWED) == "t");
    server.psql("INSERT INTO ledger (n) VALUES (1)");
    let written = server.psql("SELECT pg_current_wal_flush_lsn()");
    let kept = format!("SELECT restart_lsn >= '{written}' FROM pg_replication_slots");
    follower.wait_until(&server, "received", |_| server.psql(&kept) == "t");
    // Half an RPO has not passed: without the request it would lie in the spool.
    let (code, report) = follower.end();
    assert_eq!(code, Some(0), "{report}");
    assert!(report["shipped"].as_u64().unwrap() > 0, "{report}");
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "1|1");
    // While the server is away.
    let follower = Follower::start(&world, &[]);
    while server.psql(FOLLOWED) != "t" {}
    server.stop();
    while follower.times("waiting for shop") == 0 {}
    let (code, report) = follower.end();
    assert_eq!(
        (code, texts(&report["findings"], "code")),
        (Some(4), vec!["store-away".to_owned()]),
        "{report}"
    );
}

#[test]
fn a_server_that_was_set_back_before_the_segment_that_follows_is_refused() {
    let mut server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    server.stop();
    let old = tempfile::Builder::new().prefix("lb-old-").tempdir_in("/tmp").unwrap();
    let copy = |from: &Path, to: &Path| {
        assert!(std::process::Command::new("cp").arg("-aT").arg(from).arg(to).status().unwrap().success());
    };
    copy(&server.data(), &old.path().join("data"));
    server.start_again();
    // Everything up to the end of a segment is kept, and nothing of the one after it.
    let head = || fs::read_to_string(world.path("state/logs/shop/head.json")).unwrap();
    let position = || {
        let head: Value = serde_json::from_str(&head()).unwrap();
        let text = head["position"].as_str().unwrap().rsplit_once('-').unwrap().1.to_owned();
        u64::from_str_radix(&text, 16).unwrap()
    };
    for n in 1.. {
        insert(&server, n);
        world.run(&["wal", "stream", "shop", "--once"]).expect(0);
        if position() % (1 << 20) == 0 {
            break;
        }
        assert!(n < 50, "{}", head());
    }
    let before = server.psql(&format!("SELECT pg_walfile_name('0/0'::pg_lsn + {})", position() - 1));
    let kept = position();
    server.stop();
    fs::remove_dir_all(server.data()).unwrap();
    copy(&old.path().join("data"), &server.data());
    server.start_again();
    server.psql("INSERT INTO ledger (n) SELECT g FROM generate_series(200, 20000) g");
    for n in 0..4 {
        insert(&server, 30000 + n);
    }
    let beyond = format!("SELECT pg_current_wal_lsn() > '0/0'::pg_lsn + {kept}");
    assert_eq!(server.psql(&beyond), "t", "{}", server.psql(NOW));
    let objects = || (objects(&world, "local"), head());
    let unchanged = objects();
    for removed in [false, true] {
        if removed {
            fs::remove_file(server.data().join("pg_wal").join(&before)).unwrap();
        }
        let ran = world.run(&["wal", "stream", "shop", "--once"]).expect(3);
        assert!(ran.stderr.contains("was set back"), "{ran:?}");
        assert_eq!(objects(), unchanged);
    }
}

#[test]
fn a_server_that_no_longer_has_the_segment_before_is_followed_on() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    for n in 1..=4 {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        let name = server.psql("SELECT pg_walfile_name(pg_switch_wal())");
        world.run(&["wal", "stream", "shop", "--once"]).expect(0);
        fs::remove_file(server.data().join("pg_wal").join(name)).unwrap();
    }
    server.psql("INSERT INTO ledger (n) VALUES (5)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "5|5");
}

#[test]
fn once_ends_although_the_server_never_stops_writing() {
    let server = server(16);
    let world = world_of(&server);
    world.backup("shop");
    server.pgbench_init(1);
    let mut load = server.bin("pgbench");
    let load = load.args(["-n", "-c", "4", "-T", "120"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut load = load.spawn().unwrap();
    let before = server.psql("SELECT pg_current_wal_flush_lsn()");
    let ran = world.run(&["--json", "wal", "stream", "shop", "--once"]).expect(0);
    let still_writing = load.try_wait().unwrap().is_none();
    load.kill().unwrap();
    load.wait().unwrap();
    assert!(still_writing, "it ended because the writes did");
    let to = ran.json()["to"].as_str().unwrap().rsplit_once('-').unwrap().1.to_owned();
    let to = u64::from_str_radix(&to, 16).unwrap();
    let high = server.psql(&format!("SELECT {to} >= ('{before}'::pg_lsn - '0/0'::pg_lsn)"));
    assert_eq!(high, "t", "what was there at the start is missing: {before} and {to:X}");
}

#[test]
fn a_follower_that_finds_no_copy_at_its_start_waits_for_one() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    let vaults = ["local", "offsite"].map(|copy| world.vault(copy, "shop"));
    let aside = |vault: &Path| vault.with_extension("away");
    for vault in &vaults {
        rename(vault, &aside(vault));
    }
    let ran = world.run(&["wal", "stream", "shop", "--once"]).expect(4);
    assert!(ran.stderr.contains("no copy of `shop` can be used"), "{ran:?}");
    let mut follower = Follower::start(&world, &[]);
    follower.wait_until(&server, "followed", |_| server.psql(FOLLOWED) == "t");
    insert(&server, 1);
    follower.wait_until(&server, "it waits here", |_| spooled(&world) >= 1);
    assert!(vaults.iter().all(|vault| !vault.exists()), "something was written where no vault is");
    for vault in &vaults {
        rename(&aside(vault), vault);
    }
    follower.wait_until(&server, "both have it", |_| same(&world, 1));
    assert_eq!(follower.end().0, Some(0));
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "1|1");
}

#[test]
fn a_moment_of_the_future_is_no_knowledge() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let said = world.promise("shop", "rpo").1;
    assert!(said.contains("with its log shows"), "{said}");
    let path = world.path("state/logs/shop/head.json");
    let mut head: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    head["as_of"] = "2999-01-01T00:00:00Z".into();
    super::tree::write(&path, head.to_string().as_bytes());
    let said = world.promise("shop", "rpo").1;
    assert!(!said.contains("with its log"), "{said}");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let said = world.promise("shop", "rpo").1;
    assert!(said.contains("with its log shows"), "{said}");
}

#[test]
fn a_follower_needs_no_vault_made_and_so_waits_for_no_other_run() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    let lock = world.path("state/locks/shop.lock");
    let held = lifeboat_base::lease::Lease::try_acquire(&lock, "a backup of hours").unwrap().unwrap();
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    drop(held);
}

#[test]
fn what_a_killed_follower_left_is_told_by_a_restore_and_brought_by_the_next_run() {
    let mut server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let mut follower = Follower::start(&world, &[]);
    follower.wait_until(&server, "followed", |_| server.psql(FOLLOWED) == "t");
    server.psql("INSERT INTO ledger (n) VALUES (1)");
    let end = server.psql("SELECT pg_current_wal_flush_lsn()");
    let durable = format!("SELECT bool_or(flush_lsn >= '{end}') FROM pg_stat_replication");
    follower.wait_until(&server, "durable here", |_| server.psql(&durable) == "t");
    follower.child.kill().unwrap();
    follower.child.wait().unwrap();
    server.crash();
    let ran = world.run(&["restore", "shop", "--to", "before"]).expect(5);
    assert!(ran.stdout.contains("nobody follows it") || ran.stderr.contains("nobody follows it"), "{ran:?}");
    let ran = world.run(&["wal", "stream", "shop", "--once"]).expect(4);
    assert!(ran.stderr.contains("everything that had arrived is in every copy"), "{ran:?}");
    world.run(&["restore", "shop", "--to", "after"]).expect(0);
    assert_eq!(ask(&server, &world.path("after"), LEDGER), "1|1");
}

#[test]
fn a_follower_keeps_no_server_from_ending_that_waits_for_its_sessions() {
    let mut server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    let mut follower = Follower::start(&world, &[]);
    let asked = "SELECT count(*) = 2 FROM pg_stat_replication";
    follower.wait_until(&server, "asked beside the stream", |_| server.psql(asked) == "t");
    kill_process(Pid::from_raw(server.pid()).unwrap(), Signal::TERM).unwrap();
    let ended = (0..MAX_LOOKS).any(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        server.log().contains("database system is shut down")
    });
    assert!(ended, "it waits for us: {}", server.log());
    server.crash();
    server.start_again();
    follower.wait_until(&server, "followed again", |_| server.psql(FOLLOWED) == "t");
    assert_eq!(follower.end().0, Some(0));
}
