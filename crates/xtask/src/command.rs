//! Running other programs: loudly, with their own output, or quietly for what they print.

use std::path::Path;
use std::process::{Command, Stdio};

use lifeboat_base::failure::{Failure, FailureKind};

/// A program and its words, to be run in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    words: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Task {
    /// Splits `line` at blanks; no word of it holds one.
    pub(crate) fn new(line: &str) -> Self {
        Self { words: line.split_whitespace().map(str::to_owned).collect(), variables: Vec::new() }
    }

    /// Adds one word, blanks and all.
    pub(crate) fn word(mut self, word: impl AsRef<Path>) -> Self {
        self.words.push(word.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Sets one environment variable of the program.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command line as a person would type it.
    pub(crate) fn line(&self) -> String {
        let variables = self.variables.iter().map(|(name, value)| format!("{name}='{value}'"));
        variables.chain(self.words.iter().cloned()).collect::<Vec<_>>().join(" ")
    }

    /// The command itself, for a caller that reads its output as it comes.
    pub(crate) fn command(&self, dir: &Path) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map_or("false", String::as_str));
        command.args(words).envs(self.variables.iter().cloned()).current_dir(dir).stdin(Stdio::null());
        command
    }

    /// What cannot be started.
    pub(crate) fn not_started(&self, error: std::io::Error) -> Failure {
        Failure::io(format!("failed to start `{}`", self.line()), error)
    }

    /// What ended badly.
    pub(crate) fn ended_badly(&self, status: std::process::ExitStatus) -> Failure {
        Failure::new(FailureKind::Findings, format!("`{}` ended with {status}", self.line()))
    }

    /// Runs it with its output in ours; anything but success is a failure.
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failure> {
        let status = self.command(dir).status().map_err(|error| self.not_started(error))?;
        if status.success() { Ok(()) } else { Err(self.ended_badly(status)) }
    }

    /// Runs it and gives back what it printed on standard output; its complaints come with the failure.
    pub(crate) fn output(&self, dir: &Path) -> Result<Vec<u8>, Failure> {
        let output = self.command(dir).output().map_err(|error| self.not_started(error))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::with_source(
            FailureKind::Findings,
            format!("`{}` ended with {}", self.line(), output.status),
            complaint,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_a_failure_with_its_complaint() {
        let here = Path::new("/");
        assert!(Task::new("true").run(here).is_ok());
        assert!(Task::new("false").run(here).is_err());
        assert!(Task::new("no-such-program-here").run(here).is_err());
        let failure = Task::new("ls /no-such-folder").output(here).unwrap_err();
        assert!(failure.chain().contains("no-such-folder"), "{failure:?}");
    }
}
