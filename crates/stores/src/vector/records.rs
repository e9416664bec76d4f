//! The lines of `meta/records.jsonl`: one per record of an index, by id, with what tells it from any other.
//!
//! In: sorted leaves. Out: lines, and back. A reader believes no line that is out of order.

use std::io::{BufRead, Read};

use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_probe::Leaf;
use serde::{Deserialize, Serialize};

/// The file below `meta`.
pub(crate) const RECORDS: &str = "records.jsonl";
/// An id is part of a record, which has its own limit; with escapes it can be six times as long.
const MAX_LINE_BYTES: u64 = 32 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Box<str>,
    corpus: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vector: Option<Digest>,
}

/// A leaf as a line, with its end.
pub(crate) fn to_line(leaf: &Leaf) -> Result<Vec<u8>, Failure> {
    let line = Line { id: leaf.id.clone(), corpus: leaf.corpus, vector: leaf.vector };
    let mut bytes = serde_json::to_vec(&line).map_err(|error| {
        Failure::with_source(FailureKind::Internal, "failed to encode a record of the index", error)
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads lines one by one.
pub(crate) struct Lines<R> {
    reader: R,
    hasher: Hasher,
    number: u64,
    last: Option<Box<str>>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, hasher: Hasher::new(), number: 0, last: None }
    }

    /// The next leaf; nothing at the end, and the reason where a line cannot be believed.
    pub(crate) fn next_leaf(&mut self) -> Result<Result<Option<Leaf>, String>, Failure> {
        let mut bytes = Vec::new();
        (&mut self.reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| Failure::io("failed to read the list of records", error))?;
        if bytes.is_empty() {
            return Ok(Ok(None));
        }
        self.number += 1;
        self.hasher.update(&bytes);
        let Ok(line) = serde_json::from_slice::<Line>(&bytes) else {
            return Ok(Err(format!("line {} of the list of records is none", self.number)));
        };
        if self.last.as_ref().is_some_and(|last| *last >= line.id) {
            return Ok(Err(format!("line {} of the list of records is out of order", self.number)));
        }
        self.last = Some(line.id.clone());
        Ok(Ok(Some(Leaf { id: line.id, corpus: line.corpus, vector: line.vector })))
    }

    /// The digest of everything that was read.
    pub(crate) fn digest(self) -> Digest {
        self.hasher.finish()
    }
}
