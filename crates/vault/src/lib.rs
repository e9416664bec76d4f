//! One encrypted repository in the restic format for one store in one copy, with its recovery points and logs.

mod blobs;
pub mod crypto;
mod error;
mod format;
mod index;
pub mod layout;
pub mod logs;
mod points;
mod rustic;
pub mod storage;
mod vault;

pub use error::VaultError;
pub use points::{EvidenceHead, POINT_FORMAT, POINT_PAYLOAD_TYPE, PointEntry, PointManifest, SnapshotId};
pub use vault::{NewVault, VAULT_PAYLOAD_TYPE, Vault, VaultIdentity};
