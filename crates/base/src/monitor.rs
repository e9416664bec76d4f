//! Progress and non-fatal findings: work goes on, the exit code remembers.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::failure::FailureKind;

/// Something that is wrong but did not stop the work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable word for machines, such as `file-unreadable`.
    pub code: String,
    /// What it is about: a path, an object, a check.
    pub subject: String,
    /// One sentence for people, without secrets.
    pub message: String,
    /// The exit code it asks for (`Findings`, `Unreachable` or `Damaged`).
    pub kind: FailureKind,
}

impl Finding {
    /// A finding that ends in exit code 5 unless something worse comes along.
    pub fn new(code: &str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            subject: subject.into(),
            message: message.into(),
            kind: FailureKind::Findings,
        }
    }

    /// The same finding with another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: FailureKind) -> Self {
        self.kind = kind;
        self
    }
}

/// Receives progress and findings from work in progress. Called from several threads.
pub trait Monitor: Send + Sync {
    /// A new phase starts, such as `reading orders`; the total is in bytes, if it is known.
    fn phase(&self, name: &str, total_bytes: Option<u64>);
    /// `bytes` more of the current phase are done, and `items` more files, pages or objects.
    fn advance(&self, bytes: u64, items: u64);
    /// Something is wrong but the work goes on.
    fn finding(&self, finding: Finding);
    /// Something that whoever watches should know at once, such as what is waited for.
    fn notice(&self, _text: &str) {}
    /// Asked between items: true stops the work with a `Refused` failure and leaves nothing half-visible.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Keeps findings and forgets progress; the building block of tests and of quiet runs.
#[derive(Debug, Default)]
pub struct Findings(Mutex<Vec<Finding>>);

impl Findings {
    /// Starts empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything found so far.
    pub fn list(&self) -> Vec<Finding> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Monitor for Findings {
    fn phase(&self, _name: &str, _total_bytes: Option<u64>) {}

    fn advance(&self, _bytes: u64, _items: u64) {}

    fn finding(&self, finding: Finding) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(finding);
    }
}
