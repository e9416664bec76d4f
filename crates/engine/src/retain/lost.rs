//! What the copies lost of their own word: holds and records of removals that were filed and that no copy shows any more.
//!
//! The evidence chain knows of both. A hold is in force whether a copy has it or not, and is written back; what a lost record
//! named is recorded again, so that no copy that comes back brings it back.

use std::collections::BTreeSet;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::PointId;
use lifeboat_base::monitor::Finding;
use lifeboat_policy::Store;
use lifeboat_vault::retire::{DroppedPoint, Filed, LogFloor, Retired};
use lifeboat_vault::storage::ObjectName;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::plan::MAX_POINTS;
use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::EngineError;

/// What was filed of removals, and which records of them are gone.
pub(super) struct Lost {
    pub(super) filed: Filed,
    /// Records that are replaced once everything they said is recorded again.
    pub(super) replaces: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

impl Engine {
    /// What the chain knows of a row's removals, and what no copy knows any more.
    pub(super) fn lost(&self, row: &Store, set: &VaultSet) -> Result<Lost, EngineError> {
        let catalog = self.catalog()?;
        let said = |kind: &str, path: &str| catalog.said(&row.name, kind, path).map_err(Failure::from);
        let seq = said("retain", "$.records")?.iter().filter_map(Value::as_u64).max().unwrap_or(0);
        let filed = Filed { holds: self.filed_holds(row)?, seq, ..Filed::default() };
        let mut lost = Lost { filed, replaces: Vec::new(), findings: Vec::new() };
        let mut retired: Vec<Retired> = Vec::new();
        let mut damaged: BTreeSet<ObjectName> = BTreeSet::new();
        let mut good: BTreeSet<String> = BTreeSet::new();
        for entry in &set.open {
            let own = entry.vault.retired().map_err(Failure::from)?;
            good.extend(own.names().iter().map(|name| name.base_name().to_owned()));
            damaged.extend(entry.vault.damaged_records().map_err(Failure::from)?);
            retired.push(own);
        }
        damaged.retain(|name| !good.contains(name.base_name()));
        let replaced = strings(said("retain", "$.replaced")?);
        let gone: Vec<String> = strings(said("retain", "$.recorded")?)
            .into_iter()
            .filter(|name| !good.contains(name) && !replaced.contains(name))
            .collect();
        // One that is not here may lie in a copy that is away: unknown is not absent.
        let all = set.open.len() == row.copies.value.len();
        for name in damaged.iter().filter(|name| !gone.iter().any(|gone| gone == name.base_name())) {
            let message = format!(
                "`{name}` is damaged in every copy, and what it took out is not known: it may be listed again"
            );
            lost.findings.push(
                Finding::new("record-damaged", name.to_string(), message).with_kind(FailureKind::Damaged),
            );
        }
        if gone.is_empty() || !all {
            return Ok(lost);
        }
        let message = format!(
            "{} records of what was taken out of `{}` are in no copy, or damaged in all: what they named is recorded again",
            gone.len(),
            row.name
        );
        lost.findings
            .push(Finding::new("record-lost", row.name.as_str(), message).with_kind(FailureKind::Damaged));
        let dropped = strings(said("retain", "$.dropped")?);
        let mut named: BTreeSet<PointId> = BTreeSet::new();
        let mut points = parsed::<DroppedPoint>(said("retain-intent", "$.points")?);
        points.retain(|point| {
            let recorded = retired.iter().any(|retired| retired.point(&point.id).is_some());
            dropped.contains(point.id.as_str()) && !recorded && named.insert(point.id.clone())
        });
        if points.len() <= MAX_POINTS {
            lost.filed.replaced =
                damaged.into_iter().filter(|name| gone.iter().any(|gone| gone == name.base_name())).collect();
            lost.replaces = gone;
        }
        points.truncate(MAX_POINTS);
        lost.filed.points = points;
        lost.filed.logs = parsed::<LogFloor>(said("retain", "$.floors")?);
        Ok(lost)
    }

    /// Records of removals that no copy shows any more.
    pub(crate) fn lost_records(&self, row: &Store, set: &VaultSet) -> Result<Vec<Finding>, EngineError> {
        Ok(self.lost(row, set)?.findings)
    }

    /// Holds that copies lack, or hold damaged.
    pub(crate) fn lacking_holds(&self, row: &Store, set: &VaultSet) -> Result<Vec<Finding>, EngineError> {
        let (holds, copies) = self.gather(row, set)?;
        let mut findings = Vec::new();
        for (copy, known) in copies {
            let vault = set.get(&copy).map(|entry| entry.vault.vault_id());
            // One that was placed in a vault that is no more is kept by what was filed of it.
            let own = holds.active().filter(|hold| Some(&hold.vault) == vault);
            for hold in own.filter(|hold| !known.contains(&hold.id)) {
                let message = format!(
                    "copy `{copy}` does not have {} of `{}`, or holds it damaged; `lifeboat retain --apply {}` writes it again",
                    hold.id, row.name, row.name
                );
                let finding = Finding::new("hold-missing", copy.as_str(), message);
                findings.push(finding.with_kind(FailureKind::Damaged));
            }
        }
        Ok(findings)
    }

    /// Writes them back, from the other copies and from what was filed.
    pub(super) fn mend_holds(&self, row: &Store, set: &VaultSet) -> Result<Vec<Finding>, EngineError> {
        let (holds, _copies) = self.gather(row, set)?;
        let mut findings = Vec::new();
        for entry in &set.open {
            match entry.vault.mend_holds(&holds) {
                Ok(mended) if mended.is_empty() => {}
                Ok(mended) => {
                    let ids: Vec<String> = mended.iter().map(ToString::to_string).collect();
                    let message =
                        format!("copy `{}` had lost {} and has it again", entry.copy, ids.join(", "));
                    findings.push(Finding::new("hold-mended", entry.copy.as_str(), message));
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    let message =
                        format!("copy `{}` does not have every hold: {}", entry.copy, failure.chain());
                    findings.push(
                        Finding::new("hold-missing", entry.copy.as_str(), message).with_kind(failure.kind()),
                    );
                }
            }
        }
        Ok(findings)
    }
}

fn strings(said: Vec<Value>) -> BTreeSet<String> {
    said.into_iter().filter_map(|said| said.as_str().map(str::to_owned)).collect()
}

fn parsed<T: DeserializeOwned>(said: Vec<Value>) -> Vec<T> {
    said.into_iter().filter_map(|said| serde_json::from_value(said).ok()).collect()
}
