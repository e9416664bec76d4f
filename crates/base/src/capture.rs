//! What a capture is made of: the model an adapter produces, the vault stores, and a restore gives back.
//!
//! A capture is a stream of entries below two folders: `data/` is the store's content exactly as a restore must
//! give it back, `meta/` is what Lifeboat knows about it (inventory, schema, counts). Entries come in the order of
//! [`RelPath`] (parents before children, siblings by bytes, so `data` before `meta`), unless [`Capture::order`] says
//! otherwise.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::monitor::Monitor;
use crate::path::RelPath;
use crate::time::Timestamp;

/// The folder of a capture that holds the store's content.
pub const DATA: &str = "data";
/// The folder of a capture that holds what is known about it.
pub const META: &str = "meta";

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Its name, with the namespace, such as `user.origin`.
    pub name: OsString,
    /// Its value.
    pub value: Vec<u8>,
}

/// What a file system knows about an entry. Times are to the nanosecond; `mode` holds permission, setuid, setgid
/// and sticky bits only (`0o7777`), the file type is in [`Body`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name, where it is known.
    pub user: Option<String>,
    /// Group's name, where it is known.
    pub group: Option<String>,
    /// Last change of content.
    pub mtime: Option<Timestamp>,
    /// Last read; restored where it is present.
    pub atime: Option<Timestamp>,
    /// Last change of metadata; informational.
    pub ctime: Option<Timestamp>,
    /// Inode number on the source, for hard links.
    pub inode: u64,
    /// Device number on the source, for hard links.
    pub device: u64,
    /// Number of hard links on the source; entries with the same device and inode and more than one link are one file.
    pub links: u64,
    /// Extended attributes in the order of their names.
    pub xattrs: Vec<Xattr>,
}

/// How a file's bytes should be cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Content-defined cuts, for files and streams in which bytes move.
    Stream,
    /// Cuts at multiples of a page, for database files that change in place.
    Pages {
        /// The page size in bytes, a power of two.
        page_bytes: u32,
    },
    /// Cuts every so many bytes, for files that are parts of one database and share a size chosen for all of it.
    Fixed {
        /// The chunk size in bytes, a power of two of at least 4 KiB and at most 8 MiB.
        chunk_bytes: u32,
    },
}

/// What an entry is.
pub enum Body {
    /// A directory; its children follow it in the stream.
    Dir,
    /// A regular file. The reader is read to its end before the next entry is asked for.
    File {
        /// The content.
        reader: Box<dyn Read + Send>,
        /// The size expected, for progress and chunk sizing; the content decides.
        size_hint: u64,
        /// How to cut it.
        layout: Layout,
    },
    /// A symbolic link and its target, any bytes.
    Symlink(OsString),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device node.
    Device {
        /// A character device, else a block device.
        character: bool,
        /// The device number.
        rdev: u64,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir => f.write_str("Dir"),
            Self::File { size_hint, layout, .. } => write!(f, "File({size_hint}, {layout:?})"),
            Self::Symlink(target) => write!(f, "Symlink({})", target.display()),
            Self::Fifo => f.write_str("Fifo"),
            Self::Socket => f.write_str("Socket"),
            Self::Device { character, rdev } => write!(f, "Device({character}, {rdev})"),
        }
    }
}

/// One entry of a capture.
#[derive(Debug)]
pub struct Entry {
    /// Where it stands, below `data` or `meta`.
    pub path: RelPath,
    /// What the file system knows about it.
    pub meta: Meta,
    /// What it is.
    pub body: Body,
}

/// How far a capture can be trusted to show one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsistencyLevel {
    /// The store's own guarantee: every byte belongs to one committed moment.
    PointInTime,
    /// As after a power cut: the store recovers by itself.
    CrashConsistent,
    /// Taken while the store changed; the number of changes seen is in [`Consistency::changes`].
    Fuzzy,
}

/// The consistency of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consistency {
    /// How far it shows one moment.
    pub level: ConsistencyLevel,
    /// The moment it shows: every change committed before it is included.
    pub moment: Timestamp,
    /// The engine's own position at that moment (LSN, offset, change counter), if it has one.
    pub position: Option<String>,
    /// Items seen to change, appear, vanish or fail to read during the capture.
    pub changes: u64,
}

/// What an adapter knows about a capture once its last entry was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureFacts {
    /// How far the capture shows one moment.
    pub consistency: Consistency,
    /// Bytes of content read from the store.
    pub logical_bytes: u64,
    /// Counts a restore must reproduce exactly, such as `files` or `rows/orders`.
    pub counts: BTreeMap<String, u64>,
    /// Content checksums a restore must reproduce, such as `table/orders`; each value names its algorithm.
    pub checksums: BTreeMap<String, String>,
    /// Where it came from: engine version, page size, schema and migration history.
    pub environment: BTreeMap<String, serde_json::Value>,
    /// Items that could not be captured; a point with any is incomplete and shown as such.
    pub unreadable: Vec<String>,
}

/// The entry of [`CaptureFacts::environment`] that is `false` where nobody looked how much changed during the capture.
pub const MEASURED: &str = "consistency.measured";

impl CaptureFacts {
    /// Items seen to change during the capture; nothing where nobody looked, which is not the same as none.
    pub fn changes(&self) -> Option<u64> {
        let is_unknown = self.environment.get(MEASURED) == Some(&serde_json::Value::Bool(false));
        (!is_unknown).then_some(self.consistency.changes)
    }
}

/// The deepest folder that is captured; a vault follows no tree much deeper. Deeper ones are told as unreadable, not left to be
/// found out by a restore.
pub const MAX_TREE_DEPTH: usize = 2_000;

/// The order in which entries come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The order of [`RelPath`].
    Tree,
    /// The order in which the store gives them. Whoever stores them needs scratch space.
    Any,
}

/// A capture in progress. Dropping it releases whatever it holds on the store.
pub trait Capture: Send {
    /// The order of its entries.
    fn order(&self) -> Order {
        Order::Tree
    }

    /// The total content size in bytes, if it is known before reading.
    fn total_bytes(&self) -> Option<u64>;

    /// The next entry, or nothing at the end.
    ///
    /// A file that cannot be opened is not an entry: it goes to the monitor and to [`CaptureFacts::unreadable`]. A
    /// reader that fails half-way makes the vault leave the file out and call [`Capture::lost`].
    fn next_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure>;

    /// The file returned last could not be read to its end and is not part of the point.
    fn lost(&mut self, path: &RelPath, why: &str);

    /// What is known after the last entry.
    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure>;
}

/// What a stored entry is, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredKind {
    /// A directory.
    Dir,
    /// A regular file of this many bytes.
    File(u64),
    /// A symbolic link and its target.
    Symlink(OsString),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device node.
    Device {
        /// A character device, else a block device.
        character: bool,
        /// The device number.
        rdev: u64,
    },
}

/// An entry read back from a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Where it stands.
    pub path: RelPath,
    /// What the file system knew about it.
    pub meta: Meta,
    /// What it is.
    pub kind: StoredKind,
}

/// What a bulk restore did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaterializeStats {
    /// Files written.
    pub files: u64,
    /// Other entries made.
    pub others: u64,
    /// Content bytes that are there now, written or found.
    pub bytes: u64,
    /// Of them, bytes that were there already; only a restore over an earlier state finds any.
    #[serde(default)]
    pub kept_bytes: u64,
    /// Bytes read from the vault, as they are stored there.
    #[serde(default)]
    pub fetched_bytes: u64,
    /// Entries removed because the recovery point does not have them.
    #[serde(default)]
    pub removed: u64,
}

/// A recovery point opened for reading; every byte it gives has been authenticated.
pub trait RestoreSource: Send + Sync {
    /// Visits every entry below `under`, itself included unless it is the root, in capture order.
    fn walk(
        &self,
        under: &RelPath,
        visit: &mut dyn FnMut(StoredEntry) -> Result<(), Failure>,
    ) -> Result<(), Failure>;

    /// Opens one file for sequential reading. `Refused` if there is no such file.
    fn open(&self, path: &RelPath) -> Result<Box<dyn Read + Send + '_>, Failure>;

    /// Writes everything below `under` into the empty directory `into`, in parallel, with metadata, files synced.
    ///
    /// Nothing is ever written outside `into`. On any failure what was written stays where it is and the caller
    /// removes it; callers restore into a staging directory and publish it only on success.
    fn materialize(
        &self,
        under: &RelPath,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<MaterializeStats, Failure>;
}
