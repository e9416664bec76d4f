//! A capture of an index: its files as they are, with stock taken of the shards on the way, then manifest and list of records.

use std::collections::VecDeque;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_base::capture::{Body, Capture, CaptureFacts, DATA, Entry, Layout, META, Meta, Order};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Timestamp;
use lifeboat_probe::{Declared, IndexManifest};

use super::gold;
use super::place::{is_shard, looks_like_shard};
use super::records::{RECORDS, to_line};
use super::stock::{Faults, Shard, ShardFacts, Stock};
use crate::spool::{Sealed, Spool};

/// The file below `meta` with the manifest of the index.
pub(crate) const MANIFEST: &str = "manifest.json";
const META_FILE_MODE: u32 = 0o600;
const META_DIR_MODE: u32 = 0o700;

/// A shard that the reader of its bytes fills.
#[derive(Default)]
struct Reading {
    shard: Shard,
    /// Read to its end.
    is_whole: bool,
    failure: Option<Failure>,
}

type Shared = Arc<Mutex<Reading>>;

/// Gives the bytes of a shard on and looks at them.
struct Tee {
    inner: Box<dyn Read + Send>,
    shared: Shared,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        let mut reading = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if reading.failure.is_some() || reading.is_whole {
            return Ok(read);
        }
        let outcome = if read == 0 {
            reading.is_whole = true;
            reading.shard.end(&mut |_record| Ok(()))
        } else {
            reading.shard.push(buffer.get(..read).unwrap_or_default(), &mut |_record| Ok(()))
        };
        reading.failure = outcome.err();
        Ok(read)
    }
}

/// The files of the gold set, if the row names one.
type Gold = Result<Vec<(&'static str, Vec<u8>)>, Failure>;

/// What the facts say of the index.
struct Summary {
    counts: Vec<(String, u64)>,
    checksums: Vec<(String, Digest)>,
    unreadable: Vec<String>,
    family: Option<String>,
}

enum Stage {
    Files(Box<Stock>),
    Meta(VecDeque<Entry>, Summary),
    /// A failure ended it.
    Broken,
}

pub(crate) struct VectorCapture {
    inner: Box<dyn Capture>,
    declared: Result<Declared, Failure>,
    gold: Option<Gold>,
    spool: std::path::PathBuf,
    moment: Timestamp,
    pending: Option<(RelPath, Shared)>,
    /// What is named like a shard and is none: part of the index may be elsewhere.
    odd: Vec<String>,
    stage: Stage,
}

impl VectorCapture {
    pub(crate) fn new(
        inner: Box<dyn Capture>,
        (declared, gold): (Result<Declared, Failure>, Option<Gold>),
        spool: &Path,
        moment: Timestamp,
    ) -> Self {
        let stage = Stage::Files(Box::default());
        Self { inner, declared, gold, spool: spool.to_owned(), moment, pending: None, odd: Vec::new(), stage }
    }

    /// Takes over what the reader of the last shard has seen. One that was not read to its end is no part of the point.
    fn settle(&mut self) -> Result<(), Failure> {
        let Some((_, shared)) = self.pending.take() else { return Ok(()) };
        let reading = std::mem::take(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(failure) = reading.failure {
            return Err(failure);
        }
        match &mut self.stage {
            Stage::Files(stock) if reading.is_whole => stock.absorb(reading.shard),
            _ => Ok(()),
        }
    }

    fn watched(&mut self, entry: Entry) -> Entry {
        let Entry { path, meta, body } = entry;
        let inside = RelPath::new(DATA).ok().and_then(|data| path.below(&data));
        let is_file = matches!(body, Body::File { .. });
        let is_odd = |path: &RelPath| looks_like_shard(path) && !(is_file && is_shard(path));
        if let Some(odd) = inside.as_ref().filter(|path| is_odd(path) && !matches!(body, Body::Dir)) {
            self.odd.push(odd.to_string());
        }
        let inside = inside.filter(is_shard);
        let body = match (inside, body) {
            (Some(inside), Body::File { reader, size_hint, layout }) => {
                let reading = Reading { shard: Shard::new(inside.to_string()), ..Reading::default() };
                let shared = Arc::new(Mutex::new(reading));
                self.pending = Some((path.clone(), Arc::clone(&shared)));
                Body::File { reader: Box::new(Tee { inner: reader, shared }), size_hint, layout }
            }
            (_, body) => body,
        };
        Entry { path, meta, body }
    }

    /// What is known of the whole index, as entries after those of its files.
    fn close(&mut self, monitor: &dyn Monitor) -> Result<(), Failure> {
        let Stage::Files(stock) = std::mem::replace(&mut self.stage, Stage::Broken) else { return Ok(()) };
        let taken = stock.finish();
        let (mut entries, mut summary) =
            (VecDeque::new(), Summary::of(&taken.faults, &taken.shards, monitor));
        for odd in std::mem::take(&mut self.odd) {
            let why = "it is named like a shard and is none: a link, no file, or another ending";
            monitor.finding(Finding::new("shard-unreadable", odd.clone(), why.to_owned()));
            summary.unreadable.push(format!("{odd}: {why}"));
        }
        let report = &taken.sorted.report;
        for (name, count) in [
            ("docs", report.counts.docs),
            ("chunks", report.counts.chunks),
            ("vectors", report.counts.vectors),
        ] {
            summary.counts.push((name.to_owned(), count));
        }
        match self.manifest(&taken) {
            Ok(manifest) => {
                let bytes = encoded(&manifest)?;
                summary.checksums.push(("manifest".to_owned(), Digest::of(&bytes)));
                summary.family = Some(manifest.index_family);
                entries.push_back(self.entry(MANIFEST, bytes.len() as u64, Box::new(Cursor::new(bytes)))?);
            }
            Err(failure) => {
                let why = failure.chain();
                monitor.finding(Finding::new("contract-unusable", "contract", why.clone()));
                summary.unreadable.push(format!("contract: {why}"));
            }
        }
        self.close_gold(&mut entries, &mut summary, monitor)?;
        let mut records = Spool::create(&self.spool)?;
        for leaf in &taken.sorted.leaves {
            records.push(&to_line(leaf)?)?;
        }
        let records: Sealed = records.seal()?;
        summary.checksums.push(("records".to_owned(), records.digest()));
        entries.push_back(self.entry(RECORDS, records.length_bytes(), Box::new(records.reader()))?);
        self.stage = Stage::Meta(entries, summary);
        Ok(())
    }

    /// The gold set travels with the index: what it was measured with is not what lies somewhere after a loss.
    fn close_gold(
        &mut self,
        entries: &mut VecDeque<Entry>,
        summary: &mut Summary,
        monitor: &dyn Monitor,
    ) -> Result<(), Failure> {
        match self.gold.take() {
            None => {}
            Some(Ok(files)) => {
                let folder = self.entry(gold::FOLDER, 0, Box::new(io::empty()))?;
                let meta = Meta { mode: META_DIR_MODE, ..folder.meta };
                entries.push_back(Entry { meta, body: Body::Dir, ..folder });
                for (name, bytes) in files {
                    summary.checksums.push((gold::sum(name), Digest::of(&bytes)));
                    let path = Path::new(gold::FOLDER).join(name);
                    let path = path.to_string_lossy();
                    entries.push_back(self.entry(&path, bytes.len() as u64, Box::new(Cursor::new(bytes)))?);
                }
            }
            Some(Err(failure)) => {
                let why = failure.chain();
                monitor.finding(Finding::new("gold-unusable", "gold", why.clone()));
                summary.unreadable.push(format!("gold: {why}"));
            }
        }
        Ok(())
    }

    fn manifest(&mut self, taken: &super::stock::Taken) -> Result<IndexManifest, Failure> {
        let nothing = Err(Failure::new(FailureKind::Internal, "the contract was used already"));
        let declared = std::mem::replace(&mut self.declared, nothing)?;
        Ok(declared.manifest(&taken.sorted.report, taken.files())?)
    }

    fn entry(&self, name: &str, size_hint: u64, reader: Box<dyn Read + Send>) -> Result<Entry, Failure> {
        let path = RelPath::new(Path::new(META).join(name))
            .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name an entry", error))?;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mtime = Some(self.moment);
        let meta = Meta { mode: META_FILE_MODE, uid, gid, mtime, links: 1, ..Meta::default() };
        Ok(Entry { path, meta, body: Body::File { reader, size_hint, layout: Layout::Stream } })
    }
}

fn encoded(manifest: &IndexManifest) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(manifest).map_err(|error| {
        Failure::with_source(FailureKind::Internal, "failed to encode the manifest of the index", error)
    })
}

impl Summary {
    fn of(faults: &Faults, shards: &[ShardFacts], monitor: &dyn Monitor) -> Self {
        let mut unreadable = faults.named.clone();
        for fault in &faults.named {
            monitor.finding(Finding::new("record-unreadable", "index", fault.clone()));
        }
        let more = faults.count - faults.named.len() as u64;
        if more > 0 {
            monitor.finding(Finding::new(
                "findings-cut",
                "index",
                format!("{more} more lines are no records"),
            ));
            unreadable.push(format!("and {more} more lines"));
        }
        let shards = shards.iter().map(|shard| (format!("records/{}", shard.name), shard.records_count));
        Self { counts: shards.collect(), checksums: Vec::new(), unreadable, family: None }
    }
}

impl Capture for VectorCapture {
    fn order(&self) -> Order {
        self.inner.order()
    }

    fn total_bytes(&self) -> Option<u64> {
        self.inner.total_bytes()
    }

    fn next_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        self.settle()?;
        if matches!(self.stage, Stage::Files(_)) {
            match self.inner.next_entry(monitor)? {
                Some(entry) => return Ok(Some(self.watched(entry))),
                None => self.close(monitor)?,
            }
        }
        match &mut self.stage {
            Stage::Meta(entries, _) => Ok(entries.pop_front()),
            _ => Err(Failure::new(FailureKind::Internal, "the capture has already failed")),
        }
    }

    fn lost(&mut self, path: &RelPath, why: &str) {
        self.pending = None;
        match self.stage {
            Stage::Files(_) => self.inner.lost(path, why),
            // What was promised about manifest and records is not true.
            _ => self.stage = Stage::Broken,
        }
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        let summary = match self.stage {
            Stage::Meta(entries, summary) if entries.is_empty() => summary,
            _ => return Err(Failure::new(FailureKind::Internal, "the capture was not read to its end")),
        };
        let mut facts = self.inner.finish()?;
        facts.counts.extend(summary.counts);
        let sums = summary.checksums.into_iter();
        facts.checksums.extend(sums.map(|(name, digest)| (name, format!("sha256:{digest}"))));
        if let Some(family) = summary.family {
            facts.environment.insert("index_family".to_owned(), family.into());
        }
        facts.unreadable.extend(summary.unreadable);
        Ok(facts)
    }
}
