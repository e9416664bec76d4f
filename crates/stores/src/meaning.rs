//! Whether a restored store still means what it meant, for kinds that can be asked that: vector indexes.
//!
//! In: a restored store and what its point says of it. Out: a board of questions, what it came to against an earlier one, and
//! what to do before the store may serve. Nothing here passes for want of questions.

use std::path::Path;

use lifeboat_base::capture::{CaptureFacts, RestoreSource};
use lifeboat_base::failure::Failure;
use lifeboat_base::monitor::Monitor;
pub use lifeboat_probe::{Band, Lambda, share};
use lifeboat_probe::{BoardRow, Decision, Drift, Verdict};
use serde::{Deserialize, Serialize};

use crate::adapter::{CanaryResult, CheckResult};

/// The check that a board passed.
pub const BOARD: &str = "vector.board";

/// A probe that did badly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorstProbe {
    /// The probe.
    pub probe_id: String,
    /// Its question.
    pub question: String,
    /// The section that answers it.
    pub expected_section: String,
    /// ΔS between question and rank-1 snippet.
    pub ds: f64,
    /// Which share of the answer was retrieved.
    pub coverage: f64,
    /// Its state, as a sign.
    pub lambda: String,
    /// What its rank-1 snippets cite.
    pub citations: Vec<String>,
}

impl WorstProbe {
    /// What a row of a board says.
    pub fn of(row: &BoardRow) -> Self {
        Self {
            probe_id: row.probe_id.clone(),
            question: row.question.clone(),
            expected_section: row.expected_section.clone(),
            ds: lifeboat_probe::rounded(row.ds_q_r),
            coverage: lifeboat_probe::rounded(row.coverage),
            lambda: row.lambda_state.sign().to_owned(),
            citations: row.citations.clone(),
        }
    }
}

/// What a store means after a restore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meaning {
    /// Why no board was measured; nothing where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_probed: Option<String>,
    /// What the board came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<Verdict>,
    /// How it differs from the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// Why it was not compared; nothing where it was, or where there is no board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
    /// The probes that did worst.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worst: Vec<WorstProbe>,
    /// What to do before the store may serve, and why.
    pub decision: Decision,
}

impl Meaning {
    /// The decision with its reasons, in words.
    pub fn decided(&self) -> String {
        let reasons = self.decision.reasons.iter().map(|reason| {
            let short = |text: &str| text.chars().take(80).collect::<String>();
            format!("{}: expected {}, found {}", reason.field, short(&reason.expected), short(&reason.found))
        });
        let reasons: Vec<String> = reasons.collect();
        let action = self.decision.action.word().replace('_', " ");
        if reasons.is_empty() { action } else { format!("{action} ({})", reasons.join("; ")) }
    }

    /// What was measured, in words.
    pub fn said(&self) -> String {
        let Some(verdict) = &self.board else {
            let why = self.not_probed.as_deref().unwrap_or("nobody asked");
            return format!("meaning was not probed: {why}");
        };
        let compared = match (&self.drift, &self.not_compared) {
            (Some(drift), _) => format!(
                "against the baseline: \u{394}S {:+.4}, coverage {:+.4}",
                drift.ds_mean, drift.coverage_mean
            ),
            (None, Some(why)) => why.clone(),
            (None, None) => "not compared with a baseline".to_owned(),
        };
        format!(
            "{} of {} probes: \u{394}S {:.4}, coverage {:.4} ({:.4} of them covered), \u{3bb} {:.4}; {compared}",
            verdict.verdict.word(),
            verdict.n,
            verdict.ds.median,
            verdict.coverage.median,
            verdict.coverage.pass_rate,
            verdict.lambda.conv_rate,
        )
    }
}

/// A kind whose stores are asked what they mean.
pub trait Probes {
    /// Asks the restored store, and decides what to do with it. The check is [`BOARD`]; it is not applicable where the row
    /// names no questions.
    fn probe(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<(CheckResult, Meaning), Failure>;

    /// Shows the same code a sound sample and damaged ones.
    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure>;
}
