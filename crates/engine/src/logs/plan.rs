//! From what a user asks for to a point and a stretch of log.

use lifeboat_base::capture::{CaptureFacts, RestoreSource};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, StreamName};
use lifeboat_base::monitor::{Finding, Findings, Monitor};
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::PointRow;
use lifeboat_policy::Store;
use lifeboat_stores::{
    Adapter, CanaryResult, CaptureContext, CheckResult, Continuous, Goal, InPlace, Inspection, Parts,
    RestoreReport, Select, Serve, Stop,
};
use lifeboat_vault::logs::{Inventory, LogsError, LogsLevel, PieceState, Position};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::follow::stream_name;
use super::head::Head;
use super::marks::Marks;
use super::ranges::{Reach, reaches};
use super::source::KeptLog;
use crate::context::Engine;
use crate::copies::{CopyVault, VaultSet};
use crate::error::EngineError;
use crate::restore::Chosen;
use crate::view::in_future;
use crate::when;

/// The word for everything there is.
const LATEST: &str = "latest";

/// A stretch of log to replay on top of a point.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub(crate) goal: Goal,
    pub(crate) from: Position,
    pub(crate) to: Position,
    /// The moment the store will show; for a goal that is no moment, the last that the log reaches.
    pub(crate) moment: Timestamp,
    /// The copy whose log goes that far.
    pub(crate) copy: CopyName,
    /// Everything was asked for, and more is known than can be reached.
    pub(crate) cut: bool,
}

impl Replay {
    /// Ending before what is known to have existed must never happen silently.
    pub(crate) fn finding(&self) -> Option<Finding> {
        let message = format!("the log has a gap after {}: what follows cannot be reached", self.moment);
        self.cut.then(|| Finding::new("log-gap", self.copy.as_str(), message))
    }
}

impl Engine {
    /// How far each usable point of a row reaches in one copy; nothing for a kind without a log or a row that keeps none.
    pub(crate) fn reaches(
        &self,
        row: &Store,
        adapter: &dyn Adapter,
        entry: &CopyVault,
        points: &[&PointRow],
    ) -> Result<Option<Vec<Reach>>, Failure> {
        let Some(store) = adapter.continuous().filter(|_| row.logs.value.is_some()) else { return Ok(None) };
        let stream = stream_name(store)?;
        let inventory = self.log_inventory(row, entry, &stream)?;
        let head = Head::read(&self.log_folder(&row.name))?;
        reaches(points, &inventory, store, head.as_ref()).map(Some)
    }

    /// What one copy holds of a row's log: objects that are known to be damaged do not count, also where their name and
    /// size are right. Each of those is read again, and what is found is remembered.
    fn log_inventory(
        &self,
        row: &Store,
        entry: &CopyVault,
        stream: &StreamName,
    ) -> Result<Inventory, Failure> {
        let logs = entry.vault.logs();
        let mut inventory = logs.inventory(stream, LogsLevel::Listed, &Findings::new())?;
        let marks = Marks::new(&self.log_folder(&row.name));
        let known = marks.of(&entry.copy)?;
        for piece in &mut inventory.pieces {
            let name = piece.name;
            // What cannot be written down is found again by the next look.
            match (&piece.state, known.get(&name)) {
                (PieceState::Lost(why), None) if logs.has(stream, name).map_err(Failure::from)? => {
                    drop(marks.note(&entry.copy, name, why));
                }
                (PieceState::Present, Some(why)) => match logs.read(stream, name) {
                    Ok(_) => drop(marks.clear(&entry.copy, name)),
                    Err(LogsError::Damaged { .. }) => piece.state = PieceState::Lost(why.clone()),
                    Err(error) => return Err(error.into()),
                },
                _ => {}
            }
        }
        Ok(inventory)
    }

    /// The points and stretches of log that lead to what is asked for, the best first; a point may need none. Nothing if
    /// the log has no part in it: a point was named, or the row keeps no log.
    pub(crate) fn plan_replay(
        &self,
        row: &Store,
        adapter: &dyn Adapter,
        set: &VaultSet,
        (at, copy): (Option<&str>, Option<&CopyName>),
    ) -> Result<Vec<(Chosen, Option<Replay>)>, EngineError> {
        if at.is_some_and(|at| at.starts_with("pt-")) {
            return Ok(Vec::new());
        }
        let entries: Vec<&CopyVault> = match copy {
            Some(copy) => set.get(copy).into_iter().collect(),
            None => set.open.iter().collect(),
        };
        let now = self.env.clock.now();
        let view = self.view(row)?;
        let points: Vec<&PointRow> = view
            .points
            .iter()
            .filter(|point| point.usable() && !in_future(point.manifest.facts.consistency.moment, now))
            .collect();
        // Each copy has a log of its own: one that lost a piece must not hide what another still has.
        let mut found: Vec<(Reach, CopyName)> = Vec::new();
        for entry in entries {
            let Some(reaches) = self.reaches(row, adapter, entry, &points)? else { return Ok(Vec::new()) };
            found.extend(reaches.into_iter().map(|reach| (reach, entry.copy.clone())));
        }
        let reaches = &mut found;
        let goal = match at {
            None | Some(LATEST) => Goal::Latest,
            Some(text) => goal(text, || when::parse(text, now, &self.policy.timezone))?,
        };
        // The newest point leaves the least to replay; of several timelines the newest is meant.
        reaches.sort_by_key(|(reach, _)| std::cmp::Reverse((reach.from, reach.end)));
        let asked = match &goal {
            Goal::Moment(moment) => Some(*moment),
            _ => None,
        };
        let fits: Vec<&(Reach, CopyName)> = match &goal {
            Goal::Latest => {
                // Numbers of histories that are named say nothing about one of which no log is kept; times do.
                let by_time = named(adapter);
                reaches
                    .iter()
                    .max_by_key(|(reach, _)| (by_time.then_some(reach.to), reach.end, reach.from))
                    .into_iter()
                    .collect()
            }
            Goal::Moment(moment) => {
                reaches.iter().filter(|(reach, _)| (reach.from..=reach.to).contains(moment)).take(1).collect()
            }
            Goal::Position(offset) => reaches
                .iter()
                .filter(|(reach, _)| (reach.base_end.offset..=reach.end.offset).contains(offset))
                .take(1)
                .collect(),
            // What is named lies somewhere in a log; a point by itself says nothing about it.
            Goal::Named(_) | Goal::Transaction(_) => {
                reaches.iter().filter(|(reach, _)| reach.end != reach.base_end).collect()
            }
        };
        if fits.is_empty() && !reaches.is_empty() {
            return Err(out_of_reach(row, &goal, reaches));
        }
        let plans = fits.into_iter().filter_map(|(reach, copy)| {
            let point = points.iter().find(|point| point.manifest.id == reach.point)?;
            let chosen = Chosen { row: (*point).clone(), asked, passed_over: Vec::new() };
            let moment = asked.unwrap_or(reach.to);
            let cut = matches!(goal, Goal::Latest) && reach.gap_after;
            let replay = Replay {
                goal: goal.clone(),
                from: reach.base_end,
                to: reach.end,
                moment,
                copy: copy.clone(),
                cut,
            };
            // Without log after it, a point is all there is up to the moment.
            Some((chosen, (reach.end != reach.base_end || cut).then_some(replay)))
        });
        Ok(plans.collect())
    }

    /// The row's adapter, restoring with the log of one copy.
    pub(crate) fn replaying(
        &self,
        row: &Store,
        inner: Box<dyn Adapter>,
        entry: &CopyVault,
        replay: &Replay,
    ) -> Result<Replaying, Failure> {
        let store = inner.continuous().ok_or_else(|| {
            Failure::new(FailureKind::Internal, format!("`{}` has no log to replay", row.name))
        })?;
        let (logs, stream) = (entry.vault.logs(), stream_name(store)?);
        let inventory = self.log_inventory(row, entry, &stream)?;
        let log = KeptLog::new(logs, stream, &inventory, replay.from, replay.to)?;
        Ok(Replaying { inner, log, goal: replay.goal.clone(), told: Told::default() })
    }
}

fn named(adapter: &dyn Adapter) -> bool {
    adapter.continuous().is_some_and(Continuous::names_histories)
}

/// What a text asks for.
fn goal(text: &str, moment: impl FnOnce() -> Result<Timestamp, EngineError>) -> Result<Goal, EngineError> {
    if let Some(name) = text.strip_prefix("name:") {
        return Ok(Goal::Named(name.to_owned()));
    }
    if let Some(xid) = text.strip_prefix("xid:") {
        return xid.parse().map(Goal::Transaction).map_err(|_invalid| {
            EngineError::new(FailureKind::Usage, format!("`{xid}` is not the number of a transaction"))
        });
    }
    if let Some(offset) = text.strip_prefix("offset:") {
        return offset.parse().map(Goal::Position).map_err(|_invalid| {
            EngineError::new(FailureKind::Usage, format!("`{offset}` is not an offset"))
        });
    }
    if let Some(offset) = lsn(text) {
        return Ok(Goal::Position(offset));
    }
    moment().map(Goal::Moment)
}

/// A position as servers write it: two hexadecimal numbers, such as `16/B374D848`.
fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let half = |text: &str| {
        let plain = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
    };
    Some(u64::from(half(high)?) << 32 | u64::from(half(low)?))
}

fn out_of_reach(row: &Store, goal: &Goal, reaches: &[(Reach, CopyName)]) -> EngineError {
    let asked = match goal {
        Goal::Moment(moment) => moment.to_string(),
        Goal::Position(offset) => format!("{:X}/{:X}", offset >> 32, offset & 0xFFFF_FFFF),
        Goal::Named(name) => format!("the restore point `{name}`"),
        Goal::Transaction(number) => format!("transaction {number}"),
        Goal::Latest => LATEST.to_owned(),
    };
    let what =
        format!("`{}` cannot be restored to {asked}: no point and log without a gap lead there", row.name);
    let error = EngineError::new(FailureKind::Refused, what);
    let Goal::Moment(moment) = goal else {
        return error.next(format!("lifeboat points {} shows the restorable ranges", row.name));
    };
    let edges = reaches.iter().flat_map(|(reach, _)| [reach.from, reach.to]);
    match edges.min_by_key(|edge| edge.duration_since(*moment).abs()) {
        Some(nearest) => error.next(format!("the nearest moment is --at {nearest}")),
        None => error,
    }
}

/// An adapter whose restores go on through the log.
pub(crate) struct Replaying {
    inner: Box<dyn Adapter>,
    log: KeptLog,
    goal: Goal,
    told: Told,
}

/// Where a replay was told to stop, once it was told.
pub(crate) type Told = Arc<OnceLock<Stop>>;

impl Replaying {
    /// Filled in by a restore.
    pub(crate) fn told(&self) -> Told {
        Arc::clone(&self.told)
    }
}

impl Adapter for Replaying {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn inspect(&self) -> Result<Inspection, Failure> {
        self.inner.inspect()
    }

    fn capture(&self, at: &CaptureContext<'_>) -> Result<Box<dyn lifeboat_base::capture::Capture>, Failure> {
        self.inner.capture(at)
    }

    fn restore(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        into: &Path,
        monitor: &dyn Monitor,
    ) -> Result<RestoreReport, Failure> {
        let mut report = self.inner.restore(from, facts, into, monitor)?;
        if let Some(store) = self.inner.continuous() {
            monitor.phase("fetching the log", None);
            let stop = store.replay(facts, into, &self.log, &self.goal)?;
            self.told.get_or_init(|| stop);
            report.stats.fetched_bytes += self.log.fetched_bytes();
        }
        Ok(report)
    }

    fn essential(&self) -> &'static [&'static str] {
        self.inner.essential()
    }

    fn continuous(&self) -> Option<&dyn Continuous> {
        self.inner.continuous()
    }

    fn identity(&self, facts: &CaptureFacts) -> Option<String> {
        self.inner.identity(facts)
    }

    fn parts(&self) -> Option<&dyn Parts> {
        self.inner.parts()
    }

    fn sweep(&self) -> Result<(), Failure> {
        self.inner.sweep()
    }

    fn selects(&self) -> Option<&dyn Select> {
        self.inner.selects()
    }

    fn serves(&self) -> Option<&dyn Serve> {
        self.inner.serves()
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        self.inner.in_place()
    }

    fn settle(&self, restored: &Path, target: &Path) -> Result<(), Failure> {
        self.inner.settle(restored, target)
    }

    fn checks(
        &self,
        from: &dyn RestoreSource,
        facts: &CaptureFacts,
        restored: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Vec<CheckResult>, Failure> {
        self.inner.checks(from, facts, restored, monitor)
    }

    fn canaries(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        self.inner.canaries(scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_told_apart() {
        let moment = || Ok(Timestamp::UNIX_EPOCH);
        assert_eq!(goal("16/B374D848", moment).unwrap(), Goal::Position(0x16_B374_D848));
        assert_eq!(goal("name:before deploy", moment).unwrap(), Goal::Named("before deploy".to_owned()));
        assert_eq!(goal("xid:1234", moment).unwrap(), Goal::Transaction(1234));
        assert_eq!(goal("2026-01-01 00:00", moment).unwrap(), Goal::Moment(Timestamp::UNIX_EPOCH));
        assert_eq!(goal("offset:1234", moment).unwrap(), Goal::Position(1234));
        assert!(goal("xid:x", moment).is_err());
        assert!(goal("offset:x", moment).is_err());
    }
}
