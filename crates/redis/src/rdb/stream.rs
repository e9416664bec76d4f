//! Streams: entries in order, and groups with what was handed out and not acknowledged.
//!
//! The digest covers ids, fields and values of living entries, the stream's counters, and of each group its name,
//! position, consumers' names and pending entries with time and number of deliveries. When a consumer was last seen is
//! left out: a replica keeps its own time for it. So is how many entries a group has read: a server sends its replicas and
//! its log what was handed out, and not that number.

use std::io::Read;

use super::error::RdbError;
use super::input::Input;
use super::packed::{Packed, Packing};
use super::sum::{Hash, Hasher, Sum};
use super::text::Text;
use super::value::{Kind, Value, element, text};

/// The most fields one node of a stream may name; bounds memory to 32 MiB.
const MAX_FIELDS_COUNT: i64 = 1024 * 1024;
const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// The id of an entry: milliseconds and number.
type Id = (u64, u64);

pub(super) fn read<R: Read>(input: &mut Input<R>, version: u8) -> Result<Value, RdbError> {
    let mut hasher = Hasher::new();
    let mut living = 0;
    for _node in 0..input.number()? {
        living += node(input, &mut hasher)?;
    }
    let length = input.number()?;
    if length != living {
        return Err(input.damaged("a stream without the number of entries it announces"));
    }
    hasher.number(length);
    id(input, &mut hasher)?;
    if version >= 2 {
        // The first entry follows from the entries; what was deleted and ever added does not.
        let (_ms, _number) = (input.number()?, input.number()?);
        id(input, &mut hasher)?;
        hasher.number(input.number()?);
    }
    let groups = input.number()?;
    hasher.number(groups);
    for _group in 0..groups {
        group(input, version, &mut hasher)?;
    }
    Ok(Value { kind: Kind::Stream, elements: length, digest: hasher.finish() })
}

/// An id as two lengths.
fn id<R: Read>(input: &mut Input<R>, hasher: &mut Hasher) -> Result<(), RdbError> {
    hasher.number(input.number()?);
    hasher.number(input.number()?);
    Ok(())
}

/// The entries of one node; gives how many live.
fn node<R: Read>(input: &mut Input<R>, hasher: &mut Hasher) -> Result<u64, RdbError> {
    let mut key = Text::open(input)?;
    let (ms, number) = (u64::from_be_bytes(key.array()?), u64::from_be_bytes(key.array()?));
    key.finish()?;
    let mut packed = Packed::open(Text::open(input)?, Packing::Listpack)?;
    let (count, deleted) = (packed.number()?, packed.number()?);
    let fields = names(&mut packed)?;
    let (mut living, mut dead) = (0, 0);
    for _entry in 0..count.saturating_add(deleted) {
        if entry(&mut packed, (ms, number), &fields, hasher)? {
            living += 1;
        } else {
            dead += 1;
        }
    }
    if (living, dead) != (count, deleted) {
        return Err(packed.damaged("a stream's node without the entries it announces"));
    }
    packed.finish()?;
    Ok(u64::try_from(living).unwrap_or_default())
}

/// The digests of the fields that most entries of a node have in common.
fn names<R: Read>(packed: &mut Packed<'_, R>) -> Result<Vec<Hash>, RdbError> {
    let count = packed.number()?;
    if !(0..=MAX_FIELDS_COUNT).contains(&count) {
        return Err(packed.damaged("a stream's node with too many fields"));
    }
    let mut names = Vec::new();
    for _name in 0..count {
        names.push(one(packed)?);
    }
    match packed.number()? {
        0 => Ok(names),
        _ => Err(packed.damaged("a stream's node without the end of its first entry")),
    }
}

/// The digest of the next element.
fn one<R: Read>(packed: &mut Packed<'_, R>) -> Result<Hash, RdbError> {
    let mut hasher = Hasher::new();
    let next = packed.required()?;
    element(packed, next, &mut hasher)?;
    Ok(hasher.finish())
}

/// Reads one entry; true if it lives.
fn entry<R: Read>(
    packed: &mut Packed<'_, R>,
    (ms, number): Id,
    names: &[Hash],
    hasher: &mut Hasher,
) -> Result<bool, RdbError> {
    let flags = packed.number()?;
    let lives = flags & DELETED == 0;
    // Differences to the node's first id.
    let (more_ms, more) = (packed.number()?, packed.number()?);
    let mut inner = Hasher::new();
    inner.number(ms.wrapping_add_signed(more_ms));
    inner.number(number.wrapping_add_signed(more));
    if flags & SAME_FIELDS != 0 {
        inner.number(names.len() as u64);
        for name in names {
            inner.bytes(name);
            inner.bytes(&one(packed)?);
        }
    } else {
        let count = packed.number()?;
        inner.number(u64::try_from(count).unwrap_or_default());
        for _field in 0..count {
            inner.bytes(&one(packed)?);
            inner.bytes(&one(packed)?);
        }
    }
    packed.number()?;
    if lives {
        hasher.bytes(&inner.finish());
    }
    Ok(lives)
}

fn group<R: Read>(input: &mut Input<R>, version: u8, hasher: &mut Hasher) -> Result<(), RdbError> {
    text(input, hasher)?;
    id(input, hasher)?;
    if version >= 2 {
        let _entries_read = input.number()?;
    }
    let pending = input.number()?;
    hasher.number(pending);
    for _entry in 0..pending {
        let id: [u8; 16] = input.array()?;
        let delivered_ms: [u8; 8] = input.array()?;
        hasher.bytes(&id);
        hasher.number(u64::from_le_bytes(delivered_ms));
        hasher.number(input.number()?);
    }
    let consumers = input.number()?;
    hasher.number(consumers);
    let mut sum = Sum::default();
    for _consumer in 0..consumers {
        let mut inner = Hasher::new();
        text(input, &mut inner)?;
        let _seen_ms: [u8; 8] = input.array()?;
        if version >= 3 {
            let _active_ms: [u8; 8] = input.array()?;
        }
        let own = input.number()?;
        inner.number(own);
        for _entry in 0..own {
            let id: [u8; 16] = input.array()?;
            inner.bytes(&id);
        }
        sum.add(&inner.finish());
    }
    sum.hash_into(hasher);
    Ok(())
}
