//! The recovery points of a row as they can be relied on now: not only what the catalog knows, but what follows from it.
//!
//! A point counts only in the copies the row names today, only if it was captured as the kind the row has today, and
//! not where damage was met that no later verification has cleared.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::Failure;
use lifeboat_base::ids::{CopyName, StoreName};
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{Catalog, PointRow, ProofLevel};
use lifeboat_policy::{Policy, Source, Store};
use serde_json::Value;

use crate::context::Engine;
use crate::error::EngineError;

/// A moment this far ahead comes from a wrong clock, not from a clock that differs a little.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(120);

/// Whether a moment lies in the future, as far as this machine's clock can be believed.
pub(crate) fn in_future(moment: Timestamp, now: Timestamp) -> bool {
    now.checked_add(CLOCK_TOLERANCE).is_ok_and(|limit| moment > limit)
}

/// What a row captures: changes when its kind or its place does.
pub(crate) fn source_digest(row: &Store) -> Digest {
    Digest::of(format!("{:?} {}", row.kind, place(row)).as_bytes())
}

/// Where a row's store is. A new certificate or password does not make it another store.
fn place(row: &Store) -> String {
    match &row.source {
        Source::Etcd { url, .. } => format!("{url:?}"),
        source => format!("{source:?}"),
    }
}

/// What a drill of a row proves: changes when its kind, its place or its checks do.
pub(crate) fn drill_digest(row: &Store) -> Digest {
    Digest::of(format!("{:?} {} {:?}", row.kind, place(row), row.checks).as_bytes())
}

/// What a row and others must say of each other, and what applications must be able to do on them, by the names of the rules: each
/// changes when its rule does, or one of its stores.
pub(crate) fn rules_digests(policy: &Policy, store: &StoreName) -> BTreeMap<String, Digest> {
    let row = |store: &StoreName| policy.stores.get(store).map(drill_digest);
    let own =
        policy.agreements.iter().filter(|(_, rule)| rule.left.store == *store || rule.right.store == *store);
    let rules = own.map(|(name, rule)| {
        let rows = [&rule.left.store, &rule.right.store].map(row);
        let said = (&rule.left, &rule.right, rule.expect, rule.within, rows);
        (name.to_string(), Digest::of(format!("{said:?}").as_bytes()))
    });
    let own = policy.applications.iter().filter(|(_, application)| application.stores.contains(store));
    let applications = own.map(|(name, application)| {
        let rows: Vec<_> = application.stores.iter().map(row).collect();
        let said = (
            &application.stores,
            &application.command,
            application.within,
            application.network,
            rows,
            &application.http,
        );
        (name.to_string(), Digest::of(format!("{said:?}").as_bytes()))
    });
    rules.chain(applications).collect()
}

/// The points of a row.
pub(crate) struct View {
    /// Those that can count, oldest moment first.
    pub(crate) points: Vec<PointRow>,
    /// The kind other points were captured as.
    pub(crate) other_kind: Option<String>,
    /// Points the evidence chain records and no copy lists.
    pub(crate) lost: Vec<String>,
}

impl Engine {
    /// The points of a row as they can be relied on now, without touching a copy.
    pub(crate) fn view(&self, row: &Store) -> Result<View, EngineError> {
        let catalog = self.catalog()?;
        let mut points = catalog.points(&row.name).map_err(Failure::from)?;
        let other_kind =
            points.iter().map(|point| &point.manifest.kind).find(|kind| *kind != row.kind.word()).cloned();
        points.retain(|point| point.manifest.kind == row.kind.word());
        for point in &mut points {
            point.holdings.retain(|held| row.copies.value.contains(&held.copy));
        }
        for copy in &row.copies.value {
            if let Some((since, why)) = suspicion(catalog, row, copy)? {
                suspect(&mut points, copy, since, &why);
            }
        }
        let lost = catalog.lost_points(&row.name).map_err(Failure::from)?;
        Ok(View { points, other_kind, lost })
    }
}

/// The newest record that speaks against a copy and no clean verification has answered.
fn suspicion(catalog: &Catalog, row: &Store, copy: &CopyName) -> Result<Option<(u64, String)>, EngineError> {
    let verified = catalog.last_run_in(&row.name, "verify", copy).map_err(Failure::from)?;
    let cleared = verified.as_ref().filter(|run| run.ok && level(&run.body) == Some(ProofLevel::Readable));
    let healed = catalog.last_run_in(&row.name, "heal", copy).map_err(Failure::from)?;
    let healed = healed.map_or(0, |run| run.evidence);
    let cleared = cleared.map_or(0, |run| run.evidence).max(healed);
    let backup = catalog.last_damage_met(&row.name).map_err(Failure::from)?;
    let failed = verified
        .filter(|run| !run.ok && run.evidence > healed && opened(&run.body))
        .map(|run| (run.evidence, format!("the last verification of `{copy}` found damage")));
    let met = backup
        .filter(|run| run.evidence > cleared)
        .map(|run| (run.evidence, "a backup met damage that no verification has cleared".to_owned()));
    Ok(failed.into_iter().chain(met).max_by_key(|(seq, _why)| *seq))
}

/// Whether a verification read the vault. One that could not open it speaks of a key or a mount, and marks the points
/// it misses one by one.
fn opened(body: &Value) -> bool {
    body.get("vault").is_some_and(Value::is_string)
}

fn level(body: &Value) -> Option<ProofLevel> {
    body.get("level").and_then(Value::as_str)?.parse().ok()
}

/// Marks every point in `copy` that nothing has proven there at or after record `since`.
fn suspect(points: &mut [PointRow], copy: &CopyName, since: u64, why: &str) {
    for point in points {
        let proven = point.standing().any(|proof| {
            proof.copy == *copy && proof.evidence >= since && proof.level >= ProofLevel::Checksummed
        });
        let held = point.holdings.iter_mut().find(|held| held.copy == *copy && held.damaged.is_none());
        if let Some(held) = held.filter(|_held| !proven) {
            held.damaged = Some(why.to_owned());
        }
    }
}
