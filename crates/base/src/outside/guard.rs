//! Ends what we started if we end before it, however we end.
//!
//! A small process waits at a pipe that only we hold: a word from us and it goes, the end of the pipe and it ends what it was told
//! of. That needs nothing of the machine but a shell, and reaches a whole process group.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The number of a process comes as the first line, with a `-` before that of a group; a second line means that all went its way.
const SCRIPT: &str = r#"read -r it && test -n "$it" || exit 0; read -r end || kill -s KILL -- "$it""#;

/// Watches over a program. Made before the program is started, and dropped before it is waited for, or as soon as it was: then its
/// number is somebody else's.
#[derive(Debug)]
pub struct Guard {
    /// Nothing where it could not be started: then a program outlives us as it would without it.
    watcher: Option<Child>,
}

impl Guard {
    /// One that watches over nothing yet.
    pub fn new() -> Self {
        let mut watcher = Command::new("sh");
        watcher.args(["-c", SCRIPT]).env_clear().current_dir("/");
        // Not in our group: what is sent to that is not meant for it.
        watcher.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Self { watcher: watcher.spawn().ok() }
    }

    /// Watches over a program.
    pub fn over(&mut self, program: &Child) {
        self.tell(&format!("{}\n", program.id()));
    }

    /// Watches over a program and everything in the process group that it leads.
    pub fn over_group(&mut self, program: &Child) {
        self.tell(&format!("-{}\n", program.id()));
    }

    fn tell(&mut self, line: &str) {
        if let Some(pipe) = self.watcher.as_mut().and_then(|watcher| watcher.stdin.as_mut()) {
            // Somebody may have ended it: then nobody is told.
            drop(pipe.write_all(line.as_bytes()));
        }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.tell("\n");
        if let Some(mut watcher) = self.watcher.take() {
            drop(watcher.wait());
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a helper of a test that fails, fails the test")]

    use std::ffi::OsString;
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process};

    use crate::outside::{Run, run};
    use crate::process::birth;
    use crate::time::{Clock, SystemClock};

    use super::*;

    /// How long it may take until a process has begun, or is gone.
    const LIMIT: Duration = Duration::from_secs(30);
    const ROLE: &str = "LIFEBOAT_TEST_OWNER";

    /// Writes the numbers of a program, of its child, and of one that nobody watches over, and works for a day.
    fn own(note: &Path) {
        let clock = SystemClock::new();
        let mut unwatched = Command::new("sleep").arg("86398").process_group(0).spawn().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", r#"sleep 86399 & echo "$$ $! $1" > "$0.new"; mv "$0.new" "$0"; wait"#]);
        command.arg(note).arg(unwatched.id().to_string());
        drop(run(command, &Run { limit: Duration::from_secs(86_400), clock: &clock, cancelled: &|| false }));
        unwatched.kill().unwrap();
        unwatched.wait().unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "the other process of this test learns its role from it")]
    fn role() -> Option<OsString> {
        std::env::var_os(ROLE)
    }

    #[track_caller]
    fn wait_for(so: impl Fn() -> bool) {
        let clock = SystemClock::new();
        while !so() {
            assert!(clock.monotonic() < LIMIT, "it does not come to that");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_program_and_its_children_end_with_whoever_had_it_run() {
        if let Some(note) = role() {
            return own(Path::new(&note));
        }
        let scratch = tempfile::tempdir().unwrap();
        let note = scratch.path().join("note");
        let name = "outside::guard::tests::a_program_and_its_children_end_with_whoever_had_it_run";
        let mut owner = Command::new(std::env::current_exe().unwrap());
        let mut owner = owner.args([name, "--exact"]).env(ROLE, &note).stdout(Stdio::null()).spawn().unwrap();
        wait_for(|| note.exists());
        let told = fs::read_to_string(&note).unwrap();
        let numbers: Vec<i32> = told.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let [watched @ .., unwatched] = numbers.as_slice() else { panic!("{told}") };
        assert!(watched.len() == 2 && numbers.iter().all(|pid| birth(*pid).is_some()), "{told}");
        owner.kill().unwrap();
        owner.wait().unwrap();
        wait_for(|| watched.iter().all(|pid| birth(*pid).is_none()));
        assert!(birth(*unwatched).is_some(), "programs end anyway, and this test shows nothing");
        kill_process(Pid::from_raw(*unwatched).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn what_was_told_to_go_its_way_is_left_alone() {
        let mut program = Command::new("sleep").arg("86397").spawn().unwrap();
        let mut guard = Guard::new();
        guard.over(&program);
        drop(guard);
        drop(Guard::new());
        assert!(program.try_wait().unwrap().is_none());
        program.kill().unwrap();
        program.wait().unwrap();
    }
}
