//! Readers that share no code with Lifeboat: stock restic, and the recovery kit's Python program.
//!
//! A reader that is not installed is a failure (scripts/install-test-peers.sh brings them), never a skipped test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tree::{self, assert_same, picture};
use super::world::{KEY_FILE, PASSPHRASE_ENV, Ran, World, finished, texts};

fn restic(world: &World, vault: &Path, password: &str) -> Command {
    let mut command = Command::new("restic");
    command.arg("--no-cache").arg("-r").arg(vault).env("RESTIC_PASSWORD", password);
    command.env("HOME", world.dir()).current_dir(world.dir());
    command
}

/// The password of a vault's repository, as a person gets it.
#[track_caller]
pub(crate) fn password(world: &World, store: &str, copy: &str) -> String {
    world.run(&["keys", "password", store, "--copy", copy]).expect(0).stdout.trim().to_owned()
}

/// `restic check --read-data` on one vault; what it said if it found anything.
pub(crate) fn restic_check(world: &World, copy: &str, store: &str) -> Result<(), Ran> {
    let password = password(world, store, copy);
    let ran = finished(restic(world, &world.vault(copy, store), &password).args(["check", "--read-data"]));
    if ran.code == Some(0) { Ok(()) } else { Err(ran) }
}

#[track_caller]
pub(crate) fn assert_restic_is_happy(world: &World, copy: &str, store: &str) {
    if let Err(ran) = restic_check(world, copy, store) {
        panic!("restic check of {store} in {copy}: {ran:?}");
    }
}

/// The Python that has the recovery kit's libraries: the one the installer makes, else the first on the path.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let own = root.join("target/peers/venv/bin/python3");
    if own.exists() { own } else { PathBuf::from("python3") }
}

/// The recovery kit on one vault.
pub(crate) fn recover(world: &World, args: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recovery-kit/lifeboat_recover.py");
    let mut command = Command::new(python());
    command.arg("-B").arg(program).args(args).current_dir(world.dir());
    command
}

/// The snapshot that holds a point.
fn snapshot(world: &World, store: &str, point: &str) -> String {
    let report = world.json(&["points", store], 0);
    let points = report["points"].as_array().unwrap();
    let point = points.iter().find(|candidate| candidate["id"] == point).unwrap();
    point["copies"][0]["snapshot"].as_str().unwrap().to_owned()
}

#[test]
fn stock_restic_checks_every_vault_and_restores_the_same_bytes() {
    let world = World::of_everything();
    let first_tree = picture(&world.uploads());
    let first = world.backup("uploads");
    world.backup("orders");
    tree::change(&world.uploads(), 1);
    world.add_orders(5_000, 500);
    world.run(&["backup"]).expect(0);
    let second_tree = picture(&world.uploads());
    let database = world.path("ours");
    world.run(&["restore", "orders", "--to", &database.display().to_string()]).expect(0);

    for copy in ["local", "offsite"] {
        for store in ["uploads", "orders"] {
            assert_restic_is_happy(&world, copy, store);
        }
        let points = world.points("uploads");
        assert_eq!(points[0], first);
        for (point, original) in points.iter().zip([&first_tree, &second_tree]) {
            let target = world.path(&format!("restic-{copy}-{point}"));
            let password = password(&world, "uploads", copy);
            let snapshot = snapshot(&world, "uploads", point);
            finished(
                restic(&world, &world.vault(copy, "uploads"), &password)
                    .args(["restore", &snapshot, "--target"])
                    .arg(&target),
            )
            .expect(0);
            assert_same(&picture(&target.join("data")), original);
        }
        let target = world.path(&format!("restic-{copy}-orders"));
        let secret = password(&world, "orders", copy);
        finished(
            restic(&world, &world.vault(copy, "orders"), &secret)
                .args(["restore", "latest", "--target"])
                .arg(&target),
        )
        .expect(0);
        assert!(
            fs::read(target.join("data/orders.db")).unwrap() == fs::read(database.join("orders.db")).unwrap(),
            "restic and lifeboat restore different databases"
        );
    }
    a_flipped_byte_stops_restic(&world);
}

/// The oracle would see damage if there were any.
fn a_flipped_byte_stops_restic(world: &World) {
    let vault = world.vault("local", "uploads");
    let pack = tree::files(&vault.join("data")).remove(0);
    let path = vault.join("data").join(pack);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    tree::write(&path, &bytes);
    assert!(restic_check(world, "local", "uploads").is_err(), "restic does not see a flipped byte");
}

#[test]
fn restic_asks_lifeboat_for_the_password_itself() {
    let world = World::of_files().and_passphrase();
    world.backup("uploads");
    let ask = format!(
        "{} --policy {} keys password uploads --copy local",
        env!("CARGO_BIN_EXE_lifeboat"),
        world.path("lifeboat.toml").display()
    );
    let mut command = Command::new("restic");
    command.args(["--no-cache", "--password-command", &ask, "-r"]).arg(world.vault("local", "uploads"));
    command.args(["check", "--read-data"]).env_remove("RESTIC_PASSWORD").env("HOME", world.dir());
    command.env(PASSPHRASE_ENV, super::world::PASSPHRASE);
    finished(&mut command).expect(0);
    let wrong = finished(command.env(PASSPHRASE_ENV, "not it").env_remove("LIFEBOAT_POLICY"));
    // The key file of the policy still opens it, so the wrong passphrase alone does not lock anybody out.
    wrong.expect(0);
    fs::remove_file(world.path(KEY_FILE)).unwrap();
    assert_ne!(finished(&mut command).code, Some(0), "restic opened a vault without any key");
}

#[test]
fn the_recovery_kit_verifies_and_restores_every_vault_without_lifeboat() {
    let world = World::of_everything();
    world.backup("orders");
    world.backup("uploads");
    let original = picture(&world.uploads());
    let key = world.path(KEY_FILE).display().to_string();
    for copy in ["local", "offsite"] {
        for store in ["uploads", "orders"] {
            let vault = world.vault(copy, store).display().to_string();
            finished(&mut recover(&world, &["verify", "--key-file", &key, &vault])).expect(0);
        }
        let vault = world.vault(copy, "uploads").display().to_string();
        let target = world.path(&format!("kit-{copy}"));
        let to = target.display().to_string();
        finished(&mut recover(&world, &["restore", "--key-file", &key, &vault, "latest", &to])).expect(0);
        let mut restored = picture(&target);
        if restored.keys().any(|name| name.as_os_str() == "data") {
            restored = picture(&target.join("data"));
        }
        assert_same(&restored, &original);
    }
    let vault = world.vault("local", "uploads");
    let pack = tree::files(&vault.join("data")).remove(0);
    let path = vault.join("data").join(pack);
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 0x80;
    tree::write(&path, &bytes);
    let vault = vault.display().to_string();
    finished(&mut recover(&world, &["verify", "--key-file", &key, &vault])).expect(6);
}

#[test]
fn points_name_snapshots_that_restic_lists() {
    let world = World::of_files();
    let point = world.backup("uploads");
    let snapshot = snapshot(&world, "uploads", &point);
    let password = password(&world, "uploads", "offsite");
    let listed =
        finished(restic(&world, &world.vault("offsite", "uploads"), &password).args(["--json", "snapshots"]))
            .expect(0);
    assert_eq!(texts(&listed.json(), "id"), [snapshot]);
}
