//! Applying retention to one store: intent filed, records written, copies brought to them, absence proven, outcome filed.

use std::collections::BTreeSet;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId};
use lifeboat_base::monitor::Finding;
use lifeboat_policy::Store;
use lifeboat_vault::Vault;
use lifeboat_vault::retire::{Absence, CopyOutcome, RetirePlan};
use serde::Serialize;
use serde_json::json;

use super::{Planned, RetainReport, StoreRetention};
use crate::backup::Collector;
use crate::context::Engine;
use crate::error::{AtRisk, EngineError};
use crate::journal::{Entry, Filed};

/// The most points one record of the chain names; only a chain that was begun anew comes near.
const MAX_FILED: usize = 50_000;

/// What one copy came to.
#[derive(Clone, Debug, Serialize)]
pub struct AppliedCopy {
    /// The copy.
    pub copy: CopyName,
    /// What was removed, and what is left for later.
    #[serde(flatten)]
    pub outcome: CopyOutcome,
    /// What a look at it showed afterwards.
    pub absence: Absence,
}

/// What applying retention to a store did.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// Points that are gone for good.
    pub dropped: Vec<PointId>,
    /// Bytes freed in all copies together.
    pub freed_bytes: u64,
    /// Bytes in each copy that wait for their removal.
    pub marked_bytes: u64,
    /// Packs written by moving together what is needed.
    pub new_packs: u64,
    /// Each copy that was there.
    pub copies: Vec<AppliedCopy>,
    /// Copies that follow when they are back.
    pub away: Vec<CopyName>,
    /// The record in the evidence chain.
    pub evidence: Option<u64>,
}

impl Engine {
    pub(super) fn apply_retention(
        &self,
        planned: Planned<'_>,
        findings: &mut Vec<Finding>,
    ) -> Result<StoreRetention, EngineError> {
        let Planned { row, set, mut view, plan, _lease } = planned;
        let Some(plan) = plan else { return Err(crate::copies::no_copy(row, set)) };
        let open = |copy: &&CopyName| set.get(copy).is_none();
        let away: Vec<CopyName> = row.copies.value.iter().filter(open).cloned().collect();
        let intent = self.file_intent(row, &view, &plan, &away)?;
        let copies: Vec<&Vault> = set.open.iter().map(|entry| &entry.vault).collect();
        let monitor = Collector::new(self.observer.job(&format!("retention of {}", row.name)));
        let result = plan.apply(&copies, &monitor);
        findings.extend(monitor.take());
        let done = result.map_err(|error| {
            EngineError::from(Failure::from(error)).next(format!(
                "run `lifeboat retain --apply {}` again: it completes what was begun",
                row.name
            ))
        })?;
        // Looked at anew, by what stands in the copies now.
        let mut applied = Applied {
            dropped: Vec::new(),
            freed_bytes: done.copies.iter().map(|copy| copy.freed_bytes).sum(),
            marked_bytes: done.marked_bytes,
            new_packs: done.new_packs,
            copies: Vec::new(),
            away,
            evidence: None,
        };
        let filed = self.filed_records(row)?;
        let mut dropped: BTreeSet<PointId> = BTreeSet::new();
        let mut records = filed;
        for (entry, outcome) in set.open.iter().zip(done.copies) {
            let retired = entry.vault.retired().map_err(Failure::from)?;
            let absence = entry.vault.absence(&retired).map_err(Failure::from)?;
            // With what a run recorded that was killed before it could file it.
            let since = retired.points().values().filter(|gone| gone.seq > filed);
            dropped.extend(since.map(|gone| gone.point.id.clone()));
            records = records.max(retired.seq());
            let (copy, postponed) = (&entry.copy, outcome.postponed.as_deref());
            if let Some(why) = postponed {
                let message = format!("copy `{copy}` keeps for now what goes elsewhere: {why}");
                findings.push(Finding::new("removal-postponed", copy.as_str(), message));
            }
            if let (Some(first), None) = (absence.left.first(), postponed) {
                let (object, count) = (&first.object, absence.left_count);
                let message = format!("copy `{copy}` still holds {count} retired objects, {object} first");
                findings.push(Finding::new("not-gone", copy.as_str(), message));
            }
            applied.copies.push(AppliedCopy { copy: copy.clone(), outcome, absence });
        }
        applied.dropped = dropped.into_iter().take(MAX_FILED).collect();
        self.catalog()?.drop_points(&row.name, &applied.dropped).map_err(Failure::from)?;
        let record = self.file_outcome(row, &view, (&applied, records), intent.as_ref())?;
        applied.evidence = Some(record.seq);
        view.applied = Some(applied);
        Ok(view)
    }

    /// The number of the newest record in the vaults whose points an outcome has named.
    fn filed_records(&self, row: &Store) -> Result<u64, EngineError> {
        let run = self.catalog()?.last_run(&row.name, "retain", true).map_err(Failure::from)?;
        Ok(run.and_then(|run| run.body.get("records").and_then(serde_json::Value::as_u64)).unwrap_or(0))
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
        (applied, records): (&Applied, u64),
        intent: Option<&Filed>,
    ) -> Result<Filed, EngineError> {
        let blocked = view.space.as_ref().and_then(|space| space.blocked.as_ref());
        let whole = |copy: &AppliedCopy| copy.outcome.postponed.is_none() && copy.absence.holds();
        let ok = blocked.is_none() && applied.copies.iter().all(whole);
        let error = blocked.cloned().or_else(|| {
            let copy = applied.copies.iter().find(|copy| !whole(copy))?;
            let why = copy.outcome.postponed.clone();
            Some(format!("copy `{}`: {}", copy.copy, why.unwrap_or_else(|| "not all is gone".to_owned())))
        });
        let body = json!({
            "plan": view.plan, "policy_hash": self.policy_hash, "intent": intent.map(|filed| filed.seq),
            "records": records, "dropped": applied.dropped, "freed_bytes": applied.freed_bytes,
            "marked_bytes": applied.marked_bytes, "new_packs": applied.new_packs, "copies": applied.copies,
            "away": applied.away, "error": error,
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
