//! What is known here about log objects that their names do not say: which ones could not be read, and how large new ones are.
//!
//! Lies in `state/logs/STORE/`: a small file for each object that is known to be damaged (`damaged/COPY/NAME`),
//! `stored.json` with the sizes of the newest objects, until roll-ups list them, and `forks.json` with the places where a
//! timeline left the one before it. For `status`, which has no key. A lost file costs knowledge that the next
//! verification, or the next following of the log, brings back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::CopyName;
use lifeboat_vault::logs::{LogName, Position};
use serde::{Deserialize, Serialize};

const DAMAGED: &str = "damaged";
const STORED: &str = "stored.json";
const FORMAT: &str = "lifeboat.log-stored/v1";
const FORKS: &str = "forks.json";
const FORKS_FORMAT: &str = "lifeboat.log-forks/v1";
/// Sizes that are remembered; beyond, the oldest are forgotten. An hour of following makes some hundreds.
const MAX_SIZES: usize = 2_000;
/// Damaged objects of a copy that are read into memory, the newest ones: a copy with more is shown as broken all the same,
/// and what new log meets are the newest.
const MAX_MARKS: usize = 1_000;

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

/// The way a log took.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Way {
    format: String,
    /// Where it began to be kept, if that is known.
    pub(crate) began: Option<Position>,
    /// Where each timeline left the one before it, as far as that is known.
    pub(crate) left: BTreeMap<u32, Position>,
}

impl Way {
    /// As it is remembered.
    pub(crate) fn new(began: Option<Position>, left: BTreeMap<u32, Position>) -> Self {
        Self { format: FORKS_FORMAT.to_owned(), began, left }
    }
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

    /// The objects of a copy that are known to be damaged, with the reason: the newest [`MAX_MARKS`] of them.
    pub(crate) fn of(&self, copy: &CopyName) -> Result<BTreeMap<LogName, String>, Failure> {
        let folder = self.damaged(copy);
        let mut newest = BTreeSet::new();
        self.each(copy, |name| {
            newest.insert(name);
            if newest.len() > MAX_MARKS {
                newest.pop_first();
            }
            Ok(())
        })?;
        let mut found = BTreeMap::new();
        for name in newest {
            match fs::read_to_string(folder.join(name.to_string())) {
                Ok(why) => found.insert(name, why),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(unreadable(&folder, error)),
            };
        }
        Ok(found)
    }

    /// Names every object of a copy that is known to be damaged, in no order.
    fn each(
        &self,
        copy: &CopyName,
        mut mark: impl FnMut(LogName) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let folder = self.damaged(copy);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| unreadable(&folder, error))?,
        };
        for entry in entries {
            let name = entry.map_err(|error| unreadable(&folder, error))?.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.parse().ok()) {
                mark(name)?;
            }
        }
        Ok(())
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
        self.each(copy, |name| if damaged.contains_key(&name) { Ok(()) } else { self.clear(copy, name) })
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
        self.write(STORED, &Stored { format: FORMAT.to_owned(), sizes })
    }

    /// The way the log took; an empty one if nothing is known.
    pub(crate) fn way(&self) -> Way {
        let text = fs::read(self.folder.join(FORKS)).unwrap_or_default();
        let way: Way = serde_json::from_slice(&text).unwrap_or_default();
        if way.format == FORKS_FORMAT { way } else { Way::default() }
    }

    /// Remembers where timelines left others.
    pub(crate) fn forked(&self, new: &BTreeMap<u32, Position>) -> Result<(), Failure> {
        // Most shipments enter no timeline.
        if new.is_empty() {
            return Ok(());
        }
        let Way { began, mut left, .. } = self.way();
        let before = left.clone();
        left.extend(new);
        if left == before {
            return Ok(());
        }
        self.write(FORKS, &Way::new(began, left))
    }

    /// Remembers where the log began to be kept, unless that is known: what is lost later is not taken for never kept.
    pub(crate) fn begin(&self, at: Position) -> Result<(), Failure> {
        let Way { began, left, .. } = self.way();
        if began.is_some() {
            return Ok(());
        }
        self.write(FORKS, &Way::new(Some(at), left))
    }

    fn write(&self, name: &str, what: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_vec(what).map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to remember what was stored", error)
        })?;
        crashsafe::replace(&self.folder.join(name), &text)
            .map_err(|error| Failure::io("failed to remember what was stored", error))
    }
}

fn unreadable(folder: &Path, error: std::io::Error) -> Failure {
    Failure::io(format!("failed to read {}", folder.display()), error)
}

#[cfg(test)]
mod tests {
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
    fn a_copy_with_any_number_of_damaged_objects_has_its_newest_known() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(dir.path());
        let copy = CopyName::new("one").unwrap();
        let folder = marks.damaged(&copy);
        crashsafe::create_dir_all(&folder).unwrap();
        for n in 0..MAX_MARKS as u64 + 3 {
            fs::File::create(folder.join(name(n * 10).to_string())).unwrap();
        }
        let known = marks.of(&copy).unwrap();
        assert_eq!(known.len(), MAX_MARKS);
        assert_eq!(known.keys().next(), Some(&name(30)));
        marks.replace(&copy, &[(name(50), "still".to_owned())].into()).unwrap();
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "what is whole again is forgotten, however much"
        );
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

    #[test]
    fn where_timelines_left_others_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(dir.path());
        marks.forked(&[(2, Position::new(1, 80))].into()).unwrap();
        marks.forked(&[(3, Position::new(2, 90))].into()).unwrap();
        marks.begin(Position::new(1, 7)).unwrap();
        marks.begin(Position::new(1, 9)).unwrap();
        assert_eq!(marks.way().left, [(2, Position::new(1, 80)), (3, Position::new(2, 90))].into());
        assert_eq!(marks.way().began, Some(Position::new(1, 7)));
        crashsafe::replace(&dir.path().join(FORKS), b"{").unwrap();
        assert_eq!(marks.way().left, BTreeMap::new());
    }
}
