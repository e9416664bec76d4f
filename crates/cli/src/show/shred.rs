//! The end of a store, as a person reads it.

use lifeboat_engine::ShredReport;

use super::text::{Page, moment, plural};

/// What was destroyed, and what a look at each copy showed.
pub(crate) fn page(report: &ShredReport) -> String {
    let mut page = Page::new();
    page.line(format!(
        "{}: every key of its vault was destroyed at {}; {} can never be read again",
        report.store,
        moment(report.at),
        plural(report.points as u64, "recovery point", "recovery points")
    ));
    for copy in &report.copies {
        let keys = match copy.left.as_slice() {
            [] => "no key is left".to_owned(),
            left => format!("{} STILL THERE", plural(left.len() as u64, "key file is", "key files are")),
        };
        let password = match copy.closed_to_password {
            Some(true) => ", closed to the password it had",
            Some(false) => ", OPEN to the password it had",
            None => "",
        };
        page.line(format!("  {}: {keys}, closed to {}{password}", copy.copy, copy.closed_to.join(" and ")));
    }
    for label in &report.not_tried {
        page.line(format!("  not tried, because it is not at hand: {label}"));
    }
    page.findings(&report.findings);
    page.line("what is stored stays, unreadable: delete the folders to free the space, and take the row out of the policy");
    page.line(format!("evidence {}", report.evidence));
    page.finish()
}
