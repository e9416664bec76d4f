//! Copies that lock what they hold: nobody deletes it before its time, not even root by accident, and whoever lifts a lock is seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use serde_json::Value;

use super::kills::Kills;
use super::peers::assert_restic_is_happy;
use super::redis::server;
use super::redis_log::write;
use super::tree;
use super::world::{World, finished, texts};

/// Takes the immutable flag off everything below a folder in the end, also of a test that fails, so that it can be removed.
struct Unlocked(PathBuf);

impl Drop for Unlocked {
    fn drop(&mut self) {
        for file in files(&self.0) {
            flag(&file, false);
        }
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut waiting, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(path) = waiting.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if meta.is_file() {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Sets or clears the immutable flag of a file.
fn flag(path: &Path, on: bool) {
    let Ok(file) = fs::File::open(path) else { return };
    if let Ok(mut flags) = ioctl_getflags(&file)
        && flags.contains(IFlags::IMMUTABLE) != on
    {
        flags.set(IFlags::IMMUTABLE, on);
        // Whoever needs it looks whether it is set.
        ioctl_setflags(&file, flags).unwrap_or_default();
    }
}

fn flagged(path: &Path) -> bool {
    let file = fs::File::open(path).unwrap();
    ioctl_getflags(&file).is_ok_and(|flags| flags.contains(IFlags::IMMUTABLE))
}

/// Files in two copies of which one locks, kept by these rules.
fn world(retention: &str) -> (World, Unlocked) {
    let mut world = World::of_files();
    world.policy = world
        .policy
        .replace("7d 4w 12mo 1y", retention)
        .replace("region = \"A\"", "region = \"A\"\nlock = { mode = \"governance\", min = \"1d\" }");
    world.write_policy(&world.policy);
    let unlocked = Unlocked(world.dir().to_owned());
    let probe = world.path("probe");
    tree::write(&probe, b"x");
    flag(&probe, true);
    assert!(flagged(&probe), "these tests need root, and a file system with the immutable flag");
    flag(&probe, false);
    (world, unlocked)
}

fn vault(world: &World) -> PathBuf {
    world.vault("local", "uploads")
}

/// The objects of the copy that locks whose names begin like this.
fn objects(world: &World, folder: &str) -> Vec<PathBuf> {
    files(&vault(world).join(folder))
}

fn backup(world: &World, round: u64, code: i32) -> Value {
    tree::change(&world.uploads(), round);
    world.json(&["backup", "uploads"], code)["stores"][0].clone()
}

fn codes(report: &Value) -> Vec<String> {
    texts(&report["findings"], "code")
}

#[track_caller]
fn immutability(world: &World) -> (String, String) {
    world.promise("uploads", "immutability")
}

#[track_caller]
fn kept(world: &World) {
    let (state, reason) = immutability(world);
    assert!(state == "kept" && reason.contains("objects are locked in local"), "{state}: {reason}");
}

#[track_caller]
fn broken(world: &World, word: &str) {
    let (state, reason) = immutability(world);
    assert!(state == "broken" && reason.contains(word), "{state}: {reason}");
}

#[test]
fn a_locked_copy_lives_its_life_and_nothing_of_it_is_deleted_before_its_time() {
    let (world, _unlocked) = world("2d");
    assert_eq!(immutability(&world).0, "unproven");
    for round in 1..5 {
        let done = backup(&world, round, 0);
        let locks = &done["locks"][0];
        assert_eq!((&locks["copy"], &locks["soft"]), (&"local".into(), &0.into()), "{done}");
        // The index grows; every object of the new point is locked, and what was locked before stays so.
        assert!(locks["extended"].as_u64().unwrap() > 2, "{done}");
        kept(&world);
    }
    for folder in ["data", "snapshots", "lifeboat/points", "keys", "config", "lifeboat/envelope.json"] {
        for object in objects(&world, folder) {
            assert!(flagged(&object), "{}", object.display());
            assert_eq!(fs::remove_file(&object).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
            assert!(fs::OpenOptions::new().write(true).open(&object).is_err());
        }
    }
    assert!(files(&world.vault("offsite", "uploads")).iter().all(|file| !flagged(file)));
    // What was locked already costs no more than a look.
    let applied = world.json(&["retain", "uploads", "--apply", "--grace", "0s"], 5);
    assert_eq!(
        codes(&applied),
        ["lock-outlives-retention"],
        "two points of a day: one stays for the lock alone"
    );
    let applied = &applied["stores"][0]["applied"];
    assert_eq!((&applied["dropped"], &applied["locks"][0]["extended"]), (&Value::Array(vec![]), &0.into()));
    assert_restic_is_happy(&world, "local", "uploads");
    let report = world.json(&["verify", "uploads"], 0);
    let looked = &report["copies"][0]["locks"];
    assert_eq!((&looked["short"], &looked["soft"]), (&0.into(), &0.into()), "{report}");
    assert_eq!(report["copies"][1]["locks"], Value::Null);
    let told = world.run(&["backup", "uploads"]).expect(0).stdout;
    assert!(told.contains("locked longer now, the last until"), "{told}");
}

#[test]
fn what_a_lock_keeps_is_told_in_the_plan_and_after_it_and_stays() {
    let (world, _unlocked) = world("2d");
    for round in 1..4 {
        backup(&world, round, 0);
    }
    // A row that promises less: the rules let go what the place does not.
    world.write_policy(&world.policy.replace("lock = {", "# lock = {"));
    let shown = world.json(&["retain", "uploads"], 0);
    let going: Vec<&Value> = shown["stores"][0]["points"].as_array().unwrap().iter().collect();
    let going: Vec<&&Value> = going.iter().filter(|point| point.get("deletable").is_some()).collect();
    assert_eq!(going.len(), 1, "{shown}");
    assert!(going[0]["locked"]["until"].is_string(), "{shown}");
    let until = going[0]["locked"]["until"].as_str().unwrap().to_owned();
    let told = world.run(&["retain", "uploads"]).expect(0).stdout;
    assert!(told.contains("waits: locked until 2"), "{told}");
    let before = objects(&world, "");
    let report = world.json(&["retain", "uploads", "--apply", "--grace", "0s"], 0);
    let applied = &report["stores"][0]["applied"];
    assert_eq!(applied["dropped"].as_array().unwrap().len(), 1, "{report}");
    let [local, offsite] = [&applied["copies"][0], &applied["copies"][1]];
    assert!(local["absence"]["locked_count"].as_u64().unwrap() >= 2, "{report}");
    assert_eq!(local["absence"]["locked"][0]["until"], until.as_str(), "{report}");
    assert_eq!((&offsite["absence"]["locked_count"], &offsite["points"]), (&0.into(), &1.into()));
    assert!(before.iter().all(|file| file.exists()), "a lock keeps it");
    let shown = world.json(&["retain", "uploads"], 0);
    let waits = &shown["stores"][0]["locked"][0];
    assert!(waits["copy"] == "local" && waits["objects"].as_u64().unwrap() >= 2, "{shown}");
    assert!(waits["until"].is_string(), "{shown}");
    let told = world.run(&["retain", "uploads"]).expect(0).stdout;
    assert!(told.contains("that may go stay until") && told.contains(": locked"), "{told}");
    world.json(&["verify", "uploads"], 0);
    // The keys are locked like everything else: what is half destroyed serves nobody.
    let ran = world.run(&["shred", "uploads", "--confirm", "uploads", "--reason", "a test", "--by", "me"]);
    assert!(ran.expect(3).stderr.contains("locked until"));
}

#[test]
fn a_promotion_is_drift_until_the_next_pass_extends_every_lock() {
    let (world, _unlocked) = world("2d");
    backup(&world, 1, 0);
    kept(&world);
    world.write_policy(&world.policy.replace("retention = \"2d\"", "retention = \"2d 4w 12mo\""));
    broken(&world, "not locked as long as they are to stay");
    let report = world.json(&["verify", "uploads"], 5);
    assert_eq!(codes(&report), ["lock-drift"], "{report}");
    let report = world.json(&["retain", "uploads", "--apply"], 0);
    let locks = &report["stores"][0]["applied"]["locks"][0];
    assert!(locks["extended"].as_u64().unwrap() > 5, "{report}");
    kept(&world);
    world.json(&["verify", "uploads"], 0);
    // A shorter promise shortens nothing.
    world.write_policy(&world.policy);
    world.json(&["retain", "uploads", "--apply"], 0);
    world.write_policy(&world.policy.replace("retention = \"2d\"", "retention = \"2d 4w 12mo\""));
    assert_eq!(codes(&world.json(&["verify", "uploads"], 0)), [""; 0]);
}

#[test]
fn whoever_lifts_a_flag_or_touches_a_mark_is_seen_and_it_is_locked_again() {
    let (world, _unlocked) = world("2d");
    backup(&world, 1, 0);
    let pack = objects(&world, "data").remove(0);
    flag(&pack, false);
    broken(&world, "lost their immutable flag");
    assert_eq!(codes(&world.json(&["verify", "uploads"], 5)), ["lock-soft"]);
    let told = world.run(&["status", "uploads"]).stdout;
    assert!(told.contains("BROKEN (drift)"), "{told}");
    // It is locked again, and not in silence.
    let report = world.run(&["--json", "retain", "uploads", "--apply"]).expect(5).json();
    assert_eq!(codes(&report), ["lock-lifted"], "{report}");
    assert!(flagged(&pack));
    kept(&world);
    // A mark that is gone, or says something else, is no lock whose end anybody knows.
    let key = objects(&world, "keys").remove(0);
    let mark = vault(&world).join(".locks/keys").join(key.file_name().unwrap());
    let whole = fs::read(&mark).unwrap();
    fs::remove_file(&mark).unwrap();
    broken(&world, "not locked as long as they were");
    assert!(codes(&world.json(&["verify", "uploads"], 5)).contains(&"lock-drift".to_owned()));
    tree::write(&mark, &whole[..whole.len() - 2]);
    broken(&world, "not locked as long as they were");
    assert!(codes(&backup(&world, 2, 5)).contains(&"lock-lifted".to_owned()));
    kept(&world);
    // Nor is the place believed where what was locked is not known any more.
    let table = world.path("state/object-locks/uploads/local");
    let known = fs::read_to_string(&table).unwrap();
    tree::write(&table, known.lines().take(3).collect::<Vec<_>>().join("\n").as_bytes());
    broken(&world, "not what the last pass wrote");
    fs::remove_file(&table).unwrap();
    broken(&world, "cannot be read");
    backup(&world, 3, 0);
    kept(&world);
    // What was unlocked and deleted is drift, and no pass calls itself whole.
    flag(&pack, false);
    fs::remove_file(&pack).unwrap();
    broken(&world, "not locked as long as they were");
    // The other copy has it still; what comes back is locked again, and that it was gone is told.
    let report = world.run(&["--json", "retain", "uploads", "--apply"]).json();
    assert!(codes(&report).contains(&"lock-lifted".to_owned()), "{report}");
    assert!(flagged(&pack));
    kept(&world);
}

#[test]
fn a_pass_that_fails_is_a_finding_and_the_point_stays_good() {
    let (world, _unlocked) = world("2d");
    backup(&world, 1, 0);
    // No new mark can be written where there is no folder.
    let marks = vault(&world).join(".locks");
    let aside = world.path("aside");
    tree::rename(&marks, &aside);
    tree::write(&marks, b"no folder");
    let done = backup(&world, 2, 4);
    assert_eq!(
        (&done["outcome"], codes(&done)),
        (&"captured".into(), vec!["lock-failed".to_owned()]),
        "{done}"
    );
    assert_eq!(texts(&done["at_risk"], "promise"), ["immutability"]);
    broken(&world, "the last pass failed");
    assert_eq!(world.promise("uploads", "rpo").0, "kept");
    fs::remove_file(&marks).unwrap();
    tree::rename(&aside, &marks);
    backup(&world, 3, 0);
    kept(&world);
}

/// Without the right to set the flag Lifeboat alone keeps a lock, and says so.
#[test]
fn where_the_flag_cannot_be_set_a_lock_is_soft_and_no_promise_is_called_kept() {
    let (world, _unlocked) = world("2d");
    let run = |args: &[&str]| {
        let inner = world.command(args);
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-linux_immutable", "--inh-caps=-linux_immutable", "--"]);
        command.arg(inner.get_program()).args(inner.get_args()).current_dir(world.dir());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        finished(&mut command)
    };
    let report = run(&["--json", "backup", "uploads"]).expect(0).json();
    let locks = &report["stores"][0]["locks"][0];
    assert!(locks["soft"].as_u64().unwrap() > 5 && locks["soft"] == locks["objects"], "{report}");
    assert!(files(&vault(&world)).iter().all(|file| !flagged(file)));
    let told = world.run(&["status", "uploads"]).expect(5).stdout;
    assert!(told.contains("BROKEN (soft)") && told.contains("nothing but Lifeboat refuses"), "{told}");
    assert_eq!(codes(&world.json(&["verify", "uploads"], 5)), ["lock-soft"]);
    // Lifeboat itself refuses all the same.
    tree::change(&world.uploads(), 2);
    run(&["backup", "uploads"]).expect(0);
    tree::change(&world.uploads(), 3);
    run(&["backup", "uploads"]).expect(0);
    world.write_policy(&world.policy.replace("lock = {", "# lock = {"));
    let before = objects(&world, "");
    run(&["retain", "uploads", "--apply", "--grace", "0s"]).expect(0);
    assert!(before.iter().all(|file| file.exists()));
    // With the right to it, the next pass over everything makes them hard.
    world.write_policy(&world.policy);
    world.run(&["retain", "uploads", "--apply"]).expect(0);
    kept(&world);
}

#[test]
fn a_backup_killed_at_any_moment_leaves_nothing_less_locked_and_the_next_one_completes_it() {
    let (world, _unlocked) = world("2d");
    backup(&world, 1, 0);
    let mut kills = Kills::of(8, &world, &["backup", "uploads"], "backups of a locked copy");
    let mut round = 2;
    while let Some(moment) = kills.next() {
        let locked: Vec<PathBuf> = files(&vault(&world)).into_iter().filter(|file| flagged(file)).collect();
        tree::change(&world.uploads(), round);
        kills.kill(world.start(&["backup", "uploads"]), moment);
        assert!(locked.iter().all(|file| flagged(file)), "round {round}");
        // The mark comes first: nothing is immutable that has no known end.
        for file in files(&vault(&world)).iter().filter(|file| flagged(file)) {
            let name = file.strip_prefix(vault(&world)).unwrap();
            let name = match name.strip_prefix("data") {
                Ok(_pack) => Path::new("data").join(file.file_name().unwrap()),
                Err(_) => name.to_owned(),
            };
            assert!(vault(&world).join(".locks").join(&name).exists(), "{}", name.display());
        }
        round += 1;
        backup(&world, round, 0);
        kept(&world);
        round += 1;
    }
    world.json(&["verify", "uploads"], 0);
}

#[test]
fn a_lock_that_outlives_what_is_kept_is_a_finding_and_compliance_in_a_directory_is_refused() {
    let (world, _unlocked) = world("2d");
    world.run(&["check"]).expect(0);
    world.write_policy(&world.policy.replace("min = \"1d\"", "min = \"30d\""));
    let report = world.json(&["check"], 5);
    assert_eq!(codes(&report), ["lock-outlives-retention"], "{report}");
    world.write_policy(&world.policy.replace("governance", "compliance"));
    let told = world.run(&["check"]).expect(2).stderr;
    assert!(told.contains("compliance-in-directory") && told.contains("root can lift"), "{told}");
}

/// What a log stores between two passes is not called locked, and is locked by the next one.
#[test]
fn log_is_locked_by_the_next_pass_and_nobody_deletes_it() {
    let server = server();
    let mut world = World::of_redis(&server.url());
    let lock = "region = \"A\"\nlock = { mode = \"governance\", min = \"1d\" }";
    world.policy = world.policy.replace("region = \"A\"", lock);
    world.write_policy(&world.policy);
    let _unlocked = Unlocked(world.dir().to_owned());
    world.run(&["backup", "cache"]).expect(0);
    let mut connection = server.connect();
    (1..50).for_each(|number| write(&mut connection, number));
    world.run(&["wal", "stream", "cache", "--once"]).expect(0);
    let log = files(&world.vault("local", "cache").join("lifeboat/logs"));
    assert!(!log.is_empty() && log.iter().any(|file| !flagged(file)));
    let (state, reason) = world.promise("cache", "immutability");
    assert!(state == "unproven" && reason.contains("after the last pass"), "{state}: {reason}");
    world.run(&["backup", "cache"]).expect(0);
    for file in &log {
        assert!(flagged(file) && fs::remove_file(file).is_err(), "{}", file.display());
    }
    let (state, reason) = world.promise("cache", "immutability");
    assert_eq!(state, "kept", "{reason}");
    world.run(&["verify", "cache"]).expect(0);
}
