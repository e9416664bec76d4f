//! Retention: which recovery points of a row stay, for which reasons, and which may go.

use lifeboat_base::failure::FailureKind;
use lifeboat_base::ids::{PointId, StoreName};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{PointRow, ProofLevel};
use lifeboat_policy::{Candidate, Decided, Gfs, Retention, Rules, Soundness, Span, Store, Verdict, decide};
use serde::Serialize;

use crate::backup::worst;
use crate::context::Engine;
use crate::error::EngineError;

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
    /// Contradictions, and copies that could not be asked.
    pub findings: Vec<Finding>,
}

impl RetainReport {
    /// The worst thing found.
    pub fn worst(&self) -> Option<FailureKind> {
        worst(self.findings.iter())
    }
}

impl Engine {
    /// What becomes of every point of the stores named, or of all that are retained. Nothing is removed.
    pub fn retain(&self, names: &[StoreName]) -> Result<RetainReport, EngineError> {
        let now = self.env.clock.now();
        let mut report =
            RetainReport { schema: "lifeboat.retain/v1", at: now, stores: Vec::new(), findings: Vec::new() };
        for row in self.select(names)? {
            let Retention::Keep(keep) = row.retention.value else { continue };
            let set = self.open_vaults(row)?;
            report.findings.extend(set.findings());
            report.findings.extend(self.reconcile(row, &set)?);
            let points = self.view(row)?.points;
            let decided = self.decide(row, keep, &points, now);
            report.findings.extend(overstayed(row, &decided));
            let listed = points.iter().zip(decided.points).map(|(point, decision)| RetainedPoint {
                id: decision.id,
                moment: decision.moment,
                copies: point.holdings.iter().map(|held| held.copy.to_string()).collect(),
                verdict: decision.verdict,
            });
            report.stores.push(StoreRetention {
                name: row.name.clone(),
                retention: keep,
                logs: row.logs.value,
                as_of: decided.as_of,
                stalled: decided.stalled,
                points: listed.collect(),
            });
        }
        if report.stores.is_empty() {
            return Err(EngineError::new(FailureKind::Refused, "there is no retained store")
                .next("name a store whose retention is not `none`"));
        }
        Ok(report)
    }

    /// The verdicts on `points`, in their order: that of moments.
    pub(crate) fn decide(&self, row: &Store, keep: Gfs, points: &[PointRow], now: Timestamp) -> Decided {
        let locks = row.copies.value.iter().filter_map(|copy| self.policy.copies.get(copy)?.lock);
        let locks = locks.map(|lock| lock.min);
        let rules = Rules {
            keep,
            window: row.logs.value,
            minimum: row.immutability.value.into_iter().chain(locks).max_by_key(Span::approx),
            interval: row.schedule.value.as_ref().map(lifeboat_policy::Schedule::longest_interval),
            zone: &self.policy.timezone,
        };
        decide(&rules, points.iter().map(candidate).collect(), now)
    }
}

fn candidate(point: &PointRow) -> Candidate {
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
