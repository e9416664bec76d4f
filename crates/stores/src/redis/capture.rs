//! A dump as a capture: streamed from the server into the vault, and read on the way.
//!
//! Nothing is staged. Memory: 2 MiB between the connection and the thread that reads along, and what reading takes.

use std::collections::VecDeque;
use std::io::{self, Cursor, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, Consistency, ConsistencyLevel, DATA, Entry, Layout, META, Meta,
};
use lifeboat_base::digest::{Digest, Hasher};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Timestamp;
use lifeboat_redis::place::Found;
use lifeboat_redis::rdb::{RdbError, Survey};
use lifeboat_redis::replication::{FullSync, Place, full_sync};
use serde_json::json;

use super::facts::{self, Facts};
use super::{error, layout, shards};
use crate::adapter::CaptureContext;

/// The name of the dump in a point.
pub(super) const DUMP: &str = "dump.rdb";
/// The name of the commands after it, where a point has any.
pub(super) const COMMANDS: &str = "commands.aof";
/// The name of what is said about it.
pub(super) const KEYS: &str = "keys.json";
/// What is handed to the thread that reads along, in pieces of this size,
const PIECE_BYTES: usize = 64 * 1024;
/// so many at a time.
const PIECES: usize = 32;

/// What passing by has shown.
struct Seen {
    survey: Survey,
    sha256: Digest,
    bytes: u64,
}

type Shared = Arc<Mutex<Option<Seen>>>;

fn locked(shared: &Shared) -> MutexGuard<'_, Option<Seen>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A capture of one server.
pub(super) struct RedisCapture {
    facts: Facts,
    place: Place,
    /// The clock before the server was asked, and when it had begun its dump.
    asked: Timestamp,
    begun: Timestamp,
    total_bytes: Option<u64>,
    rest: VecDeque<Entry>,
    seen: Shared,
    findings: Vec<Finding>,
    lost: Option<String>,
    /// The SHA-256 of what was said about the dump, once it was.
    described: Option<Digest>,
}

impl RedisCapture {
    /// Asks for everything; returns when the server has begun its dump.
    pub(super) fn start(found: &Found, at: &CaptureContext<'_>) -> Result<Self, Failure> {
        let mut facts = facts::of(found)?;
        facts.findings.extend(shards::moved(found.shard.as_ref(), at.known));
        let now = at.clock.now();
        // A replica shows what it had heard of its primary, and that may be silent without its knowing.
        let asked = now.checked_sub(facts.behind).unwrap_or(now);
        let sync = full_sync(&found.options, true).map_err(error::connection("failed to begin the dump"))?;
        // The feed's moments begin here, and of a replica they are as late as this at the most.
        let begun = at.clock.now();
        let (place, total_bytes) = (sync.place().clone(), sync.length_bytes());
        let seen = Shared::default();
        let reader = DumpReader::start(sync, asked, Arc::clone(&seen))
            .map_err(|error| Failure::io("failed to start a thread", error))?;
        let mtime = Some(asked);
        let dir = Meta { mode: 0o700, mtime, links: 1, ..Meta::default() };
        let file = Meta { mode: 0o600, mtime, links: 1, ..Meta::default() };
        let body = Body::File {
            reader: Box::new(reader),
            size_hint: total_bytes.or(facts.used_bytes).unwrap_or_default(),
            layout: Layout::Stream,
        };
        let rest = VecDeque::from([
            Entry { path: path(DATA)?, meta: dir, body: Body::Dir },
            Entry { path: path(&format!("{DATA}/{DUMP}"))?, meta: file, body },
        ]);
        let findings = std::mem::take(&mut facts.findings);
        Ok(Self {
            facts,
            place,
            asked,
            begun,
            total_bytes,
            rest,
            seen,
            findings,
            lost: None,
            described: None,
        })
    }

    /// After the dump: what it amounts to.
    fn describe(&mut self) -> Result<(), Failure> {
        let text = match &*locked(&self.seen) {
            Some(seen) => describe(&seen.survey)?,
            None => return Err(incomplete()),
        };
        self.described = Some(Digest::of(&text));
        let mtime = Some(self.asked);
        let meta = |mode| Meta { mode, mtime, links: 1, ..Meta::default() };
        let size_hint = text.len() as u64;
        let body = Body::File { reader: Box::new(Cursor::new(text)), size_hint, layout: Layout::Stream };
        self.rest.extend([
            Entry { path: path(META)?, meta: meta(0o700), body: Body::Dir },
            Entry { path: path(&format!("{META}/{KEYS}"))?, meta: meta(0o600), body },
        ]);
        Ok(())
    }
}

/// Numbers per database, for people.
pub(super) fn describe(survey: &Survey) -> Result<Vec<u8>, Failure> {
    let databases: serde_json::Map<_, _> = survey
        .databases
        .iter()
        .map(|(db, found)| {
            let kinds: serde_json::Map<_, _> =
                found.kinds.iter().map(|(kind, count)| (kind.word().to_owned(), json!(count))).collect();
            let text = json!({
                "keys": found.keys, "kinds": kinds, "expiring": found.expiring, "time_to_live": found.ttl,
            });
            (format!("db{db}"), text)
        })
        .collect();
    let text = json!({
        "format": "lifeboat.redis-keys/v1", "databases": databases, "functions": survey.functions,
    });
    serde_json::to_vec_pretty(&text)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to describe the dump", error))
}

fn incomplete() -> Failure {
    Failure::new(FailureKind::Internal, "the dump was left before its end")
}

pub(super) fn path(text: &str) -> Result<RelPath, Failure> {
    RelPath::new(text)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name an entry", error))
}

impl Capture for RedisCapture {
    fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    fn next_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        for finding in self.findings.drain(..) {
            monitor.finding(finding);
        }
        if let Some(why) = &self.lost {
            // A dump that is not whole is none.
            return Err(Failure::new(FailureKind::Unreachable, format!("the dump broke off: {why}")));
        }
        if self.rest.is_empty() && self.described.is_none() {
            self.describe()?;
        }
        Ok(self.rest.pop_front())
    }

    fn lost(&mut self, path: &RelPath, why: &str) {
        self.lost = Some(format!("{path}: {why}"));
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        let Some(seen) = locked(&self.seen).take().filter(|_| self.lost.is_none()) else {
            return Err(incomplete());
        };
        let survey = &seen.survey;
        let (counts, checksums) = facts::numbers(survey);
        let mut environment = self.facts.environment;
        let mut note = |name: &str, value| environment.insert(format!("redis.{name}"), value);
        note("dump_sha256", json!(seen.sha256));
        note("keys_sha256", json!(self.described));
        note("begun", json!(self.begun));
        let highest = survey.databases.keys().max().map_or(0, |db| db.saturating_add(1));
        let databases = self.facts.databases.unwrap_or(layout::USUAL_DATABASES).max(highest);
        note("databases", json!(databases));
        facts::note_dump(&mut environment, survey);
        Ok(CaptureFacts {
            consistency: Consistency {
                level: ConsistencyLevel::PointInTime,
                // The server forked at some time between these two; what was committed before the first is in.
                moment: self.asked,
                position: Some(self.place.to_string()),
                changes: 0,
            },
            logical_bytes: seen.bytes,
            counts,
            checksums,
            environment,
            unreadable: Vec::new(),
        })
    }
}

/// The dump, handed out while a thread reads along. It ends well only if that thread found it whole.
struct DumpReader {
    sync: FullSync,
    pieces: Option<SyncSender<Vec<u8>>>,
    along: Option<JoinHandle<Result<Survey, RdbError>>>,
    hasher: Option<Hasher>,
    bytes: u64,
    seen: Shared,
}

impl DumpReader {
    fn start(sync: FullSync, now: Timestamp, seen: Shared) -> io::Result<Self> {
        let (pieces, along) = sync_channel(PIECES);
        let source = Pieces { along, piece: Vec::new(), at: 0 };
        let now_ms = now.as_millisecond();
        let along = std::thread::Builder::new()
            .name("read-dump".to_owned())
            .spawn(move || Survey::read(source, now_ms))?;
        let (pieces, along, hasher) = (Some(pieces), Some(along), Some(Hasher::new()));
        Ok(Self { sync, pieces, along, hasher, bytes: 0, seen })
    }

    /// The dump has ended, or the thread gave it up.
    fn end(&mut self) -> io::Result<()> {
        self.pieces = None;
        let Some(along) = self.along.take() else { return Ok(()) };
        let survey = along
            .join()
            .map_err(|_panic| io::Error::other("reading the dump failed unexpectedly"))?
            .map_err(io::Error::other)?;
        if let Some(hasher) = self.hasher.take() {
            *locked(&self.seen) = Some(Seen { survey, sha256: hasher.finish(), bytes: self.bytes });
        }
        Ok(())
    }
}

impl Read for DumpReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let limit = into.len().min(PIECE_BYTES);
        let room = into.get_mut(..limit).unwrap_or_default();
        let count = self.sync.read(room)?;
        if count == 0 {
            self.end()?;
            return Ok(0);
        }
        let piece = room.get(..count).unwrap_or_default();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        }
        self.bytes += count as u64;
        let taken = self.pieces.as_ref().is_some_and(|pieces| pieces.send(piece.to_vec()).is_ok());
        if !taken {
            self.end()?;
            return Err(io::Error::other("the dump goes on after its end"));
        }
        Ok(count)
    }
}

impl Drop for DumpReader {
    fn drop(&mut self) {
        self.pieces = None;
        if let Some(along) = self.along.take() {
            // It ends with its source; what it found is of no use any more.
            drop(along.join());
        }
    }
}

/// What the other side sent, as a reader.
struct Pieces {
    along: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            let Ok(piece) = self.along.recv() else { return Ok(0) };
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
