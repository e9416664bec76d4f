//! A shard of a cluster: which slots a point is of, and whether they are those of the point before.

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::monitor::Finding;
use lifeboat_redis::place::{Found, Shard};
use serde_json::{Value, json};

use super::facts::Facts;

/// Where a point says which slots it is of.
const SLOTS: &str = "redis.slots";
/// Begins what a shard is known as.
const PREFIX: &str = "slots ";

/// What a shard was known as, by its newest point; nothing for a server that is none.
pub(super) fn identity(facts: &CaptureFacts) -> Option<String> {
    let slots = facts.environment.get(SLOTS).and_then(Value::as_str)?;
    Some(format!("{PREFIX}{slots}"))
}

/// Adds what was told about the server when it was found.
pub(super) fn note(facts: &mut Facts, found: &Found) {
    for (name, text) in &found.told {
        facts.environment.insert(format!("redis.{name}"), json!(text));
    }
    let Some(shard) = &found.shard else { return };
    let mut note = |name: &str, value: Value| facts.environment.insert(format!("redis.{name}"), value);
    note("slots", json!(shard.slots()));
    note("cluster_primary", json!(shard.primary));
    note("cluster_primaries", json!(shard.primaries));
    note("cluster_epoch", json!(shard.epoch));
    note("cluster_state", json!(shard.state));
    // The row says that it knows.
    facts.findings.retain(|finding| finding.code != "redis-shard");
    if shard.state != "ok" {
        let message = format!("the cluster says that its state is {}: slots are without a node", shard.state);
        facts.findings.push(Finding::new("redis-cluster-state", "redis", message));
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
