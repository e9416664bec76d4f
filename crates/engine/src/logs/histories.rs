//! The file that tells how a timeline came to be, handed over by a server: believed only if nothing that is kept says otherwise.
//!
//! A history does not name its cluster, and one that is kept decides what every later segment is taken for: so it is
//! compared with the control file beside it, the log of its ancestors, and the histories that are kept already.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_policy::Store;
use lifeboat_stores::{Continuous, LogFiles, LogPosition, WantedLog};
use lifeboat_vault::logs::Position;

use super::follow::stream_name;
use super::head::Head;
use super::push::{Kept, same_cluster};
use super::ranges::position;
use super::sources::Sources;
use crate::context::Engine;
use crate::error::EngineError;

/// A history as it was handed over.
pub(super) struct Handed<'a> {
    pub(super) path: &'a Path,
    pub(super) timeline: u32,
    pub(super) content: &'a [u8],
    /// Where its ancestors were left, oldest first.
    pub(super) left: &'a [LogPosition],
    /// Whose it is, if that is known.
    pub(super) identity: Option<String>,
}

/// What each timeline continues on an older one.
type Origins = BTreeMap<u32, Position>;

fn origins(timeline: u32, left: &[LogPosition]) -> Origins {
    let children = left.iter().skip(1).map(|at| at.timeline).chain([timeline]);
    children.zip(left.iter().copied().map(position)).collect()
}

impl Engine {
    /// A history is remembered here: what it says goes into the copies with the first segment of its timeline.
    pub(super) fn push_history(
        &self,
        row: &Store,
        (store, files): (&dyn Continuous, &dyn LogFiles),
        handed: &Handed<'_>,
    ) -> Result<Kept, EngineError> {
        let folder = self.log_folder(&row.name);
        let place = folder.join(files.history_name(handed.timeline));
        let fail = |error| Failure::io(format!("failed to keep {}", place.display()), error);
        if let Some(known) = known(&place).map_err(fail)? {
            return if known == handed.content { Ok(Kept::Already) } else { Err(other(row, handed, &place)) };
        }
        let set = self.reachable(row, "wal push")?;
        if let Some(identity) = &handed.identity {
            same_cluster(row, store, (&set, Head::read(&folder)?.as_ref()), identity)?;
        }
        let sources = Sources::open(&set, &stream_name(store)?, Some(&folder))?;
        prove(handed, files, sources, &folder)?.map_err(|why| unbelieved(row, handed, &place, &why))?;
        crashsafe::create_dir_all(&folder).map_err(fail)?;
        match crashsafe::write_new(&place, handed.content) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if known(&place).map_err(fail)?.as_deref() == Some(handed.content) {
                    Ok(Kept::Already)
                } else {
                    Err(other(row, handed, &place))
                }
            }
            made => made.map(|()| Kept::Stored).map_err(|error| fail(error).into()),
        }
    }
}

fn known(place: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match std::fs::read(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn other(row: &Store, handed: &Handed<'_>, place: &Path) -> EngineError {
    let what = format!(
        "{} is another history of timeline {} of `{}` than {}, which stays",
        handed.path.display(),
        handed.timeline,
        row.name,
        place.display()
    );
    EngineError::new(FailureKind::Refused, what).next(format!(
        "find out which one is right; if it is the new one, move {} aside: the server tries again",
        place.display()
    ))
}

fn unbelieved(row: &Store, handed: &Handed<'_>, place: &Path, why: &str) -> EngineError {
    let what = format!("{} is no history of `{}`: {why}", handed.path.display(), row.name);
    EngineError::new(FailureKind::Refused, what).next(format!(
        "if another server archives here, give it a row of its own; if the file is right all the same, copy it to {}, \
         make a backup, and the server's next try is taken",
        place.display()
    ))
}

/// Looks for anything kept that speaks against a history; gives what does.
fn prove(
    handed: &Handed<'_>,
    files: &dyn LogFiles,
    mut sources: Sources,
    folder: &Path,
) -> Result<Result<(), String>, Failure> {
    let said = origins(handed.timeline, handed.left);
    for (child, origin) in &said {
        if let Some((_, Some(kept))) = sources.entry(*child)?
            && kept != *origin
        {
            return Ok(Err(format!("it leads to timeline {child} from {origin}, the kept log from {kept}")));
        }
    }
    for (path, kept) in kept_histories(files, folder)? {
        for (child, origin) in &said {
            if let Some(kept) = kept.get(child).filter(|kept| *kept != origin) {
                let path = path.display();
                return Ok(Err(format!("it leads to timeline {child} from {origin}, {path} from {kept}")));
            }
        }
    }
    let Some(fork) = handed.left.last().copied().map(position) else { return Ok(Ok(())) };
    if let Some(first) = sources.first(fork.timeline).filter(|first| fork.offset < *first) {
        let first = Position::new(fork.timeline, first);
        return Ok(Err(format!("it begins at {fork}, and what is kept of that timeline only at {first}")));
    }
    if let Some(first) = sources.first(handed.timeline).filter(|first| *first < fork.offset) {
        let first = Position::new(handed.timeline, first);
        return Ok(Err(format!("it begins at {fork}, and the log of its timeline already at {first}")));
    }
    Ok(Ok(()))
}

/// The histories that were handed over before, with what each says.
fn kept_histories(files: &dyn LogFiles, folder: &Path) -> Result<Vec<(PathBuf, Origins)>, Failure> {
    let fail = |error| Failure::io(format!("failed to look into {}", folder.display()), error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(WantedLog::History(timeline)) = files.wanted(name) else { continue };
        let content = std::fs::read(&path).map_err(fail)?;
        let origins = origins(timeline, &files.history_left(timeline, &content)?);
        found.push((path, origins));
    }
    Ok(found)
}
