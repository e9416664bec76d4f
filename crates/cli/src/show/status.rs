//! The live matrix, for a terminal and as Markdown.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use lifeboat_base::human;
use lifeboat_engine::{PromiseKind, PromiseState, PromiseView, StatusReport, StoreStatus};

use super::text::{Page, moment, plural};

/// How wide a table may get when nobody says how wide the terminal is.
const DEFAULT_WIDTH: u16 = 130;
/// Below this width the columns of the matrix would break words; the rows are then listed one below the other.
const MIN_TABLE_WIDTH: u16 = 106;

fn age(cell: &PromiseView) -> String {
    cell.age_s
        .map(|seconds| format!("{} ago", human::duration(std::time::Duration::from_secs(seconds))))
        .unwrap_or_default()
}

fn words(cell: &PromiseView) -> String {
    if cell.state == PromiseState::NotApplicable {
        return "n/a".to_owned();
    }
    let state = if cell.state == PromiseState::Broken { "BROKEN" } else { cell.state.words() };
    let target = cell.target.as_ref().map(|target| format!("{target}\n")).unwrap_or_default();
    let observed = match (&cell.observed, cell.promise) {
        (Some(observed), PromiseKind::Rpo | PromiseKind::Rto | PromiseKind::Copies) => {
            format!(" ({observed})")
        }
        (Some(observed), PromiseKind::Immutability) if cell.state == PromiseState::Broken => {
            format!(" ({observed})")
        }
        _ => String::new(),
    };
    format!("{target}{state}{observed}")
}

fn coloured(cell: &PromiseView) -> Cell {
    let text = Cell::new(words(cell));
    match cell.state {
        PromiseState::Kept => text.fg(Color::Green),
        PromiseState::Broken => text.fg(Color::Red).add_attribute(Attribute::Bold),
        PromiseState::Unproven => text.fg(Color::Yellow),
        PromiseState::NotApplicable => text.fg(Color::DarkGrey),
    }
}

fn header() -> Vec<&'static str> {
    vec![
        "Store",
        "Tier",
        "RPO",
        "RTO",
        "Retention",
        "Encryption",
        "Immutability",
        "Copies",
        "Verify",
        "Drill",
    ]
}

/// The matrix for a terminal, with the reasons of every cell that is not kept below it.
pub(crate) fn page(report: &StatusReport, colour: bool, verbose: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if !colour {
        table.force_no_tty();
    }
    if table.width().is_none() {
        table.set_width(DEFAULT_WIDTH);
    }
    let mut page = Page::new();
    if table.width().is_some_and(|width| width < MIN_TABLE_WIDTH) {
        list(report, &mut page);
    } else {
        page.raw(matrix(report, table));
    }
    summary(report, &mut page);
    for (state, title) in [(PromiseState::Broken, "Broken"), (PromiseState::Unproven, "Not proven")] {
        reasons(report, state, title, &mut page);
    }
    for store in &report.stores {
        if let Some(failure) = &store.last_failure {
            page.line(format!("{}: {failure}", store.name));
        }
    }
    page.findings(&report.findings);
    if verbose {
        reasons(report, PromiseState::Kept, "Kept", &mut page);
    }
    drills(report, &mut page);
    page.finish()
}

fn matrix(report: &StatusReport, mut table: Table) -> Table {
    table.set_header(header());
    for store in &report.stores {
        let name = Cell::new(format!("{}\n{}", store.name, store.kind)).add_attribute(Attribute::Bold);
        let tier = Cell::new(store.tier.as_deref().unwrap_or("-"));
        table.add_row([name, tier].into_iter().chain(store.promises.iter().map(coloured)));
    }
    table
}

/// The matrix for a narrow terminal: one line per cell.
fn list(report: &StatusReport, page: &mut Page) {
    for store in &report.stores {
        let tier = store.tier.as_deref().map(|tier| format!(", {tier}")).unwrap_or_default();
        page.line(format!("{} ({}{tier})", store.name, store.kind));
        for (title, cell) in header().iter().skip(2).zip(&store.promises) {
            page.line(format!("  {title:<13} {}", words(cell).replace('\n', ": ")));
        }
    }
    page.line("");
}

fn summary(report: &StatusReport, page: &mut Page) {
    page.line(format!(
        "{}: {} kept, {} broken, {} not proven",
        moment(report.at),
        report.count(PromiseState::Kept),
        report.count(PromiseState::Broken),
        report.count(PromiseState::Unproven)
    ));
}

/// The drills that the policy plans; each of them is a promise.
fn drills(report: &StatusReport, page: &mut Page) {
    if report.drills.is_empty() {
        return;
    }
    page.line("").line("Planned drills:");
    for plan in &report.drills {
        let state = if plan.state == PromiseState::Broken { "BROKEN" } else { plan.state.words() };
        let evidence = plan.evidence.as_ref().map(|record| format!("  [{record}]")).unwrap_or_default();
        page.line(format!("  {} {state}: {}{evidence}", plan.name, plan.reason));
    }
}

fn reasons(report: &StatusReport, state: PromiseState, title: &str, page: &mut Page) {
    let cells: Vec<(&StoreStatus, &PromiseView)> = report
        .stores
        .iter()
        .flat_map(|store| store.promises.iter().map(move |cell| (store, cell)))
        .filter(|(_store, cell)| cell.state == state)
        .collect();
    if cells.is_empty() {
        return;
    }
    page.line("").line(format!("{title} ({}):", plural(cells.len() as u64, "promise", "promises")));
    for (store, cell) in cells {
        let mut tail = age(cell);
        if let Some(evidence) = &cell.evidence {
            tail = if tail.is_empty() { evidence.clone() } else { format!("{tail}, {evidence}") };
        }
        let tail = if tail.is_empty() { tail } else { format!("  [{tail}]") };
        page.line(format!("  {} {}: {}{tail}", store.name, cell.promise.word(), cell.reason));
    }
}

/// The matrix as a Markdown table, one cell each with its state, its age and its reason.
pub(crate) fn markdown(report: &StatusReport) -> String {
    let mut page = Page::new();
    let header = header();
    page.line(format!("| {} |", header.join(" | ")));
    page.line(format!("|{}", " --- |".repeat(header.len())));
    for store in &report.stores {
        let cells: Vec<String> = store.promises.iter().map(markdown_cell).collect();
        page.line(format!(
            "| `{}` ({}) | {} | {} |",
            store.name,
            store.kind,
            store.tier.as_deref().unwrap_or("-"),
            cells.join(" | ")
        ));
    }
    for plan in &report.drills {
        let state = if plan.state == PromiseState::Kept {
            "kept".to_owned()
        } else {
            format!("**{}**", plan.state.words())
        };
        page.line("").line(format!("Drill `{}`: {state} ({})", plan.name, plan.reason));
    }
    for finding in &report.findings {
        page.line("").line(format!("**{}**", finding.message));
    }
    page.line("").line(format!("As of {}, policy `{}`.", moment(report.at), report.policy_hash));
    page.finish()
}

fn markdown_cell(cell: &PromiseView) -> String {
    if cell.state == PromiseState::NotApplicable {
        return "n/a".to_owned();
    }
    let state = if cell.state == PromiseState::Kept {
        "kept".to_owned()
    } else {
        format!("**{}**", cell.state.words())
    };
    let target = cell.target.as_ref().map(|target| format!("{target}: ")).unwrap_or_default();
    let age = age(cell);
    let age = if age.is_empty() { age } else { format!(", {age}") };
    // A bar or a line break would break the table.
    format!("{target}{state}{age} ({})", cell.reason).replace('|', "\\|").replace('\n', " ")
}
