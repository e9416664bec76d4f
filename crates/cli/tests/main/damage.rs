//! One wrong byte anywhere: noticed, named, its reach stated; nothing that looks whole is made from it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tree::{self, Picture, Random, assert_same, picture};
use super::world::{World, texts};

/// Three points of one store: the first two share a file that the third does not have, and the other way round.
struct Points {
    world: World,
    ids: Vec<String>,
    trees: Vec<Picture>,
}

fn three_points() -> Points {
    let mut points = Points { world: World::of_files(), ids: Vec::new(), trees: Vec::new() };
    for round in 0..3 {
        if round > 0 {
            tree::change(&points.world.uploads(), round);
        }
        points.trees.push(picture(&points.world.uploads()));
        points.ids.push(points.world.backup("uploads"));
    }
    points.world.run(&["verify"]).expect(0);
    points
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip(usize),
    Truncate,
    Empty,
    Delete,
}

/// A file of the vault with its sound content; put back when dropped.
struct Damaged<'a> {
    path: &'a Path,
    sound: Vec<u8>,
}

impl<'a> Damaged<'a> {
    fn new(path: &'a Path, harm: Harm) -> Self {
        let sound = fs::read(path).unwrap();
        match harm {
            Harm::Flip(offset) => {
                let mut bytes = sound.clone();
                bytes[offset] ^= 1 << (offset % 8);
                tree::write(path, &bytes);
            }
            Harm::Truncate => tree::write(path, &sound[..sound.len() / 2]),
            Harm::Empty => tree::write(path, b""),
            Harm::Delete => fs::remove_file(path).unwrap(),
        }
        Self { path, sound }
    }
}

impl Drop for Damaged<'_> {
    fn drop(&mut self) {
        tree::write(self.path, &self.sound);
    }
}

/// The harms one file gets: its first, its last and a random byte, and then no right content at all.
fn harms(length: u64, random: &mut Random) -> Vec<Harm> {
    let length = usize::try_from(length).unwrap();
    let any = usize::try_from(random.below(length as u64)).unwrap();
    vec![Harm::Flip(any), Harm::Flip(0), Harm::Flip(length - 1), Harm::Truncate, Harm::Empty, Harm::Delete]
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// How the vault calls a file: packs lie in folders named by their first two digits.
fn object(file: &Path) -> String {
    let name = file.file_name().unwrap().to_string_lossy();
    if file.starts_with("data") { format!("data/{name}") } else { file.display().to_string() }
}

/// Names the file and the points it takes with it, in JSON and in words.
fn verify_names(points: &Points, name: &str, what: &str) -> Vec<String> {
    let ran = points.world.run(&["--json", "verify", "uploads"]);
    assert_eq!(ran.code, Some(6), "{what}: {}", ran.stdout);
    let report = ran.json();
    let said = report.to_string();
    let local = report["copies"].as_array().unwrap().iter().find(|copy| copy["copy"] == "local");
    let local = local.unwrap_or_else(|| panic!("{what}: the damaged copy is not in the report: {said}"));
    let named = local["damaged"].as_array().unwrap();
    // A key or an index that is gone altogether left its name nowhere; its folder and what it did are named.
    let nameless = what.ends_with("Delete") && (name.starts_with("index/") || name.starts_with("keys/"));
    assert!(
        if nameless { !named.is_empty() } else { named.iter().any(|damage| damage["object"] == name) },
        "{what}: {name} is not named in {said}"
    );
    let offsite = report["copies"].as_array().unwrap().iter().find(|copy| copy["copy"] == "offsite").unwrap();
    assert_eq!(offsite["broken"].as_array().unwrap().len(), 0, "{what}: {said}");
    let mut broken = texts_of(&local["broken"]);
    let mut of_objects: Vec<String> = named.iter().flat_map(|damage| texts_of(&damage["points"])).collect();
    broken.sort();
    of_objects.sort();
    of_objects.dedup();
    assert_eq!(broken, of_objects, "{what}: points are broken without an object, or the other way round");
    for point in &points.ids {
        let proven = texts_of(&local["proven"]).contains(point);
        assert_ne!(proven, broken.contains(point), "{what}: {point} is both or neither: {said}");
    }
    broken
}

fn texts_of(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// Restores of a damaged vault: sound points come back, broken ones fail whole, the other copy takes over.
fn restores(points: &Points, broken: &[String], what: &str) {
    let world = &points.world;
    if world.path("out").exists() {
        fs::remove_dir_all(world.path("out")).unwrap();
    }
    for (point, original) in points.ids.iter().zip(&points.trees) {
        let only = ["restore", "uploads", "--to", "out/x", "--at", point, "--copy", "local"];
        if broken.contains(point) {
            let ran = world.run(&only);
            if matches!(ran.code, Some(0 | 5)) {
                // What is damaged was not needed for the content, or is stored twice.
                assert!(
                    !what.starts_with("data/") || !what.ends_with("Delete"),
                    "{what}: restored from nothing"
                );
                assert_same(&picture(&world.path("out/x")), original);
                fs::remove_dir_all(world.path("out")).unwrap();
            } else {
                assert_eq!(ran.code, Some(6), "{what}: {ran:?}");
                let left = fs::read_dir(world.path("out")).map_or(0, Iterator::count);
                assert_eq!(left, 0, "{what}: something is left");
            }
            let ran = world.run(&["--json", "restore", "uploads", "--to", "out/x", "--at", point]);
            assert_eq!(ran.code, Some(5), "{what}: {ran:?}");
            assert_eq!(ran.json()["copy"], "offsite", "{what}");
            assert!(!ran.json()["findings"].as_array().unwrap().is_empty(), "{what}");
        } else {
            let ran = world.run(&only);
            // It may say what is wrong with other points.
            assert!(matches!(ran.code, Some(0 | 5)), "{what}: {ran:?}");
        }
        assert_same(&picture(&world.path("out/x")), original);
        fs::remove_dir_all(world.path("out")).unwrap();
    }
}

#[test]
fn every_wrong_byte_in_a_vault_is_found_and_named_and_the_rest_still_restores() {
    let points = three_points();
    let mut random = Random::printed("damage of a vault");
    let vault = points.world.vault("local", "uploads");
    let names = tree::files(&vault);
    let mut reached = Vec::new();
    let mut problems = Vec::new();
    for name in &names {
        let path = vault.join(name);
        for (index, harm) in harms(length(&path), &mut random).into_iter().enumerate() {
            let what = format!("{} {harm:?}", name.display());
            let tried = std::panic::catch_unwind(|| {
                let _damaged = Damaged::new(&path, harm);
                let broken = verify_names(&points, &object(name), &what);
                let promises = points.world.promises("uploads");
                let copies = promises["copies"].0.as_str();
                assert_eq!(copies == "broken", !broken.is_empty(), "{what}: {promises:?}");
                assert_eq!(promises["verify"].0, "broken", "{what}: {promises:?}");
                if index == 0 || (matches!(harm, Harm::Delete) && name.starts_with("data")) {
                    restores(&points, &broken, &what);
                }
                broken.len()
            });
            match tried {
                Ok(count) => reached.push(count),
                Err(_) => problems.push(what),
            }
        }
    }
    assert_eq!(problems, Vec::<String>::new(), "of {} files", names.len());
    // Damage of every reach was met: one that leaves some points sound, and one that leaves none.
    assert!(reached.contains(&1) && reached.contains(&3), "{reached:?}");
    let report = points.world.json(&["verify", "uploads"], 0);
    assert!(report["findings"].as_array().unwrap().is_empty(), "{report}");
    assert_eq!(points.world.promise("uploads", "copies").0, "kept", "repaired damage stays marked");
}

#[test]
fn every_wrong_byte_in_the_evidence_is_found_and_named() {
    let world = World::of_files();
    for _ in 0..3 {
        world.backup("uploads");
    }
    world.run(&["evidence", "verify"]).expect(0);
    let dir = world.path("state/evidence");
    let key = fs::read_to_string(dir.join("public.key")).unwrap().trim().to_owned();
    let mut random = Random::printed("damage of evidence");
    let mut files: Vec<PathBuf> = tree::files(&dir);
    files.retain(|name| name != Path::new("lock"));
    assert_eq!(files.len(), 5, "{files:?}");
    for name in files {
        let path = dir.join(&name);
        for harm in harms(length(&path), &mut random) {
            let _damaged = Damaged::new(&path, harm);
            let what = format!("{} {harm:?}", name.display());
            for trusted in [None, Some(key.as_str())] {
                let mut args = vec!["--json", "evidence", "verify"];
                args.extend(trusted.iter().flat_map(|key| ["--public-key", key]));
                let ran = world.run(&args);
                assert_eq!(ran.code, Some(6), "{what}, trusting {trusted:?}: {ran:?}");
                let named = name.file_stem().unwrap().to_string_lossy().trim_start_matches('0').to_owned();
                assert!(ran.stdout.contains(&named), "{what} is not named: {}", ran.stdout);
            }
        }
    }
    world.run(&["evidence", "verify"]).expect(0);
}

#[test]
fn damage_to_a_database_vault_is_found_by_verify_and_never_restored() {
    let world = World::of_everything();
    world.backup("orders");
    let vault = world.vault("local", "orders");
    for name in tree::files(&vault.join("data")) {
        let path = vault.join("data").join(&name);
        let _damaged = Damaged::new(&path, Harm::Flip(usize::try_from(length(&path)).unwrap() / 3));
        let report = world.json(&["verify", "orders"], 6);
        assert!(report.to_string().contains(&name.file_name().unwrap().to_string_lossy().into_owned()));
        world.run(&["restore", "orders", "--to", "db", "--copy", "local"]).expect(6);
        assert!(!world.path("db").exists());
    }
    world.run(&["verify", "orders"]).expect(0);
    world.run(&["restore", "orders", "--to", "db", "--copy", "local"]).expect(0);
}

#[test]
fn damage_is_told_in_words_a_person_can_act_on() {
    let points = three_points();
    let vault = points.world.vault("local", "uploads");
    let manifest = PathBuf::from(format!("lifeboat/points/{}.json", points.ids[1]));
    {
        let path = vault.join(&manifest);
        let _damaged = Damaged::new(&path, Harm::Flip(0));
        points.world.assert_seen("damage-manifest", &points.world.run(&["verify"]).expect(6).stdout);
        points.world.assert_seen("damage-manifest-points", &points.world.run(&["points"]).expect(6).stdout);
    }
    let envelope = vault.join("lifeboat/envelope.json");
    {
        let _damaged = Damaged::new(&envelope, Harm::Delete);
        let ran = points.world.run(&["verify"]).expect(6);
        points.world.assert_seen("damage-envelope", &ran.stdout);
        let ran = points.world.run(&["restore", "uploads", "--to", "x", "--copy", "local"]).expect(6);
        points.world.assert_seen("damage-envelope-restore", &ran.stderr);
    }
    assert_eq!(texts(&points.world.json(&["points", "uploads"], 0)["points"], "id"), points.ids);
}
