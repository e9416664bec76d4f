//! One conformance suite for every storage, and a storage that fails on command.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a helper of a test that fails, fails the test; a disk is taken away by moving its folder"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lifeboat_base::failure::FailureKind;
use lifeboat_vault::storage::{
    FileStorage, GovernanceBypass, Listed, LockTerm, MemoryStorage, ObjectLock, ObjectLocks, ObjectName,
    Storage, StorageError, WriteLock,
};

pub(crate) fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// What every storage must do.
fn conforms(storage: &dyn Storage) {
    let (one, two) = (name("data/aa01"), name("lifeboat/points/pt-1.json"));
    storage.make_folders(&[]).unwrap();
    assert_eq!(storage.list("").unwrap(), []);
    assert_eq!(storage.stat(&one).unwrap(), None);
    assert!(matches!(storage.get(&one), Err(StorageError::NotFound { .. })));
    assert!(matches!(storage.get_range(&one, 0, 1), Err(StorageError::NotFound { .. })));
    assert!(matches!(storage.remove(&one), Err(StorageError::NotFound { .. })));

    storage.put_new(&one, &[b"hel", b"", b"lo"]).unwrap();
    storage.put_new(&two, &[]).unwrap();
    assert_eq!(storage.get(&one).unwrap(), b"hello");
    assert_eq!(storage.get(&two).unwrap(), b"");
    assert_eq!(storage.stat(&one).unwrap(), Some(5));
    assert_eq!(storage.get_range(&one, 1, 3).unwrap(), b"ell");
    assert_eq!(storage.get_range(&one, 5, 0).unwrap(), b"");
    for (offset, length) in [(0, 6), (5, 1), (u64::MAX, 1), (3, usize::MAX)] {
        let answer = storage.get_range(&one, offset, length);
        assert!(matches!(answer, Err(StorageError::TooShort { .. })), "{offset} {length}");
    }

    assert!(matches!(storage.put_new(&one, &[b"other"]), Err(StorageError::AlreadyExists { .. })));
    assert_eq!(storage.get(&one).unwrap(), b"hello", "an object was overwritten");

    let listed = |prefix| storage.list(prefix).unwrap();
    let both = [Listed { name: one.clone(), size_bytes: 5 }, Listed { name: two.clone(), size_bytes: 0 }];
    assert_eq!(listed(""), both);
    assert_eq!(listed("data/"), both[..1]);
    assert_eq!(listed("lifeboat/points/"), both[1..]);
    assert_eq!(listed("index/"), []);
    assert_eq!(storage.strays().unwrap(), Vec::<String>::new());

    let lock = storage.lock().unwrap();
    assert!(matches!(storage.lock(), Err(StorageError::Busy { .. })));
    drop(lock);
    drop(storage.lock().unwrap());

    storage.make_folders(&["index", "locks"]).unwrap();
    storage.make_folders(&["index", "locks"]).unwrap();
    assert_eq!(listed("index/"), []);
    storage.remove(&one).unwrap();
    assert_eq!(storage.stat(&one).unwrap(), None);
    storage.put_new(&one, &[b"again"]).unwrap();
    assert_eq!(storage.get(&one).unwrap(), b"again");
    assert!(!storage.location().is_empty());
}

#[test]
fn every_storage_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&FileStorage::new(dir.path().join("not/there/yet")));
    conforms(&MemoryStorage::new());
    conforms(&FaultyStorage::new(Arc::new(MemoryStorage::new())));
}

/// A disk that is not mounted looks like this: nothing is known of it, and nothing is written to where it would be.
#[test]
fn a_place_that_is_not_there_is_neither_empty_nor_made_by_anything_but_its_making() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("disk/vault");
    let storage = FileStorage::new(&root);
    let one = name("data/aa01");
    let missing = |answer: Result<(), StorageError>| matches!(answer, Err(StorageError::Missing { .. }));
    let asked = || {
        assert!(missing(storage.list("").map(drop)));
        assert!(missing(storage.list("data/").map(drop)));
        assert!(missing(storage.stat(&one).map(drop)));
        assert!(missing(storage.get(&one).map(drop)));
        assert!(missing(storage.get_range(&one, 0, 1).map(drop)));
        assert!(missing(storage.remove(&one)));
        assert!(missing(storage.put_new(&one, &[b"x"])));
        assert!(missing(storage.lock().map(drop)));
        assert!(!root.exists());
    };
    asked();
    storage.make_folders(&[]).unwrap();
    storage.put_new(&one, &[b"x"]).unwrap();
    let lock = storage.lock().unwrap();
    std::fs::rename(dir.path().join("disk"), dir.path().join("away")).unwrap();
    asked();
    drop(lock);
    assert_eq!(StorageError::Missing { location: String::new() }.kind(), FailureKind::Unreachable);
}

#[test]
fn a_folder_that_is_a_link_is_neither_read_nor_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::create_dir_all(outside.join("aa")).unwrap();
    let storage = FileStorage::new(dir.path().join("vault"));
    storage.make_folders(&["index"]).unwrap();
    std::os::unix::fs::symlink(&outside, dir.path().join("vault/data")).unwrap();
    let one = name("data/aa01");
    let refused = |answer: Result<(), StorageError>| match answer {
        Err(error) => lifeboat_base::failure::chain(&error).contains("is a link"),
        Ok(()) => false,
    };
    assert!(refused(storage.put_new(&one, &[b"x"])));
    assert!(refused(storage.get(&one).map(drop)));
    assert!(refused(storage.stat(&one).map(drop)));
    assert!(refused(storage.remove(&one)));
    assert!(refused(storage.list("data/").map(drop)));
    assert!(refused(storage.make_folders(&["data"])));
    assert_eq!(std::fs::read_dir(outside.join("aa")).unwrap().count(), 0, "written out of the vault");
    assert_eq!(storage.strays().unwrap(), ["data"], "a link is named as what it is: no part of the vault");
}

#[test]
fn files_stand_where_other_tools_expect_them_and_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let storage = FileStorage::new(dir.path().join("vault"));
    storage.make_folders(&[]).unwrap();
    storage.put_new(&name("data/abcd"), &[b"x"]).unwrap();
    let file = dir.path().join("vault/data/ab/abcd");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let parent = std::fs::metadata(file.parent().unwrap()).unwrap();
    assert_eq!(parent.permissions().mode() & 0o777, 0o700);
}

#[test]
fn strays_are_shown_and_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FileStorage::new(dir.path());
    storage.make_folders(&["index"]).unwrap();
    std::fs::File::create(dir.path().join("index/.lifeboat-tmp-1-1")).unwrap();
    std::fs::File::create(dir.path().join("with space")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("config")).unwrap();
    assert_eq!(storage.strays().unwrap(), ["config", "index/.lifeboat-tmp-1-1", "with space"]);
    assert_eq!(storage.list("").unwrap(), []);
    assert_eq!(storage.stat(&name("config")).unwrap(), None);
    assert!(storage.get(&name("config")).is_err());
}

#[test]
fn a_path_that_is_a_file_and_a_full_disk_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::File::create(&file).unwrap();
    let storage = FileStorage::new(&file);
    let error = storage.put_new(&name("config"), &[b"x"]).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Unreachable, "{error}");
    let full = StorageError::from_io("x", "y", std::io::Error::from_raw_os_error(28));
    assert!(full.to_string().contains("no space left") && full.kind() == FailureKind::Internal);
    let read_only = StorageError::from_io("x", "y", std::io::Error::from_raw_os_error(30));
    assert_eq!(read_only.kind(), FailureKind::Unreachable);
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This call only, without doing anything.
    Once,
    /// This call only, after it did its work.
    Lie,
    /// This call and all after it, as after a kill.
    Dead,
}

pub(crate) const FAULTS: [Fault; 3] = [Fault::Once, Fault::Lie, Fault::Dead];

/// Fails on command.
pub(crate) struct FaultyStorage {
    inner: Arc<dyn Storage>,
    calls: AtomicU64,
    plan: Mutex<(u64, Fault)>,
}

impl FaultyStorage {
    pub(crate) fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, calls: AtomicU64::new(0), plan: Mutex::new((u64::MAX, Fault::Once)) }
    }

    /// The `number`th call from now on fails.
    pub(crate) fn fail_at(&self, number: u64, fault: Fault) {
        *self.plan.lock().unwrap() = (number, fault);
        self.calls.store(0, Ordering::SeqCst);
    }

    /// Works again. Gives whether the planned call was reached.
    pub(crate) fn heal(&self) -> bool {
        let mut plan = self.plan.lock().unwrap();
        let reached = self.calls.load(Ordering::SeqCst) > plan.0;
        *plan = (u64::MAX, Fault::Once);
        reached
    }

    fn call<T>(&self, work: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let (fail_at, fault) = *self.plan.lock().unwrap();
        if number < fail_at || (number > fail_at && fault != Fault::Dead) {
            return work();
        }
        if fault == Fault::Lie {
            drop(work());
        }
        Err(StorageError::from_io("call", "faulty", std::io::Error::other("planned failure")))
    }
}

impl Storage for FaultyStorage {
    fn put_new(&self, name: &ObjectName, pieces: &[&[u8]]) -> Result<(), StorageError> {
        self.call(|| self.inner.put_new(name, pieces))
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StorageError> {
        self.call(|| self.inner.get(name))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, length: usize) -> Result<Vec<u8>, StorageError> {
        self.call(|| self.inner.get_range(name, offset, length))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StorageError> {
        self.call(|| self.inner.list(prefix))
    }

    fn stat(&self, name: &ObjectName) -> Result<Option<u64>, StorageError> {
        self.call(|| self.inner.stat(name))
    }

    fn remove(&self, name: &ObjectName) -> Result<(), StorageError> {
        self.call(|| self.inner.remove(name))
    }

    fn location(&self) -> String {
        "faulty".to_owned()
    }

    fn object_locks(&self) -> Option<&dyn ObjectLocks> {
        self.inner.object_locks().map(|_locks| self as &dyn ObjectLocks)
    }

    fn lock(&self) -> Result<Box<dyn WriteLock>, StorageError> {
        self.call(|| self.inner.lock())
    }

    fn make_folders(&self, names: &[&str]) -> Result<(), StorageError> {
        self.call(|| self.inner.make_folders(names))
    }
}

impl FaultyStorage {
    fn locking<T>(
        &self,
        work: impl FnOnce(&dyn ObjectLocks) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.call(|| work(self.inner.object_locks().unwrap()))
    }
}

impl ObjectLocks for FaultyStorage {
    fn lock_of(&self, name: &ObjectName) -> Result<ObjectLock, StorageError> {
        self.locking(|locks| locks.lock_of(name))
    }

    fn refusal(&self, name: &ObjectName) -> Result<Option<String>, StorageError> {
        self.locking(|locks| locks.refusal(name))
    }

    fn locks(&self, prefix: &str) -> Result<Vec<(ObjectName, ObjectLock)>, StorageError> {
        self.locking(|locks| locks.locks(prefix))
    }

    fn lock_until(&self, name: &ObjectName, term: LockTerm) -> Result<ObjectLock, StorageError> {
        self.locking(|locks| locks.lock_until(name, term))
    }

    fn set_held(&self, name: &ObjectName, held: bool) -> Result<ObjectLock, StorageError> {
        self.locking(|locks| locks.set_held(name, held))
    }

    fn put_locked(&self, name: &ObjectName, pieces: &[&[u8]], term: LockTerm) -> Result<(), StorageError> {
        self.locking(|locks| locks.put_locked(name, pieces, term))
    }

    fn lift(&self, name: &ObjectName, bypass: GovernanceBypass) -> Result<(), StorageError> {
        self.locking(|locks| locks.lift(name, bypass))
    }
}
