//! Which files count: a log before a dump, as a server loads them, unless it is known that the log is off.

use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

use lifeboat_base::time::Timestamp;

use super::config::Settings;
use super::error::FilesError;
use super::folder::Folder;
use super::manifest::{LIST_LIMIT_BYTES, List};
use crate::rdb::{self, About};

/// How often a list is read again that changes while its files are opened. A rewrite takes a fork at least.
const MAX_TRIES: u32 = 50;

/// Where the content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A log in several files, of a server of version 7 or later.
    Log,
    /// A log in one file, of a server before version 7.
    OldLog,
    /// A dump alone.
    Dump,
}

impl Origin {
    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::OldLog => "old-log",
            Self::Dump => "dump",
        }
    }
}

/// An open file of the server.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) name: String,
    pub(super) file: File,
}

/// The files that count, held open: nothing can take them away.
#[derive(Debug)]
pub struct Chosen {
    pub(super) origin: Origin,
    /// A dump, or commands, or both one after the other.
    pub(super) base: Option<Piece>,
    pub(super) increments: Vec<Piece>,
    /// A dump beside the log is younger than it.
    pub(super) younger_dump: Option<String>,
    /// What the base, or the dump, says before its first key; nothing for a base of commands.
    pub(super) about: Option<About>,
    pub(super) databases: Option<u64>,
}

impl Chosen {
    /// Where the content comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What its dump says about itself before its first key, where it has one.
    pub fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// Their lengths in all, as they are now.
    pub fn bytes(&self) -> u64 {
        let pieces = self.base.iter().chain(&self.increments);
        pieces.filter_map(|piece| Some(piece.file.metadata().ok()?.len())).sum()
    }

    /// How many files there are.
    pub fn count(&self) -> u64 {
        u64::from(self.base.is_some()) + self.increments.len() as u64
    }

    /// The dump beside the log that was made after the log's last change.
    pub fn younger_dump(&self) -> Option<&str> {
        self.younger_dump.as_deref()
    }
}

/// Opens the files that count.
pub fn choose(dir: &Path, settings: &Settings) -> Result<Chosen, FilesError> {
    let folder = Folder::open(dir)?;
    let list = format!("{}.manifest", settings.append_name);
    let shown = format!("{}/{list}", settings.append_dir);
    let log = match folder.folder(&settings.append_dir)? {
        Some(inside) => match several(&inside, &list)? {
            Some(log) => Some(log),
            None if settings.append_only != Some(false) && !inside.is_empty()? => {
                let why = format!("{} is not empty", settings.append_dir);
                return Err(FilesError::NoList { why, list: shown });
            }
            None => None,
        },
        None => None,
    };
    let log = match log {
        None => single(&folder, &settings.append_name)?,
        log => log,
    };
    let dump = folder.file(&settings.dump_name)?;
    let dump = dump.map(|file| Piece { name: folder.shown(&settings.dump_name), file });
    let chosen = match (log, dump) {
        (None, None) => {
            let (dir, dump) = (dir.display().to_string(), settings.dump_name.clone());
            return Err(FilesError::Nothing { dir, log: shown, dump });
        }
        (None, Some(_)) if settings.append_only == Some(true) => {
            let why = "the configuration says `appendonly yes`".to_owned();
            return Err(FilesError::NoList { why, list: shown });
        }
        (None, Some(dump)) => alone(dump)?,
        (Some(log), None) => log,
        (Some(log), Some(dump)) => between(log, dump, settings.append_only)?,
    };
    Ok(Chosen { databases: settings.databases, ..chosen })
}

/// A dump is made of everything, so its log is older only if it is off, or if nothing was written since.
fn between(mut log: Chosen, dump: Piece, append_only: Option<bool>) -> Result<Chosen, FilesError> {
    let about = opening(&dump)?;
    let made = made(&about).ok_or_else(|| FilesError::Undated { name: dump.name.clone() })?;
    let younger = log.changed().is_none_or(|changed| made > changed);
    // What the configuration says may have been changed in the running server: the files have to bear it out.
    match (append_only, younger) {
        (Some(false), true) => alone(dump),
        (Some(false), false) | (None, true) => {
            let log = log.last().map(|piece| piece.name.clone()).unwrap_or_default();
            Err(FilesError::Undecided { dump: dump.name, log })
        }
        (Some(true), true) => {
            log.younger_dump = Some(dump.name);
            Ok(log)
        }
        (Some(true) | None, false) => Ok(log),
    }
}

/// A dump and nothing else.
fn alone(dump: Piece) -> Result<Chosen, FilesError> {
    let about = Some(opening(&dump)?);
    Ok(Chosen { about, ..Chosen::of(Origin::Dump, Some(dump), Vec::new()) })
}

/// The log in several files, if there is a list of them.
fn several(folder: &Folder, list: &str) -> Result<Option<Chosen>, FilesError> {
    for _try in 0..MAX_TRIES {
        let Some(text) = folder.text(list, LIST_LIMIT_BYTES)? else { return Ok(None) };
        let parsed = List::parse(&text).map_err(|(line, what)| FilesError::List {
            list: folder.shown(list),
            line,
            what,
        })?;
        let opened = all(folder, &parsed);
        // A rewrite removes what its new list does not name. What was opened stays, and is of one list.
        if folder.text(list, LIST_LIMIT_BYTES)?.as_deref() != Some(text.as_str()) {
            continue;
        }
        let mut pieces = match opened? {
            Ok(pieces) => pieces,
            Err(name) => {
                return Err(FilesError::Missing { list: folder.shown(list), name: folder.shown(&name) });
            }
        };
        let base = parsed.base.is_some().then(|| pieces.remove(0));
        let mut chosen = Chosen::of(Origin::Log, base, pieces);
        chosen.look_into_base()?;
        return Ok(Some(chosen));
    }
    Err(FilesError::Restless { tries: MAX_TRIES })
}

/// Every file of a list, or the name of one that is missing.
fn all(folder: &Folder, list: &List) -> Result<Result<Vec<Piece>, String>, FilesError> {
    let mut pieces = Vec::new();
    for name in list.names() {
        match folder.file(name)? {
            Some(file) => pieces.push(Piece { name: folder.shown(name), file }),
            None => return Ok(Err(name.clone())),
        }
    }
    Ok(Ok(pieces))
}

/// The log in one file, if there is one. A rewrite replaces it: what was opened stays.
fn single(folder: &Folder, name: &str) -> Result<Option<Chosen>, FilesError> {
    let Some(file) = folder.file(name)? else { return Ok(None) };
    let piece = Piece { name: folder.shown(name), file };
    let mut chosen = Chosen::of(Origin::OldLog, Some(piece), Vec::new());
    chosen.look_into_base()?;
    Ok(Some(chosen))
}

impl Chosen {
    fn of(origin: Origin, base: Option<Piece>, increments: Vec<Piece>) -> Self {
        let (younger_dump, about, databases) = (None, None, None);
        Self { origin, base, increments, younger_dump, about, databases }
    }

    /// The file that grows, if any does.
    pub(super) fn last(&self) -> Option<&Piece> {
        self.increments.last().or(self.base.as_ref())
    }

    /// When the last of them was changed.
    pub(super) fn changed(&self) -> Option<Timestamp> {
        let changed = self.last()?.file.metadata().ok()?.modified().ok()?;
        let since = changed.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Timestamp::UNIX_EPOCH.checked_add(since).ok()
    }

    fn look_into_base(&mut self) -> Result<(), FilesError> {
        let Some(base) = &self.base else { return Ok(()) };
        // One that is called a dump and is none, such as an empty one after a power cut, is not a log without a base.
        if base.begins_as_dump()? || Path::new(&base.name).extension().is_some_and(|kind| kind == "rdb") {
            self.about = Some(opening(base)?);
        }
        Ok(())
    }
}

/// What a dump begins with.
const MAGIC: &[u8] = b"REDIS";

impl Piece {
    /// Whether it begins with a dump; else it is commands from its first byte on.
    pub(super) fn begins_as_dump(&self) -> Result<bool, FilesError> {
        use std::os::unix::fs::FileExt;
        let mut start = [0; MAGIC.len()];
        let count = self.file.read_at(&mut start, 0).map_err(FilesError::io("read", &self.name))?;
        Ok(start.get(..count) == Some(MAGIC))
    }
}

fn opening(piece: &Piece) -> Result<About, FilesError> {
    let source = super::reading::Range::of(piece, 0)?;
    rdb::opening(source).map_err(|source| FilesError::Dump { name: piece.name.clone(), source })
}

/// When a dump was made, by its own account: what was written before is in it. It counts in seconds, rounded down, and begins
/// a little after the moment that it shows.
pub(super) fn made(about: &About) -> Option<Timestamp> {
    let seconds: i64 = about.aux.get("ctime")?.parse().ok()?;
    Timestamp::from_second(seconds.checked_sub(1)?).ok()
}
