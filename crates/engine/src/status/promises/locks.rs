//! Whether what is held cannot be deleted before its time, as the places say that would have to refuse it.

use lifeboat_base::ids::CopyName;

use super::{Cell, why_no_point};
use crate::locks::LockState;
use crate::status::{Facts, PromiseKind, PromiseView};

/// What nobody can look at is not locked, and what only this program refuses to delete is not, either.
pub(super) fn immutability(facts: &Facts<'_>) -> PromiseView {
    let cell = Cell::new(PromiseKind::Immutability);
    let copies: Vec<&str> = facts.locks.iter().map(|(copy, _state)| copy.as_str()).collect();
    let cell = match (facts.row.immutability.value, copies.as_slice()) {
        (None, []) => return cell.not_applicable("the row promises none"),
        (Some(span), []) => {
            return cell.target(span).broken("none of its copies locks anything: give one `lock`");
        }
        (Some(span), _) => cell.target(span),
        (None, copies) => cell.target(copies.join(", ")),
    };
    if facts.points.is_empty() {
        return cell.unproven(why_no_point(facts));
    }
    let mut oldest: Option<&LockState> = None;
    for (copy, state) in &facts.locks {
        match state {
            Ok(state) if oldest.is_none_or(|known| state.run.evidence < known.run.evidence) => {
                oldest = Some(state);
            }
            Ok(_newer) => {}
            Err(why) => {
                let next = format!("lifeboat retain {} --apply", facts.row.name);
                return cell.broken(format!("what is locked in `{copy}` is not known: {why}: {next}"));
            }
        }
    }
    let cell = match oldest {
        Some(state) => cell.rests_on(facts.now, &state.run),
        None => cell,
    };
    let states = || facts.locks.iter().filter_map(|(copy, state)| Some((copy, state.as_ref().ok()?)));
    if let Some(why) = states().find_map(|(copy, state)| drifted(facts, copy, state)) {
        return cell.observed("drift").broken(why);
    }
    let mut soft = states().filter(|(_copy, state)| state.drift.soft_count > 0);
    if let Some((copy, state)) = soft.next() {
        return cell.observed("soft").broken(format!(
            "soft: in `{copy}` nothing but Lifeboat refuses to delete {} of {} objects: this takes root, and a file system with the \
             immutable flag",
            state.drift.soft_count, state.drift.checked_count
        ));
    }
    let doubted = states().find_map(|(copy, state)| Some((copy, state.doubted.as_ref()?)));
    if let Some((copy, (points, first))) = doubted {
        return cell.observed("not locked").broken(format!(
            "{points} points in `{copy}` are younger than what is promised and not locked, {first} first: the clock is not believed, and a \
             lock cannot be taken back: lifeboat retain {} --apply --today DATE",
            facts.row.name
        ));
    }
    if let Some((copy, state)) = states().find(|(_copy, state)| state.new_log > 0) {
        return cell.observed("locked").unproven(format!(
            "{} objects of log were stored in `{copy}` after the last pass: the next backup locks them",
            state.new_log
        ));
    }
    let count: u64 = states().map(|(_copy, state)| state.drift.checked_count).sum();
    if count == 0 {
        return cell
            .observed("nothing locked")
            .unproven(format!("nothing is locked in {}", copies.join(", ")));
    }
    let end = states().filter_map(|(_copy, state)| state.drift.first_end).min();
    let end = end.map(|end| format!(", none ends before {}", end.strftime("%Y-%m-%d"))).unwrap_or_default();
    cell.observed("locked").kept(format!("{count} objects are locked in {}{end}", copies.join(", ")))
}

/// In what the locks of a copy fall short of what they should be, if so.
fn drifted(facts: &Facts<'_>, copy: &CopyName, state: &LockState) -> Option<String> {
    let next = format!("run `lifeboat retain {} --apply`", facts.row.name);
    if let Some(first) = state.drift.short.first() {
        return Some(format!(
            "{} of {} objects in `{copy}` are not locked as long as they were, `{}` first: somebody lifted it, or they are gone: {next}",
            state.drift.short_count, state.drift.checked_count, first.object
        ));
    }
    if state.hard && state.drift.soft_count > 0 {
        return Some(format!(
            "{} of {} objects in `{copy}` have lost their immutable flag: somebody lifted it: {next}",
            state.drift.soft_count, state.drift.checked_count
        ));
    }
    let (count, first) = state.uncovered.as_ref()?;
    Some(format!(
        "{count} points in `{copy}` are not locked as long as they are to stay, {first} first: {next}"
    ))
}
