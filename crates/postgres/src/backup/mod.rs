//! A base backup as the server streams it: start position, files of every tablespace, manifest, stop position.
//!
//! In: a replication connection. Out: entries with their content, one at a time, hashed while they pass, and compared
//! with the server's own manifest at the end. Memory: one frame of the stream and about 200 bytes per file.

mod error;
mod manifest;
mod stream;
mod tar;

pub use error::BackupError;
pub use manifest::{Manifest, ManifestFile, WalRange};
pub use stream::{BackupEntry, BackupKind, BackupOptions, BackupStop, BaseBackup, SeenFile, Tablespace};
