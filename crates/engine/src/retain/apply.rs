//! Applying retention to one store: intent filed, records written, copies brought to them, absence proven, outcome filed.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId};
use lifeboat_base::monitor::Finding;
use lifeboat_policy::{Store, Verdict};
use lifeboat_vault::Vault;
use lifeboat_vault::retire::{Absence, CopyOutcome, LogFloor, RetirePlan, Retired};
use lifeboat_vault::storage::ObjectName;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Planned, RetainReport, StoreRetention, Tried};
use crate::backup::Collector;
use crate::context::Engine;
use crate::copies::CopyVault;
use crate::error::{AtRisk, EngineError};
use crate::journal::{Entry, Filed};
use crate::locks::{CopyLocks, Scope};

/// The most points one record of the chain names; only a chain that was begun anew comes near.
const MAX_FILED: usize = 50_000;

/// Why what was dropped may lie in a copy.
const AWAY: &str = "it is away, and what was dropped lies there until it is back";

/// Up to which record a copy was brought.
#[derive(Serialize, Deserialize)]
struct Reached {
    copy: CopyName,
    records: u64,
}

/// What one copy came to.
#[derive(Clone, Debug, Serialize)]
pub struct AppliedCopy {
    /// The copy.
    pub copy: CopyName,
    /// What was removed, and what is left for later.
    #[serde(flatten)]
    pub outcome: CopyOutcome,
    /// What a look at it showed afterwards; nothing if it could not be looked at.
    pub absence: Option<Absence>,
    /// Why it is not known what is left there, if so.
    pub unknown: Option<String>,
}

/// What applying retention to a store did.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// Points that are gone for good.
    pub dropped: Vec<PointId>,
    /// Points that were dropped under another evidence chain, of which this one did not know.
    pub taken_over: Vec<PointId>,
    /// Bytes freed in all copies together.
    pub freed_bytes: u64,
    /// Bytes in each copy that wait for their removal.
    pub marked_bytes: u64,
    /// Packs written by moving together what is needed.
    pub new_packs: u64,
    /// Each copy that was there.
    pub copies: Vec<AppliedCopy>,
    /// What is locked of what stays, in each copy that locks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<CopyLocks>,
    /// Copies that follow when they are back.
    pub away: Vec<CopyName>,
    /// The record in the evidence chain.
    pub evidence: Option<u64>,
}

/// The same, with what is filed of it.
struct Outcome {
    applied: Applied,
    /// The highest number of a record.
    records: u64,
    /// Copies that are away and that not every record has reached.
    behind: Vec<CopyName>,
    /// Records that no outcome named before.
    recorded: Vec<String>,
    /// The most points that a retention kept since somebody last looked.
    kept_most: usize,
    /// How much log is gone.
    floors: Vec<LogFloor>,
    /// Records that others took the place of.
    replaced: Vec<String>,
    held_up: Option<String>,
}

/// What records say that no outcome said before.
struct NewlyRecorded {
    recorded: Vec<String>,
    dropped: Vec<PointId>,
    taken_over: Vec<PointId>,
}

impl Engine {
    pub(super) fn apply_retention(
        &self,
        planned: Planned<'_>,
        findings: &mut Vec<Finding>,
    ) -> Result<Tried, EngineError> {
        let Planned { row, set, mut view, plan, held_up, filed, replaces, kept_most, _lease } = planned;
        let Some(plan) = plan else { return Err(crate::copies::no_copy(row, set)) };
        let open = |copy: &&CopyName| set.get(copy).is_none();
        let away: Vec<CopyName> = row.copies.value.iter().filter(open).cloned().collect();
        let intent = self.file_intent(row, &view, &plan, &away)?;
        let copies: Vec<&Vault> = set.open.iter().map(|entry| &entry.vault).collect();
        let monitor = Collector::new(self.observer.job(&format!("retention of {}", row.name)));
        let result = plan.apply(&copies, &monitor);
        findings.extend(monitor.take());
        let mut done = result.map_err(|error| {
            EngineError::from(Failure::from(error)).next(format!(
                "run `lifeboat retain --apply {}` again: it completes what was begun",
                row.name
            ))
        })?;
        if !done.bad.is_empty() {
            return Ok(Tried::Bad(done.bad));
        }
        let outcomes = std::mem::take(&mut done.copies);
        let NewlyRecorded { recorded, dropped, taken_over } =
            self.newly_recorded(row, &done.retired, done.record.as_deref())?;
        let mut applied = Applied {
            dropped,
            taken_over,
            freed_bytes: outcomes.iter().map(|copy| copy.freed_bytes).sum(),
            marked_bytes: done.marked_bytes,
            new_packs: done.new_packs,
            copies: Vec::new(),
            locks: Vec::new(),
            away,
            evidence: None,
        };
        for (entry, outcome) in set.open.iter().zip(outcomes) {
            applied.copies.push(look_again(entry, outcome, &done.retired, findings));
        }
        let gone = applied.dropped.iter().chain(&applied.taken_over);
        self.catalog()?.drop_points(&row.name, gone).map_err(Failure::from)?;
        let records = filed.seq.max(done.retired.seq());
        let behind = self.behind(row, &applied.away, records)?;
        findings.extend(behind.iter().map(|copy| postponed(copy, AWAY)));
        let outcome = Outcome {
            records,
            behind,
            recorded,
            kept_most: kept_most.unwrap_or(0).max(kept(&view)),
            floors: done.retired.floors().collect(),
            // They are replaced by what the record says that was written now.
            replaced: if done.record.is_some() || filed.points.is_empty() { replaces } else { Vec::new() },
            held_up,
            applied,
        };
        let record = self.file_outcome(row, &view, &outcome, intent.as_ref())?;
        let mut applied = outcome.applied;
        let (locks, unlocked) = self.extend_locks(row, &set, Scope::All);
        applied.locks = locks;
        findings.extend(unlocked);
        applied.evidence = Some(record.seq);
        view.applied = Some(applied);
        Ok(Tried::Done(Box::new(view)))
    }

    /// Of the copies that are away, those of which no outcome says that they were brought to all these records.
    fn behind(&self, row: &Store, away: &[CopyName], records: u64) -> Result<Vec<CopyName>, EngineError> {
        let said = self.catalog()?.said(&row.name, "retain", "$.reached").map_err(Failure::from)?;
        let reached: Vec<Reached> =
            said.into_iter().filter_map(|said| serde_json::from_value(said).ok()).collect();
        let there = |copy: &CopyName| reached.iter().any(|at| at.copy == *copy && at.records >= records);
        Ok(away.iter().filter(|copy| records > 0 && !there(copy)).cloned().collect())
    }

    /// The records that no outcome named before, also those of a run that was killed before it could file one, and the points
    /// they dropped. One with a point on hold is named once that is gone. What this chain meant to drop was dropped by it; the
    /// rest was under another one, or one that is lost.
    fn newly_recorded(
        &self,
        row: &Store,
        retired: &Retired,
        written: Option<&str>,
    ) -> Result<NewlyRecorded, EngineError> {
        let catalog = self.catalog()?;
        let said = |kind: &str, path: &str| -> Result<BTreeSet<String>, Failure> {
            let said = catalog.said(&row.name, kind, path)?;
            Ok(said.iter().filter_map(|said| said.as_str().map(str::to_owned)).collect())
        };
        let (filed, mut told) = (said("retain", "$.recorded")?, said("retain", "$.dropped")?);
        told.extend(said("retain", "$.taken_over")?);
        let meant = catalog.said(&row.name, "retain-intent", "$.points").map_err(Failure::from)?;
        let meant: BTreeSet<&str> = meant.iter().filter_map(|point| point.get("id")?.as_str()).collect();
        let mut points: BTreeMap<&ObjectName, Vec<&PointId>> = BTreeMap::new();
        for (id, gone) in retired.points() {
            points.entry(&gone.record).or_default().push(id);
        }
        let (mut recorded, mut dropped, mut taken_over) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for name in retired.names().iter().filter(|name| !filed.contains(name.base_name())) {
            let own = points.remove(name).unwrap_or_default();
            if own.iter().any(|id| !retired.takes(id)) {
                continue;
            }
            if dropped.len() + taken_over.len() + own.len() > MAX_FILED && !recorded.is_empty() {
                break;
            }
            recorded.push(name.base_name().to_owned());
            for id in own.into_iter().filter(|id| !told.contains(id.as_str())) {
                let ours = written == Some(name.base_name()) || meant.contains(id.as_str());
                if ours { &mut dropped } else { &mut taken_over }.insert(id.clone());
            }
        }
        let (dropped, taken_over) = (dropped.into_iter().collect(), taken_over.into_iter().collect());
        Ok(NewlyRecorded { recorded, dropped, taken_over })
    }

    /// What is about to go and why, filed before anything does.
    fn file_intent(
        &self,
        row: &Store,
        view: &StoreRetention,
        plan: &RetirePlan,
        away: &[CopyName],
    ) -> Result<Option<Filed>, EngineError> {
        if plan.record.is_empty() && plan.rewrite.is_empty() {
            return Ok(None);
        }
        let body = json!({
            "plan": view.plan, "policy_hash": self.policy_hash, "as_of": view.as_of, "stalled": view.stalled,
            "points": plan.record.points, "logs": plan.record.logs, "snapshots": plan.record.snapshots,
            "states": plan.states, "away": away, "space": view.space,
        });
        self.file(Entry { kind: "retain-intent", store: &row.name, ok: true, body }).map(Some)
    }

    fn file_outcome(
        &self,
        row: &Store,
        view: &StoreRetention,
        outcome: &Outcome,
        intent: Option<&Filed>,
    ) -> Result<Filed, EngineError> {
        let applied = &outcome.applied;
        let blocked = view.space.as_ref().and_then(|space| space.blocked.as_ref());
        let whole = |copy: &AppliedCopy| {
            copy.outcome.postponed.is_none() && copy.absence.as_ref().is_some_and(Absence::holds)
        };
        let reached = applied.copies.iter().filter(|copy| whole(copy));
        let reached: Vec<Reached> =
            reached.map(|copy| Reached { copy: copy.copy.clone(), records: outcome.records }).collect();
        let all = reached.len() == applied.copies.len() && outcome.behind.is_empty();
        let ok = outcome.held_up.is_none() && blocked.is_none() && all;
        let error = outcome.held_up.clone().or_else(|| blocked.cloned()).or_else(|| {
            if let Some(copy) = outcome.behind.first() {
                return Some(format!("copy `{copy}`: {AWAY}"));
            }
            let copy = applied.copies.iter().find(|copy| !whole(copy))?;
            let why = copy.outcome.postponed.clone().or_else(|| copy.unknown.clone());
            Some(format!("copy `{}`: {}", copy.copy, why.unwrap_or_else(|| "not all is gone".to_owned())))
        });
        let body = json!({
            "plan": view.plan, "policy_hash": self.policy_hash, "kept": kept(view),
            "kept_most": outcome.kept_most, "intent": intent.map(|filed| filed.seq),
            "records": outcome.records, "recorded": outcome.recorded, "replaced": outcome.replaced,
            "floors": outcome.floors, "dropped": applied.dropped, "taken_over": applied.taken_over, "freed_bytes": applied.freed_bytes,
            "marked_bytes": applied.marked_bytes, "new_packs": applied.new_packs, "copies": applied.copies,
            "away": applied.away, "reached": reached, "error": error,
        });
        self.file(Entry { kind: "retain", store: &row.name, ok, body })
    }

    /// A retention that did not happen is filed as one, and puts its promise at risk.
    pub(super) fn retain_failed(&self, row: &Store, error: EngineError, report: &mut RetainReport) {
        let chain = error.failure.chain();
        let finding = Finding::new("retain-failed", row.name.as_str(), format!("`{}`: {chain}", row.name));
        report.findings.push(finding.with_kind(error.kind()));
        report.at_risk.push(AtRisk { store: row.name.clone(), promise: "retention".to_owned() });
        let kind = error.kind();
        report.next = report.next.take().or(error.next);
        let body = json!({ "error": chain, "error_kind": kind.word(), "policy_hash": self.policy_hash });
        if let Err(second) = self.file(Entry { kind: "retain", store: &row.name, ok: false, body }) {
            let finding = Finding::new("evidence-failed", row.name.as_str(), second.failure.chain());
            report.findings.push(finding.with_kind(second.kind()));
        }
        if kind == FailureKind::Damaged {
            report.next.get_or_insert_with(|| format!("run `lifeboat verify {}`", row.name));
        }
    }
}

/// How many points stay.
fn kept(view: &StoreRetention) -> usize {
    view.points.iter().filter(|point| matches!(point.verdict, Verdict::Kept(_))).count()
}

fn postponed(copy: &CopyName, why: &str) -> Finding {
    let message = format!("copy `{copy}` keeps for now what goes elsewhere: {why}");
    Finding::new("removal-postponed", copy.as_str(), message)
}

/// Looks at a copy anew, by the records of all copies that took part: what one copy says of itself proves nothing.
fn look_again(
    entry: &CopyVault,
    outcome: CopyOutcome,
    retired: &Retired,
    findings: &mut Vec<Finding>,
) -> AppliedCopy {
    let copy = entry.copy.clone();
    if let Some(why) = &outcome.postponed {
        findings.push(postponed(&copy, why));
    }
    let absence = match entry.vault.absence(retired) {
        Ok(absence) => absence,
        Err(error) => {
            let failure = Failure::from(error);
            if outcome.postponed.is_none() {
                let message = format!(
                    "copy `{copy}` cannot be looked at: what is left there is not known: {}",
                    failure.chain()
                );
                findings
                    .push(Finding::new("not-looked-at", copy.as_str(), message).with_kind(failure.kind()));
            }
            return AppliedCopy { copy, outcome, absence: None, unknown: Some(failure.chain()) };
        }
    };
    if let (Some(first), None) = (absence.left.first(), &outcome.postponed) {
        let (object, count) = (&first.object, absence.left_count);
        let message = format!("copy `{copy}` still holds {count} retired objects, {object} first");
        findings.push(Finding::new("not-gone", copy.as_str(), message));
    }
    AppliedCopy { copy, outcome, absence: Some(absence), unknown: None }
}
