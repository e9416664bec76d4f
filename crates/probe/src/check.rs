//! Checks in the shape of the catalogue: an id, what was measured, what was asked for, and whether it holds.
//!
//! In: boards, drift, identity, reports of vectors. Out: one record per check. What could not be measured is unproven, and
//! unproven counts as failed.

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::board::Board;
use crate::canonical::canonical_json;
use crate::decision::Identity;
use crate::drift::Drift;
use crate::manifest::Difference;
use crate::profile::Profile;

/// Of what a check speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A store.
    Store,
    /// A region.
    Region,
    /// A route.
    Route,
    /// An index.
    Index,
}

/// What was measured; never a sentence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasuredValue {
    /// A number.
    Number(f64),
    /// Names.
    Set(Vec<String>),
    /// Fields that differ.
    Diff(Vec<Difference>),
}

/// Whether a check holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
    /// Nobody could tell; counted as failed.
    Unproven,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The id in the catalogue, such as `SEM-1`.
    pub check_id: String,
    /// Of what it speaks.
    pub scope: Scope,
    /// The hash of what it was computed from.
    pub inputs_hash: Digest,
    /// What was measured; none when nothing could be.
    pub measured: Option<MeasuredValue>,
    /// What was asked for.
    pub threshold: String,
    /// Whether it holds.
    pub state: CheckState,
    /// Files that show it.
    pub evidence: Vec<String>,
    /// The moment, RFC 3339 in UTC.
    pub ts: String,
    /// The numbers it was judged by.
    pub profile_hash: Digest,
}

impl CheckResult {
    /// Whether it counts as held.
    pub fn pass(&self) -> bool {
        self.state == CheckState::Passed
    }
}

/// What all checks of one measurement share.
#[derive(Clone, Debug)]
pub struct CheckContext<'a> {
    /// The moment, RFC 3339 in UTC.
    pub ts: &'a str,
    /// Files that show what was measured.
    pub evidence: &'a [String],
    /// The numbers to judge by.
    pub profile: &'a Profile,
}

impl CheckContext<'_> {
    fn result(
        &self,
        id: &str,
        inputs: &impl Serialize,
        measured: Option<MeasuredValue>,
        threshold: String,
        holds: bool,
    ) -> Result<CheckResult, ProbeError> {
        let state = match (&measured, holds) {
            (None, _) => CheckState::Unproven,
            (Some(MeasuredValue::Number(value)), _) if !value.is_finite() => CheckState::Failed,
            (Some(_), true) => CheckState::Passed,
            (Some(_), false) => CheckState::Failed,
        };
        Ok(CheckResult {
            check_id: id.to_owned(),
            scope: Scope::Index,
            inputs_hash: Digest::of(canonical_json(inputs)?.as_bytes()),
            measured,
            threshold,
            state,
            evidence: self.evidence.to_vec(),
            ts: self.ts.to_owned(),
            profile_hash: self.profile.hash()?,
        })
    }
}

/// SEM-1 to SEM-3: the board. Without one, or with one that is invalid, none of them is proven.
pub fn board_checks(
    board: Option<&Board>,
    context: &CheckContext<'_>,
) -> Result<Vec<CheckResult>, ProbeError> {
    let profile = context.profile;
    let judged = board.filter(|board| board.verdict.verdict != crate::BoardVerdict::Invalid);
    let inputs = board.map(|board| &board.runs);
    let number = |of: fn(&Board) -> f64| judged.map(of).map(MeasuredValue::Number);
    let failed: Vec<crate::GateName> =
        judged.iter().flat_map(|board| &board.verdict.failed_gates).map(|gate| gate.name).collect();
    let holds = |name| !failed.contains(&name);
    let covered = holds(crate::GateName::Coverage) && holds(crate::GateName::CoveragePassRate);
    Ok(vec![
        context.result(
            "SEM-1",
            &inputs,
            number(|board| board.verdict.ds.median),
            format!("median <= {:.4}", profile.ds_median_max),
            holds(crate::GateName::Stress),
        )?,
        context.result(
            "SEM-2",
            &inputs,
            number(|board| board.verdict.coverage.pass_rate),
            format!("median >= {:.4}, share >= {:.4}", profile.coverage_min, profile.coverage_pass_rate_min),
            covered,
        )?,
        context.result(
            "SEM-3",
            &inputs,
            number(|board| board.verdict.lambda.conv_rate),
            format!(
                "conv >= {:.4}, \u{d7} <= {:.4}, <> <= {:.4}",
                profile.lambda_conv_rate_min, profile.lambda_chaos_max, profile.lambda_split_max
            ),
            holds(crate::GateName::Lambda),
        )?,
    ])
}

/// SEM-4: drift of the means.
pub fn drift_check(drift: Option<&Drift>, context: &CheckContext<'_>) -> Result<CheckResult, ProbeError> {
    let measured = drift.map(|drift| MeasuredValue::Number(drift.ds_mean));
    let threshold = format!("+- {:.4}", context.profile.region_drift_max);
    context.result("SEM-4", &drift, measured, threshold, drift.is_some_and(|drift| drift.within_regions))
}

/// IDX-1 and IDX-3: fields of the manifest and the vectors. `None` stands for an index that nobody looked at.
pub fn identity_checks(
    identity: Option<&Identity>,
    context: &CheckContext<'_>,
) -> Result<Vec<CheckResult>, ProbeError> {
    let readable = identity.filter(|identity| identity.manifest_fault.is_none());
    let differences = readable.map(|identity| identity.differences.clone());
    let faults: Option<Vec<String>> = identity
        .map(|identity| identity.vector_faults.iter().map(|fault| fault.field().to_owned()).collect());
    let is_same = differences.as_ref().is_some_and(Vec::is_empty);
    let is_sound = faults.as_ref().is_some_and(Vec::is_empty);
    let (diff, set) = (differences.clone().map(MeasuredValue::Diff), faults.clone().map(MeasuredValue::Set));
    Ok(vec![
        context.result("IDX-1", &differences, diff, "no difference".to_owned(), is_same)?,
        context.result("IDX-3", &faults, set, "no fault".to_owned(), is_sound)?,
    ])
}
