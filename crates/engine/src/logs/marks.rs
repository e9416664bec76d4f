//! What is known here about log objects that their names do not say: which ones could not be read, and how large new ones are.
//!
//! Lies in `state/logs/STORE/`: a small file for each object that is known to be damaged (`damaged/COPY/NAME`), and
//! `stored.json` with the sizes of the newest objects, until roll-ups list them. For `status`, which has no key. A lost
//! file costs knowledge that the next verification brings back.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::CopyName;
use lifeboat_vault::logs::LogName;
use serde::{Deserialize, Serialize};

const DAMAGED: &str = "damaged";
const STORED: &str = "stored.json";
const FORMAT: &str = "lifeboat.log-stored/v1";
/// Sizes that are remembered; beyond, the oldest are forgotten. An hour of following makes some hundreds.
const MAX_SIZES: usize = 2_000;
/// Damaged objects of a copy that are remembered one by one; a copy with more is broken as a whole, and shown so.
const MAX_MARKS: usize = 10_000;

/// The knowledge about one store's log.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    folder: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    format: String,
    sizes: BTreeMap<LogName, u64>,
}

impl Marks {
    /// In the folder of a store's log.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn damaged(&self, copy: &CopyName) -> PathBuf {
        self.folder.join(DAMAGED).join(copy.as_str())
    }

    /// Remembers that a copy lists an object that cannot be read.
    pub(crate) fn note(&self, copy: &CopyName, name: LogName, why: &str) -> Result<(), Failure> {
        let folder = self.damaged(copy);
        let fail = |error| Failure::io(format!("failed to remember that {name} is damaged"), error);
        crashsafe::create_dir_all(&folder).map_err(fail)?;
        match crashsafe::write_new(&folder.join(name.to_string()), why.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(fail(error)),
            _ => Ok(()),
        }
    }

    /// It was read and is whole, or is gone.
    pub(crate) fn clear(&self, copy: &CopyName, name: LogName) -> Result<(), Failure> {
        match crashsafe::remove(&self.damaged(copy).join(name.to_string())) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::io(format!("failed to forget that {name} was damaged"), error))
            }
            _ => Ok(()),
        }
    }

    /// The objects of a copy that are known to be damaged, with the reason.
    pub(crate) fn of(&self, copy: &CopyName) -> Result<BTreeMap<LogName, String>, Failure> {
        let folder = self.damaged(copy);
        let fail = |error| Failure::io(format!("failed to read {}", folder.display()), error);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            other => other.map_err(fail)?,
        };
        let mut found = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.and_then(|name| name.parse().ok()) else { continue };
            if found.len() == MAX_MARKS {
                let what = format!("copy `{copy}` has more than {MAX_MARKS} damaged log objects");
                return Err(Failure::new(FailureKind::Damaged, what));
            }
            match fs::read_to_string(&path) {
                Ok(why) => found.insert(name, why),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(fail(error)),
            };
        }
        Ok(found)
    }

    /// Makes `damaged` all that is known about a copy, after every object of it was read.
    pub(crate) fn replace(
        &self,
        copy: &CopyName,
        damaged: &BTreeMap<LogName, String>,
    ) -> Result<(), Failure> {
        for (name, why) in damaged {
            self.note(copy, *name, why)?;
        }
        for name in self.of(copy)?.keys().filter(|name| !damaged.contains_key(name)) {
            self.clear(copy, *name)?;
        }
        Ok(())
    }

    /// The sizes of the newest objects; nothing if they are not known.
    pub(crate) fn sizes(&self) -> BTreeMap<LogName, u64> {
        let text = fs::read(self.folder.join(STORED)).unwrap_or_default();
        let stored: Stored = serde_json::from_slice(&text).unwrap_or_default();
        if stored.format == FORMAT { stored.sizes } else { BTreeMap::new() }
    }

    /// Remembers the sizes of objects that were stored now.
    pub(crate) fn stored(&self, new: &BTreeMap<LogName, u64>) -> Result<(), Failure> {
        let mut sizes = self.sizes();
        let before = sizes.clone();
        sizes.extend(new);
        if sizes == before {
            return Ok(());
        }
        while sizes.len() > MAX_SIZES {
            sizes.pop_first();
        }
        let text = serde_json::to_vec(&Stored { format: FORMAT.to_owned(), sizes }).map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to remember what was stored", error)
        })?;
        crashsafe::replace(&self.folder.join(STORED), &text)
            .map_err(|error| Failure::io("failed to remember what was stored", error))
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_vault::logs::Position;

    use super::*;

    fn name(from: u64) -> LogName {
        LogName::of(Position::new(1, from), Position::new(1, from + 10)).unwrap()
    }

    #[test]
    fn what_is_known_to_be_damaged_stays_known_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(&dir.path().join("logs"));
        let (one, two) = (CopyName::new("one").unwrap(), CopyName::new("two").unwrap());
        assert_eq!(marks.of(&one).unwrap(), BTreeMap::new());
        marks.note(&one, name(0), "flipped").unwrap();
        marks.note(&one, name(0), "again").unwrap();
        marks.note(&two, name(10), "cut").unwrap();
        assert_eq!(marks.of(&one).unwrap(), [(name(0), "flipped".to_owned())].into());
        marks.replace(&one, &[(name(20), "missing".to_owned())].into()).unwrap();
        assert_eq!(marks.of(&one).unwrap(), [(name(20), "missing".to_owned())].into());
        marks.clear(&two, name(10)).unwrap();
        marks.clear(&two, name(10)).unwrap();
        assert_eq!(marks.of(&two).unwrap(), BTreeMap::new());
    }

    #[test]
    fn only_the_sizes_of_the_newest_objects_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(dir.path());
        marks.stored(&[(name(0), 7)].into()).unwrap();
        assert_eq!(marks.sizes(), [(name(0), 7)].into());
        let many = (1..=MAX_SIZES as u64).map(|n| (name(n * 10), n)).collect();
        marks.stored(&many).unwrap();
        assert_eq!(marks.sizes(), many);
        crashsafe::replace(&dir.path().join(STORED), b"{").unwrap();
        assert_eq!(marks.sizes(), BTreeMap::new());
    }
}
