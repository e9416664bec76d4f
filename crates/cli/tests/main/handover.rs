//! What is handed over about one drill: pages for people, the records they rest on, and that nobody can change either.

use std::process::Command;

use super::tree;
use super::world::World;

fn world() -> World {
    let world = World::of_everything();
    world.run(&["backup"]).expect(0);
    world
}

#[test]
fn a_drill_is_handed_over_with_a_report_that_shows_what_its_records_say() {
    let world = world();
    let first = world.json(&["drill", "--all"], 0);
    tree::write(&world.path("vaults/local/orders/data/planted"), b"x");
    let second = world.json(&["drill", "orders"], 0);
    world.run(&["evidence", "export", first["id"].as_str().unwrap(), "--to", "handed"]).expect(0);
    let bundle = world.path("handed");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bundle.join("report.json")).unwrap()).unwrap();
    for field in
        ["id", "verdict", "stores", "order", "agreement", "findings", "common_moment", "records", "log"]
    {
        assert_eq!(report[field], first[field], "{field}");
    }
    let records = first["records"].as_array().unwrap().len();
    assert_eq!(std::fs::read_dir(bundle.join("records")).unwrap().count(), records + 1);
    let html = std::fs::read_to_string(bundle.join("report.html")).unwrap();
    for shown in ["PASSED", "uploads", "orders", "<svg", "2 of 2 stores restored and checked in isolation"] {
        assert!(html.contains(shown), "{shown} is not in {html}");
    }
    let key = std::fs::read_to_string(bundle.join("public.key")).unwrap();
    let verify = |place: &str| world.run(&["evidence", "verify", "--dir", place, "--public-key", key.trim()]);
    verify("handed").expect(0);
    let script =
        Command::new("python3").arg(bundle.join("verify.py")).arg(&bundle).arg(key.trim()).output().unwrap();
    assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stdout));

    // The newest, in one file; a report that says something else than it did is found.
    world.run(&["evidence", "export", "last", "--to", "last.tar"]).expect(0);
    verify("last.tar").expect(0);
    let list = Command::new("tar").arg("-tf").arg(world.path("last.tar")).output().unwrap();
    let names = String::from_utf8(list.stdout).unwrap();
    assert!(names.lines().any(|name| name == "last/report.html"), "{names}");
    let html = html.replace("PASSED", "FAILED");
    tree::write(&bundle.join("report.html"), html.as_bytes());
    let ran = verify("handed").expect(6);
    assert!(ran.stdout.contains("report.html was changed"), "{}", ran.stdout);
    assert_ne!(first["id"], second["id"]);
    world.run(&["evidence", "verify"]).expect(0);
}

#[test]
fn what_was_never_filed_cannot_be_handed_over_and_nothing_is_left() {
    let world = world();
    let ran = world.run(&["evidence", "export", "last", "--to", "handed"]).expect(2);
    assert!(ran.stderr.contains("no drill was filed yet"), "{}", ran.stderr);
    world.run(&["drill", "orders"]).expect(0);
    let ran = world.run(&["evidence", "export", "drill-of-somebody", "--to", "handed"]).expect(2);
    assert!(ran.stderr.contains("no drill `drill-of-somebody` was filed"), "{}", ran.stderr);
    world.run(&["evidence", "export", "last", "--to", "handed"]).expect(0);
    let ran = world.run(&["evidence", "export", "last", "--to", "handed"]).expect(3);
    assert!(ran.stderr.contains("exists already"), "{}", ran.stderr);
    tree::write(&world.path("no.tar"), b"no archive at all");
    world.run(&["evidence", "verify", "--dir", "no.tar"]).expect(6);
    let left: Vec<_> = std::fs::read_dir(world.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
