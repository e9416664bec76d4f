//! Gaps between what the policy promises and what is shown to hold, with what closes each. Made from the matrix, so from evidence:
//! the same evidence at the same moment gives the same words.

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::StoreName;
use lifeboat_base::time::Timestamp;
use lifeboat_policy::{Retention, Store};
use serde::Serialize;

use crate::context::Engine;
use crate::drills::in_order;
use crate::error::EngineError;
use crate::status::{PromiseKind, PromiseState, PromiseView, StatusReport};

/// A promise that is not shown to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The row, or the planned drill.
    pub row: String,
    /// The promise, such as `rpo`; `plan` for a planned drill, `rows` for what no row covers.
    pub field: &'static str,
    /// Broken, or not proven.
    pub state: PromiseState,
    /// What the policy asks for.
    pub expected: String,
    /// What was seen, and since when.
    pub observed: String,
    /// What closes it.
    pub next: String,
    /// The record it rests on.
    pub evidence: Option<String>,
}

/// A store that has to be made again after a loss, since nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rebuild {
    /// The store.
    pub store: StoreName,
    /// Why, and from what.
    pub why: String,
}

/// How many promises are in which state, and what that comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditSummary {
    /// Kept if nothing is broken and nothing unproven; else the worse of the two.
    pub verdict: PromiseState,
    /// Promises shown to hold.
    pub kept: usize,
    /// Promises shown not to hold.
    pub broken: usize,
    /// Promises that are neither.
    pub not_proven: usize,
}

/// What an auditor reads.
#[derive(Clone, Debug, Serialize)]
pub struct AuditReport {
    /// `lifeboat.audit/v1`.
    pub schema: &'static str,
    /// The moment it was made for.
    pub at: Timestamp,
    /// The hash of the policy file.
    pub policy_hash: Digest,
    /// What does not hold or is not shown to, in the order of the policy.
    pub gaps: Vec<Gap>,
    /// The order in which the stores come back; those of one step side by side.
    pub restore_order: Vec<Vec<StoreName>>,
    /// The fewest commands after which every RPO and RTO is shown to hold or not to.
    pub minimal_set: Vec<String>,
    /// What is made again instead of restored.
    pub rebuild: Vec<Rebuild>,
    /// The whole in one line.
    pub summary: AuditSummary,
}

impl AuditReport {
    /// A broken promise is a finding.
    pub fn worst(&self) -> Option<FailureKind> {
        (self.summary.broken > 0).then_some(FailureKind::Findings)
    }
}

impl Engine {
    /// The gaps of the whole policy.
    pub fn audit(&self) -> Result<AuditReport, EngineError> {
        let status = self.status(&[])?;
        let rows: Vec<&Store> = self.policy.stores.values().collect();
        let retained: Vec<&Store> =
            rows.iter().copied().filter(|row| !matches!(row.retention.value, Retention::None)).collect();
        let order = in_order(&retained)?;
        let restore_order =
            order.iter().map(|wave| wave.iter().map(|row| row.name.clone()).collect()).collect();
        Ok(AuditReport {
            schema: "lifeboat.audit/v1",
            at: status.at,
            policy_hash: status.policy_hash,
            gaps: gaps(&status, &|store| !self.rules_of(store).is_empty()),
            restore_order,
            minimal_set: minimal_set(&status, retained.len()),
            rebuild: rows.iter().filter_map(|row| rebuild(row)).collect(),
            summary: summary(&status),
        })
    }
}

/// `has_rules` says which rows are compared with others.
fn gaps(status: &StatusReport, has_rules: &dyn Fn(&StoreName) -> bool) -> Vec<Gap> {
    let open = |state: PromiseState| matches!(state, PromiseState::Broken | PromiseState::Unproven);
    let cells = status.stores.iter().flat_map(|store| {
        store.promises.iter().filter(|cell| open(cell.state)).map(|cell| Gap {
            row: store.name.to_string(),
            field: cell.promise.word(),
            state: cell.state,
            expected: cell.target.clone().unwrap_or_else(|| "it is shown to hold".to_owned()),
            observed: observed(cell),
            next: next(cell.promise, &store.name, has_rules(&store.name)),
            evidence: cell.evidence.clone(),
        })
    });
    let drills = status.drills.iter().filter(|plan| open(plan.state)).map(|plan| Gap {
        row: plan.name.to_string(),
        field: "plan",
        state: plan.state,
        expected: format!("it passes every {}", plan.every),
        observed: plan.reason.clone(),
        next: format!("lifeboat drill --plan {}", plan.name),
        evidence: plan.evidence.clone(),
    });
    let parts = status.findings.iter().map(|finding| Gap {
        row: finding.subject.clone(),
        field: "rows",
        state: PromiseState::Broken,
        expected: "every part has a row".to_owned(),
        observed: finding.message.clone(),
        next: "lifeboat check".to_owned(),
        evidence: None,
    });
    cells.chain(drills).chain(parts).collect()
}

fn observed(cell: &PromiseView) -> String {
    match &cell.observed {
        Some(seen) => format!("{seen}: {}", cell.reason),
        None => cell.reason.clone(),
    }
}

/// What closes a gap, or shows what does.
fn next(promise: PromiseKind, store: &StoreName, has_rules: bool) -> String {
    match promise {
        // Alone it says nothing of what it and others must say of each other.
        PromiseKind::Drill if has_rules => "lifeboat drill --all".to_owned(),
        PromiseKind::Rpo | PromiseKind::Copies => format!("lifeboat backup {store}"),
        PromiseKind::Rto | PromiseKind::Drill => format!("lifeboat drill {store}"),
        PromiseKind::Retention => format!("lifeboat retain {store}"),
        PromiseKind::Encryption | PromiseKind::Verify => format!("lifeboat verify {store}"),
        PromiseKind::Immutability => "name a copy with a `lock` in the row's `copies`".to_owned(),
    }
}

/// A capture for every RPO that does not hold, and a drill for every RTO: of the stores alone if they are few.
fn minimal_set(status: &StatusReport, retained: usize) -> Vec<String> {
    let lacking = |promise: PromiseKind| -> Vec<&str> {
        let open = |cell: &PromiseView| {
            cell.promise == promise && matches!(cell.state, PromiseState::Broken | PromiseState::Unproven)
        };
        let stores = status.stores.iter().filter(|store| store.promises.iter().any(open));
        stores.map(|store| store.name.as_str()).collect()
    };
    let command = |verb: &str, all: &str, names: Vec<&str>| match names.len() {
        0 => None,
        count if count == retained => Some(format!("lifeboat {verb}{all}")),
        _ => Some(format!("lifeboat {verb} {}", names.join(" "))),
    };
    let captures = command("backup", "", lacking(PromiseKind::Rpo));
    captures.into_iter().chain(command("drill", " --all", lacking(PromiseKind::Rto))).collect()
}

fn rebuild(row: &Store) -> Option<Rebuild> {
    let why = match row.retention.value {
        Retention::Keep(_) => return None,
        Retention::None if row.checks.replay.is_empty() => {
            "it is not retained, and the row does not say how it is made again".to_owned()
        }
        Retention::None => "it is not retained; the row's `replay` makes it again".to_owned(),
    };
    Some(Rebuild { store: row.name.clone(), why })
}

fn summary(status: &StatusReport) -> AuditSummary {
    let [kept, broken, not_proven] =
        [PromiseState::Kept, PromiseState::Broken, PromiseState::Unproven].map(|state| status.count(state));
    let broken = broken + status.findings.len();
    let verdict = match (broken, not_proven) {
        (0, 0) => PromiseState::Kept,
        (0, _) => PromiseState::Unproven,
        _ => PromiseState::Broken,
    };
    AuditSummary { verdict, kept, broken, not_proven }
}
