//! What stays and what may go, with every reason.

use lifeboat_engine::policy::{Reason, Verdict};
use lifeboat_engine::{RetainReport, StoreRetention};

use super::text::{Page, moment, plural};

/// One block for each store: what stays, newest first, then what may go.
pub(crate) fn page(report: &RetainReport) -> String {
    let mut page = Page::new();
    for store in &report.stores {
        let kept = store.points.iter().filter(|point| matches!(point.verdict, Verdict::Kept(_))).count();
        let logs = store.logs.map(|window| format!(", any moment of the last {window}")).unwrap_or_default();
        page.line(format!(
            "{}: {}{logs}; {} kept, {} may go",
            store.name,
            store.retention,
            plural(kept as u64, "point is", "points are"),
            store.points.len() - kept
        ));
        if store.stalled {
            page.line(format!(
                "  no good point came since: what is kept is what was due at {}",
                moment(store.as_of)
            ));
        }
        verdicts(&mut page, store);
    }
    page.line("nothing was removed: this version only shows what retention means");
    page.findings(&report.findings);
    page.finish()
}

fn verdicts(page: &mut Page, store: &StoreRetention) {
    for point in store.points.iter().rev() {
        if let Verdict::Kept(reasons) = &point.verdict {
            let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
            page.line(format!("  keep  {}  {}  {}", point.id, moment(point.moment), reasons.join(", ")));
        }
    }
    for point in store.points.iter().rev() {
        if let Verdict::Deletable { since, because } = &point.verdict {
            let since = moment(*since);
            page.line(format!("  go    {}  {}  since {since}: {because}", point.id, moment(point.moment)));
        }
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::ids::{PointId, StoreName};
    use lifeboat_base::time::Timestamp;
    use lifeboat_engine::RetainedPoint;
    use lifeboat_engine::policy::Unit;

    use super::*;

    #[test]
    fn a_person_reads_what_stays_first_and_why_the_rest_may_go() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let point = |id: &str, moment: &str, verdict| RetainedPoint {
            id: PointId::new(id).unwrap(),
            moment: at(moment),
            copies: vec!["local".to_owned()],
            verdict,
        };
        let gone = Verdict::Deletable {
            since: at("2026-11-09T00:00:00Z"),
            because: "day 2026-11-01 is over".to_owned(),
        };
        let slot = |unit, slot: &str| Reason::Slot { unit, slot: slot.to_owned() };
        let stays = Verdict::Kept(vec![
            slot(Unit::Day, "2026-11-20"),
            slot(Unit::Week, "2026-W47"),
            Reason::LastGood,
        ]);
        let points = vec![
            point("pt-1", "2026-11-01T02:00:00Z", gone),
            point("pt-2", "2026-11-02T02:00:00Z", Verdict::Kept(vec![slot(Unit::Week, "2026-W45")])),
            point("pt-3", "2026-11-20T02:00:00Z", stays),
        ];
        let store = StoreRetention {
            name: StoreName::new("shop").unwrap(),
            retention: "7d 4w".parse().unwrap(),
            logs: Some("14d".parse().unwrap()),
            as_of: at("2026-11-22T02:00:00Z"),
            stalled: true,
            points,
        };
        let report = RetainReport {
            schema: "lifeboat.retain/v1",
            at: at("2026-11-29T00:00:00Z"),
            stores: vec![store],
            findings: Vec::new(),
        };
        insta::assert_snapshot!(page(&report));
    }
}
