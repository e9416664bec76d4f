//! What can go wrong with a measurement, described by what the caller can do about it.
//!
//! A bad index is not an error: that is a board with a verdict. An error is an input that no number may be made of.

use lifeboat_base::failure::{Failure, FailureKind};

/// A refusal to compute, or a document that cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProbeError {
    /// A number is NaN or infinite.
    #[error("{what} is not a finite number")]
    NotFinite {
        /// Which number.
        what: String,
    },
    /// There is nothing to compute from.
    #[error("{what} has no values")]
    Empty {
        /// Which list.
        what: String,
    },
    /// A number lies outside its range.
    #[error("{what} is {found}, it must be from {low} to {high}")]
    OutOfRange {
        /// Which number.
        what: String,
        /// What it is.
        found: f64,
        /// The lowest allowed.
        low: f64,
        /// The highest allowed.
        high: f64,
    },
    /// Two vectors that belong together have different lengths.
    #[error("a vector of {what} has {found} dimensions, expected {expected}")]
    Dimension {
        /// Whose vector.
        what: String,
        /// Its length.
        found: usize,
        /// The length it must have.
        expected: usize,
    },
    /// A vector has no direction: nothing can be compared with it.
    #[error("the vector of {what} is zero")]
    ZeroVector {
        /// Whose vector.
        what: String,
    },
    /// A span that ends where it starts, or before.
    #[error("the span {start}..{end} of {what} is empty or reversed")]
    Span {
        /// Whose span.
        what: String,
        /// First byte.
        start: u64,
        /// First byte after it.
        end: u64,
    },
    /// A probe was not run as often as its procedure asks.
    #[error("probe `{probe}` has {found} runs, expected 3 paraphrases x 2 seeds")]
    Runs {
        /// The probe.
        probe: String,
        /// How many runs there are.
        found: usize,
    },
    /// Ids must come in ascending order, each once.
    #[error("`{id}` comes after `{after}`: ids must be unique and sorted")]
    Unsorted {
        /// The id that came too late.
        id: String,
        /// The one before it.
        after: String,
    },
    /// More than the limit of this computation.
    #[error("{what} is larger than the limit of {limit}")]
    TooMany {
        /// What there is too much of.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A record breaks the rules of its format.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// Which record; for a file of lines with the number of the line.
        what: String,
        /// Which rule, and what would be right.
        why: String,
    },
    /// Two boards that were not measured the same way.
    #[error("the boards cannot be compared: {field} was {before} and is {after}")]
    NotComparable {
        /// What differs.
        field: &'static str,
        /// In the baseline.
        before: String,
        /// In the newer board.
        after: String,
    },
}

impl ProbeError {
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotFinite { .. }
            | Self::Dimension { .. }
            | Self::ZeroVector { .. }
            | Self::OutOfRange { .. }
            | Self::Invalid { .. }
            | Self::Span { .. }
            | Self::Unsorted { .. } => FailureKind::Damaged,
            Self::Empty { .. } | Self::NotComparable { .. } | Self::TooMany { .. } => FailureKind::Refused,
            Self::Runs { .. } => FailureKind::Internal,
        }
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
