//! Counts differences, keeps the first few for people, and turns the result into a check result.

use crate::adapter::{CheckResult, CheckState};

/// Differences spelled out per check; the rest is only counted.
pub(crate) const MAX_DETAILS: usize = 10;

/// The differences one check has found so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    count: u64,
    detail: Vec<String>,
}

impl Tally {
    /// Adds a difference.
    pub(crate) fn add(&mut self, describe: impl FnOnce() -> String) {
        self.count += 1;
        if self.detail.len() < MAX_DETAILS {
            self.detail.push(describe());
        }
    }

    /// How many differences were added.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Passed if nothing was added, else failed.
    pub(crate) fn result(
        self,
        id: &str,
        measured: impl Into<String>,
        expected: impl Into<String>,
    ) -> CheckResult {
        CheckResult {
            id: id.to_owned(),
            state: if self.count == 0 { CheckState::Passed } else { CheckState::Failed },
            measured: measured.into(),
            expected: expected.into(),
            detail: self.detail,
            differences: self.count,
        }
    }
}

/// Passed if both texts are equal.
pub(crate) fn equal(id: &str, measured: impl Into<String>, expected: impl Into<String>) -> CheckResult {
    let (measured, expected) = (measured.into(), expected.into());
    let mut tally = Tally::default();
    if measured != expected {
        tally.add(|| format!("found {measured}, expected {expected}"));
    }
    tally.result(id, measured, expected)
}

/// A check that could not be measured, and why.
pub(crate) fn not_applicable(id: &str, expected: impl Into<String>, why: impl Into<String>) -> CheckResult {
    CheckResult {
        id: id.to_owned(),
        state: CheckState::NotApplicable,
        measured: "not measured".to_owned(),
        expected: expected.into(),
        detail: vec![why.into()],
        differences: 0,
    }
}

/// A check that failed for one reason.
pub(crate) fn failed(id: &str, expected: impl Into<String>, why: impl Into<String>) -> CheckResult {
    let mut tally = Tally::default();
    let why = why.into();
    tally.add(|| why);
    tally.result(id, "see detail", expected)
}
