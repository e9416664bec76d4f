//! What the vault's tests share: trees as values, captures of them, vaults over any storage, restic as an oracle.

#![expect(clippy::unwrap_used, reason = "a helper of a test that fails, fails the test")]

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, Consistency, ConsistencyLevel, Entry, Layout, Meta, Order, RestoreSource,
    Xattr,
};
use lifeboat_base::digest::Digest;
use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::Failure;
use lifeboat_base::ids::{PointId, StoreName, VaultId};
use lifeboat_base::monitor::{Findings, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::secret::Secret;
use lifeboat_base::time::Timestamp;
use lifeboat_keys::{Envelope, KeyFileRecipient, VaultSecrets};
use lifeboat_vault::storage::{Listed, ObjectLocks, ObjectName, Storage, StorageError, WriteLock};
use lifeboat_vault::{
    NewVault, POINT_FORMAT, PointManifest, SnapshotStamp, Vault, VaultError, WriteOptions, Written,
};

/// What an entry is, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Dir,
    File(Arc<Vec<u8>>),
    Paged(Arc<Vec<u8>>),
    Symlink(OsString),
    Fifo,
    Socket,
    /// Another name of the file that stands at this path.
    HardLink(Vec<u8>),
    /// A file that fails after these bytes.
    Broken(Arc<Vec<u8>>),
}

/// A tree: things by path bytes. Parents must be present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model(pub BTreeMap<RelPath, Thing>);

pub(crate) fn path(bytes: impl AsRef<[u8]>) -> RelPath {
    RelPath::new(OsStr::from_bytes(bytes.as_ref())).unwrap()
}

pub(crate) fn bytes_of(path: &RelPath) -> Vec<u8> {
    path.to_path().as_os_str().as_bytes().to_vec()
}

impl Model {
    pub(crate) fn new() -> Self {
        Self::default().with("data", Thing::Dir)
    }

    pub(crate) fn with(mut self, at: impl AsRef<[u8]>, thing: Thing) -> Self {
        self.0.insert(path(at), thing);
        self
    }

    pub(crate) fn file(self, at: impl AsRef<[u8]>, content: impl Into<Vec<u8>>) -> Self {
        self.with(at, Thing::File(Arc::new(content.into())))
    }

    /// What a restore of `data` must give.
    pub(crate) fn below_data(&self) -> BTreeMap<Vec<u8>, Thing> {
        let data = path("data");
        let resolve = |thing: &Thing| match thing {
            Thing::HardLink(target) => self.0[&path(target)].clone(),
            Thing::Paged(content) => Thing::File(content.clone()),
            other => other.clone(),
        };
        let below = self.0.iter().filter_map(|(at, thing)| Some((at.below(&data)?, thing)));
        below
            .filter(|(at, thing)| at.depth() > 0 && !matches!(thing, Thing::Broken(_)))
            .map(|(at, thing)| (bytes_of(&at), resolve(thing)))
            .collect()
    }

    pub(crate) fn capture(&self) -> ModelCapture {
        let mut inodes: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut links: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for (number, (at, thing)) in self.0.iter().enumerate() {
            inodes.insert(bytes_of(at), number as u64 + 100);
            if let Thing::HardLink(target) = thing {
                *links.entry(target.clone()).or_insert(1) += 1;
            }
        }
        let entries = self.0.iter().map(|(at, thing)| {
            let own = bytes_of(at);
            let file = if let Thing::HardLink(target) = thing { target.clone() } else { own };
            let meta = Meta {
                mode: if *thing == Thing::Dir { 0o750 } else { 0o640 },
                uid: 12,
                gid: 34,
                mtime: Timestamp::new(1_600_000_000, 123_456_789).ok(),
                atime: Timestamp::new(1_600_000_001, 987_654_321).ok(),
                inode: inodes[&file],
                device: 7,
                links: links.get(&file).copied().unwrap_or(1),
                xattrs: match thing {
                    Thing::File(_) => vec![Xattr { name: "user.origin".into(), value: b"\0model".to_vec() }],
                    _ => Vec::new(),
                },
                ..Meta::default()
            };
            Entry { path: at.clone(), meta, body: self.body(thing) }
        });
        ModelCapture { entries: entries.collect(), order: Order::Tree, lost: Arc::default() }
    }

    fn body(&self, thing: &Thing) -> Body {
        let file = |content: &Arc<Vec<u8>>, layout| Body::File {
            reader: Box::new(Cursor::new(content.as_ref().clone())),
            size_hint: content.len() as u64,
            layout,
        };
        match thing {
            Thing::Dir => Body::Dir,
            Thing::File(content) => file(content, Layout::Stream),
            Thing::Paged(content) => file(content, Layout::Pages { page_bytes: 4096 }),
            Thing::Symlink(target) => Body::Symlink(target.clone()),
            Thing::Fifo => Body::Fifo,
            Thing::Socket => Body::Socket,
            Thing::HardLink(target) => self.body(&self.0[&path(target)]),
            Thing::Broken(content) => Body::File {
                reader: Box::new(Cursor::new(content.as_ref().clone()).chain(Failing)),
                size_hint: 0,
                layout: Layout::Stream,
            },
        }
    }
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("the disk does not answer"))
    }
}

pub(crate) struct ModelCapture {
    pub(crate) entries: VecDeque<Entry>,
    pub(crate) order: Order,
    pub(crate) lost: Arc<Mutex<Vec<String>>>,
}

impl ModelCapture {
    /// The same entries, last first.
    pub(crate) fn backwards(mut self) -> Self {
        self.entries.make_contiguous().reverse();
        self.order = Order::Any;
        self
    }
}

impl Capture for ModelCapture {
    fn order(&self) -> Order {
        self.order
    }

    fn total_bytes(&self) -> Option<u64> {
        None
    }

    fn next_entry(&mut self, _monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        Ok(self.entries.pop_front())
    }

    fn lost(&mut self, path: &RelPath, _why: &str) {
        self.lost.lock().unwrap().push(path.to_string());
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        Ok(CaptureFacts {
            consistency: Consistency {
                level: ConsistencyLevel::PointInTime,
                moment: now(),
                position: None,
                changes: 0,
            },
            logical_bytes: 0,
            counts: BTreeMap::new(),
            checksums: BTreeMap::new(),
            environment: BTreeMap::new(),
            unreadable: self.lost.lock().unwrap().clone(),
        })
    }
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// When the point of that number was begun: one an hour.
pub(crate) fn begun(number: u32) -> Timestamp {
    now() + std::time::Duration::from_secs(3600) * number
}

/// Pseudo-random bytes that do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) struct Fixture {
    pub secrets: VaultSecrets,
    pub envelope: Envelope,
    pub store: StoreName,
    pub vault_id: VaultId,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let secrets = VaultSecrets::generate(&OsEntropy);
        let store = StoreName::new("orders").unwrap();
        let vault_id = VaultId::generate(&OsEntropy);
        let recipient = KeyFileRecipient::new(Secret::new([7; 32]), "test").unwrap();
        let envelope =
            Envelope::seal(vault_id.clone(), &store, now(), &secrets, &[&recipient], &OsEntropy).unwrap();
        Self { secrets, envelope, store, vault_id }
    }

    pub(crate) fn create(&self, storage: Arc<dyn Storage>) -> Result<Vault, VaultError> {
        let new = NewVault {
            store: &self.store,
            vault_id: &self.vault_id,
            secrets: &self.secrets,
            envelope: &self.envelope,
            created: now(),
        };
        Vault::create(storage, new, &OsEntropy)
    }

    pub(crate) fn open(&self, storage: Arc<dyn Storage>) -> Result<Vault, VaultError> {
        Vault::open(storage, self.secrets.clone(), &self.envelope)
    }
}

pub(crate) fn point_id(number: u32) -> PointId {
    PointId::new(format!("pt-{number:04}")).unwrap()
}

/// Writes and seals one point.
pub(crate) fn backup(
    vault: &Vault,
    number: u32,
    model: &Model,
    monitor: &dyn Monitor,
) -> Result<(PointManifest, Written), VaultError> {
    backup_capture(vault, number, model.capture(), monitor)
}

/// As [`backup`], at this moment, which the point shows.
pub(crate) fn backup_at(
    vault: &Vault,
    number: u32,
    model: &Model,
    at: Timestamp,
) -> Result<(PointManifest, Written), VaultError> {
    write_point(vault, number, model.capture(), &Findings::new(), (at, at))
}

pub(crate) fn backup_capture(
    vault: &Vault,
    number: u32,
    capture: ModelCapture,
    monitor: &dyn Monitor,
) -> Result<(PointManifest, Written), VaultError> {
    write_point(vault, number, capture, monitor, (begun(number), now()))
}

fn write_point(
    vault: &Vault,
    number: u32,
    capture: ModelCapture,
    monitor: &dyn Monitor,
    (started, moment): (Timestamp, Timestamp),
) -> Result<(PointManifest, Written), VaultError> {
    let stamp = SnapshotStamp {
        point: point_id(number),
        store: vault.store().clone(),
        host: "host".to_owned(),
        user: "user".to_owned(),
        time: started,
        parent: None,
    };
    let written = vault.write(
        Box::new(capture),
        &stamp,
        &WriteOptions { workers: 2, spool: std::env::temp_dir() },
        monitor,
    )?;
    let mut facts = written.facts.clone();
    facts.consistency.moment = moment;
    let manifest = PointManifest {
        format: POINT_FORMAT.to_owned(),
        id: point_id(number),
        store: vault.store().clone(),
        kind: "files".to_owned(),
        vault: vault.vault_id().clone(),
        policy_hash: Digest::of(b"policy"),
        snapshot: written.snapshot,
        parent: None,
        started,
        ended: started,
        facts,
        new_bytes: written.new_bytes,
        stored_bytes: written.stored_bytes,
        copies: Vec::new(),
        key_id: vault.secrets().signing.public().key_id(),
        tool: "test".to_owned(),
        evidence_head: None,
        evidence_key: None,
    };
    vault.seal_point(&manifest)?;
    Ok((manifest, written))
}

/// Restores the `data` folder of a point into a fresh directory and reads it back.
pub(crate) fn restore(vault: &Vault, manifest: &PointManifest) -> Result<BTreeMap<Vec<u8>, Thing>, Failure> {
    let target = tempfile::tempdir().unwrap();
    vault.open_point(manifest)?.materialize(&path("data"), target.path(), &Findings::new())?;
    Ok(read_tree(target.path()))
}

/// A directory as things by path.
pub(crate) fn read_tree(root: &Path) -> BTreeMap<Vec<u8>, Thing> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let at = entry.unwrap().path();
            let kind = std::fs::symlink_metadata(&at).unwrap().file_type();
            let thing = if kind.is_dir() {
                dirs.push(at.clone());
                Thing::Dir
            } else if kind.is_symlink() {
                Thing::Symlink(std::fs::read_link(&at).unwrap().into_os_string())
            } else if kind.is_fifo() {
                Thing::Fifo
            } else if kind.is_socket() {
                Thing::Socket
            } else {
                Thing::File(Arc::new(std::fs::read(&at).unwrap()))
            };
            all.insert(at.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), thing);
        }
    }
    all
}

/// The inode of every file below `root`, to compare hard links.
pub(crate) fn inode(root: &Path, at: &str) -> u64 {
    std::fs::symlink_metadata(root.join(at)).unwrap().ino()
}

/// Stock restic, which must be installed: an oracle that is missing proves nothing.
pub(crate) fn restic(vault: &Vault, arguments: &[&OsStr]) -> (bool, String) {
    let output = Command::new("restic")
        .arg("--repo")
        .arg(vault.storage().location())
        .arg("--no-cache")
        .args(arguments)
        .env("RESTIC_PASSWORD", vault.secrets().repository_password.expose())
        .output()
        .unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    (output.status.success(), text)
}

/// What a place does in its own way; all else it leaves to the place below it.
pub(crate) trait Ways: Send + Sync {
    fn put_new(&self, below: &dyn Storage, name: &ObjectName, pieces: &[&[u8]]) -> Result<(), StorageError> {
        below.put_new(name, pieces)
    }

    fn lock(&self, below: &dyn Storage) -> Result<Box<dyn WriteLock>, StorageError> {
        below.lock()
    }
}

/// A place with ways of its own.
pub(crate) struct Over<W: Ways>(pub Arc<dyn Storage>, pub W);

impl<W: Ways> Storage for Over<W> {
    fn put_new(&self, name: &ObjectName, pieces: &[&[u8]]) -> Result<(), StorageError> {
        self.1.put_new(self.0.as_ref(), name, pieces)
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StorageError> {
        self.0.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        self.0.get_range(name, offset, length)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StorageError> {
        self.0.list(prefix)
    }

    fn stat(&self, name: &ObjectName) -> Result<Option<u64>, StorageError> {
        self.0.stat(name)
    }

    fn remove(&self, name: &ObjectName) -> Result<(), StorageError> {
        self.0.remove(name)
    }

    fn location(&self) -> String {
        self.0.location()
    }

    fn object_locks(&self) -> Option<&dyn ObjectLocks> {
        self.0.object_locks()
    }

    fn lock(&self) -> Result<Box<dyn WriteLock>, StorageError> {
        self.1.lock(self.0.as_ref())
    }

    fn make_folders(&self, names: &[&str]) -> Result<(), StorageError> {
        self.0.make_folders(names)
    }
}

/// Something happens before each object that is stored.
pub(crate) struct OnPut<F: Fn(&ObjectName) + Send + Sync>(pub F);

impl<F: Fn(&ObjectName) + Send + Sync> Ways for OnPut<F> {
    fn put_new(&self, below: &dyn Storage, name: &ObjectName, pieces: &[&[u8]]) -> Result<(), StorageError> {
        (self.0)(name);
        below.put_new(name, pieces)
    }
}
