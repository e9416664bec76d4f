//! Measures reading a store: `cargo run --example throughput -- files|sqlite PATH`.
//!
//! Reads a capture of `PATH` to its end without storing it, and prints bytes per second of content.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lifeboat_base::capture::Body;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Findings;
use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_stores::{Adapter, CaptureContext, FilesAdapter, FilesOptions, SqliteAdapter, SqliteOptions};

const BUFFER_BYTES: usize = 1024 * 1024;

fn adapter(kind: &str, path: &Path) -> Option<Box<dyn Adapter>> {
    let path = path.to_owned();
    match kind {
        "files" => {
            let options = FilesOptions { root: path, exclude: Vec::new(), one_file_system: false };
            Some(Box::new(FilesAdapter::new(options)))
        }
        "sqlite" => {
            Some(Box::new(SqliteAdapter::new(SqliteOptions { path, unique: Vec::new(), sql: Vec::new() })))
        }
        _ => None,
    }
}

fn measure(adapter: &dyn Adapter) -> Result<String, Failure> {
    let (clock, monitor) = (SystemClock::new(), Findings::new());
    let spool = std::env::temp_dir();
    let mut capture =
        adapter.capture(&CaptureContext { clock: &clock, spool: &spool, kept: None, known: &[] })?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut read = std::time::Duration::ZERO;
    while let Some(entry) = capture.next_entry(&monitor)? {
        if let Body::File { mut reader, .. } = entry.body {
            let start = clock.monotonic();
            loop {
                let count = reader.read(&mut buffer);
                if count.map_err(|error| Failure::io("failed to read", error))? == 0 {
                    break;
                }
            }
            read += clock.monotonic().saturating_sub(start);
        }
    }
    let facts = capture.finish()?;
    let total = clock.monotonic();
    #[expect(clippy::cast_precision_loss, reason = "shown without decimals")]
    let rate = |span: std::time::Duration| facts.logical_bytes as f64 / 1e6 / span.as_secs_f64();
    Ok(format!(
        "{} MB: {:.0} MB/s in all ({:.2} s), {:.0} MB/s while content is read\n{}",
        facts.logical_bytes / 1_000_000,
        rate(total),
        total.as_secs_f64(),
        rate(read),
        // For a database at rest this is what `sha256sum` says about its file.
        facts.checksums.get("file").map_or("", String::as_str),
    ))
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (kind, path) =
        (arguments.next().unwrap_or_default(), PathBuf::from(arguments.next().unwrap_or_default()));
    let outcome = match adapter(&kind.to_string_lossy(), &path) {
        Some(adapter) => measure(adapter.as_ref()),
        None => Err(Failure::new(FailureKind::Usage, "usage: throughput files|sqlite PATH")),
    };
    let text = outcome.as_ref().map_or_else(Failure::chain, Clone::clone);
    // Nobody is there to be told that standard output is closed.
    drop(writeln!(std::io::stdout(), "{text}"));
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
