//! Restores in place among folders that the cluster's account may write: it exchanges them at the worst moment, and gets nothing.
//!
//! The moment is that of the checks, when the account's own server is started: its program is a script that runs as the account.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use lifeboat_testkit::PgServer;

use super::extract::{programs_with, set_programs};
use super::postgres::{ask, world_of};
use super::tablespaces;
use super::tree::{self, picture};
use super::world::World;

/// A version of which only those programs are on this machine that we name.
const LONE: u32 = 18;

/// Makes the next server a script of its account; where we are not root, everybody here is one account.
fn plot(world: &mut World, server: &PgServer, script: &str) {
    let folder = programs_with(world, server, "postgres", Some(script));
    set_programs(world, &folder);
}

/// A folder that the account may do everything in.
fn yard(server: &PgServer) -> PathBuf {
    let yard = server.dir("yard");
    for name in ["spaces", "clusters"] {
        fs::create_dir(yard.join(name)).unwrap();
    }
    server.give(&yard);
    yard
}

/// Lets `name` in the yard lead to the victim from now on.
fn exchange(yard: &Path, name: &str, victim: &Path) -> String {
    let (from, to) = (yard.join(name).display().to_string(), yard.join("moved").display().to_string());
    format!("mv {from} {to} && ln -s {} {from}; exit 1", victim.display())
}

/// Whether the account has done what the script says.
fn exchanged(yard: &Path, name: &str) -> bool {
    fs::symlink_metadata(yard.join(name)).unwrap().is_symlink() && yard.join("moved").is_dir()
}

/// Whether no file is left in a folder or below.
fn is_bare(folder: &Path) -> bool {
    tree::files(folder).is_empty()
}

#[test]
fn a_failed_restore_empties_no_folder_that_the_place_of_a_tablespace_was_exchanged_for() {
    let server = tablespaces::server(LONE);
    let mut world = world_of(&server);
    let point = world.backup("shop");
    let yard = yard(&server);
    let victim = world.path("victim");
    tree::write(&victim.join("fast/precious"), b"precious");
    tree::write(&victim.join("fast/PG_18_202506291/1/2"), b"precious");
    let before = picture(&victim);
    plot(&mut world, &server, &exchange(&yard, "spaces", &victim));
    let asked = format!("fast={}", yard.join("spaces/fast").display());
    let args = ["restore", "shop", "--to", "back", "--at", &point, "--tablespace", &asked, "--copy", "local"];
    world.run(&args).expect(6);
    assert!(exchanged(&yard, "spaces"), "the account has not done its part");
    tree::assert_same(&picture(&victim), &before);
    assert!(!world.path("back").exists());
    // What was filled is emptied, wherever it is now.
    assert!(is_bare(&yard.join("moved")));
}

#[test]
fn a_failed_restore_empties_no_folder_that_its_target_was_exchanged_for() {
    let server = tablespaces::server(LONE);
    let mut world = world_of(&server);
    let point = world.backup("shop");
    let yard = yard(&server);
    let victim = world.path("victim");
    for name in ["back/precious", "back/lifeboat-unfinished/content/precious"] {
        tree::write(&victim.join(name), b"precious");
    }
    let before = picture(&victim);
    plot(&mut world, &server, &exchange(&yard, "clusters", &victim));
    let target = yard.join("clusters/back").display().to_string();
    let asked = format!("fast={}", yard.join("spaces/fast").display());
    let args =
        ["restore", "shop", "--to", &target, "--at", &point, "--tablespace", &asked, "--copy", "local"];
    world.run(&args).expect(6);
    assert!(exchanged(&yard, "clusters"), "the account has not done its part");
    tree::assert_same(&picture(&victim), &before);
    assert!(is_bare(&yard.join("moved")) && is_bare(&yard.join("spaces")));
}

#[test]
fn a_record_that_the_account_may_have_written_is_refused_and_named() {
    let server = tablespaces::server(15);
    let world = world_of(&server);
    let point = world.backup("shop");
    // A check that fails: what was there before is then removed if the record says that nothing was.
    world.write_policy(&world.policy.replace("total < 0", "total >= 0"));
    let yard = yard(&server);
    let back = yard.join("clusters/back");
    let record = unfinished(&world, &server, &back, &[]);
    tree::write(&back.join("lifeboat-unfinished/content/base/1/2"), b"the only copy");
    let target = back.display().to_string();
    let args = ["restore", "shop", "--to", &target, "--at", &point, "--delta"];
    let refused = |spoil: &dyn Fn(), named: &Path| {
        spoil();
        let before = picture(&yard);
        let ran = world.run(&args).expect(3);
        let wanted = format!("{} is not believed", named.display());
        assert!(ran.stderr.contains(&wanted) && ran.stderr.contains("  next: "), "{}", ran.stderr);
        tree::assert_same(&picture(&yard), &before);
    };
    refused(&|| fs::set_permissions(&record, fs::Permissions::from_mode(0o666)).unwrap(), &record);
    fs::set_permissions(&record, fs::Permissions::from_mode(0o600)).unwrap();
    let ours = back.join("lifeboat-unfinished");
    refused(&|| fs::set_permissions(&ours, fs::Permissions::from_mode(0o777)).unwrap(), &ours);
    fs::set_permissions(&ours, fs::Permissions::from_mode(0o700)).unwrap();
    if is_root() {
        let uid = server.account().uid();
        refused(&|| chown(&record, Some(uid), None).unwrap(), &record);
        chown(&record, Some(0), None).unwrap();
        refused(&|| chown(&ours, Some(uid), None).unwrap(), &ours);
        chown(&ours, Some(0), None).unwrap();
    }
    // Canary: believed, it is gone on with, and the check that fails removes what the record says is ours.
    world.run(&args).expect(6);
    assert!(fs::read_dir(&back).unwrap().next().is_none());
}

#[test]
fn a_place_that_a_record_names_is_filled_only_if_it_is_still_the_same_folder() {
    let server = tablespaces::server(15);
    let world = world_of(&server);
    let point = world.backup("shop");
    let yard = yard(&server);
    let (back, fast) = (yard.join("clusters/back"), yard.join("spaces/fast"));
    tree::write(&fast.join("PG_15_202209061/1/2"), b"of somebody else");
    let target = back.display().to_string();
    let asked = format!("fast={}", fast.display());
    let args = ["restore", "shop", "--to", &target, "--at", &point, "--delta", "--tablespace", &asked];
    unfinished(&world, &server, &back, &[(&fast, false)]);
    let before = picture(&yard.join("spaces"));
    let ran = world.run(&args).expect(3);
    assert!(ran.stderr.contains("is not empty and not this tablespace"), "{}", ran.stderr);
    tree::assert_same(&picture(&yard.join("spaces")), &before);
    // Nor if it holds what no server puts there, whoever says that it is the same.
    fs::remove_dir_all(&back).unwrap();
    unfinished(&world, &server, &back, &[(&fast, true)]);
    tree::write(&fast.join("precious"), b"precious");
    world.run(&args).expect(3);
    fs::remove_file(fast.join("precious")).unwrap();
    // Canary: as the run that died has left it.
    world.run(&args).expect(0);
    assert_eq!(ask(&server, &back, "SELECT count(*) FROM quick"), "5000");
}

#[test]
fn a_cluster_in_a_folder_of_its_account_is_restored_over_and_is_its_accounts_again() {
    let server = tablespaces::server(15);
    let world = world_of(&server);
    let point = world.backup("shop");
    let yard = yard(&server);
    let (back, fast) = (yard.join("clusters/back"), yard.join("spaces/fast"));
    // Reached by another name, as it is where a distribution moved its folders.
    symlink(yard.join("clusters"), yard.join("link")).unwrap();
    let target = yard.join("link/back").display().to_string();
    let asked = format!("fast={}", fast.display());
    let args = ["restore", "shop", "--to", &target, "--at", &point, "--tablespace", &asked, "--delta"];
    for round in 0..2 {
        let report = world.json(&args, 0);
        assert_eq!(report["left"], serde_json::json!([]), "{report}");
        for folder in [&back, &fast] {
            let meta = fs::metadata(folder).unwrap();
            let wanted = if is_root() { server.account().uid() } else { meta.uid() };
            assert_eq!((meta.uid(), meta.mode() & 0o777), (wanted, 0o700), "{}", folder.display());
        }
        assert_eq!(ask(&server, &back, "SELECT count(*) FROM quick, slow_log"), "35000000", "{round}");
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// What a restore that died in its first moments left: its record, and content that is taken down. Each place is one that it
/// knew by its name, and perhaps as the very folder.
fn unfinished(world: &World, server: &PgServer, target: &Path, places: &[(&Path, bool)]) -> PathBuf {
    let identity = server.psql("SELECT system_identifier FROM pg_control_system()");
    let known = places.iter().filter(|(_, same)| *same).map(|(place, _)| {
        let meta = fs::metadata(place).unwrap();
        serde_json::json!({ "device": meta.dev(), "inode": meta.ino() })
    });
    let record = serde_json::json!({
        "schema": "lifeboat.unfinished/v1", "note": "", "resume": "", "store": "shop",
        "point": world.points("shop")[0], "identity": identity, "fresh": true,
        "tablespaces": places.iter().map(|(place, _)| place).collect::<Vec<_>>(),
        "folders": known.collect::<Vec<_>>(),
    });
    let path = target.join("lifeboat-unfinished/resume.json");
    tree::write(&path, record.to_string().as_bytes());
    for folder in [target, &target.join("lifeboat-unfinished")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    tree::write(&target.join("lifeboat-unfinished/content/base/half"), b"half");
    path
}
