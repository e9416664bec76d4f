//! What a database of etcd holds, told from its bytes alone: revisions, keys, leases, members, rights.
//!
//! In: a database. Out: [`Content`], and every live key to a visitor. Two passes over the history of the keys. Memory:
//! about 100 bytes for each key that is alive, of which [`MAX_KEYS`] are followed; a server needs several times that.

use std::collections::HashMap;

use lifeboat_base::digest::Hasher;

use crate::bolt::{Bolt, Bucket};
use crate::error::EtcdError;
use crate::proto::{KeyValue, Writer, fields};

/// The most keys that can be alive.
const MAX_KEYS: u64 = 20_000_000;
/// The bucket of the history of all keys.
pub(crate) const KEY: &[u8] = b"key";
/// The bucket of what the server notes about itself.
pub(crate) const META: &[u8] = b"meta";
/// The bucket of who may log in.
pub(crate) const AUTH: &[u8] = b"auth";
/// The revision up to which a compaction was asked for, and up to which one has ended.
pub(crate) const SCHEDULED: &[u8] = b"scheduledCompactRev";
const FINISHED: &[u8] = b"finishedCompactRev";
/// Whether users must log in: one byte, 1 or 0.
pub(crate) const AUTH_ENABLED: &[u8] = b"authEnabled";
/// A revision as a key: main and sub revision, 8 bytes each, with this between them.
const SEPARATOR: u8 = b'_';
/// What follows the revision of a deletion.
const TOMBSTONE: u8 = b't';
/// The length of a revision as a key, without the mark of a deletion.
const REVISION_BYTES: usize = 17;
/// How many pairs are read between two questions whether to go on.
const PAIRS_PER_QUESTION: u64 = 4096;

/// A lease as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// Its number.
    pub id: i64,
    /// How long it lives after it was renewed, in seconds.
    pub ttl_s: i64,
}

impl Lease {
    /// Its number as a key of its bucket, and its stored form.
    pub fn encode(self) -> (Vec<u8>, Vec<u8>) {
        (self.id.to_be_bytes().to_vec(), Writer::default().number(1, self.id).number(2, self.ttl_s).finish())
    }
}

/// Who may log in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Whether users must log in.
    pub enabled: bool,
    /// The number of users.
    pub user_count: u64,
    /// The number of roles.
    pub role_count: u64,
}

/// What a database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The revision of the last change.
    pub revision: i64,
    /// Everything before this revision may be gone; 0 if nothing was compacted.
    pub compact_revision: i64,
    /// Whether a compaction was asked for and had not ended.
    pub is_compacting: bool,
    /// Keys that are alive.
    pub key_count: u64,
    /// Versions of keys that are stored, deletions included.
    pub stored_count: u64,
    /// What the server calls `HashKV` at the last revision: CRC-32C over the history.
    pub hash_kv: u32,
    /// The leases, by number.
    pub leases: Vec<Lease>,
    /// Who may log in.
    pub auth: Auth,
    /// The members' numbers, as they stand in the database.
    pub member_ids: Vec<String>,
    /// The lowest version among the members, such as `3.5.0`, if one is recorded.
    pub cluster_version: Option<String>,
    /// Alarms that were raised, as member and kind.
    pub alarm_count: u64,
}

/// A revision as the history is ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Revision {
    main: i64,
    sub: i64,
}

/// The newest version of every key that is alive, by the first half of its SHA-256.
type Newest = HashMap<u128, Revision>;

/// Reads what `bolt` holds; `visit` gets every key that is alive, in the order of its last change.
pub fn read_content(
    bolt: &Bolt,
    cancelled: &dyn Fn() -> bool,
    visit: &mut dyn FnMut(KeyValue) -> Result<(), EtcdError>,
) -> Result<Content, EtcdError> {
    let buckets = bolt.buckets()?;
    let named = |name: &[u8]| buckets.iter().find(|(found, _)| found == name).map(|(_, bucket)| bucket);
    let mut content = Content::default();
    let keys = named(KEY).ok_or_else(|| EtcdError::corrupt("it has no keys bucket: it is not etcd's"))?;
    if let Some(meta) = named(META) {
        let (mut scheduled, mut finished) = (0, 0);
        bolt.walk(meta, &mut |key, value| {
            match key {
                SCHEDULED => scheduled = revision(value)?.0.main,
                FINISHED => finished = revision(value)?.0.main,
                _ => {}
            }
            Ok(())
        })?;
        content.compact_revision = scheduled.max(finished);
        content.is_compacting = scheduled > finished;
    }
    let newest = newest(bolt, keys, &mut content, cancelled)?;
    content.key_count = newest.len() as u64;
    history(bolt, keys, &newest, &mut content, cancelled, visit)?;
    // A compaction may have taken the last change itself, where that was a deletion.
    content.revision = content.revision.max(content.compact_revision).max(1);
    others(bolt, &buckets, &mut content)?;
    Ok(content)
}

/// As [`read_content`], without the keys.
pub fn summarise(bolt: &Bolt, cancelled: &dyn Fn() -> bool) -> Result<Content, EtcdError> {
    read_content(bolt, cancelled, &mut |_key| Ok(()))
}

/// The first pass: which version of each key is its newest.
fn newest(
    bolt: &Bolt,
    keys: &Bucket,
    content: &mut Content,
    cancelled: &dyn Fn() -> bool,
) -> Result<Newest, EtcdError> {
    let mut newest = Newest::new();
    bolt.walk(keys, &mut |key, value| {
        let (at, deleted) = revision(key)?;
        content.revision = content.revision.max(at.main);
        content.stored_count += 1;
        if content.stored_count.is_multiple_of(PAIRS_PER_QUESTION) && cancelled() {
            return Err(EtcdError::Cancelled);
        }
        let id = identity(&KeyValue::decode(value)?.key);
        if deleted || value.is_empty() {
            newest.remove(&id);
        } else if newest.insert(id, at).is_none() && newest.len() as u64 > MAX_KEYS {
            return Err(EtcdError::TooMany { limit: MAX_KEYS });
        }
        Ok(())
    })?;
    Ok(newest)
}

/// The second pass: the live keys, and the server's own hash, which leaves out what a compaction will take.
fn history(
    bolt: &Bolt,
    keys: &Bucket,
    newest: &Newest,
    content: &mut Content,
    cancelled: &dyn Fn() -> bool,
    visit: &mut dyn FnMut(KeyValue) -> Result<(), EtcdError>,
) -> Result<(), EtcdError> {
    let mut hash = crc32c::crc32c(KEY);
    let mut count: u64 = 0;
    let compacted = content.compact_revision;
    bolt.walk(keys, &mut |key, value| {
        count += 1;
        if count.is_multiple_of(PAIRS_PER_QUESTION) && cancelled() {
            return Err(EtcdError::Cancelled);
        }
        let (at, deleted) = revision(key)?;
        let pair = KeyValue::decode(value)?;
        let is_live = !deleted && newest.get(&identity(&pair.key)) == Some(&at);
        if at.main > compacted || is_live || newest.is_empty() {
            hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key), value);
        }
        if is_live { visit(pair) } else { Ok(()) }
    })?;
    content.hash_kv = hash;
    Ok(())
}

/// Leases, rights, members, alarms.
fn others(bolt: &Bolt, buckets: &[(Vec<u8>, Bucket)], content: &mut Content) -> Result<(), EtcdError> {
    for (name, bucket) in buckets {
        bolt.walk(bucket, &mut |key, value| {
            match name.as_slice() {
                b"lease" => content.leases.push(lease(value)?),
                AUTH if key == AUTH_ENABLED => content.auth.enabled = value == [1],
                b"authUsers" => content.auth.user_count += 1,
                b"authRoles" => content.auth.role_count += 1,
                b"members" => content.member_ids.push(String::from_utf8_lossy(key).into_owned()),
                b"alarm" => content.alarm_count += 1,
                b"cluster" if key == b"clusterVersion" => {
                    content.cluster_version = Some(String::from_utf8_lossy(value).into_owned());
                }
                _ => {}
            }
            Ok(())
        })?;
    }
    content.leases.sort();
    Ok(())
}

fn lease(value: &[u8]) -> Result<Lease, EtcdError> {
    let mut lease = Lease { id: 0, ttl_s: 0 };
    fields(value, |field, value| {
        match field {
            1 => lease.id = value.signed(),
            2 => lease.ttl_s = value.signed(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(lease)
}

/// A revision as a key, and whether it is that of a deletion.
fn revision(key: &[u8]) -> Result<(Revision, bool), EtcdError> {
    let wrong = || EtcdError::corrupt("a revision is not written as one");
    let (head, rest) = key.split_at_checked(REVISION_BYTES).ok_or_else(wrong)?;
    let deleted = match rest {
        [] => false,
        [TOMBSTONE] => true,
        _ => return Err(wrong()),
    };
    let number = |at: usize| {
        head.get(at..)
            .and_then(|rest| rest.first_chunk())
            .map(|bytes| i64::from_be_bytes(*bytes))
            .ok_or_else(wrong)
    };
    if head.get(8) != Some(&SEPARATOR) {
        return Err(wrong());
    }
    let found = Revision { main: number(0)?, sub: number(9)? };
    if found.main < 0 || found.sub < 0 { Err(wrong()) } else { Ok((found, deleted)) }
}

/// A revision as it is written as a key.
pub fn revision_key(main: i64, sub: i64) -> Vec<u8> {
    let mut key = Vec::with_capacity(REVISION_BYTES);
    key.extend_from_slice(&main.to_be_bytes());
    key.push(SEPARATOR);
    key.extend_from_slice(&sub.to_be_bytes());
    key
}

/// The first half of the SHA-256 of a key: two keys that share it would have to be looked for on purpose, with the work
/// of breaking a cipher.
fn identity(key: &[u8]) -> u128 {
    let mut hasher = Hasher::new();
    hasher.update(key);
    hasher.finish().as_bytes().first_chunk().map_or(0, |half| u128::from_be_bytes(*half))
}

#[cfg(test)]
pub(crate) mod tests;
