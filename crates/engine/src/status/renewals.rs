//! When the proofs that a row asks for are to be renewed, so that none lapses.

use std::time::Duration;

use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{ProofLevel, RunRow};
use lifeboat_policy::Span;

use super::{Facts, says};
use crate::due::{RETRY, RETRY_DRILL, Task};
use crate::view::drill_digest;

/// How far back a drill of a moment within the log goes.
const LOG_MOMENT: &str = "10 minutes ago";

/// A task and when it is due; nothing if never.
pub(crate) struct Renewal {
    pub(crate) task: Task,
    pub(crate) at: Option<Timestamp>,
}

/// One for each proof that the row asks for, as soon as there is something to prove.
pub(super) fn renewals(facts: &Facts<'_>) -> Vec<Renewal> {
    if facts.points.is_empty() {
        return Vec::new();
    }
    let asked = facts.row.verify.value.levels();
    let asked = asked.into_iter().filter_map(|(word, span)| Some((word, span?)));
    asked.filter_map(|(word, span)| renewal(facts, word, span)).collect()
}

fn renewal(facts: &Facts<'_>, word: &str, span: Span) -> Option<Renewal> {
    let store = facts.row.name.clone();
    let drill = |store, at| Task::Drill { store, at };
    let current = |run: &&RunRow| says(Some(run), "row", drill_digest(facts.row)) && run.at <= facts.now;
    let (task, proven, tried, retry) = match word {
        "checksum" => read(facts, ProofLevel::Checksummed),
        "readable" => read(facts, ProofLevel::Readable),
        "pitr" => {
            let last = facts.pitr.as_ref().filter(current);
            let proven = last.filter(|run| run.body.get("pitr") == Some(&serde_json::Value::Bool(true)));
            (drill(Some(store), Some(LOG_MOMENT.to_owned())), proven.map(|run| run.at), last, RETRY_DRILL)
        }
        "drill" if facts.has_partners => {
            let last = facts.together.as_ref().filter(current);
            (drill(None, None), last.filter(|run| run.ok).map(|run| run.at), last, RETRY_DRILL)
        }
        "restore" | "drill" => {
            let proven = facts.proven(ProofLevel::Restored).map(|(_point, at, _evidence)| at);
            let last = facts.drill.as_ref().filter(|run| run.at <= facts.now);
            (drill(Some(store), None), proven, last, RETRY_DRILL)
        }
        _ => return None,
    };
    let due = match proven.filter(|at| *at <= facts.now) {
        Some(at) => at.checked_add(renewed_after(span)).ok(),
        None => Some(facts.now),
    };
    // What was tried since and did not prove it is left alone for a while.
    let since = tried.filter(|run| proven.is_none_or(|proven| run.at > proven));
    let wait = since.and_then(|run| run.at.checked_add(retry).ok());
    Some(Renewal { task, at: due.map(|due| wait.map_or(due, |wait| due.max(wait))) })
}

type Known<'a> = (Task, Option<Timestamp>, Option<&'a RunRow>, Duration);

/// What lies in a copy is proven by reading that copy: the one that was read the longest ago counts.
fn read<'a>(facts: &'a Facts<'_>, level: ProofLevel) -> Known<'a> {
    let of = |copy| {
        facts.points.iter().filter_map(|point| point.proven_in(level, copy)).map(|proof| proof.at).max()
    };
    let each: Option<Vec<Timestamp>> = facts.row.copies.value.iter().map(of).collect();
    let proven = each.and_then(|each| each.into_iter().min());
    let tried = facts
        .verify
        .iter()
        .map(|(_copy, run)| run)
        .filter(|run| run.at <= facts.now)
        .max_by_key(|run| run.at);
    (Task::Verify { store: facts.row.name.clone(), level }, proven, tried, RETRY)
}

/// Proofs are renewed when three quarters of their time have passed.
fn renewed_after(span: Span) -> Duration {
    span.approx() * 3 / 4
}
