//! Prepares a restored cluster to replay its log up to a goal.
//!
//! The segments are written into `pg_wal`, so that the cluster needs nothing but itself to recover. Memory: one segment.

use std::io;
use std::path::Path;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::folder::Folder;
use lifeboat_base::time::Timestamp;
use lifeboat_postgres::lsn::segment_name;
use lifeboat_postgres::wal::{Event, Scanner, TimelineHistory, WalShape, history_name};
use lifeboat_postgres::{Lsn, Timeline};
use serde_json::Value;

use super::restore::{AUTO_CONF, hand_over, read_settings, take_over};
use crate::continuous::{Goal, LogPosition, LogSource, Stop};

const PAGE_BYTES: u32 = 8192;
/// Lines between these marks are ours; a sandbox is given the same settings.
const BEGIN_MARK: &str = "# recovery settings of lifeboat: begin\n";
const END_MARK: &str = "# recovery settings of lifeboat: end\n";
const SIGNAL: &str = "recovery.signal";
/// Everything is in `pg_wal`: the archive a server insists on has nothing.
const NO_ARCHIVE: &str = "false";
const LOG: &str = "pg_wal";
/// A history names every timeline before its own in a line; no cluster has this many.
const MAX_HISTORY_BYTES: u64 = 16 * 1024 * 1024;

/// Where the point's own log ends: the end of the segment its backup stopped in.
pub(crate) fn base_end(facts: &CaptureFacts) -> Result<LogPosition, Failure> {
    let segment = u64::from(segment_bytes(facts)?);
    let stop: Lsn =
        text(facts, "stop_lsn").and_then(|text| text.parse().ok()).ok_or_else(|| unknown("stop_lsn"))?;
    let timeline = facts.environment.get("timeline").and_then(Value::as_u64);
    let timeline =
        timeline.and_then(|timeline| u32::try_from(timeline).ok()).ok_or_else(|| unknown("timeline"))?;
    Ok(LogPosition { timeline, offset: stop.0.div_ceil(segment) * segment })
}

fn text<'a>(facts: &'a CaptureFacts, name: &str) -> Option<&'a str> {
    facts.environment.get(name).and_then(Value::as_str)
}

fn unknown(name: &str) -> Failure {
    Failure::new(FailureKind::Internal, format!("the recovery point does not say its {name}"))
}

/// The size of a log segment of the captured cluster.
pub(crate) fn segment_bytes(facts: &CaptureFacts) -> Result<u32, Failure> {
    let size = facts.environment.get("wal_segment_bytes").and_then(Value::as_u64);
    let size = size.and_then(|size| u32::try_from(size).ok()).filter(|size| size.is_power_of_two());
    size.ok_or_else(|| unknown("wal_segment_bytes"))
}

/// What the scan of the log found of the goal.
#[derive(Default)]
struct Found {
    /// A change after the moment asked for: recovery can tell where to stop.
    after: Option<Timestamp>,
    /// The goal itself.
    goal: bool,
}

impl Found {
    fn see(&mut self, event: &Event, goal: &Goal) {
        match (event, goal) {
            (Event::Commit { at, .. } | Event::Abort { at, .. }, Goal::Moment(moment)) if at > moment => {
                self.after = Some(*at);
            }
            (Event::RestorePoint { name, .. }, Goal::Named(wanted)) => self.goal |= name == wanted,
            (Event::Commit { xid, .. }, Goal::Transaction(wanted)) => self.goal |= u64::from(*xid) == *wanted,
            _ => {}
        }
    }

    fn done(&self) -> bool {
        self.goal || self.after.is_some()
    }
}

/// Writes the log and the settings. The first start then recovers up to the goal.
pub(crate) fn replay(
    facts: &CaptureFacts,
    restored: &Path,
    log: &dyn LogSource,
    goal: &Goal,
) -> Result<Stop, Failure> {
    let shape = WalShape { segment_bytes: segment_bytes(facts)?, page_bytes: PAGE_BYTES };
    let base = base_end(facts)?;
    let system = text(facts, "system_identifier").and_then(|text| text.parse().ok());
    let failed = |error| Failure::io("failed to work in the restored cluster", error);
    let cluster = Folder::open(restored).map_err(failed)?;
    let owner = take_over(&cluster).map_err(failed)?;
    let writer = Writer { folder: cluster.inner(LOG).map_err(failed)?, shape, system, owner };
    let mut history = base_history(&writer.folder, base.timeline)?;
    let mut found = Found::default();
    let mut last = base.timeline;
    for (timeline, from, to) in log.path().iter().copied() {
        if timeline != history.timeline() {
            let reason = "no recovery target specified";
            history = history.fork(timeline, Lsn(from), reason).ok_or_else(|| {
                Failure::new(
                    FailureKind::Damaged,
                    format!("timeline {timeline} does not follow from what is kept"),
                )
            })?;
            writer.write(&history_name(timeline), history_text(&history).as_bytes())?;
        }
        last = timeline;
        if writer.segments(log, (timeline, from, to), &history, &mut |event| found.see(event, goal), goal)?
            || found.done()
        {
            break;
        }
    }
    let end = log.path().last().map_or(base.offset, |(_, _, to)| *to);
    let target = target(goal, &found, end)?;
    let stop = if target.is_some() { Stop::Goal } else { Stop::End };
    let mut told = vec![
        ("restore_command", NO_ARCHIVE.to_owned()),
        ("recovery_target_timeline", last.to_string()),
        ("recovery_target_action", "promote".to_owned()),
    ];
    told.extend(target);
    configure(&cluster, &told, owner)
        .and_then(|()| hand_over(&cluster, owner))
        .map_err(|error| Failure::io("failed to prepare the recovery", error))?;
    Ok(stop)
}

/// The history of the timeline the backup was taken on; its file, if it has one, came with the backup.
fn base_history(log: &Folder, timeline: Timeline) -> Result<TimelineHistory, Failure> {
    if timeline == 1 {
        return Ok(TimelineHistory::root(1));
    }
    let name = history_name(timeline);
    let failed = |error| Failure::io(format!("failed to read the history {LOG}/{name}"), error);
    let found = log.read(&name, MAX_HISTORY_BYTES).map_err(failed)?;
    let (_, bytes) = found.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let text = String::from_utf8_lossy(&bytes);
    TimelineHistory::parse(&name, &text).map_err(|error| {
        Failure::with_source(error.kind(), format!("the history {name} cannot be read"), error)
    })
}

fn history_text(history: &TimelineHistory) -> String {
    let line =
        |fork: &lifeboat_postgres::wal::Fork| format!("{}\t{}\t{}\n", fork.parent, fork.switch, fork.reason);
    history.forks().iter().map(line).collect()
}

struct Writer {
    folder: Folder,
    shape: WalShape,
    /// The cluster the point is of: log of another one is not written.
    system: Option<u64>,
    owner: (u32, u32),
}

impl Writer {
    /// Writes the segments of one timeline; true if the goal lies in them and the rest is not needed.
    fn segments(
        &self,
        log: &dyn LogSource,
        (timeline, from, to): (u32, u64, u64),
        history: &TimelineHistory,
        see: &mut dyn FnMut(&Event),
        goal: &Goal,
    ) -> Result<bool, Failure> {
        let size = u64::from(self.shape.segment_bytes);
        let start = Lsn(from).segment_start(self.shape.segment_bytes);
        let mut scanner = Scanner::new(self.shape, timeline, self.system, start)
            .map_err(|error| Failure::with_source(error.kind(), "the log cannot be read", error))?
            .with_history(history.clone());
        let mut at = start.0;
        while at < to {
            let end = (at + size).min(to);
            let mut bytes = self.prefix(history, timeline, at, from)?;
            bytes.extend(log.read(timeline, at.max(from), end)?);
            if bytes.len() as u64 != end - at {
                return Err(Failure::new(
                    FailureKind::Damaged,
                    "a piece of the log is shorter than its name says",
                ));
            }
            let mut events = Vec::new();
            let scanned = scanner.feed(&bytes, &mut events);
            events.iter().for_each(&mut *see);
            scanned.map_err(|error| {
                Failure::with_source(FailureKind::Damaged, "the kept log is damaged", error)
            })?;
            bytes.resize(usize::try_from(size).unwrap_or(usize::MAX), 0);
            self.write(&segment_name(timeline, Lsn(at), self.shape.segment_bytes), &bytes)?;
            if matches!(goal, Goal::Position(position) if *position < end) {
                return Ok(true);
            }
            if beyond(&events, goal) {
                return Ok(true);
            }
            at += size;
        }
        Ok(false)
    }

    /// A timeline that begins inside a segment begins with a copy of what its parent wrote there.
    fn prefix(
        &self,
        history: &TimelineHistory,
        timeline: Timeline,
        at: u64,
        from: u64,
    ) -> Result<Vec<u8>, Failure> {
        if at >= from {
            return Ok(Vec::new());
        }
        let parent = history.forks().last().map_or(timeline, |fork| fork.parent);
        let name = segment_name(parent, Lsn(at), self.shape.segment_bytes);
        let limit_bytes = u64::from(self.shape.segment_bytes);
        let wanted = usize::try_from(from - at).unwrap_or(usize::MAX);
        let failed = |error| Failure::io(format!("failed to read {LOG}/{name}"), error);
        let found = self.folder.read(&name, limit_bytes).map_err(failed)?;
        let (_, mut bytes) = found.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        if bytes.len() < wanted {
            return Err(Failure::new(FailureKind::Damaged, format!("{LOG}/{name} is cut short")));
        }
        bytes.truncate(wanted);
        Ok(bytes)
    }

    /// A file of the log; one that came with the backup is replaced, as the log may know more of its segment.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.folder
            .write(name, &[bytes], Some(self.owner))
            .map_err(|error| Failure::io(format!("failed to write the log segment {LOG}/{name}"), error))
    }
}

fn beyond(events: &[Event], goal: &Goal) -> bool {
    let mut found = Found::default();
    for event in events {
        found.see(event, goal);
    }
    found.done()
}

/// What the server is told. A moment after which nothing was committed is no target: the server could not tell that it
/// was reached.
/// What makes recovery stop before the log ends, if anything does.
fn target(goal: &Goal, found: &Found, end: u64) -> Result<Option<(&'static str, String)>, Failure> {
    let missing = |what: String| Failure::new(FailureKind::Refused, format!("the log holds no {what}"));
    Ok(match goal {
        Goal::Moment(moment) if found.after.is_some() => {
            let utc = moment.strftime("%Y-%m-%d %H:%M:%S%.6f+00");
            Some(("recovery_target_time", utc.to_string()))
        }
        Goal::Moment(_) | Goal::Latest => None,
        // The end of the log cannot be recognised as a target: nothing follows it.
        Goal::Position(position) if *position >= end => None,
        Goal::Position(position) => Some(("recovery_target_lsn", Lsn(*position).to_string())),
        Goal::Named(name) if found.goal => Some(("recovery_target_name", name.clone())),
        Goal::Named(name) => return Err(missing(format!("restore point `{name}`"))),
        Goal::Transaction(xid) if found.goal => Some(("recovery_target_xid", xid.to_string())),
        Goal::Transaction(xid) => return Err(missing(format!("commit of transaction {xid}"))),
    })
}

fn configure(cluster: &Folder, told: &[(&str, String)], owner: (u32, u32)) -> io::Result<()> {
    let before = read_settings(cluster)?;
    let mut lines = String::new();
    for (name, value) in told {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        lines.extend([name, " = '", &value, "'\n"]);
    }
    let ours = [&before, BEGIN_MARK.as_bytes(), lines.as_bytes(), END_MARK.as_bytes()];
    cluster.write(AUTO_CONF, &ours, Some(owner))?;
    cluster.write(SIGNAL, &[], Some(owner))
}

/// The settings a restored cluster is to recover with, as [`replay`] wrote them; none if it needs no log.
pub(crate) fn recovery_target(restored: &Path) -> Result<Vec<(String, String)>, Failure> {
    let look = || {
        let cluster = Folder::open(restored)?;
        let signal = cluster.look(SIGNAL)?;
        Ok((signal.is_some(), read_settings(&cluster)?))
    };
    let (signal, text) =
        look().map_err(|error: io::Error| Failure::io(format!("failed to read {AUTO_CONF}"), error))?;
    let text = String::from_utf8_lossy(&text);
    let ours = text.rsplit_once(BEGIN_MARK).and_then(|(_, rest)| rest.split_once(END_MARK));
    let Some((lines, _)) = ours.filter(|_| signal) else { return Ok(Vec::new()) };
    let setting = |line: &str| {
        let (name, value) = line.split_once(" = ")?;
        let value = value.strip_prefix('\'')?.strip_suffix('\'')?;
        Some((name.to_owned(), value.replace("''", "'").replace("\\\\", "\\")))
    };
    Ok(lines.lines().filter_map(setting).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use lifeboat_base::capture::{Consistency, ConsistencyLevel};
    use lifeboat_testkit::{PgOptions, PgServer};
    use serde_json::json;

    use super::*;

    /// A whole segment as it was kept.
    struct Kept {
        bytes: Vec<u8>,
        path: [(u32, u64, u64); 1],
    }

    impl LogSource for Kept {
        fn arrived_by(&self, _moment: Timestamp) -> Result<Option<LogPosition>, Failure> {
            Ok(None)
        }

        fn read(&self, _timeline: u32, from: u64, to: u64) -> Result<Vec<u8>, Failure> {
            let inside = |at: u64| usize::try_from(at - self.path[0].1).unwrap();
            Ok(self.bytes[inside(from)..inside(to)].to_vec())
        }

        fn path(&self) -> &[(u32, u64, u64)] {
            &self.path
        }
    }

    #[test]
    fn log_of_another_cluster_is_never_written_into_a_restored_one() {
        let server = PgServer::start(PgOptions::new(15).initdb("--wal-segsize=1"));
        let name = server.psql("SELECT pg_walfile_name(pg_switch_wal())");
        let bytes = fs::read(server.data().join("pg_wal").join(&name)).unwrap();
        let (_, start) = lifeboat_postgres::lsn::parse_segment_name(&name, 1 << 20).unwrap();
        let log = Kept { bytes, path: [(1, start.0, start.0 + (1 << 20))] };
        let system = server.psql("SELECT system_identifier FROM pg_control_system()");
        let replayed = |system: &str| {
            let environment = [
                ("stop_lsn", json!(start.to_string())),
                ("timeline", json!(1)),
                ("wal_segment_bytes", json!(1 << 20)),
                ("system_identifier", json!(system)),
            ];
            let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
            let moment = Timestamp::UNIX_EPOCH;
            let level = ConsistencyLevel::PointInTime;
            let facts = CaptureFacts {
                consistency: Consistency { level, moment, position: None, changes: 0 },
                logical_bytes: 0,
                counts: BTreeMap::new(),
                checksums: BTreeMap::new(),
                environment,
                unreadable: Vec::new(),
            };
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("pg_wal")).unwrap();
            lifeboat_base::crashsafe::write_new(&folder.path().join("PG_VERSION"), b"15\n").unwrap();
            let done = replay(&facts, folder.path(), &log, &Goal::Latest);
            (done, folder.path().join("pg_wal").join(&name).exists())
        };
        let (done, written) = replayed(&system);
        assert!(done.is_ok() && written, "{done:?}");
        let (done, written) = replayed("7");
        assert_eq!(done.unwrap_err().kind(), FailureKind::Damaged);
        assert!(!written);
    }
}
