//! A Redis row under kills, full disks and damage: nothing committed is lost, nothing is doubled, nothing wrong is believed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_redis::wire::Connection;

use super::kills::{Kills, kill_after};
use super::places::SmallDisk;
use super::redis::{content, server, start_restored, words};
use super::redis_log::{Follower, ledger, once, shipped, write};
use super::tree::{self, Random};
use super::world::World;

/// Moments at which each command is killed.
const BACKUPS: u64 = 8;
const FOLLOWERS: u64 = 10;
/// A follower lives at most so long before it is killed.
const LIFE_MS: u64 = 900;

#[test]
fn a_backup_of_a_server_killed_at_any_moment_loses_no_point_and_the_next_one_succeeds() {
    let server = server();
    let world = World::of_redis(&server.url());
    let mut committed = vec![world.backup("cache")];
    let mut kills = Kills::of(BACKUPS, &world, &["backup", "cache"], "kills of backups of a server");
    while let Some(moment) = kills.next() {
        server.run(&format!("SET round:{} 1", moment.as_micros()));
        kills.kill(world.start(&["backup", "cache"]), moment);
        let listed = world.points("cache");
        assert!(committed.iter().all(|point| listed.contains(point)), "after {moment:?}: {listed:?}");
        committed = listed;
    }
    let expected = content(&server).databases;
    let newest = world.backup("cache");
    world.run(&["verify", "cache"]).expect(0);
    world.run(&["drill", "cache"]).expect(0);
    world.run(&["restore", "cache", "--to", "back", "--at", &newest]).expect(0);
    assert_eq!(content(&start_restored(&world.path("back"))).databases, expected);
    world.run(&["evidence", "verify"]).expect(0);
}

#[test]
fn a_follower_killed_at_any_moment_loses_nothing_and_doubles_nothing() {
    let server = server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    let mut random = Random::printed("kills of followers of a server");
    let mut number = 0;
    let mut connection = server.connect();
    for _ in 0..FOLLOWERS {
        let child = world.start(&["wal", "stream", "cache"]);
        let options = server.options();
        let life = Duration::from_millis(random.below(LIFE_MS));
        let first = number + 1;
        number = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut connection = Connection::open(&options).unwrap();
                for number in first..first + 150 {
                    write(&mut connection, number);
                    // Done twice by a stream that is doubled, and not at all by one that is cut.
                    connection.ask("INCR counted").unwrap();
                }
                first + 149
            });
            kill_after(child, life);
            writer.join().unwrap()
        });
    }
    once(&world);
    world.run(&["restore", "cache", "--to", "latest"]).expect(0);
    assert_eq!(ledger(&world, "latest"), (1..=number).collect::<Vec<_>>());
    let back = start_restored(&world.path("latest"));
    assert_eq!(back.run("GET counted").text(), Some(number.to_string()));
    assert_eq!(content(&back).databases, content(&server).databases);
    connection.ask("SET last 1").unwrap();
    // The next point is the proof of every byte in between.
    world.backup("cache");
    once(&world);
    stream_is_proven(&world);
}

/// A drill compares an older point and the stream up to the newest one with that one.
#[track_caller]
fn stream_is_proven(world: &World) {
    let report = world.json(&["drill", "cache"], 0);
    let checks = report["stores"][0]["checks"].as_array().unwrap();
    let check =
        checks.iter().find(|check| check["id"] == "redis.stream").unwrap_or_else(|| panic!("{report}"));
    assert_eq!((&check["state"], &check["canary_caught"]), (&"passed".into(), &true.into()), "{check}");
}

#[test]
fn a_drill_proves_the_stream_between_the_two_newest_points() {
    let server = server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    let report = world.json(&["drill", "cache"], 0);
    assert!(!report.to_string().contains("redis.stream"), "one point proves no stream: {report}");
    once(&world);
    server.load((0..300).map(|n| words(&format!("INCRBY counter:{} {n}", n % 7))));
    server.load((0..300).map(|n| words(&format!("XADD events * n {n}"))));
    server.load((0..60).map(|n| words(&format!("SET short:{n} v PX {}", 1 + n))));
    server.load((0..50).map(|n| words(&format!("SPOP tags:{} 1", n % 3))));
    // How many entries a group has read is not in the stream.
    server.load(["XREADGROUP GROUP workers b COUNT 9 STREAMS events >"].map(words));
    for number in 1..=50 {
        write(&mut server.connect(), number);
    }
    world.backup("cache");
    once(&world);
    stream_is_proven(&world);
    // Nothing was written between these two.
    world.backup("cache");
    once(&world);
    world.run(&["drill", "cache"]).expect(0);
}

#[test]
fn a_drill_killed_with_a_server_running_leaves_none_after_the_next_one() {
    let server = server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    // Its first server is that of the checks, its later ones those of the canaries.
    for wanted in [1, 4] {
        let mut drill = world.start(&["drill", "cache"]);
        let note = format!("process {}", drill.id());
        let mut seen: Vec<PathBuf> = Vec::new();
        let folder = loop {
            assert!(drill.try_wait().unwrap().is_none(), "the drill ended before its servers were seen");
            let folders = fs::read_dir("/tmp").unwrap().filter_map(Result::ok).map(|entry| entry.path());
            let own = |folder: &PathBuf| {
                folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lb-redis-"))
                    && fs::read_to_string(folder.join("lease")).is_ok_and(|text| text.ends_with(&note))
                    && folder.join("s").exists()
            };
            let new: Vec<PathBuf> = folders.filter(own).filter(|folder| !seen.contains(folder)).collect();
            seen.extend(new);
            if seen.len() >= wanted
                && let Some(folder) = seen.last().filter(|folder| folder.join("s").exists())
            {
                break folder.clone();
            }
        };
        drill.kill().unwrap();
        drill.wait().unwrap();
        world.run(&["drill", "cache"]).expect(0);
        assert_eq!(servers_of(&folder), 0);
        assert!(!folder.exists(), "{}", folder.display());
    }
}

/// Processes that have the folder in their command line.
fn servers_of(folder: &Path) -> usize {
    let name = folder.to_string_lossy().into_owned();
    let pids = fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path());
    pids.filter(|pid| {
        fs::read(pid.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&name))
    })
    .count()
}

#[test]
fn a_full_spool_is_told_and_everything_arrives_when_there_is_room_again() {
    let server = server();
    // A replica that is not heard from for so long is given up by the server.
    server.run("CONFIG SET repl-timeout 3");
    let mut world = World::of_redis(&server.url());
    world.policy = world.policy.replace("rpo = \"5m\"", "rpo = \"2s\"");
    world.write_policy(&world.policy);
    world.backup("cache");
    tree::rename(&world.vault("offsite", "cache"), &world.path("away"));
    let said = world.path("said");
    let mut command = world.command(&["--no-progress", "wal", "stream", "cache", "--spool-limit", "1"]);
    let child = command.stderr(fs::File::create(&said).unwrap()).stdout(std::process::Stdio::null()).spawn();
    let follower = Follower(child.unwrap());
    let value = "x".repeat(4096);
    let mut connection = server.connect();
    let mut number = 0;
    while server.connect().info("replication").unwrap().get("connected_slaves") != Some("1") {
        std::thread::yield_now();
    }
    for _ in 0..400 {
        number += 1;
        write(&mut connection, number);
        connection.ask(&format!("SET large:{} {value}", number % 50)).unwrap();
    }
    while !fs::read_to_string(&said).unwrap().contains("which is the limit") {
        server.run("BLPOP nothing 0.1");
    }
    let told = fs::read_to_string(&said).unwrap();
    let line = told.lines().find(|line| line.contains("which is the limit")).unwrap();
    assert!(line.contains("at risk: rpo of `cache`") && line.contains("next: "), "{line}");
    for _ in 0..100 {
        number += 1;
        write(&mut connection, number);
    }
    // It says that it lives also while it takes nothing. The server's clock is the one that counts.
    server.run("BLPOP nothing 8");
    assert!(!server.log().contains("Disconnecting timedout replica"), "{}", server.log());
    tree::rename(&world.path("away"), &world.vault("offsite", "cache"));
    let reached = lifeboat_redis::replication::place(&mut connection).unwrap().offset;
    while ["local", "offsite"].iter().any(|copy| shipped(&world, copy) < reached) {
        server.run("BLPOP nothing 0.1");
    }
    drop(follower);
    world.run(&["restore", "cache", "--to", "back", "--copy", "offsite"]).expect(0);
    assert_eq!(ledger(&world, "back"), (1..=number).collect::<Vec<_>>());
}

#[test]
fn a_full_state_disk_stops_the_follower_loudly_and_nothing_of_the_stream_is_lost() {
    let server = server();
    let world = World::of_redis(&server.url());
    let disk = SmallDisk::mount(&world.path("state"), 512);
    world.backup("cache");
    write(&mut server.connect(), 1);
    once(&world);
    tree::write(&world.path("state/filler"), b"");
    let filler = fs::File::options().write(true).open(world.path("state/filler")).unwrap();
    let mut room = 0u64;
    while std::os::unix::fs::FileExt::write_at(&filler, &[1; 4096], room).is_ok() {
        room += 4096;
    }
    for number in 2..=200 {
        write(&mut server.connect(), number);
    }
    let ran = world.run(&["wal", "stream", "cache", "--once"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    fs::remove_file(world.path("state/filler")).unwrap();
    disk.remount("size=64m");
    once(&world);
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert_eq!(ledger(&world, "back"), (1..=200).collect::<Vec<_>>());
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    tree::write(path, &bytes);
}

/// The largest file below a folder.
fn largest(folder: &Path) -> PathBuf {
    let below = tree::files(folder).into_iter().map(|name| folder.join(name));
    below.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn a_flipped_bit_in_the_dump_or_the_stream_is_found_named_and_never_restored() {
    let server = server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    for number in 1..=300 {
        write(&mut server.connect(), number);
    }
    once(&world);
    let everything = content(&server).databases;
    let packs = |copy: &str| largest(&world.vault(copy, "cache").join("data"));
    let pieces = |copy: &str| largest(&world.vault(copy, "cache").join("lifeboat/logs/commands"));
    for (name, find) in [("pack", &packs as &dyn Fn(&str) -> PathBuf), ("piece", &pieces)] {
        let sound = ["local", "offsite"].map(|copy| (find(copy), fs::read(find(copy)).unwrap()));
        // In one copy: the other one gives everything.
        flip(&sound[0].0);
        let ran = world.run(&["verify", "cache"]).expect(6);
        let object = sound[0].0.file_name().unwrap().to_string_lossy().into_owned();
        assert!(ran.stdout.contains(&object), "{object}: {ran:?}");
        let target = format!("{name}-other");
        let ran = world.run(&["restore", "cache", "--to", &target]);
        assert!(matches!(ran.code, Some(0 | 5 | 6)), "{ran:?}");
        assert_eq!(content(&start_restored(&world.path(&target))).databases, everything, "{name}");
        // In both: what cannot be given is not given, and whoever asked is told.
        flip(&sound[1].0);
        let target = format!("{name}-none");
        let ran = world.run(&["restore", "cache", "--to", &target]);
        assert!(matches!(ran.code, Some(3 | 5 | 6)), "{ran:?}");
        if world.path(&target).exists() {
            assert_eq!(ledger(&world, &target).len(), 0, "part of a damaged piece was replayed");
        }
        for (path, bytes) in &sound {
            tree::write(path, bytes);
        }
        world.run(&["verify", "cache"]).expect(0);
    }
    world.run(&["restore", "cache", "--to", "back"]).expect(0);
    assert_eq!(content(&start_restored(&world.path("back"))).databases, everything);
}

#[test]
fn the_files_of_a_restored_log_are_one_set_and_none_of_them_is_a_backup_alone() {
    let server = server();
    let world = World::of_redis(&server.url());
    world.backup("cache");
    for number in 1..=100 {
        write(&mut server.connect(), number);
    }
    once(&world);
    world.run(&["restore", "cache", "--to", "whole"]).expect(0);
    let keys = content(&server).keys();
    assert_eq!(content(&start_restored(&world.path("whole"))).keys(), keys);
    let set = ["appendonly.aof.manifest", "appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof"];
    let mut found: Vec<_> = tree::files(&world.path("whole/appendonlydir"));
    found.retain(|name| set.iter().any(|file| name.ends_with(file)));
    assert_eq!(found.len(), set.len());
    let programs = lifeboat_testkit::redis_programs();
    for file in set {
        let target = format!("without-{file}");
        world.run(&["restore", "cache", "--to", &target]).expect(0);
        fs::remove_file(world.path(&target).join("appendonlydir").join(file)).unwrap();
        // A server refuses a set with a hole, and makes an empty one where there is no list.
        let clock = lifeboat_base::time::SystemClock::new();
        let wait = lifeboat_redis::server::Wait::for_at_most(Duration::from_secs(60), &clock);
        let entropy = lifeboat_base::entropy::OsEntropy;
        let folder = world.path(&target);
        let started = lifeboat_redis::server::Primary::start(&programs, (&folder, true), &entropy, wait);
        let there = started.ok().map(|server| server.connect().unwrap().ask("DBSIZE").unwrap());
        println!("without {file}: {there:?}");
        assert!(there.is_none_or(|reply| reply.integer() < Some(2000)), "{file} is not needed");
    }
}
