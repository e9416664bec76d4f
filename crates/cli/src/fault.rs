//! How a failure is told: what failed, which promise is at risk, what to do next.

use std::error::Error;
use std::io::IsTerminal;

use lifeboat_base::failure::chain;
use lifeboat_base::human::printable;
use lifeboat_engine::{AtRisk, EngineError, policy::PolicyErrors};
use serde::Serialize;

use crate::output::{Output, note};

/// The shape `lifeboat.error/v1`.
#[derive(Serialize)]
struct ErrorDocument<'a> {
    schema: &'static str,
    kind: &'static str,
    message: String,
    at_risk: &'a [AtRisk],
    next: Option<&'a str>,
    exit_code: u8,
}

/// Prints a failure: text to standard error, and the document to standard output when asked for JSON.
pub(crate) fn print(error: &EngineError, output: &Output) {
    let problems = error.failure.source().and_then(|source| source.downcast_ref::<PolicyErrors>());
    let text = match problems {
        Some(problems) => {
            problems.render(std::io::stderr().is_terminal() && output.colour).trim_end().to_owned()
        }
        None => format!("error: {}", lines(&error.failure.chain())),
    };
    note(&text);
    for risk in &error.at_risk {
        note(&format!("  at risk: {} of `{}`", risk.promise, risk.store));
    }
    if let Some(next) = &error.next {
        note(&format!("  next: {next}"));
    }
    if output.json() {
        let document = ErrorDocument {
            schema: "lifeboat.error/v1",
            kind: error.kind().word(),
            message: problems.map_or_else(|| error.failure.chain(), |problems| chain(problems)),
            at_risk: &error.at_risk,
            next: error.next.as_deref(),
            exit_code: error.kind().exit_code(),
        };
        // The exit code still tells if standard output is gone.
        drop(output.result(&document, String::new));
    }
}

/// Control characters in a path or a server's answer must not drive the terminal.
fn lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n  ")
}
