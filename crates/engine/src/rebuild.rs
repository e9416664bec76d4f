//! Rebuild: make the catalog again from the vaults and the evidence chain.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_catalog::{Catalog, Proof, ProofLevel, RunRow};
use lifeboat_evidence::{Chain, Record};
use lifeboat_stores::meaning::BOARD;
use serde::Serialize;
use serde_json::Value;

use crate::backup::worst;
use crate::context::Engine;
use crate::error::EngineError;
use crate::journal::evidence;
use crate::plans::PLANNED;
use crate::shred::SHRED;

/// What a rebuild found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RebuildReport {
    /// `lifeboat.rebuild/v1`.
    pub schema: &'static str,
    /// Recovery points found, each once.
    pub points: usize,
    /// Runs taken over from the evidence chain.
    pub runs: usize,
    /// What could not be read.
    pub findings: Vec<Finding>,
}

impl RebuildReport {
    /// The worst thing found.
    pub fn worst(&self) -> Option<FailureKind> {
        worst(self.findings.iter())
    }
}

impl Engine {
    /// Discards the catalog and makes it again. A kill on the way leaves a catalog that knows too little; running the
    /// rebuild again completes it.
    pub fn rebuild_catalog(self) -> Result<RebuildReport, EngineError> {
        Catalog::discard(&self.catalog_path()).map_err(Failure::from)?;
        let mut report = RebuildReport { schema: "lifeboat.rebuild/v1", ..RebuildReport::default() };
        // Opening it takes the evidence over first: what that says about damage must not be cleared by a point merely
        // being listed.
        report.runs = self.catalog()?.count_runs().map_err(Failure::from)?;
        report.findings.extend(self.catalog_findings());
        for row in self.policy.stores.values() {
            if row.copies.value.is_empty() {
                continue;
            }
            match self.open_vaults(row) {
                Ok(set) => {
                    report.findings.extend(set.findings());
                    report.findings.extend(self.reconcile(row, &set)?);
                }
                Err(error) => report.findings.push(
                    Finding::new("store-unreadable", row.name.as_str(), error.failure.chain())
                        .with_kind(error.kind()),
                ),
            }
            report.points += self.catalog()?.points(&row.name).map_err(Failure::from)?.len();
            for point in self.catalog()?.lost_points(&row.name).map_err(Failure::from)? {
                let message =
                    format!("the evidence chain records {point} of `{}`, but no copy holds it", row.name);
                report
                    .findings
                    .push(Finding::new("point-missing", point, message).with_kind(FailureKind::Damaged));
            }
        }
        self.anchor_finding(&mut report)?;
        Ok(report)
    }

    /// A chain that no longer reaches what a sealed manifest names was rolled back.
    fn anchor_finding(&self, report: &mut RebuildReport) -> Result<(), EngineError> {
        let head = self.evidence_head()?.map_or(0, |head| head.seq);
        if let Some(anchor) = self.evidence_anchor()?.filter(|anchor| anchor.seq > head) {
            let message =
                format!("it ends with record {head}, but a recovery point names record {}", anchor.seq);
            report.findings.push(
                Finding::new("evidence-shortened", "the evidence chain", message)
                    .with_kind(FailureKind::Damaged),
            );
        } else if let Some((count, first)) = self.made_elsewhere()? {
            let message = format!(
                "{count} recovery points, {first} first, were made under another evidence chain: the one here says nothing of \
                 what was done to them there"
            );
            report.findings.push(Finding::new("evidence-elsewhere", "the evidence chain", message));
        }
        Ok(())
    }

    /// Takes over the evidence records that `catalog` has not seen: all of them for a new one, the latest for one that
    /// was put back from an older state. What cannot be read is told and passed over.
    pub(crate) fn catch_up(&self, catalog: &Catalog) -> Result<Vec<Finding>, EngineError> {
        let mut findings = Vec::new();
        let known = catalog.last_evidence().map_err(Failure::from)?;
        let head = match self.evidence_head() {
            Ok(head) => head.map_or(0, |head| head.seq),
            Err(error) => {
                findings.push(unreadable(&error.failure));
                return Ok(findings);
            }
        };
        if head <= known {
            return Ok(findings);
        }
        let chain = Chain::open(&self.evidence_dir()).map_err(evidence)?;
        let behind = usize::try_from(head - known).unwrap_or(usize::MAX);
        let mut missed: Vec<_> = chain.iter().rev().take(behind).collect();
        missed.reverse();
        for record in missed {
            match record.map_err(evidence) {
                Ok(stored) => self.replay(catalog, &stored.record)?,
                Err(failure) => findings.push(unreadable(&failure)),
            }
        }
        catalog.set_last_evidence(head).map_err(Failure::from)?;
        Ok(findings)
    }

    /// Takes one record over; one of a store or a plan the policy no longer names is passed over.
    fn replay(&self, catalog: &Catalog, record: &Record) -> Result<(), EngineError> {
        let known = |name: &StoreName| match record.kind.as_str() {
            PLANNED => self.policy.drills.keys().any(|plan| plan.as_str() == name.as_str()),
            _ => self.policy.stores.contains_key(name),
        };
        let Some(store) = StoreName::new(&record.subject).ok().filter(known) else { return Ok(()) };
        let body = &record.body;
        let ok = body.get("ok").and_then(Value::as_bool).unwrap_or(false);
        let run = RunRow {
            evidence: record.seq,
            kind: record.kind.clone(),
            store: store.clone(),
            at: record.at,
            ok,
            body: body.clone(),
        };
        catalog.put_run(&run).map_err(Failure::from)?;
        if record.kind == "heal"
            && let Some(copy) =
                body.get("copy").and_then(Value::as_str).and_then(|copy| CopyName::new(copy).ok())
        {
            catalog.clear_damage(&store, &copy).map_err(Failure::from)?;
        }
        if record.kind == "retain" || record.kind == SHRED {
            let mut dropped = list(body.get("dropped"));
            dropped.extend(list(body.get("taken_over")));
            let dropped: Vec<PointId> = dropped.into_iter().filter_map(|id| PointId::new(id).ok()).collect();
            catalog.drop_points(&store, &dropped).map_err(Failure::from)?;
        }
        let damaged = body.get("damaged_point").and_then(Value::as_bool).unwrap_or(false);
        for (point, copy, level, ok) in claims(&record.kind, body) {
            let proof =
                Proof { store: store.clone(), point, copy, level, at: record.at, ok, evidence: record.seq };
            catalog.put_proof(&proof).map_err(Failure::from)?;
            // The newest word on damage is the one that holds; records come in order.
            let speaks = match level {
                ProofLevel::Readable => true,
                ProofLevel::Checksummed => !ok,
                ProofLevel::Restored => damaged,
                ProofLevel::Captured | ProofLevel::Probed => false,
            };
            if speaks {
                let why = (!ok).then_some("it was found damaged");
                catalog
                    .set_holding(&store, &proof.point, &proof.copy, record.at, why)
                    .map_err(Failure::from)?;
            }
        }
        Ok(())
    }
}

fn unreadable(failure: &Failure) -> Finding {
    Finding::new("evidence-unreadable", "evidence", failure.chain()).with_kind(failure.kind())
}

/// The texts of a list.
fn list(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array);
    items.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What a record says about points: which, where, how far, and whether it held.
fn claims(kind: &str, body: &Value) -> Vec<(PointId, CopyName, ProofLevel, bool)> {
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let claim = |point: &str, copy: &str, level, ok| {
        Some((PointId::new(point).ok()?, CopyName::new(copy).ok()?, level, ok))
    };
    match kind {
        "backup" => list(body.get("copies"))
            .iter()
            .filter_map(|copy| claim(&text("point"), copy, ProofLevel::Captured, true))
            .collect(),
        "verify" => {
            let Ok(level) = text("level").parse::<ProofLevel>() else { return Vec::new() };
            let mut levels = vec![level];
            if level == ProofLevel::Readable {
                levels.push(ProofLevel::Checksummed);
            }
            let copy = text("copy");
            let proven = list(body.get("proven")).into_iter().flat_map(|point| {
                levels.iter().filter_map(|level| claim(&point, &copy, *level, true)).collect::<Vec<_>>()
            });
            let broken = list(body.get("broken"))
                .into_iter()
                .filter_map(|point| claim(&point, &copy, level, false))
                .collect::<Vec<_>>();
            proven.chain(broken).collect()
        }
        "drill" => {
            let store = body.get("store");
            let checks = store.and_then(|store| store.get("checks")).and_then(Value::as_array);
            let powered = checks.into_iter().flatten().all(|check| {
                check.get("state").and_then(Value::as_str) == Some("not-applicable")
                    || check.get("canary_caught") == Some(&Value::Bool(true))
            });
            let finished = store.and_then(|store| store.get("rto_s")).is_some_and(Value::is_number);
            let restored = powered && finished;
            // A board that was not measured claims nothing, and takes nothing back.
            let is_board = |check: &&Value| check.get("id").and_then(Value::as_str) == Some(BOARD);
            let board = checks.into_iter().flatten().find(is_board);
            let board = board.and_then(|check| check.get("state")?.as_str());
            let board = board.filter(|state| *state != "not-applicable");
            let probed = board.and_then(|state| {
                claim(&text("point"), &text("copy"), ProofLevel::Probed, restored && state == "passed")
            });
            let restored = claim(&text("point"), &text("copy"), ProofLevel::Restored, restored);
            restored.into_iter().chain(probed).collect()
        }
        _ => Vec::new(),
    }
}
