//! What a row promises against what it does: the rules that need more than one value.

use std::collections::BTreeMap;
use std::ops::Range;

use lifeboat_base::ids::CopyName;

use crate::kind::Kind;
use crate::model::{Checks, CopyUrl, Promises, RedisCapture};
use crate::reader::Context;
use crate::resolve::{Nearest, ResolvedPromises};
use crate::retention::Gfs;
use crate::sections::Copies;
use crate::span::Span;

/// A row under examination.
pub(crate) struct Row<'a> {
    pub(crate) name: &'a str,
    pub(crate) at: &'a Range<usize>,
    pub(crate) kind: Option<Kind>,
    /// How a server of kind `redis` is captured.
    pub(crate) capture: Option<RedisCapture>,
    pub(crate) has_log: bool,
    pub(crate) written: &'a Promises,
    pub(crate) promises: &'a ResolvedPromises,
    pub(crate) checks: &'a Checks,
}

/// Reports everything about one row; true when recovery points are made for it.
pub(crate) fn row(row: &Row<'_>, copies: &Copies, context: &mut Context) -> bool {
    log_window_of_the_kind(row, context);
    match &row.promises.retention {
        Nearest::Broken => false,
        Nearest::Absent => {
            let message = format!("store `{}` has no retention", row.name);
            let help = "write what is kept, such as `retention = \"7d 4w 12mo\"`, or `retention = \"none\"`";
            context.absent("no-retention", row.at, message, help);
            false
        }
        Nearest::Written(retention) => match retention.value().gfs() {
            None => {
                looked_at_where_it_runs(row, context);
                promises_without_effect(row, context);
                false
            }
            Some(gfs) => {
                duties_without_effect(row, context);
                captured_in_time(row, context);
                kept_somewhere(row, context);
                logs_and_points(row, gfs, context);
                locks(row, gfs, copies, context);
                true
            }
        },
    }
}

fn log_window_of_the_kind(row: &Row<'_>, context: &mut Context) {
    let (Some(kind), Some(logs)) = (row.kind, &row.promises.logs) else { return };
    if logs.in_row() && logs.value().is_some() && !row.has_log {
        let captured = if kind.has_log() { " that is captured this way" } else { "" };
        context.error(
            "no-log",
            &logs.at,
            format!("a store of kind `{kind}`{captured} has no continuous log"),
            "remove `logs`; a shorter schedule is what lowers the loss",
        );
    }
}

/// What is not retained is looked at in the running server.
fn looked_at_where_it_runs(row: &Row<'_>, context: &mut Context) {
    if row.capture == Some(RedisCapture::Files) {
        let message =
            format!("store `{}` is not retained, and files show nothing of a running server", row.name);
        context.error("foreign-key", row.at, message, "write its `url` in place of `capture` and `dir`");
    }
}

/// What a retained row says about being made again.
fn duties_without_effect(row: &Row<'_>, context: &mut Context) {
    for (key, said) in [("replay", &row.checks.replay), ("durable", &row.checks.durable)] {
        if !said.is_empty() {
            let message = format!("`checks.{key}` has no effect: store `{}` is retained", row.name);
            context.warning("no-effect", row.at, message, "remove it, or write `retention = \"none\"`");
        }
    }
}

/// What a row says about recovery points it does not have.
fn promises_without_effect(row: &Row<'_>, context: &mut Context) {
    let places = [
        (
            "schedule",
            row.written
                .schedule
                .as_ref()
                .filter(|written| written.value.is_some())
                .map(|written| &written.at),
        ),
        (
            "rpo",
            row.written.rpo.as_ref().filter(|written| written.value.is_some()).map(|written| &written.at),
        ),
        (
            "logs",
            row.written.logs.as_ref().filter(|written| written.value.is_some()).map(|written| &written.at),
        ),
        (
            "immutability",
            row.written
                .immutability
                .as_ref()
                .filter(|written| written.value.is_some())
                .map(|written| &written.at),
        ),
        (
            "copies",
            row.written
                .copies
                .as_ref()
                .filter(|written| !written.value.is_empty())
                .map(|written| &written.at),
        ),
        ("verify", row.written.verify.as_ref().map(|written| &written.at)),
    ];
    for (key, at) in places {
        if let Some(at) = at {
            let message = format!("`{key}` has no effect: store `{}` is not retained", row.name);
            context.warning("no-effect", at, message, "remove it, or write what `retention` keeps");
        }
    }
}

fn captured_in_time(row: &Row<'_>, context: &mut Context) {
    let Some(schedule) = &row.promises.schedule else { return };
    let Some(when) = schedule.value() else {
        context.warning(
            "no-schedule",
            row.at,
            format!("store `{}` has no schedule", row.name),
            "it is captured only when somebody runs `lifeboat backup`: add `schedule = \"02:00\"`",
        );
        return;
    };
    let (Some(rpo), Some(logs)) = (&row.promises.rpo, &row.promises.logs) else { return };
    let Some(limit) = rpo.value() else { return };
    let longest = when.longest_interval();
    if logs.value().is_none() && limit.approx() < longest {
        let interval = Span::from_seconds(longest.as_secs()).map(|span| span.to_string()).unwrap_or_default();
        let at = if rpo.in_row() { &rpo.at } else { &schedule.at };
        let (limit, origin) = (limit.to_string(), &rpo.sourced.origin);
        context.warning(
            "rpo-too-short",
            at,
            format!(
                "store `{}` promises to lose at most {limit} ({origin}), but `{when}` captures it every {interval} \
                 and no log fills the time between",
                row.name
            ),
            format!("capture it at least every {limit}, keep a continuous log, or promise less"),
        );
    }
}

fn kept_somewhere(row: &Row<'_>, context: &mut Context) {
    let Some(copies) = &row.promises.copies else { return };
    if copies.value().is_empty() {
        let message = format!("store `{}` is retained but has no copies", row.name);
        let help = "name where it is kept: `copies = [\"NAME\"]`, with a `[copy.NAME]`";
        context.absent("no-copies", &copies.at, message, help);
    }
}

fn logs_and_points(row: &Row<'_>, gfs: Gfs, context: &mut Context) {
    let (Some(logs), Some(verify)) = (&row.promises.logs, &row.promises.verify) else { return };
    if let (None, Some(_)) = (logs.value(), verify.value().pitr)
        && verify.in_row()
    {
        context.warning(
            "pitr-without-logs",
            &verify.at,
            format!("store `{}` cannot prove `pitr`: no log is kept", row.name),
            "keep a continuous log with `logs`, or remove `pitr`",
        );
    }
    if let (Some(window), Some(reach)) = (logs.value(), gfs.reach())
        && window.approx() > reach.approx()
    {
        context.warning(
            "logs-outlive-points",
            &logs.at,
            format!("store `{}` keeps {window} of logs but recovery points for only {reach}", row.name),
            "a log restores only from a recovery point before it: keep points for as long",
        );
    }
}

fn locks(row: &Row<'_>, gfs: Gfs, copies: &Copies, context: &mut Context) {
    let (Some(names), Some(immutability)) = (&row.promises.copies, &row.promises.immutability) else {
        return;
    };
    let locked: Vec<(&CopyName, Span)> =
        names.value().iter().filter_map(|name| Some((name, copies.get(name)?.0.lock?.min))).collect();
    if let Some(promised) = immutability.value()
        && !names.value().is_empty()
        && !locked.iter().any(|(_, min)| min.approx() >= promised.approx())
    {
        context.warning(
            "not-immutable",
            &immutability.at,
            format!(
                "store `{}` promises {promised} of immutability, but none of its copies is locked that long",
                row.name
            ),
            format!("add `lock = {{ mode = \"governance\", min = \"{promised}\" }}` to one of its copies"),
        );
    }
    for (name, min) in locked {
        if let Some(reach) = gfs.reach()
            && min.approx() > reach.approx()
        {
            let at = retention_at(row);
            let message =
                format!("store `{}` keeps {reach}, but copy `{name}` locks every object for {min}", row.name);
            context.warning(
                "lock-outlives-retention",
                at,
                message,
                "nothing is deleted before its lock ends",
            );
        }
    }
}

fn retention_at<'a>(row: &'a Row<'_>) -> &'a Range<usize> {
    match &row.promises.retention {
        Nearest::Written(retention) => &retention.at,
        Nearest::Absent | Nearest::Broken => row.at,
    }
}

/// Two names for one place are one copy, whatever the matrix says.
pub(crate) fn places(copies: &Copies, context: &mut Context) {
    let mut seen: BTreeMap<String, &CopyName> = BTreeMap::new();
    for (name, (place, at)) in copies {
        if let Some(first) = seen.insert(same_place(&place.url), name) {
            let message = format!("copies `{first}` and `{name}` are the same place");
            context.error(
                "same-place",
                at,
                message,
                "two names do not make two copies: give each its own place",
            );
        }
    }
}

/// A text that is equal for two ways of writing one place.
fn same_place(url: &CopyUrl) -> String {
    match url {
        CopyUrl::File(path) => {
            let root = if path.starts_with('/') { "/" } else { "" };
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
            format!("file:{root}{}", parts.join("/"))
        }
        CopyUrl::S3 { .. } => url.to_string(),
    }
}
