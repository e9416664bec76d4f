//! Runs one of the server's programs to its end: no shell, bounded output, a deadline, and not longer than we live.

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use lifeboat_base::human::printable;
use lifeboat_base::outside::Guard;
use lifeboat_base::time::Clock;

use super::error::ServerError;
use super::postmaster::{Wait, pause};

/// How much of each output stream of a program is kept; the rest is read and dropped.
pub const MAX_TOOL_OUTPUT_BYTES: u64 = 16 * 1024 * 1024;
/// How much of a program's complaint goes into an error.
const MAX_MESSAGE_CHARS: usize = 2_000;

/// Runs `command` to its end; anything but success is an error with what it said.
pub fn run_tool(command: Command, limit: Duration, clock: &dyn Clock) -> Result<Output, ServerError> {
    run_tool_on(command, (Stdio::null(), Stdio::piped()), Wait::for_at_most(limit, clock))
}

/// As [`run_tool`], with standard input and output where the caller has them, such as in files: nothing of an output
/// that is not a pipe is in the answer. The program is ended when `wait` is cancelled.
pub fn run_tool_on(
    mut command: Command,
    (input, output): (Stdio, Stdio),
    wait: Wait<'_>,
) -> Result<Output, ServerError> {
    let Wait { limit, clock, cancelled } = wait;
    let program = command.get_program().to_owned();
    let name = program.to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
    let started = clock.monotonic();
    let mut guard = Guard::new();
    let mut child = command
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(ServerError::io("run", program.as_ref()))?;
    guard.over(&child);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let out = scope.spawn(move || drain(out));
        let err = scope.spawn(move || drain(err));
        let status = loop {
            if let Some(status) = child.try_wait().map_err(ServerError::io("wait for", program.as_ref()))? {
                break status;
            }
            if cancelled() {
                end(&mut child);
                return Err(ServerError::Cancelled);
            }
            if clock.monotonic().saturating_sub(started) > limit {
                end(&mut child);
                let message = format!("no end within {} s", limit.as_secs());
                return Err(ServerError::Program {
                    program: name,
                    status: "ended by us".to_owned(),
                    message,
                });
            }
            pause();
        };
        let output =
            Output { status, stdout: out.join().unwrap_or_default(), stderr: err.join().unwrap_or_default() };
        if status.success() {
            return Ok(output);
        }
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        let text = String::from_utf8_lossy(said);
        let message = printable(&text.trim().chars().take(MAX_MESSAGE_CHARS).collect::<String>());
        Err(ServerError::Program { program: name, status: status.to_string(), message })
    })
}

/// Ends a child that is of no use any more; one that is gone already is as good.
fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

/// Reads to the end, so that the program never waits for us, and keeps a bounded part.
fn drain(stream: Option<impl Read>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        // An unreadable stream shows as missing text in an answer that is then refused by its reader.
        drop(stream.by_ref().take(MAX_TOOL_OUTPUT_BYTES).read_to_end(&mut kept));
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
    }
    kept
}
