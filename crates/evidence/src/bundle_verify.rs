//! Verification of a bundle, offline, with a public key obtained another way.
//!
//! In: a directory from anybody. Out: every problem, each with its file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use lifeboat_base::digest::{Digest, digest_of_reader};
use lifeboat_base::human::printable;
use lifeboat_base::time::Timestamp;
use lifeboat_keys::PublicKey;

use crate::bundle::{BUNDLE, BUNDLE_FORMAT, BUNDLE_TYPE, MAX_BUNDLE_BYTES, Manifest, PAGES, Page};
use crate::chain::MAX_SMALL_FILE_BYTES;
use crate::check::{self, Fault, Problem, ProblemKind, Problems};
use crate::error::EvidenceError;
use crate::files::{self, HEAD, RECORDS};
use crate::record::{Head, MAX_RECORD_BYTES, NOTHING};
use crate::verify::extra;

/// What the verification of a bundle found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleReport {
    /// When the bundle was made, if `bundle.json` is authentic.
    pub at: Option<Timestamp>,
    /// The end of the chain it was made of, if `bundle.json` is authentic.
    pub head: Option<Head>,
    /// Records that are present, authentic and in their place.
    pub included: u64,
    /// Records of the chain that are listed by digest only.
    pub omitted: u64,
    /// What is wrong; at most 1000 are listed.
    pub problems: Vec<Problem>,
    /// How many there are.
    pub problem_count: u64,
}

impl BundleReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problem_count == 0
    }
}

/// Checks every file of the bundle in `dir` against `public`. A directory without `bundle.json` is an error.
pub fn verify_bundle(dir: &Path, public: &PublicKey) -> Result<BundleReport, EvidenceError> {
    let path = dir.join(BUNDLE);
    let bytes = match files::read_optional(&path, MAX_BUNDLE_BYTES) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => return Err(EvidenceError::NoChain { dir: dir.to_owned() }),
        Err(error) => Err(Fault::unreadable(&error)),
    };
    let mut report = BundleReport {
        at: None,
        head: None,
        included: 0,
        omitted: 0,
        problems: Vec::new(),
        problem_count: 0,
    };
    let mut problems = Problems::default();
    match bytes.and_then(|bytes| manifest(&bytes, public)) {
        // Without an authentic list nothing else in the directory can be judged.
        Err(fault) => problems.file(BUNDLE, fault),
        Ok(manifest) => {
            report.at = Some(manifest.at);
            report.head = Some(manifest.head);
            report.omitted = manifest.counts.omitted;
            pages(dir, public, &manifest, &mut problems);
            report.included = records(dir, public, &manifest, &mut problems);
            strays(dir, &manifest, &mut problems)?;
        }
    }
    report.problems = problems.list;
    report.problem_count = problems.total_count;
    Ok(report)
}

/// The list, if it is authentic and agrees with itself.
fn manifest(bytes: &[u8], public: &PublicKey) -> Result<Manifest, Fault> {
    let unreadable = |why: String| Fault::new(ProblemKind::Unreadable, why);
    let payload = check::signed(bytes, public, BUNDLE_TYPE)?;
    let manifest: Manifest = serde_json::from_slice(&payload)
        .map_err(|error| unreadable(format!("holds no bundle list: {error}")))?;
    if manifest.format != BUNDLE_FORMAT {
        let found = printable(&manifest.format);
        return Err(unreadable(format!("has format `{found}`, which this version does not read")));
    }
    let included = manifest.records.iter().filter(|record| record.included).count() as u64;
    let counts = &manifest.counts;
    let numbered = (1u64..).zip(&manifest.records).all(|(seq, record)| record.seq == seq);
    let last = manifest.records.last().map_or(NOTHING, |record| record.digest);
    let names: BTreeSet<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    let beside = || names.iter().filter(|name| !PAGES.contains(name));
    let named = names.len() == manifest.files.len()
        && PAGES.iter().all(|page| names.contains(page))
        && beside().all(|name| Page::may_be_called(name));
    if numbered
        && named
        && manifest.public_key == *public
        && manifest.head.digest == last
        && manifest.head.seq == manifest.records.len() as u64
        && (counts.chain, counts.included) == (manifest.head.seq, included)
        && counts.chain == included.saturating_add(counts.omitted)
    {
        Ok(manifest)
    } else {
        Err(unreadable("contradicts itself".to_owned()))
    }
}

fn pages(dir: &Path, public: &PublicKey, manifest: &Manifest, problems: &mut Problems) {
    for listed in &manifest.files {
        match file_digest(&dir.join(&listed.name)) {
            Ok(digest) if digest == listed.digest => {}
            Ok(_) => problems.file(&listed.name, Fault::new(ProblemKind::Edited, "was changed")),
            Err(fault) => problems.file(&listed.name, fault),
        }
    }
    let head = files::read(&dir.join(HEAD), MAX_SMALL_FILE_BYTES).ok();
    if let Some(Ok(head)) = head.map(|bytes| check::head(&bytes, public))
        && head != manifest.head
    {
        problems.file(HEAD, Fault::new(ProblemKind::Reordered, "names another end than `bundle.json`"));
    }
}

fn file_digest(path: &Path) -> Result<Digest, Fault> {
    let read = || -> io::Result<Digest> {
        if !std::fs::symlink_metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        digest_of_reader(File::open(path)?).map(|(digest, _bytes)| digest)
    };
    read().map_err(|error| missing_or_unreadable(&error))
}

fn missing_or_unreadable(error: &io::Error) -> Fault {
    if error.kind() == io::ErrorKind::NotFound {
        Fault::new(ProblemKind::Dropped, "is missing")
    } else {
        Fault::unreadable(error)
    }
}

/// How many included records are authentic and in their place.
fn records(dir: &Path, public: &PublicKey, manifest: &Manifest, problems: &mut Problems) -> u64 {
    let mut previous = NOTHING;
    let mut sound_count = 0;
    for listed in &manifest.records {
        if listed.included {
            match record(dir, public, listed.seq, listed.digest, previous) {
                Ok(()) => sound_count += 1,
                Err(fault) => problems.record(listed.seq, fault),
            }
        }
        previous = listed.digest;
    }
    sound_count
}

fn record(dir: &Path, public: &PublicKey, seq: u64, digest: Digest, previous: Digest) -> Result<(), Fault> {
    let bytes = files::read(&files::record_path(dir, seq), MAX_RECORD_BYTES)
        .map_err(|error| missing_or_unreadable(&error))?;
    let record = check::record(&bytes, public, seq)?;
    if Digest::of(&bytes) != digest {
        return Err(Fault::new(ProblemKind::Reordered, "is not the record `bundle.json` lists"));
    }
    check::link(&record, previous)
}

fn strays(dir: &Path, manifest: &Manifest, problems: &mut Problems) -> Result<(), EvidenceError> {
    let listed: BTreeSet<u64> =
        manifest.records.iter().filter(|record| record.included).map(|record| record.seq).collect();
    let folder = dir.join(RECORDS);
    let listing = files::list_records(&folder).map_err(EvidenceError::io("list", &folder))?;
    for seq in listing.seqs.into_iter().filter(|seq| !listed.contains(seq)) {
        problems.record(seq, extra());
    }
    for name in listing.extra {
        problems.file(&format!("{RECORDS}/{name}"), extra());
    }
    let listed = manifest.files.iter().map(|file| file.name.as_str());
    let expected: Vec<&str> = listed.chain([BUNDLE, RECORDS]).collect();
    for name in files::unexpected(dir, &expected).map_err(EvidenceError::io("list", dir))? {
        problems.file(&name, extra());
    }
    Ok(())
}
