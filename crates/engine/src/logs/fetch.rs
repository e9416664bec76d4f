//! One file of a log for a recovering server: joined from what is kept anywhere, checked, and never half there.
//!
//! "It is not kept" ends a recovery for good, so it is said only when every place was looked at and nothing of what comes
//! later is kept. Everything else that stands in the way is an error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, StoreName, VaultId};
use lifeboat_base::lease::Lease;
use lifeboat_base::monitor::Finding;
use lifeboat_policy::Store;
use lifeboat_stores::{Adapter, Continuous, LogFile, LogFiles, LogPosition, WantedLog};
use lifeboat_vault::Vault;
use lifeboat_vault::logs::Position;
use serde::Serialize;

use super::ahead::{Ahead, Label, depth};
use super::follow::stream_name;
use super::head::Head;
use super::marks::Marks;
use super::sources::{Fault, Sources};
use crate::context::Engine;
use crate::copies::{VaultSet, no_copy};
use crate::error::EngineError;

/// A server has as many timelines as it was promoted; more than this is a loop.
const MAX_TIMELINES: usize = 100_000;

/// Which file is wanted, and where.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// The store; without it the only one of the policy that keeps a log of files.
    pub store: Option<StoreName>,
    /// The name the server asks for.
    pub name: String,
    /// The file to make.
    pub path: PathBuf,
    /// Only from this copy: what it does not have counts as not kept.
    pub copy: Option<CopyName>,
}

/// What became of a request.
#[derive(Clone, Debug, Serialize)]
pub struct FetchReport {
    /// `lifeboat.wal-fetch/v1`.
    pub schema: &'static str,
    /// The store.
    pub store: StoreName,
    /// The name asked for.
    pub file: String,
    /// Whether it was made. If not, the server is not to look for it here: nothing of it and nothing after it is kept, or
    /// it has the file itself.
    pub found: bool,
    /// How much of it is log; the rest of a segment that is not over yet is zeros.
    pub kept_bytes: u64,
    /// Whether it had been fetched ahead.
    pub ahead: bool,
    /// Copies that could not give their part.
    pub findings: Vec<Finding>,
    /// Whether it is time to fetch the next ones.
    #[serde(skip)]
    pub next_wanted: bool,
}

/// Where a row's log is read from.
struct Reader<'a> {
    engine: &'a Engine,
    row: &'a Store,
    store: &'a dyn Continuous,
    files: &'a dyn LogFiles,
    sources: Sources,
    vault: VaultId,
    /// Why "it is not kept" cannot be said: a copy that was not looked at.
    doubt: Option<Failure>,
    segment_bytes: Option<u32>,
    identity: Option<String>,
}

/// A segment as far as it is kept.
struct Joined {
    bytes: Vec<u8>,
    /// Of these, this many are log.
    kept_bytes: usize,
    identity: String,
    segment_bytes: u32,
}

impl Engine {
    /// The row whose log is meant: the one named, or the only one that keeps a log.
    pub(crate) fn log_row(&self, store: Option<&StoreName>) -> Result<&Store, EngineError> {
        if let Some(store) = store {
            return self.store(store);
        }
        let mut rows = self.policy.stores.values().filter(|row| {
            row.logs.value.is_some()
                && self
                    .adapter(row)
                    .is_ok_and(|adapter| adapter.continuous().and_then(Continuous::files).is_some())
        });
        match (rows.next(), rows.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(EngineError::new(
                FailureKind::Usage,
                "no row of the policy keeps a log (`logs = \"14d\"`)",
            )
            .next("add `logs` to the row, or name the row with --store")),
            (Some(_), Some(_)) => {
                Err(EngineError::new(FailureKind::Usage, "several rows of the policy keep a log")
                    .next("name the one this server belongs to with --store"))
            }
        }
    }

    /// Makes the file a recovering server asks for. Every failure but `found = false` must stop the recovery.
    pub fn fetch_log(&self, options: &FetchOptions) -> Result<FetchReport, EngineError> {
        let row = self.log_row(options.store.as_ref())?;
        let adapter = self.adapter(row)?;
        let (store, files) = log_files(row, adapter.as_ref())?;
        let mut report = FetchReport {
            schema: "lifeboat.wal-fetch/v1",
            store: row.name.clone(),
            file: options.name.clone(),
            found: false,
            kept_bytes: 0,
            ahead: false,
            findings: Vec::new(),
            next_wanted: false,
        };
        let wanted = files.wanted(&options.name)?;
        if wanted == WantedLog::Needless {
            return Ok(report);
        }
        let ahead = Ahead::new(&self.state, &row.name);
        if wanted == WantedLog::Segment
            && let Some(bytes) = self.fetched_ahead(row, files, &ahead, options)
        {
            put(&options.path, &bytes)?;
            ahead.forget(&options.name);
            report.found = true;
            report.ahead = true;
            report.kept_bytes = bytes.len() as u64;
            let segment_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            report.next_wanted = next_wanted(files, &ahead, &options.name, segment_bytes);
            return Ok(report);
        }
        let mut reader = self.log_reader(row, (store, files), options.copy.as_ref())?;
        let found = match wanted {
            WantedLog::History(timeline) => reader.history(timeline, options)?.map(|text| (text.len(), text)),
            _ => reader.segment(&options.name, Some(&options.path))?.map(|joined| {
                let whole = joined.kept_bytes == joined.bytes.len();
                report.next_wanted = whole && next_wanted(files, &ahead, &options.name, joined.segment_bytes);
                (joined.kept_bytes, joined.bytes)
            }),
        };
        report.findings = reader.findings();
        if let Some((kept_bytes, bytes)) = found {
            put(&options.path, &bytes)?;
            report.found = true;
            report.kept_bytes = kept_bytes as u64;
        } else if wanted == WantedLog::Segment {
            // Whatever was fetched ahead of here was fetched for another recovery.
            self.forget_ahead(row, &ahead);
        }
        Ok(report)
    }

    /// Fetches the whole segments that come after `name`, for later; gives how many lie ready. One process at a time: a
    /// second one has nothing to do.
    pub fn fetch_log_ahead(&self, options: &FetchOptions) -> Result<u64, EngineError> {
        let row = self.log_row(options.store.as_ref())?;
        let adapter = self.adapter(row)?;
        let (store, files) = log_files(row, adapter.as_ref())?;
        let ahead = Ahead::new(&self.state, &row.name);
        let Some(_lease) = self.ahead_lease(row)? else { return Ok(0) };
        let mut reader = self.log_reader(row, (store, files), options.copy.as_ref())?;
        let segment_bytes = reader.segment_bytes()?;
        let names: Vec<String> = following(files, &options.name, segment_bytes).collect();
        ahead.sweep(&names.iter().cloned().collect())?;
        let mut ready_count = 0;
        for name in names {
            if !ahead.has(&name) {
                let joined = match reader.segment(&name, None)? {
                    Some(joined) if joined.kept_bytes == joined.bytes.len() => joined,
                    // A segment that is not over yet may grow: it is never fetched ahead.
                    _ => break,
                };
                let label = Label::new(&row.name, &reader.vault, &name, joined.identity, &joined.bytes);
                ahead.put(&label, &joined.bytes)?;
            }
            ready_count += 1;
        }
        Ok(ready_count)
    }

    fn ahead_lease(&self, row: &Store) -> Result<Option<Lease>, EngineError> {
        let path = self.state.join("locks").join(format!("{}.ahead.lock", row.name));
        let lease = Lease::try_acquire(&path, "fetching ahead")
            .map_err(|error| Failure::io("failed to take the lease for fetching ahead", error))?;
        Ok(lease.ok())
    }

    fn forget_ahead(&self, row: &Store, ahead: &Ahead) {
        if let Ok(Some(_lease)) = self.ahead_lease(row) {
            // What stays is checked before it is used, and the next sweep takes it.
            drop(ahead.sweep(&BTreeSet::new()));
        }
    }

    /// A segment that was fetched ahead, if it is still what it was, of the vault that is in the copies now.
    fn fetched_ahead(
        &self,
        row: &Store,
        files: &dyn LogFiles,
        ahead: &Ahead,
        options: &FetchOptions,
    ) -> Option<Vec<u8>> {
        let (label, bytes) = ahead.get(&options.name, &row.name)?;
        let copies = options.copy.as_ref().map_or(row.copies.value.as_slice(), std::slice::from_ref);
        let envelope = copies.iter().find_map(|copy| {
            let storage = self.storage(row, copy).ok()?;
            Vault::read_envelope(storage.as_ref()).ok().flatten()
        })?;
        let right = *envelope.vault_id() == label.vault
            && files.check(&options.name, Some(&label.identity), &bytes).is_ok()
            && files.segment_bytes_in(&bytes).is_some_and(|size| size as usize == bytes.len());
        if !right {
            ahead.forget(&options.name);
        }
        right.then_some(bytes)
    }

    fn log_reader<'a>(
        &'a self,
        row: &'a Store,
        (store, files): (&'a dyn Continuous, &'a dyn LogFiles),
        copy: Option<&CopyName>,
    ) -> Result<Reader<'a>, EngineError> {
        if let Some(copy) = copy.filter(|copy| !row.copies.value.contains(copy)) {
            let what = format!("`{}` has no copy `{copy}`", row.name);
            return Err(EngineError::new(FailureKind::Usage, what));
        }
        let copies = copy.map_or(row.copies.value.as_slice(), std::slice::from_ref);
        let set = self.open_copies(row, copies)?;
        let Some(first) = set.open.first() else {
            let absent = set.absent.first().map(|copy| no_vault(row, copy));
            return Err(absent
                .filter(|_| set.failed.is_empty())
                .map_or_else(|| no_copy(row, set), EngineError::from));
        };
        let stream = stream_name(store)?;
        let folder = self.log_folder(&row.name);
        // One copy was asked for: what it has, and nothing else.
        let sources = Sources::open(&set, &stream, copy.is_none().then_some(folder.as_path()))?;
        let vault = first.vault.vault_id().clone();
        // A copy whose points cannot be listed is no reason to stop: another one may have them.
        let points = set.open.iter().filter_map(|entry| entry.vault.newest_point().ok().flatten());
        let facts = points.map(|point| point.facts).next();
        let identity = match facts.as_ref().and_then(|facts| store.identity(facts)) {
            Some(identity) => Some(identity),
            None => Head::read(&folder)?.map(|head| head.identity),
        };
        let segment_bytes = facts.as_ref().and_then(|facts| files.segment_bytes(facts).ok());
        let doubt = doubt(row, set).or_else(|| {
            sources.unlisted.first().map(|failure| Failure::new(failure.kind(), failure.chain()))
        });
        Ok(Reader { engine: self, row, store, files, sources, vault, doubt, segment_bytes, identity })
    }
}

/// A row's log as files.
pub(super) fn log_files<'a>(
    row: &Store,
    adapter: &'a dyn Adapter,
) -> Result<(&'a dyn Continuous, &'a dyn LogFiles), EngineError> {
    let store = adapter.continuous();
    store.and_then(|store| Some((store, store.files()?))).ok_or_else(|| {
        let what = format!("stores of kind `{}` have no log of files", row.kind.word());
        EngineError::new(FailureKind::Refused, what)
    })
}

fn no_vault(row: &Store, copy: &CopyName) -> Failure {
    let what = format!("copy `{copy}` holds no vault of `{}`: is it mounted?", row.name);
    Failure::new(FailureKind::Unreachable, what)
}

/// The first copy that could not be looked at.
fn doubt(row: &Store, set: VaultSet) -> Option<Failure> {
    let absent = set.absent.first().map(|copy| no_vault(row, copy));
    let failed = set.failed.into_iter().next().map(|(copy, failure)| {
        Failure::with_source(failure.kind(), format!("copy `{copy}` cannot be used"), failure)
    });
    failed.or(absent)
}

/// Never half there: a server looks only at the name it gave.
fn put(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(".lifeboat-part");
    crashsafe::replace_through(Path::new(&temp), path, bytes)
        .map_err(|error| Failure::io(format!("failed to write {}", path.display()), error))
}

/// The names of the segments after `name` on its timeline, as many as are fetched ahead.
fn following(files: &dyn LogFiles, name: &str, segment_bytes: u32) -> impl Iterator<Item = String> {
    let start = files.segment_start(name, segment_bytes);
    (1..=depth(segment_bytes)).filter_map(move |number| {
        let start = start?;
        let offset = start.offset.checked_add(number.checked_mul(u64::from(segment_bytes))?)?;
        Some(files.segment_name(LogPosition { timeline: start.timeline, offset }, segment_bytes))
    })
}

/// Less than half of what may lie ahead does.
fn next_wanted(files: &dyn LogFiles, ahead: &Ahead, name: &str, segment_bytes: u32) -> bool {
    let depth = depth(segment_bytes);
    let ready = following(files, name, segment_bytes).take_while(|name| ahead.has(name)).count() as u64;
    depth > 0 && ready * 2 < depth
}

/// Whether the server has this very segment beside the file it wants written, and more of it than is kept: given the part,
/// it would take its end for the end of the log, and never look at its own.
fn has_more(path: &Path, name: &str, kept: &[u8], segment_bytes: u32) -> bool {
    let own = path.with_file_name(name);
    let same_size = std::fs::symlink_metadata(&own)
        .is_ok_and(|meta| meta.is_file() && meta.len() == u64::from(segment_bytes));
    if own == path || !same_size {
        return false;
    }
    let own = std::fs::read(&own).unwrap_or_default();
    own.split_at_checked(kept.len())
        .is_some_and(|(same, more)| same == kept && more.iter().any(|byte| *byte != 0))
}

impl Reader<'_> {
    fn findings(&mut self) -> Vec<Finding> {
        let marks = Marks::new(&self.engine.log_folder(&self.row.name));
        let fault = |Fault { copy, name, failure }: Fault| {
            if let Some(copy) = copy.filter(|_| failure.kind() == FailureKind::Damaged) {
                // A recovery goes on where it cannot be written down; the next push or verification meets it too.
                drop(marks.note(&copy, name, &failure.chain()));
            }
            Finding::new("log-damaged", self.row.name.as_str(), failure.chain()).with_kind(failure.kind())
        };
        self.sources.faults.drain(..).map(fault).collect()
    }

    fn segment_bytes(&mut self) -> Result<u32, EngineError> {
        if let Some(size) = self.segment_bytes {
            return Ok(size);
        }
        // Without a recovery point a piece of the log has to tell: the header at the start of a segment.
        let starts = self.sources.list.iter().flat_map(|source| source.names.iter());
        let start =
            starts.map(lifeboat_vault::logs::LogName::first).find(|first| first.offset % (1 << 20) == 0);
        if let Some(start) = start {
            let mut head = Vec::new();
            self.sources.read(start.timeline, (start.offset, start.offset + 40), &mut head)?;
            self.segment_bytes = self.files.segment_bytes_in(&head);
        }
        self.segment_bytes.ok_or_else(|| {
            let what = format!(
                "how large a segment of `{}` is cannot be told: neither a recovery point nor the start of a segment is kept",
                self.row.name
            );
            EngineError::new(FailureKind::Unreachable, what)
                .next(format!("lifeboat points {} shows what is kept", self.row.name))
        })
    }

    /// The segment, as far as it is kept; nothing if the log ends before it. Without `path` nobody waits for it.
    fn segment(&mut self, name: &str, path: Option<&Path>) -> Result<Option<Joined>, EngineError> {
        if self.sources.list.iter().all(|source| source.names.is_empty()) {
            self.not_kept(name)?;
            return Ok(None);
        }
        let segment_bytes = self.segment_bytes()?;
        let start = self.files.segment_start(name, segment_bytes).ok_or_else(|| {
            let what = format!("{name} is not the name of a segment of {segment_bytes} bytes");
            EngineError::new(FailureKind::Usage, what)
        })?;
        let end = start.offset + u64::from(segment_bytes);
        let mut bytes = Vec::with_capacity(segment_bytes as usize);
        let mut at = start.offset;
        for (timeline, from, to) in self.shares(start.timeline, (start.offset, end))? {
            if from > at {
                break;
            }
            at = self.sources.read(timeline, (from, to), &mut bytes)?;
            if at < to {
                break;
            }
        }
        if at < end {
            let reached = Position::new(start.timeline, at);
            if self.sources.goes_on_after(reached)? {
                return self.hole(name, path).map(|()| None);
            }
            self.not_kept(name)?;
            if at == start.offset {
                return Ok(None);
            }
        }
        let kept_bytes = bytes.len();
        let identity = self.files.check(name, self.identity.as_deref(), &bytes)?;
        if at < end && path.is_some_and(|path| has_more(path, name, &bytes, segment_bytes)) {
            return Ok(None);
        }
        bytes.resize(segment_bytes as usize, 0);
        Ok(Some(Joined { bytes, kept_bytes, identity, segment_bytes }))
    }

    /// Which timeline owns which stretch of a segment: its own from where it was entered, its ancestors' before.
    fn shares(&mut self, timeline: u32, (start, end): (u64, u64)) -> Result<Vec<(u32, u64, u64)>, Failure> {
        let mut shares = Vec::new();
        let (mut timeline, mut end) = (timeline, end);
        for _step in 0..MAX_TIMELINES {
            // Only a timeline that was entered inside the segment shares it; what that continues costs reading a piece.
            let entered = self.sources.first(timeline).filter(|first| (start + 1..end).contains(first));
            let entry = if entered.is_some() { self.sources.entry(timeline)? } else { None };
            let Some((entered, Some(follows))) = entry else {
                shares.push((timeline, start, end));
                break;
            };
            shares.push((timeline, entered, end));
            (timeline, end) = (follows.timeline, follows.offset.min(entered));
        }
        shares.reverse();
        Ok(shares)
    }

    /// Nothing of it is kept, but what comes after it is. A server that has the file itself goes on with that one.
    fn hole(&self, name: &str, path: Option<&Path>) -> Result<(), EngineError> {
        if path.is_some_and(|path| self.has_itself(path, name)) {
            return Ok(());
        }
        if let Some(doubt) = &self.doubt {
            return Err(self.doubtful(name, doubt));
        }
        let what = format!(
            "the log of `{}` has a gap at {name}: it is not kept, what comes after it is, so a recovery must not end here",
            self.row.name
        );
        Err(EngineError::new(FailureKind::Damaged, what).risking(&self.row.name, "rpo").next(format!(
            "restore from a point after the gap, or to a moment before it: lifeboat points {}",
            self.row.name
        )))
    }

    /// Whether "it is not kept" can be said.
    fn not_kept(&self, name: &str) -> Result<(), EngineError> {
        self.doubt.as_ref().map_or(Ok(()), |doubt| Err(self.doubtful(name, doubt)))
    }

    fn doubtful(&self, name: &str, doubt: &Failure) -> EngineError {
        let what = format!("no copy that can be read has all of {name}, and {}", doubt.chain());
        EngineError::new(doubt.kind(), what).risking(&self.row.name, "rpo").next(
            "repair the copy; if it is lost for good, name the one to rely on with `wal fetch --copy NAME` in restore_command",
        )
    }

    /// How a timeline came to be; nothing if that is not kept.
    fn history(&mut self, timeline: u32, options: &FetchOptions) -> Result<Option<Vec<u8>>, EngineError> {
        let mut left = Vec::new();
        let mut child = timeline;
        while let Some((_, Some(follows))) = self.sources.entry(child)? {
            left.push(LogPosition { timeline: follows.timeline, offset: follows.offset });
            child = follows.timeline;
        }
        left.reverse();
        if let Some(text) = self.remembered(timeline, left.last(), options)? {
            return Ok(Some(text));
        }
        if !left.is_empty() {
            let text = self.files.history(timeline, &left).ok_or_else(|| {
                let what = format!("what is kept of timeline {timeline} does not make a history");
                EngineError::new(FailureKind::Damaged, what)
            })?;
            return Ok(Some(text));
        }
        let name = &options.name;
        if self.sources.entry(timeline)?.is_some() && self.sources.has_older(timeline) {
            if self.has_itself(&options.path, name) {
                return Ok(None);
            }
            let what = format!(
                "log of timeline {timeline} and of older ones is kept, but not how it was entered, so {name} cannot be made"
            );
            return Err(EngineError::new(FailureKind::Damaged, what)
                .next(format!("restore from a point on that timeline: lifeboat points {}", self.row.name)));
        }
        self.not_kept(name)?;
        Ok(None)
    }

    /// Whether the server has the file already, whole and sound, under its name beside the one it wants written: there
    /// it looks next. What it recycled for later has such names too and is no log of theirs.
    fn has_itself(&self, path: &Path, name: &str) -> bool {
        let own = path.with_file_name(name);
        if own == path || !own.is_file() {
            return false;
        }
        match self.files.examine(&own, &self.engine.log_folder(&self.row.name)) {
            Ok(LogFile::Log { identity, content, parts }) => {
                self.identity.as_ref().is_none_or(|known| *known == identity)
                    && parts.last().is_some_and(|part| part.span.end == content.len())
            }
            Ok(LogFile::History { .. }) => true,
            Ok(LogFile::Needless(_)) | Err(_) => false,
        }
    }

    /// The file as its server handed it over, if it was handed over here; it must say what the log says.
    fn remembered(
        &self,
        timeline: u32,
        follows: Option<&LogPosition>,
        options: &FetchOptions,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        if options.copy.is_some() {
            return Ok(None);
        }
        let path = self.engine.log_folder(&self.row.name).join(&options.name);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => {
                other.map_err(|error| Failure::io(format!("failed to read {}", path.display()), error))?
            }
        };
        let said = self.files.history_left(timeline, &text)?;
        if follows.is_some() && said.last() != follows {
            let what = format!("{} says another thing than the log that is kept", path.display());
            return Err(EngineError::new(FailureKind::Damaged, what));
        }
        Ok(Some(text))
    }
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({}, {})", self.row.name, self.store.stream())
    }
}
