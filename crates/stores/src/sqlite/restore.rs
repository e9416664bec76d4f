//! Puts a captured database back and proves that it opens.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use lifeboat_base::capture::{DATA, RestoreSource, StoredEntry, StoredKind};
use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;

use super::checks::COMPANIONS;
use super::error::restored_failure;
use super::open::{companion, open_restored};
use crate::adapter::RestoreReport;

fn data() -> Result<RelPath, Failure> {
    RelPath::new(DATA)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name the database", error))
}

/// The name of the one file of the recovery point. `Damaged` if it holds anything else: a log or journal slipped in
/// beside the database would change what it says.
pub(crate) fn database_name(from: &dyn RestoreSource) -> Result<OsString, Failure> {
    let data = data()?;
    let mut name = None;
    from.walk(&data, &mut |entry: StoredEntry| {
        let below = entry.path.below(&data).filter(|below| below.depth() <= 1);
        match (below.as_ref().and_then(RelPath::split_last), entry.kind) {
            (None, StoredKind::Dir) if below.is_some() => Ok(()),
            (Some((_, file)), StoredKind::File(_)) if name.is_none() => {
                name = Some(file.to_owned());
                Ok(())
            }
            _ => Err(strange(&entry.path.to_string())),
        }
    })?;
    name.ok_or_else(|| Failure::new(FailureKind::Damaged, "the recovery point holds no database"))
}

fn strange(path: &str) -> Failure {
    Failure::new(
        FailureKind::Damaged,
        format!("the recovery point of a database holds something else: {path}"),
    )
}

/// Writes the database into `into`, opens it once without writing, and makes it durable.
pub(crate) fn restore_database(
    from: &dyn RestoreSource,
    into: &Path,
    monitor: &dyn Monitor,
) -> Result<RestoreReport, Failure> {
    let name = database_name(from)?;
    let stats = from.materialize(&data()?, into, monitor)?;
    let artefact = into.join(name);
    let what = format!("failed to open the restored database {}", artefact.display());
    open_restored(&artefact)
        .and_then(|connection| connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_row| Ok(())))
        .map_err(|error| restored_failure(&what, error))?;
    if let Some(stray) =
        COMPANIONS.iter().map(|suffix| companion(&artefact, suffix)).find(|path| path.exists())
    {
        return Err(strange(&stray.display().to_string()));
    }
    File::open(&artefact)
        .and_then(|file| file.sync_all())
        .and_then(|()| crashsafe::sync_dir(into))
        .map_err(|error| Failure::io(format!("failed to sync {}", artefact.display()), error))?;
    Ok(RestoreReport { stats, artefact })
}
