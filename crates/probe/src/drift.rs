//! Drift: how a board differs from the baseline that was measured the same way.
//!
//! In: two boards. Out: differences of means, tails and probes, with the bounds they cross. Boards by another embedder, gold
//! set, k or profile are refused, for their difference would say nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::board::Verdict;
use crate::lambda::{Lambda, jaccard};
use crate::profile::Profile;
use crate::row::{BoardRow, short};

/// A rise of the mean of ΔS that is told.
pub const DS_MEAN_ALERT: f64 = 0.05;
/// A rise of the 95th percentile of ΔS that stops everything.
pub const DS_P95_STOP: f64 = 0.15;
/// A fall of the mean of coverage that is told.
pub const COVERAGE_WARN: f64 = 0.05;
/// A fall of the mean of coverage that is critical.
pub const COVERAGE_CRITICAL: f64 = 0.10;
/// A share of paraphrases that flip that is told.
pub const FLIP_ALERT: f64 = 0.10;
/// A share of paraphrases that flip that stops everything.
pub const FLIP_STOP: f64 = 0.20;

/// How grave a drift is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftLevel {
    /// Within bounds.
    None,
    /// Worth a look.
    Warn,
    /// Somebody must act.
    Alert,
    /// Do not go on.
    Stop,
}

/// A bound that was crossed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crossed {
    /// Which number.
    pub field: String,
    /// By how much it changed.
    #[serde(serialize_with = "short")]
    pub change: f64,
    /// The bound.
    pub bound: f64,
    /// How grave.
    pub level: DriftLevel,
}

/// A probe whose numbers changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeDrift {
    /// The probe.
    pub probe_id: String,
    /// Change of ΔS.
    #[serde(serialize_with = "short")]
    pub ds: f64,
    /// Change of coverage.
    #[serde(serialize_with = "short")]
    pub coverage: f64,
    /// Its states, before and after.
    pub lambda: (Lambda, Lambda),
}

/// The difference of two boards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Change of the mean of ΔS.
    #[serde(serialize_with = "short")]
    pub ds_mean: f64,
    /// Change of the 95th percentile of ΔS.
    #[serde(serialize_with = "short")]
    pub ds_p95: f64,
    /// Change of the mean of coverage.
    #[serde(serialize_with = "short")]
    pub coverage_mean: f64,
    /// Whether the means are near enough for two regions of one release.
    pub within_regions: bool,
    /// Bounds that were crossed.
    pub crossed: Vec<Crossed>,
    /// The gravest of them.
    pub level: DriftLevel,
    /// Probes that changed, those that got worse by most first.
    pub probes: Vec<ProbeDrift>,
}

/// Compares a board with its baseline. The index may differ, everything it was measured with may not.
pub fn drift(
    before: (&[BoardRow], &Verdict),
    after: (&[BoardRow], &Verdict),
    profile: &Profile,
) -> Result<Drift, ProbeError> {
    comparable(before, after)?;
    let (one, two) = (before.1, after.1);
    let ds_mean = two.ds.mean - one.ds.mean;
    let ds_p95 = two.ds.p95 - one.ds.p95;
    let coverage_mean = two.coverage.mean - one.coverage.mean;
    let crossed = crossed(ds_mean, ds_p95, coverage_mean, two.lambda.flip_rate);
    Ok(Drift {
        ds_mean,
        ds_p95,
        coverage_mean,
        within_regions: ds_mean.abs() <= profile.region_drift_max,
        level: crossed.iter().map(|crossed| crossed.level).max().unwrap_or(DriftLevel::None),
        crossed,
        probes: changed(before.0, after.0),
    })
}

/// The name of a field, and how to read it.
type Field = (&'static str, fn(&BoardRow) -> String);

fn comparable(before: (&[BoardRow], &Verdict), after: (&[BoardRow], &Verdict)) -> Result<(), ProbeError> {
    let differs = |field, before: String, after: String| {
        if before == after { Ok(()) } else { Err(ProbeError::NotComparable { field, before, after }) }
    };
    differs("profile_hash", before.1.profile_hash.to_string(), after.1.profile_hash.to_string())?;
    let numbers = [before.1.ds.mean, before.1.ds.p95, before.1.coverage.mean, before.1.lambda.flip_rate];
    let others = [after.1.ds.mean, after.1.ds.p95, after.1.coverage.mean, after.1.lambda.flip_rate];
    for number in numbers.into_iter().chain(others) {
        crate::number::finite("a number of a board", number)?;
    }
    let values = |rows: &[BoardRow], of: fn(&BoardRow) -> String| {
        let all: BTreeSet<String> = rows.iter().map(of).collect();
        all.into_iter().collect::<Vec<_>>().join(", ")
    };
    let same: [Field; 5] = [
        ("embedder_id", |row| row.embedder_id.clone()),
        ("embedder_hash", |row| row.embedder_hash.to_string()),
        ("gold_version", |row| row.gold_version.to_string()),
        ("k", |row| row.k.to_string()),
        ("the list of probes", |row| row.probe_id.clone()),
    ];
    same.into_iter().try_for_each(|(field, of)| differs(field, values(before.0, of), values(after.0, of)))
}

fn crossed(ds_mean: f64, ds_p95: f64, coverage_mean: f64, flip_rate: f64) -> Vec<Crossed> {
    let fall = -coverage_mean;
    let bounds = [
        ("ds_mean", ds_mean, ds_mean > DS_MEAN_ALERT, DS_MEAN_ALERT, DriftLevel::Alert),
        ("ds_p95", ds_p95, ds_p95 > DS_P95_STOP, DS_P95_STOP, DriftLevel::Stop),
        ("coverage_mean", coverage_mean, fall > COVERAGE_CRITICAL, -COVERAGE_CRITICAL, DriftLevel::Alert),
        ("coverage_mean", coverage_mean, fall > COVERAGE_WARN, -COVERAGE_WARN, DriftLevel::Warn),
        ("flip_rate", flip_rate, flip_rate > FLIP_STOP, FLIP_STOP, DriftLevel::Stop),
        ("flip_rate", flip_rate, flip_rate >= FLIP_ALERT, FLIP_ALERT, DriftLevel::Alert),
    ];
    let mut list: Vec<Crossed> = Vec::new();
    for (field, change, is_crossed, bound, level) in bounds {
        if is_crossed && !list.iter().any(|other| other.field == field) {
            list.push(Crossed { field: field.to_owned(), change, bound, level });
        }
    }
    list
}

fn changed(before: &[BoardRow], after: &[BoardRow]) -> Vec<ProbeDrift> {
    let before: BTreeMap<&str, &BoardRow> = before.iter().map(|row| (row.probe_id.as_str(), row)).collect();
    let mut probes: Vec<ProbeDrift> = Vec::new();
    for row in after {
        let Some(old) = before.get(row.probe_id.as_str()) else { continue };
        let (ds, coverage) = (row.ds_q_r - old.ds_q_r, row.coverage - old.coverage);
        if ds != 0.0 || coverage != 0.0 || old.lambda_state != row.lambda_state {
            let lambda = (old.lambda_state, row.lambda_state);
            probes.push(ProbeDrift { probe_id: row.probe_id.clone(), ds, coverage, lambda });
        }
    }
    let worse = |drift: &ProbeDrift| drift.ds - drift.coverage;
    probes.sort_by(|a, b| worse(b).total_cmp(&worse(a)).then_with(|| a.probe_id.cmp(&b.probe_id)));
    probes
}

/// Of the queries asked of two shards or regions, those whose top-k have too little in common.
pub fn parity<'a>(
    answers: impl IntoIterator<Item = (&'a str, &'a [String], &'a [String])>,
    profile: &Profile,
) -> Vec<(String, f64)> {
    let mut apart = Vec::new();
    for (query, one, other) in answers {
        let (one, other): (BTreeSet<_>, BTreeSet<_>) = (one.iter().collect(), other.iter().collect());
        let overlap = jaccard(&one, &other);
        if overlap < profile.jaccard_min {
            apart.push((query.to_owned(), overlap));
        }
    }
    apart
}
