//! Puts a snapshot back: the file itself, which every tool of etcd takes, and a data directory made of it by etcd's own
//! program where one is installed, with a text that says how to go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_base::capture::{CaptureFacts, DATA, RestoreSource, StoredEntry, StoredKind};
use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Clock;
use lifeboat_etcd::{
    EtcdError, Installation, Snapshot, Version, bump_revision, installation, make_data_directory,
};
use serde_json::Value;

use super::capture::SNAPSHOT;
use super::error::{etcd, stored};
use crate::adapter::RestoreReport;

/// The data directory inside a restored folder.
pub(crate) const DIRECTORY: &str = "etcd";
/// The snapshot with the raised revision.
pub(crate) const RAISED: &str = "snapshot-raised.db";
/// What to do with all this.
pub(crate) const TEXT: &str = "RECOVERY.txt";

/// How a snapshot is put back.
pub(crate) struct Way<'a> {
    pub(crate) programs: &'a [PathBuf],
    pub(crate) bump_revision: Option<u64>,
    pub(crate) clock: &'a dyn Clock,
}

/// The version that the data is of: that of the member, else the one the cluster had agreed on.
pub(crate) fn version(facts: &CaptureFacts) -> Option<Version> {
    let text = |name: &str| facts.environment.get(name).and_then(Value::as_str);
    text("server_version").or_else(|| text("cluster_version")).and_then(Version::parse)
}

/// The etcd that this data is restored and tried with.
pub(crate) fn programs_for(facts: &CaptureFacts, programs: &[PathBuf]) -> Result<Installation, EtcdError> {
    installation(version(facts), programs)
}

/// `Damaged` if the recovery point holds anything but one snapshot.
fn only_a_snapshot(from: &dyn RestoreSource) -> Result<RelPath, Failure> {
    let data = RelPath::new(DATA)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name the snapshot", error))?;
    let mut found = false;
    from.walk(&data, &mut |entry: StoredEntry| {
        let below = entry.path.below(&data).unwrap_or_default();
        match (below.depth(), entry.kind) {
            (0, StoredKind::Dir) => Ok(()),
            (1, StoredKind::File(_)) if below.names().next().is_some_and(|name| name == SNAPSHOT) => {
                found = true;
                Ok(())
            }
            _ => {
                let what = format!("the recovery point of an etcd holds something else: {}", entry.path);
                Err(Failure::new(FailureKind::Damaged, what))
            }
        }
    })?;
    if found {
        Ok(data)
    } else {
        Err(Failure::new(FailureKind::Damaged, "the recovery point holds no snapshot"))
    }
}

/// Opens a restored snapshot, proven whole.
pub(crate) fn open_snapshot(path: &Path, cancelled: &dyn Fn() -> bool) -> Result<Snapshot, EtcdError> {
    let file = std::fs::File::open(path)
        .map_err(|source| EtcdError::Io { what: format!("open {}", path.display()), source })?;
    Snapshot::open(Arc::new(file), cancelled)
}

/// Writes everything into `into` and makes it durable.
pub(crate) fn restore_snapshot(
    way: &Way<'_>,
    from: &dyn RestoreSource,
    facts: &CaptureFacts,
    into: &Path,
    monitor: &dyn Monitor,
) -> Result<RestoreReport, Failure> {
    let cancelled = || monitor.cancelled();
    let data = only_a_snapshot(from)?;
    let stats = from.materialize(&data, into, monitor)?;
    let path = into.join(SNAPSHOT);
    let snapshot = open_snapshot(&path, &cancelled).map_err(stored("the restored snapshot is not whole"))?;
    let mut source = path.clone();
    if let Some(by) = way.bump_revision {
        source = into.join(RAISED);
        bump_revision(&snapshot, by, &source, &cancelled).map_err(stored("failed to raise the revision"))?;
    }
    let (artefact, text) = match programs_for(facts, way.programs) {
        Ok(installed) => {
            monitor.phase("making the data directory", None);
            let directory = into.join(DIRECTORY);
            make_data_directory(&installed, &source, &directory, way.clock, &cancelled)
                .map_err(etcd("failed to make the data directory"))?;
            (directory, text(Some(&installed), way.bump_revision))
        }
        Err(error @ EtcdError::NotInstalled { .. }) => {
            monitor.notice(&format!("no data directory was made: {error}"));
            (source, text(None, way.bump_revision))
        }
        Err(error) => return Err(etcd("failed to look for etcd")(error)),
    };
    crashsafe::write_new(&into.join(TEXT), text.as_bytes())
        .and_then(|()| crashsafe::sync_dir(into))
        .map_err(|error| Failure::io(format!("failed to write {}", into.join(TEXT).display()), error))?;
    Ok(RestoreReport { stats, artefact })
}

/// What a person does next, from inside the restored folder.
fn text(installed: Option<&Installation>, bumped: Option<u64>) -> String {
    let file = if bumped.is_some() { RAISED } else { SNAPSHOT };
    let version =
        installed.map_or_else(|| "etcd".to_owned(), |installed| format!("etcd {}", installed.version));
    let start = if installed.is_some() {
        format!(
            "A cluster of one member, ready to start with {version} (as the account that shall own it):\n\n    \
             etcd --data-dir ./{DIRECTORY}\n"
        )
    } else {
        "No data directory was made: there was no etcd of the right version on this machine.\n".to_owned()
    };
    let revision = match bumped {
        Some(_) => {
            "The revision was raised and everything before it is marked as compacted, so that watchers start again."
        }
        None => {
            "Under Kubernetes restore with --bump-revision 1000000000: else the revision goes back, and controllers that \
             watch miss changes."
        }
    };
    format!(
        "{start}\nA member of a new cluster, on each machine (etcdutl from 3.5 on, etcdctl with ETCDCTL_API=3 before):\n\n    \
         etcdutl snapshot restore {file} --data-dir DIR --name NAME \\\n        --initial-cluster NAME=https://HOST:2380,... \
         --initial-advertise-peer-urls https://HOST:2380\n\nTalos, after etcd was wiped on all control plane nodes, on one \
         of them:\n\n    talosctl -n NODE bootstrap --recover-from={file}\n\n{revision}\n"
    )
}
