//! A board: all probes of one index at one moment, and the verdict over them.
//!
//! In: measured probes. Out: medians, tails, shares, the gates that failed. A board that cannot be judged is invalid, which
//! is not a pass and not a failure of the index.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::ProbeError;
use crate::lambda::{BoardLambda, Lambda, ProbeLambda};
use crate::measure::Measured;
use crate::number::{Sample, rounded, share};
use crate::profile::Profile;
use crate::row::{BoardRow, RunRow, short, short_option};
use crate::stress::{Band, Flaw};

/// What a board says of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoardVerdict {
    /// Every gate is met.
    Pass,
    /// ΔS lies between its bounds, and everything else is met.
    Review,
    /// A gate is not met.
    Fail,
    /// Nothing can be said.
    Invalid,
}

impl BoardVerdict {
    /// The word in a report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Review => "review",
            Self::Fail => "fail",
            Self::Invalid => "invalid",
        }
    }
}

/// A gate of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateName {
    /// The board can be judged at all.
    Valid,
    /// The median of ΔS.
    Stress,
    /// The median of coverage.
    Coverage,
    /// The share of covered probes.
    CoveragePassRate,
    /// Agreement of the runs.
    Lambda,
    /// Sure and wrong.
    SimilarButWrong,
    /// Met citations; recorded, and a gate where answers are published.
    Citations,
}

impl GateName {
    /// The word in a report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Stress => "ds_median",
            Self::Coverage => "coverage_median",
            Self::CoveragePassRate => "coverage_pass_rate",
            Self::Lambda => "lambda",
            Self::SimilarButWrong => "similar_but_wrong",
            Self::Citations => "citation_match",
        }
    }
}

/// A gate that is not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedGate {
    /// Which.
    pub name: GateName,
    /// What was measured, with four decimals.
    pub measured: String,
    /// What would pass.
    pub threshold: String,
}

/// ΔS over a board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StressSummary {
    /// The median of the probes' medians.
    #[serde(serialize_with = "short")]
    pub median: f64,
    /// Over all runs.
    #[serde(serialize_with = "short")]
    pub mean: f64,
    /// Over all runs.
    #[serde(serialize_with = "short")]
    pub p90: f64,
    /// Over all runs.
    #[serde(serialize_with = "short")]
    pub p95: f64,
    /// Over all runs.
    #[serde(serialize_with = "short")]
    pub max: f64,
    /// The share of runs in each band.
    pub bands: BTreeMap<Band, f64>,
}

/// Coverage over a board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoverageSummary {
    /// The median of the probes' medians; blind alone, for coverage is mostly all or nothing.
    #[serde(serialize_with = "short")]
    pub median: f64,
    /// Over the probes.
    #[serde(serialize_with = "short")]
    pub mean: f64,
    /// Over the probes.
    #[serde(serialize_with = "short")]
    pub p10: f64,
    /// The share of covered probes.
    #[serde(serialize_with = "short")]
    pub pass_rate: f64,
}

/// λ over a board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LambdaSummary {
    /// The share of runs that converge.
    #[serde(serialize_with = "short")]
    pub conv_rate: f64,
    /// How many probes are in each state.
    pub states: BTreeMap<String, u64>,
    /// The share of paraphrases that flip.
    #[serde(serialize_with = "short")]
    pub flip_rate: f64,
}

/// The verdict over a board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// How many probes.
    pub n: u64,
    /// ΔS.
    pub ds: StressSummary,
    /// Coverage.
    pub coverage: CoverageSummary,
    /// λ.
    pub lambda: LambdaSummary,
    /// The share of runs whose rank-1 snippet holds the anchor.
    #[serde(serialize_with = "short")]
    pub citation_match: f64,
    /// The share of probes of which the store is sure and wrong; none without a baseline.
    #[serde(serialize_with = "short_option")]
    pub similar_but_wrong: Option<f64>,
    /// The upper quartile of the store's own rank-1 scores, for the boards after this one.
    #[serde(serialize_with = "short_option")]
    pub score_q3: Option<f64>,
    /// What it comes to.
    pub verdict: BoardVerdict,
    /// Gates that are not met.
    pub failed_gates: Vec<FailedGate>,
    /// What passes and is worth a look.
    pub warnings: Vec<String>,
    /// The numbers it was judged by.
    pub profile_hash: Digest,
}

/// A board with its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    /// Its probes by id.
    pub rows: Vec<BoardRow>,
    /// Every run of them.
    pub runs: Vec<RunRow>,
    /// What they come to.
    pub verdict: Verdict,
}

impl Board {
    /// Judges measured probes, whatever their order; none, or one twice, is refused.
    pub fn of(probes: Vec<Measured>, profile: &Profile) -> Result<Self, ProbeError> {
        let mut probes = probes;
        probes.sort_by(|a, b| a.row.probe_id.cmp(&b.row.probe_id));
        for pair in probes.windows(2) {
            if let [one, next] = pair
                && one.row.probe_id == next.row.probe_id
            {
                let (id, after) = (next.row.probe_id.clone(), one.row.probe_id.clone());
                return Err(ProbeError::Unsorted { id, after });
            }
        }
        let verdict = judge(&probes, profile)?;
        let (rows, runs): (Vec<_>, Vec<_>) = probes.into_iter().map(|probe| (probe.row, probe.runs)).unzip();
        Ok(Self { rows, runs: runs.into_iter().flatten().collect(), verdict })
    }

    /// The probes with the largest ΔS, and of those the least covered, first.
    pub fn worst(&self, count: usize) -> Vec<&BoardRow> {
        let mut rows: Vec<&BoardRow> = self.rows.iter().collect();
        rows.sort_by(|a, b| {
            let by_stress = b.ds_q_r.total_cmp(&a.ds_q_r);
            by_stress.then(a.coverage.total_cmp(&b.coverage)).then(a.probe_id.cmp(&b.probe_id))
        });
        rows.truncate(count);
        rows
    }
}

fn judge(probes: &[Measured], profile: &Profile) -> Result<Verdict, ProbeError> {
    let rows: Vec<&BoardRow> = probes.iter().map(|probe| &probe.row).collect();
    let n = rows.len() as u64;
    let median = Sample::new("ΔS of the board", rows.iter().map(|row| row.ds_q_r))?.median();
    let runs = || probes.iter().flat_map(|probe| &probe.runs);
    let pooled = Sample::new("ΔS of the runs", runs().map(|run| run.ds_q_r))?;
    let covered = Sample::new("coverage of the board", rows.iter().map(|row| row.coverage))?;
    let lambdas: Vec<&ProbeLambda> = probes.iter().map(|probe| &probe.lambda).collect();
    let lambda = BoardLambda::of(&lambdas, profile)?;
    let flags: Option<Vec<bool>> = probes.iter().map(|probe| probe.similar_but_wrong).collect();
    let wrong = flags.map(|flags| share(flags.iter().filter(|flag| **flag).count() as u64, n));
    let scores: Vec<f64> = runs().filter_map(|run| run.topk.first()).map(|hit| hit.score).collect();
    let score_q3 =
        if scores.is_empty() { None } else { Some(Sample::new("a score", scores)?.percentile(0.75)) };
    let pass_rate = covered.share_of(|value| value >= profile.coverage_min);
    let bands = bands(&pooled, profile);
    let mut verdict = Verdict {
        n,
        ds: StressSummary {
            median,
            mean: pooled.mean(),
            p90: pooled.percentile(0.90),
            p95: pooled.percentile(0.95),
            max: pooled.max(),
            bands,
        },
        coverage: CoverageSummary {
            median: covered.median(),
            mean: covered.mean(),
            p10: covered.percentile(0.10),
            pass_rate,
        },
        lambda: LambdaSummary {
            conv_rate: lambda.conv_rate,
            states: Lambda::ALL
                .iter()
                .zip(lambda.states)
                .map(|(state, count)| (state.sign().to_owned(), count))
                .collect(),
            flip_rate: lambda.flip_rate,
        },
        citation_match: Sample::new("citation match", probes.iter().map(|probe| probe.citation_match))?
            .mean(),
        similar_but_wrong: wrong,
        score_q3,
        verdict: BoardVerdict::Invalid,
        failed_gates: Vec::new(),
        warnings: warnings(&rows, pass_rate, profile),
        profile_hash: profile.hash()?,
    };
    let why = invalid(&rows, profile);
    verdict.failed_gates = failed_gates(&verdict, lambda.passes, profile);
    verdict.verdict = outcome(&verdict, &why, profile);
    verdict.failed_gates.extend(why);
    verdict.failed_gates.sort_by_key(|gate| gate.name);
    Ok(verdict)
}

fn bands(pooled: &Sample, profile: &Profile) -> BTreeMap<Band, f64> {
    let all = [Band::Stable, Band::Transitional, Band::Risk, Band::Danger];
    all.into_iter().map(|band| (band, rounded(pooled.share_of(|ds| Band::of(ds, profile) == band)))).collect()
}

/// Why a board cannot be judged.
fn invalid(rows: &[&BoardRow], profile: &Profile) -> Vec<FailedGate> {
    let mut why = Vec::new();
    let mut gate = |measured: String, threshold: String| {
        why.push(FailedGate { name: GateName::Valid, measured, threshold });
    };
    let n = rows.len() as u64;
    if n < profile.gold_min_count || n > profile.gold_max_count {
        gate(
            format!("{n} probes"),
            format!("{} to {} probes", profile.gold_min_count, profile.gold_max_count),
        );
    }
    let mut one_of_each = |field: &str, count: usize| {
        if count > 1 {
            gate(format!("{count} values of {field}"), "one".to_owned());
        }
    };
    one_of_each("INDEX_HASH", rows.iter().map(|row| row.index_hash).collect::<BTreeSet<_>>().len());
    one_of_each("embedder_hash", rows.iter().map(|row| row.embedder_hash).collect::<BTreeSet<_>>().len());
    one_of_each("gold_version", rows.iter().map(|row| row.gold_version).collect::<BTreeSet<_>>().len());
    one_of_each("k", rows.iter().map(|row| row.k).collect::<BTreeSet<_>>().len());
    let mut flaws: BTreeMap<Flaw, u64> = BTreeMap::new();
    for flaw in rows.iter().filter_map(|row| row.reason) {
        *flaws.entry(flaw).or_default() += 1;
    }
    let same = rows.windows(2).all(|pair| matches!(pair, [a, b] if a.ds_q_r.total_cmp(&b.ds_q_r).is_eq()));
    if same && n > 1 {
        flaws.insert(Flaw::FlatZero, n);
    }
    for (flaw, count) in flaws {
        let part = share(count, n);
        if part > profile.degenerate_max {
            gate(
                format!("{} in {part:.4} of the probes", flaw.word()),
                format!("<= {:.4}", profile.degenerate_max),
            );
        }
    }
    why
}

fn failed_gates(verdict: &Verdict, lambda_passes: bool, profile: &Profile) -> Vec<FailedGate> {
    let mut failed = Vec::new();
    let mut gate = |name, holds: bool, measured: String, threshold: String| {
        if !holds {
            failed.push(FailedGate { name, measured, threshold });
        }
    };
    let (ds, coverage) = (&verdict.ds, &verdict.coverage);
    let at_most = |bound: f64| format!("<= {bound:.4}");
    let at_least = |bound: f64| format!(">= {bound:.4}");
    let holds = ds.median <= profile.ds_median_max;
    gate(GateName::Stress, holds, format!("{:.4}", ds.median), at_most(profile.ds_median_max));
    let holds = coverage.median >= profile.coverage_min;
    gate(GateName::Coverage, holds, format!("{:.4}", coverage.median), at_least(profile.coverage_min));
    let (rate, bound) = (coverage.pass_rate, profile.coverage_pass_rate_min);
    gate(GateName::CoveragePassRate, rate >= bound, format!("{rate:.4}"), at_least(bound));
    let states: Vec<String> =
        verdict.lambda.states.iter().map(|(state, count)| format!("{state} {count}")).collect();
    let measured = format!("conv {:.4}, {}", verdict.lambda.conv_rate, states.join(", "));
    let threshold = format!(
        "conv >= {:.4}, <> <= {:.4}, \u{d7} <= {:.4}",
        profile.lambda_conv_rate_min, profile.lambda_split_max, profile.lambda_chaos_max
    );
    gate(GateName::Lambda, lambda_passes, measured, threshold);
    if let Some(wrong) = verdict.similar_but_wrong {
        let bound = profile.similar_but_wrong_max;
        gate(GateName::SimilarButWrong, wrong <= bound, format!("{wrong:.4}"), at_most(bound));
    }
    failed
}

fn outcome(verdict: &Verdict, invalid: &[FailedGate], profile: &Profile) -> BoardVerdict {
    let only_stress = verdict.failed_gates.iter().all(|gate| gate.name == GateName::Stress);
    if !invalid.is_empty() {
        BoardVerdict::Invalid
    } else if verdict.failed_gates.is_empty() {
        BoardVerdict::Pass
    } else if only_stress && verdict.ds.median < profile.ds_rebuild_min {
        BoardVerdict::Review
    } else {
        BoardVerdict::Fail
    }
}

fn warnings(rows: &[&BoardRow], pass_rate: f64, profile: &Profile) -> Vec<String> {
    let mut list = Vec::new();
    if pass_rate < profile.coverage_pass_rate_warn {
        list.push(format!(
            "coverage_pass_rate is {pass_rate:.4}, below {:.4}",
            profile.coverage_pass_rate_warn
        ));
    }
    let mut ids = |what: &str, holds: &dyn Fn(&BoardRow) -> bool| {
        let found: Vec<&str> =
            rows.iter().filter(|row| holds(row)).map(|row| row.probe_id.as_str()).collect();
        if !found.is_empty() {
            list.push(format!("{what}: {}", found.join(", ")));
        }
    };
    ids("ΔS_max at or above the rebuild bound", &|row| row.ds_max >= profile.ds_rebuild_min);
    ids("critical coverage", &|row| row.coverage < profile.coverage_critical_below);
    list
}
