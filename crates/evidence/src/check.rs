//! The judgement of one signed file, shared by the chain, its verification and bundles.
//!
//! In: the bytes of a file and the trusted key. Out: the payload, or which problem it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use lifeboat_base::digest::Digest;
use lifeboat_base::human::{count, printable};
use lifeboat_keys::{DsseEnvelope, PublicKey};

use crate::files::{RECORDS, record_name};
use crate::record::{FORMAT, HEAD_FORMAT, HEAD_TYPE, Head, RECORD_TYPE, Record, StoredHead};

/// More problems than this are counted, not listed.
const MAX_PROBLEMS: usize = 1_000;

/// What was done to a chain or a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// A file's content changed after it was signed.
    Edited,
    /// A file is missing.
    Dropped,
    /// A valid record stands in another's place, or does not follow the one before it.
    Reordered,
    /// A file was signed by a key that is not the chain's.
    ForeignKey,
    /// The end of the chain is missing.
    Truncated,
    /// The head was replaced by an older one: the chain goes on after it.
    Replayed,
    /// A file could not be read, or not by this version.
    Unreadable,
    /// A file that does not belong there.
    Extra,
}

impl ProblemKind {
    /// The stable word used in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Dropped => "dropped",
            Self::Reordered => "reordered",
            Self::ForeignKey => "foreign-key",
            Self::Truncated => "truncated",
            Self::Replayed => "replayed",
            Self::Unreadable => "unreadable",
            Self::Extra => "extra",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The record's number, if it is about one.
    pub seq: Option<u64>,
    /// The file, relative to the chain or the bundle, printable.
    pub file: String,
    /// What was done.
    pub kind: ProblemKind,
    /// A clause about the file, such as `was changed after it was signed`.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.file, self.message, self.kind.word())
    }
}

/// What is wrong with one file.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: ProblemKind,
    pub(crate) why: String,
}

impl Fault {
    pub(crate) fn new(kind: ProblemKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }

    pub(crate) fn unreadable(error: &std::io::Error) -> Self {
        Self::new(ProblemKind::Unreadable, format!("could not be read: {error}"))
    }
}

/// Problems in the order found, bounded.
#[derive(Default)]
pub(crate) struct Problems {
    pub(crate) list: Vec<Problem>,
    pub(crate) total_count: u64,
}

impl Problems {
    pub(crate) fn file(&mut self, file: &str, fault: Fault) {
        self.push(None, file.to_owned(), fault);
    }

    pub(crate) fn record(&mut self, seq: u64, fault: Fault) {
        self.push(Some(seq), format!("{RECORDS}/{}", record_name(seq)), fault);
    }

    /// Missing records, as one problem however many they are.
    pub(crate) fn missing(&mut self, first: u64, last: u64, kind: ProblemKind) {
        let why = if first == last {
            "is missing".to_owned()
        } else {
            format!(
                "to {} are missing ({} records)",
                record_name(last),
                count(last.saturating_sub(first).saturating_add(1))
            )
        };
        self.record(first, Fault::new(kind, why));
    }

    fn push(&mut self, seq: Option<u64>, file: String, fault: Fault) {
        self.total_count += 1;
        if self.list.len() < MAX_PROBLEMS {
            self.list.push(Problem { seq, file, kind: fault.kind, message: fault.why });
        }
    }
}

/// The payload of a file that is, byte for byte, one document signed once by `public`.
pub(crate) fn signed(bytes: &[u8], public: &PublicKey, payload_type: &str) -> Result<Vec<u8>, Fault> {
    use ProblemKind::{Edited, ForeignKey};
    let document = DsseEnvelope::from_exact_bytes(bytes)
        .map_err(|error| Fault::new(Edited, format!("is not as it was written: {error}")))?;
    let [signature] = document.signatures() else {
        return Err(Fault::new(Edited, "does not carry exactly one signature"));
    };
    let names_the_key = signature.keyid == public.key_id();
    match document.verify(&[*public], payload_type) {
        Ok(payload) if names_the_key => Ok(payload),
        Ok(_) => Err(Fault::new(Edited, "names a key that did not sign it")),
        Err(_) if names_the_key => Err(Fault::new(Edited, "was changed after it was signed")),
        Err(_) => Err(Fault::new(
            ForeignKey,
            format!("was signed by key {}, not by key {}", printable(&signature.keyid), public.key_id()),
        )),
    }
}

/// The record in a file, if it is authentic and stands where it belongs; its neighbours are not looked at.
pub(crate) fn record(bytes: &[u8], public: &PublicKey, seq: u64) -> Result<Record, Fault> {
    let payload = signed(bytes, public, RECORD_TYPE)?;
    let record: Record = serde_json::from_slice(&payload)
        .map_err(|error| Fault::new(ProblemKind::Unreadable, format!("holds no record: {error}")))?;
    if record.format != FORMAT {
        return Err(Fault::new(
            ProblemKind::Unreadable,
            format!("has format `{}`, which this version does not read", printable(&record.format)),
        ));
    }
    if record.seq != seq {
        return Err(Fault::new(
            ProblemKind::Reordered,
            format!("holds record {}, which belongs in {}", record.seq, record_name(record.seq)),
        ));
    }
    Ok(record)
}

/// The head in a file, if it is authentic.
pub(crate) fn head(bytes: &[u8], public: &PublicKey) -> Result<Head, Fault> {
    let payload = signed(bytes, public, HEAD_TYPE)?;
    let stored: StoredHead = serde_json::from_slice(&payload)
        .map_err(|error| Fault::new(ProblemKind::Unreadable, format!("holds no head: {error}")))?;
    if stored.format == HEAD_FORMAT {
        Ok(stored.head)
    } else {
        Err(Fault::new(
            ProblemKind::Unreadable,
            format!("has format `{}`, which this version does not read", printable(&stored.format)),
        ))
    }
}

/// `public.key` holds one line, exactly.
pub(crate) fn public_key(bytes: &[u8], public: &PublicKey) -> Result<(), Fault> {
    if bytes == public_key_line(public).as_bytes() {
        return Ok(());
    }
    let other = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<PublicKey>().ok());
    Err(match other {
        Some(other) if other != *public => Fault::new(
            ProblemKind::ForeignKey,
            format!("holds key {}, not key {}", other.key_id(), public.key_id()),
        ),
        _ => Fault::new(ProblemKind::Edited, "is not as it was written"),
    })
}

pub(crate) fn public_key_line(public: &PublicKey) -> String {
    format!("{public}\n")
}

/// Two authentic records that do not fit together.
pub(crate) fn link(record: &Record, previous: Digest) -> Result<(), Fault> {
    if record.previous == previous {
        return Ok(());
    }
    Err(Fault::new(
        ProblemKind::Reordered,
        format!("does not follow record {}: it was written after another one", record.seq.saturating_sub(1)),
    ))
}
