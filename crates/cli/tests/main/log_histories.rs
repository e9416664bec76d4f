//! Histories of timelines that a server hands over, and what speaks against them.

use std::fs;
use std::path::PathBuf;

use lifeboat_testkit::PgServer;

use super::archive::{segment, server, world};
use super::world::{Ran, World};

/// A file as a server would hand it over.
fn history(server: &PgServer, world: &World, timeline: u32, text: &str) -> PathBuf {
    let path = world.path(&format!("{timeline:08X}.history"));
    super::tree::write(&path, text.as_bytes());
    server.give(&path);
    path
}

fn push(world: &World, path: &std::path::Path) -> Ran {
    world.run(&["wal", "push", &path.display().to_string()])
}

fn kept(world: &World, timeline: u32) -> PathBuf {
    world.path(&format!("state/logs/shop/{timeline:08X}.history"))
}

/// A position so many bytes after the current segment, as a history has it.
fn ahead(server: &PgServer, bytes: u64) -> String {
    server.psql(&format!("SELECT pg_current_wal_lsn() + {bytes}"))
}

fn ended_segment(server: &PgServer, world: &World, n: u32) -> PathBuf {
    server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
    let name = server.psql("SELECT pg_walfile_name(pg_switch_wal())");
    segment(server, world, &name)
}

#[test]
fn a_history_that_contradicts_what_is_kept_is_refused_and_does_not_stop_the_archiver() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    push(&world, &ended_segment(&server, &world, 1)).expect(0);
    // It leaves the first timeline before anything of it was kept.
    let ran =
        push(&world, &history(&server, &world, 2, "1\t0/100028\tno recovery target specified\n")).expect(3);
    for part in ["00000002.history is no history of `shop`", "next: ", "state/logs/shop/00000002.history"] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    assert!(!kept(&world, 2).exists());
    push(&world, &ended_segment(&server, &world, 2)).expect(0);
    // After the end of what is kept nothing speaks against it.
    let (first, second) = (ahead(&server, 1 << 20), ahead(&server, 1 << 21));
    push(&world, &history(&server, &world, 2, &format!("1\t{first}\tmaybe\n"))).expect(0);
    // Another way to the second timeline, by itself and as a part of the way to the third.
    let ran = push(&world, &history(&server, &world, 2, &format!("1\t{second}\tmaybe\n"))).expect(3);
    assert!(ran.stderr.contains("is another history") && ran.stderr.contains("aside"), "{ran:?}");
    let third = format!("1\t{second}\tmaybe\n2\t{}\tmaybe\n", ahead(&server, 1 << 22));
    let ran = push(&world, &history(&server, &world, 3, &third)).expect(3);
    assert!(ran.stderr.contains("00000002.history from"), "{ran:?}");
    assert!(!kept(&world, 3).exists());
    // The way out that the message names.
    super::tree::rename(&kept(&world, 2), &world.path("wrong"));
    push(&world, &history(&server, &world, 2, &format!("1\t{second}\tmaybe\n"))).expect(0);
    push(&world, &history(&server, &world, 3, &third)).expect(0);
    push(&world, &ended_segment(&server, &world, 3)).expect(0);
}

#[test]
fn a_history_beside_the_control_file_of_another_cluster_is_refused() {
    let server = server(15);
    let world = world(&server);
    world.backup("shop");
    push(&world, &ended_segment(&server, &world, 1)).expect(0);
    let text = format!("1\t{}\tmaybe\n", ahead(&server, 1 << 20));
    let other = super::archive::server(15);
    let path = other.data().join("pg_wal/00000002.history");
    other.write(&path, text.as_bytes());
    let ran = push(&world, &path).expect(3);
    assert!(ran.stderr.contains("is of the cluster"), "{ran:?}");
    assert!(!kept(&world, 2).exists());
    let path = server.data().join("pg_wal/00000002.history");
    server.write(&path, text.as_bytes());
    push(&world, &path).expect(0);
    assert_eq!(fs::read_to_string(kept(&world, 2)).unwrap(), text);
}
