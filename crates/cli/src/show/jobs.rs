//! Backups, verifications, restores and rebuilds.

use lifeboat_base::human::{self, printable};
use lifeboat_engine::{
    BackupReport, CopyLocks, CopyVerification, FollowReport, RebuildReport, RestoreOutcome, StoreBackup,
    VerifyReport,
};

use super::text::{Page, moment, plural};

/// One line of truth for each store.
pub(crate) fn backup(report: &BackupReport) -> String {
    let mut page = Page::new();
    for store in &report.stores {
        backup_store(store, &mut page);
    }
    page.findings(&report.findings);
    page.finish()
}

fn backup_store(store: &StoreBackup, page: &mut Page) {
    match (&store.point, store.moment) {
        (Some(point), Some(at)) if store.outcome == "captured" => {
            let copies: Vec<String> = store.copies.iter().map(ToString::to_string).collect();
            page.line(format!(
                "{}: {point} shows {}; {} in all, {} new, {} stored, in {} ({})",
                store.name,
                moment(at),
                human::bytes(store.logical_bytes),
                human::bytes(store.new_bytes),
                human::bytes(store.stored_bytes),
                copies.join(" and "),
                human::seconds(store.seconds)
            ));
        }
        _ if store.outcome == "not_retained" => {
            let of = |name: &str| store.looked_at.get(name).map(|number| human::count(*number));
            let looked = match (of("keys"), of("endless")) {
                (Some(keys), Some(endless)) => {
                    format!("; {keys} keys in it, {endless} of them without a time to live")
                }
                _ => String::new(),
            };
            page.line(format!("{}: not retained by policy, nothing captured{looked}", store.name));
        }
        _ => {
            page.line(format!("{}: FAILED, no recovery point made", store.name));
        }
    }
    locked(&store.locks, page);
    page.findings(&store.findings).at_risk(&store.at_risk);
    if let Some(next) = &store.next {
        page.line(format!("  next: {next}"));
    }
}

/// What a pass locked, one line for each copy.
pub(super) fn locked(locks: &[CopyLocks], page: &mut Page) {
    for copy in locks {
        let until = copy.until.map(|until| format!(", the last until {}", moment(until))).unwrap_or_default();
        let soft = match copy.soft {
            0 => String::new(),
            soft => format!("; {} by Lifeboat alone (soft)", human::count(soft)),
        };
        page.line(format!(
            "  {}: {} looked at, {} locked longer now{until}{soft}",
            copy.copy,
            plural(copy.objects, "object", "objects"),
            human::count(copy.extended)
        ));
    }
}

/// What was read and what it proved.
pub(crate) fn verify(report: &VerifyReport) -> String {
    let mut page = Page::new();
    for copy in &report.copies {
        verify_copy(copy, &mut page);
    }
    // Damaged objects were named above, with the points they affect.
    let others: Vec<_> =
        report.findings.iter().filter(|finding| finding.code != "object-damaged").cloned().collect();
    page.findings(&others);
    if report.copies.iter().any(|copy| !copy.damaged.is_empty()) {
        page.line("next: `lifeboat points` shows which recovery points are sound and in which copy");
    }
    page.finish()
}

fn verify_copy(copy: &CopyVerification, page: &mut Page) {
    let speed = format!(
        "{} files, {} in {}",
        human::count(copy.files),
        human::bytes(copy.bytes),
        human::seconds(copy.seconds)
    );
    if let Some(why) = &copy.error {
        page.line(format!("{} in {}: NOT VERIFIED, its vault does not open: {why}", copy.store, copy.copy));
    } else if copy.broken.is_empty() && copy.damaged.is_empty() {
        let points = plural(copy.proven.len() as u64, "point", "points");
        page.line(format!("{} in {}: {points} proven as {} ({speed})", copy.store, copy.copy, copy.level));
    } else {
        page.line(format!(
            "{} in {}: DAMAGED, {} of {} proven as {} ({speed})",
            copy.store,
            copy.copy,
            copy.proven.len(),
            plural((copy.proven.len() + copy.broken.len()) as u64, "point", "points"),
            copy.level
        ));
    }
    if let Some(locks) = &copy.locks {
        let short = match locks.short {
            0 => String::new(),
            short => format!(", {} TOO SHORT OR NOT AT ALL", human::count(short)),
        };
        let soft = match locks.soft {
            0 => String::new(),
            soft => format!(", {} by Lifeboat alone (soft)", human::count(soft)),
        };
        page.line(format!("  {} are to be locked{short}{soft}", plural(locks.objects, "object", "objects")));
    }
    for object in &copy.damaged {
        let points: Vec<&str> = object.points.iter().map(lifeboat_base::ids::PointId::as_str).collect();
        let hit = match points.as_slice() {
            [] if object.object.contains("/logs/") => {
                "every moment behind it that no other copy holds".to_owned()
            }
            [] => "no recovery point".to_owned(),
            points => points.join(", "),
        };
        page.line(format!("  {}: {}; affects {hit}", object.object, object.why));
    }
}

/// What was restored and what it shows.
pub(crate) fn restore(outcome: &RestoreOutcome) -> String {
    let mut page = Page::new();
    if let Some(asked) = outcome.asked {
        page.line(format!("asked for {}", moment(asked)));
    }
    let checks = match outcome.checks {
        Some(count) => format!("{} passed", plural(count as u64, "check", "checks")),
        None => "checks skipped".to_owned(),
    };
    let replayed = if outcome.replayed { ", its log replayed" } else { "" };
    let what = match &outcome.part {
        Some(part) => format!("database {} extracted", printable(&part.database)),
        None => "restored".to_owned(),
    };
    page.line(format!(
        "{}: {} from {} {what} to {}",
        outcome.store,
        outcome.point,
        outcome.copy,
        outcome.artefact.display()
    ));
    for table in outcome.part.iter().flat_map(|part| &part.tables) {
        let rows = table.rows.map(|rows| format!(": {}", plural(rows, "row", "rows"))).unwrap_or_default();
        page.line(format!("  {}{rows}", printable(&table.name)));
    }
    page.line(format!(
        "  shows {}{replayed}; {}, {}, {checks} ({})",
        moment(outcome.moment),
        plural(outcome.files, "file", "files"),
        human::bytes(outcome.bytes),
        human::seconds(outcome.seconds)
    ));
    if let Some(loaded) = &outcome.loaded {
        let passed = match loaded.passed {
            0 => String::new(),
            passed => format!("; {} had ended and were left out", plural(passed, "key", "keys")),
        };
        let other = |count: u64, what: &str| match count {
            0 => String::new(),
            count => format!(", {} {what}", human::count(count)),
        };
        let others = [
            other(loaded.replaced, "of them in place of others"),
            other(loaded.unchanged, "were there already"),
            other(loaded.skipped, "left as they were"),
        ]
        .concat();
        page.line(format!(
            "  {} loaded{others}, {} compared afterwards{passed}",
            plural(loaded.items, "key", "keys"),
            human::count(loaded.compared)
        ));
    }
    if outcome.kept_bytes > 0 || outcome.removed > 0 {
        page.line(format!(
            "  {} were there already, {} fetched from the vault; {} removed",
            human::bytes(outcome.kept_bytes),
            human::bytes(outcome.fetched_bytes),
            plural(outcome.removed, "entry", "entries")
        ));
    }
    for folder in &outcome.left {
        page.line(format!("  {} is no longer part of it; what is in it was left as it is", folder.display()));
    }
    page.findings(&outcome.findings);
    page.finish()
}

/// What following a log came to.
pub(crate) fn follow(report: &FollowReport) -> String {
    let mut page = Page::new();
    let as_of =
        report.as_of.map(|at| format!(", everything before {} is held", moment(at))).unwrap_or_default();
    page.line(format!(
        "{}: {} of log received, {} brought to every copy{as_of}",
        report.store,
        human::bytes(report.received_bytes),
        plural(report.shipped, "piece", "pieces")
    ));
    if report.waiting_bytes > 0 {
        page.line(format!("  {} wait here for the copies", human::bytes(report.waiting_bytes)));
    }
    page.findings(&report.findings);
    page.finish()
}

/// What a rebuild found.
pub(crate) fn rebuild(report: &RebuildReport) -> String {
    let mut page = Page::new();
    page.line(format!(
        "catalog made again: {} and {} found",
        plural(report.points as u64, "recovery point", "recovery points"),
        plural(report.runs as u64, "run", "runs")
    ))
    .findings(&report.findings);
    page.finish()
}
