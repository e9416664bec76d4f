//! Reading key by key: the traps of `SCAN`, and keys that change while they are read, against a real server.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use lifeboat_base::time::{Clock, SystemClock};
use lifeboat_redis::rdb::{DumpWriter, Survey};
use lifeboat_redis::scan::{
    Abilities, Closed, Command, Head, Link, Outcome, Pace, Part, Patience, RespLink, Scope, Sink, Walk,
    read_page,
};
use lifeboat_redis::wire::{RedisError, Reply};
use lifeboat_testkit::{RedisOptions, RedisServer};

fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn link(server: &RedisServer) -> RespLink {
    RespLink::open(&server.options(), Pace::new(Arc::new(SystemClock::new()), None)).unwrap()
}

/// Does something to the server after a question that fits, so many times.
struct Meddling<'a> {
    inner: RespLink,
    after: &'static [u8],
    times: u32,
    act: Box<dyn FnMut(u32) + Send + 'a>,
}

impl Link for Meddling<'_> {
    fn ask(&mut self, db: u64, questions: &[Command]) -> Result<Vec<Reply>, RedisError> {
        let replies = self.inner.ask(db, questions)?;
        if self.times > 0 && questions.iter().any(|question| question[0] == self.after) {
            self.times -= 1;
            (self.act)(self.times);
        }
        Ok(replies)
    }

    fn tell(&mut self, db: u64, commands: &[Command]) -> Result<Vec<Reply>, RedisError> {
        self.inner.tell(db, commands)
    }

    fn target(&self) -> String {
        self.inner.target()
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    fn has_databases(&self) -> bool {
        true
    }

    fn at_once(&self) -> usize {
        self.inner.at_once()
    }

    fn most_bytes(&self) -> usize {
        self.inner.most_bytes()
    }

    fn patience(&self) -> Patience {
        self.inner.patience()
    }

    fn clock(&self) -> &dyn Clock {
        self.inner.clock()
    }
}

/// Keeps what comes, as one who takes it at its word.
#[derive(Default)]
struct Kept {
    open: Option<Vec<Part>>,
    whole: Vec<Vec<Part>>,
    voided: u32,
}

impl Sink for Kept {
    type Error = Infallible;

    fn open(&mut self, _head: &Head) -> Result<(), Infallible> {
        assert!(self.open.replace(Vec::new()).is_none());
        Ok(())
    }

    fn part(&mut self, part: &Part) -> Result<(), Infallible> {
        self.open.as_mut().unwrap().push(part.clone());
        Ok(())
    }

    fn close(&mut self, _closed: &Closed) -> Result<(), Infallible> {
        self.whole.extend(self.open.take());
        Ok(())
    }

    fn void(&mut self) -> Result<(), Infallible> {
        self.open.take().unwrap();
        self.voided += 1;
        Ok(())
    }
}

fn read(link: &mut dyn Link, name: &str) -> (Outcome, Kept) {
    let abilities = Abilities::probe(link, b"").unwrap();
    let (mut kept, mut outcome) = (Kept::default(), None);
    let mut done = |_: &[u8], came: Outcome| {
        assert!(outcome.replace(came).is_none());
        Ok(())
    };
    read_page(link, (0, &abilities), &[name.as_bytes().to_vec()], &mut kept, &mut done).unwrap();
    (outcome.unwrap(), kept)
}

fn is_torn(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Read(read) if read.is_torn)
}

#[test]
fn a_key_that_changes_while_its_pages_are_read_is_read_again_and_told_if_it_never_rests() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..3_000).map(|n| words(&format!("RPUSH list {n}"))));
    server.load((0..3_000).map(|n| words(&format!("HSET hash f{n} {n}"))));
    server.load([vec![b"SET".to_vec(), b"string".to_vec(), vec![b'x'; 3 << 20]]]);
    // The same length, and every element has moved.
    let shift = |_: u32| {
        server.run("LPUSH list new");
        server.run("RPOP list");
    };
    let mut once = Meddling { inner: link(&server), after: b"LRANGE", times: 2, act: Box::new(shift) };
    let (outcome, kept) = read(&mut once, "list");
    assert!(!is_torn(&outcome) && kept.voided == 1 && kept.whole.len() == 1, "{outcome:?}");
    let count: u64 = kept.whole[0].iter().map(Part::count).sum();
    assert_eq!(count, 3_000);
    let mut always =
        Meddling { inner: link(&server), after: b"LRANGE", times: u32::MAX, act: Box::new(shift) };
    let (outcome, kept) = read(&mut always, "list");
    assert!(is_torn(&outcome) && kept.voided == 2, "{outcome:?}");
    let grow = |left: u32| drop(server.run(&format!("HSET hash g{left} 1")));
    let mut once = Meddling { inner: link(&server), after: b"HSCAN", times: 2, act: Box::new(grow) };
    let (outcome, kept) = read(&mut once, "hash");
    assert!(!is_torn(&outcome) && kept.voided == 1, "{outcome:?}");
    // A string that is cut is read again; one that changes its kind is what it is then; one that goes is gone.
    let cut = |_: u32| drop(server.run("SET string short"));
    let mut once = Meddling { inner: link(&server), after: b"STRLEN", times: 1, act: Box::new(cut) };
    let (outcome, kept) = read(&mut once, "string");
    assert!(matches!(outcome, Outcome::Read(_)) && kept.voided == 1);
    assert_eq!(kept.whole, [[Part::Bytes(b"short".to_vec())]]);
    let turn = |_: u32| {
        server.run("DEL list");
        server.run("SADD list a");
    };
    let mut once = Meddling { inner: link(&server), after: b"TYPE", times: 2, act: Box::new(turn) };
    let (outcome, kept) = read(&mut once, "list");
    assert!(matches!(&outcome, Outcome::Read(_)), "{outcome:?}");
    assert_eq!(kept.whole, [[Part::Items(vec![b"a".to_vec()])]]);
    let gone = |_: u32| drop(server.run("DEL hash"));
    let mut once = Meddling { inner: link(&server), after: b"HLEN", times: 1, act: Box::new(gone) };
    let (outcome, kept) = read(&mut once, "hash");
    assert!(matches!(outcome, Outcome::Gone) && kept.whole.is_empty(), "{outcome:?}");
}

#[test]
fn an_element_that_is_shown_twice_is_taken_once() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..20_000).map(|n| words(&format!("SADD set m{n}"))));
    // Growing and shrinking makes the server show elements again.
    let stir = |left: u32| {
        if left == 29 {
            server.load((0..60_000).map(|n| words(&format!("SADD set x{n}"))));
        } else if left == 0 {
            server.load((0..60_000).map(|n| words(&format!("SREM set x{n}"))));
        }
    };
    let mut stirred = Meddling { inner: link(&server), after: b"SSCAN", times: 30, act: Box::new(stir) };
    let (_, kept) = read(&mut stirred, "set");
    let last = kept.whole.last().unwrap();
    let all: Vec<_> = last
        .iter()
        .flat_map(|part| match part {
            Part::Items(items) => items.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert!((0..20_000).all(|n| distinct.contains(&format!("m{n}").into_bytes())));
}

#[test]
fn empty_pages_are_not_the_end_and_a_prefix_is_no_pattern() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..50_000).map(|n| words(&format!("SET other:{n} 1"))));
    server.load(["SET a*b[c]?^-:1 1", "SET a*b[c]?^-:2 1", "SET aXb[c]?^-:3 1"].map(words));
    let mut link = link(&server);
    let scope = Scope { prefix: b"a*b[c]?^-:".to_vec() };
    let mut walk = Walk::new(0, &scope);
    let (mut names, mut empty) = (BTreeSet::new(), 0);
    while let Some(page) = walk.next_page(&mut link).unwrap() {
        empty += u32::from(page.is_empty());
        names.extend(page);
    }
    assert!(empty > 10, "{empty}");
    assert_eq!(names, BTreeSet::from([b"a*b[c]?^-:1".to_vec(), b"a*b[c]?^-:2".to_vec()]));
}

#[test]
fn a_walk_begins_again_where_another_server_answers_and_misses_nothing() {
    let mut server = RedisServer::start(RedisOptions::default());
    let fill = (0..20_000).map(|n| words(&format!("SET key:{n} 1")));
    server.load(fill.clone());
    let mut link = link(&server);
    let scope = Scope::default();
    let mut walk = Walk::new(0, &scope);
    let mut names = BTreeSet::new();
    for _page in 0..8 {
        names.extend(walk.next_page(&mut link).unwrap().unwrap());
    }
    // Another process under the same address, with another order of its own.
    server.crash();
    server.start_again();
    server.load(fill);
    while let Some(page) = walk.next_page(&mut link).unwrap() {
        names.extend(page);
    }
    assert_eq!((walk.restarts(), names.len()), (1, 20_000));
}

#[test]
fn a_connection_that_is_cut_is_made_again_and_the_walk_goes_on_where_it_was() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..20_000).map(|n| words(&format!("SET key:{n} 1"))));
    let mut link = link(&server);
    let scope = Scope::default();
    let mut walk = Walk::new(0, &scope);
    let (mut names, mut pages) = (Vec::new(), 0);
    while let Some(page) = walk.next_page(&mut link).unwrap() {
        names.extend(page);
        pages += 1;
        if pages % 5 == 0 {
            server.run("CLIENT KILL TYPE normal SKIPME yes");
        }
    }
    assert_eq!((walk.restarts(), names.len()), (0, 20_000));
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 20_000);
}

#[test]
fn a_dump_that_is_written_is_what_was_read_and_what_was_taken_back_is_not_in_it() {
    let server = RedisServer::start(RedisOptions::default());
    server.load((0..700).map(|n| words(&format!("RPUSH list {n}"))));
    server.load([words("SET a 1")]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut dump = DumpWriter::new(file.reopen().unwrap()).unwrap();
    let mut link = link(&server);
    let abilities = Abilities::probe(&mut link, b"").unwrap();
    let shift = |_: u32| {
        server.run("LPUSH list new");
        server.run("RPOP list");
    };
    let mut link = Meddling { inner: link, after: b"LRANGE", times: 2, act: Box::new(shift) };
    let names = ["a", "list"].map(|name| name.as_bytes().to_vec());
    read_page(&mut link, (0, &abilities), &names, &mut dump, &mut |_, _| Ok(())).unwrap();
    assert_eq!(dump.finish().unwrap().0, 2);
    let survey = Survey::read(file.as_file_mut(), 0).unwrap();
    server.run("SAVE");
    let saved = std::fs::File::open(server.data().join("dump.rdb")).unwrap();
    assert_eq!(survey.databases, Survey::read(saved, 0).unwrap().databases);
}
