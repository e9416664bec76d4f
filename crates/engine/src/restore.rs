//! Restore: pick the point, stage it beside the target, prove it, publish it in one step.

mod ground;
mod target;

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::PathBuf;

use lifeboat_base::capture::MaterializeStats;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{CopyName, PointId, RunId, StoreName};
use lifeboat_base::inplace::{self, State};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::PointRow;
use lifeboat_policy::Store;
use lifeboat_stores::{Adapter, CheckState, InPlace, MergeOptions};
use serde::Serialize;
use serde_json::json;

pub(crate) use self::ground::Staging;
pub(crate) use self::target::Way;
use crate::adapters::Wishes;
use crate::backup::{Collector, worst};
use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::EngineError;
use crate::extract::{self, PartOptions, PartOutcome};
use crate::journal::Entry;
use crate::load::LoadOutcome;
use crate::logs::Replay;
use crate::shred::shredded_says;
use crate::view::{View, in_future};
use crate::when;

/// What to restore and where.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The store.
    pub store: StoreName,
    /// A folder that does not exist or is empty, unless `delta` or `force` says otherwise; for a part, a file.
    pub target: PathBuf,
    /// A moment or a recovery point id; nothing means the newest.
    pub at: Option<String>,
    /// Only from this copy.
    pub copy: Option<CopyName>,
    /// Publish without running the store's checks on what was restored.
    pub skip_checks: bool,
    /// Where tablespaces come to lie, by name or object id; the others lie inside the target.
    pub tablespaces: Vec<(String, PathBuf)>,
    /// By how much the revision of an etcd is raised, with everything before marked as compacted.
    pub bump_revision: Option<u64>,
    /// Change the earlier state of the store in the target into the one asked for: only what differs is fetched.
    pub delta: bool,
    /// Replace what is in the target although it is something else. Never what is in use.
    pub force: bool,
    /// Into a running server beside what is there, and what becomes of that.
    pub merge: Option<MergeOptions>,
    /// Only this part, as a file.
    pub part: Option<PartOptions>,
}

impl RestoreOptions {
    /// The newest state of `store` into a new folder, checked.
    pub fn new(store: StoreName, target: PathBuf) -> Self {
        let tablespaces = Vec::new();
        Self {
            store,
            target,
            at: None,
            copy: None,
            skip_checks: false,
            tablespaces,
            bump_revision: None,
            delta: false,
            force: false,
            merge: None,
            part: None,
        }
    }
}

impl RestoreOptions {
    fn wishes(&self) -> Wishes<'_> {
        Wishes { tablespaces: &self.tablespaces, bump_revision: self.bump_revision }
    }
}

/// What a restore did.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreOutcome {
    /// `lifeboat.restore/v1`.
    pub schema: &'static str,
    /// The store.
    pub store: StoreName,
    /// The point restored.
    pub point: PointId,
    /// The moment it shows.
    pub moment: Timestamp,
    /// Whether log was replayed on top of the point.
    pub replayed: bool,
    /// The moment asked for, resolved.
    pub asked: Option<Timestamp>,
    /// The copy it came from.
    pub copy: CopyName,
    /// The folder that holds it now.
    pub target: PathBuf,
    /// What a user opens.
    pub artefact: PathBuf,
    /// Files written.
    pub files: u64,
    /// Bytes of content that are there now.
    pub bytes: u64,
    /// Of them, bytes that were there before.
    pub kept_bytes: u64,
    /// Bytes read from the vault, as they are stored there, log included.
    pub fetched_bytes: u64,
    /// Entries removed because the point does not have them.
    pub removed: u64,
    /// Folders outside that what was there led to: nothing in them was changed, and nothing leads there any more.
    pub left: Vec<PathBuf>,
    /// How long it took, checks included.
    pub seconds: f64,
    /// Checks passed; nothing if they were skipped.
    pub checks: Option<usize>,
    /// What was extracted, if not everything was restored; `files` and `bytes` are then of its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<PartOutcome>,
    /// What went into a running server, if that was the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded: Option<LoadOutcome>,
    /// What went wrong on the way, such as a damaged copy that was passed over.
    pub findings: Vec<Finding>,
    /// The record in the evidence chain.
    pub evidence: Option<u64>,
}

impl RestoreOutcome {
    const SCHEMA: &str = "lifeboat.restore/v1";

    /// What came of restoring `chosen` from one copy to the target itself, with `checks` passed.
    pub(crate) fn new(
        options: &RestoreOptions,
        (chosen, copy): (&Chosen, &CopyName),
        (stats, checks): (&MaterializeStats, Option<usize>),
    ) -> Self {
        let manifest = &chosen.row.manifest;
        Self {
            schema: Self::SCHEMA,
            store: options.store.clone(),
            point: manifest.id.clone(),
            moment: manifest.facts.consistency.moment,
            replayed: false,
            asked: chosen.asked,
            copy: copy.clone(),
            target: options.target.clone(),
            artefact: options.target.clone(),
            files: stats.files,
            bytes: stats.bytes,
            kept_bytes: stats.kept_bytes,
            fetched_bytes: stats.fetched_bytes,
            removed: stats.removed,
            left: Vec::new(),
            seconds: 0.0,
            checks,
            part: None,
            loaded: None,
            findings: chosen.incomplete().into_iter().collect(),
            evidence: None,
        }
    }

    /// The restore itself succeeded; damage met on the way leaves findings, not failure.
    pub fn worst(&self) -> Option<FailureKind> {
        worst(self.findings.iter()).map(|_kind| FailureKind::Findings)
    }
}

/// The point chosen for a moment.
pub(crate) struct Chosen {
    pub(crate) row: PointRow,
    pub(crate) asked: Option<Timestamp>,
    /// Newer points that were not taken, and why.
    pub(crate) passed_over: Vec<(String, &'static str)>,
}

impl Chosen {
    /// Coming back to an older state than the newest one must never happen silently.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let chosen = &self.row.manifest.id;
        self.passed_over
            .iter()
            .map(|(id, why)| {
                let message = format!("{id} was passed over for {chosen}: {why}");
                Finding::new("point-passed-over", id, message).with_kind(FailureKind::Damaged)
            })
            .collect()
    }

    /// A point that lacks what could not be read.
    pub(crate) fn incomplete(&self) -> Option<Finding> {
        let (id, unreadable) = (&self.row.manifest.id, self.row.manifest.facts.unreadable.len());
        let message = format!("{unreadable} items could not be read when {id} was captured");
        (unreadable > 0).then(|| Finding::new("point-incomplete", id.as_str(), message))
    }
}

/// What a dead run left running and cannot be ended must not stop a restore, and must not go unnoticed.
pub(crate) fn left_running(adapter: &dyn Adapter, row: &Store) -> Option<Finding> {
    let failure = adapter.sweep().err()?;
    Some(Finding::new("sandbox-left", row.name.as_str(), failure.chain()))
}

/// Gives the adapter that restores tablespaces to the places it is told.
type MakeAdapter<'a> = dyn Fn(&[(String, PathBuf)]) -> Result<Box<dyn Adapter>, Failure> + 'a;

/// One request on its way through points and copies.
struct Request<'a> {
    options: &'a RestoreOptions,
    way: Way,
    /// What nothing opens the target without, if it can be worked on in place.
    keystone: Option<&'static str>,
    /// Something in the target was changed.
    begun: Cell<bool>,
}

impl Engine {
    /// Restores a store into `target`, which appears whole or not at all; in place, it is whole or cannot be opened. Tries
    /// the copies in the order of the row and passes over one that turns out to be damaged, unless a copy was named.
    pub fn restore(&self, options: &RestoreOptions) -> Result<RestoreOutcome, EngineError> {
        let row = self.store(&options.store)?;
        if options.merge.is_some() {
            let what = "--prefix, --rename-prefix and --conflict are for keys that go into a running server";
            return Err(EngineError::new(FailureKind::Usage, what)
                .next("name the server with --to, or leave them out"));
        }
        let adapter = self.adapter_with(row, &options.wishes())?;
        // A check that was killed may have left its server, which would look like one of the user's.
        let left = left_running(adapter.as_ref(), row);
        let way = match &options.part {
            Some(_) => self.extract_way(row, adapter.as_ref(), options)?,
            None => self.way(options, adapter.as_ref())?,
        };
        self.restore_by(way, row, adapter.as_ref(), (options, left))
    }

    /// As [`Engine::restore`], into a folder of our own that does not exist yet.
    pub(crate) fn restore_inside(&self, options: &RestoreOptions) -> Result<RestoreOutcome, EngineError> {
        let row = self.store(&options.store)?;
        let adapter = self.adapter_with(row, &options.wishes())?;
        let left = left_running(adapter.as_ref(), row);
        self.restore_by(Way::Beside { replace: false }, row, adapter.as_ref(), (options, left))
    }

    fn restore_by(
        &self,
        way: Way,
        row: &Store,
        adapter: &dyn Adapter,
        (options, left): (&RestoreOptions, Option<Finding>),
    ) -> Result<RestoreOutcome, EngineError> {
        let keystone = adapter.in_place().map(InPlace::keystone);
        let request = Request { options, way, keystone, begun: Cell::new(false) };
        self.restore_planned(row, adapter, &request, left).map_err(|error| request.unfinished(error))
    }

    fn restore_planned(
        &self,
        row: &Store,
        adapter: &dyn Adapter,
        request: &Request<'_>,
        left: Option<Finding>,
    ) -> Result<RestoreOutcome, EngineError> {
        let options = request.options;
        let set = self.open_vaults(row)?;
        let mut findings = set.findings();
        findings.extend(left);
        findings.extend(self.reconcile(row, &set)?);
        if options.at.is_none() {
            findings.extend(self.log_left_here(row));
        }
        let asked = (options.at.as_deref(), options.copy.as_ref());
        let mut plans: VecDeque<_> = self.plan_replay(row, adapter, &set, asked)?.into();
        loop {
            let (chosen, replay) = match plans.pop_front() {
                Some(plan) => plan,
                None => (self.choose(row, asked.0, asked.1)?, None),
            };
            let outcome = self.restore_chosen(row, &set, &chosen, replay.as_ref(), (request, &findings));
            match outcome {
                // An older point may lead to what this one does not.
                Err(error)
                    if error.kind() == FailureKind::Refused
                        && !extract::is_missing(&error.failure)
                        && !plans.is_empty() => {}
                other => return other,
            }
        }
    }

    /// Restores one point, with the log if there is one to replay, from the first copy that can.
    fn restore_chosen(
        &self,
        row: &Store,
        set: &VaultSet,
        chosen: &Chosen,
        replay: Option<&Replay>,
        (request, before): (&Request<'_>, &[Finding]),
    ) -> Result<RestoreOutcome, EngineError> {
        let options = request.options;
        let mut findings = before.to_vec();
        findings.extend(chosen.findings());
        if options.copy.is_none() {
            findings.extend(self.passed_over(row, &chosen.row, set));
        }
        let start = self.env.clock.monotonic();
        let run = RunId::generate(self.env.clock.now(), self.env.entropy.as_ref());
        let mut last: Option<Failure> = None;
        let mut copies = candidates(row, &chosen.row, options.copy.as_ref());
        // The copy whose log goes furthest comes first.
        copies.sort_by_key(|copy| replay.is_some_and(|replay| replay.copy != **copy));
        findings.extend(replay.and_then(Replay::finding));
        for copy in copies {
            let Some(entry) = set.get(copy) else {
                last = set.absent.contains(copy).then(|| self.absence(row, copy)).or(last);
                continue;
            };
            let adapter = |places: &[(String, PathBuf)]| -> Result<Box<dyn Adapter>, Failure> {
                let wishes = Wishes { tablespaces: places, bump_revision: options.bump_revision };
                let adapter = self.adapter_with(row, &wishes).map_err(|error| error.failure)?;
                Ok(match replay {
                    Some(replay) => Box::new(self.replaying(row, adapter, entry, replay)?),
                    None => adapter,
                })
            };
            match self.restore_from(entry, &adapter, chosen, &run, request) {
                Ok(mut outcome) => {
                    if let Some(replay) = replay {
                        outcome.moment = replay.moment;
                        outcome.replayed = true;
                    }
                    outcome.seconds = self.env.clock.monotonic().saturating_sub(start).as_secs_f64();
                    outcome.findings.splice(0..0, findings);
                    return Ok(self.file_restore(row, run, outcome));
                }
                Err(failure) if failure.kind() == FailureKind::Damaged => {
                    findings.push(
                        Finding::new(
                            "copy-damaged",
                            copy.as_str(),
                            format!("copy `{copy}`: {}", failure.chain()),
                        )
                        .with_kind(FailureKind::Damaged),
                    );
                    last = Some(failure);
                }
                Err(failure) if extract::is_missing(&failure) => return Err(extract::missing(failure)),
                Err(failure) => return Err(EngineError::from(failure).risking(&row.name, "rto")),
            }
        }
        let id = &chosen.row.manifest.id;
        let error = match last.or_else(|| unusable(set, options.copy.as_ref())) {
            Some(failure) => Failure::with_source(
                failure.kind(),
                format!("failed to restore {id}: nothing was published"),
                failure,
            ),
            None => Failure::new(FailureKind::Unreachable, format!("no copy that holds {id} is there")),
        };
        Err(EngineError::from(error)
            .risking(&row.name, "rto")
            .risking(&row.name, "copies")
            .next(format!("lifeboat points {} shows which recovery points are sound", row.name)))
    }

    /// The newest point whose moment is not after the one asked for; without one, the newest that can be used.
    pub(crate) fn choose(
        &self,
        row: &Store,
        at: Option<&str>,
        copy: Option<&CopyName>,
    ) -> Result<Chosen, EngineError> {
        if let Some(copy) = copy
            && !row.copies.value.contains(copy)
        {
            return Err(EngineError::new(FailureKind::Usage, format!("`{}` has no copy `{copy}`", row.name)));
        }
        if let Some(run) = self.shredded(row)? {
            let what = format!("`{}`: {}", row.name, shredded_says(&run));
            return Err(EngineError::new(FailureKind::Refused, what));
        }
        let view = self.view(row)?;
        if view.points.is_empty() {
            return Err(no_point(row, &view));
        }
        let show = format!("lifeboat points {}", row.name);
        let now = self.env.clock.now();
        let Some(text) = at else {
            return newest(view, now).ok_or_else(|| {
                EngineError::new(FailureKind::Internal, "the newest point cannot be told").next(show)
            });
        };
        let mut points = view.points;
        if let Some(index) = points.iter().position(|point| point.manifest.id.as_str() == text) {
            return Ok(Chosen { row: points.swap_remove(index), asked: None, passed_over: Vec::new() });
        }
        if text.starts_with("pt-") {
            let what = format!("`{}` has no point {text}", row.name);
            return Err(EngineError::new(FailureKind::Refused, what).next(show));
        }
        let asked = when::parse(text, now, &self.policy.timezone)?;
        let first = points.first().map(|point| point.manifest.facts.consistency.moment);
        points.retain(|point| point.manifest.facts.consistency.moment <= asked);
        match (points.pop(), first) {
            (Some(row), _) => Ok(Chosen { row, asked: Some(asked), passed_over: Vec::new() }),
            (None, first) => {
                let first = first.map(|first| first.to_string()).unwrap_or_default();
                let what = format!(
                    "`{}` cannot be restored to {asked}: its first recovery point shows {first}",
                    row.name
                );
                Err(EngineError::new(FailureKind::Refused, what)
                    .next(format!("add --at {first}, or run `{show}`")))
            }
        }
    }

    /// Copies that should hold the point and are known not to: tried last or not at all, and never silently.
    fn passed_over(&self, row: &Store, point: &PointRow, set: &VaultSet) -> Vec<Finding> {
        let mut findings = Vec::new();
        for held in &point.holdings {
            let copy = &held.copy;
            if set.absent.contains(copy) {
                let failure = self.absence(row, copy);
                let finding = Finding::new("copy-absent", copy.as_str(), failure.chain());
                findings.push(finding.with_kind(failure.kind()));
            } else if let Some(why) = held.damaged.as_ref().filter(|_why| set.get(copy).is_some()) {
                let message = format!("copy `{copy}` is known to be damaged: {why}");
                let finding = Finding::new("copy-damaged", copy.as_str(), message);
                findings.push(finding.with_kind(FailureKind::Damaged));
            }
        }
        findings
    }

    /// Restores from one copy.
    fn restore_from(
        &self,
        entry: &crate::copies::CopyVault,
        make: &MakeAdapter<'_>,
        chosen: &Chosen,
        run: &RunId,
        request: &Request<'_>,
    ) -> Result<RestoreOutcome, Failure> {
        let options = request.options;
        let mut adapter = make(&options.tablespaces)?;
        if let Some(part) = &options.part {
            return self.extract_from(entry, adapter.as_ref(), chosen, run, (options, part));
        }
        let manifest = &chosen.row.manifest;
        let reader = entry.vault.open_point(manifest)?;
        let ground = self.ground(request, adapter.as_ref(), (manifest.id.as_str(), &manifest.facts), run)?;
        if !options.tablespaces.is_empty() {
            // From here on only what is held of the places counts.
            adapter = make(&ground.through(&options.tablespaces))?;
        }
        let content = ground.content();
        let source = ground.source(&reader);
        let name = format!("restore {} from {}", options.store, entry.copy);
        let monitor = Collector::new(self.observer.job(&name));
        let facts = &manifest.facts;
        let restored = adapter.restore(&source, facts, content, &monitor)?;
        let checks = if options.skip_checks {
            None
        } else {
            Some(checked(adapter.checks(&source, facts, content, &monitor)?)?)
        };
        adapter.settle(content, &options.target)?;
        let below =
            restored.artefact.strip_prefix(content).ok().filter(|below| !below.as_os_str().is_empty());
        let artefact = below.map_or_else(|| options.target.clone(), |below| options.target.join(below));
        let left = ground.left().to_vec();
        ground.publish(options)?;
        let mut outcome = RestoreOutcome::new(options, (chosen, &entry.copy), (&restored.stats, checks));
        outcome.artefact = artefact;
        outcome.left = left;
        outcome.findings.splice(0..0, monitor.take());
        Ok(outcome)
    }

    fn file_restore(&self, row: &Store, run: RunId, mut outcome: RestoreOutcome) -> RestoreOutcome {
        let part = outcome.part.as_ref();
        let tables = part.map(|part| part.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>());
        let body = json!({
            "run": run, "point": outcome.point, "copy": outcome.copy, "moment": outcome.moment,
            "asked": outcome.asked, "files": outcome.files, "bytes": outcome.bytes, "seconds": outcome.seconds,
            "checks": outcome.checks, "kept_bytes": outcome.kept_bytes, "fetched_bytes": outcome.fetched_bytes,
            "database": part.map(|part| &part.database), "tables": tables,
        });
        // The data is there: a failure to file it is a finding, not a failed restore.
        match self.file(Entry { kind: "restore", store: &row.name, ok: true, body }) {
            Ok(record) => outcome.evidence = Some(record.seq),
            Err(error) => outcome.findings.push(
                Finding::new("evidence-failed", row.name.as_str(), error.failure.chain())
                    .with_kind(error.kind()),
            ),
        }
        outcome
    }
}

impl Request<'_> {
    /// An error after something was changed in place: what is there now, and how to go on. Where nothing was there before,
    /// the failure has removed everything again.
    fn unfinished(&self, error: EngineError) -> EngineError {
        let target = &self.options.target;
        let is_left =
            |keystone| inplace::state(target, keystone).is_ok_and(|state| state == State::Unfinished);
        if !self.begun.get() || !self.keystone.is_some_and(is_left) {
            return error;
        }
        let kind = match error.kind() {
            // Refused means that nothing was changed.
            FailureKind::Refused => FailureKind::Findings,
            other => other,
        };
        let what = format!(
            "{} holds an unfinished restore and cannot be opened until it is finished",
            target.display()
        );
        let failure = Failure::with_source(kind, what, error.failure);
        let next = format!("when the cause is gone: {}", target::resume(self.options));
        EngineError { failure, at_risk: error.at_risk, next: Some(next) }
    }
}

/// The newest point that can be used and does not come from a wrong clock; without any, the newest there is.
fn newest(view: View, now: Timestamp) -> Option<Chosen> {
    let mut points = view.points;
    let ahead = |point: &PointRow| in_future(point.manifest.facts.consistency.moment, now);
    let index = points.iter().rposition(|point| point.usable() && !ahead(point)).unwrap_or(points.len() - 1);
    let newer = points.split_off(index + 1);
    let row = points.pop()?;
    let lost = view.lost.into_iter().filter(|id| id.as_str() > row.manifest.id.as_str());
    let passed_over = newer
        .into_iter()
        .map(|point| {
            let why = if ahead(&point) {
                "its moment lies in the future: was a clock wrong?"
            } else {
                "it is damaged, or may be, in every copy that holds it"
            };
            (point.manifest.id.to_string(), why)
        })
        .chain(lost.map(|id| (id, "the evidence records it and no copy holds it")))
        .collect();
    Some(Chosen { row, asked: None, passed_over })
}

fn no_point(row: &Store, view: &View) -> EngineError {
    match &view.other_kind {
        Some(kind) => EngineError::new(
            FailureKind::Refused,
            format!(
                "the recovery points of `{}` were captured as `{kind}`, the row says `{}`",
                row.name,
                row.kind.word()
            ),
        )
        .next("set the kind back in the policy to restore them"),
        None => EngineError::new(FailureKind::Refused, format!("`{}` has no recovery point", row.name))
            .risking(&row.name, "rpo")
            .next(format!("lifeboat backup {}", row.name)),
    }
}

/// Copies that hold the point: sound ones first, each group in the order of the row.
pub(crate) fn candidates<'a>(row: &'a Store, point: &PointRow, only: Option<&CopyName>) -> Vec<&'a CopyName> {
    let damaged =
        |copy: &CopyName| point.holdings.iter().any(|held| held.copy == *copy && held.damaged.is_some());
    let held = |copy: &&CopyName| point.holdings.iter().any(|held| held.copy == **copy);
    let mut copies: Vec<&CopyName> =
        row.copies.value.iter().filter(held).filter(|copy| only.is_none_or(|only| only == *copy)).collect();
    copies.sort_by_key(|copy| damaged(copy));
    copies
}

fn unusable(set: &VaultSet, only: Option<&CopyName>) -> Option<Failure> {
    set.failed
        .iter()
        .find(|(copy, _failure)| only.is_none_or(|only| only == copy))
        .map(|(copy, failure)| Failure::new(failure.kind(), format!("copy `{copy}`: {}", failure.chain())))
}

/// Every check must pass before anything is published.
pub(crate) fn checked(results: Vec<lifeboat_stores::CheckResult>) -> Result<usize, Failure> {
    match results.iter().find(|result| result.state == CheckState::Failed) {
        None => Ok(results.iter().filter(|result| result.state == CheckState::Passed).count()),
        Some(failed) => {
            let first = failed.detail.first().map(|line| format!(" ({line})")).unwrap_or_default();
            Err(Failure::new(
                FailureKind::Damaged,
                format!(
                    "check {} failed on the restored content: measured {}, expected {}{first}",
                    failed.id, failed.measured, failed.expected
                ),
            ))
        }
    }
}
