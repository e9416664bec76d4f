//! Status: the live matrix. Every promise of every row is kept, broken, not proven or not made, and says why.
//!
//! Reads the catalog and lists what lies in the copies, never a store; what nobody proved is shown as not proven.

use std::time::Duration;

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::ids::{CopyName, PointId, StoreName};
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{PointRow, ProofLevel, RunRow};
use lifeboat_policy::{Retention, Store};
use lifeboat_vault::Vault;
use serde::Serialize;

use crate::context::Engine;
use crate::error::EngineError;

mod promises;

/// Where manifests lie in a vault.
const POINTS_FOLDER: &str = "lifeboat/points/";

/// A column of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PromiseKind {
    /// How much would be lost if the store died now.
    Rpo,
    /// How long the last proven restore took.
    Rto,
    /// Whether what is held is what the row keeps.
    Retention,
    /// Whether everything held is encrypted for the policy's recipients.
    Encryption,
    /// Whether what is held cannot be deleted before its time.
    Immutability,
    /// Whether the newest point lies in every copy of the row.
    Copies,
    /// Whether the proofs asked for are recent.
    Verify,
    /// Whether the last drill passed.
    Drill,
}

impl PromiseKind {
    /// The columns in the order of the matrix.
    pub const ALL: [Self; 8] = [
        Self::Rpo,
        Self::Rto,
        Self::Retention,
        Self::Encryption,
        Self::Immutability,
        Self::Copies,
        Self::Verify,
        Self::Drill,
    ];

    /// The stable word used in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rpo => "rpo",
            Self::Rto => "rto",
            Self::Retention => "retention",
            Self::Encryption => "encryption",
            Self::Immutability => "immutability",
            Self::Copies => "copies",
            Self::Verify => "verify",
            Self::Drill => "drill",
        }
    }
}

/// Whether a promise holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PromiseState {
    /// Shown to hold, by evidence.
    Kept,
    /// Shown not to hold.
    Broken,
    /// Neither shown to hold nor shown not to.
    Unproven,
    /// The row does not make this promise.
    NotApplicable,
}

impl PromiseState {
    /// The words people read.
    pub fn words(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::Unproven => "not proven",
            Self::NotApplicable => "n/a",
        }
    }
}

/// One cell of the matrix.
#[derive(Clone, Debug, Serialize)]
pub struct PromiseView {
    /// The column.
    pub promise: PromiseKind,
    /// Whether it holds.
    pub state: PromiseState,
    /// What the row asks for, as in the policy.
    pub target: Option<String>,
    /// What was measured.
    pub observed: Option<String>,
    /// Seconds since it was measured.
    pub age_s: Option<u64>,
    /// Why it is in this state.
    pub reason: String,
    /// The record of the evidence chain it rests on.
    pub evidence: Option<String>,
}

/// One row of the matrix.
#[derive(Clone, Debug, Serialize)]
pub struct StoreStatus {
    /// The store.
    pub name: StoreName,
    /// Its kind.
    pub kind: &'static str,
    /// Its tier.
    pub tier: Option<String>,
    /// Its cells, in the order of [`PromiseKind::ALL`].
    pub promises: Vec<PromiseView>,
}

/// The matrix.
#[derive(Clone, Debug, Serialize)]
pub struct StatusReport {
    /// `lifeboat.status/v1`.
    pub schema: &'static str,
    /// The moment it shows.
    pub at: Timestamp,
    /// The hash of the policy file.
    pub policy_hash: Digest,
    /// Its rows, in the order of the policy.
    pub stores: Vec<StoreStatus>,
}

impl StatusReport {
    /// How many cells are in a state.
    pub fn count(&self, state: PromiseState) -> usize {
        self.stores.iter().flat_map(|store| &store.promises).filter(|cell| cell.state == state).count()
    }

    /// A broken promise is a finding; one that is not proven is shown, and does not fail the command.
    pub fn worst(&self) -> Option<FailureKind> {
        (self.count(PromiseState::Broken) > 0).then_some(FailureKind::Findings)
    }
}

/// What the cells of one row are judged by.
struct Facts<'a> {
    row: &'a Store,
    now: Timestamp,
    points: Vec<PointRow>,
    backup: Option<RunRow>,
    /// The newest verification of each copy.
    verify: Vec<(CopyName, RunRow)>,
    drill: Option<RunRow>,
    drill_ok: Option<RunRow>,
    /// Copies that hold a vault of a store that must not be kept.
    stray: Vec<String>,
    supported: bool,
    locks: Vec<String>,
}

impl Engine {
    /// The matrix of the stores named, or of all.
    pub fn status(&self, names: &[StoreName]) -> Result<StatusReport, EngineError> {
        let now = self.env.clock.now();
        let mut stores = Vec::new();
        for row in self.select(names)? {
            let facts = self.facts(row, now)?;
            stores.push(StoreStatus {
                name: row.name.clone(),
                kind: row.kind.word(),
                tier: row.tier.as_ref().map(ToString::to_string),
                promises: promises::judge(&facts),
            });
        }
        Ok(StatusReport { schema: "lifeboat.status/v1", at: now, policy_hash: self.policy_hash, stores })
    }

    fn facts<'a>(&self, row: &'a Store, now: Timestamp) -> Result<Facts<'a>, EngineError> {
        let catalog = self.catalog()?;
        let run = |kind: &str, ok: bool| catalog.last_run(&row.name, kind, ok).map_err(Failure::from);
        let mut points = catalog.points(&row.name).map_err(Failure::from)?;
        for copy in &row.copies.value {
            self.look_at(row, copy, &mut points);
        }
        Ok(Facts {
            row,
            now,
            points,
            backup: run("backup", false)?,
            verify: self.verifications(row)?,
            drill: run("drill", false)?,
            drill_ok: run("drill", true)?,
            stray: if matches!(row.retention.value, Retention::None) {
                self.stray_vaults(row)?
            } else {
                Vec::new()
            },
            supported: self.adapter(row).is_ok(),
            locks: row
                .copies
                .value
                .iter()
                .filter(|copy| self.policy.copies.get(copy).is_some_and(|place| place.lock.is_some()))
                .map(ToString::to_string)
                .collect(),
        })
    }

    fn verifications(&self, row: &Store) -> Result<Vec<(CopyName, RunRow)>, EngineError> {
        let mut runs = Vec::new();
        for copy in &row.copies.value {
            let run = self.catalog()?.last_run_in(&row.name, "verify", copy).map_err(Failure::from)?;
            runs.extend(run.map(|run| (copy.clone(), run)));
        }
        Ok(runs)
    }

    /// Looks whether a copy and the manifests the catalog expects in it are there at this moment: what was true when
    /// the catalog was written must not be shown as true after the copy went away.
    fn look_at(&self, row: &Store, copy: &CopyName, points: &mut [PointRow]) {
        let gone = |why: &str| Some(why.to_owned());
        let (whole, listed) = match self.storage(row, copy) {
            Err(failure) => (Some(failure.chain()), None),
            Ok(storage) => match (Vault::exists(storage.as_ref()), storage.list(POINTS_FOLDER)) {
                (Ok(true), Ok(listed)) => (None, Some(listed)),
                (Ok(false), _) => (gone("the copy has no vault now"), None),
                (Err(error), _) => (Some(chain(&error)), None),
                (_, Err(error)) => (Some(chain(&error)), None),
            },
        };
        let there = |id: &PointId| {
            listed.as_ref().is_some_and(|listed| {
                listed.iter().any(|object| object.name.as_str() == format!("{POINTS_FOLDER}{id}.json"))
            })
        };
        for point in points {
            let missing = if there(&point.manifest.id) { None } else { gone("the copy no longer lists it") };
            let id = point.holdings.iter_mut().find(|held| held.copy == *copy && held.damaged.is_none());
            if let Some(held) = id {
                held.damaged = whole.clone().or(missing);
            }
        }
    }

    /// Copies in which a vault of a store with `retention = "none"` lies: none may.
    fn stray_vaults(&self, row: &Store) -> Result<Vec<String>, EngineError> {
        let mut stray = Vec::new();
        for copy in self.policy.copies.keys() {
            let Ok(storage) = self.storage(row, copy) else { continue };
            let listed = storage.list("").map_err(|error| {
                Failure::with_source(error.kind(), format!("failed to look into copy `{copy}`"), error)
            })?;
            if !listed.is_empty() {
                stray.push(copy.to_string());
            }
        }
        Ok(stray)
    }
}

/// Seconds from `then` to `now`, at least 0.
fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

impl Facts<'_> {
    /// The newest point that can be restored from somewhere, as far as is known.
    fn newest(&self) -> Option<&PointRow> {
        self.points.iter().rev().find(|point| point.usable())
    }

    /// The newest proof of a level that still holds, over all points.
    fn proven(&self, level: ProofLevel) -> Option<(&PointRow, Timestamp, u64)> {
        self.points
            .iter()
            .filter_map(|point| point.proven(level).map(|proof| (point, proof.at, proof.evidence)))
            .max_by_key(|(_point, at, _evidence)| *at)
    }
}
