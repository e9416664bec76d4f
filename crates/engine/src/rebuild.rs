//! Rebuild: make the catalog again from the vaults and the evidence chain.

use std::collections::BTreeSet;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_catalog::{Catalog, Proof, ProofLevel, RunRow};
use lifeboat_evidence::{Chain, Record};
use serde::Serialize;
use serde_json::Value;

use crate::backup::worst;
use crate::context::Engine;
use crate::error::EngineError;
use crate::journal::evidence;

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
        // Evidence first: what it says about damage must not be cleared by a point merely being listed.
        let mut promised = BTreeSet::new();
        self.replay_evidence(&mut report, &mut promised)?;
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
            for point in self.catalog()?.points(&row.name).map_err(Failure::from)? {
                report.points += 1;
                promised.remove(&(row.name.clone(), point.manifest.id));
            }
        }
        for (store, point) in promised {
            let message = format!("the evidence chain records {point} of `{store}`, but no copy holds it");
            report
                .findings
                .push(Finding::new("point-missing", point.as_str(), message).with_kind(FailureKind::Damaged));
        }
        Ok(report)
    }

    fn replay_evidence(
        &self,
        report: &mut RebuildReport,
        promised: &mut BTreeSet<(StoreName, PointId)>,
    ) -> Result<(), EngineError> {
        if !self.evidence_dir().exists() {
            return Ok(());
        }
        let chain = Chain::open(&self.evidence_dir()).map_err(evidence)?;
        for record in &chain {
            match record.map_err(evidence) {
                Ok(stored) => {
                    if self.replay(&stored.record, promised)? {
                        report.runs += 1;
                    }
                }
                Err(failure) => report.findings.push(
                    Finding::new("evidence-unreadable", "evidence", failure.chain())
                        .with_kind(failure.kind()),
                ),
            }
        }
        Ok(())
    }

    /// Takes one record over; false for a store the policy no longer names.
    fn replay(
        &self,
        record: &Record,
        promised: &mut BTreeSet<(StoreName, PointId)>,
    ) -> Result<bool, EngineError> {
        let Some(store) =
            StoreName::new(&record.subject).ok().filter(|name| self.policy.stores.contains_key(name))
        else {
            return Ok(false);
        };
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
        let catalog = self.catalog()?;
        catalog.put_run(&run).map_err(Failure::from)?;
        for (point, copy, level, ok) in claims(&record.kind, body) {
            if level == ProofLevel::Captured {
                promised.insert((store.clone(), point.clone()));
            }
            let proof =
                Proof { store: store.clone(), point, copy, level, at: record.at, ok, evidence: record.seq };
            catalog.put_proof(&proof).map_err(Failure::from)?;
            // The newest word on damage is the one that holds; records come in order.
            if let Proof { level: ProofLevel::Checksummed | ProofLevel::Readable, .. } = proof
                && (!ok || proof.level == ProofLevel::Readable)
            {
                let why = (!ok).then_some("a verification found it damaged");
                catalog
                    .set_holding(&store, &proof.point, &proof.copy, record.at, why)
                    .map_err(Failure::from)?;
            }
        }
        Ok(true)
    }
}

/// What a record says about points: which, where, how far, and whether it held.
fn claims(kind: &str, body: &Value) -> Vec<(PointId, CopyName, ProofLevel, bool)> {
    let list = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array);
        items.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
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
            let powered = checks
                .into_iter()
                .flatten()
                .all(|check| check.get("canary_caught") == Some(&Value::Bool(true)));
            let finished = store.and_then(|store| store.get("rto_s")).is_some_and(Value::is_number);
            claim(&text("point"), &text("copy"), ProofLevel::Restored, powered && finished)
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    }
}
