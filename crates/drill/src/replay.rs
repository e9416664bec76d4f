//! Making stores again that are not retained: in a sandbox, measured, checked, and the checks tried on bad samples.
//!
//! In: what the adapter knows of the row's duties. Out: one more part of a drill's report. A running store is never touched.

use std::fmt;
use std::time::Duration;

use lifeboat_base::ids::StoreName;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_stores::Duties;

use crate::report::{CheckOutcome, DrillReport, DrillVerdict, ReplayDrill};
use crate::run::{judge_canaries, judge_checks, judge_promises};
use crate::sandbox::SandboxError;
use crate::target::{Isolated, Target};

/// One store to make again.
pub struct ReplaySubject<'a> {
    /// The store.
    pub store: StoreName,
    /// What is owed for it.
    pub duties: &'a dyn Duties,
    /// The row's recovery time objective: how long making it again may take.
    pub rto: Option<Duration>,
}

impl fmt::Debug for ReplaySubject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplaySubject({})", self.store)
    }
}

/// Adds each store to the report, and what is wrong to its findings and its verdict.
///
/// An error means the sandbox could not be made. It is gone when this returns, or the report says that it is not.
pub fn replay(
    report: &mut DrillReport,
    subjects: &[ReplaySubject<'_>],
    target: &dyn Target,
    monitor: &dyn Monitor,
) -> Result<(), SandboxError> {
    let sandbox = target.provision(&report.id)?;
    let mut findings = sandbox.leftovers();
    // The drill of the retained stores may have told of it.
    findings.retain(|finding| !report.findings.contains(finding));
    for subject in subjects {
        report.replays.push(replay_one(subject, sandbox.as_ref(), monitor, &mut findings));
    }
    if let Err(error) = sandbox.teardown() {
        let message = format!("the sandbox could not be removed: {}", lifeboat_base::failure::chain(&error));
        findings.push(Finding::new("drill.teardown", report.id.as_str(), message));
    }
    for finding in &findings {
        monitor.finding(finding.clone());
    }
    if !findings.is_empty() {
        report.verdict = DrillVerdict::Failed;
    }
    report.findings.extend(findings);
    Ok(())
}

fn replay_one(
    subject: &ReplaySubject<'_>,
    sandbox: &dyn Isolated,
    monitor: &dyn Monitor,
    findings: &mut Vec<Finding>,
) -> ReplayDrill {
    let ReplaySubject { store, duties, rto } = subject;
    let known_before = findings.len();
    let mut checks = Vec::new();
    let mut took = None;
    let rebuilt = sandbox
        .folder(store.as_str())
        .map_err(Into::into)
        .and_then(|scratch| duties.rebuild(&scratch, monitor));
    match rebuilt {
        Ok(rebuilt) => {
            took = rebuilt.seconds;
            checks = rebuilt.checks.into_iter().map(CheckOutcome::from_result).collect();
        }
        Err(failure) => {
            let message = format!("{store} could not be made again: {}", failure.chain());
            findings.push(Finding::new("drill.failed", store.as_str(), message).with_kind(failure.kind()));
        }
    }
    judge_checks(store, &checks, &[], findings);
    let canaries = sandbox
        .folder(&format!("{store}.canaries"))
        .map_err(Into::into)
        .and_then(|scratch| duties.rebuild_canaries(&scratch));
    judge_canaries(store, canaries, &mut checks, findings);
    judge_promises(store, (took, *rto), (0.0, None), findings);
    let verdict = if findings.len() == known_before { DrillVerdict::Passed } else { DrillVerdict::Failed };
    let rto_target_s = rto.map(|span| span.as_secs_f64());
    ReplayDrill { name: store.clone(), rto_s: took, rto_target_s, checks, verdict }
}
