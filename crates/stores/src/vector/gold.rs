//! The files of a gold set: in the folder that the row names, and in the point that they were captured with.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::place::regular;
use lifeboat_base::capture::{CaptureFacts, META, RestoreSource};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::path::RelPath;
use lifeboat_probe::GoldFiles;

/// The folder below `meta`.
pub(crate) const FOLDER: &str = "probes";
/// Drafts, before a person has looked at them; they are not captured.
pub const DRAFTS: &str = "drafts.jsonl";
/// The questions that were let in.
pub const GOLD: &str = "gold.jsonl";
/// What binds them.
pub const LOCK: &str = "gold.lock";
/// Their sections.
pub const SECTIONS: &str = "sections.jsonl";
/// The pinned embedder.
pub const EMBEDDER: &str = "embedder.lsa";
/// Vectors of the questions by the model of the index.
pub const QUESTIONS: &str = "questions.jsonl";
/// The board before.
pub const BASELINE: &str = "baseline.json";
/// A model of 50,000 terms and 512 directions has 100 MiB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The files that a point holds, in the order of their names, and whether a set is none without them.
const CAPTURED: [(&str, bool); 6] =
    [(BASELINE, false), (EMBEDDER, true), (GOLD, true), (LOCK, true), (QUESTIONS, false), (SECTIONS, true)];

/// A file of the folder; nothing if there is none.
pub(crate) fn file(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let path = folder.join(name);
    let what = || format!("failed to read {} of the gold set", path.display());
    match regular(&path) {
        Ok(file) => bounded(file, what).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::with_source(FailureKind::Unreachable, what(), error)),
    }
}

fn bounded(reader: impl Read, what: impl Fn() -> String) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::with_source(FailureKind::Unreachable, what(), error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::new(FailureKind::Refused, format!("{}: it is too large", what())));
    }
    Ok(bytes)
}

/// The folder's files by name, in their order.
pub(crate) fn of_folder(folder: &Path) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    fs::metadata(folder).map_err(|error| {
        let what = format!("failed to open the gold set {}", folder.display());
        Failure::with_source(FailureKind::Unreachable, what, error)
    })?;
    let mut files = Vec::new();
    for (name, _) in CAPTURED {
        if let Some(bytes) = file(folder, name)? {
            files.push((name, bytes));
        }
    }
    Ok(files)
}

/// The files that a point holds, each the one that was signed. Nothing if it holds none; the reason where one is missing or
/// another one.
pub(crate) fn of_point(
    from: &dyn RestoreSource,
    facts: &CaptureFacts,
) -> Result<Option<Result<GoldFiles, String>>, Failure> {
    let mut files = Vec::new();
    for (name, _) in CAPTURED {
        let Some(signed) = facts.checksums.get(&sum(name)) else { continue };
        let path = path(name)?;
        let bytes = match from.open(&path) {
            Ok(reader) => bounded(reader, || format!("failed to read {path} of the point"))?,
            Err(error) if error.kind() == FailureKind::Refused => {
                return Ok(Some(Err(format!("the point has no {path}"))));
            }
            Err(error) => return Err(error),
        };
        if format!("sha256:{}", Digest::of(&bytes)) != *signed {
            return Ok(Some(Err(format!("{path} is not the one that was signed"))));
        }
        files.push((name, bytes));
    }
    Ok((!files.is_empty()).then(|| assembled(files)))
}

/// The files of a set together; the reason where one is missing.
pub(crate) fn assembled(files: Vec<(&'static str, Vec<u8>)>) -> Result<GoldFiles, String> {
    if let Some((name, _)) =
        CAPTURED.iter().find(|(name, needed)| *needed && !files.iter().any(|(other, _)| other == name))
    {
        let why = if *name == EMBEDDER { "" } else { ": was it curated?" };
        return Err(format!("the gold set has no {name}{why}"));
    }
    let mut set = GoldFiles::default();
    for (name, bytes) in files {
        match name {
            BASELINE => set.baseline = Some(bytes),
            EMBEDDER => set.embedder = bytes,
            GOLD => set.gold = bytes,
            LOCK => set.lock = Some(bytes),
            QUESTIONS => set.questions = Some(bytes),
            _ => set.sections = bytes,
        }
    }
    Ok(set)
}

/// The name of a file's checksum in the facts.
pub(crate) fn sum(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// Where a file lies in a point.
pub(crate) fn path(name: &str) -> Result<RelPath, Failure> {
    RelPath::new(Path::new(META).join(FOLDER).join(name))
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name an entry", error))
}
