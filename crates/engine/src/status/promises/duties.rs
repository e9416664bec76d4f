//! The cells of a row that is not retained: nothing of it is stored, nothing durable hides in it, it can be made again.

use std::time::Duration;

use lifeboat_base::human;
use lifeboat_catalog::RunRow;
use serde_json::Value;

use super::{Cell, seconds};
use crate::status::{Facts, Owed, PromiseKind, PromiseView, age, says};
use crate::view::drill_digest;

/// How old a look at the running store may be.
const LOOK_EVERY: Duration = Duration::from_secs(7 * 86_400);

/// The row of a store that must leave nothing behind, and in which nothing may be that is meant to last.
pub(super) fn not_kept(facts: &Facts<'_>) -> PromiseView {
    let cell = Cell::new(PromiseKind::Retention).target("none");
    if !facts.stray.is_empty() {
        let stray = facts.stray.join(", ");
        return cell.observed(&stray).broken(format!("something is stored in {stray}"));
    }
    if !facts.unseen.is_empty() {
        return cell.unproven(format!("nobody can look into {} now", facts.unseen.join(", ")));
    }
    let cell = cell.observed("nothing");
    let Some(Owed { looked, .. }) = &facts.owed else {
        return cell.kept("nothing of it lies in any copy");
    };
    let Some(look) = looked else {
        return cell.unproven(format!(
            "nothing of it lies in any copy, but nobody looked whether something durable hides in it: run `lifeboat backup {}`",
            facts.row.name
        ));
    };
    let cell = cell.rests_on(facts.now, look);
    if !says(Some(look), "row", drill_digest(facts.row)) {
        return cell.unproven("the row has changed since somebody looked at the store");
    }
    let number = |name: &str| {
        look.body.get("numbers").and_then(|numbers| numbers.get(name)?.as_u64()).unwrap_or_default()
    };
    if let Some(error) = look.body.get("error").and_then(Value::as_str) {
        return cell.unproven(format!("nothing of it lies in any copy; the last look at it failed: {error}"));
    }
    let (keys, endless) = (human::count(number("keys")), human::count(number("endless")));
    let durable = look.body.get("findings").and_then(Value::as_array);
    if durable.is_some_and(|codes| codes.iter().any(|code| code == "durable-keys")) {
        return cell
            .broken(format!("{endless} of {keys} keys have no time to live: something durable hides in it"));
    }
    if look.body.get("complete") != Some(&Value::Bool(true)) {
        return cell.unproven(format!("of {endless} keys without a time to live not all were looked at"));
    }
    if age(facts.now, look.at) > LOOK_EVERY {
        return cell.unproven(format!(
            "nothing of it lies in any copy; nobody looked at the store for {}",
            human::duration(age(facts.now, look.at))
        ));
    }
    cell.kept(match number("endless") {
        0 => format!("nothing of it lies in any copy, and each of its {keys} keys has a time to live"),
        _ => format!("nothing of it lies in any copy; {endless} of its {keys} keys may last, by the row"),
    })
}

/// The newest replay that still speaks for the row, or why there is none.
fn replayed<'a>(facts: &'a Facts<'_>, owed: &'a Owed) -> Result<&'a RunRow, String> {
    let name = &facts.row.name;
    match &owed.replayed {
        None => Err(format!("never made again: run `lifeboat drill {name}`")),
        Some(run) if !says(Some(run), "row", drill_digest(facts.row)) => {
            Err("the row has changed since it was made again".to_owned())
        }
        Some(run) => Ok(run),
    }
}

/// How long making the store again takes.
pub(super) fn made_again_in(facts: &Facts<'_>) -> PromiseView {
    let cell = Cell::new(PromiseKind::Rto);
    let Some(owed) = facts.owed.as_ref().filter(|owed| owed.rebuildable) else {
        return cell.not_applicable("not retained by policy");
    };
    let Some(target) = facts.row.rto.value else {
        return cell.not_applicable("the row promises no RTO");
    };
    let cell = cell.target(target);
    let run = match replayed(facts, owed) {
        Ok(run) => run,
        Err(why) => return cell.unproven(why),
    };
    let cell = cell.rests_on(facts.now, run);
    let Some(took) = seconds(&run.body, "rto_s") else {
        return cell.broken("the last replay did not end in a store that is filled");
    };
    let cell = cell.observed(human::duration(took));
    let words = format!("the last replay filled an empty server in {}", human::duration(took));
    if took > target.approx() { cell.broken(words) } else { cell.kept(words) }
}

/// Whether the store can be made again.
pub(super) fn made_again(facts: &Facts<'_>) -> PromiseView {
    let cell = Cell::new(PromiseKind::Drill);
    let Some(owed) = facts.owed.as_ref().filter(|owed| owed.rebuildable) else {
        return cell.not_applicable("not retained by policy");
    };
    match replayed(facts, owed) {
        Err(why) => cell.unproven(why),
        Ok(run) if run.ok => {
            cell.rests_on(facts.now, run).kept("filled again from nothing; a second replay changed nothing")
        }
        Ok(run) => cell.rests_on(facts.now, run).broken("the last replay failed a check"),
    }
}
