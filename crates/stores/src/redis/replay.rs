//! Puts kept commands behind the base of a restored directory, up to a goal. Memory: one piece of log.

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::path::Path;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::crashsafe;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::Timestamp;
use lifeboat_redis::aof::{AofError, AofReport, AofWriter};
use lifeboat_redis::replication::Place;
use serde_json::Value;

use super::layout;
use super::restore::databases;
use crate::continuous::{Goal, LogPosition, LogSource, Stop};

/// How much log is asked for at a time.
const STEP_BYTES: u64 = 1024 * 1024;

/// The place a point shows.
pub(super) fn place(facts: &CaptureFacts) -> Result<Place, Failure> {
    let place = facts.consistency.position.as_deref().and_then(|text| text.parse().ok());
    place.ok_or_else(|| {
        Failure::new(FailureKind::Internal, "the recovery point does not say its place in the stream")
    })
}

/// When the server had surely begun its dump.
pub(super) fn earliest(facts: &CaptureFacts) -> Timestamp {
    let begun = facts.environment.get("redis.begun").and_then(Value::as_str);
    begun.and_then(|text| text.parse().ok()).unwrap_or(facts.consistency.moment)
}

/// How far to go: nothing for everything there is.
fn end(goal: &Goal, base: &Place, log: &dyn LogSource) -> Result<Option<LogPosition>, Failure> {
    match goal {
        Goal::Latest => Ok(None),
        Goal::Position(offset) => Ok(log.path().iter().find_map(|(timeline, from, to)| {
            (from..=to).contains(&offset).then_some(LogPosition { timeline: *timeline, offset: *offset })
        })),
        Goal::Moment(moment) => {
            let first = log.path().first().map_or(0, |(timeline, _, _)| *timeline);
            let nothing = LogPosition { timeline: first, offset: base.offset };
            Ok(Some(log.arrived_by(*moment)?.unwrap_or(nothing)))
        }
        Goal::Named(_) | Goal::Transaction(_) => Err(Failure::new(
            FailureKind::Usage,
            "a Redis server has neither named points nor transaction numbers: ask for a moment or `offset:NUMBER`",
        )),
    }
}

/// Writes the commands and says in the configuration how far they go. They end where the stream may be cut.
pub(super) fn replay(
    facts: &CaptureFacts,
    restored: &Path,
    log: &dyn LogSource,
    goal: &Goal,
) -> Result<Stop, Failure> {
    let base = place(facts)?;
    let end = end(goal, &base, log)?;
    let fail = |error| Failure::io("failed to write the commands", error);
    let path = layout::commands(restored);
    let file = OpenOptions::new().write(true).truncate(true).open(&path).map_err(fail)?;
    let aux = facts.environment.get("redis.rdb_aux").and_then(|aux| aux.get("repl-stream-db"));
    let database = aux.and_then(Value::as_str).and_then(|text| text.parse().ok());
    let mut writer = AofWriter::new(BufWriter::new(file), base.offset, database);
    for (timeline, from, to) in log.path().iter().copied() {
        let here = end.filter(|end| end.timeline == timeline);
        let stop = here.map_or(to, |end| end.offset.min(to));
        let mut at = from;
        while at < stop {
            let until = at.saturating_add(STEP_BYTES).min(stop);
            writer.push(&log.read(timeline, at, until)?).map_err(unusable)?;
            at = until;
        }
        if here.is_some() {
            break;
        }
    }
    let report = writer
        .finish(|out, length| {
            out.get_ref().set_len(length)?;
            out.get_ref().sync_all()
        })
        .map_err(unusable)?;
    settle(facts, restored, &base, report)
        .map_err(|error| Failure::io("failed to finish the restored server", error))?;
    let whole = log.path().last().map(|(timeline, _, to)| LogPosition { timeline: *timeline, offset: *to });
    let further = |end: LogPosition| whole.is_some_and(|whole| whole != end);
    Ok(if end.is_some_and(further) { Stop::Goal } else { Stop::End })
}

fn unusable(error: AofError) -> Failure {
    match error {
        AofError::Write(error) => Failure::io("failed to write the commands", error),
        other => Failure::with_source(
            FailureKind::Damaged,
            "the kept stream of commands cannot be replayed",
            other,
        ),
    }
}

fn settle(facts: &CaptureFacts, restored: &Path, base: &Place, report: AofReport) -> std::io::Result<()> {
    if report.commands == 0 {
        // What is there is what was captured.
        return Ok(());
    }
    let to = Place { id: base.id.clone(), offset: report.end };
    let text = layout::configuration(databases(facts).max(report.databases), Some(&to.to_string()));
    crashsafe::replace(&restored.join(layout::CONFIGURATION), text.as_bytes())
}
