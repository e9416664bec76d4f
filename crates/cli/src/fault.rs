//! How a failure is told: what failed, which promise is at risk, what to do next.

use std::error::Error;
use std::ffi::OsString;
use std::io::IsTerminal;

use lifeboat_base::failure::{FailureKind, chain};
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
    document(error, error.kind().exit_code(), output);
}

/// Prints a failure on one line, for the log of a server.
pub(crate) fn print_line(error: &EngineError, exit_code: u8, output: &Output) {
    let mut line = format!("lifeboat: {}", error.failure.chain());
    for risk in &error.at_risk {
        line.extend(["; at risk: ", &risk.promise, " of `", risk.store.as_str(), "`"]);
    }
    line.extend(error.next.iter().flat_map(|next| ["; next: ", next]));
    note(&line.lines().map(printable).collect::<Vec<_>>().join(" "));
    document(error, exit_code, output);
}

fn document(error: &EngineError, exit_code: u8, output: &Output) {
    if output.json() {
        let problems = error.failure.source().and_then(|source| source.downcast_ref::<PolicyErrors>());
        let document = ErrorDocument {
            schema: "lifeboat.error/v1",
            kind: error.kind().word(),
            message: problems.map_or_else(|| error.failure.chain(), |problems| chain(problems)),
            at_risk: &error.at_risk,
            next: error.next.as_deref(),
            exit_code,
        };
        // The exit code still tells if standard output is gone.
        drop(output.result(&document, String::new));
    }
}

/// Whether a command line that could not be understood asks for JSON.
pub(crate) fn wants_json(args: impl Iterator<Item = OsString>) -> bool {
    args.skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

/// Prints the document of a command line that could not be understood; its text went to standard error.
pub(crate) fn usage(text: &str, output: &Output) {
    // The exit code still tells if standard output is gone.
    drop(output.result(&usage_document(text), String::new));
}

fn usage_document(text: &str) -> ErrorDocument<'static> {
    // What is wrong comes first; an empty line parts it from hints.
    let first = text.split("\n\n").next().unwrap_or(text);
    let message = first.strip_prefix("error: ").unwrap_or(first);
    ErrorDocument {
        schema: "lifeboat.error/v1",
        kind: FailureKind::Usage.word(),
        message: message.split_whitespace().collect::<Vec<_>>().join(" "),
        at_risk: &[],
        next: Some("lifeboat --help"),
        exit_code: FailureKind::Usage.exit_code(),
    }
}

/// Control characters in a path or a server's answer must not drive the terminal.
fn lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_that_is_not_understood_is_told_as_json_when_asked_for() {
        let args = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>().into_iter();
        assert!(wants_json(args("lifeboat points --json --nonsense")));
        assert!(!wants_json(args("lifeboat points --nonsense -- --json")));
        let text = "error: unexpected argument '--nonsense' found\n\nUsage: lifeboat points\n";
        let document = serde_json::to_value(usage_document(text)).unwrap();
        assert_eq!(document["schema"], "lifeboat.error/v1");
        assert_eq!(document["kind"], "usage");
        assert_eq!(document["exit_code"], 2);
        assert_eq!(document["message"], "unexpected argument '--nonsense' found");
    }
}
