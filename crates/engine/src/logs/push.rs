//! One file of a log, handed over by the server that wrote it: kept as the pieces that following the log would have made.
//!
//! Success means: durable in the spool or in every copy, and in every copy that can be reached, at least one. The same file
//! again is success and stores nothing. Whatever cannot be decided is a failure: the server keeps the file and tries again.
//! Memory: the file, at most 1 GiB, and one piece.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, StoreName, StreamName};
use lifeboat_base::lease::Lease;
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::{SignedDuration, Timestamp};
use lifeboat_policy::Store;
use lifeboat_stores::{Continuous, LogFile, LogPart};
use lifeboat_vault::logs::{Carried, LogName, Position, ROLLUP_GRACE};
use serde::Serialize;
use serde_json::json;

use super::fetch::log_files;
use super::follow::stream_name;
use super::head::Head;
use super::histories::Handed;
use super::marks::Marks;
use super::ranges::position;
use super::ship::{Shipment, Shipped};
use super::sources::{Fault, Sources, holes};
use super::spool::{self, MAX_PIECE_BYTES, MAX_WAITING_BYTES, PieceHead, Spool};
use crate::context::Engine;
use crate::copies::{VaultSet, no_copy};
use crate::error::EngineError;
use crate::journal::Entry;
use crate::view::in_future;

/// The hour that was rolled up last.
const ROLLED_UP: &str = "rolled-up";

/// Which file is handed over.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// The store; without it the only one of the policy that keeps a log of files.
    pub store: Option<StoreName>,
    /// The file, under the name its server gave it.
    pub path: PathBuf,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// It, or the part of it that was not kept yet, was stored.
    Stored,
    /// All of it was kept already.
    Already,
    /// No recovery needs it.
    Needless,
}

/// What became of a file that was handed over.
#[derive(Clone, Debug, Serialize)]
pub struct PushReport {
    /// `lifeboat.wal-push/v1`.
    pub schema: &'static str,
    /// The store.
    pub store: StoreName,
    /// The name of the file.
    pub file: String,
    /// What became of it.
    pub kept: Kept,
    /// Bytes of log that were new.
    pub new_bytes: u64,
    /// What is wrong although the file is kept: a copy that is away, a gap before it.
    pub findings: Vec<Finding>,
}

/// A segment on its way.
struct Push<'a> {
    engine: &'a Engine,
    row: &'a Store,
    stream: StreamName,
    folder: PathBuf,
    set: VaultSet,
    identity: String,
    content: &'a [u8],
    parts: &'a [LogPart],
    head: Option<Head>,
    now: Timestamp,
    /// What each copy holds of the file, read and compared, or brought there just now.
    sound: BTreeMap<CopyName, BTreeSet<LogName>>,
    /// What copies list and cannot give.
    faults: Vec<Fault>,
    findings: Vec<Finding>,
}

impl Engine {
    /// Keeps a file that a server hands over.
    pub fn push_log(&self, options: &PushOptions) -> Result<PushReport, EngineError> {
        let row = self.log_row(options.store.as_ref())?;
        let risk = |error: EngineError| {
            let next = error.next.clone().unwrap_or_else(|| {
                "the server keeps the file and tries again; `lifeboat check` looks at the copies".to_owned()
            });
            error.risking(&row.name, "rpo").next(next)
        };
        if row.logs.value.is_none() {
            let what = format!("the row `{}` keeps no log", row.name);
            return Err(EngineError::new(FailureKind::Refused, what).next("add `logs = \"14d\"` to the row"));
        }
        self.push_to(row, &options.path).map_err(risk)
    }

    fn push_to(&self, row: &Store, path: &Path) -> Result<PushReport, EngineError> {
        let adapter = self.adapter(row)?;
        let (store, files) = log_files(row, adapter.as_ref())?;
        let mut report = PushReport {
            schema: "lifeboat.wal-push/v1",
            store: row.name.clone(),
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            kept: Kept::Needless,
            new_bytes: 0,
            findings: Vec::new(),
        };
        match files.examine(path, &self.log_folder(&row.name))? {
            LogFile::Needless(_why) => {}
            LogFile::History { timeline, content, left, identity } => {
                let handed = Handed { path, timeline, content: &content, left: &left, identity };
                report.kept = self.push_history(row, (store, files), &handed)?;
            }
            LogFile::Log { identity, content, parts } => {
                let name = report.file.clone();
                let mut push = self.push(row, store, (identity, &content, &parts))?;
                (report.kept, report.new_bytes) = push.run(&name)?;
                report.findings = push.findings;
            }
        }
        Ok(report)
    }

    fn push<'a>(
        &'a self,
        row: &'a Store,
        store: &dyn Continuous,
        (identity, content, parts): (String, &'a [u8], &'a [LogPart]),
    ) -> Result<Push<'a>, EngineError> {
        let set = self.reachable(row, "wal push")?;
        let folder = self.log_folder(&row.name);
        let head = Head::read(&folder)?;
        same_cluster(row, store, (&set, head.as_ref()), &identity)?;
        let now = self.env.clock.now();
        let findings = set.findings();
        let stream = stream_name(store)?;
        let (sound, faults) = (BTreeMap::new(), Vec::new());
        Ok(Push {
            engine: self,
            row,
            stream,
            folder,
            set,
            identity,
            content,
            parts,
            head,
            now,
            sound,
            faults,
            findings,
        })
    }

    /// The copies that can be reached, at least one. Vaults that do not exist yet are made, unless another run holds the
    /// store and there is one to go on with.
    pub(super) fn reachable(&self, row: &Store, what: &str) -> Result<VaultSet, EngineError> {
        let set = self.reachable_now(row, what)?;
        if set.open.is_empty() { Err(no_copy(row, set)) } else { Ok(set) }
    }

    /// As [`Engine::reachable`] for who can wait: an error if there is none and waiting helps none of them.
    pub(super) fn reachable_or_awaited(&self, row: &Store, what: &str) -> Result<VaultSet, EngineError> {
        let set = self.reachable_now(row, what)?;
        let away = |(_copy, failure): &(CopyName, Failure)| failure.kind() == FailureKind::Unreachable;
        if set.open.is_empty() && !set.failed.iter().any(away) { Err(no_copy(row, set)) } else { Ok(set) }
    }

    fn reachable_now(&self, row: &Store, what: &str) -> Result<VaultSet, EngineError> {
        let mut set = self.open_vaults(row)?;
        if set.absent.is_empty() {
            return Ok(set);
        }
        match self.lease(&row.name, what) {
            Ok(_lease) => self.make_missing_vaults(row, false),
            // Whoever holds the store may be making them.
            Err(held) => {
                for copy in std::mem::take(&mut set.absent) {
                    set.failed.push((copy, Failure::new(FailureKind::Unreachable, held.failure.chain())));
                }
                Ok(set)
            }
        }
    }
}

/// One row is one cluster: refused if the log so far, or else the newest point, is of another than `identity`.
pub(super) fn same_cluster(
    row: &Store,
    store: &dyn Continuous,
    (set, head): (&VaultSet, Option<&Head>),
    identity: &str,
) -> Result<(), EngineError> {
    let known = head.map(|head| head.identity.clone()).or_else(|| {
        let point = set.open.iter().find_map(|entry| entry.vault.newest_point().ok().flatten())?;
        store.identity(&point.facts)
    });
    let Some(known) = known.filter(|known| known != identity) else { return Ok(()) };
    let what =
        format!("what was handed over is of the cluster {identity}, `{}` is the cluster {known}", row.name);
    Err(EngineError::new(FailureKind::Refused, what)
        .next("give each cluster a row of its own, and name it with --store"))
}

fn after(part: &LogPart) -> u64 {
    part.first.offset + part.span.len() as u64
}

fn not_yet(name: &str, holder: &str) -> EngineError {
    let what = format!("{name} is not kept yet, and its log is in other hands: {holder}");
    EngineError::new(FailureKind::Refused, what)
        .next("the server keeps the file and tries again; by then the other has stored it, or is done")
}

impl Push<'_> {
    fn run(&mut self, name: &str) -> Result<(Kept, u64), EngineError> {
        let note = format!("wal push to {}", self.row.name);
        let lease = |what: &str| {
            let path = self.engine.state.join("locks").join(format!("{}.{what}.lock", self.row.name));
            Lease::try_acquire(&path, &note).map_err(|error| {
                Failure::io(format!("failed to take a lease of the log of `{}`", self.row.name), error)
            })
        };
        let _pushing = match lease("push")? {
            Ok(lease) => lease,
            Err(held) => return self.look(name, &held.0),
        };
        let (_own, other) = lease("log")?.map_or_else(|held| (None, Some(held.0)), |own| (Some(own), None));
        match other {
            None => self.alone(),
            Some(other) => self.beside(name, &other),
        }
    }

    /// The spool is ours.
    fn alone(&mut self) -> Result<(Kept, u64), EngineError> {
        let spool = Spool::open(&self.folder)?;
        let mut sources = Sources::open(&self.set, &self.stream, Some(&self.folder))?;
        let missing = self.missing(&mut sources)?;
        self.begin()?;
        if !missing.iter().all(Vec::is_empty) {
            self.tell_of_gap(&sources, &missing);
        }
        let (_names, new_bytes) = self.put(&missing)?;
        self.ship(&spool)?;
        self.settle(new_bytes > 0)?;
        self.roll_up();
        Ok((if new_bytes > 0 { Kept::Stored } else { Kept::Already }, new_bytes))
    }

    /// Another process follows the log. What it has kept of the file is as good as ours, what it has passed it will never
    /// keep, and what lies before it is its own.
    fn beside(&mut self, name: &str, follower: &str) -> Result<(Kept, u64), EngineError> {
        let mut sources = Sources::open(&self.set, &self.stream, Some(&self.folder))?;
        let missing = self.missing(&mut sources)?;
        if missing.iter().all(Vec::is_empty) {
            return Ok((Kept::Already, 0));
        }
        let head = Head::read(&self.folder)?.map(|head| head.position);
        let kept = sources.list.iter().flat_map(|source| source.names.iter().map(LogName::last));
        let passed = kept.chain(head).max();
        let end =
            self.parts.iter().zip(&missing).flat_map(|(part, holes)| {
                holes.iter().map(|(_, to)| Position::new(part.first.timeline, *to))
            });
        if end.max() > passed {
            return Err(not_yet(name, follower));
        }
        let (names, new_bytes) = self.put(&missing)?;
        let mut pieces = spool::pieces(&self.folder)?;
        pieces.retain(|piece| names.contains(&piece.name));
        let shipped = self.shipment().beside(pieces)?;
        self.take_in(shipped);
        self.settle(true)?;
        Ok((Kept::Stored, new_bytes))
    }

    /// Another push is under way: nothing is stored, but what is kept already counts.
    fn look(&mut self, name: &str, holder: &str) -> Result<(Kept, u64), EngineError> {
        let mut sources = Sources::open(&self.set, &self.stream, Some(&self.folder))?;
        if self.missing(&mut sources)?.iter().all(Vec::is_empty) {
            return Ok((Kept::Already, 0));
        }
        Err(not_yet(name, holder))
    }

    /// The stretches of each part that are kept nowhere; refused if anything else is kept in their place. What is listed
    /// and cannot be read is not kept.
    fn missing(&mut self, sources: &mut Sources) -> Result<Vec<Vec<(u64, u64)>>, EngineError> {
        let mut missing = Vec::new();
        for part in self.parts {
            let same = sources.compare(position(part.first), self.bytes(part))?;
            for (source, names) in sources.list.iter().zip(&same) {
                if let Some(copy) = &source.copy {
                    self.sound.entry(copy.clone()).or_default().extend(names);
                }
            }
            let names = same.into_iter().flatten();
            missing.push(holes(names, part.first.timeline, part.first.offset, after(part)));
        }
        for failure in sources.unlisted.drain(..) {
            let finding = Finding::new("log-behind", self.row.name.as_str(), failure.chain());
            self.findings.push(finding.with_kind(failure.kind()));
        }
        self.faults.append(&mut sources.faults);
        self.remember()?;
        Ok(missing)
    }

    /// What could not be read is known from here on, also to whoever has no key; and what was read is not called damaged
    /// any more.
    fn remember(&self) -> Result<(), Failure> {
        let marks = Marks::new(&self.folder);
        for (copy, names) in &self.sound {
            for name in marks.of(copy)?.keys().filter(|name| names.contains(name)) {
                marks.clear(copy, *name)?;
            }
        }
        for Fault { copy, name, failure } in &self.faults {
            if let Some(copy) = copy.as_ref().filter(|_| failure.kind() == FailureKind::Damaged) {
                marks.note(copy, *name, &failure.chain())?;
            }
        }
        Ok(())
    }

    fn bytes(&self, part: &LogPart) -> &[u8] {
        self.content.get(part.span.clone()).unwrap_or_default()
    }

    /// Nothing is held yet, but which cluster it is of is known from here on.
    fn begin(&mut self) -> Result<(), EngineError> {
        if let (None, Some(first)) = (&self.head, self.parts.first()) {
            let head = Head::new(self.identity.clone(), position(first.first), Timestamp::UNIX_EPOCH);
            Marks::new(&self.folder).begin(head.position)?;
            head.write(&self.folder)?;
            self.head = Some(head);
        }
        Ok(())
    }

    /// Makes what is missing durable in the spool, in pieces as following the log makes them.
    fn put(&self, missing: &[Vec<(u64, u64)>]) -> Result<(Vec<LogName>, u64), EngineError> {
        if missing.iter().all(Vec::is_empty) {
            return Ok((Vec::new(), 0));
        }
        let waiting_bytes: u64 =
            spool::pieces(&self.folder)?.iter().map(|piece| piece.head.length_bytes).sum();
        if waiting_bytes >= MAX_WAITING_BYTES {
            let what = format!("{} GiB of log wait for a copy that is away", waiting_bytes >> 30);
            return Err(EngineError::new(FailureKind::Unreachable, what).next(
                "bring the copy back, or take it out of the row; the server keeps the file and tries again",
            ));
        }
        let (mut names, mut new_bytes) = (Vec::new(), 0);
        for (part, holes) in self.parts.iter().zip(missing) {
            for (from, to) in holes {
                for first in (*from..*to).step_by(usize::try_from(MAX_PIECE_BYTES).unwrap_or(usize::MAX)) {
                    let last = (first + MAX_PIECE_BYTES).min(*to);
                    names.extend(self.put_piece(part, first, last)?);
                    new_bytes += last - first;
                }
            }
        }
        Ok((names, new_bytes))
    }

    fn put_piece(&self, part: &LogPart, first: u64, last: u64) -> Result<Option<LogName>, Failure> {
        let at = Position::new(part.first.timeline, first);
        // What is held up to here is known only if nothing that comes later was stored before it.
        let known = self.head.as_ref().filter(|head| at >= head.position && !in_future(head.as_of, self.now));
        let known = known.map_or(Timestamp::UNIX_EPOCH, |head| head.as_of);
        let (oldest, newest) = part.changes.unzip();
        let started = if known > Timestamp::UNIX_EPOCH { known } else { oldest.unwrap_or(known) };
        let newest = newest.filter(|newest| !in_future(*newest, self.now));
        let head = PieceHead {
            first: at,
            length_bytes: last - first,
            follows: part.follows.filter(|_| first == part.first.offset).map(position),
            started: started.min(self.now),
            ended: newest.map_or(known, |newest| newest.max(known)),
        };
        let inside = |offset: u64| usize::try_from(offset - part.first.offset).unwrap_or(usize::MAX);
        let bytes = self.bytes(part).get(inside(first)..inside(last)).unwrap_or_default();
        spool::put(&self.folder, &head, bytes)
    }

    /// What is stored now does not go on where the log ended: that is filed, once, before it is stored.
    fn tell_of_gap(&mut self, sources: &Sources, missing: &[Vec<(u64, u64)>]) {
        let (Some(head), Some(part)) = (&self.head, self.parts.first()) else { return };
        let (at, to) = (head.position, position(part.first));
        let new =
            missing.first().is_some_and(|holes| holes.first().is_some_and(|(from, _)| *from == to.offset));
        if at.timeline != to.timeline || at >= to || !new {
            return;
        }
        let names = sources.list.iter().flat_map(|source| source.names.iter().copied());
        let Some((from, _)) = holes(names, at.timeline, at.offset, to.offset).first().copied() else {
            return;
        };
        let after = Position::new(at.timeline, from);
        let message = format!("the log of `{}` has a gap after {after}, up to {to}", self.row.name);
        let body = json!({ "stream": self.stream, "after": after, "before": to });
        self.findings.push(Finding::new("log-gap", self.row.name.as_str(), message));
        let filed = self.engine.file(Entry { kind: "log-gap", store: &self.row.name, ok: false, body });
        if let Err(error) = filed {
            // The gap shows in what is kept all the same; log that is refused for this would be another one.
            let message = format!("the gap could not be filed as evidence: {}", error.failure.chain());
            let finding = Finding::new("evidence-not-filed", self.row.name.as_str(), message);
            self.findings.push(finding.with_kind(error.kind()));
        }
    }

    fn shipment(&self) -> Shipment<'_> {
        Shipment {
            store: &self.row.name,
            set: &self.set,
            wanted_count: self.row.copies.value.len(),
            stream: &self.stream,
            marks: Marks::new(&self.folder),
            entropy: self.engine.env.entropy.as_ref(),
            enough: &|| false,
        }
    }

    fn ship(&mut self, spool: &Spool) -> Result<(), EngineError> {
        let shipped = self.shipment().all(spool)?;
        if let (Some((at, ended)), Some(head)) = (shipped.head, &mut self.head)
            && (at > head.position || head.as_of == Timestamp::UNIX_EPOCH)
        {
            head.as_of = head.as_of.max(ended);
            head.position = head.position.max(at);
            head.write(&self.folder)?;
        }
        self.take_in(shipped);
        Ok(())
    }

    fn take_in(&mut self, shipped: Shipped) {
        for (copy, name) in shipped.brought {
            self.sound.entry(copy).or_default().insert(name);
        }
        self.findings.extend(shipped.findings);
    }

    fn whole(&self, copy: &CopyName) -> bool {
        let names = self.sound.get(copy);
        let names = || names.into_iter().flatten().copied();
        let part_whole =
            |part: &LogPart| holes(names(), part.first.timeline, part.first.offset, after(part)).is_empty();
        self.parts.iter().all(part_whole)
    }

    /// Every copy that can be reached has all of it, readable: a hole in one is filled from another, and at least one is
    /// whole.
    fn settle(&mut self, new: bool) -> Result<(), EngineError> {
        let mut whole_count = 0;
        let mut failure = None;
        for index in 0..self.set.open.len() {
            let Some(copy) = self.set.open.get(index).map(|entry| entry.copy.clone()) else { continue };
            if !self.whole(&copy)
                && let Err(error) = self.fill(index)
            {
                failure = Some(error);
            }
            whole_count += usize::from(self.whole(&copy));
        }
        self.tell_of_damage();
        if whole_count > 0 {
            return Ok(());
        }
        let place = if new { "it is in the spool and" } else { "it" };
        let what = format!("{place} could not be brought to any copy of `{}`", self.row.name);
        let why = failure.map(|failure| failure.chain()).or_else(|| {
            self.findings
                .iter()
                .find(|finding| matches!(finding.code.as_str(), "log-behind" | "log-damaged"))
                .map(|finding| finding.message.clone())
        });
        let what = why.map_or_else(|| what.clone(), |why| format!("{what}: {why}"));
        Err(EngineError::new(FailureKind::Unreachable, what))
    }

    /// Names what is damaged, once, and whether what it held is there again.
    fn tell_of_damage(&mut self) {
        let mut findings = Vec::new();
        let shipment = self.shipment();
        for Fault { copy, name, failure } in &self.faults {
            let entry = copy.as_ref().and_then(|copy| self.set.get(copy));
            let finding = match entry.filter(|_| failure.kind() == FailureKind::Damaged) {
                Some(entry) => {
                    let sound = self.sound.get(&entry.copy).into_iter().flatten().copied();
                    let (first, last) = (name.first(), name.last());
                    let healed = holes(sound, first.timeline, first.offset, last.offset).is_empty();
                    shipment.damaged(entry, *name, &failure.chain(), healed)
                }
                None => Finding::new("log-damaged", self.row.name.as_str(), failure.chain())
                    .with_kind(failure.kind()),
            };
            let known = |known: &Finding| known.code == finding.code && known.subject == finding.subject;
            if !self.findings.iter().chain(&findings).any(known) {
                findings.push(finding);
            }
        }
        self.findings.extend(findings);
    }

    /// Carries what other copies have of this file to one that lacks it or cannot read it.
    fn fill(&mut self, index: usize) -> Result<(), Failure> {
        let Some(to) = self.set.open.get(index) else { return Ok(()) };
        let (copy, logs) = (to.copy.clone(), to.vault.logs());
        let retired = to.vault.retired()?;
        let entropy = self.engine.env.entropy.as_ref();
        for entry in self.set.open.iter().filter(|entry| entry.copy != copy) {
            let from = entry.vault.logs();
            for name in self.sound.get(&entry.copy).cloned().unwrap_or_default() {
                let there = self.sound.get(&copy).is_some_and(|names| names.contains(&name));
                if there || retired.is_below_floor(&self.stream, &name) {
                    continue;
                }
                if let Carried::InTheWay(_) = from.carry(&self.stream, name, &logs)? {
                    from.carry_beside(&self.stream, name, &logs, entropy)?;
                }
                self.sound.entry(copy.clone()).or_default().insert(name);
            }
        }
        Ok(())
    }

    /// Lists the objects of a closed hour, once it is over: a lost one is then known to have existed.
    fn roll_up(&mut self) {
        let grace = SignedDuration::try_from(ROLLUP_GRACE).unwrap_or_default();
        let hour = self.now.checked_sub(grace).map(|at| at.strftime("%Y%m%dT%H").to_string());
        let Ok(hour) = hour else { return };
        let path = self.folder.join(ROLLED_UP);
        if std::fs::read(&path).is_ok_and(|done| done == hour.as_bytes()) {
            return;
        }
        for entry in &self.set.open {
            if let Err(error) = entry.vault.logs().roll_up(&self.stream, self.now) {
                let failure = Failure::from(error);
                let message = format!("copy `{}` was not rolled up: {}", entry.copy, failure.chain());
                let finding = Finding::new("log-behind", entry.copy.as_str(), message);
                return self.findings.push(finding.with_kind(failure.kind()));
            }
        }
        // If this is lost the next push rolls up again, which changes nothing.
        drop(crashsafe::replace(&path, hour.as_bytes()));
    }
}
