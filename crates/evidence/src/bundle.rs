//! Export of a chain, or a part of it, as a directory an outsider can check.
//!
//! In: a chain that verifies, its signing key, a filter. Out: `records/` with the signed files as they are,
//! `bundle.json` (signed: the digest of every record of the chain and of every other file), `head.json`,
//! `public.key`, `index.md`, `index.json`, `records.csv`, `VERIFY.md`, `verify.py`, and the pages of whoever exports.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use lifeboat_base::crashsafe;
use lifeboat_base::digest::Digest;
use lifeboat_base::time::Timestamp;
use lifeboat_keys::{PublicKey, SigningKey};

use crate::archive;
use crate::check;
use crate::error::EvidenceError;
use crate::files::{self, HEAD, PUBLIC_KEY, RECORDS};
use crate::index::{self, Cover, Csv, Row};
use crate::record::{HEAD_FORMAT, HEAD_TYPE, Head, MAX_RECORD_BYTES, NOTHING, Record, StoredHead, tool};
use crate::verify::verify;

pub(crate) const BUNDLE: &str = "bundle.json";
/// The format of `bundle.json`.
pub(crate) const BUNDLE_FORMAT: &str = "lifeboat.evidence-bundle/v1";
/// The DSSE payload type of `bundle.json`.
pub(crate) const BUNDLE_TYPE: &str = "application/vnd.lifeboat.evidence-bundle+json";
/// The largest `bundle.json` written or read, in bytes: a chain of about 400,000 records.
pub(crate) const MAX_BUNDLE_BYTES: u64 = 64 * 1024 * 1024;

/// The files every bundle lists, so that none can be left out of the list and then altered.
pub(crate) const PAGES: [&str; 7] =
    ["VERIFY.md", HEAD, "index.json", "index.md", PUBLIC_KEY, "records.csv", "verify.py"];

/// Which records go into a bundle; the default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Records written at this moment or later.
    pub from: Option<Timestamp>,
    /// Records written before this moment.
    pub until: Option<Timestamp>,
    /// Records of one of these kinds; empty for all.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Records about one of these subjects; empty for all.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Records with one of these numbers; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<u64>,
}

/// A page that stands beside the records, such as a report for people; listed and signed like the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// `report.html`: lowercase letters, digits and `-`, then `.html`, `.md`, `.json` or `.csv`; not a name of the bundle's own.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl Page {
    /// Whether a file of this name can stand in a bundle: never outside of it, and never as something of the bundle's own.
    pub(crate) fn may_be_called(name: &str) -> bool {
        let Some((stem, ending)) = name.rsplit_once('.') else { return false };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=64).contains(&stem.len())
            && stem.bytes().all(plain)
            && ["html", "md", "json", "csv"].contains(&ending)
            && name != BUNDLE
            && !PAGES.contains(&name)
    }
}

impl Filter {
    /// Whether it takes `record`.
    pub fn takes(&self, record: &Record) -> bool {
        self.from.is_none_or(|from| record.at >= from)
            && self.until.is_none_or(|until| record.at < until)
            && (self.kinds.is_empty() || self.kinds.contains(&record.kind))
            && (self.subjects.is_empty() || self.subjects.contains(&record.subject))
            && (self.numbers.is_empty() || self.numbers.contains(&record.seq))
    }

    fn words(&self) -> String {
        let mut words = Vec::new();
        if let Some(from) = self.from {
            words.push(format!("from {from}"));
        }
        if let Some(until) = self.until {
            words.push(format!("before {until}"));
        }
        if !self.kinds.is_empty() {
            words.push(format!("kind {}", self.kinds.join(" or ")));
        }
        if !self.subjects.is_empty() {
            words.push(format!("subject {}", self.subjects.join(" or ")));
        }
        if !self.numbers.is_empty() {
            let numbers: Vec<String> = self.numbers.iter().map(u64::to_string).collect();
            words.push(format!("number {}", numbers.join(" or ")));
        }
        if words.is_empty() { "the whole chain".to_owned() } else { words.join(", ") }
    }
}

/// What an export wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BundleSummary {
    /// The directory.
    pub path: PathBuf,
    /// Records in it.
    pub included: u64,
    /// Records of the chain left out, listed by digest.
    pub omitted: u64,
    /// Where the chain ended.
    pub head: Head,
}

/// The payload of `bundle.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: String,
    pub(crate) at: Timestamp,
    pub(crate) tool: String,
    pub(crate) public_key: PublicKey,
    pub(crate) filter: Filter,
    pub(crate) head: Head,
    pub(crate) counts: Counts,
    pub(crate) files: Vec<NamedDigest>,
    pub(crate) records: Vec<ListedRecord>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) chain: u64,
    pub(crate) included: u64,
    pub(crate) omitted: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct NamedDigest {
    pub(crate) name: String,
    pub(crate) digest: Digest,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ListedRecord {
    pub(crate) seq: u64,
    pub(crate) digest: Digest,
    pub(crate) included: bool,
}

/// Writes a bundle of the chain in `dir` to `out`, which must not exist; it appears whole or not at all. A name that ends in
/// `.tar` makes it one file.
///
/// The chain is verified first and one with problems is refused. `signer` is the chain's key. Writes each included
/// record durably (a few milliseconds each on a disk); holds about 300 bytes per record and `records.csv` in memory.
/// `beside` are the pages that go with the records.
pub fn export(
    dir: &Path,
    out: &Path,
    signer: &SigningKey,
    at: Timestamp,
    filter: &Filter,
    beside: &[Page],
) -> Result<BundleSummary, EvidenceError> {
    if fs::symlink_metadata(out).is_ok() {
        return Err(EvidenceError::Exists { path: out.to_owned() });
    }
    let public = signer.public();
    let report = verify(dir, &public, None)?;
    let (Some(head), None) = (report.head, report.problems.first()) else {
        return Err(EvidenceError::NotSound {
            dir: dir.to_owned(),
            problem_count: report.problem_count,
            first: report.problems.first().map(ToString::to_string).unwrap_or_default(),
        });
    };
    let staging = staging(out);
    let made = write_bundle(&staging, dir, (signer, at), filter, head, beside).and_then(|summary| {
        if archive::is_wanted(out) {
            archive::pack(&staging, out)?;
        } else {
            crashsafe::publish(&staging, out).map_err(EvidenceError::io("publish", out))?;
        }
        Ok(BundleSummary { path: out.to_owned(), ..summary })
    });
    if made.is_err() || archive::is_wanted(out) {
        // What remains is named as temporary and is nobody's evidence.
        drop(crashsafe::remove_tree(&staging));
    }
    made
}

/// A free temporary name beside `out`.
fn staging(out: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parent.join(format!("{}bundle-{}-{number}", crashsafe::TEMP_PREFIX, std::process::id()))
}

fn write_bundle(
    staging: &Path,
    dir: &Path,
    (signer, at): (&SigningKey, Timestamp),
    filter: &Filter,
    head: Head,
    beside: &[Page],
) -> Result<BundleSummary, EvidenceError> {
    let public = signer.public();
    let folder = staging.join(RECORDS);
    crashsafe::create_dir_all(&folder).map_err(EvidenceError::io("create", &folder))?;
    let copied = copy_records(staging, dir, &public, filter, head)?;
    let cover = Cover { at, public: &public, head, filter: filter.words(), rows: &copied.rows };
    let json = |error: serde_json::Error| EvidenceError::InvalidRecord { why: error.to_string() };
    let stored_head =
        serde_json::to_vec(&StoredHead { format: HEAD_FORMAT.to_owned(), head }).map_err(json)?;
    let pages: [(&str, Vec<u8>); 7] = [
        ("VERIFY.md", index::instructions(&cover).into_bytes()),
        (HEAD, signer.sign(HEAD_TYPE, &stored_head).to_bytes()),
        ("index.json", index::json(&cover).map_err(json)?),
        ("index.md", index::markdown(&cover).into_bytes()),
        (PUBLIC_KEY, check::public_key_line(&public).into_bytes()),
        ("records.csv", copied.csv.into_text().into_bytes()),
        ("verify.py", index::VERIFIER.as_bytes().to_vec()),
    ];
    let mut named = Vec::new();
    let own = pages.iter().map(|(name, bytes)| (*name, bytes));
    for (name, bytes) in own.chain(beside.iter().map(|page| (page.name.as_str(), &page.bytes))) {
        let own = PAGES.contains(&name);
        if (!own && !Page::may_be_called(name)) || named.iter().any(|page: &NamedDigest| page.name == name) {
            let why = format!("no page of a bundle can be called `{name}`");
            return Err(EvidenceError::InvalidRecord { why });
        }
        write(&staging.join(name), bytes)?;
        named.push(NamedDigest { name: name.to_owned(), digest: Digest::of(bytes) });
    }
    let included = copied.rows.len() as u64;
    let counts = Counts { chain: head.seq, included, omitted: head.seq.saturating_sub(included) };
    let summary = BundleSummary { path: staging.to_owned(), included, omitted: counts.omitted, head };
    let manifest = Manifest {
        format: BUNDLE_FORMAT.to_owned(),
        at,
        tool: tool(),
        public_key: public,
        filter: filter.clone(),
        head,
        counts,
        files: named,
        records: copied.list,
    };
    let bytes = signer.sign(BUNDLE_TYPE, &serde_json::to_vec(&manifest).map_err(json)?).to_bytes();
    if bytes.len() as u64 > MAX_BUNDLE_BYTES {
        let why = format!("`{BUNDLE}` would be larger than {MAX_BUNDLE_BYTES} bytes");
        return Err(EvidenceError::InvalidRecord { why });
    }
    // Last, so that a directory without it is recognisably no bundle.
    write(&staging.join(BUNDLE), &bytes)?;
    Ok(summary)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), EvidenceError> {
    crashsafe::write_new(path, bytes).map_err(EvidenceError::io("write", path))
}

struct Copied {
    rows: Vec<Row>,
    list: Vec<ListedRecord>,
    csv: Csv,
}

/// Copies what the filter takes, checking each record again: the files may have changed since the verification.
fn copy_records(
    staging: &Path,
    dir: &Path,
    public: &PublicKey,
    filter: &Filter,
    head: Head,
) -> Result<Copied, EvidenceError> {
    let mut copied = Copied { rows: Vec::new(), list: Vec::new(), csv: Csv::new() };
    let mut previous = NOTHING;
    for seq in 1..=head.seq {
        let path = files::record_path(dir, seq);
        let bytes = files::read(&path, MAX_RECORD_BYTES).map_err(EvidenceError::io("read", &path))?;
        let record = check::record(&bytes, public, seq)
            .and_then(|record| check::link(&record, previous).map(|()| record))
            .map_err(|fault| EvidenceError::damaged(&path, fault.why))?;
        let digest = Digest::of(&bytes);
        let included = filter.takes(&record);
        copied.list.push(ListedRecord { seq, digest, included });
        previous = digest;
        if included {
            write(&files::record_path(staging, seq), &bytes)?;
            let row = Row {
                seq,
                at: record.at,
                kind: record.kind,
                subject: record.subject,
                tool: record.tool,
                digest,
                file: Row::file_of(seq),
            };
            copied.csv.push(&row, &record.body);
            copied.rows.push(row);
        }
    }
    if previous == head.digest {
        Ok(copied)
    } else {
        Err(EvidenceError::damaged(&dir.join(HEAD), "names another record than the one that is there"))
    }
}
