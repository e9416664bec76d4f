//! Drills of a policy's stores: choose the points, rehearse, file the evidence, update what is proven.

mod common;
mod telltales;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lifeboat_base::apart::Network;
use lifeboat_base::capture::{CaptureFacts, RestoreSource};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::{AgreementName, ApplicationName, CopyName, DrillId, PlanName, StoreName};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{PointRow, ProofLevel};
use lifeboat_drill::{
    Application, CheckOutcome, DrillReport, DrillSubject, DrillVerdict, Expect, Local, Need, ProveLog,
    Question, Rehearsal, Rule, Side, StoreDrill, Target, TierDrill,
};
use lifeboat_policy::{
    Agreement, DrillTarget, Expectation, Retention, Selected, Selection, Span, Store, restore_order, variable,
};
use lifeboat_stores::{Adapter, CanaryResult, CheckState, Goal, Selection as Asked, Stop};
use lifeboat_vault::canaries::Tried;
use serde_json::json;

use self::common::{Spans, common_moment, state};
use crate::backup::Collector;
use crate::context::Engine;
use crate::copies::VaultSet;
use crate::error::EngineError;
use crate::journal::Entry;
use crate::logs::{Between, Replay, Told};
use crate::rehearsals::Timed;
use crate::restore::{Chosen, candidates, left_running};
use crate::view::{drill_digest, in_future, rules_digests};
use crate::when;

/// What to drill.
#[derive(Clone, Debug, Default)]
pub struct DrillOptions {
    /// The moment of the imagined disaster; nothing means now.
    pub at: Option<String>,
    /// Only from this copy.
    pub copy: Option<CopyName>,
    /// The plan it is run for.
    pub plan: Option<PlanName>,
    /// Copies or keys are treated as gone.
    pub lessened: bool,
    /// What applications answer over HTTP is what later drills are compared with.
    pub baseline: bool,
}

impl DrillOptions {
    /// What a chosen point or copy shows says nothing about what would be restored after a loss.
    fn is_particular(&self) -> bool {
        self.at.is_some() || self.copy.is_some() || self.lessened
    }
}

/// A row whose vaults are open, before it is known which moment it is restored to.
struct Standing<'a> {
    row: &'a Store,
    adapter: Box<dyn Adapter>,
    set: VaultSet,
    /// What would be restored if the row were alone.
    plan: (Chosen, Option<Replay>),
    /// What it can be restored to.
    spans: Spans,
    /// What was wrong with the row before anything was restored.
    findings: Vec<Finding>,
}

/// Everything a subject borrows from.
struct Prepared<'a> {
    row: &'a Store,
    adapter: Box<dyn Adapter>,
    chosen: Chosen,
    copy: CopyName,
    /// What the point says, at the moment the drill restores.
    facts: CaptureFacts,
    /// The newest moment it can be restored to by itself.
    reach: Timestamp,
    /// Where the log is to be replayed up to a moment and no further: whether the restore was told to stop there.
    stop: Option<Told>,
    /// Whether its restore goes on through a log.
    replays: bool,
    findings: Vec<Finding>,
    /// Two points with the log between them, which the newer one proves.
    between: Option<Between>,
}

/// A row that could not even be prepared, with the reasons.
type Impossible<'a> = (&'a Store, Vec<Finding>);

impl Engine {
    /// Rehearses the loss of the stores named, or of all that are retained: they are restored into a sandbox in their
    /// order and to one moment, checked, compared and measured. The report is filed before it is returned.
    pub fn drill(&self, names: &[StoreName], options: &DrillOptions) -> Result<DrillReport, EngineError> {
        let now = self.env.clock.now();
        let moment = match &options.at {
            Some(text) if !text.starts_with("pt-") => when::parse(text, now, &self.policy.timezone)?,
            _ => now,
        };
        self.ready_to_file()?;
        let rows = self.select(names)?;
        let (standing, mut impossible) = self.stand(&rows, options);
        let common = common(&standing, options, moment);
        let mut prepared = Vec::new();
        for ready in standing {
            let (row, mut findings) = (ready.row, ready.findings.clone());
            match self.prepare(ready, options, common) {
                Ok(ready) => prepared.push(ready),
                Err(error) => {
                    findings.push(cannot_be_drilled(row, &error));
                    impossible.push((row, findings));
                }
            }
        }
        let before = prepared.iter().map(|ready| &ready.findings);
        let before = before.chain(impossible.iter().map(|(_, findings)| findings));
        let mut findings: Vec<Finding> = before.flatten().cloned().collect();
        if rows.len() == self.policy.stores.len() {
            findings.extend(self.inventory().findings);
        }
        let applications = self.applications(&prepared, &impossible, options, &mut findings)?;
        let id = DrillId::generate(now, self.env.entropy.as_ref());
        let monitor = Collector::new(self.observer.job(&format!("drill {id}")));
        let target = self.target(options)?;
        let rehearsal = Rehearsal {
            id,
            moment,
            common,
            waves: self.waves(&prepared)?,
            rules: rules(&self.policy.agreements, &prepared, &impossible),
            applications,
            reading: Box::new(|scratch| self.try_reading(scratch)),
            telltales: self.telltales(),
        };
        let mut report = lifeboat_drill::run(rehearsal, target.as_ref(), self.env.clock.as_ref(), &monitor)
            .map_err(Failure::from)?;
        if !findings.is_empty() {
            report.verdict = DrillVerdict::Failed;
        }
        report.findings.splice(0..0, findings);
        if !options.is_particular() {
            self.replay_rows(&rows, &mut report)?;
        }
        if report.stores.is_empty() && report.replays.is_empty() && report.findings.is_empty() {
            return Err(EngineError::new(FailureKind::Refused, "there is no retained store to drill")
                .next("name a store whose retention is not `none`, or give the row `checks.replay`"));
        }
        for store in &mut report.stores {
            store.forecast = self.forecast(&store.name, store.bytes)?;
        }
        report.tiers = tiers(&report.stores, &rows);
        report.baseline = options.baseline && report.verdict == DrillVerdict::Passed;
        report.environment = Some(self.environment());
        report.plan.clone_from(&options.plan);
        self.file_impossible(&impossible, options, &mut report)?;
        self.file_drill(&prepared, options, &mut report)?;
        self.file_rehearsal(&mut report)?;
        Ok(report)
    }

    /// Where it restores to.
    fn target(&self, options: &DrillOptions) -> Result<Box<dyn Target>, EngineError> {
        let plan = options.plan.as_ref().and_then(|name| self.policy.drills.get(name));
        match plan.map(|plan| plan.target).unwrap_or_default() {
            DrillTarget::Local => Ok(Box::new(Local::new(self.sandboxes()?))),
        }
    }

    /// Opens the vaults of every retained row.
    fn stand<'a>(
        &self,
        rows: &[&'a Store],
        options: &DrillOptions,
    ) -> (Vec<Standing<'a>>, Vec<Impossible<'a>>) {
        let (mut standing, mut impossible) = (Vec::new(), Vec::new());
        for row in rows {
            if matches!(row.retention.value, Retention::None) {
                continue;
            }
            let mut findings = Vec::new();
            match self.stand_one(row, options, &mut findings) {
                Ok(ready) => standing.push(Standing { findings, ..ready }),
                Err(error) => {
                    findings.push(cannot_be_drilled(row, &error));
                    impossible.push((*row, findings));
                }
            }
        }
        (standing, impossible)
    }

    fn stand_one<'a>(
        &self,
        row: &'a Store,
        options: &DrillOptions,
        findings: &mut Vec<Finding>,
    ) -> Result<Standing<'a>, EngineError> {
        let adapter = self.adapter(row)?;
        let set = self.open_vaults(row)?;
        findings.extend(set.findings());
        findings.extend(left_running(adapter.as_ref(), row));
        findings.extend(self.reconcile(row, &set)?);
        if options.at.is_none() {
            findings.extend(self.log_left_here(row));
        }
        let asked = (options.at.as_deref(), options.copy.as_ref());
        let plan = self.plan(row, adapter.as_ref(), &set, asked)?;
        findings.extend(plan.0.findings());
        findings.extend(plan.1.as_ref().and_then(Replay::finding));
        let spans = self.spans(row, adapter.as_ref(), &set, asked.1)?;
        Ok(Standing { row, adapter, set, plan, spans, findings: Vec::new() })
    }

    /// The best point and stretch of log for what is asked for.
    fn plan(
        &self,
        row: &Store,
        adapter: &dyn Adapter,
        set: &VaultSet,
        asked: (Option<&str>, Option<&CopyName>),
    ) -> Result<(Chosen, Option<Replay>), EngineError> {
        match self.plan_replay(row, adapter, set, asked)?.into_iter().next() {
            Some(plan) => Ok(plan),
            None => Ok((self.choose(row, asked.0, asked.1)?, None)),
        }
    }

    /// What a row can be restored to: the moments of its usable points, and what the logs of its copies add.
    fn spans(
        &self,
        row: &Store,
        adapter: &dyn Adapter,
        set: &VaultSet,
        only: Option<&CopyName>,
    ) -> Result<Spans, EngineError> {
        let now = self.env.clock.now();
        let view = self.view(row)?;
        let moment = |point: &&PointRow| point.manifest.facts.consistency.moment;
        let usable: Vec<&PointRow> =
            view.points.iter().filter(|point| point.usable() && !in_future(moment(point), now)).collect();
        let mut spans = Spans::new();
        for entry in set.open.iter().filter(|entry| only.is_none_or(|only| entry.copy == *only)) {
            if let Some(reaches) = self.reaches(row, adapter, entry, &usable)? {
                spans.extend(reaches.iter().map(|reach| (reach.from, reach.to)));
            }
        }
        if spans.is_empty() {
            spans.extend(usable.iter().map(|point| (moment(point), moment(point))));
        }
        Ok(spans)
    }

    /// Settles which point is restored to which moment and from which copy.
    fn prepare<'a>(
        &self,
        standing: Standing<'a>,
        options: &DrillOptions,
        common: Option<Timestamp>,
    ) -> Result<Prepared<'a>, EngineError> {
        let Standing { row, adapter, set, plan, spans, findings } = standing;
        let reach = spans.iter().map(|(_, to)| *to).max();
        let earlier = common.filter(|_| options.at.is_none()).and_then(|common| state(&spans, common));
        let (chosen, replay) = match earlier.filter(|state| Some(*state) < reach) {
            Some(state) => {
                let asked = self.at_moment(row, adapter.as_ref(), state)?;
                self.plan(row, adapter.as_ref(), &set, (Some(&asked), options.copy.as_ref()))?
            }
            None => plan,
        };
        let mut copies = candidates(row, &chosen.row, options.copy.as_ref());
        copies.sort_by_key(|copy| replay.as_ref().is_some_and(|replay| replay.copy != **copy));
        let copy = copies.into_iter().find(|copy| set.get(copy).is_some()).cloned().ok_or_else(|| {
            let id = &chosen.row.manifest.id;
            EngineError::new(FailureKind::Unreachable, format!("no copy that holds {id} can be used"))
        })?;
        let between = match options.at {
            None => self.between(row, adapter.as_ref(), &set, options.copy.as_ref())?,
            Some(_) => None,
        };
        let mut facts = chosen.row.manifest.facts.clone();
        let (mut stop, replays) = (None, replay.is_some());
        let adapter = match (replay, set.get(&copy)) {
            (Some(replay), Some(entry)) => {
                facts.consistency.moment = replay.moment;
                let replaying = self.replaying(row, adapter, entry, &replay)?;
                stop = matches!(replay.goal, Goal::Moment(_)).then(|| replaying.told());
                Box::new(replaying)
            }
            _ => adapter,
        };
        let shows = facts.consistency.moment;
        // What was asked for says nothing about what could have been reached.
        let reach = if options.at.is_some() { shows } else { reach.map_or(shows, |reach| reach.max(shows)) };
        Ok(Prepared { row, adapter, chosen, copy, facts, reach, stop, replays, findings, between })
    }

    /// How a moment a row can show is asked for: by its point, if there is no log that leads to it.
    fn at_moment(&self, row: &Store, adapter: &dyn Adapter, state: Timestamp) -> Result<String, EngineError> {
        if adapter.continuous().is_some() && row.logs.value.is_some() {
            return Ok(state.to_string());
        }
        let view = self.view(row)?;
        let shown = |point: &&PointRow| point.usable() && point.manifest.facts.consistency.moment == state;
        let point = view.points.iter().rev().find(shown);
        Ok(point.map_or_else(|| state.to_string(), |point| point.manifest.id.to_string()))
    }

    /// The stores in the order in which they come back.
    fn waves<'a>(&'a self, prepared: &'a [Prepared<'_>]) -> Result<Vec<Vec<DrillSubject<'a>>>, EngineError> {
        let rows: Vec<&Store> = prepared.iter().map(|ready| ready.row).collect();
        let waves = in_order(&rows)?;
        let of = |row: &&Store| prepared.iter().find(|ready| ready.row.name == row.name);
        Ok(waves
            .iter()
            .map(|wave| wave.iter().filter_map(of).map(|ready| self.subject(ready)).collect())
            .collect())
    }

    /// The names of the rules a store has a part in, and of the applications that need it.
    pub(crate) fn rules_of(&self, store: &StoreName) -> Vec<&str> {
        let has = |rule: &Agreement| rule.left.store == *store || rule.right.store == *store;
        let policy = &self.policy;
        let rules = policy.agreements.iter().filter(|(_, rule)| has(rule)).map(|(name, _)| name.as_str());
        let needs = policy.applications.iter().filter(|(_, application)| application.stores.contains(store));
        rules.chain(needs.map(|(name, _)| name.as_str())).collect()
    }

    /// The applications of which all stores are in the drill.
    fn applications(
        &self,
        prepared: &[Prepared<'_>],
        impossible: &[Impossible<'_>],
        options: &DrillOptions,
        findings: &mut Vec<Finding>,
    ) -> Result<Vec<Application>, EngineError> {
        let has = |store: &StoreName| takes_part(store, prepared, impossible);
        let all = self.policy.applications.iter();
        let tried: Vec<_> = all
            .filter(|(_, application)| application.stores.iter().all(has))
            .map(|(name, application)| (name, application, what_is_timed(application)))
            .collect();
        let is_asked = tried.iter().any(|(_, application, _)| !application.http.is_empty());
        if options.baseline && !is_asked {
            return Err(EngineError::new(FailureKind::Usage, "this drill asks no application over HTTP")
                .next("give an application `http = [\"/health\"]`, and drill all of its stores"));
        }
        // A new baseline is not compared with the old one.
        let wanted: BTreeSet<Timed> = tried
            .iter()
            .filter(|_| !options.baseline)
            .flat_map(|(name, application, subject)| {
                let paths = application.http.iter().map(|question| question.path.clone());
                paths.map(|path| ((*name).clone(), *subject, path))
            })
            .collect();
        let baseline = self.baselines(wanted, findings)?;
        let asked = |name: &ApplicationName, of, question: &lifeboat_policy::Question| Question {
            path: question.path.clone(),
            status: question.status,
            text: question.text.clone(),
            baseline_p95_ms: baseline.get(&(name.clone(), of, question.path.clone())).copied(),
        };
        Ok(tried
            .into_iter()
            .map(|(name, application, subject)| Application {
                name: name.clone(),
                stores: application.stores.iter().map(need).collect(),
                command: application.command.clone(),
                folder: self.base.clone(),
                within: application.within.approx(),
                network: match application.network {
                    lifeboat_policy::Network::None => Network::None,
                    lifeboat_policy::Network::Host => Network::Host,
                },
                http: application.http.iter().map(|question| asked(name, subject, question)).collect(),
                subject,
            })
            .collect())
    }

    /// A drill that could not even begin is one that failed: an older one that passed must not stand for it.
    fn file_impossible(
        &self,
        impossible: &[Impossible<'_>],
        options: &DrillOptions,
        report: &mut DrillReport,
    ) -> Result<(), EngineError> {
        for (row, findings) in impossible {
            let body = json!({
                "drill": report.id, "moment": report.moment, "findings": findings, "verdict": report.verdict,
                "scope": scope(options), "row": drill_digest(row),
            });
            let record = self.file(Entry { kind: "drill", store: &row.name, ok: false, body })?;
            report.records.push(record.seq);
        }
        Ok(())
    }

    fn subject<'a>(&'a self, ready: &'a Prepared<'_>) -> DrillSubject<'a> {
        let manifest = &ready.chosen.row.manifest;
        let seconds = |span: &Option<Span>| span.as_ref().map(Span::approx);
        DrillSubject {
            store: ready.row.name.clone(),
            point: manifest.id.clone(),
            copy: ready.copy.clone(),
            facts: &ready.facts,
            reach: ready.reach,
            adapter: ready.adapter.as_ref(),
            // The vault is opened again inside the drill: key derivation and index load count in the recovery time.
            open: Box::new(move || {
                let set = self.open_vaults(ready.row).map_err(|error| error.failure)?;
                let found = set.open.into_iter().find(|entry| entry.copy == ready.copy);
                let entry = found.ok_or_else(|| {
                    Failure::new(FailureKind::Unreachable, format!("copy `{}` went away", ready.copy))
                })?;
                let reader = entry.vault.open_point(manifest)?;
                Ok(Box::new(reader) as Box<dyn RestoreSource>)
            }),
            log: ready.between.as_ref().map(|between| {
                let prove = move |scratch: &Path, monitor: &dyn Monitor| {
                    self.prove_log(ready.row, between, scratch, monitor)
                };
                Box::new(prove) as ProveLog<'_>
            }),
            replays: ready.replays,
            rto: seconds(&ready.row.rto.value),
            rpo: seconds(&ready.row.rpo.value),
        }
    }

    /// What vaults are read by, on a damaged one.
    fn try_reading(&self, scratch: &Path) -> Result<Vec<CanaryResult>, Failure> {
        let tried = lifeboat_vault::canaries::try_reading(scratch, self.env.entropy.as_ref())?;
        let result = |tried: Tried| CanaryResult {
            check: tried.check.to_owned(),
            damage: tried.damage.to_owned(),
            caught: tried.caught,
        };
        Ok(tried.into_iter().map(result).collect())
    }

    fn file_drill(
        &self,
        prepared: &[Prepared<'_>],
        options: &DrillOptions,
        report: &mut DrillReport,
    ) -> Result<(), EngineError> {
        let mut records = Vec::new();
        for store in &report.stores {
            let Some(ready) = prepared.iter().find(|ready| ready.row.name == store.name) else { continue };
            let rules: Vec<&str> = self.rules_of(&store.name);
            let said: Vec<&CheckOutcome> =
                report.agreement.iter().filter(|outcome| rules.contains(&rule_name(outcome))).collect();
            let agrees = said.iter().all(|outcome| outcome.has_shown());
            // What the drill as a whole is called failed for is no pass for the row either.
            let left = |finding: &Finding| {
                ["drill.teardown", "drill.leftover", "drill.must-differ"].contains(&finding.code.as_str())
            };
            let gone = !report.findings.iter().any(left);
            let ok = store.verdict == DrillVerdict::Passed && ready.findings.is_empty() && agrees && gone;
            let of_row = |finding: &&Finding| {
                finding.subject == store.name.as_str()
                    || left(finding)
                    || ready.findings.contains(finding)
                    || said.iter().any(|outcome| rule_name(outcome) == finding.subject)
            };
            let findings: Vec<&Finding> = report.findings.iter().filter(of_row).collect();
            let damaged =
                store.rto_s.is_none() && findings.iter().any(|finding| finding.kind == FailureKind::Damaged);
            // A replay to the end of the log, because nothing follows the moment, shows nothing about stopping.
            let pitr = ready.stop.as_ref().and_then(|told| match told.get() {
                Some(Stop::Goal) => Some(restored(store)),
                Some(Stop::End) => None,
                None => Some(false),
            });
            let body = json!({
                "drill": report.id, "moment": report.moment, "point": store.point, "copy": store.copy,
                "store": store, "findings": findings, "verdict": report.verdict,
                "scope": scope(options), "agreement": said,
                "rules": rules_digests(&self.policy, &store.name), "asked": options.is_particular(),
                "together_with": report.stores.len().saturating_sub(1), "common_moment": report.common_moment,
                "row": drill_digest(ready.row), "damaged_point": damaged, "pitr": pitr,
            });
            let record = self.file(Entry { kind: "drill", store: &store.name, ok, body })?;
            self.prove(ready.row, &store.point, &store.copy, ProofLevel::Restored, restored(store), &record)?;
            if let Some(ok) = store.has_meaning() {
                let ok = ok && restored(store);
                self.prove(ready.row, &store.point, &store.copy, ProofLevel::Probed, ok, &record)?;
            }
            if damaged {
                self.catalog()?
                    .set_holding(
                        &store.name,
                        &store.point,
                        &store.copy,
                        record.at,
                        Some("a drill could not restore it"),
                    )
                    .map_err(Failure::from)?;
            }
            records.push(record.seq);
        }
        report.records.extend(records);
        Ok(())
    }
}

/// The order in which rows come back after a loss; those of one wave side by side.
pub(crate) fn in_order<'a>(rows: &[&'a Store]) -> Result<Vec<Vec<&'a Store>>, EngineError> {
    restore_order(rows).map_err(|circle| {
        let names: Vec<&str> = circle.iter().map(StoreName::as_str).collect();
        EngineError::new(FailureKind::Usage, format!("stores need each other: {}", names.join(", ")))
    })
}

/// Only what would be restored after a loss today speaks for the row, by itself or to one moment with others.
fn scope(options: &DrillOptions) -> &'static str {
    if options.is_particular() { "chosen" } else { "newest" }
}

fn rule_name(outcome: &CheckOutcome) -> &str {
    outcome.id.split_once('/').map_or(outcome.id.as_str(), |(_family, name)| name)
}

fn cannot_be_drilled(row: &Store, error: &EngineError) -> Finding {
    let message = format!("{} cannot be drilled: {}", row.name, error.failure.chain());
    Finding::new("drill.impossible", row.name.as_str(), message).with_kind(error.kind())
}

/// When the last store of each tier was back.
fn tiers(drilled: &[StoreDrill], rows: &[&Store]) -> Vec<TierDrill> {
    let mut tiers: Vec<TierDrill> = Vec::new();
    for row in rows {
        let store = drilled.iter().find(|store| store.name == row.name);
        let (Some(store), Some(tier)) = (store, row.tier.as_ref().map(ToString::to_string)) else { continue };
        match tiers.iter_mut().find(|known| known.tier == tier) {
            Some(known) => {
                known.ready_s = known.ready_s.zip(store.ready_s).map(|(one, other)| one.max(other));
                known.stores.push(row.name.clone());
            }
            None => tiers.push(TierDrill { tier, stores: vec![row.name.clone()], ready_s: store.ready_s }),
        }
    }
    tiers
}

/// The moment several stores are restored to: the one asked for, or the newest at which they are close together.
fn common(standing: &[Standing<'_>], options: &DrillOptions, moment: Timestamp) -> Option<Timestamp> {
    if standing.len() < 2 {
        return None;
    }
    if let Some(asked) = &options.at {
        return (!asked.starts_with("pt-")).then_some(moment);
    }
    common_moment(&standing.iter().map(|ready| &ready.spans).collect::<Vec<_>>())
}

/// What the times of an application's answers are of: they say nothing about another program, or other questions.
fn what_is_timed(application: &lifeboat_policy::Application) -> Digest {
    let lifeboat_policy::Application { stores, command, network, http, .. } = application;
    Digest::of(format!("{:?}", (stores, command, network, http)).as_bytes())
}

/// What an application is told of a store, and under which names.
fn need(store: &StoreName) -> Need {
    let name = variable(store);
    Need { store: store.clone(), address: format!("STORE_{name}"), moment: format!("MOMENT_{name}") }
}

/// One that cannot be drilled leaves its rules unproven, and not unsaid.
fn takes_part(store: &StoreName, prepared: &[Prepared<'_>], impossible: &[Impossible<'_>]) -> bool {
    prepared.iter().any(|ready| ready.row.name == *store)
        || impossible.iter().any(|(row, _)| row.name == *store)
}

/// The rules between stores of the drill.
fn rules(
    agreements: &BTreeMap<AgreementName, Agreement>,
    prepared: &[Prepared<'_>],
    impossible: &[Impossible<'_>],
) -> Vec<Rule> {
    let has = |side: &Selection| takes_part(&side.store, prepared, impossible);
    let side = |side: &Selection| Side {
        store: side.store.clone(),
        selection: match &side.selected {
            Selected::Sql { database, text } => Asked::Sql { database: database.clone(), text: text.clone() },
            Selected::Paths(glob) => Asked::Paths(glob.clone()),
            Selected::Keys(pattern) => Asked::Keys(pattern.clone()),
            Selected::Under(start) => Asked::Under(start.clone()),
        },
        prefix: side.prefix.clone(),
        suffix: side.suffix.clone(),
    };
    agreements
        .iter()
        .filter(|(_, rule)| has(&rule.left) && has(&rule.right))
        .map(|(name, rule)| Rule {
            name: name.clone(),
            left: side(&rule.left),
            right: side(&rule.right),
            expect: match rule.expect {
                Expectation::Exists => Expect::Exists,
                Expectation::Same => Expect::Same,
                Expectation::Newest => Expect::Newest,
            },
            within: rule.within.as_ref().map(Span::approx).unwrap_or_default(),
        })
        .collect()
}

/// A point is proven as restored when every check passed, even if the drill missed a promise about time.
fn restored(store: &StoreDrill) -> bool {
    store.rto_s.is_some()
        && store
            .checks
            .iter()
            .all(|check| check.state == CheckState::NotApplicable || check.canary_caught == Some(true))
}
