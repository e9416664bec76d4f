//! Writing a capture: one pass, deduplicated, compressed, sealed, packed, confirmed, indexed; the snapshot last.
//!
//! Peak memory, whatever the size of the store: 16 MiB read buffer, 16 MiB of chunks under way and as much again of
//! their sealed forms, up to 48 MiB of packs, the index at about 100 bytes per known blob, and the listings of the
//! open directories at about 400 bytes per entry; for a capture in any order also about 150 bytes per entry of all.
//! Invariant: on any error nothing that was written is visible as a snapshot, and what is stored is found again by
//! the next run.

mod arrange;
mod budget;
pub mod chunker;
mod leftover;
mod packer;
mod pipeline;
mod rewrite;
mod tree;

use std::path::PathBuf;

use crossbeam_channel::bounded;
use lifeboat_base::capture::{Capture, CaptureFacts, Order, StoredKind};
use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::{PointId, StoreName};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::{TimeZone, Timestamp};
use rustic_core::repofile::{DeleteOption, SnapshotFile, StringList};
use serde::{Deserialize, Serialize};

use self::arrange::{Arranger, Assembly};
use self::packer::{PackSender, PackStats, PackWriter};
use self::pipeline::{Item, Shared};
use self::tree::TreeBuilder;
use crate::check::Resolver;
use crate::error::{StorageContext, VaultError};
use crate::format::index::BlobKind;
use crate::format::node::to_id;
use crate::format::{document, node};
use crate::index::Index;
use crate::layout;
use crate::points::SnapshotId;
use crate::retire::Retired;
use crate::vault::Vault;

pub use self::packer::PACK_BYTES;
pub(crate) use self::packer::put_confirmed;
pub(crate) use self::rewrite::rewrite;

/// The program name in snapshots.
const PROGRAM: &str = concat!("lifeboat ", env!("CARGO_PKG_VERSION"));
/// The tag every snapshot of ours bears.
pub const TAG: &str = "lifeboat";
/// The prefix of the tag that names a snapshot's recovery point.
pub const POINT_TAG_PREFIX: &str = "point:";

/// What a snapshot says about itself besides its content.
#[derive(Clone, Debug)]
pub struct SnapshotStamp {
    /// The recovery point it will belong to.
    pub point: PointId,
    /// The store.
    pub store: StoreName,
    /// The machine the store is on.
    pub host: String,
    /// Who took it.
    pub user: String,
    /// When the capture started.
    pub time: Timestamp,
    /// The snapshot of the point before it, for people who look with other tools.
    pub parent: Option<SnapshotId>,
}

/// How a capture is written.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Threads that hash, compress and seal; 1 to 16.
    pub workers: usize,
    /// An existing directory for the listings of a capture that comes in any order.
    pub spool: PathBuf,
}

impl WriteOptions {
    /// One worker per processor.
    pub fn new(spool: impl Into<PathBuf>) -> Self {
        let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { workers, spool: spool.into() }
    }
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The snapshot, stored but not yet part of any recovery point.
    pub snapshot: SnapshotId,
    /// What the adapter knew at the end.
    pub facts: CaptureFacts,
    /// Files in the snapshot.
    pub file_count: u64,
    /// Bytes of content in the snapshot.
    pub logical_bytes: u64,
    /// Bytes of content and listings that were not stored before.
    pub new_bytes: u64,
    /// Bytes added to the vault, after compression.
    pub stored_bytes: u64,
    /// Chunks and listings that were not stored before.
    pub new_blobs: u64,
    /// Packs written.
    pub packs: u64,
    /// Packs of an interrupted run that were found and used.
    pub adopted_packs: u64,
}

#[derive(Default)]
struct Totals {
    file_count: u64,
    logical_bytes: u64,
    new_bytes: u64,
    new_blobs: u64,
}

impl Vault {
    /// Stores a capture as a snapshot. The caller then seals the recovery point; until then the snapshot belongs to none.
    ///
    /// Takes the vault's write lock; `Refused` if another writer has it. A file that cannot be read is left out,
    /// reported, and told to the capture. Any storage error ends the write.
    pub fn write(
        &self,
        capture: Box<dyn Capture>,
        stamp: &SnapshotStamp,
        options: &WriteOptions,
        monitor: &dyn Monitor,
    ) -> Result<Written, VaultError> {
        let _lock = self.storage.lock().doing(|| "start writing".to_owned())?;
        self.self_test()?;
        self.config()?;
        let retired = self.retired()?;
        let mut index = Index::load(self.storage.as_ref(), &self.key, &retired)?;
        for problem in &index.problems {
            let finding = Finding::new("object-damaged", problem.object.to_string(), problem.why.clone());
            monitor.finding(finding.with_kind(FailureKind::Damaged));
        }
        let adopted_packs =
            leftover::adopt(self.storage.as_ref(), &self.key, &mut index, stamp.time, monitor)?;
        monitor.phase(&format!("storing {}", stamp.store), capture.total_bytes());
        let stored = self.store_capture(capture, &index, (options, stamp.time), monitor)?;
        // What cannot be read back because retention took it is no damage.
        self.read_back(&stored.tree).or_else(|error| self.fence(&retired, &stored.tree).and(Err(error)))?;
        let (id, snapshot_bytes) = store_snapshot(self, stamp, &stored.tree)?;
        self.fence(&retired, &stored.tree)?;
        Ok(Written {
            snapshot: id,
            facts: stored.facts,
            file_count: stored.totals.file_count,
            logical_bytes: stored.totals.logical_bytes,
            new_bytes: stored.totals.new_bytes,
            stored_bytes: stored.packs.stored_bytes + snapshot_bytes,
            new_blobs: stored.totals.new_blobs,
            packs: stored.packs.packs,
            adopted_packs,
        })
    }

    /// What was marked for removal since this write looked at the index may hold what it relied on. The snapshot is
    /// visible by now: who marks later sees it, and who marked before is seen here. No clock has a part in it.
    fn fence(&self, known: &Retired, tree: &Digest) -> Result<(), VaultError> {
        let now = self.retired()?;
        if now.names() == known.names() {
            return Ok(());
        }
        Resolver::new(self, &now)?.prove_tree(*tree).map_err(|error| match error.kind() {
            FailureKind::Damaged => VaultError::Refused(format!(
                "retention took away what this capture relied on while it ran ({error}); run it again"
            )),
            _ => error,
        })
    }

    /// Reads the root listing back through the storage, as a restore would: a key or storage that cannot is noticed now.
    fn read_back(&self, tree: &Digest) -> Result<(), VaultError> {
        self.blob_reader()?.tree(tree).map(drop)
    }

    fn store_capture(
        &self,
        capture: Box<dyn Capture>,
        index: &Index,
        (options, started): (&WriteOptions, Timestamp),
        monitor: &dyn Monitor,
    ) -> Result<Stored, VaultError> {
        let shared = Shared::new(&self.key, index, monitor);
        let tree = match capture.order() {
            Order::Tree => Assembly::Sorted(TreeBuilder::new()),
            Order::Any => Assembly::Arranged(Arranger::new(&options.spool)?),
        };
        // No queue: with the packs in assembly and the one being written, memory stays within its bound.
        let (pack_tx, pack_rx) = bounded(0);
        std::thread::scope(|scope| {
            let writer = PackWriter::new(self.storage.as_ref(), &self.key, Some(started));
            let writer = scope.spawn(move || writer.run(&pack_rx));
            let mut receiver = ItemReceiver::new(&shared, PackSender::new(pack_tx), tree)?;
            let seed = self.secrets.chunker_seed;
            let received = pipeline::run(&shared, capture, seed, options.workers, |item| receiver.take(item));
            // Whatever stopped the capture: what was packed is stored and indexed, the next run needs not send it again.
            let finished = match &received {
                Ok(Ok(_)) => receiver.finish().map(Some),
                _ => receiver.abandon().map(|()| None),
            };
            let packs = writer
                .join()
                .unwrap_or_else(|_panic| Err(VaultError::Internal("the pack writer panicked".to_owned())))?;
            let facts = received??;
            match finished? {
                Some((tree, totals)) => Ok(Stored { tree, totals, facts, packs }),
                None => Err(VaultError::Internal("a capture ended without a tree".to_owned())),
            }
        })
    }
}

struct Stored {
    tree: Digest,
    totals: Totals,
    facts: CaptureFacts,
    packs: PackStats,
}

/// Turns the items of a capture into packs and listings.
struct ItemReceiver<'a> {
    shared: &'a Shared<'a>,
    packs: PackSender,
    tree: Assembly,
    compressor: zstd::bulk::Compressor<'static>,
    totals: Totals,
}

impl<'a> ItemReceiver<'a> {
    fn new(shared: &'a Shared<'a>, packs: PackSender, tree: Assembly) -> Result<Self, VaultError> {
        let compressor = pipeline::compressor()?;
        Ok(Self { shared, packs, tree, compressor, totals: Totals::default() })
    }

    fn take(&mut self, item: Item) -> Result<(), VaultError> {
        match item {
            Item::Entry { path, meta, kind } => {
                for xattr in meta.xattrs.iter().filter(|xattr| !node::storable(xattr)) {
                    let name = xattr.name.to_string_lossy().into_owned();
                    self.shared.monitor.finding(Finding::new(
                        "attribute-left-out",
                        path.to_string(),
                        format!("the attribute {name:?} has a name that cannot be stored"),
                    ));
                }
                if !matches!(kind, StoredKind::File(_)) {
                    self.shared.monitor.advance(0, 1);
                }
                let mut store =
                    listing_store(self.shared, &mut self.packs, &mut self.compressor, &mut self.totals);
                self.tree.entry(&path, meta, &kind, &mut store)
            }
            Item::Chunk { id, plain_bytes, sealed } => {
                self.shared.monitor.advance(plain_bytes as u64, 0);
                if let Some(sealed) = sealed
                    && self.shared.add(BlobKind::Data, id)
                {
                    self.totals.new_blobs += 1;
                    self.totals.new_bytes += plain_bytes as u64;
                    self.packs.add(BlobKind::Data, id, sealed)?;
                }
                self.tree.chunk(id)
            }
            Item::FileEnd { size_bytes } => {
                self.shared.monitor.advance(0, 1);
                self.totals.file_count += 1;
                self.totals.logical_bytes += size_bytes;
                self.tree.file_end(size_bytes)
            }
            Item::FileLost => {
                self.tree.file_lost();
                Ok(())
            }
        }
    }

    /// Closes the tree and the packs.
    fn finish(self) -> Result<(Digest, Totals), VaultError> {
        let Self { shared, mut packs, tree, mut compressor, mut totals } = self;
        let mut store = listing_store(shared, &mut packs, &mut compressor, &mut totals);
        let root = tree.finish(&mut store)?;
        drop(store);
        packs.finish()?;
        Ok((root, totals))
    }

    /// Hands over what is packed without a tree.
    fn abandon(self) -> Result<(), VaultError> {
        self.packs.finish()
    }
}

/// Stores finished listings as blobs.
fn listing_store<'a>(
    shared: &'a Shared<'_>,
    packs: &'a mut PackSender,
    compressor: &'a mut zstd::bulk::Compressor<'static>,
    totals: &'a mut Totals,
) -> impl FnMut(Vec<u8>) -> Result<Digest, VaultError> + 'a {
    move |json| {
        let id = Digest::of(&json);
        if !shared.known(BlobKind::Tree, &id) && shared.add(BlobKind::Tree, id) {
            totals.new_blobs += 1;
            totals.new_bytes += json.len() as u64;
            packs.add(BlobKind::Tree, id, pipeline::seal(shared.key, compressor, &json)?)?;
        }
        Ok(id)
    }
}

/// Stores the snapshot file; gives its id and size.
pub(crate) fn store_snapshot(
    vault: &Vault,
    stamp: &SnapshotStamp,
    tree: &Digest,
) -> Result<(SnapshotId, u64), VaultError> {
    let (id, sealed) = document::seal(&vault.key, &snapshot_file(stamp, tree), &OsEntropy)?;
    let size_bytes = put_confirmed(vault.storage.as_ref(), &layout::snapshot(&id), &[&sealed])?;
    Ok((id, size_bytes))
}

/// Stores blobs without looking at them.
#[cfg(test)]
pub(crate) fn store_blobs(vault: &Vault, blobs: &[(BlobKind, &[u8])]) {
    let (sender, receiver) = bounded(blobs.len());
    let mut packs = PackSender::new(sender);
    let mut compressor = pipeline::compressor().unwrap();
    for (kind, plain) in blobs {
        let sealed = pipeline::seal(&vault.key, &mut compressor, plain).unwrap();
        packs.add(*kind, Digest::of(plain), sealed).unwrap();
    }
    packs.finish().unwrap();
    PackWriter::new(vault.storage.as_ref(), &vault.key, None).run(&receiver).unwrap();
}

fn snapshot_file(stamp: &SnapshotStamp, tree: &Digest) -> SnapshotFile {
    let mut paths = StringList::default();
    paths.add(format!("/{}", stamp.store));
    let mut tags = StringList::default();
    tags.add(TAG.to_owned());
    tags.add(format!("{POINT_TAG_PREFIX}{}", stamp.point));
    SnapshotFile {
        time: stamp.time.to_zoned(TimeZone::UTC),
        program_version: PROGRAM.to_owned(),
        parent: stamp.parent.map(|id| to_id(&id).into()),
        parents: Vec::new(),
        tree: to_id(tree).into(),
        label: String::new(),
        paths,
        hostname: stamp.host.clone(),
        username: stamp.user.clone(),
        uid: 0,
        gid: 0,
        tags,
        original: None,
        delete: DeleteOption::NotSet,
        summary: None,
        description: None,
        id: rustic_core::repofile::SnapshotId::default(),
    }
}
