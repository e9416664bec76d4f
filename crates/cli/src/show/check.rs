//! The answers of `check` and `explain`.

use lifeboat_base::human;
use lifeboat_base::ids::StoreName;
use lifeboat_engine::CheckReport;
use lifeboat_engine::policy::ExplainLine;

use super::text::{Page, plural};

fn mark(ok: Option<bool>) -> &'static str {
    match ok {
        Some(true) => "OK    ",
        Some(false) => "FAILED",
        None => "-     ",
    }
}

/// `1 table`, `2 tables`: what is counted is named in the plural.
fn counted(count: u64, many: &str) -> String {
    let one = match many {
        "indexes" => "index",
        other => other.strip_suffix('s').unwrap_or(other),
    };
    plural(count, one, many)
}

/// A check list: recipients, stores, copies.
pub(crate) fn page(report: &CheckReport) -> String {
    let mut page = Page::new();
    for recipient in &report.recipients {
        let why = recipient.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        page.line(format!("{} recipient {}{why}", mark(Some(why.is_empty())), recipient.name));
    }
    for store in &report.stores {
        let mut facts: Vec<String> = store.version.iter().cloned().collect();
        facts.extend(store.logical_bytes.map(human::bytes));
        facts.extend(store.items.iter().map(|(name, count)| counted(*count, name)));
        facts.extend(store.reason.clone());
        page.line(format!("{} store {} ({}): {}", mark(store.ok), store.name, store.kind, facts.join(", ")));
    }
    for copy in &report.copies {
        let location = copy.location.as_deref().unwrap_or_default();
        let tail = match (copy.state, &copy.reason) {
            ("open", _) => format!("opens ({location})"),
            ("empty", _) => format!("no vault yet ({location})"),
            (_, Some(why)) => why.clone(),
            (other, None) => other.to_owned(),
        };
        page.line(format!(
            "{} copy {} of {}: {tail}",
            mark(Some(copy.reason.is_none())),
            copy.copy,
            copy.store
        ));
    }
    for warning in &report.warnings {
        page.line(format!("warning: {warning}"));
    }
    page.findings(&report.findings);
    page.finish()
}

/// The effective promises of a row and where each comes from.
pub(crate) fn explain(store: &StoreName, lines: &[ExplainLine]) -> String {
    let mut page = Page::new();
    page.line(format!("{store}:"));
    let width = lines.iter().map(|line| line.promise.len()).max().unwrap_or(0);
    let value = lines.iter().map(|line| line.value.len()).max().unwrap_or(0);
    for line in lines {
        page.line(format!("  {:width$}  {:value$}  ({})", line.promise, line.value, line.origin));
    }
    page.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_named_in_the_singular() {
        assert_eq!(counted(1, "indexes"), "1 index");
        assert_eq!(counted(1, "dirs"), "1 dir");
        assert_eq!(counted(0, "tables"), "0 tables");
        assert_eq!(counted(2, "indexes"), "2 indexes");
    }
}
