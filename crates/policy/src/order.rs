//! The order in which stores come back: by what they are, and by what each of them needs.
//!
//! In: rows. Out: waves; the stores of one wave do not wait for each other. Declared needs win over the phases.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_base::ids::StoreName;

use crate::kind::Kind;
use crate::model::Store;

/// When a kind of store comes back, earliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// What everything else logs in with.
    Secrets,
    /// What records refer from.
    Databases,
    /// What records refer to.
    Objects,
    /// What is derived from both.
    Indexes,
    /// What runs on top.
    Applications,
}

impl Phase {
    /// The phase of a kind.
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Secrets => Self::Secrets,
            Kind::Postgres | Kind::Sqlite | Kind::Redis | Kind::Etcd | Kind::Mongodb | Kind::Clickhouse => {
                Self::Databases
            }
            Kind::Files | Kind::ObjectStore | Kind::Longhorn => Self::Objects,
            Kind::Vector => Self::Indexes,
            Kind::Kubernetes | Kind::Git | Kind::Queue | Kind::EdgeLogs => Self::Applications,
        }
    }
}

/// The waves of these rows. A need outside of them is not waited for. `Err` names the stores of a circle of needs, in order.
pub fn restore_order<'a>(rows: &[&'a Store]) -> Result<Vec<Vec<&'a Store>>, Vec<StoreName>> {
    let named: BTreeMap<&StoreName, &'a Store> = rows.iter().map(|row| (&row.name, *row)).collect();
    let mut left = named.clone();
    let mut waves = Vec::new();
    while !left.is_empty() {
        let ready = |row: &&'a Store| !row.needs.iter().any(|need| left.contains_key(need));
        let Some(first) = left.values().copied().filter(ready).map(|row| Phase::of(row.kind)).min() else {
            return Err(circle(&left));
        };
        let wave: Vec<&'a Store> =
            left.values().copied().filter(ready).filter(|row| Phase::of(row.kind) == first).collect();
        for row in &wave {
            left.remove(&row.name);
        }
        waves.push(wave);
    }
    Ok(waves)
}

/// One circle among stores of which each waits for another.
fn circle(left: &BTreeMap<&StoreName, &Store>) -> Vec<StoreName> {
    let mut way: Vec<StoreName> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next = left.keys().next().map(|name| (*name).clone());
    while let Some(name) = next {
        if !seen.insert(name.clone()) {
            way.drain(..way.iter().position(|other| *other == name).unwrap_or_default());
            return way;
        }
        next = left.get(&name).and_then(|row| row.needs.iter().find(|need| left.contains_key(need)).cloned());
        way.push(name);
    }
    way
}
