//! The time that retention reckons with, and the verdicts at that time: one place for `retain` and `status`.

use jiff::civil::Date;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{PointId, StoreName};
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{PointRow, ProofLevel};
use lifeboat_policy::{
    BorneOut, Candidate, Decided, Gfs, Rules, Soundness, Span, Store, ceiling, decide, usual,
};
use serde_json::json;

use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::EngineError;
use crate::holds::Held;
use crate::journal::Entry;
use crate::view::in_future;

/// The newest filed captures that are asked for when they were made; older ones are known by their points, also dropped ones.
const CAPTURES: u32 = 400;
/// What a person's word on the clock is filed as.
const WORD: &str = "clock";
/// How far a person's calendar and the machine's may differ, for the sake of time zones and midnight.
const DAYS_APART: i32 = 1;

impl Engine {
    /// That a person and this machine mean the same day.
    pub(super) fn is_today(&self, day: Date, now: Timestamp) -> Result<(), EngineError> {
        let own = now.to_zoned(self.policy.timezone.clone()).date();
        let apart = own.since(day).map_or(i32::MAX, |span| span.get_days().saturating_abs());
        if apart <= DAYS_APART {
            return Ok(());
        }
        Err(EngineError::new(
            FailureKind::Refused,
            format!("the clock of this machine says {own}, not {day}: nothing is removed by it"),
        )
        .next("set the clock right; points that were made under a wrong one claim to come from the future and stay"))
    }

    /// Files that a person says that the clock is right.
    pub(super) fn file_word(&self, row: &Store, day: Date, now: Timestamp) -> Result<(), EngineError> {
        let body = json!({ "right": now, "today": day.to_string() });
        self.file(Entry { kind: WORD, store: &row.name, ok: true, body }).map(drop)
    }

    /// When captures were made, as far as points, dropped points and filed runs tell.
    fn captures(&self, store: &StoreName) -> Result<Vec<Timestamp>, EngineError> {
        let catalog = self.catalog()?;
        let mut times = catalog.capture_times(store, CAPTURES).map_err(Failure::from)?;
        let points = catalog.points(store).map_err(Failure::from)?;
        times.extend(points.iter().map(|point| point.manifest.ended));
        let dropped = catalog.dropped(store).map_err(Failure::from)?;
        times.extend(dropped.iter().filter_map(PointId::begun));
        Ok(times)
    }

    /// The newest moment of which a person said that it was right. A word from the future says nothing.
    fn confirmed(&self, store: &StoreName, now: Timestamp) -> Result<Option<Timestamp>, EngineError> {
        let said = self.catalog()?.said(store, WORD, "$.right").map_err(Failure::from)?;
        let moments = said.iter().filter_map(|said| said.as_str()?.parse::<Timestamp>().ok());
        Ok(moments.filter(|moment| *moment <= now).max())
    }

    /// Captures of which the chain says that they were made after others that show a later time, or that claim to come from the
    /// future, and that nobody has spoken for since: how many, and the first.
    pub(super) fn out_of_order<'a>(
        &self,
        store: &StoreName,
        points: &'a [PointRow],
        now: Timestamp,
    ) -> Result<Option<(usize, &'a PointId)>, EngineError> {
        let word = self.catalog()?.last_run(store, WORD, true).map_err(Failure::from)?;
        let (since, mut latest) = word.map_or((0, Timestamp::MIN), |word| (word.evidence, word.at));
        let mut filed: Vec<(u64, &PointRow)> = points
            .iter()
            .filter_map(|point| Some((point.once_proven(ProofLevel::Captured)?.evidence, point)))
            .filter(|(evidence, _point)| *evidence > since)
            .collect();
        filed.sort_unstable_by_key(|(evidence, _point)| *evidence);
        let mut found: Option<(usize, &PointId)> = None;
        for (_evidence, point) in filed {
            let ended = point.manifest.ended;
            if in_future(latest, ended) || in_future(ended, now) {
                found.get_or_insert((0, &point.manifest.id)).0 += 1;
            }
            latest = latest.max(ended);
        }
        Ok(found)
    }

    /// What is asked of a row's points at `now`, with a person's `word` that the clock is right.
    pub(super) fn rules<'a>(
        &'a self,
        row: &Store,
        keep: Gfs,
        (now, word): (Timestamp, bool),
    ) -> Result<Rules<'a>, EngineError> {
        let locks = row.copies.value.iter().filter_map(|copy| self.policy.copies.get(copy)?.lock);
        let locks = locks.map(|lock| lock.min);
        let captures = self.captures(&row.name)?;
        let passed: Vec<Timestamp> = captures.iter().copied().filter(|at| *at <= now).collect();
        let scheduled = row.schedule.value.as_ref().map(lifeboat_policy::Schedule::longest_interval);
        let interval = scheduled.or_else(|| usual(&passed));
        let confirmed = if word { Some(now) } else { self.confirmed(&row.name, now)? };
        Ok(Rules {
            keep,
            window: row.logs.value,
            minimum: row.immutability.value.into_iter().chain(locks).max_by_key(Span::approx),
            interval,
            ceiling: ceiling(&captures, (keep, interval), confirmed, now),
            borne_out: Some(BorneOut { confirmed }),
            zone: &self.policy.timezone,
        })
    }

    /// Lets the locks of a row end by what captures bear out of the clock, or a person's `word`, before anything of it is removed.
    pub(crate) fn doubt_locks(&self, row: &Store, keep: Gfs, word: bool) -> Result<(), EngineError> {
        let points = self.view(row)?.points;
        let until = if word || points.is_empty() {
            None
        } else {
            Some(self.decide(row, keep, &points, self.env.clock.now())?.as_of)
        };
        self.believed.set(&row.name, until);
        Ok(())
    }

    /// The verdicts on `points`, in their order: that of moments. By the holds that were filed here; copies are not asked.
    pub(crate) fn decide(
        &self,
        row: &Store,
        keep: Gfs,
        points: &[PointRow],
        now: Timestamp,
    ) -> Result<Decided, EngineError> {
        Ok(self.decide_by(row, keep, points, now)?.1)
    }

    /// As [`Engine::decide`], with the rules it went by.
    pub(crate) fn decide_by<'a>(
        &'a self,
        row: &Store,
        keep: Gfs,
        points: &[PointRow],
        now: Timestamp,
    ) -> Result<(Rules<'a>, Decided), EngineError> {
        let held = self.on_hold(row, &VaultSet::default())?;
        let candidates = points.iter().map(|point| candidate(point, &held)).collect();
        let rules = self.rules(row, keep, (now, false))?;
        let decided = decide(&rules, candidates, now);
        Ok((rules, decided))
    }
}

/// A point as the decision sees it.
pub(super) fn candidate(point: &PointRow, held: &Held) -> Candidate {
    let soundness = match point.usable() {
        true => Soundness::Sound,
        false if point.holdings.is_empty() => Soundness::Away,
        false => Soundness::Damaged,
    };
    Candidate {
        id: point.manifest.id.clone(),
        moment: point.manifest.facts.consistency.moment,
        ended: point.manifest.ended,
        complete: point.complete(),
        soundness,
        // A drill that failed later says something of the checks, or of damage, which is known by itself.
        restored: point.once_proven(ProofLevel::Restored).is_some(),
        holds: held.of(&point.manifest.id, point.manifest.facts.consistency.moment),
    }
}
