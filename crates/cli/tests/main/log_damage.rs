//! Pieces of log that a copy lists and cannot give: noticed, shown, stored again, and in nobody's way.

use std::fs;
use std::path::PathBuf;

use lifeboat_testkit::PgServer;

use super::archive::{object, objects, segment, server, world};
use super::postgres::{LEDGER, NOW, ask};
use super::world::{Ran, World};

const COPIES: [&str; 2] = ["local", "offsite"];

/// Ends a segment with a row in it; gives the file as an archiver would find it.
fn ended_segment(server: &PgServer, world: &World, n: u32) -> PathBuf {
    server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
    let name = server.psql("SELECT pg_walfile_name(pg_switch_wal())");
    segment(server, world, &name)
}

fn push(world: &World, path: &std::path::Path) -> Ran {
    world.run(&["wal", "push", &path.display().to_string()])
}

fn rewrite(server: &PgServer, path: &std::path::Path, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let sound = fs::read(path).unwrap();
    let mut bytes = sound.clone();
    change(&mut bytes);
    super::tree::write(path, &bytes);
    server.give(path);
    sound
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

/// The copies of each range that `points` shows, and whether a gap follows it.
fn ranges(world: &World) -> Vec<(Vec<String>, bool)> {
    let report = world.run(&["--json", "points", "shop"]).json();
    let ranges = report["ranges"].as_array().unwrap().iter();
    let copies = |range: &serde_json::Value| {
        range["copies"].as_array().unwrap().iter().map(|copy| copy.as_str().unwrap().to_owned()).collect()
    };
    ranges.map(|range| (copies(range), range["gap_after"] == true)).collect()
}

fn whole() -> Vec<(Vec<String>, bool)> {
    vec![(COPIES.map(str::to_owned).to_vec(), false)]
}

#[test]
fn a_damaged_object_is_not_a_kept_one_and_the_next_push_stores_it_again_beside_it() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    let paths = [1, 2, 3].map(|n| ended_segment(&server, &world, n));
    for path in &paths {
        push(&world, path).expect(0);
    }
    let victim = objects(&world, "local").into_iter().nth(1).unwrap();
    for copy in COPIES {
        rewrite(&server, &object(&world, copy, &victim), |bytes| flip(bytes));
    }
    assert!(ranges(&world).iter().any(|(_, gap)| *gap));
    let (state, reason) = world.promise("shop", "rpo");
    assert!(state == "broken" && reason.contains(&victim), "{state} {reason}");
    let ran = push(&world, &paths[1]).expect(0);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    for copy in COPIES {
        let place = format!("vaults/{copy}/shop/lifeboat/logs/wal/{victim}, then run `lifeboat verify shop`");
        assert!(ran.stderr.contains(&place), "{place}: {ran:?}");
    }
    assert!(ran.stderr.contains("stored again beside it"), "{ran:?}");
    assert_eq!(objects(&world, "local").len(), 5);
    assert_eq!(objects(&world, "local"), objects(&world, "offsite"));
    assert_eq!(ranges(&world), whole());
    assert_eq!(world.promise("shop", "rpo").0, "kept");
    let now = server.psql(NOW);
    world.run(&["restore", "shop", "--to", "back", "--at", now.trim()]).expect(3);
    world.run(&["restore", "shop", "--to", "back"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "3|3");
    // The damage stays named until the remedy was followed.
    let ran = world.run(&["verify", "shop"]).expect(6);
    assert!(ran.stdout.contains(&victim), "{ran:?}");
    for copy in COPIES {
        fs::remove_file(object(&world, copy, &victim)).unwrap();
    }
    world.run(&["verify", "shop"]).expect(0);
    assert_eq!(ranges(&world), whole());
    assert_eq!(world.promise("shop", "rpo").0, "kept");
}

#[test]
fn a_damaged_object_of_one_copy_is_stored_again_from_the_other_or_from_the_file_itself() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    let paths = [1, 2].map(|n| ended_segment(&server, &world, n));
    for path in &paths {
        push(&world, path).expect(0);
    }
    let [first, second] = objects(&world, "local").into_iter().collect::<Vec<_>>().try_into().unwrap();
    // The other copy has it.
    rewrite(&server, &object(&world, "local", &first), |bytes| flip(bytes));
    let ran = push(&world, &paths[0]).expect(0);
    assert!(ran.stderr.contains("stored again beside it"), "{ran:?}");
    assert_eq!(ranges(&world), whole());
    // The other copy is away: only the server still has it.
    rewrite(&server, &object(&world, "local", &second), |bytes| bytes.truncate(bytes.len() / 2));
    super::tree::rename(&world.vault("offsite", "shop"), &world.path("away"));
    let ran = push(&world, &paths[1]).expect(0);
    assert!(ran.stderr.contains("stored again beside it"), "{ran:?}");
    super::tree::rename(&world.path("away"), &world.vault("offsite", "shop"));
    push(&world, &ended_segment(&server, &world, 3)).expect(0);
    assert_eq!(ranges(&world), whole());
    fs::remove_dir_all(world.vault("offsite", "shop")).unwrap();
    world.run(&["restore", "shop", "--to", "back", "--copy", "local"]).expect(0);
    assert_eq!(ask(&server, &world.path("back"), LEDGER), "3|3");
}

#[test]
fn a_damaged_object_keeps_no_later_piece_from_its_copy() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    // A piece that waits for the other copy is damaged in this one meanwhile.
    super::tree::rename(&world.vault("offsite", "shop"), &world.path("away"));
    push(&world, &ended_segment(&server, &world, 1)).expect(0);
    let first = objects(&world, "local").into_iter().next().unwrap();
    rewrite(&server, &object(&world, "local", &first), |bytes| flip(bytes));
    super::tree::rename(&world.path("away"), &world.vault("offsite", "shop"));
    let ran = push(&world, &ended_segment(&server, &world, 2)).expect(0);
    assert!(ran.stderr.contains(&first) && ran.stderr.contains("stored again beside it"), "{ran:?}");
    assert_eq!(ranges(&world), whole());
    assert_eq!(objects(&world, "offsite").len(), 2);
    // The whole piece and its halves, and the one after it.
    assert_eq!(objects(&world, "local").len(), 4);
    assert_eq!(world.promise("shop", "rpo").0, "kept");
    let left = fs::read_dir(world.path("state/logs/shop")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains("piece")), "{left:?}");
}

#[test]
fn a_piece_that_was_cut_short_is_seen_by_status_and_a_flipped_byte_once_somebody_has_read_it() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    for n in 1..=2 {
        push(&world, &ended_segment(&server, &world, n)).expect(0);
    }
    assert_eq!(world.promise("shop", "rpo").0, "kept");
    let victim = objects(&world, "local").into_iter().next_back().unwrap();
    let sound = rewrite(&server, &object(&world, "local", &victim), |bytes| bytes.truncate(bytes.len() - 1));
    let (state, reason) = world.promise("shop", "rpo");
    assert!(state == "broken" && reason.contains(&victim) && reason.contains("`local`"), "{state} {reason}");
    rewrite(&server, &object(&world, "local", &victim), |bytes| bytes.clone_from(&sound));
    assert_eq!(world.promise("shop", "rpo").0, "kept");
    rewrite(&server, &object(&world, "local", &victim), |bytes| flip(bytes));
    world.run(&["verify", "shop"]).expect(6);
    let (state, reason) = world.promise("shop", "rpo");
    assert!(state == "broken" && reason.contains(&victim), "{state} {reason}");
    rewrite(&server, &object(&world, "local", &victim), |bytes| bytes.clone_from(&sound));
    world.run(&["verify", "shop"]).expect(0);
    assert_eq!(world.promise("shop", "rpo").0, "kept");
}
