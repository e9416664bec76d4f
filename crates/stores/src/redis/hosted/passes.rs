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
use super::trail::{Place, Trail};
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
    /// After a run that was ended, how many keys the second walk took; nothing otherwise.
    pub(super) late: Option<u64>,
}

/// A capture's work on one server.
pub(super) struct Passes<'a> {
    pub(super) link: &'a mut dyn Link,
    pub(super) abilities: &'a Abilities,
    pub(super) scope: &'a Scope,
    pub(super) stop: &'a AtomicBool,
    pub(super) now_ms: i64,
    pub(super) trail: Option<&'a mut Trail>,
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

    /// Hands every key to `sink`, and then looks again if that is wanted. A run before this one had come to `from`: then the second walk
    /// reads for `sink` whatever the first did not, so nothing rests on that run's word.
    pub(super) fn run<S: Sink<Error = io::Error>>(
        &mut self,
        sink: &mut S,
        from: Option<Place>,
        second: bool,
    ) -> Result<Found, Failure> {
        let mut known = Known::new(&OsEntropy);
        let mut taking = Taking { sink: Counting { inner: sink, bytes: 0 }, found: Found::default() };
        let mut databases = self.abilities.databases.clone();
        databases.sort_unstable();
        for db in &databases {
            let walk = match from {
                Some(place) if *db < place.db || (*db == place.db && place.cursor.is_none()) => continue,
                Some(Place { db: at, cursor: Some(cursor) }) if *db == at => {
                    Walk::from(*db, self.scope, cursor)
                }
                _ => Walk::new(*db, self.scope),
            };
            self.first(walk, &mut taking, &mut known)?;
        }
        self.note(Place::END);
        match from {
            Some(_) => {
                let mut late = 0;
                for db in &databases {
                    late += self.rest(*db, &mut taking, &mut known)?;
                }
                taking.found.late = Some(late);
            }
            None if second => {
                let mut changes = Changes::default();
                for db in &databases {
                    taking.found.restarts += self.second(*db, &mut known, &mut changes)?;
                }
                let now_s = u64::try_from(self.link.clock().now().as_second()).unwrap_or_default();
                let (ended, vanished) = known.missed(now_s);
                changes.ended += ended;
                changes.vanished += vanished;
                taking.found.changes = Some(changes);
            }
            None => {}
        }
        let Taking { sink, mut found } = taking;
        found.bytes = sink.bytes;
        Ok(found)
    }

    fn note(&mut self, place: Place) {
        if let Some(trail) = &mut self.trail {
            trail.note(place);
        }
    }

    fn first<S: Sink<Error = io::Error>>(
        &mut self,
        mut walk: Walk<'_>,
        taking: &mut Taking<'_, S>,
        known: &mut Known,
    ) -> Result<(), Failure> {
        let db = walk.db();
        while let Some(names) = next(&mut walk, self.link)? {
            let all = names.len();
            taking.found.repeated += (all - self.take(db, names, taking, known)?) as u64;
            if walk.is_over() || walk.place().is_some() {
                self.note(Place { db, cursor: walk.place() });
            }
        }
        // What repeats because a walk began again was not repeated by the server.
        taking.found.restarts += walk.restarts();
        Ok(())
    }

    /// Walks over a database from its beginning, and takes every key that this run has not taken; gives how many.
    fn rest<S: Sink<Error = io::Error>>(
        &mut self,
        db: u64,
        taking: &mut Taking<'_, S>,
        known: &mut Known,
    ) -> Result<u64, Failure> {
        let before = known.count();
        let mut walk = Walk::new(db, self.scope);
        while let Some(names) = next(&mut walk, self.link)? {
            self.take(db, names, taking, known)?;
        }
        taking.found.restarts += walk.restarts();
        Ok((known.count() - before) as u64)
    }

    /// Reads those keys of a page for the capture that it does not have; gives how many that were. A key that is named and gone when it is
    /// read is not known by that: another server may have it.
    fn take<S: Sink<Error = io::Error>>(
        &mut self,
        db: u64,
        mut names: Vec<Vec<u8>>,
        taking: &mut Taking<'_, S>,
        known: &mut Known,
    ) -> Result<usize, Failure> {
        self.going()?;
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !known.has(db, name));
        let Taking { sink, found } = taking;
        let mut done = |name: &[u8], outcome: Outcome| {
            let seen = seen(self.abilities, &outcome);
            match outcome {
                Outcome::Gone => found.gone += 1,
                Outcome::Read(read) => {
                    count(&mut found.survey, &read.head, &read.closed, self.now_ms);
                    found.torn += u64::from(read.is_torn);
                }
                Outcome::Unknown(word) => *found.unknown.entry(word).or_default() += 1,
                Outcome::Unreadable(why) => {
                    found.unread += 1;
                    if found.unreadable.len() < MAX_NAMES {
                        found.unreadable.push(format!("db{db} {}: {why}", shown(name)));
                    }
                }
            }
            let has_room = seen.is_none_or(|seen| known.add(db, name, seen));
            if has_room { Ok(()) } else { Err(io::Error::other(too_many())) }
        };
        read_page(self.link, (db, self.abilities), &names, sink, &mut done).map_err(lost)?;
        Ok(names.len())
    }

    /// Looks at every key once more; gives how often the walk began again.
    fn second(&mut self, db: u64, known: &mut Known, changes: &mut Changes) -> Result<u32, Failure> {
        let mut appeared = Known::new(&OsEntropy);
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
                if let Some(was) = before.get(name) {
                    changes.compare(self.abilities, was, seen(self.abilities, &outcome).as_ref(), now_s);
                }
                Ok(())
            };
            read_page(self.link, (db, self.abilities), &again, &mut Nowhere, &mut done).map_err(lost)?;
        }
        Ok(walk.restarts())
    }
}

/// What a capture gathers.
struct Taking<'s, S> {
    sink: Counting<'s, S>,
    found: Found,
}

impl Changes {
    fn compare(&mut self, abilities: &Abilities, was: &Seen, is: Option<&Seen>, now_s: i64) {
        match is {
            Some(is) => self.changed += u64::from(differs(abilities, was, is)),
            None if was.end_s > 0 && i64::from(was.end_s) <= now_s + 1 => self.ended += 1,
            None => self.vanished += 1,
        }
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

/// What is kept of a key that is there. An end that is counted from our clock moves by itself and is not part of the content.
fn seen(abilities: &Abilities, outcome: &Outcome) -> Option<Seen> {
    match outcome {
        Outcome::Gone => None,
        Outcome::Read(read) => {
            let content = if abilities.exact_ends { &read.closed.digest } else { &read.closed.timeless };
            Some(Seen::new(content, read.head.end_ms))
        }
        Outcome::Unknown(_) | Outcome::Unreadable(_) => Some(Seen::new(&[0; 32], None)),
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lifeboat_base::time::SystemClock;
    use lifeboat_redis::scan::{Pace, RespLink};
    use lifeboat_testkit::{RedisOptions, RedisServer};

    use super::*;

    #[test]
    fn a_key_that_is_gone_when_it_is_read_is_taken_where_it_is_there_after_all() {
        let server = RedisServer::start(RedisOptions::default());
        let pace = Pace::new(Arc::new(SystemClock::new()), None);
        let mut link = RespLink::open(&server.options(), pace).unwrap();
        let abilities = Abilities::probe(&mut link, b"").unwrap();
        let (scope, stop) = (Scope::default(), AtomicBool::new(false));
        let mut passes = Passes {
            link: &mut link,
            abilities: &abilities,
            scope: &scope,
            stop: &stop,
            now_ms: 0,
            trail: None,
        };
        let mut known = Known::new(&OsEntropy);
        let mut sink = Nowhere;
        let mut taking = Taking { sink: Counting { inner: &mut sink, bytes: 0 }, found: Found::default() };
        let names = || vec![b"late".to_vec(), b"late".to_vec()];
        passes.take(0, names(), &mut taking, &mut known).unwrap();
        assert_eq!((known.count(), taking.found.gone), (0, 1));
        // It is not there yet on a replica that has just become the primary.
        server.run("SET late 1");
        passes.take(0, names(), &mut taking, &mut known).unwrap();
        passes.take(0, names(), &mut taking, &mut known).unwrap();
        assert_eq!((known.count(), taking.found.survey.keys()), (1, 1));
    }
}
