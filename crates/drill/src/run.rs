//! One drill run: every store through its stages, the clock running, nothing skipped silently.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use lifeboat_base::capture::{CaptureFacts, RestoreSource};
use lifeboat_base::failure::Failure;
use lifeboat_base::ids::{CopyName, DrillId, PointId, StoreName};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::{Clock, SignedDuration, Timestamp};
use lifeboat_stores::{Adapter, CanaryResult, CheckResult, CheckState};

use crate::report::{CheckOutcome, DrillReport, DrillVerdict, StageReport, StoreDrill};
use crate::sandbox::{Sandbox, SandboxError};

/// Clocks that differ by less are not worth a word.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(120);

/// Opens a recovery point; called inside the drill so that opening counts in the recovery time.
pub type OpenPoint<'a> = Box<dyn FnOnce() -> Result<Box<dyn RestoreSource + 'a>, Failure> + 'a>;

/// Proves the log between two points in an empty folder; called when the store is back, so that it takes nothing from the
/// recovery time.
pub type ProveLog<'a> = Box<dyn FnOnce(&Path, &dyn Monitor) -> Result<Vec<CheckResult>, Failure> + 'a>;

/// One store to drill.
pub struct DrillSubject<'a> {
    /// The store.
    pub store: StoreName,
    /// The recovery point to restore.
    pub point: PointId,
    /// The copy it is read from.
    pub copy: CopyName,
    /// What was captured.
    pub facts: &'a CaptureFacts,
    /// The store's adapter.
    pub adapter: &'a dyn Adapter,
    /// Opens the point.
    pub open: OpenPoint<'a>,
    /// Proves the log from an older point to a newer one, where there are two and a log between them.
    pub log: Option<ProveLog<'a>>,
    /// The row's recovery time objective.
    pub rto: Option<Duration>,
    /// The row's recovery point objective.
    pub rpo: Option<Duration>,
}

impl fmt::Debug for DrillSubject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DrillSubject({}, {}, {})", self.store, self.point, self.copy)
    }
}

/// Runs a drill of `subjects`, one after the other, imagining the disaster at `moment`.
///
/// An error means the sandbox could not be made; everything later ends in the report. The sandbox is gone when this
/// returns, or the report says that it is not.
pub fn run(
    id: DrillId,
    moment: Timestamp,
    subjects: Vec<DrillSubject<'_>>,
    root: &Path,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<DrillReport, SandboxError> {
    let sandbox = Sandbox::create(root, &id)?;
    let mut findings = Vec::new();
    let mut stores = Vec::new();
    for subject in subjects {
        stores.push(drill_store(subject, moment, &sandbox, clock, monitor, &mut findings));
    }
    if let Err(error) = sandbox.teardown() {
        let chain = lifeboat_base::failure::chain(&error);
        findings.push(Finding::new(
            "drill.teardown",
            id.as_str(),
            format!("the sandbox could not be removed: {chain}"),
        ));
    }
    for finding in &findings {
        monitor.finding(finding.clone());
    }
    let passed = findings.is_empty() && stores.iter().all(|store| store.verdict == DrillVerdict::Passed);
    Ok(DrillReport {
        schema: DrillReport::SCHEMA.to_owned(),
        id,
        moment,
        ended: clock.now(),
        stores,
        replays: Vec::new(),
        agreement: Vec::new(),
        verdict: if passed { DrillVerdict::Passed } else { DrillVerdict::Failed },
        findings,
        evidence: None,
    })
}

/// Measures stages of one store's drill.
struct Stopwatch<'a> {
    clock: &'a dyn Clock,
    stages: Vec<StageReport>,
}

impl Stopwatch<'_> {
    fn stage<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let started = self.clock.now();
        let start = self.clock.monotonic();
        let result = work();
        self.stages.push(StageReport {
            stage: name.to_owned(),
            started,
            seconds: self.clock.monotonic().saturating_sub(start).as_secs_f64(),
            ok: result.is_ok(),
        });
        result
    }
}

fn drill_store(
    subject: DrillSubject<'_>,
    moment: Timestamp,
    sandbox: &Sandbox,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
    findings: &mut Vec<Finding>,
) -> StoreDrill {
    let DrillSubject { store, point, copy, facts, adapter, open, log, rto, rpo } = subject;
    let known_before = findings.len();
    let mut watch = Stopwatch { clock, stages: Vec::new() };
    let start = clock.monotonic();
    let mut checks = Vec::new();
    let mut bytes = 0;
    let mut rto_s = None;
    let outcome = (|| {
        let source = watch.stage("open", open)?;
        let target = sandbox.folder(store.as_str())?;
        let restored =
            watch.stage("restore", || adapter.restore(source.as_ref(), facts, &target, monitor))?;
        bytes = restored.stats.bytes;
        let results = watch.stage("check", || adapter.checks(source.as_ref(), facts, &target, monitor))?;
        checks = results.into_iter().map(CheckOutcome::from_result).collect();
        Ok::<(), Failure>(())
    })();
    match outcome {
        Ok(()) if proven(&checks) => {
            rto_s = Some(clock.monotonic().saturating_sub(start).as_secs_f64());
        }
        Ok(()) if checks.iter().all(|check| check.state != CheckState::Failed) => {
            let message = format!("{point} was restored, but no check could be applied to it");
            findings.push(Finding::new("drill.unproven", store.as_str(), message));
        }
        Ok(()) => {}
        Err(failure) => {
            let message = format!("{point} could not be proved: {}", failure.chain());
            findings.push(Finding::new("drill.failed", store.as_str(), message).with_kind(failure.kind()));
        }
    }
    if let Some(prove) = log {
        let proved = watch.stage("log", || prove(&sandbox.folder(&format!("{store}.log"))?, monitor));
        judge_log(&store, proved, &mut checks, findings);
    }
    judge_checks(&store, &checks, adapter.essential(), findings);
    let scratch = format!("{store}.canaries");
    let canaries = watch.stage("canaries", || adapter.canaries(&sandbox.folder(&scratch)?));
    judge_canaries(&store, canaries, &mut checks, findings);
    let rpo_s = moment.duration_since(facts.consistency.moment).max(SignedDuration::ZERO).as_secs_f64();
    if facts.consistency.moment.duration_since(moment) > CLOCK_TOLERANCE {
        let message = format!("{point} shows a moment after the one of the drill: was a clock wrong?");
        findings.push(Finding::new("drill.clock", store.as_str(), message));
    }
    judge_promises(&store, (rto_s, rto), (rpo_s, rpo), findings);
    if !facts.unreadable.is_empty() {
        let message = format!("{point} was captured without {} unreadable items", facts.unreadable.len());
        findings.push(Finding::new("drill.incomplete", store.as_str(), message));
    }
    let verdict = if findings.len() == known_before { DrillVerdict::Passed } else { DrillVerdict::Failed };
    StoreDrill {
        name: store,
        point,
        copy,
        stages: watch.stages,
        rto_s,
        rto_target_s: rto.map(|span| span.as_secs_f64()),
        rpo_s,
        rpo_target_s: rpo.map(|span| span.as_secs_f64()),
        bytes,
        checks,
        verdict,
    }
}

/// No check failed, and at least one had something to say: a check that could not be applied proves nothing.
fn proven(checks: &[CheckOutcome]) -> bool {
    checks.iter().all(|check| check.state != CheckState::Failed)
        && checks.iter().any(|check| check.state == CheckState::Passed)
}

pub(crate) fn judge_checks(
    store: &StoreName,
    checks: &[CheckOutcome],
    essential: &[&str],
    findings: &mut Vec<Finding>,
) {
    let unapplied = checks.iter().filter(|check| check.state == CheckState::NotApplicable);
    for check in unapplied.filter(|check| essential.contains(&check.family())) {
        let why = check.detail.first().map(|line| format!(": {line}")).unwrap_or_default();
        let message = format!("{} could not be applied{why}", check.id);
        findings.push(Finding::new("drill.unproven", store.as_str(), message));
    }
    for check in checks.iter().filter(|check| check.state == CheckState::Failed) {
        let first = check.detail.first().map(|line| format!(": {line}")).unwrap_or_default();
        findings.push(Finding::new(
            &check.id,
            store.as_str(),
            format!("{} measured {}, expected {}{first}", check.id, check.measured, check.threshold),
        ));
    }
}

/// What cannot be compared is no comparison that went well.
fn judge_log(
    store: &StoreName,
    proved: Result<Vec<CheckResult>, Failure>,
    checks: &mut Vec<CheckOutcome>,
    findings: &mut Vec<Finding>,
) {
    match proved {
        Ok(results) => checks.extend(results.into_iter().map(CheckOutcome::from_result)),
        Err(failure) => {
            let message = format!("the log between two points could not be proved: {}", failure.chain());
            findings.push(Finding::new("drill.log", store.as_str(), message).with_kind(failure.kind()));
        }
    }
}

/// A check whose canary was not noticed has no power, and what it calls passed is not proven.
pub(crate) fn judge_canaries(
    store: &StoreName,
    canaries: Result<Vec<CanaryResult>, Failure>,
    checks: &mut [CheckOutcome],
    findings: &mut Vec<Finding>,
) {
    let canaries = match canaries {
        Ok(canaries) => canaries,
        Err(failure) => {
            let message = format!("the checks could not be tried on damaged input: {}", failure.chain());
            findings.push(Finding::new("drill.canaries", store.as_str(), message).with_kind(failure.kind()));
            return;
        }
    };
    for canary in canaries.iter().filter(|canary| !canary.caught) {
        let message = format!("check has no power: {} did not notice {}", canary.check, canary.damage);
        findings.push(Finding::new("drill.no-power", store.as_str(), message));
    }
    for check in checks.iter_mut().filter(|check| check.state != CheckState::NotApplicable) {
        let mut own = canaries.iter().filter(|canary| canary.check == check.family()).peekable();
        if own.peek().is_none() {
            check.canary_caught = Some(false);
            let message = format!("check has no power: nothing damaged is ever shown to {}", check.id);
            findings.push(Finding::new("drill.no-power", store.as_str(), message));
        } else {
            check.canary_caught = Some(own.all(|canary| canary.caught));
        }
    }
}

pub(crate) fn judge_promises(
    store: &StoreName,
    (rto_s, rto): (Option<f64>, Option<Duration>),
    (rpo_s, rpo): (f64, Option<Duration>),
    findings: &mut Vec<Finding>,
) {
    if let (Some(measured), Some(target)) = (rto_s, rto)
        && measured > target.as_secs_f64()
    {
        let message = format!("recovery took {measured:.1} s, the row promises {} s", target.as_secs());
        findings.push(Finding::new("drill.rto", store.as_str(), message));
    }
    if let Some(target) = rpo
        && rpo_s > target.as_secs_f64()
    {
        let message =
            format!("{rpo_s:.0} s of writes would be lost, the row promises {} s", target.as_secs());
        findings.push(Finding::new("drill.rpo", store.as_str(), message));
    }
}
