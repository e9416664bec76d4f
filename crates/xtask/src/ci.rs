//! Everything CI does, in its order, each step named and timed; the first failure ends it.
//!
//! In: the repository. Out: each step's own output, a table of times, and one line with the number of tests run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::time::{Clock, SystemClock};

use crate::command::Task;
use crate::say::say;
use crate::tidy;

enum Work {
    /// A program; its success is the step's success.
    Run(Task),
    /// A program whose closing lines of tests are added up.
    Test(Task),
    /// Our own rules, in this process.
    Tidy,
}

struct Step {
    name: &'static str,
    work: Work,
}

/// What the test runners said at their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// A runner that runs once found nothing to run. Cargo's runs once per target, some of which have no test.
    is_hollow: bool,
}

impl Tally {
    /// Adds the numbers of one line, if it is the closing line of cargo's or Python's test runner.
    fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.passed += number_before(rest, " passed");
            self.failed += number_before(rest, " failed");
            self.skipped += number_before(rest, " ignored");
        } else if let Some(rest) = line.strip_prefix("Ran ") {
            let count = number_before(rest, " test");
            self.passed += count;
            self.is_hollow |= count == 0;
        }
    }
}

/// The number that stands right before `word`, else 0.
fn number_before(text: &str, word: &str) -> u64 {
    let Some((before, _)) = text.split_once(word) else { return 0 };
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// `lifeboat` is the binary beside ours: the demo runs what the tests were built with, a release build of its own takes minutes.
fn steps(lifeboat: &Path) -> Vec<Step> {
    let run = |name, line| Step { name, work: Work::Run(Task::new(line)) };
    vec![
        run("fmt", "cargo fmt --all -- --check"),
        run("clippy", "cargo clippy --workspace --all-targets --locked -- -D warnings"),
        // Advisories need a database from the network: see CONTRIBUTING.md for when to ask for them.
        run("deny", "cargo deny --locked check --hide-inclusion-graph bans licenses sources"),
        Step { name: "tidy", work: Work::Tidy },
        Step {
            name: "doc",
            work: Work::Run(
                Task::new("cargo doc --workspace --no-deps --locked").variable("RUSTDOCFLAGS", "-D warnings"),
            ),
        },
        Step { name: "test", work: Work::Test(Task::new("make --no-print-directory test")) },
        run("build", "cargo build --workspace --bins --locked"),
        Step { name: "demo", work: Work::Run(Task::new("").word(lifeboat).word("demo")) },
    ]
}

/// Runs the program, passes its standard output on line by line and adds up what the test runners say.
fn run_tests(task: &Task, root: &Path) -> Result<Tally, Failure> {
    let mut child =
        task.command(root).stdout(Stdio::piped()).spawn().map_err(|error| task.not_started(error))?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(|error| Failure::io("failed to read the tests' output", error))?;
            let line = String::from_utf8_lossy(&line);
            tally.read(&line);
            say(&line);
        }
    }
    let status = child.wait().map_err(|error| Failure::io("failed to wait for the tests", error))?;
    if !status.success() {
        return Err(task.ended_badly(status));
    }
    if tally.passed == 0 || tally.is_hollow {
        return Err(Failure::new(
            FailureKind::Findings,
            format!("`{}` ran no test, or one of its runners did not", task.line()),
        ));
    }
    Ok(tally)
}

fn run_step(step: &Step, root: &Path, tally: &mut Tally) -> Result<(), Failure> {
    match &step.work {
        Work::Run(task) => {
            say(&format!("$ {}", task.line()));
            task.run(root)
        }
        Work::Test(task) => {
            say(&format!("$ {}", task.line()));
            *tally = run_tests(task, root)?;
            Ok(())
        }
        Work::Tidy => tidy::report(root),
    }
}

fn say_times(times: &[(&str, Duration, bool)]) {
    say("");
    for (name, took, passed) in times {
        let verdict = if *passed { "ok" } else { "FAILED" };
        say(&format!("{name:<8} {:>9}  {verdict}", human::duration(*took)));
    }
}

/// Runs every step in order and stops at the first that fails.
pub(crate) fn run(root: &Path) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let beside = std::env::current_exe().map_err(|error| Failure::io("failed to find ourselves", error))?;
    let steps = steps(&beside.with_file_name("lifeboat"));
    let mut tally = Tally::default();
    let mut times = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        say(&format!("\n=== {} ({} of {})", step.name, index + 1, steps.len()));
        let start = clock.monotonic();
        let outcome = run_step(step, root, &mut tally);
        times.push((step.name, clock.monotonic().saturating_sub(start), outcome.is_ok()));
        if let Err(failure) = outcome {
            say_times(&times);
            return Err(failure);
        }
    }
    say_times(&times);
    let Tally { passed, failed, skipped, .. } = tally;
    say(&format!("\n{passed} passed, {failed} failed, {skipped} skipped"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_both_runners_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "Ran 7 tests in 0.210s",
        ] {
            tally.read(line);
        }
        assert_eq!(tally, Tally { passed: 22, failed: 2, skipped: 1, is_hollow: false });
    }

    #[test]
    fn a_test_command_that_ran_no_test_is_a_failure() {
        let nothing = Task::new("echo").word("test result: ok. 0 passed; 0 failed; 0 ignored");
        assert!(run_tests(&nothing, Path::new("/")).is_err());
        let some = Task::new("echo").word("test result: ok. 2 passed; 0 failed; 0 ignored");
        assert_eq!(run_tests(&some, Path::new("/")).unwrap().passed, 2);
        let hollow = Task::new("printf").word("test result: ok. 2 passed\nRan 0 tests in 0.000s\n");
        assert!(run_tests(&hollow, Path::new("/")).is_err());
    }
}
