//! An audit on one page.

use lifeboat_base::ids::StoreName;
use lifeboat_engine::{AuditReport, PromiseState};

use super::text::{Page, moment};

/// What is wrong first, then what closes it, then the order after a loss.
pub(crate) fn page(report: &AuditReport) -> String {
    let mut page = Page::new();
    let summary = &report.summary;
    page.line(format!(
        "{}: {} kept, {} broken, {} not proven",
        moment(report.at),
        summary.kept,
        summary.broken,
        summary.not_proven
    ));
    for gap in &report.gaps {
        let state = if gap.state == PromiseState::Broken { "BROKEN" } else { gap.state.words() };
        page.line("").line(format!("{} {}: {state}", gap.row, gap.field));
        page.line(format!("  expected {}", gap.expected));
        let evidence = gap.evidence.as_ref().map(|record| format!("  [{record}]")).unwrap_or_default();
        page.line(format!("  observed {}{evidence}", gap.observed));
        page.line(format!("  next     {}", gap.next));
    }
    if !report.minimal_set.is_empty() {
        page.line("").line("The fewest commands after which every RPO and RTO is known:");
        for command in &report.minimal_set {
            page.line(format!("  {command}"));
        }
    }
    if !report.restore_order.is_empty() {
        let wave =
            |wave: &Vec<StoreName>| wave.iter().map(StoreName::as_str).collect::<Vec<_>>().join(" and ");
        let waves: Vec<String> = report.restore_order.iter().map(wave).collect();
        page.line("").line(format!("After a loss they come back in this order: {}", waves.join(", then ")));
    }
    for store in &report.rebuild {
        page.line(format!("{}: {}", store.store, store.why));
    }
    page.finish()
}
