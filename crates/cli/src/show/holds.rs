//! Legal holds, as a person reads them.

use lifeboat_base::human::printable;
use lifeboat_engine::vault_holds::HoldScope;
use lifeboat_engine::{HoldReport, HoldView};

use super::text::{Page, moment, plural};

/// One block for each hold, oldest first.
pub(crate) fn page(report: &HoldReport) -> String {
    let mut page = Page::new();
    for view in &report.holds {
        hold(&mut page, view);
    }
    if report.holds.is_empty() {
        page.line("there are no holds");
    }
    page.findings(&report.findings);
    page.finish()
}

fn hold(page: &mut Page, view: &HoldView) {
    let HoldView { hold, release, copies, dropped } = view;
    let what = match &hold.scope {
        HoldScope::Store => "everything and its log".to_owned(),
        HoldScope::Point { point } => point.to_string(),
        HoldScope::Before { before } => format!("everything up to {} and its log", moment(*before)),
    };
    let state = if release.is_some() { "released" } else { "holds" };
    page.line(format!("{}: {state} {what} of {}", hold.id, hold.store));
    page.line(format!(
        "  since {} for {}: {}",
        moment(hold.placed),
        printable(&hold.holder),
        printable(&hold.reason)
    ));
    if let Some(release) = release {
        let (by, reason) = (printable(&release.by), printable(&release.reason));
        page.line(format!("  released {} by {by}: {reason}", moment(release.released)));
    }
    let copies: Vec<String> = copies.iter().map(ToString::to_string).collect();
    page.line(format!(
        "  in {}",
        if copies.is_empty() { "no copy".to_owned() } else { copies.join(" and ") }
    ));
    if dropped.gone_count > 0 {
        let gone = plural(dropped.gone_count, "point", "points");
        page.line(format!(
            "  {gone} it would cover had been dropped before and are gone from the copies that are here"
        ));
    }
    for point in &dropped.still {
        page.line(format!("  {point} had been dropped before, and stays where it still lies"));
    }
}
