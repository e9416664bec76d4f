//! Where words go: results to standard output, everything else to standard error.

use std::io::{self, IsTerminal, Write};

use lifeboat_base::failure::{Failure, FailureKind};
use serde::Serialize;

/// The two streams and who reads them.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    /// Whether standard output is a terminal that may be coloured.
    pub(crate) colour: bool,
}

impl Output {
    #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
    pub(crate) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, colour: !json && !plain && io::stdout().is_terminal() }
    }

    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Prints a result: the JSON document, or the text made for people.
    pub(crate) fn result<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let document = serde_json::to_string_pretty(value).map_err(|error| {
                Failure::with_source(FailureKind::Internal, "failed to write JSON", error)
            })?;
            line(&document)
        } else {
            line(text().trim_end())
        }
    }

    /// Prints a line for people: to standard output, or to standard error when a machine reads standard output.
    pub(crate) fn say(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            note(text);
            return Ok(());
        }
        line(text)
    }
}

/// Prints a line to standard output. A reader that went away is not an error: it has what it wanted.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::with_source(FailureKind::Internal, "failed to write to standard output", error))
        }
        _ => Ok(()),
    }
}

/// Prints a line to standard error.
pub(crate) fn note(text: &str) {
    // Nothing can be said about a standard error that is gone.
    drop(writeln!(io::stderr().lock(), "{text}"));
}
