//! A drill report on one page.

use lifeboat_base::human;
use lifeboat_base::ids::StoreName;
use lifeboat_engine::{
    CheckOutcome, CheckState, DrillReport, DrillVerdict, MustDiffer, ReplayDrill, StoreDrill, Tally,
};

use super::text::{Page, moment, plural};

fn against(target: Option<f64>) -> String {
    target.map(|target| format!(" of {} promised", human::seconds(target))).unwrap_or_default()
}

/// The verdict first, then each store, then what is wrong.
pub(crate) fn page(report: &DrillReport, verbose: bool) -> String {
    let mut page = Page::new();
    let verdict = match report.verdict {
        DrillVerdict::Passed => "PASSED",
        DrillVerdict::Failed => "FAILED",
    };
    page.line(format!("{} {verdict}: as if everything was lost at {}", report.id, moment(report.moment)));
    if let Some(common) = report.common_moment {
        let waves: Vec<String> = report.order.iter().map(|wave| join(wave.iter())).collect();
        page.line(format!("restored together as of {}: {}", moment(common), waves.join(", then ")));
    }
    for store in &report.stores {
        one_store(store, verbose, &mut page);
    }
    for store in &report.replays {
        one_replay(store, verbose, &mut page);
    }
    for tier in &report.tiers {
        let back = match tier.ready_s {
            Some(ready) => format!("back {} after the start", human::seconds(ready)),
            None => "not all came back".to_owned(),
        };
        page.line(format!("tier {}: {back} ({})", tier.tier, join(tier.stores.iter())));
    }
    for rule in &report.agreement {
        one_rule(rule, &mut page);
    }
    let alone = report.environment.as_ref().and_then(|environment| environment.servers_alone);
    if alone == Some(false) {
        page.line("throwaway servers were on this machine's network: it gives them none of their own");
    }
    if let Some(found) = &report.must_differ {
        one_search(report, found, &mut page);
    }
    if report.baseline {
        page.line("how fast applications answered is the baseline of later drills");
    } else if report.answers.iter().any(|answers| answers.baseline_p95_ms.is_none()) {
        page.line(
            "not all answers have a baseline: `lifeboat drill --all --baseline` records one if it passes",
        );
    }
    page.findings(&report.findings);
    if let Some(evidence) = &report.evidence {
        let id = &report.id;
        page.line(format!("filed as {evidence}; `lifeboat evidence export {id} --to DIR` writes the report"));
    }
    page.finish()
}

/// What of production was looked for in the sandbox; where it can be used, it is among the findings.
fn one_search(report: &DrillReport, found: &MustDiffer, page: &mut Page) {
    for what in &found.unlooked {
        page.line(format!("not looked for in the sandbox, since nobody here knows it: {what}"));
    }
    let is_told = report.findings.iter().any(|finding| finding.code == "drill.must-differ");
    for seen in found.seen.iter().filter(|_| !is_told) {
        page.line(format!("restored with the data, on no network: {} in {}", seen.what, seen.file));
    }
}

fn join<'a>(names: impl Iterator<Item = &'a StoreName>) -> String {
    names.map(StoreName::as_str).collect::<Vec<_>>().join(" and ")
}

fn one_store(store: &StoreDrill, verbose: bool, page: &mut Page) {
    let verdict = if store.verdict == DrillVerdict::Passed { "passed" } else { "FAILED" };
    let back = match store.rto_s {
        Some(measured) => {
            format!("back and checked in {}{}", human::seconds(measured), against(store.rto_target_s))
        }
        None => "not shown to come back".to_owned(),
    };
    page.line(format!("{}: {verdict}; {} from {}: {back}", store.name, store.point, store.copy));
    let Tally { passed, powered } = Tally::of(&store.checks);
    page.line(format!(
        "  {} restored; {} of writes lost{}; {passed} of {} passed, {powered} shown to catch damage",
        human::bytes(store.bytes),
        human::seconds(store.rpo_s),
        against(store.rpo_target_s),
        plural(store.checks.len() as u64, "check", "checks")
    ));
    if let Some(lag) = store.lag_s.filter(|lag| *lag >= 0.001) {
        page.line(format!("  shows {}: {} before the others", moment(store.shows), human::seconds(lag)));
    }
    if let Some(meaning) = &store.meaning {
        page.line(format!("  decision: {}", meaning.decided()));
        page.line(format!("  {}", meaning.said()));
    }
    for check in store.checks.iter().filter(|check| verbose || check.state == CheckState::Failed) {
        one_check(check, page);
    }
}

/// A rule with everything that differs, also what is allowed: it has to be made again.
fn one_rule(rule: &CheckOutcome, page: &mut Page) {
    if rule.state == CheckState::Passed && !rule.has_shown() {
        page.line(format!("  no power {}: {}", rule.id, rule.measured));
    } else {
        one_check(rule, page);
    }
    // Why one could not be applied is said below.
    for line in rule.detail.iter().filter(|_| rule.state != CheckState::NotApplicable) {
        page.line(format!("         {line}"));
    }
}

fn one_replay(store: &ReplayDrill, verbose: bool, page: &mut Page) {
    let verdict = if store.verdict == DrillVerdict::Passed { "passed" } else { "FAILED" };
    let back = match store.rto_s {
        Some(measured) => {
            format!("filled from nothing in {}{}", human::seconds(measured), against(store.rto_target_s))
        }
        None => "not shown to be filled again".to_owned(),
    };
    page.line(format!("{}: {verdict}; not retained, {back}", store.name));
    let Tally { passed, powered } = Tally::of(&store.checks);
    let checks = plural(store.checks.len() as u64, "check", "checks");
    page.line(format!("  {passed} of {checks} passed, {powered} shown to catch damage"));
    for check in store.checks.iter().filter(|check| verbose || check.state == CheckState::Failed) {
        one_check(check, page);
    }
}

fn one_check(check: &CheckOutcome, page: &mut Page) {
    let state = match check.state {
        CheckState::Passed => "ok",
        CheckState::Failed => "FAILED",
        CheckState::NotApplicable => "n/a",
    };
    page.line(format!("  {state:6} {}: {} (expected {})", check.id, check.measured, check.threshold));
}
