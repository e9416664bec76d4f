//! Why a row is as it is: every promise in force, where it was written, and what it means in a sentence.

use lifeboat_base::ids::{CopyName, StoreName};

use crate::model::{Origin, Policy, Store};
use crate::span::Span;
use crate::suggest;

/// One promise of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainLine {
    /// Its key in the policy file.
    pub promise: String,
    /// Its value as the policy file would write it; `none` when nothing is promised.
    pub value: String,
    /// Where it was written.
    pub origin: Origin,
    /// What it means.
    pub text: String,
}

/// Every promise of `store` in the order of the matrix; `None` when there is no such row.
pub fn explain(policy: &Policy, store: &StoreName) -> Option<Vec<ExplainLine>> {
    let store = policy.stores.get(store)?;
    let mut lines = times(store, &policy.timezone_name);
    lines.extend(keeping(store));
    Some(lines)
}

fn times(store: &Store, zone: &str) -> Vec<ExplainLine> {
    let retained = store.retention.value.keeps_points();
    let rpo = match store.rpo.value {
        Some(span) => format!("at most {span} of writes may be lost"),
        None if retained => "no limit on lost writes is promised".to_owned(),
        None => "not retained: after a loss there is nothing to restore".to_owned(),
    };
    let rto = match store.rto.value {
        Some(span) => format!("a restore may take at most {span}"),
        None => "no limit on the time of a restore is promised".to_owned(),
    };
    let schedule = match &store.schedule.value {
        Some(schedule) => format!("captured at `{schedule}` in {zone}"),
        None if retained => "captured only when somebody runs a backup".to_owned(),
        None => "never captured".to_owned(),
    };
    let logs = match store.logs.value {
        Some(span) => format!("any moment of the last {span} can be restored"),
        None => "only the moments of recovery points can be restored".to_owned(),
    };
    let logs = if retained { logs } else { "no logs are kept".to_owned() };
    let schedule_value = store.schedule.value.as_ref().map_or_else(none, ToString::to_string);
    vec![
        line("rpo", span_value(store.rpo.value), &store.rpo.origin, rpo),
        line("rto", span_value(store.rto.value), &store.rto.origin, rto),
        line("schedule", schedule_value, &store.schedule.origin, schedule),
        line("logs", span_value(store.logs.value), &store.logs.origin, logs),
    ]
}

fn keeping(store: &Store) -> Vec<ExplainLine> {
    let retention = match store.retention.value.gfs() {
        None => "not retained, on purpose".to_owned(),
        Some(gfs) => {
            let slots = [
                (gfs.hourly, "hour"),
                (gfs.daily, "day"),
                (gfs.weekly, "week"),
                (gfs.monthly, "month"),
                (gfs.yearly, "year"),
            ];
            let words: Vec<String> = slots
                .into_iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, unit)| last(count, unit))
                .collect();
            format!("keeps one recovery point of {}", words.join(", and of "))
        }
    };
    let names: Vec<&str> = store.copies.value.iter().map(CopyName::as_str).collect();
    let copies = match names.len() {
        0 => "kept nowhere".to_owned(),
        1 => format!("kept in {}", suggest::list(&names)),
        count => format!("kept in {count} places: {}", suggest::list(&names)),
    };
    let immutability = match store.immutability.value {
        Some(span) => format!("at least one copy refuses deletion for {span}"),
        None => "no lock against deletion is promised".to_owned(),
    };
    let levels: Vec<String> = store
        .verify
        .value
        .levels()
        .into_iter()
        .filter_map(|(level, every)| every.map(|every| format!("{level} every {every}")))
        .collect();
    let (verify, verify_text) = if levels.is_empty() {
        (none(), "no proof is renewed by itself".to_owned())
    } else {
        (levels.join(", "), "each proof is renewed before it is older than this".to_owned())
    };
    let copies_value = if names.is_empty() { none() } else { names.join(", ") };
    let encryption = "every vault is encrypted and authenticated".to_owned();
    vec![
        line("retention", store.retention.value.to_string(), &store.retention.origin, retention),
        line("copies", copies_value, &store.copies.origin, copies),
        line("encryption", store.encryption.value.word().to_owned(), &store.encryption.origin, encryption),
        line("immutability", span_value(store.immutability.value), &store.immutability.origin, immutability),
        line("verify", verify, &store.verify.origin, verify_text),
    ]
}

fn last(count: u32, unit: &str) -> String {
    if count == 1 { format!("the last {unit}") } else { format!("each of the last {count} {unit}s") }
}

fn none() -> String {
    "none".to_owned()
}

fn span_value(span: Option<Span>) -> String {
    span.map_or_else(none, |span| span.to_string())
}

fn line(promise: &str, value: String, origin: &Origin, text: String) -> ExplainLine {
    ExplainLine { promise: promise.to_owned(), value, origin: origin.clone(), text }
}
