//! Status: the live matrix. Every promise of every row is kept, broken, not proven or not made, and says why.
//!
//! Reads the catalog and lists what lies in the copies, never a store; what nobody proved is shown as not proven.

use std::time::Duration;

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind, chain};
use lifeboat_base::human;
use lifeboat_base::ids::{CopyName, PointId, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{PointRow, ProofLevel, RunRow};
use lifeboat_drill::Forecast;
use lifeboat_policy::{CopyUrl, Decided, Retention, Store};
use lifeboat_stores::Duties;
use lifeboat_vault::Vault;
use lifeboat_vault::storage::StorageError;
use serde::Serialize;

use crate::context::Engine;
use crate::duties::{LOOKED, REPLAYED, owed};
use crate::error::EngineError;
use crate::locks::CopyState;
use crate::plans::PlanStatus;
use crate::view::{View, drill_digest, in_future, rules_digests, source_digest};
use log::LogState;

mod log;
mod promises;
mod renewals;

pub(crate) use renewals::Renewal;

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
    /// Why the last backup did not end well, if so; the promises may still hold.
    pub last_failure: Option<String>,
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
    /// The drills the policy plans; empty where only some stores were asked for.
    pub drills: Vec<PlanStatus>,
    /// What is wrong with what several rows make up together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl StatusReport {
    /// How many cells and planned drills are in a state.
    pub fn count(&self, state: PromiseState) -> usize {
        let cells = self.stores.iter().flat_map(|store| &store.promises).map(|cell| cell.state);
        cells.chain(self.drills.iter().map(|plan| plan.state)).filter(|found| *found == state).count()
    }

    /// A broken promise is a finding; one that is not proven is shown, and does not fail the command.
    pub fn worst(&self) -> Option<FailureKind> {
        let is_broken = self.count(PromiseState::Broken) > 0 || !self.findings.is_empty();
        is_broken.then_some(FailureKind::Findings)
    }
}

/// What is owed for a store that is not retained, and what was filed about it last.
struct Owed {
    looked: Option<RunRow>,
    replayed: Option<RunRow>,
    /// Whether the row says how the store is made again.
    rebuildable: bool,
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
    /// What the drills so far foretell of a restore of the newest point.
    forecast: Option<Forecast>,
    /// The last drill that restored to a moment within the log.
    pitr: Option<RunRow>,
    /// The newest run of retention, and the newest that succeeded.
    retain: Option<RunRow>,
    retain_ok: Option<RunRow>,
    /// What destroyed every key of the row, if nothing was captured since.
    shredded: Option<RunRow>,
    /// Whether there are others to be drilled with.
    has_partners: bool,
    /// The last drill with others.
    together: Option<RunRow>,
    /// What the row and others must say of each other, by name, and the last time they were asked.
    rules: Vec<(String, Digest, Option<RunRow>)>,
    /// What retention makes of the points; nothing for a row that is not retained.
    decided: Option<Decided>,
    /// Copies that hold something of a store that must not be kept.
    stray: Vec<String>,
    /// Copies that cannot be looked into, so that nobody knows.
    unseen: Vec<String>,
    /// What is owed for a store that is not retained; nothing for one whose kind knows no duties.
    owed: Option<Owed>,
    /// The kind other points of this row were captured as.
    other_kind: Option<String>,
    /// Points the evidence chain records and no copy lists.
    lost: Vec<String>,
    /// The newest backup that made a point.
    captured: Option<RunRow>,
    /// Recipients of the policy that a vault's envelope does not name, and the copy it lies in.
    unnamed: Vec<(String, String)>,
    supported: bool,
    /// How far the row's continuous log goes; nothing for a row without one.
    log: Option<Result<LogState, String>>,
    /// What is known of the locks of each copy that is to have some.
    locks: Vec<CopyState>,
}

impl Engine {
    /// The matrix of the stores named, or of all.
    pub fn status(&self, names: &[StoreName]) -> Result<StatusReport, EngineError> {
        self.evidence_whole()?;
        let now = self.env.clock.now();
        let rows = self.select(names)?;
        let mut stores = Vec::new();
        for row in rows.iter().copied() {
            let facts = self.facts(row, now)?;
            stores.push(StoreStatus {
                name: row.name.clone(),
                kind: row.kind.word(),
                tier: row.tier.as_ref().map(ToString::to_string),
                promises: promises::judge(&facts),
                last_failure: facts.backup.as_ref().filter(|run| !run.ok).map(|run| failure(run, now)),
            });
        }
        let drills = if names.is_empty() { self.plans(now)? } else { Vec::new() };
        let mut findings = self.uncaptured(&rows)?;
        if names.is_empty() {
            findings.extend(self.inventory().findings);
        }
        let (schema, policy_hash) = ("lifeboat.status/v1", self.policy_hash);
        Ok(StatusReport { schema, at: now, policy_hash, stores, drills, findings })
    }

    /// When the proofs that a row asks for are to be renewed.
    pub(crate) fn renewals(&self, row: &Store, now: Timestamp) -> Result<Vec<Renewal>, EngineError> {
        Ok(renewals::renewals(&self.facts(row, now)?))
    }

    fn has_partners(&self, row: &Store) -> bool {
        let kept = |other: &&Store| !matches!(other.retention.value, Retention::None);
        self.policy.stores.values().filter(kept).any(|other| other.name != row.name)
    }

    fn facts<'a>(&self, row: &'a Store, now: Timestamp) -> Result<Facts<'a>, EngineError> {
        let catalog = self.catalog()?;
        let View { mut points, other_kind, lost } = self.view(row)?;
        let mut unnamed = Vec::new();
        for copy in &row.copies.value {
            self.look_at(row, copy, &mut points);
            unnamed.extend(self.unnamed_recipients(row, copy).map(|label| (label, copy.to_string())));
        }
        let none = matches!(row.retention.value, Retention::None);
        let (stray, unseen) = if none { self.stray_vaults(row) } else { Default::default() };
        Ok(Facts {
            row,
            now,
            other_kind,
            lost,
            unnamed,
            stray,
            unseen,
            owed: self.owed(row)?,
            backup: catalog.last_run(&row.name, "backup", false).map_err(Failure::from)?,
            captured: catalog.last_capture(&row.name).map_err(Failure::from)?,
            verify: self.verifications(row)?,
            drill: catalog.last_drill(&row.name, false).map_err(Failure::from)?,
            forecast: {
                let newest = points.iter().rev().find(|point| point.usable());
                match newest.map(|point| point.manifest.facts.logical_bytes) {
                    Some(bytes) => self.forecast(&row.name, bytes)?,
                    None => None,
                }
            },
            drill_ok: catalog.last_drill(&row.name, true).map_err(Failure::from)?,
            decided: match row.retention.value {
                Retention::Keep(keep) => Some(self.decide(row, keep, &points, now)?),
                Retention::None => None,
            },
            retain: catalog.last_run(&row.name, "retain", false).map_err(Failure::from)?,
            shredded: self.shredded(row)?,
            retain_ok: catalog.last_run(&row.name, "retain", true).map_err(Failure::from)?,
            pitr: catalog.last_pitr(&row.name).map_err(Failure::from)?,
            has_partners: self.has_partners(row),
            together: catalog.last_together(&row.name).map_err(Failure::from)?,
            rules: rules_digests(&self.policy, &row.name)
                .into_iter()
                .map(|(name, digest)| {
                    let last = catalog.last_compared(&row.name, &name)?;
                    Ok((name, digest, last))
                })
                .collect::<Result<_, Failure>>()?,
            supported: self.adapter(row).is_ok(),
            log: self.log_state(row, &points),
            locks: self.lock_states(row, &points, now)?,
            points,
        })
    }

    fn lock_states(
        &self,
        row: &Store,
        points: &[PointRow],
        now: Timestamp,
    ) -> Result<Vec<CopyState>, EngineError> {
        let Some(terms) = self.lock_terms(row, points, now)? else { return Ok(Vec::new()) };
        let state = |copy: &CopyName| (copy.clone(), self.lock_state(row, copy, (&terms, points)));
        Ok(self.locking(row).map(|(copy, _mode)| state(copy)).collect())
    }

    fn owed(&self, row: &Store) -> Result<Option<Owed>, EngineError> {
        let Some(adapter) = owed(self, row) else { return Ok(None) };
        let catalog = self.catalog()?;
        let newest = |kind| catalog.last_run(&row.name, kind, false).map_err(Failure::from);
        Ok(Some(Owed {
            looked: newest(LOOKED)?,
            replayed: newest(REPLAYED)?,
            rebuildable: adapter.duties().is_some_and(Duties::is_rebuildable),
        }))
    }

    /// Recipients the policy names and the envelope in a copy does not: whether they open it is not known.
    pub(crate) fn unnamed_recipients(&self, row: &Store, copy: &CopyName) -> impl Iterator<Item = String> {
        let storage = self.storage(row, copy).ok();
        let envelope = storage.and_then(|storage| Vault::read_envelope(storage.as_ref()).ok().flatten());
        let named = |label: &str| {
            envelope
                .as_ref()
                .is_none_or(|envelope| envelope.recipients().iter().any(|entry| entry.label == label))
        };
        let labels = self.policy.keys.recipients.iter().map(ToString::to_string);
        labels.filter(|label| !named(label)).collect::<Vec<_>>().into_iter()
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

    /// Copies in which something of a store with `retention = "none"` lies, and copies that nobody can look into now.
    pub(crate) fn stray_vaults(&self, row: &Store) -> (Vec<String>, Vec<String>) {
        let (mut stray, mut unseen) = (Vec::new(), Vec::new());
        for (copy, place) in &self.policy.copies {
            let there = match &place.url {
                CopyUrl::File(path) => self.resolve(path).is_dir(),
                CopyUrl::S3 { .. } => false,
            };
            match self.storage(row, copy).ok().map(|storage| storage.list("")) {
                Some(Ok(listed)) if !listed.is_empty() => stray.push(copy.to_string()),
                Some(Ok(_) | Err(StorageError::Missing { .. })) if there => {}
                _ => unseen.push(copy.to_string()),
            }
        }
        (stray, unseen)
    }
}

/// The time from `then` to `now`. What claims to come from the future is as old as can be: it proves nothing.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> Duration {
    if in_future(then, now) {
        return Duration::MAX;
    }
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

impl Facts<'_> {
    /// The newest point that can be restored from somewhere, as far as is known.
    fn newest(&self) -> Option<&PointRow> {
        self.points.iter().rev().find(|point| self.counts(point))
    }

    /// Whether a restore would use this point.
    fn counts(&self, point: &PointRow) -> bool {
        point.usable() && !in_future(point.manifest.facts.consistency.moment, self.now)
    }

    /// Whether the row still means what the newest capture captured.
    fn same_source(&self) -> bool {
        says(self.captured.as_ref(), "source", source_digest(self.row))
    }

    /// Whether the row still asks what the last drill showed.
    fn same_drill(&self) -> bool {
        says(self.drill.as_ref(), "row", drill_digest(self.row))
    }

    /// The newest proof of a level that still holds, over all points.
    fn proven(&self, level: ProofLevel) -> Option<(&PointRow, Timestamp, u64)> {
        self.points
            .iter()
            .filter_map(|point| point.proven(level).map(|proof| (point, proof.at, proof.evidence)))
            .max_by_key(|(_point, at, _evidence)| *at)
    }
}

fn failure(run: &RunRow, now: Timestamp) -> String {
    let why = match run.body.get("error").and_then(serde_json::Value::as_str) {
        Some(error) => format!("failed: {error}"),
        None => "made a point and left findings".to_owned(),
    };
    format!("the last backup, {} ago, {why} [evidence:{}]", human::duration(age(now, run.at)), run.evidence)
}

/// Whether a record says that it was made for this digest.
fn says(run: Option<&RunRow>, field: &str, digest: Digest) -> bool {
    run.and_then(|run| run.body.get(field)).and_then(serde_json::Value::as_str)
        == Some(digest.to_string().as_str())
}
