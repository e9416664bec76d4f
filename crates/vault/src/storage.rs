//! Where sealed objects live: a small trait of write-once objects, and its implementations.
//!
//! In: object names and bytes that are already sealed. Out: the same bytes, or a typed error.
//! Invariant: nothing here knows a key, and no object is ever overwritten.

mod error;
mod file;
mod locks;
mod mark;
mod memory;
mod name;

use std::fmt;

pub use self::error::StorageError;
pub use self::file::FileStorage;
pub use self::locks::{GovernanceBypass, Keeper, LockMode, LockTerm, Locked, ObjectLock, ObjectLocks};
pub use self::memory::MemoryStorage;
pub use self::name::{InvalidObjectName, MAX_NAME_BYTES, ObjectName};

/// The largest object that is read in one piece; a larger one is refused instead of filling the memory.
pub const MAX_OBJECT_BYTES: u64 = 512 * 1024 * 1024;

/// One object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name.
    pub name: ObjectName,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// Held while the only writer of a vault works; dropping it, or the death of the process, gives it up.
pub trait WriteLock: Send + fmt::Debug {}

/// A place of write-once objects. Every method may be called from several threads at once.
///
/// A place that is not there answers `Missing` to everything but [`Storage::make_folders`], which makes it: what cannot be
/// looked at is never taken for empty, and nothing is written to where a disk would be mounted.
pub trait Storage: Send + Sync {
    /// Stores the concatenation of `pieces`: visible whole or not at all, durable when this returns `Ok`.
    ///
    /// Never overwrites: `AlreadyExists` leaves the stored object as it is. After any other error the object may
    /// or may not exist; the caller finds out with [`Storage::stat`].
    fn put_new(&self, name: &ObjectName, pieces: &[&[u8]]) -> Result<(), StorageError>;

    /// The whole object, at most [`MAX_OBJECT_BYTES`].
    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StorageError>;

    /// Exactly `length` bytes from `offset`; `TooShort` if the object ends before.
    fn get_range(&self, name: &ObjectName, offset: u64, length: usize) -> Result<Vec<u8>, StorageError>;

    /// Every object whose name starts with `prefix` (empty, or ending in `/`), in the order of names.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StorageError>;

    /// The object's size in bytes, or nothing if there is no such object.
    fn stat(&self, name: &ObjectName) -> Result<Option<u64>, StorageError>;

    /// Deletes an object; `NotFound` if there is none, `Locked` while a lock or a hold is on it.
    fn remove(&self, name: &ObjectName) -> Result<(), StorageError>;

    /// Where this is, for people; holds no secret.
    fn location(&self) -> String;

    /// Things found here that are not objects: leftovers of killed writes, links, names no object can have.
    fn strays(&self) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }

    /// Locks of single objects, if this place has any.
    fn object_locks(&self) -> Option<&dyn ObjectLocks> {
        None
    }

    /// Becomes the only writer, or answers `Busy` at once.
    fn lock(&self) -> Result<Box<dyn WriteLock>, StorageError>;

    /// Makes the place if it is not there, and the folders `names` visible where folders exist, so that other tools find
    /// the layout they expect.
    fn make_folders(&self, names: &[&str]) -> Result<(), StorageError>;
}
