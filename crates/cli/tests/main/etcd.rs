//! etcd end to end: snapshots by a member and by a command, drills, and what is restored started as a user would.

use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_testkit::{EtcdOptions, EtcdServer, etcd_installations};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::drill_ends;
use super::world::World;

/// A server with some keys of every kind.
pub(crate) fn server(options: EtcdOptions) -> EtcdServer {
    let server = EtcdServer::start(options);
    server.load("/registry/pods/default/", 1500);
    server.load("/registry/configmaps/default/", 200);
    server.ctl(&["put", "Größe \"x\"", "1"]);
    server.ctl(&["del", "/registry/pods/default/0000003"]);
    let lease = server.ctl(&["lease", "grant", "3600"]);
    server.ctl(&["put", "leased", "1", &format!("--lease={}", lease.split_whitespace().nth(1).unwrap())]);
    server
}

/// Every key with its value, as a server gives them.
pub(crate) fn all_keys(server: &EtcdServer) -> String {
    server.ctl(&["get", "", "--from-key"])
}

/// Starts what was restored and gives every key of it.
fn keys_of(server: &EtcdServer, restored: &Path) -> String {
    let options = EtcdOptions::new(server.installation()).on_copy_of(&restored.join("etcd"));
    all_keys(&EtcdServer::start(options))
}

fn url(server: &EtcdServer) -> String {
    format!("url = \"{}\"", server.url())
}

#[test]
fn a_cluster_is_captured_drilled_and_restored_ready_to_start() {
    for installation in etcd_installations() {
        let server = server(EtcdOptions::new(&installation));
        let world = World::of_etcd(&server, &url(&server));
        let check = world.json(&["check"], 0);
        assert_eq!(check["stores"][0]["version"], format!("etcd {}", installation.version));
        world.backup("plane");
        let before = all_keys(&server);
        server.ctl(&["del", "/registry/", "--prefix"]);
        world.run(&["verify", "plane"]).expect(0);
        let drill = world.json(&["drill", "plane"], 0);
        let checks = drill["stores"][0]["checks"].as_array().unwrap();
        assert_eq!(checks.len(), 14, "{checks:?}");
        for check in checks {
            assert_eq!(
                (&check["state"], &check["canary_caught"]),
                (&"passed".into(), &true.into()),
                "{check}"
            );
        }
        let report = world.json(&["restore", "plane", "--to", "back"], 0);
        assert_eq!(report["artefact"], "back/etcd");
        assert_eq!(keys_of(&server, &world.path("back")), before, "{}", installation.version);
        let text = fs::read_to_string(world.path("back/RECOVERY.txt")).unwrap();
        for needle in ["etcd --data-dir ./etcd", "--recover-from=snapshot.db", "--bump-revision"] {
            assert!(text.contains(needle), "{text}");
        }
        // The newest tool takes the snapshot as it is.
        let told = server.ctl(&["snapshot", "status", world.path("back/snapshot.db").to_str().unwrap()]);
        assert!(!told.is_empty());
    }
}

#[test]
fn what_is_known_about_a_snapshot_stands_with_the_point() {
    let server = server(EtcdOptions::new(&etcd_installations()[1]));
    let world = World::of_etcd(&server, &url(&server));
    let point = world.backup("plane");
    let found = manifest(&world);
    assert_eq!(found["id"], point);
    let facts = &found["facts"];
    assert_eq!(facts["counts"]["keys"], 1701);
    assert_eq!(facts["counts"]["keys//registry/pods"], 1499);
    assert_eq!(facts["counts"]["leases"], 1);
    assert_eq!(facts["environment"]["hashkv_of_the_server"], "the same");
    assert_eq!(facts["consistency"]["level"], "point-in-time");
    for name in [
        "cluster_id",
        "member_id",
        "members",
        "revision",
        "compact_revision",
        "server_version",
        "snapshot_sha256",
    ] {
        assert!(!facts["environment"][name].is_null(), "{name}");
    }
}

/// The manifest of the only point, out of its envelope.
fn manifest(world: &World) -> Value {
    use base64::Engine as _;
    let folder = world.vault("local", "plane").join("lifeboat/points");
    let mut files: Vec<PathBuf> = Vec::new();
    let mut open = vec![folder];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    let envelope: Value = serde_json::from_slice(&fs::read(&files[0]).unwrap()).unwrap();
    let payload = envelope["payload"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(payload).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_revision_is_raised_for_kubernetes() {
    for installation in etcd_installations() {
        let server = server(EtcdOptions::new(&installation));
        let world = World::of_etcd(&server, &url(&server));
        world.backup("plane");
        let before = all_keys(&server);
        world.run(&["restore", "plane", "--to", "back", "--bump-revision", "1000000000"]).expect(0);
        assert_eq!(keys_of(&server, &world.path("back")), before);
        let options = EtcdOptions::new(&installation).on_copy_of(&world.path("back/etcd"));
        let restored = EtcdServer::start(options);
        let told: Value = serde_json::from_str(&restored.ctl(&["put", "new", "1", "-w", "json"])).unwrap();
        assert!(told["header"]["revision"].as_i64().unwrap() > 1_000_000_000, "{told}");
        let old = restored.try_ctl(&["get", "new", "--rev", "5"]);
        assert!(String::from_utf8_lossy(&old.stderr).contains("compacted"), "{old:?}");
        assert!(world.path("back/snapshot-raised.db").exists());
    }
    let files = World::of_files();
    files.backup("uploads");
    let ran = files.run(&["restore", "uploads", "--to", "back", "--bump-revision", "5"]).expect(2);
    assert!(ran.stderr.contains("has no revision to raise"), "{}", ran.stderr);
}

#[test]
fn certificates_and_a_password_by_reference_reach_a_closed_cluster_and_are_shown_nowhere() {
    for installation in etcd_installations() {
        let mut server = server(EtcdOptions::new(&installation).tls());
        server.enable_auth("hunter2-canary");
        let tls = server.tls().unwrap();
        let lines = format!(
            "{}\nca = \"file:{}\"\ncert = \"file:{}\"\nkey = \"file:{}\"\nuser = \"root\"\npassword = \"env:PLANE_PASSWORD\"",
            url(&server),
            tls.ca.display(),
            tls.cert.display(),
            tls.key.display()
        );
        let mut world = World::of_etcd(&server, &lines);
        world.env.push(("PLANE_PASSWORD".to_owned(), "hunter2-canary".to_owned()));
        let mut shown = String::new();
        for args in [&["check"][..], &["backup", "plane"], &["drill", "plane", "-v"], &["explain", "plane"]] {
            let ran = world.run(args).expect(0);
            shown.push_str(&ran.stdout);
            shown.push_str(&ran.stderr);
        }
        let (_, good) = world.env.pop().unwrap();
        world.env.push(("PLANE_PASSWORD".to_owned(), "canary-wrong".to_owned()));
        let ran = world.run(&["backup", "plane"]);
        assert_eq!(ran.code, Some(4), "{}", ran.stderr);
        shown.push_str(&ran.stdout);
        shown.push_str(&ran.stderr);
        // A restore needs none of production's secrets.
        world.env.pop();
        world.run(&["restore", "plane", "--to", "back"]).expect(0);
        assert!(!shown.contains(&good) && !shown.contains("canary"), "{shown}");
        assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    }
}

/// A stand-in for `talosctl`, which calls the real `etcdctl` as a node would, and then does `then`.
pub(crate) fn talosctl(server: &EtcdServer, world: &World, then: &str) {
    let ctl = server.programs().join("etcdctl");
    let text = format!(
        "#!/bin/sh\nset -e\n[ \"$1 $2\" = \"etcd snapshot\" ]\nETCDCTL_API=3 {} --endpoints \"$NODE\" snapshot save \"$3\" \
         >/dev/null 2>&1\n{then}\n",
        ctl.display()
    );
    let path = world.path("talosctl");
    crashsafe::replace(&path, text.as_bytes()).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

pub(crate) fn world_of_talos(server: &EtcdServer) -> World {
    let mut world = World::of_etcd(server, "# the command");
    let command = world.path("talosctl").display().to_string();
    let lines =
        format!("command = [\"{command}\", \"etcd\", \"snapshot\", \"{{file}}\"]\nenvironment = [\"NODE\"]");
    world.policy = world.policy.replace("# the command", &lines);
    world.write_policy(&world.policy);
    world.env.push(("NODE".to_owned(), server.url()));
    world.env.push(("UNNAMED_SECRET".to_owned(), "canary".to_owned()));
    world
}

#[test]
fn a_command_takes_the_snapshot_and_sees_only_what_it_is_given() {
    for installation in etcd_installations() {
        let server = server(EtcdOptions::new(&installation));
        let world = world_of_talos(&server);
        let seen = world.path("seen");
        talosctl(&server, &world, &format!("env > {0}; pwd >> {0}; stat -c %a . >> {0}", seen.display()));
        world.run(&["check"]).expect(0);
        world.backup("plane");
        let seen = fs::read_to_string(seen).unwrap();
        assert!(seen.contains("NODE=") && !seen.contains("canary") && !seen.contains("HOME="), "{seen}");
        assert!(seen.ends_with("700\n"), "{seen}");
        world.run(&["drill", "plane"]).expect(0);
        world.run(&["restore", "plane", "--to", "back"]).expect(0);
        assert_eq!(keys_of(&server, &world.path("back")), all_keys(&server));
        talosctl(&server, &world, "echo no route to node >&2; exit 1");
        let ran = world.run(&["backup", "plane"]);
        assert!(ran.code != Some(0) && ran.stdout.contains("no route to node"), "{ran:?}");
    }
}

#[test]
fn a_command_that_leaves_something_running_is_not_waited_for() {
    let server = server(EtcdOptions::new(&etcd_installations()[0]));
    let world = world_of_talos(&server);
    let left = world.path("left");
    // Out of its group, and with its output still open, as a shared connection of ssh.
    talosctl(&server, &world, &format!("setsid sleep 3000 & echo $! > {}", left.display()));
    world.backup("plane");
    let pid = fs::read_to_string(left).unwrap().trim().parse().ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn another_cluster_at_the_address_is_told() {
    let installation = &etcd_installations()[0];
    let (first, second) = (server(EtcdOptions::new(installation)), server(EtcdOptions::new(installation)));
    let world = World::of_etcd(&first, &url(&first));
    world.backup("plane");
    world.write_policy(&world.policy.replace(&first.url(), &second.url()));
    let ran = world.run(&["backup", "plane"]).expect(5);
    assert!(ran.stdout.contains("the point before is of"), "{ran:?}");
    world.backup("plane");
}

#[test]
fn a_cluster_that_is_away_is_told_and_the_next_backup_succeeds() {
    let mut server = server(EtcdOptions::new(&etcd_installations()[0]));
    let world = World::of_etcd(&server, &url(&server));
    world.backup("plane");
    server.end();
    let ran = world.run(&["backup", "plane"]).expect(4);
    assert!(ran.stdout.contains("cannot be reached"), "{ran:?}");
    assert_eq!(world.points("plane").len(), 1);
    server.start_again();
    world.backup("plane");
    assert_eq!(world.points("plane").len(), 2);
}

#[test]
fn a_drill_killed_with_a_member_running_leaves_none() {
    let server = server(EtcdOptions::new(&etcd_installations()[1]));
    let world = World::of_etcd(&server, &url(&server));
    world.backup("plane");
    drill_ends::killed_with_servers_running(&world, "plane", ("lb-etcd-", "etcd"));
}

#[test]
fn init_prints_what_a_cluster_needs() {
    let world = World::of_files();
    let text = world.run(&["init", "etcd"]).expect(0).stdout;
    for needle in ["user grant-role lifeboat root", "password = \"env:", "\"talosctl\""] {
        assert!(text.contains(needle), "{text}");
    }
    assert_eq!(world.json(&["init", "etcd"], 0)["schema"], "lifeboat.init-etcd/v1");
}

/// Raises an alarm as an administrator's tool would, over the server's gateway for JSON.
fn raise(server: &EtcdServer, alarm: &str) {
    use std::io::{Read, Write};
    let place = server.url();
    let place = place.strip_prefix("http://").unwrap();
    let member: Value =
        serde_json::from_str(&server.ctl(&["endpoint", "status", "--write-out=json"])).unwrap();
    let member = &member[0]["Status"]["header"]["member_id"];
    let body = format!("{{\"action\":\"ACTIVATE\",\"memberID\":\"{member}\",\"alarm\":\"{alarm}\"}}");
    let mut stream = std::net::TcpStream::connect(place).unwrap();
    let head = format!(
        "POST /v3/maintenance/alarm HTTP/1.1\r\nHost: {place}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn an_alarm_of_the_cluster_is_told_by_check_and_backup_and_stands_in_the_matrix_until_it_is_over() {
    for installation in etcd_installations() {
        let server = server(EtcdOptions::new(&installation).argument("--quota-backend-bytes=4000000"));
        let world = World::of_etcd(&server, &url(&server));
        world.backup("plane");
        assert_eq!(world.promise("plane", "rpo").0, "kept");
        // More than there may be: the server raises the alarm itself.
        let value = "x".repeat(100_000);
        while server.try_ctl(&["put", "large", &value]).status.success() {}
        let told = |code: i32, alarm: &str, state: &str| {
            for command in ["check", "backup"] {
                let ran =
                    world.run(&[command, "plane"][..if command == "check" { 1 } else { 2 }]).expect(code);
                let all = format!("{}{}", ran.stdout, ran.stderr);
                assert!(all.contains(alarm), "{command}: {all}");
            }
            let (found, reason) = world.promise("plane", "rpo");
            assert!(found == state && reason.contains(alarm), "{found}: {reason}");
            // What is not proven is not broken.
            world.run(&["status"]).expect(if state == "broken" { 5 } else { 0 });
        };
        told(5, "has raised the alarm NOSPACE", "unproven");
        raise(&server, "CORRUPT");
        told(5, "has raised the alarm CORRUPT", "broken");
        server.ctl(&["alarm", "disarm"]);
        world.run(&["check"]).expect(0);
        world.backup("plane");
        assert_eq!(world.promise("plane", "rpo").0, "kept", "{}", installation.version);
    }
}
