//! Puts a captured tree back.

use std::path::Path;

use lifeboat_base::capture::{DATA, RestoreSource, StoredEntry, StoredKind};
use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;

use super::apply::apply_meta;
use crate::adapter::RestoreReport;

/// Writes the tree into `into` and gives `into` the metadata of the captured root.
pub(crate) fn restore_tree(
    from: &dyn RestoreSource,
    into: &Path,
    monitor: &dyn Monitor,
) -> Result<RestoreReport, Failure> {
    let data = RelPath::new(DATA)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name the tree", error))?;
    let root = entry_at(from, &data)?
        .filter(|root| root.kind == StoredKind::Dir)
        .ok_or_else(|| Failure::new(FailureKind::Damaged, "the recovery point holds no tree"))?;
    let stats = from.materialize(&data, into, monitor)?;
    apply_meta(into, &root.meta, &root.kind).map_err(|error| {
        Failure::io(format!("failed to restore the metadata of {}", into.display()), error)
    })?;
    crashsafe::sync_dir(into)
        .map_err(|error| Failure::io(format!("failed to sync {}", into.display()), error))?;
    Ok(RestoreReport { stats, artefact: into.to_owned() })
}

/// The entry at `path` itself, without visiting what is below it.
fn entry_at(from: &dyn RestoreSource, path: &RelPath) -> Result<Option<StoredEntry>, Failure> {
    let mut first = None;
    let outcome = from.walk(path, &mut |entry| {
        first = Some(entry);
        Err(Failure::new(FailureKind::Refused, "the first entry is enough"))
    });
    match (first, outcome) {
        (Some(entry), _) => Ok(Some(entry).filter(|entry| entry.path == *path)),
        (None, Ok(())) => Ok(None),
        (None, Err(error)) => Err(error),
    }
}
