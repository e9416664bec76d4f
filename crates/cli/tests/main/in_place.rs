//! Restores over a cluster that is there: only what differs is fetched, and at no moment can a mixture be started.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use lifeboat_testkit::{PgOptions, PgServer};

use super::kills::{Kills, kill_after};
use super::postgres::{ask, server, world_of};
use super::tablespaces;
use super::tree::{self, Content, picture};
use super::world::World;

/// What a restore gives back: everything but the times of what it writes itself, and where links inside it lead from.
fn substance(cluster: &Path) -> BTreeMap<PathBuf, (u32, (u32, u32), Content)> {
    let inside = |content: Content| match content {
        Content::Link(aim) => Content::Link(aim.strip_prefix(cluster).map(Path::to_owned).unwrap_or(aim)),
        other => other,
    };
    picture(cluster)
        .into_iter()
        .map(|(name, node)| (name, (node.mode, node.owner, inside(node.content))))
        .collect()
}

#[track_caller]
fn assert_alike(one: &Path, other: &Path) {
    let (one, other) = (substance(one), substance(other));
    let names: std::collections::BTreeSet<&PathBuf> = one.keys().chain(other.keys()).collect();
    let different: Vec<_> =
        names.into_iter().filter(|name| one.get(*name) != other.get(*name)).take(5).collect();
    assert!(different.is_empty(), "{different:?}");
}

/// Whether a server starts on the directory; it is stopped again.
fn starts(server: &PgServer, cluster: &Path) -> bool {
    let options = format!(
        "-c listen_addresses='' -c unix_socket_directories='{}' -c port=5998",
        server.socket_dir().display()
    );
    let run = |arguments: &[&str]| {
        let mut command = server.bin("pg_ctl");
        command.args(["-D", &cluster.display().to_string(), "-w"]).args(arguments);
        // A server keeps the ends of pipes open that it was started with.
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    let started = run(&["-o", &options, "start"]);
    if started {
        assert!(run(&["-m", "immediate", "stop"]));
    }
    started
}

/// A cluster with a table of many pages, restored to `back` in the state of the point.
fn big(rows: u32) -> (PgServer, World, String) {
    let server = server(15);
    server.psql(&format!(
        "CREATE TABLE big WITH (fillfactor = 50) AS
         SELECT g AS id, md5(g::text) || md5((g + 1)::text) AS pad FROM generate_series(1, {rows}) g"
    ));
    server.psql("VACUUM ANALYZE; CHECKPOINT");
    let world = world_of(&server);
    let point = world.backup("shop");
    (server, world, point)
}

/// Changes one row on each of about a hundredth of the pages of `big`, and removes and adds a table.
fn change(server: &PgServer, cluster: &Path, rows: u32) {
    let pages: u32 =
        ask(server, cluster, "SELECT relpages FROM pg_class WHERE relname = 'big'").parse().unwrap();
    let step = rows / (pages / 100).max(1);
    let sql = format!(
        "ALTER TABLE big SET (autovacuum_enabled = off); UPDATE big SET pad = reverse(pad) WHERE id % {step} = 1;
         CREATE TABLE IF NOT EXISTS extra AS SELECT 1 AS x; DROP TABLE IF EXISTS ledger"
    );
    ask(server, cluster, &sql);
}

#[test]
fn a_hundredth_of_the_pages_changed_fetches_little_and_gives_what_a_fresh_restore_gives() {
    const ROWS: u32 = 500_000;
    let (server, world, point) = big(ROWS);
    let plain = |to: &'static str| vec!["restore", "shop", "--to", to, "--at", &point, "--skip-checks"];
    let fresh = world.json(&plain("fresh"), 0);
    world.run(&["restore", "shop", "--to", "back", "--at", &point]).expect(0);
    let back = world.path("back");
    change(&server, &back, ROWS);
    tree::write(&back.join("base/stray"), b"stray");
    symlink("/etc/passwd", back.join("stray-link")).unwrap();
    let mut delta = plain("back");
    delta.push("--delta");
    let report = world.json(&delta, 0);
    let number = |report: &serde_json::Value, name: &str| report[name].as_u64().unwrap();
    let (bytes, kept) = (number(&report, "bytes"), number(&report, "kept_bytes"));
    let (fetched, all) = (number(&report, "fetched_bytes"), number(&fresh, "fetched_bytes"));
    println!("{bytes} bytes, {kept} were there; {fetched} fetched, a fresh restore fetches {all}");
    assert_eq!(number(&fresh, "kept_bytes"), 0);
    assert_eq!(number(&fresh, "bytes"), bytes);
    // The pages of indexes and catalogs change as well, and each chunk is four pages.
    assert!(fetched * 5 < all, "{report}");
    assert!(number(&report, "removed") > 2, "{report}");
    assert_alike(&back, &world.path("fresh"));
    assert!(!back.join("lifeboat-unfinished").exists());
    // Nothing differs any more.
    let again = world.json(&delta, 0);
    println!("again: {} fetched", number(&again, "fetched_bytes"));
    assert!(number(&again, "fetched_bytes") < 64 * 1024, "{again}");
    // With checks the result is proven on a server as ever, and starts.
    change(&server, &back, ROWS);
    let ran = world.run(&["restore", "shop", "--to", "back", "--at", &point, "--delta"]).expect(0);
    assert!(ran.stdout.contains("were there already") && ran.stdout.contains("checks passed"), "{ran:?}");
    let sum = "SELECT count(*), sum(hashtext(pad)), to_regclass('extra') IS NULL, to_regclass('ledger') IS NOT NULL FROM big";
    let found = ask(&server, &back, sum);
    assert_eq!(found, ask(&server, &world.path("fresh"), sum));
    assert!(found.ends_with("|t|t"), "{found}");
    assert_eq!(ask(&server, &back, "SHOW archive_mode"), "off");
}

#[test]
fn the_log_is_replayed_over_what_is_there_as_into_a_new_folder() {
    let server = server(16);
    let world = world_of(&server);
    world.backup("shop");
    for n in 1..=3 {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
    }
    let middle = server.psql(super::postgres::NOW);
    server.psql("INSERT INTO ledger (n) VALUES (4)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    let count = "SELECT count(*) FROM ledger";
    assert_eq!(ask(&server, &world.path("back"), count), "4");
    ask(&server, &world.path("back"), "DROP TABLE ledger");
    let at = ["--at", middle.trim()];
    world.run(&[&["restore", "shop", "--to", "back", "--delta"][..], &at].concat()).expect(0);
    assert_eq!(ask(&server, &world.path("back"), count), "3");
    // Without checks the first start recovers; the directory is that of a fresh restore, byte for byte.
    for skip in ["back", "fresh"] {
        let args = ["restore", "shop", "--to", skip, "--delta", "--skip-checks"];
        world.run(&[&args[..], &at].concat()).expect(0);
    }
    assert_alike(&world.path("back"), &world.path("fresh"));
    assert_eq!(ask(&server, &world.path("back"), count), "3");
    // The whole way: the directory of the server itself, stopped.
    let mut server = server;
    server.psql("DROP TABLE orders");
    let data = server.data().display().to_string();
    let ran = world.run(&["restore", "shop", "--to", &data, "--delta"]).expect(3);
    assert!(ran.stderr.contains("a server runs in it"), "{}", ran.stderr);
    assert_eq!(server.psql(count), "4", "a refused restore touched a running server");
    server.stop();
    world.run(&["restore", "shop", "--to", &data, "--delta"]).expect(0);
    assert_eq!(ask(&server, Path::new(&data), "SELECT count(*) FROM orders, ledger"), "8000");
}

#[test]
fn tablespaces_are_restored_over_where_they_lie_only_if_they_are_named() {
    let mut server = tablespaces::server(15);
    let world = world_of(&server);
    let point = world.backup("shop");
    let spread = "SELECT (SELECT count(*) FROM quick), (SELECT count(*) FROM slow_log)";
    server.psql("DELETE FROM quick WHERE id > 100; DELETE FROM slow_log; CHECKPOINT");
    let (fast, slow) = (server.tablespace_dir("fast"), server.tablespace_dir("slow"));
    server.stop();
    let data = server.data().display().to_string();
    let before = substance(&slow);
    // One is named in its place; the other comes inside, and what its link led to stays as it is.
    let asked = format!("fast={}", fast.display());
    let args = ["restore", "shop", "--to", &data, "--delta", "--at", &point, "--tablespace", &asked];
    let report = world.json(&args, 0);
    assert_eq!(report["left"], serde_json::json!([slow.to_str()]), "{report}");
    assert_eq!(substance(&slow), before);
    assert_eq!(ask(&server, Path::new(&data), spread), "5000|7000");
    // The place of one is not the place of the other, nor one that is not this cluster's.
    let wrong = format!("slow={}", fast.display());
    let ran = world.run(&["restore", "shop", "--to", &data, "--delta", "--tablespace", &wrong]).expect(3);
    assert!(ran.stderr.contains("is not empty and not this tablespace"), "{}", ran.stderr);
    let wrong = format!("slow={}", slow.display());
    world.run(&["restore", "shop", "--to", &data, "--delta", "--tablespace", &wrong]).expect(3);
    // Over what an earlier restore placed inside, the same chunks are found again.
    for round in 0..2 {
        let again = [
            "restore",
            "shop",
            "--to",
            &data,
            "--delta",
            "--at",
            &point,
            "--skip-checks",
            "--tablespace",
            &asked,
        ];
        let report = world.json(&again, 0);
        // The first time what the server wrote when it was asked differs.
        let different = report["bytes"].as_u64().unwrap() - report["kept_bytes"].as_u64().unwrap();
        assert!(different < if round == 0 { 20 << 20 } else { 64 << 10 }, "{report}");
    }
    assert_eq!(ask(&server, Path::new(&data), spread), "5000|7000");
}

#[test]
fn what_must_not_be_replaced_is_refused_and_stays_as_it_is() {
    let server = server(15);
    let mut other = PgServer::start(PgOptions::new(15));
    let world = world_of(&server);
    let point = world.backup("shop");
    let foreign = other.data();
    let refused = |target: &Path, flags: &[&str], wanted: &str| {
        let before = fs::metadata(target).ok().filter(fs::Metadata::is_dir).map(|_| substance(target));
        let target_text = target.display().to_string();
        let args = [&["restore", "shop", "--to", &target_text, "--at", &point][..], flags].concat();
        let ran = world.run(&args).expect(3);
        assert!(ran.stderr.contains(wanted), "{}", ran.stderr);
        assert!(ran.stderr.matches("at risk:").count() <= 1, "{}", ran.stderr);
        // A running server changes its own files.
        if !target.join("postmaster.pid").exists() {
            assert_eq!(
                fs::metadata(target).ok().filter(fs::Metadata::is_dir).map(|_| substance(target)),
                before
            );
        }
    };
    for flags in [&["--delta"][..], &["--force"], &["--delta", "--force"]] {
        refused(&foreign, flags, "a server runs in it");
        refused(&server.data(), flags, "a server runs in it");
    }
    other.stop();
    refused(&foreign, &[], "is not empty");
    refused(&foreign, &["--delta"], "holds another cluster: its system identifier is");
    // A pid file of a living process that cannot be told from a server, and one that is just being written.
    tree::write(&foreign.join("postmaster.pid"), b"1\n");
    refused(&foreign, &["--delta", "--force"], "names the living process 1");
    tree::write(&foreign.join("postmaster.pid"), b"");
    refused(&foreign, &["--delta", "--force"], "cannot be read");
    fs::remove_file(foreign.join("postmaster.pid")).unwrap();
    let photos = world.path("photos");
    tree::write(&photos.join("one.jpg"), b"one");
    refused(&photos, &["--delta"], "no data directory of PostgreSQL");
    refused(&photos, &[], "is not empty");
    symlink(&photos, world.path("link")).unwrap();
    refused(&world.path("link"), &["--delta", "--force"], "is not a folder");
    refused(world.dir(), &["--delta", "--force"], "holds ");
    refused(&world.path("vaults"), &["--force"], "holds copy `local`");
    assert_eq!(fs::read(photos.join("one.jpg")).unwrap(), b"one");
    // Force means: whatever is there is replaced. With and without looking at what could be kept.
    let target = foreign.display().to_string();
    world.run(&["restore", "shop", "--to", &target, "--at", &point, "--delta", "--force"]).expect(0);
    assert_eq!(ask(&server, &foreign, "SELECT count(*) FROM orders"), "2000");
    world.run(&["restore", "shop", "--to", "photos", "--at", &point, "--force"]).expect(0);
    assert!(!photos.join("one.jpg").exists());
    assert_eq!(ask(&server, &photos, "SELECT count(*) FROM orders"), "2000");
    let names =
        |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert!(
        !names(world.dir()).iter().any(|name| name.to_string_lossy().starts_with(".lifeboat")),
        "{:?}",
        names(world.dir())
    );
    let files = World::of_files();
    files.backup("uploads");
    let ran = files.run(&["restore", "uploads", "--to", "back", "--delta"]).expect(3);
    assert!(ran.stderr.contains("only `postgres` is restored over"), "{}", ran.stderr);
    tree::write(&files.path("back/old"), b"old");
    files.run(&["restore", "uploads", "--to", "back"]).expect(3);
    files.run(&["restore", "uploads", "--to", "back", "--force"]).expect(0);
    tree::assert_same(&picture(&files.path("back")), &picture(&files.uploads()));
}

#[test]
fn a_restore_in_place_killed_at_any_moment_cannot_be_started_and_is_gone_on_with() {
    const ROWS: u32 = 60_000;
    let (server, world, point) = big(ROWS);
    let back = world.path("back");
    let spoil = || {
        if back.join("lifeboat-unfinished").exists() || !back.join("PG_VERSION").exists() {
            return;
        }
        change(&server, &back, ROWS);
    };
    let mut unfinished = 0;
    for (skip, count) in [(true, 14), (false, 8)] {
        let mut args = vec!["restore", "shop", "--to", "back", "--at", &point, "--delta"];
        args.extend(skip.then_some("--skip-checks"));
        world.run(&args).expect(0);
        spoil();
        let mut kills = Kills::of(count, &world, &args, "kills of restores in place");
        while let Some(moment) = kills.next() {
            spoil();
            kills.kill(world.start(&args), moment);
            if back.join("PG_VERSION").exists() {
                // Before it began, or after it was done.
                continue;
            }
            unfinished += 1;
            assert!(!starts(&server, &back), "a mixture was started after {moment:?}");
            let note = fs::read_to_string(back.join("lifeboat-unfinished/resume.json")).unwrap();
            assert!(note.contains("lifeboat restore shop --to"), "{note}");
            // Nobody takes it for a cluster, an empty folder or an own one.
            let ran = world.run(&["restore", "shop", "--to", "back"]).expect(3);
            assert!(
                ran.stderr.contains("holds an unfinished restore") && ran.stderr.contains("--delta"),
                "{}",
                ran.stderr
            );
            // A second kill at another moment, and then to the end.
            kill_after(world.start(&args), moment / 2);
            world.run(&args).expect(0);
            assert!(!back.join("lifeboat-unfinished").exists());
            if skip {
                drop(fs::remove_dir_all(world.path("fresh")));
                world.run(&["restore", "shop", "--to", "fresh", "--at", &point, "--skip-checks"]).expect(0);
                assert_alike(&back, &world.path("fresh"));
            }
        }
    }
    println!("{unfinished} of 22 kills met a restore at work");
    assert!(unfinished >= 5, "only {unfinished} kills met a restore at work");
    world.run(&["restore", "shop", "--to", "back", "--at", &point, "--delta"]).expect(0);
    assert_eq!(ask(&server, &back, "SELECT count(*) FROM big"), ROWS.to_string());
}

#[test]
fn a_failure_in_place_says_what_is_left_and_how_to_go_on() {
    let (server, world, point) = big(2_000);
    world.run(&["restore", "shop", "--to", "back", "--at", &point]).expect(0);
    let back = world.path("back");
    world.write_policy(&world.policy.replace("total < 0", "total >= 0"));
    let ran = world.run(&["restore", "shop", "--to", "back", "--at", &point, "--delta"]).expect(6);
    assert!(ran.stderr.contains("holds an unfinished restore and cannot be opened"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--delta"), "{}", ran.stderr);
    assert!(!starts(&server, &back));
    world.write_policy(&world.policy);
    // Also with a point of another time, and over what somebody put beside it meanwhile only after a look.
    tree::write(&back.join("base"), b"in the way");
    world.run(&["restore", "shop", "--to", "back", "--at", &point, "--delta"]).expect(1);
    fs::remove_file(back.join("base")).unwrap();
    world.run(&["restore", "shop", "--to", "back", "--delta"]).expect(0);
    assert_eq!(ask(&server, &back, "SELECT count(*) FROM big"), "2000");
    // The same with log on top: the very same command goes on.
    let moment = server.psql(super::postgres::NOW);
    server.psql("DELETE FROM big");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    let again = ["restore", "shop", "--to", "back", "--at", moment.trim(), "--delta"];
    world.write_policy(&world.policy.replace("total < 0", "total >= 0"));
    world.run(&again).expect(6);
    world.write_policy(&world.policy);
    world.run(&again).expect(0);
    assert_eq!(ask(&server, &back, "SELECT count(*) FROM big"), "2000");
}

#[test]
fn memory_stays_bounded_while_a_cluster_is_compared() {
    // As many chunks as differ, and ten times the content.
    let peak = |rows: u32| {
        let (server, world, point) = big(rows);
        world.run(&["restore", "shop", "--to", "back", "--at", &point, "--skip-checks"]).expect(0);
        change(&server, &world.path("back"), rows);
        let mut command =
            world.command(&["restore", "shop", "--to", "back", "--at", &point, "--skip-checks", "--delta"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut peak_kib = 0;
        while child.try_wait().unwrap().is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let found = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            peak_kib = found.unwrap_or_default().max(peak_kib);
        }
        assert!(child.wait().unwrap().success());
        peak_kib
    };
    let (small, large) = (peak(30_000), peak(600_000));
    println!("peak memory: {small} KiB for 30,000 rows, {large} KiB for 600,000");
    assert!(small > 0 && large < small + 48 * 1024, "{small} KiB and {large} KiB");
}
