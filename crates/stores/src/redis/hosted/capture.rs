//! Keys as a capture: a thread walks over the server, and what it finds streams into the vault.
//!
//! Nothing is staged. Memory: 1 MiB between the thread and the vault, what reading takes, and what is remembered of each key.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufWriter, Cursor, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, Consistency, ConsistencyLevel, DATA, Entry, Layout, MEASURED, META, Meta,
};
use lifeboat_base::digest::Digest;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::human;
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Timestamp;
use lifeboat_redis::place::Found as Server;
use lifeboat_redis::rdb::Sum;
use lifeboat_redis::scan::{Abilities, Link, Scope};
use lifeboat_redis::wire::{Info, Reply};
use serde_json::{Value, json};

use super::lines::{FORMAT, LineSink};
use super::passes::{Found, Passes, ScanOptions};
use super::trail::{Place, Subject, Trail};
use crate::adapter::{CaptureContext, Inspection};
use crate::redis::capture::{KEYS, describe};
use crate::redis::feed::lag;
use crate::redis::{error, facts, layout, shards};

/// The name of the keys in a point.
pub(super) const KEYS_FILE: &str = "keys.jsonl";
/// What is handed over at once, and how many of them may wait.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES: usize = 16;

type Shared = Arc<Mutex<Option<Result<Found, Failure>>>>;

fn locked(shared: &Shared) -> MutexGuard<'_, Option<Result<Found, Failure>>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server that takes plain commands.
pub(in crate::redis) struct Reach {
    /// The way to it.
    pub(in crate::redis) link: Box<dyn Link>,
    /// As what it was found; nothing over REST.
    pub(in crate::redis) found: Option<Server>,
}

/// For `lifeboat check`: whether a capture would work, without making one.
pub(in crate::redis) fn inspect(mut reach: Reach, options: &ScanOptions) -> Result<Inspection, Failure> {
    let abilities = probe(reach.link.as_mut(), options)?;
    facts::loaded(&abilities.info)?;
    let items = abilities.databases.iter().map(|db| (format!("db{db}"), 1)).collect();
    let version = abilities.version.as_deref().unwrap_or("of unknown version");
    let findings = findings(&abilities, reach.found.as_ref());
    let share = reach.found.as_ref().and_then(shards::share);
    let version = format!("Redis {version}, key by key");
    Ok(Inspection { version, logical_bytes: None, items, findings, share })
}

fn probe(link: &mut dyn Link, options: &ScanOptions) -> Result<Abilities, Failure> {
    Abilities::probe(link, options.prefix.as_bytes()).map_err(|failed| {
        let what = match failed.server() {
            Some(_) => "the server does not let its keys be read one by one; run `lifeboat init redis` for what is needed",
            None => "the server could not be asked what it lets us read",
        };
        let kind = match failed.server() {
            Some(source) if source.code == "NOPERM" => FailureKind::Refused,
            _ => failed.kind(),
        };
        // What speaks another protocol is no server that may be asked again.
        let kind = if kind == FailureKind::Internal { FailureKind::Unreachable } else { kind };
        Failure::with_source(kind, what, failed)
    })
}

fn findings(abilities: &Abilities, found: Option<&Server>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if abilities.mode.as_deref() == Some("cluster") {
        let message =
            "this is one shard of a cluster: give each shard a row of its own; shards are not one moment";
        findings.push(Finding::new("redis-shard", "redis", message));
    }
    if let Some(count) = abilities.functions.filter(|count| *count > 0) {
        let message =
            format!("{count} libraries of functions are not captured: keep their code with your program");
        findings.push(Finding::new("redis-functions", "redis", message));
    }
    if let Some(found) = found {
        shards::findings(&mut findings, found);
    }
    findings
}

/// A capture of one server.
struct ScanCapture {
    options: ScanOptions,
    abilities: Abilities,
    server: Option<Server>,
    asked: Timestamp,
    rest: VecDeque<Entry>,
    found: Shared,
    findings: Vec<Finding>,
    /// What has to be told first.
    notice: Option<String>,
    lost: Option<String>,
    described: Option<Digest>,
}

/// Asks what can be asked, and begins to walk.
pub(in crate::redis) fn start(
    mut reach: Reach,
    options: &ScanOptions,
    at: &CaptureContext<'_>,
) -> Result<Box<dyn Capture>, Failure> {
    let now = at.clock.now();
    let abilities = probe(reach.link.as_mut(), options)?;
    facts::loaded(&abilities.info)?;
    // A replica shows what it had heard of its primary, and that may be silent without its knowing.
    let behind = lag(&abilities.info).unwrap_or_default();
    let asked = now.checked_sub(behind).unwrap_or(now);
    let mut findings = findings(&abilities, reach.found.as_ref());
    let shard = reach.found.as_ref().and_then(|server| server.shard.as_ref());
    findings.extend(shards::moved(shard, at.known));
    let server = reach.found.clone();
    let found = Shared::default();
    let mut beginning = begin(reach.link.as_ref(), options, at);
    let notice = beginning.notice.take();
    let walker = Walker {
        reach,
        beginning,
        abilities: abilities.clone(),
        options: options.clone(),
        asked,
        stop: Arc::new(AtomicBool::new(false)),
        found: Arc::clone(&found),
    };
    let reader = walker.start().map_err(|error| Failure::io("failed to start a thread", error))?;
    let meta = |mode| Meta { mode, mtime: Some(asked), links: 1, ..Meta::default() };
    let body = Body::File { reader: Box::new(reader), size_hint: 0, layout: Layout::Stream };
    let rest = VecDeque::from([
        Entry { path: path(DATA)?, meta: meta(0o700), body: Body::Dir },
        Entry { path: path(&format!("{DATA}/{KEYS_FILE}"))?, meta: meta(0o600), body },
    ]);
    let (options, lost, described) = (options.clone(), None, None);
    Ok(Box::new(ScanCapture {
        options,
        abilities,
        server,
        asked,
        rest,
        found,
        findings,
        notice,
        lost,
        described,
    }))
}

/// Where a walk begins, and the trail that it leaves.
struct Beginning {
    trail: Option<(Trail, PathBuf)>,
    place: Option<Place>,
    /// What has to be told of it.
    notice: Option<String>,
}

/// Where the walk begins. Whoever walks once only rests on nothing that he has not walked over himself.
fn begin(link: &dyn Link, options: &ScanOptions, at: &CaptureContext<'_>) -> Beginning {
    let Some(path) = at.kept.filter(|_| options.second_pass) else {
        return Beginning { trail: None, place: None, notice: None };
    };
    let subject = Subject { target: link.target(), prefix: options.prefix.clone() };
    match Trail::open(path, &subject, at.clock.now()) {
        Ok((trail, place)) => {
            let notice = place.map(|_| {
                "going on where a capture was ended; how much changes meanwhile is not measured this time"
                    .to_owned()
            });
            Beginning { trail: Some((trail, path.to_owned())), place, notice }
        }
        Err(error) => {
            let notice =
                format!("if this run is killed the next one begins anew: {}: {error}", path.display());
            Beginning { trail: None, place: None, notice: Some(notice) }
        }
    }
}

fn path(text: &str) -> Result<RelPath, Failure> {
    RelPath::new(text)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name an entry", error))
}

fn incomplete() -> Failure {
    Failure::new(FailureKind::Internal, "the keys were left before their end")
}

impl ScanCapture {
    /// After the keys: what they amount to, and what has to be told.
    fn describe(&mut self) -> Result<(), Failure> {
        let mut guard = locked(&self.found);
        let text = match &*guard {
            Some(Ok(found)) => {
                self.findings.extend(told(found));
                self.findings.extend(self.server.as_mut().and_then(shards::open_since));
                describe(&found.survey)?
            }
            Some(Err(_)) => {
                return match guard.take() {
                    Some(Err(failure)) => Err(failure),
                    _ => Err(incomplete()),
                };
            }
            None => return Err(incomplete()),
        };
        drop(guard);
        self.described = Some(Digest::of(&text));
        let meta = |mode| Meta { mode, mtime: Some(self.asked), links: 1, ..Meta::default() };
        let size_hint = text.len() as u64;
        let body = Body::File { reader: Box::new(Cursor::new(text)), size_hint, layout: Layout::Stream };
        self.rest.extend([
            Entry { path: path(META)?, meta: meta(0o700), body: Body::Dir },
            Entry { path: path(&format!("{META}/{KEYS}"))?, meta: meta(0o600), body },
        ]);
        Ok(())
    }

    fn environment(&self, found: &Found) -> BTreeMap<String, Value> {
        let mut environment = BTreeMap::new();
        let mut note = |name: &str, value| environment.insert(format!("redis.{name}"), value);
        note("capture", json!("scan"));
        note("version", json!(self.abilities.version));
        note("redis_mode", json!(self.abilities.mode));
        note("role", json!(self.abilities.info.get("role")));
        note("keys_sha256", json!(self.described));
        note("opaque", json!(0));
        note(facts::REVISION, json!(Sum::REVISION));
        let highest = found.survey.databases.keys().max().map_or(0, |db| db.saturating_add(1));
        note("databases", json!(layout::USUAL_DATABASES.max(highest)));
        let ttl: serde_json::Map<_, _> =
            found.survey.databases.iter().map(|(db, found)| (format!("db{db}"), json!(found.ttl))).collect();
        note("time_to_live", json!(ttl));
        if let Some(server) = &self.server {
            shards::note(&mut environment, server);
        }
        if found.changes.is_none() {
            environment.insert(MEASURED.to_owned(), json!(false));
        }
        let mut note = |name: &str, value| environment.insert(format!("redis.{name}"), value);
        let second = match found.changes {
            Some(changes) => json!({
                "measured": true, "changed": changes.changed, "appeared": changes.appeared,
                "vanished": changes.vanished, "ended": changes.ended,
            }),
            None => match found.late {
                Some(late) => json!({ "measured": false, "taken": late }),
                None => json!({ "measured": false }),
            },
        };
        let scan = json!({
            "prefix": self.options.prefix, "second_pass": second, "torn": found.torn, "gone": found.gone,
            "repeated": found.repeated, "restarts": found.restarts, "unknown": found.unknown,
            "exact_ends": self.abilities.exact_ends, "server_counts": self.abilities.keys,
        });
        note("scan", scan);
        environment
    }
}

/// What a person should know about a walk that came to its end.
fn told(found: &Found) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (word, count) in &found.unknown {
        let message = format!(
            "{} keys of the type `{word}` are not understood and were left out",
            human::count(*count)
        );
        findings.push(Finding::new("redis-unknown-type", "redis", message));
    }
    for key in found.unreadable.iter().take(10) {
        findings.push(Finding::new("redis-unreadable", "redis", format!("a key could not be read: {key}")));
    }
    if found.torn > 0 {
        let count = human::count(found.torn);
        let message = format!("{count} keys changed each time they were read: they are of several moments");
        findings.push(Finding::new("redis-torn", "redis", message));
    }
    findings
}

impl Capture for ScanCapture {
    fn total_bytes(&self) -> Option<u64> {
        None
    }

    fn next_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        if let Some(why) = &self.lost {
            // What the walk itself says is better than what came through.
            if let Some(Err(failure)) = locked(&self.found).take() {
                return Err(failure);
            }
            return Err(Failure::new(FailureKind::Unreachable, format!("reading the keys broke off: {why}")));
        }
        if self.rest.is_empty() && self.described.is_none() {
            self.describe()?;
        }
        if let Some(text) = self.notice.take() {
            monitor.notice(&text);
        }
        for finding in self.findings.drain(..) {
            monitor.finding(finding);
        }
        Ok(self.rest.pop_front())
    }

    fn lost(&mut self, path: &RelPath, why: &str) {
        self.lost = Some(format!("{path}: {why}"));
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        let Some(Ok(found)) = locked(&self.found).take().filter(|_| self.lost.is_none()) else {
            return Err(incomplete());
        };
        let (counts, checksums) = facts::numbers(&found.survey);
        let environment = self.environment(&found);
        let seen = found.changes.unwrap_or_default();
        let mut unreadable = found.unreadable;
        let unnamed = found.unread.saturating_sub(unreadable.len() as u64);
        if unnamed > 0 {
            unreadable.push(format!("and {} keys more", human::count(unnamed)));
        }
        Ok(CaptureFacts {
            consistency: Consistency {
                level: ConsistencyLevel::Fuzzy,
                // What was there before is in, as it was then or later.
                moment: self.asked,
                position: None,
                changes: seen.changed + seen.appeared + seen.vanished + found.torn + found.unread,
            },
            logical_bytes: found.bytes,
            counts,
            checksums,
            environment,
            unreadable,
        })
    }
}

/// What the thread needs.
struct Walker {
    reach: Reach,
    beginning: Beginning,
    abilities: Abilities,
    options: ScanOptions,
    asked: Timestamp,
    stop: Arc<AtomicBool>,
    found: Shared,
}

impl Walker {
    fn start(self) -> io::Result<KeysReader> {
        let (pieces, along) = sync_channel(PIECES);
        let stop = Arc::clone(&self.stop);
        let found = Arc::clone(&self.found);
        let thread = std::thread::Builder::new().name("walk-keys".to_owned()).spawn(move || {
            let shared = Arc::clone(&self.found);
            let outcome = self.walk(Pieces(pieces));
            *locked(&shared) = Some(outcome);
        })?;
        Ok(KeysReader { along, piece: Vec::new(), at: 0, stop, thread: Some(thread), found })
    }

    fn walk(mut self, pieces: Pieces) -> Result<Found, Failure> {
        let io = |error| Failure::io("the keys could not be handed on", error);
        let mut sink = LineSink::new(BufWriter::with_capacity(PIECE_BYTES, pieces));
        let prefix = self.options.prefix.as_bytes();
        let header = json!({
            "format": FORMAT, "captured": self.asked, "prefix": LineSink::<Pieces>::text(prefix),
            "version": self.abilities.version,
        });
        sink.other(&header).map_err(io)?;
        let Beginning { mut trail, place, .. } = self.beginning;
        let mut passes = Passes {
            link: self.reach.link.as_mut(),
            abilities: &self.abilities,
            scope: &Scope { prefix: prefix.to_vec() },
            stop: &self.stop,
            now_ms: self.asked.as_millisecond(),
            trail: trail.as_mut().map(|(trail, _)| trail),
        };
        let found = passes.run(&mut sink, place, self.options.second_pass)?;
        in_role(&mut self.reach, &self.abilities)?;
        if !found.unknown.is_empty() && !self.options.skip_unknown {
            return Err(unknown(&found.unknown));
        }
        let content: BTreeMap<String, String> =
            found.survey.databases.iter().map(|(db, of)| (format!("db{db}"), of.sum.to_string())).collect();
        sink.other(&json!({ "keys": found.survey.keys(), "content": content })).map_err(io)?;
        sink.finish().map_err(io)?;
        // Here the keys are with the caller, who makes a point of them or fails and has nothing to go on with.
        if let Some((trail, path)) = trail {
            trail.remove(&path);
        }
        Ok(found)
    }
}

/// A primary that became a replica meanwhile was read without what its successor was told. One that does not say what it is
/// cannot be asked, unless it was found by what it is.
fn in_role(reach: &mut Reach, abilities: &Abilities) -> Result<(), Failure> {
    let was_primary = abilities.info.get("role") == Some("master");
    let server = reach.found.as_ref().filter(|server| server.role.is_some());
    if !was_primary && server.is_none() {
        return Ok(());
    }
    let question = vec![b"INFO".to_vec(), b"replication".to_vec()];
    let fail = error::connection("the server could not be asked for its role");
    let said = reach.link.ask(0, &[question]).map_err(fail)?;
    let said = Info::read(&said.first().and_then(Reply::text).unwrap_or_default());
    if let Some(server) = server {
        facts::in_role(server, said.get("role"))?;
    }
    if was_primary && said.get("role").is_some_and(|role| role != "master") {
        let what = format!("{} has changed its role while its keys were read", reach.link.target());
        return Err(Failure::new(FailureKind::Unreachable, what));
    }
    Ok(())
}

fn unknown(types: &BTreeMap<String, u64>) -> Failure {
    let list: Vec<_> =
        types.iter().map(|(word, count)| format!("{} of the type `{word}`", human::count(*count))).collect();
    let what = format!(
        "there are keys that are not understood: {}; nothing was captured. With `skip_unknown = true` they are left out \
         and told each time",
        list.join(", ")
    );
    Failure::new(FailureKind::Refused, what)
}

/// Where the thread writes; full or left, it stops.
struct Pieces(SyncSender<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..PIECE_BYTES).unwrap_or(bytes);
        self.0.send(piece.to_vec()).map_err(|_left| io::Error::other("nobody reads the keys"))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines as they come. It ends well only if the walk did.
struct KeysReader {
    along: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    found: Shared,
}

impl KeysReader {
    fn end(&mut self) -> io::Result<usize> {
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_panic| io::Error::other("reading the keys failed unexpectedly"))?;
        }
        match &*locked(&self.found) {
            Some(Ok(_)) => Ok(0),
            Some(Err(failure)) => Err(io::Error::other(failure.chain())),
            None => Err(io::Error::other("reading the keys failed unexpectedly")),
        }
    }
}

impl Read for KeysReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.at == self.piece.len() {
            let Ok(piece) = self.along.recv() else { return self.end() };
            (self.piece, self.at) = (piece, 0);
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.len().min(into.len());
        if let (Some(place), Some(from)) = (into.get_mut(..count), rest.get(..count)) {
            place.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}

impl Drop for KeysReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread may wait for room.
        drop(std::mem::replace(&mut self.along, sync_channel(0).1));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
