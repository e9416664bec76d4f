//! What is due: the work that keeps the promises of the policy, for whoever runs it on time.
//!
//! In: the policy, the catalog and the clock. Out: tasks, each with the moment since when it is due, and when the next one will be.
//! Pure but for reading: what is due twice is due until somebody files that it was done. A task that failed is due again after a
//! while, not at once.

use std::fmt;
use std::time::Duration;

use lifeboat_base::failure::Failure;
use lifeboat_base::ids::{PlanName, StoreName};
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{ProofLevel, RunRow};
use lifeboat_policy::{Retention, Store};
use serde::Serialize;

use crate::context::Engine;
use crate::error::EngineError;
use crate::status::Renewal;

/// What failed is tried again after this, or when it is due by itself.
pub(crate) const RETRY: Duration = Duration::from_secs(900);
/// As [`RETRY`] for what takes long.
pub(crate) const RETRY_DRILL: Duration = Duration::from_secs(3_600);
/// Retention is applied as often as captures are due, within these bounds.
const RETAIN_EVERY: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(86_400));

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Capture a store.
    Backup {
        /// The store.
        store: StoreName,
    },
    /// Apply the retention of a store.
    Retain {
        /// The store.
        store: StoreName,
    },
    /// Read what is stored.
    Verify {
        /// The store.
        store: StoreName,
        /// How far.
        level: ProofLevel,
    },
    /// Restore into a sandbox.
    Drill {
        /// The store; all of them if none is named.
        store: Option<StoreName>,
        /// The moment, if not the newest.
        at: Option<String>,
    },
    /// Run a planned drill.
    Planned {
        /// The plan.
        plan: PlanName,
    },
}

impl fmt::Display for Task {
    /// The command that does it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lifeboat {}", self.arguments().join(" "))
    }
}

impl Task {
    /// The store it is for, if it is for one.
    pub fn store(&self) -> Option<&StoreName> {
        match self {
            Self::Backup { store } | Self::Retain { store } | Self::Verify { store, .. } => Some(store),
            Self::Drill { store, .. } => store.as_ref(),
            Self::Planned { .. } => None,
        }
    }

    /// The arguments of the command that does it.
    pub fn arguments(&self) -> Vec<String> {
        let words: Vec<&str> = match self {
            Self::Backup { store } => vec!["backup", store.as_str()],
            Self::Retain { store } => vec!["retain", "--apply", store.as_str()],
            Self::Verify { store, level } => vec!["verify", "--level", level.word(), store.as_str()],
            Self::Drill { store, at } => {
                let mut words = vec!["drill"];
                words.extend(at.iter().flat_map(|at| ["--at", at]));
                words.push(store.as_ref().map_or("--all", StoreName::as_str));
                words
            }
            Self::Planned { plan } => vec!["drill", "--plan", plan.as_str()],
        };
        words.into_iter().map(str::to_owned).collect()
    }
}

/// A task and since when it is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Due {
    /// What.
    #[serde(flatten)]
    pub task: Task,
    /// Since when.
    pub since: Timestamp,
}

/// What is due now, longest first, and when the next task will be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agenda {
    /// Due now.
    pub due: Vec<Due>,
    /// When the next one is, as far as that is known today.
    pub next: Option<Timestamp>,
    /// Stores whose log is to be followed all the time.
    pub follow: Vec<StoreName>,
}

impl Agenda {
    fn add(&mut self, now: Timestamp, task: Task, at: Option<Timestamp>) {
        match at {
            Some(at) if at <= now => self.due.push(Due { task, since: at }),
            Some(at) => self.next = Some(self.next.map_or(at, |next| next.min(at))),
            None => {}
        }
    }
}

impl Engine {
    /// What is due now.
    pub fn agenda(&self) -> Result<Agenda, EngineError> {
        let now = self.env.clock.now();
        let mut agenda = Agenda::default();
        for row in self.policy.stores.values() {
            if matches!(row.retention.value, Retention::None) || self.adapter(row).is_err() {
                continue;
            }
            self.captures_due(row, now, &mut agenda)?;
            if row.logs.value.is_some() {
                agenda.follow.push(row.name.clone());
            }
            for Renewal { task, at } in self.renewals(row, now)? {
                agenda.add(now, task, at);
            }
        }
        let catalog = self.catalog()?;
        for (name, plan) in &self.policy.drills {
            let last = catalog.last_run(&crate::plans::subject(name)?, crate::plans::PLANNED, false);
            let at = again(last.map_err(Failure::from)?.as_ref(), now, (plan.every.approx(), RETRY_DRILL));
            agenda.add(now, Task::Planned { plan: name.clone() }, at);
        }
        agenda.due.sort_by(|one, other| (one.since, &one.task).cmp(&(other.since, &other.task)));
        Ok(agenda)
    }

    /// Captures by their schedule, and retention behind them.
    fn captures_due(&self, row: &Store, now: Timestamp, agenda: &mut Agenda) -> Result<(), EngineError> {
        let catalog = self.catalog()?;
        let last = catalog.last_run(&row.name, "backup", false).map_err(Failure::from)?;
        let zone = &self.policy.timezone;
        if let Some(schedule) = &row.schedule.value {
            let at = match last.as_ref().filter(|run| run.at <= now) {
                // Never, or by a clock that was ahead.
                None => Some(now),
                Some(run) if run.ok => schedule.next_after(run.at, zone),
                Some(run) => schedule.next_after(run.at, zone).map(|next| next.min(run.at + RETRY)),
            };
            agenda.add(now, Task::Backup { store: row.name.clone() }, at);
        }
        if last.is_none() {
            return Ok(());
        }
        let (least, most) = RETAIN_EVERY;
        let every = row.schedule.value.as_ref().map_or(most, lifeboat_policy::Schedule::longest_interval);
        let run = catalog.last_run(&row.name, "retain", false).map_err(Failure::from)?;
        let at = again(run.as_ref(), now, (every.clamp(least, most), RETRY));
        agenda.add(now, Task::Retain { store: row.name.clone() }, at);
        Ok(())
    }
}

/// When something is due that ran last then, and that is due so often.
fn again(last: Option<&RunRow>, now: Timestamp, (every, retry): (Duration, Duration)) -> Option<Timestamp> {
    match last.filter(|run| run.at <= now) {
        None => Some(now),
        Some(run) if run.ok => run.at.checked_add(every).ok(),
        Some(run) => run.at.checked_add(every.min(retry)).ok(),
    }
}
