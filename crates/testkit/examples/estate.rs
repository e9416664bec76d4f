//! Starts the reference estate, drills it once under load, and says where the report is.
//!
//! usage: estate LIFEBOAT DIR [MIB]
//!   LIFEBOAT   the binary
//!   DIR        a folder for everything; it must not exist
//!   MIB        how much the stores weigh besides the records; 256 if not said

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use lifeboat_base::human;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_testkit::Estate;
use serde_json::Value;

const USUAL_MIB: u64 = 256;
const MIB: u64 = 1024 * 1024;
/// Records that are there before the first capture.
const FIRST_RECORDS: usize = 200;
/// More than stores lag behind each other here, and the time the rules allow.
const OLD_ENOUGH: Duration = Duration::from_secs(20);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what a person runs to see it")]
fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let (lifeboat, dir, mib) = match words.as_slice() {
        [lifeboat, dir] => (lifeboat, dir, Some(USUAL_MIB)),
        [lifeboat, dir, mib] => (lifeboat, dir, mib.parse().ok()),
        _ => {
            eprintln!("usage: estate LIFEBOAT DIR [MIB]");
            return ExitCode::from(2);
        }
    };
    let said = fs::canonicalize(lifeboat)
        .map_err(Into::into)
        .and_then(|lifeboat| run(&lifeboat, Path::new(dir), mib.ok_or("MIB is a number")?));
    match said {
        Ok(page) => {
            print!("{page}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(lifeboat: &Path, dir: &Path, mib: u64) -> Outcome<String> {
    fs::create_dir(dir).map_err(|error| format!("{} cannot be made: {error}", dir.display()))?;
    let dir = &fs::canonicalize(dir)?;
    let mut estate = Estate::start(dir);
    say(&format!("five stores run; {mib} MiB and {FIRST_RECORDS} records go into them"));
    estate.fill(mib * MIB);
    (0..FIRST_RECORDS).for_each(|_| estate.write());
    succeed(estate.command(lifeboat).args(["keys", "new-file", "secrets/lifeboat.key"]))?;
    say("first capture");
    succeed(estate.command(lifeboat).arg("backup"))?;
    let followers = ["shop", "carts"].map(|store| {
        let mut command = estate.command(lifeboat);
        command.args(["--no-progress", "wal", "stream", store]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Follower)
    });
    let followers: Result<Vec<_>, _> = followers.into_iter().collect();
    let _followers = followers?;
    say("captures, under load");
    // A rule has no power over what was written a moment ago.
    let clock = SystemClock::new();
    let old_enough = clock.monotonic() + OLD_ENOUGH;
    while clock.monotonic() < old_enough {
        let mut capture = estate.command(lifeboat);
        // Files that change while they are read are told, which is no success.
        capture.args(["backup", "uploads", "audit", "flags"]).stdout(Stdio::null()).stderr(Stdio::null());
        estate.under_load(|| capture.status())?;
    }
    say("drill, under load");
    let mut drill = estate.command(lifeboat);
    drill.args(["--json", "drill", "--all"]).stderr(Stdio::inherit());
    let drilled = estate.under_load(|| drill.output())?.stdout;
    let report: Value = serde_json::from_slice(&drilled)?;
    let to = dir.join("report");
    succeed(estate.command(lifeboat).args(["evidence", "export", "last", "--to"]).arg(&to))?;
    let page = page(&report, estate.records(), &to);
    if report.get("verdict").and_then(Value::as_str) == Some("passed") { Ok(page) } else { Err(page.into()) }
}

#[expect(clippy::print_stderr, reason = "what happens now, for whoever waits")]
fn say(what: &str) {
    eprintln!("{what}");
}

fn succeed(command: &mut Command) -> Outcome<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

/// Ends with the run.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Verdict, stages and rules as lines.
fn page(report: &Value, records: u64, to: &Path) -> String {
    let text =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let seconds = |value: &Value, field: &str| {
        human::seconds(value.get(field).and_then(Value::as_f64).unwrap_or_default())
    };
    let mut lines = vec![format!(
        "drill {}; {records} records were written meanwhile and before",
        text(report, "verdict")
    )];
    for store in list(report, "stores") {
        let stages: Vec<String> = list(&store, "stages")
            .iter()
            .map(|stage| format!("{} {}", text(stage, "stage"), seconds(stage, "seconds")))
            .collect();
        let bytes = store.get("bytes").and_then(Value::as_u64).unwrap_or_default();
        lines.push(format!("  {} ({}): {}", text(&store, "name"), human::bytes(bytes), stages.join(", ")));
    }
    for rule in list(report, "agreement") {
        lines.push(format!("  {}: {}, {}", text(&rule, "id"), text(&rule, "state"), text(&rule, "measured")));
    }
    for finding in list(report, "findings") {
        lines.push(format!("  {}", text(&finding, "message")));
    }
    lines.push(format!("report: {}", to.join("report.html").display()));
    lines.join("\n") + "\n"
}
