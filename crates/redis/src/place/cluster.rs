//! A cluster: any node says who has a slot, and the one that is named is asked who it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use lifeboat_base::failure::chain;

use super::error::PlaceError;
use super::{Found, Role, is_in_role};
use crate::wire::{ConnectOptions, Connection, RedisError, Reply};

/// How long a node that was reached may take for an answer.
const ASK_LIMIT: Duration = Duration::from_secs(5);
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
#[derive(Clone, Debug)]
pub struct Shard {
    /// Its slots, in order.
    pub ranges: Vec<SlotRange>,
    /// The id of its primary.
    pub primary: String,
    /// The ids of all primaries that have slots, in order.
    pub primaries: Vec<String>,
    /// The ids of all nodes that have slots or follow one that has, in order: what tells this cluster from others, also after
    /// failovers.
    pub nodes: Vec<String>,
    /// How the primary is reached.
    home: ConnectOptions,
    /// Slots that were on their way to another primary or from one, as `77->ID` and `77<-ID`: their keys were in two places.
    /// Nothing where the primary did not say.
    pub open: Option<Vec<String>>,
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

    /// Slots that are on their way now. The primary alone knows; nothing where it does not say.
    pub fn open_now(&self) -> Option<Vec<String>> {
        let text = Connection::open(&self.home).ok()?.ask("CLUSTER NODES").ok()?.text()?;
        open_in(&text)
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
    /// Asks every node that is named. What a node says that the cluster is well comes first, then what is of the highest epoch:
    /// one that was cut off may still name those who were replaced.
    pub(super) fn find(&self) -> Result<Found, PlaceError> {
        let mut last = None;
        let mut maps = Vec::new();
        for seed in &self.nodes {
            match ask(&seed.with_silence_limit(ASK_LIMIT)) {
                Ok(map) => maps.push((seed, map)),
                Err(error) => last = Some(error),
            }
        }
        of_one_cluster(&maps)?;
        maps.sort_by_key(|(_, map)| (map.state != "ok", Reverse(map.epoch)));
        let mut first = None;
        for (seed, map) in maps {
            match self.among(seed, map) {
                Err(error @ PlaceError::Unknown { .. }) => first = first.or(Some(error)),
                // What others name of an older state is not asked.
                other => return other,
            }
        }
        let source = last.unwrap_or(MALFORMED);
        let nobody =
            PlaceError::NobodyAnswers { asked: self.nodes.len(), who: "nodes of the cluster", source };
        Err(first.unwrap_or(nobody))
    }

    fn among(&self, seed: &ConnectOptions, map: Map) -> Result<Found, PlaceError> {
        let Map { parts, state, epoch } = map;
        let holds = |part: &&Part| (part.range.first..=part.range.last).contains(&self.slot);
        let Some((part, primary)) =
            parts.iter().find(holds).and_then(|part| Some((part, part.nodes.first()?)))
        else {
            let what = format!("says that no node has slot {}", self.slot);
            return Err(PlaceError::Unknown { who: seed.target(), what });
        };
        let all = |several: usize| -> Vec<String> {
            let nodes = parts.iter().flat_map(|part| part.nodes.iter().take(several));
            nodes.map(|node| node.id.clone()).collect::<BTreeSet<_>>().into_iter().collect()
        };
        let (primaries, nodes) = (all(1), all(usize::MAX));
        let mut ranges: Vec<SlotRange> = parts
            .iter()
            .filter(|other| other.nodes.first().is_some_and(|node| node.id == primary.id))
            .map(|other| other.range)
            .collect();
        ranges.sort_unstable();
        // A node that does not know its own address is the one that was asked.
        let place =
            |node: &Node| if node.host.is_empty() { seed.clone() } else { seed.at(&node.host, node.port) };
        let (home, primary) = (place(primary), primary.id.clone());
        let shard = Shard { ranges, primary, primaries, nodes, home, open: None, state, epoch };
        let candidates = match self.role {
            Role::Primary => part.nodes.get(..1),
            Role::Replica => part.nodes.get(1..),
        };
        let mut tried = Vec::new();
        for node in candidates.unwrap_or_default() {
            let options = place(node);
            let came = match is_node(&options, node, self.role) {
                Ok(true) => {
                    let told = BTreeMap::from([("node", node.id.clone())]);
                    let shard = Some(Shard { open: shard.open_now(), ..shard });
                    return Ok(Found { options, role: Some(self.role), told, shard });
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

/// An address that went over to a node of another cluster names the nodes of that.
fn of_one_cluster(maps: &[(&ConnectOptions, Map)]) -> Result<(), PlaceError> {
    let ids = |map: &Map| -> BTreeSet<String> {
        map.parts.iter().flat_map(|part| part.nodes.iter().map(|node| node.id.clone())).collect()
    };
    let mut known: Option<(&ConnectOptions, BTreeSet<String>)> = None;
    for (seed, map) in maps {
        let ids = ids(map);
        match &known {
            _ if ids.is_empty() => {}
            None => known = Some((seed, ids)),
            Some((_, others)) if !others.is_disjoint(&ids) => {}
            Some((other, _)) => {
                let what =
                    format!("belongs to another cluster than {}: take one of them out", other.target());
                return Err(PlaceError::Unknown { who: seed.target(), what });
            }
        }
    }
    Ok(())
}

/// The words `[77->-ID]` and `[77-<-ID]` in the line of the node itself.
fn open_in(text: &str) -> Option<Vec<String>> {
    let is_own = |flags: &str| flags.split(',').any(|flag| flag == "myself");
    let own = text.lines().find(|line| line.split(' ').nth(2).is_some_and(is_own))?;
    let open = own.split_ascii_whitespace().filter_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    Some(open.take(usize::from(SLOTS)).map(|word| word.replace("->-", "->").replace("-<-", "<-")).collect())
}

/// Who has what, as one node says.
struct Map {
    parts: Vec<Part>,
    state: String,
    epoch: u64,
}

fn ask(seed: &ConnectOptions) -> Result<Map, RedisError> {
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
    Ok(Map { parts: parts.ok_or(MALFORMED)?, state, epoch })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_on_their_way_are_found_in_the_line_of_the_node_itself() {
        let text = "aa 127.0.0.1:1@2 master - 0 1 1 connected 0-5460 [1->-ee]\n\
                    bb 127.0.0.1:3@4 myself,master - 0 1 2 connected 5461-9 [77->-cc] [93-<-dd]\n";
        assert_eq!(open_in(text).unwrap(), ["77->cc", "93<-dd"]);
        assert_eq!(open_in(&text.replace("[77->-cc] [93-<-dd]", "")).unwrap(), Vec::<String>::new());
        assert_eq!(open_in(&text.replace("myself,", "")), None);
    }
}
