//! A point as the proof of the log that leads to it: an older point and the log up to this one's place must give what this
//! one captured.
//!
//! In: a row, its adapter, the copies that are open. Out: the newest pair of points that a copy's log connects, and the checks
//! of what comes of it in an empty folder.

use std::cmp::Reverse;
use std::path::Path;

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::CopyName;
use lifeboat_base::monitor::Monitor;
use lifeboat_catalog::PointRow;
use lifeboat_policy::Store;
use lifeboat_stores::{Adapter, CheckResult, Continuous, Goal};
use lifeboat_vault::PointManifest;

use super::plan::Replay;
use super::ranges::Reach;
use crate::context::Engine;
use crate::copies::{CopyVault, VaultSet};
use crate::error::EngineError;

/// Two points and the log between them.
pub(crate) struct Between {
    older: PointManifest,
    newer: PointManifest,
    replay: Replay,
}

impl Engine {
    /// The newest point of a store whose points can prove its log, and the nearest one before it; nothing where no copy has
    /// two with the log between them.
    pub(crate) fn between(
        &self,
        row: &Store,
        adapter: &dyn Adapter,
        set: &VaultSet,
        only: Option<&CopyName>,
    ) -> Result<Option<Between>, EngineError> {
        if !adapter.continuous().is_some_and(Continuous::is_provable) {
            return Ok(None);
        }
        let view = self.view(row)?;
        let points: Vec<&PointRow> = view.points.iter().filter(|point| point.usable()).collect();
        for entry in set.open.iter().filter(|entry| only.is_none_or(|only| entry.copy == *only)) {
            let held = |point: &&&PointRow| {
                point.holdings.iter().any(|held| held.copy == entry.copy && held.damaged.is_none())
            };
            let here: Vec<&PointRow> = points.iter().filter(held).copied().collect();
            let Some(reaches) = self.reaches(row, adapter, entry, &here)? else { return Ok(None) };
            if let Some((older, newer)) = pair(&reaches) {
                return Ok(between(entry, &here, older, newer));
            }
        }
        Ok(None)
    }

    /// Restores the older point into `scratch`, goes on to the place of the newer one, and compares.
    pub(crate) fn prove_log(
        &self,
        row: &Store,
        between: &Between,
        scratch: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        let set = self.open_vaults(row).map_err(|error| error.failure)?;
        let entry = set.get(&between.replay.copy).ok_or_else(|| {
            Failure::new(FailureKind::Unreachable, format!("copy `{}` went away", between.replay.copy))
        })?;
        let adapter = || self.adapter(row).map_err(|error| error.failure);
        let replaying = self.replaying(row, adapter()?, entry, &between.replay)?;
        let reader = entry.vault.open_point(&between.older)?;
        replaying.restore(&reader, &between.older.facts, scratch, monitor)?;
        match adapter()?.continuous() {
            Some(store) => store.arrived(scratch, &between.newer.facts, monitor),
            None => Ok(Vec::new()),
        }
    }
}

/// The newest point that the log of another one passes, and the nearest such one.
fn pair(reaches: &[Reach]) -> Option<(&Reach, &Reach)> {
    let mut newest: Vec<&Reach> = reaches.iter().collect();
    newest.sort_by_key(|reach| Reverse((reach.from, reach.base_end)));
    newest.iter().find_map(|newer| {
        let leads = |older: &&&Reach| {
            older.point != newer.point && older.end == newer.end && older.base_end < newer.base_end
        };
        let older = newest.iter().filter(leads).max_by_key(|older| (older.base_end, older.from))?;
        Some((*older, *newer))
    })
}

fn between(entry: &CopyVault, points: &[&PointRow], older: &Reach, newer: &Reach) -> Option<Between> {
    let manifest = |reach: &Reach| {
        points.iter().find(|point| point.manifest.id == reach.point).map(|point| point.manifest.clone())
    };
    let replay = Replay {
        goal: Goal::Position(newer.base_end.offset),
        from: older.base_end,
        to: older.end,
        moment: newer.from,
        copy: entry.copy.clone(),
        cut: false,
    };
    Some(Between { older: manifest(older)?, newer: manifest(newer)?, replay })
}
