//! From a recovery point to a directory that a server of version 7 or later starts on.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use lifeboat_base::capture::{CaptureFacts, DATA, MaterializeStats, RestoreSource};
use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::Clock;
use lifeboat_redis::rdb::Survey;
use serde_json::Value;

use super::capture::{COMMANDS, DUMP, path};
use super::{error, layout};
use crate::adapter::RestoreReport;

const BUFFER_BYTES: usize = 256 * 1024;
/// Where a point says what the commands after its dump are, if it has any.
pub(super) const COMMANDS_SHA256: &str = "redis.commands_sha256";

/// Writes the directory into `into`. The dump is read as it is written: a damaged one is no restore.
pub(super) fn restore(
    from: &dyn RestoreSource,
    facts: &CaptureFacts,
    into: &Path,
    (monitor, clock): (&dyn Monitor, &dyn Clock),
) -> Result<RestoreReport, Failure> {
    let mut names = vec![DUMP];
    if facts.environment.contains_key(COMMANDS_SHA256) {
        names.push(COMMANDS);
    }
    refuse_more(from, &names)?;
    let dump = path(&format!("{DATA}/{DUMP}"))?;
    let fail = |error| Failure::io("failed to write the restored server", error);
    DirBuilder::new().mode(0o700).create(layout::folder(into)).map_err(fail)?;
    let base = new_file(&layout::base(into)).map_err(fail)?;
    let mut copy = Copy { from: from.open(&dump)?, to: base, bytes: 0, monitor };
    let now_ms = clock.now().as_millisecond();
    let survey = {
        let mut buffered = io::BufReader::with_capacity(BUFFER_BYTES, &mut copy);
        Survey::read(&mut buffered, now_ms).map_err(error::dump("the dump cannot be restored"))?
    };
    copy.to.sync_all().map_err(fail)?;
    let bytes = copy.bytes + finish((from, facts), into, &survey, monitor)?;
    let stats =
        MaterializeStats { files: 4, others: 1, bytes, fetched_bytes: bytes, ..MaterializeStats::default() };
    Ok(RestoreReport { stats, artefact: into.to_owned() })
}

/// Writes what belongs beside the base. Gives the length of the commands.
pub(super) fn finish(
    (from, facts): (&dyn RestoreSource, &CaptureFacts),
    into: &Path,
    survey: &Survey,
    monitor: &dyn Monitor,
) -> Result<u64, Failure> {
    let fail = |error| Failure::io("failed to write the restored server", error);
    let bytes = commands(from, facts, into, monitor)?;
    crashsafe::write_new(&layout::list(into), layout::LIST_TEXT.as_bytes()).map_err(fail)?;
    let configuration = layout::configuration(databases(facts), None);
    crashsafe::write_new(&into.join(layout::CONFIGURATION), configuration.as_bytes()).map_err(fail)?;
    crashsafe::sync_dir(&layout::folder(into)).map_err(fail)?;
    let passed: u64 = survey.databases.values().filter_map(|found| found.ttl.get("passed")).sum();
    if passed > 0 {
        let count = human::count(passed);
        monitor.notice(&format!(
            "{count} keys had a time to live that has passed: a server that is started deletes them"
        ));
    }
    Ok(bytes)
}

/// Writes the commands after the dump, of which a point may have none. Gives their length.
fn commands(
    from: &dyn RestoreSource,
    facts: &CaptureFacts,
    into: &Path,
    monitor: &dyn Monitor,
) -> Result<u64, Failure> {
    let fail = |error| Failure::io("failed to write the restored server", error);
    let mut to = new_file(&layout::commands(into)).map_err(fail)?;
    let mut bytes = 0;
    if facts.environment.contains_key(COMMANDS_SHA256) {
        let mut from = from.open(&path(&format!("{DATA}/{COMMANDS}"))?)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            to.write_all(buffer.get(..count).unwrap_or_default()).map_err(fail)?;
            bytes += count as u64;
            monitor.advance(count as u64, 0);
        }
    }
    to.sync_all().map_err(fail)?;
    Ok(bytes)
}

/// What a vault says about its bytes stands: one damaged copy is not the last.
fn unreadable(error: io::Error) -> Failure {
    let said = error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()).map(Failure::kind);
    let what = "the commands cannot be restored";
    Failure::with_source(said.unwrap_or(FailureKind::Unreachable), what, error)
}

/// A point of this kind holds files of these names, and no others.
pub(super) fn refuse_more(from: &dyn RestoreSource, names: &[&str]) -> Result<(), Failure> {
    let data = path(DATA)?;
    let names: Vec<String> = names.iter().map(|name| format!("{DATA}/{name}")).collect();
    from.walk(&data, &mut |entry| {
        let depth = entry.path.depth();
        if depth < 2 || names.contains(&entry.path.to_string()) {
            return Ok(());
        }
        let what = format!(
            "the recovery point holds {}, which none of this kind has beside its content",
            entry.path
        );
        Err(Failure::new(FailureKind::Damaged, what))
    })
}

/// How many databases the server must have.
pub(super) fn databases(facts: &CaptureFacts) -> u64 {
    let known = facts.environment.get("redis.databases").and_then(Value::as_u64);
    known.unwrap_or(layout::USUAL_DATABASES).clamp(layout::USUAL_DATABASES, 1 << 20)
}

pub(super) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Writes what is read.
struct Copy<'a> {
    from: Box<dyn Read + Send + 'a>,
    to: File,
    bytes: u64,
    monitor: &'a dyn Monitor,
}

impl Read for Copy<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.to
            .write_all(into.get(..count).unwrap_or_default())
            .map_err(|error| io::Error::other(Failure::io("failed to write the restored server", error)))?;
        self.bytes += count as u64;
        self.monitor.advance(count as u64, 0);
        Ok(count)
    }
}
