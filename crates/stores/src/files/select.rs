//! The files of a restored tree, for comparing them with what another store says.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use lifeboat_base::time::Timestamp;
use rustix::fs::FileType;

use super::exclude::Excludes;
use super::walk::{Step, Trouble, WalkOptions, Walker};
use crate::select::{Selected, Selection, Take, foreign, going_on};

/// Every selection in one walk.
pub(crate) fn select(
    root: &Path,
    wanted: &[Selection],
    monitor: &dyn Monitor,
    take: &mut Take<'_>,
) -> Result<Vec<Result<(), Failure>>, Failure> {
    let globs: Vec<Result<Excludes, Failure>> = wanted
        .iter()
        .map(|selection| match selection {
            // Anchored: `*.pdf` means the root's.
            Selection::Paths(glob) => Excludes::new(&[format!("/{}", glob.trim_start_matches('/'))]),
            _ => Err(foreign("files")),
        })
        .collect();
    let mut walker = Walker::start(root, WalkOptions::default())
        .map_err(|error| Failure::io("failed to read the restored files", error))?;
    while let Some(step) = walker.step()? {
        going_on(monitor)?;
        let found = match step {
            Step::Found(found) if found.node.file_type == FileType::RegularFile => found,
            Step::Found(_) => continue,
            Step::Lost { path, trouble } => {
                let why = match trouble {
                    Trouble::Vanished => "it is gone".to_owned(),
                    Trouble::Unreadable(error) => error.to_string(),
                };
                let what = format!("the restored file {path} cannot be read: {why}");
                return Err(Failure::new(FailureKind::Internal, what));
            }
        };
        let path = found.path.to_path();
        let (seconds, nanoseconds) = found.node.mtime;
        let at = i32::try_from(nanoseconds).ok().and_then(|part| Timestamp::new(seconds, part).ok());
        for (number, glob) in globs.iter().enumerate() {
            if glob.as_ref().is_ok_and(|glob| glob.covers(&path, false)) {
                take(number, Selected { name: path.as_os_str().as_bytes().to_vec(), value: None, at })?;
            }
        }
    }
    Ok(globs.into_iter().map(|glob| glob.map(drop)).collect())
}
