//! A chain that is written to and read on its own machine.
//!
//! In: records to append. Out: their place, and records back. The order of writes is public key, head, then for
//! each record the record first and the head after it, each whole and durable before the next: a kill leaves at
//! most one record the head does not name yet, and the next append adopts it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::time::Timestamp;
use lifeboat_keys::{PublicKey, SigningKey};

use crate::check;
use crate::error::EvidenceError;
use crate::files;
use crate::record::{
    FORMAT, HEAD_FORMAT, HEAD_TYPE, Head, MAX_RECORD_BYTES, MAX_RECORDS, NOTHING, RECORD_TYPE, Record,
    StoredHead, check_names, tool,
};

/// The largest head or public key file read, in bytes.
pub(crate) const MAX_SMALL_FILE_BYTES: u64 = 64 * 1024;

/// A chain in a directory. Cheap to hold; every call reads what it needs.
#[derive(Clone, Debug)]
pub struct Chain {
    dir: PathBuf,
}

/// Where an appended record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRef {
    /// Its number.
    pub seq: u64,
    /// SHA-256 of its file.
    pub digest: Digest,
    /// Its file.
    pub path: PathBuf,
}

/// A record read back; its signature was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    /// What it says.
    pub record: Record,
    /// SHA-256 of its file.
    pub digest: Digest,
    /// Its file.
    pub path: PathBuf,
}

impl Chain {
    /// Names the directory; it need not exist before the first append. An existing path that is no directory is
    /// refused.
    pub fn open(dir: &Path) -> Result<Self, EvidenceError> {
        if dir.exists() && !dir.is_dir() {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(EvidenceError::io("open", dir)(error));
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends one record; durable when it returns. Waits for other writers. Costs two small durable writes,
    /// whatever the length of the chain.
    ///
    /// After a failure the record may or may not be in the chain: if its file was written, the next append adopts it.
    /// Damage to earlier records does not stop new ones, because the signed head says where the chain ends; a head
    /// that is damaged or gone does.
    pub fn append(
        &self,
        signer: &SigningKey,
        at: Timestamp,
        kind: &str,
        subject: &str,
        body: Value,
    ) -> Result<RecordRef, EvidenceError> {
        check_names(kind, subject)?;
        let folder = self.dir.join(files::RECORDS);
        crashsafe::create_dir_all(&folder).map_err(EvidenceError::io("create", &folder))?;
        let _lock = files::lock_exclusive(&self.dir)
            .map_err(EvidenceError::io("lock", &self.dir.join(files::LOCK)))?;
        for dir in [&self.dir, &folder] {
            crashsafe::sweep(dir).map_err(EvidenceError::io("sweep", dir))?;
        }
        let tip = self.prepare(signer, at)?;
        let seq = tip.seq.saturating_add(1);
        if seq > MAX_RECORDS {
            return Err(EvidenceError::InvalidRecord { why: format!("the chain has {MAX_RECORDS} records") });
        }
        let record = Record {
            format: FORMAT.to_owned(),
            seq,
            previous: tip.digest,
            at,
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            tool: tool(),
            body,
        };
        let payload = serde_json::to_vec(&record)
            .map_err(|error| EvidenceError::InvalidRecord { why: error.to_string() })?;
        let bytes = signer.sign(RECORD_TYPE, &payload).to_bytes();
        if bytes.len() as u64 > MAX_RECORD_BYTES {
            return Err(EvidenceError::InvalidRecord {
                why: format!("its file would be larger than {MAX_RECORD_BYTES} bytes"),
            });
        }
        let path = files::record_path(&self.dir, seq);
        crashsafe::write_new(&path, &bytes).map_err(EvidenceError::io("write", &path))?;
        let digest = Digest::of(&bytes);
        self.write_head(signer, Head { seq, digest, at })?;
        Ok(RecordRef { seq, digest, path })
    }

    /// Where the chain ends, adopted record included; the files a new chain starts with are written.
    fn prepare(&self, signer: &SigningKey, at: Timestamp) -> Result<Head, EvidenceError> {
        let public = signer.public();
        let head = match (self.public_key()?, self.stored_head(&public)) {
            (Some(found), _) if found != public => {
                return Err(EvidenceError::OtherKey {
                    dir: self.dir.clone(),
                    found: found.key_id(),
                    given: public.key_id(),
                });
            }
            (_, Err(error)) => return Err(error),
            (Some(_), Ok(Some(head))) => head,
            (None, Ok(Some(_))) => {
                return Err(EvidenceError::damaged(&self.dir.join(files::PUBLIC_KEY), "is missing"));
            }
            (known, Ok(None)) => self.start(signer, at, known.is_some())?,
        };
        self.adopt(&public, head)
    }

    /// Writes public key and head of an empty chain. Records without a head are not adopted: its end is not known.
    fn start(&self, signer: &SigningKey, at: Timestamp, has_key: bool) -> Result<Head, EvidenceError> {
        let folder = self.dir.join(files::RECORDS);
        let listing = files::list_records(&folder).map_err(EvidenceError::io("list", &folder))?;
        if !listing.seqs.is_empty() {
            return Err(EvidenceError::damaged(&self.dir.join(files::HEAD), "is missing"));
        }
        if !has_key {
            let path = self.dir.join(files::PUBLIC_KEY);
            let line = check::public_key_line(&signer.public());
            crashsafe::write_new(&path, line.as_bytes()).map_err(EvidenceError::io("write", &path))?;
        }
        let head = Head { seq: 0, digest: NOTHING, at };
        self.write_head(signer, head)?;
        Ok(head)
    }

    /// Follows records the head does not name yet. A file there that is no valid next record is left as it is and
    /// stops the chain: overwriting it would destroy evidence of what happened.
    fn adopt(&self, public: &PublicKey, mut head: Head) -> Result<Head, EvidenceError> {
        while head.seq < MAX_RECORDS {
            let seq = head.seq + 1;
            let path = files::record_path(&self.dir, seq);
            let found =
                files::read_optional(&path, MAX_RECORD_BYTES).map_err(EvidenceError::io("read", &path))?;
            let Some(bytes) = found else { break };
            let record = check::record(&bytes, public, seq)
                .and_then(|record| check::link(&record, head.digest).map(|()| record))
                .map_err(|fault| EvidenceError::damaged(&path, fault.why))?;
            head = Head { seq, digest: Digest::of(&bytes), at: record.at };
        }
        Ok(head)
    }

    fn write_head(&self, signer: &SigningKey, head: Head) -> Result<(), EvidenceError> {
        let stored = StoredHead { format: HEAD_FORMAT.to_owned(), head };
        let payload = serde_json::to_vec(&stored)
            .map_err(|error| EvidenceError::InvalidRecord { why: error.to_string() })?;
        let path = self.dir.join(files::HEAD);
        crashsafe::replace(&path, &signer.sign(HEAD_TYPE, &payload).to_bytes())
            .map_err(EvidenceError::io("write", &path))
    }

    /// The key in `public.key`, or nothing before the first append. It is as trustworthy as the directory: outsiders
    /// verify with a key they got another way.
    pub fn public_key(&self) -> Result<Option<PublicKey>, EvidenceError> {
        let path = self.dir.join(files::PUBLIC_KEY);
        let bytes =
            files::read_optional(&path, MAX_SMALL_FILE_BYTES).map_err(EvidenceError::io("read", &path))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let key: PublicKey = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| EvidenceError::damaged(&path, "holds no public key"))?;
        Ok(Some(key))
    }

    fn stored_head(&self, public: &PublicKey) -> Result<Option<Head>, EvidenceError> {
        let path = self.dir.join(files::HEAD);
        let bytes =
            files::read_optional(&path, MAX_SMALL_FILE_BYTES).map_err(EvidenceError::io("read", &path))?;
        bytes
            .map(|bytes| check::head(&bytes, public))
            .transpose()
            .map_err(|fault| EvidenceError::damaged(&path, fault.why))
    }

    /// Key and head of a chain that has begun.
    fn begun(&self) -> Result<Option<(PublicKey, Head)>, EvidenceError> {
        let Some(public) = self.public_key()? else {
            let path = self.dir.join(files::HEAD);
            return if path.exists() {
                Err(EvidenceError::damaged(&self.dir.join(files::PUBLIC_KEY), "is missing"))
            } else {
                Ok(None)
            };
        };
        Ok(self.stored_head(&public)?.map(|head| (public, head)))
    }

    /// Where the chain ends; nothing before the first record. A damaged head is an error, never "nothing".
    pub fn head(&self) -> Result<Option<Head>, EvidenceError> {
        let Some((public, head)) = self.begun()? else { return Ok(None) };
        Ok(Some(self.adopt(&public, head)?).filter(|head| head.seq > 0))
    }

    /// Whether the chain has this very record. Its signature is not checked: the digest says all of it.
    pub fn has(&self, seq: u64, digest: &Digest) -> Result<bool, EvidenceError> {
        let path = files::record_path(&self.dir, seq);
        let found =
            files::read_optional(&path, MAX_RECORD_BYTES).map_err(EvidenceError::io("read", &path))?;
        Ok(found.is_some_and(|bytes| Digest::of(&bytes) == *digest))
    }

    /// All records in order, or from the newest with `.rev()`. Each is read when it is asked for and its signature
    /// is checked (about 0.1 ms); a missing or damaged one is an `Err` item and does not end the iteration, a damaged
    /// head is the only item. Holds one record in memory. Links between records are [`crate::verify`]'s business.
    pub fn iter(&self) -> Records {
        match self.span() {
            Ok(Some((public, last))) => {
                Records { dir: self.dir.clone(), public: Some(public), next: 1, last, failure: None }
            }
            Ok(None) => Records::of(None),
            Err(error) => Records::of(Some(error)),
        }
    }

    /// One record by its number; `Damaged` if the chain does not reach it.
    pub fn get(&self, seq: u64) -> Result<StoredRecord, EvidenceError> {
        let path = files::record_path(&self.dir, seq);
        let Some((public, _)) = self.span()?.filter(|(_, last)| (1..=*last).contains(&seq)) else {
            return Err(EvidenceError::damaged(&path, "is missing"));
        };
        read_record(&path).and_then(|bytes| authentic(path, &bytes, &public, seq))
    }

    fn span(&self) -> Result<Option<(PublicKey, u64)>, EvidenceError> {
        let Some((public, head)) = self.begun()? else { return Ok(None) };
        Ok(Some((public, self.adopt(&public, head)?.seq)))
    }

    /// The records of one kind about one subject, newest first, so that the latest costs little to find. Signatures of
    /// the others are not checked, but one that cannot be read at all is an `Err` item: it might have been the one.
    pub fn find(
        &self,
        kind: &str,
        subject: &str,
    ) -> impl Iterator<Item = Result<StoredRecord, EvidenceError>> + use<> {
        let (kind, subject) = (kind.to_owned(), subject.to_owned());
        let Records { dir, public, next, last, failure } = self.iter();
        let found = (next..=last).rev().filter_map(move |seq| {
            let path = files::record_path(&dir, seq);
            let public = public?;
            let bytes = match read_record(&path) {
                Ok(bytes) => bytes,
                Err(error) => return Some(Err(error)),
            };
            match claims(&bytes) {
                Some((found_kind, found_subject)) if found_kind != kind || found_subject != subject => None,
                _ => Some(authentic(path, &bytes, &public, seq)),
            }
        });
        failure.map(Err).into_iter().chain(found)
    }
}

impl IntoIterator for &Chain {
    type Item = Result<StoredRecord, EvidenceError>;
    type IntoIter = Records;

    fn into_iter(self) -> Records {
        self.iter()
    }
}

fn read_record(path: &Path) -> Result<Vec<u8>, EvidenceError> {
    match files::read_optional(path, MAX_RECORD_BYTES) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(EvidenceError::damaged(path, "is missing")),
        Err(error) => Err(EvidenceError::io("read", path)(error)),
    }
}

fn authentic(
    path: PathBuf,
    bytes: &[u8],
    public: &PublicKey,
    seq: u64,
) -> Result<StoredRecord, EvidenceError> {
    let record =
        check::record(bytes, public, seq).map_err(|fault| EvidenceError::damaged(&path, fault.why))?;
    Ok(StoredRecord { record, digest: Digest::of(bytes), path })
}

/// Kind and subject a record file claims, unverified.
fn claims(bytes: &[u8]) -> Option<(String, String)> {
    #[derive(serde::Deserialize)]
    struct Claims {
        kind: String,
        subject: String,
    }
    let document = lifeboat_keys::DsseEnvelope::from_bytes(bytes).ok()?;
    let claims: Claims = serde_json::from_slice(document.unverified_payload()).ok()?;
    Some((claims.kind, claims.subject))
}

/// The records of a chain, read one at a time; see [`Chain::iter`].
pub struct Records {
    dir: PathBuf,
    public: Option<PublicKey>,
    next: u64,
    last: u64,
    failure: Option<EvidenceError>,
}

impl Records {
    /// No records, and why there are none.
    fn of(failure: Option<EvidenceError>) -> Self {
        Self { dir: PathBuf::new(), public: None, next: 1, last: 0, failure }
    }

    fn read(&self, seq: u64) -> Option<Result<StoredRecord, EvidenceError>> {
        let path = files::record_path(&self.dir, seq);
        let public = self.public?;
        Some(read_record(&path).and_then(|bytes| authentic(path, &bytes, &public, seq)))
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({}..={})", self.next, self.last)
    }
}

impl Iterator for Records {
    type Item = Result<StoredRecord, EvidenceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failure.take() {
            return Some(Err(error));
        }
        if self.next > self.last {
            return None;
        }
        self.next += 1;
        self.read(self.next - 1)
    }
}

impl DoubleEndedIterator for Records {
    fn next_back(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failure.take() {
            return Some(Err(error));
        }
        if self.next > self.last {
            return None;
        }
        self.last -= 1;
        self.read(self.last + 1)
    }
}
