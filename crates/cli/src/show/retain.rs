//! What stays and what may go, with every reason.

use lifeboat_base::human::bytes;
use lifeboat_engine::policy::{Reason, Verdict};
use lifeboat_engine::{Applied, RetainReport, SpacePlan, StoreRetention};

use super::jobs::locked;
use super::text::{Page, moment, plural};

/// Digits of a plan's name that are shown; as many are enough to ask for it.
const PLAN_DIGITS: usize = 16;

/// One block for each store: what stays, newest first, then what may go, or what went.
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
        page_of_time(&mut page, store);
        verdicts(&mut page, store);
        for log in &store.log {
            page.line(format!(
                "  log   {} timeline {} up to {:#x} may go",
                log.stream, log.timeline, log.below
            ));
        }
        match (&store.applied, &store.space) {
            (Some(done), _) => applied(&mut page, store, done),
            (None, Some(plan)) => space(&mut page, store, plan),
            (None, None) => {}
        }
    }
    if report.stores.iter().any(|store| store.applied.is_none()) {
        page.line("nothing was removed: add --apply");
    }
    page.findings(&report.findings).at_risk(&report.at_risk);
    if let Some(next) = &report.next {
        page.line(format!("  next: {next}"));
    }
    page.finish()
}

/// At which moment the calendar was read, if that is not now.
fn page_of_time(page: &mut Page, store: &StoreRetention) {
    let due = |at| format!("what is kept is what was due at {}", moment(at));
    let line = match (store.as_of, store.doubt) {
        (None, _) => "there is no good point: nothing gets older".to_owned(),
        (Some(at), Some(gap)) => {
            let (from, to) = (moment(gap.from), moment(gap.to));
            format!("nothing was captured between {from} and {to}: {}", due(at))
        }
        (Some(at), None) if store.stalled => format!("nothing was captured since: {}", due(at)),
        (Some(_), None) => return,
    };
    page.line(format!("  {line}"));
}

/// What the plan means for space; a row for which it means nothing has none.
fn space(page: &mut Page, store: &StoreRetention, plan: &SpacePlan) {
    if plan.mark_bytes > 0 {
        page.line(format!("  space {} in each copy waits for its removal", bytes(plan.mark_bytes)));
    }
    if plan.remove_bytes > 0 {
        page.line(format!("  space {} in each copy has waited and is freed", bytes(plan.remove_bytes)));
    }
    for copy in &store.locked {
        let until = copy.until.map_or("a time nobody knows".to_owned(), moment);
        let objects = plural(copy.objects, "object", "objects");
        page.line(format!("  lock  {objects} in {} that may go stay until {until}: locked", copy.copy));
    }
    for waiting in &plan.waiting {
        page.line(format!(
            "  space {} in each copy waits until {}",
            bytes(waiting.bytes),
            moment(waiting.until)
        ));
    }
    if plan.unused_bytes > 0 {
        let (unused, used) = (bytes(plan.unused_bytes), bytes(plan.used_bytes));
        page.line(format!("  space {unused} lies unused between {used} that are needed"));
    }
    if let Some(plan) = &store.plan {
        page.line(format!("  plan  {}", plan.to_string().get(..PLAN_DIGITS).unwrap_or_default()));
    }
}

fn applied(page: &mut Page, store: &StoreRetention, done: &Applied) {
    page.line(format!(
        "  {} dropped, {} freed in {}, {} in each copy waits for its removal",
        plural(done.dropped.len() as u64, "point", "points"),
        bytes(done.freed_bytes),
        plural(done.copies.len() as u64, "copy", "copies"),
        bytes(
            done.marked_bytes
                + store.space.iter().flat_map(|space| &space.waiting).map(|one| one.bytes).sum::<u64>()
        )
    ));
    if !done.taken_over.is_empty() {
        page.line(format!(
            "  {} dropped before, as records say of which the evidence chain here knew nothing",
            plural(done.taken_over.len() as u64, "point was", "points were")
        ));
    }
    for copy in &done.copies {
        let Some(absence) = &copy.absence else {
            page.line(format!("  {}: NOT KNOWN what is left: it could not be looked at", copy.copy));
            continue;
        };
        let looked = absence.points + absence.objects;
        let verdict = if absence.holds() { "none is left" } else { "NOT ALL ARE GONE" };
        page.line(format!("  {}: {looked} retired things looked for, {verdict}", copy.copy));
        if let Some(first) = absence.locked.first() {
            let until = absence.locked_until.map_or("a time nobody knows".to_owned(), moment);
            page.line(format!(
                "  {}: {} stay until {until}, for locks keep them: {} first, {}",
                copy.copy,
                plural(absence.locked_count, "retired thing", "retired things"),
                first.object,
                first.locked.as_deref().unwrap_or("locked")
            ));
        }
    }
    locked(&done.locks, page);
    for copy in &done.away {
        page.line(format!("  {copy}: away; what was dropped stays there until it is back"));
    }
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
            let locked =
                point.locked.as_ref().map(|lock| format!("; waits: {}", lock.why)).unwrap_or_default();
            page.line(format!(
                "  go    {}  {}  since {since}: {because}{locked}",
                point.id,
                moment(point.moment)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::ids::{CopyName, PointId, StoreName};
    use lifeboat_base::time::Timestamp;
    use lifeboat_engine::policy::Unit;
    use lifeboat_engine::{LockWait, LockedCopy, LogPlan, RetainedPoint, Waiting};

    use super::*;

    #[test]
    fn a_person_reads_what_stays_first_and_why_the_rest_may_go() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let point = |id: &str, moment: &str, verdict| RetainedPoint {
            id: PointId::new(id).unwrap(),
            moment: at(moment),
            copies: vec!["local".to_owned()],
            locked: matches!(verdict, Verdict::Deletable { .. }).then(|| LockWait {
                why: "locked until 2026-12-05T02:00:00Z (governance)".to_owned(),
                until: Some(at("2026-12-05T02:00:00Z")),
            }),
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
            as_of: Some(at("2026-11-22T02:00:00Z")),
            stalled: true,
            doubt: None,
            points,
            log: vec![LogPlan { stream: "wal".to_owned(), timeline: 1, below: 0x1600_0000 }],
            plan: Some("0123456789abcdef".repeat(4).parse().unwrap()),
            space: Some(SpacePlan {
                used_bytes: 9 << 20,
                unused_bytes: 1 << 20,
                mark_bytes: 5 << 20,
                rewrite_bytes: 0,
                remove_bytes: 3 << 20,
                waiting: vec![Waiting { until: at("2026-11-23T02:00:00Z"), bytes: 2 << 20 }],
                blocked: None,
            }),
            locked: vec![LockedCopy {
                copy: CopyName::new("local").unwrap(),
                objects: 7,
                until: Some(at("2026-12-06T02:00:00Z")),
            }],
            applied: None,
        };
        let report = RetainReport {
            schema: "lifeboat.retain/v1",
            at: at("2026-11-29T00:00:00Z"),
            stores: vec![store],
            findings: Vec::new(),
            at_risk: Vec::new(),
            next: None,
        };
        insta::assert_snapshot!(page(&report));
    }
}
