//! Objects in memory: for tests and for assembling a vault before its first object is written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_base::time::{Clock, SystemClock, Timestamp};

use super::{
    GovernanceBypass, Keeper, Listed, LockMode, LockTerm, Locked, ObjectLock, ObjectLocks, ObjectName,
    Storage, StorageError, WriteLock,
};

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectName, Arc<Vec<u8>>>,
    /// What is on objects, for those on which there is anything.
    locks: BTreeMap<ObjectName, ObjectLock>,
    locked: bool,
}

/// Objects in memory; clones share them. Locks single objects as object storage does.
#[derive(Clone)]
pub struct MemoryStorage(Arc<Mutex<State>>, Arc<dyn Clock>);

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::by_clock(Arc::new(SystemClock::new()))
    }
}

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

    /// The same, whose locks end by `clock`.
    pub fn by_clock(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::default(), clock)
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
        let mut state = self.state();
        if let Some(lock) = state.locks.get(name) {
            lock.permits(name, self.1.now())?;
        }
        state.locks.remove(name);
        match state.objects.remove(name) {
            Some(_) => Ok(()),
            None => Err(StorageError::NotFound { name: name.clone() }),
        }
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn object_locks(&self) -> Option<&dyn ObjectLocks> {
        Some(self)
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

impl MemoryStorage {
    /// Changes what is on an object that is there; gives what is on it then.
    fn change<T>(
        &self,
        name: &ObjectName,
        change: impl FnOnce(&mut ObjectLock) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut state = self.state();
        if !state.objects.contains_key(name) {
            return Err(StorageError::NotFound { name: name.clone() });
        }
        let none = ObjectLock { keeper: Keeper::Place, ..ObjectLock::NONE };
        change(state.locks.entry(name.clone()).or_insert(none))
    }
}

impl ObjectLocks for MemoryStorage {
    fn lock_of(&self, name: &ObjectName) -> Result<ObjectLock, StorageError> {
        self.change(name, |lock| Ok(lock.clone()))
    }

    fn refusal(&self, name: &ObjectName) -> Result<Option<String>, StorageError> {
        Ok(self.lock_of(name)?.refusal(self.1.now()))
    }

    fn locks(&self, prefix: &str) -> Result<Vec<(ObjectName, ObjectLock)>, StorageError> {
        let names = self.list(prefix)?.into_iter().map(|listed| listed.name);
        names.map(|name| Ok((name.clone(), self.lock_of(&name)?))).collect()
    }

    fn lock_until(&self, name: &ObjectName, term: LockTerm) -> Result<ObjectLock, StorageError> {
        self.change(name, |lock| {
            lock.locked = Locked::Term(lock.extended(term));
            Ok(lock.clone())
        })
    }

    fn set_held(&self, name: &ObjectName, held: bool) -> Result<ObjectLock, StorageError> {
        self.change(name, |lock| {
            lock.held = held;
            Ok(lock.clone())
        })
    }

    fn put_locked(&self, name: &ObjectName, pieces: &[&[u8]], term: LockTerm) -> Result<(), StorageError> {
        let mut state = self.state();
        if state.objects.contains_key(name) {
            return Err(StorageError::AlreadyExists { name: name.clone() });
        }
        let lock = ObjectLock { locked: Locked::Term(term), held: false, keeper: Keeper::Place };
        state.objects.insert(name.clone(), Arc::new(pieces.concat()));
        state.locks.insert(name.clone(), lock);
        Ok(())
    }

    fn lift(&self, name: &ObjectName, _bypass: GovernanceBypass) -> Result<(), StorageError> {
        let now = self.1.now();
        self.change(name, |lock| match lock.locked {
            Locked::Term(term) if term.mode == LockMode::Compliance && term.until > now => {
                lock.permits(name, Timestamp::MIN)
            }
            _ => {
                lock.locked = Locked::No;
                Ok(())
            }
        })
    }
}
