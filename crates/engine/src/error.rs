//! What went wrong, which promise is now at risk, and what to do next.

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::StoreName;
use serde::Serialize;

/// A promise that a failure puts at risk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AtRisk {
    /// The store.
    pub store: StoreName,
    /// `rpo`, `rto`, `copies`, `verify` and so on.
    pub promise: String,
}

/// A request that could not be carried out.
#[derive(Debug, thiserror::Error)]
#[error("{failure}")]
pub struct EngineError {
    /// What failed.
    pub failure: Failure,
    /// What it puts at risk.
    pub at_risk: Vec<AtRisk>,
    /// The next command or step.
    pub next: Option<String>,
}

impl EngineError {
    /// A failure of which no promise depends.
    pub fn new(kind: FailureKind, what: impl Into<String>) -> Self {
        Failure::new(kind, what).into()
    }

    /// Names a promise at risk; once, however many on the way name it.
    #[must_use]
    pub fn risking(mut self, store: &StoreName, promise: &str) -> Self {
        let risk = AtRisk { store: store.clone(), promise: promise.to_owned() };
        if !self.at_risk.contains(&risk) {
            self.at_risk.push(risk);
        }
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        self.failure.kind()
    }
}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> Self {
        Self { failure, at_risk: Vec::new(), next: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_named_once_however_many_on_the_way_name_it() {
        let store = StoreName::new("shop").unwrap();
        let error = EngineError::new(FailureKind::Refused, "another cluster");
        let error = error.risking(&store, "rpo").risking(&store, "copies").risking(&store, "rpo");
        let promises: Vec<&str> = error.at_risk.iter().map(|risk| risk.promise.as_str()).collect();
        assert_eq!(promises, ["rpo", "copies"]);
    }
}
