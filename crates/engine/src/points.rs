//! Recovery points: what the vaults hold, brought into the catalog, and shown.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{PointId, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{PointRow, ProofLevel};
use lifeboat_policy::{Retention, Store};
use lifeboat_vault::PointEntry;
use lifeboat_vault::logs::Position;
use serde::Serialize;

use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::EngineError;
use crate::holds::Held;
use crate::logs::Reach;

/// Where one point lies, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct CopyView {
    /// The copy.
    pub name: String,
    /// The snapshot id in that copy's repository.
    pub snapshot: String,
    /// Until when the copy refuses to delete it; directory copies cannot promise that.
    pub locked_until: Option<Timestamp>,
    /// Why it cannot be relied on there, if so.
    pub damaged: Option<String>,
}

/// One recovery point, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct PointView {
    /// Its id.
    pub id: PointId,
    /// When the capture started.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The moment it shows.
    pub moment: Timestamp,
    /// `point-in-time`, `crash-consistent` or `fuzzy`.
    pub consistency: lifeboat_base::capture::ConsistencyLevel,
    /// Items seen to change while it was captured; nothing where nobody looked.
    pub changes: Option<u64>,
    /// The engine's own position, if it has one.
    pub position: Option<String>,
    /// When each level was last proven. What was shown of it stays shown: its content does not change.
    pub proof: BTreeMap<ProofLevel, Option<Timestamp>>,
    /// When a later attempt at a level failed in some copy, if none has succeeded there since.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<ProofLevel, Timestamp>,
    /// Bytes of content.
    pub logical_bytes: u64,
    /// Bytes of content new to the vault.
    pub new_bytes: u64,
    /// Bytes written.
    pub stored_bytes: u64,
    /// Items that could not be captured.
    pub unreadable: usize,
    /// Where it lies.
    pub copies: Vec<CopyView>,
    /// Legal holds that keep it.
    pub holds: Vec<String>,
}

/// A stretch of time to which the store can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RangeView {
    /// Its first moment.
    pub from: Timestamp,
    /// Its last moment; the same without a continuous log.
    pub to: Timestamp,
    /// The engine's timeline, if it has one.
    pub timeline: Option<u32>,
    /// Whether what follows cannot be restored until the next range begins.
    pub gap_after: bool,
    /// The copies whose log goes this far; without a log, those that hold the point.
    pub copies: Vec<String>,
}

/// The answer of `lifeboat points`.
#[derive(Clone, Debug, Serialize)]
pub struct PointsReport {
    /// `lifeboat.points/v1`.
    pub schema: &'static str,
    /// The store.
    pub store: StoreName,
    /// Its points, oldest moment first.
    pub points: Vec<PointView>,
    /// The moments that can be restored.
    pub ranges: Vec<RangeView>,
    /// What is wrong with the copies.
    pub findings: Vec<Finding>,
}

impl PointsReport {
    /// The worst thing found.
    pub fn worst(&self) -> Option<FailureKind> {
        crate::backup::worst(self.findings.iter())
    }
}

impl Engine {
    /// Brings the catalog up to what the open vaults hold. Points the catalog knows and a vault does not list are
    /// marked as missing there: a point is never forgotten silently. What retention dropped is not listed.
    pub(crate) fn reconcile(&self, row: &Store, set: &VaultSet) -> Result<Vec<Finding>, EngineError> {
        let catalog = self.catalog()?;
        let now = self.env.clock.now();
        let mut findings = Vec::new();
        // A copy that was away may list them still. What is held and still lies in a copy is there, whatever records say.
        let mut dropped = catalog.dropped(&row.name).map_err(Failure::from)?;
        let (holds, _copies) = self.gather(row, set)?;
        let mut held: BTreeSet<PointId> = BTreeSet::new();
        for entry in set.open.iter().filter(|_| !holds.keep_nothing()) {
            for point in entry.vault.points().map_err(Failure::from)? {
                let manifest = point.manifest();
                held.extend(
                    manifest
                        .filter(|own| holds.cover(&own.id, own.facts.consistency.moment))
                        .map(|own| own.id.clone()),
                );
            }
        }
        for entry in &set.open {
            let retired = entry.vault.retired().map_err(Failure::from)?;
            let gone: Vec<PointId> =
                retired.points().keys().filter(|id| !held.contains(*id)).cloned().collect();
            catalog.drop_points(&row.name, &gone).map_err(Failure::from)?;
            dropped.extend(gone);
        }
        dropped.retain(|id| !held.contains(id));
        for entry in &set.open {
            let copies = std::slice::from_ref(&entry.copy);
            let mut listed = BTreeSet::new();
            let known = catalog.points(&row.name).map_err(Failure::from)?;
            for point in entry.vault.points().map_err(Failure::from)? {
                if point.id().is_some_and(|id| dropped.contains(id)) {
                    continue;
                }
                match point {
                    PointEntry::Good(manifest) => {
                        listed.insert(manifest.id.clone());
                        catalog.put_point(&manifest, copies, now).map_err(Failure::from)?;
                    }
                    PointEntry::Damaged { id, object, why } => {
                        let message = format!("copy `{}`: {object} is damaged: {why}", entry.copy);
                        if let Some(id) = &id {
                            listed.insert(id.clone());
                            catalog
                                .set_holding(&row.name, id, &entry.copy, now, Some(&why))
                                .map_err(Failure::from)?;
                        }
                        findings.push(
                            Finding::new("manifest-damaged", object.to_string(), message)
                                .with_kind(FailureKind::Damaged),
                        );
                    }
                }
            }
            for missing in known.iter().filter(|row| {
                !listed.contains(&row.manifest.id) && row.holdings.iter().any(|held| held.copy == entry.copy)
            }) {
                let id = &missing.manifest.id;
                let why = "the copy no longer lists it";
                catalog.set_holding(&row.name, id, &entry.copy, now, Some(why)).map_err(Failure::from)?;
                findings.push(
                    Finding::new("point-missing", id.as_str(), format!("copy `{}`: {id}: {why}", entry.copy))
                        .with_kind(FailureKind::Damaged),
                );
            }
        }
        Ok(findings)
    }

    /// The recovery points of the stores named, or of all that are retained.
    pub fn points(&self, names: &[StoreName]) -> Result<Vec<PointsReport>, EngineError> {
        let mut reports = Vec::new();
        for row in self.select(names)? {
            if names.is_empty() && matches!(row.retention.value, Retention::None) {
                continue;
            }
            let set = self.open_vaults(row)?;
            let mut findings = set.findings();
            findings.extend(self.reconcile(row, &set)?);
            findings.extend(self.log_left_here(row));
            let rows = self.catalog()?.points(&row.name).map_err(Failure::from)?;
            let ranges = self.ranges(row, &set, &rows)?;
            let held = self.on_hold(row, &set)?;
            let points = rows.into_iter().map(|row| view(row, &held)).collect();
            reports.push(PointsReport {
                schema: "lifeboat.points/v1",
                store: row.name.clone(),
                points,
                ranges,
                findings,
            });
        }
        Ok(reports)
    }
}

impl Engine {
    /// The moments that can be restored: with a log, from each point as far as it goes in a copy; else each point's own.
    fn ranges(&self, row: &Store, set: &VaultSet, rows: &[PointRow]) -> Result<Vec<RangeView>, EngineError> {
        let usable: Vec<&PointRow> = rows.iter().filter(|row| row.usable()).collect();
        // Points that lead to the same end are one range, from the oldest of them on.
        let mut merged: BTreeMap<Position, RangeView> = BTreeMap::new();
        let adapter = self.adapter(row).ok();
        for entry in adapter.iter().flat_map(|_| &set.open) {
            let reaches = match &adapter {
                Some(adapter) => self.reaches(row, adapter.as_ref(), entry, &usable)?,
                None => None,
            };
            let Some(reaches) = reaches else { return Ok(ranges(rows)) };
            for Reach { from, to, end, gap_after, .. } in reaches {
                let timeline = Some(end.timeline);
                let known = merged.entry(end).or_insert_with(|| RangeView {
                    from,
                    to,
                    timeline,
                    gap_after,
                    copies: Vec::new(),
                });
                known.from = known.from.min(from);
                known.to = known.to.max(to);
                let copy = entry.copy.as_str();
                if known.copies.iter().all(|known| known != copy) {
                    known.copies.push(copy.to_owned());
                }
            }
        }
        if merged.is_empty() { Ok(ranges(rows)) } else { Ok(merged.into_values().collect()) }
    }
}

fn view(row: PointRow, held: &Held) -> PointView {
    let once = |level| (level, row.once_proven(level).map(|proof| proof.at));
    let proof = ProofLevel::ALL.into_iter().map(once).collect();
    let failed = row.failing().map(|proof| (proof.level, proof.at)).collect();
    let manifest = row.manifest;
    PointView {
        holds: held.of(&manifest.id, manifest.facts.consistency.moment),
        started: manifest.started,
        ended: manifest.ended,
        moment: manifest.facts.consistency.moment,
        consistency: manifest.facts.consistency.level,
        changes: manifest.facts.changes(),
        position: manifest.facts.consistency.position,
        proof,
        failed,
        logical_bytes: manifest.facts.logical_bytes,
        new_bytes: manifest.new_bytes,
        stored_bytes: manifest.stored_bytes,
        unreadable: manifest.facts.unreadable.len(),
        copies: row
            .holdings
            .into_iter()
            .map(|held| CopyView {
                name: held.copy.to_string(),
                snapshot: manifest.snapshot.to_string(),
                locked_until: None,
                damaged: held.damaged,
            })
            .collect(),
        id: manifest.id,
    }
}

/// Without a continuous log every usable point is a range of one moment.
fn ranges(rows: &[PointRow]) -> Vec<RangeView> {
    rows.iter()
        .filter(|row| row.usable())
        .map(|row| {
            let moment = row.manifest.facts.consistency.moment;
            let copies = row.holdings.iter().filter(|held| held.damaged.is_none());
            let copies = copies.map(|held| held.copy.to_string()).collect();
            RangeView { from: moment, to: moment, timeline: None, gap_after: true, copies }
        })
        .collect()
}
