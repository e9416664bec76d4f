//! The stored shapes: a record and the signed head, payloads of DSSE documents. This module is the public format
//! `lifeboat.evidence/v1`: fields are added, never renamed or removed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use lifeboat_base::digest::Digest;
use lifeboat_base::time::Timestamp;

use crate::error::EvidenceError;

/// The format of records.
pub const FORMAT: &str = "lifeboat.evidence/v1";
/// The DSSE payload type of records.
pub(crate) const RECORD_TYPE: &str = "application/vnd.lifeboat.evidence+json";
/// The format of heads.
pub(crate) const HEAD_FORMAT: &str = "lifeboat.evidence-head/v1";
/// The DSSE payload type of heads.
pub(crate) const HEAD_TYPE: &str = "application/vnd.lifeboat.evidence-head+json";

/// The largest record file written or read, in bytes.
pub const MAX_RECORD_BYTES: u64 = 4 * 1024 * 1024;
/// The most records in one chain: the file names have eight digits.
pub const MAX_RECORDS: u64 = 99_999_999;
const MAX_KIND_BYTES: usize = 64;
const MAX_SUBJECT_BYTES: usize = 512;

/// What comes before the first record.
pub(crate) const NOTHING: Digest = Digest::from_bytes([0; 32]);

/// The tool named in records and bundles.
pub(crate) fn tool() -> String {
    format!("lifeboat {}", env!("CARGO_PKG_VERSION"))
}

/// One record: the payload of one DSSE document in one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Always [`FORMAT`].
    pub format: String,
    /// Its place in the chain, from 1; the file name says the same.
    pub seq: u64,
    /// SHA-256 of the whole file of the record before it; all zero for the first.
    pub previous: Digest,
    /// When it was written, by the clock of the machine that wrote it.
    pub at: Timestamp,
    /// What happened, such as `drill`: lowercase letters, digits, `.`, `-`, `_`.
    pub kind: String,
    /// What it happened to, such as a store's name; one line.
    pub subject: String,
    /// Name and version of the program that wrote it.
    pub tool: String,
    /// The facts; the writer of each kind documents their shape.
    pub body: Value,
}

/// Where a chain ends. Kept by others (a catalog, a recovery-point manifest) it is an anchor: a chain that was
/// replaced by an older state of itself no longer reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last record; 0 before the first.
    pub seq: u64,
    /// SHA-256 of that record's file; all zero before the first.
    pub digest: Digest,
    /// When that record was written.
    pub at: Timestamp,
}

/// The head as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredHead {
    pub(crate) format: String,
    #[serde(flatten)]
    pub(crate) head: Head,
}

/// Kinds and subjects are shown in tables and on terminals, and searched.
pub(crate) fn check_names(kind: &str, subject: &str) -> Result<(), EvidenceError> {
    let kind_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if kind.is_empty() || kind.len() > MAX_KIND_BYTES || !kind.bytes().all(kind_byte) {
        return Err(EvidenceError::InvalidRecord {
            why: format!("a kind has 1 to {MAX_KIND_BYTES} lowercase letters, digits, `.`, `-` or `_`"),
        });
    }
    if subject.len() > MAX_SUBJECT_BYTES || subject.chars().any(char::is_control) {
        return Err(EvidenceError::InvalidRecord {
            why: format!("a subject has at most {MAX_SUBJECT_BYTES} bytes and no control character"),
        });
    }
    Ok(())
}
