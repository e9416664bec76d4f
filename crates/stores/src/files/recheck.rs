//! Looks at every captured entry of the source once more when the capture is complete.
//!
//! In: the inventory just written, and the root. Out: a finding for everything that is not as it was when it was
//! read. Costs one `stat` per entry and no content. This is what makes "no change seen" mean that the whole tree
//! stood still: a file changed after it was read leaves no trace in its directory.

use std::io::BufReader;
use std::path::Path;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use rustix::fs::{AtFlags, fstat, statat};

use super::descent::Descent;
use super::inventory::{InventoryReader, Line, LineType};
use super::node::Node;
use super::notes::{Notes, shown};
use crate::spool::Sealed;

/// Notes every entry that differs from the inventory.
pub(crate) fn recheck(
    root: &Path,
    inventory: &Sealed,
    notes: &mut Notes,
    monitor: &dyn Monitor,
) -> Result<(), Failure> {
    let mut descent = Descent::start(root)
        .map_err(|error| Failure::io(format!("failed to look at {} again", root.display()), error))?;
    let mut lines = InventoryReader::new(BufReader::new(inventory.reader()));
    loop {
        let next = lines.next_line();
        let next = next.map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to read the inventory back", error)
        })?;
        let Some((path, line)) = next else { return Ok(()) };
        if line.source.changed {
            continue;
        }
        if let Some(finding) = differs(&mut descent, &path, &line) {
            notes.changed(finding, monitor);
        }
    }
}

fn differs(descent: &mut Descent, path: &RelPath, line: &Line) -> Option<Finding> {
    let now = match path.split_last() {
        None => fstat(descent.root()).map_err(std::io::Error::from),
        Some((parent, name)) => {
            descent.seek(parent.names()).and_then(|dir| Ok(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
        }
    };
    match now {
        Ok(stat) if Node::from_stat(&stat).version() == line.version() => None,
        Ok(_) if line.kind == LineType::Dir => Some(Finding::new(
            "dir-changed",
            shown(path),
            "entries appeared, vanished or were renamed in this directory during the capture",
        )),
        Ok(_) => Some(Finding::new("file-changed", shown(path), "it changed after it was captured")),
        Err(_) => Some(Finding::new("file-vanished", shown(path), "it vanished after it was captured")),
    }
}
