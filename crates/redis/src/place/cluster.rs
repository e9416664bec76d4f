//! A cluster: any node says who has a slot, and the one that is named is asked who it is.

use std::collections::BTreeMap;
use std::fmt;

use lifeboat_base::failure::chain;

use super::error::PlaceError;
use super::{Found, Role, is_in_role};
use crate::wire::{ConnectOptions, Connection, RedisError, Reply};

/// How many slots a cluster has.
pub const SLOTS: u16 = 16384;

/// Nodes of a cluster, and what to find through them.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    pub(super) nodes: Vec<ConnectOptions>,
    pub(super) slot: u16,
    pub(super) role: Role,
}

/// Slots from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A primary's part of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its slots, in order.
    pub ranges: Vec<SlotRange>,
    /// The id of its primary.
    pub primary: String,
    /// The ids of all primaries that have slots, in order: what tells this cluster from others, at one moment.
    pub primaries: Vec<String>,
    /// `ok`, unless the cluster says that slots are without a node.
    pub state: String,
    /// The cluster's epoch: it grows with every failover and every slot that moves.
    pub epoch: u64,
}

impl Shard {
    /// Its slots, as `0-5460,6000`.
    pub fn slots(&self) -> String {
        self.ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// A node as the cluster names it.
#[derive(Clone, Debug)]
struct Node {
    host: String,
    port: u16,
    id: String,
}

/// Some slots and who has them, the primary first.
struct Part {
    range: SlotRange,
    nodes: Vec<Node>,
}

const MALFORMED: RedisError = RedisError::Protocol { what: "an answer to CLUSTER that is none" };

impl ClusterOptions {
    pub(super) fn find(&self) -> Result<Found, PlaceError> {
        let mut last = None;
        for seed in &self.nodes {
            match ask(seed) {
                Ok((parts, state, epoch)) => return self.among(seed, &parts, state, epoch),
                Err(error) => last = Some(error),
            }
        }
        let source = last.unwrap_or(MALFORMED);
        Err(PlaceError::NobodyAnswers { asked: self.nodes.len(), who: "nodes of the cluster", source })
    }

    fn among(
        &self,
        seed: &ConnectOptions,
        parts: &[Part],
        state: String,
        epoch: u64,
    ) -> Result<Found, PlaceError> {
        let holds = |part: &&Part| (part.range.first..=part.range.last).contains(&self.slot);
        let Some((part, primary)) =
            parts.iter().find(holds).and_then(|part| Some((part, part.nodes.first()?)))
        else {
            let what = format!("says that no node has slot {}", self.slot);
            return Err(PlaceError::Unknown { who: seed.target(), what });
        };
        let mut primaries: Vec<String> =
            parts.iter().filter_map(|part| Some(part.nodes.first()?.id.clone())).collect();
        primaries.sort();
        primaries.dedup();
        let mut ranges: Vec<SlotRange> = parts
            .iter()
            .filter(|other| other.nodes.first().is_some_and(|node| node.id == primary.id))
            .map(|other| other.range)
            .collect();
        ranges.sort_unstable();
        let shard = Shard { ranges, primary: primary.id.clone(), primaries, state, epoch };
        let candidates = match self.role {
            Role::Primary => part.nodes.get(..1),
            Role::Replica => part.nodes.get(1..),
        };
        let mut tried = Vec::new();
        for node in candidates.unwrap_or_default() {
            // A node that does not know its own address is the one that was asked.
            let options = if node.host.is_empty() { seed.clone() } else { seed.at(&node.host, node.port) };
            let came = match is_node(&options, node, self.role) {
                Ok(true) => {
                    let told = BTreeMap::from([("node", node.id.clone())]);
                    return Ok(Found { options, role: Some(self.role), told, shard: Some(shard) });
                }
                Ok(false) => "is none, or another node".to_owned(),
                Err(error) => chain(&error),
            };
            tried.push(format!("{} {came}", options.target()));
        }
        if tried.is_empty() {
            tried.push("the cluster names none".to_owned());
        }
        let (role, name) = (self.role, format!("the shard of slot {}", self.slot));
        Err(PlaceError::NotInRole { role, name, tried: tried.join("; ") })
    }
}

fn is_node(options: &ConnectOptions, node: &Node, role: Role) -> Result<bool, RedisError> {
    let id = Connection::open(options)?.ask("CLUSTER MYID")?.text();
    Ok(id.as_deref() == Some(&node.id) && is_in_role(options, role)?)
}

fn ask(seed: &ConnectOptions) -> Result<(Vec<Part>, String, u64), RedisError> {
    let mut connection = Connection::open(seed)?;
    let slots = connection.ask("CLUSTER SLOTS")?;
    let parts: Option<Vec<Part>> = slots.members().iter().map(part).collect();
    let about = connection.ask("CLUSTER INFO")?.text().unwrap_or_default();
    let field = |name: &str| {
        let mut lines = about.lines().filter_map(|line| line.trim_end().split_once(':'));
        lines.find(|(field, _)| *field == name).map(|(_, value)| value.to_owned())
    };
    let state = field("cluster_state").ok_or(MALFORMED)?;
    let epoch = field("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).ok_or(MALFORMED)?;
    Ok((parts.ok_or(MALFORMED)?, state, epoch))
}

fn part(reply: &Reply) -> Option<Part> {
    let [first, last, nodes @ ..] = reply.members() else { return None };
    let slot = |reply: &Reply| u16::try_from(reply.integer()?).ok().filter(|slot| *slot < SLOTS);
    let range = SlotRange { first: slot(first)?, last: slot(last)? };
    let nodes: Option<Vec<Node>> = nodes.iter().map(node).collect();
    Some(Part { range, nodes: nodes.filter(|_| range.first <= range.last)? })
}

fn node(reply: &Reply) -> Option<Node> {
    let [host, port, id, ..] = reply.members() else { return None };
    let host = match host {
        Reply::Null => String::new(),
        host => host.text().filter(|host| host != "?").unwrap_or_default(),
    };
    Some(Node { host, port: u16::try_from(port.integer()?).ok()?, id: id.text()? })
}
