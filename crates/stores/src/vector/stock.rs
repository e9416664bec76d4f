//! Takes stock of the shards of an index while their bytes go by.
//!
//! In: the bytes of shards, one shard after the other. Out: how much is in each, what a manifest says of all of it, and every
//! line that is no record. Memory: one line, and what an inventory keeps of each record.

use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::failure::Failure;
use lifeboat_probe::{FileEntry, Inventory, MAX_RECORD_BYTES, ProbeError, Record, Sorted};

/// Lines that are no records, named one by one; further ones are only counted.
const MAX_FAULTS: usize = 100;

/// What is done with a record that was read.
pub(crate) type Visit<'a> = dyn FnMut(&Record) -> Result<(), ProbeError> + 'a;

/// Lines that are no records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) count: u64,
    pub(crate) named: Vec<String>,
}

impl Faults {
    pub(crate) fn add(&mut self, what: String) {
        self.count += 1;
        if self.named.len() < MAX_FAULTS {
            self.named.push(what);
        }
    }

    fn absorb(&mut self, other: Self) {
        self.count += other.count;
        let room = MAX_FAULTS.saturating_sub(self.named.len());
        self.named.extend(other.named.into_iter().take(room));
    }
}

/// One shard while it is read.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    name: String,
    inventory: Inventory,
    faults: Faults,
    line: Vec<u8>,
    /// The rest of a line that is too long goes by unread.
    is_skipping: bool,
    number: u64,
    hasher: Hasher,
    length_bytes: u64,
}

impl Shard {
    pub(crate) fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8], visit: &mut Visit<'_>) -> Result<(), Failure> {
        self.hasher.update(bytes);
        self.length_bytes += bytes.len() as u64;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if self.line.len() + text.len() > MAX_RECORD_BYTES {
                self.is_skipping = true;
                self.line.clear();
            }
            if !self.is_skipping {
                self.line.extend_from_slice(text);
            }
            if is_ended {
                self.end_line("", visit)?;
            }
        }
        Ok(())
    }

    /// After the last byte.
    pub(crate) fn end(&mut self, visit: &mut Visit<'_>) -> Result<(), Failure> {
        if self.is_skipping || !self.line.is_empty() {
            self.end_line("; it is the last one and has no end: was it being written?", visit)?;
        }
        Ok(())
    }

    fn end_line(&mut self, hint: &str, visit: &mut Visit<'_>) -> Result<(), Failure> {
        self.number += 1;
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_skipping) {
            let why =
                format!("{} line {}: it is longer than {MAX_RECORD_BYTES} bytes", self.name, self.number);
            self.faults.add(why);
            return Ok(());
        }
        let read =
            std::str::from_utf8(&line).map_err(|_error| "it is not UTF-8".to_owned()).and_then(|text| {
                match text.trim() {
                    "" => Ok(None),
                    text => Record::from_line(text).map(Some).map_err(|error| error.to_string()),
                }
            });
        match read {
            Ok(None) => {}
            Ok(Some(record)) => match self.inventory.add(&record) {
                Ok(()) => visit(&record)?,
                // The index as a whole is too large; a single record is a fault.
                Err(error @ ProbeError::TooMany { .. }) => return Err(error.into()),
                Err(error) => self.fault(&error.to_string(), hint),
            },
            Err(why) => self.fault(&why, hint),
        }
        self.line = line;
        self.line.clear();
        Ok(())
    }

    fn fault(&mut self, why: &str, hint: &str) {
        self.faults.add(format!("{} line {}: {why}{hint}", self.name, self.number));
    }
}

/// How much is in one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardFacts {
    pub(crate) name: String,
    pub(crate) length_bytes: u64,
    pub(crate) digest: Digest,
    pub(crate) records_count: u64,
}

/// All shards so far.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    inventory: Inventory,
    shards: Vec<ShardFacts>,
    faults: Faults,
}

impl Stock {
    /// Adds a shard that was read to its end.
    pub(crate) fn absorb(&mut self, shard: Shard) -> Result<(), Failure> {
        self.shards.push(ShardFacts {
            name: shard.name,
            length_bytes: shard.length_bytes,
            digest: shard.hasher.finish(),
            records_count: shard.inventory.count(),
        });
        self.faults.absorb(shard.faults);
        Ok(self.inventory.absorb(shard.inventory)?)
    }

    /// Everything there is.
    pub(crate) fn finish(mut self) -> Taken {
        let sorted = self.inventory.sorted();
        for id in &sorted.repeated {
            self.faults.add(format!("the id `{id}` stands there again"));
        }
        self.shards.sort_by(|a, b| a.name.cmp(&b.name));
        Taken { sorted, shards: self.shards, faults: self.faults }
    }
}

/// What stock was taken of.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) sorted: Sorted,
    /// By their names.
    pub(crate) shards: Vec<ShardFacts>,
    pub(crate) faults: Faults,
}

impl Taken {
    /// The shards as a manifest names them.
    pub(crate) fn files(&self) -> Vec<FileEntry> {
        let entry = |shard: &ShardFacts| FileEntry {
            path: shard.name.clone(),
            size_bytes: shard.length_bytes,
            sha256: shard.digest,
        };
        self.shards.iter().map(entry).collect()
    }
}
