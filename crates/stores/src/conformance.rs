//! The suite every adapter must pass, for the tests of this crate and of others.
//!
//! In: a [`Fixture`] that can make stores of one kind, and a scratch directory. Out: every violation found, as text.
//! Needs root on Linux: it mounts small disks and gives up the right to read everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, ConsistencyLevel, DATA, META, MaterializeStats, Meta, Order, RestoreSource,
    StoredEntry, StoredKind,
};
use lifeboat_base::crashsafe;
use lifeboat_base::digest::{Digest, digest_of_reader};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Findings, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::time::{ManualClock, Timestamp};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::adapter::{Adapter, CaptureContext, CheckResult, CheckState};
use crate::recording::Recording;
use crate::select::Selection;

/// Makes stores of one kind for the suite. Every method gets a directory of its own that is empty at first.
pub trait Fixture: Sync {
    /// A store with nothing in it.
    fn empty(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure>;

    /// A store with at least 2 MiB and 300 items: large values, every kind of item, Unicode and binary names.
    fn full(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure>;

    /// Changes the content of the store made in `place`, differently for every `round`.
    fn change(&self, place: &Path, round: u64) -> Result<(), Failure>;

    /// Takes the permission to read from something in the store made in `place`.
    fn seal(&self, place: &Path) -> Result<(), Failure>;

    /// An adapter for a store that is not there.
    fn missing(&self, place: &Path) -> Box<dyn Adapter>;

    /// An adapter for something that is there but is no store of this kind.
    fn wrong(&self, place: &Path) -> Result<Box<dyn Adapter>, Failure>;

    /// Whether a file below the place belongs to the content of the store, and so must not change in a capture.
    fn is_content(&self, _path: &Path) -> bool {
        true
    }

    /// An adapter for what a restore left behind.
    fn reopen(&self, artefact: &Path) -> Box<dyn Adapter>;

    /// A question to the full store, and what it must be answered with once it is restored.
    fn question(&self) -> Option<(Selection, Answer)> {
        None
    }

    /// Whether a server changes its own files while nobody writes: then stores are the same if what they say about their
    /// content is, and a capture shows its end instead of its beginning.
    fn is_live(&self) -> bool {
        false
    }
}

/// Names with their values.
pub type Answer = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

type Outcome = Result<(), Violation>;
type Case = fn(&Bench<'_>) -> Outcome;

/// What an adapter did that it must not do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Violation(String);

impl From<Failure> for Violation {
    fn from(failure: Failure) -> Self {
        Self(format!("unexpected failure ({}): {}", failure.kind().word(), failure.chain()))
    }
}

impl From<io::Error> for Violation {
    fn from(error: io::Error) -> Self {
        Self(format!("the bench failed: {error}"))
    }
}

/// Every case with its name, which is also its sentence.
const CASES: [(&str, Case); 15] = [
    ("an empty store comes back empty", empty_store),
    ("a full store comes back whole", full_store),
    ("two captures of a store at rest are the same", same_twice),
    ("a change during capture is left out or told", change_during_capture),
    ("a capture dropped half-way leaves no trace and no lock", dropped_half_way),
    ("a capture that fails half-way says so", lost_half_way),
    ("a restore that fails half-way says so and can be repeated", restore_interrupted),
    ("a missing store is unreachable", missing_store),
    ("the wrong thing is unreachable", wrong_store),
    ("what cannot be read is told", unreadable),
    ("a full disk under the scratch space is an error", full_spool),
    ("a full disk under the restore is an error", full_target),
    ("a recovery point that lies is not believed", hostile_point),
    ("a restored store answers what it is asked", questions),
    ("every check has a canary that it catches", canaries),
];

/// Runs every case and gives the violations; an empty list is a pass.
pub fn violations(fixture: &dyn Fixture, scratch: &Path) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, case) in CASES {
        let outcome = tempfile::tempdir_in(scratch).map_err(Violation::from).and_then(|dir| {
            // A server in a sandbox may have to be another account than ours.
            crashsafe::let_through(dir.path())?;
            let bench = Bench::new(fixture, dir.path())?;
            case(&bench)
        });
        if let Err(violation) = outcome {
            violations.push(format!("{name}: {violation}"));
        }
    }
    violations
}

struct Bench<'a> {
    fixture: &'a dyn Fixture,
    place: PathBuf,
    spool: PathBuf,
    dir: PathBuf,
    clock: ManualClock,
    monitor: Findings,
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Violation(what())) }
}

impl<'a> Bench<'a> {
    fn new(fixture: &'a dyn Fixture, dir: &Path) -> Result<Self, Violation> {
        let (place, spool) = (dir.join("source"), dir.join("spool"));
        fs::create_dir(&place)?;
        fs::create_dir(&spool)?;
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        Ok(Self { fixture, place, spool, dir: dir.to_owned(), clock, monitor: Findings::new() })
    }

    fn start(&self, adapter: &dyn Adapter) -> Result<Box<dyn Capture>, Failure> {
        adapter.capture(&CaptureContext { clock: &self.clock, spool: &self.spool, kept: None, known: &[] })
    }

    fn record(&self, adapter: &dyn Adapter) -> Result<Recording, Failure> {
        Recording::record(self.start(adapter)?, &self.monitor)
    }

    /// Restores into a new directory and gives it with the results of the checks.
    fn restore(
        &self,
        adapter: &dyn Adapter,
        point: &Recording,
        name: &str,
    ) -> Result<(PathBuf, Vec<CheckResult>), Violation> {
        let into = self.dir.join(name);
        fs::create_dir(&into)?;
        let report = adapter.restore(point, point.facts(), &into, &self.monitor)?;
        expect(report.artefact.starts_with(&into), || "the artefact lies outside the target".to_owned())?;
        let results = adapter.checks(point, point.facts(), &into, &self.monitor)?;
        Ok((report.artefact, results))
    }

    fn round_trip(&self, adapter: &dyn Adapter) -> Outcome {
        let before = picture(self)?;
        let point = self.record(adapter)?;
        expect(picture(self)? == before, || "the capture changed the source".to_owned())?;
        expect(self.monitor.list().is_empty(), || format!("findings at rest: {:?}", self.monitor.list()))?;
        let facts = point.facts();
        expect(facts.consistency.changes == 0 && facts.unreadable.is_empty(), || {
            format!("at rest: {facts:?}")
        })?;
        let (artefact, results) = self.restore(adapter, &point, "restored")?;
        all_pass(&results)?;
        let again = self.record(self.fixture.reopen(&artefact).as_ref())?;
        self.same(&point, &again)?;
        self.clean_spool()
    }

    /// Whether two captures show the same content.
    fn same(&self, one: &Recording, other: &Recording) -> Outcome {
        let live = self.fixture.is_live();
        if !live {
            same_data(one, other)?;
        }
        let counts = |point: &Recording| {
            let mut counts = point.facts().counts.clone();
            // A server's own files come and go.
            counts.retain(|name, _| !live || name != "files");
            counts
        };
        expect(counts(one) == counts(other), || {
            format!("the counts differ: {:?} and {:?}", counts(one), counts(other))
        })?;
        let sums = (&one.facts().checksums, &other.facts().checksums);
        expect(!live || (sums.0 == sums.1 && !sums.0.is_empty()), || {
            format!("the checksums differ: {sums:?}")
        })
    }

    fn clean_spool(&self) -> Outcome {
        expect(fs::read_dir(&self.spool)?.next().is_none(), || "scratch files were left behind".to_owned())
    }
}

/// Names, types and content of everything in the store's place, without its directories' times.
fn picture(bench: &Bench<'_>) -> Result<BTreeMap<PathBuf, String>, Violation> {
    let mut picture = BTreeMap::new();
    let mut open = vec![bench.place.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if !bench.fixture.is_content(&path) {
                continue;
            }
            let text = if kind.is_file() {
                let (digest, bytes) = digest_of_reader(fs::File::open(&path)?)?;
                format!("{bytes} {digest} {:?}", entry.metadata()?.modified()?)
            } else {
                format!("{kind:?}")
            };
            if kind.is_dir() {
                open.push(path.clone());
            }
            picture.insert(path, text);
        }
    }
    Ok(picture)
}

fn all_pass(results: &[CheckResult]) -> Outcome {
    expect(!results.is_empty(), || "there are no checks".to_owned())?;
    match results.iter().find(|result| result.state == CheckState::Failed) {
        Some(result) => Err(Violation(format!("a check fails on a good restore: {result:?}"))),
        None => Ok(()),
    }
}

fn none_believed(results: Result<Vec<CheckResult>, Failure>, what: &str) -> Outcome {
    let Ok(results) = results else { return Ok(()) };
    expect(results.iter().any(|result| result.state == CheckState::Failed), || format!("{what} was believed"))
}

/// Path, kind, metadata that a restore gives back, and content of everything below `data`.
fn data_of(point: &Recording) -> BTreeMap<RelPath, (StoredKind, Meta, Digest)> {
    let plain = |meta: &Meta| Meta {
        mtime: meta.mtime,
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        xattrs: meta.xattrs.clone(),
        links: meta.links.min(2),
        ..Meta::default()
    };
    let mut data = BTreeMap::new();
    for path in
        point.paths().filter(|path| path.names().next().is_some_and(|name| name == DATA) && path.depth() > 1)
    {
        if let Some(entry) = point.entry(path) {
            let mut meta = plain(&entry.meta);
            if entry.kind == StoredKind::Dir {
                meta.links = 0;
            }
            let digest = Digest::of(point.content(path).unwrap_or_default());
            data.insert(path.clone(), (entry.kind.clone(), meta, digest));
        }
    }
    data
}

fn same_data(one: &Recording, other: &Recording) -> Outcome {
    let (one, other) = (data_of(one), data_of(other));
    for (path, expected) in &one {
        match other.get(path) {
            None => return Err(Violation(format!("{path} is missing"))),
            Some(found) if found != expected => {
                return Err(Violation(format!("{path} differs: {found:?} instead of {expected:?}")));
            }
            Some(_) => {}
        }
    }
    match other.keys().find(|path| !one.contains_key(*path)) {
        Some(path) => Err(Violation(format!("{path} is extra"))),
        None => Ok(()),
    }
}

fn empty_store(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.empty(&bench.place)?;
    bench.round_trip(adapter.as_ref())
}

fn full_store(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.full(&bench.place)?;
    let inspection = adapter.inspect()?;
    expect(inspection.findings.is_empty(), || format!("findings at rest: {:?}", inspection.findings))?;
    bench.round_trip(adapter.as_ref())
}

fn same_twice(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.full(&bench.place)?;
    let (one, other) = (bench.record(adapter.as_ref())?, bench.record(adapter.as_ref())?);
    bench.same(&one, &other)?;
    expect(bench.fixture.is_live() || one.facts() == other.facts(), || "the facts differ".to_owned())
}

/// Reads a capture to its end, changing the store once in the middle of every file.
fn disturb(bench: &Bench<'_>, mut capture: Box<dyn Capture>) -> Result<(Recording, u64), Violation> {
    let mut rounds = 0;
    let mut script = Scripted { inner: None, script: Vec::new() };
    while let Some(mut entry) = capture.next_entry(&bench.monitor)? {
        if let Body::File { reader, layout, .. } = entry.body {
            let mut content = Vec::new();
            let mut reader = reader;
            (&mut reader).take(1000).read_to_end(&mut content)?;
            if rounds < 20 && entry.path.names().next().is_some_and(|name| name == DATA) {
                rounds += 1;
                bench.fixture.change(&bench.place, rounds)?;
            }
            reader.read_to_end(&mut content)?;
            let size_hint = content.len() as u64;
            entry.body = Body::File { reader: Box::new(io::Cursor::new(content)), size_hint, layout };
        }
        script.script.push(entry);
    }
    script.script.reverse();
    script.inner = Some(capture);
    Ok((Recording::record(Box::new(script), &bench.monitor)?, rounds))
}

/// Gives entries that were read before, then the facts of the capture they came from.
struct Scripted {
    inner: Option<Box<dyn Capture>>,
    script: Vec<lifeboat_base::capture::Entry>,
}

impl Capture for Scripted {
    fn order(&self) -> Order {
        self.inner.as_ref().map_or(Order::Any, |inner| inner.order())
    }

    fn total_bytes(&self) -> Option<u64> {
        None
    }

    fn next_entry(
        &mut self,
        _monitor: &dyn Monitor,
    ) -> Result<Option<lifeboat_base::capture::Entry>, Failure> {
        Ok(self.script.pop())
    }

    fn lost(&mut self, _path: &RelPath, _why: &str) {}

    fn finish(mut self: Box<Self>) -> Result<CaptureFacts, Failure> {
        match self.inner.take() {
            Some(inner) => inner.finish(),
            None => Err(Failure::new(FailureKind::Internal, "finished twice")),
        }
    }
}

fn change_during_capture(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.full(&bench.place)?;
    let before = bench.record(adapter.as_ref())?;
    let (point, rounds) = disturb(bench, bench.start(adapter.as_ref())?)?;
    expect(rounds > 0, || "the store has no file to be disturbed in".to_owned())?;
    let consistency = &point.facts().consistency;
    match consistency.level {
        ConsistencyLevel::PointInTime if bench.fixture.is_live() => {}
        ConsistencyLevel::PointInTime => same_data(&before, &point)?,
        ConsistencyLevel::CrashConsistent => return Err(Violation("the changes went unseen".to_owned())),
        ConsistencyLevel::Fuzzy => {
            let told = bench.monitor.list().len() as u64;
            // A server at work always changes: the number says so, and a finding each time would be read by nobody.
            let is_told = bench.fixture.is_live() || told >= consistency.changes;
            expect(consistency.changes > 0 && is_told, || {
                format!("{} changes, {told} findings", consistency.changes)
            })?;
        }
    }
    let (_, results) = bench.restore(adapter.as_ref(), &point, "restored")?;
    all_pass(&results)?;
    let after = bench.record(adapter.as_ref())?;
    expect(bench.same(&before, &after).is_err(), || "the changes did not reach the store".to_owned())
}

fn questions(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.full(&bench.place)?;
    let Some(select) = adapter.selects() else { return Ok(()) };
    let Some((question, expected)) = bench.fixture.question() else {
        return Err(Violation("the kind can be asked, and no question is known".to_owned()));
    };
    let foreign = match &question {
        Selection::Under(_) => Selection::Paths("**".to_owned()),
        _ => Selection::Under("x".to_owned()),
    };
    let point = bench.record(adapter.as_ref())?;
    let into = bench.dir.join("asked");
    fs::create_dir(&into)?;
    let artefact = adapter.restore(&point, point.facts(), &into, &bench.monitor)?.artefact;
    all_pass(&adapter.checks(&point, point.facts(), &into, &bench.monitor)?)?;
    let wanted = [foreign, question];
    // Twice: asking changes nothing.
    for _ in 0..2 {
        let mut answer = Answer::new();
        let results =
            select.select(point.facts(), &artefact, &wanted, &bench.monitor, &mut |number, found| {
                if number != 1 {
                    return Err(Failure::new(FailureKind::Internal, "a foreign question was answered"));
                }
                answer.insert(found.name, found.value);
                Ok(())
            })?;
        expect(matches!(results.as_slice(), [Err(_), Ok(())]), || format!("the answers: {results:?}"))?;
        expect(answer == expected, || {
            format!("{} names were found, expected {}", answer.len(), expected.len())
        })?;
    }
    let stopped = select.select(point.facts(), &artefact, &wanted, &bench.monitor, &mut |_, _| {
        Err(Failure::new(FailureKind::Refused, "enough"))
    });
    expect(stopped.is_err(), || "who takes the answer cannot stop it".to_owned())
}

fn dropped_half_way(bench: &Bench<'_>) -> Outcome {
    for depth in 0..6 {
        let dir = bench.dir.join(format!("depth-{depth}"));
        fs::create_dir(&dir)?;
        drop_at(&Bench::new(bench.fixture, &dir)?, depth)?;
    }
    Ok(())
}

/// Takes `depth` entries, reads one byte of the last, and lets everything go.
fn drop_at(bench: &Bench<'_>, depth: usize) -> Outcome {
    let adapter = bench.fixture.full(&bench.place)?;
    let before = picture(bench)?;
    let mut capture = bench.start(adapter.as_ref())?;
    let mut last = None;
    for _ in 0..depth {
        if let Some(mut reader) = last.take() {
            io::copy(&mut reader, &mut io::sink())?;
        }
        let Some(entry) = capture.next_entry(&bench.monitor)? else { break };
        if let Body::File { reader, .. } = entry.body {
            last = Some(reader);
        }
    }
    if let Some(reader) = &mut last {
        match reader.read_exact(&mut [0; 1]) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            _ => {}
        }
    }
    // What has no name while it is in use cannot be left behind by a kill.
    bench.clean_spool()?;
    drop(capture);
    // The reader outlives its capture here; the store must be free all the same.
    expect(picture(bench)? == before, || format!("a trace was left after {depth} entries"))?;
    bench.fixture.change(&bench.place, 1)?;
    drop(last);
    bench.record(adapter.as_ref())?;
    bench.clean_spool()
}

fn lost_half_way(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.full(&bench.place)?;
    let mut capture = bench.start(adapter.as_ref())?;
    let mut lost = false;
    let outcome = (|| {
        while let Some(entry) = capture.next_entry(&bench.monitor)? {
            if let Body::File { mut reader, .. } = entry.body {
                if lost {
                    io::copy(&mut reader, &mut io::sink())
                        .map_err(|error| Failure::io("failed to read on", error))?;
                } else {
                    capture.lost(&entry.path, "the disk gave an error");
                    lost = true;
                }
            }
        }
        capture.finish()
    })();
    match outcome {
        Err(_) => Ok(()),
        Ok(facts) => {
            expect(!facts.unreadable.is_empty(), || "the lost file is not in the facts".to_owned())?;
            expect(facts.consistency.changes > 0, || "the lost file does not count".to_owned())
        }
    }
}

/// A recovery point that breaks off after the data was written in part.
struct BreaksOff<'a>(&'a Recording);

impl RestoreSource for BreaksOff<'_> {
    fn walk(
        &self,
        under: &RelPath,
        visit: &mut dyn FnMut(StoredEntry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.0.walk(under, visit)
    }

    fn open(&self, path: &RelPath) -> Result<Box<dyn Read + Send + '_>, Failure> {
        let content = self.0.open(path)?;
        if path.names().next().is_none_or(|name| name != DATA) {
            return Ok(content);
        }
        // Half of it comes, then nothing more.
        let half = self.0.content(path).map_or(0, |content| content.len() as u64 / 2);
        Ok(Box::new(content.take(half).chain(NoMore)))
    }

    fn materialize(
        &self,
        under: &RelPath,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<MaterializeStats, Failure> {
        let mut part = self.0.clone();
        let last = part.paths().filter(|path| path.below(under).is_some()).last().cloned();
        if let Some(path) = last {
            part.remove(&path);
        }
        part.materialize(under, into, monitor)?;
        Err(Failure::new(FailureKind::Damaged, "the copy broke off"))
    }
}

/// A reader that only fails.
struct NoMore;

impl Read for NoMore {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the copy broke off"))
    }
}

fn restore_interrupted(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.full(&bench.place)?;
    let point = bench.record(adapter.as_ref())?;
    let into = bench.dir.join("interrupted");
    fs::create_dir(&into)?;
    let outcome = adapter.restore(&BreaksOff(&point), point.facts(), &into, &bench.monitor);
    expect(outcome.is_err(), || "a restore that broke off was reported as done".to_owned())?;
    none_believed(adapter.checks(&point, point.facts(), &into, &bench.monitor), "half a restore")?;
    let (_, results) = bench.restore(adapter.as_ref(), &point, "repeated")?;
    all_pass(&results)
}

fn missing_store(bench: &Bench<'_>) -> Outcome {
    unreachable_store(bench, bench.fixture.missing(&bench.place).as_ref())
}

fn wrong_store(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.wrong(&bench.place)?;
    let before = picture(bench)?;
    unreachable_store(bench, adapter.as_ref())?;
    expect(picture(bench)? == before, || "a trace was left on what is no store".to_owned())
}

fn unreachable_store(bench: &Bench<'_>, adapter: &dyn Adapter) -> Outcome {
    let is_unreachable =
        |failure: Option<Failure>| failure.is_some_and(|it| it.kind() == FailureKind::Unreachable);
    expect(is_unreachable(adapter.inspect().err()), || "the inspection is not `Unreachable`".to_owned())?;
    expect(is_unreachable(bench.start(adapter).err()), || "the capture is not `Unreachable`".to_owned())?;
    bench.clean_spool()
}

/// Runs `work` on a thread that may read only what its user may read, which is what root is without its privilege.
pub fn without_privilege<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Violation> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut sets = capabilities(None).map_err(io::Error::from)?;
            let right = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
            sets.effective.remove(right);
            sets.permitted.remove(right);
            set_capabilities(None, sets).map_err(io::Error::from)?;
            Ok::<T, io::Error>(work())
        });
        let result = thread.join().map_err(|_panic| Violation("the adapter panicked".to_owned()))?;
        Ok(result?)
    })
}

fn unreadable(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.full(&bench.place)?;
    bench.fixture.seal(&bench.place)?;
    match without_privilege(|| bench.record(adapter.as_ref()))? {
        Err(failure) => expect(failure.kind() == FailureKind::Unreachable, || format!("{failure:?}")),
        Ok(point) => {
            let facts = point.facts();
            expect(!facts.unreadable.is_empty(), || "the facts do not name it".to_owned())?;
            expect(facts.consistency.level == ConsistencyLevel::Fuzzy, || "it does not count".to_owned())?;
            expect(!bench.monitor.list().is_empty(), || "it was not told".to_owned())?;
            // What was captured is still worth having.
            let (_, results) = bench.restore(adapter.as_ref(), &point, "restored")?;
            all_pass(&results)
        }
    }
}

/// A file system in memory of a fixed size, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one on the existing directory `at`. Needs root.
    pub fn mount(at: &Path, size_bytes: u64) -> io::Result<Self> {
        let option = format!("size={size_bytes}");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &option, "lifeboat-test"]).arg(at).status()?;
        if status.success() { Ok(Self(at.to_owned())) } else { Err(io::Error::other("mount failed")) }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that fails may still hold files open.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn full_spool(bench: &Bench<'_>) -> Outcome {
    const SPOOL_BYTES: u64 = 16 * 1024;
    let adapter = bench.fixture.full(&bench.place)?;
    let before = picture(bench)?;
    let disk = SmallDisk::mount(&bench.spool, SPOOL_BYTES)?;
    match bench.record(adapter.as_ref()) {
        // It needs no scratch space.
        Ok(point) => {
            let (_, results) = bench.restore(adapter.as_ref(), &point, "restored")?;
            all_pass(&results)?;
        }
        Err(failure) => expect(failure.kind() == FailureKind::Internal, || format!("{failure:?}"))?,
    }
    bench.clean_spool()?;
    drop(disk);
    expect(picture(bench)? == before, || "a trace was left on the source".to_owned())
}

fn full_target(bench: &Bench<'_>) -> Outcome {
    const TARGET_BYTES: u64 = 512 * 1024;
    let adapter = bench.fixture.full(&bench.place)?;
    let point = bench.record(adapter.as_ref())?;
    let into = bench.dir.join("small");
    fs::create_dir(&into)?;
    let disk = SmallDisk::mount(&into, TARGET_BYTES)?;
    let outcome = adapter.restore(&point, point.facts(), disk.path(), &bench.monitor);
    expect(outcome.is_err(), || "a restore that did not fit was reported as done".to_owned())?;
    none_believed(adapter.checks(&point, point.facts(), disk.path(), &bench.monitor), "half a restore")
}

fn hostile_point(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.full(&bench.place)?;
    let good = bench.record(adapter.as_ref())?;
    let files = |folder: &str| -> Vec<RelPath> {
        let inside = |path: &&RelPath| {
            path.names().next().is_some_and(|name| name == folder)
                && good
                    .entry(path)
                    .is_some_and(|entry| matches!(entry.kind, StoredKind::File(bytes) if bytes > 0))
        };
        good.paths().filter(inside).cloned().collect()
    };
    let mut lies: Vec<(String, Recording)> = Vec::new();
    let mut nothing = good.clone();
    for path in good.paths() {
        nothing.remove(path);
    }
    lies.push(("a point with nothing in it".to_owned(), nothing));
    for folder in [DATA, META] {
        let Some(path) = files(folder).last().cloned() else { continue };
        let Some(entry) = good.entry(&path).cloned() else { continue };
        let mut without = good.clone();
        without.remove(&path);
        lies.push((format!("a point without {path}"), without));
        let mut edited = good.clone();
        let mut content = good.content(&path).unwrap_or_default().to_vec();
        let middle = content.len() / 2;
        if let Some(byte) = content.get_mut(middle) {
            *byte ^= 1;
        }
        edited.put(entry.clone(), content);
        lies.push((format!("a point with an edited {path}"), edited));
    }
    if let Some(entry) = files(DATA).first().and_then(|path| good.entry(path)).cloned() {
        let mut more = good.clone();
        let (parent, _) = entry.path.split_last().unwrap_or_default();
        let path = parent.join("slipped-in").map_err(|error| Violation(error.to_string()))?;
        more.put(StoredEntry { path, ..entry }, b"slipped in".to_vec());
        lies.push(("a point with a file slipped in".to_owned(), more));
    }
    for (index, (what, lie)) in lies.into_iter().enumerate() {
        let into = bench.dir.join(format!("lie-{index}"));
        fs::create_dir(&into)?;
        let believed = adapter.restore(&lie, good.facts(), &into, &bench.monitor);
        if believed.is_ok() {
            none_believed(adapter.checks(&lie, good.facts(), &into, &bench.monitor), &what)?;
        }
    }
    Ok(())
}

fn canaries(bench: &Bench<'_>) -> Outcome {
    let adapter = bench.fixture.full(&bench.place)?;
    let point = bench.record(adapter.as_ref())?;
    let (_, results) = bench.restore(adapter.as_ref(), &point, "restored")?;
    let canaries = adapter.canaries(&bench.spool)?;
    bench.clean_spool()?;
    for canary in &canaries {
        expect(canary.caught, || format!("not caught: {canary:?}"))?;
    }
    let covered: BTreeSet<&str> = canaries.iter().map(|canary| canary.check.as_str()).collect();
    // What could not be checked here proves nothing, so nothing has to prove it.
    for result in results.iter().filter(|result| result.state != CheckState::NotApplicable) {
        expect(covered.contains(result.family()), || format!("{} has no canary", result.id))?;
    }
    Ok(())
}
