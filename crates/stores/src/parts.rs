//! The contract with kinds whose content has parts that can be taken out alone, such as a database or a table.
//!
//! In: a restored store in a scratch directory, and the name of a part. Out: one file with that part, read back. What was
//! asked for and is not there is a [`PartMissing`] behind a refusal, which no other recovery point or copy helps against.

use std::path::Path;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Monitor;
use serde::Serialize;

/// What to take out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The database, by its exact name.
    pub database: String,
    /// Its tables; none means the whole database.
    pub tables: Vec<String>,
    /// As text a person can read, instead of the engine's archive.
    pub plain: bool,
}

/// A table that was asked for and taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartTable {
    /// Its name, quoted where it would otherwise read as another.
    pub name: String,
    /// The rows it has, its partitions included; nothing for what holds none of its own, such as a view.
    pub rows: Option<u64>,
}

/// What was taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartReport {
    /// The tables asked for.
    pub tables: Vec<PartTable>,
    /// The size of the file in bytes.
    pub bytes: u64,
}

/// A store whose parts can be taken out.
pub trait Parts: Send + Sync {
    /// Refuses what cannot work on this machine, before anything is fetched.
    fn ready(&self, facts: &CaptureFacts) -> Result<(), Failure>;

    /// Takes `part` out of the store that [`Adapter::restore`](crate::Adapter::restore) left in the directory `restored`,
    /// which is scratch and used up. Writes the new file `into` (mode 0600), durable and read back to its end when this
    /// returns; scratch files may lie beside it.
    fn extract(
        &self,
        facts: &CaptureFacts,
        restored: &Path,
        part: &Part,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<PartReport, Failure>;
}

/// A part that is not in the store, with what is there instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PartMissing(String);

impl PartMissing {
    /// As the refusal it ends in; `what` names the part and what there is.
    pub fn refusal(what: impl Into<String>) -> Failure {
        Failure::with_source(FailureKind::Refused, "nothing was extracted", Self(what.into()))
    }

    /// Whether this is behind a failure.
    pub fn is_behind(failure: &Failure) -> bool {
        let mut next = std::error::Error::source(failure);
        while let Some(cause) = next {
            if cause.is::<Self>() {
                return true;
            }
            next = cause.source();
        }
        false
    }
}
