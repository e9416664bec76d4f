//! Drills of a policy's stores: choose the points, rehearse, file the evidence, update what is proven.

use std::path::Path;

use lifeboat_base::capture::{CaptureFacts, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, DrillId, StoreName};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_catalog::ProofLevel;
use lifeboat_drill::{DrillReport, DrillSubject, DrillVerdict, ProveLog, StoreDrill};
use lifeboat_policy::{Retention, Span, Store};
use lifeboat_stores::{Adapter, CheckState, Goal, Stop};
use serde_json::json;

use crate::backup::Collector;
use crate::context::Engine;
use crate::error::EngineError;
use crate::journal::Entry;
use crate::logs::{Between, Replay, Told};
use crate::restore::{Chosen, candidates, left_running};
use crate::view::drill_digest;
use crate::when;

/// What to drill.
#[derive(Clone, Debug, Default)]
pub struct DrillOptions {
    /// The moment of the imagined disaster; nothing means now.
    pub at: Option<String>,
    /// Only from this copy.
    pub copy: Option<CopyName>,
}

/// Everything a subject borrows from.
struct Prepared<'a> {
    row: &'a Store,
    adapter: Box<dyn Adapter>,
    chosen: Chosen,
    copy: CopyName,
    /// What the point says, at the moment the drill restores.
    facts: CaptureFacts,
    /// Where the log is to be replayed up to a moment and no further: whether the restore was told to stop there.
    stop: Option<Told>,
    /// What was wrong with the row before anything was restored.
    findings: Vec<Finding>,
    /// Two points with the log between them, which the newer one proves.
    between: Option<Between>,
}

impl Engine {
    /// Rehearses the loss of the stores named, or of all that are retained: each is restored into a sandbox, checked
    /// and measured. The report is filed before it is returned.
    pub fn drill(&self, names: &[StoreName], options: &DrillOptions) -> Result<DrillReport, EngineError> {
        let now = self.env.clock.now();
        let moment = match &options.at {
            Some(text) if !text.starts_with("pt-") => when::parse(text, now, &self.policy.timezone)?,
            _ => now,
        };
        self.ready_to_file()?;
        let (mut prepared, mut impossible) = (Vec::new(), Vec::new());
        let rows = self.select(names)?;
        for row in &rows {
            if matches!(row.retention.value, Retention::None) {
                continue;
            }
            let mut findings = Vec::new();
            match self.prepare(row, options, &mut findings) {
                Ok(ready) => prepared.push(Prepared { findings, ..ready }),
                Err(error) => {
                    let message = format!("{} cannot be drilled: {}", row.name, error.failure.chain());
                    findings.push(
                        Finding::new("drill.impossible", row.name.as_str(), message).with_kind(error.kind()),
                    );
                    impossible.push((*row, findings));
                }
            }
        }
        let before = prepared.iter().map(|ready| &ready.findings);
        let before = before.chain(impossible.iter().map(|(_, findings)| findings));
        let findings: Vec<Finding> = before.flatten().cloned().collect();
        let id = DrillId::generate(now, self.env.entropy.as_ref());
        let monitor = Collector::new(self.observer.job(&format!("drill {id}")));
        let subjects = prepared.iter().map(|ready| self.subject(ready)).collect();
        let root = self.sandboxes()?;
        let mut report = lifeboat_drill::run(id, moment, subjects, &root, self.env.clock.as_ref(), &monitor)
            .map_err(Failure::from)?;
        if !findings.is_empty() {
            report.verdict = DrillVerdict::Failed;
        }
        report.findings.splice(0..0, findings);
        // What a chosen point or copy shows says nothing about them.
        if options.at.is_none() && options.copy.is_none() {
            self.replay_rows(&rows, &mut report)?;
        }
        if report.stores.is_empty() && report.replays.is_empty() && report.findings.is_empty() {
            return Err(EngineError::new(FailureKind::Refused, "there is no retained store to drill")
                .next("name a store whose retention is not `none`, or give the row `checks.replay`"));
        }
        // Only what would be restored after a loss today speaks for the row.
        let scope = if options.at.is_none() && options.copy.is_none() { "newest" } else { "chosen" };
        self.file_impossible(&impossible, scope, &mut report)?;
        self.file_drill(&prepared, scope, &mut report)?;
        Ok(report)
    }

    /// A drill that could not even begin is one that failed: an older one that passed must not stand for it.
    fn file_impossible(
        &self,
        impossible: &[(&Store, Vec<Finding>)],
        scope: &str,
        report: &mut DrillReport,
    ) -> Result<(), EngineError> {
        for (row, findings) in impossible {
            let body = json!({
                "drill": report.id, "moment": report.moment, "findings": findings, "verdict": report.verdict,
                "scope": scope, "row": drill_digest(row),
            });
            let record = self.file(Entry { kind: "drill", store: &row.name, ok: false, body })?;
            report.evidence = Some(format!("evidence:{}", record.seq));
        }
        Ok(())
    }

    fn prepare<'a>(
        &self,
        row: &'a Store,
        options: &DrillOptions,
        findings: &mut Vec<Finding>,
    ) -> Result<Prepared<'a>, EngineError> {
        let adapter = self.adapter(row)?;
        let set = self.open_vaults(row)?;
        findings.extend(set.findings());
        findings.extend(left_running(adapter.as_ref(), row));
        findings.extend(self.reconcile(row, &set)?);
        if options.at.is_none() {
            findings.extend(self.log_left_here(row));
        }
        let asked = (options.at.as_deref(), options.copy.as_ref());
        let (chosen, replay) = match self.plan_replay(row, adapter.as_ref(), &set, asked)?.into_iter().next()
        {
            Some(plan) => plan,
            None => (self.choose(row, asked.0, asked.1)?, None),
        };
        findings.extend(chosen.findings());
        findings.extend(replay.as_ref().and_then(Replay::finding));
        let mut copies = candidates(row, &chosen.row, options.copy.as_ref());
        copies.sort_by_key(|copy| replay.as_ref().is_some_and(|replay| replay.copy != **copy));
        let copy = copies.into_iter().find(|copy| set.get(copy).is_some()).cloned().ok_or_else(|| {
            let id = &chosen.row.manifest.id;
            EngineError::new(FailureKind::Unreachable, format!("no copy that holds {id} can be used"))
        })?;
        let between = match options.at {
            None => self.between(row, adapter.as_ref(), &set, asked.1)?,
            Some(_) => None,
        };
        let mut facts = chosen.row.manifest.facts.clone();
        let mut stop = None;
        let adapter = match (replay, set.get(&copy)) {
            (Some(replay), Some(entry)) => {
                facts.consistency.moment = replay.moment;
                let replaying = self.replaying(row, adapter, entry, &replay)?;
                stop = matches!(replay.goal, Goal::Moment(_)).then(|| replaying.told());
                Box::new(replaying)
            }
            _ => adapter,
        };
        let findings = Vec::new();
        Ok(Prepared { row, adapter, chosen, copy, facts, stop, findings, between })
    }

    fn subject<'a>(&'a self, ready: &'a Prepared<'_>) -> DrillSubject<'a> {
        let manifest = &ready.chosen.row.manifest;
        let seconds = |span: &Option<Span>| span.as_ref().map(Span::approx);
        DrillSubject {
            store: ready.row.name.clone(),
            point: manifest.id.clone(),
            copy: ready.copy.clone(),
            facts: &ready.facts,
            adapter: ready.adapter.as_ref(),
            // The vault is opened again inside the drill: key derivation and index load count in the recovery time.
            open: Box::new(move || {
                let set = self.open_vaults(ready.row).map_err(|error| error.failure)?;
                let found = set.open.into_iter().find(|entry| entry.copy == ready.copy);
                let entry = found.ok_or_else(|| {
                    Failure::new(FailureKind::Unreachable, format!("copy `{}` went away", ready.copy))
                })?;
                let reader = entry.vault.open_point(manifest)?;
                Ok(Box::new(reader) as Box<dyn RestoreSource>)
            }),
            log: ready.between.as_ref().map(|between| {
                let prove = move |scratch: &Path, monitor: &dyn Monitor| {
                    self.prove_log(ready.row, between, scratch, monitor)
                };
                Box::new(prove) as ProveLog<'_>
            }),
            rto: seconds(&ready.row.rto.value),
            rpo: seconds(&ready.row.rpo.value),
        }
    }

    fn file_drill(
        &self,
        prepared: &[Prepared<'_>],
        scope: &str,
        report: &mut DrillReport,
    ) -> Result<(), EngineError> {
        let mut last = report.evidence.take();
        for store in &report.stores {
            let Some(ready) = prepared.iter().find(|ready| ready.row.name == store.name) else { continue };
            // What the drill as a whole is called failed for is no pass for the row either.
            let ok = store.verdict == DrillVerdict::Passed && ready.findings.is_empty();
            let of_row = |finding: &&Finding| {
                finding.subject == store.name.as_str() || ready.findings.contains(finding)
            };
            let findings: Vec<&Finding> = report.findings.iter().filter(of_row).collect();
            let damaged =
                store.rto_s.is_none() && findings.iter().any(|finding| finding.kind == FailureKind::Damaged);
            // A replay to the end of the log, because nothing follows the moment, shows nothing about stopping.
            let pitr = ready.stop.as_ref().and_then(|told| match told.get() {
                Some(Stop::Goal) => Some(restored(store)),
                Some(Stop::End) => None,
                None => Some(false),
            });
            let body = json!({
                "drill": report.id, "moment": report.moment, "point": store.point, "copy": store.copy,
                "store": store, "findings": findings, "verdict": report.verdict, "scope": scope,
                "row": drill_digest(ready.row), "damaged_point": damaged, "pitr": pitr,
            });
            let record = self.file(Entry { kind: "drill", store: &store.name, ok, body })?;
            self.prove(ready.row, &store.point, &store.copy, ProofLevel::Restored, restored(store), &record)?;
            if damaged {
                self.catalog()?
                    .set_holding(
                        &store.name,
                        &store.point,
                        &store.copy,
                        record.at,
                        Some("a drill could not restore it"),
                    )
                    .map_err(Failure::from)?;
            }
            last = Some(format!("evidence:{}", record.seq));
        }
        report.evidence = last;
        Ok(())
    }
}

/// A point is proven as restored when every check passed, even if the drill missed a promise about time.
fn restored(store: &StoreDrill) -> bool {
    store.rto_s.is_some()
        && store
            .checks
            .iter()
            .all(|check| check.state == CheckState::NotApplicable || check.canary_caught == Some(true))
}
