//! Reads keys: small ones many at a time, each in one answer and so of one moment; large ones in pages, and again if they
//! changed meanwhile.
//!
//! Memory: one answer ([`REPLY_LIMIT_BYTES`](crate::wire::REPLY_LIMIT_BYTES)), and 18 bytes for each element of a large
//! collection, because `HSCAN` and its kin may show an element twice.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::answers::{bytes, command, good, list, malformed, number, page, pairs, scored, single, texts};
use super::link::{Command, Link};
use super::probe::Abilities;
use super::stream::{self, Said};
use super::value::{Closed, Entry, Head, Id, KeySum, Part, Sink};
use crate::rdb::Kind;
use crate::wire::{RedisError, Reply};

/// What one answer gives of a string.
const PIECE_BYTES: u64 = 1024 * 1024;
/// A string that is shorter is read together with others.
const SHORT_BYTES: usize = 64 * 1024;
/// How many elements are asked for at a time.
const PAGE_ELEMENTS: u64 = 512;
/// How often a key is read that changes meanwhile.
const MAX_ATTEMPTS: u32 = 3;
/// The most elements of a hash or set of which each is shown once.
const MAX_ELEMENTS: usize = 10_000_000;

/// A key that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Everything but its content.
    pub head: Head,
    /// What it amounts to.
    pub closed: Closed,
    /// It changed each time it was read: what came is of several moments.
    pub is_torn: bool,
}

/// What came of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was read.
    Read(Box<Read>),
    /// It was not there any more.
    Gone,
    /// It is of a type that is not understood.
    Unknown(String),
    /// It is there and could not be read, and why.
    Unreadable(&'static str),
}

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The server.
    #[error(transparent)]
    Server(#[from] RedisError),
    /// Whoever takes the keys.
    #[error("what was read could not be handed on")]
    Sink(E),
}

/// Reads keys by their names. `done` hears what came of each.
pub fn read_page<S: Sink>(
    link: &mut dyn Link,
    (db, abilities): (u64, &Abilities),
    names: &[Vec<u8>],
    sink: &mut S,
    done: Done<'_, S::Error>,
) -> Result<(), ReadError<S::Error>> {
    let mut reader = Reader { link, db, abilities, sink };
    let at_once = reader.link.at_once().div_ceil(2).max(1);
    for names in names.chunks(at_once) {
        for (name, outcome) in reader.several(names, done)? {
            let outcome = match outcome {
                Some(outcome) => outcome,
                None => reader.one(name)?,
            };
            done(name, outcome).map_err(ReadError::Sink)?;
        }
    }
    Ok(())
}

/// Hears what came of a key.
type Done<'d, E> = &'d mut dyn FnMut(&[u8], Outcome) -> Result<(), E>;

/// A key that needs more than one answer, or of which this is known already.
type Left<'n> = (&'n [u8], Option<Outcome>);

/// The end of a key that is there.
enum End {
    Gone,
    At(Option<i64>),
}

/// What became of an attempt.
enum Attempt {
    Done(Outcome),
    Changed,
}

struct Reader<'a, S> {
    link: &'a mut dyn Link,
    db: u64,
    abilities: &'a Abilities,
    sink: &'a mut S,
}

impl<S: Sink> Reader<'_, S> {
    fn ask(&mut self, questions: &[Command]) -> Result<Vec<Reply>, RedisError> {
        self.link.ask(self.db, questions)
    }

    fn ask_one(&mut self, words: &[&[u8]]) -> Result<Reply, RedisError> {
        let name = String::from_utf8_lossy(words.first().copied().unwrap_or_default()).into_owned();
        single(self.ask(&[command(words)])?, &name)
    }

    /// Reads what fits into one answer each; gives the names that are left with what is known of them.
    fn several<'n>(
        &mut self,
        names: &'n [Vec<u8>],
        done: Done<'_, S::Error>,
    ) -> Result<Vec<Left<'n>>, ReadError<S::Error>> {
        let questions: Vec<Command> = names.iter().map(|name| command(&[b"TYPE", name])).collect();
        let types = self.ask(&questions)?;
        let mut left = Vec::new();
        let mut wanted = Vec::new();
        for (name, reply) in names.iter().zip(types) {
            match kind(&bytes(good(reply, "TYPE")?)?) {
                Ok(Some(Kind::Stream)) => left.push((name.as_slice(), None)),
                Ok(Some(Kind::Hash)) if self.abilities.field_ends => left.push((name.as_slice(), None)),
                Ok(Some(kind)) => wanted.push((name, kind)),
                Ok(None) => left.push((name.as_slice(), Some(Outcome::Gone))),
                Err(word) => left.push((name.as_slice(), Some(Outcome::Unknown(word)))),
            }
        }
        let questions: Vec<Command> =
            wanted.iter().flat_map(|(name, kind)| [first(*kind, name), self.end(name)]).collect();
        let mut replies = match self.ask(&questions) {
            Ok(replies) => replies.into_iter(),
            Err(error) if error.is_too_large() => {
                left.extend(wanted.iter().map(|(name, _)| (name.as_slice(), None)));
                return Ok(left);
            }
            Err(error) => return Err(error.into()),
        };
        for (name, kind) in wanted {
            let (Some(content), Some(end)) = (replies.next(), replies.next()) else {
                return Err(malformed("a question without an answer").into());
            };
            let End::At(end_ms) = self.end_ms(end)? else {
                done(name, Outcome::Gone).map_err(ReadError::Sink)?;
                continue;
            };
            match whole(kind, content)? {
                Some(part) => {
                    let string_bytes = if kind == Kind::String { part.count() } else { 0 };
                    let head =
                        Head { db: self.db, name: name.clone(), kind, end_ms, string_bytes, stream: None };
                    let mut sum = KeySum::new(&head);
                    self.sink.open(&head).map_err(ReadError::Sink)?;
                    sum.add(&part);
                    self.sink.part(&part).map_err(ReadError::Sink)?;
                    let read = self.close(head, sum, false)?;
                    done(name, read).map_err(ReadError::Sink)?;
                }
                None => left.push((name, None)),
            }
        }
        Ok(left)
    }

    fn close(&mut self, head: Head, sum: KeySum, is_torn: bool) -> Result<Outcome, ReadError<S::Error>> {
        let closed = sum.finish();
        self.sink.close(&closed).map_err(ReadError::Sink)?;
        Ok(Outcome::Read(Box::new(Read { head, closed, is_torn })))
    }

    /// How the end of a key is asked for.
    fn end(&self, name: &[u8]) -> Command {
        command(&[if self.abilities.exact_ends { b"PEXPIRETIME".as_slice() } else { b"PTTL" }, name])
    }

    /// The end in milliseconds since 1970, if it has one.
    fn end_ms(&self, reply: Reply) -> Result<End, RedisError> {
        let end = good(reply, "PEXPIRETIME")?.integer().ok_or_else(|| malformed("an end that is none"))?;
        Ok(match end {
            -2 => End::Gone,
            -1 => End::At(None),
            end if self.abilities.exact_ends => End::At(Some(end)),
            left => End::At(Some(self.link.clock().now().as_millisecond().saturating_add(left))),
        })
    }

    /// Reads one key, however large, up to [`MAX_ATTEMPTS`] times.
    fn one(&mut self, name: &[u8]) -> Result<Outcome, ReadError<S::Error>> {
        for attempt in 1..=MAX_ATTEMPTS {
            let word = bytes(self.ask_one(&[b"TYPE", name])?)?;
            let kind = match kind(&word) {
                Ok(Some(kind)) => kind,
                Ok(None) => return Ok(Outcome::Gone),
                Err(word) => return Ok(Outcome::Unknown(word)),
            };
            let is_last = attempt == MAX_ATTEMPTS;
            let attempt = match kind {
                Kind::String => self.string(name)?,
                Kind::Stream => self.stream(name, is_last)?,
                Kind::List => self.list(name, is_last)?,
                kind => self.scanned(name, kind, is_last)?,
            };
            match attempt {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Changed => {}
            }
        }
        Ok(Outcome::Unreadable("it changed each time it was read"))
    }

    /// End and length; nothing if the key is gone or of another kind now.
    fn measure(&mut self, name: &[u8], length: &[u8]) -> Result<Option<(Option<i64>, u64)>, RedisError> {
        let questions = [self.end(name), command(&[length, name])];
        let mut replies = self.ask(&questions)?.into_iter();
        let (Some(end), Some(length)) = (replies.next(), replies.next()) else {
            return Err(malformed("a question without an answer"));
        };
        let end = self.end_ms(end)?;
        let length = match length {
            Reply::Error(source) if source.code == "WRONGTYPE" => return Ok(None),
            reply => number(&good(reply, "a length")?).ok_or_else(|| malformed("a length that is none"))?,
        };
        Ok(match end {
            End::Gone => None,
            End::At(end_ms) => Some((end_ms, length)),
        })
    }

    /// Whether length and end are still the same.
    fn is_same(&mut self, head: &Head, length_command: &[u8], length: u64) -> Result<bool, RedisError> {
        let now = self.measure(&head.name, length_command)?;
        Ok(now.is_some_and(|(end_ms, now)| {
            now == length
                && (end_ms == head.end_ms
                    || !self.abilities.exact_ends && end_ms.is_some() == head.end_ms.is_some())
        }))
    }

    fn begin(&mut self, head: Head) -> Result<(Head, KeySum), ReadError<S::Error>> {
        self.sink.open(&head).map_err(ReadError::Sink)?;
        let sum = KeySum::new(&head);
        Ok((head, sum))
    }

    fn take(&mut self, sum: &mut KeySum, part: &Part) -> Result<(), ReadError<S::Error>> {
        sum.add(part);
        self.sink.part(part).map_err(ReadError::Sink)
    }

    fn void(&mut self) -> Result<Attempt, ReadError<S::Error>> {
        self.sink.void().map_err(ReadError::Sink)?;
        Ok(Attempt::Changed)
    }

    fn string(&mut self, name: &[u8]) -> Result<Attempt, ReadError<S::Error>> {
        let Some((end_ms, string_bytes)) = self.measure(name, b"STRLEN")? else {
            return Ok(Attempt::Changed);
        };
        if string_bytes == 0 && matches!(self.ask_one(&[b"GET", name]), Ok(Reply::Null)) {
            return Ok(Attempt::Done(Outcome::Gone));
        }
        let head =
            Head { db: self.db, name: name.to_vec(), kind: Kind::String, end_ms, string_bytes, stream: None };
        let (head, mut sum) = self.begin(head)?;
        while sum.elements() < string_bytes {
            let from = sum.elements();
            let until = (from + PIECE_BYTES).min(string_bytes);
            let (first, last) = (from.to_string(), (until - 1).to_string());
            let piece = match self.ask_one(&[b"GETRANGE", name, first.as_bytes(), last.as_bytes()]) {
                Ok(reply) => bytes(reply)?,
                Err(RedisError::Server { source, .. }) if source.code == "WRONGTYPE" => return self.void(),
                Err(error) => return Err(error.into()),
            };
            if piece.len() as u64 != until - from {
                return self.void();
            }
            self.take(&mut sum, &Part::Bytes(piece))?;
        }
        if !self.is_same(&head, b"STRLEN", string_bytes)? {
            return self.void();
        }
        self.close(head, sum, false).map(Attempt::Done)
    }

    fn list(&mut self, name: &[u8], is_last: bool) -> Result<Attempt, ReadError<S::Error>> {
        let Some((end_ms, length)) = self.measure(name, b"LLEN")? else { return Ok(Attempt::Changed) };
        let head = Head {
            db: self.db,
            name: name.to_vec(),
            kind: Kind::List,
            end_ms,
            string_bytes: 0,
            stream: None,
        };
        let (head, mut sum) = self.begin(head)?;
        let (mut torn, mut last): (bool, Option<Vec<u8>>) = (false, None);
        let mut step = PAGE_ELEMENTS;
        while sum.elements() < length {
            // From the element before on: if that is another one now, everything has moved.
            let from = sum.elements().saturating_sub(u64::from(last.is_some()));
            let until = (sum.elements() + step).min(length) - 1;
            let (first, until) = (from.to_string(), until.to_string());
            let mut items = match self.ask_one(&[b"LRANGE", name, first.as_bytes(), until.as_bytes()]) {
                Ok(reply) => texts(reply)?,
                Err(error) if error.is_too_large() && step > 1 => {
                    step = 1;
                    continue;
                }
                Err(error) if error.is_too_large() => return self.too_large(),
                Err(RedisError::Server { source, .. }) if source.code == "WRONGTYPE" => return self.void(),
                Err(error) => return Err(error.into()),
            };
            if let Some(before) = &last
                && !items.is_empty()
            {
                torn |= items.remove(0) != *before;
            }
            if items.is_empty() {
                torn = true;
                break;
            }
            last = items.last().cloned();
            self.take(&mut sum, &Part::Items(items))?;
        }
        torn |= !self.is_same(&head, b"LLEN", length)?;
        if (torn && !is_last) || sum.elements() == 0 {
            return self.void();
        }
        self.close(head, sum, torn).map(Attempt::Done)
    }

    fn too_large(&mut self) -> Result<Attempt, ReadError<S::Error>> {
        self.sink.void().map_err(ReadError::Sink)?;
        Ok(Attempt::Done(Outcome::Unreadable("one of its elements is larger than an answer may be")))
    }

    /// Hashes, sets and sorted sets.
    fn scanned(&mut self, name: &[u8], kind: Kind, is_last: bool) -> Result<Attempt, ReadError<S::Error>> {
        let (length_command, scan): (&[u8], &[u8]) = match kind {
            Kind::Hash => (b"HLEN", b"HSCAN"),
            Kind::Set => (b"SCARD", b"SSCAN"),
            _ => (b"ZCARD", b"ZSCAN"),
        };
        let Some((end_ms, length)) = self.measure(name, length_command)? else { return Ok(Attempt::Changed) };
        let head = Head { db: self.db, name: name.to_vec(), kind, end_ms, string_bytes: 0, stream: None };
        let epoch = self.link.epoch();
        let (head, mut sum) = self.begin(head)?;
        let mut met = Met::default();
        let (mut cursor, mut step) = (b"0".to_vec(), PAGE_ELEMENTS);
        loop {
            let count = step.to_string();
            let (next, content) = match self.ask_one(&[scan, name, &cursor, b"COUNT", count.as_bytes()]) {
                Ok(reply) => page(reply)?,
                Err(error) if error.is_too_large() && step > 1 => {
                    step = 1;
                    continue;
                }
                Err(error) if error.is_too_large() => return self.too_large(),
                Err(RedisError::Server { source, .. }) if source.code == "WRONGTYPE" => return self.void(),
                Err(error) => return Err(error.into()),
            };
            let mut part = part_of(kind, content)?;
            met.once_each(&mut part);
            if met.hashes.len() > MAX_ELEMENTS {
                self.sink.void().map_err(ReadError::Sink)?;
                return Ok(Attempt::Done(Outcome::Unreadable("it has more than 10,000,000 elements")));
            }
            if self.has_field_ends(name, &part)? {
                self.sink.void().map_err(ReadError::Sink)?;
                return Ok(Attempt::Done(Outcome::Unknown("hash with fields that end".to_owned())));
            }
            if part.count() > 0 {
                self.take(&mut sum, &part)?;
            }
            if next == b"0" {
                break;
            }
            cursor = next;
        }
        let torn = sum.elements() != length
            || self.link.epoch() != epoch
            || !self.is_same(&head, length_command, length)?;
        if (torn && !is_last) || sum.elements() == 0 {
            return self.void();
        }
        self.close(head, sum, torn).map(Attempt::Done)
    }

    /// Whether any field of this part of a hash has an end of its own.
    fn has_field_ends(&mut self, name: &[u8], part: &Part) -> Result<bool, RedisError> {
        let Part::Pairs(pairs) = part else { return Ok(false) };
        if !self.abilities.field_ends || pairs.is_empty() {
            return Ok(false);
        }
        let count = pairs.len().to_string();
        let mut question: Vec<&[u8]> = vec![b"HPEXPIRETIME", name, b"FIELDS", count.as_bytes()];
        question.extend(pairs.iter().map(|(field, _)| field.as_slice()));
        match self.ask_one(&question)? {
            Reply::Array(ends) => Ok(ends.iter().any(|end| end.integer().is_some_and(|end| end >= 0))),
            _ => Ok(false),
        }
    }

    fn stream(&mut self, name: &[u8], is_last: bool) -> Result<Attempt, ReadError<S::Error>> {
        let (length, stream) = match stream::describe(self.link, self.db, name)? {
            Said::Head(length, stream) => (length, stream),
            Said::Gone => return Ok(Attempt::Changed),
            Said::Unknown(why) => return Ok(Attempt::Done(Outcome::Unknown(why))),
        };
        let end = self.end(name);
        let end =
            self.ask(&[end])?.into_iter().next().ok_or_else(|| malformed("a question without an answer"))?;
        let End::At(end_ms) = self.end_ms(end)? else { return Ok(Attempt::Done(Outcome::Gone)) };
        let until = stream.last.to_string();
        let head = Head {
            db: self.db,
            name: name.to_vec(),
            kind: Kind::Stream,
            end_ms,
            string_bytes: 0,
            stream: Some(stream),
        };
        let (head, mut sum) = self.begin(head)?;
        let (mut from, mut step) = ("-".to_owned(), PAGE_ELEMENTS);
        loop {
            let count = step.to_string();
            let question = [b"XRANGE", name, from.as_bytes(), until.as_bytes(), b"COUNT", count.as_bytes()];
            let entries = match self.ask_one(&question) {
                Ok(reply) => entries(reply)?,
                Err(error) if error.is_too_large() && step > 1 => {
                    step = 1;
                    continue;
                }
                Err(error) if error.is_too_large() => return self.too_large(),
                Err(RedisError::Server { source, .. }) if source.code == "WRONGTYPE" => return self.void(),
                Err(error) => return Err(error.into()),
            };
            let Some(last) = entries.last().map(|entry| entry.id) else { break };
            let is_end = (entries.len() as u64) < step;
            self.take(&mut sum, &Part::Entries(entries))?;
            if is_end {
                break;
            }
            from = next(last).to_string();
        }
        let torn = sum.elements() != length;
        if torn && !is_last {
            return self.void();
        }
        self.close(head, sum, torn).map(Attempt::Done)
    }
}

/// The lowest id above this one.
fn next(id: Id) -> Id {
    match id.number.checked_add(1) {
        Some(number) => Id { ms: id.ms, number },
        None => Id { ms: id.ms.saturating_add(1), number: 0 },
    }
}

fn entries(reply: Reply) -> Result<Vec<Entry>, RedisError> {
    list(reply)?
        .into_iter()
        .map(|entry| {
            let mut parts = list(entry)?.into_iter();
            let (Some(id), Some(fields)) = (parts.next(), parts.next()) else {
                return Err(malformed("an entry of a stream that is none"));
            };
            Ok(Entry { id: stream::id(id)?, fields: pairs(fields)? })
        })
        .collect()
}

/// What `TYPE` says: a kind, nothing for a key that is gone, or the word for what is not known.
fn kind(word: &[u8]) -> Result<Option<Kind>, String> {
    let kinds = [Kind::String, Kind::List, Kind::Set, Kind::Zset, Kind::Hash, Kind::Stream];
    match kinds.into_iter().find(|kind| kind.word().as_bytes() == word) {
        Some(kind) => Ok(Some(kind)),
        None if word == b"none" => Ok(None),
        None => Err(lifeboat_base::human::printable(&String::from_utf8_lossy(word))),
    }
}

/// The first question about a key's content, whose answer is whole if the key is small.
fn first(kind: Kind, name: &[u8]) -> Command {
    let last = (SHORT_BYTES - 1).to_string();
    let count = PAGE_ELEMENTS.to_string();
    match kind {
        Kind::String => command(&[b"GETRANGE", name, b"0", last.as_bytes()]),
        Kind::List => command(&[b"LRANGE", name, b"0", (PAGE_ELEMENTS - 1).to_string().as_bytes()]),
        Kind::Set => command(&[b"SSCAN", name, b"0", b"COUNT", count.as_bytes()]),
        Kind::Zset => command(&[b"ZSCAN", name, b"0", b"COUNT", count.as_bytes()]),
        _ => command(&[b"HSCAN", name, b"0", b"COUNT", count.as_bytes()]),
    }
}

/// The whole content, if the answer to the first question is that.
fn whole(kind: Kind, reply: Reply) -> Result<Option<Part>, RedisError> {
    let reply = match reply {
        Reply::Error(source) if source.code == "WRONGTYPE" => return Ok(None),
        reply => good(reply, kind.word())?,
    };
    Ok(match kind {
        // Nothing is also what is said of a key that is not there.
        Kind::String => {
            Some(bytes(reply)?).filter(|text| !text.is_empty() && text.len() < SHORT_BYTES).map(Part::Bytes)
        }
        Kind::List => Some(texts(reply)?)
            .filter(|items| !items.is_empty() && (items.len() as u64) < PAGE_ELEMENTS)
            .map(Part::Items),
        kind => {
            let (cursor, content) = page(reply)?;
            Some(part_of(kind, content)?).filter(|part| cursor == b"0" && part.count() > 0)
        }
    })
}

fn part_of(kind: Kind, content: Reply) -> Result<Part, RedisError> {
    Ok(match kind {
        Kind::Hash => Part::Pairs(pairs(content)?),
        Kind::Zset => Part::Scored(scored(content)?),
        _ => Part::Items(texts(content)?),
    })
}

/// What was met of a collection, by 64 bits of a secret hash. Two that are taken for one make the count wrong, which shows.
#[derive(Default)]
struct Met {
    state: RandomState,
    hashes: HashSet<u64>,
}

impl Met {
    fn is_new(&mut self, name: &[u8]) -> bool {
        self.hashes.insert(self.state.hash_one(name))
    }

    /// Leaves out what came before.
    fn once_each(&mut self, part: &mut Part) {
        match part {
            Part::Pairs(pairs) => pairs.retain(|(field, _)| self.is_new(field)),
            Part::Scored(members) => members.retain(|(member, _)| self.is_new(member)),
            Part::Items(items) => items.retain(|item| self.is_new(item)),
            Part::Bytes(_) | Part::Entries(_) => {}
        }
    }
}
