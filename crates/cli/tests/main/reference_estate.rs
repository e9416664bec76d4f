//! The reference estate of `examples/estate/`: five stores under load, their writer's ledger, and what sabotage looks like.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use lifeboat_base::time::{Clock, SystemClock, Timestamp};
use lifeboat_testkit::Estate;
use serde_json::Value;
use tempfile::TempDir;

use super::world::texts;

const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");
/// Drills at moments that nobody prepared.
const DRILLS: i64 = 10;
/// What the rows with a log promise.
const RPO: Duration = Duration::from_secs(10);
/// The most that stores lag behind each other here, and the time the rules allow.
const OLD_ENOUGH: Duration = Duration::from_secs(20);

struct Company {
    estate: Estate,
    followers: Vec<Child>,
    // Removed last.
    _dir: TempDir,
}

impl Company {
    /// The estate with a few records, captured more than once, its logs followed.
    fn found() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut estate = Estate::start(dir.path());
        (0..30).for_each(|_| estate.write());
        let mut company = Self { estate, followers: Vec::new(), _dir: dir };
        company.run(&["keys", "new-file", "secrets/lifeboat.key"], &[0]);
        company.run(&["backup"], &[0]);
        for store in ["shop", "carts"] {
            let mut command = company.estate.command(Path::new(LIFEBOAT));
            command.args(["--no-progress", "wal", "stream", store]);
            company.followers.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
        // A rule has no power over what was written a moment ago.
        let clock = SystemClock::new();
        let old_enough = clock.monotonic() + OLD_ENOUGH;
        while clock.monotonic() < old_enough {
            company.capture();
        }
        company
    }

    /// Captures what has no log, under load: files that change meanwhile are told.
    fn capture(&mut self) {
        let mut command = self.estate.command(Path::new(LIFEBOAT));
        command.args(["backup", "uploads", "audit", "flags"]);
        let output = self.estate.under_load(|| command.output().unwrap());
        check(&output, &[0, 5]);
    }

    /// Captures everything and drills it: the rules and applications that did not hold, with all they say.
    fn troubles(&mut self) -> (BTreeSet<String>, String) {
        self.run(&["backup"], &[0]);
        let report = self.drill(&[]);
        let failed = report["agreement"].as_array().unwrap().iter().filter(|rule| rule["state"] != "passed");
        let failed: Vec<&Value> = failed.collect();
        let ids = failed.iter().map(|rule| rule["id"].as_str().unwrap().to_owned()).collect();
        (ids, failed.iter().map(|rule| rule["detail"].to_string()).collect())
    }

    fn run(&self, arguments: &[&str], codes: &[i32]) -> Output {
        let output = self.estate.command(Path::new(LIFEBOAT)).args(arguments).output().unwrap();
        check(&output, codes);
        output
    }

    /// A drill of everything under load.
    fn drill(&mut self, more: &[&str]) -> Value {
        let mut command = self.estate.command(Path::new(LIFEBOAT));
        command.args(["--json", "drill", "--all"]).args(more);
        let output = self.estate.under_load(|| command.output().unwrap());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        for follower in &mut self.followers {
            drop(follower.kill());
            drop(follower.wait());
        }
    }
}

#[track_caller]
fn check(output: &Output, codes: &[i32]) {
    assert!(codes.contains(&output.status.code().unwrap_or(-1)), "{output:?}");
}

#[test]
fn ten_drills_at_moments_that_nobody_prepared_show_every_write_of_the_ledger_and_none_besides() {
    let clock = SystemClock::new();
    let mut company = Company::found();
    let from = clock.now();
    while clock.now() < from + RPO {
        company.capture();
    }
    for number in 0..DRILLS {
        // Between then and what the logs are promised to reach by now, told by the clock itself: as good as any other.
        let now = clock.now() - RPO;
        let span = now.duration_since(from).as_millis();
        let share = now.as_nanosecond() % 1000;
        let back = i64::try_from(span * share / 1000).unwrap();
        let moment = Timestamp::from_millisecond(now.as_millisecond() - back).unwrap().to_string();
        let report = if number == 0 { company.drill(&[]) } else { company.drill(&["--at", &moment]) };
        assert_eq!(texts(&report["findings"], "message"), [""; 0], "drill {number} to {moment}: {report:#}");
        assert_eq!(report["verdict"], "passed");
        let ledger = report["agreement"].as_array().unwrap().iter();
        let ledger: Vec<&Value> = ledger.filter(|rule| rule["id"] == "application/ledger").collect();
        assert_eq!(ledger.len(), 1);
        assert_eq!((&ledger[0]["state"], &ledger[0]["canary_caught"]), (&"passed".into(), &true.into()));
    }
    assert!(company.estate.records() > 60, "the load wrote next to nothing");
}

#[test]
fn sabotage_of_any_store_is_caught_and_named() {
    let mut company = Company::found();
    let report = company.drill(&[]);
    assert_eq!(report["verdict"], "passed", "{:#}", report["findings"]);

    // One lost file.
    let receipt = company.estate.path("live/uploads/receipts/7.txt");
    std::fs::remove_file(&receipt).unwrap();
    let (ids, said) = company.troubles();
    assert_eq!(ids, ["agreement/receipts", "application/ledger"].map(str::to_owned).into());
    assert!(said.contains("uploads: 1 lost: 7") && said.contains("`7` of shop is not in uploads"), "{said}");
    lifeboat_base::crashsafe::write_new(&receipt, b"receipt 7\n").unwrap();

    // One row too many, and an older state of the audit in place of today's.
    company.estate.shop.psql("INSERT INTO orders VALUES (900001, 1, '2026-01-01')");
    company.estate.audit().execute("DELETE FROM audit WHERE n > 25", []).unwrap();
    let (ids, said) = company.troubles();
    assert!(said.contains("shop: 1 never written: 900001"), "{said}");
    assert!(said.contains("lost: 26, 27"), "{said}");
    assert!(ids.contains("agreement/receipts") && ids.contains("agreement/carts-of-orders"), "{ids:?}");

    // A cart that is gone, and a flag of an order that never was in place of one that was.
    company.estate.carts.run("DEL cart:3");
    company.estate.flags.ctl(&["put", "/orders/900002", "placed"]);
    company.estate.flags.ctl(&["del", "/orders/10"]);
    let (ids, said) = company.troubles();
    assert!(ids.contains("agreement/flags-of-orders"), "{ids:?}");
    assert!(
        said.contains("`3` of shop is not in carts") && said.contains("`10` of shop is not in flags"),
        "{said}"
    );
    assert!(said.contains("flags: 1 never written: 900002"), "{said}");
}
