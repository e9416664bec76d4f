//! A key as plain commands show it: its head, and its content in parts of bounded size.
//!
//! What comes in parts goes to a [`Sink`]: a file of lines, a dump, another server.

use std::convert::Infallible;

use crate::rdb::{Hash, Hasher, Kind, Sum};

/// The id of an entry of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Milliseconds since 1970, by custom.
    pub ms: u64,
    /// The number within the millisecond.
    pub number: u64,
}

impl Id {
    /// Reads `1700000000000-5`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (ms, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, number: number.parse().ok()? })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

/// Everything of a key but its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The database it is in.
    pub db: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// What it holds.
    pub kind: Kind,
    /// When it ends, in milliseconds since 1970.
    pub end_ms: Option<i64>,
    /// The length of a string in bytes; 0 for all else.
    pub string_bytes: u64,
    /// What a stream has beside its entries.
    pub stream: Option<StreamHead>,
}

/// A stream without its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHead {
    /// The last id it gave.
    pub last: Id,
    /// The highest id that was deleted.
    pub max_deleted: Id,
    /// Entries that were ever added.
    pub added: u64,
    /// Its groups in the order of their names.
    pub groups: Vec<Group>,
}

/// A group of consumers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: Vec<u8>,
    /// The last id that was handed out.
    pub last: Id,
    /// Entries that were handed out; nothing where the server does not know.
    pub read: Option<u64>,
    /// Names of its consumers, also of those to whom nothing is owed.
    pub consumers: Vec<Vec<u8>>,
    /// What was handed out and not acknowledged, by id.
    pub pending: Vec<Pending>,
}

/// An entry that was handed out and not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// The entry, which may be gone.
    pub id: Id,
    /// Who has it: a place in [`Group::consumers`].
    pub consumer: usize,
    /// When it was handed out last, in milliseconds since 1970.
    pub delivered_ms: u64,
    /// How often.
    pub deliveries: u64,
}

/// An entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: Id,
    /// Fields and values, in their order; a field may come twice.
    pub fields: Vec<Pair>,
}

/// A part of a key's content, of the form that its kind has.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// The next bytes of a string.
    Bytes(Vec<u8>),
    /// The next elements of a list, or members of a set.
    Items(Vec<Vec<u8>>),
    /// Fields of a hash with their values.
    Pairs(Vec<Pair>),
    /// Members of a sorted set with their scores.
    Scored(Vec<(Vec<u8>, f64)>),
    /// The next entries of a stream.
    Entries(Vec<Entry>),
}

/// A field and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

impl Part {
    /// How many elements it has; of a string, bytes.
    pub fn count(&self) -> u64 {
        (match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Items(items) => items.len(),
            Self::Pairs(pairs) => pairs.len(),
            Self::Scored(members) => members.len(),
            Self::Entries(entries) => entries.len(),
        }) as u64
    }

    /// Its bytes, roughly.
    pub fn bytes(&self) -> u64 {
        let pair = |(one, other): &Pair| one.len() + other.len();
        (match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Items(items) => items.iter().map(Vec::len).sum(),
            Self::Pairs(pairs) => pairs.iter().map(pair).sum(),
            Self::Scored(members) => members.iter().map(|(member, _)| member.len() + 8).sum(),
            Self::Entries(entries) => {
                entries.iter().map(|entry| 16 + entry.fields.iter().map(pair).sum::<usize>()).sum()
            }
        }) as u64
    }

    /// Whether content of this form belongs to a key of this kind.
    pub fn fits(&self, kind: Kind) -> bool {
        matches!(
            (self, kind),
            (Self::Bytes(_), Kind::String)
                | (Self::Items(_), Kind::List | Kind::Set)
                | (Self::Pairs(_), Kind::Hash)
                | (Self::Scored(_), Kind::Zset)
                | (Self::Entries(_), Kind::Stream)
        )
    }
}

/// What a key amounts to, as a reader of dumps finds it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Elements of a collection, entries of a stream, bytes of a string.
    pub elements: u64,
    /// The digest of the content alone.
    pub value: [u8; 32],
    /// [`Key::digest`](crate::rdb::Key::digest).
    pub digest: [u8; 32],
    /// [`Key::timeless`](crate::rdb::Key::timeless).
    pub timeless: [u8; 32],
}

/// Takes keys in parts. After `open` come any number of `part`, then `close` or `void`.
pub trait Sink {
    /// What can go wrong.
    type Error;

    /// A key begins.
    fn open(&mut self, head: &Head) -> Result<(), Self::Error>;

    /// More of its content.
    fn part(&mut self, part: &Part) -> Result<(), Self::Error>;

    /// It is whole.
    fn close(&mut self, closed: &Closed) -> Result<(), Self::Error>;

    /// It changed while it was read: what came of it is not used.
    fn void(&mut self) -> Result<(), Self::Error>;
}

/// Takes keys and keeps nothing: for what is said of a key once it is whole.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

impl Sink for Nowhere {
    type Error = Infallible;

    fn open(&mut self, _head: &Head) -> Result<(), Infallible> {
        Ok(())
    }

    fn part(&mut self, _part: &Part) -> Result<(), Infallible> {
        Ok(())
    }

    fn close(&mut self, _closed: &Closed) -> Result<(), Infallible> {
        Ok(())
    }

    fn void(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The digest of a key, made of its parts as they come.
#[derive(Clone)]
pub struct KeySum {
    head: Head,
    ordered: Hasher,
    unordered: Sum,
    elements: u64,
}

impl std::fmt::Debug for KeySum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySum").field("elements", &self.elements).finish_non_exhaustive()
    }
}

impl KeySum {
    /// Begins with the head.
    pub fn new(head: &Head) -> Self {
        let mut ordered = Hasher::new();
        if head.kind == Kind::String {
            ordered.number(head.string_bytes);
        }
        Self { head: head.clone(), ordered, unordered: Sum::default(), elements: 0 }
    }

    /// Elements up to now.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Adds a part.
    pub fn add(&mut self, part: &Part) {
        self.elements += part.count();
        match part {
            Part::Bytes(bytes) => self.ordered.bytes(bytes),
            Part::Items(items) => {
                for item in items {
                    if self.head.kind == Kind::List {
                        self.ordered.text(item);
                    } else {
                        self.loose(|hasher| hasher.text(item));
                    }
                }
            }
            Part::Pairs(pairs) => {
                for (field, value) in pairs {
                    self.loose(|hasher| {
                        hasher.text(field);
                        hasher.text(value);
                    });
                }
            }
            Part::Scored(members) => {
                for (member, score) in members {
                    self.loose(|hasher| {
                        hasher.text(member);
                        // Zero has no sign.
                        hasher.number((score + 0.0).to_bits());
                    });
                }
            }
            Part::Entries(entries) => {
                for entry in entries {
                    self.ordered.bytes(&entry_hash(entry));
                }
            }
        }
    }

    fn loose(&mut self, fill: impl FnOnce(&mut Hasher)) {
        let mut hasher = Hasher::new();
        fill(&mut hasher);
        self.unordered.add(&hasher.finish());
    }

    /// The end.
    pub fn finish(self) -> Closed {
        let Self { head, mut ordered, unordered, elements } = self;
        match (head.kind, &head.stream) {
            (Kind::String, _) => {}
            (Kind::Stream, Some(stream)) => stream_head(stream, elements, &mut ordered),
            (Kind::List, _) => ordered.number(elements),
            _ => {
                unordered.hash_into(&mut ordered);
                ordered.number(elements);
            }
        }
        let value = ordered.finish();
        let mut hasher = Hasher::new();
        hasher.text(&head.name);
        hasher.text(head.kind.word().as_bytes());
        hasher.bytes(&value);
        let mut timeless = hasher.clone();
        timeless.number(u64::from(head.end_ms.is_some()));
        if let Some(end_ms) = head.end_ms {
            hasher.number(end_ms.cast_unsigned());
        }
        Closed { elements, value, digest: hasher.finish(), timeless: timeless.finish() }
    }
}

fn entry_hash(entry: &Entry) -> Hash {
    let one = |text: &[u8]| {
        let mut hasher = Hasher::new();
        hasher.text(text);
        hasher.finish()
    };
    let mut hasher = Hasher::new();
    id(entry.id, &mut hasher);
    hasher.number(entry.fields.len() as u64);
    for (field, value) in &entry.fields {
        hasher.bytes(&one(field));
        hasher.bytes(&one(value));
    }
    hasher.finish()
}

fn id(id: Id, hasher: &mut Hasher) {
    hasher.number(id.ms);
    hasher.number(id.number);
}

fn stream_head(stream: &StreamHead, length: u64, hasher: &mut Hasher) {
    hasher.number(length);
    id(stream.last, hasher);
    id(stream.max_deleted, hasher);
    hasher.number(stream.added);
    hasher.number(stream.groups.len() as u64);
    for group in &stream.groups {
        hasher.text(&group.name);
        id(group.last, hasher);
        // How many entries it has read is left out, as it is for dumps: no server tells it to its replicas.
        hasher.number(group.pending.len() as u64);
        for pending in &group.pending {
            id(pending.id, hasher);
            hasher.number(pending.delivered_ms);
            hasher.number(pending.deliveries);
        }
        hasher.number(group.consumers.len() as u64);
        let mut sum = Sum::default();
        for (index, name) in group.consumers.iter().enumerate() {
            let mut inner = Hasher::new();
            inner.text(name);
            let own = || group.pending.iter().filter(|pending| pending.consumer == index);
            inner.number(own().count() as u64);
            for pending in own() {
                id(pending.id, &mut inner);
            }
            sum.add(&inner.finish());
        }
        sum.hash_into(hasher);
    }
}
