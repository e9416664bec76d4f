//! How much is lost at worst, measured on a real PostgreSQL: figures are printed, promises are asserted.

use std::process::Stdio;
use std::time::Duration;

use lifeboat_base::time::{Clock, SystemClock, Timestamp};

use super::postgres::{NOW, ask, server, world_of};

#[test]
fn under_load_what_is_lost_with_server_and_follower_stays_within_the_rpo() {
    let mut server = server(15);
    server.pgbench_init(2);
    let world = world_of(&server);
    world.write_policy(&world.policy.replace("rpo = \"5m\"", "rpo = \"6s\""));
    world.backup("shop");
    let mut follower = world.start(&["--no-progress", "wal", "stream", "shop"]);
    let mut load = server.bin("pgbench");
    load.args(["-n", "-c", "2", "-T", "120"]);
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let clock = SystemClock::new();
    let mut last = String::new();
    for n in 1.. {
        server.psql(&format!("INSERT INTO ledger (n) VALUES ({n})"));
        last = server.psql(NOW);
        if clock.monotonic() > Duration::from_secs(15) {
            break;
        }
    }
    // Both are gone at once: only what had reached the copies is left.
    follower.kill().unwrap();
    server.crash();
    follower.wait().unwrap();
    load.wait().unwrap();
    std::fs::remove_dir_all(world.path("state")).unwrap();
    world.run(&["restore", "shop", "--to", "back", "--skip-checks"]).expect(0);
    let newest =
        "SELECT to_char(max(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM ledger";
    let recovered: Timestamp = ask(&server, &world.path("back"), newest).parse().unwrap();
    let acknowledged: Timestamp = last.trim().parse().unwrap();
    let lost = acknowledged.duration_since(recovered);
    println!("rpo under load, server and follower lost together: {lost:#}");
    assert!(lost.as_secs_f64() < 6.0, "{lost:#}");
}

#[test]
fn while_nothing_is_written_the_rpo_stays_kept() {
    let server = server(15);
    let world = world_of(&server);
    world.write_policy(&world.policy.replace("rpo = \"5m\"", "rpo = \"6s\""));
    world.backup("shop");
    server.psql("INSERT INTO ledger (n) VALUES (1)");
    let mut follower = world.start(&["--no-progress", "wal", "stream", "shop"]);
    let age = || {
        let report = world.run(&["--json", "status", "shop"]).json();
        let cells = report["stores"][0]["promises"].as_array().unwrap();
        let rpo = cells.iter().find(|cell| cell["promise"] == "rpo").unwrap();
        (
            rpo["state"].as_str().unwrap().to_owned(),
            rpo["observed"].as_str().unwrap_or_default().to_owned(),
            rpo["reason"].to_string(),
        )
    };
    let clock = SystemClock::new();
    // The first shipment begins the watch; three times the promise later it has been renewed many times.
    let mut seen = Vec::new();
    while clock.monotonic() < Duration::from_secs(20) {
        let (state, observed, reason) = age();
        if clock.monotonic() > Duration::from_secs(8) {
            assert_eq!(state, "kept", "{reason}");
            let milliseconds = observed.strip_suffix("ms").and_then(|text| text.parse::<f64>().ok());
            let seconds = observed.strip_suffix('s').and_then(|text| text.parse::<f64>().ok());
            seen.push(milliseconds.map(|count| count / 1000.0).or(seconds).unwrap());
        }
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
    let most = seen.iter().copied().fold(0.0, f64::max);
    println!("rpo while idle, of 6 s promised: {most} s at most in {} looks", seen.len());
    assert!(seen.len() > 10, "{seen:?}");
}

#[test]
fn a_promise_to_prove_any_moment_is_kept_by_a_drill_to_a_moment_and_by_no_other() {
    let server = server(15);
    let world = world_of(&server);
    let promising =
        world.policy.replace("kind = \"postgres\"", "kind = \"postgres\"\nverify = { pitr = \"weekly\" }");
    world.write_policy(&promising);
    world.backup("shop");
    server.psql("INSERT INTO ledger (n) VALUES (1)");
    let moment = server.psql(NOW);
    server.psql("INSERT INTO ledger (n) VALUES (2)");
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    world.run(&["drill", "shop"]).expect(0);
    let never = ("unproven".to_owned(), "`pitr` was never proven".to_owned());
    assert_eq!(world.promise("shop", "verify"), never);
    // After the last commit: everything is replayed, and nothing shows that it would have stopped.
    let quiet = server.psql(NOW);
    world.run(&["wal", "stream", "shop", "--once"]).expect(0);
    world.run(&["drill", "shop", "--at", quiet.trim()]).expect(0);
    assert_eq!(world.promise("shop", "verify"), never);
    world.run(&["drill", "shop", "--at", moment.trim()]).expect(0);
    assert_eq!(world.promise("shop", "verify").0, "kept");
    // What the row asks is different now: nothing has shown that.
    world.write_policy(&promising.replace("total < 0", "total >= 0"));
    assert_eq!(world.promise("shop", "verify"), never);
    world.run(&["drill", "shop", "--at", moment.trim()]).expect(5);
    let failed = ("broken".to_owned(), "the last drill of a moment within the log failed".to_owned());
    assert_eq!(world.promise("shop", "verify"), failed);
}
