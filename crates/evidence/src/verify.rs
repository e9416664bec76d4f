//! Verification of a chain with the public key alone.
//!
//! In: a directory that may have been tampered with, the key, optionally an anchor kept elsewhere. Out: every
//! problem, each with its file. Costs one read and one signature check per record; holds one record and the list
//! of record numbers (8 bytes each) in memory.

use std::path::Path;

use serde::{Deserialize, Serialize};

use lifeboat_base::digest::Digest;
use lifeboat_keys::PublicKey;

use crate::chain::MAX_SMALL_FILE_BYTES;
use crate::check::{self, Fault, Problem, ProblemKind, Problems};
use crate::error::EvidenceError;
use crate::files::{self, HEAD, LOCK, Listing, PUBLIC_KEY, RECORDS};
use crate::record::{Head, MAX_RECORD_BYTES, NOTHING};

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Records that are authentic and stand in their place.
    pub records: u64,
    /// The signed end of the chain, if it is authentic.
    pub head: Option<Head>,
    /// A last record the head does not name yet: its append was interrupted. Not a problem.
    pub unfinished: bool,
    /// What is wrong, in the order of the chain; at most 1000 are listed.
    pub problems: Vec<Problem>,
    /// How many there are.
    pub problem_count: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problem_count == 0
    }
}

/// The files as they were at one moment between two appends.
struct Snapshot {
    public_key: Result<Option<Vec<u8>>, Fault>,
    head: Result<Option<Vec<u8>>, Fault>,
    listing: Listing,
    extra: Vec<String>,
}

impl Snapshot {
    /// Waits for a writer; records themselves never change and are read after the lock is released.
    fn take(dir: &Path) -> Result<Self, EvidenceError> {
        let _lock = files::lock_shared(dir);
        let small = |name: &str| {
            files::read_optional(&dir.join(name), MAX_SMALL_FILE_BYTES)
                .map_err(|error| Fault::unreadable(&error))
        };
        let folder = dir.join(RECORDS);
        Ok(Self {
            public_key: small(PUBLIC_KEY),
            head: small(HEAD),
            listing: files::list_records(&folder).map_err(EvidenceError::io("list", &folder))?,
            extra: files::unexpected(dir, &[RECORDS, HEAD, PUBLIC_KEY, LOCK])
                .map_err(EvidenceError::io("list", dir))?,
        })
    }
}

/// Checks every file of the chain in `dir` against `public`, and against `anchor` if one is known. Never stops at the
/// first problem. A directory without head and without records is an error: nothing is not evidence.
pub fn verify(dir: &Path, public: &PublicKey, anchor: Option<Head>) -> Result<VerifyReport, EvidenceError> {
    let snapshot = Snapshot::take(dir)?;
    if snapshot.listing.seqs.is_empty() && matches!(snapshot.head, Ok(None)) {
        return Err(EvidenceError::NoChain { dir: dir.to_owned() });
    }
    let mut walk = Walk {
        dir,
        public,
        anchor: anchor.filter(|anchor| anchor.seq > 0),
        head: None,
        problems: Problems::default(),
        sound_count: 0,
        digest_at_head: None,
        unfinished: false,
    };
    walk.small_files(snapshot.public_key, snapshot.head);
    walk.records(&snapshot.listing.seqs);
    walk.ends(&snapshot.listing.seqs);
    for name in snapshot.listing.extra {
        walk.problems.file(&format!("{RECORDS}/{name}"), extra());
    }
    for name in snapshot.extra {
        walk.problems.file(&name, extra());
    }
    Ok(VerifyReport {
        records: walk.sound_count,
        head: walk.head,
        unfinished: walk.unfinished,
        problems: walk.problems.list,
        problem_count: walk.problems.total_count,
    })
}

pub(crate) fn extra() -> Fault {
    Fault::new(ProblemKind::Extra, "does not belong here")
}

/// One pass over the chain.
struct Walk<'a> {
    dir: &'a Path,
    public: &'a PublicKey,
    anchor: Option<Head>,
    head: Option<Head>,
    problems: Problems,
    sound_count: u64,
    digest_at_head: Option<Digest>,
    unfinished: bool,
}

impl Walk<'_> {
    fn small_files(&mut self, key: Result<Option<Vec<u8>>, Fault>, head: Result<Option<Vec<u8>>, Fault>) {
        let missing = || Fault::new(ProblemKind::Dropped, "is missing");
        let key = key.and_then(|bytes| check::public_key(&bytes.ok_or_else(missing)?, self.public));
        if let Err(fault) = key {
            self.problems.file(PUBLIC_KEY, fault);
        }
        match head.and_then(|bytes| check::head(&bytes.ok_or_else(missing)?, self.public)) {
            Ok(head) => self.head = Some(head),
            Err(fault) => self.problems.file(HEAD, fault),
        }
    }

    /// Reads every record once; gaps inside the list are dropped records.
    fn records(&mut self, seqs: &[u64]) {
        // The digest of the record before, unless that one is missing or already reported.
        let mut previous = Some(NOTHING);
        let mut expected = 1;
        for &seq in seqs {
            if seq > expected {
                self.problems.missing(expected, seq - 1, ProblemKind::Dropped);
                previous = None;
            }
            expected = seq + 1;
            match self.record(seq, previous) {
                Ok(digest) => previous = Some(digest),
                Err(fault) => {
                    self.problems.record(seq, fault);
                    previous = None;
                }
            }
        }
    }

    fn record(&mut self, seq: u64, previous: Option<Digest>) -> Result<Digest, Fault> {
        let path = files::record_path(self.dir, seq);
        let bytes = files::read(&path, MAX_RECORD_BYTES).map_err(|error| Fault::unreadable(&error))?;
        let record = check::record(&bytes, self.public, seq)?;
        let digest = Digest::of(&bytes);
        if let Some(anchor) = self.anchor.filter(|anchor| anchor.seq == seq && anchor.digest != digest) {
            let why = format!("is not the record that was anchored at {}", anchor.at);
            return Err(Fault::new(ProblemKind::Edited, why));
        }
        previous.map_or(Ok(()), |previous| check::link(&record, previous))?;
        if self.head.is_some_and(|head| head.seq == seq) {
            self.digest_at_head = Some(digest);
        }
        self.sound_count += 1;
        Ok(digest)
    }

    /// Compares where the files end with where head and anchor say the chain ends.
    fn ends(&mut self, seqs: &[u64]) {
        let last = seqs.last().copied().unwrap_or(0);
        let promised = self.head.map_or(0, |head| head.seq).max(self.anchor.map_or(0, |anchor| anchor.seq));
        if promised > last {
            self.problems.missing(last + 1, promised, ProblemKind::Truncated);
        }
        let Some(head) = self.head else { return };
        if self.digest_at_head.is_some_and(|digest| digest != head.digest)
            || (head.seq == 0 && head.digest != NOTHING)
        {
            let why = format!("names another record {} than the one that is there", head.seq);
            self.problems.file(HEAD, Fault::new(ProblemKind::Reordered, why));
        }
        match last.saturating_sub(head.seq) {
            0 => {}
            1 => self.unfinished = true,
            more => {
                let why = format!(
                    "is an older head: the chain goes on for {more} records after record {}",
                    head.seq
                );
                self.problems.file(HEAD, Fault::new(ProblemKind::Replayed, why));
            }
        }
    }
}
