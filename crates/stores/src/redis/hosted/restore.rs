//! From lines to the directory that a server of version 7 or later starts on: the keys become a dump, without a server.

use std::fs::DirBuilder;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use lifeboat_base::capture::{CaptureFacts, DATA, MaterializeStats, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Clock;
use lifeboat_redis::rdb::DumpWriter;

use super::capture::KEYS_FILE;
use super::parse;
use crate::adapter::RestoreReport;
use crate::redis::layout;
use crate::redis::restore::{finish, new_file, refuse_more};

/// Writes the directory into `into`. Every key is compared with its digest as it is written.
pub(in crate::redis) fn restore(
    from: &dyn RestoreSource,
    facts: &CaptureFacts,
    into: &Path,
    (monitor, clock): (&dyn Monitor, &dyn Clock),
) -> Result<RestoreReport, Failure> {
    refuse_more(from, &[KEYS_FILE])?;
    let keys = RelPath::new(format!("{DATA}/{KEYS_FILE}"))
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name the keys", error))?;
    let fail = |error| Failure::io("failed to write the restored server", error);
    DirBuilder::new().mode(0o700).create(layout::folder(into)).map_err(fail)?;
    let mut dump = DumpWriter::new(new_file(&layout::base(into)).map_err(fail)?).map_err(fail)?;
    let source = Watched { from: from.open(&keys)?, monitor };
    let survey = parse::read(source, clock.now().as_millisecond(), &mut dump, fail)?;
    let (_keys, bytes) = dump.finish().map_err(fail)?;
    finish((from, facts), into, &survey, monitor)?;
    let stats =
        MaterializeStats { files: 4, others: 1, bytes, fetched_bytes: bytes, ..MaterializeStats::default() };
    Ok(RestoreReport { stats, artefact: into.to_owned() })
}

/// Tells how far reading has come.
struct Watched<'a> {
    from: Box<dyn Read + Send + 'a>,
    monitor: &'a dyn Monitor,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.monitor.advance(count as u64, 0);
        Ok(count)
    }
}
