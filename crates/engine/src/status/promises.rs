//! The rules that turn facts into the cells of a row.

use std::time::Duration;

use lifeboat_base::human;
use lifeboat_base::ids::{CopyName, PointId};
use lifeboat_base::time::Timestamp;
use lifeboat_catalog::{PointRow, ProofLevel, RunRow};
use lifeboat_drill::Forecast;
use lifeboat_policy::{Decision, Reason, Retention, Span, Verdict};
use serde_json::Value;

use super::log::LogState;
use super::{Facts, PromiseKind, PromiseState, PromiseView, age, says};
use crate::retain::{in_doubt, stood_still};
use crate::shred::shredded_says;
use crate::view::drill_digest;

mod duties;
mod locks;

/// How long a point may stay after nothing keeps it any more, before the row's promise counts as broken.
const RETENTION_GRACE: Duration = Duration::from_secs(2 * 86_400);

/// Every cell of the row, in the order of the matrix.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<PromiseView> {
    let none = matches!(facts.row.retention.value, Retention::None);
    if let Some(run) = &facts.shredded {
        let cell = |promise| Cell::new(promise).rests_on(facts.now, run).broken(shredded_says(run));
        return PromiseKind::ALL.into_iter().map(cell).collect();
    }
    PromiseKind::ALL
        .into_iter()
        .map(|promise| match promise {
            PromiseKind::Retention if none => duties::not_kept(facts),
            PromiseKind::Rto if none => duties::made_again_in(facts),
            PromiseKind::Drill if none => duties::made_again(facts),
            _ if none => Cell::new(promise).not_applicable("not retained by policy"),
            PromiseKind::Rpo => rpo(facts),
            PromiseKind::Rto => rto(facts),
            PromiseKind::Retention => retention(facts),
            PromiseKind::Encryption => encryption(facts),
            PromiseKind::Immutability => locks::immutability(facts),
            PromiseKind::Copies => copies(facts),
            PromiseKind::Verify => verify(facts),
            PromiseKind::Drill => drill(facts),
        })
        .collect()
}

/// A cell being judged.
struct Cell {
    promise: PromiseKind,
    target: Option<String>,
    observed: Option<String>,
    age: Option<Duration>,
    evidence: Option<u64>,
}

impl Cell {
    fn new(promise: PromiseKind) -> Self {
        Self { promise, target: None, observed: None, age: None, evidence: None }
    }

    fn target(mut self, target: impl ToString) -> Self {
        self.target = Some(target.to_string());
        self
    }

    fn observed(mut self, observed: impl ToString) -> Self {
        self.observed = Some(observed.to_string());
        self
    }

    fn measured(mut self, now: Timestamp, at: Timestamp, evidence: u64) -> Self {
        self.age = Some(age(now, at));
        self.evidence = Some(evidence);
        self
    }

    fn rests_on(self, now: Timestamp, run: &RunRow) -> Self {
        self.measured(now, run.at, run.evidence)
    }

    fn end(self, state: PromiseState, reason: impl Into<String>) -> PromiseView {
        PromiseView {
            promise: self.promise,
            state,
            target: self.target,
            observed: self.observed,
            age_s: self.age.map(|age| age.as_secs()),
            reason: reason.into(),
            evidence: self.evidence.map(|seq| format!("evidence:{seq}")),
        }
    }

    fn kept(self, reason: impl Into<String>) -> PromiseView {
        self.end(PromiseState::Kept, reason)
    }

    fn broken(self, reason: impl Into<String>) -> PromiseView {
        self.end(PromiseState::Broken, reason)
    }

    fn unproven(self, reason: impl Into<String>) -> PromiseView {
        self.end(PromiseState::Unproven, reason)
    }

    fn not_applicable(self, reason: impl Into<String>) -> PromiseView {
        self.end(PromiseState::NotApplicable, reason)
    }
}

fn why_no_point(facts: &Facts<'_>) -> String {
    if let Some(kind) = &facts.other_kind {
        return format!("what was captured is of kind `{kind}`, the row says `{}`", facts.row.kind.word());
    }
    if !facts.supported {
        return format!("this version cannot capture `{}`", facts.row.kind.word());
    }
    if !facts.points.is_empty() {
        return "no recovery point can be restored: every copy of each is damaged".to_owned();
    }
    let error = facts.backup.as_ref().and_then(|run| run.body.get("error")).and_then(Value::as_str);
    match error {
        Some(error) => format!("never captured; the last backup failed: {error}"),
        None => "never captured".to_owned(),
    }
}

fn rpo(facts: &Facts<'_>) -> PromiseView {
    let cell = Cell::new(PromiseKind::Rpo);
    let Some(target) = facts.row.rpo.value else {
        return cell.not_applicable("the row promises no RPO");
    };
    let cell = cell.target(target);
    // A point with unreadable items does not hold everything that was written before its moment.
    let Some(point) = facts.points.iter().rev().find(|point| facts.counts(point) && point.complete()) else {
        return match facts.newest() {
            Some(point) => {
                let lost = point.manifest.facts.unreadable.len();
                cell.broken(format!("{} holds all but {lost} unreadable items", point.manifest.id))
            }
            None => cell.broken(why_no_point(facts)),
        };
    };
    let own = age(facts.now, point.manifest.facts.consistency.moment);
    let (lag, log) = match &facts.log {
        // With a log that goes on from the point without a gap, what counts is how far the log goes.
        Some(Ok(log)) => match log.hole(&point.manifest.id) {
            None => (own.min(age(facts.now, log.as_of)), None),
            Some(hole) => (own, Some(hole)),
        },
        Some(Err(why)) => (own, Some(why.clone())),
        None => (own, None),
    };
    let captured = point.proven(ProofLevel::Captured).map_or(0, |proof| proof.evidence);
    let cell = cell.observed(human::duration(lag)).measured(facts.now, point.manifest.ended, captured);
    if !facts.same_source() {
        return cell.unproven("the row has changed since the newest capture: it may show another store");
    }
    if facts.captured.as_ref().is_some_and(|run| run.body.get("emptied") == Some(&Value::Bool(true))) {
        return cell.unproven("the newest point is empty and the one before was not: is the store mounted?");
    }
    if let (Some(hole), Some(Ok(_))) = (&log, &facts.log) {
        return cell.broken(format!("what is held shows the store {} ago: {hole}", human::duration(lag)));
    }
    if lag > target.approx() {
        let log = log.map(|log| format!(", and {log}")).unwrap_or_default();
        return cell.broken(format!("what is held shows the store {} ago{log}", human::duration(lag)));
    }
    if let Some(why) = alarmed(point) {
        return if why.is_damage { cell.broken(why.text) } else { cell.unproven(why.text) };
    }
    let fuzzy = match point.manifest.facts.changes() {
        None => ", taken while nobody looked how much changed".to_owned(),
        Some(0) => String::new(),
        Some(changes) => format!(", taken while {changes} items changed"),
    };
    let shown = if lag < own { "with its log shows" } else { "shows" };
    cell.kept(format!("{} {shown} the store {} ago{fuzzy}", point.manifest.id, human::duration(lag)))
}

/// What a store said against itself when a point was taken of it.
struct Alarm {
    is_damage: bool,
    text: String,
}

fn alarmed(point: &PointRow) -> Option<Alarm> {
    let alarms = point.manifest.facts.environment.get("alarms")?.as_array()?;
    let said: Vec<&str> = alarms.iter().filter_map(Value::as_str).collect();
    let (all, id) = (said.join(", "), &point.manifest.id);
    if said.is_empty() {
        return None;
    }
    // A member that has compared itself with the others and differs.
    let is_damage = said.iter().any(|alarm| alarm.ends_with("CORRUPT"));
    let text = if is_damage {
        format!("{all} when {id} was taken: what it shows may not be what the cluster agreed on")
    } else {
        format!(
            "{all} when {id} was taken: the cluster takes no writes, and what its clients could not write is nowhere"
        )
    };
    Some(Alarm { is_damage, text })
}

fn seconds(body: &Value, field: &str) -> Option<Duration> {
    let seconds = body.get("store").unwrap_or(body).get(field).and_then(Value::as_f64)?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn rto(facts: &Facts<'_>) -> PromiseView {
    let cell = Cell::new(PromiseKind::Rto);
    let Some(target) = facts.row.rto.value else {
        return cell.not_applicable("the row promises no RTO");
    };
    let cell = cell.target(target);
    let Some(drill) = &facts.drill else {
        return cell.unproven("never drilled: how long a restore takes is not known");
    };
    let cell = cell.rests_on(facts.now, drill);
    if !facts.same_drill() {
        return cell.unproven("the row has changed since the last drill");
    }
    let Some(took) = seconds(&drill.body, "rto_s") else {
        return cell.broken("the last drill did not end in a store that passes its checks");
    };
    let cell = cell.observed(human::duration(took));
    if took > target.approx() {
        return cell.broken(format!("the last drill took {}", human::duration(took)));
    }
    let kept = format!("the last drill restored and checked it in {}", human::duration(took));
    cell.kept(match &facts.forecast {
        Some(next) => format!("{kept}; {}", foretold(next, target.approx())),
        None => kept,
    })
}

/// What is to be expected of the next restore, and whether the promise may be missed then.
fn foretold(next: &Forecast, target: Duration) -> String {
    let (low, high, drills) = (human::seconds(next.low_s), human::seconds(next.high_s), next.drills);
    let mut said = format!("{low} to {high} expected next, from {drills} drills");
    if next.high_s > target.as_secs_f64() {
        said.push_str(": the promise may be missed");
    }
    if next.beyond {
        said.push_str(" (a guess: it is far larger than it was drilled)");
    }
    said
}

fn retention(facts: &Facts<'_>) -> PromiseView {
    let cell = Cell::new(PromiseKind::Retention).target(facts.row.retention.value);
    if facts.points.is_empty() {
        return cell.unproven(why_no_point(facts));
    }
    if let Some(first) = facts.lost.first() {
        return cell.broken(format!("{} recorded and held nowhere, {first} first", facts.lost.len()));
    }
    let held = facts.points.iter().filter(|point| point.usable()).count();
    let cell = cell.observed(format!("{held} points"));
    if held < facts.points.len() {
        let lost = facts.points.len() - held;
        return cell
            .broken(format!("{lost} of {} points cannot be restored from any copy", facts.points.len()));
    }
    if let Some((window, log)) = facts.row.logs.value.zip(facts.log.as_ref()) {
        let hole = match log {
            Ok(log) => window_hole(facts, log),
            // What nobody can look at is no proof, and what was missing before is not there again.
            Err(why) => {
                return cell.unproven(format!("the log of the last {window} is not known to be held: {why}"));
            }
        };
        if let Some(hole) = hole {
            return cell.broken(format!("not every moment of the last {window} can be restored: {hole}"));
        }
    }
    let cell = match &facts.retain {
        Some(run) => cell.rests_on(facts.now, run),
        None => cell,
    };
    if let Some(gap) = facts.decided.as_ref().and_then(|decided| decided.doubt).filter(|gap| gap.needs_word) {
        return cell.broken(in_doubt(facts.row, &gap));
    }
    if let Some(decided) = facts.decided.as_ref().filter(|decided| decided.long_stalled) {
        return cell.broken(stood_still(facts.row, decided));
    }
    let overdue: Vec<_> = decisions(facts).filter_map(|point| overdue_since(facts, point)).collect();
    let last = facts.retain_ok.as_ref();
    let last = last.map(|run| format!("applied {} ago", human::duration(age(facts.now, run.at))));
    if let Some((first, since)) = overdue.first() {
        return cell.broken(format!(
            "{} points have outlived their retention, {first} first, since {}; retention was {}",
            overdue.len(),
            since.strftime("%Y-%m-%d"),
            last.as_deref().unwrap_or("never applied")
        ));
    }
    if let Some(failed) = facts.retain.as_ref().filter(|run| !run.ok) {
        let ago = human::duration(age(facts.now, failed.at));
        let why = failed.body.get("error").and_then(Value::as_str).unwrap_or("it left findings");
        return cell.broken(format!("the last retention, {ago} ago, did not succeed: {why}"));
    }
    let last = last.map(|last| format!(", {last}")).unwrap_or_default();
    cell.kept(format!("every point captured so far is held, and none has outlived its retention{last}"))
}

fn decisions<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = &'a Decision> {
    facts.decided.iter().flat_map(|decided| &decided.points)
}

/// Since when nothing keeps a point, if that is so long ago that retention should have removed it.
fn overdue_since<'a>(facts: &Facts<'_>, point: &'a Decision) -> Option<(&'a PointId, Timestamp)> {
    match point.verdict {
        Verdict::Deletable { since, .. } if age(facts.now, since) > RETENTION_GRACE => {
            Some((&point.id, since))
        }
        Verdict::Deletable { .. } | Verdict::Kept(_) => None,
    }
}

/// What is missing in the promised window of the log, from the point it starts with.
fn window_hole(facts: &Facts<'_>, log: &LogState) -> Option<String> {
    let within = |point: &&Decision| match &point.verdict {
        Verdict::Kept(reasons) => reasons.contains(&Reason::LogWindow),
        Verdict::Deletable { .. } => false,
    };
    let first = decisions(facts).find(within)?;
    log.hole_since_begun(&first.id)
}

fn encryption(facts: &Facts<'_>) -> PromiseView {
    let cell = Cell::new(PromiseKind::Encryption).target(facts.row.encryption.value.word());
    let Some(point) = facts.newest() else {
        return cell.unproven(why_no_point(facts));
    };
    let cell = cell.observed("AES-256, authenticated");
    if let Some((label, copy)) = facts.unnamed.first() {
        return cell.unproven(format!(
            "the vault in `{copy}` does not name {label}: nothing shows that it opens it"
        ));
    }
    // Only a verification has authenticated what is stored; a capture has only written it. One copy says nothing about
    // another.
    let authenticated = |copy: &CopyName| {
        let proofs = facts.points.iter().filter_map(|point| {
            point
                .proven_in(ProofLevel::Readable, copy)
                .or_else(|| point.proven_in(ProofLevel::Checksummed, copy))
        });
        proofs.max_by_key(|proof| proof.evidence)
    };
    let mut oldest: Option<&lifeboat_catalog::Proof> = None;
    for copy in &facts.row.copies.value {
        match authenticated(copy) {
            Some(proof) if oldest.is_none_or(|known| proof.at < known.at) => oldest = Some(proof),
            Some(_newer) => {}
            None => {
                return cell
                    .unproven(format!("{} was sealed; `{copy}` was not verified yet", point.manifest.id));
            }
        }
    }
    match oldest {
        Some(proof) => cell
            .measured(facts.now, proof.at, proof.evidence)
            .kept("the last verification authenticated every object of every copy"),
        None => cell.unproven("no copy was verified yet"),
    }
}

fn copies(facts: &Facts<'_>) -> PromiseView {
    let wanted = &facts.row.copies.value;
    let cell = Cell::new(PromiseKind::Copies).target(wanted.len());
    let Some(point) = facts.points.last() else {
        return cell.observed(0).broken(why_no_point(facts));
    };
    let sound =
        |copy: &CopyName| point.holdings.iter().any(|held| held.copy == *copy && held.damaged.is_none());
    let missing: Vec<&str> = wanted.iter().filter(|copy| !sound(copy)).map(CopyName::as_str).collect();
    let seen = point.holdings.iter().map(|held| held.seen).min().unwrap_or(facts.now);
    let evidence = point.proven(ProofLevel::Captured).map_or(0, |proof| proof.evidence);
    let cell = cell.observed(wanted.len() - missing.len()).measured(facts.now, seen, evidence);
    if !missing.is_empty() {
        return cell.broken(format!("{} is not whole in {}", point.manifest.id, missing.join(", ")));
    }
    let damaged = facts.points.iter().filter(|point| hurt(point)).count();
    if damaged > 0 {
        return cell.broken(format!("{damaged} older points are damaged or missing in a copy"));
    }
    cell.kept(format!(
        "every point is held in {}",
        wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    ))
}

fn hurt(point: &PointRow) -> bool {
    point.holdings.iter().any(|held| held.damaged.is_some())
}

fn verify(facts: &Facts<'_>) -> PromiseView {
    let wanted = facts.row.verify.value;
    let cell = Cell::new(PromiseKind::Verify);
    let asked: Vec<(&str, Span)> =
        wanted.levels().into_iter().filter_map(|(word, span)| span.map(|span| (word, span))).collect();
    let cell = if asked.is_empty() {
        cell
    } else {
        cell.target(
            asked.iter().map(|(word, span)| format!("{word} every {span}")).collect::<Vec<_>>().join(", "),
        )
    };
    if facts.points.is_empty() {
        return cell.unproven(why_no_point(facts));
    }
    // One sound copy must not hide another that is not.
    if let Some((copy, run)) = facts.verify.iter().find(|(_copy, run)| !run.ok) {
        let why = match run.body.get("error").and_then(Value::as_str) {
            Some(error) => format!("the last verification of `{copy}` could not open it: {error}"),
            None => format!("the last verification of `{copy}` found damage"),
        };
        return cell.rests_on(facts.now, run).broken(why);
    }
    let best = [ProofLevel::Probed, ProofLevel::Restored, ProofLevel::Readable, ProofLevel::Checksummed]
        .into_iter()
        .find_map(|level| facts.proven(level).map(|proof| (level, proof)));
    let cell = match &best {
        Some((level, (_point, at, evidence))) => cell.observed(level).measured(facts.now, *at, *evidence),
        None => cell.observed(ProofLevel::Captured),
    };
    for (word, span) in asked {
        if let Some(reason) = overdue(facts, word, span) {
            return match reason {
                Overdue::Late(reason) => cell.broken(reason),
                Overdue::Never(reason) => cell.unproven(reason),
            };
        }
    }
    match best {
        Some((level, (point, ..))) => cell.kept(format!("{} is proven as {level}", point.manifest.id)),
        None => cell.unproven("captured, and never read again"),
    }
}

enum Overdue {
    /// It was due and did not come.
    Late(String),
    /// It has not been due yet.
    Never(String),
}

/// Why a proof the row asks for is not there; nothing if it is recent enough.
fn overdue(facts: &Facts<'_>, word: &str, span: Span) -> Option<Overdue> {
    let level = match word {
        "pitr" => return pitr(facts, span),
        "drill" if facts.has_partners => return together(facts, span),
        "checksum" => ProofLevel::Checksummed,
        "readable" => ProofLevel::Readable,
        "restore" | "drill" => ProofLevel::Restored,
        _ => {
            return Some(Overdue::Never(format!(
                "`{word}` cannot be proven for `{}`",
                facts.row.kind.word()
            )));
        }
    };
    // One restore proves the store; what lies in a copy is only proven by reading that copy.
    if level == ProofLevel::Restored {
        return too_old(facts, word, span, facts.proven(level).map(|(_point, at, _evidence)| at), "");
    }
    facts.row.copies.value.iter().find_map(|copy| {
        let proofs = facts.points.iter().filter_map(|point| point.proven_in(level, copy));
        too_old(facts, word, span, proofs.map(|proof| proof.at).max(), &format!(" in `{copy}`"))
    })
}

/// A drill must have replayed the log up to a moment that was asked for, and stopped there.
fn pitr(facts: &Facts<'_>, span: Span) -> Option<Overdue> {
    let current = |run: &&RunRow| says(Some(run), "row", drill_digest(facts.row));
    let last = facts.pitr.as_ref().filter(current);
    if last.is_some_and(|run| run.body.get("pitr") != Some(&Value::Bool(true))) {
        return Some(Overdue::Late("the last drill of a moment within the log failed".to_owned()));
    }
    too_old(facts, "pitr", span, last.map(|run| run.at), "")
}

/// A drill must have restored the row together with others.
fn together(facts: &Facts<'_>, span: Span) -> Option<Overdue> {
    let current = |run: &&RunRow| says(Some(run), "row", drill_digest(facts.row));
    let last = facts.together.as_ref().filter(current);
    if last.is_some_and(|run| !run.ok) {
        return Some(Overdue::Late("the last drill with other stores failed".to_owned()));
    }
    too_old(facts, "drill", span, last.map(|run| run.at), "")
}

fn too_old(facts: &Facts<'_>, word: &str, span: Span, at: Option<Timestamp>, place: &str) -> Option<Overdue> {
    let Some(at) = at else {
        let first =
            facts.points.first().map(|point| age(facts.now, point.manifest.ended)).unwrap_or_default();
        let reason = format!("`{word}` was never proven{place}");
        return Some(if first > span.approx() { Overdue::Late(reason) } else { Overdue::Never(reason) });
    };
    let past = age(facts.now, at);
    (past > span.approx()).then(|| {
        let past = human::duration(past);
        Overdue::Late(format!("`{word}` was last proven {past} ago{place}, promised every {span}"))
    })
}

/// Why a rule of a drill was not shown to hold, in words; nothing if it was.
fn disagreement(run: &RunRow, name: &str) -> Option<String> {
    let rules = run.body.get("agreement").and_then(Value::as_array)?;
    let id = |rule: &Value| rule.get("id").and_then(Value::as_str).map(str::to_owned).unwrap_or_default();
    let named = |rule: &&Value| id(rule).split_once('/').is_some_and(|(_family, rest)| rest == name);
    let rule = rules.iter().find(named)?;
    let id = id(rule);
    let said = |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or_default();
    let powered = rule.get("canary_caught").and_then(Value::as_bool) == Some(true);
    match said("state") {
        "passed" if powered => None,
        "passed" => Some(format!("{id} has no power")),
        _ => Some(format!("{id}: {}", said("measured"))),
    }
}

fn drill(facts: &Facts<'_>) -> PromiseView {
    let cell = Cell::new(PromiseKind::Drill);
    let Some(last) = &facts.drill else {
        return cell.unproven("never drilled");
    };
    let cell = cell.rests_on(facts.now, last);
    if !facts.same_drill() {
        return cell.unproven("the row has changed since the last drill");
    }
    if last.ok {
        // A drill that did not ask a rule takes nothing of it back.
        for (name, digest, asked) in &facts.rules {
            let Some(run) = asked else {
                return cell.unproven(format!("the rule `{name}` was never asked: lifeboat drill --all"));
            };
            let same = run.body.pointer(&format!("/rules/{name}")).and_then(Value::as_str);
            if same != Some(digest.to_string().as_str()) {
                let why = "or one of its stores has changed since it was asked: lifeboat drill --all";
                return cell.unproven(format!("the rule `{name}` {why}"));
            }
            if let Some(why) = disagreement(run, name) {
                let cell = cell.rests_on(facts.now, run).observed("disagrees");
                return cell.broken(format!("the last drill that asked it failed: {why}"));
            }
        }
        let took = seconds(&last.body, "rto_s").map(human::duration).unwrap_or_default();
        return cell.observed("passed").kept(format!("passed in {took}"));
    }
    let first = last
        .body
        .get("findings")
        .and_then(Value::as_array)
        .and_then(|findings| findings.first())
        .and_then(|finding| finding.get("message"))
        .and_then(Value::as_str)
        .unwrap_or("see its evidence");
    let before = facts
        .drill_ok
        .as_ref()
        .map(|run| format!("; the last one that passed was {} ago", human::duration(age(facts.now, run.at))))
        .unwrap_or_default();
    cell.observed("failed").broken(format!("the last drill failed: {first}{before}"))
}
