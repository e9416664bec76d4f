//! Lines of JSON back to keys. Nothing is believed: every key is summed again and compared with its digest, and all of them
//! with the last line.
//!
//! Memory: one line, which is as long as the largest element and at least a megabyte.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_redis::rdb::{Item, Key, Kind, Survey};
use lifeboat_redis::scan::{Entry, Group, Head, Id, KeySum, Part, Pending, Sink, StreamHead};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::lines::FORMAT;

/// The longest line: the largest element that a capture takes, as base64.
const MAX_LINE_BYTES: u64 = 128 * 1024 * 1024;

/// A text, whatever form it has.
#[derive(Debug)]
struct Text(Vec<u8>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or {\"base64\": …}")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.as_bytes().to_vec()))
            }

            fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Text, E> {
                Ok(Text(text.into_bytes()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                let mut found = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "base64" {
                        let text: String = map.next_value()?;
                        found = Some(STANDARD.decode(text).map_err(A::Error::custom)?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                found.map(Text).ok_or_else(|| A::Error::missing_field("base64"))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
struct GroupLine {
    name: Text,
    last: String,
    read: Option<u64>,
    consumers: Vec<Text>,
    pending: Vec<(String, usize, u64, u64)>,
}

#[derive(Deserialize)]
struct StreamLine {
    last: String,
    max_deleted: String,
    added: u64,
    groups: Vec<GroupLine>,
}

#[derive(Deserialize)]
struct Line {
    format: Option<String>,
    db: Option<u64>,
    key: Option<Text>,
    #[serde(rename = "type")]
    kind: Option<Kind>,
    end_ms: Option<i64>,
    bytes: Option<u64>,
    stream: Option<StreamLine>,
    values: Option<Box<RawValue>>,
    more: Option<Box<RawValue>>,
    elements: Option<u64>,
    digest: Option<String>,
    void: Option<bool>,
    keys: Option<u64>,
    content: Option<BTreeMap<String, String>>,
}

/// Reads every line and hands the keys on. Gives what they amount to, as a reader of dumps would find it.
pub(super) fn read<S: Sink>(
    source: impl Read,
    now_ms: i64,
    sink: &mut S,
    failed: impl Fn(S::Error) -> Failure,
) -> Result<Survey, Failure> {
    let mut reader = std::io::BufReader::with_capacity(256 * 1024, source);
    let mut reading =
        Reading { sink, failed, open: None, number: 0, survey: Survey::default(), now_ms, is_over: false };
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(unreadable)?;
        if count == 0 {
            break;
        }
        reading.number += 1;
        if line.last() != Some(&b'\n') {
            return Err(reading.damaged("it ends in the middle, or is too long"));
        }
        reading.line(&line)?;
    }
    if !reading.is_over {
        return Err(reading.damaged("the lines end before their end"));
    }
    Ok(reading.survey)
}

/// What a vault says about its bytes stands: one damaged copy is not the last.
fn unreadable(error: std::io::Error) -> Failure {
    let kind = error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()).map(Failure::kind);
    Failure::with_source(kind.unwrap_or(FailureKind::Unreachable), "the keys cannot be read", error)
}

struct Reading<'a, S, F> {
    sink: &'a mut S,
    failed: F,
    open: Option<(Head, KeySum)>,
    number: u64,
    survey: Survey,
    now_ms: i64,
    is_over: bool,
}

impl<S: Sink, F: Fn(S::Error) -> Failure> Reading<'_, S, F> {
    fn damaged(&self, what: &str) -> Failure {
        Failure::new(FailureKind::Damaged, format!("the keys are damaged at line {}: {what}", self.number))
    }

    fn line(&mut self, text: &[u8]) -> Result<(), Failure> {
        let line: Line = serde_json::from_slice(text).map_err(|error| {
            // What is in the line is nobody's business; where it went wrong is.
            self.damaged(&format!("it is no line of this format (column {})", error.column()))
        })?;
        if self.is_over {
            return Err(self.damaged("lines after the last"));
        }
        if self.number == 1 {
            return match line.format.as_deref() {
                Some(FORMAT) => Ok(()),
                Some(other) => Err(Failure::new(
                    FailureKind::Refused,
                    format!(
                        "the keys are kept as {}, which is not known here",
                        lifeboat_base::human::printable(other)
                    ),
                )),
                None => Err(self.damaged("the format is not named")),
            };
        }
        if let Some(keys) = line.keys {
            return self.last(keys, line.content.unwrap_or_default());
        }
        if line.void == Some(true) {
            if self.open.take().is_none() {
                return Err(self.damaged("no key is open"));
            }
            return self.sink.void().map_err(&self.failed);
        }
        let is_first = line.key.is_some();
        if is_first {
            self.open(&line)?;
        }
        let values = if is_first { line.values } else { line.more };
        self.values(values.as_deref(), is_first)?;
        match (line.digest, line.elements) {
            (Some(digest), Some(elements)) => self.close(&digest, elements),
            (None, None) => Ok(()),
            _ => Err(self.damaged("half an end")),
        }
    }

    fn open(&mut self, line: &Line) -> Result<(), Failure> {
        if self.open.is_some() {
            return Err(self.damaged("a key begins before the one before it has ended"));
        }
        let (Some(db), Some(Text(name)), Some(kind)) = (line.db, &line.key, line.kind) else {
            return Err(self.damaged("a key without its database or type"));
        };
        let stream = match (&line.stream, kind) {
            (Some(stream), Kind::Stream) => {
                Some(head(stream).ok_or_else(|| self.damaged("a stream that is none"))?)
            }
            (None, Kind::Stream) => return Err(self.damaged("a stream without its head")),
            _ => None,
        };
        let string_bytes = if kind == Kind::String { line.bytes.unwrap_or_default() } else { 0 };
        let head = Head { db, name: name.clone(), kind, end_ms: line.end_ms, string_bytes, stream };
        self.sink.open(&head).map_err(&self.failed)?;
        let sum = KeySum::new(&head);
        self.open = Some((head, sum));
        Ok(())
    }

    fn values(&mut self, values: Option<&RawValue>, is_first: bool) -> Result<(), Failure> {
        let Some((head, sum)) = &mut self.open else { return Err(self.damaged("values of no key")) };
        let Some(values) = values else {
            return if is_first { Ok(()) } else { Err(self.damaged("a line without values")) };
        };
        let parts = parts(head.kind, values.get());
        let parts = parts.ok_or_else(|| {
            Failure::new(
                FailureKind::Damaged,
                format!("the keys are damaged at line {}: values of another form", self.number),
            )
        })?;
        for part in &parts {
            sum.add(part);
            self.sink.part(part).map_err(&self.failed)?;
        }
        Ok(())
    }

    fn close(&mut self, digest: &str, elements: u64) -> Result<(), Failure> {
        let Some((head, sum)) = self.open.take() else { return Err(self.damaged("no key is open")) };
        let closed = sum.finish();
        let found = hex::encode(closed.digest);
        let is_short = head.kind == Kind::String && head.string_bytes != closed.elements;
        if found != digest || elements != closed.elements || is_short {
            return Err(self.damaged("a key whose digest is another"));
        }
        self.sink.close(&closed).map_err(&self.failed)?;
        count(&mut self.survey, &head, &closed, self.now_ms);
        Ok(())
    }

    fn last(&mut self, keys: u64, content: BTreeMap<String, String>) -> Result<(), Failure> {
        let found: BTreeMap<String, String> = self
            .survey
            .databases
            .iter()
            .map(|(db, found)| (format!("db{db}"), found.sum.to_string()))
            .collect();
        if self.open.is_some() || keys != self.survey.keys() || found != content {
            return Err(self.damaged("the keys are not those that the last line names"));
        }
        self.is_over = true;
        Ok(())
    }
}

/// Counts a key as a reader of dumps does.
pub(super) fn count(survey: &mut Survey, head: &Head, closed: &lifeboat_redis::scan::Closed, now_ms: i64) {
    let key = Key {
        db: head.db,
        head: Vec::new(),
        kind: head.kind,
        expires_ms: head.end_ms,
        elements: closed.elements,
        digest: closed.digest,
        timeless: closed.timeless,
    };
    survey.add(&Item::Key(&key), now_ms);
}

fn head(line: &StreamLine) -> Option<StreamHead> {
    let id = |text: &str| Id::parse(text.as_bytes());
    let groups = line
        .groups
        .iter()
        .map(|group| {
            let consumers: Vec<Vec<u8>> = group.consumers.iter().map(|Text(name)| name.clone()).collect();
            let pending = group
                .pending
                .iter()
                .map(|(entry, consumer, delivered_ms, deliveries)| {
                    consumers.get(*consumer)?;
                    Some(Pending {
                        id: id(entry)?,
                        consumer: *consumer,
                        delivered_ms: *delivered_ms,
                        deliveries: *deliveries,
                    })
                })
                .collect::<Option<Vec<_>>>()?;
            let (name, last) = (group.name.0.clone(), id(&group.last)?);
            Some(Group { name, last, read: group.read, consumers, pending })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(StreamHead { last: id(&line.last)?, max_deleted: id(&line.max_deleted)?, added: line.added, groups })
}

/// The values of one line, which are of the form that the kind has.
fn parts(kind: Kind, json: &str) -> Option<Vec<Part>> {
    let text = |Text(bytes)| bytes;
    Some(match kind {
        Kind::String => {
            let pieces: Vec<Text> = serde_json::from_str(json).ok()?;
            pieces.into_iter().map(|Text(bytes)| Part::Bytes(bytes)).collect()
        }
        Kind::List | Kind::Set => {
            let items: Vec<Text> = serde_json::from_str(json).ok()?;
            vec![Part::Items(items.into_iter().map(text).collect())]
        }
        Kind::Hash => {
            let pairs: Vec<(Text, Text)> = serde_json::from_str(json).ok()?;
            vec![Part::Pairs(pairs.into_iter().map(|(field, value)| (field.0, value.0)).collect())]
        }
        Kind::Zset => {
            let members: Vec<(Text, String)> = serde_json::from_str(json).ok()?;
            let members: Option<_> =
                members.into_iter().map(|(member, score)| Some((member.0, score.parse().ok()?))).collect();
            vec![Part::Scored(members?)]
        }
        Kind::Stream => {
            let entries: Vec<(String, Vec<Text>)> = serde_json::from_str(json).ok()?;
            let entries: Option<_> = entries
                .into_iter()
                .map(|(entry, fields)| {
                    let mut rest = fields.into_iter().map(text);
                    let mut pairs = Vec::new();
                    while let Some(field) = rest.next() {
                        pairs.push((field, rest.next()?));
                    }
                    Some(Entry { id: Id::parse(entry.as_bytes())?, fields: pairs })
                })
                .collect();
            vec![Part::Entries(entries?)]
        }
        Kind::Module => return None,
    })
}
