//! The copies a log goes to while it is followed: looked at before anything is written, opened again when they come back,
//! and given again what they lost and another one has.
//!
//! Memory: the names of what is lacking, and one object of at most 64 MiB.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, StreamName};
use lifeboat_policy::Store;
use lifeboat_vault::Vault;
use lifeboat_vault::logs::{Carried, LogName, LogsError};

use super::marks::Marks;
use super::sources::holes;
use crate::context::Engine;
use crate::copies::{CopyVault, VaultSet};

/// Copies are looked at this often, and before each shipment.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A copy that is away is tried again after this, and then less and less often.
const FIRST_TRY: Duration = Duration::from_secs(1);
const LONGEST_TRY: Duration = Duration::from_secs(60);
/// What one copy lacks and another has is looked for this often, and when a copy comes back.
const REFILL_EVERY: Duration = Duration::from_secs(60);
/// Objects brought at once, and how often: the store is to be listened to in between.
const REFILL_AT_ONCE: usize = 4;
const REFILL_STEP: Duration = Duration::from_secs(1);

/// The copies of one row.
pub(super) struct Keepers<'a> {
    engine: &'a Engine,
    row: &'a Store,
    stream: StreamName,
    marks: Marks,
    pub(super) set: VaultSet,
    looked: Option<Duration>,
    tried: Duration,
    wait: Duration,
    refilled: Option<Duration>,
    /// When the next few of them are brought.
    next_step: Duration,
    /// What a copy lacks.
    lacking: VecDeque<(CopyName, LogName)>,
}

impl<'a> Keepers<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        row: &'a Store,
        stream: StreamName,
        marks: Marks,
        set: VaultSet,
    ) -> Self {
        let tried = engine.env.clock.monotonic();
        let lacking = VecDeque::new();
        let (looked, refilled, wait) = (None, None, FIRST_TRY);
        let next_step = Duration::ZERO;
        Self { engine, row, stream, marks, set, looked, tried, wait, refilled, next_step, lacking }
    }

    fn away(&self) -> bool {
        self.set.open.len() < self.row.copies.value.len()
    }

    /// Puts aside the copies whose vault is not there any more: nothing may be written where a disk was mounted.
    pub(super) fn look(&mut self) {
        let mut open = Vec::new();
        for entry in std::mem::take(&mut self.set.open) {
            match still_there(&entry) {
                Ok(()) => open.push(entry),
                Err(failure) => {
                    self.set.failed.push((entry.copy, failure));
                    // It was there a moment ago: it may be back soon.
                    (self.wait, self.tried) = (FIRST_TRY, self.engine.env.clock.monotonic());
                }
            }
        }
        self.set.open = open;
    }

    /// Looks at the copies if it is time, and tries those that are away if it is time for that; true if one came back.
    pub(super) fn tend(&mut self) -> bool {
        let now = self.engine.env.clock.monotonic();
        if self.looked.is_some_and(|looked| now < looked + LOOK_EVERY) {
            return false;
        }
        self.looked = Some(now);
        self.look();
        if !self.away() || now < self.tried + self.wait {
            return false;
        }
        let before = self.set.open.len();
        match self.engine.reachable(self.row, "wal stream") {
            Ok(set) => self.set = set,
            // None of them can be used; why is known of each.
            Err(error) => {
                if let (Some((_, why)), true) = (self.set.failed.first_mut(), self.set.open.is_empty()) {
                    *why = error.failure;
                }
            }
        }
        self.tried = self.engine.env.clock.monotonic();
        let back = self.set.open.len() > before;
        self.wait = if back { FIRST_TRY } else { (self.wait * 2).min(LONGEST_TRY) };
        if back {
            self.refilled = None;
        }
        back
    }

    /// Brings a few of the objects that one copy lacks and another has, with `at_once` as soon as it is called; true if
    /// there are more.
    pub(super) fn refill(&mut self, at_once: bool) -> Result<bool, Failure> {
        let now = self.engine.env.clock.monotonic();
        if !at_once && now < self.next_step {
            return Ok(!self.lacking.is_empty());
        }
        if self.lacking.is_empty() && self.refilled.is_none_or(|last| now >= last + REFILL_EVERY) {
            self.refilled = Some(now);
            self.lacking = self.what_is_lacking()?;
        }
        for _ in 0..REFILL_AT_ONCE {
            let Some((copy, name)) = self.lacking.pop_front() else { break };
            self.bring(&copy, name)?;
        }
        self.next_step = self.engine.env.clock.monotonic() + REFILL_STEP;
        Ok(!self.lacking.is_empty())
    }

    /// What a copy lists and is not known to be damaged there; nothing for one that cannot be listed now.
    fn names(&self, entry: &CopyVault) -> Result<Option<BTreeSet<LogName>>, Failure> {
        let damaged = self.marks.of(&entry.copy)?;
        let listed = entry.vault.logs().list(&self.stream).ok();
        Ok(listed.map(|names| names.into_iter().filter(|name| !damaged.contains_key(name)).collect()))
    }

    fn what_is_lacking(&self) -> Result<VecDeque<(CopyName, LogName)>, Failure> {
        let mut held: Vec<(&CopyName, BTreeSet<LogName>)> = Vec::new();
        for entry in &self.set.open {
            held.extend(self.names(entry)?.map(|names| (&entry.copy, names)));
        }
        let mut all: BTreeSet<LogName> = held.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for entry in &self.set.open {
            // What retention dropped is missed nowhere.
            let retired = entry.vault.retired()?;
            all.retain(|name| !retired.is_below_floor(&self.stream, name));
        }
        let mut lacking = VecDeque::new();
        for (copy, names) in &held {
            for name in all.difference(names) {
                let (first, last) = (name.first(), name.last());
                // Other objects may cover the same, such as those stored beside a damaged one.
                if !holes(names.iter().copied(), first.timeline, first.offset, last.offset).is_empty() {
                    lacking.push_back(((*copy).clone(), *name));
                }
            }
        }
        Ok(lacking)
    }

    /// From whichever copy can give it; what none can give stays lacking, and `status` shows it.
    fn bring(&self, copy: &CopyName, name: LogName) -> Result<(), Failure> {
        let Some(to) = self.set.get(copy).map(|entry| entry.vault.logs()) else { return Ok(()) };
        let entropy = self.engine.env.entropy.as_ref();
        for entry in self.set.open.iter().filter(|entry| entry.copy != *copy) {
            let from = entry.vault.logs();
            match from.carry(&self.stream, name, &to) {
                Ok(Carried::Whole(_)) => {
                    self.marks.clear(copy, name)?;
                    break;
                }
                Ok(Carried::InTheWay(why)) => {
                    self.marks.note(copy, name, &why)?;
                    if from.carry_beside(&self.stream, name, &to, entropy).is_ok() {
                        break;
                    }
                }
                Err(LogsError::Damaged { why, .. }) if from.has(&self.stream, name).unwrap_or(false) => {
                    self.marks.note(&entry.copy, name, &why)?;
                }
                // A copy that gives or takes nothing now is tried again with the next look.
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Whether the vault that was opened is what lies there now.
fn still_there(entry: &CopyVault) -> Result<(), Failure> {
    let storage = entry.vault.storage().as_ref();
    let gone = |why: &str| {
        let what = format!("{}: {why}", storage.location());
        Err(Failure::new(FailureKind::Unreachable, what))
    };
    if !Vault::exists(storage)? {
        return gone("the vault is not there any more");
    }
    match Vault::read_envelope(storage)? {
        Some(envelope) if envelope.vault_id() == entry.vault.vault_id() => Ok(()),
        _ => gone("another vault is there now"),
    }
}
