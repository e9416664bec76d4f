//! A server that was found, and the role it must be in.

use std::collections::BTreeMap;
use std::fmt;

use super::cluster::Shard;
use crate::wire::{ConnectOptions, Connection, Info, RedisError};

/// What a server is to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows a primary, which it must have.
    Replica,
}

impl Role {
    /// Whether a server says of itself that this is its role.
    pub fn is_of(self, info: &Info) -> bool {
        match self {
            Self::Primary => info.get("role") == Some("master"),
            Self::Replica => {
                info.get("role") == Some("slave") && info.get("master_link_status") == Some("up")
            }
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica with its primary at hand",
        })
    }
}

/// A server that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// How it is reached.
    pub options: ConnectOptions,
    /// The role it must keep; nothing for a server that was named by its own address.
    pub role: Option<Role>,
    /// What was told about it, by name.
    pub told: BTreeMap<&'static str, String>,
    /// Its part of a cluster.
    pub shard: Option<Shard>,
}

/// Whether the server there is in this role, by its own account.
pub(super) fn is_in_role(options: &ConnectOptions, role: Role) -> Result<bool, RedisError> {
    Ok(role.is_of(&Connection::open(options)?.info("replication")?))
}
