//! The answer of `inventory`.

use lifeboat_engine::InventoryReport;

use super::text::{Page, plural};

/// A line per store, then what is wrong.
pub(crate) fn page(report: &InventoryReport) -> String {
    let mut page = Page::new();
    if !report.looked {
        page.line("The policy does not say where to look: add `[inventory]` with `files`, `folders` or `machine = true`.");
        return page.finish();
    }
    for store in &report.stores {
        let why = match (&store.row, &store.reason) {
            (Some(row), _) => format!("row {row}"),
            (None, Some(reason)) => format!("no row: {reason}"),
            (None, None) => "NO ROW".to_owned(),
        };
        page.line(format!("{}  {why}  (seen in {})", store.address, store.seen_in.join(", ")));
    }
    page.line(plural(report.stores.len() as u64, "store found", "stores found"));
    page.findings(&report.findings);
    page.finish()
}
