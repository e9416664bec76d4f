//! `archive_command` and `restore_command`: their reader is a server, and what they print lands in its log.
//!
//! A server takes 1 to 125 as "the archive ends here" and goes live with what it has. So `wal fetch` says 1 only for that,
//! and answers everything else, a defect of its own included, with a code above 200.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::{CopyName, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_engine::{Engine, EngineError, FetchOptions, FetchReport, PushOptions};

use super::{Outcome, load, policy_path};
use crate::args::{self, Args, WalAction};
use crate::fault;
use crate::output::{Output, note};

/// Neither the file nor anything after it is kept.
const NOT_KEPT: u8 = 1;
/// Above every signal: added to the code of a failure, so that it stops a recovery.
const STOP: u8 = 200;

/// The exit code of a failure that must stop a recovery.
pub(crate) fn stop(kind: FailureKind) -> ExitCode {
    ExitCode::from(STOP + kind.exit_code())
}

/// Whether a command line that could not be understood is that of a recovering server.
pub(crate) fn is_fetch(args: impl Iterator<Item = OsString>) -> bool {
    args.skip(1).skip_while(|arg| arg != "wal").any(|arg| arg == "fetch")
}

/// Keeps one file. Quiet if all is well; a file that is kept is success, also where a copy is away.
pub(super) fn push(engine: &Engine, path: &Path, store: Option<&StoreName>, output: &Output) -> Outcome {
    let report = engine.push_log(&PushOptions { store: store.cloned(), path: path.to_owned() })?;
    warn(&report.file, &report.findings);
    if output.json() {
        output.result(&report, String::new)?;
    }
    Ok(None)
}

/// Gives one file back.
pub(crate) fn fetch(args: &Args, output: &Output) -> ExitCode {
    // A panic would end with a code that a server takes for the end of the archive.
    let outcome = catch_unwind(AssertUnwindSafe(|| try_fetch(args, output)));
    match outcome {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::from(NOT_KEPT),
        Ok(Err(error)) => {
            let code = STOP + error.kind().exit_code();
            fault::print_line(&error, code, output);
            ExitCode::from(code)
        }
        Err(_panic) => stop(FailureKind::Internal),
    }
}

fn try_fetch(args: &Args, output: &Output) -> Result<bool, EngineError> {
    let args::Command::Wal { action: WalAction::Fetch { name, path, store, copy } } = &args.command else {
        return Err(EngineError::new(FailureKind::Internal, "this is no request for a file of the log"));
    };
    let engine = load(args, std::sync::Arc::default())?;
    let options =
        FetchOptions { store: store.clone(), name: name.clone(), path: path.clone(), copy: copy.clone() };
    let report = engine.fetch_log(&options)?;
    warn(name, &report.findings);
    if report.next_wanted {
        start_ahead(args, &report, copy.as_ref());
    }
    if output.json() {
        output.result(&report, String::new)?;
    } else if !report.found {
        note(&lifeboat_base::human::printable(&format!(
            "lifeboat: {name} of `{}` is not kept",
            report.store
        )));
    }
    Ok(report.found)
}

fn warn(file: &str, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    let messages: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
    note(&lifeboat_base::human::printable(&format!("lifeboat: {file} is safe, but {}", messages.join("; "))));
}

/// Fetches what comes next while the server replays. The process outlives this one and ends by itself; if it cannot be
/// started, the next file is fetched when it is asked for.
fn start_ahead(args: &Args, report: &FetchReport, copy: Option<&CopyName>) {
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = Command::new(program);
    command.arg("--policy").arg(policy_path(args)).args(["wal", "ahead", &report.file]);
    command.args(["--store", report.store.as_str()]);
    command.args(copy.into_iter().flat_map(|copy| ["--copy", copy.as_str()]));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    drop(command.spawn());
}

/// Fetches the next segments before they are asked for. Nobody reads what it says.
pub(super) fn ahead(
    engine: &Engine,
    name: &str,
    store: Option<&StoreName>,
    copy: Option<&CopyName>,
) -> Outcome {
    let path = name.into();
    engine.fetch_log_ahead(&FetchOptions {
        store: store.cloned(),
        name: name.to_owned(),
        path,
        copy: copy.cloned(),
    })?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_a_recovering_server_is_told_apart_also_when_it_is_not_understood() {
        let args = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>().into_iter();
        assert!(is_fetch(args("lifeboat --policy p wal fetch --nonsense a b")));
        assert!(is_fetch(args("lifeboat wal --jsn fetch a b")));
        assert!(!is_fetch(args("lifeboat wal push a")));
        assert!(!is_fetch(args("lifeboat points fetch")));
    }

    #[test]
    fn no_failure_ends_with_a_code_that_a_server_takes_for_the_end_of_the_archive() {
        use FailureKind::{Damaged, Findings, Internal, Refused, Unreachable, Usage};
        for kind in [Internal, Usage, Refused, Unreachable, Findings, Damaged] {
            // Codes of 128 and a signal would be taken for that signal.
            assert!(STOP + kind.exit_code() > 128 + 64, "{kind:?}");
        }
    }
}
