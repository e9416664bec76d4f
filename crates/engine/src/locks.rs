//! Object locks: extended in every copy that asks for them, and looked at again.
//!
//! In: how long the rules of a row keep its points and its log. Out: locks on every object these need, a record of each pass, and
//! what the place says of these locks now. Invariant: what a pass locked is written down here and vouched for by the evidence
//! chain, so that whoever has no key can ask the place about it; that a lock holds is believed of nobody but the place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{PointRow, RunRow};
use lifeboat_policy::{Decided, LockMode, Retention, Rules, Store, Verdict};
use lifeboat_vault::locks::{LockDrift, LockPlan, lock_drift};
use lifeboat_vault::storage::{LockMode as PlaceMode, ObjectName};
use lifeboat_vault::{Vault, VaultError, layout};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Engine;
use crate::copies::{CopyVault, VaultSet};
use crate::error::EngineError;
use crate::journal::Entry;

mod table;
mod time;

pub(crate) use self::table::Table;
pub(crate) use self::time::Believed;

/// What a pass is filed as.
pub(crate) const LOCKED: &str = "lock";

/// What a pass looks after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Points that are to be locked longer than the last pass locked them: as a rule the new one.
    Changed,
    /// Every point.
    All,
}

/// What a pass did in one copy.
#[derive(Clone, Debug, Serialize)]
pub struct CopyLocks {
    /// The copy.
    pub copy: CopyName,
    /// Objects it looked at.
    pub objects: u64,
    /// Objects that are locked longer now, or better.
    pub extended: u64,
    /// Objects that the place does not protect: only Lifeboat refuses to delete them.
    pub soft: u64,
    /// When the last lock ends.
    pub until: Option<Timestamp>,
}

/// What a look at the locks of one copy showed.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedLocks {
    /// Objects that are to be locked.
    pub objects: u64,
    /// Objects that are locked too short, or not at all.
    pub short: u64,
    /// Objects that are locked long enough, and only by Lifeboat.
    pub soft: u64,
}

/// What is known, or why it is not.
type Known<T> = Result<T, String>;

/// A copy that is to lock what it holds, and what is known of its locks.
pub(crate) type CopyState = (CopyName, Known<LockState>);

/// How long points and log are to be locked.
pub(crate) struct Terms<'a> {
    rules: Rules<'a>,
    decided: Decided,
    now: Timestamp,
}

/// What is known of the locks of one copy without a key.
pub(crate) struct LockState {
    /// The pass that locked.
    pub(crate) run: RunRow,
    /// What the place says of what that pass locked.
    pub(crate) drift: LockDrift,
    /// Whether the place protected everything after it.
    pub(crate) hard: bool,
    /// Points that are to be locked longer than it locked them, and the first.
    pub(crate) uncovered: Option<(usize, PointId)>,
    /// Points that are younger than what is promised and not locked, since the clock is not believed; and the first.
    pub(crate) doubted: Option<(usize, PointId)>,
    /// Objects of the log that were stored after it.
    pub(crate) new_log: usize,
}

impl Terms<'_> {
    /// The points of a copy that are to be locked, until when each.
    fn wanted(&self, points: &[PointRow], copy: &CopyName) -> BTreeMap<PointId, Timestamp> {
        let held: BTreeSet<&PointId> = held_by(points, copy).map(|point| &point.manifest.id).collect();
        let ends = self.decided.points.iter().filter_map(|point| Some((&point.id, point.lock_until?)));
        let ends = ends.filter(|(id, until)| *until > self.now && held.contains(id));
        ends.map(|(id, until)| (id.clone(), until)).collect()
    }

    /// The points of a copy that the clock says are younger than what is promised at least, and that nobody may lock yet, since
    /// the clock is not believed: a lock cannot be taken back.
    fn doubted(&self, points: &[PointRow], copy: &CopyName) -> Vec<PointId> {
        let Some(minimum) = self.rules.minimum else { return Vec::new() };
        let bare = self.decided.points.iter().filter(|decided| {
            let kept = matches!(decided.verdict, Verdict::Kept(_));
            kept && decided.lock_until.is_none_or(|until| until <= self.now)
        });
        let bare: BTreeSet<&PointId> = bare.map(|decided| &decided.id).collect();
        held_by(points, copy)
            .filter(|point| minimum.after(point.manifest.ended, self.rules.zone) > self.now)
            .map(|point| &point.manifest.id)
            .filter(|id| bare.contains(id))
            .cloned()
            .collect()
    }

    /// The same for what was written to the log up to `ended`.
    fn log(&self, ended: Timestamp) -> Option<Timestamp> {
        self.decided.log_lock_until(&self.rules, ended).filter(|until| *until > self.now)
    }

    /// Everything in a copy that is to be locked for these points, and for its log.
    fn plan(
        &self,
        vault: &Vault,
        points: &BTreeMap<PointId, Timestamp>,
        known: &BTreeMap<ObjectName, Timestamp>,
    ) -> Result<LockPlan, Failure> {
        let mut plan = vault.lock_plan(points, known)?;
        for stream in vault.logs().streams()? {
            vault.plan_log_locks(&stream, &|ended| self.log(ended), &mut plan)?;
        }
        Ok(plan)
    }
}

/// The points that a copy holds.
fn held_by<'a>(points: &'a [PointRow], copy: &CopyName) -> impl Iterator<Item = &'a PointRow> {
    points.iter().filter(move |point| point.holdings.iter().any(|held| held.copy == *copy))
}

fn mode(mode: LockMode) -> PlaceMode {
    match mode {
        LockMode::Governance => PlaceMode::Governance,
        LockMode::Compliance => PlaceMode::Compliance,
    }
}

impl Engine {
    /// The copies of a row that are to lock what they hold.
    pub(crate) fn locking<'a>(&'a self, row: &'a Store) -> impl Iterator<Item = (&'a CopyName, LockMode)> {
        let lock = |copy: &'a CopyName| Some((copy, self.policy.copies.get(copy)?.lock?.mode));
        row.copies.value.iter().filter_map(lock)
    }

    /// How long what a row keeps is to be locked; nothing for a row that keeps nothing, or none of whose copies locks anything.
    pub(crate) fn lock_terms<'a>(
        &'a self,
        row: &'a Store,
        points: &[PointRow],
        now: Timestamp,
    ) -> Result<Option<Terms<'a>>, EngineError> {
        let Retention::Keep(keep) = row.retention.value else { return Ok(None) };
        if self.locking(row).next().is_none() {
            return Ok(None);
        }
        let (rules, decided) = self.decide_by(row, keep, points, now)?;
        Ok(Some(Terms { rules, decided, now }))
    }

    /// Locks what the open copies of a row hold as long as they are to, where the policy asks for that. None is shortened; a pass
    /// that was killed is completed by the next. Each is filed, one that fails too.
    pub(crate) fn extend_locks(
        &self,
        row: &Store,
        set: &VaultSet,
        scope: Scope,
    ) -> (Vec<CopyLocks>, Vec<Finding>) {
        let (mut done, mut findings) = (Vec::new(), Vec::new());
        for (copy, mode) in self.locking(row) {
            let Some(entry) = set.get(copy) else { continue };
            match self.lock_copy(row, entry, mode, scope, &mut findings) {
                Ok(locks) => done.extend(locks),
                Err(error) => {
                    let why = error.failure.chain();
                    let message = format!("copy `{copy}`: not everything of `{}` is locked: {why}", row.name);
                    findings
                        .push(Finding::new("lock-failed", copy.as_str(), message).with_kind(error.kind()));
                    let body = json!({ "copy": copy, "error": why, "policy_hash": self.policy_hash });
                    if let Err(second) = self.file(Entry { kind: LOCKED, store: &row.name, ok: false, body })
                    {
                        let finding =
                            Finding::new("evidence-failed", row.name.as_str(), second.failure.chain());
                        findings.push(finding.with_kind(second.kind()));
                    }
                }
            }
        }
        (done, findings)
    }

    fn lock_copy(
        &self,
        row: &Store,
        entry: &CopyVault,
        lock: LockMode,
        scope: Scope,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<CopyLocks>, EngineError> {
        let (copy, vault) = (&entry.copy, &entry.vault);
        let points = self.view(row)?.points;
        let now = self.env.clock.now();
        let Some(terms) = self.lock_terms(row, &points, now)? else { return Ok(None) };
        let mut wanted = terms.wanted(&points, copy);
        let _only = vault.lock("lock objects").map_err(Failure::from)?;
        let before = self.last_table(row, copy)?.and_then(Result::ok).map(|(_run, table)| table);
        let known = before.as_ref().filter(|_table| scope == Scope::Changed);
        let known = known.map(|table| table.objects.clone()).unwrap_or_default();
        wanted.retain(|id, until| known.get(&layout::point(id)).is_none_or(|locked| locked < until));
        let mut plan = terms.plan(vault, &wanted, &known)?;
        for (name, until) in &mut plan.objects {
            // What was locked for longer and has lost its lock gets it back as it was.
            *until = known.get(name).copied().max(Some(*until)).unwrap_or(*until);
        }
        let mut gone = BTreeMap::new();
        if let Some(table) = &before {
            if scope == Scope::All {
                gone = carried(vault, table, &mut plan, now)?;
            }
            findings.extend(lifted((vault, copy), table, (&plan, gone.len()), now)?);
        }
        findings.extend(in_doubt(row, copy, &terms.doubted(&points, copy)));
        let report = vault.extend_locks(&plan, mode(lock)).map_err(Failure::from)?;
        if let Some((point, why)) = plan.unknown.iter().next() {
            let what = format!("what {point} needs is not known: {why}");
            return Err(EngineError::new(FailureKind::Damaged, what));
        }
        if let Some(first) = &report.missing {
            let count = report.missing_count;
            let what = format!("{count} objects that are to be locked are not there, `{first}` first");
            return Err(EngineError::new(FailureKind::Damaged, what));
        }
        let was_soft = scope == Scope::Changed && before.is_some_and(|table| !table.hard);
        let mut table = Table { hard: report.soft_count == 0 && !was_soft, objects: known };
        for (name, until) in plan.objects.into_iter().chain(gone) {
            let known = table.objects.entry(name).or_insert(until);
            *known = until.max(*known);
        }
        let done = CopyLocks {
            copy: copy.clone(),
            objects: report.extended_count + report.kept_count,
            extended: report.extended_count,
            soft: report.soft_count,
            until: table.objects.values().max().copied(),
        };
        let digest = table.write(&self.table_path(row, copy))?;
        let body = json!({
            "copy": copy, "vault": vault.vault_id(), "locks": done, "hard": table.hard, "table": digest,
            "table_objects": table.objects.len(), "policy_hash": self.policy_hash,
        });
        self.file(Entry { kind: LOCKED, store: &row.name, ok: true, body })?;
        Ok(Some(done))
    }

    fn table_path(&self, row: &Store, copy: &CopyName) -> PathBuf {
        self.state.join("object-locks").join(row.name.as_str()).join(copy.as_str())
    }

    /// The newest pass in a copy and what it locked, or why that is not known; nothing if there was none.
    fn last_table(
        &self,
        row: &Store,
        copy: &CopyName,
    ) -> Result<Option<Known<(RunRow, Table)>>, EngineError> {
        let Some(run) = self.catalog()?.last_run_in(&row.name, LOCKED, copy).map_err(Failure::from)? else {
            return Ok(None);
        };
        let said = |field: &str| run.body.get(field).and_then(Value::as_str);
        if !run.ok {
            let why = said("error").unwrap_or("its record does not say why");
            return Ok(Some(Err(format!("the last pass failed: {why}"))));
        }
        let Some(digest) = said("table").and_then(|digest| digest.parse::<Digest>().ok()) else {
            return Ok(Some(Err("the record of the last pass does not say what it locked".to_owned())));
        };
        Ok(Some(Table::read(&self.table_path(row, copy), &digest).map(|table| (run, table))))
    }

    /// What the place says of the locks that the last pass set in a copy, and what that pass did not know yet. Costs a look at each
    /// lock, and a listing of the log; needs no key.
    pub(crate) fn lock_state(
        &self,
        row: &Store,
        copy: &CopyName,
        (terms, points): (&Terms<'_>, &[PointRow]),
    ) -> Known<LockState> {
        let last = self.last_table(row, copy).map_err(|error| error.failure.chain())?;
        let (run, table) = last.ok_or("nothing was locked yet")??;
        let storage = self.storage(row, copy).map_err(|failure| failure.chain())?;
        let in_force = table.objects.iter().filter(|(_name, until)| **until > terms.now);
        let drift = lock_drift(storage.as_ref(), in_force).map_err(|error| Failure::from(error).chain())?;
        let wanted = terms.wanted(points, copy);
        let mut short = wanted
            .iter()
            .filter(|(id, until)| table.objects.get(&layout::point(id)).is_none_or(|locked| locked < *until));
        let uncovered = short.next().map(|(id, _until)| (1 + short.count(), id.clone()));
        let log = storage.list(layout::LOGS);
        let log = log.map_err(|error| format!("the log cannot be listed: {error}"))?;
        let new_log = log.iter().filter(|listed| !table.objects.contains_key(&listed.name)).count();
        let locked = |id: &PointId| table.objects.get(&layout::point(id)).is_some_and(|end| *end > terms.now);
        let doubted: Vec<PointId> =
            terms.doubted(points, copy).into_iter().filter(|id| !locked(id)).collect();
        let doubted = doubted.first().map(|first| (doubted.len(), first.clone()));
        Ok(LockState { run, drift, hard: table.hard, uncovered, doubted, new_log })
    }

    /// Compares the locks of an opened copy with what they are to be by the rules as they are now, by what the place says. Nothing
    /// for a copy that locks nothing.
    pub(crate) fn check_locks(
        &self,
        row: &Store,
        entry: &CopyVault,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<CheckedLocks>, EngineError> {
        let (copy, vault) = (&entry.copy, &entry.vault);
        if self.locking(row).all(|(locking, _mode)| locking != copy) {
            return Ok(None);
        }
        let points = self.view(row)?.points;
        let Some(terms) = self.lock_terms(row, &points, self.env.clock.now())? else { return Ok(None) };
        let plan = terms.plan(vault, &terms.wanted(&points, copy), &BTreeMap::new())?;
        let drift = lock_drift(vault.storage().as_ref(), &plan.objects).map_err(Failure::from)?;
        for (point, why) in &plan.unknown {
            let message = format!("copy `{copy}`: whether what {point} needs is locked is not known: {why}");
            findings.push(Finding::new("lock-unknown", point.as_str(), message));
        }
        findings.extend(in_doubt(row, copy, &terms.doubted(&points, copy)));
        if let Some(first) = drift.short.first() {
            let until = first.until.map_or("not at all".to_owned(), |until| format!("until {until:.0}"));
            let message = format!(
                "copy `{copy}`: {} of {} objects of `{}` are locked too short or not at all, `{}` first: until {:.0} it should be, {until} \
                 it is: run `lifeboat retain {} --apply`",
                drift.short_count, drift.checked_count, row.name, first.object, first.wanted, row.name
            );
            findings.push(Finding::new("lock-drift", copy.as_str(), message));
        }
        if drift.soft_count > 0 {
            let message = format!(
                "copy `{copy}`: {} of {} objects of `{}` are locked by Lifeboat alone: nothing else refuses to delete them",
                drift.soft_count, drift.checked_count, row.name
            );
            findings.push(Finding::new("lock-soft", copy.as_str(), message));
        }
        Ok(Some(CheckedLocks {
            objects: drift.checked_count,
            short: drift.short_count,
            soft: drift.soft_count,
        }))
    }
}

/// What an earlier pass locked and no rule asks for any more stays as it was locked until its date; gives what of it is gone.
fn carried(
    vault: &Vault,
    table: &Table,
    plan: &mut LockPlan,
    now: Timestamp,
) -> Result<BTreeMap<ObjectName, Timestamp>, Failure> {
    let own = table.objects.iter().filter(|(name, until)| **until > now && !plan.objects.contains_key(*name));
    let own: BTreeMap<ObjectName, Timestamp> = own.map(|(name, until)| (name.clone(), *until)).collect();
    let mut gone = BTreeMap::new();
    for (name, until) in own {
        let there = vault.storage().stat(&name).map_err(|source| {
            let doing = format!("look at `{name}`");
            VaultError::Storage { doing, source }
        })?;
        let into = if there.is_some() { &mut plan.objects } else { &mut gone };
        into.insert(name, until);
    }
    Ok(gone)
}

/// Locks that nobody sets since nobody knows how late it is.
fn in_doubt(row: &Store, copy: &CopyName, points: &[PointId]) -> Option<Finding> {
    let (first, count) = (points.first()?, points.len());
    let message = format!(
        "copy `{copy}`: {count} points of `{}` are not locked, {first} first: the clock is not believed, and a lock cannot be taken \
         back: see `lifeboat retain {} --help` about `--today`",
        row.name, row.name
    );
    Some(Finding::new("lock-doubt", copy.as_str(), message))
}

/// What an earlier pass locked, and somebody unlocked or removed since: what is there is locked again, and all of it told.
fn lifted(
    (vault, copy): (&Vault, &CopyName),
    table: &Table,
    (plan, gone): (&LockPlan, usize),
    now: Timestamp,
) -> Result<Option<Finding>, Failure> {
    let before = table.objects.iter();
    let before = before.filter(|(name, until)| **until > now && plan.objects.contains_key(*name));
    let drift = lock_drift(vault.storage().as_ref(), before)?;
    let soft = if table.hard { drift.soft_count } else { 0 };
    let count = drift.short_count + soft + gone as u64;
    let lost = if gone > 0 { format!("; {gone} of them are gone before their time") } else { String::new() };
    let message = format!(
        "copy `{copy}`: somebody lifted the lock of {count} objects since the last pass; what is there is locked again{lost}"
    );
    Ok((count > 0).then(|| Finding::new("lock-lifted", copy.as_str(), message)))
}
