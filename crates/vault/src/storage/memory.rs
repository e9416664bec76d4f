//! Objects in memory: for tests and for assembling a vault before its first object is written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Listed, ObjectName, Storage, StorageError, WriteLock};

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectName, Arc<Vec<u8>>>,
    locked: bool,
}

/// Objects in memory; clones share them.
#[derive(Clone, Default)]
pub struct MemoryStorage(Arc<Mutex<State>>);

impl std::fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryStorage")
    }
}

struct MemoryLock(MemoryStorage);

impl std::fmt::Debug for MemoryLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryLock")
    }
}

impl WriteLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

impl MemoryStorage {
    /// An empty place.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, name: &ObjectName) -> Result<Arc<Vec<u8>>, StorageError> {
        let found = self.state().objects.get(name).cloned();
        found.ok_or_else(|| StorageError::NotFound { name: name.clone() })
    }

    /// Replaces an object's bytes behind the vault's back, as a failing disk or an attacker would.
    pub fn tamper(&self, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) -> Result<(), StorageError> {
        let mut bytes = self.object(name)?.as_ref().clone();
        change(&mut bytes);
        self.state().objects.insert(name.clone(), Arc::new(bytes));
        Ok(())
    }
}

impl Storage for MemoryStorage {
    fn put_new(&self, name: &ObjectName, pieces: &[&[u8]]) -> Result<(), StorageError> {
        let mut state = self.state();
        if state.objects.contains_key(name) {
            return Err(StorageError::AlreadyExists { name: name.clone() });
        }
        state.objects.insert(name.clone(), Arc::new(pieces.concat()));
        Ok(())
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StorageError> {
        Ok(self.object(name)?.as_ref().clone())
    }

    fn get_range(&self, name: &ObjectName, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        let object = self.object(name)?;
        usize::try_from(offset)
            .ok()
            .and_then(|start| object.get(start..start.checked_add(length)?))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| StorageError::TooShort { name: name.clone() })
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StorageError> {
        let state = self.state();
        let objects = state.objects.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
        Ok(objects
            .map(|(name, bytes)| Listed { name: name.clone(), size_bytes: bytes.len() as u64 })
            .collect())
    }

    fn stat(&self, name: &ObjectName) -> Result<Option<u64>, StorageError> {
        Ok(self.state().objects.get(name).map(|bytes| bytes.len() as u64))
    }

    fn remove(&self, name: &ObjectName) -> Result<(), StorageError> {
        match self.state().objects.remove(name) {
            Some(_) => Ok(()),
            None => Err(StorageError::NotFound { name: name.clone() }),
        }
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self) -> Result<Box<dyn WriteLock>, StorageError> {
        let mut state = self.state();
        if state.locked {
            return Err(StorageError::Busy { location: self.location() });
        }
        state.locked = true;
        drop(state);
        Ok(Box::new(MemoryLock(self.clone())))
    }

    fn make_folders(&self, _names: &[&str]) -> Result<(), StorageError> {
        Ok(())
    }
}
