//! Signed, hash-chained records and bundles an outsider can verify offline.
//!
//! In: what happened (kind, subject, a JSON body) and a signing key. Out: a directory of write-once records that
//! shows any later edit, and bundles to hand over. `docs/evidence.md` is the contract in prose.
//!
//! Invariant: knows nothing about drills, vaults or stores; a body is any JSON. No record is ever changed or deleted.

mod archive;
mod bundle;
mod bundle_verify;
mod chain;
mod check;
mod error;
mod files;
mod index;
mod record;
mod verify;

pub use archive::unpack;
pub use bundle::{BundleSummary, Filter, Page, export};
pub use bundle_verify::{BundleReport, verify_bundle};
pub use chain::{Chain, RecordRef, Records, StoredRecord};
pub use check::{Problem, ProblemKind};
pub use error::EvidenceError;
pub use record::{FORMAT, Head, MAX_RECORD_BYTES, MAX_RECORDS, Record};
pub use verify::{VerifyReport, verify};
