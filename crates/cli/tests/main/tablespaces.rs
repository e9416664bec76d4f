//! Clusters with tablespaces: inside the restored directory, or where the user wants them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lifeboat_testkit::{PgOptions, PgServer};

use super::kills::Kills;
use super::postgres::{NOW, SCHEMA, ask, world_of};
use super::tree;
use super::world::World;

/// Rows in the tables of both tablespaces.
const SPREAD: &str = "SELECT (SELECT count(*) FROM quick), (SELECT count(*) FROM slow_log)";

pub(crate) fn server(major: u32) -> PgServer {
    let server = PgServer::start(
        PgOptions::new(major).initdb("--data-checksums").tablespace("fast").tablespace("slow"),
    );
    server.psql(SCHEMA);
    server.psql(
        "CREATE TABLE quick TABLESPACE fast AS SELECT g AS id, md5(g::text) AS pad FROM generate_series(1, 5000) g;
         CREATE TABLE slow_log TABLESPACE slow AS SELECT g AS id, md5(g::text) AS pad FROM generate_series(1, 7000) g",
    );
    server
}

/// A folder of its own for tablespaces, open to the account of servers.
fn spaces_in(parent: &str) -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("lb-spaces-").tempdir_in(parent).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

fn spaces() -> tempfile::TempDir {
    spaces_in("/tmp")
}

fn oid(server: &PgServer, name: &str) -> String {
    server.psql(&format!("SELECT oid FROM pg_tablespace WHERE spcname = '{name}'"))
}

fn given(name: &str, folder: &Path) -> String {
    format!("{name}={}", folder.display())
}

/// Where the links of a restored cluster lead, by object id.
fn links(cluster: &Path) -> Vec<PathBuf> {
    let folder = fs::read_dir(cluster.join("pg_tblspc")).unwrap();
    let mut found: Vec<_> = folder.map(|entry| fs::read_link(entry.unwrap().path()).unwrap()).collect();
    found.sort();
    found
}

#[test]
fn tablespaces_come_to_lie_inside_or_where_they_are_told_and_answer_also_after_replay() {
    for major in [15, 16, 18] {
        let server = server(major);
        let world = world_of(&server);
        let point = world.backup("shop");
        server.psql("INSERT INTO quick SELECT g, 'more' FROM generate_series(1, 11) g");
        world.run(&["wal", "stream", "shop", "--once"]).expect(0);
        server.psql("INSERT INTO slow_log SELECT g, 'more' FROM generate_series(1, 13) g");
        let _after = server.psql(NOW);
        world.run(&["wal", "stream", "shop", "--once"]).expect(0);
        world.run(&["drill", "shop"]).expect(0);
        let (spaces, memory) = (spaces(), spaces_in("/dev/shm"));
        let device = |dir: &Path| fs::metadata(dir).unwrap().dev();
        assert_ne!(device(memory.path()), device(world.dir()), "not another file system");
        let cases = [(None, "5011|7013"), (Some(point.as_str()), "5000|7000")];
        // The other versions differ in how they replay, not in where they lie.
        for (at, expected) in cases.into_iter().take(if major == 15 { 2 } else { 1 }) {
            let name = if at.is_some() { "point" } else { "latest" };
            let mut args = vec!["restore", "shop"];
            args.extend(at.into_iter().flat_map(|at| ["--at", at]));
            let inside = world.path(&format!("{name}-inside"));
            world.run(&[args.as_slice(), &["--to", &format!("{name}-inside")]].concat()).expect(0);
            assert!(links(&inside).iter().all(|link| link.starts_with(&inside)), "{:?}", links(&inside));
            assert_eq!(ask(&server, &inside, SPREAD), expected, "{major} {name} inside");
            // One by name into a folder to be made, one by number into an empty one.
            let fast = memory.path().join(format!("{name}-fast"));
            let slow = spaces.path().join(format!("{name}-slow"));
            fs::create_dir(&slow).unwrap();
            let target = format!("{name}-mapped");
            let mapped = world.path(&target);
            let more = [given("fast", &fast), given(&oid(&server, "slow"), &slow)];
            let more = ["--to", &target, "--tablespace", &more[0], "--tablespace", &more[1]];
            world.run(&[args.as_slice(), &more].concat()).expect(0);
            assert_eq!(links(&mapped), [fast.clone(), slow.clone()]);
            assert!(
                !mapped.join("lifeboat-unfinished").exists() && !mapped.join("lifeboat_tablespaces").exists()
            );
            for folder in [&fast, &slow] {
                let (meta, owner) = (fs::metadata(folder).unwrap(), fs::metadata(&mapped).unwrap());
                assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (owner.uid(), owner.gid(), 0o700));
            }
            assert_eq!(ask(&server, &mapped, SPREAD), expected, "{major} {name} mapped");
            assert!(ask(&server, &mapped, "SELECT pg_relation_filepath('quick')").starts_with("pg_tblspc/"));
        }
    }
}

#[test]
fn places_that_cannot_hold_a_tablespace_are_refused_and_nothing_is_changed() {
    let server = server(15);
    let world = world_of(&server);
    world.backup("shop");
    let spaces = spaces();
    let path = |name: &str| spaces.path().join(name);
    fs::create_dir(path("full")).unwrap();
    tree::write(&path("full/precious"), b"precious");
    fs::create_dir(path("empty")).unwrap();
    symlink(path("empty"), path("link")).unwrap();
    let inside = world.path("back/inside");
    let in_copy = world.path("vaults/local/space");
    let cases: &[(&[String], i32, &str)] = &[
        (&[given("fats", &path("a"))], 3, "no tablespace `fats`; it has: fast ("),
        (&[given("fast", Path::new("a"))], 2, "NAME=/absolute/path"),
        (&[given("fast", &path("a/../b"))], 3, "is not an absolute path without"),
        (&[given("fast", &path("full"))], 3, "is not empty"),
        (&[given("fast", &path("full/precious"))], 3, "is not a folder"),
        (&[given("fast", &path("link"))], 3, "is a link"),
        (&[given("fast", &path("no/folder"))], 3, "lies in a folder that does not exist"),
        (&[given("fast", &inside)], 3, "is not apart from the target"),
        (&[given("fast", &in_copy)], 3, "lies inside copy `local`"),
        (&[given("fast", &path("a")), given("slow", &path("a"))], 3, "not apart from the place of another"),
        (&[given("fast", &path("a")), given("slow", &path("a/b"))], 3, "not apart from the place of another"),
        (&[given("fast", &path("a")), given(&oid(&server, "fast"), &path("b"))], 3, "is given two places"),
        (&[given("fast", &server.tablespace_dir("fast"))], 3, "has a tablespace there"),
    ];
    let before = tree::picture(spaces.path());
    for (asked, code, wanted) in cases {
        let mut args = vec!["restore", "shop", "--to", "back"];
        args.extend(asked.iter().flat_map(|asked| ["--tablespace", asked.as_str()]));
        let ran = world.run(&args).expect(*code);
        assert!(ran.stderr.contains(wanted), "{asked:?}: {}", ran.stderr);
        assert!(!world.path("back").exists(), "{asked:?}");
        tree::assert_same(&tree::picture(spaces.path()), &before);
    }
    assert_eq!(server.psql("SELECT count(*) FROM quick"), "5000");
    let files = World::of_files();
    files.backup("uploads");
    let ran = files.run(&["restore", "uploads", "--to", "back", "--tablespace", "a=/tmp/a"]).expect(3);
    assert!(ran.stderr.contains("only `postgres`"), "{}", ran.stderr);
}

#[test]
fn a_restore_with_placed_tablespaces_that_fails_leaves_nothing_and_one_that_is_killed_is_gone_on_with() {
    let server = server(15);
    let world = world_of(&server);
    let point = world.backup("shop");
    let spaces = spaces();
    let fast = spaces.path().join("fast");
    let asked = given("fast", &fast);
    let args = ["restore", "shop", "--to", "back", "--at", &point, "--tablespace", &asked];
    // A check that fails: nothing may be there afterwards.
    let policy = world.policy.replace("total < 0", "total >= 0");
    world.write_policy(&policy);
    world.run(&args).expect(6);
    assert!(!world.path("back").exists() && !fast.exists());
    world.write_policy(&world.policy);
    let mut kills = Kills::of(6, &world, &args, "kills of restores with tablespaces");
    let mut unfinished = 0;
    while let Some(moment) = kills.next() {
        drop(fs::remove_dir_all(world.path("back")));
        drop(fs::remove_dir_all(&fast));
        kills.kill(world.start(&args), moment);
        let back = world.path("back");
        if back.join("PG_VERSION").exists() {
            continue;
        }
        unfinished += u32::from(back.join("lifeboat-unfinished").exists());
        // Another target may not take what the killed one had begun to fill.
        if fast.join("PG_15_202209061").exists() {
            world.run(&["restore", "shop", "--to", "other", "--tablespace", &asked]).expect(3);
        }
        world.run(&args).expect(0);
        assert_eq!(ask(&server, &back, SPREAD), "5000|7000", "after {moment:?}");
        assert!(links(&back).contains(&fast), "{:?}", links(&back));
    }
    assert!(unfinished > 0, "no kill met a restore at work");
    // Killed while a check runs, its server lives on, in the target and with a tablespace in each place.
    fs::remove_dir_all(world.path("back")).unwrap();
    fs::remove_dir_all(&fast).unwrap();
    let content = world.path("back/lifeboat-unfinished/content");
    let served = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .into_iter()
            .any(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == content))
    };
    let mut child = world.start(&args);
    while !served() {
        assert!(child.try_wait().unwrap().is_none(), "no check was met at work");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    world.run(&args).expect(0);
    assert_eq!(ask(&server, &world.path("back"), SPREAD), "5000|7000");
}
