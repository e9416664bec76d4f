//! Retention: which recovery points of a row stay, for which reasons, which may go, and their removal from every copy.
//!
//! A plan is made from the union of the open copies and bound to the state of each. Applied, its intent is filed first; a
//! signed record then stands in every copy before anything is removed; what came of it is filed last.

use std::time::Duration;

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{PointId, StoreName};
use lifeboat_base::lease::Lease;
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{PointRow, ProofLevel};
use lifeboat_policy::{
    Candidate, Decided, Gfs, Retention, Rules, Soundness, Span, Store, Verdict, ceiling, decide,
};
use lifeboat_vault::Vault;
use lifeboat_vault::retire::{DroppedPoint, RetireOptions, RetirePlan, Wanted};
use serde::Serialize;
use serde_json::json;

use crate::backup::{Collector, fill_first, fill_rest, worst};
use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::{AtRisk, EngineError};
use crate::holds::Held;

mod apply;
mod floors;

pub use self::apply::{Applied, AppliedCopy};

/// How long space of what was dropped stays before it may be freed, unless asked otherwise.
const DEFAULT_GRACE: Duration = Duration::from_secs(86_400);
/// Captures that are looked at to tell whether the clock jumped.
const CAPTURES: u32 = 400;
/// The most points dropped in one run; the oldest go first, the rest waits for the next run.
const MAX_POINTS: usize = 5_000;

/// How retention is run.
#[derive(Clone, Debug, Default)]
pub struct RetainOptions {
    /// Remove what may go; else only show it.
    pub apply: bool,
    /// Only if the plan is still the one with this digest, or a beginning of it.
    pub plan: Option<String>,
    /// How long space of what was dropped stays before it may be freed; a day unless given.
    pub grace: Option<Duration>,
}

/// One point and what becomes of it.
#[derive(Clone, Debug, Serialize)]
pub struct RetainedPoint {
    /// The point.
    pub id: PointId,
    /// The moment it shows.
    pub moment: Timestamp,
    /// The copies that list it.
    pub copies: Vec<String>,
    /// Why it stays, or since when nothing keeps it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Space that waits until it may be freed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// From when on.
    pub until: Timestamp,
    /// Bytes, in each copy.
    pub bytes: u64,
}

/// What the plan means for space, in each copy.
#[derive(Clone, Debug, Serialize)]
pub struct SpacePlan {
    /// Bytes that something kept needs.
    pub used_bytes: u64,
    /// Bytes that nothing needs, in packs that stay because at least half of each is needed.
    pub unused_bytes: u64,
    /// Bytes that will wait for their removal from now on.
    pub mark_bytes: u64,
    /// Bytes that are written again, because less than half of their packs is needed.
    pub rewrite_bytes: u64,
    /// Bytes that have waited and go.
    pub remove_bytes: u64,
    /// Bytes that wait longer.
    pub waiting: Vec<Waiting>,
    /// Why no space is freed, if so.
    pub blocked: Option<String>,
}

/// How much of a log may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogPlan {
    /// The stream.
    pub stream: String,
    /// The timeline.
    pub timeline: u32,
    /// Up to where, in the engine's own unit.
    pub below: u64,
}

/// What retention means for one store now.
#[derive(Clone, Debug, Serialize)]
pub struct StoreRetention {
    /// The store.
    pub name: StoreName,
    /// The slots.
    pub retention: Gfs,
    /// The window of its log.
    pub logs: Option<Span>,
    /// The moment the calendar was read at: it stands still while no new good point comes.
    pub as_of: Timestamp,
    /// Whether it stands still.
    pub stalled: bool,
    /// Every point, oldest moment first.
    pub points: Vec<RetainedPoint>,
    /// Log that may go.
    pub log: Vec<LogPlan>,
    /// Names this plan: what it drops, and the state of every copy it was made for.
    pub plan: Option<Digest>,
    /// What it means for space; nothing if no copy could be looked into.
    pub space: Option<SpacePlan>,
    /// What applying it did.
    pub applied: Option<Applied>,
}

/// The answer of `lifeboat retain`.
#[derive(Clone, Debug, Serialize)]
pub struct RetainReport {
    /// `lifeboat.retain/v1`.
    pub schema: &'static str,
    /// When it was made.
    pub at: Timestamp,
    /// The stores that are retained.
    pub stores: Vec<StoreRetention>,
    /// Contradictions, copies that could not be asked, and what could not be done.
    pub findings: Vec<Finding>,
    /// Promises now at risk.
    pub at_risk: Vec<AtRisk>,
    /// What to do next.
    pub next: Option<String>,
}

impl RetainReport {
    /// The worst thing found.
    pub fn worst(&self) -> Option<FailureKind> {
        worst(self.findings.iter())
    }
}

/// A store's plan, ready to be applied.
struct Planned<'a> {
    row: &'a Store,
    set: VaultSet,
    view: StoreRetention,
    plan: Option<RetirePlan>,
    _lease: Option<Lease>,
}

impl Engine {
    /// What becomes of every point of the stores named, or of all that are retained; with `apply`, what may go is removed.
    /// A store that fails keeps no other from being looked after.
    pub fn retain(&self, names: &[StoreName], options: &RetainOptions) -> Result<RetainReport, EngineError> {
        let now = self.env.clock.now();
        let mut report = RetainReport {
            schema: "lifeboat.retain/v1",
            at: now,
            stores: Vec::new(),
            findings: Vec::new(),
            at_risk: Vec::new(),
            next: None,
        };
        let rows = self.select(names)?;
        let kept = |row: &&Store| matches!(row.retention.value, Retention::Keep(_));
        let rows: Vec<&Store> = rows.into_iter().filter(kept).collect();
        if rows.is_empty() {
            return Err(EngineError::new(FailureKind::Refused, "there is no retained store")
                .next("name a store whose retention is not `none`"));
        }
        if options.plan.is_some() && rows.len() != 1 {
            return Err(EngineError::new(FailureKind::Usage, "a plan is that of one store")
                .next("name the store whose plan was shown"));
        }
        if options.apply {
            self.ready_to_file()?;
        }
        for row in rows {
            let Retention::Keep(keep) = row.retention.value else { continue };
            match self.retain_store(row, keep, options, &mut report.findings) {
                Ok(store) => report.stores.push(store),
                Err(error) if options.apply => self.retain_failed(row, error, &mut report),
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    fn retain_store(
        &self,
        row: &Store,
        keep: Gfs,
        options: &RetainOptions,
        findings: &mut Vec<Finding>,
    ) -> Result<StoreRetention, EngineError> {
        let planned = self.plan_retention(row, keep, options, findings)?;
        if !options.apply {
            return Ok(planned.view);
        }
        if let (Some(wanted), Some(found)) = (&options.plan, planned.view.plan)
            && !found.to_string().starts_with(wanted.as_str())
        {
            return Err(EngineError::new(
                FailureKind::Refused,
                format!("the plan of `{}` is {found} now, not {wanted}: something changed since", row.name),
            )
            .next(format!("look at it again: lifeboat retain {}", row.name)));
        }
        self.apply_retention(planned, findings)
    }

    fn plan_retention<'a>(
        &self,
        row: &'a Store,
        keep: Gfs,
        options: &RetainOptions,
        findings: &mut Vec<Finding>,
    ) -> Result<Planned<'a>, EngineError> {
        let now = self.env.clock.now();
        let lease = options.apply.then(|| self.lease(&row.name, "retention")).transpose()?;
        let set = self.open_vaults(row)?;
        findings.extend(set.findings());
        if options.apply {
            // What a copy lacks may be what another one is about to lose its only other place of.
            let monitor = Collector::new(self.observer.job(&format!("retention of {}", row.name)));
            findings.extend(fill_first(&set, &monitor));
            findings.extend(fill_rest(&set, &monitor));
            findings.extend(monitor.take());
        }
        findings.extend(self.reconcile(row, &set)?);
        let mut points = self.view(row)?.points;
        let listed: Vec<Vec<String>> = points.iter().map(copies_of).collect();
        for point in &mut points {
            // What nobody can look at now is relied on by nothing that goes.
            point.holdings.retain(|held| set.get(&held.copy).is_some());
        }
        let rules = self.rules(row, keep)?;
        let held = self.on_hold(row, &set)?;
        let candidates = points.iter().map(|point| candidate(point, &held)).collect();
        let decided = decide(&rules, candidates, now);
        findings.extend(overstayed(row, &decided));
        let floors = if held.covers_log() {
            Vec::new()
        } else {
            self.log_floors(row, &set, (&rules, &points), (&decided, now))?
        };
        let dropped = dropped(&points, &decided);
        let copies: Vec<&Vault> = set.open.iter().map(|entry| &entry.vault).collect();
        let grace = options.grace.unwrap_or(DEFAULT_GRACE);
        let plan = if copies.is_empty() {
            None
        } else {
            let wanted = Wanted { points: &dropped, logs: &floors };
            let options = RetireOptions { now, grace, all_open: copies.len() == row.copies.value.len() };
            Some(RetirePlan::new(&copies, &wanted, &options).map_err(Failure::from)?)
        };
        if let Some(why) = plan.as_ref().and_then(|plan| plan.blocked.as_ref()) {
            let message = format!("no space of `{}` is freed: {why}", row.name);
            findings.push(
                Finding::new("space-not-freed", row.name.as_str(), message).with_kind(FailureKind::Damaged),
            );
        }
        let log = floors.iter().map(|floor| LogPlan {
            stream: floor.stream.to_string(),
            timeline: floor.timeline,
            below: floor.below,
        });
        let verdicts = decided.points.into_iter().zip(listed);
        let points = verdicts.map(|(decision, copies)| RetainedPoint {
            id: decision.id,
            moment: decision.moment,
            copies,
            verdict: decision.verdict,
        });
        let view = StoreRetention {
            name: row.name.clone(),
            retention: keep,
            logs: row.logs.value,
            as_of: decided.as_of,
            stalled: decided.stalled,
            points: points.collect(),
            log: log.collect(),
            plan: plan.as_ref().map(|plan| digest(row, plan)),
            space: plan.as_ref().map(|plan| space(plan, grace)),
            applied: None,
        };
        Ok(Planned { row, set, view, plan, _lease: lease })
    }

    /// What is asked of a row's points.
    fn rules<'a>(&'a self, row: &Store, keep: Gfs) -> Result<Rules<'a>, EngineError> {
        let locks = row.copies.value.iter().filter_map(|copy| self.policy.copies.get(copy)?.lock);
        let locks = locks.map(|lock| lock.min);
        let interval = row.schedule.value.as_ref().map(lifeboat_policy::Schedule::longest_interval);
        let captures = self.catalog()?.capture_times(&row.name, CAPTURES).map_err(Failure::from)?;
        Ok(Rules {
            keep,
            window: row.logs.value,
            minimum: row.immutability.value.into_iter().chain(locks).max_by_key(Span::approx),
            interval,
            ceiling: ceiling(&captures, interval),
            zone: &self.policy.timezone,
        })
    }

    /// The verdicts on `points`, in their order: that of moments. By the holds that were filed here; copies are not asked.
    pub(crate) fn decide(
        &self,
        row: &Store,
        keep: Gfs,
        points: &[PointRow],
        now: Timestamp,
    ) -> Result<Decided, EngineError> {
        let none = VaultSet { open: Vec::new(), healed: Vec::new(), absent: Vec::new(), failed: Vec::new() };
        let held = self.on_hold(row, &none)?;
        let candidates = points.iter().map(|point| candidate(point, &held)).collect();
        Ok(decide(&self.rules(row, keep)?, candidates, now))
    }
}

fn copies_of(point: &PointRow) -> Vec<String> {
    point.holdings.iter().map(|held| held.copy.to_string()).collect()
}

/// Points that may go, the oldest first.
fn dropped(points: &[PointRow], decided: &Decided) -> Vec<DroppedPoint> {
    let pairs = points.iter().zip(&decided.points);
    let gone = pairs.filter_map(|(point, decision)| match &decision.verdict {
        Verdict::Deletable { since, because } => Some(DroppedPoint {
            id: decision.id.clone(),
            moment: decision.moment,
            snapshot: point.manifest.snapshot,
            since: *since,
            because: because.clone(),
        }),
        Verdict::Kept(_) => None,
    });
    gone.take(MAX_POINTS).collect()
}

/// Names a plan by what it does and what it was made for, not by when.
fn digest(row: &Store, plan: &RetirePlan) -> Digest {
    let points: Vec<&PointId> = plan.record.points.iter().map(|point| &point.id).collect();
    let document = json!({
        "store": row.name, "points": points, "logs": plan.record.logs, "states": plan.states,
        "snapshots": plan.record.snapshots,
    });
    Digest::of(document.to_string().as_bytes())
}

fn space(plan: &RetirePlan, grace: Duration) -> SpacePlan {
    let mut waiting: Vec<Waiting> = Vec::new();
    for (at, bytes) in &plan.waiting {
        let until = at.checked_add(grace).unwrap_or(Timestamp::MAX);
        match waiting.iter_mut().find(|known| known.until == until) {
            Some(known) => known.bytes += bytes,
            None => waiting.push(Waiting { until, bytes: *bytes }),
        }
    }
    waiting.sort_by_key(|waiting| waiting.until);
    SpacePlan {
        used_bytes: plan.used_bytes,
        unused_bytes: plan.unused_bytes,
        mark_bytes: plan.mark_bytes(),
        rewrite_bytes: plan.rewrite.iter().map(|rewrite| rewrite.used_bytes).sum(),
        remove_bytes: plan.remove_bytes,
        waiting,
        blocked: plan.blocked.clone(),
    }
}

fn candidate(point: &PointRow, held: &Held) -> Candidate {
    let soundness = match (point.usable(), point.complete()) {
        (false, _) => Soundness::Damaged,
        (true, false) => Soundness::Incomplete,
        (true, true) => Soundness::Good,
    };
    Candidate {
        id: point.manifest.id.clone(),
        moment: point.manifest.facts.consistency.moment,
        ended: point.manifest.ended,
        soundness,
        restored: point.proven(ProofLevel::Restored).is_some(),
        holds: held.of(&point.manifest.id, point.manifest.facts.consistency.moment),
    }
}

/// Two promises that contradict each other are told, not settled in silence.
fn overstayed(row: &Store, decided: &Decided) -> Option<Finding> {
    let first = decided.overstayed.first()?;
    let message = format!(
        "`{}` promises to keep {} and to refuse deletion for longer: {} points stay only for that, {first} first",
        row.name,
        row.retention.value,
        decided.overstayed.len()
    );
    Some(Finding::new("lock-outlives-retention", row.name.as_str(), message))
}
