//! From a capture to sealed chunks in order: one reader, several workers, one receiver.
//!
//! The reader cuts files into chunks, the workers hash, compress and seal them, the receiver sees every item in the
//! order of the capture. Memory: [`IN_FLIGHT_BYTES`] of chunks and their sealed forms, at most [`MAX_IN_FLIGHT`] items.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::RwLock;

use crossbeam_channel::{Receiver, Sender, bounded};
use lifeboat_base::capture::{Body, Capture, CaptureFacts, Entry, Meta, StoredKind};
use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::{Entropy, OsEntropy};
use lifeboat_base::failure::chain;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;

use super::budget::Budget;
use super::chunker::{Chunker, CutError};
use crate::crypto::{MasterKey, NONCE_BYTES, OVERHEAD_BYTES};
use crate::error::VaultError;
use crate::format::index::BlobKind;
use crate::index::Index;
use crate::rustic::COMPRESSION_LEVEL;

/// Plain bytes between reader and receiver.
pub(super) const IN_FLIGHT_BYTES: usize = 16 * 1024 * 1024;
/// Items between reader and receiver.
pub(super) const MAX_IN_FLIGHT: usize = 1024;
/// What an item costs besides its bytes, so that empty files are bounded too.
const ITEM_BYTES: usize = IN_FLIGHT_BYTES / MAX_IN_FLIGHT;
/// The most worker threads.
pub(super) const MAX_WORKERS: usize = 16;
const CHANNEL_ITEMS: usize = 32;

/// A sealed blob, ready for a pack.
#[derive(Debug)]
pub(super) struct Sealed {
    pub bytes: Vec<u8>,
    pub uncompressed_length: Option<NonZeroU32>,
}

/// What the receiver sees, in the order of the capture.
#[derive(Debug)]
pub(super) enum Item {
    /// An entry without content, or the start of a file.
    Entry { path: RelPath, meta: Meta, kind: StoredKind },
    /// A chunk of the file that started last; no sealed form if the vault has it already.
    Chunk { id: Digest, plain_bytes: usize, sealed: Option<Sealed> },
    /// The end of the file that started last.
    FileEnd { size_bytes: u64 },
    /// The file that started last could not be read to its end.
    FileLost,
}

enum Work {
    Pass(Box<Item>),
    Chunk(Vec<u8>),
}

impl Work {
    fn pass(item: Item) -> Self {
        Self::Pass(Box::new(item))
    }
}

struct Numbered<T> {
    number: u64,
    cost: usize,
    what: T,
}

/// What all threads of a pipeline share.
pub(super) struct Shared<'a> {
    pub key: &'a MasterKey,
    pub index: &'a Index,
    /// Blobs added by this write.
    pub added: RwLock<HashSet<(BlobKind, Digest)>>,
    pub monitor: &'a dyn Monitor,
    pub budget: Budget,
}

impl<'a> Shared<'a> {
    pub(super) fn new(key: &'a MasterKey, index: &'a Index, monitor: &'a dyn Monitor) -> Self {
        Self { key, index, added: RwLock::default(), monitor, budget: Budget::new(IN_FLIGHT_BYTES) }
    }

    /// Whether a blob is stored or about to be.
    pub(super) fn known(&self, kind: BlobKind, id: &Digest) -> bool {
        self.index.holds(kind, id)
            || self.added.read().unwrap_or_else(std::sync::PoisonError::into_inner).contains(&(kind, *id))
    }

    /// Marks a blob as added; false if it was already.
    pub(super) fn add(&self, kind: BlobKind, id: Digest) -> bool {
        self.added.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert((kind, id))
    }
}

/// Compresses where it helps, and seals.
pub(super) fn seal(
    key: &MasterKey,
    compressor: &mut zstd::bulk::Compressor<'_>,
    plain: &[u8],
) -> Result<Sealed, VaultError> {
    let failed = |error| VaultError::Internal(format!("compression failed: {error}"));
    let compressed = compressor.compress(plain).map_err(failed)?;
    let smaller = compressed.len() < plain.len();
    let body = if smaller { compressed.as_slice() } else { plain };
    let uncompressed_length =
        if smaller { u32::try_from(plain.len()).ok().and_then(NonZeroU32::new) } else { None };
    let mut bytes = Vec::with_capacity(body.len() + OVERHEAD_BYTES);
    bytes.resize(NONCE_BYTES, 0);
    OsEntropy.fill(&mut bytes);
    bytes.extend_from_slice(body);
    key.seal_in_place(&mut bytes);
    Ok(Sealed { bytes, uncompressed_length })
}

/// A fresh compressor at the repository's level.
pub(super) fn compressor() -> Result<zstd::bulk::Compressor<'static>, VaultError> {
    zstd::bulk::Compressor::new(COMPRESSION_LEVEL)
        .map_err(|error| VaultError::Internal(format!("no compressor: {error}")))
}

/// Runs the capture through the pipeline; `receive` sees the items in order on the calling thread.
///
/// An error of `receive` stops everything and is returned. If the capture fails, `receive` has seen everything that
/// came before.
pub(super) fn run(
    shared: &Shared<'_>,
    capture: Box<dyn Capture>,
    seed: u64,
    worker_count: usize,
    mut receive: impl FnMut(Item) -> Result<(), VaultError>,
) -> Result<Result<CaptureFacts, VaultError>, VaultError> {
    let (work_tx, work_rx) = bounded::<Numbered<Work>>(CHANNEL_ITEMS);
    let (done_tx, done_rx) = bounded::<Numbered<Result<Item, VaultError>>>(CHANNEL_ITEMS);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut reader = Reader { shared, sender: work_tx, number: 0 };
            reader.read_all(capture, &mut Chunker::new(seed))
        });
        let workers: Vec<_> = (0..worker_count.clamp(1, MAX_WORKERS))
            .map(|_| {
                let (work_rx, done_tx) = (work_rx.clone(), done_tx.clone());
                scope.spawn(move || worker(shared, &work_rx, &done_tx))
            })
            .collect();
        drop((work_rx, done_tx));
        let received = in_order(shared, &done_rx, &mut receive);
        if received.is_err() {
            shared.budget.close();
        }
        // Workers that still hold items must find the channel closed, not full.
        drop(done_rx);
        let facts = reader
            .join()
            .unwrap_or_else(|_panic| Err(VaultError::Internal("the capture's reader panicked".to_owned())));
        for worker in workers {
            // A worker that died left a gap, which the receiver reported.
            drop(worker.join());
        }
        received.map(|()| facts)
    })
}

fn in_order(
    shared: &Shared<'_>,
    done: &Receiver<Numbered<Result<Item, VaultError>>>,
    receive: &mut impl FnMut(Item) -> Result<(), VaultError>,
) -> Result<(), VaultError> {
    // Bounded by the budget: nothing beyond it is under way.
    let mut early = BTreeMap::new();
    let mut next = 0u64;
    for arrived in done {
        early.insert(arrived.number, (arrived.cost, arrived.what));
        while let Some((cost, item)) = early.remove(&next) {
            next += 1;
            receive(item?)?;
            shared.budget.give(cost);
        }
    }
    if early.is_empty() {
        Ok(())
    } else {
        Err(VaultError::Internal("a worker of the capture died".to_owned()))
    }
}

/// A worker that dies takes its item along: without this the reader would wait for its bytes forever.
struct CloseOnPanic<'a>(&'a Shared<'a>);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.budget.close();
        }
    }
}

fn worker(
    shared: &Shared<'_>,
    work: &Receiver<Numbered<Work>>,
    done: &Sender<Numbered<Result<Item, VaultError>>>,
) {
    let _guard = CloseOnPanic(shared);
    let mut compressor = compressor();
    for Numbered { number, cost, what } in work {
        let what = match (what, &mut compressor) {
            (Work::Pass(item), _) => Ok(*item),
            (Work::Chunk(plain), Ok(compressor)) => seal_chunk(shared, compressor, &plain),
            (Work::Chunk(_), Err(_)) => Err(VaultError::Internal("no compressor".to_owned())),
        };
        if done.send(Numbered { number, cost, what }).is_err() {
            return;
        }
    }
}

fn seal_chunk(
    shared: &Shared<'_>,
    compressor: &mut zstd::bulk::Compressor<'_>,
    plain: &[u8],
) -> Result<Item, VaultError> {
    let id = Digest::of(plain);
    let sealed =
        if shared.known(BlobKind::Data, &id) { None } else { Some(seal(shared.key, compressor, plain)?) };
    Ok(Item::Chunk { id, plain_bytes: plain.len(), sealed })
}

struct Reader<'a> {
    shared: &'a Shared<'a>,
    sender: Sender<Numbered<Work>>,
    number: u64,
}

impl Reader<'_> {
    fn send(&mut self, what: Work, bytes: usize) -> Result<(), VaultError> {
        if self.shared.monitor.cancelled() {
            return Err(VaultError::Cancelled);
        }
        let cost = bytes + ITEM_BYTES;
        let number = self.number;
        self.number += 1;
        // Whoever closed the budget or the channel has the error that matters.
        if self.shared.budget.take(cost) && self.sender.send(Numbered { number, cost, what }).is_ok() {
            Ok(())
        } else {
            Err(VaultError::Cancelled)
        }
    }

    fn read_all(
        &mut self,
        mut capture: Box<dyn Capture>,
        chunker: &mut Chunker,
    ) -> Result<CaptureFacts, VaultError> {
        while let Some(entry) = capture.next_entry(self.shared.monitor).map_err(VaultError::Capture)? {
            self.entry(entry, capture.as_mut(), chunker)?;
        }
        capture.finish().map_err(VaultError::Capture)
    }

    fn entry(
        &mut self,
        entry: Entry,
        capture: &mut dyn Capture,
        chunker: &mut Chunker,
    ) -> Result<(), VaultError> {
        let Entry { path, meta, body } = entry;
        let (mut reader, size_hint, layout) = match body {
            Body::File { reader, size_hint, layout } => (reader, size_hint, layout),
            other => {
                let kind = stored_kind(other);
                return self.send(Work::pass(Item::Entry { path, meta, kind }), 0);
            }
        };
        let kind = StoredKind::File(0);
        self.send(Work::pass(Item::Entry { path: path.clone(), meta, kind }), 0)?;
        let cut = chunker
            .cut(&mut reader, size_hint, layout, |chunk| self.send(Work::Chunk(chunk.to_vec()), chunk.len()));
        match cut {
            Ok(size_bytes) => self.send(Work::pass(Item::FileEnd { size_bytes }), 0),
            Err(CutError::Receiver(error)) => Err(error),
            Err(CutError::Read(error)) => {
                let why = chain(&error);
                capture.lost(&path, &why);
                self.shared.monitor.finding(Finding::new(
                    "file-unreadable",
                    path.to_string(),
                    format!("the file could not be read to its end and is not part of the point: {why}"),
                ));
                self.send(Work::pass(Item::FileLost), 0)
            }
        }
    }
}

fn stored_kind(body: Body) -> StoredKind {
    match body {
        Body::Dir => StoredKind::Dir,
        Body::File { size_hint, .. } => StoredKind::File(size_hint),
        Body::Symlink(target) => StoredKind::Symlink(Path::new(&target).as_os_str().to_owned()),
        Body::Fifo => StoredKind::Fifo,
        Body::Socket => StoredKind::Socket,
        Body::Device { character, rdev } => StoredKind::Device { character, rdev },
    }
}
