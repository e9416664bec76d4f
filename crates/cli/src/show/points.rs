//! Recovery points and what each is worth.

use comfy_table::{ContentArrangement, Table, presets};
use lifeboat_base::human;
use lifeboat_base::time::Timestamp;
use lifeboat_engine::{PointView, PointsReport, ProofLevel};

use super::text::{Page, moment, plural};

/// Several stores as one document.
pub(crate) fn document(reports: &[PointsReport]) -> serde_json::Value {
    serde_json::json!({ "schema": "lifeboat.points-list/v1", "stores": reports })
}

/// One table for each store.
pub(crate) fn page(reports: &[PointsReport], colour: bool) -> String {
    let mut page = Page::new();
    for report in reports {
        page.line(format!(
            "{}: {}",
            report.store,
            plural(report.points.len() as u64, "recovery point", "recovery points")
        ));
        if !report.points.is_empty() {
            page.raw(table(report, colour));
        }
        if report.ranges.iter().any(|range| range.timeline.is_some()) {
            page.line("  any moment from its log:").raw(ranges(report, colour));
        }
        page.findings(&report.findings);
    }
    page.finish()
}

fn empty_table(colour: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    if !colour {
        table.force_no_tty();
    }
    table
}

/// Each stretch of time that can be restored, and whether one is missing after it.
fn ranges(report: &PointsReport, colour: bool) -> Table {
    let mut table = empty_table(colour);
    table.set_header(["From", "To", "Timeline", "Then", "Copies"]);
    for range in &report.ranges {
        table.add_row([
            moment(range.from),
            // A whole second would mean its end, which the log need not reach.
            range.to.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
            range.timeline.map(|timeline| timeline.to_string()).unwrap_or_default(),
            if range.gap_after { "A GAP".to_owned() } else { String::new() },
            range.copies.join(", "),
        ]);
    }
    table
}

fn table(report: &PointsReport, colour: bool) -> Table {
    let mut table = empty_table(colour);
    table.set_header(["Point", "Shows", "Consistency", "Size", "New", "Proven", "Copies"]);
    for point in &report.points {
        table.add_row([
            point.id.to_string(),
            moment(point.moment),
            consistency(point),
            human::bytes(point.logical_bytes),
            human::bytes(point.new_bytes),
            proven(point),
            copies(point),
        ]);
    }
    table
}

fn consistency(point: &PointView) -> String {
    let word = serde_json::to_value(point.consistency).ok().and_then(|v| v.as_str().map(str::to_owned));
    let word = word.unwrap_or_default();
    match point.changes {
        None => format!("{word}, changes not measured"),
        Some(0) => word,
        Some(changes) => format!("{word}, {} changes", human::count(changes)),
    }
}

fn proven(point: &PointView) -> String {
    let dated = |level: ProofLevel, at: Timestamp| format!("{level} {}", at.strftime("%Y-%m-%d %H:%M UTC"));
    let best = ProofLevel::ALL
        .into_iter()
        .rev()
        .find_map(|level| point.proof.get(&level).copied().flatten().map(|at| dated(level, at)));
    // What cannot be read is shown with the copy it lies in.
    let failed = point.failed.last_key_value().filter(|(level, _at)| **level > ProofLevel::Readable);
    let failed = failed.map(|(level, at)| format!(", not {}", dated(*level, *at))).unwrap_or_default();
    let incomplete =
        if point.unreadable > 0 { format!(", {} unreadable", point.unreadable) } else { String::new() };
    format!("{}{failed}{incomplete}", best.unwrap_or_else(|| "not proven".to_owned()))
}

fn copies(point: &PointView) -> String {
    let names: Vec<String> = point
        .copies
        .iter()
        .map(
            |copy| {
                if copy.damaged.is_some() { format!("{} (DAMAGED)", copy.name) } else { copy.name.clone() }
            },
        )
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_stores_are_one_document_with_a_schema() {
        let report = |name: &str| PointsReport {
            schema: "lifeboat.points/v1",
            store: lifeboat_base::ids::StoreName::new(name).unwrap(),
            points: Vec::new(),
            ranges: Vec::new(),
            findings: Vec::new(),
        };
        let document = document(&[report("orders"), report("uploads")]);
        assert_eq!(document["schema"], "lifeboat.points-list/v1");
        assert_eq!(document["stores"][1]["store"], "uploads");
    }
}
