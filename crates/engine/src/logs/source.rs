//! Kept log as a restore reads it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use lifeboat_base::failure::{Failure, FailureKind};
use lifeboat_base::ids::StreamName;
use lifeboat_base::time::Timestamp;
use lifeboat_stores::{LogPosition, LogSource};
use lifeboat_vault::logs::{Inventory, LogName, Logs, PieceState, Position};

/// The log of one vault along the way from a point to an end. Memory: one object of at most 64 MiB.
pub(crate) struct KeptLog {
    logs: Logs,
    stream: StreamName,
    pieces: Vec<LogName>,
    path: Vec<(u32, u64, u64)>,
    /// The object read last; neighbours are asked for one after the other.
    last: Mutex<Option<(LogName, Vec<u8>)>>,
    fetched_bytes: AtomicU64,
}

impl KeptLog {
    /// The way from `from` to `to` through the timelines that lead there.
    pub(crate) fn new(
        logs: Logs,
        stream: StreamName,
        inventory: &Inventory,
        from: Position,
        to: Position,
    ) -> Result<Self, Failure> {
        let present = inventory.pieces.iter().filter(|piece| piece.state == PieceState::Present);
        let pieces = present.map(|piece| piece.name).collect();
        let mut entries: BTreeMap<u32, (u64, Position)> = BTreeMap::new();
        for piece in &inventory.pieces {
            if let Some(follows) = piece.follows {
                let first = piece.name.first();
                entries.entry(first.timeline).or_insert((first.offset, follows));
            }
        }
        let mut path = Vec::new();
        let mut end = to;
        while end.timeline > from.timeline {
            let Some((entered, follows)) = entries.get(&end.timeline).copied() else {
                let what = format!("how timeline {} was entered is not known", end.timeline);
                return Err(Failure::new(FailureKind::Damaged, what));
            };
            if follows.timeline >= end.timeline {
                return Err(Failure::new(FailureKind::Damaged, "a timeline that follows itself"));
            }
            path.push((end.timeline, entered, end.offset));
            end = follows;
        }
        if end.offset > from.offset {
            path.push((end.timeline, from.offset, end.offset));
        }
        path.reverse();
        Ok(Self { logs, stream, pieces, path, last: Mutex::new(None), fetched_bytes: AtomicU64::new(0) })
    }

    /// Bytes of log read so far.
    pub(crate) fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Ordering::Relaxed)
    }
}

impl KeptLog {
    /// The pieces on the way, in order.
    fn on_the_way(&self) -> Vec<LogName> {
        let mut names = Vec::new();
        for (timeline, from, to) in &self.path {
            let fits = |name: &&LogName| {
                let (first, last) = (name.first(), name.last());
                first.timeline == *timeline && last.offset > *from && first.offset < *to
            };
            let mut here: Vec<LogName> = self.pieces.iter().filter(fits).copied().collect();
            here.sort_unstable();
            names.extend(here);
        }
        names
    }

    /// When the bytes of a piece arrived: offsets, and milliseconds since 1970.
    fn marks(&self, name: LogName) -> Result<Vec<(u64, i64)>, Failure> {
        let (header, content) = self.logs.read(&self.stream, name).map_err(Failure::from)?;
        self.fetched_bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
        let (mut offset, mut at) = (header.first.offset, 0_i64);
        Ok(header
            .marks
            .iter()
            .map(|(more, later)| {
                (offset, at) = (offset.saturating_add(*more), at.saturating_add(*later));
                (offset, at)
            })
            .collect())
    }
}

impl LogSource for KeptLog {
    fn arrived_by(&self, moment: Timestamp) -> Result<Option<LogPosition>, Failure> {
        let names = self.on_the_way();
        let moment_ms = moment.as_millisecond();
        // The last piece that had begun to arrive by then; those before it had arrived whole.
        let (mut low, mut high) = (0, names.len());
        let mut found = None;
        while low < high {
            let middle = low.midpoint(high);
            // A piece without marks, such as half of one that had few, says nothing: the next one does.
            let mut marked = None;
            for (index, name) in names.iter().enumerate().take(high).skip(middle) {
                let marks = self.marks(*name)?;
                if !marks.is_empty() {
                    marked = Some((index, name.first().timeline, marks));
                    break;
                }
            }
            let Some((index, timeline, marks)) = marked else {
                high = middle;
                continue;
            };
            match marks.iter().rfind(|(_, at)| *at <= moment_ms) {
                Some((offset, _)) => {
                    found = Some(LogPosition { timeline, offset: *offset });
                    low = index + 1;
                }
                None => high = middle,
            }
        }
        Ok(found)
    }

    fn read(&self, timeline: u32, from: u64, to: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut at = from;
        for name in &self.pieces {
            let (first, last) = (name.first(), name.last());
            if first.timeline != timeline || last.offset <= at || first.offset > at {
                continue;
            }
            let mut cached = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if cached.as_ref().is_none_or(|(held, _)| held != name) {
                let (_header, content) = self.logs.read(&self.stream, *name).map_err(Failure::from)?;
                self.fetched_bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
                *cached = Some((*name, content));
            }
            let end = last.offset.min(to);
            let span = usize::try_from(at - first.offset).ok().zip(usize::try_from(end - first.offset).ok());
            let part =
                cached.as_ref().zip(span).and_then(|((_, content), (start, end))| content.get(start..end));
            bytes.extend_from_slice(part.unwrap_or_default());
            at = end;
            if at >= to {
                break;
            }
        }
        if at < to {
            let what = format!("the log of timeline {timeline} ends at {at:X}, before {to:X}");
            return Err(Failure::new(FailureKind::Damaged, what));
        }
        Ok(bytes)
    }

    fn path(&self) -> &[(u32, u64, u64)] {
        &self.path
    }
}
