//! What the catalog answers with.

use std::fmt;
use std::str::FromStr;

use lifeboat_base::ids::{CopyName, PointId, StoreName};
use lifeboat_base::time::Timestamp;
use lifeboat_vault::PointManifest;
use serde::{Deserialize, Serialize};

/// How far a recovery point is proven; each level includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofLevel {
    /// Its manifest is sealed and every pack it needs was written.
    Captured,
    /// Every stored file was read and matches its name.
    Checksummed,
    /// Every chunk was decrypted and matches its hash, every file can be assembled.
    Readable,
    /// It was restored into a sandbox and passed every check against its manifest.
    Restored,
    /// Semantic probes against the restored store passed.
    Probed,
}

impl ProofLevel {
    /// All levels, weakest first.
    pub const ALL: [Self; 5] =
        [Self::Captured, Self::Checksummed, Self::Readable, Self::Restored, Self::Probed];

    /// The stable word used in JSON and in the catalog.
    pub fn word(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Checksummed => "checksummed",
            Self::Readable => "readable",
            Self::Restored => "restored",
            Self::Probed => "probed",
        }
    }
}

/// A word that names no proof level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no proof level: use captured, checksummed, readable, restored or probed")]
pub struct UnknownLevel(String);

impl FromStr for ProofLevel {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        Self::ALL.into_iter().find(|level| level.word() == word).ok_or_else(|| UnknownLevel(word.to_owned()))
    }
}

impl fmt::Display for ProofLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One attempt to prove one recovery point in one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The store.
    pub store: StoreName,
    /// The recovery point.
    pub point: PointId,
    /// The copy it was read from.
    pub copy: CopyName,
    /// How far it went.
    pub level: ProofLevel,
    /// When it ended.
    pub at: Timestamp,
    /// Whether it held.
    pub ok: bool,
    /// The record of the evidence chain that says so.
    pub evidence: u64,
}

/// Where a recovery point lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The copy.
    pub copy: CopyName,
    /// When it was last seen there.
    pub seen: Timestamp,
    /// Why it cannot be relied on there, if so.
    pub damaged: Option<String>,
}

/// A recovery point with where it is held and what was tried to prove it.
#[derive(Clone, Debug, PartialEq)]
pub struct PointRow {
    /// Its sealed manifest.
    pub manifest: PointManifest,
    /// Where it lies, by copy name.
    pub holdings: Vec<Holding>,
    /// The newest success and the newest failure of each level in each copy, oldest first.
    pub proofs: Vec<Proof>,
}

impl PointRow {
    /// Whether at least one copy holds it undamaged as far as is known.
    pub fn usable(&self) -> bool {
        self.holdings.iter().any(|holding| holding.damaged.is_none())
    }

    /// The newest proof of `level` that still holds in its copy.
    pub fn proven(&self, level: ProofLevel) -> Option<&Proof> {
        self.standing().rev().find(|proof| proof.level == level)
    }

    /// The newest proof of `level` that still holds in `copy`.
    pub fn proven_in(&self, level: ProofLevel, copy: &CopyName) -> Option<&Proof> {
        self.standing().rev().find(|proof| proof.level == level && proof.copy == *copy)
    }

    /// Proofs that no later attempt at the same in the same copy failed to repeat, oldest first.
    pub fn standing(&self) -> impl DoubleEndedIterator<Item = &Proof> {
        self.newest().filter(|proof| proof.ok)
    }

    /// Attempts that failed and that none at the same in the same copy has made good since, oldest first.
    pub fn failing(&self) -> impl DoubleEndedIterator<Item = &Proof> {
        self.newest().filter(|proof| !proof.ok)
    }

    fn newest(&self) -> impl DoubleEndedIterator<Item = &Proof> {
        self.proofs.iter().filter(|proof| {
            let same = |other: &&Proof| other.level == proof.level && other.copy == proof.copy;
            !self.proofs.iter().filter(same).any(|other| other.evidence > proof.evidence)
        })
    }

    /// The newest success at `level`, whatever came of later attempts: its content is the same since.
    pub fn once_proven(&self, level: ProofLevel) -> Option<&Proof> {
        self.proofs.iter().rev().find(|proof| proof.level == level && proof.ok)
    }

    /// Whether nothing was left out of it.
    pub fn complete(&self) -> bool {
        self.manifest.facts.unreadable.is_empty()
    }
}

/// One finished run of a job on one store.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// The number of its evidence record.
    pub evidence: u64,
    /// `backup`, `verify`, `restore`, `drill`, `retain` and so on.
    pub kind: String,
    /// The store.
    pub store: StoreName,
    /// When it ended.
    pub at: Timestamp,
    /// Whether it succeeded.
    pub ok: bool,
    /// The body of its evidence record.
    pub body: serde_json::Value,
}
