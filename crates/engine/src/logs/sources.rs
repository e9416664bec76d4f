//! Everything that is kept of a log, wherever it lies: in the spool and in each copy, read without changing anything.
//!
//! Memory: one piece of at most 64 MiB, and the names of all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, StreamName};
use lifeboat_vault::logs::{LogName, Logs, Position};

use super::spool::{HEADER_BYTES, OPEN, PIECE_SUFFIX, PieceHead, piece_name};
use crate::copies::VaultSet;

/// A spool is written to once in a while: this many changes during a look are no coincidence.
const MAX_LOOKS: usize = 8;

/// How a timeline begins: its first kept offset, and what that continues on an older one.
pub(super) type Entry = (u64, Option<Position>);

enum Place {
    Copy(Box<Logs>),
    Spool(BTreeMap<LogName, Held>),
}

/// A piece of the spool.
struct Held {
    head: PieceHead,
    path: PathBuf,
    /// The open piece gets another name when it is finished: it is read through this.
    file: Option<File>,
}

/// One place with pieces of the log.
pub(super) struct Source {
    /// For messages: `the spool` or a copy.
    pub(super) label: String,
    /// The copy it is; none for the spool.
    pub(super) copy: Option<CopyName>,
    pub(super) names: Vec<LogName>,
    place: Place,
}

/// A piece that could not be read although it is listed.
pub(super) struct Fault {
    /// The copy it is listed in; none for the spool.
    pub(super) copy: Option<CopyName>,
    pub(super) name: LogName,
    pub(super) failure: Failure,
}

/// A piece as it was read.
#[derive(Clone)]
struct Content {
    follows: Option<Position>,
    content: Vec<u8>,
}

/// What is kept, from the nearest place to the farthest.
pub(super) struct Sources {
    stream: StreamName,
    pub(super) list: Vec<Source>,
    /// Copies that were opened and could not be listed.
    pub(super) unlisted: Vec<Failure>,
    last: Option<(usize, LogName, Content)>,
    entries: BTreeMap<u32, Option<Entry>>,
    /// Pieces that could not be read although they are listed, with the reason.
    pub(super) faults: Vec<Fault>,
}

impl Sources {
    /// Lists the spool in `folder`, if one is given, and the open copies. The spool comes first: a piece leaves it only
    /// when it is in every copy.
    pub(super) fn open(set: &VaultSet, stream: &StreamName, folder: Option<&Path>) -> Result<Self, Failure> {
        let (mut list, mut unlisted) = (Vec::new(), Vec::new());
        if let Some(folder) = folder {
            let held = spooled(folder)?;
            let names = held.keys().copied().collect();
            list.push(Source { label: "the spool".to_owned(), copy: None, names, place: Place::Spool(held) });
        }
        for entry in &set.open {
            let logs = entry.vault.logs();
            let label = format!("copy `{}`", entry.copy);
            match logs.list(stream) {
                Ok(names) => {
                    let copy = Some(entry.copy.clone());
                    list.push(Source { label, copy, names, place: Place::Copy(Box::new(logs)) });
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    let kind = failure.kind();
                    unlisted.push(Failure::with_source(kind, format!("{label} cannot be listed"), failure));
                }
            }
        }
        Ok(Self {
            unlisted,
            stream: stream.clone(),
            list,
            last: None,
            entries: BTreeMap::new(),
            faults: Vec::new(),
        })
    }

    fn piece(&mut self, source: usize, name: LogName) -> Result<&Content, Failure> {
        let cached = self.last.take().filter(|(known, held, _)| (*known, *held) == (source, name));
        let read = if let Some((_, _, read)) = cached {
            read
        } else {
            let place = self.list.get(source);
            let place =
                place.ok_or_else(|| Failure::new(FailureKind::Internal, "a piece of log without a place"))?;
            let read = place.read(&self.stream, name)?;
            if read.content.len() as u64 != name.last().offset - name.first().offset {
                let what = format!("{name} in {} is not as long as its name says", place.label);
                return Err(Failure::new(FailureKind::Damaged, what));
            }
            read
        };
        Ok(&self.last.insert((source, name, read)).2)
    }

    fn fault(&mut self, source: usize, name: LogName, failure: Failure) {
        let copy = self.list.get(source).and_then(|source| source.copy.clone());
        self.faults.push(Fault { copy, name, failure });
    }

    fn holding(&self, wanted: impl Fn(&LogName) -> bool) -> Vec<(usize, LogName)> {
        let mut found: Vec<(usize, LogName)> = Vec::new();
        for (index, source) in self.list.iter().enumerate() {
            found.extend(source.names.iter().filter(|name| wanted(name)).map(|name| (index, *name)));
        }
        found
    }

    /// Appends the log of one timeline from `from` on, as far as it is kept and at most up to `to`; gives how far that is.
    /// A piece that one place cannot give is taken from another; an error if none of them can.
    pub(super) fn read(
        &mut self,
        timeline: u32,
        (from, to): (u64, u64),
        into: &mut Vec<u8>,
    ) -> Result<u64, Failure> {
        let mut at = from;
        'next: while at < to {
            let mut candidates = self.holding(|name| {
                name.first().timeline == timeline && name.first().offset <= at && at < name.last().offset
            });
            candidates.sort_by_key(|(source, name)| (*source, std::cmp::Reverse(*name)));
            let mut fault = None;
            for (source, name) in candidates {
                match self.piece(source, name) {
                    Ok(read) => {
                        let end = name.last().offset.min(to);
                        let first = name.first().offset;
                        let span = usize::try_from(at - first).ok().zip(usize::try_from(end - first).ok());
                        let part = span.and_then(|(start, end)| read.content.get(start..end));
                        into.extend_from_slice(part.unwrap_or_default());
                        at = end;
                        continue 'next;
                    }
                    Err(failure) => {
                        fault = Some(Failure::new(failure.kind(), failure.chain()));
                        self.fault(source, name, failure);
                    }
                }
            }
            match fault {
                Some(fault) => return Err(fault),
                None => break,
            }
        }
        Ok(at)
    }

    /// What is kept right before `at` on its timeline, at most `limit_bytes` and without a hole; empty if it cannot be read.
    pub(super) fn tail(&mut self, at: Position, limit_bytes: u64) -> Vec<u8> {
        let on: Vec<LogName> = self
            .holding(|name| name.first().timeline == at.timeline && name.first().offset < at.offset)
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        let limit = at.offset.saturating_sub(limit_bytes);
        let mut from = at.offset;
        while from > limit {
            let before = on.iter().filter(|name| name.first().offset < from && from <= name.last().offset);
            let Some(first) = before.map(|name| name.first().offset).min() else { break };
            from = first.max(limit);
        }
        let mut tail = Vec::new();
        match self.read(at.timeline, (from, at.offset), &mut tail) {
            Ok(end) if end == at.offset => tail,
            _ => Vec::new(),
        }
    }

    /// Where what is kept of a timeline begins.
    pub(super) fn first(&self, timeline: u32) -> Option<u64> {
        let on = self.holding(|name| name.first().timeline == timeline);
        on.iter().map(|(_, name)| name.first().offset).min()
    }

    /// How a timeline begins, as the first piece of it says; nothing if none is kept.
    pub(super) fn entry(&mut self, timeline: u32) -> Result<Option<Entry>, Failure> {
        if let Some(known) = self.entries.get(&timeline) {
            return Ok(*known);
        }
        let first = self.first(timeline);
        let on = self.holding(|name| name.first().timeline == timeline && Some(name.first().offset) == first);
        let mut found = first.map(|first| (first, None));
        let mut fault = None;
        for (source, name) in on {
            match self.piece(source, name) {
                Ok(read) => {
                    // A timeline can only continue an older one, which also makes every walk end.
                    let follows = read.follows.filter(|follows| follows.timeline < timeline);
                    found = Some((name.first().offset, follows));
                    fault = None;
                    if follows.is_some() {
                        break;
                    }
                }
                Err(failure) if found.is_some_and(|(_, follows)| follows.is_none()) => fault = Some(failure),
                Err(_) => {}
            }
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        self.entries.insert(timeline, found);
        Ok(found)
    }

    /// Whether anything is kept that comes after `at`: on its timeline, or on one that left it later.
    pub(super) fn goes_on_after(&mut self, at: Position) -> Result<bool, Failure> {
        if !self.holding(|name| name.first().timeline == at.timeline && name.last() > at).is_empty() {
            return Ok(true);
        }
        let mut younger: Vec<u32> = self
            .holding(|name| name.first().timeline > at.timeline)
            .into_iter()
            .map(|(_, name)| name.first().timeline)
            .collect();
        younger.sort_unstable();
        younger.dedup();
        for timeline in younger {
            let mut left = Position::new(timeline, 0);
            while left.timeline > at.timeline {
                match self.entry(left.timeline)? {
                    Some((_, Some(follows))) => left = follows,
                    _ => break,
                }
            }
            if left.timeline == at.timeline && left > at {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether anything of an older timeline is kept.
    pub(super) fn has_older(&self, timeline: u32) -> bool {
        !self.holding(|name| name.first().timeline < timeline).is_empty()
    }

    /// Compares everything kept of the stretch that begins at `first` with `bytes`. Gives, for each place, the pieces that
    /// hold the same; `Refused` at the first that holds something else. What cannot be read is a fault and not among them.
    pub(super) fn compare(&mut self, first: Position, bytes: &[u8]) -> Result<Vec<Vec<LogName>>, Failure> {
        let last = Position::new(first.timeline, first.offset + bytes.len() as u64);
        let mut same = vec![Vec::new(); self.list.len()];
        let overlapping = self.holding(|name| {
            name.first().timeline == first.timeline && name.last() > first && name.first() < last
        });
        for (source, name) in overlapping {
            let kept = match self.piece(source, name) {
                Ok(read) => &read.content,
                Err(failure) => {
                    self.fault(source, name, failure);
                    continue;
                }
            };
            let (from, to) = (name.first().max(first).offset, name.last().min(last).offset);
            let span = |base: u64| usize::try_from(from - base).ok().zip(usize::try_from(to - base).ok());
            let kept = span(name.first().offset).and_then(|(from, to)| kept.get(from..to));
            let new = span(first.offset).and_then(|(from, to)| bytes.get(from..to));
            if kept.is_none() || kept != new {
                let label = self.list.get(source).map_or("", |source| source.label.as_str());
                let what =
                    format!("{label} holds other content of the same stretch of log ({name}), which stays");
                return Err(Failure::new(FailureKind::Refused, what));
            }
            if let Some(same) = same.get_mut(source) {
                same.push(name);
            }
        }
        Ok(same)
    }
}

impl Source {
    fn read(&self, stream: &StreamName, name: LogName) -> Result<Content, Failure> {
        let held = match &self.place {
            Place::Copy(logs) => {
                let (header, content) = logs.read(stream, name).map_err(|error| {
                    let failure = Failure::from(error);
                    Failure::with_source(
                        failure.kind(),
                        format!("failed to read {name} in {}", self.label),
                        failure,
                    )
                })?;
                return Ok(Content { follows: header.follows, content });
            }
            Place::Spool(held) => held.get(&name),
        };
        let gone = || Failure::new(FailureKind::Unreachable, format!("{name} has left the spool"));
        let held = held.ok_or_else(gone)?;
        let fail = |error| Failure::io(format!("failed to read {}", held.path.display()), error);
        let mut file = match &held.file {
            Some(file) => file.try_clone().map_err(fail)?,
            None => File::open(&held.path).map_err(fail)?,
        };
        file.seek(SeekFrom::Start(HEADER_BYTES as u64)).map_err(fail)?;
        let mut content = Vec::new();
        file.take(held.head.length_bytes).read_to_end(&mut content).map_err(fail)?;
        Ok(Content { follows: held.head.follows, content })
    }
}

/// The stretches of `from..to` on a timeline that none of the pieces holds.
pub(super) fn holes(
    names: impl Iterator<Item = LogName>,
    timeline: u32,
    from: u64,
    to: u64,
) -> Vec<(u64, u64)> {
    let mut spans: Vec<(u64, u64)> = names
        .filter(|name| name.first().timeline == timeline)
        .map(|name| (name.first().offset, name.last().offset))
        .collect();
    spans.sort_unstable();
    let mut holes = Vec::new();
    let mut at = from;
    for (first, last) in spans {
        if at < first.min(to) {
            holes.push((at, first.min(to)));
        }
        at = at.max(last);
    }
    if at < to {
        holes.push((at, to));
    }
    holes
}

/// What lies in the spool, as far as it is durable, also while another process writes there.
fn spooled(folder: &Path) -> Result<BTreeMap<LogName, Held>, Failure> {
    for _attempt in 0..MAX_LOOKS {
        if let Some(found) = look(folder)? {
            return Ok(found);
        }
    }
    let what = format!("the spool {} changes faster than it can be listed", folder.display());
    Err(Failure::new(FailureKind::Refused, what))
}

/// One look; nothing if the open piece got its name meanwhile, under which it may have been missed.
fn look(folder: &Path) -> Result<Option<BTreeMap<LogName, Held>>, Failure> {
    let fail = |error| Failure::io(format!("failed to look into the spool {}", folder.display()), error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(BTreeMap::new())),
        other => other.map_err(fail)?,
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let open = file_name == OPEN;
        if !open && !file_name.ends_with(PIECE_SUFFIX) {
            continue;
        }
        let mut header = [0; HEADER_BYTES];
        let mut file = match File::open(&path) {
            Err(error) if open && error.kind() == ErrorKind::NotFound => return Ok(None),
            // It is in every copy by now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other.map_err(fail)?,
        };
        let head = file.read_exact(&mut header).ok().and_then(|()| PieceHead::from_bytes(&header));
        match head.and_then(|head| Some((piece_name(&head)?, head))) {
            Some((name, head)) => {
                found.insert(name, Held { head, path, file: open.then_some(file) });
            }
            // Nothing of it was made durable yet.
            None if open => {}
            None => {
                return Err(Failure::new(FailureKind::Damaged, format!("{} is damaged", path.display())));
            }
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_piece_holds_is_a_hole() {
        let name = |timeline, from, to| {
            LogName::of(Position::new(timeline, from), Position::new(timeline, to)).unwrap()
        };
        let names = [name(1, 20, 30), name(1, 0, 10), name(2, 10, 20), name(1, 25, 40), name(1, 90, 99)];
        assert_eq!(holes(names.into_iter(), 1, 5, 50), [(10, 20), (40, 50)]);
        assert_eq!(holes(names.into_iter(), 1, 20, 40), []);
        assert_eq!(holes([].into_iter(), 1, 20, 40), [(20, 40)]);
    }
}
