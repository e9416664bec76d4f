//! What is owed for rows that are not retained: looked at by a backup, made again by a drill, filed as evidence.
//!
//! In: a row with `retention = "none"` whose kind knows its duties. Out: records of the kinds `duties` and `replay`. Names of
//! keys are shown to whoever runs the command and never filed.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Finding;
use lifeboat_drill::{DrillReport, DrillVerdict, Local, ReplaySubject};
use lifeboat_policy::{Retention, Span, Store};
use lifeboat_stores::Adapter;
use serde_json::json;

use crate::backup::{Collector, StoreBackup};
use crate::context::Engine;
use crate::error::{AtRisk, EngineError};
use crate::journal::Entry;
use crate::restore::left_running;
use crate::view::drill_digest;

/// The records of looks at a running store, and of making it again.
pub(crate) const LOOKED: &str = "duties";
pub(crate) const REPLAYED: &str = "replay";

/// Whether the row has duties in place of points; its adapter then.
pub(crate) fn owed(engine: &Engine, row: &Store) -> Option<Box<dyn Adapter>> {
    let adapter = matches!(row.retention.value, Retention::None).then(|| engine.adapter(row).ok()).flatten();
    adapter.filter(|adapter| adapter.duties().is_some())
}

impl Engine {
    /// Looks at a running store that is not retained, and into every copy for something of it.
    pub(crate) fn look_after(&self, row: &Store, report: &mut StoreBackup) {
        let Some(adapter) = owed(self, row) else { return };
        let monitor = Collector::new(self.observer.job(&format!("look at {}", row.name)));
        let start = self.env.clock.monotonic();
        if let Err(error) = self.look(row, adapter.as_ref(), &monitor, report) {
            let message =
                format!("nobody knows whether `{}` is kept as promised: {}", row.name, error.failure.chain());
            report
                .findings
                .push(Finding::new("duties-unknown", row.name.as_str(), message).with_kind(error.kind()));
            report.next = error.next;
        }
        report.findings.extend(monitor.take());
        if !report.findings.is_empty() {
            report.at_risk.push(AtRisk { store: row.name.clone(), promise: "retention".to_owned() });
        }
        report.seconds = self.env.clock.monotonic().saturating_sub(start).as_secs_f64();
    }

    fn look(
        &self,
        row: &Store,
        adapter: &dyn Adapter,
        monitor: &Collector,
        report: &mut StoreBackup,
    ) -> Result<(), EngineError> {
        self.ready_to_file()?;
        let (stray, unseen) = self.stray_vaults(row);
        for copy in &stray {
            let message =
                format!("something of `{}` lies in `{copy}`, and nothing of it may be kept", row.name);
            report.findings.push(Finding::new("stored-anyway", row.name.as_str(), message));
        }
        for copy in &unseen {
            let message = format!("nobody can look into `{copy}` for something of `{}`", row.name);
            let finding = Finding::new("copy-unseen", row.name.as_str(), message);
            report.findings.push(finding.with_kind(FailureKind::Unreachable));
        }
        let looked = match adapter.duties() {
            Some(duties) => duties.look(monitor),
            None => return Ok(()),
        };
        let mut body = json!({
            "policy_hash": self.policy_hash, "row": drill_digest(row), "stored_in": stray, "unseen": unseen,
        });
        let mut ok = stray.is_empty() && unseen.is_empty();
        let outcome = match looked {
            Ok(look) => {
                ok &= look.complete && look.findings.is_empty();
                body["numbers"] = json!(look.numbers);
                body["complete"] = json!(look.complete);
                body["findings"] =
                    json!(look.findings.iter().map(|finding| &finding.code).collect::<Vec<_>>());
                report.looked_at = look.numbers;
                let named = |mut finding: Finding| {
                    finding.message = format!("{}: {}", row.name, finding.message);
                    finding
                };
                report.findings.extend(look.findings.into_iter().map(named));
                Ok(())
            }
            Err(failure) => {
                ok = false;
                body["error"] = json!(failure.chain());
                Err(EngineError::from(failure))
            }
        };
        let record = self.file(Entry { kind: LOOKED, store: &row.name, ok, body })?;
        report.evidence = Some(record.seq);
        outcome
    }

    /// Makes again, in a sandbox, every row of these that says how that is done; adds them to the report and files each.
    pub(crate) fn replay_rows(&self, rows: &[&Store], report: &mut DrillReport) -> Result<(), EngineError> {
        let mut ready = Vec::new();
        for row in rows {
            let Some(adapter) = owed(self, row) else { continue };
            if adapter.duties().is_some_and(lifeboat_stores::Duties::is_rebuildable) {
                report.findings.extend(left_running(adapter.as_ref(), row));
                ready.push((*row, adapter));
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        let rto = |row: &Store| row.rto.value.as_ref().map(Span::approx);
        let subjects: Vec<_> = ready
            .iter()
            .filter_map(|(row, adapter)| {
                Some(ReplaySubject { store: row.name.clone(), duties: adapter.duties()?, rto: rto(row) })
            })
            .collect();
        let monitor = Collector::new(self.observer.job(&format!("replay {}", report.id)));
        let root = self.sandboxes()?;
        lifeboat_drill::replay(report, &subjects, &Local::new(root), &monitor).map_err(Failure::from)?;
        for store in &report.replays {
            let Some((row, _)) = ready.iter().find(|(row, _)| row.name == store.name) else { continue };
            let ok = store.verdict == DrillVerdict::Passed;
            // What a check shows of differences may name keys.
            let checks: Vec<_> = store
                .checks
                .iter()
                .map(|check| json!({ "id": check.id, "state": check.state, "differences": check.differences, "canary_caught": check.canary_caught }))
                .collect();
            let body = json!({
                "drill": report.id, "rto_s": store.rto_s, "rto_target_s": store.rto_target_s, "checks": checks,
                "verdict": store.verdict, "row": drill_digest(row),
            });
            let record = self.file(Entry { kind: REPLAYED, store: &store.name, ok, body })?;
            report.records.push(record.seq);
        }
        Ok(())
    }
}
