//! Why no server was found.

use lifeboat_base::failure::FailureKind;

use super::Role;
use crate::wire::RedisError;

/// No server to talk to.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The address cannot be used.
    #[error("invalid address")]
    Address(#[source] RedisError),
    /// A part of the address is missing or wrong; nothing of it is shown.
    #[error("write {0}")]
    Form(&'static str),
    /// Nobody who could know where the server is gave an answer; the last failure is the source.
    #[error("none of {asked} {who} answered")]
    NobodyAnswers {
        /// How many were asked.
        asked: usize,
        /// `sentinels` or `nodes of the cluster`.
        who: &'static str,
        /// What the last one came to.
        source: RedisError,
    },
    /// They answered, and know nothing of it.
    #[error("{who} answered and {what}")]
    Unknown {
        /// Who answered.
        who: String,
        /// What they do not know.
        what: String,
    },
    /// What was named is dead, or is something else.
    #[error("no {role} of {name} is to be found: {tried}")]
    NotInRole {
        /// What was wanted.
        role: Role,
        /// Of what.
        name: String,
        /// Each address that was named, with what came of it.
        tried: String,
    },
    /// Several servers say that they are the primary, and as many sentinels stand behind one as behind the other.
    #[error(
        "the sentinels disagree about the primary of {name}, and more than one server says it is: {tried}"
    )]
    Disagreement {
        /// Of what.
        name: String,
        /// The addresses.
        tried: String,
    },
}

impl PlaceError {
    /// What the caller can do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Address(source) => source.kind(),
            Self::Form(_) => FailureKind::Usage,
            Self::NobodyAnswers { .. }
            | Self::Unknown { .. }
            | Self::NotInRole { .. }
            | Self::Disagreement { .. } => FailureKind::Unreachable,
        }
    }
}
