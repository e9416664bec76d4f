//! A base backup as a capture: files in the order of the server, then its manifest and what is known about the cluster.
//!
//! Nothing is staged but the manifest. Memory: one frame of the stream and about 500 bytes per file.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Cursor, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifeboat_base::capture::{
    Body, Capture, CaptureFacts, Consistency, ConsistencyLevel, DATA, Entry, Layout, META, Meta, Order,
};
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::monitor::{Finding, Monitor};
use lifeboat_base::path::RelPath;
use lifeboat_base::time::Timestamp;
use lifeboat_postgres::backup::{
    BackupEntry, BackupError, BackupKind, BackupOptions, BackupStop, BaseBackup, Manifest, SeenFile,
    Tablespace, WalRange,
};
use lifeboat_postgres::lsn::segment_name;
use lifeboat_postgres::receive::identify;
use lifeboat_postgres::wal::{Event, SegmentScan};
use lifeboat_postgres::wire::{ConnectOptions, Connection, Mode};
use serde_json::{Value, json};

use super::facts::{self, Facts};
use super::tables::{self, Survey};
use super::{error, slot};
use crate::adapter::CaptureContext;
use crate::spool::{Sealed, Spool};

/// The manifest's name in a data directory.
pub(crate) const MANIFEST: &str = "backup_manifest";
/// The folder of the log in a data directory.
const LOG: &str = "pg_wal/";
/// Chunks of database files start at this size: four pages, so that one changed page stores little more than itself.
const MIN_CHUNK_BYTES: u32 = 32 * 1024;
const MAX_CHUNK_BYTES: u32 = 8 * 1024 * 1024;
/// A cluster has about as many chunks at most, which bounds listings and index; larger ones get larger chunks.
const TARGET_CHUNKS: u64 = 1024 * 1024;
/// Log segments are never stored twice, so small chunks would gain nothing.
const LOG_CHUNK_BYTES: u32 = 1024 * 1024;

/// The chunk size for all database files of a cluster: grows with it, so that a crossing stores everything anew, once.
fn chunk_bytes(total_bytes: u64) -> u32 {
    let mut chunk = MIN_CHUNK_BYTES;
    while chunk < MAX_CHUNK_BYTES && total_bytes / u64::from(chunk) > TARGET_CHUNKS {
        chunk *= 2;
    }
    chunk
}

/// The stream, which the reader of the current file and the capture share.
type Stream = Arc<Mutex<Option<BaseBackup>>>;

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the log segments that pass by say.
#[derive(Default)]
struct LogSeen {
    /// The newest commit or rollback.
    newest: Option<Timestamp>,
    segments: u64,
}

enum Stage {
    Cluster,
    Rest(VecDeque<Entry>),
}

/// A capture of one cluster.
pub(crate) struct PostgresCapture {
    options: ConnectOptions,
    spool: std::path::PathBuf,
    stream: Stream,
    log: Arc<Mutex<LogSeen>>,
    stage: Stage,
    /// The server's clock before the backup began.
    began: Timestamp,
    start: BackupStop,
    tablespaces: Vec<Tablespace>,
    total_bytes: u64,
    chunk_bytes: u32,
    received_bytes: u64,
    file_count: u64,
    owner: (u32, u32),
    facts: Facts,
    system: u64,
    /// What was found before the backup began, until somebody listens.
    findings: Vec<Finding>,
    before: Survey,
    stop: Option<BackupStop>,
    lost: Option<String>,
    finished: Option<CaptureFacts>,
}

impl PostgresCapture {
    /// Begins the backup; returns after the server's checkpoint.
    pub(crate) fn start(
        options: &ConnectOptions,
        slot: &str,
        at: &CaptureContext<'_>,
    ) -> Result<Self, Failure> {
        let mut connection = Connection::connect(options, Mode::Replication)
            .map_err(error::connection("failed to open a replication connection"))?;
        let system = identify(&mut connection).map_err(error::receive)?.system_identifier;
        if at.known.iter().any(|known| *known != system.to_string()) {
            return Err(error::other_system());
        }
        let mut facts = facts::read(options)?;
        facts.environment.insert("system_identifier".to_owned(), json!(system.to_string()));
        let before = tables::survey(options)?;
        let mut sql = Connection::connect(options, Mode::Sql)
            .map_err(error::connection("failed to reach the server"))?;
        // A slot that cannot be looked after is no reason to have no backup.
        let guarded = slot::guard(&mut sql, slot, slot::LIMIT_BYTES);
        let guarded = guarded.unwrap_or_else(|failure| {
            Some(Finding::new("slot-unguarded", slot, format!("slot `{slot}`: {}", failure.chain())))
        });
        let findings = guarded.into_iter().collect();
        let began = server_time(&mut sql)?;
        reserve_log(&mut connection)?;
        let label = format!("lifeboat {}", at.clock.now());
        let backup = BaseBackup::start(connection, &BackupOptions { label, fast_checkpoint: true })
            .map_err(error::backup)?;
        let total_bytes = backup.total_bytes();
        Ok(Self {
            options: options.clone(),
            spool: at.spool.to_owned(),
            start: backup.start_position(),
            tablespaces: backup.tablespaces().to_vec(),
            stream: Arc::new(Mutex::new(Some(backup))),
            log: Arc::default(),
            stage: Stage::Cluster,
            began,
            total_bytes,
            chunk_bytes: chunk_bytes(total_bytes),
            received_bytes: 0,
            file_count: 0,
            owner: (0, 0),
            facts,
            system,
            findings,
            before,
            stop: None,
            lost: None,
            finished: None,
        })
    }

    fn next_of_cluster(&mut self) -> Result<Option<Entry>, Failure> {
        let next = match locked(&self.stream).as_mut() {
            Some(backup) => backup.next_entry().map_err(error::backup)?,
            None => None,
        };
        let Some(found) = next else { return Ok(None) };
        let BackupEntry { path, kind, mode, uid, gid, mtime_s } = found;
        self.owner = (uid, gid);
        let body = match kind {
            BackupKind::Dir => Body::Dir,
            BackupKind::File(size_hint) => {
                self.received_bytes += size_hint;
                self.file_count += 1;
                let log = path.strip_prefix(LOG).filter(|name| name.len() == 24);
                let scan = log.map(|name| (SegmentScan::new(name, Some(self.system)), Arc::clone(&self.log)));
                let reader = Box::new(EntryReader { stream: Arc::clone(&self.stream), scan });
                Body::File { reader, size_hint, layout: self.layout(&path) }
            }
        };
        let meta =
            Meta { mode, uid, gid, mtime: Timestamp::from_second(mtime_s).ok(), links: 1, ..Meta::default() };
        Ok(Some(Entry { path: inside(DATA, &path)?, meta, body }))
    }

    fn layout(&self, path: &str) -> Layout {
        if path.starts_with(LOG) {
            return Layout::Fixed { chunk_bytes: LOG_CHUNK_BYTES };
        }
        let database = ["base/", "global/", "pg_tblspc/", "pg_xact/", "pg_multixact/"];
        if database.iter().any(|folder| path.starts_with(folder)) {
            Layout::Fixed { chunk_bytes: self.chunk_bytes }
        } else {
            Layout::Stream
        }
    }

    /// After the last file: the manifest, compared with what passed by, and everything that is known.
    fn close(&mut self) -> Result<VecDeque<Entry>, Failure> {
        let Some(backup) = locked(&self.stream).take() else {
            return Err(Failure::new(FailureKind::Internal, "the base backup was ended twice"));
        };
        let mut sink = SpoolWriter(Spool::create(&self.spool)?);
        let (stop, seen) = backup.finish(&mut sink).map_err(error::backup)?;
        let manifest = sink.0.seal()?;
        self.check(&manifest, &seen, stop)?;
        self.stop = Some(stop);
        let after = tables::survey(&self.options)?;
        self.finished = Some(self.summarise(&after, stop));
        let mut rest = VecDeque::new();
        // The stream does not mention these; only now is it known whose they are.
        rest.push_back(self.own(DATA, "", 0o700, Body::Dir)?);
        for space in &self.tablespaces {
            rest.push_back(self.own(DATA, &format!("pg_tblspc/{}", space.oid), 0o700, Body::Dir)?);
        }
        let size_hint = manifest.length_bytes();
        let body = Body::File { reader: Box::new(manifest.reader()), size_hint, layout: Layout::Stream };
        rest.push_back(self.own(DATA, MANIFEST, 0o600, body)?);
        rest.push_back(self.own(META, "", 0o700, Body::Dir)?);
        rest.push_back(self.own(META, "schema", 0o700, Body::Dir)?);
        for (database, text) in &self.facts.schema_texts {
            // Database names may hold anything but a zero byte.
            let name = format!("schema/{}.txt", file_name(database));
            let size_hint = text.len() as u64;
            let reader = Box::new(Cursor::new(text.clone().into_bytes()));
            rest.push_back(self.own(
                META,
                &name,
                0o600,
                Body::File { reader, size_hint, layout: Layout::Stream },
            )?);
        }
        Ok(rest)
    }

    /// A backup is complete only when every file and every segment from its start to its stop passed by whole.
    fn check(
        &self,
        manifest: &Sealed,
        seen: &BTreeMap<String, SeenFile>,
        stop: BackupStop,
    ) -> Result<(), Failure> {
        let manifest = Manifest::read(&mut manifest.reader()).map_err(error::backup)?;
        manifest.compare(seen, |path| path.starts_with(LOG)).map_err(error::backup)?;
        whole_log(&manifest.wal_ranges, seen, stop, self.facts.segment_bytes).map_err(error::backup)
    }

    fn summarise(&self, after: &Survey, stop: BackupStop) -> CaptureFacts {
        let settled = tables::settled(&self.before, after);
        let mut environment = self.facts.environment.clone();
        let tablespaces: Vec<Value> = self
            .tablespaces
            .iter()
            .map(|space| json!({ "oid": space.oid.to_string(), "location": space.location }))
            .collect();
        let log = locked(&self.log);
        environment.insert("tablespaces".to_owned(), Value::Array(tablespaces));
        environment.insert("database".to_owned(), json!(self.options.database()));
        environment.insert("start_lsn".to_owned(), json!(self.start.lsn.to_string()));
        environment.insert("stop_lsn".to_owned(), json!(stop.lsn.to_string()));
        environment.insert("timeline".to_owned(), json!(stop.timeline));
        environment.insert("log_segments".to_owned(), json!(log.segments));
        environment.insert("postgres.ranges".to_owned(), json!(settled.ranges));
        environment.insert("postgres.unchecked".to_owned(), json!(settled.unchecked));
        let mut counts = settled.counts;
        counts.insert("files".to_owned(), self.file_count);
        CaptureFacts {
            consistency: Consistency {
                level: ConsistencyLevel::PointInTime,
                // On a server where nothing was committed meanwhile the beginning is as good as the end.
                moment: log.newest.map_or(self.began, |newest| newest.max(self.began)),
                position: Some(stop.lsn.to_string()),
                changes: 0,
            },
            logical_bytes: self.received_bytes,
            counts,
            checksums: settled.sums,
            environment,
            unreadable: Vec::new(),
        }
    }

    fn own(&self, folder: &str, name: &str, mode: u32, body: Body) -> Result<Entry, Failure> {
        let (uid, gid) = self.owner;
        let meta = Meta { mode, uid, gid, mtime: Some(self.began), links: 1, ..Meta::default() };
        Ok(Entry { path: inside(folder, name)?, meta, body })
    }
}

impl Capture for PostgresCapture {
    fn order(&self) -> Order {
        Order::Any
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(self.total_bytes)
    }

    fn next_entry(&mut self, monitor: &dyn Monitor) -> Result<Option<Entry>, Failure> {
        self.findings.drain(..).for_each(|finding| monitor.finding(finding));
        if let Some(why) = &self.lost {
            // One file less is no cluster.
            return Err(Failure::new(FailureKind::Unreachable, format!("the base backup broke off: {why}")));
        }
        loop {
            match &mut self.stage {
                Stage::Cluster => match self.next_of_cluster()? {
                    Some(entry) => return Ok(Some(entry)),
                    None => self.stage = Stage::Rest(self.close()?),
                },
                Stage::Rest(rest) => return Ok(rest.pop_front()),
            }
        }
    }

    fn lost(&mut self, path: &RelPath, why: &str) {
        self.lost = Some(format!("{path}: {why}"));
    }

    fn finish(self: Box<Self>) -> Result<CaptureFacts, Failure> {
        match (self.finished, self.lost) {
            (Some(facts), None) => Ok(facts),
            _ => Err(Failure::new(FailureKind::Internal, "the base backup was left before its end")),
        }
    }
}

/// Whether every segment from the start of the backup to its stop is among `seen`, in its full size.
fn whole_log(
    ranges: &[WalRange],
    seen: &BTreeMap<String, SeenFile>,
    stop: BackupStop,
    segment_bytes: u32,
) -> Result<(), BackupError> {
    for range in ranges {
        let mut at = range.start.segment_start(segment_bytes);
        while at < range.end {
            let name = segment_name(range.timeline, at, segment_bytes);
            let whole = seen
                .get(&format!("{LOG}{name}"))
                .is_some_and(|file| file.size_bytes == u64::from(segment_bytes));
            if !whole {
                let what = format!("the log segment {name}, which a restore needs, did not come with it");
                return Err(BackupError::Manifest { what });
            }
            at.0 += u64::from(segment_bytes);
        }
    }
    if ranges.last().is_none_or(|range| range.end < stop.lsn) {
        return Err(BackupError::Manifest { what: "its log ends before the backup does".to_owned() });
    }
    Ok(())
}

/// Keeps the server from recycling the log the backup needs, for as long as the connection lives. Where no slot is free the
/// server's own reserve has to do; a segment that is gone then fails the backup.
fn reserve_log(connection: &mut Connection) -> Result<(), Failure> {
    let name = format!("lifeboat_base_{}", connection.backend_pid());
    let command = format!("CREATE_REPLICATION_SLOT {name} TEMPORARY PHYSICAL RESERVE_WAL");
    match connection.query(&command) {
        Err(failed) if failed.server().is_none() => {
            Err(error::connection("failed to reserve the server's log")(failed))
        }
        _ => Ok(()),
    }
}

fn server_time(sql: &mut Connection) -> Result<Timestamp, Failure> {
    let ask = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let rows = sql.query(ask).map_err(error::connection("failed to read the server's clock"))?;
    let text = rows.first().and_then(|row| row.get(0)).unwrap_or_default();
    text.parse().map_err(|error| {
        Failure::with_source(FailureKind::Unreachable, "the server's clock cannot be understood", error)
    })
}

fn inside(folder: &str, name: &str) -> Result<RelPath, Failure> {
    let path = if name.is_empty() { folder.to_owned() } else { format!("{folder}/{name}") };
    RelPath::new(path)
        .map_err(|error| Failure::with_source(FailureKind::Internal, "failed to name an entry", error))
}

/// A name as part of a path: what could end or leave it is written as `%` and its code.
pub(crate) fn file_name(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ');
    name.chars().map(|c| if plain(c) { c.to_string() } else { format!("%{:02X}", u32::from(c)) }).collect()
}

struct SpoolWriter(Spool);

impl Write for SpoolWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The content of one file; a log segment is checked record by record as it passes.
struct EntryReader {
    stream: Stream,
    scan: Option<(SegmentScan, Arc<Mutex<LogSeen>>)>,
}

impl Read for EntryReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match locked(&self.stream).as_mut() {
            Some(backup) => BaseBackup::read(backup, buffer).map_err(io::Error::other)?,
            None => return Err(io::Error::other("the base backup has ended")),
        };
        let Some((scan, seen)) = &mut self.scan else { return Ok(count) };
        if count > 0 {
            let mut events = Vec::new();
            scan.feed(buffer.get(..count).unwrap_or_default(), &mut events).map_err(io::Error::other)?;
            let newest = events.iter().filter_map(|event| match event {
                Event::Commit { at, .. } | Event::Abort { at, .. } => Some(*at),
                _ => None,
            });
            let mut seen = locked(seen);
            seen.newest = newest.chain(seen.newest).max();
        } else if let Some((scan, seen)) = self.scan.take() {
            scan.finish().map_err(io::Error::other)?;
            locked(&seen).segments += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_base::digest::Hasher;
    use lifeboat_postgres::Lsn;

    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;

    #[test]
    fn chunks_grow_with_the_cluster() {
        assert_eq!(chunk_bytes(0), 32 * 1024);
        assert_eq!(chunk_bytes(32 * GIB), 32 * 1024);
        assert_eq!(chunk_bytes(33 * GIB), 64 * 1024);
        assert_eq!(chunk_bytes(1024 * GIB), 1024 * 1024);
        assert_eq!(chunk_bytes(u64::MAX), 8 * 1024 * 1024);
    }

    #[test]
    fn case_4_a_base_without_one_of_its_segments_is_none() {
        const SEGMENT: u32 = 16 * 1024 * 1024;
        let range = WalRange { timeline: 1, start: Lsn(0x200_0028), end: Lsn(0x400_0100) };
        let stop = BackupStop { lsn: range.end, timeline: 1 };
        let name =
            |number: u64| format!("pg_wal/{}", segment_name(1, Lsn(number * u64::from(SEGMENT)), SEGMENT));
        let file = |size_bytes| SeenFile { size_bytes, sha256: Hasher::new().finish() };
        let all: BTreeMap<_, _> = (2..=4).map(|number| (name(number), file(u64::from(SEGMENT)))).collect();
        whole_log(&[range], &all, stop, SEGMENT).unwrap();
        for number in 2..=4 {
            let mut missing = all.clone();
            missing.remove(&name(number));
            let refused = whole_log(&[range], &missing, stop, SEGMENT).unwrap_err();
            assert!(refused.to_string().contains("manifest"), "{refused}");
            let mut cut = all.clone();
            cut.insert(name(number), file(u64::from(SEGMENT) - 1));
            assert!(whole_log(&[range], &cut, stop, SEGMENT).is_err(), "{number}");
        }
        let early = WalRange { end: Lsn(0x400_00FF), ..range };
        assert!(whole_log(&[early], &all, stop, SEGMENT).is_err());
        assert!(whole_log(&[], &all, stop, SEGMENT).is_err());
    }

    #[test]
    fn a_database_name_never_leaves_its_folder() {
        assert_eq!(file_name("shop"), "shop");
        assert_eq!(file_name("../etc/\0x"), "%2E%2E%2Fetc%2F%00x");
    }
}
