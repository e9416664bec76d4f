//! Values: what is in them, whatever form they are kept in.
//!
//! In: the type byte and the bytes after it. Out: the kind of value, its number of elements and a digest that is the same
//! for the same content in any encoding. Memory: constant, but for the field names of a stream's node.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::error::RdbError;
use super::input::Input;
use super::module;
use super::packed::{Element, Packed, Packing};
use super::stream;
use super::sum::{Hash, Hasher, Sum};
use super::text::{Digits, Text};

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A string.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    Zset,
    /// A hash.
    Hash,
    /// A stream with its groups.
    Stream,
    /// A type that a module brings. What is in it is passed over, not understood.
    Module,
}

impl Kind {
    /// The server's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
            Self::Module => "module",
        }
    }
}

/// A value that was read.
pub(super) struct Value {
    pub(super) kind: Kind,
    /// Elements of a collection, entries of a stream, bytes of a string.
    pub(super) elements: u64,
    pub(super) digest: Hash,
}

/// Reads one value of the type `form`.
pub(super) fn read<R: Read>(input: &mut Input<R>, form: u8) -> Result<Value, RdbError> {
    match form {
        0 => string(input),
        1 => plain_list(input),
        10 => packed_list(input, Packing::Ziplist),
        14 => quicklist(input, false),
        18 => quicklist(input, true),
        2 => plain_set(input),
        11 => packed_set(input, Packing::Integers),
        20 => packed_set(input, Packing::Listpack),
        3 => plain_zset(input, true),
        5 => plain_zset(input, false),
        12 => packed_zset(input, Packing::Ziplist),
        17 => packed_zset(input, Packing::Listpack),
        4 => plain_hash(input),
        9 => packed_hash(input, Packing::Zipmap),
        13 => packed_hash(input, Packing::Ziplist),
        16 => packed_hash(input, Packing::Listpack),
        24 => plain_hash_with_times(input),
        25 => packed_hash_with_times(input),
        15 => stream::read(input, 1),
        19 => stream::read(input, 2),
        21 => stream::read(input, 3),
        7 => module::read(input),
        other => {
            let (what, number, at) = ("a value of type", u64::from(other), input.position());
            Err(RdbError::Unknown { what, number, at })
        }
    }
}

/// Adds a text with its length to `hasher`; gives its length.
pub(super) fn text<R: Read>(input: &mut Input<R>, hasher: &mut Hasher) -> Result<u64, RdbError> {
    let mut text = Text::open(input)?;
    let length = text.length();
    hasher.number(length);
    text.pipe(length, &mut |chunk| hasher.bytes(chunk))?;
    text.finish()?;
    Ok(length)
}

/// The same for an element of a packed collection.
pub(super) fn element<R: Read>(
    packed: &mut Packed<'_, R>,
    element: Element,
    hasher: &mut Hasher,
) -> Result<(), RdbError> {
    match element {
        Element::Number(number) => {
            hasher.text(Digits::of(number).bytes());
            Ok(())
        }
        Element::Text(length) => {
            hasher.number(length);
            packed.pipe(length, &mut |chunk| hasher.bytes(chunk))
        }
    }
}

/// The parts of a value in an order that counts.
struct Ordered(Hasher, u64);

impl Ordered {
    fn new() -> Self {
        Self(Hasher::new(), 0)
    }

    fn finish(mut self, kind: Kind) -> Value {
        self.0.number(self.1);
        Value { kind, elements: self.1, digest: self.0.finish() }
    }
}

/// The parts of a value without an order.
struct Unordered(Sum, u64);

impl Unordered {
    fn new() -> Self {
        Self(Sum::default(), 0)
    }

    fn add(&mut self, hasher: Hasher) {
        self.0.add(&hasher.finish());
        self.1 += 1;
    }

    fn finish(self, kind: Kind) -> Value {
        let mut hasher = Hasher::new();
        self.0.hash_into(&mut hasher);
        hasher.number(self.1);
        Value { kind, elements: self.1, digest: hasher.finish() }
    }
}

fn string<R: Read>(input: &mut Input<R>) -> Result<Value, RdbError> {
    let mut hasher = Hasher::new();
    let elements = text(input, &mut hasher)?;
    Ok(Value { kind: Kind::String, elements, digest: hasher.finish() })
}

fn plain_list<R: Read>(input: &mut Input<R>) -> Result<Value, RdbError> {
    let mut list = Ordered::new();
    for _element in 0..input.number()? {
        text(input, &mut list.0)?;
        list.1 += 1;
    }
    Ok(list.finish(Kind::List))
}

fn packed_list<R: Read>(input: &mut Input<R>, packing: Packing) -> Result<Value, RdbError> {
    let mut list = Ordered::new();
    list_part(input, packing, &mut list)?;
    Ok(list.finish(Kind::List))
}

fn list_part<R: Read>(input: &mut Input<R>, packing: Packing, list: &mut Ordered) -> Result<(), RdbError> {
    let mut packed = Packed::open(Text::open(input)?, packing)?;
    while let Some(next) = packed.next()? {
        element(&mut packed, next, &mut list.0)?;
        list.1 += 1;
    }
    packed.finish()
}

/// A list in nodes; since version 2 a large element has a node for itself.
fn quicklist<R: Read>(input: &mut Input<R>, second: bool) -> Result<Value, RdbError> {
    let mut list = Ordered::new();
    for _node in 0..input.number()? {
        match (second, if second { input.number()? } else { 2 }) {
            (true, 1) => {
                text(input, &mut list.0)?;
                list.1 += 1;
            }
            (true, 2) => list_part(input, Packing::Listpack, &mut list)?,
            (false, _) => list_part(input, Packing::Ziplist, &mut list)?,
            _ => return Err(input.damaged("a list with a node of an unknown form")),
        }
    }
    Ok(list.finish(Kind::List))
}

fn plain_set<R: Read>(input: &mut Input<R>) -> Result<Value, RdbError> {
    let mut set = Unordered::new();
    for _member in 0..input.number()? {
        let mut hasher = Hasher::new();
        text(input, &mut hasher)?;
        set.add(hasher);
    }
    Ok(set.finish(Kind::Set))
}

fn packed_set<R: Read>(input: &mut Input<R>, packing: Packing) -> Result<Value, RdbError> {
    let mut set = Unordered::new();
    let mut packed = Packed::open(Text::open(input)?, packing)?;
    while let Some(member) = packed.next()? {
        let mut hasher = Hasher::new();
        element(&mut packed, member, &mut hasher)?;
        set.add(hasher);
    }
    packed.finish()?;
    Ok(set.finish(Kind::Set))
}

/// A score by its bits; zero has no sign.
fn score(score: f64, hasher: &mut Hasher) {
    hasher.number((score + 0.0).to_bits());
}

fn plain_zset<R: Read>(input: &mut Input<R>, scores_as_text: bool) -> Result<Value, RdbError> {
    let mut set = Unordered::new();
    for _member in 0..input.number()? {
        let mut hasher = Hasher::new();
        text(input, &mut hasher)?;
        let value = if scores_as_text { text_score(input)? } else { f64::from_le_bytes(input.array()?) };
        score(value, &mut hasher);
        set.add(hasher);
    }
    Ok(set.finish(Kind::Zset))
}

/// A score as the oldest dumps have it.
fn text_score<R: Read>(input: &mut Input<R>) -> Result<f64, RdbError> {
    let length = match input.byte()? {
        253 => return Ok(f64::NAN),
        254 => return Ok(f64::INFINITY),
        255 => return Ok(f64::NEG_INFINITY),
        length => usize::from(length),
    };
    let mut bytes = vec![0; length];
    input.exact(&mut bytes)?;
    parse_score(&bytes).ok_or_else(|| input.damaged("a score that is no number"))
}

fn parse_score(bytes: &[u8]) -> Option<f64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn packed_zset<R: Read>(input: &mut Input<R>, packing: Packing) -> Result<Value, RdbError> {
    let mut set = Unordered::new();
    let mut packed = Packed::open(Text::open(input)?, packing)?;
    while let Some(member) = packed.next()? {
        let mut hasher = Hasher::new();
        element(&mut packed, member, &mut hasher)?;
        let bytes = packed.short()?;
        let value = parse_score(&bytes).ok_or_else(|| packed.damaged("a score that is no number"))?;
        score(value, &mut hasher);
        set.add(hasher);
    }
    packed.finish()?;
    Ok(set.finish(Kind::Zset))
}

/// After a field and its value: when the field ends, in milliseconds since 1970; 0 if it does not.
fn field_end(end_ms: u64, hasher: &mut Hasher) {
    if end_ms > 0 {
        hasher.number(end_ms);
    }
}

fn plain_hash<R: Read>(input: &mut Input<R>) -> Result<Value, RdbError> {
    let mut hash = Unordered::new();
    for _field in 0..input.number()? {
        let mut hasher = Hasher::new();
        text(input, &mut hasher)?;
        text(input, &mut hasher)?;
        hash.add(hasher);
    }
    Ok(hash.finish(Kind::Hash))
}

fn packed_hash<R: Read>(input: &mut Input<R>, packing: Packing) -> Result<Value, RdbError> {
    let mut hash = Unordered::new();
    let mut packed = Packed::open(Text::open(input)?, packing)?;
    while let Some(field) = packed.next()? {
        let mut hasher = Hasher::new();
        element(&mut packed, field, &mut hasher)?;
        let value = packed.required()?;
        element(&mut packed, value, &mut hasher)?;
        hash.add(hasher);
    }
    packed.finish()?;
    Ok(hash.finish(Kind::Hash))
}

/// A hash whose fields have times to live, counted from the earliest of them.
fn plain_hash_with_times<R: Read>(input: &mut Input<R>) -> Result<Value, RdbError> {
    let earliest_ms = u64::from_le_bytes(input.array()?);
    let mut hash = Unordered::new();
    for _field in 0..input.number()? {
        let mut hasher = Hasher::new();
        let end_ms = match input.number()? {
            0 => 0,
            after => earliest_ms.saturating_add(after - 1),
        };
        text(input, &mut hasher)?;
        text(input, &mut hasher)?;
        field_end(end_ms, &mut hasher);
        hash.add(hasher);
    }
    Ok(hash.finish(Kind::Hash))
}

fn packed_hash_with_times<R: Read>(input: &mut Input<R>) -> Result<Value, RdbError> {
    let _earliest_ms: [u8; 8] = input.array()?;
    let mut hash = Unordered::new();
    let mut packed = Packed::open(Text::open(input)?, Packing::Listpack)?;
    while let Some(field) = packed.next()? {
        let mut hasher = Hasher::new();
        element(&mut packed, field, &mut hasher)?;
        let value = packed.required()?;
        element(&mut packed, value, &mut hasher)?;
        let end_ms = packed.number()?;
        field_end(u64::try_from(end_ms).unwrap_or_default(), &mut hasher);
        hash.add(hasher);
    }
    packed.finish()?;
    Ok(hash.finish(Kind::Hash))
}
