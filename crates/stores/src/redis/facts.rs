//! What is known about a server beside its data: who it is and how it is set up. What the user may not ask is unknown.

use std::collections::BTreeMap;

use super::feed::lag;
use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::Finding;
use lifeboat_base::time::SignedDuration;
use lifeboat_redis::place::{Found, Role};
use lifeboat_redis::rdb::Survey;
use lifeboat_redis::replication::setting;
use lifeboat_redis::wire::{ConnectOptions, Connection, Info, RedisError};
use serde_json::{Value, json};

use super::{error, shards};
use crate::adapter::Inspection;

/// Settings that say what a restored server must be like, none of them secret.
const SETTINGS: [&str; 6] =
    ["appendfsync", "appendonly", "databases", "maxmemory", "maxmemory-policy", "save"];
/// The most modules that are named.
const MAX_MODULES: usize = 100;

/// What a server says about itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) environment: BTreeMap<String, Value>,
    pub(super) version: String,
    pub(super) databases: Option<u64>,
    pub(super) used_bytes: Option<u64>,
    pub(super) items: Vec<(String, u64)>,
    pub(super) findings: Vec<Finding>,
    /// How far a replica may be behind its primary.
    pub(super) behind: SignedDuration,
}

/// Asks a server who it is. `Unreachable` for something that is no Redis.
pub(super) fn read(options: &ConnectOptions) -> Result<Facts, Failure> {
    let fail = || error::connection("failed to ask the server about itself");
    let mut connection =
        Connection::open(options).map_err(error::connection("failed to reach the server"))?;
    let info = connection.info("everything").map_err(fail())?;
    let mut facts = Facts::default();
    let Some(version) = info.get("redis_version") else {
        return Err(Failure::new(FailureKind::Unreachable, "what answers there is no Redis server"));
    };
    version.clone_into(&mut facts.version);
    loaded(&info)?;
    facts.behind = lag(&info).unwrap_or_default();
    let mut note = |name: &str, value: Value| facts.environment.insert(format!("redis.{name}"), value);
    note("version", json!(version));
    for field in ["redis_mode", "role", "os", "server_name", "aof_enabled", "rdb_last_bgsave_status"] {
        note(field, info.get(field).map_or(Value::Null, Value::from));
    }
    let modules: Vec<&str> = info.values("module").take(MAX_MODULES).collect();
    note("modules", json!(modules));
    let mut settings = BTreeMap::new();
    for name in SETTINGS {
        settings.insert(name, setting(&mut connection, name).map_err(fail())?);
    }
    facts.databases = settings.get("databases").and_then(|value| value.as_deref()?.parse().ok());
    note("settings", json!(settings));
    facts.used_bytes = info.number("used_memory_dataset");
    for (name, value) in info.fields().filter(|(name, _)| name.starts_with("db")) {
        let keys = value.strip_prefix("keys=").and_then(|rest| rest.split(',').next()?.parse().ok());
        facts.items.extend(keys.map(|keys| (format!("keys/{name}"), keys)));
    }
    if info.get("redis_mode") == Some("cluster") {
        let message =
            "this is one shard of a cluster: give each shard a row of its own; shards are not one moment";
        facts.findings.push(Finding::new("redis-shard", "redis", message));
    }
    if !modules.is_empty() {
        let message = "modules are loaded: what they keep is captured as it is and cannot be checked";
        facts.findings.push(Finding::new("redis-modules", "redis", message));
    }
    Ok(facts)
}

/// A server that loads, or a replica without its primary, gives nothing.
fn loaded(info: &Info) -> Result<(), Failure> {
    let why = if info.get("loading") == Some("1") {
        "the server is loading its data"
    } else if info.get("role") == Some("slave") && info.get("master_link_status") == Some("down") {
        "the server is a replica that has lost its primary"
    } else {
        return Ok(());
    };
    Err(Failure::new(FailureKind::Unreachable, why))
}

/// The same for a server that was found: it must still be what it was found as.
pub(super) fn of(found: &Found) -> Result<Facts, Failure> {
    let mut facts = read(&found.options)?;
    in_role(found, facts.environment.get("redis.role").and_then(Value::as_str))?;
    shards::note(&mut facts.environment, found);
    shards::findings(&mut facts.findings, found);
    Ok(facts)
}

/// Refuses a server that says that it is in another role than the one it was found in.
pub(super) fn in_role(found: &Found, said: Option<&str>) -> Result<(), Failure> {
    let wanted = found.role.map(|role| match role {
        Role::Primary => "master",
        Role::Replica => "slave",
    });
    if wanted.is_some() && wanted != said {
        let what = format!("{} has changed its role since it was found", found.options.target());
        return Err(Failure::new(FailureKind::Unreachable, what));
    }
    Ok(())
}

/// For `lifeboat check` of what is not captured: whether it is there.
pub(super) fn reach(found: &Found) -> Result<Inspection, Failure> {
    // What stands in the way of a capture is of no matter.
    Ok(Inspection { findings: Vec::new(), ..inspection(of(found)?, found) })
}

fn inspection(mut facts: Facts, found: &Found) -> Inspection {
    facts.items.sort();
    Inspection {
        version: format!("Redis {}", facts.version),
        logical_bytes: facts.used_bytes,
        items: facts.items,
        findings: facts.findings,
        share: shards::share(found),
    }
}

/// For `lifeboat check`: whether a capture would work, without making one.
pub(super) fn inspect(found: &Found) -> Result<Inspection, Failure> {
    let facts = of(found)?;
    let mut connection =
        Connection::open(&found.options).map_err(error::connection("failed to reach the server"))?;
    // Answered without doing anything by a server that lets us.
    match connection.ask("REPLCONF capa psync2") {
        Ok(_) => {}
        Err(error @ RedisError::Server { .. }) => {
            let what = "the user may not replicate; run `lifeboat init redis` for the rights it needs";
            return Err(Failure::with_source(FailureKind::Refused, what, error));
        }
        Err(error) => return Err(error::connection("failed to ask for replication")(error)),
    }
    Ok(inspection(facts, found))
}

/// What a dump says about itself, beside its numbers.
pub(super) fn note_dump(environment: &mut BTreeMap<String, Value>, survey: &Survey) {
    let mut note = |name: &str, value| environment.insert(format!("redis.{name}"), value);
    note("rdb_version", json!(survey.about.version));
    note("rdb_checksummed", json!(survey.about.checksummed));
    note("rdb_aux", json!(survey.about.aux));
    note("opaque", json!(survey.opaque));
    let ttl: serde_json::Map<_, _> =
        survey.databases.iter().map(|(db, found)| (format!("db{db}"), json!(found.ttl))).collect();
    note("time_to_live", json!(ttl));
}

/// Whether a point was captured key by key.
pub(super) fn is_scan(facts: &CaptureFacts) -> bool {
    facts.environment.get("redis.capture").and_then(Value::as_str) == Some("scan")
}

/// What a dump amounts to, as counts and checksums that a restore must reproduce.
pub(super) fn numbers(survey: &Survey) -> (BTreeMap<String, u64>, BTreeMap<String, String>) {
    let (mut counts, mut checksums) = (BTreeMap::new(), BTreeMap::new());
    counts.insert("keys".to_owned(), survey.keys());
    counts.insert("functions".to_owned(), survey.functions);
    checksums.insert("functions".to_owned(), survey.function_sum.to_string());
    for (db, found) in &survey.databases {
        counts.insert(format!("keys/db{db}"), found.keys);
        counts.insert(format!("expiring/db{db}"), found.expiring);
        for (kind, count) in &found.kinds {
            counts.insert(format!("type/db{db}/{}", kind.word()), *count);
        }
        checksums.insert(format!("content/db{db}"), found.sum.to_string());
    }
    (counts, checksums)
}
