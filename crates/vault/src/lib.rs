//! One encrypted repository in the restic format for one store in one copy, with its recovery points and logs.
//!
//! In: captures, secrets out of an envelope, a [`storage::Storage`] to keep sealed objects in. Out: recovery points,
//! their content read back and verified, reports that name every damaged object with the points it takes along.
//! Invariants: no object is ever overwritten; a recovery point is visible only after everything it needs was
//! confirmed; no byte is given out that was not authenticated; nothing here knows a datastore or a schedule.

mod blobs;
pub mod canaries;
pub mod check;
mod copy;
pub mod crypto;
mod error;
mod format;
pub mod holds;
mod index;
pub mod layout;
pub mod locks;
pub mod logs;
mod points;
pub mod restore;
pub mod retire;
mod rustic;
pub mod shred;
mod signed;
pub mod storage;
#[cfg(test)]
mod testing;
mod vault;
pub mod write;

pub use check::{CheckLevel, CheckReport, DamagedObject, PointCheck, check_without_key};
pub use copy::CopyStats;
pub use error::VaultError;
pub use points::{EvidenceHead, POINT_FORMAT, POINT_PAYLOAD_TYPE, PointEntry, PointManifest, SnapshotId};
pub use restore::{Elsewhere, FileReader, MaterializeOptions, PointReader, RandomFile};
pub use vault::{NewVault, VAULT_PAYLOAD_TYPE, Vault, VaultIdentity};
pub use write::{SnapshotStamp, WriteOptions, Written};
