//! The two walks of a capture: one that hands out every key, and one that looks how much has changed since.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use lifeboat_base::entropy::OsEntropy;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_redis::census::shown;
use lifeboat_redis::rdb::Survey;
use lifeboat_redis::scan::{
    Abilities, Closed, Head, Known, Link, MAX_KEYS, Outcome, Part, ReadError, Scope, Seen, Sink, Walk,
    read_page,
};

use super::parse::count;
use crate::redis::error;

/// How many names of keys that could not be read are kept.
const MAX_NAMES: usize = 10_000;

/// What a row says about walking.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Only keys whose names begin like this.
    pub prefix: String,
    /// How many commands a server is asked in a second at most.
    pub requests_per_second: Option<u32>,
    /// Whether a second walk measures how much changed in the first.
    pub second_pass: bool,
    /// Whether keys of types that are not understood are left out and told, rather than making the capture fail.
    pub skip_unknown: bool,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { prefix: String::new(), requests_per_second: None, second_pass: true, skip_unknown: false }
    }
}

/// What the second walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Keys whose content or end is another.
    pub(super) changed: u64,
    /// Keys that were not met in the first walk.
    pub(super) appeared: u64,
    /// Keys that are gone before their time.
    pub(super) vanished: u64,
    /// Keys that are gone because they had to end.
    pub(super) ended: u64,
}

/// What both walks amount to.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) survey: Survey,
    pub(super) bytes: u64,
    /// Keys that were named and gone when they were read.
    pub(super) gone: u64,
    /// Keys that changed each time they were read, and are of several moments.
    pub(super) torn: u64,
    /// Keys that `SCAN` named more than once.
    pub(super) repeated: u64,
    /// How often a walk began again because another server answered.
    pub(super) restarts: u32,
    /// Keys of types that are not understood.
    pub(super) unknown: BTreeMap<String, u64>,
    /// Keys that could not be read, and why: the first 10,000,
    pub(super) unreadable: Vec<String>,
    /// and how many there are in all.
    pub(super) unread: u64,
    /// Nothing where the second walk was not wanted.
    pub(super) changes: Option<Changes>,
}

/// A capture's work on one server.
pub(super) struct Passes<'a> {
    pub(super) link: &'a mut dyn Link,
    pub(super) abilities: &'a Abilities,
    pub(super) scope: &'a Scope,
    pub(super) stop: &'a AtomicBool,
    pub(super) now_ms: i64,
}

fn lost(error: ReadError<io::Error>) -> Failure {
    match error {
        ReadError::Server(error) => error::connection("the keys could not be read")(error),
        ReadError::Sink(error) => Failure::io("the keys could not be handed on", error),
    }
}

impl Passes<'_> {
    fn going(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::new(FailureKind::Refused, "cancelled"));
        }
        Ok(())
    }

    /// Hands every key to `sink`, and then looks again if that is wanted.
    pub(super) fn run<S: Sink<Error = io::Error>>(
        &mut self,
        sink: &mut S,
        second: bool,
    ) -> Result<Found, Failure> {
        let mut known = Known::new(&OsEntropy);
        let mut found = Found::default();
        for db in &self.abilities.databases {
            self.first(*db, sink, &mut known, &mut found)?;
        }
        if second {
            found.changes = Some(self.second(&mut known, &mut found.restarts)?);
        }
        Ok(found)
    }

    fn first<S: Sink<Error = io::Error>>(
        &mut self,
        db: u64,
        sink: &mut S,
        known: &mut Known,
        found: &mut Found,
    ) -> Result<(), Failure> {
        let mut walk = Walk::new(db, self.scope);
        let mut sink = Counting { inner: sink, bytes: 0 };
        while let Some(mut names) = next(&mut walk, self.link)? {
            self.going()?;
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            names.retain(|name| !known.has(db, name));
            found.repeated += (all - names.len()) as u64;
            let now_ms = self.now_ms;
            let mut done = |name: &[u8], outcome: Outcome| {
                let seen = match outcome {
                    Outcome::Gone => {
                        found.gone += 1;
                        return Ok(());
                    }
                    Outcome::Read(read) => {
                        count(&mut found.survey, &read.head, &read.closed, now_ms);
                        found.torn += u64::from(read.is_torn);
                        seen(self.abilities, &read.head, &read.closed)
                    }
                    Outcome::Unknown(word) => {
                        *found.unknown.entry(word).or_default() += 1;
                        Seen::new(&[0; 32], None)
                    }
                    Outcome::Unreadable(why) => {
                        found.unread += 1;
                        if found.unreadable.len() < MAX_NAMES {
                            found.unreadable.push(format!("db{db} {}: {why}", shown(name)));
                        }
                        Seen::new(&[0; 32], None)
                    }
                };
                if known.add(db, name, seen) { Ok(()) } else { Err(io::Error::other(too_many())) }
            };
            read_page(self.link, (db, self.abilities), &names, &mut sink, &mut done).map_err(lost)?;
        }
        found.bytes += sink.bytes;
        // What repeats because a walk began again was not repeated by the server.
        found.restarts += walk.restarts();
        Ok(())
    }

    fn second(&mut self, known: &mut Known, restarts: &mut u32) -> Result<Changes, Failure> {
        let mut changes = Changes::default();
        let mut appeared = Known::new(&OsEntropy);
        for db in &self.abilities.databases {
            let db = *db;
            let mut walk = Walk::new(db, self.scope);
            while let Some(names) = next(&mut walk, self.link)? {
                self.going()?;
                let mut again = Vec::new();
                let mut before = BTreeMap::new();
                for name in names {
                    match known.again(db, &name) {
                        Some((_, true)) => {}
                        Some((seen, false)) => {
                            before.insert(name.clone(), seen);
                            again.push(name);
                        }
                        None if appeared.has(db, &name) => {}
                        None => {
                            appeared.add(db, &name, Seen::new(&[0; 32], None));
                            changes.appeared += 1;
                        }
                    }
                }
                let now_s = self.link.clock().now().as_second();
                let mut done = |name: &[u8], outcome: Outcome| {
                    let Some(was) = before.get(name) else { return Ok(()) };
                    match outcome {
                        Outcome::Read(read) => {
                            let is = seen(self.abilities, &read.head, &read.closed);
                            changes.changed += u64::from(differs(self.abilities, was, &is));
                        }
                        Outcome::Gone if was.end_s > 0 && i64::from(was.end_s) <= now_s + 1 => {
                            changes.ended += 1;
                        }
                        Outcome::Gone => changes.vanished += 1,
                        // It was no key that could be read before, or is none now.
                        Outcome::Unknown(_) | Outcome::Unreadable(_) => {
                            changes.changed += u64::from(!was.has_content_of(&Seen::new(&[0; 32], None)));
                        }
                    }
                    Ok(())
                };
                read_page(self.link, (db, self.abilities), &again, &mut Nowhere, &mut done).map_err(lost)?;
            }
            *restarts += walk.restarts();
        }
        let now_s = u64::try_from(self.link.clock().now().as_second()).unwrap_or_default();
        let (ended, vanished) = known.missed(now_s);
        changes.ended += ended;
        changes.vanished += vanished;
        Ok(changes)
    }
}

fn too_many() -> Failure {
    let limit = human::count(MAX_KEYS as u64);
    Failure::new(
        FailureKind::Refused,
        format!("there are more than {limit} keys: give the row a `prefix`, and others to the rest"),
    )
}

fn next(walk: &mut Walk<'_>, link: &mut dyn Link) -> Result<Option<Vec<Vec<u8>>>, Failure> {
    walk.next_page(link).map_err(error::connection("the keys could not be listed"))
}

/// What is kept of a key. An end that is counted from our clock moves by itself and is not part of the content.
fn seen(abilities: &Abilities, head: &Head, closed: &Closed) -> Seen {
    let content = if abilities.exact_ends { &closed.digest } else { &closed.timeless };
    Seen::new(content, head.end_ms)
}

/// How far an end may move that is counted from our clock.
const END_SLACK_S: u32 = 2;

fn differs(abilities: &Abilities, was: &Seen, is: &Seen) -> bool {
    !was.has_content_of(is) || (!abilities.exact_ends && was.end_s.abs_diff(is.end_s) > END_SLACK_S)
}

/// Counts bytes on their way.
struct Counting<'a, S> {
    inner: &'a mut S,
    bytes: u64,
}

impl<S: Sink> Sink for Counting<'_, S> {
    type Error = S::Error;

    fn open(&mut self, head: &Head) -> Result<(), S::Error> {
        self.bytes += head.name.len() as u64;
        self.inner.open(head)
    }

    fn part(&mut self, part: &Part) -> Result<(), S::Error> {
        self.bytes += part.bytes();
        self.inner.part(part)
    }

    fn close(&mut self, closed: &Closed) -> Result<(), S::Error> {
        self.inner.close(closed)
    }

    fn void(&mut self) -> Result<(), S::Error> {
        self.inner.void()
    }
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    type Error = io::Error;

    fn open(&mut self, _head: &Head) -> io::Result<()> {
        Ok(())
    }

    fn part(&mut self, _part: &Part) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self, _closed: &Closed) -> io::Result<()> {
        Ok(())
    }

    fn void(&mut self) -> io::Result<()> {
        Ok(())
    }
}
