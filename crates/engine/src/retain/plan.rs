//! The plan for one store: what stays and goes by the rules, by the holds, and by what the copies really have.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::PointId;
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::PointRow;
use lifeboat_policy::{Decided, Gap, Gfs, Rules, Store, Verdict, decide};
use lifeboat_vault::Vault;
use lifeboat_vault::retire::{BadBlobs, DroppedPoint, Filed, LogFloor, RetireOptions, RetirePlan, Wanted};
use serde_json::json;

use super::locked::{LockWait, locked_copies, point_waits};
use super::lost::Lost;
use super::time::candidate;
use super::{LogPlan, Planned, RetainOptions, RetainedPoint, SpacePlan, StoreRetention, Waiting};
use crate::backup::{COPY_BEHIND, Collector, fill_first, fill_rest};
use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::EngineError;
use crate::holds::Held;

/// How long space of what was dropped stays before it may be freed, unless asked otherwise.
const DEFAULT_GRACE: Duration = Duration::from_secs(86_400);
/// The most points dropped in one run; the oldest go first, the rest waits for the next run.
pub(super) const MAX_POINTS: usize = 5_000;
/// Where a retention kept so many points or more since a person last looked, one that would keep less than half of them needs a
/// word: a clock that is wrong makes much old, at once or day by day, and new points do not take its place.
const MANY: usize = 8;
/// How often it is decided again because what was to stay cannot be restored; after that nothing is dropped.
const MAX_ROUNDS: usize = 4;

/// What a plan is made from.
struct Ground<'a> {
    row: &'a Store,
    set: &'a VaultSet,
    rules: Rules<'a>,
    held: Held,
    filed: &'a Filed,
    bad: &'a BadBlobs,
    options: RetireOptions,
    /// How many points retentions kept at most; nothing if a person has seen what is about to go.
    kept_most: Option<usize>,
    /// Why nothing is dropped, if so.
    held_up: Option<String>,
}

/// A decision and the plan for it.
struct Drawn {
    decided: Decided,
    floors: Vec<LogFloor>,
    plan: Option<RetirePlan>,
    /// Points that are to stay and that no copy at hand can give.
    broken: BTreeMap<PointId, String>,
    /// Why nothing is dropped, if so.
    held_up: Option<String>,
}

impl Engine {
    pub(super) fn plan_retention<'a>(
        &self,
        row: &'a Store,
        keep: Gfs,
        (options, bad): (&RetainOptions, &BadBlobs),
        findings: &mut Vec<Finding>,
    ) -> Result<Planned<'a>, EngineError> {
        let now = self.env.clock.now();
        let lease = options.apply.then(|| self.lease(&row.name, "retention")).transpose()?;
        let mut set = self.open_vaults(row)?;
        set_aside(&mut set);
        findings.extend(set.findings());
        let mut held_up = None;
        if options.apply {
            held_up = self.make_equal(row, &set, findings);
            findings.extend(self.mend_holds(row, &set)?);
        } else {
            findings.extend(self.lacking_holds(row, &set)?);
        }
        findings.extend(self.reconcile(row, &set)?);
        let Lost { filed, replaces, findings: lost } = self.lost(row, &set)?;
        findings.extend(lost);
        let mut points = self.view(row)?.points;
        let listed: Vec<Vec<String>> = points.iter().map(copies_of).collect();
        for point in &mut points {
            // What nobody can look at now is relied on by nothing that goes.
            point.holdings.retain(|held| set.get(&held.copy).is_some());
        }
        let rules = self.rules(row, keep, (now, options.today.is_some()))?;
        let doubts = self.doubts(row, &set, (&rules, &points), (options, findings))?;
        held_up = held_up.or(doubts);
        let grace = options.grace.unwrap_or(DEFAULT_GRACE);
        let all_open = set.open.len() == row.copies.value.len();
        let held = self.on_hold(row, &set)?;
        let seen = !options.apply || options.plan.is_some() || options.today.is_some();
        let ground = Ground {
            row,
            set: &set,
            rules,
            held,
            filed: &filed,
            bad,
            options: RetireOptions { now, reckoned: now, grace, all_open },
            kept_most: if seen { None } else { self.kept_most(row, &points)? },
            held_up,
        };
        let Drawn { decided, floors, plan, broken, held_up } = self.draw(&ground, &mut points)?;
        if let Some(why) = held_up.as_ref().filter(|_why| ground.held_up.is_none()) {
            findings.push(Finding::new("too-many", row.name.as_str(), why.clone()));
        }
        let held_up = held_up.or_else(|| bad_blobs(row, bad));
        findings.extend(not_freed(bad));
        findings.extend(stands_still(row, &decided));
        findings.extend(self.tell_broken(row, &points, &broken)?);
        findings.extend(overstayed(row, &decided));
        if let Some(why) = plan.as_ref().and_then(|plan| plan.blocked.as_ref()) {
            let message = format!("no space of `{}` is freed: {why}", row.name);
            findings.push(
                Finding::new("space-not-freed", row.name.as_str(), message).with_kind(FailureKind::Damaged),
            );
        }
        let waits = point_waits(&set, &points, &decided)?;
        let mut view = view(row, keep, (decided, listed, waits), &floors, (plan.as_ref(), grace));
        if !options.apply {
            let (locked, unknown) = locked_copies(&set, plan.as_ref());
            view.locked = locked;
            findings.extend(unknown);
        }
        let kept_most = ground.kept_most;
        Ok(Planned { row, set, view, plan, held_up, filed, replaces, kept_most, _lease: lease })
    }

    /// How many points any retention kept at most, since somebody last saw what would go. A chain that is younger than the points
    /// takes all there are for kept.
    fn kept_most(&self, row: &Store, points: &[PointRow]) -> Result<Option<usize>, EngineError> {
        let last = self.catalog()?.last_saying(&row.name, "retain", "$.kept_most").map_err(Failure::from)?;
        if let Some(kept) = last.and_then(|run| run.body.get("kept_most")?.as_u64()) {
            return Ok(usize::try_from(kept).ok());
        }
        let younger = self.chain_lacks(points.iter().map(|point| &point.manifest))?.is_some();
        Ok(younger.then_some(points.len()))
    }

    /// What nobody can know, told; gives why nothing goes for that, if so.
    fn doubts(
        &self,
        row: &Store,
        set: &VaultSet,
        (rules, points): (&Rules<'_>, &[PointRow]),
        (options, findings): (&RetainOptions, &mut Vec<Finding>),
    ) -> Result<Option<String>, EngineError> {
        let mut held_up = None;
        let wrong = self.out_of_order(&row.name, points, self.env.clock.now())?;
        if let Some((count, first)) = wrong.filter(|_wrong| options.today.is_none()) {
            let why = format!(
                "the clock is in doubt: {count} points of `{0}`, {first} first, were captured after others that show a later time, \
                 or claim to come from the future; they go by what they show. Nothing is dropped until somebody has looked \
                 (`lifeboat retain {0}`) and says which day it is: lifeboat retain {0} --apply --today YYYY-MM-DD",
                row.name
            );
            findings.push(Finding::new("clock-in-doubt", row.name.as_str(), why.clone()));
            held_up = Some(why);
        }
        if let Some(gap) = rules.ceiling.map(|ceiling| ceiling.gap) {
            let why = in_doubt(row, &gap);
            findings.push(Finding::new("clock-in-doubt", row.name.as_str(), why.clone()));
            held_up = held_up.or(gap.needs_word.then_some(why));
        }
        if let Some(why) = self.holds_unknown(row, set, points)? {
            findings.push(Finding::new("holds-unknown", row.name.as_str(), why.clone()));
            held_up.get_or_insert(why);
        }
        Ok(held_up)
    }

    /// Why it is not known what is on hold, if so: a copy that is not here may have a hold of which nothing was filed here.
    fn holds_unknown(
        &self,
        row: &Store,
        set: &VaultSet,
        points: &[PointRow],
    ) -> Result<Option<String>, EngineError> {
        let Some(away) = row.copies.value.iter().find(|copy| set.get(copy).is_none()) else {
            return Ok(None);
        };
        let manifests = points.iter().map(|point| &point.manifest);
        let Some(point) = self.chain_lacks(manifests)? else { return Ok(None) };
        Ok(Some(format!(
            "copy `{away}` is not here, and the evidence chain does not reach back to {point}: it is not known what is on hold \
             there, and nothing of `{}` is dropped until it is back",
            row.name
        )))
    }

    /// Brings every copy what the others have; gives why nothing may be dropped if that failed. A full copy is no reason: it
    /// gets no emptier by that.
    fn make_equal(&self, row: &Store, set: &VaultSet, findings: &mut Vec<Finding>) -> Option<String> {
        let monitor = Collector::new(self.observer.job(&format!("retention of {}", row.name)));
        let mut failed = fill_first(set, &monitor);
        failed.extend(fill_rest(set, &monitor));
        let first = failed.iter().find(|finding| finding.code == COPY_BEHIND);
        let why = first.map(|finding| {
            format!(
                "nothing of `{}` is dropped while its copies cannot be made equal: {}",
                row.name, finding.message
            )
        });
        findings.extend(failed);
        findings.extend(monitor.take());
        why
    }

    /// Decides, and decides again without what the copies turn out not to have: no point goes because of one that cannot be
    /// restored.
    fn draw(&self, ground: &Ground<'_>, points: &mut [PointRow]) -> Result<Drawn, EngineError> {
        let mut broken: BTreeMap<PointId, String> = BTreeMap::new();
        let copies: Vec<&Vault> = ground.set.open.iter().map(|entry| &entry.vault).collect();
        for round in 0.. {
            for point in points.iter_mut() {
                let Some(why) = broken.get(&point.manifest.id) else { continue };
                for held in &mut point.holdings {
                    held.damaged.get_or_insert_with(|| why.clone());
                }
            }
            let candidates = points.iter().map(|point| candidate(point, &ground.held)).collect();
            let decided = decide(&ground.rules, candidates, ground.options.now);
            let nothing = ground.held_up.is_some() || round == MAX_ROUNDS;
            let (mut floors, mut going) = (Vec::new(), Vec::new());
            if !nothing {
                if !ground.held.covers_log() {
                    floors = self.log_floors(ground.row, ground.set, (&ground.rules, points), &decided)?;
                }
                going = dropped(points, &decided);
            }
            let mut held_up = ground.held_up.clone();
            if let Some(why) = too_many(ground, &decided).filter(|_why| !nothing) {
                held_up = Some(why);
                (floors, going) = (Vec::new(), Vec::new());
            }
            if copies.is_empty() {
                return Ok(Drawn { decided, floors, plan: None, broken, held_up });
            }
            let wanted = Wanted { points: &going, logs: &floors, filed: ground.filed, bad: ground.bad };
            let options = RetireOptions { reckoned: decided.as_of, ..ground.options };
            let plan = RetirePlan::new(&copies, &wanted, &options).map_err(Failure::from)?;
            let known = broken.len();
            broken.extend(plan.unresolved.clone());
            if nothing || broken.len() == known {
                return Ok(Drawn { decided, floors, plan: Some(plan), broken, held_up });
            }
        }
        Err(EngineError::new(FailureKind::Internal, "retention was not decided"))
    }

    /// Damage that was met on the way is remembered until a verification clears it.
    fn tell_broken(
        &self,
        row: &Store,
        points: &[PointRow],
        broken: &BTreeMap<PointId, String>,
    ) -> Result<Vec<Finding>, EngineError> {
        let mut findings = Vec::new();
        for (id, why) in broken {
            let held =
                points.iter().filter(|point| point.manifest.id == *id).flat_map(|point| &point.holdings);
            for held in held {
                let now = self.env.clock.now();
                self.catalog()?
                    .set_holding(&row.name, id, &held.copy, now, Some(why))
                    .map_err(Failure::from)?;
            }
            let message =
                format!("{id} cannot be restored from any copy that is here, and counts for nothing: {why}");
            findings
                .push(Finding::new("point-damaged", id.as_str(), message).with_kind(FailureKind::Damaged));
        }
        Ok(findings)
    }
}

/// A copy that does not show what it is now is left alone.
fn set_aside(set: &mut VaultSet) {
    let mut open = Vec::new();
    for entry in set.open.drain(..) {
        match entry.vault.shows_itself() {
            Ok(()) => open.push(entry),
            Err(error) => set.failed.push((entry.copy, error.into())),
        }
    }
    set.open = open;
}

/// Why nothing goes if little would be left of what was kept last.
fn too_many(ground: &Ground<'_>, decided: &Decided) -> Option<String> {
    let kept_most = ground.kept_most.filter(|most| *most >= MANY)?;
    let kept = decided.points.iter().filter(|point| matches!(point.verdict, Verdict::Kept(_))).count();
    let name = &ground.row.name;
    (kept * 2 < kept_most).then(|| {
        format!(
            "of `{name}` {kept} points would stay where retention kept {kept_most}, as if a clock had jumped: nothing is dropped \
             until somebody has looked at them (`lifeboat retain {name}`) and says so: lifeboat retain {name} --apply \
             --plan DIGEST"
        )
    })
}

/// Packs that stay because what is needed of them is whole nowhere.
fn not_freed(bad: &BadBlobs) -> impl Iterator<Item = Finding> {
    bad.iter().map(|(id, (_at, why))| {
        let message = format!("what is needed of a pack is whole in no copy that is here: {why}");
        Finding::new("space-not-freed", id.to_string(), message).with_kind(FailureKind::Damaged)
    })
}

fn bad_blobs(row: &Store, bad: &BadBlobs) -> Option<String> {
    let (_at, why) = bad.values().next()?;
    Some(format!("something that `{}` needs is whole in no copy that is here: {why}", row.name))
}

/// That retention does nothing for want of captures, once that is no mere delay.
fn stands_still(row: &Store, decided: &Decided) -> Option<Finding> {
    decided
        .long_stalled
        .then(|| Finding::new("retention-stands-still", row.name.as_str(), stood_still(row, decided)))
}

/// Why retention does nothing.
pub(crate) fn stood_still(row: &Store, decided: &Decided) -> String {
    let name = &row.name;
    if decided.as_of == Timestamp::MIN {
        return format!(
            "`{name}` has no complete point that can be restored: nothing of it gets older, and nothing goes"
        );
    }
    format!(
        "time has stood still for `{name}` since {:.0}: nothing was captured, or its clock is in doubt",
        decided.as_of
    )
}

/// What is not believed of the clock. It does not say which day the machine takes it for: a person has to know.
pub(crate) fn in_doubt(row: &Store, gap: &Gap) -> String {
    let name = &row.name;
    if !gap.needs_word {
        return format!(
            "the clock may have jumped: nothing of `{name}` was captured between {:.0} and {:.0}, and that this time has passed \
             counts once captures have gone on after it",
            gap.from, gap.to,
        );
    }
    format!(
        "the clock is in doubt: nothing of `{name}` was captured between {:.0} and {:.0}; if that time has passed, say which \
         day it is: lifeboat retain {name} --apply --today YYYY-MM-DD",
        gap.from, gap.to,
    )
}

fn view(
    row: &Store,
    keep: Gfs,
    (decided, listed, waits): (Decided, Vec<Vec<String>>, Vec<Option<LockWait>>),
    floors: &[LogFloor],
    (plan, grace): (Option<&RetirePlan>, Duration),
) -> StoreRetention {
    let log = floors.iter().map(|floor| LogPlan {
        stream: floor.stream.to_string(),
        timeline: floor.timeline,
        below: floor.below,
    });
    let verdicts = decided.points.into_iter().zip(listed).zip(waits);
    let points = verdicts.map(|((decision, copies), locked)| RetainedPoint {
        id: decision.id,
        moment: decision.moment,
        copies,
        verdict: decision.verdict,
        locked,
    });
    StoreRetention {
        name: row.name.clone(),
        retention: keep,
        logs: row.logs.value,
        as_of: Some(decided.as_of).filter(|at| *at != Timestamp::MIN),
        stalled: decided.stalled,
        doubt: decided.doubt,
        points: points.collect(),
        log: log.collect(),
        plan: plan.map(|plan| digest(row, plan)),
        space: plan.map(|plan| space(plan, grace)),
        locked: Vec::new(),
        applied: None,
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
        "snapshots": plan.record.snapshots, "mark": plan.record.mark, "remove": plan.record.remove,
        "rewrite": plan.rewrite,
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
