//! The files of `archive_command` and `restore_command`: segments, the part of one that a promotion leaves behind,
//! histories of timelines, and the labels of base backups.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use lifeboat_base::capture::CaptureFacts;
use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::time::Timestamp;
use lifeboat_postgres::lsn::{parse_segment_name, segment_name};
use lifeboat_postgres::wal::{
    Event, SegmentFacts, SegmentScan, Span, TimelineHistory, WalError, history_name, parse_history_name,
};
use lifeboat_postgres::{Lsn, Timeline};

use super::adapter::PostgresAdapter;
use super::replay;
use crate::archive::{LogFile, LogFiles, LogPart, WantedLog};
use crate::continuous::LogPosition;

/// A segment is at most this large (`initdb --wal-segsize=1024`).
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
/// A history has a line for each promotion.
const MAX_HISTORY_BYTES: u64 = 16 << 20;
const PARTIAL: &str = ".partial";
/// What the server writes down for a promotion; which of its reasons it was is not kept.
const REASON: &str = "no recovery target specified";
/// Where the first page of a segment names the timeline it was written on.
const PAGE_TIMELINE: std::ops::Range<usize> = 4..8;
/// Where it names the cluster.
const PAGE_SYSTEM: std::ops::Range<usize> = 24..32;
/// Where it names the size of a segment.
const PAGE_SEGMENT_BYTES: std::ops::Range<usize> = 32..36;

fn fail(kind: FailureKind, what: impl Into<String>) -> Failure {
    Failure::new(kind, what)
}

fn is_segment(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

/// `SEGMENT.OFFSET.backup`, which tells where a base backup started and ended.
fn is_label(name: &str) -> bool {
    let parts = name.strip_suffix(".backup").and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(segment, offset)| {
        is_segment(segment)
            && offset.len() == 8
            && offset.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
    })
}

fn unknown_name(name: &str) -> Failure {
    let name = lifeboat_base::human::printable(name);
    fail(FailureKind::Usage, format!("`{name}` is not the name of a file that a server archives"))
}

/// A file of at most `limit_bytes`.
fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit_bytes + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::io(format!("failed to read {}", path.display()), error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(fail(
            FailureKind::Refused,
            format!("{} is larger than such a file can be", path.display()),
        ));
    }
    Ok(bytes)
}

fn parse_history(name: &str, content: &[u8]) -> Result<TimelineHistory, Failure> {
    let text = std::str::from_utf8(content)
        .map_err(|_not_text| fail(FailureKind::Damaged, format!("the history {name} is not text")))?;
    TimelineHistory::parse(name, text).map_err(|error| {
        Failure::with_source(error.kind(), format!("the history {name} cannot be read"), error)
    })
}

/// The history of a timeline as its server has it, else as it was handed over before; they must not differ.
fn history_of(timeline: Timeline, beside: &Path, kept: &Path) -> Result<Option<TimelineHistory>, Failure> {
    let name = history_name(timeline);
    let mut found = None;
    for folder in [beside, kept] {
        let path = folder.join(&name);
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) if error.kind() == ErrorKind::NotADirectory => continue,
            Err(error) => return Err(Failure::io(format!("failed to look for {}", path.display()), error)),
        }
        let content = read(&path, MAX_HISTORY_BYTES)?;
        if found.as_ref().is_some_and(|known| *known != content) {
            let what = format!(
                "{} and {}, which was handed over before, are two histories of one timeline: move the wrong one aside",
                beside.join(&name).display(),
                path.display()
            );
            return Err(fail(FailureKind::Refused, what));
        }
        found = Some(content);
    }
    found.map(|content| parse_history(&name, &content)).transpose()
}

/// Where the ancestors were left; a timeline that owns nothing is passed over.
fn left(history: &TimelineHistory) -> Vec<LogPosition> {
    let left = |span: &Span| Some(LogPosition { timeline: span.timeline, offset: span.end?.0 });
    history.spans().iter().filter_map(left).collect()
}

/// The cluster whose folder of log a file lies in, as its control file says, whose first eight bytes name it; nothing for
/// a file that lies elsewhere.
fn cluster_around(path: &Path) -> Option<String> {
    let control = path.parent()?.parent()?.join("global/pg_control");
    let mut found = [0; 8];
    File::open(control).ok()?.read_exact(&mut found).ok()?;
    Some(u64::from_le_bytes(found).to_string())
}

fn time_of(event: &Event) -> Option<Timestamp> {
    match event {
        Event::Commit { at, .. }
        | Event::Abort { at, .. }
        | Event::Prepare { at, .. }
        | Event::RestorePoint { at, .. } => Some(*at),
        _ => None,
    }
}

/// A segment that was read, and how much of it is log.
struct Segment<'a> {
    name: &'a str,
    content: &'a [u8],
    facts: SegmentFacts,
    events: Vec<Event>,
    /// Where the log ends in it.
    end: Lsn,
}

impl<'a> Segment<'a> {
    /// Reads a segment; of a partial one, which ends anywhere, what stands before the end of its last whole record.
    fn scan(name: &'a str, content: &'a [u8], partial: bool) -> Result<Self, Failure> {
        let refused = |error: WalError| {
            Failure::with_source(error.kind(), format!("{name} cannot be replayed by a recovery"), error)
        };
        let mut scan = SegmentScan::new(name, None);
        let mut events = Vec::new();
        match scan.feed(content, &mut events) {
            // What follows the last record of a part may be anything; that it is a part of this log is checked below.
            Err(_end) if partial => {}
            other => other.map_err(refused)?,
        }
        let facts = scan.finish().map_err(refused)?;
        let full = Lsn(facts.start.0 + content.len() as u64);
        let end =
            if partial || facts.log_end.is_some() { facts.record_end.unwrap_or(facts.start) } else { full };
        Ok(Self { name, content, facts, events, end: end.min(full) })
    }

    /// What each timeline owns of it.
    fn parts(&self, history: Option<&TimelineHistory>) -> Result<Vec<LogPart>, Failure> {
        let (start, timeline) = (self.facts.start, self.facts.timeline);
        let Some(history) = history else {
            if timeline > 1 && self.page_timeline(0) != Some(timeline) {
                let what = format!(
                    "{} begins on an older timeline, and {} is neither beside it nor was it archived before",
                    self.name,
                    history_name(timeline)
                );
                return Err(fail(FailureKind::Refused, what));
            }
            return Ok(self.part(timeline, start, self.end, None).into_iter().collect());
        };
        self.fits(history)?;
        let mut parts = Vec::new();
        let mut older: Option<Timeline> = None;
        for span in history.spans() {
            let (begin, end) = (span.begin.max(start), span.end.unwrap_or(self.end).min(self.end));
            if begin < end {
                let entered = older.filter(|_| span.begin >= start);
                let follows = entered.map(|timeline| LogPosition { timeline, offset: span.begin.0 });
                parts.extend(self.part(span.timeline, begin, end, follows));
            }
            older = Some(span.timeline);
        }
        Ok(parts)
    }

    /// Every page must be of the timeline that the history says owns its first byte.
    fn fits(&self, history: &TimelineHistory) -> Result<(), Failure> {
        let page_bytes = u64::from(self.facts.shape.page_bytes);
        let mut at = 0;
        while self.facts.start.0 + at < self.end.0 {
            let expected = history.timeline_at(Lsn(self.facts.start.0 + at));
            // The filler after a switch may have no headers.
            let found = self.page_timeline(at).filter(|timeline| *timeline > 0);
            if let Some(found) = found.filter(|found| *found != expected) {
                let what = format!(
                    "{} has a page of timeline {found} where its history says {expected}: it is a segment of another history",
                    self.name
                );
                return Err(fail(FailureKind::Refused, what));
            }
            at += page_bytes;
        }
        Ok(())
    }

    fn page_timeline(&self, at: u64) -> Option<Timeline> {
        let page = self.content.get(usize::try_from(at).ok()?..)?;
        page.get(PAGE_TIMELINE)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn part(
        &self,
        timeline: Timeline,
        begin: Lsn,
        end: Lsn,
        follows: Option<LogPosition>,
    ) -> Option<LogPart> {
        let inside = |at: Lsn| usize::try_from(at.0 - self.facts.start.0).ok();
        let mut changes = None;
        for event in self.events.iter().filter(|event| event.end() > begin && event.end() <= end) {
            let Some(at) = time_of(event) else { continue };
            let (oldest, newest) = changes.unwrap_or((at, at));
            changes = Some((at.min(oldest), at.max(newest)));
        }
        let span = inside(begin)?..inside(end)?;
        (!span.is_empty()).then_some(LogPart {
            first: LogPosition { timeline, offset: begin.0 },
            span,
            follows,
            changes,
        })
    }
}

impl LogFiles for PostgresAdapter {
    fn examine(&self, path: &Path, histories: &Path) -> Result<LogFile, Failure> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(timeline) = parse_history_name(name) {
            let content = read(path, MAX_HISTORY_BYTES)?;
            let left = left(&parse_history(name, &content)?);
            return Ok(LogFile::History { timeline, content, left, identity: cluster_around(path) });
        }
        if is_label(name) {
            return Ok(LogFile::Needless("every recovery point says itself where it starts and ends"));
        }
        let segment = name.strip_suffix(PARTIAL).unwrap_or(name);
        if !is_segment(segment) {
            return Err(unknown_name(name));
        }
        let content = read(path, MAX_SEGMENT_BYTES)?;
        let scanned = Segment::scan(segment, &content, segment != name)?;
        let history = match scanned.facts.timeline {
            1 => None,
            timeline => history_of(timeline, path.parent().unwrap_or(Path::new(".")), histories)?,
        };
        let parts = scanned.parts(history.as_ref())?;
        let identity = scanned.facts.system_identifier.to_string();
        Ok(LogFile::Log { identity, content, parts })
    }

    fn wanted(&self, name: &str) -> Result<WantedLog, Failure> {
        match parse_history_name(name) {
            Some(timeline) => Ok(WantedLog::History(timeline)),
            None if is_segment(name) => Ok(WantedLog::Segment),
            None if is_label(name) || name.strip_suffix(PARTIAL).is_some_and(is_segment) => {
                Ok(WantedLog::Needless)
            }
            None => Err(unknown_name(name)),
        }
    }

    fn segment_start(&self, name: &str, segment_bytes: u32) -> Option<LogPosition> {
        let (timeline, start) = parse_segment_name(name, segment_bytes)?;
        Some(LogPosition { timeline, offset: start.0 })
    }

    fn segment_name(&self, start: LogPosition, segment_bytes: u32) -> String {
        segment_name(start.timeline, Lsn(start.offset), segment_bytes)
    }

    fn segment_bytes(&self, facts: &CaptureFacts) -> Result<u32, Failure> {
        replay::segment_bytes(facts)
    }

    fn segment_bytes_in(&self, content: &[u8]) -> Option<u32> {
        let size = content.get(PAGE_SEGMENT_BYTES)?.try_into().ok().map(u32::from_le_bytes)?;
        (size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size)).then_some(size)
    }

    fn check(&self, name: &str, identity: Option<&str>, content: &[u8]) -> Result<String, Failure> {
        let wrong = |error: WalError| {
            // Whatever is wrong with log that was kept, it is not what was put there.
            Failure::with_source(
                FailureKind::Damaged,
                format!("{name} as it was kept cannot be replayed"),
                error,
            )
        };
        let known = identity.and_then(|identity| identity.parse().ok());
        let mut scan = SegmentScan::new(name, known);
        scan.feed(content, &mut Vec::new()).map_err(wrong)?;
        let segment_bytes = self.segment_bytes_in(content).map(|size| size as usize);
        if segment_bytes == Some(content.len()) {
            return Ok(scan.finish().map_err(wrong)?.system_identifier.to_string());
        }
        // Less than a header holds no record, whoever's it is.
        let found = content.get(PAGE_SYSTEM).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        Ok(found.map_or_else(|| identity.unwrap_or_default().to_owned(), |found| found.to_string()))
    }

    fn history_name(&self, timeline: u32) -> String {
        history_name(timeline)
    }

    fn history(&self, timeline: u32, left: &[LogPosition]) -> Option<Vec<u8>> {
        let mut path = left.iter().map(|at| at.timeline).chain([timeline]);
        let mut history = TimelineHistory::root(path.next()?);
        for (at, child) in left.iter().zip(path) {
            history = history.fork(child, Lsn(at.offset), REASON)?;
        }
        Some(history.to_string().into_bytes())
    }

    fn history_left(&self, timeline: u32, content: &[u8]) -> Result<Vec<LogPosition>, Failure> {
        Ok(left(&parse_history(&history_name(timeline), content)?))
    }
}
