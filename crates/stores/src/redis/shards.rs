//! A shard of a cluster: which slots a point is of, and whether they are those of the point before.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::monitor::Finding;
use lifeboat_redis::place::{Found, ODD, SLOTS as ALL, Shard};
use serde_json::{Value, json};

use crate::adapter::Share;

/// Where a point says which slots it is of.
const SLOTS: &str = "redis.slots";
/// Where it says who is in its cluster.
const NODES: &str = "redis.cluster_nodes";
const PRIMARIES: &str = "redis.cluster_primaries";
/// How many slots a finding names.
const MAX_NAMED: usize = 10;
/// Begins what a shard is known as.
const PREFIX: &str = "slots ";
/// Stands between its slots and the nodes of its cluster.
const OF: &str = " of ";

/// What a shard was known as, by its newest point; nothing for a server that is none.
pub(super) fn identity(facts: &CaptureFacts) -> Option<String> {
    let slots = facts.environment.get(SLOTS).and_then(Value::as_str)?;
    Some(format!("{PREFIX}{slots}{OF}{}", members(facts).join(",")))
}

/// The ids of a cluster's nodes. Points that are older name the primaries only.
fn members(facts: &CaptureFacts) -> Vec<String> {
    let ids = |name: &str| -> Vec<String> {
        let listed = facts.environment.get(name).and_then(Value::as_array).into_iter().flatten();
        listed.filter_map(|id| id.as_str().map(str::to_owned)).collect()
    };
    Some(ids(NODES)).filter(|ids| !ids.is_empty()).unwrap_or_else(|| ids(PRIMARIES))
}

/// Its part of the cluster, for the comparison with other rows.
pub(super) fn share(found: &Found) -> Option<Share> {
    found.shard.as_ref().map(|shard| Share {
        members: shard.nodes.clone(),
        ranges: shard.ranges.iter().map(|range| (range.first.into(), range.last.into())).collect(),
        all: ALL.into(),
    })
}

/// The same of what a point captured.
pub(super) fn share_of(facts: &CaptureFacts) -> Option<Share> {
    let slots = facts.environment.get(SLOTS).and_then(Value::as_str)?;
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let ranges: Option<Vec<(u32, u32)>> = slots.split(',').map(range).collect();
    Some(Share { members: members(facts), ranges: ranges?, all: ALL.into() })
}

/// Adds what was told about the server when it was found.
pub(super) fn note(environment: &mut BTreeMap<String, Value>, found: &Found) {
    let mut note = |name: &str, value: Value| environment.insert(format!("redis.{name}"), value);
    for (name, text) in &found.told {
        note(name, json!(text));
    }
    let Some(shard) = &found.shard else { return };
    note("slots", json!(shard.slots()));
    note("slots_open", json!(shard.open));
    note("cluster_primary", json!(shard.primary));
    note("cluster_primaries", json!(shard.primaries));
    note("cluster_nodes", json!(shard.nodes));
    note("cluster_epoch", json!(shard.epoch));
    note("cluster_state", json!(shard.state));
}

/// Adds what the cluster has to say against itself; that the server is a shard is known to a row that asks for one.
pub(super) fn findings(findings: &mut Vec<Finding>, found: &Found) {
    if let Some(odd) = found.told.get(ODD) {
        let message =
            format!("a sentinel names the primary {odd}: a failover goes on, or that sentinel is wrong");
        findings.push(Finding::new("redis-sentinel-odd", "redis", message));
    }
    let Some(shard) = &found.shard else { return };
    findings.retain(|finding| finding.code != "redis-shard");
    if shard.state != "ok" {
        let message = format!("the cluster says that its state is {}: slots are without a node", shard.state);
        findings.push(Finding::new("redis-cluster-state", "redis", message));
    }
    findings.extend(open(shard.open.as_deref()));
}

/// Slots that are on their way while they are captured.
fn open(slots: Option<&[String]>) -> Option<Finding> {
    let message = match slots {
        Some([]) => return None,
        Some(slots) => {
            let more = slots.len().saturating_sub(MAX_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!(
                "slots are being moved ({}{more}): a key of theirs is in the points of both shards or in neither, unless all \
                 shards are captured again when they have arrived",
                slots.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ")
            )
        }
        None => {
            "nobody says whether slots are being moved: the primary of the shard must answer `CLUSTER NODES`"
                .to_owned()
        }
    };
    Some(Finding::new("redis-slots-open", "redis", message))
}

/// Asks again behind a capture, and remembers what was on its way at either time.
pub(super) fn open_since(found: &mut Found) -> Option<Finding> {
    let shard = found.shard.as_mut()?;
    let later = shard.open_now();
    let all = shard.open.iter().chain(&later).flatten().cloned().collect::<BTreeSet<_>>();
    let all = (shard.open.is_some() && later.is_some()).then(|| all.into_iter().collect::<Vec<_>>());
    if all == shard.open {
        return None;
    }
    shard.open = all;
    open(shard.open.as_deref())
}

/// Slots that came or went since the newest point, or another cluster in its place.
pub(super) fn moved(shard: Option<&Shard>, known: &[String]) -> Option<Finding> {
    let before = known.iter().find_map(|known| known.strip_prefix(PREFIX))?;
    let (before, members) = before.split_once(OF).unwrap_or((before, ""));
    let now = shard.map(Shard::slots).unwrap_or_default();
    let is_there = |id: &str| shard.is_some_and(|shard| shard.nodes.iter().any(|node| node == id));
    if shard.is_some() && !members.is_empty() && !members.split(',').any(is_there) {
        let message =
            "no node is left of those that the cluster had at the point before: this may be another cluster";
        return Some(Finding::new("redis-other-cluster", "redis", message));
    }
    if before == now {
        return None;
    }
    let message = format!(
        "the shard had the slots {before} at the point before and has {now} now: keys have moved between shards, and only \
         points of all shards from before or from after show all of them"
    );
    Some(Finding::new("redis-slots-moved", "redis", message))
}
