//! One encrypted repository in the restic format for one store in one copy, with its recovery points and logs.

mod blobs;
pub mod crypto;
mod error;
mod format;
mod index;
pub mod layout;
pub mod logs;
mod points;
pub mod restore;
mod rustic;
pub mod storage;
mod vault;
pub mod write;

pub use error::VaultError;
pub use points::{EvidenceHead, POINT_FORMAT, POINT_PAYLOAD_TYPE, PointEntry, PointManifest, SnapshotId};
pub use restore::{FileReader, PointReader, RandomFile};
pub use vault::{NewVault, VAULT_PAYLOAD_TYPE, Vault, VaultIdentity};
pub use write::{SnapshotStamp, WriteOptions, Written};
