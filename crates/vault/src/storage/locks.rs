//! Locks of single objects: until when, or for whom, a place refuses to delete one.
//!
//! As object storage knows them: a retention with an end and a mode, which is extended and never shortened, and a legal hold
//! without an end. Invariant: what is not known of a lock counts as locked.

use std::fmt;

use lifeboat_base::time::Timestamp;

use super::{ObjectName, StorageError};

/// Who may lift a lock before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// Whoever has the right to bypass it, and says so in the call.
    Governance,
    /// Nobody.
    Compliance,
}

impl LockMode {
    /// The word for it, as object storage writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Said by whoever lifts a lock in governance mode on purpose; nothing in this program does so by itself.
#[derive(Clone, Copy, Debug)]
pub struct GovernanceBypass;

/// How long an object is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockTerm {
    /// It may not be deleted before.
    pub until: Timestamp,
    /// Who may lift it.
    pub mode: LockMode,
}

/// What is known of the end of an object's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locked {
    /// It never was locked.
    No,
    /// Until then; it may be over.
    Term(LockTerm),
    /// It is locked, and nobody knows until when: this is why.
    Unknown(String),
}

/// Who keeps a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The place itself, against everybody who does not lift the lock on purpose.
    Place,
    /// This program alone: nothing stops anybody else ("soft").
    Program,
}

/// What keeps one object from being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// Until when.
    pub locked: Locked,
    /// Whether a legal hold is on it.
    pub held: bool,
    /// Who sees to it; says nothing of an object that is neither locked nor held.
    pub keeper: Keeper,
}

impl ObjectLock {
    /// Nothing keeps it.
    pub(super) const NONE: Self = Self { locked: Locked::No, held: false, keeper: Keeper::Program };

    /// When it may be deleted at the latest known; nothing if it never was locked or that is not known.
    pub fn until(&self) -> Option<Timestamp> {
        match self.locked {
            Locked::Term(term) => Some(term.until),
            Locked::No | Locked::Unknown(_) => None,
        }
    }

    /// Whether it is locked at least until `at`, as far as is known.
    pub fn reaches(&self, at: Timestamp) -> bool {
        self.until().is_some_and(|until| until >= at)
    }

    /// Why it may not be deleted at `now`, if so.
    pub fn refusal(&self, now: Timestamp) -> Option<String> {
        match &self.locked {
            _ if self.held => Some("under a legal hold".to_owned()),
            Locked::Term(term) if term.until > now => {
                Some(format!("locked until {:.0} ({})", term.until, term.mode))
            }
            Locked::Unknown(why) => Some(format!("locked, nobody knows until when: {why}")),
            Locked::No | Locked::Term(_) => None,
        }
    }

    /// The error of a deletion at `now`, if the lock forbids it.
    pub(super) fn permits(&self, name: &ObjectName, now: Timestamp) -> Result<(), StorageError> {
        match self.refusal(now) {
            None => Ok(()),
            Some(why) => Err(StorageError::Locked { name: name.clone(), until: self.until(), why }),
        }
    }

    /// The lock after an extension to `term`: the later end and the stricter mode of both. Of an end nobody knows the new one
    /// is the first that is known.
    pub(super) fn extended(&self, term: LockTerm) -> LockTerm {
        match &self.locked {
            Locked::Term(old) => LockTerm { until: old.until.max(term.until), mode: old.mode.max(term.mode) },
            Locked::No | Locked::Unknown(_) => term,
        }
    }
}

/// A place that locks single objects. [`super::Storage::remove`] of a locked or held object answers `Locked`.
///
/// The caller has the write lock of the place. A kill between any two steps leaves an object at least as locked as before, to
/// this program; the same call again completes it.
pub trait ObjectLocks: Send + Sync {
    /// What keeps an object, as the place itself says now; `NotFound` if there is no such object.
    fn lock_of(&self, name: &ObjectName) -> Result<ObjectLock, StorageError>;

    /// Why the place would refuse to delete an object now, by its own clock; nothing if it would not. `NotFound` if there is none.
    fn refusal(&self, name: &ObjectName) -> Result<Option<String>, StorageError>;

    /// What keeps each object whose name starts with `prefix`, in the order of names.
    fn locks(&self, prefix: &str) -> Result<Vec<(ObjectName, ObjectLock)>, StorageError>;

    /// Locks an object until the end of `term`, or longer if it was; gives what holds then. `NotFound` if there is no such
    /// object; `Unenforceable` if the place cannot keep a lock of that mode.
    fn lock_until(&self, name: &ObjectName, term: LockTerm) -> Result<ObjectLock, StorageError>;

    /// Puts a legal hold on an object, or takes it off. `NotFound` if there is no such object.
    fn set_held(&self, name: &ObjectName, held: bool) -> Result<ObjectLock, StorageError>;

    /// As [`super::Storage::put_new`], of an object that is locked from the moment it is visible.
    fn put_locked(&self, name: &ObjectName, pieces: &[&[u8]], term: LockTerm) -> Result<(), StorageError>;

    /// Ends a lock in governance mode, or one whose end nobody knows; `Locked` in compliance mode before its end. A hold stays.
    fn lift(&self, name: &ObjectName, bypass: GovernanceBypass) -> Result<(), StorageError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: i64) -> Timestamp {
        Timestamp::constant(second, 0)
    }

    #[test]
    fn an_extension_takes_the_later_end_and_the_stricter_mode() {
        let term = |second, mode| LockTerm { until: at(second), mode };
        let lock = |locked| ObjectLock { locked, ..ObjectLock::NONE };
        let (soft, hard) = (LockMode::Governance, LockMode::Compliance);
        assert_eq!(lock(Locked::No).extended(term(5, soft)), term(5, soft));
        assert_eq!(lock(Locked::Term(term(9, hard))).extended(term(5, soft)), term(9, hard));
        assert_eq!(lock(Locked::Term(term(2, soft))).extended(term(5, hard)), term(5, hard));
        assert_eq!(lock(Locked::Unknown(String::new())).extended(term(5, soft)), term(5, soft));
    }

    #[test]
    fn a_hold_or_an_end_nobody_knows_refuses_at_any_time_and_a_term_until_its_end() {
        let name = ObjectName::trusted("data/aa".to_owned());
        let term = Locked::Term(LockTerm { until: at(5), mode: LockMode::Governance });
        let lock = |locked, held| ObjectLock { locked, held, keeper: Keeper::Place };
        let permits = |lock: &ObjectLock, second| lock.permits(&name, at(second)).is_ok();
        assert!(!permits(&lock(term.clone(), false), 4));
        assert!(permits(&lock(term.clone(), false), 5));
        assert!(!permits(&lock(term, true), 6));
        assert!(!permits(&lock(Locked::No, true), 6));
        assert!(permits(&lock(Locked::No, false), 0));
        let unknown = lock(Locked::Unknown("its mark is damaged".to_owned()), false);
        assert!(!permits(&unknown, i64::from(i32::MAX)) && !unknown.reaches(at(0)));
    }
}
