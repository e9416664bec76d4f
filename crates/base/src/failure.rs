//! Failures, described by what the caller can do about them.
//!
//! Crates keep their own error types; at the seams (a capture read by the vault, a vault read by an adapter, a
//! report shown by the command line) they meet as a [`Failure`].

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a failure means for the person who has to act on it. Each maps to one exit code of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A defect or an unexpected condition inside Lifeboat or its machine (full disk included).
    Internal,
    /// The command line or the policy is wrong.
    Usage,
    /// A precondition does not hold; nothing was changed.
    Refused,
    /// A store, copy or secret could not be reached or read.
    Unreachable,
    /// Work finished, but a check failed or a promise is broken.
    Findings,
    /// Stored data is damaged, was altered, or cannot be decrypted.
    Damaged,
}

impl FailureKind {
    /// The exit code of the command line contract.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Unreachable => 4,
            Self::Findings => 5,
            Self::Damaged => 6,
        }
    }

    /// The stable word used in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Findings => "findings",
            Self::Damaged => "damaged",
        }
    }
}

/// An error at a seam between crates: its kind, what failed (a lowercase fragment without its cause), and the cause.
pub struct Failure {
    kind: FailureKind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure without a deeper cause.
    pub fn new(kind: FailureKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// A failure with its cause; `Display` shows only `what`, the printer walks the chain.
    pub fn with_source(
        kind: FailureKind,
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { kind, what: what.into(), source: Some(source.into()) }
    }

    /// Classifies an I/O error: missing or forbidden paths are unreachable, everything else is internal.
    pub fn io(what: impl Into<String>, error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let kind = match error.kind() {
            K::NotFound
            | K::PermissionDenied
            | K::NotADirectory
            | K::IsADirectory
            | K::ReadOnlyFilesystem => FailureKind::Unreachable,
            _ => FailureKind::Internal,
        };
        Self::with_source(kind, what, error)
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// `what: cause: deeper cause`, for a single line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// Joins an error and its causes into one line, leaving out a cause whose text the line already ends with.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({:?}, {:?})", self.kind, self.chain())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_leaves_the_cause_to_the_chain() {
        let inner = Failure::new(FailureKind::Internal, "no space left");
        let outer = Failure::with_source(FailureKind::Unreachable, "failed to write the manifest", inner);
        assert_eq!(outer.to_string(), "failed to write the manifest");
        assert_eq!(outer.chain(), "failed to write the manifest: no space left");
    }

    #[test]
    fn every_kind_has_its_own_exit_code() {
        use FailureKind::{Damaged, Findings, Internal, Refused, Unreachable, Usage};
        let codes = [Internal, Usage, Refused, Unreachable, Findings, Damaged].map(FailureKind::exit_code);
        assert_eq!(codes, [1, 2, 3, 4, 5, 6]);
    }
}
