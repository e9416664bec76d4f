//! What a dump amounts to: numbers per database and kind, times to live, and a digest of everything.

use std::collections::BTreeMap;
use std::io::Read;

use super::dump::{self, About, Item, Key};
use super::error::RdbError;
use super::sum::Sum;
use super::value::Kind;

/// The names of the ranges of time to live, and their ends in milliseconds. What was over already is `passed`, what is
/// longer than the last `more`, what never ends `none`.
pub const TTL_RANGES: [(&str, i64); 6] = [
    ("1s", 1_000),
    ("1m", 60_000),
    ("1h", 3_600_000),
    ("1d", 86_400_000),
    ("7d", 604_800_000),
    ("30d", 2_592_000_000),
];

/// One database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// Keys, those whose time is over included.
    pub keys: u64,
    /// Keys by kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Keys with an end.
    pub expiring: u64,
    /// Keys by the time they had left at the moment of the survey; see [`TTL_RANGES`].
    pub ttl: BTreeMap<&'static str, u64>,
    /// The digests of all keys, summed.
    pub sum: Sum,
    /// As `sum`, but with whether a key ends in place of when: what is written again with a time to live is the same.
    pub timeless_sum: Sum,
}

/// A dump, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// What it says about itself.
    pub about: About,
    /// Databases that hold anything.
    pub databases: BTreeMap<u64, Database>,
    /// Libraries of functions.
    pub functions: u64,
    /// The digests of their code, summed.
    pub function_sum: Sum,
    /// Keys of kinds that modules bring, and what modules keep beside: not understood.
    pub opaque: u64,
}

impl Survey {
    /// Reads a dump to its end. `now_ms` is what times to live are counted from, in milliseconds since 1970.
    pub fn read(source: impl Read, now_ms: i64) -> Result<Self, RdbError> {
        let mut survey = Self::default();
        survey.about = dump::read(source, &mut |item| survey.add(&item, now_ms))?;
        Ok(survey)
    }

    /// As [`Survey::read`], for a dump that something else follows.
    pub fn read_first(source: impl Read, now_ms: i64) -> Result<Self, RdbError> {
        let mut survey = Self::default();
        survey.about = dump::read_first(source, &mut |item| survey.add(&item, now_ms))?;
        Ok(survey)
    }

    /// Counts one item in.
    pub fn add(&mut self, item: &Item<'_>, now_ms: i64) {
        match item {
            Item::Key(key) => {
                self.opaque += u64::from(key.kind == Kind::Module);
                self.databases.entry(key.db).or_default().add(key, now_ms);
            }
            Item::Function(hash) => {
                self.functions += 1;
                self.function_sum.add(hash);
            }
            Item::ModuleAux => self.opaque += 1,
        }
    }

    /// Keys in all databases.
    pub fn keys(&self) -> u64 {
        self.databases.values().map(|database| database.keys).sum()
    }
}

impl Database {
    fn add(&mut self, key: &Key, now_ms: i64) {
        self.keys += 1;
        *self.kinds.entry(key.kind).or_default() += 1;
        self.expiring += u64::from(key.expires_ms.is_some());
        *self.ttl.entry(range(key.expires_ms, now_ms)).or_default() += 1;
        self.sum.add(&key.digest);
        self.timeless_sum.add(&key.timeless);
    }
}

fn range(expires_ms: Option<i64>, now_ms: i64) -> &'static str {
    let Some(expires_ms) = expires_ms else { return "none" };
    let left = expires_ms.saturating_sub(now_ms);
    if left <= 0 {
        return "passed";
    }
    TTL_RANGES.iter().find(|(_, end)| left <= *end).map_or("more", |(name, _)| name)
}
