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
    /// Not most of the sentinels stand behind one server: those that answered may be cut off from the
    /// others, who have chosen another primary since.
    #[error(
        "only a minority of the sentinels agrees on a primary of {name}: {known} are known, {answered} answered and named {named}"
    )]
    Minority {
        /// Of what.
        name: String,
        /// Sentinels that are known to watch it.
        known: usize,
        /// Those that answered.
        answered: usize,
        /// The addresses, with how many named each.
        named: String,
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
            | Self::Minority { .. } => FailureKind::Unreachable,
        }
    }
}
