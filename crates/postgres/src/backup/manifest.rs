//! The server's backup manifest: which files with which content, and the log they need.
//!
//! In: the manifest's bytes. Out: its entries, after its own checksum was found right. Memory: about 300 bytes per file.

use std::collections::BTreeMap;
use std::io::{self, Read};

use lifeboat_base::digest::{Digest, Hasher};
use serde::Deserialize;

use super::error::BackupError;
use super::stream::SeenFile;
use crate::lsn::{Lsn, Timeline};

/// Above this a manifest is not read.
const MAX_MANIFEST_BYTES: u64 = 1024 * 1024 * 1024;
/// The line that holds the checksum of everything before it.
const CHECKSUM_LINE: &[u8] = b"\"Manifest-Checksum\"";
/// Differences named before the rest is only counted.
const MAX_NAMED: usize = 3;

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Files")]
    files: Vec<RawFile>,
    #[serde(rename = "WAL-Ranges")]
    wal_ranges: Vec<RawRange>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size_bytes: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: Timeline,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

/// One file of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// A stretch of log that a restore of the backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: Timeline,
    /// Its first byte.
    pub start: Lsn,
    /// The byte after its last.
    pub end: Lsn,
}

/// A manifest whose own checksum was found right.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The cluster it belongs to; servers before 17 do not say.
    pub system_identifier: Option<u64>,
    /// Path below the data directory → what is there. Log segments are not listed.
    pub files: BTreeMap<String, ManifestFile>,
    /// The log it needs, oldest timeline first.
    pub wal_ranges: Vec<WalRange>,
}

impl Manifest {
    /// Reads a manifest with SHA-256 checksums.
    pub fn read(reader: &mut dyn Read) -> Result<Self, BackupError> {
        let mut text = Vec::new();
        reader.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut text).map_err(BackupError::Scratch)?;
        if text.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(wrong("it is larger than 1 GiB"));
        }
        let raw: Raw = serde_json::from_slice(&text)
            .map_err(|error| BackupError::Scratch(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        if !matches!(raw.version, 1 | 2) {
            return Err(wrong(format!("it is of version {}, known are 1 and 2", raw.version)));
        }
        let sealed = text
            .windows(CHECKSUM_LINE.len())
            .rposition(|window| window == CHECKSUM_LINE)
            .and_then(|at| text.get(..at))
            .ok_or_else(|| wrong("it has no checksum"))?;
        let mut hasher = Hasher::new();
        hasher.update(sealed);
        if hasher.finish().to_string() != raw.checksum {
            return Err(wrong("its own checksum does not match"));
        }
        let mut files = BTreeMap::new();
        for file in raw.files {
            let (path, entry) = file_entry(file)?;
            if files.insert(path, entry).is_some() {
                return Err(wrong("it lists a file twice"));
            }
        }
        let wal_ranges = raw.wal_ranges.iter().map(wal_range).collect::<Result<Vec<_>, _>>()?;
        if wal_ranges.is_empty() {
            return Err(wrong("it names no write-ahead log"));
        }
        Ok(Self { system_identifier: raw.system_identifier, files, wal_ranges })
    }

    /// Compares what is there with what the manifest lists, in both directions. `others` are paths that are rightly not
    /// in the manifest.
    pub fn compare(
        &self,
        seen: &BTreeMap<String, SeenFile>,
        others: impl Fn(&str) -> bool,
    ) -> Result<(), BackupError> {
        let missing = self.files.keys().filter(|path| !seen.contains_key(*path));
        let extra = seen.keys().filter(|path| !self.files.contains_key(*path) && !others(path));
        let changed = self.files.iter().filter(|(path, file)| {
            seen.get(*path)
                .is_some_and(|seen| (seen.size_bytes, seen.sha256) != (file.size_bytes, file.sha256))
        });
        let differences: Vec<String> = missing
            .map(|path| format!("{path} is missing"))
            .chain(extra.map(|path| format!("{path} is not in the manifest")))
            .chain(changed.map(|(path, _)| format!("{path} has other content")))
            .collect();
        if differences.is_empty() {
            return Ok(());
        }
        let named: Vec<&str> = differences.iter().take(MAX_NAMED).map(String::as_str).collect();
        let rest = differences.len().saturating_sub(MAX_NAMED);
        let tail = if rest > 0 { format!(", and {rest} more") } else { String::new() };
        Err(wrong(format!("{}{tail}", named.join(", "))))
    }
}

fn wrong(what: impl Into<String>) -> BackupError {
    BackupError::Manifest { what: what.into() }
}

fn file_entry(raw: RawFile) -> Result<(String, ManifestFile), BackupError> {
    let path = match (raw.path, raw.encoded_path) {
        (Some(path), None) => path,
        (None, Some(_)) => return Err(wrong("it names a file that is not UTF-8")),
        _ => return Err(wrong("a file has no name")),
    };
    if raw.algorithm.as_deref() != Some("SHA256") {
        return Err(wrong(format!("{path} has no SHA-256")));
    }
    let sha256 = raw.checksum.and_then(|hex| hex.parse().ok());
    let sha256 = sha256.ok_or_else(|| wrong(format!("{path} has a malformed checksum")))?;
    Ok((path, ManifestFile { size_bytes: raw.size_bytes, sha256 }))
}

fn wal_range(raw: &RawRange) -> Result<WalRange, BackupError> {
    match (raw.start.parse(), raw.end.parse()) {
        (Ok(start), Ok(end)) if start <= end => Ok(WalRange { timeline: raw.timeline, start, end }),
        _ => Err(wrong("it holds a malformed log position")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(files: &str) -> Vec<u8> {
        let head = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [{files}],\n\"WAL-Ranges\": [\n{{ \"Timeline\": 1, \
             \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n"
        );
        let checksum = Digest::of(head.as_bytes());
        format!("{head}\"Manifest-Checksum\": \"{checksum}\"}}\n").into_bytes()
    }

    fn file(path: &str, content: &[u8]) -> String {
        format!(
            "{{ \"Path\": \"{path}\", \"Size\": {}, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\", \
             \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"{}\" }}",
            content.len(),
            Digest::of(content)
        )
    }

    fn seen(entries: &[(&str, &[u8])]) -> BTreeMap<String, SeenFile> {
        let seen =
            |content: &[u8]| SeenFile { size_bytes: content.len() as u64, sha256: Digest::of(content) };
        entries.iter().map(|(path, content)| ((*path).to_owned(), seen(content))).collect()
    }

    #[test]
    fn what_was_received_is_compared_in_both_directions() {
        let text = sealed(&[file("PG_VERSION", b"15\n"), file("base/1/1259", b"pages")].join(",\n"));
        let manifest = Manifest::read(&mut text.as_slice()).unwrap();
        let no_others = |_: &str| false;
        assert_eq!(manifest.wal_ranges[0].end, Lsn(0x200_0100));
        let good: [(&str, &[u8]); 2] = [("PG_VERSION", b"15\n"), ("base/1/1259", b"pages")];
        manifest.compare(&seen(&good), no_others).unwrap();
        let with_wal: Vec<_> = good.iter().copied().chain([("pg_wal/1", b"x".as_slice())]).collect();
        manifest.compare(&seen(&with_wal), |path| path.starts_with("pg_wal/")).unwrap();
        for (bad, why) in [
            (seen(&good[..1]), "base/1/1259 is missing"),
            (seen(&with_wal), "pg_wal/1 is not in the manifest"),
            (seen(&[good[0], ("base/1/1259", b"Pages")]), "base/1/1259 has other content"),
        ] {
            assert!(manifest.compare(&bad, no_others).unwrap_err().to_string().contains(why), "{why}");
        }
    }

    #[test]
    fn a_manifest_with_a_flipped_byte_is_refused() {
        let text = sealed(&file("PG_VERSION", b"15\n"));
        Manifest::read(&mut text.as_slice()).unwrap();
        for at in 0..text.len() - 2 {
            let mut bad = text.clone();
            bad[at] ^= 1;
            assert!(Manifest::read(&mut bad.as_slice()).is_err(), "byte {at}");
        }
    }
}
