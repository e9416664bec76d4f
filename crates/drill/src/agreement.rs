//! Whether restored stores say the same of each other: every rule of the policy, asked of what was just restored.
//!
//! In: stores that passed their checks, and rules between two of them. Out: one outcome per rule. What two stores say is
//! written to a scratch database in the sandbox and compared there, so memory does not grow with the stores. A difference
//! that the time between the two stores explains is told and allowed; any other fails the rule. Each rule is tried on the
//! same data with one thing changed: one that does not notice has no power.

mod ledger;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lifeboat_base::capture::{Consistency, ConsistencyLevel};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{AgreementName, StoreName};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::Timestamp;
use lifeboat_stores::{CheckResult, CheckState, Selection};

use self::ledger::{Ledger, Moments};
use crate::report::CheckOutcome;
use crate::run::Restored;
use crate::target::Isolated;

/// The family of these checks.
const FAMILY: &str = "agreement";
/// The scratch database's folder; no store has such a name.
const FOLDER: &str = ".agreement";

/// What must hold between two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Everything on the left exists on the right.
    Exists,
    /// Both have the same, also in value where both give one.
    Same,
    /// The newest times on both sides are equally old.
    Newest,
}

/// One side of a rule.
#[derive(Clone, Debug)]
pub struct Side {
    /// The store.
    pub store: StoreName,
    /// What is read out of it.
    pub selection: Selection,
    /// What stands before each name and is no part of it.
    pub prefix: String,
    /// What stands after each name and is no part of it.
    pub suffix: String,
}

/// One rule between two stores.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name.
    pub name: AgreementName,
    /// What is asked for.
    pub left: Side,
    /// Where it is looked up.
    pub right: Side,
    /// What must hold.
    pub expect: Expect,
    /// How long the application may take from one store to the other.
    pub within: Duration,
}

impl Side {
    /// The name itself. One without what should stand around it is nothing that the other side could mean, and gets the mark
    /// of its side.
    fn bare<'n>(&self, place: i64, name: &'n [u8]) -> Cow<'n, [u8]> {
        let rest = name.strip_prefix(self.prefix.as_bytes());
        let mark = if place == 0 { ledger::LEFT_MARK } else { ledger::RIGHT_MARK };
        rest.and_then(|rest| rest.strip_suffix(self.suffix.as_bytes()))
            .map_or_else(|| Cow::Owned([mark, name].concat()), Cow::Borrowed)
    }
}

/// Judges every rule; what fails or proves nothing is a finding.
pub(crate) fn agree(
    rules: &[Rule],
    restored: &[Restored<'_>],
    sandbox: &dyn Isolated,
    (now, monitor): (Timestamp, &dyn Monitor),
    findings: &mut Vec<Finding>,
) -> Vec<CheckOutcome> {
    if rules.is_empty() {
        return Vec::new();
    }
    monitor.phase("comparing the stores", None);
    let read = sandbox.folder(FOLDER).map_err(Failure::from).and_then(|folder| {
        let mut ledger = Ledger::make(&folder)?;
        let troubles = read_all(rules, restored, &mut ledger, monitor)?;
        Ok((ledger, troubles))
    });
    let outcomes = match read {
        Ok((mut ledger, troubles)) => rules
            .iter()
            .enumerate()
            .map(|(number, rule)| match troubles.get(&number) {
                Some(why) => unproven(rule, why),
                None => judge(rule, number, (restored, now), &mut ledger)
                    .unwrap_or_else(|failure| unproven(rule, &failure.chain())),
            })
            .collect(),
        Err(failure) => rules.iter().map(|rule| unproven(rule, &failure.chain())).collect::<Vec<_>>(),
    };
    for outcome in &outcomes {
        let first = outcome.detail.first().map(|line| format!(": {line}")).unwrap_or_default();
        let (id, between) = (&outcome.id, outcome.id.trim_start_matches("agreement/"));
        match (outcome.state, outcome.canary_caught) {
            (CheckState::Passed, Some(true)) => {}
            (CheckState::Passed, _) => {
                let message = format!("check has no power: {id} did not notice a damaged sample");
                findings.push(Finding::new("drill.no-power", between, message));
            }
            (CheckState::Failed, _) => {
                let message = format!("the stores do not agree: {}{first}", outcome.measured);
                findings.push(Finding::new(id, between, message));
            }
            (CheckState::NotApplicable, _) => {
                let message = format!("{id} could not be applied{first}");
                findings.push(Finding::new("drill.unproven", between, message));
            }
        }
    }
    outcomes
}

fn unproven(rule: &Rule, why: &str) -> CheckOutcome {
    CheckOutcome::from_result(CheckResult {
        id: format!("{FAMILY}/{}", rule.name),
        state: CheckState::NotApplicable,
        measured: "not measured".to_owned(),
        expected: ledger::expected(rule),
        detail: vec![why.to_owned()],
        differences: 0,
    })
}

/// Fills the ledger, each store once. Gives the rules that could not be read, with the reason.
fn read_all(
    rules: &[Rule],
    restored: &[Restored<'_>],
    ledger: &mut Ledger,
    monitor: &dyn Monitor,
) -> Result<BTreeMap<usize, String>, Failure> {
    let mut troubles = BTreeMap::new();
    let sides = || {
        rules
            .iter()
            .enumerate()
            .flat_map(|(number, rule)| [(number, 0, &rule.left), (number, 1, &rule.right)])
    };
    let stores: std::collections::BTreeSet<&StoreName> = sides().map(|(_, _, side)| &side.store).collect();
    for store in stores {
        let own: Vec<(usize, i64, &Side)> = sides().filter(|(_, _, side)| side.store == *store).collect();
        let fail = |why: String, troubles: &mut BTreeMap<usize, String>| {
            for (number, ..) in &own {
                troubles.entry(*number).or_insert_with(|| format!("{store}: {why}"));
            }
        };
        let Some(there) = restored.iter().find(|there| there.store == *store) else {
            fail("it is no part of the drill".to_owned(), &mut troubles);
            continue;
        };
        let Some(artefact) = &there.artefact else {
            fail("it was not restored, or a check failed".to_owned(), &mut troubles);
            continue;
        };
        let Some(select) = there.adapter.selects() else {
            fail("its kind cannot be asked what it holds".to_owned(), &mut troubles);
            continue;
        };
        let wanted: Vec<Selection> = own.iter().map(|(_, _, side)| side.selection.clone()).collect();
        let results = ledger.fill(|add| {
            select.select(there.facts, artefact, &wanted, monitor, &mut |index, found| {
                let Some((number, place, side)) = own.get(index) else {
                    return Err(Failure::new(FailureKind::Internal, "an answer without a question"));
                };
                add(*number, *place, &side.bare(*place, &found.name), &found)
            })
        })?;
        match results {
            Ok(results) => {
                for ((number, ..), result) in own.iter().zip(results) {
                    if let Err(failure) = result {
                        troubles.entry(*number).or_insert_with(|| format!("{store}: {}", failure.chain()));
                    }
                }
            }
            Err(failure) => fail(failure.chain(), &mut troubles),
        }
    }
    Ok(troubles)
}

fn judge(
    rule: &Rule,
    number: usize,
    (restored, now): (&[Restored<'_>], Timestamp),
    ledger: &mut Ledger,
) -> Result<CheckOutcome, Failure> {
    let moments = |side: &Side| -> Result<(Timestamp, Timestamp), Failure> {
        let there = restored.iter().find(|there| there.store == side.store).ok_or_else(|| {
            Failure::new(FailureKind::Internal, format!("`{}` is no part of the drill", side.store))
        })?;
        let Consistency { level, moment, .. } = there.facts.consistency;
        // What is captured while it changes may hold what was written until its end.
        let until = if level == ConsistencyLevel::PointInTime { moment } else { now };
        Ok((moment, until))
    };
    let ((left, left_until), (right, right_until)) = (moments(&rule.left)?, moments(&rule.right)?);
    let moments = Moments { left, left_until, right, right_until };
    let result = ledger.judge(rule, number, &moments)?;
    let caught = match result.state {
        CheckState::NotApplicable => None,
        // What failed on what is there needs no proof that it can.
        CheckState::Failed => Some(true),
        CheckState::Passed => Some(ledger.notices(rule, number, &moments)?),
    };
    Ok(CheckOutcome { canary_caught: caught, ..CheckOutcome::from_result(result) })
}

/// A folder that the scratch database may be in.
fn database(folder: &Path) -> std::path::PathBuf {
    folder.join("said.db")
}
