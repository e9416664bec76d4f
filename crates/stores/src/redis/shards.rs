//! A shard of a cluster: which slots a point is of, and whether they are those of the point before.

use std::collections::BTreeMap;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::monitor::Finding;
use lifeboat_redis::place::{Found, SLOTS as ALL, Shard};
use serde_json::{Value, json};

use crate::adapter::Share;

/// Where a point says which slots it is of.
const SLOTS: &str = "redis.slots";
/// Begins what a shard is known as.
const PREFIX: &str = "slots ";

/// What a shard was known as, by its newest point; nothing for a server that is none.
pub(super) fn identity(facts: &CaptureFacts) -> Option<String> {
    let slots = facts.environment.get(SLOTS).and_then(Value::as_str)?;
    Some(format!("{PREFIX}{slots}"))
}

/// Its part of the cluster, for the comparison with other rows.
pub(super) fn share(found: &Found) -> Option<Share> {
    found.shard.as_ref().map(|shard| Share {
        whole: shard.primaries.join(" "),
        ranges: shard.ranges.iter().map(|range| (range.first.into(), range.last.into())).collect(),
        all: ALL.into(),
    })
}

/// Adds what was told about the server when it was found.
pub(super) fn note(environment: &mut BTreeMap<String, Value>, found: &Found) {
    let mut note = |name: &str, value: Value| environment.insert(format!("redis.{name}"), value);
    for (name, text) in &found.told {
        note(name, json!(text));
    }
    let Some(shard) = &found.shard else { return };
    note("slots", json!(shard.slots()));
    note("cluster_primary", json!(shard.primary));
    note("cluster_primaries", json!(shard.primaries));
    note("cluster_epoch", json!(shard.epoch));
    note("cluster_state", json!(shard.state));
}

/// Adds what the cluster has to say against itself; that the server is a shard is known to a row that asks for one.
pub(super) fn findings(findings: &mut Vec<Finding>, found: &Found) {
    let Some(shard) = &found.shard else { return };
    findings.retain(|finding| finding.code != "redis-shard");
    if shard.state != "ok" {
        let message = format!("the cluster says that its state is {}: slots are without a node", shard.state);
        findings.push(Finding::new("redis-cluster-state", "redis", message));
    }
}

/// Slots that came or went since the newest point.
pub(super) fn moved(shard: Option<&Shard>, known: &[String]) -> Option<Finding> {
    let before = known.iter().find_map(|known| known.strip_prefix(PREFIX))?;
    let now = shard.map(Shard::slots).unwrap_or_default();
    if before == now {
        return None;
    }
    let message = format!(
        "the shard had the slots {before} at the point before and has {now} now: keys have moved between shards, and only \
         points of all shards from before or from after show all of them"
    );
    Some(Finding::new("redis-slots-moved", "redis", message))
}
