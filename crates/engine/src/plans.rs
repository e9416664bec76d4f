//! Drills that are due again and again: run as the policy plans them, filed, and judged by when they passed last.

use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::ids::{CopyName, PlanName, StoreName};
use lifeboat_base::time::{SignedDuration, Timestamp};
use lifeboat_catalog::RunRow;
use lifeboat_drill::{DrillReport, DrillVerdict};
use lifeboat_policy::{DrillChecks, DrillPlan, Policy, Recipient};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Engine;
use crate::drills::DrillOptions;
use crate::error::EngineError;
use crate::journal::Entry;
use crate::status::{PromiseState, age};
use crate::view::{drill_digest, rules_digests};

/// The kind of record that says how a planned drill ended; its subject is the plan.
pub(crate) const PLANNED: &str = "planned-drill";

/// One planned drill of the policy.
#[derive(Clone, Debug, Serialize)]
pub struct PlanStatus {
    /// Its name.
    pub name: PlanName,
    /// Kept if it passed, as it is planned now, within its time.
    pub state: PromiseState,
    /// How often it is due, as in the policy.
    pub every: String,
    /// Seconds since it ran last.
    pub age_s: Option<u64>,
    /// Why it is in this state.
    pub reason: String,
    /// The record of the evidence chain it rests on.
    pub evidence: Option<String>,
}

impl Engine {
    /// Runs a planned drill as if what it does without were gone, and files how it ended.
    pub fn drill_planned(&self, name: &PlanName) -> Result<DrillReport, EngineError> {
        let plan = self.plan_named(name)?;
        let at = match plan.back {
            Some(back) => Some(before(self.env.clock.now(), back.approx())?.to_string()),
            None => None,
        };
        let options = DrillOptions {
            at,
            copy: None,
            plan: Some(name.clone()),
            lessened: !plan.without.is_empty() || !plan.open_with.is_empty(),
            baseline: false,
        };
        let policy = lessened(&self.policy, plan);
        let result = self.with_policy(policy).drill(&plan.stores, &options);
        let (ok, said) = match &result {
            Ok(report) => (
                report.verdict == DrillVerdict::Passed,
                json!({ "drill": report.id, "rehearsal": report.evidence }),
            ),
            Err(error) => (false, json!({ "error": error.failure.chain() })),
        };
        let mut body = json!({ "plan": digest(&self.policy, plan).to_string() });
        if let (Value::Object(body), Value::Object(said)) = (&mut body, said) {
            body.extend(said);
        }
        let filed = subject(name).and_then(|subject| {
            self.file(Entry { kind: PLANNED, store: &subject, ok, body })?;
            Ok(())
        });
        // What stopped the drill is what is told, also where that could not be filed.
        let report = result?;
        filed?;
        Ok(report)
    }

    /// The planned drills that are not kept now, in the order of their names.
    pub fn due_drills(&self) -> Result<Vec<PlanName>, EngineError> {
        let plans = self.plans(self.env.clock.now())?;
        Ok(plans.into_iter().filter(|plan| plan.state != PromiseState::Kept).map(|plan| plan.name).collect())
    }

    /// How every planned drill stands.
    pub(crate) fn plans(&self, now: Timestamp) -> Result<Vec<PlanStatus>, EngineError> {
        let catalog = self.catalog()?;
        let of = |(name, plan): (&PlanName, &DrillPlan)| {
            let last = catalog.last_run(&subject(name)?, PLANNED, false).map_err(Failure::from)?;
            Ok(judge(name, (plan, digest(&self.policy, plan)), last.as_ref(), now))
        };
        self.policy.drills.iter().map(of).collect()
    }

    fn plan_named(&self, name: &PlanName) -> Result<&DrillPlan, EngineError> {
        self.policy.drills.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.policy.drills.keys().map(PlanName::as_str).collect();
            let next = if known.is_empty() {
                "add a `[drill.NAME]` to the policy; docs/policy.md says what it can say".to_owned()
            } else {
                format!("name one of: {}", known.join(", "))
            };
            EngineError::new(FailureKind::Usage, format!("the policy plans no drill `{name}`")).next(next)
        })
    }
}

/// `digest` is that of what the plan asks for now.
fn judge(
    name: &PlanName,
    (plan, digest): (&DrillPlan, Digest),
    last: Option<&RunRow>,
    now: Timestamp,
) -> PlanStatus {
    let every = plan.every.to_string();
    let age = last.map(|run| age(now, run.at));
    let ago = age.map(human::duration).unwrap_or_default();
    let run_it = format!("lifeboat drill --plan {name}");
    let (state, reason) = match (last, age) {
        (None, _) | (_, None) => (PromiseState::Unproven, format!("it never ran: {run_it}")),
        (Some(run), _)
            if run.body.get("plan").and_then(Value::as_str) != Some(digest.to_string().as_str()) =>
        {
            (
                PromiseState::Unproven,
                format!("the plan or what it restores has changed since it ran: {run_it}"),
            )
        }
        (Some(run), _) if !run.ok => {
            let why = run
                .body
                .get("error")
                .and_then(Value::as_str)
                .map(|why| format!(": {why}"))
                .unwrap_or_default();
            (PromiseState::Broken, format!("it failed {ago} ago{why}"))
        }
        (Some(_), Some(age)) if age > plan.every.approx() => (
            PromiseState::Broken,
            format!("it is overdue: it ran {ago} ago, every {every} is planned: {run_it}"),
        ),
        (Some(_), Some(_)) => (PromiseState::Kept, format!("it passed {ago} ago, every {every} is planned")),
    };
    PlanStatus {
        name: name.clone(),
        state,
        every,
        age_s: age.map(|age| age.as_secs()),
        reason,
        evidence: last.map(|run| format!("evidence:{}", run.evidence)),
    }
}

/// The policy after the loss that a plan imagines, with the rules it asks: other code sees nothing of what is gone.
fn lessened(policy: &Policy, plan: &DrillPlan) -> Policy {
    let mut policy = policy.clone();
    for row in policy.stores.values_mut() {
        row.copies.value.retain(|copy| !plan.without.contains(copy));
    }
    if !plan.open_with.is_empty() {
        policy.keys.recipients.retain(|recipient| plan.open_with.contains(recipient));
    }
    if let DrillChecks::Only(checks) = &plan.checks {
        policy.agreements.retain(|name, _| checks.iter().any(|asked| asked == name.as_str()));
        policy.applications.retain(|name, _| checks.iter().any(|asked| asked == name.as_str()));
    }
    policy
}

/// What a plan asks for and restores from: itself, the rows with their promises and the rules they are asked, the places of their copies
/// and who opens them; how often it is due is not part of it. A row that joined the policy was in no drill before.
fn digest(policy: &Policy, plan: &DrillPlan) -> Digest {
    let asked = lessened(policy, plan);
    let rows: Vec<_> = policy
        .stores
        .values()
        .filter(|row| plan.stores.is_empty() || plan.stores.contains(&row.name))
        .map(|row| {
            let places: Vec<_> = row
                .copies
                .value
                .iter()
                .map(|copy| (copy, policy.copies.get(copy).map(|place| &place.url)))
                .collect();
            let promised = (row.retention.value.keeps_points(), row.rto.value, row.rpo.value, &row.needs);
            (&row.name, promised, places, drill_digest(row), rules_digests(&asked, &row.name))
        })
        .collect();
    let opened: Vec<String> = policy.keys.recipients.iter().map(Recipient::to_string).collect();
    let without: Vec<&str> = plan.without.iter().map(CopyName::as_str).collect();
    let open_with: Vec<String> = plan.open_with.iter().map(Recipient::to_string).collect();
    Digest::of(format!("{rows:?} {opened:?} {without:?} {open_with:?} {:?}", plan.back).as_bytes())
}

/// Plans and stores are named by one rule; their records are told apart by kind.
pub(crate) fn subject(name: &PlanName) -> Result<StoreName, EngineError> {
    StoreName::new(name.as_str()).map_err(|error| {
        Failure::with_source(FailureKind::Internal, "failed to name the record", error).into()
    })
}

fn before(now: Timestamp, span: std::time::Duration) -> Result<Timestamp, EngineError> {
    SignedDuration::try_from(span)
        .ok()
        .and_then(|span| now.checked_sub(span).ok())
        .ok_or_else(|| EngineError::new(FailureKind::Usage, "the moment of the drill is before all time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "
version = 1
[keys]
recipients = [\"keyfile:./key\"]
[copy.here]
url = \"file:./here\"
[defaults]
retention = \"7d\"
copies = [\"here\"]
[store.orders]
kind = \"sqlite\"
path = \"./orders.db\"
[drill.smoke]
every = \"daily\"
";
    const UPLOADS: &str = "[store.uploads]\nkind = \"files\"\npath = \"./uploads\"\n";

    fn policy(text: &str) -> Policy {
        lifeboat_policy::parse(text, "lifeboat.toml").unwrap()
    }

    #[test]
    fn a_planned_drill_is_kept_only_while_it_passed_in_time_as_it_is_planned_now() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let name = PlanName::new("smoke").unwrap();
        let planned = policy(NOW);
        let run = |hours_ago: i64, ok: bool, policy: &Policy| RunRow {
            evidence: 7,
            kind: PLANNED.to_owned(),
            store: subject(&name).unwrap(),
            at: now - SignedDuration::from_hours(hours_ago),
            ok,
            body: json!({ "plan": digest(policy, &policy.drills[&name]).to_string() }),
        };
        let plan = &planned.drills[&name];
        let state =
            |last: Option<RunRow>| judge(&name, (plan, digest(&planned, plan)), last.as_ref(), now).state;
        assert_eq!(state(None), PromiseState::Unproven);
        assert_eq!(state(Some(run(23, true, &planned))), PromiseState::Kept);
        assert_eq!(state(Some(run(25, true, &planned))), PromiseState::Broken);
        assert_eq!(state(Some(run(1, false, &planned))), PromiseState::Broken);
        let named = policy(&NOW.replace("every", "stores = [\"orders\"]\nback = \"1h\"\nevery"));
        assert_eq!(state(Some(run(1, true, &named))), PromiseState::Unproven);
        // Before a store joined or left, and before one was asked something else.
        assert_eq!(state(Some(run(1, true, &policy(&format!("{NOW}{UPLOADS}"))))), PromiseState::Unproven);
        let checked = NOW.replace("./orders.db\"", "./orders.db\"\nchecks = { unique = [\"orders(no)\"] }");
        assert_eq!(state(Some(run(1, true, &policy(&checked)))), PromiseState::Unproven);
        // Before its copies were elsewhere, others could open them, or it had to be faster.
        for (was, is) in [
            ("file:./here", "file:./elsewhere"),
            ("keyfile:./key", "keyfile:./other-key"),
            ("retention = \"7d\"", "retention = \"7d\"\nrto = \"1m\""),
        ] {
            let before = policy(&NOW.replace(was, is));
            assert_eq!(state(Some(run(1, true, &before))), PromiseState::Unproven, "{is}");
        }
        // How often it is due changes nothing of what it showed.
        assert_eq!(state(Some(run(1, true, &policy(&NOW.replace("daily", "hourly"))))), PromiseState::Kept);
        // What claims to come from the future proves nothing.
        assert_eq!(state(Some(run(-48, true, &planned))), PromiseState::Broken);
    }
}
