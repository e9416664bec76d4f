//! The files of a server beside us: the log before the dump, under load and rewrites, damaged in every way, and restored.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lifeboat_base::time::{Clock, SystemClock, Timestamp};
use lifeboat_redis::wire::{Connection, Reply};
use lifeboat_testkit::{RedisOptions, RedisServer};

use super::kills::Kills;
use super::places::SmallDisk;
use super::redis::{content, server_with, start_restored};
use super::redis_log::{ledger, write};
use super::tree;
use super::world::World;

fn logged() -> RedisOptions {
    RedisOptions::default().set("appendonly", "yes")
}

/// A world whose row takes the files in `dir`.
fn of_files(dir: &Path) -> World {
    let mut world = World::of_redis("redis://127.0.0.1:1");
    let row = format!("capture = \"files\"\ndir = \"{}\"", dir.display());
    world.policy = world.policy.replace("url = \"env:CACHE_URL\"\nlogs = \"7d\"", &row);
    world.write_policy(&world.policy);
    world.env.clear();
    world
}

/// The same, with the server's configuration.
fn configured(world: &World, text: &str) {
    tree::write(&world.path("server.conf"), text.as_bytes());
    let row = "capture = \"files\"\nconfig = \"./server.conf\"";
    world.write_policy(&world.policy.replace("capture = \"files\"", row));
}

#[track_caller]
fn moment(world: &World) -> Timestamp {
    let report = world.json(&["points", "cache"], 0);
    let points = report["points"].as_array().unwrap();
    points.iter().map(|point| point["moment"].as_str().unwrap().parse().unwrap()).max().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        tree::files(dir).into_iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Rewrites the log, to its end.
fn rewrite(server: &RedisServer) {
    server.run("BGREWRITEAOF");
    while server.connect().info("persistence").unwrap().get("aof_rewrite_in_progress") != Some("0") {
        std::thread::yield_now();
    }
}

/// A log of a base and two increments, at rest.
fn at_rest() -> (tempfile::TempDir, PathBuf) {
    let mut server = server_with(logged());
    rewrite(&server);
    for number in 1..=20 {
        write(&mut server.connect(), number);
    }
    server.crash();
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (server.data().join("appendonlydir"), temp.path().join("appendonlydir"));
    fs::create_dir(&to).unwrap();
    for name in names(&from) {
        tree::write(&to.join(&name), &fs::read(from.join(&name)).unwrap());
    }
    let list = to.join("appendonly.aof.manifest");
    let text = fs::read_to_string(&list).unwrap();
    let last = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$4\r\nlast\r\n$3\r\nyes\r\n";
    tree::write(&to.join("appendonly.aof.9.incr.aof"), last.as_bytes());
    tree::write(&list, format!("{text}file appendonly.aof.9.incr.aof seq 9 type i\n").as_bytes());
    (temp, to)
}

#[test]
fn the_log_of_a_running_server_is_taken_drilled_and_restored_and_nothing_is_written_there() {
    let server = server_with(logged());
    // Older than the log: what it shows is not what the server has.
    server.run("SAVE");
    for number in 1..=50 {
        write(&mut server.connect(), number);
    }
    let before = names(&server.data());
    let world = of_files(&server.data());
    let said = world.run(&["check"]).expect(0).stdout;
    assert!(said.contains("files of Redis 7"), "{said}");
    world.backup("cache");
    let age = SystemClock::new().now().duration_since(moment(&world));
    assert!(age.as_secs() < 60, "{age}");
    assert_eq!(world.promise("cache", "rpo").0, "kept");
    assert_eq!(names(&server.data()), before);
    let report = world.json(&["drill", "cache"], 0);
    let checks = report["stores"][0]["checks"].as_array().unwrap();
    for id in ["redis.files", "redis.check_rdb", "redis.check_aof", "redis.start", "redis.command/1"] {
        let check = checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("{id}: {report}"));
        assert_eq!((&check["state"], &check["canary_caught"]), (&"passed".into(), &true.into()), "{check}");
    }
    world.run(&["verify", "cache"]).expect(0);
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert_eq!(content(&start_restored(&world.path("back"))).databases, content(&server).databases);
    assert_eq!(ledger(&world, "back"), (1..=50).collect::<Vec<_>>());
    let target = RedisServer::start(RedisOptions::default());
    world.run(&["restore", "cache", "--to", &target.url()]).expect(0);
    assert_eq!(content(&target).databases, content(&server).databases);
}

#[test]
fn a_dump_alone_is_as_old_as_it_says_and_its_content_is_proven() {
    let server = server_with(RedisOptions::default());
    let expected = content(&server).databases;
    server.run("SET later 1");
    let world = of_files(&server.data());
    world.write_policy(&world.policy.replace("rpo = \"5m\"", "rpo = \"2s\""));
    server.run("BLPOP nothing 4");
    let before = SystemClock::new().now();
    world.backup("cache");
    assert!(before.duration_since(moment(&world)).as_secs() >= 3);
    assert_eq!(world.promise("cache", "rpo").0, "broken");
    let report = world.json(&["drill", "cache"], 5);
    let text = report.to_string();
    assert!(text.contains("redis.content/db15"), "{text}");
    let checks = report["stores"][0]["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["state"] != "failed"), "{text}");
    world.run(&["restore", "cache", "--to", "back"]);
    let back = start_restored(&world.path("back"));
    assert_eq!(content(&back).databases, expected);
    assert_eq!(back.run("GET later"), Reply::Null);
}

#[test]
fn a_log_that_may_be_off_is_not_guessed_at_and_the_configuration_decides() {
    let mut server = server_with(logged());
    server.run("CONFIG SET appendonly no");
    server.run("SET only-in-the-dump 1");
    server.run("BLPOP nothing 3");
    let expected = content(&server).databases;
    let world = of_files(&server.data());
    let ran = world.run(&["backup", "cache"]).expect(3);
    assert!(format!("{ran:?}").contains("nothing here says which of them the server has"), "{ran:?}");
    assert!(world.points("cache").is_empty());
    configured(&world, "appendonly no\n");
    world.backup("cache");
    world.run(&["restore", "cache", "--to", "dump"]).expect(0);
    assert_eq!(content(&start_restored(&world.path("dump"))).databases, expected);
    // A server that is started with this takes the older log, and so is what it would have; as old as the log.
    configured(&world, "appendonly yes\n");
    server.stop();
    let before = SystemClock::new().now();
    let point = world.backup("cache");
    world.run(&["restore", "cache", "--to", "log", "--at", &point]).expect(0);
    assert_eq!(start_restored(&world.path("log")).run("GET only-in-the-dump"), Reply::Null);
    let report = world.json(&["points", "cache"], 0);
    let shown =
        report["points"].as_array().unwrap().iter().find(|shown| shown["id"] == point.as_str()).unwrap();
    let shown: Timestamp = shown["moment"].as_str().unwrap().parse().unwrap();
    assert!(before.duration_since(shown).as_secs() >= 3, "{report}");
    // Without a log, a dump beside it is not what such a server has.
    fs::remove_dir_all(server.data().join("appendonlydir")).unwrap();
    let ran = world.run(&["backup", "cache"]).expect(4);
    assert!(format!("{ran:?}").contains("there is no appendonlydir/appendonly.aof.manifest"), "{ran:?}");
    configured(&world, "include /etc/other.conf\n");
    world.run(&["backup", "cache"]).expect(3);
}

#[test]
fn rewrites_under_load_never_tear_or_lose_what_was_acknowledged() {
    const ROUNDS: usize = 10;
    let server = server_with(logged().set("appendfsync", "no"));
    let world = of_files(&server.data());
    let rewrites = || server.connect().info("stats").unwrap().number("total_forks").unwrap_or_default();
    let (done, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut points = Vec::new();
    let mut worst = 0.0_f64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = Connection::open(&server.options()).unwrap();
            while !done.load(Ordering::Acquire) {
                let number = acknowledged.load(Ordering::Acquire) + 1;
                write(&mut connection, number);
                acknowledged.store(number, Ordering::Release);
            }
        });
        scope.spawn(|| {
            let mut connection = Connection::open(&server.options()).unwrap();
            while !done.load(Ordering::Acquire) {
                // Refused while one is at work.
                drop(connection.ask("BGREWRITEAOF"));
            }
        });
        // A busy machine may rewrite less often than it captures: only then are there more rounds.
        while points.len() < ROUNDS || (rewrites() <= ROUNDS as u64 && points.len() < 5 * ROUNDS) {
            let before = acknowledged.load(Ordering::Acquire);
            let point = world.backup("cache");
            let age = SystemClock::new().now().duration_since(moment(&world));
            worst = worst.max(age.as_secs_f64());
            points.push((before, point, acknowledged.load(Ordering::Acquire)));
        }
        done.store(true, Ordering::Release);
    });
    let (captures, rewrites) = (points.len(), rewrites());
    println!(
        "{captures} captures during {rewrites} rewrites; a point was at most {worst:.1} s old when it was there"
    );
    assert!(rewrites > ROUNDS as u64);
    for (round, (before, point, after)) in points.iter().enumerate() {
        let target = format!("round-{round}");
        world.run(&["restore", "cache", "--to", &target, "--at", point]).expect(0);
        let numbers = ledger(&world, &target);
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        assert!((*before..=*after).contains(&(numbers.len() as u64)), "{before} {} {after}", numbers.len());
    }
    world.run(&["drill", "cache"]).expect(0);
}

/// Something done to the files, what is said about it, and the exit code.
type Damage = (fn(&Path), &'static str, i32);

const BASE: &str = "appendonly.aof.2.base.rdb";
const FIRST: &str = "appendonly.aof.2.incr.aof";
const LIST: &str = "appendonly.aof.manifest";

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    tree::write(path, &bytes);
}

const DAMAGES: [Damage; 16] = [
    (|dir| fs::remove_file(dir.join(BASE)).unwrap(), "aof.2.base.rdb, which is missing", 4),
    (|dir| fs::remove_file(dir.join(FIRST)).unwrap(), "aof.2.incr.aof, which is missing", 4),
    (|dir| fs::remove_file(dir.join(LIST)).unwrap(), "there is no appendonlydir/appendonly.aof.manifest", 4),
    (|dir| edit(&dir.join(BASE), |bytes| bytes.truncate(bytes.len() / 2)), "appendonly.aof.2.base.rdb", 4),
    (|dir| edit(&dir.join(BASE), |bytes| bytes.truncate(20)), "appendonly.aof.2.base.rdb", 4),
    (|dir| edit(&dir.join(BASE), Vec::clear), "appendonly.aof.2.base.rdb", 4),
    (
        |dir| {
            edit(&dir.join(BASE), |bytes| {
                let end = bytes.len() - 1;
                bytes[end] ^= 1;
            });
        },
        "checksum",
        4,
    ),
    (
        |dir| edit(&dir.join(FIRST), |bytes| bytes.truncate(bytes.len() - 3)),
        "aof.2.incr.aof ends in the middle",
        4,
    ),
    (|dir| edit(&dir.join(FIRST), |bytes| bytes[30] = 0), "aof.2.incr.aof is no sound file of commands", 4),
    (
        |dir| edit(&dir.join("appendonly.aof.9.incr.aof"), |bytes| bytes.extend([0; 64])),
        "aof.9.incr.aof is no sound file of commands",
        4,
    ),
    (|dir| edit(&dir.join(LIST), |bytes| bytes.truncate(bytes.len() - 9)), "manifest is damaged in line", 4),
    (
        |dir| edit(&dir.join(LIST), |bytes| bytes.extend(b"file ../x seq 10 type i\n")),
        "leads out of the folder",
        4,
    ),
    (
        |dir| {
            fs::remove_file(dir.join(FIRST)).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", dir.join(FIRST)).unwrap();
        },
        "aof.2.incr.aof is a symbolic link",
        3,
    ),
    (
        |dir| {
            fs::remove_file(dir.join(BASE)).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, dir.join(BASE), rustix::fs::Mode::RWXU).unwrap();
        },
        "aof.2.base.rdb is a named pipe",
        3,
    ),
    (
        |dir| {
            fs::remove_file(dir.join(LIST)).unwrap();
            drop(UnixListener::bind(dir.join(LIST)).unwrap());
        },
        "manifest is a socket",
        3,
    ),
    (
        |dir| {
            let away = dir.with_file_name("away");
            tree::rename(dir, &away);
            std::os::unix::fs::symlink(&away, dir).unwrap();
        },
        "appendonlydir is a symbolic link",
        3,
    ),
];

#[test]
fn every_kind_of_damage_is_refused_by_name_and_no_point_is_made() {
    for (index, (damage, said, code)) in DAMAGES.iter().enumerate() {
        let (temp, log) = at_rest();
        let world = of_files(temp.path());
        damage(&log);
        let ran = world.run(&["backup", "cache"]).expect(*code);
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains(said), "{index}: {said}: {ran:?}");
        assert!(world.points("cache").is_empty(), "{index}: {said}");
    }
}

#[test]
fn the_last_file_is_cut_after_its_last_whole_command_and_a_log_at_rest_is_as_old_as_its_last_change() {
    let (temp, log) = at_rest();
    let world = of_files(temp.path());
    let last = log.join("appendonly.aof.9.incr.aof");
    edit(&last, |bytes| {
        bytes.extend(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\ntorn\r\n$1\r\n1\r\n*1\r\n$4\r\nEX");
    });
    let ran = world.run(&["backup", "cache"]).expect(5);
    let said = "the last 55 bytes of appendonlydir/appendonly.aof.9.incr.aof are no whole command";
    assert!(format!("{ran:?}").contains(said), "{ran:?}");
    world.run(&["drill", "cache"]).expect(0);
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert_eq!(ledger(&world, "back"), (1..=20).collect::<Vec<_>>());
    let back = start_restored(&world.path("back"));
    assert_eq!(back.run("GET last"), Reply::Bulk(b"yes".to_vec()));
    assert_eq!(back.run("GET torn"), Reply::Null);
    let changed = fs::metadata(&last).unwrap().modified().unwrap();
    // A full disk may have taken only a part of the last write.
    assert_eq!(Timestamp::try_from(changed).unwrap() - Duration::from_secs(2), moment(&world));
}

#[test]
fn a_base_without_a_checksum_is_taken_and_told_each_time() {
    let server = server_with(logged().set("rdbchecksum", "no"));
    rewrite(&server);
    let world = of_files(&server.data());
    for _ in 0..2 {
        let ran = world.run(&["backup", "cache"]).expect(5);
        assert!(format!("{ran:?}").contains("written without a checksum (`rdbchecksum no`)"), "{ran:?}");
    }
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert_eq!(content(&start_restored(&world.path("back"))).databases, content(&server).databases);
}

#[test]
fn logs_of_commands_alone_of_one_file_and_with_times_in_them_are_taken_too() {
    // A base of commands, and notes with times between them.
    let options = || logged().set("aof-use-rdb-preamble", "no").set("aof-timestamp-enabled", "yes");
    let mut server = server_with(options());
    rewrite(&server);
    write(&mut server.connect(), 1);
    let expected = content(&server).databases;
    fs::remove_file(server.data().join("dump.rdb")).unwrap();
    server.crash();
    let world = of_files(&server.data());
    world.backup("cache");
    world.run(&["drill", "cache"]).expect(0);
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert_eq!(content(&start_restored(&world.path("back"))).databases, expected);
    // No later than what the files can show.
    let log = server.data().join("appendonlydir");
    let changed =
        names(&log).iter().map(|name| fs::metadata(log.join(name)).unwrap().modified().unwrap()).max();
    let changed = Timestamp::try_from(changed.unwrap()).unwrap();
    assert!(moment(&world) <= changed - Duration::from_secs(2), "{} {changed}", moment(&world));
    // One file, as before version 7: with a dump in front, and without.
    for preamble in ["yes", "no"] {
        let mut server = server_with(logged().set("aof-use-rdb-preamble", preamble));
        rewrite(&server);
        write(&mut server.connect(), 1);
        server.crash();
        let log = server.data().join("appendonlydir");
        let files: Vec<String> = names(&log).into_iter().filter(|name| !name.ends_with("manifest")).collect();
        let old = tempfile::tempdir().unwrap();
        let joined: Vec<u8> = files.iter().flat_map(|name| fs::read(log.join(name)).unwrap()).collect();
        tree::write(&old.path().join("appendonly.aof"), &joined);
        let world = of_files(old.path());
        world.backup("cache");
        world.run(&["drill", "cache"]).expect(0);
        world.run(&["restore", "cache", "--to", "back"]).expect(0);
        server.start_again();
        assert_eq!(content(&start_restored(&world.path("back"))).databases, content(&server).databases);
    }
}

#[test]
fn a_capture_of_files_killed_at_any_moment_or_on_a_full_disk_loses_no_point() {
    let server = server_with(logged());
    let world = of_files(&server.data());
    let mut committed = vec![world.backup("cache")];
    let mut kills = Kills::of(6, &world, &["backup", "cache"], "kills of captures of files");
    while let Some(moment) = kills.next() {
        server.run(&format!("SET round:{} 1", moment.as_micros()));
        kills.kill(world.start(&["backup", "cache"]), moment);
        let listed = world.points("cache");
        assert!(committed.iter().all(|point| listed.contains(point)), "after {moment:?}: {listed:?}");
        committed = listed;
    }
    world.backup("cache");
    world.run(&["verify", "cache"]).expect(0);
    world.run(&["evidence", "verify"]).expect(0);
    let small = of_files(&server.data());
    let disk = SmallDisk::mount(&small.path("vaults"), 48);
    let ran = small.run(&["backup", "cache"]);
    assert!(!matches!(ran.code, Some(0)), "{ran:?}");
    assert!(small.points("cache").is_empty());
    disk.remount("size=64m");
    small.backup("cache");
    small.run(&["drill", "cache"]).expect(0);
}

#[test]
fn a_folder_that_is_no_servers_is_said_to_be_none() {
    let temp = tempfile::tempdir().unwrap();
    let world = of_files(temp.path());
    let ran = world.run(&["backup", "cache"]).expect(4);
    assert!(format!("{ran:?}").contains("holds neither"), "{ran:?}");
    let world = of_files(&temp.path().join("gone"));
    world.run(&["backup", "cache"]).expect(4);
    world.run(&["check"]).expect(4);
}
