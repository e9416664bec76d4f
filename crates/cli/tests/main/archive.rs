//! A server that hands its log over file by file, and recovers by asking for it file by file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe::TEMP_PREFIX;
use lifeboat_testkit::{PgOptions, PgServer};
use serde_json::Value;

use super::kills::Kills;
use super::postgres::{LEDGER, NOW, SCHEMA, ask, try_ask, world_of};
use super::world::World;

const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");
/// How often a server is asked whether it is done, each time after it slept for a twentieth of a second.
const MAX_LOOKS: usize = 1200;
/// Moments at which each command is killed.
const KILLS: u64 = 12;
const NUMBERS: &str = "SELECT string_agg(n::text, ',' ORDER BY n) FROM ledger";

/// A server with small segments that archives nothing yet.
pub(crate) fn server(major: u32) -> PgServer {
    let options = PgOptions::new(major).initdb("--data-checksums").initdb("--wal-segsize=1");
    let server = PgServer::start(options.set("archive_mode", "on").set("max_wal_size", "64MB"));
    server.psql(SCHEMA);
    server
}

pub(crate) fn world(server: &PgServer) -> World {
    let mut world = world_of(server);
    world.belongs_to(server);
    world
}

fn command(world: &World, rest: &str) -> String {
    format!("{LIFEBOAT} --policy {} wal {rest}", world.path("lifeboat.toml").display())
}

fn archive(server: &PgServer, world: &World) {
    server.psql(&format!("ALTER SYSTEM SET archive_command = '{}'", command(world, "push %p")));
    server.psql("SELECT pg_reload_conf()");
}

/// Waits until a statement gives true.
#[track_caller]
pub(crate) fn wait_for(server: &PgServer, sql: &str) {
    for _ in 0..MAX_LOOKS {
        if server.psql(sql) == "t" {
            return;
        }
        server.psql("SELECT pg_sleep(0.05)");
    }
    let archiver = server.psql("SELECT row_to_json(a) FROM pg_stat_archiver a");
    panic!("it never came true: {sql}\n{archiver}\n{}", server.log());
}

/// Ends the segment and waits until it is archived; gives its name.
#[track_caller]
fn archive_all(server: &PgServer) -> String {
    server.psql("SELECT pg_create_restore_point('here')");
    let name = server.psql("SELECT pg_walfile_name(pg_switch_wal())");
    // After a promotion an older segment may come last; what was archived long ago has no status any more.
    let done = format!("SELECT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name = '{name}.done')");
    let last = format!("SELECT coalesce(last_archived_wal >= '{name}', false) FROM pg_stat_archiver");
    wait_for(server, &format!("SELECT ({done}) OR ({last})"));
    name
}

fn failures(server: &PgServer) -> String {
    server.psql("SELECT failed_count FROM pg_stat_archiver")
}

/// Every log object of one copy. What a killed write left there goes with the next backup.
pub(crate) fn objects(world: &World, copy: &str) -> BTreeSet<String> {
    let folder = world.vault(copy, "shop").join("lifeboat/logs/wal");
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    let names = entries.map(|entry| entry.unwrap()).filter(|entry| entry.path().is_file());
    let names = names.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with(TEMP_PREFIX)).collect()
}

pub(crate) fn object(world: &World, copy: &str, name: &str) -> PathBuf {
    world.vault(copy, "shop").join("lifeboat/logs/wal").join(name)
}

/// Segments of the server, brought where an archiver would find them.
pub(crate) fn segment(server: &PgServer, world: &World, name: &str) -> PathBuf {
    let path = world.path(name);
    super::tree::write(&path, &fs::read(server.data().join("pg_wal").join(name)).unwrap());
    server.give(&path);
    path
}

/// Prepares a restored cluster to recover by `restore_command`.
fn recover_by_fetch(server: &PgServer, world: &World, cluster: &Path, fetch: &str, more: &str) {
    let path = cluster.join("postgresql.auto.conf");
    let before = fs::read_to_string(&path).unwrap();
    let line = format!("restore_command = '{}'\n{more}\n", command(world, fetch));
    server.write(&path, format!("{before}{line}").as_bytes());
    server.write(&cluster.join("recovery.signal"), b"");
}

#[test]
fn what_was_archived_under_load_is_restored_to_every_moment() {
    for major in [15, 18] {
        let server = server(major);
        let world = world(&server);
        world.backup("shop");
        archive(&server, &world);
        server.pgbench_init(1);
        for n in 1..=3 {
            server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
            server.pgbench_run(&["-c", "2", "-t", "200"]);
        }
        let middle = server.psql(NOW);
        for n in 4..=6 {
            server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        }
        archive_all(&server);
        assert_eq!(failures(&server), "0", "{}", server.log());
        let report = world.json(&["points", "shop"], 0);
        assert_eq!(report["ranges"].as_array().unwrap().len(), 1, "{report}");
        assert_eq!(report["ranges"][0]["gap_after"], false, "{report}");
        assert_eq!(world.promise("shop", "rpo").0, "kept");
        assert_eq!(objects(&world, "local"), objects(&world, "offsite"));
        world.run(&["verify", "shop"]).expect(0);
        world.run(&["restore", "shop", "--to", "latest"]).expect(0);
        assert_eq!(ask(&server, &world.path("latest"), LEDGER), "6|6", "{major}");
        world.run(&["restore", "shop", "--to", "middle", "--at", middle.trim()]).expect(0);
        assert_eq!(ask(&server, &world.path("middle"), LEDGER), "3|3", "{major}");
    }
}

#[test]
fn a_server_recovers_by_asking_for_every_segment() {
    for major in [15, 16, 18] {
        let server = server(major);
        let world = world(&server);
        let point = world.backup("shop");
        archive(&server, &world);
        server.pgbench_init(2);
        server.psql("INSERT INTO ledger (n) VALUES (1)");
        archive_all(&server);
        // Only the other copy has the last segment but one, and of the last one there is only a part.
        server.psql("INSERT INTO ledger (n) VALUES (2)");
        world.run(&["wal", "stream", "shop", "--once"]).expect(0);
        server.psql("INSERT INTO ledger (n) VALUES (3)");
        let names: Vec<String> = objects(&world, "local").into_iter().collect();
        assert!(names.len() > 20, "{names:?}");
        fs::remove_file(object(&world, "local", &names[names.len() - 2])).unwrap();
        fs::remove_file(object(&world, "offsite", &names[names.len() - 3])).unwrap();
        world.run(&["restore", "shop", "--to", "back", "--at", &point, "--skip-checks"]).expect(0);
        recover_by_fetch(&server, &world, &world.path("back"), "fetch %f %p", "");
        assert_eq!(ask(&server, &world.path("back"), NUMBERS), "1,2", "{major}");
        let log = fs::read_to_string(world.path("back/log-of-the-test")).unwrap();
        assert!(log.contains("restored log file") && log.contains("archive recovery complete"), "{log}");
        let left = |name: &str| {
            fs::read_dir(world.path("back/pg_wal"))
                .unwrap()
                .any(|entry| entry.unwrap().file_name().to_string_lossy().contains(name))
        };
        assert!(!left("lifeboat"), "a temporary file is left beside the server's own");
    }
}

#[test]
fn a_server_that_has_more_of_the_last_segment_itself_goes_on_with_its_own() {
    let mut server = server(15);
    let world = world(&server);
    let point = world.backup("shop");
    server.psql("INSERT INTO ledger (n) SELECT generate_series(1, 10)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    server.psql("INSERT INTO ledger (n) SELECT generate_series(11, 110)");
    server.crash();
    // Production is gone but for its last log: what was kept of the segment is less than what lies in it.
    let back = world.path("back");
    world.run(&["restore", "shop", "--to", "back", "--at", &point, "--skip-checks"]).expect(0);
    for entry in fs::read_dir(server.data().join("pg_wal")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().len() == 24 {
            server.write(&back.join("pg_wal").join(entry.file_name()), &fs::read(entry.path()).unwrap());
        }
    }
    recover_by_fetch(&server, &world, &back, "fetch %f %p", "");
    assert_eq!(ask(&server, &back, LEDGER), "110|110");
}

#[test]
fn a_segment_is_stored_once_however_often_and_in_however_many_pieces_it_comes() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    server.psql("INSERT INTO ledger (n) VALUES (1)");
    // What following the log stored of the segment is a part of it.
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let part = objects(&world, "local");
    server.psql("INSERT INTO ledger (n) VALUES (2)");
    let name = server.psql("SELECT pg_walfile_name(pg_switch_wal())");
    let path = segment(&server, &world, &name);
    let push = |path: &Path| world.json(&["wal", "push", &path.display().to_string()], 0);
    let first = push(&path);
    assert_eq!(first["kept"], "stored", "{first}");
    assert!(first["new_bytes"].as_u64().unwrap() < 1 << 20, "{first}");
    let stored = objects(&world, "local");
    assert!(stored.len() > part.len() && stored.is_superset(&part));
    let again = push(&path);
    assert_eq!((&again["kept"], &again["new_bytes"]), (&Value::from("already"), &Value::from(0)), "{again}");
    assert_eq!(objects(&world, "local"), stored);
    assert_eq!(objects(&world, "offsite"), stored);
    // Following goes on after it, and what that stored needs no push.
    server.psql("INSERT INTO ledger (n) VALUES (3)");
    let name = server.psql("SELECT pg_walfile_name(pg_switch_wal())");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let stored = objects(&world, "local");
    assert_eq!(push(&segment(&server, &world, &name))["kept"], "already");
    assert_eq!(objects(&world, "local"), stored);
    // A piece that one copy lost comes back with the next push of its segment.
    fs::remove_file(object(&world, "offsite", stored.last().unwrap())).unwrap();
    push(&segment(&server, &world, &name));
    assert_eq!(objects(&world, "offsite"), stored);
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), NUMBERS), "1,2,3");
    // The label of a base backup is no log.
    let label = world.path(&format!("{name}.00000028.backup"));
    super::tree::write(&label, b"START WAL LOCATION");
    server.give(&label);
    assert_eq!(push(&label)["kept"], "needless");
}

#[test]
fn another_segment_of_the_same_name_is_refused_and_nothing_changes() {
    let mut server = server(15);
    let world = world(&server);
    world.backup("shop");
    server.stop();
    let old = tempfile::Builder::new().prefix("lb-old-").tempdir_in("/tmp").unwrap();
    let copy = |from: &Path, to: &Path| {
        assert!(std::process::Command::new("cp").arg("-aT").arg(from).arg(to).status().unwrap().success());
    };
    copy(&server.data(), &old.path().join("data"));
    let switch = |server: &PgServer, n: u32| {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        server.psql("SELECT pg_walfile_name(pg_switch_wal())")
    };
    server.start_again();
    let name = switch(&server, 1);
    let path = segment(&server, &world, &name);
    let shown = path.display().to_string();
    world.run(&["wal", "push", &shown]).expect(0);
    let before = (objects(&world, "local"), fs::read(world.path("state/logs/shop/head.json")).unwrap());
    let unchanged = || {
        assert_eq!(objects(&world, "local"), before.0);
        assert_eq!(objects(&world, "offsite"), before.0);
        assert_eq!(fs::read(world.path("state/logs/shop/head.json")).unwrap(), before.1);
    };
    // The server was set back and wrote another history.
    server.stop();
    fs::remove_dir_all(server.data()).unwrap();
    copy(&old.path().join("data"), &server.data());
    server.start_again();
    assert_eq!(switch(&server, 2), name);
    segment(&server, &world, &name);
    let ran = world.run(&["wal", "push", &shown]).expect(3);
    assert!(ran.stderr.contains("holds other content"), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    unchanged();
    // Another cluster, another name, a byte, a part, nothing.
    let other = self::server(15);
    other.psql("CREATE TABLE filler AS SELECT g FROM generate_series(1, 100000) g");
    let foreign = other.psql("SELECT pg_walfile_name(pg_switch_wal())");
    let ran = world.run(&["wal", "push", &segment(&other, &world, &foreign).display().to_string()]).expect(3);
    assert!(ran.stderr.contains("is of the cluster"), "{ran:?}");
    let good = fs::read(segment(&server, &world, &name)).unwrap();
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    for (name, bytes, code) in [
        ("0000000100000000000000FF", good.as_slice(), 6),
        (name.as_str(), flipped.as_slice(), 6),
        (name.as_str(), &good[..good.len() / 2], 6),
        ("000000010000000000000001.copy", good.as_slice(), 2),
    ] {
        let path = world.path(name);
        super::tree::write(&path, bytes);
        server.give(&path);
        world.run(&["wal", "push", &path.display().to_string()]).expect(code);
        unchanged();
    }
    world.run(&["wal", "push", "missing/000000010000000000000001"]).expect(4);
}

#[test]
fn a_recovery_stops_where_something_is_wrong_instead_of_ending_early() {
    let server = server(15);
    let world = world(&server);
    let point = world.backup("shop");
    archive(&server, &world);
    server.pgbench_init(1);
    server.psql("INSERT INTO ledger (n) VALUES (1)");
    let last = archive_all(&server);
    let names: Vec<String> = objects(&world, "local").into_iter().collect();
    let victim = &names[names.len() / 2];
    let sound: Vec<Vec<u8>> =
        ["local", "offsite"].iter().map(|copy| fs::read(object(&world, copy, victim)).unwrap()).collect();
    let put = |copy: &str, bytes: &[u8]| {
        super::tree::write(&object(&world, copy, victim), bytes);
        server.give(&object(&world, copy, victim));
    };
    let recover = |fetch: &str| {
        wait_for_lease(&server, &world);
        drop(fs::remove_dir_all(world.path("state/ahead")));
        drop(fs::remove_dir_all(world.path("back")));
        let restore = ["restore", "shop", "--to", "back", "--at", &point, "--skip-checks", "--copy", "local"];
        world.run(&restore).expect(0);
        recover_by_fetch(&server, &world, &world.path("back"), fetch, "");
        try_ask(&server, &world.path("back"), LEDGER)
    };
    let mut bad = sound[0].clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    // Damaged in one copy: the other one helps. In both: the server must not go live.
    put("local", &bad);
    assert_eq!(recover("fetch %f %p").unwrap(), "1|1");
    put("offsite", &bad);
    let log = recover("fetch %f %p").unwrap_err();
    assert!(
        log.contains("FATAL") && log.contains("exit code 206") && !log.contains("recovery complete"),
        "{log}"
    );
    // Lost in both: a gap.
    for copy in ["local", "offsite"] {
        fs::remove_file(object(&world, copy, victim)).unwrap();
    }
    let log = recover("fetch %f %p").unwrap_err();
    assert!(log.contains("exit code 206") && log.contains("has a gap at"), "{log}");
    put("local", &sound[0]);
    put("offsite", &sound[1]);
    // A copy is away: what it may have more is not known, so the log does not end, unless that copy is given up.
    super::tree::rename(&world.vault("offsite", "shop"), &world.path("away"));
    let log = recover("fetch %f %p").unwrap_err();
    assert!(log.contains("exit code 204") && log.contains("--copy"), "{log}");
    assert_eq!(recover("fetch --copy local %f %p").unwrap(), "1|1");
    super::tree::rename(&world.path("away"), &world.vault("offsite", "shop"));
    let fetch = |name: &str| world.run(&["wal", "fetch", name, "out"]);
    let key = fs::read(world.path("secrets/lifeboat.key")).unwrap();
    let fresh = world.path("secrets/other.key");
    world.run(&["keys", "new-file", &fresh.display().to_string()]).expect(0);
    super::tree::write(&world.path("secrets/lifeboat.key"), &fs::read(&fresh).unwrap());
    server.give(&world.path("secrets"));
    fetch(&last).expect(206);
    super::tree::write(&world.path("secrets/lifeboat.key"), &key);
    server.give(&world.path("secrets"));
    fetch("nonsense").expect(202);
    world.run(&["wal", "fetch", "--nonsense"]).expect(202);
    world.run(&["--policy", "missing.toml", "wal", "fetch", &last, "out"]).expect(202);
    assert!(!world.path("out").exists());
    // What is really not kept ends the archive, calmly.
    let ran = fetch("0000000100000000000000FF").expect(1);
    assert_eq!((ran.stderr.lines().count(), ran.stdout.as_str()), (1, ""), "{ran:?}");
    fetch("00000002.history").expect(1);
    fetch(&last).expect(0);
    assert_eq!(
        fs::read(world.path("out")).unwrap(),
        fs::read(server.data().join("pg_wal").join(&last)).unwrap()
    );
}

#[test]
fn what_was_fetched_ahead_is_checked_when_it_is_handed_out_and_removed_when_it_is_stale() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    archive(&server, &world);
    let first = archive_all(&server);
    for n in 1..=14 {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        archive_all(&server);
    }
    let number = |name: &str| u64::from_str_radix(&name[8..], 16).unwrap();
    let name = |after: u64| format!("{}{:016X}", &first[..8], number(&first) + after);
    let ahead = || {
        let Ok(entries) = fs::read_dir(world.path("state/ahead/shop")) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    };
    let file = |after: u64| world.path("state/ahead/shop").join(format!("{}.segment", name(after)));
    // Asked for nothing yet; the process that a fetch leaves behind does the same as this.
    world.run(&["wal", "ahead", &name(0)]).expect(0);
    assert_eq!(ahead().len(), 8, "{:?}", ahead());
    let fetch = |after: u64| world.json(&["wal", "fetch", &name(after), "out"], 0);
    let same = |after: u64| {
        let kept = fs::read(world.path("out")).unwrap();
        assert!(kept == fs::read(server.data().join("pg_wal").join(name(after))).unwrap(), "{after}");
    };
    let report = fetch(1);
    assert_eq!(report["ahead"], true, "{report}");
    same(1);
    assert!(!file(1).exists());
    // A byte of it changed: it is fetched anew from a copy.
    let mut bytes = fs::read(file(2)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    super::tree::write(&file(2), &bytes);
    server.give(&file(2));
    let report = fetch(2);
    assert_eq!(report["ahead"], false, "{report}");
    same(2);
    // Another segment under this name.
    fs::remove_file(file(3)).unwrap();
    fs::hard_link(file(4), file(3)).unwrap();
    assert_eq!(fetch(3)["ahead"], false);
    same(3);
    assert_eq!(fetch(4)["ahead"], true);
    same(4);
    // No copy to say whose it is: nothing is handed out.
    let vaults = world.path("vaults");
    super::tree::rename(&vaults, &world.path("away"));
    world.run(&["wal", "fetch", &name(5), "out"]).expect(204);
    super::tree::rename(&world.path("away"), &vaults);
    // Of a recovery that went elsewhere nothing stays, and nothing that is not over is fetched ahead.
    wait_for_lease(&server, &world);
    world.run(&["wal", "ahead", &name(12)]).expect(0);
    assert_eq!(ahead(), [format!("{}.segment", name(13)), format!("{}.segment", name(14))]);
    world.run(&["wal", "fetch", "0000000100000000000000FF", "out"]).expect(1);
    assert_eq!(ahead(), [""; 0]);
}

/// Waits until no process that an earlier fetch left behind is at work.
fn wait_for_lease(server: &PgServer, world: &World) {
    let lock = world.path("state/locks/shop.ahead.lock");
    if !lock.exists() {
        return;
    }
    for _ in 0..MAX_LOOKS {
        let free = std::process::Command::new("flock").arg("-n").arg(&lock).arg("true").status().unwrap();
        if free.success() {
            return;
        }
        server.psql("SELECT pg_sleep(0.05)");
    }
    panic!("fetching ahead does not end");
}

#[test]
fn a_missing_segment_is_a_gap_until_it_comes_and_a_copy_that_is_away_gets_everything_later() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    let switch = |n: u32| {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        let name = server.psql("SELECT pg_walfile_name(pg_switch_wal())");
        segment(&server, &world, &name).display().to_string()
    };
    let paths = [switch(1), switch(2), switch(3), switch(4)];
    world.run(&["wal", "push", &paths[0]]).expect(0);
    let ran = world.run(&["wal", "push", &paths[2]]).expect(0);
    assert!(ran.stderr.contains("has a gap after"), "{ran:?}");
    let report = world.run(&["--json", "points", "shop"]).json();
    assert!(report["ranges"].as_array().unwrap().iter().any(|range| range["gap_after"] == true), "{report}");
    world.run(&["wal", "push", &paths[1]]).expect(0);
    let report = world.json(&["points", "shop"], 0);
    assert!(report["ranges"].as_array().unwrap().iter().all(|range| range["gap_after"] == false), "{report}");
    // One copy is away: success and a word of warning; with both away the server has to keep it.
    let offsite = world.vault("offsite", "shop");
    super::tree::rename(&offsite, &world.path("away"));
    let ran = world.run(&["wal", "push", &paths[3]]).expect(0);
    assert!(ran.stderr.contains("copy `offsite`") && ran.stderr.lines().count() == 1, "{ran:?}");
    let later = switch(5);
    world.run(&["wal", "push", &later]).expect(0);
    assert_eq!(objects(&world, "local").len(), 5);
    let local = world.vault("local", "shop");
    super::tree::rename(&local, &world.path("away-too"));
    let last = switch(6);
    let ran = world.run(&["wal", "push", &last]).expect(4);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    super::tree::rename(&world.path("away-too"), &local);
    super::tree::rename(&world.path("away"), &offsite);
    world.run(&["wal", "push", &last]).expect(0);
    assert_eq!(objects(&world, "local").len(), 6);
    assert_eq!(objects(&world, "offsite"), objects(&world, "local"));
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "6|6");
}

#[test]
fn archiving_beside_a_process_that_follows_the_log_mixes_and_loses_nothing() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    let mut follower = world.start(&["--no-progress", "wal", "stream", "shop"]);
    wait_for(&server, "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'");
    archive(&server, &world);
    server.pgbench_init(1);
    for n in 1..=4 {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        archive_all(&server);
    }
    // Two at once, of the same segment and of another.
    let last = archive_all(&server);
    let path = segment(&server, &world, &last);
    let mut pushes: Vec<_> =
        (0..4).map(|_| world.start(&["wal", "push", &path.display().to_string()])).collect();
    assert!(pushes.iter_mut().all(|push| push.wait().unwrap().success()));
    follower.kill().unwrap();
    follower.wait().unwrap();
    server.psql("INSERT INTO ledger (n) VALUES (5)");
    archive_all(&server);
    // No stretch is stored twice.
    let mut end = 0;
    for name in objects(&world, "local") {
        let offset = |part: usize| u64::from_str_radix(name.split('-').nth(part).unwrap(), 16).unwrap();
        assert!(end == 0 || offset(1) == end, "{name} does not begin at {end:X}");
        end = offset(2);
    }
    assert_eq!(objects(&world, "offsite"), objects(&world, "local"));
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "5|5");
}

#[test]
fn a_push_or_a_fetch_killed_at_any_moment_leaves_nothing_half_and_the_next_one_succeeds() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    let switch = |n: u64| {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        let name = server.psql("SELECT pg_walfile_name(pg_switch_wal())");
        (segment(&server, &world, &name).display().to_string(), name)
    };
    let (path, first) = switch(1);
    let mut kills = Kills::of(KILLS, &world, &["wal", "push", &path], "kills of pushes");
    let mut n = 1;
    while let Some(moment) = kills.next() {
        n += 1;
        let (path, _) = switch(n);
        kills.kill(world.start(&["wal", "push", &path]), moment);
        world.run(&["wal", "push", &path]).expect(0);
        assert_eq!(objects(&world, "local"), objects(&world, "offsite"));
        assert_eq!(objects(&world, "local").len(), usize::try_from(n).unwrap(), "after {moment:?}");
    }
    let sound = fs::read(server.data().join("pg_wal").join(&first)).unwrap();
    let mut kills = Kills::of(KILLS, &world, &["wal", "fetch", &first, "out"], "kills of fetches");
    while let Some(moment) = kills.next() {
        drop(fs::remove_file(world.path("out")));
        kills.kill(world.start(&["wal", "fetch", &first, "out"]), moment);
        assert!(fs::read(world.path("out")).map_or(true, |found| found == sound), "after {moment:?}");
        world.run(&["wal", "fetch", &first, "out"]).expect(0);
        assert!(fs::read(world.path("out")).unwrap() == sound, "after {moment:?}");
    }
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), format!("{n}|{n}"));
    world.backup("shop");
    world.run(&["verify", "shop"]).expect(0);
}

#[test]
fn a_promotion_is_archived_and_both_timelines_can_be_recovered() {
    for major in [15, 18] {
        let server = server(major);
        let world = world(&server);
        let point = world.backup("shop");
        archive(&server, &world);
        server.psql("INSERT INTO ledger (n) VALUES (1)");
        archive_all(&server);
        let standby = server.standby();
        server.psql("INSERT INTO ledger (n) VALUES (2)");
        let at = server.psql("SELECT pg_current_wal_lsn()");
        wait_for(&standby, &format!("SELECT pg_last_wal_replay_lsn() >= '{at}'"));
        // It dies without a word, in the middle of a segment.
        let mut server = server;
        server.crash();
        standby.promote();
        standby.psql("INSERT INTO ledger (n) VALUES (3)");
        archive_all(&standby);
        assert_eq!(failures(&standby), "0", "{}", standby.log());
        let sorts = standby.log();
        assert!(!sorts.contains("exit code"), "{sorts}");
        // The part of the old timeline's last segment was kept too: the file the promotion renamed.
        let parts = fs::read_dir(standby.data().join("pg_wal/archive_status")).unwrap();
        let parts: Vec<String> =
            parts.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(parts.iter().any(|name| name.contains(".partial.done")), "{parts:?}");
        world.run(&["restore", "shop", "--to", "latest"]).expect(0);
        assert_eq!(ask(&standby, &world.path("latest"), NUMBERS), "1,2,3", "{major}");
        for (target, timeline, expected) in [("new", "latest", "1,2,3"), ("old", "1", "1,2")] {
            world.run(&["restore", "shop", "--to", target, "--at", &point, "--skip-checks"]).expect(0);
            let more = format!("recovery_target_timeline = '{timeline}'");
            recover_by_fetch(&standby, &world, &world.path(target), "fetch %f %p", &more);
            assert_eq!(ask(&standby, &world.path(target), NUMBERS), expected, "{major}");
        }
        // Again, each of them, on a machine that knows nothing but the vaults.
        super::tree::rename(&world.path("state"), &world.path("state-before"));
        let path = segment(&standby, &world, "00000002.history");
        assert_eq!(world.json(&["wal", "push", &path.display().to_string()], 0)["kept"], "stored");
        fs::remove_dir_all(world.path("state")).unwrap();
        world.run(&["wal", "fetch", "00000002.history", "made"]).expect(0);
        let first =
            |path: &Path| fs::read_to_string(path).unwrap().split('\t').take(2).collect::<Vec<_>>().join(" ");
        assert_eq!(first(&world.path("made")), first(&path));
        super::tree::write(&path, b"1\t0/1234567\tno recovery target specified\n");
        standby.give(&path);
        world.run(&["wal", "push", &path.display().to_string()]).expect(3);
    }
}
