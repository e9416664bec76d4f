//! Retention: which recovery points of a row stay, for which reasons, which may go, and their removal from every copy.
//!
//! A plan is made from the union of the open copies and bound to the state of each. Applied, its intent is filed first; a
//! signed record then stands in every copy before anything is removed; what came of it is filed last.

use std::time::Duration;

use jiff::civil::Date;
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::{PointId, StoreName};
use lifeboat_base::lease::Lease;
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_policy::{Gap, Gfs, Retention, Span, Store, Verdict};
use lifeboat_vault::retire::{BadBlobs, Filed, RetirePlan};
use serde::Serialize;

use crate::backup::worst;
use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::{AtRisk, EngineError};
use crate::shred::shredded_says;

mod apply;
mod floors;
mod locked;
mod lost;
mod plan;
mod time;

pub use self::apply::{Applied, AppliedCopy};
pub use self::locked::{LockWait, LockedCopy};
pub(crate) use self::plan::{in_doubt, stood_still};

/// How often it is planned anew because something that stays turned out to be whole in no copy.
const MAX_PLANS: usize = 4;

/// How retention is run.
#[derive(Clone, Debug, Default)]
pub struct RetainOptions {
    /// Remove what may go; else only show it.
    pub apply: bool,
    /// Only if the plan is still the one with this digest, or a beginning of it.
    pub plan: Option<String>,
    /// How long space of what was dropped stays before it may be freed; a day unless given.
    pub grace: Option<Duration>,
    /// The day it is, as a person says: a long time without captures has passed, and no clock has jumped.
    pub today: Option<Date>,
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
    /// What keeps it although it may go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<LockWait>,
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
    /// The moment the calendar was read at: it stands still while no new good point comes. Nothing without a good point.
    pub as_of: Option<Timestamp>,
    /// Whether it stands still.
    pub stalled: bool,
    /// A time without captures in which the clock may have jumped, if time stands still for that.
    pub doubt: Option<Gap>,
    /// Every point, oldest moment first.
    pub points: Vec<RetainedPoint>,
    /// Log that may go.
    pub log: Vec<LogPlan>,
    /// Names this plan: what it drops, and the state of every copy it was made for.
    pub plan: Option<Digest>,
    /// What it means for space; nothing if no copy could be looked into.
    pub space: Option<SpacePlan>,
    /// What else may go, or was dropped before, and is locked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locked: Vec<LockedCopy>,
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
    /// Why nothing is dropped that else would be.
    held_up: Option<String>,
    filed: Filed,
    /// Records that are lost or damaged in every copy and of which the plan says everything again.
    replaces: Vec<String>,
    /// How many points retentions kept at most since somebody last saw what would go.
    kept_most: Option<usize>,
    _lease: Option<Lease>,
}

/// What came of one try.
enum Tried {
    Done(Box<StoreRetention>),
    /// Nothing was recorded: what was decided took these for whole.
    Bad(BadBlobs),
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
        if let Some(day) = options.today {
            self.is_today(day, now)?;
        }
        for row in rows {
            let Retention::Keep(keep) = row.retention.value else { continue };
            if let Some(run) = self.shredded(row)? {
                let finding = Finding::new("store-shredded", row.name.as_str(), shredded_says(&run));
                report.findings.push(finding);
                continue;
            }
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
        let mut bad = BadBlobs::new();
        for _plan in 0..MAX_PLANS {
            let mut told = Vec::new();
            let tried = self.retain_once(row, keep, (options, &bad), &mut told);
            told.retain(|finding| !findings.contains(finding));
            findings.extend(told);
            match tried? {
                Tried::Done(view) => return Ok(*view),
                Tried::Bad(found) => bad.extend(found),
            }
        }
        let why = format!("more and more of what `{}` needs turns out to be whole in no copy", row.name);
        Err(EngineError::new(FailureKind::Damaged, why).next(format!("run `lifeboat verify {}`", row.name)))
    }

    fn retain_once(
        &self,
        row: &Store,
        keep: Gfs,
        (options, bad): (&RetainOptions, &BadBlobs),
        findings: &mut Vec<Finding>,
    ) -> Result<Tried, EngineError> {
        self.doubt_locks(row, keep, options.today.is_some())?;
        let tried = self.retain_in_time(row, keep, (options, bad), findings);
        self.believed.set(&row.name, None);
        tried
    }

    fn retain_in_time(
        &self,
        row: &Store,
        keep: Gfs,
        (options, bad): (&RetainOptions, &BadBlobs),
        findings: &mut Vec<Finding>,
    ) -> Result<Tried, EngineError> {
        let planned = self.plan_retention(row, keep, (options, bad), findings)?;
        if !options.apply {
            return Ok(Tried::Done(Box::new(planned.view)));
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
        if let Some(day) = options.today {
            self.file_word(row, day, self.env.clock.now())?;
        }
        self.apply_retention(planned, findings)
    }
}
