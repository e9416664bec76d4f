//! Reads what a stream has beside its entries: counters, groups, consumers, what is pending.

use super::answers::{bytes, command, list, malformed, number, single};
use super::link::Link;
use super::value::{Group, Id, Pending, StreamHead};
use crate::wire::{RedisError, Reply};

/// The most pending entries of one group that are read: they come in one answer.
pub(super) const MAX_PENDING: u64 = 10_000;

/// What a stream said about itself.
pub(super) enum Said {
    /// Its length, and everything but its entries, of one moment.
    Head(u64, StreamHead),
    /// It is not there, or is no stream any more.
    Gone,
    /// It cannot be read, and why.
    Unknown(String),
}

/// Fields and values of an answer that is a map.
struct Map(Vec<(Vec<u8>, Reply)>);

impl Map {
    fn read(reply: Reply) -> Result<Self, RedisError> {
        let mut rest = list(reply)?.into_iter();
        let mut fields = Vec::new();
        while let Some(name) = rest.next() {
            let value = rest.next().ok_or_else(|| malformed("a description with half a field"))?;
            fields.push((bytes(name)?, value));
        }
        Ok(Self(fields))
    }

    fn take(&mut self, name: &[u8]) -> Option<Reply> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn need(&mut self, name: &[u8]) -> Result<Reply, RedisError> {
        self.take(name).ok_or_else(|| malformed("a description of a stream without a field"))
    }

    fn count(&mut self, name: &[u8]) -> Result<u64, RedisError> {
        number(&self.need(name)?).ok_or_else(|| malformed("a number that is none"))
    }

    fn id(&mut self, name: &[u8]) -> Result<Id, RedisError> {
        id(self.need(name)?)
    }
}

pub(super) fn id(reply: Reply) -> Result<Id, RedisError> {
    Id::parse(&bytes(reply)?).ok_or_else(|| malformed("an id of a stream that is none"))
}

pub(super) fn describe(link: &mut dyn Link, db: u64, name: &[u8]) -> Result<Said, RedisError> {
    let groups = link.ask(db, &[command(&[b"XINFO", b"GROUPS", name])])?;
    let groups = match single(groups, "XINFO") {
        Ok(reply) => list(reply)?,
        Err(RedisError::Server { source, .. }) if is_gone(&source) => return Ok(Said::Gone),
        Err(error) => return Err(error),
    };
    let mut most = 0;
    for group in groups {
        most = most.max(Map::read(group)?.count(b"pending")?);
    }
    if most > MAX_PENDING {
        return Ok(Said::Unknown(format!("stream with more than {MAX_PENDING} pending entries in a group")));
    }
    // One more, so that what came meanwhile is noticed.
    let count = (most + 1).to_string();
    let question = command(&[b"XINFO", b"STREAM", name, b"FULL", b"COUNT", count.as_bytes()]);
    match single(link.ask(db, &[question])?, "XINFO") {
        Ok(reply) => head(reply),
        Err(RedisError::Server { source, .. }) if is_gone(&source) => Ok(Said::Gone),
        Err(error) if error.is_too_large() => {
            Ok(Said::Unknown("stream whose description is larger than an answer may be".to_owned()))
        }
        Err(error) => Err(error),
    }
}

fn is_gone(source: &crate::wire::ServerError) -> bool {
    source.code == "WRONGTYPE" || source.message.contains("no such key")
}

fn head(reply: Reply) -> Result<Said, RedisError> {
    let mut map = Map::read(reply)?;
    let length = map.count(b"length")?;
    // Servers before version 7 do not count; one of version 7 that takes over their streams begins like this.
    let added = map.take(b"entries-added").and_then(|reply| number(&reply));
    let max_deleted = match map.take(b"max-deleted-entry-id") {
        Some(reply) => id(reply)?,
        None => Id::default(),
    };
    let mut stream = StreamHead {
        last: map.id(b"last-generated-id")?,
        max_deleted,
        added: added.unwrap_or(length),
        groups: Vec::new(),
    };
    for reply in list(map.need(b"groups")?)? {
        match group(reply)? {
            Some(group) => stream.groups.push(group),
            None => return Ok(Said::Unknown("stream whose pending entries did not come whole".to_owned())),
        }
    }
    Ok(Said::Head(length, stream))
}

/// Nothing if not all of what is pending came.
fn group(reply: Reply) -> Result<Option<Group>, RedisError> {
    let mut map = Map::read(reply)?;
    let mut group = Group {
        name: bytes(map.need(b"name")?)?,
        last: map.id(b"last-delivered-id")?,
        read: map.take(b"entries-read").and_then(|reply| number(&reply)),
        ..Group::default()
    };
    for consumer in list(map.need(b"consumers")?)? {
        group.consumers.push(bytes(Map::read(consumer)?.need(b"name")?)?);
    }
    // Older servers call it otherwise.
    let pending = map.take(b"pel-count").map_or_else(|| map.need(b"pending"), Ok)?;
    let announced = number(&pending).ok_or_else(|| malformed("a number that is none"))?;
    let entries = map.take(b"pel").map_or_else(|| map.need(b"pending"), Ok)?;
    for entry in list(entries)? {
        let mut parts = list(entry)?.into_iter();
        let (Some(entry), Some(consumer), Some(delivered), Some(deliveries)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("a pending entry that is none"));
        };
        let owner = bytes(consumer)?;
        let number = |reply| number(&reply).ok_or_else(|| malformed("a number that is none"));
        group.pending.push(Pending {
            id: id(entry)?,
            consumer: group
                .consumers
                .iter()
                .position(|name| *name == owner)
                .ok_or_else(|| malformed("a pending entry of nobody"))?,
            delivered_ms: number(delivered)?,
            deliveries: number(deliveries)?,
        });
    }
    Ok((group.pending.len() as u64 == announced).then_some(group))
}
