//! What the pages show, in words; shared by all of them, so that none says something else.

use lifeboat_base::human;
use lifeboat_base::ids::StoreName;
use lifeboat_base::time::Timestamp;
use lifeboat_drill::{
    CheckOutcome, DrillReport, DrillVerdict, Forecast, MustDiffer, ReplayDrill, Sighting, StoreDrill, Tally,
};
use lifeboat_stores::{CheckState, Meaning, WorstProbe};

use crate::controls::{Control, controls};
use crate::gaps::{Gap, gaps};
use crate::{ReportError, chart};

/// Stores that are this close to the others show the same moment, in seconds.
const WORTH_A_WORD_S: f64 = 0.5;

pub(crate) struct View {
    pub(crate) id: String,
    pub(crate) passed: bool,
    pub(crate) headline: String,
    /// Facts about the whole drill, each with its label.
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) stores: Vec<StoreView>,
    pub(crate) rules: Vec<CheckView>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) controls: Vec<Control>,
    pub(crate) log: Vec<(String, String)>,
    pub(crate) legend: Vec<(&'static str, String)>,
    pub(crate) timeline_svg: String,
    pub(crate) shares_svg: String,
}

pub(crate) struct StoreView {
    pub(crate) name: String,
    pub(crate) passed: bool,
    pub(crate) point: String,
    pub(crate) copy: String,
    pub(crate) shows: String,
    pub(crate) lag: String,
    pub(crate) rto: Measured,
    /// What earlier drills foretold.
    pub(crate) foretold: String,
    pub(crate) rpo: Measured,
    pub(crate) bytes: String,
    /// What it means, and what to do with it; empty for kinds that are not asked.
    pub(crate) meaning: Vec<String>,
    /// How many checks passed, of how many, and how many of them were seen to fail on a bad sample.
    pub(crate) checks_said: String,
    pub(crate) checks: Vec<CheckView>,
}

/// A time against its promise.
pub(crate) struct Measured {
    pub(crate) took: String,
    pub(crate) promised: String,
    pub(crate) missed: bool,
}

pub(crate) struct CheckView {
    pub(crate) id: String,
    /// `passed`, `failed`, `not applicable` or `no power`.
    pub(crate) state: &'static str,
    pub(crate) measured: String,
    pub(crate) expected: String,
    pub(crate) detail: Vec<String>,
}

impl View {
    pub(crate) fn of(report: &DrillReport) -> Result<Self, ReportError> {
        let passed = report.verdict == DrillVerdict::Passed;
        let stores = report.stores.iter().map(StoreView::of);
        let headline = match report.findings.len() {
            _ if passed => "Everything that was asked was shown to hold.".to_owned(),
            1 => "One thing did not hold, or could not be shown to.".to_owned(),
            count => format!("{count} things did not hold, or could not be shown to."),
        };
        Ok(Self {
            id: report.id.to_string(),
            passed,
            headline,
            facts: facts(report),
            stores: stores.chain(report.replays.iter().map(StoreView::of_replay)).collect(),
            rules: report.agreement.iter().map(CheckView::of).collect(),
            gaps: gaps(report),
            controls: controls(report),
            log: report.log.iter().map(|line| (moment(line.at), line.text.clone())).collect(),
            legend: chart::legend(report),
            timeline_svg: chart::timeline(report)?,
            shares_svg: chart::shares(report)?,
        })
    }
}

fn facts(report: &DrillReport) -> Vec<(&'static str, String)> {
    let wave = |wave: &Vec<StoreName>| wave.iter().map(StoreName::as_str).collect::<Vec<_>>().join(" and ");
    let mut facts = vec![("Moment of the imagined disaster", moment(report.moment))];
    if let Some(plan) = &report.plan {
        facts.push(("Planned as", plan.to_string()));
    }
    if let Some(common) = report.common_moment {
        facts.push(("All stores restored to", moment(common)));
    }
    if !report.order.is_empty() {
        facts.push(("Order", report.order.iter().map(wave).collect::<Vec<_>>().join(", then ")));
    }
    for tier in &report.tiers {
        let back = tier.ready_s.map_or_else(|| "not all came back".to_owned(), human::seconds);
        let of = tier.stores.iter().map(StoreName::as_str).collect::<Vec<_>>().join(", ");
        facts.push(("From the start until a tier was back", format!("{}: {back} ({of})", tier.tier)));
    }
    facts.push(("Ended", moment(report.ended)));
    if let Some(target) = &report.target {
        facts.push(("Restored to", target.clone()));
    }
    facts.extend(
        report.must_differ.as_ref().map(|found| ("Secrets and addresses of production", searched(found))),
    );
    if let Some(environment) = &report.environment {
        facts.push(("Program", environment.tool.clone()));
        let processors = environment.processors;
        facts.push(("Machine", format!("{}, {processors} processors", environment.platform)));
        if let Some(alone) = environment.servers_alone {
            let network = if alone { "of their own, without a way out" } else { "of this machine" };
            facts.push(("Network of the throwaway servers", network.to_owned()));
        }
        facts.push(("Time zone of the policy", environment.timezone.clone()));
        facts.push(("SHA-256 of the policy", environment.policy.to_string()));
    }
    if !report.records.is_empty() {
        let records: Vec<String> = report.records.iter().map(u64::to_string).collect();
        facts.push(("Evidence records of the stores", records.join(", ")));
    }
    facts
}

/// How far what was restored was searched, and what came of it.
fn searched(found: &MustDiffer) -> String {
    let unlooked = match found.unlooked.len() {
        0 => String::new(),
        count => format!("; {count} more not known where it ran"),
    };
    let place = |seen: &Sighting| format!("{} in {}", seen.what, seen.file);
    let places = found.seen.iter().map(place).collect::<Vec<_>>().join(", ");
    let seen = if places.is_empty() { "none seen".to_owned() } else { places };
    format!("{} looked for in {} files{unlooked}: {seen}", found.looked_for, found.files)
}

impl StoreView {
    fn of(store: &StoreDrill) -> Self {
        Self {
            name: store.name.to_string(),
            passed: store.verdict == DrillVerdict::Passed,
            point: store.point.to_string(),
            copy: store.copy.to_string(),
            shows: moment(store.shows),
            lag: store.lag_s.filter(|lag| *lag >= WORTH_A_WORD_S).map(human::seconds).unwrap_or_default(),
            rto: Measured::of(store.rto_s, store.rto_target_s, "never came back"),
            foretold: store.forecast.as_ref().map(foretold).unwrap_or_default(),
            rpo: Measured::of(Some(store.rpo_s), store.rpo_target_s, ""),
            bytes: human::bytes(store.bytes),
            meaning: store.meaning.as_ref().map(meant).unwrap_or_default(),
            checks_said: checks_said(&store.checks),
            checks: store.checks.iter().map(CheckView::of).collect(),
        }
    }

    fn of_replay(store: &ReplayDrill) -> Self {
        Self {
            name: store.name.to_string(),
            passed: store.verdict == DrillVerdict::Passed,
            point: "not retained: made again from nothing".to_owned(),
            copy: String::new(),
            shows: String::new(),
            lag: String::new(),
            rto: Measured::of(store.rto_s, store.rto_target_s, "was not made again"),
            foretold: String::new(),
            rpo: Measured { took: String::new(), promised: String::new(), missed: false },
            bytes: String::new(),
            meaning: Vec::new(),
            checks_said: checks_said(&store.checks),
            checks: store.checks.iter().map(CheckView::of).collect(),
        }
    }
}

impl Measured {
    fn of(took_s: Option<f64>, target_s: Option<f64>, never: &str) -> Self {
        let missed = match (took_s, target_s) {
            (Some(took), Some(target)) => took > target,
            (None, _) => true,
            (Some(_), None) => false,
        };
        let of = if took_s.is_some() { "of " } else { "" };
        Self {
            took: took_s.map_or_else(|| never.to_owned(), human::seconds),
            promised: target_s
                .map(|target| format!("{of}{} promised", human::seconds(target)))
                .unwrap_or_default(),
            missed,
        }
    }
}

impl CheckView {
    fn of(check: &CheckOutcome) -> Self {
        Self {
            id: check.id.clone(),
            state: state(check),
            measured: check.measured.clone(),
            expected: check.threshold.clone(),
            detail: check.detail.clone(),
        }
    }
}

/// What a check is worth: one that was not seen to fail on a bad sample has shown nothing.
pub(crate) fn state(check: &CheckOutcome) -> &'static str {
    match check.state {
        CheckState::Passed if check.has_shown() => "passed",
        CheckState::Passed => "no power",
        CheckState::Failed => "failed",
        CheckState::NotApplicable => "not applicable",
    }
}

/// The decision first, then what was measured, then what did worst.
fn meant(meaning: &Meaning) -> Vec<String> {
    let mut lines = vec![format!("decision: {}", meaning.decided()), meaning.said()];
    let is_passed = meaning.board.as_ref().is_some_and(|board| board.failed_gates.is_empty());
    lines.extend(meaning.worst.iter().filter(|_| !is_passed).map(|probe| {
        let WorstProbe { probe_id, question, ds, coverage, lambda, .. } = probe;
        format!("{probe_id} \u{394}S {ds:.4}, coverage {coverage:.4}, {lambda}: {question}")
    }));
    lines
}

fn foretold(next: &Forecast) -> String {
    let (low, high, share) =
        (human::seconds(next.low_s), human::seconds(next.high_s), next.probability * 100.0);
    let guess = if next.beyond { ", a guess: far larger than before" } else { "" };
    format!("{low} to {high} were foretold ({share:.0} %, from {} drills{guess})", next.drills)
}

fn checks_said(checks: &[CheckOutcome]) -> String {
    let Tally { passed, powered } = Tally::of(checks);
    format!("{passed} of {} passed, {powered} shown to catch damage", checks.len())
}

/// To the second, in UTC: what is handed over is read in other places than the policy's.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
