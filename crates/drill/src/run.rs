//! One drill run: every store through its stages, the clock running, nothing skipped silently.
//!
//! Stores come back in waves, side by side within one; what comes after the recovery (comparing stores, proving logs, trying
//! the checks on damaged samples) waits until the last is back, so that it takes nothing from the recovery time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_base::apart::Network;
use lifeboat_base::capture::{CaptureFacts, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, DrillId, PointId, StoreName};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::{Clock, SignedDuration, Timestamp};
use lifeboat_stores::meaning::BOARD;
use lifeboat_stores::{Adapter, CanaryResult, CheckResult, CheckState, Meaning};

use crate::agreement::{Rule, agree};
use crate::application::{self, Application, attempt};
use crate::deadline::Deadline;
use crate::differ::{MustDiffer, Telltales, search};
use crate::recorder::Recorder;
use crate::report::{CheckOutcome, DrillReport, DrillVerdict, StageReport, StoreDrill};
use crate::sandbox::SandboxError;
use crate::target::{Isolated, Target};

/// Clocks that differ by less are not worth a word.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(120);
/// Something of production is where what is tried could use it.
const MUST_DIFFER: &str = "drill.must-differ";
/// Stores that are worked on at once. Memory is that of as many restores.
const PARALLEL_STORES: usize = 4;

/// Opens a recovery point; called inside the drill so that opening counts in the recovery time.
pub type OpenPoint<'a> = Box<dyn FnOnce() -> Result<Box<dyn RestoreSource + 'a>, Failure> + Send + 'a>;

/// Proves the log between two points in an empty folder; called when the store is back, so that it takes nothing from the
/// recovery time.
pub type ProveLog<'a> = Box<dyn FnOnce(&Path, &dyn Monitor) -> Result<Vec<CheckResult>, Failure> + Send + 'a>;

/// Tries the code that reads points and logs on damaged ones, in an empty folder. A drill calls it once.
pub type TryReading<'a> = Box<dyn FnOnce(&Path) -> Result<Vec<CanaryResult>, Failure> + 'a>;

/// The check that every byte restored is one that was captured.
const READ: &str = "vault.read";
/// The check that the log replayed has no hole.
const LOG: &str = "vault.log";

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
    /// The newest moment it could be restored to by itself; never before the one it is restored to.
    pub reach: Timestamp,
    /// The store's adapter.
    pub adapter: &'a dyn Adapter,
    /// Opens the point.
    pub open: OpenPoint<'a>,
    /// Proves the log from an older point to a newer one, where there are two and a log between them.
    pub log: Option<ProveLog<'a>>,
    /// Whether its restore goes on through a log.
    pub replays: bool,
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

/// What is rehearsed.
pub struct Rehearsal<'a> {
    /// The drill's identity.
    pub id: DrillId,
    /// The moment of the imagined disaster.
    pub moment: Timestamp,
    /// The moment all stores are restored to, where there are several.
    pub common: Option<Timestamp>,
    /// The stores in the order in which they come back; those of one wave come back side by side.
    pub waves: Vec<Vec<DrillSubject<'a>>>,
    /// What they must say of each other.
    pub rules: Vec<Rule>,
    /// What must work on them.
    pub applications: Vec<Application>,
    /// Shows that what the stores are read by notices damage.
    pub reading: TryReading<'a>,
    /// What of production must not be in the target.
    pub telltales: Telltales,
}

impl fmt::Debug for Rehearsal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rehearsal({}, {:?})", self.id, self.waves)
    }
}

/// Runs a drill: every wave is restored and checked, then the stores are compared, then the checks are tried.
///
/// An error means the sandbox could not be made; everything later ends in the report. The sandbox is gone when this
/// returns, or the report says that it is not.
pub fn run(
    rehearsal: Rehearsal<'_>,
    target: &dyn Target,
    clock: &dyn Clock,
    monitor: &dyn Monitor,
) -> Result<DrillReport, SandboxError> {
    let Rehearsal { id, moment, common, waves, rules, applications, reading, telltales } = rehearsal;
    let recorder = Recorder::new(clock, monitor);
    let monitor: &dyn Monitor = &recorder;
    let sandbox = target.provision(&id)?;
    let mut stage = Stage {
        sandbox: sandbox.as_ref(),
        clock,
        monitor,
        moment,
        common,
        start: clock.monotonic(),
        reading: None,
    };
    let order: Vec<Vec<StoreName>> =
        waves.iter().map(|wave| wave.iter().map(|subject| subject.store.clone()).collect()).collect();
    let leftovers = sandbox.leftovers();
    let mut restored = Vec::new();
    for wave in waves {
        restored.extend(side_by_side(wave, &|subject| stage.restore(subject)));
    }
    let mut findings = Vec::new();
    let (must_differ, applications) =
        kept_apart(&telltales, applications, (target, sandbox.as_ref(), monitor), &mut findings);
    let mut agreement = agree(&rules, &restored, sandbox.as_ref(), (moment, monitor), &mut findings);
    let trial = application::Stage { sandbox: sandbox.as_ref(), clock, monitor };
    let mut answers = Vec::new();
    agreement.extend(attempt(&applications, &restored, &trial, (&mut answers, &mut findings)));
    let tried = sandbox.folder("reading.canaries").map_err(Failure::from).and_then(|folder| reading(&folder));
    stage.reading = Some(tried.map_err(|failure| failure.chain()));
    let stores = side_by_side(restored, &|restored| stage.finish(restored));
    let mut found: Vec<Finding> = leftovers;
    let stores = stores
        .into_iter()
        .map(|(store, own)| {
            found.extend(own);
            store
        })
        .collect::<Vec<StoreDrill>>();
    found.extend(findings);
    if let Err(error) = sandbox.teardown() {
        let message = format!("the sandbox could not be removed: {}", lifeboat_base::failure::chain(&error));
        found.push(Finding::new("drill.teardown", id.as_str(), message));
    }
    for finding in &found {
        monitor.finding(finding.clone());
    }
    let passed = found.is_empty() && stores.iter().all(|store| store.verdict == DrillVerdict::Passed);
    Ok(DrillReport {
        schema: DrillReport::SCHEMA.to_owned(),
        id,
        plan: None,
        moment,
        common_moment: common,
        order,
        ended: clock.now(),
        stores,
        tiers: Vec::new(),
        replays: Vec::new(),
        agreement,
        answers,
        baseline: false,
        verdict: if passed { DrillVerdict::Passed } else { DrillVerdict::Failed },
        findings: found,
        target: Some(target.word().to_owned()),
        environment: None,
        must_differ,
        log: recorder.into_lines(),
        records: Vec::new(),
        evidence: None,
    })
}

/// Looks for what must not be in the target, before anything that may reach further than the target runs: such a thing does
/// not run beside a secret or an address of production.
fn kept_apart(
    telltales: &Telltales,
    applications: Vec<Application>,
    (target, sandbox, monitor): (&dyn Target, &dyn Isolated, &dyn Monitor),
    findings: &mut Vec<Finding>,
) -> (Option<MustDiffer>, Vec<Application>) {
    let mut complain = |code: &str, message: String| findings.push(Finding::new(code, "sandbox", message));
    monitor.phase("looking for secrets and addresses of production", None);
    let searched = sandbox
        .folder("telltales")
        .map_err(Failure::from)
        .and_then(|scratch| search(telltales, sandbox.root(), (&scratch, monitor)));
    let found = match searched {
        Ok(found) => found,
        Err(failure) => {
            complain(MUST_DIFFER, format!("the target could not be searched: {}", failure.chain()));
            return (None, offline(applications));
        }
    };
    if !found.canary_caught {
        complain(MUST_DIFFER, "check has no power: the search missed what was planted".to_owned());
    }
    let reaches = !target.is_alone() || applications.iter().any(|tried| tried.network == Network::Host);
    if found.seen.is_empty() || !reaches {
        return (Some(found), applications);
    }
    for seen in &found.seen {
        let message =
            format!("{} stands in {}, beside what reaches this machine's network", seen.what, seen.file);
        complain(MUST_DIFFER, message);
    }
    (Some(found), offline(applications))
}

/// Those that reach nothing beside their stores.
fn offline(applications: Vec<Application>) -> Vec<Application> {
    applications.into_iter().filter(|application| application.network == Network::None).collect()
}

/// Works on several stores at once, and gives the results in the order of the stores.
fn side_by_side<T: Send, R: Send>(items: Vec<T>, work: &(dyn Fn(T) -> R + Sync)) -> Vec<R> {
    let mut results = Vec::new();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let batch: Vec<T> = items.by_ref().take(PARALLEL_STORES).collect();
        let done: Vec<R> = std::thread::scope(|scope| {
            let running: Vec<_> = batch.into_iter().map(|item| scope.spawn(move || work(item))).collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        results.extend(done);
    }
    results
}

/// Measures stages of one store's drill, and ends one that goes on for ever.
struct Stopwatch<'a> {
    clock: &'a dyn Clock,
    deadline: &'a Deadline<'a>,
    stages: Vec<StageReport>,
}

impl Stopwatch<'_> {
    fn stage<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let started = self.clock.now();
        let start = self.clock.monotonic();
        self.deadline.begin();
        let result = work().map_err(|failure| self.deadline.blame(name, failure));
        self.stages.push(StageReport {
            stage: name.to_owned(),
            started,
            seconds: self.clock.monotonic().saturating_sub(start).as_secs_f64(),
            ok: result.is_ok(),
        });
        result
    }
}

/// What all stores of a drill share.
struct Stage<'a> {
    sandbox: &'a dyn Isolated,
    clock: &'a dyn Clock,
    monitor: &'a dyn Monitor,
    moment: Timestamp,
    common: Option<Timestamp>,
    start: Duration,
    /// How the code that reads fared on damaged input, once it was tried.
    reading: Option<Result<Vec<CanaryResult>, String>>,
}

/// A store that was restored, or not.
pub(crate) struct Restored<'a> {
    pub(crate) store: StoreName,
    pub(crate) facts: &'a CaptureFacts,
    pub(crate) adapter: &'a dyn Adapter,
    /// What a user would open; nothing unless every check passed.
    pub(crate) artefact: Option<PathBuf>,
    point: PointId,
    copy: CopyName,
    reach: Timestamp,
    log: Option<ProveLog<'a>>,
    targets: (Option<Duration>, Option<Duration>),
    stages: Vec<StageReport>,
    checks: Vec<CheckOutcome>,
    meaning: Option<Meaning>,
    bytes: u64,
    rto_s: Option<f64>,
    ready_s: Option<f64>,
    findings: Vec<Finding>,
}

impl Stage<'_> {
    /// Opens, restores and checks.
    fn restore<'s>(&self, subject: DrillSubject<'s>) -> Restored<'s> {
        let DrillSubject { store, point, copy, facts, reach, adapter, open, log, replays, rto, rpo } =
            subject;
        let monitor = &Deadline::new(self.clock, self.monitor, &store, rto);
        let mut watch = Stopwatch { clock: self.clock, deadline: monitor, stages: Vec::new() };
        let start = self.clock.monotonic();
        let (mut checks, mut findings, mut bytes, mut meaning) = (Vec::new(), Vec::new(), 0, None);
        let outcome = (|| {
            let source = watch.stage("open", open)?;
            let target = self.sandbox.folder(store.as_str())?;
            let restored =
                watch.stage("restore", || adapter.restore(source.as_ref(), facts, &target, monitor))?;
            bytes = restored.stats.bytes;
            let results =
                watch.stage("check", || adapter.checks(source.as_ref(), facts, &target, monitor))?;
            checks = results.into_iter().map(CheckOutcome::from_result).collect();
            if let Some(probes) = adapter.probes() {
                // Also where a check failed: the decision says what to do about it.
                let ask = || probes.probe(source.as_ref(), facts, &target, monitor);
                let (board, found) = watch.stage("probe", ask)?;
                checks.push(CheckOutcome::from_result(board));
                meaning = Some(found);
            }
            Ok::<PathBuf, Failure>(restored.artefact)
        })();
        let (mut artefact, mut rto_s, mut ready_s) = (None, None, None);
        let read = outcome.is_ok().then(|| read(bytes, replays)).into_iter().flatten();
        match outcome {
            Ok(opened) if proven(&checks) => {
                let now = self.clock.monotonic();
                rto_s = Some(now.saturating_sub(start).as_secs_f64());
                ready_s = Some(now.saturating_sub(self.start).as_secs_f64());
                artefact = Some(opened);
            }
            Ok(_) if checks.iter().all(|check| check.state != CheckState::Failed) => {
                let message = format!("{point} was restored, but no check could be applied to it");
                findings.push(Finding::new("drill.unproven", store.as_str(), message));
            }
            Ok(_) => {}
            Err(failure) => {
                let message = format!("{point} could not be proved: {}", failure.chain());
                findings
                    .push(Finding::new("drill.failed", store.as_str(), message).with_kind(failure.kind()));
            }
        }
        // Only now: that bytes are those of the capture proves nothing of what they are worth.
        checks.extend(read);
        let (targets, stages) = ((rto, rpo), watch.stages);
        Restored {
            store,
            facts,
            adapter,
            artefact,
            point,
            copy,
            reach,
            log,
            targets,
            stages,
            checks,
            meaning,
            bytes,
            rto_s,
            ready_s,
            findings,
        }
    }

    fn tried_reading(&self) -> Result<Vec<CanaryResult>, Failure> {
        match &self.reading {
            Some(Ok(tried)) => Ok(tried.clone()),
            Some(Err(why)) => Err(Failure::new(FailureKind::Internal, why.clone())),
            None => Ok(Vec::new()),
        }
    }

    /// Proves the log, tries the checks on damaged samples, and judges.
    fn finish(&self, restored: Restored<'_>) -> (StoreDrill, Vec<Finding>) {
        let Restored { store, facts, adapter, point, copy, reach, log, mut checks, mut findings, .. } =
            restored;
        let monitor = &Deadline::new(self.clock, self.monitor, &store, restored.targets.0);
        let mut watch = Stopwatch { clock: self.clock, deadline: monitor, stages: restored.stages };
        let stopped = self.monitor.cancelled();
        if stopped {
            let message = format!("the drill was ended before {store} was done");
            findings.push(Finding::new("drill.stopped", store.as_str(), message));
        }
        if let Some(prove) = log.filter(|_| !stopped) {
            let folder = format!("{store}.log");
            let proved = watch.stage("log", || prove(&self.sandbox.folder(&folder)?, monitor));
            judge_log(&store, proved, &mut checks, &mut findings);
        }
        judge_checks(&store, &checks, adapter.essential(), &mut findings);
        if !stopped {
            let scratch = format!("{store}.canaries");
            let canaries = watch.stage("canaries", || {
                let own = tried(adapter, &checks, &self.sandbox.folder(&scratch)?)?;
                Ok([own, self.tried_reading()?].concat())
            });
            judge_canaries(&store, canaries, &mut checks, &mut findings);
        }
        let shows = facts.consistency.moment;
        let rpo_s = self.moment.duration_since(reach.max(shows)).max(SignedDuration::ZERO).as_secs_f64();
        if shows.duration_since(self.moment) > CLOCK_TOLERANCE {
            let message = format!("{point} shows a moment after the one of the drill: was a clock wrong?");
            findings.push(Finding::new("drill.clock", store.as_str(), message));
        }
        let (rto, rpo) = restored.targets;
        judge_promises(&store, (restored.rto_s, rto), (rpo_s, rpo), &mut findings);
        if !facts.unreadable.is_empty() {
            let message = format!("{point} was captured without {} unreadable items", facts.unreadable.len());
            findings.push(Finding::new("drill.incomplete", store.as_str(), message));
        }
        let verdict = if findings.is_empty() { DrillVerdict::Passed } else { DrillVerdict::Failed };
        let stages = watch.stages;
        let drill = StoreDrill {
            name: store,
            point,
            copy,
            shows,
            lag_s: self.common.map(|common| common.duration_since(shows).as_secs_f64()),
            stages,
            rto_s: restored.rto_s,
            rto_target_s: rto.map(|span| span.as_secs_f64()),
            forecast: None,
            ready_s: restored.ready_s,
            rpo_s,
            rpo_target_s: rpo.map(|span| span.as_secs_f64()),
            bytes: restored.bytes,
            checks,
            meaning: restored.meaning,
            verdict,
        };
        (drill, findings)
    }
}

/// What a restore that came to its end has shown by coming to its end: one wrong byte, or a hole in the log, ends it.
fn read(bytes: u64, replays: bool) -> Vec<CheckOutcome> {
    let passed = |id: &str, measured: String, threshold: &str| CheckOutcome {
        id: id.to_owned(),
        state: CheckState::Passed,
        measured,
        threshold: threshold.to_owned(),
        differences: 0,
        detail: Vec::new(),
        canary_caught: None,
    };
    let content = passed(READ, format!("{bytes} bytes authenticated"), "every byte restored");
    let log = passed(LOG, "no piece missing or altered".to_owned(), "every piece up to the moment");
    std::iter::once(content).chain(replays.then_some(log)).collect()
}

/// Shows damaged samples to the checks that were applied; a board is tried only where one was measured.
fn tried(
    adapter: &dyn Adapter,
    checks: &[CheckOutcome],
    scratch: &Path,
) -> Result<Vec<CanaryResult>, Failure> {
    let mut canaries = adapter.canaries(scratch)?;
    let is_board = |check: &CheckOutcome| check.id == BOARD && check.state != CheckState::NotApplicable;
    if let Some(probes) = adapter.probes().filter(|_| checks.iter().any(is_board)) {
        canaries.extend(probes.canaries(scratch)?);
    }
    Ok(canaries)
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
