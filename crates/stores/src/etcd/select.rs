//! Keys of a restored etcd, for comparing them with what another store says. No member is started: they are read from the
//! database of the data directory.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_etcd::bolt::Bolt;
use lifeboat_etcd::{EtcdError, read_content};

use super::error::etcd;
use crate::select::{Selected, Selection, Take, foreign, going_on};

/// Every selection in one pass.
pub(crate) fn select(
    directory: &Path,
    wanted: &[Selection],
    monitor: &dyn Monitor,
    take: &mut Take<'_>,
) -> Result<Vec<Result<(), Failure>>, Failure> {
    const WHAT: &str = "failed to read the keys of the restored etcd";
    let path = directory.join("member/snap/db");
    if !path.exists() {
        let why = "no data directory was made: there was no etcd of the right version";
        return Err(Failure::new(FailureKind::Refused, why));
    }
    let file = File::open(&path).map_err(|error| Failure::io(WHAT, error))?;
    let bolt = Bolt::open_grown(Arc::new(file)).map_err(etcd(WHAT))?;
    let mut taken = Ok(());
    let read = read_content(&bolt, &|| monitor.cancelled(), &mut |pair| {
        for (number, selection) in wanted.iter().enumerate() {
            if let Selection::Under(prefix) = selection
                && pair.key.starts_with(prefix.as_bytes())
            {
                let found = Selected { name: pair.key.clone(), value: Some(pair.value.clone()), at: None };
                taken = take(number, found);
                if taken.is_err() {
                    return Err(EtcdError::Cancelled);
                }
            }
        }
        Ok(())
    });
    taken?;
    going_on(monitor)?;
    read.map_err(etcd(WHAT))?;
    Ok(wanted
        .iter()
        .map(|selection| match selection {
            Selection::Under(_) => Ok(()),
            _ => Err(foreign("etcd")),
        })
        .collect())
}
