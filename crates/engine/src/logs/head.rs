//! How far a store's log was kept, and of which moment that was the whole of it: one small file in the state folder.

use std::path::Path;

use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::Timestamp;
use lifeboat_vault::logs::Position;
use serde::{Deserialize, Serialize};

const FILE: &str = "head.json";
const FORMAT: &str = "lifeboat.log-head/v1";

/// The head of a log. Written after every copy has what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    format: String,
    /// What tells the store from every other.
    pub(crate) identity: String,
    /// The position after the last that every copy holds.
    pub(crate) position: Position,
    /// Everything committed before this moment is held.
    pub(crate) as_of: Timestamp,
}

impl Head {
    pub(crate) fn new(identity: String, position: Position, as_of: Timestamp) -> Self {
        Self { format: FORMAT.to_owned(), identity, position, as_of }
    }

    /// The head in `folder`, if one was written.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, Failure> {
        let path = folder.join(FILE);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => {
                other.map_err(|error| Failure::io(format!("failed to read {}", path.display()), error))?
            }
        };
        let head: Self = serde_json::from_slice(&text).map_err(|error| {
            Failure::with_source(FailureKind::Damaged, format!("{} is damaged", path.display()), error)
        })?;
        if head.format == FORMAT {
            Ok(Some(head))
        } else {
            Err(Failure::new(FailureKind::Refused, format!("{} is of another version", path.display())))
        }
    }

    /// Replaces the head in `folder`.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec(self).map_err(|error| {
            Failure::with_source(FailureKind::Internal, "failed to write a log head", error)
        })?;
        crashsafe::replace(&folder.join(FILE), &text)
            .map_err(|error| Failure::io("failed to write how far the log was kept", error))
    }
}
