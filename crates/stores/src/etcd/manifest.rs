//! The list of every key that is alive in a snapshot: `meta/keys.jsonl`, one object per line, in the order of their last
//! change.
//!
//! In: keys from a snapshot, a server, or a stored list. Out: lines; counts by prefix; and one checksum of all keys, equal
//! wherever they were read.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::human::printable;
use lifeboat_etcd::KeyValue;
use serde::{Deserialize, Serialize};

use crate::sum::Sum;

/// The list's name below `meta`.
pub(crate) const KEYS: &str = "keys.jsonl";
/// The name of the count of all keys.
pub(crate) const ALL: &str = "keys";
/// The name under which keys are counted whose prefix has no count of its own.
pub(crate) const OTHERS: &str = "keys/(others)";
/// The most prefixes that have a count of their own: the first ones met.
const MAX_PREFIXES: usize = 256;
/// A prefix longer than this counts among the others.
const MAX_PREFIX_BYTES: usize = 100;
/// The longest line that is read back: keys and values are far below it.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;
/// How much of a key is shown.
const MAX_SHOWN_CHARS: usize = 120;

/// Bytes that are text where they can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bytes {
    Text(String),
    Base64(String),
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Bytes,
    create: i64,
    #[serde(rename = "mod")]
    modified: i64,
    version: i64,
    lease: i64,
    bytes: u64,
    sha256: Digest,
}

/// What is kept of a key: everything but its value, of which the digest is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    create: i64,
    modified: i64,
    version: i64,
    lease: i64,
    bytes: u64,
    sha256: Digest,
}

impl Row {
    pub(crate) fn of(pair: &KeyValue) -> Self {
        Self {
            key: pair.key.clone(),
            create: pair.create_revision,
            modified: pair.mod_revision,
            version: pair.version,
            lease: pair.lease,
            bytes: pair.value.len() as u64,
            sha256: Digest::of(&pair.value),
        }
    }

    /// Its line, with the end of it.
    pub(crate) fn line(&self) -> serde_json::Result<Vec<u8>> {
        let key = match std::str::from_utf8(&self.key) {
            Ok(text) => Bytes::Text(text.to_owned()),
            Err(_) => Bytes::Base64(STANDARD.encode(&self.key)),
        };
        let line = Line {
            key,
            create: self.create,
            modified: self.modified,
            version: self.version,
            lease: self.lease,
            bytes: self.bytes,
            sha256: self.sha256,
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok(text)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let line: Line = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let key = match line.key {
            Bytes::Text(text) => text.into_bytes(),
            Bytes::Base64(text) => STANDARD.decode(text).map_err(|error| error.to_string())?,
        };
        let Line { create, modified, version, lease, bytes, sha256, .. } = line;
        Ok(Self { key, create, modified, version, lease, bytes, sha256 })
    }

    /// Everything that makes it what it is. Lengths stand in front, so that no two rows have the same encoding.
    fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(&(self.key.len() as u64).to_be_bytes());
        hasher.update(&self.key);
        for number in [self.create, self.modified, self.version, self.lease] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.update(&self.bytes.to_be_bytes());
        hasher.update(self.sha256.as_bytes());
        hasher.finish()
    }

    /// The key for people.
    pub(crate) fn shown(&self) -> String {
        shown(&self.key)
    }
}

/// A key for people: printable, bounded.
pub(crate) fn shown(key: &[u8]) -> String {
    printable(&String::from_utf8_lossy(key).chars().take(MAX_SHOWN_CHARS).collect::<String>())
}

/// Counts and one checksum of rows, whatever their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    sum: Sum,
    pub(crate) counts: BTreeMap<String, u64>,
    fixed: bool,
}

impl Summary {
    /// Counts the prefixes that `counts` names, and no others.
    pub(crate) fn like(counts: &BTreeMap<String, u64>) -> Self {
        let named = |name: &&String| *name == ALL || name.starts_with("keys/");
        let counts = counts.keys().filter(named).map(|name| (name.clone(), 0)).collect();
        Self { sum: Sum::default(), counts, fixed: true }
    }

    pub(crate) fn add(&mut self, row: &Row) {
        self.sum.add(row.digest().as_bytes());
        *self.counts.entry(ALL.to_owned()).or_default() += 1;
        let own = format!("keys/{}", prefix(&row.key));
        let known = self.counts.contains_key(&own);
        let room = !self.fixed && self.counts.len() < MAX_PREFIXES;
        let name = if known || room { own } else { OTHERS.to_owned() };
        *self.counts.entry(name).or_default() += 1;
    }

    /// The checksum, with the name of its method.
    pub(crate) fn sum(&self) -> String {
        self.sum.shown()
    }
}

/// What comes before the third slash of a key, or the second where it does not start with one: `/registry/pods`.
fn prefix(key: &[u8]) -> String {
    let parts = if key.first() == Some(&b'/') { 3 } else { 2 };
    let mut slashes = key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let end = slashes.nth(parts - 1);
    match end.and_then(|end| key.get(..end)).and_then(|head| std::str::from_utf8(head).ok()) {
        Some(head) if head.len() <= MAX_PREFIX_BYTES && !head.contains(char::is_control) => head.to_owned(),
        _ => "(others)".to_owned(),
    }
}

/// Reads a stored list; `visit` gets every row. Gives the SHA-256 of the list.
pub(crate) fn read_rows(reader: impl Read, mut visit: impl FnMut(Row)) -> Result<Digest, String> {
    let mut reader = BufReader::new(reader);
    let mut hasher = Hasher::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if read.map_err(|error| error.to_string())? == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&line);
        visit(Row::parse(&line)?);
    }
}

/// Rows to be found again, by the first half of the digest of their keys. Memory: about 60 bytes for each.
#[derive(Debug, Default)]
pub(crate) struct Expected(HashMap<u128, u128>);

/// How a row that was found compares with what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Same,
    Changed,
    Extra,
}

impl Expected {
    pub(crate) fn add(&mut self, row: &Row) {
        self.0.insert(half(Digest::of(&row.key)), half(row.digest()));
    }

    /// Takes a row off the list.
    pub(crate) fn find(&mut self, row: &Row) -> Found {
        match self.0.remove(&half(Digest::of(&row.key))) {
            None => Found::Extra,
            Some(expected) if expected == half(row.digest()) => Found::Same,
            Some(_) => Found::Changed,
        }
    }

    /// Whether a row was not taken off.
    pub(crate) fn is_missing(&self, row: &Row) -> bool {
        self.0.contains_key(&half(Digest::of(&row.key)))
    }

    /// How many rows were not taken off.
    pub(crate) fn missing_count(&self) -> usize {
        self.0.len()
    }
}

fn half(digest: Digest) -> u128 {
    digest.as_bytes().first_chunk().map_or(0, |half| u128::from_be_bytes(*half))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(key: &[u8], value: &[u8], modified: i64) -> Row {
        Row::of(&KeyValue {
            key: key.to_vec(),
            value: value.to_vec(),
            create_revision: 2,
            mod_revision: modified,
            version: 1,
            lease: 0,
        })
    }

    #[test]
    fn keys_are_counted_by_what_a_person_would_call_their_place() {
        for (key, place) in [
            ("/registry/pods/default/web", "/registry/pods"),
            ("/registry/pods", "(others)"),
            ("a/b/c", "a/b"),
            ("plain", "(others)"),
            ("", "(others)"),
        ] {
            assert_eq!(prefix(key.as_bytes()), place, "{key}");
        }
        assert_eq!(prefix(b"/\xff/b/c"), "(others)");
    }

    #[test]
    fn there_are_never_more_prefixes_than_can_be_kept_and_none_is_lost() {
        let rows: Vec<Row> = (0..1000).map(|n| row(format!("/r/{n}/x").as_bytes(), b"", n)).collect();
        let mut first = Summary::default();
        for row in &rows {
            first.add(row);
        }
        assert!(first.counts.len() <= MAX_PREFIXES + 1);
        assert_eq!(first.counts[ALL], 1000);
        let mut again = Summary::like(&first.counts);
        for row in rows.iter().rev() {
            again.add(row);
        }
        assert_eq!((again.counts, again.sum.shown()), (first.counts.clone(), first.sum()));
    }

    #[test]
    fn what_is_missing_extra_or_changed_is_told_apart() {
        let mut expected = Expected::default();
        for key in [b"a", b"b", b"c"] {
            expected.add(&row(key, b"1", 3));
        }
        assert_eq!(expected.find(&row(b"a", b"1", 3)), Found::Same);
        assert_eq!(expected.find(&row(b"b", b"2", 3)), Found::Changed);
        assert_eq!(expected.find(&row(b"d", b"1", 3)), Found::Extra);
        assert!(expected.is_missing(&row(b"c", b"", 0)) && expected.missing_count() == 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(key in any::<Vec<u8>>(), value in any::<Vec<u8>>(), modified in any::<i64>()) {
            let row = row(&key, &value, modified);
            let mut rows = Vec::new();
            let line = row.line().unwrap();
            let digest = read_rows(line.as_slice(), |row| rows.push(row)).unwrap();
            prop_assert_eq!(rows, vec![row]);
            prop_assert_eq!(digest, Digest::of(&line));
        }
    }
}
