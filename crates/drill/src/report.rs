//! The report of a drill: the stable JSON shape `lifeboat.drill/v1`.

use lifeboat_base::digest::Digest;
use lifeboat_base::ids::{CopyName, DrillId, PlanName, PointId, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_stores::meaning::BOARD;
use lifeboat_stores::{CheckResult, CheckState, Meaning};
use serde::{Deserialize, Serialize};

use crate::application::Answers;
use crate::differ::MustDiffer;
use crate::forecast::Forecast;

/// How a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillVerdict {
    /// Everything that was asked was shown to hold.
    Passed,
    /// Something did not hold, or could not be shown to.
    Failed,
}

/// One step of one store's drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// `open`, `restore`, `check`, `probe`, `log`, `canaries` or `teardown`.
    pub stage: String,
    /// When it started.
    pub started: Timestamp,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Whether it ended well.
    pub ok: bool,
}

/// One check of one store and whether its canary showed that the check can fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// The check, such as `sqlite.rows/orders`.
    pub id: String,
    /// Passed, failed or not applicable.
    pub state: CheckState,
    /// What was found.
    pub measured: String,
    /// What the manifest or the policy asks for.
    pub threshold: String,
    /// The number of differences found.
    pub differences: u64,
    /// The first differences, for people.
    pub detail: Vec<String>,
    /// Whether this run's known-bad input was noticed by the same check; nothing if the canaries could not run.
    pub canary_caught: Option<bool>,
}

impl CheckOutcome {
    /// A check result whose canary has not been judged yet.
    pub(crate) fn from_result(result: CheckResult) -> Self {
        Self {
            id: result.id,
            state: result.state,
            measured: result.measured,
            threshold: result.expected,
            differences: result.differences,
            detail: result.detail,
            canary_caught: None,
        }
    }

    /// Passed, and seen to fail on this run's known-bad input: only such a check has shown that something holds.
    pub fn has_shown(&self) -> bool {
        self.state == CheckState::Passed && self.canary_caught == Some(true)
    }

    /// The family of the check: `sqlite.rows` for `sqlite.rows/orders`.
    pub(crate) fn family(&self) -> &str {
        self.id.split_once('/').map_or(self.id.as_str(), |(family, _rest)| family)
    }
}

/// How checks went, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Those that passed.
    pub passed: usize,
    /// Those whose known-bad input was noticed.
    pub powered: usize,
}

impl Tally {
    /// Counts them.
    pub fn of(checks: &[CheckOutcome]) -> Self {
        let count = |holds: fn(&CheckOutcome) -> bool| checks.iter().filter(|check| holds(check)).count();
        Self {
            passed: count(|check| check.state == CheckState::Passed),
            powered: count(|check| check.canary_caught == Some(true)),
        }
    }
}

impl DrillVerdict {
    /// The stable word used in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
        }
    }
}

/// The drill of one store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreDrill {
    /// The store.
    pub name: StoreName,
    /// The recovery point restored.
    pub point: PointId,
    /// The copy it came from.
    pub copy: CopyName,
    /// The moment it shows.
    pub shows: Timestamp,
    /// Seconds from there to the moment all stores are restored to; nothing in a drill of one store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_s: Option<f64>,
    /// What happened when.
    pub stages: Vec<StageReport>,
    /// Seconds from the start until the restored store had passed its checks; nothing if it never did.
    pub rto_s: Option<f64>,
    /// The promise of the row in seconds, if it has one.
    pub rto_target_s: Option<f64>,
    /// What earlier drills foretold of it; nothing from fewer than three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// Seconds from the start of the drill until the same, with everything that came back before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_s: Option<f64>,
    /// Seconds of writes that would be lost: from the newest moment it can be restored to, to the moment of the drill.
    pub rpo_s: f64,
    /// The promise of the row in seconds, if it has one.
    pub rpo_target_s: Option<f64>,
    /// Bytes restored.
    pub bytes: u64,
    /// Every check.
    pub checks: Vec<CheckOutcome>,
    /// What it means, and what to do with it; only of kinds that can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<Meaning>,
    /// The verdict on this store.
    pub verdict: DrillVerdict,
}

impl StoreDrill {
    /// Whether the store was asked what it means: nothing where it was not, else whether it passed a board that was seen to
    /// fail on spoiled samples.
    pub fn has_meaning(&self) -> Option<bool> {
        let board = self.checks.iter().find(|check| check.id == BOARD);
        let board = board.filter(|check| check.state != CheckState::NotApplicable)?;
        Some(board.has_shown() && self.rto_s.is_some())
    }
}

/// Making again one store that is not retained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayDrill {
    /// The store.
    pub name: StoreName,
    /// Seconds until it was there again; nothing if it never was.
    pub rto_s: Option<f64>,
    /// The promise of the row in seconds, if it has one.
    pub rto_target_s: Option<f64>,
    /// Every check.
    pub checks: Vec<CheckOutcome>,
    /// The verdict on this store.
    pub verdict: DrillVerdict,
}

/// When everything of one tier was back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierDrill {
    /// The tier.
    pub tier: String,
    /// Its stores in this drill.
    pub stores: Vec<StoreName>,
    /// Seconds from the start of the drill until the last of them was back and checked, with everything that came back
    /// before it; nothing if one never was.
    pub ready_s: Option<f64>,
}

/// Where a drill ran, and by which policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The program and its version.
    pub tool: String,
    /// The operating system and the processor's kind, such as `linux x86_64`.
    pub platform: String,
    /// Processors that can be used at once.
    pub processors: usize,
    /// Whether throwaway servers get a network of their own here, in which there is nothing else; nothing in reports older
    /// than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers_alone: Option<bool>,
    /// The time zone of the policy.
    pub timezone: String,
    /// SHA-256 of the policy file.
    pub policy: Digest,
}

/// One line of what happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// What, in words for people.
    pub text: String,
}

/// The whole drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    /// `lifeboat.drill/v1`.
    pub schema: String,
    /// Its identity.
    pub id: DrillId,
    /// The plan of the policy it was run for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanName>,
    /// The moment of the imagined disaster.
    pub moment: Timestamp,
    /// The moment all stores were restored to, where there were several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_moment: Option<Timestamp>,
    /// The stores in the order in which they came back, those side by side together.
    #[serde(default)]
    pub order: Vec<Vec<StoreName>>,
    /// When it ended.
    pub ended: Timestamp,
    /// Each store; not in the evidence of the drill as a whole, which names the records they stand in.
    #[serde(default)]
    pub stores: Vec<StoreDrill>,
    /// Each tier whose stores took part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<TierDrill>,
    /// Stores that are not retained and were made again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replays: Vec<ReplayDrill>,
    /// Agreement between stores; empty without rules between the stores of the drill.
    pub agreement: Vec<CheckOutcome>,
    /// What applications answered over HTTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answers>,
    /// Whether later drills are compared with these answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub baseline: bool,
    /// Passed only if every store passed, all rules hold, and the sandbox is gone.
    pub verdict: DrillVerdict,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// The kind of place it restored to, such as `local`; nothing in reports older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Where it ran; nothing in reports older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// What of production was looked for in the target; nothing in reports older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub must_differ: Option<MustDiffer>,
    /// What happened, line by line; the first of them if there were too many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// The numbers of the evidence records of its stores, once they are filed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<u64>,
    /// The record of the evidence chain, once it is filed.
    pub evidence: Option<String>,
}

impl DrillReport {
    /// The schema this code writes.
    pub const SCHEMA: &str = "lifeboat.drill/v1";
}
